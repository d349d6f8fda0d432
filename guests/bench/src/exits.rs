//! What one CPU does by itself: calls, registers, devices, its own interrupts.
//!
//! Nothing is printed before all is measured, since the hypervisor sends what is printed while it goes on. From rows that lie
//! between two readings of the counter, what these take themselves (the least of the first row) is subtracted. Calls that nobody
//! takes here are left out: Hanok's own elsewhere, SMC where it is UNDEFINED, and HVC where there is no EL2.

use runtime::gic::{self, SgiTarget, register};
use runtime::timed::{self, Call, Delivery, Until};
use runtime::timer::{self, Timer};
use runtime::{console, cpu, exceptions, hypervisor, println};

use crate::histogram::Histogram;
use crate::samples::{Row, SAMPLES};

/// The SGI that is sent.
const SGI: u32 = 3;
/// How far ahead timers are set where the CPU spins, in ticks: far enough for whatever is to be done before.
const AHEAD: u64 = 20_000;
/// And where it sleeps. Of timers of CPUs that sleep, Xen lets none come earlier than 50 us from when it looks.
const SLEEP: u64 = 100_000;
/// The rows that are how late interrupts come.
const LATE: [&str; 2] = ["timer-spinning", "timer-wfi"];
/// What a call answers that isn't there: NOT_SUPPORTED, in w0.
const NOT_SUPPORTED: u32 = u32::MAX;
/// Characters in a line of those that are written to be measured.
const LINE: usize = 64;

pub fn measure(rounds: usize) {
    gic::enable(SGI);
    gic::enable(Timer::Virtual.intid());
    let mut samples = SAMPLES.lock();
    let mut histograms = [const { None }; LATE.len()];
    let mut take = |name, less, one: &mut dyn FnMut() -> u64| {
        let row = samples.take(name, rounds, less, one);
        for (late, histogram) in LATE.iter().zip(&mut histograms) {
            if *late == name {
                *histogram = Some(Histogram::of(samples.sorted()));
            }
        }
        row
    };
    let empty = take("empty", 0, &mut timed::nothing);
    let less = empty.min;
    let calls = CALLS.map(|(name, conduit, call)| {
        is_taken(conduit, call).then(|| take(name, less, &mut || checked(call, conduit(call))))
    });
    let rows = [
        take("id-register", less, &mut timed::id_register),
        take("gicd-typer", less, &mut || timed::distributor_read(register::TYPER)),
        take("gicd-isenabler1", less, &mut || timed::distributor_read(register::ISENABLER + 4)),
        take("uart-flags", less, &mut timed::console_flags),
        take("sgi-self", less, &mut || {
            let Delivery { caused, ended, .. } = sgi();
            ended - caused
        }),
        take("sgi-self-eoi", less, &mut || {
            let Delivery { acknowledged, ended, .. } = sgi();
            ended - acknowledged
        }),
        take("timer-spinning", 0, &mut || late(&timer(Until::Spinning))),
        take("timer-wfi", 0, &mut || late(&timer(Until::Sleeping))),
        take("timer-eoi", less, &mut || {
            let Delivery { acknowledged, ended, .. } = timer(Until::Spinning);
            ended - acknowledged
        }),
        take("wfi-pending", less, &mut wait_for_pending),
        // The last one: what it writes is sent while it goes on, and after.
        take("uart-data", less, &mut written()),
    ];
    println!();
    println!(
        "bench: {rounds} rounds, a counter of {} Hz; {less} ticks are the readings' own",
        timer::frequency()
    );
    empty.print();
    calls.iter().flatten().chain(&rows).for_each(Row::print);
    for (late, histogram) in LATE.iter().zip(histograms) {
        histogram.iter().for_each(|histogram| histogram.print(late));
    }
}

/// A way to call, which returns what the call took and its x0.
type Conduit = fn(Call) -> (u64, u64);

/// The calls that are measured, by the names of their rows.
const CALLS: [(&str, Conduit, Call); 5] = [
    ("hvc-psci-version", timed::hvc, Call::PsciVersion),
    ("hvc-unknown", timed::hvc, Call::Unknown),
    ("smc-psci-version", timed::smc, Call::PsciVersion),
    ("hvc-identity", timed::hvc, Call::Identity),
    ("hvc-random", timed::hvc, Call::Random),
];

/// Whether somebody takes this call, and answers it as he should.
fn is_taken(conduit: Conduit, call: Call) -> bool {
    if call == Call::Identity && !hypervisor::is_hanok() {
        return false;
    }
    let ((_, x0), fault) = exceptions::catch(|| conduit(call));
    fault.is_none() && is_answer(call, x0)
}

/// Whether this is what the call should return: all are there but one.
fn is_answer(call: Call, x0: u64) -> bool {
    (x0 as u32 == NOT_SUPPORTED) == (call == Call::Unknown)
}

/// The ticks of a call, which has to go as it did before.
fn checked(call: Call, (ticks, x0): (u64, u64)) -> u64 {
    assert!(is_answer(call, x0), "{call:?} answers {x0:#x}");
    ticks
}

fn sgi() -> Delivery {
    let delivery = timed::sgi_to_self(SGI);
    assert!(delivery.intid == SGI, "interrupt {} in place of an SGI", delivery.intid);
    delivery
}

fn timer(until: Until) -> Delivery {
    let ahead = if until == Until::Sleeping { SLEEP } else { AHEAD };
    let delivery = timed::virtual_timer(ahead, until);
    assert!(delivery.intid == Timer::Virtual.intid(), "interrupt {} in place of the timer's", delivery.intid);
    delivery
}

/// From the deadline to the handler's first instruction.
fn late(delivery: &Delivery) -> u64 {
    assert!(delivery.entered >= delivery.caused, "the timer came early");
    delivery.entered - delivery.caused
}

/// An SGI waits, so that WFI does not.
fn wait_for_pending() -> u64 {
    gic::send_sgi(SGI, SgiTarget::Cpu(cpu::index()));
    let ticks = timed::wait_for_pending();
    let interrupt = gic::acknowledge().expect("the SGI is pending");
    gic::end(interrupt);
    ticks
}

/// Writes dots, in lines, whenever there is room.
fn written() -> impl FnMut() -> u64 {
    let mut column = 0;
    move || {
        while console::uart().read32(console::register::FR) & console::TXFF != 0 {
            core::hint::spin_loop();
        }
        column = (column + 1) % LINE;
        timed::console_write(if column == 0 { b'\n' } else { b'.' })
    }
}
