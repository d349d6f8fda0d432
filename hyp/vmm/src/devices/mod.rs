//! Emulated devices, and the table that finds the one behind a guest address.
//!
//! A device is plain state: a register access or a byte from outside goes in, a value and what became of the interrupt
//! line come out. Locks, the physical UART and the timer are the caller's.

pub mod flash;
pub mod mmio_map;
pub mod pl011;
pub mod pl031;
mod primecell;
mod ring;

pub use mmio_map::{Hit, MmioMap, MmioMapError};
pub use pl011::Pl011;
pub use pl031::Pl031;

/// An emulated device of a VM, of which each VM has at most one of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// GIC distributor.
    Gicd,
    /// GICv3 redistributors, all in one region, 128 KiB each.
    Gicr,
    /// Console, a PL011.
    Uart,
    /// Clock, a PL031.
    Rtc,
}

/// What an operation did to a device's interrupt line. The caller tells the virtual GIC of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Line {
    /// The level is what it was.
    Unchanged,
    /// It went up.
    Raised,
    /// It went down.
    Lowered,
}

impl Line {
    /// The change from one level to another.
    const fn change(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::Raised,
            (true, false) => Self::Lowered,
            _ => Self::Unchanged,
        }
    }

    /// The new level, where there is one.
    pub const fn level(self) -> Option<bool> {
        match self {
            Self::Unchanged => None,
            Self::Raised => Some(true),
            Self::Lowered => Some(false),
        }
    }
}

/// The bits of a 32-bit register from its byte `offset` on: the peripheral bus has byte lanes, so a narrow read above a
/// register's first byte sees what is there. The access's size is cut out later, with the sign (`esr::Access::extend`).
const fn from_byte(register: u32, offset: u32) -> u32 {
    register >> ((offset & 3) << 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_reads_see_their_lane() {
        assert_eq!(from_byte(0x1234_5678, 0x18), 0x1234_5678);
        assert_eq!(from_byte(0x1234_5678, 0x19), 0x12_3456);
        assert_eq!(from_byte(0x1234_5678, 0x1a), 0x1234);
        assert_eq!(from_byte(0x1234_5678, 0x1b), 0x12);
    }

    #[test]
    fn line_changes() {
        assert_eq!(Line::change(false, true).level(), Some(true));
        assert_eq!(Line::change(true, false).level(), Some(false));
        assert_eq!(Line::change(true, true).level(), None);
        assert_eq!(Line::change(false, false).level(), None);
    }
}
