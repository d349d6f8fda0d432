//! Syndromes of exits, states of guests: `hyp/vmm/tests/fuzzed/exit.rs`.
#![no_main]

#[path = "../../hyp/vmm/tests/fuzzed/exit.rs"]
mod target;
#[path = "../../hyp/vmm/tests/fuzzed/words.rs"]
mod words;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
