//! The words of a channel's memory: one half for each side, which writes that half alone.
//!
//! A half is a header, whose words each have one writer and one kind of reader, and the ring's data. What a sender of the
//! other side reads is in one cache line, what its receiver reads in another.

use crate::atomic::{AtomicU64, Ordering};

/// The upper half of a greeting: "HNKC".
pub const MAGIC: u32 = 0x484e_4b43;
/// The version of this protocol, in a greeting.
pub const VERSION: u16 = 1;

/// Words in a cache line; loom's models are the smaller the fewer words there are.
const LINE: usize = if cfg!(loom) { 2 } else { 8 };
/// Words in a header.
const HEADER: usize = 4 * LINE;
const HELLO: usize = 0;
const TAIL: usize = LINE;
const SENDER_WAITS: usize = LINE + 1;
const HEAD: usize = 2 * LINE;
const RECEIVER_WAITS: usize = 2 * LINE + 1;

/// The fewest words that a channel's memory can have: then only empty messages fit.
pub const LEAST_WORDS: usize = 2 * (HEADER + 2);
/// The most words that a ring uses, so that positions fit in 32 bits.
const MOST: usize = 1 << 30;

/// One side's half.
#[derive(Clone, Copy)]
pub(crate) struct Half<'a> {
    header: &'a [AtomicU64; HEADER],
    /// The ring's words: at least 2, at most [`MOST`].
    pub data: &'a [AtomicU64],
}

impl<'a> Half<'a> {
    /// Both halves, side 0's first.
    pub fn split(words: &'a [AtomicU64]) -> Option<[Self; 2]> {
        let (first, second) = words.split_at_checked(words.len() / 2)?;
        Some([Self::new(first)?, Self::new(second.get(..first.len())?)?])
    }

    fn new(words: &'a [AtomicU64]) -> Option<Self> {
        let (header, data) = words.split_first_chunk()?;
        let data = data.get(..data.len().min(MOST))?;
        (data.len() >= 2).then_some(Self { header, data })
    }

    /// The [`Hello`] of the side.
    pub fn hello(&self) -> &'a AtomicU64 {
        &self.header[HELLO]
    }

    /// How far the side's sender has written, a [`Mark`].
    pub fn tail(&self) -> &'a AtomicU64 {
        &self.header[TAIL]
    }

    /// How far the side's receiver has read in the other half, a [`Mark`].
    pub fn head(&self) -> &'a AtomicU64 {
        &self.header[HEAD]
    }

    /// Whether the side's sender waits, a [`Mark`].
    pub fn sender_waits(&self) -> &'a AtomicU64 {
        &self.header[SENDER_WAITS]
    }

    /// Whether the side's receiver waits, a [`Mark`].
    pub fn receiver_waits(&self) -> &'a AtomicU64 {
        &self.header[RECEIVER_WAITS]
    }
}

/// Words of a header are little-endian.
pub(crate) fn load(word: &AtomicU64, ordering: Ordering) -> u64 {
    u64::from_le(word.load(ordering))
}

/// See [`load`].
pub(crate) fn store(word: &AtomicU64, value: u64, ordering: Ordering) {
    word.store(value.to_le(), ordering);
}

/// A side's greeting: what it speaks, and its generation.
pub(crate) struct Hello {
    pub generation: u16,
}

impl Hello {
    pub fn word(self) -> u64 {
        u64::from(MAGIC) << 32 | u64::from(VERSION) << 16 | u64::from(self.generation)
    }

    /// None if it is of another protocol, or no greeting.
    pub fn of(word: u64) -> Option<Self> {
        let generation = word as u16;
        (generation != 0 && word == Self { generation }.word()).then_some(Self { generation })
    }
}

/// A number with the generations that it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Who wrote it.
    pub from: u16,
    /// For whom, 0 for nobody.
    pub to: u16,
    pub value: u32,
}

impl Mark {
    pub fn load(word: &AtomicU64, ordering: Ordering) -> Self {
        let word = load(word, ordering);
        Self { from: (word >> 48) as u16, to: (word >> 32) as u16, value: word as u32 }
    }

    pub fn store(self, word: &AtomicU64, ordering: Ordering) {
        let value = u64::from(self.from) << 48 | u64::from(self.to) << 32 | u64::from(self.value);
        store(word, value, ordering);
    }
}
