//! Every encoding of MRS, MSR (register), SYS and SYSL, for those who try all doors. Each runs with x0, and an UNDEFINED one
//! is an answer. Left out is what would take the ground from under the program: see [`KEPT`].

use core::fmt;

use crate::exceptions::Fault;
use crate::sysreg;

/// An encoding, as in `S<op0>_<op1>_C<crn>_C<crm>_<op2>`; op0 is 1 for SYS and SYSL, 2 and 3 for registers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Encoding(u16);

/// Which way: from the register (MRS, SYSL) or to it (MSR, SYS).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// MRS or SYSL: x0 is the result.
    Read,
    /// MSR or SYS: x0 is the operand.
    Write,
}

/// What isn't run, and why.
pub const KEPT: &[(Encoding, Way, &str)] = &[
    (Encoding::new(3, 0, 1, 0, 0), Way::Write, "SCTLR_EL1: the MMU is in use"),
    (Encoding::new(3, 0, 1, 0, 3), Way::Write, "SCTLR2_EL1: as SCTLR_EL1"),
    (Encoding::new(3, 0, 2, 0, 0), Way::Write, "TTBR0_EL1: its tables are in use"),
    (Encoding::new(3, 0, 2, 0, 2), Way::Write, "TCR_EL1: as TTBR0_EL1"),
    (Encoding::new(3, 0, 2, 0, 3), Way::Write, "TCR2_EL1: as TTBR0_EL1"),
    (Encoding::new(3, 0, 4, 2, 0), Way::Write, "SPSel: the stack is in use"),
    (Encoding::new(3, 3, 4, 2, 1), Way::Write, "DAIF: nobody waits for debug exceptions"),
    (Encoding::new(3, 0, 10, 2, 0), Way::Write, "MAIR_EL1: as TTBR0_EL1"),
    (Encoding::new(3, 0, 10, 2, 1), Way::Write, "MAIR2_EL1: as TTBR0_EL1"),
    (Encoding::new(3, 0, 12, 0, 0), Way::Write, "VBAR_EL1: faults are expected"),
    (Encoding::new(3, 0, 13, 0, 4), Way::Write, "TPIDR_EL1: has the CPU's index"),
    (Encoding::new(3, 0, 12, 8, 0), Way::Read, "ICC_IAR0_EL1: takes an interrupt"),
    (Encoding::new(3, 0, 12, 12, 0), Way::Read, "ICC_IAR1_EL1: takes an interrupt"),
];

impl Encoding {
    /// The encoding with these fields.
    pub const fn new(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        assert!(op0 >= 1 && op0 < 4 && op1 < 8 && crn < 16 && crm < 16 && op2 < 8);
        Self(op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (1 << 14..=u16::MAX).map(Self)
    }

    /// op0: whether this is an instruction or a register.
    pub fn op0(self) -> u16 {
        self.0 >> 14
    }

    /// op1: 4 and above belong to EL2 and EL3.
    pub fn op1(self) -> u16 {
        self.0 >> 11 & 7
    }

    /// Whether this is in the space of ID registers: op0 3, op1 0, 1 or 3, CRn 0.
    pub fn is_identification(self) -> bool {
        self.op0() == 3 && matches!(self.op1(), 0 | 1 | 3) && self.0 >> 7 & 15 == 0
    }

    /// Whether the program can do without that.
    pub fn may_run(self, way: Way) -> bool {
        !KEPT.iter().any(|(encoding, kept, _)| *encoding == self && *kept == way)
    }

    /// Runs it: x0 afterwards, or its fault. Panics if it [may not run](Self::may_run). Whoever writes registers of EL1's
    /// puts back what they held. SYS with an address in x0 is to have one in [`scratch`], or one that isn't mapped.
    pub fn run(self, way: Way, x0: u64) -> Result<u64, Fault> {
        assert!(self.may_run(way), "{self} is kept");
        // From op2 to op0, the fields are as in the instruction.
        let instruction = 0xd500_0000 | u32::from(way == Way::Read) << 21 | u32::from(self.0) << 5;
        // SAFETY: the program doesn't rest on what is left, as long as it is put back.
        unsafe { sysreg::run(instruction, x0) }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (crn, crm, op2) = (self.0 >> 7 & 15, self.0 >> 3 & 15, self.0 & 7);
        write!(f, "S{}_{}_C{crn}_C{crm}_{op2}", self.op0(), self.op1())
    }
}

/// The address of memory that holds nothing, for instructions that change what they are given the address of.
pub fn scratch() -> u64 {
    /// As long as the largest block that DC ZVA zeroes.
    #[repr(align(4096))]
    struct Scratch([core::sync::atomic::AtomicU64; 512]);
    static SCRATCH: Scratch = Scratch([const { core::sync::atomic::AtomicU64::new(0) }; 512]);
    core::ptr::from_ref(&SCRATCH.0).addr() as u64
}
