//! A guest that means no good: it tries to reach what isn't its own, and to keep others from their work. It knows what the
//! hypervisor must answer, so an attack that succeeds ends with a line that says so, and the machine off:
//! `attacker: FAILED: ...`. What it can't see, its neighbours must: `busy` and `pulse` are good ones.
//!
//! Its command line:
//! - `attack=NAME,NAME`: which attacks, by the names in [`ATTACKS`]; `all` (the default) is all of them but `reset`.
//! - `rounds=R`: turn off after R rounds of them (1; 0: never).
//! - `seed=S`: what all that is random comes from (0).
//! - `size=S`: how long the random and the repeated parts are, in hundredths of their usual length (100).
//!
//! Each attack ends with a line that says how often it tried what, and after each the guest looks whether its own memory and
//! interrupts are still as they were.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod flood;
mod handler;
mod interrupts;
mod memory;
mod power;
mod registers;

use core::fmt::{Arguments, Display};

use runtime::random::Random;
use runtime::{features, hypervisor, machine, println};

runtime::entry!(main);

/// What an attack comes to: how often, and what.
type Report = (u64, &'static str);

/// An attack. Fails by [`fail`], and otherwise leaves everything as it was.
struct Attack {
    name: &'static str,
    run: fn(&mut Strength) -> Report,
    /// Whether `all` means it too.
    in_all: bool,
}

/// All attacks, in the order in which they run.
const ATTACKS: &[Attack] = &[
    Attack { name: "memory", run: memory::attack, in_all: true },
    Attack { name: "devices", run: memory::attack_devices, in_all: true },
    Attack { name: "interrupts", run: interrupts::attack, in_all: true },
    Attack { name: "sgis", run: interrupts::attack_by_sgis, in_all: true },
    Attack { name: "gic", run: interrupts::attack_gic, in_all: true },
    Attack { name: "power", run: power::attack, in_all: true },
    Attack { name: "calls", run: power::attack_calls, in_all: true },
    Attack { name: "registers", run: registers::attack, in_all: true },
    Attack { name: "held", run: registers::attack_held, in_all: true },
    Attack { name: "exits", run: flood::attack_by_exits, in_all: true },
    Attack { name: "timers", run: flood::attack_by_timers, in_all: true },
    Attack { name: "sleep", run: flood::attack_by_sleep, in_all: true },
    Attack { name: "caches", run: flood::attack_by_caches, in_all: true },
    Attack { name: "console", run: flood::attack_by_console, in_all: true },
    Attack { name: "reset", run: flood::attack_by_reset, in_all: false },
];

/// How hard to attack.
struct Strength {
    random: Random,
    percent: u64,
}

impl Strength {
    /// How often, where `usual` is the usual number.
    fn times(&self, usual: u64) -> u64 {
        (usual * self.percent / 100).max(1)
    }
}

fn main() -> ! {
    let wanted = machine().argument("attack").unwrap_or("all");
    let rounds = number("rounds", 1);
    let mut strength = Strength { random: Random::new(number("seed", 0)), percent: number("size", 100) };
    println!("attacker: attack={wanted}, {rounds} rounds, {} vCPU(s)", machine().cpus().len());
    // Some of what follows would do harm on a machine that has nobody to answer it.
    if !hypervisor::is_hanok() {
        fail(format_args!("there is no Hanok above"));
    }
    if let Some(name) =
        wanted.split(',').find(|name| *name != "all" && ATTACKS.iter().all(|a| a.name != *name))
    {
        fail(format_args!("there is no attack {name}"));
    }
    // EL1's own traps come before those of a higher level, and would hide them.
    features::untrap_vectors(true);
    features::enable_simd(true);
    runtime::interrupts::set_handler(handler::handle);
    let mut round = 0;
    while rounds == 0 || round < rounds {
        round += 1;
        for attack in ATTACKS.iter().filter(|attack| is_wanted(wanted, attack)) {
            run(attack, &mut strength);
        }
        println!("attacker: round {round} is over");
    }
    println!("attacker: done, {rounds} rounds");
    runtime::power::off()
}

fn is_wanted(wanted: &str, attack: &Attack) -> bool {
    wanted.split(',').any(|name| name == attack.name || name == "all" && attack.in_all)
}

/// One attack, and a look around afterwards.
fn run(attack: &Attack, strength: &mut Strength) {
    let seed = strength.random.word();
    runtime::memory::fill(seed);
    let (count, what) = (attack.run)(strength);
    handler::reset();
    if let Err(changed) = runtime::memory::compare(seed, 0, usize::MAX) {
        fail(format_args!("{} changed own memory: {changed:x?}", attack.name));
    }
    handler::check_that_it_works();
    println!("attacker: {}: {count} {what}", attack.name);
}

/// Says that an attack has succeeded, or that this can't be known, and ends the machine.
fn fail(what: Arguments) -> ! {
    runtime::cpu::mask_irqs();
    println!("attacker: FAILED: {what}");
    runtime::power::off()
}

/// Fails unless the condition holds.
fn ensure(condition: bool, what: impl Display) {
    if !condition {
        fail(format_args!("{what}"));
    }
}

/// The number in the command line, or what it is without one.
fn number(name: &str, default: u64) -> u64 {
    let Some(text) = machine().argument(name) else { return default };
    text.parse().unwrap_or_else(|_| fail(format_args!("{name}={text} is no number")))
}
