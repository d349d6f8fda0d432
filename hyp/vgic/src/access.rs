//! The registers that are words of 32 interrupts: what reading and writing them does, to the state, to the list
//! registers, and to the physical distributor where lines are mapped.

use crate::Hardware;
use crate::bank::Bits;
use crate::build::SGIS;
use crate::ids::{Kicks, VcpuId};
use crate::registers::{Access, Class};
use crate::state::{LOOK, NOBODY, Place, RECHECK, Vgic};
use crate::{Line, Model};

/// The answer to a register read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Read {
    /// The value, zero-extended. `None`: it depends on the list registers of a vCPU that runs on another
    /// physical CPU and is among the kicks. The guest executes its load again (its program counter is left
    /// where it is), until that CPU has called [`Vgic::sync`].
    pub value: Option<u64>,
    /// vCPUs that must sync.
    pub kicks: Kicks,
}

impl Read {
    /// A value that needs nobody.
    pub(crate) const fn of(value: u64) -> Read {
        Read { value: Some(value), kicks: Kicks::NONE }
    }
}

impl Vgic {
    /// Read one of the registers at `access` for the interrupts at `place`, whose first number in the register
    /// is `first`.
    pub(crate) fn read_word(
        &mut self,
        place: Place,
        access: Access,
        reader: VcpuId,
        hw: &mut impl Hardware,
    ) -> Read {
        let index = access.index as u32;
        let Some(bank) = self.bank(place) else { return Read::of(0) };
        let value = match access.class {
            Class::Group => bank.group,
            Class::SetEnable | Class::ClearEnable => bank.enabled,
            Class::Priority => bank.priority_word((index & 7) << 2),
            Class::Config => bank.config_word((index & 1) << 4),
            Class::SetPending | Class::ClearPending => {
                return self.read_state(place, reader, hw, |vgic, hw| {
                    vgic.bank(place).map_or(0, |bank| bank.pending()) | vgic.physically_pending(place, hw)
                });
            }
            Class::SetActive | Class::ClearActive => {
                return self
                    .read_state(place, reader, hw, |vgic, _| vgic.bank(place).map_or(0, |bank| bank.active));
            }
            _ => 0,
        };
        Read::of(access.of_value(value))
    }

    /// Read pending or active states, which list registers may know better.
    #[inline(never)]
    fn read_state<H: Hardware>(
        &mut self,
        place: Place,
        reader: VcpuId,
        hw: &mut H,
        value: impl Fn(&Vgic, &mut H) -> u32,
    ) -> Read {
        let mut kicks = Kicks::NONE;
        let holders = self.holders(place);
        if holders & reader.mask() != 0
            && let Some(mut cpu) = self.cpu(reader)
        {
            cpu.refresh(hw);
            cpu.vcpu.attention |= LOOK;
            let stray = cpu.stray;
            kicks |= Kicks(reader.mask()) | self.tell_others(reader, stray);
        }
        let Some(state) = self.vcpus.get_mut(reader.index()) else { return Read::of(0) };
        let stale = holders & !reader.mask() & !state.fresh;
        if stale != 0 {
            kicks |= self.ask(reader, stale);
            return Read { value: None, kicks };
        }
        // What was learnt serves one read.
        state.fresh = 0;
        Read { value: Some(u64::from(value(self, hw))), kicks }
    }

    /// The vCPUs that have interrupts of a word in list registers.
    fn holders(&self, place: Place) -> u64 {
        let Some(bank) = self.bank(place) else { return 0 };
        if place.word == 0 {
            return if bank.loaded != 0 { place.vcpu.mask() } else { 0 };
        }
        let holder = |n| self.shared.spi(place.intid(n)).map_or(0, |spi| VcpuId(spi.holder).mask());
        Bits(bank.loaded).fold(0, |holders, n| holders | holder(n))
    }

    /// Have other vCPUs read their list registers, for `reader` to know what is in them. A vCPU that was asked
    /// already isn't kicked again.
    fn ask(&mut self, reader: VcpuId, vcpus: u64) -> Kicks {
        let mut kicks = Kicks::NONE;
        for vcpu in Kicks(vcpus) {
            let Some(state) = self.vcpus.get_mut(vcpu.index()) else { continue };
            if state.asked_by & reader.mask() == 0 {
                state.asked_by |= reader.mask();
                state.attention |= RECHECK;
                kicks |= Kicks(vcpu.mask());
            }
        }
        kicks
    }

    /// Mapped interrupts that are pending in the physical distributor.
    fn physically_pending(&self, place: Place, hw: &mut impl Hardware) -> u32 {
        let mut pending = 0;
        for n in Bits(self.bank(place).map_or(0, |bank| bank.mapped)) {
            if self.line(place, n).is_some_and(|line| hw.is_pending(line)) {
                pending |= 1u32.wrapping_shl(n);
            }
        }
        pending
    }

    /// Write one of the registers at `access` for the interrupts at `place`.
    #[inline(never)]
    pub(crate) fn write_word(
        &mut self,
        place: Place,
        access: Access,
        value: u32,
        writer: VcpuId,
        hw: &mut impl Hardware,
    ) -> Kicks {
        if let Some(state) = self.vcpus.get_mut(writer.index()) {
            // What was learnt of other list registers may be older than this write.
            state.fresh = 0;
        }
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let index = access.index as u32;
        let chosen = value & bank.valid;
        match access.class {
            Class::Group => {
                let changed = (bank.group ^ value) & bank.valid;
                bank.group ^= changed;
                self.touch(place, changed)
            }
            Class::SetEnable => self.set_enable(place, chosen, hw),
            Class::ClearEnable => self.clear_enable(place, chosen, hw),
            Class::SetPending => self.set_pending(place, chosen, hw),
            Class::ClearPending => self.clear_pending(place, chosen, hw),
            Class::SetActive => self.set_active(place, chosen, hw),
            Class::ClearActive => self.clear_active(place, chosen, hw),
            Class::Priority => {
                let changed = bank.set_priority_word((index & 7) << 2, value, access.mask);
                self.touch(place, changed)
            }
            Class::Config => self.set_config(place, (index & 1) << 4, value, hw),
            _ => Kicks::NONE,
        }
    }

    /// Do something to the physical lines of mapped interrupts.
    fn each_line(&self, place: Place, interrupts: u32, mut act: impl FnMut(Line)) {
        for n in Bits(interrupts) {
            if let Some(line) = self.line(place, n) {
                act(line);
            }
        }
    }

    fn set_enable(&mut self, place: Place, chosen: u32, hw: &mut impl Hardware) -> Kicks {
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let new = chosen & !bank.enabled;
        bank.enabled |= new;
        let mapped = new & bank.mapped;
        self.each_line(place, mapped, |line| hw.set_enabled(line, true));
        self.touch(place, new)
    }

    /// Disable. A mapped level that waits is returned to the physical distributor, where its line decides
    /// whether it is still pending when it is enabled again; one in a list register follows when that is
    /// refreshed.
    fn clear_enable(&mut self, place: Place, chosen: u32, hw: &mut impl Hardware) -> Kicks {
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let gone = chosen & bank.enabled;
        bank.enabled &= !gone;
        let mapped = gone & bank.mapped;
        let returned = mapped & bank.latch & !bank.edge;
        bank.latch &= !returned;
        self.each_line(place, mapped, |line| hw.set_enabled(line, false));
        self.each_line(place, returned, |line| hw.set_active(line, false));
        self.touch(place, gone)
    }

    /// SGIs of GICv2 are pending by source: `SPENDSGIR` sets them.
    fn without_sources(&self, place: Place, chosen: u32) -> u32 {
        if self.shared.model == Model::V2 && place.word == 0 { chosen & !SGIS } else { chosen }
    }

    fn set_pending(&mut self, place: Place, chosen: u32, hw: &mut impl Hardware) -> Kicks {
        let chosen = self.without_sources(place, chosen);
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let mapped = chosen & bank.mapped;
        bank.latch |= chosen & !mapped;
        if place.word == 0 {
            bank.forced |= mapped;
        }
        self.each_line(place, mapped, |line| hw.set_pending(line, true));
        self.touch(place, chosen & !mapped)
    }

    fn clear_pending(&mut self, place: Place, chosen: u32, hw: &mut impl Hardware) -> Kicks {
        let chosen = self.without_sources(place, chosen);
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let mapped = chosen & bank.mapped;
        let returned = mapped & bank.latch;
        bank.latch &= !chosen;
        bank.taken &= !chosen;
        bank.forced &= !chosen;
        self.each_line(place, mapped, |line| hw.set_pending(line, false));
        self.each_line(place, returned, |line| hw.set_active(line, false));
        self.touch(place, chosen)
    }

    /// Make active. What is in a list register is changed there; what isn't becomes active at the vCPU that it
    /// is routed to.
    fn set_active(&mut self, place: Place, chosen: u32, hw: &mut impl Hardware) -> Kicks {
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let loaded = chosen & bank.loaded;
        let outside = chosen & !bank.loaded & !bank.active;
        bank.active |= outside;
        let mapped = outside & bank.mapped;
        self.each_line(place, mapped, |line| hw.set_active(line, true));
        let mut kicks = self.mark_slots(place, loaded, true);
        for n in Bits(outside) {
            let intid = place.intid(n);
            let mut id = place.vcpu;
            if let Some(spi) = self.shared.spi_mut(intid) {
                id = VcpuId(if spi.target == NOBODY { 0 } else { spi.target });
                spi.holder = id.0;
            }
            let Some(state) = self.vcpus.get_mut(id.index()) else { continue };
            if let Some(held) = state.held.get_mut(place.word) {
                *held |= intid.bit();
            }
            state.spilled |= 1u32.wrapping_shl(place.word as u32);
            state.attention |= LOOK;
            kicks |= Kicks(id.mask());
        }
        kicks
    }

    fn clear_active(&mut self, place: Place, chosen: u32, hw: &mut impl Hardware) -> Kicks {
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let loaded = chosen & bank.loaded;
        let outside = chosen & !bank.loaded & bank.active;
        bank.active &= !outside;
        let mapped = outside & bank.mapped;
        self.each_line(place, mapped, |line| hw.set_active(line, false));
        for n in Bits(if place.word == 0 { 0 } else { outside }) {
            let holder = self.shared.spi(place.intid(n)).map_or(NOBODY, |spi| spi.holder);
            let state = self.vcpus.get_mut(usize::from(holder));
            if let Some(held) = state.and_then(|state| state.held.get_mut(place.word)) {
                *held &= !1u32.wrapping_shl(n);
            }
        }
        self.mark_slots(place, loaded, false) | self.touch(place, outside)
    }

    /// Have the active state of interrupts in list registers set or cleared.
    fn mark_slots(&mut self, place: Place, loaded: u32, active: bool) -> Kicks {
        let mut kicks = Kicks::NONE;
        for n in Bits(loaded) {
            let intid = place.intid(n);
            let id = self.shared.spi(intid).map_or(place.vcpu, |spi| VcpuId(spi.holder));
            let Some(state) = self.vcpus.get_mut(id.index()) else { continue };
            let Some(slot) = state.find(intid) else { continue };
            let slot = 1u32.wrapping_shl(slot);
            state.set_active = state.set_active & !slot | if active { slot } else { 0 };
            state.clear_active = state.clear_active & !slot | if active { 0 } else { slot };
            state.attention |= RECHECK;
            kicks |= Kicks(id.mask());
        }
        kicks
    }

    /// SGIs are edge-triggered and mapped private lines what they are on the board, always.
    fn set_config(&mut self, place: Place, first: u32, value: u32, hw: &mut impl Hardware) -> Kicks {
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let writable = if place.word == 0 { !(SGIS | bank.mapped) } else { !0 };
        let changed = bank.set_config_word(first, value, writable);
        let (edge, mapped) = (bank.edge, changed & bank.mapped);
        for n in Bits(mapped) {
            if let Some(line) = self.line(place, n) {
                hw.set_edge(line, edge & 1u32.wrapping_shl(n) != 0);
            }
        }
        self.touch(place, changed)
    }
}
