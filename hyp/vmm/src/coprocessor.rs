//! Registers of AArch32's coprocessors that a 32-bit program at EL0 can reach, by the AArch64 registers that they are views of
//! (Arm ARM D1.12, "Mapping of AArch32 registers"): so each is handled once, in [`crate::sysreg`].
//!
//! Only EL0 is ever in AArch32: what only EL1 has is UNDEFINED there without a trap, and not in the table.

use crate::esr::{Coprocessor, CoprocessorAccess, Sysreg};

/// What an AArch32 register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// This AArch64 register, or its lower half where the upper one is zero.
    Of(Sysreg),
    /// This AArch64 register's lower half: a write leaves the upper half as it was.
    LowerHalf(Sysreg),
    /// DBGDIDR, of which AArch64 has no view: it tells what the debug unit has ([`identity`](crate::debug::identity)), and traps as its registers do (MDCR_EL2.TDA).
    DebugIdentity,
    /// DBGDSAR, which ARMv8 has done away with: zero.
    Zero,
}

/// What a register of a coprocessor is, if EL0 may reach it and a trap may come of that.
pub fn view(register: Coprocessor) -> Option<View> {
    let Coprocessor { coprocessor, opc1, crn, crm, opc2 } = register;
    let el0 =
        |crn: u8, crm: u8, op2: u8| Some(View::Of(Sysreg::new(3, 3, crn.into(), crm.into(), op2.into())));
    match (coprocessor, opc1, crn, crm, opc2) {
        // PMCCNTR, by MRC and MCR.
        (15, 0, Some(9), 13, 0) => Some(View::LowerHalf(Sysreg::new(3, 3, 9, 13, 0))),
        // The performance monitor: PMCR to PMUSERENR, PMEVCNTR<n>, PMEVTYPER<n>, PMCCFILTR.
        (15, 0, Some(9), 12..=14, _) => el0(9, crm, opc2),
        (15, 0, Some(14), 8..=15, _) => el0(14, crm, opc2),
        // PMCCNTR, all of it.
        (15, 0, None, 9, _) => el0(9, 13, 0),
        // CNTP_TVAL, CNTP_CTL.
        (15, 0, Some(14), 2, 0 | 1) => el0(14, 2, opc2),
        // CNTPCT, CNTP_CVAL.
        (15, 0, None, 14, _) => el0(14, 0, 1),
        (15, 2, None, 14, _) => el0(14, 2, 2),
        (14, 0, Some(0), 0, 0) => Some(View::DebugIdentity),
        (14, 0, Some(2), 0, 0) | (14, 0, None, 2, _) => Some(View::Zero),
        // DBGDRAR is MDRAR_EL1, by MRC and MRRC.
        (14, 0, Some(1), 0, 0) | (14, 0, None, 1, _) => Some(View::Of(Sysreg::new(2, 0, 1, 0, 0))),
        _ => None,
    }
}

/// What a write gives its register: `value(n)` is a general-purpose register's; `before`, what a register has of which one of 32
/// bits writes the [lower half](View::LowerHalf) alone, and else 0.
pub fn written(access: &CoprocessorAccess, before: u64, value: impl Fn(u8) -> u64) -> u64 {
    let high = access.rt2.map_or(before >> 32, &value);
    high << 32 | value(access.rt) & 0xffff_ffff
}

/// What a read puts into general-purpose registers: numbers and values.
pub fn loaded(access: &CoprocessorAccess, value: u64) -> [Option<(u8, u64)>; 2] {
    [Some((access.rt, value & 0xffff_ffff)), access.rt2.map(|rt2| (rt2, value >> 32))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sysreg::{Action, PhysicalTimer, action};

    fn of(register: Coprocessor) -> Option<(u8, u8, u8, u8, u8)> {
        match view(register)? {
            View::Of(register) | View::LowerHalf(register) => Some(register.fields()),
            View::DebugIdentity | View::Zero => None,
        }
    }

    #[test]
    fn registers_are_views_of_those_with_their_names() {
        // PMCR, PMXEVCNTR, PMUSERENR, PMEVCNTR30, PMCCFILTR.
        assert_eq!(of(Coprocessor::word(15, 0, 9, 12, 0)), Some((3, 3, 9, 12, 0)));
        assert_eq!(of(Coprocessor::word(15, 0, 9, 13, 2)), Some((3, 3, 9, 13, 2)));
        assert_eq!(of(Coprocessor::word(15, 0, 9, 14, 0)), Some((3, 3, 9, 14, 0)));
        assert_eq!(of(Coprocessor::word(15, 0, 14, 11, 6)), Some((3, 3, 14, 11, 6)));
        assert_eq!(of(Coprocessor::word(15, 0, 14, 15, 7)), Some((3, 3, 14, 15, 7)));
        // PMCCNTR's lower half and the whole of it.
        assert!(matches!(view(Coprocessor::word(15, 0, 9, 13, 0)), Some(View::LowerHalf(_))));
        assert_eq!(of(Coprocessor::word(15, 0, 9, 13, 0)), of(Coprocessor::double(15, 0, 9)));
        assert_eq!(of(Coprocessor::word(14, 0, 1, 0, 0)), of(Coprocessor::double(14, 0, 1)));
    }

    /// What ARMv8 has left of the debug registers that EL0 reads, and a debugger's channel, which is nobody's here: UNDEFINED.
    #[test]
    fn debug_registers_that_programs_read() {
        assert_eq!(view(Coprocessor::word(14, 0, 0, 0, 0)), Some(View::DebugIdentity));
        for offset in [Coprocessor::word(14, 0, 2, 0, 0), Coprocessor::double(14, 0, 2)] {
            assert_eq!(view(offset), Some(View::Zero));
        }
        assert_eq!(of(Coprocessor::word(14, 0, 1, 0, 0)), Some((2, 0, 1, 0, 0)));
        // DBGDSCRint and DBGDTRRXint; DBGBCR0, which EL1 alone has; these numbers in the other coprocessor: MIDR, TTBR0.
        for other in [
            Coprocessor::word(14, 0, 0, 1, 0),
            Coprocessor::word(14, 0, 0, 5, 0),
            Coprocessor::word(14, 0, 0, 0, 5),
            Coprocessor::word(15, 0, 0, 0, 0),
            Coprocessor::word(15, 0, 2, 0, 0),
            Coprocessor::double(15, 0, 2),
        ] {
            assert_eq!(view(other), None);
        }
    }

    #[test]
    fn the_physical_timer_is_that_of_aarch64() {
        let timer = |register, read| match view(register) {
            Some(View::Of(register)) => action(register, read),
            _ => Action::Undefined,
        };
        for (register, expected) in [
            (Coprocessor::word(15, 0, 14, 2, 0), PhysicalTimer::Left),
            (Coprocessor::word(15, 0, 14, 2, 1), PhysicalTimer::Control),
            (Coprocessor::double(15, 2, 14), PhysicalTimer::Deadline),
            (Coprocessor::double(15, 0, 14), PhysicalTimer::Counter),
        ] {
            assert_eq!(timer(register, true), Action::PhysicalTimer(expected));
        }
        assert_eq!(timer(Coprocessor::double(15, 0, 14), false), Action::Undefined);
    }

    #[test]
    fn what_el1_alone_has_is_in_no_table() {
        // SCTLR, TTBR0, TTBCR, DACR, SDER, DBGBVR0, CNTV_TVAL (which never traps here).
        for (coprocessor, crn, crm, opc2) in
            [(15, 1, 0, 0), (15, 2, 0, 0), (15, 2, 0, 2), (15, 3, 0, 0), (14, 0, 0, 4), (15, 14, 3, 0)]
        {
            assert_eq!(view(Coprocessor::word(coprocessor, 0, crn, crm, opc2)), None);
        }
    }

    #[test]
    fn registers_of_64_bits_are_in_two_halves() {
        let access =
            CoprocessorAccess { register: Coprocessor::double(15, 2, 14), rt: 4, rt2: Some(5), read: false };
        assert_eq!(written(&access, 7 << 32, |n| (0x1_0000_0001 * u64::from(n)) | 0x1000), 0x1005_0000_1004);
        assert_eq!(loaded(&access, 0x1_0000_0002), [Some((4, 2)), Some((5, 1))]);
        let word = CoprocessorAccess { rt2: None, ..access };
        assert_eq!(written(&word, 0, |_| 0xffff_ffff_8000_0000), 0x8000_0000);
        assert_eq!(written(&word, 0x7_0000_0001, |_| 0x8000_0000), 0x7_8000_0000);
        assert_eq!(loaded(&word, 0x1_0000_0002), [Some((4, 2)), None]);
    }
}
