//! Active interrupts that are in no list register, because there were too few or because the guest made them
//! active by register: counting their deactivations, and putting them back.

use crate::bank::Bits;
use crate::deliver::{Chosen, Cpu, bit};
use crate::state::{MAX_LIST_REGISTERS, Place};
use crate::{Hardware, ListRegister, ListRegisters, Physical};

impl Cpu<'_> {
    /// The interrupts of word `w` that are active here and in no list register.
    pub fn active_outside(&mut self, word: usize) -> u32 {
        let held = self.vcpu.word(&self.vcpu.held, word);
        self.bank(word).map_or(0, |bank| bank.active & !bank.loaded & held)
    }

    /// The guest deactivated interrupts that are in no list register. Which, the hardware doesn't say: priority
    /// drops in order, so it was the one of the highest priority (with EOImode 1, `write_dir` says it).
    pub fn count_deactivations(&mut self, hw: &mut impl Hardware) {
        for _ in 0..hw.take_eoi_count() {
            let mut best: Option<Chosen> = None;
            for word in Bits(self.vcpu.spilled) {
                let word = word as usize;
                let candidates = self.active_outside(word);
                let Some(bank) = self.bank(word) else { continue };
                let (priority, bit) = bank.highest(candidates);
                if bit != 0 && best.as_ref().is_none_or(|best| priority < best.priority) {
                    best = Some(Chosen { word, bit, priority });
                }
            }
            let Some(chosen) = best else { return };
            self.deactivate(chosen.word, chosen.bit, hw);
        }
    }

    /// Deactivate an interrupt that is active here and in no list register.
    pub fn deactivate(&mut self, word: usize, mask: u32, hw: &mut impl Physical) {
        let Some(bank) = self.bank(word) else { return };
        bank.active &= !mask;
        let (mapped, pending) = (bank.mapped & mask != 0, bank.pending() & mask != 0);
        self.set_held(word, mask, false);
        self.deactivate_physically(Place { vcpu: self.id, word }.intid(mask.trailing_zeros()), mapped, hw);
        if pending {
            self.requeue(word, mask);
        }
    }

    /// Put active interrupts back into list registers, leaving at least `spare` free.
    pub fn reload_active(&mut self, hw: &mut impl ListRegisters, spare: u32) {
        let all = bit(hw.count().min(MAX_LIST_REGISTERS) as u32).wrapping_sub(1);
        for word in Bits(self.vcpu.spilled) {
            let outside = self.active_outside(word as usize);
            for n in Bits(outside) {
                let free = all & !self.vcpu.used;
                if free.count_ones() <= spare {
                    return;
                }
                self.load_active(free.trailing_zeros(), word as usize, bit(n), hw);
            }
            self.vcpu.spilled &= !bit(word);
        }
    }

    fn load_active(&mut self, n: u32, word: usize, mask: u32, hw: &mut impl ListRegisters) {
        let intid = Place { vcpu: self.id, word }.intid(mask.trailing_zeros());
        let physical = self.shared.physical(self.vcpu, intid);
        let has_sources = self.has_sources(intid);
        let source = self.vcpu.sgi_active.get(usize::from(intid.0)).copied().unwrap_or(0);
        let Some(bank) = self.bank(word) else { return };
        bank.loaded |= mask;
        let priority = bank.priority_of(mask);
        let emulated = bank.mapped & mask == 0;
        let group1 = bank.group & mask != 0;
        // What is pending beside it is seen to when this register is next refreshed, or at its end.
        let pending = bank.pending() & mask != 0;
        let mut value = ListRegister::new(intid, priority << 3, group1).with_state(false, true);
        value = match physical {
            Some(physical) if !emulated => value.with_hw(physical),
            _ if has_sources => value.with_source(source).with_eoi(pending),
            _ => value.with_eoi(pending),
        };
        self.describe(n, value);
        hw.write(n as usize, value);
    }
}
