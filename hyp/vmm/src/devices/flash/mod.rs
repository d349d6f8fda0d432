//! A bank of NOR flash as QEMU's `virt` has it: two x16 chips with Intel's command set side by side on a bus of 32 bits, in
//! sectors of 256 KiB.
//!
//! Here are the chips' states, and nothing of what they hold: that is memory of the VM's, which the guest reads without an exit
//! as long as both chips show it. What they answer otherwise comes from here, and what stores do to it goes out through [`Cells`];
//! but for a sector that is to be erased, which the caller does a piece at a time ([`Bank::erase`]), before it lets the guest have
//! its next access. So the guest never sees the chips busy.
//!
//! Behind what can be written, sectors are locked for ever.

mod chip;
mod query;

use chip::Chip;

/// Bytes of a bank.
pub const BANK: u32 = 64 << 20;
/// Bytes of a sector, half of them in each chip: what is erased at once.
pub const SECTOR: u32 = 256 << 10;
/// Words of 32 bits that a buffered program takes at the most: as many words of 16 bits in each chip.
pub const BUFFER: usize = 32;

/// Bytes on the bus at once.
const WORD: u32 = 4;
/// The half of the bus that a chip has, in bits.
const LANE: u32 = 16;

/// What a bank holds.
pub trait Cells {
    /// Programs the words of 32 bits from `offset` on, a multiple of 4: of what they hold, the bits stay that are set here too.
    /// They lie in one sector, and are [`BUFFER`] at the most. Whether that could be done.
    fn program(&mut self, offset: u32, kept: &[u32]) -> bool;
}

/// What a load gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What chips say that don't show what they hold; 0 in the others' lanes.
    pub said: u64,
    /// The lanes of chips that show what they hold: of these bits, those that the bank holds belong to the answer.
    pub held: u64,
}

/// A part of a sector that is being erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erase {
    /// Where what is left begins: bytes from the start of the bank, a multiple of 8.
    pub offset: u32,
    /// Bytes that are left, not 0.
    pub left: u32,
    /// The bits of each word of 32 bits that are to be set: those of one chip, or of both.
    pub lanes: u32,
}

/// A bank's chips.
#[derive(Clone, Debug)]
pub struct Bank {
    chips: [Chip; 2],
    /// Bytes that can be written, from the start on; whole sectors.
    writable: u32,
    erase: Option<Erase>,
}

impl Bank {
    /// A bank after power-up, of which the first `writable` bytes can be written, in whole sectors.
    pub const fn new(writable: u32) -> Self {
        Self { chips: [Chip::NEW; 2], writable: writable & !SECTOR.wrapping_sub(1), erase: None }
    }

    /// As after power-up. A sector that was being erased stays as far as that had come.
    pub fn reset(&mut self) {
        *self = Self::new(self.writable);
    }

    /// Both chips show what they hold.
    pub fn shows_cells(&self) -> bool {
        self.chips.iter().all(Chip::shows_cells)
    }

    /// What is to be erased before the next access.
    pub const fn erase(&self) -> Option<Erase> {
        self.erase
    }

    /// So many bytes of it are, a multiple of 8.
    pub fn erased(&mut self, bytes: u32) {
        self.erase = self.erase.and_then(|erase| {
            let left = erase.left.checked_sub(bytes).filter(|left| *left > 0)?;
            Some(Erase { offset: erase.offset.saturating_add(bytes), left, ..erase })
        });
    }

    /// A load of `size` bytes, 1, 2, 4 or 8, at `offset`. `None`: it isn't aligned, or reaches out of the bank, which no bus
    /// carries to the chips in one piece.
    pub fn read(&self, offset: u32, size: u32) -> Option<Answer> {
        is_one(offset, size).then_some(())?;
        let [low, high] = [0, 1].map(|number| {
            let at = word_number(offset).wrapping_add(number);
            self.read_word(at)
        });
        let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let shift = (offset & (WORD - 1)) << 3;
        let bits = 64_u32.saturating_sub(size << 3);
        let cut = |value: u64| value.wrapping_shr(shift).wrapping_shl(bits).wrapping_shr(bits);
        Some(Answer { said: cut(join(low.0, high.0)), held: cut(join(low.1, high.1)) })
    }

    /// What the chips say at a word's number, and the lanes of those that show what they hold.
    fn read_word(&self, at: u32) -> (u32, u32) {
        let locked = !self.is_writable(at);
        let mut word = (0, 0);
        for (shift, chip) in LANES.into_iter().zip(&self.chips) {
            match chip.read(at, locked) {
                Some(said) => word.0 |= u32::from(said).wrapping_shl(shift),
                None => word.1 |= 0xffff_u32.wrapping_shl(shift),
            }
        }
        word
    }

    /// A store of `size` bytes, as for [`read`](Self::read). `false`: it isn't one that reaches the chips.
    ///
    /// Not while something is to be erased.
    pub fn write(&mut self, offset: u32, size: u32, value: u64, cells: &mut impl Cells) -> bool {
        if !is_one(offset, size) {
            return false;
        }
        // Lines that nobody drives are high.
        let shift = (offset & (WORD - 1)) << 3;
        let unused = 32_u32.saturating_sub(size.min(WORD) << 3);
        let driven = u32::MAX.wrapping_shl(unused).wrapping_shr(unused).wrapping_shl(shift);
        self.write_word(word_number(offset), (value as u32).wrapping_shl(shift) | !driven, driven, cells);
        if size > WORD {
            let high = (value >> 32) as u32;
            self.write_word(word_number(offset).wrapping_add(1), high, u32::MAX, cells);
        }
        true
    }

    /// A chip sees a store where any of its lines are driven.
    fn write_word(&mut self, at: u32, word: u32, driven: u32, cells: &mut impl Cells) {
        let locked = !self.is_writable(at);
        for (shift, chip) in LANES.into_iter().zip(&mut self.chips) {
            let lane = 0xffff_u32.wrapping_shl(shift);
            if driven & lane == 0 {
                continue;
            }
            let program = |at: u32, words: &[u16]| {
                let mut kept = [u32::MAX; BUFFER];
                for (kept, word) in kept.iter_mut().zip(words) {
                    *kept = u32::from(*word).wrapping_shl(shift) | !lane;
                }
                kept.get(..words.len()).is_some_and(|kept| cells.program(at.saturating_mul(WORD), kept))
            };
            if chip.write(at, word.wrapping_shr(shift) as u16, locked, program) == chip::Next::Erase {
                // Two chips that erase at once do so in one sector: it is one store's.
                let lanes = self.erase.map_or(0, |erase| erase.lanes) | lane;
                let offset = at.saturating_mul(WORD) & !SECTOR.wrapping_sub(1);
                self.erase = Some(Erase { offset, left: SECTOR, lanes });
            }
        }
    }

    /// Whether the sector that the word is in can be written.
    const fn is_writable(&self, at: u32) -> bool {
        at < self.writable / WORD
    }
}

/// Where the chips' lanes begin.
const LANES: [u32; 2] = [0, LANE];

/// The number of the word that an offset is in, which is the address that the chips see.
const fn word_number(offset: u32) -> u32 {
    offset / WORD
}

/// Whether an access is one for the bus: aligned, and in the bank.
const fn is_one(offset: u32, size: u32) -> bool {
    matches!(size, 1 | 2 | 4 | 8) && offset & size.wrapping_sub(1) == 0 && offset < BANK
}
