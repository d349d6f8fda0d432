//! A guest that does anything at all, by chance: system registers, calls, accesses to devices, instructions, page tables, interrupts,
//! power states, whatever comes. It checks nothing, it only lives through it and counts. What must not happen is for EL2 and for
//! its neighbours to see; `attacker` is the one that knows what each answer must be.
//!
//! Its command line:
//! - `seed=S`: what all that is done follows from (0).
//! - `operations=N`: turn off after N operations of all vCPUs together (0: never).
//! - `from=N`: every vCPU begins with its operation number N (0), as a run came to it that is to be looked into.
//! - `kinds=NAME,NAME`: which kinds of operation, by the names in [`KINDS`]; a name that stands there twice comes twice as
//!   often. Without it, all of them by their weights.
//!
//! Operation N of a vCPU follows from the seed, the vCPU and N alone. How far each has come is in the memory of the channel
//! `progress`, which lives through all that becomes of this VM: after a restart, it goes on with the next operation.
//! The VM at the other end is to restart it when it hangs, for it does that to itself: `keeper what=guard`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod calls;
mod code;
mod debug;
mod devices;
mod interrupts;
mod jumps;
mod maintenance;
mod places;
mod power;
mod registers;
mod sleep;
mod states;
mod tables;
mod words;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::channel;
use runtime::machine::MAX_CPUS;
use runtime::progress::{self, MAX_KINDS, Progress};
use runtime::random::{Random, mix};
use runtime::timer::{self, Timer};
use runtime::trial::{self, Ended, Trial};
use runtime::{cpu, machine, power as machine_power, println};
use spin::Once;

runtime::entry!(main);

/// A kind of operation.
struct Kind {
    name: &'static str,
    run: fn(&mut Operation, &mut Trial),
    /// How often it comes, by comparison.
    weight: usize,
    /// It may never end by itself: the timer has to be able to end it.
    may_hang: bool,
    /// It may leave the interrupt controller so that the timer's interrupt doesn't come.
    disturbs: bool,
}

/// All kinds.
const KINDS: &[Kind] = &[
    Kind { name: "registers", run: registers::run, weight: 4, may_hang: false, disturbs: true },
    Kind { name: "calls", run: calls::run, weight: 2, may_hang: true, disturbs: false },
    Kind { name: "devices", run: devices::run, weight: 4, may_hang: false, disturbs: true },
    Kind { name: "instructions", run: code::run_at_el1, weight: 2, may_hang: true, disturbs: false },
    Kind { name: "programs", run: code::run_at_el0, weight: 1, may_hang: true, disturbs: false },
    Kind { name: "aarch32", run: code::run_aarch32, weight: 1, may_hang: true, disturbs: false },
    Kind { name: "jumps", run: jumps::run, weight: 1, may_hang: true, disturbs: false },
    Kind { name: "tables", run: tables::run, weight: 2, may_hang: true, disturbs: false },
    Kind { name: "maintenance", run: maintenance::run, weight: 1, may_hang: false, disturbs: false },
    Kind { name: "interrupts", run: interrupts::run, weight: 3, may_hang: false, disturbs: true },
    Kind { name: "power", run: power::run, weight: 1, may_hang: true, disturbs: false },
    Kind { name: "states", run: states::run, weight: 1, may_hang: true, disturbs: false },
    Kind { name: "debug", run: debug::run, weight: 1, may_hang: true, disturbs: false },
    Kind { name: "sleep", run: sleep::run, weight: 1, may_hang: true, disturbs: false },
];
const _: () = assert!(KINDS.len() <= MAX_KINDS);

/// The longest list of kinds.
const MAX_ORDER: usize = 64;

/// When a trial that doesn't end is ended, in microseconds.
const ALARM: u64 = 200;

/// What the command line says.
struct Plan {
    seed: u64,
    operations: u64,
    from: u64,
    /// What each round of operations consists of: places in [`KINDS`].
    order: [usize; MAX_ORDER],
    order_length: usize,
    progress: Progress,
}

static PLAN: Once<Plan> = Once::new();

/// Whether the timer's interrupt may not come on each CPU any more.
static DISTURBED: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(true) }; MAX_CPUS];

/// An operation that is to be set up.
struct Operation {
    random: Random,
    /// No two operations of a kind have the same one, on one vCPU.
    number: u64,
    /// When it is ended, in microseconds; 0: it needs no end.
    alarm: u64,
}

fn main() -> ! {
    let Some(channel) = channel::find(progress::CHANNEL) else {
        fail(format_args!("there is no channel {:?}", progress::CHANNEL))
    };
    let (order, order_length) = order();
    let plan = Plan {
        seed: number("seed"),
        operations: number("operations"),
        from: number("from"),
        order,
        order_length,
        progress: Progress::new(&channel),
    };
    plan.progress.describe(plan.seed, KINDS.iter().map(|kind| kind.name));
    if plan.progress.total() == 0 {
        println!("chaos: seed={} from={}, {} vCPU(s)", plan.seed, plan.from, machine().cpus().len());
    }
    PLAN.call_once(|| plan);
    places::find();
    trial::begin(step)
}

/// The kinds of a round.
fn order() -> ([usize; MAX_ORDER], usize) {
    let mut order = [0; MAX_ORDER];
    let mut length = 0;
    let mut add = |kind: usize| {
        let Some(place) = order.get_mut(length) else { fail(format_args!("kinds= has too many names")) };
        *place = kind;
        length += 1;
    };
    match machine().argument("kinds") {
        Some(names) => {
            names.split(',').for_each(|name| match KINDS.iter().position(|kind| kind.name == name) {
                Some(kind) => add(kind),
                None => fail(format_args!("there is no kind {name}")),
            })
        }
        None => KINDS.iter().enumerate().for_each(|(n, kind)| (0..kind.weight).for_each(|_| add(n))),
    }
    (order, length)
}

/// The number in the command line, 0 without one.
fn number(name: &str) -> u64 {
    let Some(text) = machine().argument(name) else { return 0 };
    text.parse().unwrap_or_else(|_| fail(format_args!("{name}={text} is no number")))
}

/// Says what is wrong with the machine or the command line, and ends.
fn fail(what: core::fmt::Arguments) -> ! {
    println!("chaos: {what}");
    machine_power::off()
}

/// Clears up after a trial and sets up the next one.
fn step(ended: &Ended, trial: &mut Trial) {
    let plan = PLAN.get().expect("the command line has been read");
    let cpu = cpu::index();
    plan.note(ended, cpu);
    let number = plan.progress.next(cpu);
    let (place, sweep) = plan.place_of(number, cpu);
    plan.progress.count(cpu, plan.order[place]);
    let kind = &KINDS[plan.order[place]];
    let random = Random::new(mix(plan.seed ^ mix(number << 8 | cpu as u64)));
    let mut operation = Operation { random, number: sweep, alarm: ALARM };
    if plan.operations > 0 && number.is_multiple_of(64) && plan.progress.total() >= plan.operations {
        machine_power::off();
    }
    interrupts::clear_up(ended, &mut operation, &DISTURBED[cpu]);
    if number.is_multiple_of(64) || ended.is_beginning() {
        interrupts::put_right(cpu == 0 && number.is_multiple_of(1024));
        DISTURBED[cpu].store(false, Ordering::Relaxed);
    } else if kind.may_hang && DISTURBED[cpu].swap(false, Ordering::Relaxed) {
        interrupts::let_the_timer_through();
    }
    if number.is_multiple_of(256) || ended.is_beginning() {
        power::wake_others();
    }
    (kind.run)(&mut operation, trial);
    if kind.disturbs {
        DISTURBED[cpu].store(true, Ordering::Relaxed);
    }
    if operation.alarm > 0 {
        Timer::Virtual.start(timer::now() + timer::microseconds(operation.alarm));
    }
}

impl Plan {
    /// Counts how the last operation has ended.
    fn note(&self, ended: &Ended, cpu: usize) {
        static NOTED: AtomicU64 = AtomicU64::new(0);
        if ended.is_beginning() {
            self.progress.resume(cpu, self.from);
        } else if ended.interrupt() != 0 {
            self.progress.ended_by_kind(ended.interrupt());
        } else {
            self.progress.ended_by_class(ended.class());
        }
        let faults = trial::own_faults();
        let noted = NOTED.swap(faults, Ordering::Relaxed);
        self.progress.own_faults(cpu, faults.saturating_sub(noted));
    }

    /// The place in the order of the operation with this number, and a number that no other operation at that place has. In each
    /// round, every place comes once, in another order each time.
    fn place_of(&self, number: u64, cpu: usize) -> (usize, u64) {
        let length = self.order_length as u64;
        let (round, place) = (number / length, number % length);
        let turn = mix(self.seed ^ round << 8 ^ cpu as u64);
        // A step that has no divisor in common with the length comes to every place.
        let stride = (0..length).map(|n| (turn >> 32).wrapping_add(n) % length).find(|n| coprime(*n, length));
        let place = (turn % length + place * stride.unwrap_or(1)) % length;
        (place as usize, self.seed.wrapping_mul(2 * 9973).wrapping_add(round * length + place))
    }
}

/// Whether two numbers have no divisor but 1 in common.
fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}
