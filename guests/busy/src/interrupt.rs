//! What comes between rounds: SGIs from one CPU to the next, sleep until the timer, and a line that is made pending.

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::gic::{Interrupt, SgiTarget};
use runtime::machine::MAX_CPUS;
use runtime::timer::{self, Timer};
use runtime::{cpu, gic, machine, power, println};

/// The SGI that is passed on.
const PASSED: u32 = 1;
/// How long a sleep is, in microseconds.
const SLEEP: u64 = 200;
/// How long anything may take, in milliseconds, with all that the CPU does for others meanwhile.
const LIMIT: u64 = 30_000;

/// What a CPU has sent to the next one, and what it has taken.
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    virtual_timer: AtomicU64,
    physical_timer: AtomicU64,
    /// How often the line of its performance counters was made pending, and how often that came.
    raised: AtomicU64,
    lines: AtomicU64,
}

static COUNTS: [Counts; MAX_CPUS] = [const {
    Counts {
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        virtual_timer: AtomicU64::new(0),
        physical_timer: AtomicU64::new(0),
        raised: AtomicU64::new(0),
        lines: AtomicU64::new(0),
    }
}; MAX_CPUS];

/// Lets this CPU's timers' interrupts come; SGIs always do. With `all`, those of nobody too, for the handler to see them.
pub fn enable(all: bool) {
    Timer::ALL.iter().for_each(|timer| gic::enable(timer.intid()));
    if all {
        (16..gic::interrupt_count()).for_each(gic::enable);
    }
}

/// The handler.
pub fn handle(interrupt: Interrupt) {
    let counts = &COUNTS[cpu::index()];
    let count = match interrupt.intid() {
        PASSED => &counts.received,
        intid if intid == Timer::Virtual.intid() => {
            Timer::Virtual.stop();
            &counts.virtual_timer
        }
        intid if intid == Timer::Physical.intid() => {
            Timer::Physical.stop();
            &counts.physical_timer
        }
        intid if Some(intid) == machine().counters && counts.raised.load(Ordering::Relaxed) != 0 => {
            &counts.lines
        }
        intid => fail(cpu::index(), format_args!("interrupt {intid} came, which nobody has asked for")),
    };
    count.fetch_add(1, Ordering::Release);
}

/// Takes the interrupts that wait.
fn take() {
    cpu::unmask_irqs();
    cpu::mask_irqs();
}

/// Takes interrupts until `condition` holds, without sleep; fails if that takes too long.
pub fn wait_until(cpu: usize, what: &str, mut condition: impl FnMut() -> bool) {
    let held = timer::wait_until(LIMIT, || {
        take();
        condition()
    });
    if !held {
        fail(cpu, format_args!("waited in vain until {what}"));
    }
}

/// Takes interrupts and sleeps, until the machine ends.
pub fn take_for_ever() -> ! {
    loop {
        cpu::wait_for_interrupt();
        take();
    }
}

/// Sends an SGI to the next CPU, once it has taken the one before; a second one would be the same to it.
pub fn send_to_next(cpu: usize) {
    take();
    let cpus = machine().cpus().len();
    if cpus == 1 {
        return;
    }
    let (sender, next) = (&COUNTS[cpu], (cpu + 1) % cpus);
    let sent = sender.sent.load(Ordering::Relaxed);
    wait_until(cpu, "the next vCPU takes an SGI", || COUNTS[next].received.load(Ordering::Acquire) == sent);
    sender.sent.store(sent + 1, Ordering::Relaxed);
    gic::send_sgi(PASSED, SgiTarget::Cpu(next));
}

/// At the end, every SGI that was sent has been received, and none twice.
pub fn check_all_received() {
    let cpus = machine().cpus().len();
    if cpus == 1 {
        return;
    }
    for (cpu, sender) in COUNTS[..cpus].iter().enumerate() {
        let next = (cpu + 1) % cpus;
        let received = || COUNTS[next].received.load(Ordering::Acquire);
        wait_until(0, "all SGIs have been received", || received() >= sender.sent.load(Ordering::Relaxed));
        let sent = sender.sent.load(Ordering::Relaxed);
        println!("busy: vCPU {cpu}: {sent} SGIs sent, {} received by vCPU {next}", received());
        if received() != sent {
            fail(next, format_args!("SGIs came twice"));
        }
    }
}

/// Sleeps until a deadline of the virtual timer, some time away, and fails if its interrupt comes before that, or not
/// at all: the physical timer wakes the CPU long after that.
pub fn sleep(cpu: usize) {
    let counts = &COUNTS[cpu];
    let before = counts.virtual_timer.load(Ordering::Relaxed);
    let watchdog = counts.physical_timer.load(Ordering::Relaxed);
    let deadline = timer::now() + timer::microseconds(SLEEP);
    Timer::Physical.start(Timer::Physical.count() + timer::milliseconds(LIMIT));
    Timer::Virtual.start(deadline);
    while counts.virtual_timer.load(Ordering::Acquire) == before {
        if counts.physical_timer.load(Ordering::Acquire) != watchdog {
            fail(cpu, format_args!("the virtual timer's interrupt didn't come"));
        }
        cpu::wait_for_interrupt();
        take();
    }
    Timer::Physical.stop();
    let now = timer::now();
    if now < deadline {
        fail(cpu, format_args!("the virtual timer came {} ticks early", deadline - now));
    }
}

/// Makes the line of this CPU's performance counters pending, by register.
pub fn raise_line(cpu: usize) {
    let Some(intid) = machine().counters else {
        fail(cpu, format_args!("the tree has no interrupt of performance counters"));
    };
    COUNTS[cpu].raised.fetch_add(1, Ordering::Relaxed);
    gic::enable(intid);
    gic::set_pending(intid);
}

/// Takes what [`raise_line`] has brought: as many interrupts, and no more.
pub fn take_line(cpu: usize) {
    let counts = &COUNTS[cpu];
    let raised = counts.raised.load(Ordering::Relaxed);
    wait_until(cpu, "its line's interrupt comes", || counts.lines.load(Ordering::Acquire) >= raised);
    take();
    let came = counts.lines.load(Ordering::Acquire);
    if came != raised {
        fail(cpu, format_args!("its line's interrupt came {came} times, was raised {raised} times"));
    }
}

fn fail(cpu: usize, what: core::fmt::Arguments) -> ! {
    println!("busy: vCPU {cpu}: {what}");
    power::off()
}
