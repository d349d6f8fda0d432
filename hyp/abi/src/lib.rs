//! Numbers of the calls between a guest and Hanok: SMCCC function identifiers, their arguments and their results.
//!
//! Shared by the hypervisor and by guests, so there are constants, small newtypes and plain records here, and no
//! behaviour; and the syndromes that crash records tell of, decoded ([`esr`]). Which of these calls Hanok answers is
//! decided in `vmm::smccc` and listed in `docs/hypercalls.md`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod caller;
pub mod esr;
mod function_id;
pub mod hanok;
pub mod psci;
pub mod pv_time;
pub mod record;
pub mod smccc;
pub mod trng;
mod uuid;

pub use caller::{Control, Error, Identity, Speaker};
pub use function_id::{FunctionId, Owner};
