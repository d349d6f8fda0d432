//! Instruction words (Arm ARM, C4.1).

use runtime::random::Random;

/// `nop`
pub const NOP: u32 = 0xd503_201f;
/// `isb`
pub const ISB: u32 = 0xd503_3fdf;
/// `dsb sy`
pub const DSB: u32 = 0xd503_3f9f;
/// `eret`
pub const ERET: u32 = 0xd69f_03e0;
/// `wfe`
pub const WFE: u32 = 0xd503_205f;
/// `wfi`
pub const WFI: u32 = 0xd503_207f;
/// `sev`
pub const SEV: u32 = 0xd503_209f;

/// MSR, MRS, SYS, SYSL and what else shares their space: op0 (0 to 3), op1, CRn, CRm and op2 in 16 bits, Rt.
pub const fn system(read: bool, encoding: u32, rt: u32) -> u32 {
    0xd500_0000 | (read as u32) << 21 | (encoding & 0xffff) << 5 | rt & 31
}

/// The 16 bits of [`system`].
pub const fn encoding(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// MSR of that register and Xt.
pub const fn msr(encoding: u32, rt: u32) -> u32 {
    system(false, encoding, rt)
}

/// MRS of that register and Xt.
pub const fn mrs(encoding: u32, rt: u32) -> u32 {
    system(true, encoding, rt)
}

/// `hvc`
pub const fn hvc(immediate: u32) -> u32 {
    0xd400_0002 | (immediate & 0xffff) << 5
}

/// `smc`
pub const fn smc(immediate: u32) -> u32 {
    0xd400_0003 | (immediate & 0xffff) << 5
}

/// `br`
pub const fn br(rn: u32) -> u32 {
    0xd61f_0000 | (rn & 31) << 5
}

/// `blr`
pub const fn blr(rn: u32) -> u32 {
    0xd63f_0000 | (rn & 31) << 5
}

/// Any load or store, with this base register.
pub fn memory(random: &mut Random, rn: u32) -> u32 {
    let word = random.word() as u32 & !(1 << 25) | 1 << 27;
    word & !(31 << 5) | (rn & 31) << 5
}

/// A plain load or store of one, two, four or eight bytes, signed or not, with Xt, and the address in Xn.
pub fn plain(random: &mut Random, rt: u32, rn: u32) -> u32 {
    let (size, opc) = (random.below(4) as u32, random.below(4) as u32);
    0x3900_0000 | size << 30 | opc << 22 | (rn & 31) << 5 | rt & 31
}

/// DC, IC and the like by address, and hints and exclusives that go with them, with Xt the address.
pub fn maintenance(random: &mut Random, rt: u32) -> u32 {
    const BY_ADDRESS: [u32; 12] = [
        // DC IVAC, ZVA, CVAC, CVAU, CVAP, CIVAC, GVA, GZVA.
        encoding(1, 0, 7, 6, 1),
        encoding(1, 3, 7, 4, 1),
        encoding(1, 3, 7, 10, 1),
        encoding(1, 3, 7, 11, 1),
        encoding(1, 3, 7, 12, 1),
        encoding(1, 3, 7, 14, 1),
        encoding(1, 3, 7, 4, 3),
        encoding(1, 3, 7, 4, 4),
        // IC IVAU.
        encoding(1, 3, 7, 5, 1),
        // AT S1E1R, S1E0W, S1E1RP.
        encoding(1, 0, 7, 8, 0),
        encoding(1, 0, 7, 8, 3),
        encoding(1, 0, 7, 9, 0),
    ];
    system(false, random.one_of(&BY_ADDRESS), rt)
}

/// Any word that is likely to be an instruction.
pub fn any(random: &mut Random) -> u32 {
    let word = random.word() as u32;
    let class = |class: u32| word & !(0xf << 25) | class << 25;
    match random.below(16) {
        0 => word,
        // Data processing, with an immediate and with registers.
        1 | 2 => class(0b1000 | random.below(2) as u32),
        3 => class(0b0101 | (random.below(2) as u32) << 3),
        // Branches, exceptions and system.
        4 => class(0b1010 | random.below(2) as u32),
        5 => 0xd400_0000 | word & 0xff_ffff,
        6..9 => system(word & 1 << 31 != 0, word >> 5, word),
        // Loads and stores.
        9..13 => class(0b0100 | word >> 25 & 0b1010),
        // SIMD and FP; SVE and SME.
        13 | 14 => class(0b0111 | (random.below(2) as u32) << 3),
        _ => class(random.below(4) as u32),
    }
}
