//! What comes in from outside: levels and edges of lines, physical interrupts, and vCPUs that are loaded, saved
//! and synchronised.

use crate::bank::{Bank, Bits};
use crate::bounds;
use crate::deliver::Cpu;
use crate::ids::{IntId, Kicks, VcpuId};
use crate::state::{LOOK, Place, RECHECK, Vcpu, Vgic};
use crate::{CpuInterface, Hardware, Line, ListRegisters, Maintenance, Physical};

impl Vgic {
    /// The line of an emulated device went up or down. A level-sensitive interrupt is pending as long as the
    /// line is up; an edge-triggered one becomes pending when it goes up. `vcpu` matters for PPIs alone. Mapped
    /// interrupts have no such line: nothing happens.
    pub fn set_level(&mut self, vcpu: VcpuId, intid: IntId, level: bool) -> Kicks {
        let (place, mask) = (Place::of(vcpu, intid), intid.bit());
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let now = if level { mask & bank.valid & !bank.mapped } else { 0 };
        if intid.is_sgi() || bank.line & mask == now {
            return Kicks::NONE;
        }
        bank.line ^= mask;
        bank.latch |= now & bank.edge;
        self.touch(place, mask)
    }

    /// The line of an emulated device went up and down again: an edge-triggered interrupt is pending, a
    /// level-sensitive one has seen nothing. `vcpu` matters for PPIs alone.
    pub fn pulse(&mut self, vcpu: VcpuId, intid: IntId) -> Kicks {
        let (place, mask) = (Place::of(vcpu, intid), intid.bit());
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        let edge = mask & bank.edge & bank.valid & !bank.mapped;
        if intid.is_sgi() || edge == 0 {
            return Kicks::NONE;
        }
        bank.latch |= edge;
        self.touch(place, edge)
    }

    /// The physical interrupt that `intid` is mapped to was acknowledged by EL2, which dropped its priority and
    /// left it active: the guest's deactivation ends that. A private one was taken on the physical CPU where
    /// `vcpu` is loaded; for an SPI `vcpu` doesn't matter.
    ///
    /// One that the guest has disabled meanwhile is deactivated at once, if it is level-sensitive: the physical
    /// distributor holds it until it is enabled again.
    pub fn inject_mapped(&mut self, vcpu: VcpuId, intid: IntId, physical: &mut impl Physical) -> Kicks {
        let (place, mask) = (Place::of(vcpu, intid), intid.bit());
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        if bank.mapped & mask == 0 {
            return Kicks::NONE;
        }
        if (bank.enabled | bank.edge) & mask == 0 {
            if let Some(line) = self.line(place, intid.bit().trailing_zeros()) {
                physical.set_active(line, false);
            }
            return Kicks::NONE;
        }
        if let Some(state) = self.vcpus.get_mut(vcpu.index()).filter(|_| place.word == 0) {
            return state.pend_private(&self.shared, vcpu, mask);
        }
        let Some(bank) = self.bank_mut(place) else { return Kicks::NONE };
        bank.latch |= mask;
        self.touch(place, mask)
    }

    /// The common case of [`Vgic::inject_mapped`] and [`Vgic::sync`]: a private interrupt of `vcpu`, which is loaded here, comes
    /// again. Returns false where it isn't so, having done nothing.
    #[inline(always)]
    pub fn inject_again(&mut self, vcpu: VcpuId, intid: IntId, hw: &mut impl Hardware) -> bool {
        let Some(state) = self.vcpus.get_mut(vcpu.index()).filter(|_| intid.is_private()) else {
            return false;
        };
        state.arrive_again(intid, state.bank.mapped, &self.shared, hw)
    }

    /// The same for an SPI that is routed to `vcpu`, which is loaded here.
    #[inline]
    pub fn inject_shared_again(&mut self, vcpu: VcpuId, intid: IntId, hw: &mut impl Hardware) -> bool {
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return false };
        state.arrive_again_shared(intid, &mut self.shared, hw)
    }

    /// True where [`Vgic::sync`] has something to do for `vcpu`.
    #[inline]
    pub fn needs_sync(&self, vcpu: VcpuId) -> bool {
        self.vcpus.get(vcpu.index()).is_some_and(Vcpu::needs_sync)
    }

    /// Bring the list registers of the current physical CPU and the state of `vcpu`, which is loaded here,
    /// together. To be called before entering the guest whenever `vcpu` was in [`Kicks`]; the list registers
    /// aren't touched if there is nothing to do.
    #[inline]
    pub fn sync(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return Kicks::NONE };
        if !state.needs_sync() || state.repeat(&self.shared, hw) {
            Kicks::NONE
        } else {
            self.resync(vcpu, hw)
        }
    }

    /// What a call asks of `vcpu`, which is loaded here and made it, is done at once. Whom it asks something of besides.
    #[inline]
    pub fn settle(&mut self, vcpu: VcpuId, kicks: Kicks, hw: &mut impl Hardware) -> Kicks {
        if kicks.is_empty() { kicks } else { kicks.without(vcpu) | self.sync(vcpu, hw) }
    }

    /// What [`Vgic::sync`] does where it isn't the common case. Kept apart: that is to be short.
    #[inline(never)]
    fn resync(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(mut cpu) = self.cpu(vcpu) else { return Kicks::NONE };
        cpu.resync(hw);
        let (stray, asked_by) = (cpu.stray, cpu.vcpu.asked_by);
        if u64::from(stray) | asked_by == 0 {
            return Kicks::NONE;
        }
        self.tell_others(vcpu, stray)
    }

    /// The maintenance interrupt was taken on the physical CPU where `vcpu` is loaded: the same as
    /// [`Vgic::sync`], but it looks whether or not it knows of something to do.
    pub fn maintenance(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return Kicks::NONE };
        state.attention |= LOOK;
        self.sync(vcpu, hw)
    }

    /// True where `vcpu`, loaded here, has an interrupt that its CPU interface lets through: it must not sleep
    /// (WFI, PSCI `CPU_SUSPEND`). The running priority isn't looked at, so that it may say true inside of a
    /// handler of higher priority; WFI may end early.
    pub fn has_deliverable(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> (bool, Kicks) {
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return (false, Kicks::NONE) };
        state.attention |= RECHECK;
        let kicks = self.sync(vcpu, hw);
        let Some(mut cpu) = self.cpu(vcpu) else { return (false, kicks) };
        (cpu.can_signal(hw.interface()), kicks)
    }

    /// The same for a vCPU that isn't loaded, whose CPU interface was saved as `interface`: it should be woken.
    pub fn has_deliverable_saved(&mut self, vcpu: VcpuId, interface: CpuInterface) -> bool {
        let Some(state) = self.vcpus.get_mut(vcpu.index()).filter(|state| !state.running) else {
            return false;
        };
        let mut cpu = Cpu { id: vcpu, vcpu: state, shared: &mut self.shared, stray: 0 };
        cpu.can_signal(interface)
    }

    /// How many interrupts were put before `vcpu` since the VM was built.
    pub fn presented(&self, vcpu: VcpuId) -> u64 {
        self.vcpus.get(vcpu.index()).map_or(0, |state| state.presented)
    }

    /// Whether `vcpu` has enabled this SGI or PPI, and its group: without that it will not be told of it.
    pub fn is_enabled(&self, vcpu: VcpuId, intid: IntId) -> bool {
        let state = self.vcpus.get(vcpu.index()).filter(|_| intid.is_private());
        state.is_some_and(|state| state.bank.allowed(self.shared.groups) & intid.bit() != 0)
    }

    /// Load `vcpu` on the current physical CPU, which is as [`Vgic::save`] or [`clear_list_registers`] has left it: fill the list
    /// registers, and give the mapped private lines their state. `VMCR`, `APR` and the enable bit of `HCR` are the
    /// caller's to restore.
    #[inline]
    pub fn load(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(state) = self.vcpus.get_mut(vcpu.index()).filter(|state| !state.running) else {
            return Kicks::NONE;
        };
        state.running = true;
        if state.is_idle() { Kicks::NONE } else { self.put_in(vcpu, hw) }
    }

    /// What [`Vgic::load`] does where there is something to put into the hardware.
    #[inline(never)]
    fn put_in(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(cpu) = self.cpu(vcpu) else { return Kicks::NONE };
        // No list register is in use, so that there is nothing to look at but for what is active outside of them.
        if cpu.vcpu.spilled != 0 {
            cpu.vcpu.attention |= LOOK;
            hw.take_eoi_count();
        }
        cpu.give_private_lines(hw);
        self.sync(vcpu, hw)
    }

    /// Take `vcpu` off the current physical CPU: its interrupts return from the list registers, which are left
    /// empty, and its mapped private lines are left disabled and inactive. Interrupts for it wait; [`Kicks`]
    /// then name it so that its scheduler can load it again.
    #[inline]
    pub fn save(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(state) = self.vcpus.get_mut(vcpu.index()).filter(|state| state.running) else {
            return Kicks::NONE;
        };
        if !state.was_idle() {
            return self.take_out(vcpu, hw);
        }
        state.leave();
        Kicks::NONE
    }

    /// What [`Vgic::save`] does where there is something in the hardware, or somebody waits to hear what.
    #[inline(never)]
    fn take_out(&mut self, vcpu: VcpuId, hw: &mut impl Hardware) -> Kicks {
        let Some(mut cpu) = self.cpu(vcpu) else { return Kicks::NONE };
        cpu.unload_all(hw);
        cpu.take_private_lines(hw);
        let stray = cpu.stray;
        cpu.vcpu.leave();
        self.tell_others(vcpu, stray)
    }

    /// A write to `ICC_DIR_EL1` by `vcpu`, loaded here, that trapped because of [`Maintenance::TRAP_DIR`]:
    /// deactivate that interrupt, if it is active.
    pub fn write_dir(&mut self, vcpu: VcpuId, value: u64, hw: &mut impl Hardware) -> Kicks {
        let intid = IntId((value & 0xff_ffff).min(0xffff) as u16);
        let words = self.shared.banks.len().wrapping_add(1);
        let Some(mut cpu) = self.cpu(vcpu) else { return Kicks::NONE };
        if let Some(n) = cpu.vcpu.find(intid) {
            cpu.vcpu.clear_active |= 1u32.wrapping_shl(n);
            cpu.vcpu.attention |= RECHECK;
        } else if let Some(word) = bounds::index(intid.word(), words)
            && cpu.active_outside(word) & intid.bit() != 0
        {
            cpu.deactivate(word, intid.bit(), hw);
            cpu.vcpu.attention |= LOOK;
        }
        let stray = cpu.stray;
        self.tell_others(vcpu, stray) | self.sync(vcpu, hw)
    }

    /// A loaded vCPU, to work on its list registers.
    #[inline]
    pub(crate) fn cpu(&mut self, id: VcpuId) -> Option<Cpu<'_>> {
        let vcpu = self.vcpus.get_mut(id.index()).filter(|vcpu| vcpu.running)?;
        Some(Cpu { id, vcpu, shared: &mut self.shared, stray: 0 })
    }

    /// Pass on what working on a vCPU's list registers has brought to light for the others: SPIs in words
    /// `stray`, and answers for those that asked.
    pub(crate) fn tell_others(&mut self, vcpu: VcpuId, stray: u32) -> Kicks {
        let mut kicks = Kicks::NONE;
        for word in Bits(stray) {
            kicks |= self.announce(word as usize, !0);
        }
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return kicks };
        let asked_by = core::mem::take(&mut state.asked_by);
        for reader in Kicks(asked_by) {
            if let Some(reader) = self.vcpus.get_mut(reader.index()) {
                reader.fresh |= vcpu.mask();
            }
        }
        kicks
    }
}

impl Cpu<'_> {
    /// The physical interrupts of mapped private lines become what the guest has made of them.
    #[inline]
    fn give_private_lines(&self, hw: &mut impl Physical) {
        let bank = &self.vcpu.bank;
        self.each_private_line(bank.private_active(), |line| hw.set_active(line, true));
        self.each_private_line(bank.forced, |line| hw.set_pending(line, true));
        self.each_private_line(bank.enabled & bank.mapped, |line| hw.set_enabled(line, true));
    }

    /// They become disabled and inactive again, and pending by their lines alone, which are low while nobody is loaded.
    #[inline]
    fn take_private_lines(&mut self, hw: &mut impl Physical) {
        self.take_forced(hw);
        let bank = &self.vcpu.bank;
        self.each_private_line(bank.enabled & bank.mapped, |line| hw.set_enabled(line, false));
        self.each_private_line(bank.private_active(), |line| hw.set_active(line, false));
    }

    /// What was made pending by register write, and wasn't taken, stays so for this vCPU, and for nobody else.
    #[inline]
    fn take_forced(&mut self, hw: &mut impl Physical) {
        let mut waits = 0;
        self.each_private_line(self.vcpu.bank.forced, |line| {
            if hw.is_pending(line) {
                hw.set_pending(line, false);
                waits |= line.virt.bit();
            }
        });
        self.vcpu.bank.forced = waits;
    }

    #[inline]
    fn each_private_line(&self, lines: u32, mut f: impl FnMut(Line)) {
        for n in Bits(lines) {
            if let Some(line) = self.line(IntId(n as u16)) {
                f(line);
            }
        }
    }
}

impl Bank {
    /// Of mapped private lines, those whose physical interrupt is active on the guest's behalf.
    #[inline]
    pub(crate) fn private_active(&self) -> u32 {
        (self.latch | self.taken | self.active) & self.mapped
    }
}

/// The list registers of a physical CPU on which no vCPU has run yet: they are written empty.
pub fn clear_list_registers(hw: &mut impl ListRegisters) {
    for n in 0..hw.count().min(crate::state::MAX_LIST_REGISTERS) {
        hw.write(n, crate::ListRegister::EMPTY);
    }
    hw.set_maintenance(Maintenance::NONE);
    hw.take_eoi_count();
}
