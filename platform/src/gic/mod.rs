//! The physical interrupt controller as EL2 uses it: GICv2 and GICv3, with the same methods on both.
//!
//! EL2 takes every physical interrupt, drops its priority and either deactivates it or hands it to a guest, whose own
//! EOI then deactivates it through a list register (EOImode 1). So the two steps are separate here. The registers of
//! the distributor are written by whole-register operations that set or clear (ISENABLER, ICENABLER …) or belong to one
//! interrupt, so CPUs need no lock among them; but for ICFGR, whose registers several interrupts share.
//!
//! List registers are in [`v2::Interface`] and [`v3::Interface`]; what goes into them is decided by the `vgic` crate.

pub mod v2;
pub mod v3;

/// The priority that every physical interrupt of EL2 and of guests has: one level, so none preempts another.
pub const PRIORITY: u8 = 0x80;

/// INTIDs that name no interrupt: there is none, or it is for a security state that isn't ours.
pub const SPECIAL: core::ops::Range<u32> = 1020..1024;

/// Whether an interrupt is signalled by level or by edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Asserted as long as the device holds the line.
    Level,
    /// Latched at a rising edge.
    Edge,
}
