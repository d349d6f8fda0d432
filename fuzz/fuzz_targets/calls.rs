//! Calls by HVC and SMC, by any X0 to X4: `hyp/vmm/tests/fuzzed/calls.rs`.
#![no_main]

#[path = "../../hyp/vmm/tests/fuzzed/calls.rs"]
mod target;
#[path = "../../hyp/vmm/tests/fuzzed/words.rs"]
mod words;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
