//! VM and vCPU state: exit decoding, system registers, PSCI and SMCCC, virtual devices, the life of a VM and the
//! scheduler. What a VM is made from is the business of `config`.
//!
//! All of it is pure logic: it decides, and the caller (the `el2` crate) acts. No register is touched here, so every
//! module runs in host tests as it runs on the target.
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

pub mod affinity;
pub mod calls;
pub mod console;
pub mod coprocessor;
pub mod debug;
pub mod devices;
pub mod idregs;
pub mod inject;
pub mod instruction;
pub mod layout;
pub mod life;
pub mod mitigations;
pub mod order;
pub mod pmu;
pub mod psci;
pub mod random;
pub mod sched;
pub mod serror;
pub mod smccc;
pub mod stage_one;
pub mod step;
pub mod stolen_time;
pub mod sysreg;
pub mod trng;

pub use abi::esr;
