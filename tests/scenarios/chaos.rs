//! A guest that does anything at all, by chance, and its neighbours, who must not notice. `make chaos` does the same for longer.

use tests::{Chaos, Machine, Outcome, Scenario, Vm, ensure, ensure_equal};

use crate::case::Case;

/// What is enough here, for each run.
const OPERATIONS: u64 = 12_000;

pub fn cases() -> Vec<Case> {
    let runs = [
        (2, "cortex-a53", 1, 1, false),
        (3, "cortex-a72", 1, 2, false),
        (3, "max", 1, 3, false),
        (2, "max", 4, 4, true),
        (3, "cortex-a53", 4, 5, true),
        (2, "cortex-a72", 4, 6, true),
        (3, "max", 4, 7, true),
    ];
    let runs = runs.map(|(gic, cpu, vcpus, seed, at_once)| {
        let chaos = Chaos { gic, cpu, vcpus, seed, operations: OPERATIONS, at_once };
        Case::new(format!("chaos/{chaos}"), move |scenario| lives_through(scenario, &chaos))
    });
    runs.into_iter().chain([Case::new("chaos/repeats", repeats)]).collect()
}

/// Neighbours and EL2 don't notice; and operations of all kinds came to ends of all kinds, so that something was done.
fn lives_through(scenario: &Scenario, chaos: &Chaos) -> Outcome {
    let done = chaos.run(scenario)?;
    ensure_equal("kinds of operation", done.kinds.len(), 14)?;
    for (kind, count) in &done.kinds {
        ensure(*count >= OPERATIONS / 40, || format!("{kind} came {count} times only"))?;
    }
    // UNDEFINED, illegal states, SVC, aborts of EL0 and of EL1, misaligned PCs.
    let classes = ["0x0", "0xe", "0x15", "0x20", "0x21", "0x22", "0x24", "0x25"];
    let classes = classes.map(|class| format!("exceptions of class {class}"));
    for way in classes.iter().map(String::as_str).chain(["IRQs", "their last instruction"]) {
        ensure(done.ends.iter().any(|(end, _)| end == way), || format!("no operation ended by {way}"))?;
    }
    Ok(())
}

/// The same seed, image and machine, the same run: all that anybody says is the same, to the microsecond.
fn repeats(scenario: &Scenario) -> Outcome {
    let chaos = Chaos { gic: 3, cpu: "max", vcpus: 1, seed: 8, operations: 3000, at_once: false };
    let run = || -> Outcome<String> {
        let mut vms: Vec<Vm> = chaos.vms().into();
        // With one neighbour less, it is over sooner.
        vms.remove(1);
        let bundle = scenario.bundle(&vms)?;
        let board = scenario.boot(&Machine::new(chaos.gic, 1).counted().bundle(bundle))?;
        board.expect_off()
    };
    let (first, second) = (run()?, run()?);
    for (first, second) in first.lines().zip(second.lines()) {
        ensure_equal("the second time", second, first)?;
    }
    ensure_equal("length of what is said the second time", second.len(), first.len())
}
