//! Samples of one row, and what is printed of them.

use runtime::println;
use runtime::timed::{self, Mark};
use spin::Mutex;

/// The most samples that there is room for.
pub const CAPACITY: usize = 10_000;

/// Those of the row that is measured just now.
pub static SAMPLES: Mutex<Samples> = Mutex::new(Samples::new());

/// What one thing took, again and again, in ticks.
pub struct Samples {
    taken: [u32; CAPACITY],
    count: usize,
}

/// What is told of a row.
#[derive(Clone, Copy)]
pub struct Row {
    name: &'static str,
    rounds: usize,
    pub min: u32,
    median: u32,
    p99: u32,
    max: u32,
}

impl Samples {
    /// None yet.
    const fn new() -> Self {
        Self { taken: [0; CAPACITY], count: 0 }
    }

    /// Forgets those that there are, and takes `rounds` new ones, each less `less`.
    pub fn take(
        &mut self,
        name: &'static str,
        rounds: usize,
        less: u32,
        mut one: impl FnMut() -> u64,
    ) -> Row {
        self.begin();
        for _ in 0..rounds {
            self.add(one().saturating_sub(u64::from(less)));
        }
        self.end(name)
    }

    /// Forgets those that there are: a row begins.
    pub fn begin(&mut self) {
        self.count = 0;
        timed::mark(Mark::Begin);
    }

    /// A row ends: what there is, which is sorted by it. There is one sample at least.
    pub fn end(&mut self, name: &'static str) -> Row {
        timed::mark(Mark::End);
        self.row(name)
    }

    /// Adds one. Dropped where there is no room.
    pub fn add(&mut self, ticks: u64) {
        if let Some(place) = self.taken.get_mut(self.count) {
            *place = u32::try_from(ticks).unwrap_or(u32::MAX);
            self.count += 1;
        }
    }

    /// Those of the row that has ended last, the least first.
    pub fn sorted(&self) -> &[u32] {
        &self.taken[..self.count]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    fn row(&mut self, name: &'static str) -> Row {
        let taken = &mut self.taken[..self.count];
        taken.sort_unstable();
        let part = |percent: usize| taken[(taken.len() * percent / 100).min(taken.len() - 1)];
        Row { name, rounds: taken.len(), min: part(0), median: part(50), p99: part(99), max: part(100) }
    }
}

impl Row {
    /// Prints it. Nothing is measured any more.
    pub fn print(&self) {
        timed::mark(Mark::Told);
        let Self { name, rounds, min, median, p99, max } = self;
        println!("bench: {name} rounds={rounds} min={min} median={median} p99={p99} max={max}");
    }
}
