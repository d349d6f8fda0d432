//! What a CPU holds: patterns, how they get into its registers, and what is still there.

use core::fmt::{self, Display};
use core::hint::black_box;

use runtime::call::{self, NZCV};
use runtime::features;
use runtime::random::{Random, mix};
use runtime::registers::REGISTERS;

/// How often [`hold`] counts: two instructions each.
const HELD: u64 = 20_000;
/// Steps of the checksum.
const STEPS: u32 = 4_000;
/// Words of memory that the checksum goes through.
const WORDS: usize = 64;

/// A value for everything, each one different from the others, and from those of any other CPU, round and seed.
#[derive(Clone)]
pub struct Pattern {
    general: [u64; 31],
    vectors: [u128; 32],
    system: [u64; REGISTERS.len()],
    /// What the checksum is made of.
    pub sum_seed: u64,
}

impl Pattern {
    /// For this seed, CPU and round.
    pub fn new(seed: u64, cpu: usize, round: u64) -> Self {
        let mut random = Random::new(mix(seed) ^ mix(!(cpu as u64)) ^ round.rotate_left(32));
        Self {
            general: [(); 31].map(|()| random.word()),
            vectors: [(); 32].map(|()| u128::from(random.word()) << 64 | u128::from(random.word())),
            system: [(); REGISTERS.len()].map(|()| random.word()),
            sum_seed: random.word(),
        }
    }

    /// Turns the bits of the register with this name around: `X7`, `V3`, `FPCR`; `NZCV` and X30 are one here.
    pub fn spoil(&mut self, name: &str) {
        let numbered = |letter: char| name.strip_prefix(letter)?.parse::<usize>().ok();
        if let Some(n) = REGISTERS.iter().position(|register| register.name == name) {
            self.system[n] ^= u64::MAX;
        } else if let Some(value) = numbered('X').and_then(|n| self.general.get_mut(n)) {
            *value ^= u64::MAX;
        } else if let Some(value) = numbered('V').and_then(|n| self.vectors.get_mut(n)) {
            *value ^= u128::MAX;
        } else if name == "NZCV" {
            self.general[30] ^= NZCV;
        } else if name == "checksum" {
            self.sum_seed ^= u64::MAX;
        }
    }
}

/// Which bits of this CPU's registers hold what is written there.
pub struct State {
    held: [u64; REGISTERS.len()],
}

/// What was found in the registers.
pub struct Found {
    general: [u64; 31],
    vectors: [u128; 32],
    system: [u64; REGISTERS.len()],
}

impl State {
    /// Of the CPU that asks.
    pub fn new() -> Self {
        let mut held = [0; REGISTERS.len()];
        for (held, register) in held.iter_mut().zip(REGISTERS) {
            *held = register.held();
        }
        Self { held }
    }

    /// How many registers are compared, x1 to x30, NZCV and V0 to V31 included.
    pub fn count(&self) -> usize {
        30 + 1 + 32 + self.held.iter().filter(|held| **held != 0).count()
    }

    /// Fills all but the general registers, which [`hold`] does for as long as it runs.
    pub fn fill(&self, pattern: &Pattern) {
        for (register, value) in self.present(&pattern.system) {
            REGISTERS[register].write(value);
        }
        features::load_simd(&pattern.vectors);
    }

    /// Reads them all back; `general` is what [`hold`] found.
    pub fn read(&self, general: [u64; 31]) -> Found {
        let vectors = features::store_simd();
        let mut system = [0; REGISTERS.len()];
        for (register, value) in self.present(&[0; REGISTERS.len()]) {
            system[register] = REGISTERS[register].read() & self.held[register] | value;
        }
        Found { general, vectors, system }
    }

    /// The registers that this CPU has, by their place in the table, with what of `values` they can hold.
    fn present(&self, values: &[u64; REGISTERS.len()]) -> impl Iterator<Item = (usize, u64)> {
        let all = self.held.iter().zip(values).enumerate();
        all.filter(|(_, (held, _))| **held != 0).map(|(n, (held, value))| (n, value & held))
    }

    /// Whether all that was found is as the pattern says.
    pub fn compare(&self, pattern: &Pattern, found: &Found) -> Result<(), Difference> {
        let flags = (pattern.general[30] & NZCV, found.general[0]);
        let flags = [("NZCV", None, flags)].into_iter();
        let general = (1..31).map(|n| ("X", Some(n), (pattern.general[n], found.general[n])));
        let system = self.present(&pattern.system);
        let system = system.map(|(n, value)| (REGISTERS[n].name, None, (value, found.system[n])));
        let vectors = (0..32).map(|n| ("V", Some(n), (pattern.vectors[n], found.vectors[n])));
        flags
            .chain(general)
            .chain(system)
            .map(|(name, number, (was, is))| (name, number, (u128::from(was), u128::from(is))))
            .chain(vectors)
            .find(|(_, _, (was, is))| was != is)
            .map_or(Ok(()), |(name, number, (was, is))| Err(Difference { name, number, is, was }))
    }
}

/// A register that isn't what it was.
pub struct Difference {
    name: &'static str,
    number: Option<usize>,
    is: u128,
    was: u128,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if let Some(number) = self.number {
            write!(f, "{number}")?;
        }
        write!(f, " is {:#x}, was {:#x}", self.is, self.was)
    }
}

/// Holds the pattern in x1 to x30 and NZCV for a while; what they are afterwards, NZCV as x0.
pub fn hold(pattern: &Pattern) -> [u64; 31] {
    let mut general = pattern.general;
    general[0] = HELD;
    call::hold(general)
}

/// A sum over memory and registers, of a fixed number of steps.
pub fn checksum(seed: u64) -> u64 {
    let mut memory = [0u64; WORDS];
    let mut random = Random::new(seed);
    memory.fill_with(|| random.word());
    let mut sum = seed;
    for step in 0..STEPS as usize {
        let place = &mut memory[step % WORDS];
        sum = mix(sum ^ *place);
        *place = black_box(sum);
    }
    sum
}
