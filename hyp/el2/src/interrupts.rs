//! Physical interrupts: EL2's own, and those that it hands to the guest that owns them.

use alloc::vec::Vec;

use aarch64_cpu::asm::barrier;
use platform::tree::FIRST_SPI;
use spin::Once;
use vgic::{IntId, Kicks, VcpuId};
use vmm::life::Phase;

use crate::gic::{self, Acknowledged, CpuGic, Hardware, with_hardware};
use crate::percpu::{Own, own, request, this_cpu};
use crate::sysreg::read_sysreg;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::{console, crash, run, timer, vm};

/// Who has the lines of the board's devices, by INTID, and as which interrupts. Those that nobody has are EL2's, or nobody's.
static OWNERS: Once<Vec<Option<Owner>>> = Once::new();

/// Whose a line is.
#[derive(Clone, Copy)]
pub struct Owner {
    /// The VM.
    pub vm: &'static Vm,
    /// The interrupt that it has for it.
    pub intid: IntId,
}

/// Says who has which lines, by their INTIDs. Once, before guests run.
pub fn give_lines(lines: impl Iterator<Item = (u16, Owner)> + Clone) {
    let most = lines.clone().map(|(intid, _)| intid).max();
    let mut owners = alloc::vec![None; most.map_or(0, |most| usize::from(most).saturating_add(1))];
    for (intid, owner) in lines {
        if let Some(place) = owners.get_mut(usize::from(intid)) {
            *place = Some(owner);
        }
    }
    OWNERS.call_once(|| owners);
}

fn owner_of(intid: u32) -> Option<Owner> {
    OWNERS.get()?.get(intid as usize).copied().flatten()
}

/// Whether an interrupt waits to be taken. Cheaper than to acknowledge none, above all where that is an access to a device.
#[inline]
pub fn is_pending() -> bool {
    /// ISR_EL1.I and F: at EL2 these are the physical ones.
    const IRQ_FIQ: u64 = 0b11 << 6;
    read_sysreg!("ISR_EL1") & IRQ_FIQ != 0
}

/// Takes the interrupt that made a guest exit, or woke this CPU, if there is one. One at a time: another one that waits
/// brings the guest back at once. `vcpu` is who is loaded, if anybody is.
#[inline(always)]
pub fn take(own: &'static Own, vcpu: Option<&'static Vcpu>) {
    let Some(gic) = own.gic.get() else { return };
    let interrupt = gic.acknowledge();
    let timer = &gic.lines().timer;
    let guests = match interrupt.intid {
        intid if intid == timer.virtual_ => Some(IntId::VIRTUAL_TIMER),
        intid if intid == timer.physical => Some(IntId::PHYSICAL_TIMER),
        _ => None,
    };
    let (Some(intid), Some(vcpu)) = (guests, vcpu) else { return take_other(gic, interrupt, vcpu) };
    // It stays active: the guest's own EOI deactivates it.
    gic.drop_priority(interrupt);
    inject(gic, vcpu, intid);
}

/// A timer's interrupt for its vCPU, which is loaded. On GICv3 it mostly comes as it came before, and no other CPU has to do with the VM's
/// interrupts.
#[inline(always)]
fn inject(gic: &'static CpuGic, vcpu: &'static Vcpu, intid: IntId) {
    if let Hardware::V3(mut hardware) = gic.hardware()
        && let Some(mut vgic) = vcpu.vm.vgic.try_lock_weak()
        && vgic.inject_again(vcpu.id, intid, &mut hardware)
    {
        return;
    }
    inject_any(vcpu, intid);
}

#[inline(never)]
fn inject_any(vcpu: &'static Vcpu, intid: IntId) {
    let kicks = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        // On GICv2, too, it mostly comes as it came before, but where EL2 ends it.
        if vgic.inject_again(vcpu.id, intid, &mut hardware) {
            return;
        }
        let kicks = vgic.inject_mapped(vcpu.id, intid, &mut hardware);
        vgic.settle(vcpu.id, kicks, &mut hardware)
    });
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE));
}

/// Hands a line of a device to the VM that has it, whose EOI deactivates it. It is sent to the CPU of the vCPU that the VM has
/// chosen, so whoever runs here instead shares this CPU with that one.
fn inject_shared(gic: &'static CpuGic, Owner { vm, intid }: Owner, vcpu: Option<&'static Vcpu>) {
    if let Some(vcpu) = vcpu.filter(|vcpu| core::ptr::eq(vcpu.vm, vm)) {
        if let Hardware::V3(mut hardware) = gic.hardware()
            && let Some(mut vgic) = vm.vgic.try_lock_weak()
            && vgic.inject_shared_again(vcpu.id, intid, &mut hardware)
        {
            return;
        }
        return inject_any(vcpu, intid);
    }
    let kicks = with_hardware!(|hardware| vm.vgic.lock().inject_mapped(VcpuId(0), intid, &mut hardware));
    vm.kick(kicks.unwrap_or(Kicks::NONE));
}

#[inline(never)]
fn take_other(gic: &'static CpuGic, interrupt: Acknowledged, vcpu: Option<&'static Vcpu>) {
    if platform::gic::SPECIAL.contains(&interrupt.intid) {
        return;
    }
    gic.drop_priority(interrupt);
    if interrupt.intid >= FIRST_SPI
        && let Some(owner) = owner_of(interrupt.intid)
    {
        return inject_shared(gic, owner, vcpu);
    }
    let lines = gic.lines();
    match interrupt.intid {
        // Nobody has it any more.
        intid if intid == lines.timer.virtual_ || intid == lines.timer.physical => gic.deactivate(interrupt),
        gic::KICK => {
            gic.deactivate(interrupt);
            // The requests were written before the kick, and must be read behind it: a read of IAR orders nothing.
            barrier::dsb(barrier::SY);
            serve_requests();
        }
        intid if intid == lines.maintenance => {
            if let Some(vcpu) = vcpu {
                let kicks =
                    with_hardware!(|hardware| vcpu.vm.vgic.lock().maintenance(vcpu.id, &mut hardware));
                vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE));
            }
            gic.deactivate(interrupt);
        }
        intid if intid == lines.timer.hypervisor => {
            let (turn, alarm) = own().timer.fired(timer::now());
            own().look.set(own().look.get() | turn);
            if alarm {
                see_to_alarms();
            }
            gic.deactivate(interrupt);
        }
        intid if gic.is_counters(intid) => match vcpu {
            Some(vcpu) => inject_any(vcpu, IntId::COUNTERS),
            None => gic.deactivate(interrupt),
        },
        intid if console::has_line(intid) => {
            console::service();
            gic.deactivate(interrupt);
        }
        intid => {
            // A level that nobody lowers would come back for ever.
            gic::silence(intid);
            gic.deactivate(interrupt);
            log::warn!("interrupt {intid} on CPU {} is nobody's: it is turned off", this_cpu().index);
        }
    }
}

/// Does what CPUs, this one among them, have asked of this one.
pub fn serve_requests() {
    let requests = this_cpu().take_requests();
    if requests & request::HALT != 0 {
        crash::halt();
    }
    if requests & request::CONSOLE != 0 {
        console::service();
    }
    if requests & request::TIMER != 0 {
        see_to_alarms();
    }
    if requests & request::SYNC != 0 {
        for vcpu in this_cpu().take_called() {
            if !vcpu.is_here() {
                // It has moved since.
                vcpu.call();
                continue;
            }
            vcpu.vm.take_bells(vcpu.id);
            if vcpu.is_loaded() {
                vm::sync(vcpu);
                // Whoever changes a VM's phase calls its vCPUs afterwards.
                if vcpu.vm.phase() != Phase::Running {
                    own().look.set(true);
                }
            } else {
                run::consider(vcpu);
            }
        }
    }
}

/// The alarms of the VMs whose vCPU 0 is here.
pub fn see_to_alarms() {
    let now = timer::now();
    let first = this_cpu().members().iter().filter(|vcpu| vcpu.id == VcpuId(0) && vcpu.is_here());
    let next = first.filter_map(|vcpu| vcpu.vm.tick(now)).min();
    own().timer.set_alarm(next.unwrap_or(u64::MAX));
}
