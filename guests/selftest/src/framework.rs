//! Test cases: how they are registered, run and reported, and the checks that they are made of.

use core::fmt::{self, Write};
use core::panic::Location;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use arrayvec::{ArrayString, ArrayVec};
use linkme::distributed_slice;
use runtime::{cpu, gic, hypervisor, interrupts, machine, println, smp, timer};
use spin::Mutex;

use crate::recorder;

/// What a case comes to: passed, or the reason why not.
pub type Outcome = Result<(), Stop>;

/// Why a case ended before its end.
#[derive(Clone, Copy)]
pub enum Stop {
    /// An expectation was not met; [`FAILURE`] has which.
    Failed,
    /// This machine can't show it.
    Skipped(&'static str),
}

/// An expectation that was not met.
struct Failure {
    what: ArrayString<200>,
    at: &'static Location<'static>,
}

/// The first failure of the case that runs, on whichever CPU.
static FAILURE: Mutex<Option<Failure>> = Mutex::new(None);

/// A named case.
pub struct Test {
    /// Area and case, as in `psci.version`.
    pub name: &'static str,
    /// Runs on the boot CPU, IRQs masked, devices and interrupts in their starting state.
    pub run: fn() -> Outcome,
}

/// The cases of one file.
pub struct Group(pub &'static [Test]);

/// All groups, in the linker's order.
#[distributed_slice]
pub static GROUPS: [Group];

/// Registers the cases of a file: `tests! { "area.case" => function, ... }`.
macro_rules! tests {
    ($($name:literal => $function:path),* $(,)?) => {
        // What linkme makes of it names a linker section, which counts as unsafe code.
        #[allow(unsafe_code)]
        const _: () = {
            #[linkme::distributed_slice($crate::framework::GROUPS)]
            static GROUP: $crate::framework::Group = $crate::framework::Group(&[
                $($crate::framework::Test { name: $name, run: $function }),*
            ]);
        };
    };
}
pub(crate) use tests;

/// A failure with this text, at the caller's place.
#[track_caller]
pub fn failed(what: fmt::Arguments) -> Stop {
    let at = Location::caller();
    cpu::without_irqs(|| {
        FAILURE.lock().get_or_insert_with(|| {
            let mut text = ArrayString::new();
            // What doesn't fit is cut off.
            let _ = text.write_fmt(what);
            Failure { what: text, at }
        });
    });
    Stop::Failed
}

#[track_caller]
pub fn expect(condition: bool, what: fmt::Arguments) -> Outcome {
    if condition { Ok(()) } else { Err(failed(what)) }
}

#[track_caller]
pub fn expect_equal<T: PartialEq + fmt::Debug>(got: T, expected: T, what: fmt::Arguments) -> Outcome {
    if got == expected {
        return Ok(());
    }
    Err(failed(format_args!("{what}: expected {expected:x?}, got {got:x?} (hex)")))
}

/// Checks a condition; the rest says, as a format, what should hold.
macro_rules! check {
    ($condition:expr, $($what:tt)*) => {
        $crate::framework::expect($condition, format_args!($($what)*))?
    };
}
pub(crate) use check;

/// Checks that two values are equal: got, expected, and what they are.
macro_rules! check_eq {
    ($got:expr, $expected:expr, $($what:tt)*) => {
        $crate::framework::expect_equal($got, $expected, format_args!($($what)*))?
    };
}
pub(crate) use check_eq;

/// How long to wait for what must come: long, for the machine may be busy.
const PATIENCE_MS: u64 = 10_000;
/// How long to wait for what must not come.
pub const GRACE_MS: u64 = 20;

/// Set while CPUs that a failed case left running are to come to their end.
static ABANDONED: AtomicBool = AtomicBool::new(false);

/// Whether the case that started this CPU is over.
pub fn abandoned() -> bool {
    ABANDONED.load(Ordering::Acquire)
}

/// Waits for what must come: until `condition` holds, or there is no point in waiting longer; whether it holds.
pub fn wait(mut condition: impl FnMut() -> bool) -> bool {
    let mut holds = false;
    timer::wait_until(PATIENCE_MS, || {
        holds = condition();
        holds || abandoned()
    });
    holds
}

/// Waits for what must not come.
pub fn grace() {
    timer::wait_until(GRACE_MS, || false);
}

/// Whether the hypervisor above is Hanok; asked once.
pub fn is_hanok() -> bool {
    static ANSWER: AtomicU8 = AtomicU8::new(0);
    match ANSWER.load(Ordering::Relaxed) {
        0 => {
            let answer = hypervisor::is_hanok();
            ANSWER.store(1 + u8::from(answer), Ordering::Relaxed);
            answer
        }
        answer => answer == 2,
    }
}

/// Skips what another machine may do otherwise.
pub fn needs_hanok() -> Outcome {
    if is_hanok() { Ok(()) } else { Err(Stop::Skipped("holds under Hanok only")) }
}

/// Skips what takes `count` CPUs.
pub fn needs_cpus(count: usize) -> Outcome {
    match machine().cpus().len() {
        n if n >= count => Ok(()),
        _ if count == 2 => Err(Stop::Skipped("needs 2 CPUs")),
        _ => Err(Stop::Skipped("needs more CPUs")),
    }
}

/// Skips what the other version of the interrupt controller has.
pub fn needs_gic(version: gic::Version) -> Outcome {
    match (gic::version() == version, version) {
        (true, _) => Ok(()),
        (false, gic::Version::V2) => Err(Stop::Skipped("needs GICv2")),
        (false, gic::Version::V3) => Err(Stop::Skipped("needs GICv3")),
    }
}

/// The indices of all CPUs but the boot CPU.
pub fn secondaries() -> core::ops::Range<usize> {
    1..machine().cpus().len()
}

/// Runs `body` on another CPU, which is started for it and turned off afterwards.
pub fn on_cpu(cpu: usize, body: fn() -> Outcome) -> Outcome {
    static BODY: Mutex<Option<fn() -> Outcome>> = Mutex::new(None);
    static OUTCOME: Mutex<Option<Outcome>> = Mutex::new(None);
    fn run(_: u64) {
        let body = BODY.lock().take();
        let outcome = body.map(|body| body());
        *OUTCOME.lock() = outcome;
    }
    *BODY.lock() = Some(body);
    *OUTCOME.lock() = None;
    start(cpu, run, 0)?;
    finish(cpu)?;
    let outcome = OUTCOME.lock().take();
    outcome.unwrap_or_else(|| Err(failed(format_args!("CPU {cpu} went off without a result"))))
}

/// Runs `body` on every CPU in turn, this one first.
pub fn on_every_cpu(body: fn() -> Outcome) -> Outcome {
    body()?;
    secondaries().try_for_each(|cpu| on_cpu(cpu, body))
}

/// Starts another CPU.
#[track_caller]
pub fn start(cpu: usize, function: fn(u64), argument: u64) -> Outcome {
    smp::start(cpu, function, argument)
        .map_err(|error| failed(format_args!("CPU_ON of CPU {cpu}: expected 0, got {error}")))
}

/// Waits until a CPU that was started is off.
#[track_caller]
pub fn finish(cpu: usize) -> Outcome {
    expect(smp::wait_off(cpu, PATIENCE_MS), format_args!("CPU {cpu} should be off by now"))
}

/// Waits for `condition`.
#[track_caller]
pub fn expect_soon(condition: impl FnMut() -> bool, what: fmt::Arguments) -> Outcome {
    expect(wait(condition), what)
}

/// Runs the cases whose names start with `prefix`, but for `without`, and counts.
pub fn run_all(prefix: &str, without: &str) {
    let mut groups: ArrayVec<&'static [Test], 32> = GROUPS.iter().map(|group| group.0).collect();
    groups.sort_unstable_by_key(|group| group[0].name);
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for test in groups.into_iter().flatten().filter(|test| test.name.starts_with(prefix)) {
        reset();
        let skipped_for = (test.name == without).then_some(Stop::Skipped("by the command line"));
        match skipped_for.map_or_else(test.run, Err) {
            Ok(()) => {
                println!("test {} ... ok", test.name);
                passed += 1;
            }
            Err(Stop::Skipped(reason)) => {
                println!("test {} ... skipped: {reason}", test.name);
                skipped += 1;
            }
            Err(Stop::Failed) => {
                if let Some(Failure { what, at }) = FAILURE.lock().take() {
                    println!("test {} ... FAILED: {what}, at {}:{}", test.name, at.file(), at.line());
                }
                failed += 1;
            }
        }
    }
    reset();
    if passed + failed + skipped == 0 {
        println!("no case starts with {prefix:?}");
        failed = 1;
    }
    if skipped > 0 {
        println!("{skipped} skipped");
    }
    println!("{passed} passed, {failed} failed");
}

/// Puts CPUs, interrupts and timers into their starting state.
fn reset() {
    cpu::mask_irqs();
    abandon_cpus();
    timer::Timer::ALL.iter().for_each(|timer| timer.stop());
    runtime::console::uart().write32(runtime::console::register::IMSC, 0);
    if let Some(rtc) = runtime::rtc::rtc() {
        rtc.write32(runtime::rtc::IMSC, 0);
    }
    gic::drop_priorities();
    gic::init_distributor();
    gic::init_cpu();
    recorder::clear();
    interrupts::set_handler(recorder::handler);
}

/// Ends what a failed case left running on other CPUs.
fn abandon_cpus() {
    /// Those that didn't end, by bits: nobody waits for them again.
    static STUCK: AtomicU32 = AtomicU32::new(0);
    ABANDONED.store(true, Ordering::Release);
    let stuck = STUCK.load(Ordering::Relaxed);
    let waited_for =
        |cpu: &usize| stuck & 1 << cpu == 0 && smp::affinity_info(*cpu) != abi::psci::AFFINITY_OFF;
    for cpu in secondaries().filter(waited_for) {
        // It may sleep.
        gic::send_sgi(0, gic::SgiTarget::Cpu(cpu));
        if !smp::wait_off(cpu, PATIENCE_MS) {
            println!("selftest: CPU {cpu} can't be stopped; cases that need it will fail");
            STUCK.fetch_or(1 << cpu, Ordering::Relaxed);
        }
    }
    ABANDONED.store(false, Ordering::Release);
}
