//! Why a scenario fails, in words for who reads the test's output.

use std::fmt::Debug;
use std::io;
use std::process::ExitStatus;

/// What a scenario comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a scenario fails.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The machine that runs the tests can't do it.
    #[error("cannot {doing}: {error}")]
    Io {
        /// What was tried.
        doing: String,
        /// What came of it.
        error: io::Error,
    },
    /// A program beside QEMU failed.
    #[error("{command}: {status}\n{stderr}")]
    Tool {
        /// Its command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The console didn't say it in time.
    #[error("waited {seconds} s for the console to say /{wanted}/")]
    Timeout {
        /// The pattern.
        wanted: String,
        /// How long.
        seconds: u64,
    },
    /// QEMU ended before the console said it.
    #[error("QEMU ended before the console said /{wanted}/")]
    Ended {
        /// The pattern.
        wanted: String,
    },
    /// The console said what no console should ever say.
    #[error("the console says \"{line}\"")]
    Alarm {
        /// The line.
        line: String,
    },
    /// The guest's shell gave no answer to a command.
    #[error("`{command}` at the guest's shell: {why}")]
    Unanswered {
        /// The command.
        command: String,
        /// Why there is none.
        why: Box<Self>,
    },
    /// QEMU didn't end in time.
    #[error("waited {seconds} s for QEMU to end")]
    StillRunning {
        /// How long.
        seconds: u64,
    },
    /// QEMU ended with an error.
    #[error("QEMU ended with {0}")]
    ExitStatus(ExitStatus),
    /// QEMU's control socket gave no answer of use.
    #[error("QMP: {0}")]
    Qmp(String),
    /// QEMU's gdb stub gave no answer of use.
    #[error("gdb stub: {0}")]
    Gdb(String),
    /// Something is not as it should be.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// For `map_err`: an input or output error, and what was being done.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }

    /// For `map_err`: why the guest's shell gave no answer to `command`.
    pub fn unanswered(command: &str) -> impl FnOnce(Self) -> Self {
        move |why| Self::Unanswered { command: command.to_owned(), why: Box::new(why) }
    }
}

/// Fails with `what` unless the condition holds.
///
/// # Errors
/// [`Failure::Wrong`].
pub fn ensure(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(Failure::Wrong(what())) }
}

/// Fails unless `got` is `wanted`, saying both.
///
/// # Errors
/// [`Failure::Wrong`].
pub fn ensure_equal<A: PartialEq<B> + Debug, B: Debug>(what: &str, got: A, wanted: B) -> Outcome {
    ensure(got == wanted, || format!("{what}: expected {wanted:?}, got {got:?}"))
}
