//! The ID registers that guests see: of each, only the fields that are known here and that guests are really given
//! (Arm ARM D24.2, `ID_*_EL1`).
//!
//! A field that is not in the table reads as zero, which means "not there" for all of them: so a CPU that is newer than
//! this table shows its guests nothing that EL2 doesn't handle.

use crate::esr::Sysreg;

/// How many ID registers there are: CRm 1 to 7 of op0 = 3, op1 = 0, CRn = 0, eight each, and the unused CRm 0.
pub const COUNT: usize = 64;

/// The values of all ID registers, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdRegisters {
    values: [u64; COUNT],
}

/// The index of an ID register (op0 = 3, op1 = 0, CRn = 0), or `None` for MIDR_EL1 and what else has CRm = 0 or lies
/// beyond CRm = 7.
#[inline]
pub const fn index(register: Sysreg) -> Option<u8> {
    let (_, _, _, crm, op2) = register.fields();
    match crm {
        1..=7 => Some(crm << 3 | op2),
        _ => None,
    }
}

/// Which interrupt controller guests have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicInterface {
    /// In memory, GICv2.
    Memory,
    /// In system registers, GICv3.
    SystemRegisters,
}

impl IdRegisters {
    /// From the CPU's own: `read` gives the value of the register of an index.
    pub fn read(mut read: impl FnMut(u8) -> u64) -> Self {
        let mut values = [0; COUNT];
        for (index, value) in (0u8..).zip(values.iter_mut()) {
            if index >= 8 {
                *value = read(index);
            }
        }
        Self { values }
    }

    /// The value of a register.
    #[inline]
    pub fn get(&self, index: u8) -> u64 {
        self.values.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// What guests see of a CPU with these values and this MIDR_EL1.
    pub fn for_guests(&self, gic: GicInterface, midr: u64) -> Self {
        let mut guest = Self { values: [0; COUNT] };
        let has_aarch32 = self.get(PFR0) & 0xf == 2;
        for row in TABLE.iter().filter(|row| has_aarch32 || row.register >= PFR0) {
            let host = self.get(row.register) >> row.shift & 0xf;
            let field = row.rule.apply(host, gic) << row.shift;
            if let Some(value) = guest.values.get_mut(usize::from(row.register)) {
                *value |= field;
            }
        }
        if miscomputes_aes(midr)
            && let Some(value) = guest.values.get_mut(usize::from(ID_ISAR5))
        {
            *value &= !(0xf << ISAR5_AES);
        }
        guest
    }
}

/// Whether an interrupt between two of AArch32's AES instructions can spoil what they compute: Cortex-A57 from r0p1 on
/// (erratum 1742098) and all of Cortex-A72 (1655431). Programs have other ways to the same end where AES isn't there.
const fn miscomputes_aes(midr: u64) -> bool {
    // Implementer and part number; the architecture field between them is 0xf in both.
    const MODEL: u64 = 0xff0f_fff0;
    const CORTEX_A57: u64 = 0x410f_d070;
    const CORTEX_A72: u64 = 0x410f_d080;
    let variant_and_revision = midr >> 16 & 0xf0 | midr & 0xf;
    match midr & MODEL {
        CORTEX_A57 => variant_and_revision >= 0x01,
        CORTEX_A72 => true,
        _ => false,
    }
}

/// What becomes of a four-bit field.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// Shown as it is.
    Keep,
    /// Shown, but no higher than this: a higher value stands for more than guests are given.
    AtMost(u8),
    /// A signed field, where 0xf means "not there": shown as it is, but no higher than this.
    SignedAtMost(u8),
    /// Always this.
    Is(u8),
    /// ID_AA64PFR0_EL1.GIC.
    Gic,
}

impl Rule {
    fn apply(self, host: u64, gic: GicInterface) -> u64 {
        match self {
            Self::Keep => host,
            Self::AtMost(most) => host.min(u64::from(most)),
            Self::SignedAtMost(most) if host < 8 => host.min(u64::from(most)),
            Self::SignedAtMost(_) => host,
            Self::Is(value) => u64::from(value),
            Self::Gic => u64::from(gic == GicInterface::SystemRegisters),
        }
    }
}

struct Row {
    register: u8,
    shift: u8,
    rule: Rule,
}

const fn row(register: u8, shift: u8, rule: Rule) -> Row {
    Row { register, shift, rule }
}

const fn number(crm: u8, op2: u8) -> u8 {
    crm << 3 | op2
}

const ID_PFR0: u8 = number(1, 0);
const ID_PFR1: u8 = number(1, 1);
const ID_DFR0: u8 = number(1, 2);
const ID_MMFR0: u8 = number(1, 4);
const ID_MMFR1: u8 = number(1, 5);
const ID_MMFR2: u8 = number(1, 6);
const ID_MMFR3: u8 = number(1, 7);
const ID_ISAR0: u8 = number(2, 0);
const ID_ISAR1: u8 = number(2, 1);
const ID_ISAR2: u8 = number(2, 2);
const ID_ISAR3: u8 = number(2, 3);
const ID_ISAR4: u8 = number(2, 4);
const ID_ISAR5: u8 = number(2, 5);
/// The position of ID_ISAR5_EL1.AES.
const ISAR5_AES: u32 = 4;
const ID_MMFR4: u8 = number(2, 6);
const ID_ISAR6: u8 = number(2, 7);
const MVFR0: u8 = number(3, 0);
const MVFR1: u8 = number(3, 1);
const MVFR2: u8 = number(3, 2);
const ID_PFR2: u8 = number(3, 4);
const PFR0: u8 = number(4, 0);
const PFR1: u8 = number(4, 1);
const DFR0: u8 = number(5, 0);
const ISAR0: u8 = number(6, 0);
const ISAR1: u8 = number(6, 1);
const ISAR2: u8 = number(6, 2);
/// The index of ID_AA64MMFR0_EL1.
pub const MMFR0: u8 = number(7, 0);
const MMFR1: u8 = number(7, 1);
const MMFR2: u8 = number(7, 2);

use Rule::{AtMost, Gic, Is, Keep, SignedAtMost};

/// The fields that guests see; all others are zero. By register, then by position.
#[rustfmt::skip]
static TABLE: &[Row] = &[
    // AArch32, where the CPU has it at EL0 (ID_AA64PFR0_EL1.EL0 = 2).
    row(ID_PFR0, 0, Keep), row(ID_PFR0, 4, Keep), row(ID_PFR0, 8, Keep), row(ID_PFR0, 12, Keep),
    row(ID_PFR0, 16, AtMost(1)),   // CSV2
    row(ID_PFR0, 24, Keep),        // DIT
    row(ID_PFR1, 0, Keep), row(ID_PFR1, 16, Keep),
    row(ID_PFR1, 28, Gic),
    row(ID_DFR0, 0, Keep), row(ID_DFR0, 8, Keep),
    row(ID_MMFR0, 0, Keep), row(ID_MMFR0, 4, Keep), row(ID_MMFR0, 8, Keep), row(ID_MMFR0, 12, Keep),
    row(ID_MMFR0, 16, Keep), row(ID_MMFR0, 20, Keep), row(ID_MMFR0, 24, Keep), row(ID_MMFR0, 28, Keep),
    row(ID_MMFR1, 0, Keep), row(ID_MMFR1, 4, Keep), row(ID_MMFR1, 8, Keep), row(ID_MMFR1, 12, Keep),
    row(ID_MMFR1, 16, Keep), row(ID_MMFR1, 20, Keep), row(ID_MMFR1, 24, Keep), row(ID_MMFR1, 28, Keep),
    row(ID_MMFR2, 0, Keep), row(ID_MMFR2, 4, Keep), row(ID_MMFR2, 8, Keep), row(ID_MMFR2, 12, Keep),
    row(ID_MMFR2, 16, Keep), row(ID_MMFR2, 20, Keep), row(ID_MMFR2, 24, Keep), row(ID_MMFR2, 28, Keep),
    row(ID_MMFR3, 0, Keep), row(ID_MMFR3, 4, Keep), row(ID_MMFR3, 8, Keep), row(ID_MMFR3, 12, Keep),
    row(ID_MMFR3, 16, Keep), row(ID_MMFR3, 20, Keep), row(ID_MMFR3, 24, Keep), row(ID_MMFR3, 28, Keep),
    row(ID_MMFR4, 8, Keep), row(ID_MMFR4, 12, Keep), row(ID_MMFR4, 16, Keep), row(ID_MMFR4, 20, Keep),
    row(ID_ISAR0, 4, Keep), row(ID_ISAR0, 8, Keep), row(ID_ISAR0, 12, Keep), row(ID_ISAR0, 16, Keep),
    row(ID_ISAR0, 20, Keep), row(ID_ISAR0, 24, Keep),
    row(ID_ISAR1, 0, Keep), row(ID_ISAR1, 4, Keep), row(ID_ISAR1, 8, Keep), row(ID_ISAR1, 12, Keep),
    row(ID_ISAR1, 16, Keep), row(ID_ISAR1, 20, Keep), row(ID_ISAR1, 24, Keep), row(ID_ISAR1, 28, Keep),
    row(ID_ISAR2, 0, Keep), row(ID_ISAR2, 4, Keep), row(ID_ISAR2, 8, Keep), row(ID_ISAR2, 12, Keep),
    row(ID_ISAR2, 16, Keep), row(ID_ISAR2, 20, Keep), row(ID_ISAR2, 24, Keep), row(ID_ISAR2, 28, Keep),
    row(ID_ISAR3, 0, Keep), row(ID_ISAR3, 4, Keep), row(ID_ISAR3, 8, Keep), row(ID_ISAR3, 12, Keep),
    row(ID_ISAR3, 16, Keep), row(ID_ISAR3, 20, Keep), row(ID_ISAR3, 24, Keep), row(ID_ISAR3, 28, Keep),
    row(ID_ISAR4, 0, Keep), row(ID_ISAR4, 4, Keep), row(ID_ISAR4, 8, Keep), row(ID_ISAR4, 12, Keep),
    row(ID_ISAR4, 16, Keep), row(ID_ISAR4, 20, Keep), row(ID_ISAR4, 24, Keep), row(ID_ISAR4, 28, Keep),
    row(ID_ISAR5, 0, Keep), row(ID_ISAR5, 4, Keep), row(ID_ISAR5, 8, Keep), row(ID_ISAR5, 12, Keep),
    row(ID_ISAR5, 16, Keep), row(ID_ISAR5, 24, Keep), row(ID_ISAR5, 28, Keep),
    row(ID_ISAR6, 0, Keep), row(ID_ISAR6, 4, Keep), row(ID_ISAR6, 8, Keep), row(ID_ISAR6, 12, Keep),
    row(ID_ISAR6, 16, Keep), row(ID_ISAR6, 20, Keep), row(ID_ISAR6, 24, Keep),
    row(MVFR0, 0, Keep), row(MVFR0, 4, Keep), row(MVFR0, 8, Keep), row(MVFR0, 12, Keep),
    row(MVFR0, 16, Keep), row(MVFR0, 20, Keep), row(MVFR0, 24, Keep), row(MVFR0, 28, Keep),
    row(MVFR1, 0, Keep), row(MVFR1, 4, Keep), row(MVFR1, 8, Keep), row(MVFR1, 12, Keep),
    row(MVFR1, 16, Keep), row(MVFR1, 20, Keep), row(MVFR1, 24, Keep), row(MVFR1, 28, Keep),
    row(MVFR2, 0, Keep), row(MVFR2, 4, Keep),
    row(ID_PFR2, 0, Keep), row(ID_PFR2, 4, Keep),

    row(PFR0, 0, Keep),            // EL0: AArch32 too where the CPU has it
    row(PFR0, 4, Is(1)),           // EL1: AArch64 alone, as HCR_EL2.RW says
    row(PFR0, 16, SignedAtMost(1)), // FP
    row(PFR0, 20, SignedAtMost(1)), // AdvSIMD
    row(PFR0, 24, Gic),
    row(PFR0, 48, Keep),           // DIT
    row(PFR0, 56, AtMost(1)),      // CSV2, without SCXTNUM_ELx (CSV2_2), which isn't switched
    row(PFR0, 60, Keep),           // CSV3
    row(PFR1, 0, Keep),            // BT
    row(PFR1, 4, Keep),            // SSBS

    row(DFR0, 0, Keep),            // DebugVer
    row(DFR0, 12, Keep),           // BRPs
    row(DFR0, 20, Keep),           // WRPs
    row(DFR0, 28, Keep),           // CTX_CMPs
    row(DFR0, 36, Is(0xf)),        // DoubleLock: not there, as OSDLR_EL1 is ignored

    row(ISAR0, 4, Keep),           // AES
    row(ISAR0, 8, Keep),           // SHA1
    row(ISAR0, 12, Keep),          // SHA2
    row(ISAR0, 16, Keep),          // CRC32
    row(ISAR0, 20, Keep),          // Atomic
    row(ISAR0, 28, Keep),          // RDM
    row(ISAR0, 32, Keep),          // SHA3
    row(ISAR0, 36, Keep),          // SM3
    row(ISAR0, 40, Keep),          // SM4
    row(ISAR0, 44, Keep),          // DP
    row(ISAR0, 48, Keep),          // FHM
    row(ISAR0, 52, Keep),          // TS
    row(ISAR0, 56, Keep),          // TLB: outer shareable and range invalidation
    row(ISAR0, 60, Keep),          // RNDR
    row(ISAR1, 0, Keep),           // DPB
    row(ISAR1, 4, Keep),           // APA
    row(ISAR1, 8, Keep),           // API
    row(ISAR1, 12, Keep),          // JSCVT
    row(ISAR1, 16, Keep),          // FCMA
    row(ISAR1, 20, Keep),          // LRCPC
    row(ISAR1, 24, Keep),          // GPA
    row(ISAR1, 28, Keep),          // GPI
    row(ISAR1, 32, Keep),          // FRINTTS
    row(ISAR1, 36, Keep),          // SB
    row(ISAR1, 40, Keep),          // SPECRES
    row(ISAR1, 44, Keep),          // BF16
    row(ISAR1, 48, Keep),          // DGH
    row(ISAR1, 52, Keep),          // I8MM
    row(ISAR2, 4, Keep),           // RPRES
    row(ISAR2, 8, Keep),           // GPA3
    row(ISAR2, 12, Keep),          // APA3
    row(ISAR2, 20, Keep),          // BC
    row(ISAR2, 24, Keep),          // PAC_frac
    row(ISAR2, 28, Keep),          // CLRBHB
    row(ISAR2, 52, Keep),          // CSSC

    row(MMFR0, 0, AtMost(5)),      // PARange: up to 48 bits, as the 4 KiB granule without LPA2 has
    row(MMFR0, 4, Keep),           // ASIDBits
    row(MMFR0, 8, Keep),           // BigEnd
    row(MMFR0, 16, Keep),          // BigEndEL0
    row(MMFR0, 20, AtMost(1)),     // TGran16, without 52-bit addresses
    row(MMFR0, 24, SignedAtMost(0)), // TGran64
    row(MMFR0, 28, SignedAtMost(0)), // TGran4, likewise
    row(MMFR0, 44, Keep),          // ExS
    row(MMFR1, 0, AtMost(2)),      // HAFDBS, without table access flags (HAFT) and HDBSS
    row(MMFR1, 12, AtMost(2)),     // HPDS
    row(MMFR1, 20, Keep),          // PAN
    row(MMFR1, 24, Keep),          // SpecSEI
    row(MMFR1, 36, Keep),          // ETS
    row(MMFR1, 44, Keep),          // AFP
    row(MMFR1, 48, Keep),          // nTLBPA
    row(MMFR2, 0, Keep),           // CnP
    row(MMFR2, 4, Keep),           // UAO
    row(MMFR2, 8, Keep),           // LSM
    row(MMFR2, 16, AtMost(1)),     // VARange
    row(MMFR2, 20, Keep),          // CCIDX
    row(MMFR2, 28, Keep),          // ST
    row(MMFR2, 32, Keep),          // AT
    row(MMFR2, 48, Keep),          // TTL
    row(MMFR2, 52, Keep),          // BBM
    row(MMFR2, 60, Keep),          // E0PD
];

#[cfg(test)]
mod tests {
    use super::*;

    /// MIDR_EL1 of a CPU that nothing special is known of: Cortex-A53 r0p4.
    const OTHER_CPU: u64 = 0x410f_d034;

    fn host(values: &[(u8, u64)]) -> IdRegisters {
        IdRegisters::read(|index| {
            values.iter().find(|(register, _)| *register == index).map_or(0, |(_, value)| *value)
        })
    }

    #[test]
    fn a_cpu_with_everything_shows_no_feature_that_guests_lack() {
        let all = IdRegisters::read(|_| 0x7777_7777_7777_7777);
        let guest = all.for_guests(GicInterface::SystemRegisters, OTHER_CPU);
        let field = |register: u8, shift: u32| guest.get(register) >> shift & 0xf;
        for (name, register, shift) in [
            ("EL2", PFR0, 8),
            ("EL3", PFR0, 12),
            ("RAS", PFR0, 28),
            ("SVE", PFR0, 32),
            ("SEL2", PFR0, 36),
            ("MPAM", PFR0, 40),
            ("AMU", PFR0, 44),
            ("RME", PFR0, 52),
            ("MTE", PFR1, 8),
            ("RAS_frac", PFR1, 12),
            ("MPAM_frac", PFR1, 16),
            ("SME", PFR1, 24),
            ("NMI", PFR1, 36),
            ("GCS", PFR1, 44),
            ("TraceVer", DFR0, 4),
            ("PMUVer", DFR0, 8),
            ("PMSVer", DFR0, 32),
            ("TraceFilt", DFR0, 40),
            ("TraceBuffer", DFR0, 44),
            ("TME", ISAR0, 24),
            ("XS", ISAR1, 56),
            ("LS64", ISAR1, 60),
            ("WFxT", ISAR2, 0),
            ("MOPS", ISAR2, 16),
            ("FGT", MMFR0, 56),
            ("ECV", MMFR0, 60),
            ("VH", MMFR1, 8),
            ("LO", MMFR1, 16),
            ("TWED", MMFR1, 32),
            ("HCX", MMFR1, 40),
            ("NV", MMFR2, 24),
            ("IESB", MMFR2, 12),
            ("EVT", MMFR2, 56),
        ] {
            assert_eq!(field(register, shift), 0, "{name}");
        }
        for register in [number(4, 4), number(4, 5), number(7, 3), number(7, 4)] {
            assert_eq!(guest.get(register), 0, "ZFR0, SMFR0, MMFR3 and MMFR4 are not shown");
        }
    }

    #[test]
    fn what_guests_may_use_is_shown() {
        let isar0 = 0x0000_1111_0021_1120u64;
        let guest = host(&[(ISAR0, isar0), (PFR0, 0x11)]).for_guests(GicInterface::Memory, OTHER_CPU);
        assert_eq!(guest.get(ISAR0), isar0);
        assert_eq!(guest.get(PFR0), 0x11);
    }

    #[test]
    fn missing_floating_point_stays_missing() {
        let guest = host(&[(PFR0, 0xff_0011)]).for_guests(GicInterface::Memory, OTHER_CPU);
        assert_eq!(guest.get(PFR0) >> 16 & 0xff, 0xff);
    }

    #[test]
    fn the_gic_field_follows_the_guests_gic() {
        let host = host(&[(PFR0, 3 << 24 | 0x11)]);
        assert_eq!(host.for_guests(GicInterface::SystemRegisters, OTHER_CPU).get(PFR0) >> 24 & 0xf, 1);
        assert_eq!(host.for_guests(GicInterface::Memory, OTHER_CPU).get(PFR0) >> 24 & 0xf, 0);
    }

    #[test]
    fn aarch32_registers_read_as_zero_where_el0_has_no_aarch32() {
        let values = [(ID_ISAR0, 0x0210_1110), (PFR0, 0x11)];
        assert_eq!(host(&values).for_guests(GicInterface::Memory, OTHER_CPU).get(ID_ISAR0), 0);
        let values = [(ID_ISAR0, 0x0210_1110), (PFR0, 0x12)];
        assert_eq!(host(&values).for_guests(GicInterface::Memory, OTHER_CPU).get(ID_ISAR0), 0x0210_1110);
    }

    #[test]
    fn aes_of_aarch32_is_hidden_where_an_interrupt_spoils_it() {
        // AES with PMULL, SHA1, SHA2, CRC32; AES and PMULL of AArch64.
        let values = [(ID_ISAR5, 0x0001_1121), (ISAR0, 0x1_1120), (PFR0, 0x12)];
        let shown = |midr| host(&values).for_guests(GicInterface::Memory, midr);
        for (cpu, midr, isar5) in [
            ("Cortex-A72 r0p0", 0x410f_d080, 0x0001_1101),
            ("Cortex-A72 r0p3", 0x410f_d083, 0x0001_1101),
            ("Cortex-A72 r1p0", 0x411f_d080, 0x0001_1101),
            ("Cortex-A57 r0p0", 0x410f_d070, 0x0001_1121),
            ("Cortex-A57 r0p1", 0x410f_d071, 0x0001_1101),
            ("Cortex-A57 r1p0", 0x411f_d070, 0x0001_1101),
            ("Cortex-A53 r0p4", 0x410f_d034, 0x0001_1121),
            ("somebody else's part of the same number", 0x420f_d083, 0x0001_1121),
        ] {
            assert_eq!(shown(midr).get(ID_ISAR5), isar5, "{cpu}");
            assert_eq!(shown(midr).get(ISAR0), 0x1_1120, "{cpu}: AArch64 is not concerned");
        }
    }

    #[test]
    fn no_field_is_listed_twice() {
        for (position, row) in TABLE.iter().enumerate() {
            let again = TABLE[..position].iter().any(|o| o.register == row.register && o.shift == row.shift);
            assert!(!again, "register {} field {}", row.register, row.shift);
        }
    }
}
