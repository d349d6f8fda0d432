//! What a board is made of: its description, read from the firmware's device tree, and drivers for the devices that
//! EL2 itself uses.
//!
//! [`tree`] is pure and tested on the host. The drivers reach hardware; there is one module per kind of device, and each
//! gets its address from the tree: nothing about a board is a constant here. Those that need the CPU's own instructions
//! are built for the target alone.
//! Devices that guests see are not here but in `vmm::devices`.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod tree;
pub mod uart;

#[cfg(target_arch = "aarch64")]
pub mod gic;
#[cfg(target_arch = "aarch64")]
pub mod power;
#[cfg(target_arch = "aarch64")]
pub mod rtc;
