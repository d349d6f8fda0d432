//! What a CPU can tell of the time that it is given.

use runtime::stolen_time::{Sample, StolenTime};
use runtime::timer;

/// The times of the CPU that makes this, from then on.
pub struct Times {
    source: StolenTime,
    start: Sample,
}

impl Times {
    /// `None` if nobody tells of stolen time.
    pub fn new() -> Option<Self> {
        let source = StolenTime::find()?;
        let start = source.read();
        Some(Self { source, start })
    }

    /// How long it ran, and how much time has passed, in microseconds.
    pub fn passed(&self) -> (u64, u64) {
        let Sample { now, stolen } = self.source.read();
        let passed = (now - self.start.now) * 1_000_000 / timer::frequency();
        let stolen = (stolen - self.start.stolen) / 1000;
        (passed.saturating_sub(stolen), passed)
    }
}
