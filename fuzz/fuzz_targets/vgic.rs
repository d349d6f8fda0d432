//! Guests, devices and schedulers that use a vGIC: `hyp/vgic/tests/fuzzed/vgic.rs`.
#![no_main]

#[path = "../../hyp/vgic/tests/machine/mod.rs"]
mod machine;
#[path = "../../hyp/vgic/tests/model/mod.rs"]
mod model;
#[path = "../../hyp/vgic/tests/fuzzed/vgic.rs"]
mod target;
#[path = "../../hyp/vgic/tests/world/mod.rs"]
mod world;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
