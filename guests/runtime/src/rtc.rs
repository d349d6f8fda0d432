//! The PL031 real-time clock's registers (Arm DDI 0224, chapter 3).

use crate::machine::machine;
use crate::mmio::Mmio;

/// Data: seconds.
pub const DR: usize = 0x00;
/// Match: the alarm, in seconds.
pub const MR: usize = 0x04;
/// Load: sets the clock.
pub const LR: usize = 0x08;
/// Control: bit 0 is the clock's enable.
pub const CR: usize = 0x0c;
/// Interrupt mask: bit 0 lets the alarm through.
pub const IMSC: usize = 0x10;
/// Raw interrupt status.
pub const RIS: usize = 0x14;
/// Masked interrupt status.
pub const MIS: usize = 0x18;
/// Interrupt clear.
pub const ICR: usize = 0x1c;

/// The clock's registers, where the tree has one.
pub fn rtc() -> Option<Mmio> {
    // SAFETY: the tree names these as the registers of a PL031, and RAM doesn't overlap them.
    machine().rtc.map(|rtc| unsafe { Mmio::new(rtc.registers.base as usize) })
}
