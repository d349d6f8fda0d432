//! Operands of TLB invalidation by address: `TLBI IPAS2(L)E1IS` for one, `TLBI RIPAS2(L)E1IS` (FEAT_TLBIRANGE) for a
//! range, and the level hint that goes with them (Arm ARM C5.5). Arithmetic alone; whoever has the instructions chooses.

use crate::addr::{Ipa, PAGE_SHIFT};
use crate::environment::Invalidation;
use crate::geometry::Level;

/// TG, bits 47:46 of a range's operand, and bits 47:46 of a TTL of four bits: the 4 KiB granule.
const GRANULE_4K: u64 = 1 << 46;
/// The most that NUM, 5 bits, adds to one unit.
const NUM_MAX: u64 = 31;
/// The largest SCALE.
const SCALE_MAX: u8 = 3;

/// The addresses of one range invalidation: `num + 1` units of 2^(5 * `scale` + 1) pages from `base` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbiRange {
    /// The first address, a multiple of a page.
    pub base: Ipa,
    /// SCALE, 0 to 3.
    pub scale: u8,
    /// NUM, 0 to 31.
    pub num: u8,
}

impl TlbiRange {
    /// log2 of the bytes in a unit of `scale`.
    const fn unit_shift(scale: u8) -> u32 {
        (scale as u32).wrapping_mul(5).wrapping_add(1).wrapping_add(PAGE_SHIFT)
    }

    /// Bytes that it reaches, at most 8 GiB.
    pub const fn size(self) -> u64 {
        (self.num as u64).wrapping_add(1).wrapping_shl(Self::unit_shift(self.scale))
    }

    /// The operand of `TLBI RIPAS2E1IS` or `RIPAS2LE1IS`: TG (47:46) 4 KiB, SCALE (45:44), NUM (43:39), TTL (38:37) 0, since
    /// the entries may be of several levels, BaseADDR (36:0) in pages.
    pub const fn operand(self) -> u64 {
        GRANULE_4K
            | (self.scale as u64 & 3) << 44
            | (self.num as u64 & NUM_MAX) << 39
            | self.base.page_number() & 0x1f_ffff_ffff
    }
}

/// The range invalidations that reach all that `what` names, side by side and none of it twice; or `None` where that takes
/// more than [`Invalidation::MANY`], and to drop all of the VM's entries is better.
///
/// An odd number of pages is rounded up, for a unit has at least two: the page behind may lose its entries too.
pub fn ranges(what: Invalidation) -> Option<impl Iterator<Item = TlbiRange>> {
    // The largest scale takes the most, each smaller one 31 units at the most; so none of them needs a second range.
    const LARGEST: u64 = (NUM_MAX + 1) << TlbiRange::unit_shift(SCALE_MAX);
    const REST: u64 = SCALE_MAX as u64;
    let smallest = 1u64.wrapping_shl(TlbiRange::unit_shift(0));
    let mut left = what.size.checked_next_multiple_of(smallest)?;
    if left.div_ceil(LARGEST).saturating_add(REST) > Invalidation::MANY {
        return None;
    }
    let mut base = what.ipa.page();
    let mut scale = SCALE_MAX;
    Some(core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        // The last unit that fits is at scale 0 at the latest: what is left is a multiple of its units.
        let mut units = left.wrapping_shr(TlbiRange::unit_shift(scale));
        while units == 0 && scale > 0 {
            scale = scale.saturating_sub(1);
            units = left.wrapping_shr(TlbiRange::unit_shift(scale));
        }
        let num = units.min(NUM_MAX.wrapping_add(1)).wrapping_sub(1);
        let range = TlbiRange { base, scale, num: num as u8 };
        left = left.saturating_sub(range.size());
        base = Ipa::new(base.as_u64().wrapping_add(range.size()));
        Some(range)
    }))
}

/// The operand of `TLBI IPAS2E1IS` or `IPAS2LE1IS` for the entry at `ipa`: its page in bits 35:0 and, with FEAT_TTL, the
/// level that holds the leaf in bits 47:44 ([`leaf_level`]). A wrong level would leave the entry; none is always right.
pub const fn operand(ipa: Ipa, level: Option<Level>) -> u64 {
    let hint = match level {
        Some(level) => GRANULE_4K | (level.number() as u64) << 44,
        None => 0,
    };
    hint | ipa.page_number() & 0xf_ffff_ffff
}

/// The level of the leaves that `what` names, where that is known: a single entry, and no table above it. A stretch of
/// several may have larger ones among them, for `stride` is the smallest's.
pub fn leaf_level(what: Invalidation) -> Option<Level> {
    if what.tables || what.size != what.stride {
        return None;
    }
    [Level::One, Level::Two, Level::Three].into_iter().find(|level| level.span() == what.stride)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::PAGE_SIZE;

    fn stretch(ipa: u64, size: u64, stride: u64) -> Invalidation {
        Invalidation { ipa: Ipa::new(ipa), size, stride, tables: false }
    }

    fn of(ipa: u64, size: u64) -> Vec<TlbiRange> {
        ranges(stretch(ipa, size, PAGE_SIZE)).expect("few enough").collect()
    }

    #[test]
    fn sizes_of_each_scale() {
        let size = |scale, num| TlbiRange { base: Ipa::new(0), scale, num }.size();
        assert_eq!([0, 1, 2, 3].map(|scale| size(scale, 0)), [8 << 10, 256 << 10, 8 << 20, 256 << 20]);
        assert_eq!(size(3, 31), 8 << 30);
    }

    #[test]
    fn ranges_that_are_one_unit_or_two() {
        let range = |base, scale, num| TlbiRange { base: Ipa::new(base), scale, num };
        assert_eq!(of(0x4000_0000, 0x1000), [range(0x4000_0000, 0, 0)]);
        assert_eq!(of(0x4000_1000, 0x3000), [range(0x4000_1000, 0, 1)]);
        assert_eq!(of(0x4000_0000, 2 << 20), [range(0x4000_0000, 1, 7)]);
        assert_eq!(of(0x4000_0000, 1 << 30), [range(0x4000_0000, 3, 3)]);
        assert_eq!(of(0, 16 << 30), [range(0, 3, 31), range(8 << 30, 3, 31)]);
        assert_eq!(of(0, 260 << 10), [range(0, 1, 0), range(256 << 10, 0, 0)]);
        assert!(of(0, 0).is_empty());
    }

    #[test]
    fn what_takes_too_many_is_refused() {
        let most = (Invalidation::MANY - 3) * (8 << 30);
        assert_eq!(of(0, most).len() as u64, Invalidation::MANY - 3);
        assert!(ranges(stretch(0, most + PAGE_SIZE, PAGE_SIZE)).is_none());
        assert!(ranges(stretch(0, !0xfff, PAGE_SIZE)).is_none());
    }

    #[test]
    fn operands_bit_by_bit() {
        let range = TlbiRange { base: Ipa::new(0x1_4000_3000), scale: 2, num: 5 };
        assert_eq!(range.operand(), 1 << 46 | 2 << 44 | 5 << 39 | 0x14_0003);
        assert_eq!(operand(Ipa::new(0x4000_3abc), None), 0x4_0003);
        assert_eq!(operand(Ipa::new(0x4000_3000), Some(Level::Three)), 0b0111 << 44 | 0x4_0003);
        assert_eq!(operand(Ipa::new(0xffff_ffe0_0000), Some(Level::Two)), 0b0110 << 44 | 0xf_ffff_fe00);
    }

    #[test]
    fn a_hint_for_single_leaves_alone() {
        for level in [Level::One, Level::Two, Level::Three] {
            assert_eq!(leaf_level(stretch(0, level.span(), level.span())), Some(level));
            assert_eq!(leaf_level(stretch(0, 2 * level.span(), level.span())), None);
            let table = Invalidation { tables: true, ..stretch(0, level.span(), level.span()) };
            assert_eq!(leaf_level(table), None);
        }
        assert_eq!(leaf_level(stretch(0, Level::Zero.span(), Level::Zero.span())), None);
    }

    proptest! {
        /// Side by side from the first address to the end, or one page further, and as few as the bound says.
        #[test]
        fn all_that_was_asked_and_at_most_a_page_more(
            page in 0u64..1 << 36,
            pages in prop_oneof![1u64..70, 1u64..5000, 1u64..1 << 27],
        ) {
            let (from, size) = (page * PAGE_SIZE, pages * PAGE_SIZE);
            let Some(found) = ranges(stretch(from, size, PAGE_SIZE)) else {
                prop_assert!(size > (Invalidation::MANY - 3) * (8 << 30));
                return Ok(());
            };
            let (mut at, mut count) = (from, 0);
            for range in found {
                prop_assert_eq!(range.base.as_u64(), at);
                prop_assert!(range.scale <= 3 && range.num <= 31);
                at += range.size();
                count += 1;
            }
            prop_assert!(at == from + size || at == from + size + PAGE_SIZE && pages % 2 == 1);
            prop_assert!(count <= Invalidation::MANY);
        }
    }
}
