//! This CPU: its index, its interrupt masks, waiting, and the instructions that have no home elsewhere.

use core::arch::asm;

use aarch64_cpu::registers::{DAIF, TPIDR_EL1};
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};

/// The bits of TPIDR_EL1 that are the index. The rest is free, see [`registers`](crate::registers).
pub(crate) const INDEX_MASK: u64 = 0xff;

/// The index of this CPU: its place among the tree's `cpu` nodes, the boot CPU being exchanged with the first.
pub fn index() -> usize {
    (TPIDR_EL1.get() & INDEX_MASK) as usize
}

/// Sets what [`index`] returns. For the runtime's own start code.
pub(crate) fn set_index(index: usize) {
    TPIDR_EL1.set(index as u64);
}

/// The affinity fields of MPIDR_EL1 (Aff3 to Aff0), without its flags: what PSCI and the GIC mean by a CPU.
pub fn affinity() -> u64 {
    aarch64_cpu::registers::MPIDR_EL1.get() & crate::machine::AFFINITY_MASK
}

/// Lets IRQs in.
pub fn unmask_irqs() {
    DAIF.modify(DAIF::I::Unmasked);
}

/// Keeps IRQs out.
pub fn mask_irqs() {
    DAIF.modify(DAIF::I::Masked);
}

/// Runs `body` with IRQs masked, and restores the mask afterwards.
pub fn without_irqs<R>(body: impl FnOnce() -> R) -> R {
    let saved = DAIF.get();
    mask_irqs();
    let result = body();
    DAIF.set(saved);
    result
}

/// Whether an IRQ waits at this CPU's door (ISR_EL1.I), masked or not.
pub fn irq_waits() -> bool {
    let isr: u64;
    // SAFETY: reads a register that has no side effects.
    unsafe { asm!("mrs {}, isr_el1", out(reg) isr, options(nostack)) };
    isr & 1 << 7 != 0
}

/// Waits for an interrupt. It may return at once; look again at what was waited for.
pub fn wait_for_interrupt() {
    // SAFETY: WFI changes no state. Without `nomem`, so that what an interrupt handler stored is seen afterwards.
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
}

/// Waits for an event (SEV from anywhere, or an interrupt). It may return at once.
pub fn wait_for_event() {
    // SAFETY: as for WFI.
    unsafe { asm!("wfe", options(nostack)) };
}

/// Completes all memory accesses before anything later starts, instructions included.
pub fn synchronize() {
    // SAFETY: barriers have no effect but order.
    unsafe { asm!("dsb sy", "isb", options(nostack)) };
}

/// Sends every CPU that waits for an event (WFE) on its way.
pub fn send_event() {
    // SAFETY: SEV changes no state but the event registers.
    unsafe { asm!("dsb ish", "sev", options(nostack)) };
}

/// Counts down from `count` to 0, three instructions at a time. It takes as long as it takes: time that this CPU spends
/// on others doesn't count.
pub fn count_down(count: u64) {
    // SAFETY: changes a register of its own alone.
    unsafe {
        asm!("0: cbz {n}, 1f", "sub {n}, {n}, #1", "b 0b", "1:", n = inout(reg) count => _, options(nomem, nostack));
    }
}
