//! SErrors: taken from a guest, or found where a vCPU leaves its CPU. What follows from one is `vmm::serror`'s.
//!
//! An SError comes some time behind the access that has caused it. For it to be counted against the right VM, it must have come before
//! another one's vCPU runs here, so each vCPU that leaves waits for its own: by ESB, with FEAT_RAS, which puts one that is masked
//! into DISR_EL1; without, by a DSB, behind which ISR_EL1 tells of one that came in time.

use aarch64_cpu::asm::barrier;
use vmm::esr::Esr;
use vmm::serror::{self, Verdict};

use crate::crash;
use crate::percpu::own;
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::vcpu::Vcpu;

/// DISR_EL1.A: an SError was put there.
const DEFERRED: u64 = 1 << 31;
/// ISR_EL1.A: one is pending.
const PENDING: u64 = 1 << 8;

/// Forgets what DISR_EL1 holds, after a reset anything.
pub fn init() {
    if own().has_ras.get() {
        write_sysreg!("S3_0_C12_C1_1", 0);
    }
}

/// The vCPU that is loaded leaves: sees to an SError that it has caused, and that wasn't taken.
#[inline(always)]
pub fn look(has_ras: bool) {
    if !has_ras {
        return look_for_pending();
    }
    // SAFETY: ESB. SErrors are masked at EL2, so it takes none, and changes no register but DISR_EL1, which is EL2's here.
    unsafe { core::arch::asm!("hint #16", options(nostack)) };
    let deferred = read_sysreg!("S3_0_C12_C1_1");
    if deferred & DEFERRED != 0 {
        found(deferred);
    }
}

#[cold]
#[inline(never)]
fn look_for_pending() {
    barrier::dsb(barrier::SY);
    if read_sysreg!("ISR_EL1") & PENDING != 0 {
        // It tells nothing, and will be taken as soon as a guest runs here, which isn't to blame.
        own().serror_is_judged.set(true);
        found(0);
    }
}

#[cold]
#[inline(never)]
fn found(syndrome: u64) {
    init();
    if let Some(vcpu) = own().vcpu.get() {
        judge(vcpu, Esr::of_deferred(syndrome));
    }
}

/// One was taken from a guest. False: it was found before that guest ran, and has had its consequences.
pub fn taken(vcpu: &Vcpu, esr: Esr) -> bool {
    let is_new = !own().serror_is_judged.replace(false);
    if is_new {
        judge(vcpu, esr);
    }
    is_new
}

fn judge(vcpu: &Vcpu, esr: Esr) {
    match serror::verdict(esr, vcpu.vm.has_devices()) {
        Verdict::GoOn if vcpu.vm.may_log() => log::warn!("{}: {esr:?}, corrected", vcpu.vm.name),
        Verdict::GoOn => {}
        Verdict::StopVm => vcpu.vm.crash_by_serror(vcpu, esr),
        Verdict::StopBoard => crash::hardware_failed(esr, &vcpu.vm.name),
    }
}
