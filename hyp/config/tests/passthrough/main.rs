//! Devices of the board for VMs, as docs/passthrough.md has them.

mod board;
mod copies;
mod dma;
mod handing_out;
mod places;
mod random;
mod reader;
mod refused;
#[path = "../vm/mod.rs"]
mod vm;
