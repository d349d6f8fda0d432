//! Power calls of all of a VM's vCPUs in any order: `hyp/vmm/tests/fuzzed/psci.rs`.
#![no_main]

#[path = "../../hyp/vmm/tests/fuzzed/psci.rs"]
mod target;
#[path = "../../hyp/vmm/tests/fuzzed/words.rs"]
mod words;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
