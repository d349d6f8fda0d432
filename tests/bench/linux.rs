//! `make bench-linux`: measures what a whole Linux costs on the bare board and as Hanok's guest, prints it, writes it for programs, and writes
//! the tables into the document about costs. It judges nothing.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use tests::bench::linux;
use tests::bench::peers::replace;
use tests::{Failure, Inputs, Outcome, Scenario};

/// The name of the part of the document that is written.
const PART: &str = "linux";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench-linux: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    let [output, document] = <[_; 2]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| Failure::Wrong("usage: bench-linux FILE.json DOCUMENT.md".to_owned()))?;
    let inputs = Inputs::from_environment();
    let scenario =
        Scenario::new(&inputs, &env::temp_dir(), &format!("hanok-bench-linux-{}", std::process::id()))?;
    let figures = linux::measure(&scenario).map_err(|failure| Failure::Wrong(scenario.report(&failure)))?;
    scenario.clean();
    println!("{}", figures.text());
    write(Path::new(&output), &figures.json())?;
    let path = Path::new(&document);
    let old = fs::read_to_string(path).map_err(Failure::io(format!("read {}", path.display())))?;
    write(path, &replace(&old, PART, &figures.text())?)?;
    println!("{output} has all figures, and {document} the tables");
    Ok(())
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(Failure::io(format!("write {}", path.display())))
}
