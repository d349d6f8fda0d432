//! How far a guest has come, told to another one through the memory of a channel, which lives through whatever becomes of the guest
//! itself. One side writes, the other only reads.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::channel::Channel;
use crate::machine::MAX_CPUS;

/// The name of the channel.
pub const CHANNEL: &str = "progress";
/// The most kinds of work that are counted apart.
pub const MAX_KINDS: usize = 24;

/// Words of each CPU: what it has begun in all, where it is, then what it has begun of each kind.
const PER_CPU: usize = 32;
const BEGUN: usize = 0;
const AT: usize = 1;
const OWN_FAULTS: usize = 2;
const BEGINNINGS: usize = 3;
const OF_KIND: usize = 8;
/// The names of the kinds are behind all of the CPUs' words, two words each; the seed is behind them.
const NAMES: usize = MAX_CPUS * PER_CPU;
const SEED: usize = NAMES + 2 * MAX_KINDS;
/// Behind that, how often operations ended in each way.
const ENDS: usize = SEED + 1;

/// The ways in which an operation may end: by a synchronous exception, the class of which is its number (ESR_EL1.EC), or
/// by one of these.
pub const WAYS: usize = CLASSES + 4;
const CLASSES: usize = 64;

/// The memory.
#[derive(Clone, Copy)]
pub struct Progress(&'static [AtomicU64]);

/// What is counted of one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Operations that it has begun.
    pub begun: u64,
    /// The kind of the last one.
    pub kind: usize,
    /// Exceptions from the guest's own program.
    pub own_faults: u64,
    /// How often it has begun to work, after a start, a restart or CPU_ON.
    pub beginnings: u64,
}

impl Progress {
    /// In this channel.
    pub fn new(channel: &Channel) -> Self {
        Self(channel.words())
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.0[at]
    }

    fn get(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Relaxed)
    }

    fn of_cpu(cpu: usize, at: usize) -> usize {
        cpu * PER_CPU + at
    }

    /// Says what kinds of work there are, with names of up to 16 bytes, and what seed they follow from.
    pub fn describe<'a>(&self, seed: u64, names: impl Iterator<Item = &'a str>) {
        self.word(SEED).store(seed, Ordering::Relaxed);
        for (n, name) in names.enumerate().take(MAX_KINDS) {
            let mut bytes = [0; 16];
            let length = name.len().min(bytes.len());
            bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
            let words = bytes.as_chunks::<8>().0;
            self.word(NAMES + 2 * n).store(u64::from_le_bytes(words[0]), Ordering::Relaxed);
            self.word(NAMES + 2 * n + 1).store(u64::from_le_bytes(words[1]), Ordering::Relaxed);
        }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.get(SEED)
    }

    /// The bytes of a kind's name; none if there is no such kind.
    pub fn name(&self, kind: usize) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.get(NAMES + 2 * kind).to_le_bytes());
        bytes[8..].copy_from_slice(&self.get(NAMES + 2 * kind + 1).to_le_bytes());
        bytes
    }

    /// `cpu` begins to work, at the operation with this number if it never has; the number of its next one.
    pub fn resume(&self, cpu: usize, first: u64) -> u64 {
        let beginnings = self.word(Self::of_cpu(cpu, BEGINNINGS)).fetch_add(1, Ordering::Relaxed);
        let begun = self.word(Self::of_cpu(cpu, BEGUN));
        if beginnings == 0 {
            begun.store(first, Ordering::Relaxed);
        }
        begun.load(Ordering::Relaxed)
    }

    /// `cpu` begins its next operation, of this kind; its number.
    pub fn count(&self, cpu: usize, kind: usize) -> u64 {
        self.word(Self::of_cpu(cpu, AT)).store(kind as u64, Ordering::Relaxed);
        self.word(Self::of_cpu(cpu, OF_KIND + kind)).fetch_add(1, Ordering::Relaxed);
        self.word(Self::of_cpu(cpu, BEGUN)).fetch_add(1, Ordering::Relaxed)
    }

    /// The number of the next operation of `cpu`.
    pub fn next(&self, cpu: usize) -> u64 {
        self.get(Self::of_cpu(cpu, BEGUN))
    }

    /// Says how many exceptions came from the program itself since this CPU began.
    pub fn own_faults(&self, cpu: usize, count: u64) {
        self.word(Self::of_cpu(cpu, OWN_FAULTS)).fetch_add(count, Ordering::Relaxed);
    }

    /// An operation has ended by a synchronous exception of this class.
    pub fn ended_by_class(&self, class: u64) {
        self.word(ENDS + class as usize % CLASSES).fetch_add(1, Ordering::Relaxed);
    }

    /// An operation has ended by an exception of another kind: 1 is an IRQ, 2 an FIQ, 3 an SError.
    pub fn ended_by_kind(&self, kind: u64) {
        self.word(ENDS + CLASSES + kind as usize % 4).fetch_add(1, Ordering::Relaxed);
    }

    /// How many operations have ended in this way, on all CPUs.
    pub fn ends(&self, way: usize) -> u64 {
        self.get(ENDS + way)
    }

    /// What is counted of `cpu`.
    pub fn of(&self, cpu: usize) -> Count {
        Count {
            begun: self.get(Self::of_cpu(cpu, BEGUN)),
            kind: self.get(Self::of_cpu(cpu, AT)) as usize,
            own_faults: self.get(Self::of_cpu(cpu, OWN_FAULTS)),
            beginnings: self.get(Self::of_cpu(cpu, BEGINNINGS)),
        }
    }

    /// How many operations of this kind all CPUs have begun.
    pub fn of_kind(&self, kind: usize) -> u64 {
        (0..MAX_CPUS).map(|cpu| self.get(Self::of_cpu(cpu, OF_KIND + kind))).sum()
    }

    /// How many operations all CPUs have begun.
    pub fn total(&self) -> u64 {
        (0..MAX_KINDS).map(|kind| self.of_kind(kind)).sum()
    }
}
