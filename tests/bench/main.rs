//! `make bench`: measures all that `bench/budget.toml` names on both GICs, prints it, and writes it for programs. Fails where
//! something is over its ceiling.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use tests::bench::{Budget, Figures, Sizes, program};
use tests::{Failure, Inputs, Outcome, Scenario};

/// As many as the guest has room for.
const ROUNDS: u32 = 10_000;

fn main() -> ExitCode {
    program::run("bench", "FILE.json", measure)
}

fn measure([output]: [String; 1]) -> Outcome {
    let inputs = Inputs::from_environment();
    let budget = Budget::load()?;
    let mut figures = Figures::new(Sizes::read(&inputs.elf)?);
    for gic in [3, 2] {
        run(&inputs, &gic.to_string(), |scenario| figures.take(scenario, gic, ROUNDS))?;
    }
    run(&inputs, "models", |scenario| figures.take_models(scenario, ROUNDS))?;
    println!("{}", figures.text(&budget, ROUNDS));
    program::write(Path::new(&output), &figures.json())?;
    println!("{output} has all figures");
    figures.check(&budget)
}

/// Measures in a place of its own, which is kept where that fails.
fn run(inputs: &Inputs, name: &str, measure: impl FnOnce(&Scenario) -> Outcome) -> Outcome {
    let name = format!("hanok-bench-{}-{name}", std::process::id());
    let scenario = Scenario::new(inputs, &env::temp_dir(), &name)?;
    measure(&scenario).map_err(|failure| Failure::Wrong(scenario.report(&failure)))?;
    scenario.clean();
    Ok(())
}
