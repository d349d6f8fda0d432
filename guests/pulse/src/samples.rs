//! How late ticks were, and the report on it.

use runtime::{println, timer};

/// The most ticks that there is room for.
pub const CAPACITY: usize = 60_000;

/// How late ticks were, in ticks of the counter, and how many were missed.
pub struct Samples {
    late: [u32; CAPACITY],
    count: usize,
    missed: u64,
}

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Self { late: [0; CAPACITY], count: 0, missed: 0 }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds a tick that was this late, while that many whole periods passed. Dropped when there is no room.
    pub fn add(&mut self, late: u64, missed: u64) {
        if let Some(place) = self.late.get_mut(self.count) {
            *place = u32::try_from(late).unwrap_or(u32::MAX);
            self.count += 1;
            self.missed += missed;
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.count = 0;
        self.missed = 0;
    }

    /// Prints what there is, which may be sorted by it.
    pub fn report(&mut self, number: u64) {
        let late = &mut self.late[..self.count];
        late.sort_unstable();
        let (Some(min), Some(max)) = (late.first(), late.last()) else { return };
        let part = |percent: usize| late[(late.len() * percent / 100).min(late.len() - 1)];
        println!("pulse: report {number}: {} ticks, {} missed", late.len(), self.missed);
        for (name, value) in [("min", *min), ("median", part(50)), ("99%", part(99)), ("max", *max)] {
            let tenths = u64::from(value) * 10_000_000 / timer::frequency();
            println!("pulse: {name} {value} ticks of the counter, {}.{} us", tenths / 10, tenths % 10);
        }
        for (bits, count) in histogram(late).iter().enumerate().filter(|(_, count)| **count > 0) {
            println!("pulse: <{} us {count}", 1u64 << bits);
        }
    }
}

/// How many take less than a microsecond, and of the others less than 2, 4, 8 and so on.
fn histogram(late: &[u32]) -> [u32; 48] {
    let mut rows = [0; 48];
    for value in late {
        let microseconds = u64::from(*value) * 1_000_000 / timer::frequency();
        rows[(u64::BITS - microseconds.leading_zeros()).min(47) as usize] += 1;
    }
    rows
}
