//! What is to run, and on what: the manifest, and everything that follows from it before a guest's first instruction.
//! CPUs and devices are handed out here, channels are joined, payloads placed, the guest's device tree made.
//!
//! All of it is pure logic that runs once, at boot; nothing here is reached from an exit. So it is compiled for size, where
//! `vmm`, which decides what happens on exits, is compiled for speed (`profile.release` in the workspace's `Cargo.toml`).
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod blob;
pub mod channel;
pub mod guest_tree;
pub mod manifest;
pub mod passthrough;
pub mod payload;
pub mod placement;
