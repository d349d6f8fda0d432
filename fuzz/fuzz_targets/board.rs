//! Trees of boards as EL2 reads them: `platform/tests/board_check`.
#![no_main]

#[path = "../../platform/tests/board_check/mod.rs"]
mod board_check;
#[path = "../../platform/tests/trees/mod.rs"]
mod trees;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| board_check::check(bytes));
