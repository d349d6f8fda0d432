//! The hardware check of stage 2, in an image of its own (feature `stage2-check`): in the place of VMs it runs random
//! translations past the CPU's own walk, or counts what operations on tables cost, and turns the board off.
//!
//! On the board's command line, `hanok.seed=` repeats a run, `hanok.at-denied` lets `AT` be asked about accesses that
//! stage 2 denies, which QEMU 10.0 doesn't survive, and `hanok.costs` asks for the costs. See docs/stage2.md.

use platform::tree::Board;
use stage2::{LedgerError, Mapping};

use crate::memory::FrameError;
use crate::{console, cpu, timer};

mod answer;
mod costs;
mod guest;
mod hardware;
mod model;
mod neighbour;
mod operation;
mod random;
mod ranges;
mod rounds;
mod space;
mod stage_one;
mod tally;

/// What isn't as it should be.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("AT of {address:#x} ({access:?}): expected {expected:x?}, PAR_EL1 {par:#x} is {found:x?}")]
    Answer {
        access: hardware::Access,
        address: u64,
        expected: answer::Answer,
        found: answer::Answer,
        par: u64,
    },
    #[error(
        "{does:?} at IPA {address:#x} by instructions at {code:#x}: expected {expected:x?}, and came back by {found:x?}"
    )]
    Access { does: guest::Does, address: u64, code: u64, expected: guest::Return, found: guest::Return },
    #[error("a store of {value:#x} to IPA {address:#x} is not to be found at PA {pa:#x}")]
    Store { address: u64, pa: u64, value: u64 },
    #[error("IPA {ipa:#x}: the model has {model:x?}, the tables have {mapping:?}")]
    Tables { ipa: u64, model: model::View, mapping: Option<Mapping> },
    #[error("{operation:x?} should be {}, and was: {found:?}", if *possible { "done" } else { "refused" })]
    Operation { operation: operation::Operation, possible: bool, found: Result<(), stage2::Error> },
    #[error("page {} of the ranges, on {cpu}: expected {:x?}, PAR_EL1 {:#x}", wrong.page, wrong.expected, wrong.par)]
    Range { wrong: ranges::Wrong, cpu: &'static str },
    #[error("the other CPU doesn't answer")]
    NoNeighbour,
    #[error("{left} frames are left of {of} when all tables are gone")]
    LostFrames { left: usize, of: usize },
    #[error("a VM can't be set up")]
    Setup,
    #[error(transparent)]
    Frames(#[from] FrameError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Stage2(#[from] stage2::Error),
}

pub use neighbour::serve;

type Outcome<T = ()> = Result<T, Failure>;

/// Does it, and turns the board off. Other CPUs wait, but for one that `neighbour` has look.
pub fn run(board: &Board<'_>) {
    if has(board, "hanok.costs") {
        match costs::run() {
            Ok(()) => log::info!("stage2-check: these are the costs"),
            Err(failure) => log::error!("stage2-check: {failure}"),
        }
    } else {
        check(board);
    }
    console::request_end(platform::power::End::Off);
    console::service();
}

fn check(board: &Board<'_>) {
    let seed = seed(board);
    log::info!(
        "stage2-check: seed {seed:#x}, {} bits of physical address, range invalidation {}, level hint {}",
        hardware::physical_bits(),
        cpu::has_range_invalidation(),
        cpu::has_level_hint()
    );
    match rounds::run(seed, has(board, "hanok.at-denied")) {
        Ok(tally) => log::info!("stage2-check: {tally}, seed {seed:#x}"),
        Err(failure) => log::error!("stage2-check: FAILED: {failure}, seed {seed:#x}"),
    }
}

/// Whether a word is on the command line.
fn has(board: &Board<'_>, word: &str) -> bool {
    board.bootargs.split_whitespace().any(|argument| argument == word)
}

/// The seed that the command line names, or another one each time.
fn seed(board: &Board<'_>) -> u64 {
    let named = board.bootargs.split_whitespace().find_map(|argument| argument.strip_prefix("hanok.seed="));
    let parsed = named.and_then(|seed| match seed.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => seed.parse().ok(),
    });
    let random = || board.rng_seed.first_chunk().map_or_else(timer::now, |bytes| u64::from_le_bytes(*bytes));
    parsed.unwrap_or_else(random)
}
