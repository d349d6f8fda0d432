//! Optional instructions, to see that what the ID registers show really works. The guests themselves are built
//! without them.

use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

use aarch64_cpu::registers::{CPACR_EL1, ID_AA64ISAR0_EL1, ID_AA64ISAR1_EL1, ID_AA64PFR0_EL1, SCTLR_EL1};
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};

use crate::cpu;

global_asm!(include_str!("features.S"));

unsafe extern "C" {
    fn runtime_ldadd(address: *mut u64, addend: u64) -> u64;
    fn runtime_casal(address: *mut u64, expected: u64, new: u64) -> u64;
    safe fn runtime_crc32cx(accumulator: u32, data: u64) -> u32;
    fn runtime_pacia_autia(pointer: u64, modifier: u64, xor: u64, signed: *mut u64) -> u64;
    fn runtime_rndr(value: *mut u64) -> u64;
    fn runtime_ldapr(address: *const u64) -> u64;
    fn runtime_fp_load(registers: *const [u128; 32]);
    fn runtime_fp_store(registers: *mut [u128; 32]);
}

fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}

/// ID_AA64ISAR0_EL1.Atomic: LSE atomics.
pub fn has_lse() -> bool {
    field(ID_AA64ISAR0_EL1.get(), 20) >= 2
}

/// ID_AA64ISAR0_EL1.CRC32.
pub fn has_crc32() -> bool {
    field(ID_AA64ISAR0_EL1.get(), 16) >= 1
}

/// ID_AA64ISAR0_EL1.RNDR.
pub fn has_rndr() -> bool {
    field(ID_AA64ISAR0_EL1.get(), 60) >= 1
}

/// ID_AA64ISAR1_EL1.LRCPC.
pub fn has_lrcpc() -> bool {
    field(ID_AA64ISAR1_EL1.get(), 20) >= 1
}

/// Address authentication by any algorithm: ID_AA64ISAR1_EL1.APA, API or ID_AA64ISAR2_EL1.APA3.
pub fn has_pointer_authentication() -> bool {
    let isar1 = ID_AA64ISAR1_EL1.get();
    let isar2 = crate::sysreg::read(crate::sysreg::SysReg::new(3, 0, 0, 6, 2)).unwrap_or(0);
    field(isar1, 4) != 0 || field(isar1, 8) != 0 || field(isar2, 12) != 0
}

/// ID_AA64PFR0_EL1.FP and AdvSIMD: not 0xf.
pub fn has_simd() -> bool {
    let pfr0 = ID_AA64PFR0_EL1.get();
    field(pfr0, 16) != 0xf && field(pfr0, 20) != 0xf
}

/// ID_AA64PFR0_EL1.CSV2: branch targets of one context don't lead another one.
pub fn keeps_branch_targets_apart() -> bool {
    field(ID_AA64PFR0_EL1.get(), 56) >= 1
}

/// `LDADDAL`: adds and returns the old value. Only with [`has_lse`].
pub fn fetch_add(cell: &AtomicU64, addend: u64) -> u64 {
    // SAFETY: the cell is aligned and lives, and is atomic to everybody else.
    unsafe { runtime_ldadd(cell.as_ptr(), addend) }
}

/// `CASAL`: stores `new` if the cell holds `expected`, and returns what it held. Only with [`has_lse`].
pub fn compare_and_swap(cell: &AtomicU64, expected: u64, new: u64) -> u64 {
    // SAFETY: as above.
    unsafe { runtime_casal(cell.as_ptr(), expected, new) }
}

/// `CRC32CX`. Only with [`has_crc32`].
pub fn crc32c(accumulator: u32, data: u64) -> u32 {
    runtime_crc32cx(accumulator, data)
}

/// `MRS RNDR`: a random number, unless none was to be had. Only with [`has_rndr`].
pub fn random() -> Option<u64> {
    let mut value = 0;
    // SAFETY: writes the one word.
    let success = unsafe { runtime_rndr(&raw mut value) };
    (success == 1).then_some(value)
}

/// `LDAPR`. Only with [`has_lrcpc`].
pub fn load_acquire_pc(cell: &AtomicU64) -> u64 {
    // SAFETY: the cell is aligned and lives.
    unsafe { runtime_ldapr(cell.as_ptr()) }
}

/// Signs `pointer` by the A key for instructions, changes the bits in `tamper`, and authenticates it again: the
/// signed pointer and the result. SCTLR_EL1.EnIA is set for the time. Only with [`has_pointer_authentication`].
pub fn sign_and_authenticate(pointer: u64, modifier: u64, key: [u64; 2], tamper: u64) -> (u64, u64) {
    const EN_IA: u64 = 1 << 31;
    let mut signed = 0;
    let sctlr = SCTLR_EL1.get();
    // SAFETY: APIAKeyLo_EL1 and APIAKeyHi_EL1, which the program doesn't use otherwise.
    unsafe {
        asm!("msr s3_0_c2_c1_0, {}", "msr s3_0_c2_c1_1, {}", in(reg) key[0], in(reg) key[1], options(nostack));
    }
    SCTLR_EL1.set(sctlr | EN_IA);
    cpu::synchronize();
    // SAFETY: the function computes in registers and writes the one word.
    let result = unsafe { runtime_pacia_autia(pointer, modifier, tamper, &raw mut signed) };
    SCTLR_EL1.set(sctlr);
    cpu::synchronize();
    (signed, result)
}

/// The key set by [`sign_and_authenticate`], as it reads back.
pub fn instruction_key_a() -> [u64; 2] {
    let (low, high): (u64, u64);
    // SAFETY: reads the two registers.
    unsafe {
        asm!("mrs {}, s3_0_c2_c1_0", "mrs {}, s3_0_c2_c1_1", out(reg) low, out(reg) high, options(nostack))
    };
    [low, high]
}

/// Turns off EL1's own traps of FP, SVE and SME (CPACR_EL1.FPEN, ZEN, SMEN), or on, which come before those of a higher
/// level: a register of theirs then faults only if somebody above hides it.
pub fn untrap_vectors(untrap: bool) {
    const TRAPS: u64 = 3 << 16 | 3 << 20 | 3 << 24;
    let value = CPACR_EL1.get();
    CPACR_EL1.set(if untrap { value | TRAPS } else { value & !TRAPS });
    cpu::synchronize();
}

/// Lets this CPU use FP and SIMD registers, or not (CPACR_EL1.FPEN).
pub fn enable_simd(enable: bool) {
    CPACR_EL1.modify(if enable { CPACR_EL1::FPEN::TrapNothing } else { CPACR_EL1::FPEN::TrapEl0El1 });
    cpu::synchronize();
}

/// Loads q0 to q31. They keep their values, since nothing in the program uses them.
pub fn load_simd(registers: &[u128; 32]) {
    // SAFETY: reads the array; no compiled code holds anything in these registers.
    unsafe { runtime_fp_load(registers) }
}

/// The values of q0 to q31.
pub fn store_simd() -> [u128; 32] {
    let mut registers = [0; 32];
    // SAFETY: writes the array.
    unsafe { runtime_fp_store(&raw mut registers) };
    registers
}
