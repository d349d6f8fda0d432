//! A line's text.

use core::ops::Deref;

/// Printable ASCII characters, `N` at most.
#[derive(Clone, Copy, Debug)]
pub struct Line<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Line<N> {
    /// No character.
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// Puts a printable ASCII character before the one at `place`; whether there was room.
    pub fn insert(&mut self, place: usize, character: u8) -> bool {
        if self.length == N || place > self.length || !matches!(character, b' '..=b'~') {
            return false;
        }
        self.bytes.copy_within(place..self.length, place + 1);
        self.bytes[place] = character;
        self.length += 1;
        true
    }

    /// Takes the characters from `from` to the one before `to` away.
    pub fn remove(&mut self, from: usize, to: usize) {
        let to = to.min(self.length);
        if from < to {
            self.bytes.copy_within(to..self.length, from);
            self.length -= to - from;
        }
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Deref for Line<N> {
    type Target = str;

    fn deref(&self) -> &str {
        // Only ASCII gets in.
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}
