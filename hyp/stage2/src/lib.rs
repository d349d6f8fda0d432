//! Stage-2 translation tables and the page ledger: what a VM sees at which address, and whom each physical page
//! belongs to.
//!
//! The crate computes; it touches no register and no memory. Tables and TLB are reached through [`Environment`],
//! which the EL2 image implements over its own map and the host tests implement over a model. Nothing here allocates,
//! blocks or panics. Locking is the caller's: one `Stage2` per VM behind that VM's lock, one `Ledger` for the machine.
//!
//! A mapping is made from a [`Grant`], and only the [`Ledger`] makes grants: a mapping that the ledger has not agreed
//! to does not compile. [`Ledger::map`], [`Ledger::unmap`] and [`Ledger::teardown`] are the short way through both.
//!
//! References: Arm Architecture Reference Manual for A-profile (DDI 0487), chapter D8 for the tables, D8.16 for TLB
//! maintenance and break-before-make.
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

mod addr;
mod bbm;
mod copy;
mod descriptor;
mod edit;
mod environment;
mod error;
mod fault;
mod geometry;
mod grant;
mod job;
mod ledger;
mod log;
mod table;
pub mod tlbi;
mod vm;
mod walk;

pub use addr::{ADDRESS_BITS, Ipa, PAGE_SHIFT, PAGE_SIZE, Pa, PaRange};
pub use bbm::{needs_break, needs_invalidation};
pub use copy::CopyReserve;
pub use descriptor::{Attributes, Descriptor, Format, Leaf, Marks, MemoryType, Permissions};
pub use environment::{Environment, Invalidation};
pub use error::{Error, LedgerError, Refused};
pub use fault::Access;
pub use geometry::{Geometry, Level, Vtcr, pa_bits, vttbr};
pub use grant::{Grant, Use};
pub use job::{Cursor, MapJob, MapStep, Progress, STEP, Teardown};
pub use ledger::{Inventory, Kind, Ledger, Run, Scrub, State, Transfer};
pub use table::{Mapping, Stage2, Translation};
pub use vm::{VmId, VmSet};
