//! Trapped system registers: one table says what each access of a guest does.
//!
//! Only what EL2 traps comes here (its trap bits are set in `el2`'s control registers); all else a guest reaches
//! directly. What is not in the table is UNDEFINED: registers of features that guests aren't given, EL2's own, and
//! IMPLEMENTATION DEFINED ones.

use crate::esr::Sysreg;
use crate::idregs;
use vgic::SgiRegister;

/// What a trapped access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A read gives the VM's ID register of this index ([`idregs::IdRegisters`]).
    IdRegister(u8),
    /// A read gives the CPU's own value, which tells a guest nothing that it mustn't know.
    Identity(Identity),
    /// A read gives this value.
    Constant(u64),
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
    /// A debug register, which traps until the guest first uses one (MDCR_EL2.TDA).
    Debug,
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

/// What a trapped access to `register` does: by op0, op1 and CRn, and then by what is there.
pub fn action(register: Sysreg, read: bool) -> Action {
    let (op0, op1, crn, crm, op2) = register.fields();
    let action = match (op0, op1, crn) {
        (3, 0, 0 | 12) => common_action(register, read),
        (3, 3, 14) => physical_timer(crm, op2, read),
        (3, 0, 1 | 2 | 5 | 6 | 10 | 13) => control(register, read),
        (3, 1, 0) if (crm, op2, read) == (0, 7, true) => Some(Action::Identity(Identity::Aidr)),
        (2, 0, 0 | 1 | 7) => debug(register, read),
        (1, 0, 7) => set_way(crm, op2, read),
        _ => None,
    };
    action.unwrap_or(Action::Undefined)
}

/// The same for what running guests use: ID registers, and those of the interrupt controller. `None`: another one.
#[inline(always)]
pub fn common_action(register: Sysreg, read: bool) -> Option<Action> {
    let (op0, op1, crn, crm, op2) = register.fields();
    match (op0, op1, crn) {
        (3, 0, 0) => id_space(register, read),
        (3, 0, 12) => interrupts(crm, op2, read),
        _ => None,
    }
}

#[inline(always)]
fn id_space(register: Sysreg, read: bool) -> Option<Action> {
    const REVIDR: Sysreg = Sysreg::new(3, 0, 0, 0, 6);
    match idregs::index(register).filter(|_| read) {
        Some(index) => Some(Action::IdRegister(index)),
        None => (read && register == REVIDR).then_some(Action::Identity(Identity::Revidr)),
    }
}

/// ICC_DIR_EL1, ICC_SGI1R_EL1, ICC_ASGI1R_EL1, ICC_SGI0R_EL1 and ICC_SRE_EL1.
#[inline(always)]
fn interrupts(crm: u8, op2: u8, read: bool) -> Option<Action> {
    match (crm, op2) {
        (11, 1) if !read => Some(Action::Deactivate),
        (11, 5) if !read => Some(Action::Sgi(SgiRegister::Sgi1r)),
        (11, 6) if !read => Some(Action::Sgi(SgiRegister::Asgi1r)),
        (11, 7) if !read => Some(Action::Sgi(SgiRegister::Sgi0r)),
        // SRE, DFB, DIB: the GIC is reached by system registers, and by nothing else.
        (12, 5) => Some(if read { Action::Constant(0b111) } else { Action::Ignored }),
        _ => None,
    }
}

/// CNTPCT_EL0 and CNTPCTSS_EL0, CNTP_TVAL_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0.
fn physical_timer(crm: u8, op2: u8, read: bool) -> Option<Action> {
    let timer = match (crm, op2) {
        (0, 1 | 5) if read => PhysicalTimer::Counter,
        (2, 0) => PhysicalTimer::Left,
        (2, 1) => PhysicalTimer::Control,
        (2, 2) => PhysicalTimer::Deadline,
        _ => return None,
    };
    Some(Action::PhysicalTimer(timer))
}

/// ACTLR_EL1, and writes to stage 1's registers.
fn control(register: Sysreg, read: bool) -> Option<Action> {
    const ACTLR_EL1: Sysreg = Sysreg::new(3, 0, 1, 0, 1);
    const SCTLR_EL1: Sysreg = Sysreg::new(3, 0, 1, 0, 0);
    const TTBR0_EL1: Sysreg = Sysreg::new(3, 0, 2, 0, 0);
    const TTBR1_EL1: Sysreg = Sysreg::new(3, 0, 2, 0, 1);
    const TCR_EL1: Sysreg = Sysreg::new(3, 0, 2, 0, 2);
    const AFSR0_EL1: Sysreg = Sysreg::new(3, 0, 5, 1, 0);
    const AFSR1_EL1: Sysreg = Sysreg::new(3, 0, 5, 1, 1);
    const ESR_EL1: Sysreg = Sysreg::new(3, 0, 5, 2, 0);
    const FAR_EL1: Sysreg = Sysreg::new(3, 0, 6, 0, 0);
    const MAIR_EL1: Sysreg = Sysreg::new(3, 0, 10, 2, 0);
    const AMAIR_EL1: Sysreg = Sysreg::new(3, 0, 10, 3, 0);
    const CONTEXTIDR_EL1: Sysreg = Sysreg::new(3, 0, 13, 0, 1);
    let stage_one = match register {
        // A guest has no business with the implementation's knobs; Linux saves and restores ACTLR_EL1 on some CPUs.
        ACTLR_EL1 if read => return Some(Action::Constant(0)),
        ACTLR_EL1 => return Some(Action::Ignored),
        SCTLR_EL1 => StageOne::Sctlr,
        TTBR0_EL1 => StageOne::Ttbr0,
        TTBR1_EL1 => StageOne::Ttbr1,
        TCR_EL1 => StageOne::Tcr,
        AFSR0_EL1 => StageOne::Afsr0,
        AFSR1_EL1 => StageOne::Afsr1,
        ESR_EL1 => StageOne::Esr,
        FAR_EL1 => StageOne::Far,
        MAIR_EL1 => StageOne::Mair,
        AMAIR_EL1 => StageOne::Amair,
        CONTEXTIDR_EL1 => StageOne::Contextidr,
        _ => return None,
    };
    // Reads don't trap.
    (!read).then_some(Action::StageOne(stage_one))
}

/// Debug registers: the guest's are breakpoints and watchpoints (DBGBVR, DBGBCR, DBGWVR, DBGWCR), MDSCR_EL1, claim tags and
/// DBGAUTHSTATUS_EL1.
fn debug(register: Sysreg, read: bool) -> Option<Action> {
    let (_, _, crn, crm, op2) = register.fields();
    match (crn, crm, op2) {
        (0, _, 4..=7) | (0, 2, 2) | (7, 8 | 9 | 14, 6) => Some(Action::Debug),
        // MDRAR_EL1: no debug ROM table.
        (1, 0, 0) if read => Some(Action::Constant(0)),
        // OSLSR_EL1: OSLM = 0b10, the lock is implemented; OSLK = 0, it is open.
        (1, 1, 4) if read => Some(Action::Constant(1 << 3)),
        // OSLAR_EL1: the lock is open and stays open.
        (1, 0, 4) if !read => Some(Action::Ignored),
        // OSDLR_EL1, DBGPRCR_EL1: so does the double lock; power requests are the board's business.
        (1, 3 | 4, 4) => Some(if read { Action::Constant(0) } else { Action::Ignored }),
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
        let pmcr_el0 = Sysreg::new(3, 3, 9, 12, 0);
        for register in [hcr_el2, implementation_defined, pmcr_el0] {
            assert_eq!(action(register, true), Action::Undefined, "{register}");
            assert_eq!(action(register, false), Action::Undefined, "{register}");
        }
    }

    #[test]
    fn debug_registers_are_the_guests_but_for_those_of_the_board() {
        let dbgbvr15 = Sysreg::new(2, 0, 0, 15, 4);
        let mdscr = Sysreg::new(2, 0, 0, 2, 2);
        for register in [dbgbvr15, mdscr] {
            assert_eq!(action(register, true), Action::Debug);
            assert_eq!(action(register, false), Action::Debug);
        }
        let mdccint = Sysreg::new(2, 0, 0, 2, 0);
        let oseccr = Sysreg::new(2, 0, 0, 6, 2);
        for register in [mdccint, oseccr] {
            assert_eq!(action(register, true), Action::Undefined);
        }
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
