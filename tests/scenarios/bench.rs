//! What Hanok costs stays within its budget: the short form of `make bench`.

use tests::bench::{Budget, Memory, Sizes, boot, measure, trace};

use crate::case::{Case, GICS};

/// As every round takes as long as the others, but for few, some hundred tell the same median as many thousands.
const ROUNDS: u32 = 1000;

pub fn cases() -> Vec<Case> {
    let case = |gic| {
        Case::new(format!("bench/gicv{gic}"), move |scenario| {
            let mut rows = measure(scenario, gic, ROUNDS)?;
            rows.push(boot(scenario, gic)?.row(gic));
            let budget = Budget::load()?;
            budget.check(gic, &rows)?;
            let sizes = Sizes::read(&scenario.inputs().elf)?;
            budget.check_sizes(&sizes.with(&Memory::measure(scenario, gic)?))?;
            if gic == 2 { budget.check_devices(&trace(scenario, gic)?) } else { Ok(()) }
        })
    };
    GICS.map(case).into()
}
