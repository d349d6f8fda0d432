//! Bundles, and what becomes of the VMs in them: `hyp/config/tests/fuzzed/manifest.rs`.
#![no_main]

#[path = "../../hyp/config/tests/manifest_check/mod.rs"]
mod manifest_check;
#[path = "../../hyp/config/tests/payload_check/mod.rs"]
mod payload_check;
#[path = "../../hyp/config/tests/fuzzed/manifest.rs"]
mod target;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
