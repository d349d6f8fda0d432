//! Bytes in atomic words.

use crate::atomic::{AtomicU64, Ordering};

/// Bytes in a word.
const WORD: usize = 8;

/// The words from byte `offset` on, and the byte in the first of them.
fn from(words: &[AtomicU64], offset: usize) -> (&[AtomicU64], usize) {
    (words.get(offset / WORD..).unwrap_or_default(), offset % WORD)
}

/// How many bytes there are in the part of a word's bytes that starts at `skip`, `wanted` at most.
fn part(skip: usize, wanted: usize) -> usize {
    WORD.saturating_sub(skip).min(wanted)
}

/// Copies from byte `offset` of a message of `len` bytes; returns how many bytes.
pub(crate) fn read(words: &[AtomicU64], len: usize, offset: usize, into: &mut [u8]) -> usize {
    let count = len.saturating_sub(offset).min(into.len());
    let (words, mut skip) = from(words, offset);
    let mut rest = into.get_mut(..count).unwrap_or_default();
    for word in words {
        let now = part(skip, rest.len());
        let Some((now, later)) = core::mem::take(&mut rest).split_at_mut_checked(now) else { break };
        if now.is_empty() {
            break;
        }
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        now.iter_mut().zip(bytes.iter().skip(skip)).for_each(|(to, from)| *to = *from);
        (rest, skip) = (later, 0);
    }
    count.saturating_sub(rest.len())
}

/// Copies to byte `offset` of a message of `len` bytes; returns how many bytes.
pub(crate) fn write(words: &[AtomicU64], len: usize, offset: usize, from_bytes: &[u8]) -> usize {
    let count = len.saturating_sub(offset).min(from_bytes.len());
    let (words, mut skip) = from(words, offset);
    let mut rest = from_bytes.get(..count).unwrap_or_default();
    for word in words {
        let Some((now, later)) = rest.split_at_checked(part(skip, rest.len())) else { break };
        if now.is_empty() {
            break;
        }
        // A word that is written in part keeps its other bytes.
        let mut bytes =
            if now.len() == WORD { [0; WORD] } else { word.load(Ordering::Relaxed).to_ne_bytes() };
        bytes.iter_mut().skip(skip).zip(now).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        (rest, skip) = (later, 0);
    }
    count.saturating_sub(rest.len())
}
