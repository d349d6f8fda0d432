//! System registers and single instructions by encoding, chosen at run time: the instruction is put together in a
//! small buffer and called. An UNDEFINED one is an answer.

use core::cell::UnsafeCell;

use spin::Mutex;

use crate::cache;
use crate::exceptions::{Fault, catch};

/// A system register by its encoding, as in `MRS x, S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysReg {
    /// 2 or 3.
    pub op0: u32,
    /// 0 to 7; 4 and above belong to EL2 and EL3, 3 to EL0.
    pub op1: u32,
    /// 0 to 15.
    pub crn: u32,
    /// 0 to 15.
    pub crm: u32,
    /// 0 to 7.
    pub op2: u32,
}

impl SysReg {
    /// The register with this encoding.
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        assert!(op0 >= 2 && op0 < 4 && op1 < 8 && crn < 16 && crm < 16 && op2 < 8);
        Self { op0, op1, crn, crm, op2 }
    }

    /// MSR or MRS of this register and x0.
    const fn instruction(self, read: bool) -> u32 {
        0xd500_0000
            | (read as u32) << 21
            | self.op0 << 19
            | self.op1 << 16
            | self.crn << 12
            | self.crm << 8
            | self.op2 << 5
    }

    /// Whether this is IMPLEMENTATION DEFINED space (Arm ARM D23.3.2: CRn 11 and 15).
    pub const fn is_implementation_defined(self) -> bool {
        self.op0 == 3 && (self.crn == 11 || self.crn == 15)
    }
}

impl core::fmt::Display for SysReg {
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        write!(f, "S{}_{}_C{}_C{}_{}", self.op0, self.op1, self.crn, self.crm, self.op2)
    }
}

#[repr(align(64))]
struct Code(UnsafeCell<[u32; 2]>);

// SAFETY: reached under `CODE`'s lock alone.
unsafe impl Send for Code {}

static CODE: Mutex<Code> = Mutex::new(Code(UnsafeCell::new([0; 2])));

const RET: u32 = 0xd65f_03c0;

/// Runs one instruction with `x0`, and returns x0 afterwards, or its fault.
///
/// # Safety
/// The instruction changes nothing but x0 to x17, and nothing that the program rests on: no memory, no control
/// flow, no register that controls translation or exceptions.
pub(crate) unsafe fn run(instruction: u32, x0: u64) -> Result<u64, Fault> {
    let code = CODE.lock();
    let at = code.0.get();
    // SAFETY: the lock makes us the only ones here.
    unsafe { at.write_volatile([instruction, RET]) };
    cache::publish_code(at as usize, 8);
    // SAFETY: the buffer holds a function that keeps to the procedure call standard, as our caller promised.
    let function = unsafe { core::mem::transmute::<*mut [u32; 2], extern "C" fn(u64) -> u64>(at) };
    let (value, fault) = catch(|| function(x0));
    fault.map_or(Ok(value), Err)
}

/// Reads a register. Panics for those whose reading changes state (interrupt acknowledge).
pub fn read(register: SysReg) -> Result<u64, Fault> {
    assert!(register.crn != 12 || register.crm != 12, "{register} may acknowledge an interrupt");
    // SAFETY: a read of any other register has no side effect on what the program rests on.
    unsafe { run(register.instruction(true), 0) }
}

/// Writes a register that EL1 must not have: one of EL2's or EL3's, an IMPLEMENTATION DEFINED or an optional one.
/// Panics for others, which have typed accessors.
pub fn write(register: SysReg, value: u64) -> Result<(), Fault> {
    // PMU (CRn 9), SVE, SME and MTE controls (S3_0_C1_C2_x), MTE status (S3_0_C5_C6_x).
    let optional = register.op0 == 3
        && (register.crn == 9
            || (register.op1 == 0 && register.crn == 1 && register.crm == 2)
            || (register.op1 == 0 && register.crn == 5 && register.crm == 6));
    let allowed = register.op1 >= 4 || register.is_implementation_defined() || optional;
    assert!(allowed, "{register} is a register of EL1");
    // SAFETY: EL1's translation and exceptions don't rest on these.
    unsafe { run(register.instruction(false), value) }.map(|_| ())
}

/// Instructions of optional extensions, each harmless where it is implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// SVE: `rdvl x0, #1`.
    Sve,
    /// SME: `rdsvl x0, #1`.
    Sme,
    /// MTE: `irg x0, x0`.
    Mte,
    /// FEAT_WFxT: `wfit x0`, with a time that has passed.
    Wfxt,
    /// FEAT_SB: `sb`.
    Sb,
    /// FEAT_FlagM: `cfinv`.
    Cfinv,
    /// FEAT_RNG: `mrs x0, rndr`.
    Rndr,
    /// AT S12E1R, an instruction of EL2.
    AtS12e1r,
    /// TLBI VMALLS12E1IS, an instruction of EL2.
    TlbiVmalls12e1is,
    /// `smc #0` with a function identifier that nobody has.
    Smc,
    /// `udf #0`.
    Udf,
    /// `brk #0`.
    Brk,
}

/// Runs the instruction with x0 = 0; x0 afterwards, or its fault.
pub fn probe(instruction: Probe) -> Result<u64, Fault> {
    let (word, x0) = match instruction {
        Probe::Sve => (0x04bf_5020, 0),
        Probe::Sme => (0x04bf_5820, 0),
        Probe::Mte => (0x9adf_1000, 0),
        Probe::Wfxt => (0xd503_1020, 0),
        Probe::Sb => (0xd503_30ff, 0),
        Probe::Cfinv => (0xd500_401f, 0),
        Probe::Rndr => (0xd53b_2400, 0),
        Probe::AtS12e1r => (0xd50c_7880, 0),
        Probe::TlbiVmalls12e1is => (0xd50c_83df, 0),
        Probe::Smc => (0xd400_0003, 0xffff_ffff),
        Probe::Udf => (0, 0),
        Probe::Brk => (0xd420_0000, 0),
    };
    // SAFETY: each changes x0 and flags at most, or invalidates TLB entries.
    unsafe { run(word, x0) }
}
