//! The interrupt controller of one virtual machine: a GICv2 or GICv3 distributor, the redistributors, and the
//! use of the physical CPUs' list registers.
//!
//! It does not: touch hardware (list registers and physical interrupts are reached through [`ListRegisters`]
//! and [`Physical`]), switch the rest of the virtual CPU interface (`ICH_VMCR`, `ICH_AP*R`), take locks, or
//! allocate after [`Vgic::new`]. Interrupts are kept as words of 32, so that a register access costs a few
//! instructions whatever the number of interrupts.
//!
//! How it is used: the caller holds the VM's lock around every call. A call that changes what some vCPU should
//! see returns [`Kicks`]; each vCPU named there must call [`Vgic::sync`] on its own physical CPU before it next
//! runs guest code (one that runs there now must be made to exit; one that sleeps, to wake).
//!
//! References: "IHI 0048" is the GICv2 architecture specification, "IHI 0069" that of GICv3 and GICv4.
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
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;

mod access;
mod bank;
pub mod bounds;
mod build;
mod config;
mod deliver;
mod distributor;
mod ids;
mod lines;
mod lr;
mod physical;
mod registers;
mod repeat;
mod route;
mod spill;
mod state;

pub use access::Read;
pub use config::{BuildError, Config, MapError, Model};
pub use ids::{Affinity, IntId, Kicks, PhysicalIntId, VcpuId, Width};
pub use lines::clear_list_registers;
pub use lr::{CpuInterface, ListRegister, ListRegisters, Maintenance};
pub use physical::{Hardware, Line, Physical};
pub use route::SgiRegister;
pub use state::Vgic;
