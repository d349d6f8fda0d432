//! Hanok's EL2 image: a micro-hypervisor for ARMv8-A.
//!
//! This crate is where logic meets the machine: it boots, owns the CPUs' EL2 registers, keeps the maps, takes exceptions
//! and wires the pure crates (`stage2`, `vgic`, `vmm`) to the board (`platform`). `docs/architecture.md` shows the way
//! through it.
#![no_std]
#![no_main]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

extern crate alloc;

mod aarch32;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // runs at boot alone
mod boot;
mod bundle;
mod cache;
mod calls;
mod console;
mod context;
mod cpu;
mod crash;
mod debug;
mod exit;
mod gic;
mod guest_memory;
mod image;
mod interrupts;
mod lock;
mod logging;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // runs at boot alone
mod memory;
mod mmio;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // runs at boot alone
mod mmu;
#[allow(clippy::arithmetic_side_effects)] // on the places of its own stacks alone
mod percpu;
mod pmu;
mod power;
mod random;
mod run;
mod serror;
mod simd;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // runs at boot alone
mod smp;
#[cfg(feature = "stage2-check")]
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)] // in place of VMs
mod stage2_check;
mod sysreg;
mod tables;
mod timer;
mod trace;
mod vcpu;
mod vm;
