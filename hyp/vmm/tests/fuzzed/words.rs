//! Numbers from a fuzzer's bytes.

/// Bytes that numbers are taken from; behind the last one there are zeros.
pub struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    /// Of all these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there is nothing left.
    #[allow(dead_code, reason = "not each target asks")]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    #[allow(dead_code, reason = "not each target wants one")]
    pub fn byte(&mut self) -> u8 {
        self.number(1) as u8
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.number(8)
    }

    fn number(&mut self, size: usize) -> u64 {
        let (now, rest) = self.0.split_at(size.min(self.0.len()));
        self.0 = rest;
        now.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}
