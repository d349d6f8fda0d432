//! Positions in a ring, and records.
//!
//! A position counts words from 0 up to twice the capacity, where it begins again at 0: so an empty ring, where both
//! positions are the same, is told from a full one, where they are the capacity apart; and any capacity will do.
//!
//! A record is a header and the message's bytes, rounded up to whole words. It is never cut in two: where the words up
//! to the ring's end are too few, they are a record of padding, and the message starts at word 0. No message takes
//! more than half of the ring, so in an empty one there is always room.

use crate::atomic::{AtomicU64, Ordering};
use crate::memory::{load, store};

/// The upper half of a record's header; the lower is the message's length in bytes.
const MESSAGE: u32 = 1;
const PADDING: u32 = 2;
/// Bytes in a word.
pub(crate) const WORD: u32 = 8;

/// The data of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    data: &'a [AtomicU64],
    capacity: u32,
}

/// Where a message is to be written.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The words for its bytes.
    pub payload: &'a [AtomicU64],
    header: &'a AtomicU64,
    /// Where the padding before it starts, if there is any.
    padding: Option<&'a AtomicU64>,
    /// The position behind it.
    pub end: u32,
}

/// A message that is there.
#[derive(Clone, Copy)]
pub(crate) struct Record<'a> {
    /// The words with its bytes.
    pub payload: &'a [AtomicU64],
    /// Its length in bytes.
    pub len: u32,
    /// The position behind it.
    pub end: u32,
}

impl<'a> Ring<'a> {
    /// `data` has 2 to 2^30 words.
    pub fn new(data: &'a [AtomicU64]) -> Self {
        Self { data, capacity: u32::try_from(data.len()).unwrap_or(0) }
    }

    /// Words in the ring.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// The longest message, in bytes.
    pub fn max_len(&self) -> usize {
        (self.capacity / 2).saturating_sub(1).saturating_mul(WORD) as usize
    }

    /// Words from `from` on to `to`: none if either isn't a position, or they are more than the ring has.
    pub fn distance(&self, from: u32, to: u32) -> Option<u32> {
        let turn = self.capacity.checked_mul(2)?;
        if from >= turn || to >= turn {
            return None;
        }
        let distance =
            if to >= from { to.checked_sub(from) } else { to.checked_add(turn)?.checked_sub(from) };
        distance.filter(|&distance| distance <= self.capacity)
    }

    /// The place for a message of `len` bytes at `tail`, if `free` words are enough for it.
    pub fn place(&self, tail: u32, free: u32, len: u32) -> Option<Place<'a>> {
        let words = len.div_ceil(WORD);
        let here = self.up_to_end(tail);
        let left = u32::try_from(here.len()).ok()?;
        let padding = if words < left { 0 } else { left };
        let needed = padding.checked_add(words)?.checked_add(1)?;
        if needed > free {
            return None;
        }
        let (header, rest) = self.up_to_end(self.advance(tail, padding)?).split_first()?;
        Some(Place {
            payload: rest.get(..words as usize)?,
            header,
            padding: here.first().filter(|_| padding > 0),
            end: self.advance(tail, needed)?,
        })
    }

    /// The message at `head`, if there is a sound one in the `available` words from there on.
    pub fn record(&self, head: u32, available: u32) -> Option<Record<'a>> {
        let here = self.up_to_end(head);
        let (mut kind, mut len) = kind_and_len(here.first()?);
        let mut padding = 0;
        // One padding at most: no message follows a second one.
        if kind == PADDING {
            padding = u32::try_from(here.len()).ok()?;
            (kind, len) = kind_and_len(self.data.first()?);
        }
        let words = len.div_ceil(WORD);
        let needed = padding.checked_add(words)?.checked_add(1)?;
        if kind != MESSAGE || needed > available || len as usize > self.max_len() {
            return None;
        }
        let (_, rest) = self.up_to_end(self.advance(head, padding)?).split_first()?;
        Some(Record { payload: rest.get(..words as usize)?, len, end: self.advance(head, needed)? })
    }

    /// The position `words` behind `from`.
    fn advance(&self, from: u32, words: u32) -> Option<u32> {
        let turn = self.capacity.checked_mul(2)?;
        let to = from.checked_add(words)?;
        if to < turn { Some(to) } else { to.checked_sub(turn) }
    }

    /// The words from a position up to the ring's end; of a position there is at least one.
    fn up_to_end(&self, position: u32) -> &'a [AtomicU64] {
        let offset = position.checked_sub(self.capacity).unwrap_or(position);
        self.data.get(offset as usize..).unwrap_or_default()
    }
}

impl Place<'_> {
    /// Writes the headers, of padding too.
    pub fn write_headers(&self, len: u32) {
        if let Some(padding) = self.padding {
            store(padding, u64::from(PADDING) << 32, Ordering::Relaxed);
        }
        store(self.header, u64::from(MESSAGE) << 32 | u64::from(len), Ordering::Relaxed);
    }
}

/// Read once: it may change at any time.
fn kind_and_len(header: &AtomicU64) -> (u32, u32) {
    let header = load(header, Ordering::Relaxed);
    ((header >> 32) as u32, header as u32)
}
