//! Putting interrupts into list registers, and taking back what became of them.
//!
//! One vCPU, loaded on the current physical CPU, is seen at a time. Its list registers are read only where
//! something depends on them; which are in use is remembered.

use crate::bank::{Bank, Bits};
use crate::ids::{IntId, VcpuId};
use crate::state::{BUSY, LOOK, MAX_LIST_REGISTERS, RECHECK, Shared, Vcpu};
use crate::{CpuInterface, Hardware, Line, ListRegister, ListRegisters, Maintenance, Model, Physical};

/// A loaded vCPU and what it shares with the others.
pub(crate) struct Cpu<'a> {
    pub id: VcpuId,
    pub vcpu: &'a mut Vcpu,
    pub shared: &'a mut Shared,
    /// Words with SPIs that were here and may now be due elsewhere.
    pub stray: u32,
}

/// An interrupt chosen for a list register.
pub(crate) struct Chosen {
    pub word: usize,
    pub bit: u32,
    pub priority: u8,
}

/// Bit `n` of a word.
pub(crate) fn bit(n: u32) -> u32 {
    1u32.wrapping_shl(n)
}

impl Cpu<'_> {
    pub fn bank(&mut self, word: usize) -> Option<&mut Bank> {
        if word == 0 {
            return Some(&mut self.vcpu.bank);
        }
        self.shared.banks.get_mut(word.wrapping_sub(1))
    }

    /// A GICv2 SGI: several sources may wait, one of them in a list register.
    pub fn has_sources(&self, intid: IntId) -> bool {
        self.shared.model == Model::V2 && intid.is_sgi()
    }

    pub fn line(&self, virt: IntId) -> Option<Line> {
        Some(Line { vcpu: self.id, virt, physical: self.shared.physical(self.vcpu, virt)? })
    }

    /// Bring list registers and interrupt state together: take back what the guest finished, correct what
    /// changed, fill what is free.
    pub fn resync(&mut self, hw: &mut impl Hardware) {
        self.vcpu.attention &= !LOOK;
        self.vcpu.attention |= if self.vcpu.again == 0 { 0 } else { RECHECK };
        self.vcpu.again = 0;
        if self.vcpu.used != 0 {
            self.reap(hw);
        }
        let mut known = false;
        if self.vcpu.attention & RECHECK != 0 {
            self.refresh(hw);
            known = true;
        }
        let mut reasons = Maintenance::NONE;
        if self.vcpu.spilled != 0 {
            self.count_deactivations(hw);
            self.reload_active(hw, 1);
        }
        if self.vcpu.waiting != 0 {
            reasons = self.fill(hw, known);
        }
        if self.vcpu.spilled != 0 {
            self.reload_active(hw, 0);
            if self.vcpu.spilled != 0 {
                reasons = reasons.and(Maintenance::EOI_COUNT).and(Maintenance::TRAP_DIR);
            }
        }
        if reasons != self.vcpu.maintenance {
            self.vcpu.maintenance = reasons;
            hw.set_maintenance(reasons);
        }
        let busy = self.vcpu.spilled | self.vcpu.eoi | reasons.bits();
        self.vcpu.attention = self.vcpu.attention & !BUSY | if busy == 0 { 0 } else { BUSY };
    }

    /// Take back the interrupts that the guest has finished.
    #[inline]
    fn reap(&mut self, hw: &mut impl Hardware) {
        let mut done = hw.empty();
        if self.vcpu.eoi != 0 {
            done |= hw.ended() & self.vcpu.eoi;
        }
        done &= self.vcpu.used;
        for n in Bits(done) {
            if self.vcpu.eoi & bit(n) != 0 {
                // Written empty, it no longer raises the maintenance interrupt.
                hw.write(n as usize, ListRegister::EMPTY);
            }
            self.release(n);
        }
    }

    /// Register `n` has become empty: its interrupt is inactive, and pending only by what came after it was
    /// acknowledged, or because its line is still high.
    fn release(&mut self, n: u32) {
        let slot = self.slot(n);
        let (word, mask) = (slot.intid().word(), slot.intid().bit());
        let set_active = self.vcpu.set_active & bit(n) != 0;
        self.forget(n);
        let Some(bank) = self.bank(word) else { return };
        bank.loaded &= !mask;
        bank.taken &= !mask;
        bank.active &= !mask;
        let pending = bank.pending() & mask != 0;
        if set_active {
            bank.active |= mask;
            self.vcpu.spilled |= bit(word as u32);
        } else {
            self.set_held(word, mask, false);
            if pending {
                self.requeue(word, mask);
            }
        }
    }

    #[inline]
    fn slot(&self, n: u32) -> ListRegister {
        self.vcpu.slots.get(n as usize).copied().unwrap_or(ListRegister::EMPTY)
    }

    /// List register `n` is no longer in use.
    fn forget(&mut self, n: u32) {
        let keep = !bit(n);
        self.vcpu.used &= keep;
        self.vcpu.eoi &= keep;
        self.vcpu.pure &= keep;
        self.vcpu.set_active &= keep;
        self.vcpu.clear_active &= keep;
    }

    pub fn set_held(&mut self, word: usize, mask: u32, held: bool) {
        if word == 0 {
            return;
        }
        if let Some(word) = self.vcpu.held.get_mut(word) {
            *word = if held { *word | mask } else { *word & !mask };
        }
    }

    /// The interrupt is pending outside of list registers.
    pub fn requeue(&mut self, word: usize, mask: u32) {
        if word == 0 || self.vcpu.word(&self.vcpu.targets, word) & mask != 0 {
            self.vcpu.waiting |= bit(word as u32);
        } else {
            self.stray |= bit(word as u32);
        }
    }

    /// Read every list register in use, and write it where it should be different.
    pub fn refresh(&mut self, hw: &mut impl Hardware) {
        self.vcpu.attention &= !RECHECK;
        for n in Bits(self.vcpu.used) {
            self.refresh_one(n, hw);
        }
    }

    fn refresh_one(&mut self, n: u32, hw: &mut impl Hardware) {
        let read = hw.read(n as usize);
        let slot = self.slot(n);
        let intid = slot.intid();
        let (word, mask) = (intid.word(), intid.bit());
        let has_sources = self.has_sources(intid);
        let routed = self.vcpu.word(&self.vcpu.targets, word) & mask != 0;
        let clear_active = self.vcpu.clear_active & bit(n) != 0;
        let active = (read.active() || self.vcpu.set_active & bit(n) != 0) && !clear_active;
        self.vcpu.set_active &= !bit(n);
        self.vcpu.clear_active &= !bit(n);
        if !read.pending() && !active {
            if read.active() {
                self.deactivate_physically(intid, read.hw().is_some(), hw);
            }
            if read.active() || self.vcpu.eoi & bit(n) != 0 {
                hw.write(n as usize, ListRegister::EMPTY);
            }
            self.release(n);
            return;
        }
        if has_sources
            && active
            && let Some(source) = self.vcpu.sgi_active.get_mut(usize::from(intid.0))
        {
            *source = slot.source();
        }
        if has_sources && read.pending() {
            self.merge_source(slot);
        }
        let allowed = self.allowed(word);
        let Some(bank) = self.bank(word) else { return };
        if !read.pending() {
            // The guest has acknowledged it.
            bank.taken &= !mask;
        }
        bank.active = bank.active & !mask | if active { mask } else { 0 };
        // What this register may hold as pending. A GICv2 SGI's other sources wait for their own turn.
        let own = if has_sources { bank.taken } else { bank.pending() };
        let waiting = own & allowed & mask != 0;
        let wanted = waiting && routed;
        let level = bank.edge & mask == 0;
        let emulated = bank.mapped & mask == 0;
        // Pending while active: an edge is put beside the active state; anything else, or what is routed elsewhere
        // now, waits for its end.
        let pending = wanted && !(active && (level || has_sources || !emulated));
        let eoi = emulated
            && (level && bank.line & mask != 0
                || has_sources && bank.latch & mask != 0
                || active && waiting && !pending);
        let group1 = bank.group & mask != 0;
        let priority = if active { read.priority() >> 3 } else { bank.priority_of(mask) };
        if pending && !has_sources {
            bank.taken |= bank.latch & mask;
            bank.latch &= !mask;
        }
        if !pending && read.pending() {
            self.give_back(n, slot, hw);
        }
        if !pending && !active {
            hw.write(n as usize, ListRegister::EMPTY);
            self.unload(n, slot);
            return;
        }
        let mut value = read.with_priority(priority << 3, group1).with_state(pending, active);
        if emulated {
            value = value.with_eoi(eoi);
        }
        if value != read {
            hw.write(n as usize, value);
        }
        self.describe(n, value);
    }

    /// A GICv2 SGI is pending in a list register: sent again by the same source, it is still pending once.
    fn merge_source(&mut self, slot: ListRegister) {
        let Some(sources) = self.vcpu.sgi_sources.get_mut(usize::from(slot.intid().0)) else { return };
        *sources &= !1u8.wrapping_shl(u32::from(slot.source()));
        if *sources == 0 {
            self.vcpu.bank.latch &= !slot.intid().bit();
        }
    }

    /// The interrupts of a word that are enabled, their group too.
    fn allowed(&mut self, word: usize) -> u32 {
        let groups = self.shared.groups;
        self.bank(word).map_or(0, |bank| bank.allowed(groups))
    }

    /// Remember what was written to list register `n`.
    pub fn describe(&mut self, n: u32, value: ListRegister) {
        let vcpu = &mut *self.vcpu;
        if let Some(slot) = vcpu.slots.get_mut(n as usize) {
            *slot = value;
        }
        if let Some(slot) = vcpu.private_slots.get_mut(usize::from(value.intid().0)) {
            *slot = n as u8;
        }
        let flag = |set: bool| if set { bit(n) } else { 0 };
        vcpu.used |= bit(n);
        vcpu.eoi = vcpu.eoi & !bit(n) | flag(value.eoi());
        vcpu.pure = vcpu.pure & !bit(n) | flag(value.pending() && !value.active());
    }

    /// The pending state of list register `n` returns to the distributor.
    fn give_back(&mut self, n: u32, slot: ListRegister, hw: &mut impl Physical) {
        let (word, mask) = (slot.intid().word(), slot.intid().bit());
        let has_sources = self.has_sources(slot.intid());
        let Some(bank) = self.bank(word) else { return };
        let taken = bank.taken & mask;
        bank.taken &= !mask;
        if bank.mapped & mask != 0 {
            // Of a disabled level the physical distributor keeps the state: deactivated there, it is pending
            // again if its line is still high. Cleared by ICPENDR (not taken any more), it is over.
            if taken != 0 && (bank.edge | bank.enabled) & mask != 0 {
                bank.latch |= mask;
            } else {
                bank.latch &= !mask;
                self.deactivate_physically(slot.intid(), true, hw);
            }
        } else {
            bank.latch |= taken;
        }
        if has_sources
            && taken != 0
            && let Some(sources) = self.vcpu.sgi_sources.get_mut(usize::from(slot.intid().0))
        {
            *sources |= 1u8.wrapping_shl(u32::from(slot.source()));
        }
        self.vcpu.pure &= !bit(n);
    }

    pub fn deactivate_physically(&self, intid: IntId, mapped: bool, hw: &mut impl Physical) {
        if mapped && let Some(line) = self.line(intid) {
            hw.set_active(line, false);
        }
    }

    /// The interrupt leaves list register `n`, its pending state given back; an active one stays this vCPU's.
    fn unload(&mut self, n: u32, slot: ListRegister) {
        let (word, mask) = (slot.intid().word(), slot.intid().bit());
        self.forget(n);
        let Some(bank) = self.bank(word) else { return };
        bank.loaded &= !mask;
        let (active, pending) = (bank.active & mask != 0, bank.pending() & mask != 0);
        if active {
            self.vcpu.spilled |= bit(word as u32);
        } else {
            self.set_held(word, mask, false);
            if pending {
                self.requeue(word, mask);
            }
        }
    }

    /// Take the interrupt out of list register `n`, whose state is known, with whatever state it has.
    fn take_out(&mut self, n: u32, slot: ListRegister, hw: &mut impl Physical) {
        let mask = slot.intid().bit();
        let taken = self.bank(slot.intid().word()).is_some_and(|bank| bank.taken & mask != 0);
        if taken || self.vcpu.pure & bit(n) != 0 {
            self.give_back(n, slot, hw);
        }
        self.unload(n, slot);
    }

    /// Fill list registers with what waits, the highest priority first. Returns the reasons for which the rest
    /// must be looked at again.
    fn fill(&mut self, hw: &mut impl Hardware, known: bool) -> Maintenance {
        let count = hw.count().min(MAX_LIST_REGISTERS) as u32;
        let all = bit(count).wrapping_sub(1);
        let mut interface: Option<CpuInterface> = None;
        while let Some(chosen) = self.choose(interface) {
            let free = all & !self.vcpu.used;
            if free != 0 {
                self.load(free.trailing_zeros(), chosen.word, chosen.bit, hw);
                continue;
            }
            let Some(seen) = interface else {
                // What the guest has acknowledged must stay, and the rest depends on the groups that it wants:
                // choose again, knowing both.
                interface = Some(hw.interface());
                if !known {
                    self.refresh(hw);
                }
                continue;
            };
            let Some(n) = self.make_room(&chosen, seen, hw) else { break };
            self.load(n, chosen.word, chosen.bit, hw);
        }
        if self.vcpu.waiting == 0 {
            return Maintenance::NONE;
        }
        // With nothing pending in a list register the reason would hold at once, and again at every entry. Then
        // only groups that the guest doesn't let through are waiting.
        let mut reasons = if self.vcpu.pure != 0 { Maintenance::NONE_PENDING } else { Maintenance::NONE };
        if let Some(seen) = interface {
            // The guest's choice of groups decides what is worth a list register: look again when it changes.
            let group0 = if seen.group0 { Maintenance::GROUP0_DISABLED } else { Maintenance::GROUP0_ENABLED };
            let group1 = if seen.group1 { Maintenance::GROUP1_DISABLED } else { Maintenance::GROUP1_ENABLED };
            reasons = reasons.and(group0).and(group1);
        }
        reasons
    }

    /// The deliverable interrupt of the highest priority. Where list registers are short (`interface` given),
    /// only of the groups that the guest lets through.
    #[inline]
    fn choose(&mut self, interface: Option<CpuInterface>) -> Option<Chosen> {
        let mut best: Option<Chosen> = None;
        for word in Bits(self.vcpu.waiting) {
            let word = word as usize;
            let mut candidates = self.vcpu.deliverable(self.shared, word);
            if candidates == 0 {
                self.vcpu.waiting &= !bit(word as u32);
                continue;
            }
            let Some(bank) = self.bank(word) else { continue };
            if let Some(seen) = interface {
                let (group0, group1) = (u32::from(seen.group0), u32::from(seen.group1));
                candidates &= bank.group & group1.wrapping_neg() | !bank.group & group0.wrapping_neg();
            }
            let (priority, bit) = bank.highest(candidates);
            if bit != 0 && best.as_ref().is_none_or(|best| priority < best.priority) {
                best = Some(Chosen { word, bit, priority });
            }
        }
        best
    }

    /// Put the pending interrupt at `mask` of a word into list register `n`, which is free.
    #[inline]
    fn load(&mut self, n: u32, word: usize, mask: u32, hw: &mut impl ListRegisters) {
        let intid = IntId((word as u16) << 5 | mask.trailing_zeros() as u16 & 31);
        let (source, more) = if self.has_sources(intid) { self.next_source(intid) } else { (0, false) };
        let physical = self.shared.physical(self.vcpu, intid);
        let Some(bank) = self.bank(word) else { return };
        bank.loaded |= mask;
        bank.taken |= bank.latch & mask;
        if !more {
            bank.latch &= !mask;
        }
        let emulated = bank.mapped & mask == 0;
        let group1 = bank.group & mask != 0;
        let priority = bank.priority_of(mask);
        let value = ListRegister::new(intid, priority << 3, group1).with_state(true, false);
        let value = match physical {
            Some(physical) if !emulated => value.with_hw(physical),
            _ => value.with_source(source).with_eoi(more || bank.line & !bank.edge & mask != 0),
        };
        // A read that waits for other vCPUs is interrupted now: it must not take an old answer later.
        self.vcpu.fresh = 0;
        if word != 0 {
            self.hold(word, intid);
        }
        self.describe(n, value);
        self.vcpu.presented = self.vcpu.presented.wrapping_add(1);
        hw.write(n as usize, value);
    }

    /// An SPI is in a list register here, or active here.
    fn hold(&mut self, word: usize, intid: IntId) {
        self.set_held(word, intid.bit(), true);
        if let Some(spi) = self.shared.spi_mut(intid) {
            spi.holder = self.id.0;
        }
    }

    /// Take the lowest of the CPUs that have sent a GICv2 SGI; and whether there are more.
    fn next_source(&mut self, intid: IntId) -> (u8, bool) {
        let Some(sources) = self.vcpu.sgi_sources.get_mut(usize::from(intid.0)) else { return (0, false) };
        let source = sources.trailing_zeros() as u8;
        *sources &= sources.wrapping_sub(1);
        (source & 7, *sources != 0)
    }

    /// All list registers are in use, and their states known. Take out the least important pending interrupt if
    /// `chosen` is more important; or if nothing is pending at all, the least important active one, whose
    /// deactivation is then counted.
    fn make_room(&mut self, chosen: &Chosen, seen: CpuInterface, hw: &mut impl Hardware) -> Option<u32> {
        let rank = |slot: &ListRegister| {
            let let_through = if slot.group1() { seen.group1 } else { seen.group0 };
            slot.priority() >> 3 | if let_through { 0 } else { 32 }
        };
        let pool = if self.vcpu.pure != 0 { self.vcpu.pure } else { self.vcpu.used };
        let slots = &self.vcpu.slots;
        let n = Bits(pool).max_by_key(|&n| slots.get(n as usize).map_or(0, rank))?;
        let slot = self.slot(n);
        let pending = self.vcpu.pure != 0;
        if pending && rank(&slot) <= chosen.priority {
            return None;
        }
        if !pending && self.vcpu.spilled == 0 {
            // What was counted so far has nothing to do with this one.
            hw.take_eoi_count();
        }
        self.take_out(n, slot, hw);
        Some(n)
    }

    /// Take everything out of the list registers: they are another vCPU's next.
    #[inline]
    pub fn unload_all(&mut self, hw: &mut impl Hardware) {
        if self.vcpu.used | self.vcpu.spilled != 0 {
            self.unload_used(hw);
        }
        if self.vcpu.maintenance != Maintenance::NONE {
            self.vcpu.maintenance = Maintenance::NONE;
            hw.set_maintenance(Maintenance::NONE);
        }
    }

    #[inline(never)]
    fn unload_used(&mut self, hw: &mut impl Hardware) {
        self.reap(hw);
        if self.vcpu.spilled != 0 {
            self.count_deactivations(hw);
        }
        self.refresh(hw);
        for n in Bits(self.vcpu.used) {
            hw.write(n as usize, ListRegister::EMPTY);
            self.take_out(n, self.slot(n), hw);
        }
    }

    /// True where an interrupt waits that the guest's CPU interface lets through, in a list register (all of
    /// them just refreshed) or outside.
    pub fn can_signal(&mut self, seen: CpuInterface) -> bool {
        let passes = |slot: &ListRegister| {
            slot.priority() < seen.pmr && if slot.group1() { seen.group1 } else { seen.group0 }
        };
        let slots = &self.vcpu.slots;
        if Bits(self.vcpu.pure).any(|n| slots.get(n as usize).is_some_and(passes)) {
            return true;
        }
        self.choose(Some(seen)).is_some_and(|chosen| chosen.priority << 3 < seen.pmr)
    }
}
