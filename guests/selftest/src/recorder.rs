//! The interrupt handler of the test cases: it notes what came, on which CPU and when, and quietens the device that
//! sent it, so that a level doesn't come again.

use core::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use runtime::gic::Interrupt;
use runtime::machine::MAX_CPUS;
use runtime::timer::{self, Timer};
use runtime::{console, cpu, machine, rtc};
use spin::Mutex;

/// An interrupt that was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number.
    pub intid: u32,
    /// Who sent it, for an SGI on GICv2.
    pub source: Option<u32>,
    /// The virtual counter when the handler ran.
    pub time: u64,
}

const CAPACITY: usize = 64;

struct Log {
    events: Mutex<ArrayVec<Event, CAPACITY>>,
    count: AtomicUsize,
}

static LOGS: [Log; MAX_CPUS] =
    [const { Log { events: Mutex::new(ArrayVec::new_const()), count: AtomicUsize::new(0) } }; MAX_CPUS];

static HOOK: Mutex<Option<fn(u32)>> = Mutex::new(None);

/// Forgets everything, the hook included.
pub fn clear() {
    for log in &LOGS {
        log.events.lock().clear();
        log.count.store(0, Ordering::Relaxed);
    }
    *HOOK.lock() = None;
}

/// Has `hook` called with the number of each interrupt, after it was noted.
pub fn set_hook(hook: fn(u32)) {
    *HOOK.lock() = Some(hook);
}

/// The handler.
pub fn handler(interrupt: Interrupt) {
    let event = Event { intid: interrupt.intid(), source: interrupt.source(), time: timer::now() };
    quieten(event.intid);
    let log = &LOGS[cpu::index()];
    // More than fit are counted and not kept.
    let _ = log.events.lock().try_push(event);
    log.count.fetch_add(1, Ordering::Release);
    // Taken out of the lock first: a hook may let further interrupts in.
    let hook = *HOOK.lock();
    if let Some(hook) = hook {
        hook(event.intid);
    }
}

/// Takes the level down.
fn quieten(intid: u32) {
    for timer in Timer::ALL.into_iter().filter(|timer| timer.intid() == intid) {
        timer.stop();
    }
    if intid == machine().uart.intid {
        console::uart().write32(console::register::IMSC, 0);
    }
    if let (Some(device), Some(registers)) = (machine().rtc, rtc::rtc())
        && device.intid == intid
    {
        registers.write32(rtc::IMSC, 0);
    }
}

/// How many interrupts `cpu` has taken.
pub fn count(cpu: usize) -> usize {
    LOGS[cpu].count.load(Ordering::Acquire)
}

/// What `cpu` has taken, in order. To be called on a CPU that doesn't take interrupts itself now.
pub fn events(cpu: usize) -> ArrayVec<Event, CAPACITY> {
    cpu::without_irqs(|| LOGS[cpu].events.lock().clone())
}

/// The numbers of what `cpu` has taken, in order.
pub fn intids(cpu: usize) -> ArrayVec<u32, CAPACITY> {
    events(cpu).iter().map(|event| event.intid).collect()
}
