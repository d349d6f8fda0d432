//! What guests get by the True Random Number Generator interface (Arm DEN0098): how many bits they may ask for, and where these are.

use abi::trng::{INVALID_PARAMETERS, SUCCESS};

/// Bytes of the most that a call gives.
pub const BYTES: usize = 24;

/// A request for bits that can be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    bits: u8,
    /// By the 64-bit convention.
    is_64bit: bool,
}

/// X0 to X3 after a call that asks for none, or too many: the results that aren't are zero.
pub const INVALID: [u64; 4] = [INVALID_PARAMETERS as u64, 0, 0, 0];

impl Wanted {
    /// `TRNG_RND` asks for so many bits: one to three registers full.
    pub fn new(bits: u64, is_64bit: bool) -> Option<Self> {
        let wanted = Self { bits: u8::try_from(bits).ok()?, is_64bit };
        (wanted.bits != 0 && u32::from(wanted.bits) <= wanted.register_bits().saturating_mul(3))
            .then_some(wanted)
    }

    const fn register_bits(self) -> u32 {
        if self.is_64bit { u64::BITS } else { u32::BITS }
    }

    /// X0 to X3: the lowest bits are in X3 or W3, and those above the ones that were asked for are zero.
    pub fn answer(self, random: &[u8; BYTES]) -> [u64; 4] {
        let mut left = u32::from(self.bits);
        let mut registers = [0; 3];
        for (register, bytes) in registers.iter_mut().zip(random.as_chunks().0) {
            let bits = left.min(self.register_bits());
            left = left.saturating_sub(bits);
            let unwanted = u64::BITS.saturating_sub(bits);
            *register = u64::from_le_bytes(*bytes).checked_shr(unwanted).unwrap_or(0);
        }
        let [x3, x2, x1] = registers;
        [SUCCESS as u64, x1, x2, x3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits of the answer, lowest first, as the specification has them in W1 to W3 or X1 to X3.
    fn bits_of(answer: [u64; 4], width: u32) -> std::vec::Vec<bool> {
        let [status, x1, x2, x3] = answer;
        assert_eq!(status, 0);
        let bits = |register: u64| (0..width).map(move |bit| register >> bit & 1 != 0);
        [x3, x2, x1].into_iter().flat_map(bits).collect()
    }

    #[test]
    fn one_to_three_registers_full_may_be_asked_for() {
        for (is_64bit, most) in [(false, 96), (true, 192)] {
            for bits in (0..300).chain([1 << 8, 1 << 32, 1 << 32 | 1, u64::MAX]) {
                let wanted = Wanted::new(bits, is_64bit);
                assert_eq!(wanted.is_some(), bits >= 1 && bits <= most, "{bits} {is_64bit}");
            }
        }
    }

    #[test]
    fn as_many_bits_as_were_asked_for_and_zeros_above() {
        for (is_64bit, width) in [(false, 32), (true, 64)] {
            for wanted in 1..=width * 3 {
                let answer = Wanted::new(wanted.into(), is_64bit).unwrap().answer(&[0xff; BYTES]);
                assert!(answer.iter().all(|x| width == 64 || *x <= u64::from(u32::MAX)));
                let bits = bits_of(answer, width);
                assert!(bits.iter().enumerate().all(|(n, bit)| *bit == (n < wanted as usize)), "{wanted}");
            }
        }
    }

    #[test]
    fn each_register_has_bytes_of_its_own() {
        let random: [u8; BYTES] = core::array::from_fn(|n| (1 << (n % 8)) | (n as u8 / 8 * 3));
        let word = |n: usize| u64::from_le_bytes(random[n * 8..][..8].try_into().unwrap());
        let all = Wanted::new(192, true).unwrap().answer(&random);
        assert_eq!(all, [0, word(2), word(1), word(0)]);
    }
}
