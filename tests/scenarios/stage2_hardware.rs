//! Stage-2 tables as the CPU's own walk sees them, in the image that is made for it; and what operations on them cost.

use tests::{Machine, Outcome, Scenario, ensure};

use crate::case::Case;

/// CPUs without FEAT_S2FWB and FEAT_TLBIRANGE, with 40 and 44 bits of physical address, and one with both and more bits;
/// and their interrupt controllers, which should make no difference.
const BOARDS: [(&str, u8); 4] = [("cortex-a53", 3), ("cortex-a72", 3), ("max", 3), ("cortex-a72", 2)];

/// Translations that a run compares at least.
const TRANSLATIONS: u64 = 10_000;
/// How many of each kind there are at least.
const OF_EACH: u64 = 100;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (cpu, gic) in BOARDS {
        cases.push(Case::new(format!("stage2/agrees-with-hardware/{cpu}/gicv{gic}"), move |scenario| {
            agrees_with_hardware(scenario, cpu, gic)
        }));
    }
    cases.push(Case::new("stage2/costs", costs));
    cases
}

/// Random tables, with a seed that is another each time: the console has it where a run fails.
fn agrees_with_hardware(scenario: &Scenario, cpu: &str, gic: u8) -> Outcome {
    let image = scenario.inputs().stage2_check.clone();
    let mut board = scenario.boot(&Machine::new(gic, 2).cpu(cpu).image(image))?;
    let found = board.expect(
        r"(?m)stage2-check: (?:FAILED.*|(\d+) translations agree \(hits (\d+), holes (\d+), permission \d+, beyond (\d+), address size (\d+), stage 1 (\d+), no stage 1 (\d+)\), \d+ accesses \(done (\d+), refused (\d+), no fetch (\d+)\), .* (\d+) permission faults, seed .*)\n",
    )?;
    ensure(!found.group(0).contains("FAILED"), || found.group(0).to_owned())?;
    let translations = found.number(1)?;
    ensure(translations >= TRANSLATIONS, || format!("{translations} translations are too few"))?;
    for kind in 2..=11 {
        let count = found.number(kind)?;
        ensure(count >= OF_EACH, || format!("{count} of one kind are too few: {}", found.group(0)))?;
    }
    board.expect_off()?;
    Ok(())
}

/// What keeps EL2 from everything else: no exit takes longer (DESIGN.md, rule 5).
const LONGEST: u64 = 20_000;

/// They can all be counted; and the longest step of every long operation, and what a guest's store may ask for, are short
/// enough for an exit. A tick of the counter is an instruction here, so a run repeats.
fn costs(scenario: &Scenario) -> Outcome {
    let image = scenario.inputs().stage2_check.clone();
    let machine = Machine::new(3, 1).cpu("cortex-a72,cntfrq=1000000000").image(image);
    let machine = machine.option("-icount", "shift=0,sleep=off").arguments("hanok.costs");
    let mut board = scenario.boot(&machine)?;
    // A root of two tables and nothing else, whatever the machine.
    board.expect_log(
        "cost: map 1 GiB: 1 block of 1 GiB: <n> instructions; TLB invalidations 0; frames for tables 2",
    )?;
    for bounded in [
        "unmap 1 GiB in steps: 262144 pages",
        "unmap 1 GiB in steps: 512 blocks of 2 MiB",
        "collect the log of 1 GiB in steps: 262144 pages",
        "collect the log of 1 GiB in steps: 512 blocks of 2 MiB",
        "clear access flags of 1 GiB in steps: 262144 pages",
        "map 1 GiB in steps: 262144 pages",
        "tear down a VM of 1 GiB in steps: 262144 pages",
        "log a store: a page of a block of 2 MiB",
        "copy on write: a page of a block of 2 MiB",
    ] {
        let found = board.expect(&format!(r"cost: {bounded}: (\d+) instructions"))?;
        let instructions = found.number(1)?;
        ensure((100..=LONGEST).contains(&instructions), || {
            format!("{bounded}: {instructions} instructions, {LONGEST} at the most")
        })?;
    }
    board.expect_log("stage2-check: these are the costs")?;
    board.expect_off()?;
    Ok(())
}
