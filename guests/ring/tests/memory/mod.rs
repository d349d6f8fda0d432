//! A channel's memory for tests, and its layout as `docs/channels.md` has it, in words of 8 bytes.

use std::cell::Cell;

use ring::atomic::AtomicU64;
use ring::{Doorbell, Receiver, Sender, Side, attach};

/// Words of a half's header.
pub const HEADER: usize = 32;
pub const HELLO: usize = 0;
pub const TAIL: usize = 8;
pub const SENDER_WAITS: usize = 9;
pub const HEAD: usize = 16;
pub const RECEIVER_WAITS: usize = 17;

/// Memory whose rings have so many words.
pub fn memory(capacity: usize) -> Vec<AtomicU64> {
    (0..2 * (HEADER + capacity)).map(|_| AtomicU64::new(0)).collect()
}

/// Counts how often it was rung.
#[derive(Clone, Copy)]
pub struct Bell<'a>(pub &'a Cell<u32>);

impl Doorbell for Bell<'_> {
    fn ring(&self) {
        self.0.set(self.0.get() + 1);
    }
}

/// What a side has.
pub type End<'a> = (Sender<'a, Bell<'a>>, Receiver<'a, Bell<'a>>);

/// Comes up on a side; `rings` counts what it rings.
pub fn come_up<'a>(words: &'a [AtomicU64], side: u32, rings: &'a Cell<u32>) -> End<'a> {
    attach(words, Side::from_number(side).unwrap(), Bell(rings)).unwrap()
}
