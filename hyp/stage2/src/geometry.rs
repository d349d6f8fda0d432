//! The shape of a VM's tables, chosen from the sizes of its intermediate physical space and of the machine's physical
//! one, and the values of VTCR_EL2 and VTTBR_EL2 that tell the hardware (Arm ARM D8.2, D24.2).

use crate::addr::{ADDRESS_BITS, Ipa, PAGE_SHIFT, Pa};
use crate::error::Error;
use crate::vm::VmId;

/// log2 of the number of descriptors in a table.
pub(crate) const INDEX_BITS: u32 = 9;
/// Descriptors in a table.
pub(crate) const ENTRIES: u64 = 1 << INDEX_BITS;

/// A level of the tables, named by what an entry of it spans. Level -1 needs FEAT_LPA2, which is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Level 0: an entry spans 512 GiB and always points to a table.
    Zero,
    /// Level 1: an entry spans 1 GiB.
    One,
    /// Level 2: an entry spans 2 MiB.
    Two,
    /// Level 3: an entry spans 4 KiB and is always a page.
    Three,
}

impl Level {
    /// The level's number, 0 to 3, as the TTL hint of TLB maintenance has it.
    pub const fn number(self) -> u8 {
        match self {
            Self::Zero => 0,
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }

    /// log2 of what an entry spans.
    pub const fn shift(self) -> u32 {
        match self {
            Self::Zero => 39,
            Self::One => 30,
            Self::Two => 21,
            Self::Three => PAGE_SHIFT,
        }
    }

    /// What an entry spans, in bytes.
    pub const fn span(self) -> u64 {
        1u64.wrapping_shl(self.shift())
    }

    /// The level that a table entry of this one leads to.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Zero => Some(Self::One),
            Self::One => Some(Self::Two),
            Self::Two => Some(Self::Three),
            Self::Three => None,
        }
    }

    /// Whether an entry of this level may map memory itself: a block, or a page at level 3.
    pub const fn has_leaves(self) -> bool {
        !matches!(self, Self::Zero)
    }
}

/// The physical address size in bits that ID_AA64MMFR0_EL1.PARange stands for, cut to the 48 bits that descriptors
/// hold. Encodings newer than this table mean more than 48 bits.
pub const fn pa_bits(parange: u64) -> u8 {
    match parange & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => ADDRESS_BITS,
    }
}

/// The shape of one VM's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    ipa_bits: u8,
    pa_bits: u8,
    physical_size: u8,
    start: Level,
    start_tables: usize,
}

impl Geometry {
    /// The shape for `ipa_bits` (32 to 48) of intermediate physical address on a machine with `pa_bits` of physical
    /// address, as [`pa_bits`] gives them.
    ///
    /// Tables start at level 1 up to 43 bits, with up to 16 of them side by side, and at level 0 above: the fewest
    /// levels that still allow 1 GiB blocks.
    ///
    /// # Errors
    /// [`Error::PaSize`] for a `pa_bits` that VTCR_EL2.PS cannot express; [`Error::IpaSize`] for `ipa_bits` out of range
    /// or above `pa_bits`, which the architecture does not allow (D8.2).
    pub const fn new(ipa_bits: u8, pa_bits: u8) -> Result<Self, Error> {
        let physical_size = match pa_bits {
            32 => 0,
            36 => 1,
            40 => 2,
            42 => 3,
            44 => 4,
            48 => 5,
            _ => return Err(Error::PaSize { bits: pa_bits }),
        };
        if ipa_bits < 32 || ipa_bits > ADDRESS_BITS || ipa_bits > pa_bits {
            return Err(Error::IpaSize { bits: ipa_bits, pa_bits });
        }
        let (start, start_tables) = match ipa_bits {
            32..=39 => (Level::One, 1),
            40 => (Level::One, 2),
            41 => (Level::One, 4),
            42 => (Level::One, 8),
            43 => (Level::One, 16),
            _ => (Level::Zero, 1),
        };
        Ok(Self { ipa_bits, pa_bits, physical_size, start, start_tables })
    }

    /// Bits of an intermediate physical address.
    pub const fn ipa_bits(self) -> u8 {
        self.ipa_bits
    }

    /// Bits of a physical address.
    pub const fn pa_bits(self) -> u8 {
        self.pa_bits
    }

    /// The first intermediate physical address that the tables cannot translate.
    pub const fn ipa_end(self) -> Ipa {
        Ipa::new(1u64.wrapping_shl(self.ipa_bits as u32))
    }

    /// The first physical address that the machine cannot reach.
    pub const fn pa_end(self) -> Pa {
        Pa::new(1u64.wrapping_shl(self.pa_bits as u32))
    }

    /// The level at which a walk starts.
    pub const fn start_level(self) -> Level {
        self.start
    }

    /// How many tables lie side by side at the start level: 1, 2, 4, 8 or 16. Their base is aligned to their size.
    pub const fn start_tables(self) -> usize {
        self.start_tables
    }

    /// The fields of VTCR_EL2.
    pub const fn vtcr(self) -> Vtcr {
        let sl0 = match self.start {
            Level::Zero => 2,
            Level::One => 1,
            Level::Two | Level::Three => 0,
        };
        Vtcr { t0sz: 64u8.wrapping_sub(self.ipa_bits), sl0, ps: self.physical_size }
    }
}

/// The fields of VTCR_EL2 that depend on the VM and the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vtcr {
    /// T0SZ, bits 5:0: 64 less the bits of an intermediate physical address.
    pub t0sz: u8,
    /// SL0, bits 7:6: where the walk starts; for the 4 KiB granule 2 is level 0 and 1 is level 1.
    pub sl0: u8,
    /// PS, bits 18:16: the physical address size.
    pub ps: u8,
}

impl Vtcr {
    /// The whole register, every other field set for a reason:
    /// IRGN0 and ORGN0 (bits 9:8, 11:10) are 1 and SH0 (13:12) is 3, because tables are written through EL2's
    /// Normal write-back, inner shareable map; TG0 (15:14) is 0, 4 KiB; VS (19) is 0, since slots fit 8-bit VMIDs; HA and
    /// HD (21, 22) are 0, since every entry has its access flag set when it is made; bit 31 is RES1; DS and SL2 (32, 33)
    /// are 0, no FEAT_LPA2.
    pub const fn bits(self) -> u64 {
        const IRGN0_WRITE_BACK: u64 = 1 << 8;
        const ORGN0_WRITE_BACK: u64 = 1 << 10;
        const SH0_INNER: u64 = 3 << 12;
        const RES1: u64 = 1 << 31;
        (self.t0sz as u64 & 0x3f)
            | (self.sl0 as u64 & 3) << 6
            | IRGN0_WRITE_BACK
            | ORGN0_WRITE_BACK
            | SH0_INNER
            | (self.ps as u64 & 7) << 16
            | RES1
    }
}

/// VTTBR_EL2 for start tables at `base` and the VM `vm`: VMID in bits 63:48, BADDR below, CnP (bit 0) 0, since CPUs may
/// run different VMs at a time. `base` is aligned to the size of the start tables.
pub const fn vttbr(base: Pa, vm: VmId) -> u64 {
    (vm.vmid() as u64) << 48 | base.as_u64() & 0xffff_ffff_f000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_level_and_tables_by_size() {
        for (bits, level, tables) in [
            (32, Level::One, 1),
            (36, Level::One, 1),
            (39, Level::One, 1),
            (40, Level::One, 2),
            (41, Level::One, 4),
            (42, Level::One, 8),
            (43, Level::One, 16),
            (44, Level::Zero, 1),
            (48, Level::Zero, 1),
        ] {
            let geometry = Geometry::new(bits, 48).unwrap();
            assert_eq!((geometry.start_level(), geometry.start_tables()), (level, tables), "{bits} bits");
            let reach = level.span() * ENTRIES * tables as u64;
            assert!(reach >= geometry.ipa_end().as_u64(), "{bits} bits need {reach:#x}");
        }
    }

    #[test]
    fn vtcr_of_a_cortex_a53() {
        // 40 bits each: T0SZ 24, SL0 1, PS 2.
        let vtcr = Geometry::new(40, pa_bits(2)).unwrap().vtcr();
        assert_eq!(vtcr, Vtcr { t0sz: 24, sl0: 1, ps: 2 });
        assert_eq!(vtcr.bits(), 0x8002_3558);
    }

    #[test]
    fn vtcr_starts_at_level_0_from_44_bits() {
        assert_eq!(Geometry::new(44, 44).unwrap().vtcr(), Vtcr { t0sz: 20, sl0: 2, ps: 4 });
        assert_eq!(Geometry::new(48, 48).unwrap().vtcr().bits(), 0x8005_3590);
    }

    /// Arm ARM, VTCR_EL2.PS: the encodings are those of PARange.
    #[test]
    fn vtcr_has_the_physical_size_that_the_cpu_has() {
        for parange in 0..6 {
            let bits = pa_bits(parange);
            let vtcr = Geometry::new(32, bits).unwrap().vtcr();
            assert_eq!(vtcr, Vtcr { t0sz: 32, sl0: 1, ps: parange as u8 }, "{bits} bits");
        }
    }

    #[test]
    fn sizes_out_of_range() {
        assert_eq!(Geometry::new(31, 48), Err(Error::IpaSize { bits: 31, pa_bits: 48 }));
        assert_eq!(Geometry::new(49, 48), Err(Error::IpaSize { bits: 49, pa_bits: 48 }));
        assert_eq!(Geometry::new(44, 40), Err(Error::IpaSize { bits: 44, pa_bits: 40 }));
        assert_eq!(Geometry::new(40, 52), Err(Error::PaSize { bits: 52 }));
    }

    #[test]
    fn parange_beyond_48_bits_is_cut() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7, 15].map(pa_bits), [32, 36, 40, 42, 44, 48, 48, 48, 48]);
    }

    #[test]
    fn levels_have_the_numbers_and_spans_of_the_architecture() {
        let levels = [Level::Zero, Level::One, Level::Two, Level::Three];
        assert_eq!(levels.map(Level::number), [0, 1, 2, 3]);
        assert_eq!(levels.map(Level::has_leaves), [false, true, true, true]);
        assert_eq!(levels.map(Level::span), [512 << 30, 1 << 30, 2 << 20, 4 << 10]);
    }

    #[test]
    fn vttbr_holds_base_and_vmid() {
        assert_eq!(vttbr(Pa::new(0x4_8000_2000), VmId::new(4).unwrap()), 0x0005_0004_8000_2000);
    }
}
