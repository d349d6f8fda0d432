//! How often a row took how long: samples counted in classes, of which eight lie between a number and its double.

use runtime::println;

/// Classes in a doubling, as a power of two.
const FINE: u32 = 3;
/// Samples from here on are in the last class.
const MOST: u32 = 1 << 20;
const CLASSES: usize = (class_of(MOST) + 1) as usize;

/// The samples of a row, by class.
pub struct Histogram {
    counts: [u32; CLASSES],
}

impl Histogram {
    /// Of these samples.
    pub fn of(samples: &[u32]) -> Self {
        let mut counts = [0; CLASSES];
        for sample in samples {
            if let Some(count) = counts.get_mut(class_of((*sample).min(MOST)) as usize) {
                *count += 1;
            }
        }
        Self { counts }
    }

    /// Prints the classes that aren't empty, a line each.
    pub fn print(&self, name: &str) {
        for (class, count) in (0..).zip(&self.counts).filter(|(_, count)| **count != 0) {
            println!("bench: {name} from={} below={} count={count}", start_of(class), start_of(class + 1));
        }
    }
}

/// The class of a number: below 2^FINE each has one of its own.
const fn class_of(number: u32) -> u32 {
    match number.checked_ilog2() {
        Some(log) if log >= FINE => {
            let part = number >> (log - FINE) & ((1 << FINE) - 1);
            ((log - FINE + 1) << FINE) + part
        }
        _ => number,
    }
}

/// The least number of a class.
const fn start_of(class: u32) -> u32 {
    let (double, part) = (class >> FINE, class & ((1 << FINE) - 1));
    if double == 0 { part } else { ((1 << FINE) + part) << (double - 1) }
}
