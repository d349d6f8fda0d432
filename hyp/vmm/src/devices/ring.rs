//! A ring of bytes of a fixed size, for what a guest has sent and nobody has fetched yet.

use alloc::boxed::Box;

/// The bytes that the ring holds; a power of two.
pub(super) const CAPACITY: u32 = 4096;

/// The positions count bytes written and read since the ring was made, and wrap; their difference is the fill level.
#[derive(Debug)]
pub(super) struct Ring {
    bytes: Box<[u8; CAPACITY as usize]>,
    written: u32,
    read: u32,
}

impl Ring {
    /// An empty ring.
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; CAPACITY as usize]), written: 0, read: 0 }
    }

    /// Bytes held, 0 to [`CAPACITY`].
    pub(super) const fn len(&self) -> u32 {
        self.written.wrapping_sub(self.read)
    }

    /// Takes the byte, or leaves it and says so when the ring is full.
    pub(super) fn push(&mut self, byte: u8) -> bool {
        if self.len() >= CAPACITY {
            return false;
        }
        if let Some(place) = self.bytes.get_mut(index(self.written)) {
            *place = byte;
        }
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Moves the oldest bytes to the front of `out`, as many as there are and as it takes. Returns how many.
    pub(super) fn pop_into(&mut self, out: &mut [u8]) -> usize {
        // The bytes lie in up to two pieces: to the end of the storage, and from its start.
        let first = self.copy_run(out);
        let second = out.get_mut(first..).map_or(0, |rest| self.copy_run(rest));
        first.saturating_add(second)
    }

    /// Moves bytes as far as they lie in one piece.
    fn copy_run(&mut self, out: &mut [u8]) -> usize {
        let from = index(self.read);
        let available = self.bytes.get(from..).unwrap_or(&[]);
        let count = available.len().min(self.len() as usize).min(out.len());
        if let (Some(to), Some(bytes)) = (out.get_mut(..count), available.get(..count)) {
            to.copy_from_slice(bytes);
        }
        self.read = self.read.wrapping_add(count as u32);
        count
    }
}

const fn index(position: u32) -> usize {
    (position & (CAPACITY - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_across_the_end_and_refuses_when_full() {
        let mut ring = Ring::new();
        let mut out = [0; CAPACITY as usize];
        // Positions close to where they wrap, and the storage's end in between.
        ring.written = u32::MAX - 5;
        ring.read = u32::MAX - 5;
        for n in 0..CAPACITY {
            assert!(ring.push(n as u8));
            assert_eq!(ring.len(), n + 1);
        }
        assert!(!ring.push(0));
        assert_eq!(ring.pop_into(&mut out[..10]), 10);
        assert_eq!(ring.pop_into(&mut out[10..]), CAPACITY as usize - 10);
        assert!(out.iter().enumerate().all(|(n, byte)| *byte == n as u8));
        assert_eq!((ring.len(), ring.pop_into(&mut out), ring.pop_into(&mut [])), (0, 0, 0));
    }
}
