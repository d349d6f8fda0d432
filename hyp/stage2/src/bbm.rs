//! Break-before-make as predicates over two descriptors of one table entry (Arm ARM D8.16.1).
//!
//! Every change to a live entry asks here what it takes. What does the breaking is in `edit`.

use crate::descriptor::{Entry, is_uncached};
use crate::geometry::Level;

/// The bits of a leaf that may change under a running walker: S2AP (7:6), AF (10), DBM (51), XN (54:53) and software's
/// (58:55). Output address, memory type, shareability, size and the contiguous hint may not.
const CHANGEABLE: u64 = 3 << 6 | 1 << 10 | 1 << 51 | 3 << 53 | 0xf << 55;

/// Whether going from `old` to `new` in an entry of `level` needs the entry invalid, and the TLBs free of it, in between.
pub const fn needs_break(old: u64, new: u64, level: Level) -> bool {
    let same_kind = match (Entry::of(old, level), Entry::of(new, level)) {
        (Entry::Invalid, _) | (_, Entry::Invalid) => return false,
        (Entry::Table(_), Entry::Table(_)) => return old != new,
        (Entry::Leaf, Entry::Leaf) => true,
        _ => false,
    };
    !same_kind || (old ^ new) & !CHANGEABLE != 0
}

/// Whether going from `old` to `new` in an entry of `level` leaves something in the TLBs that must go: everything but a
/// change from what is never cached, an invalid entry or a leaf whose access flag is 0, and a change that is none.
pub const fn needs_invalidation(old: u64, new: u64, level: Level) -> bool {
    let cached = match Entry::of(old, level) {
        Entry::Invalid => false,
        Entry::Table(_) => true,
        Entry::Leaf => !is_uncached(old),
    };
    cached && old != new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pa;
    use crate::descriptor::{
        Attributes, Format, Leaf, Marks, Permissions, VALID, aged, logged, table_entry, with_permissions,
        with_usage,
    };
    use crate::grant::Use;

    fn leaf(pa: u64, usage: Use, format: Format) -> u64 {
        let attributes = Attributes { permissions: Permissions::ALL, usage, may_write: true };
        Leaf { pa: Pa::new(pa), attributes, marks: Marks::NEW }.encode(format, Level::Two)
    }

    #[test]
    fn what_needs_a_break() {
        let ram = leaf(0x4000_0000, Use::Ram, Format::Combined);
        let moved = leaf(0x4020_0000, Use::Ram, Format::Combined);
        let device = leaf(0x4000_0000, Use::Device, Format::Combined);
        let forced = leaf(0x4000_0000, Use::Ram, Format::ForcedWriteBack);
        let table = table_entry(Pa::new(0x5000_0000));
        let other = table_entry(Pa::new(0x5000_1000));
        for (old, new) in [
            (ram, moved),
            (ram, device),
            (ram, forced),
            (ram, table),
            (table, ram),
            (table, other),
            (ram, ram | 1 << 52),
        ] {
            assert!(needs_break(old, new, Level::Two), "{old:#x} to {new:#x}");
            assert!(needs_invalidation(old, new, Level::Two));
        }
    }

    #[test]
    fn what_does_not() {
        let ram = leaf(0x4000_0000, Use::Ram, Format::Combined);
        let table = table_entry(Pa::new(0x5000_0000));
        let read_only = with_permissions(ram, Permissions::READ, false);
        for (old, new, invalidation) in [
            (0, ram, false),
            (0, table, false),
            (ram & !VALID, ram, false),
            (ram, ram, false),
            (ram, 0, true),
            (table, 0, true),
            (ram, read_only, true),
            (read_only, ram, true),
            (ram, aged(ram), true),
            (ram, logged(ram), true),
            (logged(ram), ram, true),
            (ram, with_usage(ram, Use::CopyOnWrite, false), true),
            (table, table, false),
            // No TLB holds a leaf whose access flag is 0.
            (aged(ram), ram, false),
            (aged(ram), 0, false),
        ] {
            assert!(!needs_break(old, new, Level::Two), "{old:#x} to {new:#x}");
            assert_eq!(needs_invalidation(old, new, Level::Two), invalidation, "{old:#x} to {new:#x}");
        }
    }
}
