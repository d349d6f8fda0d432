//! How long this CPU was ready to run while others ran in its place, as paravirtualized time (Arm DEN0057) tells it.

use abi::pv_time;
use spin::Once;

use crate::call::call3;
use crate::machine::machine;
use crate::mmu::{self, Kind};
use crate::timer;

/// Where the 2 MiB around the records are mapped as memory, which the records are: at their own address they lie among
/// devices, and what is read there as a device could be older than what was written.
const WINDOW: u64 = 500 << 30;
const WINDOW_SIZE: u64 = 2 << 20;

/// Offset of the time in a record.
const NANOSECONDS: u64 = 8;

static MAPPED: Once = Once::new();

/// What tells a CPU of its stolen time.
#[derive(Debug)]
pub struct StolenTime {
    nanoseconds: *const u64,
}

/// Two times of one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The virtual counter, in ticks.
    pub now: u64,
    /// What was stolen up to then, in nanoseconds.
    pub stolen: u64,
}

impl StolenTime {
    /// Of the CPU that asks; `None` if nobody tells. The records of all CPUs lie in one page.
    pub fn find() -> Option<Self> {
        let record = u64::try_from(call3(machine().conduit, pv_time::STOLEN_TIME, [0; 3])).ok()?;
        MAPPED.call_once(|| mmu::map(WINDOW, record, Kind::Normal));
        Some(Self { nanoseconds: (WINDOW + record % WINDOW_SIZE + NANOSECONDS) as *const u64 })
    }

    /// Both times. The stolen one is brought up to date whenever this CPU goes on behind others.
    pub fn read(&self) -> Sample {
        loop {
            let stolen = self.nanoseconds();
            let now = timer::now();
            // Others may have run between the two, which then are not of one moment.
            if self.nanoseconds() == stolen {
                return Sample { now, stolen };
            }
        }
    }

    fn nanoseconds(&self) -> u64 {
        // SAFETY: the record stays mapped, and Rust knows of nothing there; one load sees all of the number or nothing.
        unsafe { self.nanoseconds.read_volatile() }
    }
}
