//! The VMSAv8-64 stage-2 descriptor, 4 KiB granule: what a table entry says, to and from its 64 bits (Arm ARM D8.3).
//!
//! Bits 58:55 are left to software: a leaf remembers in 57:55 what its grant was, so that a later change of permissions
//! cannot go beyond it and an unmap can give the grant back, and in 58 that it was written before stores were taken away.
//! DBM (51) marks what the guest may write while S2AP says that it may not: the first store faults, and EL2 logs it or
//! copies the page. That is the architecture's own meaning of the bit; the hardware's part of it (VTCR_EL2.HD) stays off.

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
/// Bit 10, access flag. Where it is 0, any access faults, and no TLB holds the entry.
const ACCESSED: u64 = 1 << 10;
/// Bits 47:12: the address of memory or of the next table.
pub(crate) const ADDRESS: u64 = 0xffff_ffff_f000;
/// Bit 51: what S2AP forbids to write may be written, after a fault.
const DBM: u64 = 1 << 51;
/// Bit 52: the entry is one of [`GROUP`] that lie together, here and in memory, so that a TLB may hold them as one.
pub(crate) const CONTIGUOUS: u64 = 1 << 52;
/// XN, bits 54:53, as 0b10: no execution at EL1 nor EL0, with and without FEAT_XNX.
const EXECUTE_NEVER: u64 = 2 << 53;
const USE_SHIFT: u32 = 55;
const USE_MASK: u64 = 7 << USE_SHIFT;
/// Bit 58: was written since the log was last collected, and stores are not allowed now.
const WRITTEN: u64 = 1 << 58;

/// Entries that the contiguous hint puts together (D8.7.1, 4 KiB granule): 64 KiB of pages, 32 MiB of 2 MiB blocks.
pub(crate) const GROUP: u64 = 16;

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

/// What a leaf remembers of what has happened to it, and how it is grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// The guest may store here, but the first store faults, to be logged or to have the page copied.
    pub store_faults: bool,
    /// Written since the log was last collected, though stores are no longer allowed.
    pub written: bool,
    /// Used since the access flag was last cleared; without it, the first access faults.
    pub accessed: bool,
    /// One of 16 entries that TLBs may hold as one.
    pub contiguous: bool,
}

impl Marks {
    /// Of a leaf that was just made.
    pub const NEW: Self = Self { store_faults: false, written: false, accessed: true, contiguous: false };
}

/// An entry that maps memory: a block, or a page at level 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Where the memory is; aligned to the span of the entry's level.
    pub pa: Pa,
    /// What the entry says beside that.
    pub attributes: Attributes,
    /// What it remembers.
    pub marks: Marks,
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
        match Entry::of(raw, level) {
            Entry::Invalid => Self::Invalid,
            Entry::Table(table) => Self::Table(table),
            Entry::Leaf => Self::Leaf(decode_leaf(raw, level)),
        }
    }
}

/// An entry by its kind alone: what loops over entries ask of most of them.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    Invalid,
    Table(Pa),
    Leaf,
}

impl Entry {
    /// The kind of `raw` in a table of `level`.
    #[inline]
    pub(crate) const fn of(raw: u64, level: Level) -> Self {
        let table_or_page = raw & TABLE_OR_PAGE != 0;
        if raw & VALID == 0 {
            return Self::Invalid;
        }
        match level {
            Level::Three if table_or_page => Self::Leaf,
            Level::Zero | Level::One | Level::Two if table_or_page => Self::Table(Pa::new(raw & ADDRESS)),
            Level::One | Level::Two => Self::Leaf,
            Level::Zero | Level::Three => Self::Invalid,
        }
    }
}

/// Where the leaf `raw` of `level` leads.
#[inline]
pub(crate) const fn address(raw: u64, level: Level) -> Pa {
    Pa::new(raw & ADDRESS & !level.span().wrapping_sub(1))
}

/// What the leaf `raw` of `level` says.
#[inline]
pub(crate) const fn decode_leaf(raw: u64, level: Level) -> Leaf {
    let permissions = Permissions {
        read: raw & READ != 0,
        write: raw & (WRITE | DBM) != 0,
        execute: raw & EXECUTE_NEVER == 0,
    };
    let (usage, may_write) = Use::from_bits((raw & USE_MASK) >> USE_SHIFT);
    Leaf {
        pa: address(raw, level),
        attributes: Attributes { permissions, usage, may_write },
        marks: Marks {
            store_faults: raw & (WRITE | DBM) == DBM,
            written: raw & WRITTEN != 0,
            accessed: raw & ACCESSED != 0,
            contiguous: raw & CONTIGUOUS != 0,
        },
    }
}

impl Leaf {
    /// The 64 bits of this leaf in a table of `level`. Level 0 has no leaves; the bits for it are an invalid entry.
    ///
    /// What is copied on write is never writable, whatever `marks` says.
    pub const fn encode(self, format: Format, level: Level) -> u64 {
        let Attributes { permissions, usage, may_write } = self.attributes;
        let memory = usage.memory_type();
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
        kind | format.memattr(memory) << MEMATTR_SHIFT
            | permission_bits(permissions, self.marks.store_faults || matches!(usage, Use::CopyOnWrite))
            | shareability
            | flag(ACCESSED, self.marks.accessed)
            | self.pa.as_u64() & ADDRESS
            | usage.bits(may_write) << USE_SHIFT
            | flag(WRITTEN, self.marks.written)
            | flag(CONTIGUOUS, self.marks.contiguous)
    }
}

const fn flag(bit: u64, set: bool) -> u64 {
    if set { bit } else { 0 }
}

const fn permission_bits(permissions: Permissions, store_faults: bool) -> u64 {
    let writable = if store_faults { DBM } else { WRITE };
    flag(READ, permissions.read)
        | flag(writable, permissions.write)
        | flag(EXECUTE_NEVER, !permissions.execute)
}

const fn usage(raw: u64) -> Use {
    Use::from_bits((raw & USE_MASK) >> USE_SHIFT).0
}

/// The leaf `raw` with other permissions and all else as it was. What stays writable goes on being logged or not, as it
/// was; with `logging`, what is no longer writable remembers that it was written.
pub(crate) const fn with_permissions(raw: u64, permissions: Permissions, logging: bool) -> u64 {
    let store_faults = raw & (WRITE | DBM) == DBM || matches!(usage(raw), Use::CopyOnWrite);
    let lost = logging && raw & WRITE != 0 && !permissions.write;
    // What is writable says by that alone that it may have been written.
    let written = flag(WRITTEN, lost) | if permissions.write && !store_faults { 0 } else { raw & WRITTEN };
    raw & !(READ | WRITE | DBM | EXECUTE_NEVER | WRITTEN)
        | permission_bits(permissions, store_faults)
        | written
}

/// Whether the log has to tell of the leaf `raw`: it is memory, and was or may have been written.
pub(crate) const fn is_written(raw: u64) -> bool {
    matches!(usage(raw).memory_type(), MemoryType::Normal) && raw & (WRITE | WRITTEN) != 0
}

/// The leaf `raw`, its next store to be logged. Nothing changes where it isn't memory.
pub(crate) const fn logged(raw: u64) -> u64 {
    if !is_written(raw) {
        return raw;
    }
    let writable = raw & WRITE != 0;
    raw & !(WRITE | WRITTEN) | flag(DBM, writable || raw & DBM != 0)
}

/// The leaf `raw` when a store is about to happen, the guest's or EL2's: it goes through, and with `logging` it is told of.
pub(crate) const fn stored(raw: u64, logging: bool) -> u64 {
    let told = raw & WRITE != 0;
    match (raw & DBM != 0, told) {
        (true, _) => raw & !(DBM | WRITTEN) | WRITE,
        (false, false) => raw | flag(WRITTEN, logging),
        (false, true) => raw,
    }
}

/// The leaf `raw` with stores going through wherever they are allowed, and nothing left of the log.
pub(crate) const fn unlogged(raw: u64) -> u64 {
    let raw = raw & !WRITTEN;
    let waits = raw & DBM != 0 && !matches!(usage(raw), Use::CopyOnWrite);
    if waits { raw & !DBM | WRITE } else { raw }
}

/// The leaf `raw` after the access that it waited for.
pub(crate) const fn accessed(raw: u64) -> u64 {
    raw | ACCESSED
}

/// The leaf `raw`, its next access to be noticed. Nothing changes where it isn't memory.
pub(crate) const fn aged(raw: u64) -> u64 {
    match usage(raw).memory_type() {
        MemoryType::Normal => raw & !ACCESSED,
        MemoryType::Device => raw,
    }
}

/// The leaf `raw`, which is a VM's own memory, as memory that is copied on write, or the other way round. With `logging`,
/// what was written stays to be told.
pub(crate) const fn with_usage(raw: u64, to: Use, logging: bool) -> u64 {
    // Neither of the two uses has two codes.
    let other = raw & !USE_MASK | to.bits(true) << USE_SHIFT;
    match to {
        Use::CopyOnWrite if raw & WRITE != 0 => other & !WRITE | DBM | flag(WRITTEN, logging),
        Use::CopyOnWrite => other,
        _ => unlogged(other),
    }
}

/// A leaf just made while stores are logged: its content is new at its address, writable or not.
pub(crate) const fn new_while_logging(raw: u64) -> u64 {
    let told = raw & WRITE != 0 || matches!(usage(raw).memory_type(), MemoryType::Device);
    if told { raw } else { raw | WRITTEN }
}

/// Whether an access flag of 0 keeps the leaf `raw` out of the TLBs (D8.5.1).
pub(crate) const fn is_uncached(raw: u64) -> bool {
    raw & ACCESSED == 0
}

/// A table entry that leads to the table at `table`.
pub(crate) const fn table_entry(table: Pa) -> u64 {
    table.as_u64() & ADDRESS | TABLE_OR_PAGE | VALID
}

/// The leaf `raw` of `level` as the first of the 512 leaves of the next level that say the same; the others follow at
/// the next level's span. Only its type bits differ. `raw` has no contiguous hint, and neither have they.
pub(crate) const fn first_part(raw: u64, next: Level) -> u64 {
    match next {
        Level::Three => raw | TABLE_OR_PAGE,
        Level::Zero | Level::One | Level::Two => raw,
    }
}

/// The block that 512 leaves are together, the first of which is `first`. Its type bits differ, and the hint is gone.
pub(crate) const fn whole(first: u64) -> u64 {
    first & !(TABLE_OR_PAGE | CONTIGUOUS)
}

/// Whether an entry can be one block at `level`: it has leaves and its address is aligned.
pub(crate) const fn fits_block(ipa: Ipa, pa: Pa, level: Level) -> bool {
    level.has_leaves() && ipa.is_aligned(level.span()) && pa.is_aligned(level.span())
}

/// Bytes that a group of leaves of `level` spans, where the hint is used there: not for 1 GiB blocks, of which 16 in
/// a row are rarely to be had and one needs no help.
pub(crate) const fn group_span(level: Level) -> Option<u64> {
    match level {
        Level::Two | Level::Three => Some(level.span().wrapping_mul(GROUP)),
        Level::Zero | Level::One => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(pa: u64, permissions: Permissions, usage: Use, may_write: bool) -> Leaf {
        Leaf { pa: Pa::new(pa), attributes: Attributes { permissions, usage, may_write }, marks: Marks::NEW }
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

    /// Uses with whether stores are granted, as far as there are such grants.
    const GRANTS: [(Use, bool); 6] = [
        (Use::Ram, true),
        (Use::Shared, false),
        (Use::Shared, true),
        (Use::Device, true),
        (Use::Banked, true),
        (Use::CopyOnWrite, false),
    ];

    #[test]
    fn every_leaf_comes_back() {
        for bits in 0..0x80u32 {
            let bit = |n: u32| bits >> n & 1 != 0;
            let permissions = Permissions { read: bit(0), write: bit(1), execute: bit(2) };
            for (usage, may_write) in GRANTS {
                // A store can only fault where it is allowed, and always does where it makes a copy.
                let store_faults = permissions.write && (bit(3) || usage == Use::CopyOnWrite);
                let marks = Marks { store_faults, written: bit(4), accessed: bit(5), contiguous: bit(6) };
                for level in [Level::One, Level::Two, Level::Three] {
                    let leaf = Leaf { marks, ..leaf(0x40_0000_0000, permissions, usage, may_write) };
                    for format in [Format::Combined, Format::ForcedWriteBack] {
                        let raw = leaf.encode(format, level);
                        assert_eq!(Descriptor::decode(raw, level), Descriptor::Leaf(leaf));
                        assert_ne!(raw & (WRITE | DBM), WRITE | DBM);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_copied_on_write_is_never_writable() {
        let raw =
            leaf(0x1000, Permissions::ALL, Use::CopyOnWrite, false).encode(Format::Combined, Level::Three);
        assert_eq!((raw & WRITE, raw & DBM), (0, DBM));
        for changed in [
            with_permissions(raw, Permissions::ALL, true),
            with_permissions(with_permissions(raw, Permissions::READ, true), Permissions::ALL, true),
            unlogged(raw),
            unlogged(logged(raw)),
            accessed(raw),
        ] {
            assert_eq!((changed & WRITE, changed & DBM), (0, DBM), "{changed:#x}");
        }
    }

    #[test]
    fn codes_that_nobody_writes_are_read_as_the_least() {
        for code in [6, 7] {
            assert_eq!(Use::from_bits(code), (Use::Shared, false));
        }
    }

    #[test]
    fn the_log_goes_round() {
        let encode = |leaf: Leaf| leaf.encode(Format::Combined, Level::Three);
        let ram = encode(leaf(0x1000, Permissions::ALL, Use::Ram, true));
        assert!(is_written(ram));
        let clean = logged(ram);
        assert_eq!((clean & WRITE, clean & DBM), (0, DBM));
        assert!(!is_written(clean));
        assert_eq!((logged(clean), stored(clean, true), unlogged(clean)), (clean, ram, ram));
        // What was written and is made read-only is told once.
        let read_only = with_permissions(ram, Permissions::READ, true);
        assert!(is_written(read_only) && read_only & (WRITE | DBM) == 0);
        assert!(!is_written(with_permissions(ram, Permissions::READ, false)));
        assert!(!is_written(with_permissions(clean, Permissions::READ, true)));
        let told = logged(read_only);
        assert!(!is_written(told));
        // EL2 writes to it.
        assert_eq!((stored(told, true), stored(told, false)), (read_only, told));
        // New at its address, though read-only.
        let flash = encode(leaf(0x1000, Permissions::READ, Use::Ram, true));
        assert!(!is_written(flash) && is_written(new_while_logging(flash)));
        assert_eq!(new_while_logging(ram), ram);
        let device = encode(leaf(0x1000, Permissions::READ_WRITE, Use::Device, true));
        assert!(!is_written(device));
        assert_eq!([logged(device), new_while_logging(device), aged(device)], [device; 3]);
    }

    #[test]
    fn memory_is_frozen_and_thawed_in_place() {
        let ram = leaf(0x1000, Permissions::ALL, Use::Ram, true).encode(Format::Combined, Level::Three);
        let frozen = leaf(0x1000, Permissions::ALL, Use::CopyOnWrite, false);
        assert_eq!(Descriptor::decode(with_usage(ram, Use::CopyOnWrite, false), Level::Three), {
            Descriptor::Leaf(Leaf { marks: Marks { store_faults: true, ..Marks::NEW }, ..frozen })
        });
        let noted = with_usage(ram, Use::CopyOnWrite, true);
        assert!(is_written(noted) && !is_written(with_usage(logged(ram), Use::CopyOnWrite, true)));
        for frozen in [noted, with_usage(ram, Use::CopyOnWrite, false)] {
            assert_eq!(with_usage(frozen, Use::Ram, true), ram);
        }
        let read_only = with_permissions(ram, Permissions::READ, false);
        let frozen = with_usage(read_only, Use::CopyOnWrite, true);
        assert_eq!(frozen & (WRITE | DBM | WRITTEN), 0);
        assert_eq!(with_usage(frozen, Use::Ram, true), read_only);
    }

    #[test]
    fn parts_and_wholes_differ_by_type_and_hint() {
        let block = leaf(0x4000_0000, Permissions::ALL, Use::Ram, true).encode(Format::Combined, Level::Two);
        let page = first_part(block, Level::Three);
        assert_eq!(page, block | 2);
        assert_eq!(first_part(block, Level::Two), block);
        assert_eq!(whole(page | CONTIGUOUS), block);
        assert_eq!(
            [Level::Zero, Level::One, Level::Two, Level::Three].map(group_span),
            [None, None, Some(32 << 20), Some(64 << 10)]
        );
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
