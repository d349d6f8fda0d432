//! The VMSAv8-64 stage-2 descriptor, 4 KiB granule: what a table entry says, to and from its 64 bits (Arm ARM D8.3).
//!
//! Bits 58:55 are left to software. Here a leaf remembers in them what its grant allowed, so that a later change of
//! permissions cannot go beyond it and an unmap can give the grant back. Bit 58 is free. The contiguous hint is not set.

use crate::addr::{Ipa, Pa};
use crate::geometry::Level;
use crate::grant::Use;

/// Bit 0: the entry counts.
pub(crate) const VALID: u64 = 1;
/// Bit 1: a table at levels 0 to 2, a page at level 3; without it, a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
const MEMATTR_SHIFT: u32 = 2;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const SH_OUTER: u64 = 2 << 8;
const SH_INNER: u64 = 3 << 8;
/// Bit 10, access flag: always set, since nothing here takes access flag faults.
const ACCESSED: u64 = 1 << 10;
/// Bits 47:12: the address of memory or of the next table.
pub(crate) const ADDRESS: u64 = 0xffff_ffff_f000;
/// XN, bits 54:53, as 0b10: no execution at EL1 nor EL0, with and without FEAT_XNX.
const EXECUTE_NEVER: u64 = 2 << 53;
const USE_SHIFT: u32 = 55;
const USE_MASK: u64 = 3 << USE_SHIFT;
const MAY_WRITE: u64 = 1 << 57;

/// What a guest may do with memory. Execution needs `read` too: the architecture does not fetch what it may not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Loads.
    pub read: bool,
    /// Stores.
    pub write: bool,
    /// Instruction fetches, at EL1 and EL0 alike.
    pub execute: bool,
}

impl Permissions {
    /// Loads alone.
    pub const READ: Self = Self { read: true, write: false, execute: false };
    /// Loads and stores: what devices get.
    pub const READ_WRITE: Self = Self { read: true, write: true, execute: false };
    /// Loads and instruction fetches: what flash gets.
    pub const READ_EXECUTE: Self = Self { read: true, write: false, execute: true };
    /// Everything: what RAM gets.
    pub const ALL: Self = Self { read: true, write: true, execute: true };
}

/// What kind of memory stage 2 says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryType {
    /// Normal, write-back, inner shareable. Without FEAT_S2FWB the guest's stage 1 may weaken it; with it, it stays.
    Normal,
    /// Device-nGnRE.
    Device,
}

/// How MemAttr is encoded, by whether FEAT_S2FWB is in use (HCR_EL2.FWB). One value for all of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// HCR_EL2.FWB is 0: stage 1 and stage 2 combine to the weaker.
    Combined,
    /// HCR_EL2.FWB is 1: stage 2 decides.
    ForcedWriteBack,
}

impl Format {
    /// MemAttr, 4 bits (D8.6). Combined: 0b1111 is Normal, inner and outer write-back; 0b0001 Device-nGnRE. Forced: 0b0110
    /// is Normal write-back whatever stage 1 says; 0b0001 Device-nGnRE.
    const fn memattr(self, memory: MemoryType) -> u64 {
        match (self, memory) {
            (Self::Combined, MemoryType::Normal) => 0b1111,
            (Self::ForcedWriteBack, MemoryType::Normal) => 0b0110,
            (_, MemoryType::Device) => 0b0001,
        }
    }
}

/// What a leaf says beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// What the guest may do now.
    pub permissions: Permissions,
    /// What the memory is to the VM, as the ledger granted it; the memory type follows from it.
    pub usage: Use,
    /// Whether the grant allows stores at all.
    pub may_write: bool,
}

/// An entry that maps memory: a block, or a page at level 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the memory is; aligned to the span of the entry's level.
    pub pa: Pa,
    /// What the entry says beside that.
    pub attributes: Attributes,
}

/// An entry, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// No translation; reserved encodings, which the hardware faults on too, are read as this.
    Invalid,
    /// The next level's table.
    Table(Pa),
    /// Memory.
    Leaf(Leaf),
}

impl Descriptor {
    /// What `raw` says in a table of `level`.
    pub const fn decode(raw: u64, level: Level) -> Self {
        let table_or_page = raw & TABLE_OR_PAGE != 0;
        if raw & VALID == 0 {
            return Self::Invalid;
        }
        match level {
            Level::Three if table_or_page => Self::Leaf(decode_leaf(raw, level)),
            Level::Zero | Level::One | Level::Two if table_or_page => Self::Table(Pa::new(raw & ADDRESS)),
            Level::One | Level::Two => Self::Leaf(decode_leaf(raw, level)),
            Level::Zero | Level::Three => Self::Invalid,
        }
    }
}

const fn decode_leaf(raw: u64, level: Level) -> Leaf {
    let permissions =
        Permissions { read: raw & READ != 0, write: raw & WRITE != 0, execute: raw & EXECUTE_NEVER == 0 };
    let usage = Use::from_bits((raw & USE_MASK) >> USE_SHIFT);
    Leaf {
        pa: Pa::new(raw & ADDRESS & !level.span().wrapping_sub(1)),
        attributes: Attributes { permissions, usage, may_write: raw & MAY_WRITE != 0 },
    }
}

impl Leaf {
    /// The 64 bits of this leaf in a table of `level`. Level 0 has no leaves; the bits for it are an invalid entry.
    pub const fn encode(self, format: Format, level: Level) -> u64 {
        let memory = self.attributes.usage.memory_type();
        let kind = match level {
            Level::Zero => 0,
            Level::One | Level::Two => VALID,
            Level::Three => VALID | TABLE_OR_PAGE,
        };
        let shareability = match memory {
            MemoryType::Normal => SH_INNER,
            // Device memory is outer shareable whatever is written here; say what it is.
            MemoryType::Device => SH_OUTER,
        };
        let may_write = if self.attributes.may_write { MAY_WRITE } else { 0 };
        kind | format.memattr(memory) << MEMATTR_SHIFT
            | permission_bits(self.attributes.permissions)
            | shareability
            | ACCESSED
            | self.pa.as_u64() & ADDRESS
            | self.attributes.usage.bits() << USE_SHIFT
            | may_write
    }
}

const fn permission_bits(permissions: Permissions) -> u64 {
    let read = if permissions.read { READ } else { 0 };
    let write = if permissions.write { WRITE } else { 0 };
    let execute_never = if permissions.execute { 0 } else { EXECUTE_NEVER };
    read | write | execute_never
}

/// The leaf `raw` with other permissions and all else as it was.
pub(crate) const fn with_permissions(raw: u64, permissions: Permissions) -> u64 {
    raw & !(READ | WRITE | EXECUTE_NEVER) | permission_bits(permissions)
}

/// A table entry that leads to the table at `table`.
pub(crate) const fn table_entry(table: Pa) -> u64 {
    table.as_u64() & ADDRESS | TABLE_OR_PAGE | VALID
}

/// The leaf `raw` of `level` as the first of the 512 leaves of the next level that say the same; the others follow at
/// the next level's span. Only its type bits differ.
pub(crate) const fn first_part(raw: u64, next: Level) -> u64 {
    match next {
        Level::Three => raw | TABLE_OR_PAGE,
        Level::Zero | Level::One | Level::Two => raw,
    }
}

/// The block that 512 leaves are together, the first of which is `first`. Only its type bits differ.
pub(crate) const fn whole(first: u64) -> u64 {
    first & !TABLE_OR_PAGE
}

/// Whether an entry can be one block at `level`: it has leaves and its address is aligned.
pub(crate) const fn fits_block(ipa: Ipa, pa: Pa, level: Level) -> bool {
    level.has_leaves() && ipa.is_aligned(level.span()) && pa.is_aligned(level.span())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(pa: u64, permissions: Permissions, usage: Use, may_write: bool) -> Leaf {
        Leaf { pa: Pa::new(pa), attributes: Attributes { permissions, usage, may_write } }
    }

    #[test]
    fn ram_block_bit_by_bit() {
        let block = leaf(0x8000_0000, Permissions::ALL, Use::Ram, true).encode(Format::Combined, Level::Two);
        // Valid block, MemAttr 1111, S2AP 11, SH 11, AF, XN 00; software: RAM, writable.
        assert_eq!(block & !(0xf << 55), 0x8000_07fd);
        let forced =
            leaf(0x8000_0000, Permissions::ALL, Use::Ram, true).encode(Format::ForcedWriteBack, Level::Two);
        assert_eq!(forced & !(0xf << 55), 0x8000_07d9);
    }

    #[test]
    fn device_page_bit_by_bit() {
        for format in [Format::Combined, Format::ForcedWriteBack] {
            let page =
                leaf(0x900_0000, Permissions::READ_WRITE, Use::Device, true).encode(format, Level::Three);
            // Valid page, MemAttr 0001, S2AP 11, SH 10, AF, XN 10.
            assert_eq!(page & !(0xf << 55), 0x0040_0000_0900_06c7);
        }
    }

    #[test]
    fn read_only_has_s2ap_01() {
        let page = leaf(0x1000, Permissions::READ, Use::Shared, false).encode(Format::Combined, Level::Three);
        assert_eq!(page >> 6 & 3, 1);
        assert_eq!(page >> 53 & 3, 2);
    }

    #[test]
    fn every_leaf_comes_back() {
        for bits in 0..8 {
            let permissions =
                Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 };
            for usage in [Use::Ram, Use::Shared, Use::Device, Use::Banked] {
                for may_write in [false, true] {
                    for level in [Level::One, Level::Two, Level::Three] {
                        let leaf = leaf(0x40_0000_0000, permissions, usage, may_write);
                        for format in [Format::Combined, Format::ForcedWriteBack] {
                            let raw = leaf.encode(format, level);
                            assert_eq!(Descriptor::decode(raw, level), Descriptor::Leaf(leaf));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn reserved_encodings_are_invalid() {
        assert_eq!(Descriptor::decode(0x4000_0001, Level::Zero), Descriptor::Invalid);
        assert_eq!(Descriptor::decode(0x4000_0001, Level::Three), Descriptor::Invalid);
        assert_eq!(Descriptor::decode(0x4000_0002, Level::Two), Descriptor::Invalid);
        assert_eq!(Descriptor::decode(0x4000_0003, Level::Two), Descriptor::Table(Pa::new(0x4000_0000)));
        assert_eq!(leaf(0, Permissions::ALL, Use::Ram, true).encode(Format::Combined, Level::Zero) & 1, 0);
    }
}
