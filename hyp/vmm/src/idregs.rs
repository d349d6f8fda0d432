//! The ID registers that guests see: of each, only the fields that are known here and that guests are really given
//! (Arm ARM D24.2, `ID_*_EL1`).
//!
//! A field that is not in the table reads as zero, which means "not there" for all of them: so a CPU that is newer than
//! this table shows its guests nothing that EL2 doesn't handle.

use crate::esr::Sysreg;
use crate::pmu;

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

    /// What guests see of a CPU with these values and this MIDR_EL1. `counters`: they have performance monitors, if the CPU has.
    pub fn for_guests(&self, gic: GicInterface, midr: u64, counters: bool) -> Self {
        let mut guest = Self { values: [0; COUNT] };
        let has_aarch32 = self.get(PFR0) & 0xf == 2;
        for row in TABLE.iter().filter(|row| has_aarch32 || row.register >= PFR0) {
            let host = self.get(row.register) >> row.shift & 0xf;
            let field = row.rule.apply(host, gic, counters) << row.shift;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
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
    /// ID_AA64DFR0_EL1.PMUVer, where 0xf stands for something that isn't PMUv3.
    Counters,
}

impl Rule {
    fn apply(self, host: u64, gic: GicInterface, counters: bool) -> u64 {
        match self {
            Self::Keep => host,
            Self::AtMost(most) => host.min(u64::from(most)),
            Self::SignedAtMost(most) if host < 8 => host.min(u64::from(most)),
            Self::SignedAtMost(_) => host,
            Self::Is(value) => u64::from(value),
            Self::Counters if counters && pmu::exists(host as u8) => host.min(pmu::MOST_VERSION.into()),
            Self::Counters => 0,
            Self::Gic => u64::from(gic == GicInterface::SystemRegisters),
        }
    }
}

#[derive(Clone, Copy)]
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

use Rule::{AtMost, Counters, Gic, Is, Keep, SignedAtMost};

/// A four-bit field of an ID register: the architecture's name, its lowest bit, what guests see of it, and why.
pub type Field = (&'static str, u8, Rule, &'static str);

/// The fields that guests see; all others are zero. By register, those of AArch32 first: they are zero where EL0 has no AArch32
/// (ID_AA64PFR0_EL1.EL0 is not 2).
#[rustfmt::skip]
pub const FIELDS: &[(u8, &str, &[Field])] = &[
    (ID_PFR0, "ID_PFR0_EL1", &[
        ("State0", 0, Keep, ""),
        ("State1", 4, Keep, ""),
        ("State2", 8, Keep, ""),
        ("State3", 12, Keep, ""),
        ("CSV2", 16, AtMost(1), ""),
        ("DIT", 24, Keep, ""),
    ]),
    (ID_PFR1, "ID_PFR1_EL1", &[
        ("ProgMod", 0, Keep, ""),
        ("GenTimer", 16, Keep, ""),
        ("GIC", 28, Gic, ""),
    ]),
    (ID_DFR0, "ID_DFR0_EL1", &[
        ("CopDbg", 0, Keep, ""),
        ("MMapDbg", 8, Keep, ""),
        ("PerfMon", 24, Counters, ""),
    ]),
    (ID_MMFR0, "ID_MMFR0_EL1", &[
        ("VMSA", 0, Keep, ""),
        ("PMSA", 4, Keep, ""),
        ("OuterShr", 8, Keep, ""),
        ("ShareLvl", 12, Keep, ""),
        ("TCM", 16, Keep, ""),
        ("AuxReg", 20, Keep, ""),
        ("FCSE", 24, Keep, ""),
        ("InnerShr", 28, Keep, ""),
    ]),
    (ID_MMFR1, "ID_MMFR1_EL1", &[
        ("L1HvdVA", 0, Keep, ""),
        ("L1UniVA", 4, Keep, ""),
        ("L1HvdSW", 8, Keep, ""),
        ("L1UniSW", 12, Keep, ""),
        ("L1Hvd", 16, Keep, ""),
        ("L1Uni", 20, Keep, ""),
        ("L1TstCln", 24, Keep, ""),
        ("BPred", 28, Keep, ""),
    ]),
    (ID_MMFR2, "ID_MMFR2_EL1", &[
        ("L1HvdFG", 0, Keep, ""),
        ("L1HvdBG", 4, Keep, ""),
        ("L1HvdRng", 8, Keep, ""),
        ("HvdTLB", 12, Keep, ""),
        ("UniTLB", 16, Keep, ""),
        ("MemBarr", 20, Keep, ""),
        ("WFIStall", 24, Keep, ""),
        ("HWAccFlg", 28, Keep, ""),
    ]),
    (ID_MMFR3, "ID_MMFR3_EL1", &[
        ("CMaintVA", 0, Keep, ""),
        ("CMaintSW", 4, Keep, ""),
        ("BPMaint", 8, Keep, ""),
        ("MaintBcst", 12, Keep, ""),
        ("PAN", 16, Keep, ""),
        ("CohWalk", 20, Keep, ""),
        ("CMemSz", 24, Keep, ""),
        ("Supersec", 28, Keep, ""),
    ]),
    (ID_MMFR4, "ID_MMFR4_EL1", &[
        ("XNX", 8, Keep, ""),
        ("CnP", 12, Keep, ""),
        ("HPDS", 16, Keep, ""),
        ("LSM", 20, Keep, ""),
    ]),
    (ID_ISAR0, "ID_ISAR0_EL1", &[
        ("BitCount", 4, Keep, ""),
        ("BitField", 8, Keep, ""),
        ("CmpBranch", 12, Keep, ""),
        ("Coproc", 16, Keep, ""),
        ("Debug", 20, Keep, ""),
        ("Divide", 24, Keep, ""),
    ]),
    (ID_ISAR1, "ID_ISAR1_EL1", &[
        ("Endian", 0, Keep, ""),
        ("Except", 4, Keep, ""),
        ("Except_AR", 8, Keep, ""),
        ("Extend", 12, Keep, ""),
        ("IfThen", 16, Keep, ""),
        ("Immediate", 20, Keep, ""),
        ("Interwork", 24, Keep, ""),
        ("Jazelle", 28, Keep, ""),
    ]),
    (ID_ISAR2, "ID_ISAR2_EL1", &[
        ("LoadStore", 0, Keep, ""),
        ("MemHint", 4, Keep, ""),
        ("MultiAccessInt", 8, Keep, ""),
        ("Mult", 12, Keep, ""),
        ("MultS", 16, Keep, ""),
        ("MultU", 20, Keep, ""),
        ("PSR_AR", 24, Keep, ""),
        ("Reversal", 28, Keep, ""),
    ]),
    (ID_ISAR3, "ID_ISAR3_EL1", &[
        ("Saturate", 0, Keep, ""),
        ("SIMD", 4, Keep, ""),
        ("SVC", 8, Keep, ""),
        ("SynchPrim", 12, Keep, ""),
        ("TabBranch", 16, Keep, ""),
        ("T32Copy", 20, Keep, ""),
        ("TrueNOP", 24, Keep, ""),
        ("T32EE", 28, Keep, ""),
    ]),
    (ID_ISAR4, "ID_ISAR4_EL1", &[
        ("Unpriv", 0, Keep, ""),
        ("WithShifts", 4, Keep, ""),
        ("Writeback", 8, Keep, ""),
        ("SMC", 12, Keep, ""),
        ("Barrier", 16, Keep, ""),
        ("SynchPrim_frac", 20, Keep, ""),
        ("PSR_M", 24, Keep, ""),
        ("SWP_frac", 28, Keep, ""),
    ]),
    (ID_ISAR5, "ID_ISAR5_EL1", &[
        ("SEVL", 0, Keep, ""),
        ("AES", 4, Keep, ""),
        ("SHA1", 8, Keep, ""),
        ("SHA2", 12, Keep, ""),
        ("CRC32", 16, Keep, ""),
        ("RDM", 24, Keep, ""),
        ("VCMA", 28, Keep, ""),
    ]),
    (ID_ISAR6, "ID_ISAR6_EL1", &[
        ("JSCVT", 0, Keep, ""),
        ("DP", 4, Keep, ""),
        ("FHM", 8, Keep, ""),
        ("SB", 12, Keep, ""),
        ("SPECRES", 16, Keep, ""),
        ("BF16", 20, Keep, ""),
        ("I8MM", 24, Keep, ""),
    ]),
    (MVFR0, "MVFR0_EL1", &[
        ("SIMDReg", 0, Keep, ""),
        ("FPSP", 4, Keep, ""),
        ("FPDP", 8, Keep, ""),
        ("FPTrap", 12, Keep, ""),
        ("FPDivide", 16, Keep, ""),
        ("FPSqrt", 20, Keep, ""),
        ("FPShVec", 24, Keep, ""),
        ("FPRound", 28, Keep, ""),
    ]),
    (MVFR1, "MVFR1_EL1", &[
        ("FPFtZ", 0, Keep, ""),
        ("FPDNaN", 4, Keep, ""),
        ("SIMDLS", 8, Keep, ""),
        ("SIMDInt", 12, Keep, ""),
        ("SIMDSP", 16, Keep, ""),
        ("SIMDHP", 20, Keep, ""),
        ("FPHP", 24, Keep, ""),
        ("SIMDFMAC", 28, Keep, ""),
    ]),
    (MVFR2, "MVFR2_EL1", &[
        ("SIMDMisc", 0, Keep, ""),
        ("FPMisc", 4, Keep, ""),
    ]),
    (ID_PFR2, "ID_PFR2_EL1", &[
        ("CSV3", 0, Keep, ""),
        ("SSBS", 4, Keep, ""),
    ]),
    (PFR0, "ID_AA64PFR0_EL1", &[
        ("EL0", 0, Keep, "AArch32 too where the CPU has it"),
        ("EL1", 4, Is(1), "AArch64 alone, as HCR_EL2.RW says"),
        ("FP", 16, SignedAtMost(1), ""),
        ("AdvSIMD", 20, SignedAtMost(1), ""),
        ("GIC", 24, Gic, "1 where guests have a GICv3"),
        ("DIT", 48, Keep, ""),
        ("CSV2", 56, AtMost(1), "without SCXTNUM_ELx (CSV2_2), which isn't switched"),
        ("CSV3", 60, Keep, ""),
    ]),
    (PFR1, "ID_AA64PFR1_EL1", &[
        ("BT", 0, Keep, ""),
        ("SSBS", 4, Keep, ""),
    ]),
    (DFR0, "ID_AA64DFR0_EL1", &[
        ("DebugVer", 0, AtMost(9), "without Debugv8p8 and v8p9, which have more registers"),
        ("PMUVer", 8, Counters, "up to PMUv3p5"),
        ("BRPs", 12, Keep, ""),
        ("WRPs", 20, Keep, ""),
        ("CTX_CMPs", 28, Keep, ""),
        ("DoubleLock", 36, Is(0xf), "not there, as OSDLR_EL1 is ignored"),
    ]),
    (ISAR0, "ID_AA64ISAR0_EL1", &[
        ("AES", 4, Keep, ""),
        ("SHA1", 8, Keep, ""),
        ("SHA2", 12, Keep, ""),
        ("CRC32", 16, Keep, ""),
        ("Atomic", 20, Keep, ""),
        ("RDM", 28, Keep, ""),
        ("SHA3", 32, Keep, ""),
        ("SM3", 36, Keep, ""),
        ("SM4", 40, Keep, ""),
        ("DP", 44, Keep, ""),
        ("FHM", 48, Keep, ""),
        ("TS", 52, Keep, ""),
        ("TLB", 56, AtMost(2), "outer shareable and range invalidation"),
        ("RNDR", 60, Keep, ""),
    ]),
    (ISAR1, "ID_AA64ISAR1_EL1", &[
        ("DPB", 0, Keep, ""),
        ("APA", 4, Keep, ""),
        ("API", 8, Keep, ""),
        ("JSCVT", 12, Keep, ""),
        ("FCMA", 16, Keep, ""),
        ("LRCPC", 20, Keep, ""),
        ("GPA", 24, Keep, ""),
        ("GPI", 28, Keep, ""),
        ("FRINTTS", 32, Keep, ""),
        ("SB", 36, Keep, ""),
        ("SPECRES", 40, Keep, ""),
        ("BF16", 44, Keep, ""),
        ("DGH", 48, Keep, ""),
        ("I8MM", 52, Keep, ""),
    ]),
    (ISAR2, "ID_AA64ISAR2_EL1", &[
        ("RPRES", 4, Keep, ""),
        ("GPA3", 8, Keep, ""),
        ("APA3", 12, Keep, ""),
        ("BC", 20, Keep, ""),
        ("PAC_frac", 24, Keep, ""),
        ("CLRBHB", 28, Keep, ""),
        ("CSSC", 52, Keep, ""),
    ]),
    (MMFR0, "ID_AA64MMFR0_EL1", &[
        ("PARange", 0, AtMost(5), "up to 48 bits, as the 4 KiB granule without LPA2 has"),
        ("ASIDBits", 4, Keep, ""),
        ("BigEnd", 8, Is(0), "emulated devices are little-endian"),
        ("BigEndEL0", 16, Is(0), ""),
        ("TGran16", 20, AtMost(1), "without 52-bit addresses"),
        ("TGran64", 24, SignedAtMost(0), ""),
        ("TGran4", 28, SignedAtMost(0), "without 52-bit addresses"),
        ("ExS", 44, Keep, ""),
    ]),
    (MMFR1, "ID_AA64MMFR1_EL1", &[
        ("HAFDBS", 0, AtMost(2), "without table access flags (HAFT) and HDBSS"),
        ("HPDS", 12, AtMost(2), ""),
        ("PAN", 20, Keep, ""),
        ("SpecSEI", 24, Keep, ""),
        ("ETS", 36, Keep, ""),
        ("AFP", 44, Keep, ""),
        ("nTLBPA", 48, Keep, ""),
        ("ECBHB", 60, Keep, ""),
    ]),
    (MMFR2, "ID_AA64MMFR2_EL1", &[
        ("CnP", 0, Keep, ""),
        ("UAO", 4, Keep, ""),
        ("LSM", 8, Keep, ""),
        ("VARange", 16, AtMost(1), ""),
        ("CCIDX", 20, Keep, ""),
        ("ST", 28, Keep, ""),
        ("AT", 32, Keep, ""),
        ("TTL", 48, Keep, ""),
        ("BBM", 52, Keep, ""),
        ("E0PD", 60, Keep, ""),
    ]),
];

/// The same without names.
static TABLE: [Row; COUNT_OF_FIELDS] = {
    let mut table = [row(0, 0, Keep); COUNT_OF_FIELDS];
    let mut room: &mut [Row] = &mut table;
    let mut registers = FIELDS;
    while let [(register, _, fields), others @ ..] = registers {
        registers = others;
        let mut fields = *fields;
        while let [(_, shift, rule, _), others @ ..] = fields {
            fields = others;
            if let [first, rest @ ..] = room {
                *first = row(*register, *shift, *rule);
                room = rest;
            }
        }
    }
    table
};

const COUNT_OF_FIELDS: usize = {
    let mut count = 0;
    let mut registers = FIELDS;
    while let [(_, _, fields), others @ ..] = registers {
        registers = others;
        count += fields.len();
    }
    count
};

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
        let guest = all.for_guests(GicInterface::SystemRegisters, OTHER_CPU, false);
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
    fn counters_are_shown_up_to_what_is_handled() {
        let shown = |host_version: u64, counters| {
            let values = [(DFR0, host_version << 8), (ID_DFR0, host_version << 24), (PFR0, 0x12)];
            let guest = host(&values).for_guests(GicInterface::Memory, OTHER_CPU, counters);
            assert_eq!(guest.get(DFR0) >> 8 & 0xf, guest.get(ID_DFR0) >> 24 & 0xf);
            guest.get(DFR0) >> 8 & 0xf
        };
        for (host, guest) in [(0, 0), (1, 1), (4, 4), (6, 6), (7, 6), (9, 6), (0xf, 0)] {
            assert_eq!(shown(host, true), guest);
            assert_eq!(shown(host, false), 0);
        }
    }

    #[test]
    fn what_guests_may_use_is_shown() {
        let isar0 = 0x0000_1111_0021_1120u64;
        let guest = host(&[(ISAR0, isar0), (PFR0, 0x11)]).for_guests(GicInterface::Memory, OTHER_CPU, false);
        assert_eq!(guest.get(ISAR0), isar0);
        assert_eq!(guest.get(PFR0), 0x11);
    }

    #[test]
    fn missing_floating_point_stays_missing() {
        let guest = host(&[(PFR0, 0xff_0011)]).for_guests(GicInterface::Memory, OTHER_CPU, false);
        assert_eq!(guest.get(PFR0) >> 16 & 0xff, 0xff);
    }

    #[test]
    fn the_gic_field_follows_the_guests_gic() {
        let host = host(&[(PFR0, 3 << 24 | 0x11)]);
        assert_eq!(host.for_guests(GicInterface::SystemRegisters, OTHER_CPU, false).get(PFR0) >> 24 & 0xf, 1);
        assert_eq!(host.for_guests(GicInterface::Memory, OTHER_CPU, false).get(PFR0) >> 24 & 0xf, 0);
    }

    #[test]
    fn aarch32_registers_read_as_zero_where_el0_has_no_aarch32() {
        let values = [(ID_ISAR0, 0x0210_1110), (PFR0, 0x11)];
        assert_eq!(host(&values).for_guests(GicInterface::Memory, OTHER_CPU, false).get(ID_ISAR0), 0);
        let values = [(ID_ISAR0, 0x0210_1110), (PFR0, 0x12)];
        assert_eq!(
            host(&values).for_guests(GicInterface::Memory, OTHER_CPU, false).get(ID_ISAR0),
            0x0210_1110
        );
    }

    #[test]
    fn aes_of_aarch32_is_hidden_where_an_interrupt_spoils_it() {
        // AES with PMULL, SHA1, SHA2, CRC32; AES and PMULL of AArch64.
        let values = [(ID_ISAR5, 0x0001_1121), (ISAR0, 0x1_1120), (PFR0, 0x12)];
        let shown = |midr| host(&values).for_guests(GicInterface::Memory, midr, false);
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
