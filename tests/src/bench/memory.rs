//! What memory Hanok takes for itself after boot: in all, for each further VM, and for each further vCPU. From what Hanok tells
//! a guest is free, on boards that differ in that alone.

use std::fs;

use regex_lite::Regex;
use serde::Serialize;

use crate::{Failure, Machine, Outcome, Scenario, Vm};

/// Bytes of RAM that the boards have, in QEMU's words too.
const BOARD: (u64, &str) = (1 << 30, "1G");
/// MiB of RAM that each VM has.
const VM: u64 = 16;

/// Bytes of memory that are neither free nor a VM's RAM nor the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The GIC's version.
    pub gic: u8,
    /// With one VM of one vCPU: the image and all else of Hanok's, and what the board's tree and firmware take.
    pub all: i64,
    /// A second VM takes so much more.
    pub vm: i64,
    /// A second vCPU of a VM's takes so much more. Memory comes in pages, and what a VM gets may have room for it.
    pub vcpu: i64,
}

impl Memory {
    /// With the GIC of this version, on boards of two CPUs.
    ///
    /// # Errors
    /// When a guest doesn't come to its end, or doesn't tell.
    pub fn measure(scenario: &Scenario, gic: u8) -> Outcome<Self> {
        let guest = |cpus, name: &str| {
            Vm::bench(cpus, "bench=memory").named(name).memory(VM as u32).property("rights", "\"statistics\"")
        };
        let one = taken(scenario, gic, &[guest(1, "first")])?;
        let two_vcpus = taken(scenario, gic, &[guest(2, "first")])?;
        // The second one isn't started, so that it is the first one which tells; it gets its memory's tables all the same.
        let two_vms =
            taken(scenario, gic, &[guest(1, "first"), guest(1, "second").property("start", "\"manual\"")])?;
        Ok(Self { gic, all: one, vm: two_vms - one, vcpu: two_vcpus - one })
    }
}

fn taken(scenario: &Scenario, gic: u8, vms: &[Vm]) -> Outcome<i64> {
    const PAGE: u64 = 4096;
    let bundle = scenario.bundle(vms)?;
    let size = fs::metadata(&bundle).map_err(Failure::io(format!("look at {}", bundle.display())))?.len();
    let machine = Machine::new(gic, 2).counted().memory(BOARD.1).bundle(bundle);
    let said = scenario.boot(&machine)?.expect_off()?;
    let line = Regex::new(r"(?m)^(?:\[[a-z]+\] )?bench: free=(\d+) held=(\d+)$");
    let line = line.map_err(|error| Failure::Wrong(error.to_string()))?;
    let told = line.captures(&said).map(|found| found.extract().1);
    let numbers = told.map(|told: [&str; 2]| told.map(|number| number.parse::<i64>()));
    let Some([Ok(free), Ok(held)]) = numbers else {
        return Err(Failure::Wrong("the guest doesn't tell what is free".to_owned()));
    };
    Ok((BOARD.0 - size.next_multiple_of(PAGE)) as i64 - free - held)
}
