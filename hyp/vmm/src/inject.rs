//! Exceptions that EL2 gives to a guest as the hardware would (Arm ARM D1.3, "Exception entry").
//!
//! Pure: from the state that the guest was in, what its registers become. The caller writes them.

use crate::esr::ec;

/// What an exception entry looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted {
    /// Where the guest was: ELR_EL2.
    pub pc: u64,
    /// Its PSTATE: SPSR_EL2.
    pub pstate: u64,
    /// VBAR_EL1.
    pub vbar: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
}

/// An exception to take to EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// The instruction is UNDEFINED.
    Undefined,
    /// An abort on a data access at this virtual address (none: FnV is set).
    DataAbort {
        /// FAR_EL1.
        far: Option<u64>,
        /// WnR: the access was a write.
        write: bool,
        /// CM: it was a cache maintenance instruction.
        cache_maintenance: bool,
        /// DFSC: what kind of abort it is.
        status: u8,
    },
    /// An abort on an instruction fetch at this virtual address.
    InstructionAbort {
        /// FAR_EL1.
        far: Option<u64>,
        /// IFSC: what kind of abort it is.
        status: u8,
    },
}

/// DFSC, IFSC: a synchronous external abort; with a level, one on the access to the table of that level of a stage-1 walk.
pub const fn external_abort(walk_level: Option<u8>) -> u8 {
    match walk_level {
        Some(level) => 0x14 | level & 3,
        None => 0x10,
    }
}

/// What the guest's registers become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The new PC.
    pub pc: u64,
    /// The new PSTATE.
    pub pstate: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception sets it.
    pub far: Option<u64>,
}

const PSTATE_AARCH32: u64 = 1 << 4;
const PSTATE_SP: u64 = 1;
const PSTATE_EL1H: u64 = 0b0101;
const PSTATE_DAIF: u64 = 0xf << 6;
const PSTATE_SSBS: u64 = 1 << 12;
const PSTATE_PAN: u64 = 1 << 22;
const PSTATE_DIT: u64 = 1 << 24;
const SCTLR_SPAN: u64 = 1 << 23;
const SCTLR_DSSBS: u64 = 1 << 44;

const IL: u64 = 1 << 25;
const FNV: u64 = 1 << 10;
const CM: u64 = 1 << 8;
const WNR: u64 = 1 << 6;

/// What the level of a guest's state makes of the vector: VBAR + 0x000 from EL1 with SP_EL0, 0x200 with SP_EL1, 0x400
/// from EL0 in AArch64, 0x600 in AArch32.
fn vector_offset(pstate: u64) -> u64 {
    let from_el0 = pstate & PSTATE_AARCH32 != 0 || pstate >> 2 & 3 == 0;
    match (from_el0, pstate & PSTATE_AARCH32 != 0) {
        (true, true) => 0x600,
        (true, false) => 0x400,
        (false, _) if pstate & PSTATE_SP != 0 => 0x200,
        (false, _) => 0,
    }
}

impl Exception {
    /// Takes the exception to EL1.
    pub fn take(self, state: Interrupted) -> Entry {
        let offset = vector_offset(state.pstate);
        let from_el0 = offset >= 0x400;
        let pan = if state.sctlr & SCTLR_SPAN == 0 { PSTATE_PAN } else { state.pstate & PSTATE_PAN };
        let ssbs = if state.sctlr & SCTLR_DSSBS != 0 { PSTATE_SSBS } else { 0 };
        // NZCV stay as they are; IL, SS, UAO, BTYPE and TCO are cleared; DIT is kept.
        let kept = state.pstate & (0xf << 28 | PSTATE_DIT);
        let (esr, far) = self.syndrome(from_el0);
        Entry {
            pc: state.vbar.wrapping_add(offset),
            pstate: kept | pan | ssbs | PSTATE_DAIF | PSTATE_EL1H,
            elr: state.pc,
            spsr: state.pstate,
            esr,
            far,
        }
    }

    fn syndrome(self, from_el0: bool) -> (u64, Option<u64>) {
        let class = |lower: u8, same: u8| u64::from(if from_el0 { lower } else { same }) << 26;
        let code = |status: u8| u64::from(status & 0x3f);
        let no_far = |far: Option<u64>| if far.is_none() { FNV } else { 0 };
        match self {
            Self::Undefined => (u64::from(ec::UNKNOWN) << 26 | IL, None),
            Self::DataAbort { far, write, cache_maintenance, status } => {
                let write = if write { WNR } else { 0 };
                let cm = if cache_maintenance { CM | WNR } else { 0 };
                let class = class(ec::DATA_ABORT_LOWER, ec::DATA_ABORT_SAME);
                (class | IL | no_far(far) | write | cm | code(status), far)
            }
            Self::InstructionAbort { far, status } => {
                let class = class(ec::INSTRUCTION_ABORT_LOWER, ec::INSTRUCTION_ABORT_SAME);
                (class | IL | no_far(far) | code(status), far)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VBAR: u64 = 0x8000;

    fn state(pstate: u64) -> Interrupted {
        Interrupted { pc: 0x1234, pstate, vbar: VBAR, sctlr: SCTLR_SPAN }
    }

    #[test]
    fn the_vector_depends_on_where_the_guest_was() {
        for (pstate, offset) in [(0b0100, 0), (0b0101, 0x200), (0b0000, 0x400), (0x10, 0x600)] {
            assert_eq!(Exception::Undefined.take(state(pstate)).pc, VBAR + offset, "{pstate:#x}");
        }
    }

    #[test]
    fn undefined_leaves_far_alone() {
        let entry = Exception::Undefined.take(state(0b0101));
        assert_eq!((entry.esr, entry.far), (1 << 25, None));
        assert_eq!((entry.elr, entry.spsr), (0x1234, 0b0101));
        assert_eq!(entry.pstate, 0x3c5);
    }

    #[test]
    fn an_external_abort_tells_level_way_and_address() {
        let abort = Exception::DataAbort {
            far: Some(0xdead),
            write: true,
            cache_maintenance: false,
            status: external_abort(None),
        };
        let from_el0 = abort.take(state(0));
        assert_eq!(from_el0.esr, 0x24 << 26 | 1 << 25 | 1 << 6 | 0x10);
        assert_eq!(from_el0.far, Some(0xdead));
        assert_eq!(abort.take(state(0b0101)).esr >> 26, 0x25);
        let walk = Exception::InstructionAbort { far: None, status: external_abort(Some(2)) };
        assert_eq!(walk.take(state(0b0101)).esr, 0x21 << 26 | 1 << 25 | 1 << 10 | 0x16);
    }

    /// It counts as a write, whatever the maintenance does (Arm ARM, ISS of a Data Abort).
    #[test]
    fn an_abort_of_cache_maintenance_says_so() {
        let status = external_abort(None);
        let abort = Exception::DataAbort { far: Some(0), write: false, cache_maintenance: true, status };
        assert_eq!(abort.take(state(0b0101)).esr, 0x25 << 26 | 1 << 25 | 1 << 8 | 1 << 6 | 0x10);
    }

    #[test]
    fn pan_is_set_unless_span_says_to_leave_it() {
        let mut interrupted = state(0b0101);
        assert_eq!(Exception::Undefined.take(interrupted).pstate & PSTATE_PAN, 0);
        interrupted.sctlr = SCTLR_DSSBS;
        let pstate = Exception::Undefined.take(interrupted).pstate;
        assert_eq!(pstate & (PSTATE_PAN | PSTATE_SSBS), PSTATE_PAN | PSTATE_SSBS);
    }

    #[test]
    fn flags_and_dit_survive_the_rest_is_cleared() {
        let all = 0xf << 28 | 1 << 25 | 1 << 24 | 1 << 23 | 1 << 21 | 1 << 20 | 3 << 10 | 0b0101;
        assert_eq!(Exception::Undefined.take(state(all)).pstate, 0xf << 28 | 1 << 24 | 0x3c5);
    }
}
