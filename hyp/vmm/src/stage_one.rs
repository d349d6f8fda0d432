//! A guest's stage 1, walked by its own tables, for what EL2 isn't told of a fault: at which level of the walk it was.
//!
//! A fault in stage 2 on the access to a table (S1PTW) has the level of stage 2 in its syndrome. Which of the guest's tables it was
//! follows from the page that HPFAR_EL2 names. Arm ARM D8.2.

use crate::inject::external_abort;
use crate::layout::Ipa;

/// What PAR_EL1 says behind an `AT` of stage 1 for `address`: where that is, or the status of the fault (DFSC) that an access would
/// take. A fault in stage 2 on the way is an external abort on a walk, of the last level, for its own isn't told.
pub const fn translated(par: u64, address: u64) -> Result<Ipa, u8> {
    const F: u64 = 1;
    const S: u64 = 1 << 9;
    if par & F == 0 {
        return Ok(Ipa::new(par & ones(52) & !ones(12) | address & ones(12)));
    }
    if par & S != 0 {
        return Err(external_abort(Some(3)));
    }
    Err((par >> 1) as u8 & 0x3f)
}

/// Levels that a walk has at most: those of tables from level 0 on. Guests aren't shown the larger addresses that start at -1.
const LAST_LEVEL: u32 = 3;

/// log2 of the bytes of a descriptor.
const DESCRIPTOR: u32 = 3;

/// The registers that a walk of EL1&0 starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageOne {
    /// TCR_EL1.
    pub tcr: u64,
    /// TTBR0_EL1 and TTBR1_EL1.
    pub ttbr: [u64; 2],
    /// SCTLR_EL1.EE: descriptors are big-endian.
    pub big_endian: bool,
}

/// One of its two halves: that of the lower, or of the upper addresses.
struct Half {
    /// log2 of the bytes of a page.
    granule: u32,
    /// The level that its walks start at.
    start: u32,
    /// Bits of an address that the first table translates.
    index_bits: u32,
    /// The first table.
    table: u64,
}

impl StageOne {
    /// The level of the walk for `address` whose descriptor is in `page`, the 4 KiB around an IPA. `read` reads a descriptor, of 64
    /// bits. `None`: the tables don't go there, as they are now, or it can't be told. Reads four descriptors at most.
    pub fn level_in_page(
        &self,
        address: u64,
        page: Ipa,
        mut read: impl FnMut(Ipa) -> Option<u64>,
    ) -> Option<u8> {
        const PAGE: u32 = 12;
        let Half { granule, start, mut index_bits, mut table } = self.half(address)?;
        let stride = stride(granule);
        for level in start..=LAST_LEVEL {
            let below = granule.wrapping_add(LAST_LEVEL.wrapping_sub(level).wrapping_mul(stride));
            let index = address.wrapping_shr(below) & ones(index_bits);
            let at = table.wrapping_add(index << DESCRIPTOR);
            if at >> PAGE == page.as_u64() >> PAGE {
                return Some(level as u8);
            }
            let descriptor = read(Ipa::new(at))?;
            let descriptor = if self.big_endian { descriptor.swap_bytes() } else { descriptor };
            if descriptor & 0b11 != 0b11 {
                return None;
            }
            table = descriptor & ones(48) & !ones(granule);
            index_bits = stride;
        }
        None
    }

    /// The half that an address is in, by its bit 55, which counts with and without tags.
    fn half(&self, address: u64) -> Option<Half> {
        let upper = address >> 55 & 1 != 0;
        let [lower_table, upper_table] = self.ttbr;
        // TG0 and TG1 have their own encodings, T0SZ and T1SZ are alike.
        let (ttbr, size, granule) = match upper {
            false => (lower_table, self.tcr, [12, 16, 14, 0].get((self.tcr >> 14 & 3) as usize).copied()?),
            true => {
                (upper_table, self.tcr >> 16, [0, 14, 12, 16].get((self.tcr >> 30 & 3) as usize).copied()?)
            }
        };
        let input = 64u32.wrapping_sub((size & 0x3f) as u32);
        // What the CPU makes of sizes that aren't allowed, it alone knows.
        if granule == 0 || input > 48 {
            return None;
        }
        let translated = input.checked_sub(granule).filter(|bits| *bits > 0)?;
        // As many levels as it takes; a division would have to be told that it isn't by zero.
        let stride = stride(granule);
        let below_first = (0..=LAST_LEVEL).find(|n| translated <= n.wrapping_add(1).wrapping_mul(stride))?;
        let start = LAST_LEVEL.wrapping_sub(below_first);
        let index_bits = translated.wrapping_sub(below_first.wrapping_mul(stride));
        // The base is aligned to the size of the first table; what is below is CnP and reserved.
        let table = ttbr & ones(48) & !ones(index_bits.wrapping_add(DESCRIPTOR));
        Some(Half { granule, start, index_bits, table })
    }
}

/// Bits of an address that a whole table translates.
const fn stride(granule: u32) -> u32 {
    granule.wrapping_sub(DESCRIPTOR)
}

/// So many bits set, below 64.
const fn ones(bits: u32) -> u64 {
    1u64.wrapping_shl(bits).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    /// Tables for one address, made from the top down by taking the address apart, with each table in a page of its own.
    struct Tables {
        memory: BTreeMap<u64, u64>,
        /// Level, and where its descriptor is.
        visited: Vec<(u8, u64)>,
        regime: StageOne,
    }

    /// TG0, TG1 and bits that a whole table translates, by log2 of the granule.
    fn encoding(granule: u32) -> (u64, u64, u32) {
        match granule {
            12 => (0, 2, 9),
            14 => (2, 1, 11),
            _ => (1, 3, 13),
        }
    }

    fn tables(granule: u32, size: u64, address: u64, big_endian: bool) -> Tables {
        let (tg0, tg1, stride) = encoding(granule);
        let upper = address >> 55 & 1 == 1;
        // Bits of the address by level, the lowest level first, as in the tables of D8.2.
        let mut left = 64 - size as u32 - granule;
        let mut shift = granule;
        let mut fields = Vec::new();
        while left > 0 {
            let bits = left.min(stride);
            fields.push(address >> shift & ((1 << bits) - 1));
            shift += bits;
            left -= bits;
        }
        let mut memory = BTreeMap::new();
        let mut visited = Vec::new();
        let first = 0x4000_0000;
        let mut table = first;
        let depth = fields.len();
        for (n, index) in fields.iter().rev().enumerate() {
            let level = 4 - depth + n;
            let at = table + index * 8;
            visited.push((level as u8, at));
            table += 1 << 20;
            // Attributes above and below the address, too.
            let descriptor = table | 0b11 | 1 << 59 | 1 << 53;
            memory.insert(at, if big_endian { descriptor.swap_bytes() } else { descriptor });
        }
        let tcr = if upper { size << 16 | tg1 << 30 } else { size | tg0 << 14 };
        let asid_and_cnp = 0xabcd << 48 | 1;
        let ttbr = if upper { [0, first | asid_and_cnp] } else { [first | asid_and_cnp, 0] };
        Tables { memory, visited, regime: StageOne { tcr, ttbr, big_endian } }
    }

    proptest! {
        #[test]
        fn each_level_is_found_by_its_page(
            granule in prop::sample::select(std::vec![12_u32, 14, 16]),
            size in 16_u64..=39,
            address in any::<u64>(),
            big_endian in any::<bool>(),
        ) {
            let Tables { memory, visited, regime } = tables(granule, size, address, big_endian);
            for &(level, at) in &visited {
                let page = Ipa::new(at & !0xfff | 0x123);
                let mut reads = 0;
                let found = regime.level_in_page(address, page, |ipa| {
                    reads += 1;
                    memory.get(&ipa.as_u64()).copied()
                });
                prop_assert_eq!(found, Some(level));
                prop_assert!(reads < 4);
            }
            let elsewhere = Ipa::new(0x1_0000_0000);
            prop_assert_eq!(regime.level_in_page(address, elsewhere, |ipa| memory.get(&ipa.as_u64()).copied()), None);
        }

        #[test]
        fn nothing_makes_it_fail(tcr: u64, ttbr: [u64; 2], address: u64, page: u64, word: u64) {
            let mut reads = 0;
            let regime = StageOne { tcr, ttbr, big_endian: false };
            let _ = regime.level_in_page(address, Ipa::new(page), |_| {
                reads += 1;
                Some(word)
            });
            prop_assert!(reads <= 4);
        }
    }

    #[test]
    fn a_translation_is_an_address_or_a_fault() {
        assert_eq!(translated(0xff00_0009_0000_0b80, 0x4012_3456), Ok(Ipa::new(0x9_0000_0456)));
        // A translation fault of level 2; one of stage 2's.
        assert_eq!(translated(0x06 << 1 | 1, 0x1000), Err(0x06));
        assert_eq!(translated(0x07 << 1 | 1 | 1 << 9 | 1 << 8, 0x1000), Err(0x17));
    }

    #[test]
    fn a_block_and_a_hole_end_the_walk() {
        let regime = StageOne { tcr: 25, ttbr: [0x4000_0000, 0], big_endian: false };
        for descriptor in [0x8000_0001, 0] {
            assert_eq!(regime.level_in_page(0, Ipa::new(0x8000_0000), |_| Some(descriptor)), None);
        }
        assert_eq!(regime.level_in_page(0, Ipa::new(0x8000_0000), |_| Some(0x8000_0003)), Some(2));
    }
}
