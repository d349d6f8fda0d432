//! The registers that guests access by load and store: what is where, and how wide.
//!
//! Reserved registers, registers of interrupts that don't exist, misaligned accesses and widths that a register
//! doesn't take read as zero and ignore writes: both specifications allow it, and no GIC on a board raises an
//! abort there that a guest could depend on.

use crate::ids::Width;

/// The classes of registers in the first 4 KiB of a distributor. A `GICR` SGI_base frame has the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Control,
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    Priority,
    Targets,
    Config,
    Sgi,
    Identification,
    Reserved,
}

/// One row per 128 bytes: the class, where its registers begin, and whether bytes may be accessed too. No class
/// shares a row with another.
const ROWS: [(Class, u16, bool); 32] = [
    (Class::Control, 0x000, false),
    (Class::Group, 0x080, false),
    (Class::SetEnable, 0x100, false),
    (Class::ClearEnable, 0x180, false),
    (Class::SetPending, 0x200, false),
    (Class::ClearPending, 0x280, false),
    (Class::SetActive, 0x300, false),
    (Class::ClearActive, 0x380, false),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Priority, 0x400, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Targets, 0x800, true),
    (Class::Config, 0xc00, false),
    (Class::Config, 0xc00, false),
    // IGRPMODR: RES0 with one security state. PPISR and SPISR, of GIC-400 alone: not offered.
    (Class::Reserved, 0xd00, false),
    (Class::Reserved, 0xd00, false),
    // NSACR: RES0 with one security state.
    (Class::Reserved, 0xe00, false),
    (Class::Reserved, 0xe00, false),
    (Class::Sgi, 0xf00, true),
    (Class::Identification, 0xf80, false),
];

/// One access within the first 4 KiB: the register's class, its number within the class, and for bytes how far
/// the byte is shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub class: Class,
    /// Number of the 32-bit register within its class.
    pub index: usize,
    /// Position of the byte in the register, in bits; 0 for whole registers.
    pub shift: u32,
    /// The bits that are accessed.
    pub mask: u32,
}

impl Access {
    /// The register at `offset`, if there is one that takes this width there.
    #[inline]
    pub fn decode(offset: u64, width: Width) -> Option<Access> {
        if offset >= 0x1000 {
            return None;
        }
        // Of a number that a guest has chosen, what is in bounds whatever the CPU guesses.
        let (class, base, bytes) = *ROWS.get((offset >> 7 & 31) as usize)?;
        let index = (offset as usize).wrapping_sub(usize::from(base)) >> 2;
        match width {
            Width::Word if offset & 3 == 0 => Some(Access { class, index, shift: 0, mask: !0 }),
            Width::Byte if bytes => {
                let shift = (offset as u32 & 3) << 3;
                Some(Access { class, index, shift, mask: 0xffu32.wrapping_shl(shift) })
            }
            _ => None,
        }
    }

    /// What a read returns of the register's value.
    #[inline]
    pub fn of_value(self, value: u32) -> u64 {
        u64::from((value & self.mask).wrapping_shr(self.shift))
    }

    /// A written value in its place in the register.
    #[inline]
    pub fn to_value(self, value: u64) -> u32 {
        (value as u32).wrapping_shl(self.shift) & self.mask
    }
}

/// GICD_IIDR and GICR_IIDR: product 0x48 ('H'), revision 0, implementer Arm, whose architecture it is.
pub(crate) const IIDR: u32 = 0x4800_043b;

/// Peripheral and component identification registers from 0xfd0, or 0xffd0 on GICv3, with the architecture's
/// version in PIDR2[7:4].
pub(crate) fn identification(offset: u64, version: u32) -> u32 {
    match offset & 0xfff {
        0xfd0 => 0x04,
        0xfe0 if version == 2 => 0x90,
        0xfe0 => 0x92,
        0xfe4 => 0xb4,
        0xfe8 => version << 4 | 0xb,
        0xff0 => 0x0d,
        0xff4 => 0xf0,
        0xff8 => 0x05,
        0xffc => 0xb1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_begins_where_its_class_does() {
        for (row, (class, base, _)) in ROWS.iter().enumerate() {
            assert!(usize::from(*base) <= row * 0x80, "{class:?}");
            let first = ROWS.iter().position(|(_, other, _)| other == base).unwrap();
            assert_eq!(first * 0x80, usize::from(*base), "{class:?}");
        }
    }

    #[test]
    fn decoding() {
        let word = |class, index| Some(Access { class, index, shift: 0, mask: !0 });
        assert_eq!(Access::decode(0x104, Width::Word), word(Class::SetEnable, 1));
        assert_eq!(Access::decode(0x7f8, Width::Word), word(Class::Priority, 254));
        assert_eq!(Access::decode(0xc80, Width::Word), word(Class::Config, 32));
        assert_eq!(
            Access::decode(0x823, Width::Byte),
            Some(Access { class: Class::Targets, index: 8, shift: 24, mask: 0xff00_0000 })
        );
        assert_eq!(Access::decode(0x100, Width::Byte), None);
        assert_eq!(Access::decode(0x102, Width::Word), None);
        assert_eq!(Access::decode(0x400, Width::Half), None);
        assert_eq!(Access::decode(0x100, Width::Double), None);
        assert_eq!(Access::decode(0x1000, Width::Word), None);
    }
}
