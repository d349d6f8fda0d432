//! A real-time guest: its timer is due a thousand times a second, on a grid of absolute times that never drifts, and
//! it sleeps in between. It measures how late each interrupt is handled, and reports that every so often.
//!
//! Its command line:
//! - `ticks=N`: a report for every N ticks (1 to 60000; 5000).
//! - `reports=R`: turn off after R reports (0: never).
//! - `work=U`: the handler has work to do for about U microseconds (0): U times [`WORK`] rounds of a loop. That is
//!   an amount of work and not of time, so time that the CPU spends on others comes on top.
//!
//! While it reports, the timer stands still; then it goes on, on the same grid.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod samples;

use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};

use runtime::gic::Interrupt;
use runtime::timer::{self, Timer};
use runtime::{cpu, gic, interrupts, machine, power, println};
use samples::{CAPACITY, Samples};
use spin::Mutex;

runtime::entry!(main);

/// Periods in a second.
const RATE: u64 = 1000;
/// Rounds of the loop that are work for a microsecond, where an instruction takes a nanosecond.
const WORK: u64 = 333;

/// What was measured since the last report. The handler has it while the timer runs, `main` while it doesn't.
static SAMPLES: Mutex<Samples> = Mutex::new(Samples::new());
static WANTED: AtomicU64 = AtomicU64::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

fn main() -> ! {
    let ticks: u64 = argument("ticks", 5000);
    let ticks = ticks.clamp(1, CAPACITY as u64);
    let reports: u64 = argument("reports", 0);
    let work: u64 = argument("work", 0);
    println!(
        "pulse: a timer of {RATE} Hz; every {ticks} ticks, how late they were (work={work}, counter at {} Hz)",
        timer::frequency()
    );
    WANTED.store(ticks, Ordering::Relaxed);
    ROUNDS.store(work.saturating_mul(WORK), Ordering::Relaxed);
    interrupts::set_handler(tick);
    gic::enable(Timer::Virtual.intid());

    let mut deadline = timer::now();
    for report in 1.. {
        deadline = after(deadline, timer::now() + period());
        Timer::Virtual.start(deadline);
        interrupts::sleep_until(|| Timer::Virtual.control() & timer::ENABLE == 0);
        deadline = Timer::Virtual.deadline();
        let mut samples = SAMPLES.lock();
        samples.report(report);
        samples.clear();
        if report == reports {
            break;
        }
    }
    power::off()
}

/// The number in the command line, or what it is without one.
fn argument<T: FromStr>(name: &str, default: T) -> T {
    let Some(text) = machine().argument(name) else { return default };
    text.parse().unwrap_or_else(|_| {
        println!("pulse: {name}={text} is no number");
        power::off()
    })
}

/// Ticks of the counter in a period.
fn period() -> u64 {
    timer::frequency() / RATE
}

/// The first time on the grid that `deadline` lies on, behind it and at `earliest` or later.
fn after(deadline: u64, earliest: u64) -> u64 {
    let periods = earliest.saturating_sub(deadline).div_ceil(period());
    deadline + periods.max(1) * period()
}

/// The timer's handler. Deadlines that have passed by now are missed, and the next one is the first that hasn't.
fn tick(interrupt: Interrupt) {
    let now = timer::now();
    assert!(
        interrupt.intid() == Timer::Virtual.intid(),
        "interrupt {}, which is not enabled",
        interrupt.intid()
    );
    let deadline = Timer::Virtual.deadline();
    let Some(late) = now.checked_sub(deadline) else {
        println!("pulse: the timer came {} ticks of the counter early", deadline - now);
        power::off()
    };
    let mut samples = SAMPLES.lock();
    samples.add(late, late / period());
    if samples.count() as u64 == WANTED.load(Ordering::Relaxed) {
        Timer::Virtual.stop();
        return;
    }
    drop(samples);
    Timer::Virtual.set_deadline(after(deadline, now + 1));
    cpu::count_down(ROUNDS.load(Ordering::Relaxed));
}
