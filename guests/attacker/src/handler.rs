//! What interrupts have come: only what this guest has made pending itself may.

use core::sync::atomic::{AtomicU32, Ordering};

use runtime::gic::{self, Interrupt, SgiTarget};
use runtime::timer::{self, Timer};
use runtime::{cpu, registers};

use crate::fail;

/// How long to wait for what must come, in milliseconds, with all that the CPU does for others meanwhile.
const PATIENCE: u64 = 30_000;

/// How often each interrupt has come.
static TAKEN: [AtomicU32; 1024] = [const { AtomicU32::new(0) }; 1024];

/// The handler.
pub fn handle(interrupt: Interrupt) {
    let intid = interrupt.intid();
    if intid >= gic::interrupt_count() {
        fail(format_args!("interrupt {intid} came, which this machine doesn't have"));
    }
    if let Some(timer) = Timer::ALL.iter().find(|timer| timer.intid() == intid) {
        timer.stop();
    }
    TAKEN[intid as usize].fetch_add(1, Ordering::Relaxed);
}

/// How often this interrupt has come since [`forget`].
pub fn taken(intid: u32) -> u32 {
    TAKEN[intid as usize].load(Ordering::Relaxed)
}

/// How many interrupts have come since [`forget`].
pub fn all_taken() -> u32 {
    (0..1024).map(taken).sum()
}

/// Starts to count anew.
pub fn forget() {
    TAKEN.iter().for_each(|count| count.store(0, Ordering::Relaxed));
}

/// Takes the interrupts that wait.
pub fn take() {
    cpu::unmask_irqs();
    cpu::mask_irqs();
}

/// Takes interrupts for so many microseconds.
pub fn take_for(microseconds: u64) {
    let end = timer::now() + timer::microseconds(microseconds);
    cpu::unmask_irqs();
    while timer::now() < end {}
    cpu::mask_irqs();
}

/// Takes interrupts until this one has come so often; fails if it doesn't.
pub fn take_until(intid: u32, count: u32, what: &str) {
    let came = timer::wait_until(PATIENCE, || {
        take();
        taken(intid) >= count
    });
    if !came {
        fail(format_args!("interrupt {intid} came {} times and not {count}: {what}", taken(intid)));
    }
}

/// Puts timers and the interrupt controller into their starting state, whatever was done to them.
pub fn reset() {
    cpu::mask_irqs();
    registers::release();
    gic::drop_priorities();
    gic::init_distributor();
    gic::init_cpu();
    // A timer's interrupt that was on its way when the timer stopped still comes once; so may one that was acknowledged
    // and never ended.
    take_for(50);
    gic::drop_priorities();
    gic::init_cpu();
    forget();
}

/// An SGI and a timer's interrupt come, once each, and nothing else does.
pub fn check_that_it_works() {
    gic::send_sgi(3, SgiTarget::Cpu(0));
    take_until(3, 1, "an SGI to itself");
    gic::enable(Timer::Virtual.intid());
    Timer::Virtual.start(timer::now() + timer::microseconds(20));
    take_until(Timer::Virtual.intid(), 1, "the virtual timer");
    gic::disable(Timer::Virtual.intid());
    take_for(20);
    if all_taken() != 2 {
        fail(format_args!("{} interrupts came where 2 were wanted", all_taken()));
    }
    forget();
}
