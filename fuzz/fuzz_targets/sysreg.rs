//! Accesses to system registers, and values of ID registers: `hyp/vmm/tests/fuzzed/sysreg.rs`.
#![no_main]

#[path = "../../hyp/vmm/tests/fuzzed/sysreg.rs"]
mod target;
#[path = "../../hyp/vmm/tests/fuzzed/words.rs"]
mod words;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
