//! IRQs: one handler of the guest's choice, called between acknowledge and end of interrupt.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::cpu;
use crate::gic::{self, Interrupt};

/// A handler. It runs on the CPU that took the interrupt, with IRQs masked; it may unmask them, for interrupts of
/// higher priority to come in between.
pub type Handler = fn(Interrupt);

static HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static SPURIOUS: AtomicU64 = AtomicU64::new(0);

/// Makes `handler` the one for all CPUs.
pub fn set_handler(handler: Handler) {
    HANDLER.store(handler as *mut (), Ordering::Release);
}

/// Sleeps until the condition holds, which an interrupt handler makes true. IRQs are masked while it is looked at, so
/// that none comes between the look and the sleep: one that waits ends WFI at once.
pub fn sleep_until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        cpu::wait_for_interrupt();
        cpu::unmask_irqs();
        cpu::mask_irqs();
    }
}

/// How often an IRQ exception came and no interrupt was there to be acknowledged.
pub fn spurious() -> u64 {
    SPURIOUS.load(Ordering::Relaxed)
}

/// Acknowledges one interrupt, lets the handler see it, and ends it.
pub(crate) fn dispatch() {
    let Some(interrupt) = gic::acknowledge() else {
        SPURIOUS.fetch_add(1, Ordering::Relaxed);
        return;
    };
    handle(interrupt);
}

/// Lets the handler see an interrupt that has been acknowledged, and ends it.
pub(crate) fn handle(interrupt: Interrupt) {
    let handler = HANDLER.load(Ordering::Acquire);
    assert!(!handler.is_null(), "interrupt {} and no handler", interrupt.intid());
    // SAFETY: the only non-null values ever stored are of this type (`set_handler`).
    let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
    handler(interrupt);
    gic::end(interrupt);
}
