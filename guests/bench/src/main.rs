//! Measures what the hypervisor costs, in ticks of the virtual counter: many rounds of each thing, of which it prints minimum,
//! median, 99th percentile and maximum. Where a tick is an instruction, so are the figures; `docs/benchmarks.md` tells how
//! the host makes it so.
//!
//! Its command line:
//! - `bench=NAME`: what to measure.
//!   - `exits`: what one CPU does by itself.
//!   - `devices`: interrupts of devices, and a load from nowhere. The VM is given the board's PL031.
//!   - `life`: starts, restarts and stops of the VM at the other end of the first channel. Ten rounds, whatever `rounds` says.
//!   - `victim`: for that VM: nothing, but to say when it came up.
//!   - `boot`: nothing but when the guest came up, in ticks from the board's reset.
//!   - `memory`: bytes of the board's memory that nobody has, and of this VM's: `bench: free=A held=B`.
//!   - `ipi`: an SGI to another vCPU and back, each on a CPU of its own.
//!   - `switch`: two vCPUs that share a CPU: by turns, and each woken by the other one.
//!   - `doorbell`: a bell rung at the other end of the first channel, each VM on a CPU of its own. For both VMs.
//!   - `switch-vms`: as `switch`, with two VMs and the bells of the first channel. For both VMs.
//! - `rounds=N`: how often (10 to 10000; 1000).
//!
//! Each row is a line: `bench: <name> rounds=N min=A median=B p99=C max=D`. Of how late interrupts are there are also lines that tell how
//! often they were so many ticks late: `bench: <name> from=A below=B count=N`.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod devices;
mod exits;
mod histogram;
mod life;
mod pairs;
mod samples;

use core::ops::RangeInclusive;

use runtime::{boot, hanok, machine, power, println};
use samples::{CAPACITY, SAMPLES};

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
        Some("devices") => devices::measure(rounds),
        Some("life") => life::measure(),
        Some("victim") => life::be_victim(),
        Some("boot") => SAMPLES.lock().take("boot", 1, 0, boot::entered).print(),
        Some("memory") => memory(),
        Some("ipi") => pairs::ipi(rounds),
        Some("switch") => pairs::switch(rounds),
        Some("doorbell") => pairs::doorbell(rounds),
        Some("switch-vms") => pairs::switch_vms(rounds),
        _ => println!("bench: bench= is none of those that there are"),
    }
    println!("bench: done");
    power::off()
}

/// What the hypervisor says of memory. The VM needs the right to statistics.
fn memory() {
    let own = || hanok::vm_info(hanok::identity()?.vm);
    match (hanok::board_info(), own()) {
        (Ok(board), Ok(vm)) => println!("bench: free={} held={}", board.free, vm.held),
        (board, vm) => println!("bench: Hanok says {board:?} and {vm:?}"),
    }
}
