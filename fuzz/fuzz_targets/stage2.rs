//! Sequences of operations on three VMs, one ledger and a machine with TLBs, checked after every step as the property
//! tests do: twelve bytes are one step (`tests/all/common/steps.rs`).
#![no_main]

#[path = "../../hyp/stage2/tests/all/common/mod.rs"]
mod common;

use common::steps::{Draw, finish, perform};
use common::world::World;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut world = World::new();
    for draw in Draw::read_all(bytes) {
        perform(&mut world, draw);
    }
    finish(world);
});
