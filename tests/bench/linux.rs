//! `make bench-linux`: measures what a whole Linux costs on the bare board and as Hanok's guest, prints it, writes it for programs, and writes
//! the tables into the document about costs. It judges nothing.

use std::path::Path;
use std::process::ExitCode;

use tests::bench::{linux, program};
use tests::{Failure, Inputs, Outcome, Scenario};

/// The name of the part of the document that is written.
const PART: &str = "linux";

fn main() -> ExitCode {
    program::run("bench-linux", "FILE.json DOCUMENT.md", measure)
}

fn measure([output, document]: [String; 2]) -> Outcome {
    let inputs = Inputs::from_environment();
    // It stays there, for the commands name files in it.
    let scenario = Scenario::new(&inputs, &program::folder(&output)?, "runs")?;
    let figures = linux::measure(&scenario).map_err(|failure| Failure::Wrong(scenario.report(&failure)))?;
    println!("{}", figures.text());
    program::write(Path::new(&output), &figures.json())?;
    program::rewrite(Path::new(&document), PART, &figures.text())?;
    println!("{output} has all figures, and {document} the tables");
    Ok(())
}
