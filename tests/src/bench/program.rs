//! What the programs that measure have in common.

use std::env;
use std::fs;
use std::path::{self, Path, PathBuf};
use std::process::ExitCode;

use crate::{Failure, Outcome};

/// Runs a program of this name with its arguments, of which there are as many as `usage` names.
pub fn run<const N: usize>(name: &str, usage: &str, body: impl FnOnce([String; N]) -> Outcome) -> ExitCode {
    let arguments = <[String; N]>::try_from(env::args().skip(1).collect::<Vec<_>>());
    let wrong = |_| Failure::Wrong(format!("usage: {name} {usage}"));
    match arguments.map_err(wrong).and_then(body) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Writes a file.
///
/// # Errors
/// When it can't be written.
pub fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(Failure::io(format!("write {}", path.display())))
}

/// The folder for what is behind the figures in the file `output`: beside it, of the same name.
///
/// # Errors
/// When there is no current folder.
pub fn folder(output: &str) -> Outcome<PathBuf> {
    path::absolute(Path::new(output).with_extension("")).map_err(Failure::io(format!("find {output}")))
}

/// Puts `text` into the part of this name of a document ([`replace`](super::peers::replace)).
///
/// # Errors
/// When the document can't be read or written, or has no such part.
pub fn rewrite(document: &Path, part: &str, text: &str) -> Outcome {
    let old = fs::read_to_string(document).map_err(Failure::io(format!("read {}", document.display())))?;
    write(document, &super::peers::replace(&old, part, text)?)
}
