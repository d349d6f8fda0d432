//! What kind an instruction is, of those kinds that take longer on hardware than others do: by its word (Arm ARM, C4.1). Which of
//! the other ones reach a device can't be told from it.

/// The kind of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MRS or MSR of a register of the interrupt controller: ICC_*, ICH_*.
    InterruptRegister,
    /// MRS or MSR of any other one, PSTATE's fields by MSR (immediate) included. The flags and the FP registers NZCV, FPCR and FPSR
    /// are none.
    SystemRegister,
    /// DSB, DMB, ISB, SB.
    Barrier,
    /// Of caches, TLBs and address translation: IC, DC (but for DC ZVA, which stores), TLBI, AT.
    Maintenance,
    /// One of a pair of load-exclusive and store-exclusive, or an atomic by itself (CAS, SWP, LDADD and so on).
    Atomic,
    /// A load-acquire or a store-release that isn't exclusive.
    Ordered,
    /// ERET.
    ExceptionReturn,
    /// All else.
    Other,
}

impl Kind {
    /// Of the instruction with this word.
    pub fn of(word: u32) -> Self {
        match word {
            0xd69f_03e0 => Self::ExceptionReturn,
            _ if word & 0xffc0_0000 == 0xd500_0000 => Self::of_system(word),
            // Load-acquire and store-release are o2 = 1, o1 = 0 in this group.
            _ if word & 0x3fa0_0000 == 0x0880_0000 => Self::Ordered,
            _ if word & 0x3f00_0000 == 0x0800_0000 => Self::Atomic,
            // LDAPR lies among the atomics.
            _ if word & 0x3fff_fc00 == 0x38bf_c000 => Self::Ordered,
            _ if word & 0x3b20_0c00 == 0x3820_0000 => Self::Atomic,
            _ => Self::Other,
        }
    }

    fn of_system(word: u32) -> Self {
        let field = |low: u32, bits: u32| word >> low & ((1 << bits) - 1);
        let (op0, op1, crn, crm, op2) = (field(19, 2), field(16, 3), field(12, 4), field(8, 4), field(5, 3));
        match (op0, op1, crn, crm, op2) {
            (0, 3, 3, _, 1 | 4..=7) => Self::Barrier,
            (0, _, 4, ..) => Self::SystemRegister,
            (1, 3, 7, 4, 1) => Self::Other,
            (1, _, 7 | 8, ..) => Self::Maintenance,
            (3, 3, 4, 2 | 4, 0 | 1) => Self::Other,
            (3, _, 12, 8..=15, _) | (3, 0, 4, 6, 0) => Self::InterruptRegister,
            (2 | 3, ..) => Self::SystemRegister,
            _ => Self::Other,
        }
    }
}

/// The register that a reading of the virtual counter, `mrs xN, cntvct_el0`, goes to.
pub fn counter_reading(word: u32) -> Option<u8> {
    (word & !0x1f == 0xd53b_e040).then_some(word as u8 & 0x1f)
}

/// The number of a mark, `movz xzr, #n`.
pub fn mark(word: u32) -> Option<u16> {
    (word & 0xffe0_001f == 0xd280_001f).then_some((word >> 5) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Words as an assembler makes them.
    #[test]
    fn kinds_are_told_by_the_word() {
        let wanted = [
            (0xd69f_03e0, Kind::ExceptionReturn, "eret"),
            (0xd53c_5200, Kind::SystemRegister, "mrs x0, esr_el2"),
            (0xd51c_1100, Kind::SystemRegister, "msr hcr_el2, x0"),
            (0xd503_42df, Kind::SystemRegister, "msr daifset, #2"),
            (0xd538_cc00, Kind::InterruptRegister, "mrs x0, icc_iar1_el1"),
            (0xd51c_cc80, Kind::InterruptRegister, "msr ich_lr0_el2, x0"),
            (0xd53c_cb00, Kind::InterruptRegister, "mrs x0, ich_hcr_el2"),
            (0xd518_4600, Kind::InterruptRegister, "msr icc_pmr_el1, x0"),
            (0xd538_c000, Kind::SystemRegister, "mrs x0, vbar_el1"),
            (0xd53b_4200, Kind::Other, "mrs x0, nzcv"),
            (0xd503_3fdf, Kind::Barrier, "isb"),
            (0xd503_3f9f, Kind::Barrier, "dsb sy"),
            (0xd503_3bbf, Kind::Barrier, "dmb ish"),
            (0xd503_201f, Kind::Other, "nop"),
            (0xd503_207f, Kind::Other, "wfi"),
            (0xd503_3f5f, Kind::Other, "clrex"),
            (0xd50b_7e20, Kind::Maintenance, "dc civac, x0"),
            (0xd50b_7420, Kind::Other, "dc zva, x0"),
            (0xd50c_831f, Kind::Maintenance, "tlbi alle2is"),
            (0xd508_7800, Kind::Maintenance, "at s1e1r, x0"),
            (0x885f_fc20, Kind::Atomic, "ldaxr w0, [x1]"),
            (0xc802_fc20, Kind::Atomic, "stlxr w2, x0, [x1]"),
            (0x88a0_7c41, Kind::Atomic, "cas w0, w1, [x2]"),
            (0xb8e0_0041, Kind::Atomic, "ldaddal w0, w1, [x2]"),
            (0x88df_fc20, Kind::Ordered, "ldar w0, [x1]"),
            (0x089f_fc20, Kind::Ordered, "stlrb w0, [x1]"),
            (0xb8bf_c020, Kind::Ordered, "ldapr w0, [x1]"),
            (0xf940_0020, Kind::Other, "ldr x0, [x1]"),
            (0xa940_0400, Kind::Other, "ldp x0, x1, [x0]"),
            (0xf860_6820, Kind::Other, "ldr x0, [x1, x0]"),
            (0xd420_0000, Kind::Other, "brk #0"),
        ];
        for (word, kind, text) in wanted {
            assert_eq!(Kind::of(word), kind, "{text}");
        }
    }

    #[test]
    fn readings_and_marks_are_told_by_the_word() {
        assert_eq!(counter_reading(0xd53b_e054), Some(20), "mrs x20, cntvct_el0");
        assert_eq!(counter_reading(0xd53b_e034), None, "mrs x20, cntpct_el0");
        assert_eq!(mark(0xd297_cc3f), Some(0xbe61), "mov xzr, #0xbe61");
        assert_eq!(mark(0xd297_cc20), None, "mov x0, #0xbe61");
        assert_eq!(mark(0xd2b7_cc3f), None, "mov xzr, #0xbe61, lsl #16");
    }
}
