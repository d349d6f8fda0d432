//! Measures what the hypervisor costs, in ticks of the virtual counter: many rounds of each thing, of which it prints minimum,
//! median, 99th percentile and maximum. Where a tick is an instruction, so are the figures; `docs/benchmarks.md` tells how
//! the host makes it so.
//!
//! Its command line:
//! - `bench=NAME`: what to measure.
//!   - `exits`: what one CPU does by itself.
//!   - `ipi`: an SGI to another vCPU and back, each on a CPU of its own.
//!   - `switch`: two vCPUs that share a CPU: by turns, and each woken by the other one.
//!   - `doorbell`: a bell rung at the other end of the first channel, each VM on a CPU of its own. For both VMs.
//!   - `switch-vms`: as `switch`, with two VMs and the bells of the first channel. For both VMs.
//! - `rounds=N`: how often (10 to 10000; 1000).
//!
//! Each row is a line: `bench: <name> rounds=N min=A median=B p99=C max=D`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod exits;
mod pairs;
mod samples;

use core::ops::RangeInclusive;

use runtime::{machine, power, println};
use samples::CAPACITY;

runtime::entry!(main);

/// How many rounds there can be.
const ROUNDS: RangeInclusive<usize> = 10..=CAPACITY;

fn main() -> ! {
    let rounds = machine().argument("rounds").map_or(Some(1000), |text| text.parse().ok());
    let Some(rounds) = rounds.filter(|rounds| ROUNDS.contains(rounds)) else {
        println!("bench: rounds= is no number from {} to {}", ROUNDS.start(), ROUNDS.end());
        power::off()
    };
    match machine().argument("bench") {
        Some("exits") => exits::measure(rounds),
        Some("ipi") => pairs::ipi(rounds),
        Some("switch") => pairs::switch(rounds),
        Some("doorbell") => pairs::doorbell(rounds),
        Some("switch-vms") => pairs::switch_vms(rounds),
        _ => println!("bench: bench= is exits, ipi, switch, doorbell or switch-vms"),
    }
    println!("bench: done");
    power::off()
}
