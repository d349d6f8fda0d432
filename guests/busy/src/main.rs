//! A guest that is always busy, and checks that the state of its CPUs stays its own: that nobody who shares a CPU with
//! it, and nobody above, changes a register, a flag, or what comes of a computation.
//!
//! Every CPU does rounds. In each it fills its registers with a pattern of its own, computes for a while, and compares.
//! The first difference is printed, and turns the machine off. Between rounds it takes its interrupts: with more CPUs
//! than one, each sends an SGI to the next one in every round, and none may be lost.
//!
//! Its command line:
//! - `seed=S`: what all patterns come from, beside the CPU's and the round's number (0).
//! - `rounds=R`: turn off after R rounds of every CPU (0: never).
//! - `every=E`: every CPU says how far it is every E rounds (10000).
//! - `sleep=1`: sleep after each round, by the virtual timer, for some 200 microseconds.
//! - `times=1`: every CPU says as well how much of the time it ran, on a machine that tells of stolen time.
//! - `memory=1`: fill all free memory with a pattern first, and look at a part of it in every round of CPU 0.
//! - `line=1`: in every round, make the line of the CPU's performance counters pending by register, and have its interrupt.
//! - `interrupts=1`: enable every interrupt that the machine has, none of which may come.
//! - `spoil=NAME`: write something else to this register in round 3, to see that it is noticed; `checksum` likewise, and
//!   with the arguments above `memory`, and `interrupts`, of which one comes.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod interrupt;
mod state;
mod times;

use core::fmt::Display;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};

use runtime::{debug, features, gic, interrupts, machine, memory, power, println, registers, smp};
use state::{Pattern, State};
use times::Times;

runtime::entry!(main);

/// The round that `spoil=` is about.
const SPOILT: u64 = 3;

/// The interrupt that comes where one is to be noticed.
const FIRST_SPI: u32 = 32;

/// How many words of memory are looked at in a round.
const LOOKED_AT: usize = 8192;

/// How many CPUs have set up their interrupts: what comes to one before that is lost.
static READY: AtomicU64 = AtomicU64::new(0);
/// How many CPUs have done all of their rounds.
static FINISHED: AtomicU64 = AtomicU64::new(0);

/// The command line.
struct Arguments {
    seed: u64,
    rounds: u64,
    every: u64,
    sleep: u64,
    times: u64,
    memory: u64,
    interrupts: u64,
    line: u64,
    spoil: Option<&'static str>,
}

impl Arguments {
    fn read() -> Self {
        Self {
            seed: argument("seed", 0),
            rounds: argument("rounds", 0),
            every: argument("every", 10_000).max(1),
            sleep: argument("sleep", 0),
            times: argument("times", 0),
            memory: argument("memory", 0),
            interrupts: argument("interrupts", 0),
            line: argument("line", 0),
            spoil: machine().argument("spoil"),
        }
    }
}

fn main() -> ! {
    let arguments = Arguments::read();
    let cpus = machine().cpus().len();
    println!(
        "busy: {cpus} vCPU(s) compute and keep their registers, seed {}, rounds {}, sleep {}",
        arguments.seed, arguments.rounds, arguments.sleep
    );
    interrupts::set_handler(interrupt::handle);
    if arguments.memory != 0 {
        memory::fill(arguments.seed);
        println!("busy: {} KiB of memory are compared", memory::free().len() / 128);
    }
    for cpu in 1..cpus {
        if let Err(error) = smp::start(cpu, |cpu| work(cpu as usize), cpu as u64) {
            println!("busy: vCPU {cpu} didn't start: CPU_ON says {error}");
            power::off();
        }
    }
    work(0);
    interrupt::wait_until(0, "all vCPUs are done", || FINISHED.load(Ordering::Acquire) == cpus as u64);
    interrupt::check_all_received();
    println!("busy: done, {} rounds, all registers kept", arguments.rounds);
    power::off()
}

/// A CPU's rounds. CPU 0 comes back from them; the others wait for the end, and take interrupts meanwhile.
fn work(cpu: usize) {
    let arguments = Arguments::read();
    features::enable_simd(true);
    // Behind a closed OS lock, which a CPU starts with, debug registers need not be the CPU's own.
    debug::lock(false);
    interrupt::enable(arguments.interrupts != 0);
    READY.fetch_add(1, Ordering::Release);
    let all = machine().cpus().len() as u64;
    interrupt::wait_until(cpu, "all vCPUs have started", || READY.load(Ordering::Acquire) == all);
    let state = State::new();
    if cpu == 0 {
        println!("busy: {} registers of a vCPU are compared", state.count());
    }
    let times = (arguments.times != 0)
        .then(|| Times::new().unwrap_or_else(|| fail(cpu, &"nobody tells of stolen time")));
    for round in 1.. {
        let spoil = arguments.spoil.filter(|_| round == SPOILT);
        if arguments.line != 0 {
            interrupt::raise_line(cpu);
        }
        run(&state, cpu, arguments.seed, round, spoil);
        if arguments.line != 0 {
            interrupt::take_line(cpu);
        }
        if cpu == 0 && arguments.memory != 0 {
            compare_memory(arguments.seed, round, spoil == Some("memory"));
        }
        if spoil == Some("interrupts") {
            gic::set_pending(FIRST_SPI);
        }
        if arguments.sleep != 0 {
            interrupt::sleep(cpu);
        }
        interrupt::send_to_next(cpu);
        if round % arguments.every == 0 {
            match times.as_ref().map(Times::passed) {
                Some((ran, passed)) => {
                    println!("busy: vCPU {cpu}: round {round}, ran {ran} of {passed} us");
                }
                None => println!("busy: vCPU {cpu}: round {round}"),
            }
        }
        if round == arguments.rounds {
            break;
        }
    }
    FINISHED.fetch_add(1, Ordering::Release);
    if cpu != 0 {
        interrupt::take_for_ever()
    }
}

/// One round, with IRQs masked.
fn run(state: &State, cpu: usize, seed: u64, round: u64, spoil: Option<&str>) {
    let pattern = Pattern::new(seed, cpu, round);
    let mut filled = pattern.clone();
    if let Some(name) = spoil {
        filled.spoil(name);
    }
    state.fill(&filled);
    let general = state::hold(&filled);
    let sum = state::checksum(filled.sum_seed);
    let found = state.read(general);
    registers::release();
    if let Err(difference) = state.compare(&pattern, &found) {
        fail(cpu, &difference);
    }
    let wanted = state::checksum(pattern.sum_seed);
    if sum != wanted {
        fail(cpu, &format_args!("the checksum is {sum:#x}, was {wanted:#x}"));
    }
}

/// Looks at the part of memory whose turn it is in this round.
fn compare_memory(seed: u64, round: u64, spoil: bool) {
    let parts = memory::free().len().div_ceil(LOOKED_AT).max(1);
    let part = round as usize % parts;
    if spoil {
        memory::free()[part * LOOKED_AT].fetch_xor(1, Ordering::Relaxed);
    }
    if let Err(changed) = memory::compare(seed, part * LOOKED_AT, LOOKED_AT) {
        let memory::Changed { address, is, was } = changed;
        fail(0, &format_args!("memory at {address:#x} is {is:#x}, was {was:#x}"));
    }
}

/// Says what is wrong, and ends the machine.
fn fail(cpu: usize, what: &dyn Display) -> ! {
    println!("busy: vCPU {cpu}: {what}");
    power::off()
}

/// The number in the command line, or what it is without one.
fn argument<T: FromStr>(name: &str, default: T) -> T {
    let Some(text) = machine().argument(name) else { return default };
    text.parse().unwrap_or_else(|_| {
        println!("busy: {name}={text} is no number");
        power::off()
    })
}
