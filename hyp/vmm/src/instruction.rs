//! Loads and stores of AArch64, decoded: what an access does for which the CPU gives no syndrome (ISV = 0: pairs, write-back, FP
//! and SIMD registers). See Arm ARM C4.1.94, "Loads and Stores".
//!
//! Not decoded, so that the guest gets an abort: exclusives and atomics, for a device has neither a monitor nor the means, and the
//! architecture lets it answer so; loads and stores of structures (LD1 …); literals; those of extensions that guests aren't shown;
//! and all that is UNALLOCATED or CONSTRAINED UNPREDICTABLE, as a pair of one register twice, or write-back to a register that is
//! loaded or stored.

use crate::esr::Access;

/// The general-purpose register 31 as a base: the stack pointer.
pub const SP: u8 = 31;

/// A load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadStore {
    /// What it does with each register, or with half of one of 128 bits. Its own register number means nothing.
    pub access: Access,
    /// Which registers those are.
    pub bank: Bank,
    /// The registers' numbers; 31 is XZR, or V31.
    pub first: u8,
    /// The second one, of a pair.
    pub second: Option<u8>,
    /// The base register: [`SP`] is 31.
    pub base: u8,
    /// What is added to that.
    pub offset: Offset,
    /// When it is added.
    pub index: Index,
}

/// Which registers are loaded or stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bank {
    /// X0 to X30, and XZR.
    General,
    /// V0 to V31, of which the access has the lowest bits; a load clears the others.
    Vector,
    /// All 128 bits of V0 to V31, in two accesses each, the lower half first.
    WholeVector,
}

/// What is added to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offset {
    /// Bytes.
    Immediate(i64),
    /// A register, extended and then shifted left.
    Register {
        /// Which; 31 is XZR.
        register: u8,
        /// How it is extended.
        extend: Extend,
        /// Bits.
        shift: u8,
    },
}

/// How an index register is extended to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    /// UXTW: from its lower 32 bits, by zeros.
    Unsigned32,
    /// SXTW: from its lower 32 bits, by the sign.
    Signed32,
    /// LSL, SXTX: it has 64 bits.
    Whole,
}

/// When the offset is added to the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// For the access; the base stays.
    Offset,
    /// Before the access, which is at the new base.
    Pre,
    /// Behind the access, which is at the old base.
    Post,
}

impl LoadStore {
    /// Of an instruction; `None`: it isn't one of these.
    pub fn decode(word: u32) -> Option<Self> {
        let decoded = match (bits(word, 29, 27), bits(word, 25, 24)) {
            (0b101, 0b00 | 0b01) => pair(word),
            (0b111, 0b00) => match (bit(word, 21), bits(word, 11, 10)) {
                (false, form) => immediate9(word, form),
                (true, 0b10) => register_offset(word),
                (true, 0b00) => acquire_rcpc(word),
                (true, _) => None,
            },
            (0b111, 0b01) => immediate12(word),
            (0b001, 0b00) => ordered(word),
            (0b011, 0b01) => rcpc_unscaled(word),
            _ => None,
        };
        decoded.filter(|decoded| !decoded.is_unpredictable())
    }

    /// Whether what it does with its registers is CONSTRAINED UNPREDICTABLE.
    fn is_unpredictable(&self) -> bool {
        let is_load = !self.access.is_write();
        let one_twice = is_load && self.second == Some(self.first);
        let writes_back = self.index != Index::Offset && self.base != SP;
        let is_base = self.base == self.first || self.second == Some(self.base);
        one_twice || self.bank == Bank::General && writes_back && is_base
    }

    /// Bytes of each access.
    pub fn access_bytes(&self) -> u64 {
        1u64.wrapping_shl(self.access.size().into())
    }

    /// The accesses in the order of their addresses, which follow each other: a register, and whether it is the upper half of one
    /// of 128 bits.
    pub fn parts(&self) -> impl Iterator<Item = (u8, bool)> {
        let halves: &[bool] = if self.bank == Bank::WholeVector { &[false, true] } else { &[false] };
        let registers = [Some(self.first), self.second].into_iter().flatten();
        registers.flat_map(move |register| halves.iter().map(move |upper| (register, *upper)))
    }

    /// The address of the first access, and what the base register becomes, if anything. `base` is its value, and `index` gives that
    /// of a general-purpose register.
    pub fn place(&self, base: u64, index: impl FnOnce(u8) -> u64) -> (u64, Option<u64>) {
        let offset = match self.offset {
            Offset::Immediate(bytes) => bytes as u64,
            Offset::Register { register, extend, shift } => {
                let value = index(register);
                let value = match extend {
                    Extend::Unsigned32 => u64::from(value as u32),
                    Extend::Signed32 => i64::from(value as i32) as u64,
                    Extend::Whole => value,
                };
                value.wrapping_shl(shift.into())
            }
        };
        let sum = base.wrapping_add(offset);
        match self.index {
            Index::Offset => (sum, None),
            Index::Pre => (sum, Some(sum)),
            Index::Post => (base, Some(sum)),
        }
    }
}

const fn bits(word: u32, high: u32, low: u32) -> u32 {
    let mask = u32::MAX.wrapping_shr(31u32.wrapping_sub(high.wrapping_sub(low)));
    word.wrapping_shr(low) & mask
}

const fn bit(word: u32, at: u32) -> bool {
    bits(word, at, at) != 0
}

/// The bits from `high` to `low` as a signed number.
const fn signed(word: u32, high: u32, low: u32) -> i64 {
    let above = 31u32.wrapping_sub(high);
    let value = (word.wrapping_shl(above) as i32).wrapping_shr(above.wrapping_add(low));
    value as i64
}

/// V: FP and SIMD registers.
const fn is_vector(word: u32) -> bool {
    bit(word, 26)
}

/// What all forms have in common: registers, and no second one.
fn load_store(word: u32, access: Access, bank: Bank, offset: Offset, index: Index) -> LoadStore {
    let base = bits(word, 9, 5) as u8;
    LoadStore { access, bank, first: bits(word, 4, 0) as u8, second: None, base, offset, index }
}

/// An access to a vector register of 2 to the power of `scale` bytes.
fn vector(scale: u32, write: bool) -> (Access, Bank) {
    let bank = if scale == 4 { Bank::WholeVector } else { Bank::Vector };
    (Access::new(scale.min(3) as u8, write, false, true), bank)
}

/// LDP, STP, LDPSW, LDNP, STNP.
fn pair(word: u32) -> Option<LoadStore> {
    let (opc, load) = (bits(word, 31, 30), bit(word, 22));
    let index = match bits(word, 24, 23) {
        0b01 => Index::Post,
        0b11 => Index::Pre,
        _ => Index::Offset,
    };
    let non_temporal = bits(word, 24, 23) == 0;
    let (scale, (access, bank)) = match (is_vector(word), opc) {
        (true, 0..=2) => (opc.wrapping_add(2), vector(opc.wrapping_add(2), !load)),
        (false, 0) => (2, (Access::new(2, !load, false, false), Bank::General)),
        (false, 1) if load && !non_temporal => (2, (Access::new(2, false, true, true), Bank::General)),
        (false, 2) => (3, (Access::new(3, !load, false, true), Bank::General)),
        _ => return None,
    };
    let offset = Offset::Immediate(signed(word, 21, 15).wrapping_shl(scale));
    let second = Some(bits(word, 14, 10) as u8);
    Some(LoadStore { second, ..load_store(word, access, bank, offset, index) })
}

/// The access of a single register, by size and opc, and log2 of the register's bytes in memory.
fn single(word: u32) -> Option<(u32, Access, Bank)> {
    let (size, opc) = (bits(word, 31, 30), bits(word, 23, 22));
    if is_vector(word) {
        let scale = match (size, opc) {
            (_, 0 | 1) => size,
            (0, _) => 4,
            _ => return None,
        };
        let (access, bank) = vector(scale, opc & 1 == 0);
        return Some((scale, access, bank));
    }
    let access = match (size, opc) {
        (_, 0) => Access::new(size as u8, true, false, size == 3),
        (_, 1) => Access::new(size as u8, false, false, size == 3),
        (0..=2, 2) => Access::new(size as u8, false, true, true),
        (0..=1, 3) => Access::new(size as u8, false, true, false),
        // PRFM, which never faults, and nothing.
        _ => return None,
    };
    Some((size, access, Bank::General))
}

/// LDUR and STUR, LDTR and STTR, and those with write-back.
fn immediate9(word: u32, form: u32) -> Option<LoadStore> {
    let (_, access, bank) = single(word)?;
    let index = match form {
        0b01 => Index::Post,
        0b11 => Index::Pre,
        // Unprivileged ones are for general-purpose registers alone.
        0b10 if bank != Bank::General => return None,
        _ => Index::Offset,
    };
    Some(load_store(word, access, bank, Offset::Immediate(signed(word, 20, 12)), index))
}

/// LDR and STR with an unsigned offset, in units of what they access.
fn immediate12(word: u32) -> Option<LoadStore> {
    let (scale, access, bank) = single(word)?;
    let offset = i64::from(bits(word, 21, 10)).wrapping_shl(scale);
    Some(load_store(word, access, bank, Offset::Immediate(offset), Index::Offset))
}

/// LDR and STR with an index register.
fn register_offset(word: u32) -> Option<LoadStore> {
    let (scale, access, bank) = single(word)?;
    let extend = match bits(word, 15, 13) {
        0b010 => Extend::Unsigned32,
        0b110 => Extend::Signed32,
        0b011 | 0b111 => Extend::Whole,
        _ => return None,
    };
    let shift = if bit(word, 12) { scale as u8 } else { 0 };
    let offset = Offset::Register { register: bits(word, 20, 16) as u8, extend, shift };
    Some(load_store(word, access, bank, offset, Index::Offset))
}

/// LDAR and STLR.
fn ordered(word: u32) -> Option<LoadStore> {
    const FIXED: (u32, u32) = (0x3fbf_fc00, 0x089f_fc00);
    if word & FIXED.0 != FIXED.1 {
        return None;
    }
    let size = bits(word, 31, 30);
    let access = Access::new(size as u8, !bit(word, 22), false, size == 3);
    Some(load_store(word, access, Bank::General, Offset::Immediate(0), Index::Offset))
}

/// LDAPR.
fn acquire_rcpc(word: u32) -> Option<LoadStore> {
    const FIXED: (u32, u32) = (0x3fff_fc00, 0x38bf_c000);
    if word & FIXED.0 != FIXED.1 {
        return None;
    }
    let size = bits(word, 31, 30);
    let access = Access::new(size as u8, false, false, size == 3);
    Some(load_store(word, access, Bank::General, Offset::Immediate(0), Index::Offset))
}

/// LDAPUR and STLUR.
fn rcpc_unscaled(word: u32) -> Option<LoadStore> {
    if is_vector(word) || bit(word, 21) || bits(word, 11, 10) != 0 {
        return None;
    }
    let (_, access, bank) = single(word)?;
    Some(load_store(word, access, bank, Offset::Immediate(signed(word, 20, 12)), Index::Offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Where it is, with this base, and with 0xffff_ffff_8000_0001 in every index register.
    fn place(word: u32, base: u64) -> (u64, Option<u64>) {
        LoadStore::decode(word).unwrap().place(base, |_| 0xffff_ffff_8000_0001)
    }

    #[test]
    fn the_offset_is_added_when_the_instruction_says() {
        assert_eq!(place(0xb840_4549, 0x1000), (0x1000, Some(0x1004))); // ldr w9, [x10], #4
        assert_eq!(place(0xb85f_cd49, 0x1000), (0xffc, Some(0xffc))); // ldr w9, [x10, #-4]!
        assert_eq!(place(0x2940_ad49, 0x1000), (0x1004, None)); // ldp w9, w11, [x10, #4]
        assert_eq!(place(0xa8ff_2d49, u64::MAX), (u64::MAX, Some(u64::MAX - 16))); // ldp x9, x11, [x10], #-16
        assert_eq!(place(0xadbf_0c02, 0x1000), (0xfe0, Some(0xfe0))); // stp q2, q3, [x0, #-32]!
    }

    #[test]
    fn an_index_is_extended_and_then_shifted() {
        assert_eq!(place(0xb862_5820, 0), (0x2_0000_0004, None)); // ldr w0, [x1, w2, uxtw #2]
        assert_eq!(place(0xb862_d820, 0), (0xffff_fffe_0000_0004, None)); // ldr w0, [x1, w2, sxtw #2]
        assert_eq!(place(0xf862_7820, 8), (0xffff_fffc_0000_0010, None)); // ldr x0, [x1, x2, lsl #3]
        assert_eq!(place(0xf862_6820, 8), (0xffff_ffff_8000_0009, None)); // ldr x0, [x1, x2]
    }

    #[test]
    fn a_register_of_128_bits_takes_two_accesses() {
        let parts = |word| LoadStore::decode(word).unwrap().parts().collect::<Vec<_>>();
        assert_eq!(parts(0xad40_0c02), [(2, false), (2, true), (3, false), (3, true)]); // ldp q2, q3, [x0]
        assert_eq!(parts(0x6d40_0c02), [(2, false), (3, false)]); // ldp d2, d3, [x0]
        assert_eq!(parts(0x3dc0_0002), [(2, false), (2, true)]); // ldr q2, [x0]
        assert_eq!(parts(0x2940_2d49), [(9, false), (11, false)]); // ldp w9, w11, [x10]
    }

    #[test]
    fn what_a_device_cannot_answer_is_left() {
        for word in [
            0xc85f_fd49, // ldaxr x9, [x10]
            0xc80b_7d49, // stxr w11, x9, [x10]
            0xc87f_2d49, // ldxp x9, x11, [x10]
            0xf8eb_0149, // ldaddal x11, x9, [x10]
            0xc8e9_fd4b, // casal x9, x11, [x10]
            0x4c40_2000, // ld1 of four registers
            0x5800_0040, // ldr x0, a literal
            0xd50b_7e2a, // dc civac, x10
            0xb840_454a, // ldr w10, [x10], #4
            0x2940_2549, // ldp w9, w9, [x10]
            0xa8ff_254a, // ldp x10, x9, [x10], #-16
        ] {
            assert_eq!(LoadStore::decode(word), None, "{word:#x}");
        }
    }
}
