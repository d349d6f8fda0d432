//! System registers: one table says of each what a guest has of it ([`REGISTERS`]), and so what a trapped access does.
//!
//! Only what EL2 traps comes here (its trap bits are set in `el2`'s control registers); all else a guest reaches
//! directly. What is not in the table is UNDEFINED: registers of features that guests aren't given, EL2's own, and
//! IMPLEMENTATION DEFINED ones.

mod table;
mod traps;

use vgic::SgiRegister;

pub use table::{Given, REGISTERS, Register, Step};

use crate::esr::Sysreg;
use crate::{debug, idregs, pmu};

/// What a trapped access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A read gives the VM's ID register of this index ([`idregs::IdRegisters`]).
    IdRegister(u8),
    /// A read gives the CPU's own value, which tells a guest nothing that it mustn't know.
    Identity(Identity),
    /// A read gives this value.
    Constant(u32),
    /// A write has no effect.
    Ignored,
    /// A write sends an SGI.
    Sgi(SgiRegister),
    /// A write deactivates an interrupt: ICC_DIR_EL1, which traps only while the vGIC wants it to (ICH_HCR_EL2.TDIR).
    Deactivate,
    /// A write goes to a register of stage 1, which is watched until the caches' state is known (HCR_EL2.TVM).
    StageOne(StageOne),
    /// Data cache maintenance by set and way (HCR_EL2.TSW).
    SetWay,
    /// A register of the physical counter and timer, which trap while the VM's time isn't the board's (CNTHCTL_EL2).
    PhysicalTimer(PhysicalTimer),
    /// A register of self-hosted debug.
    Debug(debug::Register),
    /// A register of the performance monitors.
    Pmu(pmu::Register),
    /// There is no such register for guests.
    Undefined,
}

/// Registers of the physical counter and timer of EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhysicalTimer {
    /// CNTPCT_EL0 and CNTPCTSS_EL0, which are only read.
    Counter,
    /// CNTP_CVAL_EL0.
    Deadline,
    /// CNTP_TVAL_EL0.
    Left,
    /// CNTP_CTL_EL0.
    Control,
}

/// Registers that identify the implementation (HCR_EL2.TID1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// REVIDR_EL1.
    Revidr,
    /// AIDR_EL1.
    Aidr,
}

/// Registers whose writes HCR_EL2.TVM traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the architecture's, with _EL1 left off")]
pub enum StageOne {
    Sctlr,
    Ttbr0,
    Ttbr1,
    Tcr,
    Esr,
    Far,
    Afsr0,
    Afsr1,
    Mair,
    Amair,
    Contextidr,
}

impl Action {
    /// Of a family's first member: the same of the one that is `n` further.
    const fn numbered(self, n: u8) -> Self {
        use debug::Register as D;
        use pmu::Register as P;
        match self {
            Self::IdRegister(first) => Self::IdRegister(first.wrapping_add(n)),
            Self::Debug(D::BreakpointValue(_)) => Self::Debug(D::BreakpointValue(n)),
            Self::Debug(D::BreakpointControl(_)) => Self::Debug(D::BreakpointControl(n)),
            Self::Debug(D::WatchpointValue(_)) => Self::Debug(D::WatchpointValue(n)),
            Self::Debug(D::WatchpointControl(_)) => Self::Debug(D::WatchpointControl(n)),
            Self::Pmu(P::Counter(_)) => Self::Pmu(P::Counter(n)),
            Self::Pmu(P::EventType(_)) => Self::Pmu(P::EventType(n)),
            other => other,
        }
    }
}

/// What a trapped access to `register` does.
pub fn action(register: Sysreg, read: bool) -> Action {
    let (op0, op1, crn, crm, op2) = register.fields();
    let action = match (op0, op1, crn) {
        (1, 0, 7) => set_way(crm, op2, read),
        (2.., 0..=3, _) => traps::find(register, read),
        _ => None,
    };
    action.unwrap_or(Action::Undefined)
}

/// What running guests use most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Common {
    /// As [`Action::IdRegister`].
    IdRegister(u8),
    /// As [`Action::Sgi`], of ICC_SGI1R_EL1.
    Sgi1,
}

/// The same, for [`Common`] ones alone.
#[inline(always)]
pub fn common(register: Sysreg, read: bool) -> Option<Common> {
    const SGI1R: Sysreg = Sysreg::new(3, 0, 12, 11, 5);
    if register == SGI1R && !read {
        return Some(Common::Sgi1);
    }
    match (register.fields(), read) {
        ((3, 0, 0, ..), true) => idregs::index(register).map(Common::IdRegister),
        _ => None,
    }
}

/// DC ISW, CSW and CISW.
fn set_way(crm: u8, op2: u8, read: bool) -> Option<Action> {
    (!read && matches!((crm, op2), (6 | 10 | 14, 2))).then_some(Action::SetWay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn what_running_guests_use_is_what_the_table_says() {
        for register in all() {
            for read in [false, true] {
                let expected = match common(register, read) {
                    Some(Common::IdRegister(index)) => Action::IdRegister(index),
                    Some(Common::Sgi1) => Action::Sgi(SgiRegister::Sgi1r),
                    None => continue,
                };
                assert_eq!(action(register, read), expected, "{register}, read: {read}");
            }
        }
    }

    /// Every encoding of op0 2 and 3.
    fn all() -> impl Iterator<Item = Sysreg> {
        (2 << 14..4 << 14).map(|n: u32| Sysreg::new(n >> 14, n >> 11 & 7, n >> 7 & 15, n >> 3 & 15, n & 7))
    }

    #[test]
    fn every_encoding_does_what_its_row_says() {
        for register in all() {
            let rows: Vec<_> = REGISTERS.iter().filter_map(|row| Some((row, row.place(register)?))).collect();
            assert!(rows.len() <= 1, "{register} is in {} and {}", rows[0].0.name, rows[1].0.name);
            let row = rows.first();
            for read in [false, true] {
                let expected = row
                    .and_then(|(row, n)| Some(if read { row.read? } else { row.write? }.numbered(*n as u8)));
                assert_eq!(
                    action(register, read),
                    expected.unwrap_or(Action::Undefined),
                    "{register}, read: {read}"
                );
            }
        }
    }

    #[test]
    fn registers_are_known_by_name_and_by_encoding() {
        let called = |name: &str| -> Vec<_> {
            REGISTERS.iter().filter(|row| row.is_called(name)).map(|row| row.name).collect()
        };
        assert_eq!(called("FPCR"), ["FPCR"]);
        assert_eq!(called("S3_3_C4_C4_0"), ["FPCR"]);
        assert_eq!(called("S3_3_C14_C15_7"), ["PMCCFILTR_EL0"]);
        for nobody in
            ["FPC", "FPCRX", "", "S3_3_C4_C4", "S3_3_C4_C4_0_1", "S3_3_C4_C4_0x", "S3_3_C4_C16_0", "SP_EL1"]
        {
            assert!(called(nobody).is_empty(), "{nobody}");
        }
    }

    #[test]
    fn what_is_given_directly_or_not_at_all_has_no_answer() {
        for row in REGISTERS {
            let answers = row.read.is_some() || row.write.is_some();
            match row.given {
                Given::Undefined => assert!(!answers, "{}", row.name),
                Given::Emulated | Given::WhenUsed => assert!(answers, "{}", row.name),
                Given::Direct | Given::Switched => {}
            }
        }
    }

    #[test]
    fn id_registers_are_read_only() {
        let pfr0 = Sysreg::new(3, 0, 0, 4, 0);
        assert_eq!(action(pfr0, true), Action::IdRegister(32));
        assert_eq!(action(pfr0, false), Action::Undefined);
    }

    #[test]
    fn registers_of_el2_and_of_the_implementation_are_undefined() {
        let hcr_el2 = Sysreg::new(3, 4, 1, 1, 0);
        let implementation_defined = Sysreg::new(3, 0, 15, 0, 0);
        let dbgvcr32_el2 = Sysreg::new(2, 4, 0, 7, 0);
        for register in [hcr_el2, implementation_defined, dbgvcr32_el2] {
            assert_eq!(action(register, true), Action::Undefined, "{register}");
            assert_eq!(action(register, false), Action::Undefined, "{register}");
        }
    }

    #[test]
    fn members_of_families_have_their_numbers() {
        for (register, expected) in [
            (Sysreg::new(2, 0, 0, 15, 4), Action::Debug(debug::Register::BreakpointValue(15))),
            (Sysreg::new(2, 0, 0, 3, 7), Action::Debug(debug::Register::WatchpointControl(3))),
            (Sysreg::new(2, 0, 0, 2, 2), Action::Debug(debug::Register::Monitor)),
            (Sysreg::new(3, 3, 14, 8, 0), Action::Pmu(pmu::Register::Counter(0))),
            (Sysreg::new(3, 3, 14, 11, 6), Action::Pmu(pmu::Register::Counter(30))),
            (Sysreg::new(3, 3, 14, 15, 6), Action::Pmu(pmu::Register::EventType(30))),
            (Sysreg::new(3, 3, 14, 15, 7), Action::Pmu(pmu::Register::CycleFilter)),
        ] {
            assert_eq!(action(register, true), expected, "{register}");
            assert_eq!(action(register, false), expected, "{register}");
        }
        // There is no PMEVCNTR31_EL0.
        assert_eq!(action(Sysreg::new(3, 3, 14, 11, 7), true), Action::Undefined);
    }

    #[test]
    fn sgi_registers_are_write_only() {
        let sgi1r = Sysreg::new(3, 0, 12, 11, 5);
        assert_eq!(action(sgi1r, false), Action::Sgi(SgiRegister::Sgi1r));
        assert_eq!(action(sgi1r, true), Action::Undefined);
    }

    #[test]
    fn the_physical_counter_is_read_only_and_its_timer_is_not() {
        for (crm, op2, timer) in
            [(2, 0, PhysicalTimer::Left), (2, 1, PhysicalTimer::Control), (2, 2, PhysicalTimer::Deadline)]
        {
            let register = Sysreg::new(3, 3, 14, crm, op2);
            assert_eq!(action(register, true), Action::PhysicalTimer(timer));
            assert_eq!(action(register, false), Action::PhysicalTimer(timer));
        }
        for op2 in [1, 5] {
            let counter = Sysreg::new(3, 3, 14, 0, op2);
            assert_eq!(action(counter, true), Action::PhysicalTimer(PhysicalTimer::Counter));
            assert_eq!(action(counter, false), Action::Undefined);
        }
        // The virtual one, which never traps.
        assert_eq!(action(Sysreg::new(3, 3, 14, 0, 2), true), Action::Undefined);
    }

    #[test]
    fn every_set_way_operation_is_known() {
        for crm in [6, 10, 14] {
            assert_eq!(action(Sysreg::new(1, 0, 7, crm, 2), false), Action::SetWay);
        }
    }
}
