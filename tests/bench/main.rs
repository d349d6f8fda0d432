//! `make bench`: measures all that `bench/budget.toml` names on both GICs, prints it, and writes it for programs. Fails where
//! something is over its ceiling.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use tests::bench::{Budget, Figures, Sizes};
use tests::{Failure, Inputs, Outcome, Scenario};

/// As many as the guest has room for.
const ROUNDS: u32 = 10_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let [output] = <[_; 1]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| Failure::Wrong("usage: bench FILE.json".to_owned()))?;
    let inputs = Inputs::from_environment();
    let budget = Budget::load()?;
    let mut figures = Figures::new(Sizes::read(&inputs.elf)?);
    for gic in [3, 2] {
        let name = format!("hanok-bench-{}-{gic}", std::process::id());
        let scenario = Scenario::new(&inputs, &env::temp_dir(), &name)?;
        let taken = figures.take(&scenario, gic, ROUNDS);
        taken.map_err(|failure| Failure::Wrong(scenario.report(&failure)))?;
        scenario.clean();
    }
    println!("{}", figures.text(&budget, ROUNDS));
    let output = Path::new(&output);
    fs::write(output, figures.json()).map_err(Failure::io(format!("write {}", output.display())))?;
    println!("{} has all figures", output.display());
    figures.check(&budget)
}
