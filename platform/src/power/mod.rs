//! Turning the board off or over: by the firmware's PSCI, or by a device of the board where firmware offers no call for it.
//!
//! Which of them the board has, its tree says; when it is time, whoever runs the VMs does.

pub mod bcm2835_pm;
pub mod psci;

/// What is to become of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is turned off.
    Off,
    /// It starts afresh, from its firmware on.
    Reset,
}
