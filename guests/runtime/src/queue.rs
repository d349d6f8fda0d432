//! Bytes from an interrupt handler to whoever waits for them on the same CPU.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

const SIZE: usize = 256;

/// One puts bytes in, one takes them out.
pub struct Queue {
    bytes: [AtomicU8; SIZE],
    /// Bytes ever put in, and ever taken out.
    put: AtomicUsize,
    taken: AtomicUsize,
}

impl Queue {
    /// An empty one.
    #[expect(clippy::new_without_default, reason = "it is only ever a static")]
    pub const fn new() -> Self {
        Self {
            bytes: [const { AtomicU8::new(0) }; SIZE],
            put: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
        }
    }

    /// Puts a byte in. What doesn't fit is lost, as on a terminal whose reader is too slow.
    pub fn put(&self, byte: u8) {
        let put = self.put.load(Ordering::Relaxed);
        if put - self.taken.load(Ordering::Acquire) < SIZE {
            self.bytes[put % SIZE].store(byte, Ordering::Relaxed);
            self.put.store(put + 1, Ordering::Release);
        }
    }

    /// Takes the first byte out.
    pub fn take(&self) -> Option<u8> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.put.load(Ordering::Acquire) {
            return None;
        }
        let byte = self.bytes[taken % SIZE].load(Ordering::Relaxed);
        self.taken.store(taken + 1, Ordering::Release);
        Some(byte)
    }
}
