//! Thirty-two interrupts as words, one bit each, so that registers are read and written, and interrupts chosen,
//! without a loop over interrupts.

/// How many bits of priority there are: what every virtual CPU interface has at least (32 levels, IHI 0069
/// 4.8.2). The low three bits of a priority byte are RAZ/WI.
pub(crate) const PRIORITY_BITS: usize = 5;

/// State of 32 consecutive interrupts.
///
/// An interrupt that is in a list register (`loaded`) may have changed there since it was last read: the guest
/// may have acknowledged it (pending to active), or deactivated it. `taken` and `active` are then what was true
/// when the register was last read or written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bank {
    /// Forwarding enabled (`ISENABLER`).
    pub enabled: u32,
    /// Pending by an edge, by register write or, for a mapped interrupt, because the physical interrupt is
    /// active and waits here; not yet in a list register.
    pub latch: u32,
    /// What `latch` said of an interrupt when it was put into a list register as pending.
    pub taken: u32,
    /// Active.
    pub active: u32,
    /// Mapped to a physical interrupt.
    pub mapped: u32,
    /// Level of the input line (not of mapped ones, whose line goes to the physical distributor).
    pub line: u32,
    /// In a list register of some loaded vCPU.
    pub loaded: u32,
    /// Group 1.
    pub group: u32,
    /// Edge-triggered.
    pub edge: u32,
    /// Mapped private interrupts that were made pending by register write: the physical distributor has them pending, if they haven't been
    /// taken since. That is this vCPU's alone, so it goes with it.
    pub forced: u32,
    /// The interrupts that exist; the others' bits are RAZ/WI.
    pub valid: u32,
    /// Bit planes of the priorities: bit i of `priority[k]` is bit `k` of interrupt i's five.
    pub priority: [u32; PRIORITY_BITS],
}

impl Bank {
    /// The interrupts that are enabled, and their group too: all ones in `groups` where it is.
    #[inline]
    pub fn allowed(&self, [group0, group1]: [u32; 2]) -> u32 {
        self.enabled & (self.group & group1 | !self.group & group0)
    }

    /// The pending state, as `ISPENDR` shows it.
    #[inline]
    pub fn pending(&self) -> u32 {
        self.latch | self.taken | (self.line & !self.edge)
    }

    /// Priority (0..=31) of the interrupt at `bit`.
    pub fn priority_of(&self, bit: u32) -> u8 {
        let mut priority = 0;
        for plane in self.priority.iter().rev() {
            priority = priority << 1 | u8::from(plane & bit != 0);
        }
        priority
    }

    /// The highest priority among `candidates` (0 the highest, at most 31), and of those that have it the one
    /// with the lowest number, as a bit. With no candidates the bit is 0.
    #[inline]
    pub fn highest(&self, mut candidates: u32) -> (u8, u32) {
        let mut priority = 0;
        for plane in self.priority.iter().rev() {
            let clear = candidates & !plane;
            priority = priority << 1 | u8::from(clear == 0);
            candidates = if clear == 0 { candidates } else { clear };
        }
        (priority, candidates & candidates.wrapping_neg())
    }

    /// `IPRIORITYR` for the four interrupts from `first` (a multiple of 4, below 32).
    pub fn priority_word(&self, first: u32) -> u32 {
        let mut value = 0;
        for plane in &self.priority {
            // A multiplication spreads four bits over the lowest bits of four bytes.
            let nibble = plane.wrapping_shr(first) & 0xf;
            value = value >> 1 | (nibble.wrapping_mul(0x0020_4081) & 0x0101_0101) << 7;
        }
        value
    }

    /// Write `IPRIORITYR` for the four interrupts from `first`, of which only those whose byte in `bytes` is not
    /// zero. Returns the interrupts written.
    pub fn set_priority_word(&mut self, first: u32, value: u32, bytes: u32) -> u32 {
        let chosen = gather(bytes & 0x0101_0101).wrapping_shl(first) & self.valid;
        let mut value = value >> 3;
        for plane in &mut self.priority {
            let bits = gather(value & 0x0101_0101).wrapping_shl(first);
            *plane = *plane & !chosen | bits & chosen;
            value >>= 1;
        }
        chosen
    }

    /// `ICFGR` for the sixteen interrupts from `first` (0 or 16): 0b10 is edge-triggered.
    pub fn config_word(&self, first: u32) -> u32 {
        let mut x = self.edge.wrapping_shr(first) & 0xffff;
        x = (x | x << 8) & 0x00ff_00ff;
        x = (x | x << 4) & 0x0f0f_0f0f;
        x = (x | x << 2) & 0x3333_3333;
        x = (x | x << 1) & 0x5555_5555;
        x << 1
    }

    /// Write `ICFGR` for the sixteen interrupts from `first`, of which only those in `writable` change. Returns
    /// the interrupts changed.
    pub fn set_config_word(&mut self, first: u32, value: u32, writable: u32) -> u32 {
        let mut x = value >> 1 & 0x5555_5555;
        x = (x | x >> 1) & 0x3333_3333;
        x = (x | x >> 2) & 0x0f0f_0f0f;
        x = (x | x >> 4) & 0x00ff_00ff;
        x = (x | x >> 8) & 0x0000_ffff;
        let writable = writable & self.valid & 0xffffu32.wrapping_shl(first);
        let changed = (self.edge ^ x.wrapping_shl(first)) & writable;
        self.edge ^= changed;
        changed
    }
}

/// The lowest bits of four bytes, side by side. Other bits of `value` must be clear.
fn gather(value: u32) -> u32 {
    value.wrapping_mul(0x0102_0408) >> 24 & 0xf
}

/// The numbers of the bits that are set in a word, lowest first.
pub(crate) struct Bits(pub u32);

impl Iterator for Bits {
    type Item = u32;
    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let n = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        Some(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn priorities_are_bytes(bytes in any::<[u8; 32]>(), candidates in any::<u32>()) {
            let mut bank = Bank { valid: !0, ..Bank::default() };
            for (i, chunk) in bytes.chunks(4).enumerate() {
                let word = u32::from_le_bytes(chunk.try_into().unwrap());
                prop_assert_eq!(bank.set_priority_word(i as u32 * 4, word, !0), 0xf << (i * 4));
            }
            for (i, chunk) in bytes.chunks(4).enumerate() {
                let word = u32::from_le_bytes(chunk.try_into().unwrap());
                prop_assert_eq!(bank.priority_word(i as u32 * 4), word & 0xf8f8_f8f8);
            }
            for (i, byte) in bytes.iter().enumerate() {
                prop_assert_eq!(bank.priority_of(1 << i), byte >> 3);
            }
            let best = (0..32).filter(|i| candidates >> i & 1 != 0).min_by_key(|&i| (bytes[i] >> 3, i));
            match best {
                Some(i) => prop_assert_eq!(bank.highest(candidates), (bytes[i] >> 3, 1 << i)),
                None => prop_assert_eq!(bank.highest(candidates).1, 0),
            }
        }

        #[test]
        fn one_priority_byte(before in any::<u32>(), value in any::<u8>(), byte in 0u32..4) {
            let mut bank = Bank { valid: !0, ..Bank::default() };
            bank.set_priority_word(8, before, !0);
            bank.set_priority_word(8, u32::from(value) << (8 * byte), 0xff << (8 * byte));
            let mut expected = before.to_le_bytes();
            expected[byte as usize] = value;
            prop_assert_eq!(bank.priority_word(8), u32::from_le_bytes(expected) & 0xf8f8_f8f8);
            prop_assert_eq!(bank.priority_word(4), 0);
            prop_assert_eq!(bank.priority_word(12), 0);
        }

        #[test]
        fn config_is_two_bits_each(edge in any::<u32>(), other in any::<u32>()) {
            let mut bank = Bank { valid: !0, edge: other, ..Bank::default() };
            for half in [0u32, 16] {
                let value = (0..16).map(|i| (edge >> (half + i) & 1) << (2 * i + 1)).sum::<u32>();
                bank.set_config_word(half, value | 0x5555_5555, !0);
                prop_assert_eq!(bank.config_word(half), value);
            }
            prop_assert_eq!(bank.edge, edge);
        }
    }

    #[test]
    fn bits_that_do_not_exist_stay_clear() {
        let mut bank = Bank { valid: 0x0fff_ffff, ..Bank::default() };
        bank.set_priority_word(28, !0, !0);
        bank.set_config_word(16, !0, !0);
        assert_eq!(bank.priority_word(28), 0);
        assert_eq!(bank.edge, 0x0fff_0000);
    }
}
