//! Trees of boards whose devices VMs name: `hyp/config/tests/passthrough/any_tree.rs`.
#![no_main]
#![allow(dead_code, reason = "the tests use more of what is shared")]

#[path = "../../hyp/config/tests/passthrough/apart.rs"]
mod apart;
#[path = "../../hyp/config/tests/passthrough/board.rs"]
mod board;
#[path = "../../hyp/config/tests/passthrough/reader.rs"]
mod reader;
#[path = "../../hyp/config/tests/passthrough/any_tree.rs"]
mod target;
#[path = "../../hyp/config/tests/vm/mod.rs"]
mod vm;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| target::check(bytes));
