//! RAM that the program doesn't use: from its end to the end of the bank that it lies in. A guest may fill it, and look
//! later whether it still holds that.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine;
use crate::random::mix;

unsafe extern "C" {
    static __bss_end: u8;
}

/// The RAM behind the program, up to the bank's end, or to the device tree if that lies there.
pub fn free() -> &'static [AtomicU64] {
    let start = (&raw const __bss_end).addr() as u64;
    let bank = machine().ram.iter().find(|bank| bank.contains(start));
    let end = bank.map_or(start, |bank| bank.end());
    let tree = machine().tree.base;
    let end = if (start..end).contains(&tree) { tree } else { end };
    // SAFETY: the linker script ends the program at a page's start; behind it, RAM is mapped and nobody's, for the program
    // has no heap. Atomics may be shared.
    unsafe { core::slice::from_raw_parts(start as *const AtomicU64, (end - start) as usize / 8) }
}

/// What the word with this number holds after [`fill`].
fn pattern(seed: u64, number: usize) -> u64 {
    mix(seed ^ (number as u64) << 20)
}

/// Fills all of [`free`] with a pattern that follows from `seed`.
pub fn fill(seed: u64) {
    for (number, word) in free().iter().enumerate() {
        word.store(pattern(seed, number), Ordering::Relaxed);
    }
}

/// A word that isn't what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Where it is.
    pub address: usize,
    /// What it holds.
    pub is: u64,
    /// What it held.
    pub was: u64,
}

/// Whether `count` words from the one with this number on are as [`fill`] left them; words behind the end are. The first
/// that isn't.
pub fn compare(seed: u64, first: usize, count: usize) -> Result<(), Changed> {
    for (number, word) in free().iter().enumerate().skip(first).take(count) {
        let (is, was) = (word.load(Ordering::Relaxed), pattern(seed, number));
        if is != was {
            return Err(Changed { address: core::ptr::from_ref(word).addr(), is, was });
        }
    }
    Ok(())
}
