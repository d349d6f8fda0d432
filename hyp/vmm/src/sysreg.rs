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

/// op0 = 3, op1 = 0, CRn = 0: the fields that all ID registers share.
const ID_MASK: u32 = Sysreg::new(3, 7, 15, 0, 0).bits();
const ID_SPACE: u32 = Sysreg::new(3, 0, 0, 0, 0).bits();

/// What a trapped access to `register` does.
#[inline]
pub fn action(register: Sysreg, read: bool) -> Action {
    if register.bits() & ID_MASK == ID_SPACE {
        return id_space(register, read);
    }
    if is_debug(register) {
        return Action::Debug;
    }
    if let Some(timer) = physical_timer(register, read) {
        return Action::PhysicalTimer(timer);
    }
    if read { reads(register) } else { writes(register) }
}

fn physical_timer(register: Sysreg, read: bool) -> Option<PhysicalTimer> {
    match register.fields() {
        (3, 3, 14, 0, 1 | 5) if read => Some(PhysicalTimer::Counter),
        (3, 3, 14, 2, 0) => Some(PhysicalTimer::Left),
        (3, 3, 14, 2, 1) => Some(PhysicalTimer::Control),
        (3, 3, 14, 2, 2) => Some(PhysicalTimer::Deadline),
        _ => None,
    }
}

/// Breakpoints, watchpoints (DBGBVR, DBGBCR, DBGWVR, DBGWCR), MDSCR_EL1, claim tags and DBGAUTHSTATUS_EL1.
fn is_debug(register: Sysreg) -> bool {
    matches!(register.fields(), (2, 0, 0, _, 4..=7) | (2, 0, 0, 2, 2) | (2, 0, 7, 8 | 9 | 14, 6))
}

fn id_space(register: Sysreg, read: bool) -> Action {
    const REVIDR: Sysreg = Sysreg::new(3, 0, 0, 0, 6);
    if !read {
        return Action::Undefined;
    }
    match idregs::index(register) {
        Some(index) => Action::IdRegister(index),
        None if register == REVIDR => Action::Identity(Identity::Revidr),
        None => Action::Undefined,
    }
}

fn reads(register: Sysreg) -> Action {
    const ICC_SRE_EL1: Sysreg = Sysreg::new(3, 0, 12, 12, 5);
    const AIDR_EL1: Sysreg = Sysreg::new(3, 1, 0, 0, 7);
    const ACTLR_EL1: Sysreg = Sysreg::new(3, 0, 1, 0, 1);
    const MDRAR_EL1: Sysreg = Sysreg::new(2, 0, 1, 0, 0);
    const OSLSR_EL1: Sysreg = Sysreg::new(2, 0, 1, 1, 4);
    const OSDLR_EL1: Sysreg = Sysreg::new(2, 0, 1, 3, 4);
    const DBGPRCR_EL1: Sysreg = Sysreg::new(2, 0, 1, 4, 4);
    match register {
        // SRE, DFB, DIB: the GIC is reached by system registers, and by nothing else.
        ICC_SRE_EL1 => Action::Constant(0b111),
        AIDR_EL1 => Action::Identity(Identity::Aidr),
        // A guest has no business with the implementation's knobs; Linux saves and restores ACTLR_EL1 on some CPUs.
        ACTLR_EL1 => Action::Constant(0),
        // No debug ROM table.
        MDRAR_EL1 => Action::Constant(0),
        // OSLM = 0b10, the lock is implemented; OSLK = 0, it is open.
        OSLSR_EL1 => Action::Constant(1 << 3),
        OSDLR_EL1 | DBGPRCR_EL1 => Action::Constant(0),
        _ => Action::Undefined,
    }
}

fn writes(register: Sysreg) -> Action {
    const ICC_SRE_EL1: Sysreg = Sysreg::new(3, 0, 12, 12, 5);
    const ACTLR_EL1: Sysreg = Sysreg::new(3, 0, 1, 0, 1);
    const OSLAR_EL1: Sysreg = Sysreg::new(2, 0, 1, 0, 4);
    const OSDLR_EL1: Sysreg = Sysreg::new(2, 0, 1, 3, 4);
    const DBGPRCR_EL1: Sysreg = Sysreg::new(2, 0, 1, 4, 4);
    const ICC_DIR_EL1: Sysreg = Sysreg::new(3, 0, 12, 11, 1);
    const ICC_SGI1R_EL1: Sysreg = Sysreg::new(3, 0, 12, 11, 5);
    const ICC_ASGI1R_EL1: Sysreg = Sysreg::new(3, 0, 12, 11, 6);
    const ICC_SGI0R_EL1: Sysreg = Sysreg::new(3, 0, 12, 11, 7);
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
    const DC_ISW: Sysreg = Sysreg::new(1, 0, 7, 6, 2);
    const DC_CSW: Sysreg = Sysreg::new(1, 0, 7, 10, 2);
    const DC_CISW: Sysreg = Sysreg::new(1, 0, 7, 14, 2);
    match register {
        ICC_DIR_EL1 => Action::Deactivate,
        ICC_SGI1R_EL1 => Action::Sgi(SgiRegister::Sgi1r),
        ICC_ASGI1R_EL1 => Action::Sgi(SgiRegister::Asgi1r),
        ICC_SGI0R_EL1 => Action::Sgi(SgiRegister::Sgi0r),
        DC_ISW | DC_CSW | DC_CISW => Action::SetWay,
        SCTLR_EL1 => Action::StageOne(StageOne::Sctlr),
        TTBR0_EL1 => Action::StageOne(StageOne::Ttbr0),
        TTBR1_EL1 => Action::StageOne(StageOne::Ttbr1),
        TCR_EL1 => Action::StageOne(StageOne::Tcr),
        ESR_EL1 => Action::StageOne(StageOne::Esr),
        FAR_EL1 => Action::StageOne(StageOne::Far),
        AFSR0_EL1 => Action::StageOne(StageOne::Afsr0),
        AFSR1_EL1 => Action::StageOne(StageOne::Afsr1),
        MAIR_EL1 => Action::StageOne(StageOne::Mair),
        AMAIR_EL1 => Action::StageOne(StageOne::Amair),
        CONTEXTIDR_EL1 => Action::StageOne(StageOne::Contextidr),
        // The locks are open and stay open; power requests are the board's business.
        ICC_SRE_EL1 | ACTLR_EL1 | OSLAR_EL1 | OSDLR_EL1 | DBGPRCR_EL1 => Action::Ignored,
        _ => Action::Undefined,
    }
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
