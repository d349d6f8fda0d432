//! Stepping over a trapped instruction, as its execution would: what the program counter and PSTATE become.

/// SPSR_EL2.M\[4\]: the guest was in AArch32.
pub const PSTATE_AARCH32: u64 = 1 << 4;
/// SPSR_EL2.SS: the software step that is left to take.
const SS: u64 = 1 << 21;
/// SPSR_EL2.BTYPE in AArch64: a branch target is expected.
const BTYPE: u64 = 0b11 << 10;
/// SPSR_EL2 in AArch32: IT\[1:0\] and IT\[7:2\].
const IT_LOW: u32 = 25;
const IT_HIGH: u32 = 10;

/// Behind the AArch64 instruction at `pc` in the state `pstate`.
#[inline]
pub const fn over_aarch64(pc: u64, pstate: u64) -> (u64, u64) {
    (pc.wrapping_add(4), pstate & !(SS | BTYPE))
}

/// Whether the state behind an AArch64 instruction in the state `pstate` is another one.
#[inline]
pub const fn changes(pstate: u64) -> bool {
    pstate & (SS | BTYPE) != 0
}

/// Behind the instruction at `pc` in the state `pstate`, whichever it is: `long` says that it has 32 bits (ESR_EL2.IL).
pub const fn over(pc: u64, pstate: u64, long: bool) -> (u64, u64) {
    if pstate & PSTATE_AARCH32 == 0 {
        return over_aarch64(pc, pstate);
    }
    let length = if long { 4 } else { 2 };
    (pc.wrapping_add(length) & 0xffff_ffff, advance_it(pstate & !SS))
}

/// ITSTATE behind an instruction of an IT block (Arm ARM F5.1, "ITAdvance").
const fn advance_it(pstate: u64) -> u64 {
    let it = pstate >> IT_LOW & 0b11 | (pstate >> IT_HIGH & 0x3f) << 2;
    let next = if it & 0b111 == 0 { 0 } else { it & 0b1110_0000 | it << 1 & 0b1_1111 };
    let cleared = pstate & !(0b11 << IT_LOW | 0x3f << IT_HIGH);
    cleared | (next & 0b11) << IT_LOW | (next >> 2) << IT_HIGH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_aarch64_all_instructions_have_32_bits() {
        assert_eq!(over(0x1000, SS | BTYPE | 0x3c5, true), (0x1004, 0x3c5));
        assert_eq!(over(u64::MAX - 3, 0x3c5, true), (0, 0x3c5));
        for bit in (0..64).map(|n| 1 << n).filter(|bit| bit & PSTATE_AARCH32 == 0) {
            assert_eq!(changes(bit), over(0, bit, true).1 != bit, "{bit:#x}");
        }
    }

    #[test]
    fn in_aarch32_they_have_16_or_32() {
        const USER_THUMB: u64 = 0x30;
        assert_eq!(over(0x1000, USER_THUMB, false), (0x1002, USER_THUMB));
        assert_eq!(over(0xffff_fffe, USER_THUMB | SS, true), (2, USER_THUMB));
    }

    /// ITTE EQ, and what is left of it behind each instruction.
    #[test]
    fn an_it_block_goes_on() {
        let with = |it: u64| 0x30 | (it & 0b11) << 25 | (it >> 2) << 10;
        let mut pstate = with(0b0000_0110);
        for it in [0b0000_1100, 0b0001_1000, 0] {
            pstate = over(0, pstate, false).1;
            assert_eq!(pstate, with(it), "{it:#b}");
        }
    }
}
