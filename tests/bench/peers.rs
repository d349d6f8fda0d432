//! `make bench-peers`: measures Hanok, Xen, KVM and the bare board by the same guest on both GICs, writes the figures for programs,
//! and a table of the medians into the document about them, with pictures beside it. It judges nothing: `make bench` does.

use std::path::Path;
use std::process::ExitCode;

use tests::bench::peers::{self, Measured, PEERS};
use tests::bench::{self, Budget, Figures, Sizes, System, plot, program};
use tests::{Failure, Inputs, Outcome, Scenario};

/// As many as the guest has room for.
const ROUNDS: u32 = 10_000;
/// The row whose histogram is drawn.
const LATENCY: &str = "timer-spinning";
/// The name of the part of the document that is written.
const PART: &str = "peers";

fn main() -> ExitCode {
    program::run("bench-peers", "FILE.json DOCUMENT.md", measure)
}

fn measure([output, document]: [String; 2]) -> Outcome {
    let inputs = Inputs::from_environment();
    let budget = Budget::load()?;
    let mut figures = Figures::new(Sizes::read(&inputs.elf)?);
    let names = peers::names(&inputs)?;
    let rows = &mut figures.rows;
    let mut commands = Vec::new();
    let folder = program::folder(&output)?;
    for gic in [3, 2] {
        rows.extend(step(&inputs, &folder, System::Hanok, gic, |scenario| {
            bench::measure(scenario, gic, ROUNDS)
        })?);
        for system in PEERS {
            let measured = step(&inputs, &folder, system, gic, |scenario| {
                peers::measure(scenario, system, gic, ROUNDS)
            })?;
            let Measured { rows: of_peer, command } = measured;
            rows.extend(of_peer);
            if gic == 3 {
                commands.push(command);
            }
        }
    }
    let rows = &figures.rows;
    let table = bench::side_by_side(&budget, rows, &names);
    println!("Medians, in instructions, of {ROUNDS} rounds each:\n\n{table}");
    program::write(Path::new(&output), &figures.json())?;
    let path = Path::new(&document);
    program::rewrite(path, PART, &format!("{table}\n{}", peers::circumstances(&inputs, &commands)?))?;
    let pictures = [
        ("costs.svg", plot::costs(&budget, rows, &names)?),
        ("latency.svg", plot::latency(rows, LATENCY, &names)?),
    ];
    for (name, picture) in pictures {
        program::write(&path.with_file_name(name), &picture)?;
    }
    println!("{output} has all figures, and {document} the table, with costs.svg and latency.svg beside it");
    Ok(())
}

/// Measures one system in a folder of its own in that one. It stays there, for the commands name files in it.
fn step<T>(
    inputs: &Inputs,
    folder: &Path,
    system: System,
    gic: u8,
    of: impl FnOnce(&Scenario) -> Outcome<T>,
) -> Outcome<T> {
    eprintln!("bench-peers: {system:?}, GICv{gic}");
    let name = format!("{system:?}-gicv{gic}").to_lowercase();
    let scenario = Scenario::new(inputs, folder, &name)?;
    of(&scenario).map_err(|failure| Failure::Wrong(scenario.report(&failure)))
}
