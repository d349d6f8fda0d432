//! No guest's SMC reaches the board's firmware: QEMU's log tells of every exception that is taken, and to where.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use tests::{Failure, Machine, Outcome, Scenario, Vm, ensure};

use crate::case::{Case, GICS};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for gic in GICS {
        // The self-test's cases that call by SMC.
        for subset in ["psci", "sysreg.smc"] {
            let name = format!("no-smc-reaches-firmware/gicv{gic}/{subset}");
            cases.push(Case::new(name, move |scenario| smcs_stay(scenario, gic, subset)));
        }
    }
    cases
}

fn smcs_stay(scenario: &Scenario, gic: u8, subset: &str) -> Outcome {
    let log = scenario.file("exceptions.log");
    let bundle = scenario.bundle(&[Vm::selftest(2, &format!("selftest={subset}"))])?;
    // One thread runs all CPUs, so that the log's lines about an exception follow each other.
    let machine = Machine::new(gic, 2)
        .bundle(bundle)
        .option("-accel", "tcg,thread=single")
        .option("-d", "int")
        .option("-D", log.display().to_string());
    let mut board = scenario.boot(&machine)?;
    board.expect(r"(?m)^\d+ passed, 0 failed\n")?;
    board.expect_log("selftest turned itself off")?;
    board.expect_off()?;
    let calls = Calls::read(&log)?;
    // All kinds are there, or this looks for the wrong words.
    ensure(calls.to_el2 > 0, || format!("no SMC of the guest in {}", log.display()))?;
    ensure(calls.by_el2 > 1, || format!("only {} SMCs of EL2 in {}", calls.by_el2, log.display()))?;
    ensure(calls.past_el2 == 0, || format!("{} SMCs of the guest went past EL2", calls.past_el2))?;
    ensure(calls.in_its_name == 0, || format!("EL2 made {} SMCs for the guest", calls.in_its_name))
}

/// SMCs in QEMU's log of exceptions.
#[derive(Default)]
struct Calls {
    /// The guest's that came to EL2.
    to_el2: u64,
    /// The guest's that came to the firmware.
    past_el2: u64,
    /// EL2's own.
    by_el2: u64,
    /// EL2's between the guest's first and last.
    in_its_name: u64,
}

impl Calls {
    fn read(log: &Path) -> Outcome<Self> {
        let doing = || Failure::io(format!("read {}", log.display()));
        let mut calls = Self::default();
        let mut route = String::new();
        // EL2's calls since the guest's last one.
        let mut since = 0;
        for line in BufReader::new(File::open(log).map_err(doing())?).lines() {
            let line = line.map_err(doing())?;
            if let Some(from) = line.strip_prefix("...from ") {
                route = from.to_owned();
            }
            // The exception class of SMC in AArch64 state; QEMU's firmware is its EL3.
            if !line.starts_with("...with ESR 0x17/") {
                continue;
            }
            match route.as_str() {
                "EL2 to EL3" => {
                    calls.by_el2 += 1;
                    since += 1;
                }
                "EL1 to EL2" if calls.to_el2 == 0 => {
                    calls.to_el2 = 1;
                    since = 0;
                }
                "EL1 to EL2" => {
                    calls.to_el2 += 1;
                    calls.in_its_name += std::mem::take(&mut since);
                }
                _ => calls.past_el2 += 1,
            }
        }
        Ok(calls)
    }
}
