//! ESR_EL2 decoded: what a guest did that brought it to EL2 (Arm ARM D24.2.40, "ESR_EL2").
//!
//! Only the fields that a decision needs are taken out; what to do about an exit is decided by the caller.
//! Hypervisor and guests show syndromes in the same words, so it is here.

// Every exit is decoded here.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod abort;
mod coprocessor;

use core::fmt;

use abort::FaultStatus;
pub use abort::{Abort, Access, Fault};
pub use coprocessor::{Coprocessor, CoprocessorAccess};

/// A syndrome register's value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Esr(pub u64);

/// Exception classes (ESR_ELx.EC) that EL2 takes from a guest or gives to one.
pub mod ec {
    /// Unknown reason: an UNDEFINED instruction.
    pub const UNKNOWN: u8 = 0x00;
    /// WFI, WFE, WFIT, WFET.
    pub const WFX: u8 = 0x01;
    /// MCR or MRC from AArch32, coprocessor 15.
    pub const CP15: u8 = 0x03;
    /// MCRR or MRRC from AArch32, coprocessor 15.
    pub const CP15_DOUBLE: u8 = 0x04;
    /// MCR or MRC from AArch32, coprocessor 14.
    pub const CP14: u8 = 0x05;
    /// LDC or STC from AArch32, coprocessor 14.
    pub const CP14_MEMORY: u8 = 0x06;
    /// Trapped access to SVE, Advanced SIMD or floating point.
    pub const FP: u8 = 0x07;
    /// VMRS from AArch32, of an ID register.
    pub const VMRS: u8 = 0x08;
    /// MCRR or MRRC from AArch32, coprocessor 14.
    pub const CP14_DOUBLE: u8 = 0x0c;
    /// Illegal execution state.
    pub const ILLEGAL_STATE: u8 = 0x0e;
    /// SMC from AArch32.
    pub const SMC32: u8 = 0x13;
    /// HVC from AArch64.
    pub const HVC64: u8 = 0x16;
    /// SMC from AArch64.
    pub const SMC64: u8 = 0x17;
    /// MSR, MRS or system instruction from AArch64.
    pub const SYSREG: u8 = 0x18;
    /// Instruction abort from a lower exception level.
    pub const INSTRUCTION_ABORT_LOWER: u8 = 0x20;
    /// Instruction abort from the same exception level.
    pub const INSTRUCTION_ABORT_SAME: u8 = 0x21;
    /// PC alignment fault.
    pub const PC_ALIGNMENT: u8 = 0x22;
    /// Data abort from a lower exception level.
    pub const DATA_ABORT_LOWER: u8 = 0x24;
    /// Data abort from the same exception level.
    pub const DATA_ABORT_SAME: u8 = 0x25;
    /// SP alignment fault.
    pub const SP_ALIGNMENT: u8 = 0x26;
    /// SError.
    pub const SERROR: u8 = 0x2f;
    /// BRK from AArch64.
    pub const BRK: u8 = 0x3c;
}

impl Esr {
    /// The exception class.
    #[inline]
    pub const fn class(self) -> u8 {
        (self.0 >> 26) as u8 & 0x3f
    }

    /// The instruction was 32 bits long (IL).
    #[inline]
    pub const fn is_32bit(self) -> bool {
        self.0 & 1 << 25 != 0
    }

    /// The instruction-specific syndrome.
    #[inline]
    pub const fn iss(self) -> u32 {
        self.0 as u32 & 0x1ff_ffff
    }

    /// The 16-bit immediate of HVC, SMC or BRK.
    #[inline]
    pub const fn immediate(self) -> u16 {
        self.0 as u16
    }

    /// Whether FAR_EL2 holds the address that the exception is about; other classes leave it as it was.
    #[inline]
    pub const fn far_is_valid(self) -> bool {
        match self.class() {
            ec::INSTRUCTION_ABORT_LOWER
            | ec::INSTRUCTION_ABORT_SAME
            | ec::DATA_ABORT_LOWER
            | ec::DATA_ABORT_SAME => !Abort(self).far_not_valid(),
            ec::PC_ALIGNMENT => true,
            _ => false,
        }
    }

    /// The bytes to step over to get past the instruction.
    #[inline]
    pub const fn instruction_bytes(self) -> u64 {
        if self.is_32bit() { 4 } else { 2 }
    }
}

/// How far an error has got that an SError or an external abort reports, where the CPU can tell (FEAT_RAS; Arm RAS System Architecture
/// 2.3, "PE error states").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It has been put right.
    Corrected,
    /// UEO: nothing has used what is wrong; the program could go on.
    Restartable,
    /// UER: nothing has used what is wrong; the program can go on once it has been put right.
    Recoverable,
    /// UEU: the program can't go on. What is wrong hasn't got any further than to it.
    Unrecoverable,
    /// UC: it may have got anywhere.
    Uncontainable,
    /// The CPU doesn't say.
    Unknown,
}

impl Esr {
    /// Of an SError that ESB has put into DISR_EL1, which holds this. The fields are the same (Arm ARM D19.2.38).
    pub const fn of_deferred(disr: u64) -> Self {
        Self((ec::SERROR as u64) << 26 | 1 << 25 | disr & 0x1ff_ffff)
    }

    /// Of an SError: how far the error has got (AET). Without FEAT_RAS no syndrome tells.
    pub const fn severity(self) -> Severity {
        const IDS: u32 = 1 << 24;
        const ASYNCHRONOUS: u32 = 0x11;
        let iss = self.iss();
        // Another status is "uncategorized", and IDS says that all of it is IMPLEMENTATION DEFINED.
        if iss & IDS != 0 || iss & 0x3f != ASYNCHRONOUS {
            return Severity::Unknown;
        }
        match iss >> 10 & 0b111 {
            0b000 => Severity::Uncontainable,
            0b001 => Severity::Unrecoverable,
            0b010 => Severity::Restartable,
            0b011 => Severity::Recoverable,
            0b110 => Severity::Corrected,
            _ => Severity::Unknown,
        }
    }
}

/// Whether a condition code of AArch32 holds for the flags in `pstate` (Arm ARM F2.3, "ConditionHolds").
fn condition_holds(condition: u64, pstate: u64) -> bool {
    let flag = |bit: u32| pstate >> bit & 1 != 0;
    let (n, z, c, v) = (flag(31), flag(30), flag(29), flag(28));
    let holds = match condition >> 1 & 0b111 {
        0 => z,
        1 => c,
        2 => n,
        3 => v,
        4 => c && !z,
        5 => n == v,
        6 => n == v && !z,
        _ => return true,
    };
    holds != (condition & 1 != 0)
}

impl fmt::Debug for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} ({self})", self.0)
    }
}

/// In words, for crash reports.
impl fmt::Display for Esr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class() {
            ec::UNKNOWN => "undefined instruction",
            ec::WFX => "trapped WFI or WFE",
            ec::CP15 | ec::CP15_DOUBLE => "trapped access to coprocessor 15",
            ec::CP14 | ec::CP14_MEMORY | ec::CP14_DOUBLE => "trapped access to coprocessor 14",
            ec::FP => "trapped FP, SIMD or SVE access",
            ec::VMRS => "trapped VMRS",
            ec::ILLEGAL_STATE => "illegal execution state",
            ec::HVC64 => "HVC",
            ec::SMC32 | ec::SMC64 => "SMC",
            ec::SYSREG => "trapped MSR, MRS or system instruction",
            ec::INSTRUCTION_ABORT_LOWER => "instruction abort from a lower level",
            ec::INSTRUCTION_ABORT_SAME => "instruction abort",
            ec::PC_ALIGNMENT => "misaligned PC",
            ec::DATA_ABORT_LOWER => "data abort from a lower level",
            ec::DATA_ABORT_SAME => "data abort",
            ec::SP_ALIGNMENT => "misaligned SP",
            ec::SERROR => "SError",
            ec::BRK => "BRK",
            _ => "exception class not known",
        };
        f.write_str(class)?;
        match self.class() {
            ec::INSTRUCTION_ABORT_LOWER | ec::INSTRUCTION_ABORT_SAME => {
                write!(f, ", {}", FaultStatus(Abort(*self).status()))
            }
            ec::DATA_ABORT_LOWER | ec::DATA_ABORT_SAME => {
                let abort = Abort(*self);
                let way = if abort.is_write() { "write" } else { "read" };
                write!(f, " on a {way}, {}", FaultStatus(abort.status()))
            }
            ec::SYSREG => write!(f, ", {}", SysregAccess::decode(*self)),
            ec::CP15 | ec::CP15_DOUBLE | ec::CP14 | ec::CP14_DOUBLE => match CoprocessorAccess::decode(*self)
            {
                Some(access) => write!(f, ", {access}"),
                None => Ok(()),
            },
            ec::HVC64 | ec::SMC64 | ec::BRK => write!(f, " #{:#x}", self.immediate()),
            _ => Ok(()),
        }
    }
}

impl Esr {
    /// Whether the class is one of those whose syndrome has a condition: [`condition_passes`](Self::condition_passes).
    pub const fn has_condition(self) -> bool {
        matches!(
            self.class(),
            ec::WFX
                | ec::CP15
                | ec::CP15_DOUBLE
                | ec::CP14
                | ec::CP14_MEMORY
                | ec::CP14_DOUBLE
                | ec::FP
                | ec::VMRS
                | ec::SMC32
        )
    }

    /// Whether an instruction of AArch32 that trapped passes its condition in the state `pstate` (SPSR_EL2). CPUs may trap one that
    /// doesn't, which then is no more than a NOP. For classes that [have one](Self::has_condition).
    pub fn condition_passes(self, pstate: u64) -> bool {
        const CV: u64 = 1 << 24;
        const ALWAYS: u64 = 0xe;
        let condition = if self.0 & CV != 0 {
            self.0 >> 20 & 0xf
        } else {
            // A T32 instruction whose syndrome doesn't say: by its IT block. ITSTATE[7:4] is the condition, and ITSTATE is
            // SPSR_EL2's bits 15:10 and 26:25.
            let it = pstate >> 8 & 0xfc | pstate >> 25 & 0b11;
            if it & 0xf == 0 { ALWAYS } else { it >> 4 }
        };
        condition_holds(condition, pstate)
    }

    /// Of class [`ec::WFX`]: a WFE or WFET, not a WFI or WFIT. With a timeout they may end early all the same.
    pub const fn is_wfe(self) -> bool {
        self.iss() & 1 != 0
    }
}

/// A trapped MSR, MRS or system instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysregAccess {
    /// Which register or instruction.
    pub register: Sysreg,
    /// The general-purpose register; 31 is XZR.
    pub rt: u8,
    /// MRS; otherwise MSR or a system instruction.
    pub read: bool,
}

/// The encoding of a system register or instruction: the ISS of a trapped access without Rt and direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysreg(u32);

impl Sysreg {
    /// From the fields of the instruction, as in `S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        Self(op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1)
    }

    /// op0, op1, CRn, CRm, op2.
    pub const fn fields(self) -> (u8, u8, u8, u8, u8) {
        let iss = self.0;
        (
            (iss >> 20) as u8 & 3,
            (iss >> 14) as u8 & 7,
            (iss >> 10) as u8 & 15,
            (iss >> 1) as u8 & 15,
            (iss >> 17) as u8 & 7,
        )
    }

    /// The encoding as a number, to match on.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Sysreg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (op0, op1, crn, crm, op2) = self.fields();
        write!(f, "S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

impl SysregAccess {
    /// From the syndrome of exception class [`ec::SYSREG`].
    #[inline]
    pub const fn decode(esr: Esr) -> Self {
        let iss = esr.iss();
        Self { register: Sysreg(iss & 0x3f_fc1e), rt: (iss >> 5) as u8 & 0x1f, read: iss & 1 != 0 }
    }
}

impl fmt::Display for SysregAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, rt) = (if self.read { "read" } else { "write" }, self.rt);
        write!(f, "{way} of {} with x{rt}", self.register)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn a_register_access_decodes_to_the_names_of_the_arm_arm() {
        // MSR ICC_SGI1R_EL1, x7: S3_0_C12_C11_5.
        let esr = Esr(0x18 << 26 | 1 << 25 | 3 << 20 | 5 << 17 | 12 << 10 | 7 << 5 | 11 << 1);
        let access = SysregAccess::decode(esr);
        assert_eq!(access.register, Sysreg::new(3, 0, 12, 11, 5));
        assert_eq!((access.rt, access.read), (7, false));
        assert_eq!(format!("{}", access.register), "S3_0_C12_C11_5");
    }

    /// Every condition for every state of the flags, by the table of Arm ARM F1-1.
    #[test]
    fn conditions_hold_as_the_table_says() {
        for flags in 0..16_u64 {
            let [v, c, z, n] = [0, 1, 2, 3].map(|bit| flags >> bit & 1 != 0);
            let holds = [
                z,
                !z,
                c,
                !c,
                n,
                !n,
                v,
                !v,
                c && !z,
                !c || z,
                n == v,
                n != v,
                !z && n == v,
                z || n != v,
                true,
                true,
            ];
            for (condition, holds) in (0..).zip(holds) {
                let pstate = flags << 28 | 0x30;
                // What the syndrome says comes first, whatever IT says.
                let said = Esr(0x03 << 26 | 1 << 24 | condition << 20);
                assert_eq!(
                    said.condition_passes(pstate | 0b11 << 25 | 0x3f << 10),
                    holds,
                    "{condition} {flags:#b}"
                );
                // An IT block of one instruction.
                let it = condition << 4 | 0b1000;
                let in_block = pstate | (it & 0b11) << 25 | (it >> 2) << 10;
                assert_eq!(Esr(0x03 << 26).condition_passes(in_block), holds, "IT {condition} {flags:#b}");
                assert!(Esr(0x03 << 26).condition_passes(pstate), "outside IT blocks");
            }
        }
    }

    /// Of all classes, those whose ISS has CV and COND (Arm ARM, ESR_EL2), as far as EL0 can come to them: SVC and HVC of AArch32 have
    /// none, and of SMC only the trapped one.
    #[test]
    fn conditions_are_with_what_aarch32_can_make_conditional() {
        let with: std::vec::Vec<u64> = (0..64).filter(|class| Esr(class << 26).has_condition()).collect();
        assert_eq!(with, [0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x0c, 0x13]);
    }

    #[test]
    fn syndromes_read_as_words() {
        assert_eq!(
            format!("{}", Esr(0x25 << 26 | 1 << 6 | 0x0f)),
            "data abort on a write, permission fault, level 3"
        );
        assert_eq!(format!("{}", Esr(0x17 << 26 | 3)), "SMC #0x3");
    }

    #[test]
    fn a_deferred_serror_has_the_syndrome_that_it_would_have_been_taken_with() {
        // A; AET UEU, EA, asynchronous.
        let esr = Esr::of_deferred(1 << 31 | 1 << 10 | 1 << 9 | 0x11);
        assert_eq!((esr.class(), esr.0), (ec::SERROR, 0xbe00_0611));
        assert_eq!(esr.severity(), Severity::Unrecoverable);
        assert_eq!(
            Esr::of_deferred(1 << 31 | 1 << 24).severity(),
            Severity::Unknown,
            "IMPLEMENTATION DEFINED"
        );
    }

    #[test]
    fn an_serror_says_how_far_the_error_has_got() {
        let severity = |iss: u64| Esr(0x2f << 26 | 1 << 25 | iss).severity();
        let all = [0, 1, 2, 3, 6].map(|aet| severity(aet << 10 | 0x11));
        use Severity::*;
        assert_eq!(all, [Uncontainable, Unrecoverable, Restartable, Recoverable, Corrected]);
        // Uncategorized; a status that is none; IMPLEMENTATION DEFINED; values of AET that mean nothing.
        for iss in [0, 1 << 10, 3 << 10 | 0x10, 1 << 24 | 1 << 10 | 0x11, 4 << 10 | 0x11, 7 << 10 | 0x11] {
            assert_eq!(severity(iss), Unknown, "{iss:#x}");
        }
    }

    #[test]
    fn far_belongs_to_aborts_and_a_misaligned_pc() {
        for class in [0x20, 0x21, 0x22, 0x24, 0x25] {
            assert!(Esr(class << 26).far_is_valid(), "{class:#x}");
        }
        for class in [ec::UNKNOWN, ec::HVC64, ec::SP_ALIGNMENT, ec::SERROR, ec::BRK] {
            assert!(!Esr(u64::from(class) << 26).far_is_valid(), "{class:#x}");
        }
        // An external abort with FnV.
        assert!(!Esr(0x25 << 26 | 1 << 10 | 0x10).far_is_valid());
    }
}
