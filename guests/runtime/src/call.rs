//! HVC and SMC with all registers in view, for those who check what a call does to them. Ordinary calls are in
//! [`power`](crate::power) and [`smp`](crate::smp), Hanok's own in [`hanok`](crate::hanok). And two things with all registers in view
//! that are no calls: a long stretch of nothing, and a single access by any of them.

use core::arch::global_asm;

use abi::{FunctionId, Owner, hanok, psci};

use aarch64_cpu::registers::{DAIF, ELR_EL1, SPSR_EL1};
use tock_registers::interfaces::{Readable, Writeable};

use crate::cpu;
use crate::machine::{Conduit, machine};

global_asm!(include_str!("call.S"));

unsafe extern "C" {
    fn runtime_hvc_0(registers: *mut u64);
    fn runtime_smc_0(registers: *mut u64);
    fn runtime_hvc_1(registers: *mut u64);
    fn runtime_smc_1(registers: *mut u64);
    fn runtime_hvc_ffff(registers: *mut u64);
    fn runtime_smc_ffff(registers: *mut u64);
    fn runtime_hold(registers: *mut u64);
    fn runtime_single(registers: *mut u64);
    /// For each [`Single`] and register, two instructions.
    static runtime_singles: [[[u32; 2]; 31]; 3];

    /// The linker's: the first byte behind the program.
    static __bss_end: u8;
}

/// The immediates that there are instructions for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Immediate {
    /// What SMCCC asks for.
    Zero,
    /// The smallest that isn't it.
    One,
    /// The largest, 0xffff.
    Largest,
}

/// Whether the call, if it succeeds, goes on at an address of the caller's choice in RAM: past Rust's rules.
fn jumps(registers: &[u64; 31]) -> bool {
    let in_ram = |address| machine().ram.iter().any(|bank| bank.contains(address));
    let function = FunctionId::from_x0(registers[0]);
    if function.owner() != Owner::STANDARD_SECURE {
        return false;
    }
    match function.number() {
        // CPU_SUSPEND and CPU_ON have the entry in x2, CPU_DEFAULT_SUSPEND and SYSTEM_SUSPEND in x1.
        1 => registers[1] as u32 & psci::POWER_STATE_DOWN != 0 && in_ram(registers[2]),
        3 => in_ram(registers[2]),
        12 | 14 => in_ram(registers[1]),
        _ => false,
    }
}

/// Whether the call, if it succeeds, writes to memory of this program, past Rust's rules. The rest of RAM is nobody's.
fn writes(registers: &[u64; 31]) -> bool {
    let buffer = match FunctionId::from_x0(registers[0]) {
        hanok::CONSOLE_READ | hanok::BOARD_INFO => registers[1],
        hanok::VM_INFO | hanok::VM_CRASH => registers[2],
        hanok::VCPU_INFO | hanok::HISTORY => registers[3],
        _ => return false,
    };
    buffer < &raw const __bss_end as u64 && machine().ram.iter().any(|bank| bank.contains(buffer))
}

/// Calls with x0 to x30 as given and returns x0 to x30 as found afterwards; whether SMC is UNDEFINED the caller
/// learns through [`exceptions::catch`](crate::exceptions::catch). Panics for a function that would start code at
/// an address in RAM, which [`smp`](crate::smp) has, and for one that would write to this program's memory, which
/// [`hanok`](crate::hanok) has.
pub fn call(conduit: Conduit, immediate: Immediate, registers: [u64; 31]) -> [u64; 31] {
    assert!(!jumps(&registers), "a call that starts code elsewhere");
    assert!(!writes(&registers), "a call that writes to the program's memory");
    let mut registers = registers;
    let call = match (conduit, immediate) {
        (Conduit::Hvc, Immediate::Zero) => runtime_hvc_0,
        (Conduit::Smc, Immediate::Zero) => runtime_smc_0,
        (Conduit::Hvc, Immediate::One) => runtime_hvc_1,
        (Conduit::Smc, Immediate::One) => runtime_smc_1,
        (Conduit::Hvc, Immediate::Largest) => runtime_hvc_ffff,
        (Conduit::Smc, Immediate::Largest) => runtime_smc_ffff,
    };
    // SAFETY: the function saves what the procedure call standard asks for and touches the array alone; no call
    // that comes back changes memory of ours, see above.
    unsafe { call(registers.as_mut_ptr()) };
    registers
}

/// Calls `function` with three arguments and returns x0, sign-extended from w0 for a call of the 32-bit convention.
pub fn call3(conduit: Conduit, function: FunctionId, arguments: [u64; 3]) -> i64 {
    let mut registers = [0; 31];
    registers[0] = u64::from(function.as_u32());
    registers[1..4].copy_from_slice(&arguments);
    let x0 = call(conduit, Immediate::Zero, registers)[0];
    if function.is_64bit() { x0 as i64 } else { i64::from(x0 as i32) }
}

/// The flags in NZCV, where [`hold`] takes them from in x30.
pub const NZCV: u64 = 0xf << 28;

/// Counts x0 down to 0, two instructions at a time, with x1 to x30 as given and NZCV as in x30's bits 31 to 28. Returns
/// x1 to x30 as found afterwards, and NZCV in x0. The count must not be 0.
pub fn hold(registers: [u64; 31]) -> [u64; 31] {
    let mut registers = registers;
    // SAFETY: the function saves what the procedure call standard asks for, and touches the array alone.
    unsafe { runtime_hold(registers.as_mut_ptr()) };
    registers
}

/// An instruction that names one register, which may trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single {
    /// A load of 32 bits.
    Load,
    /// A store of 32 bits.
    Store,
    /// A read of ID_AA64ISAR0_EL1.
    ReadIsar0,
}

/// Executes the instruction for X`n`, 0 to 30, with x0 to x30 as given but that one more, X30, or where `n` is 30 X29, is the address `at`.
/// Returns x0 to x30 as found before and afterwards. IRQs are masked meanwhile. Panics for an address in RAM, and where `n` is larger.
pub fn single(what: Single, n: usize, at: u64, mut registers: [u64; 31]) -> [[u64; 31]; 2] {
    assert!(
        !machine().ram.iter().any(|bank| bank.contains(at)),
        "an access to memory by a single instruction"
    );
    registers[if n == 30 { 29 } else { 30 }] = at;
    let before = registers;
    cpu::without_irqs(|| {
        // SAFETY: the address of a place in the table, of which nothing is read.
        let instruction = unsafe { &raw const runtime_singles[what as usize][n] };
        ELR_EL1.set(instruction as u64);
        // What is masked now, at EL1 with its own stack pointer.
        SPSR_EL1.set(DAIF.get() | 0b0101);
        // SAFETY: as for `hold`. Nothing takes an exception before the ERET that these two are for, and the instruction accesses a
        // device's register alone.
        unsafe { runtime_single(registers.as_mut_ptr()) };
    });
    [before, registers]
}
