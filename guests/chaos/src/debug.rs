//! Breakpoints, watchpoints, single-step, the OS lock and what else there is for debuggers.

use runtime::trial::{self, EL0, EL1H, Trial};

use crate::words::{ISB, NOP, encoding, msr, plain};
use crate::{Operation, places};

/// Some registers set, and a few instructions that may hit.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    /// PSTATE.D, and PSTATE.SS.
    const D: u64 = 1 << 9;
    const SS: u64 = 1 << 21;
    let random = &mut operation.random;
    let mut x = places::registers(random);
    // Addresses that are hit: of the trial's code and of its data.
    x[4] = trial::data() + 8 * random.below(4);
    x[10] = trial::data() + random.below(32);
    let n = random.below(16) as u32;
    let control = random.word() & 0x1fff_ffff | 1;
    (x[5], x[6]) = (control, random.word());
    let (value, what) = match random.below(8) {
        0 | 1 => (3, encoding(2, 0, 0, n, 4)),
        2 | 3 => (4, encoding(2, 0, 0, n, 6)),
        // OSLAR_EL1, OSDLR_EL1, MDCCINT_EL1, DBGPRCR_EL1 and any other.
        4 => (6, encoding(2, 0, 1, 0, 4)),
        5 => (6, encoding(2, 0, 1, 3, 4)),
        6 => (6, encoding(2, 0, random.below(2) as u32, random.below(16) as u32, random.below(8) as u32)),
        _ => (6, encoding(2, 3, 0, random.below(16) as u32, random.below(8) as u32)),
    };
    // The control register goes with the value's.
    let code = [msr(what, value), msr(what | 1, 5), ISB, NOP, plain(random, 0, 10), plain(random, 1, 4), NOP];
    let pstate = random.one_of(&[EL1H, EL1H, EL0]) & !D | (random.below(2) * SS);
    // MDE, KDE and SS.
    let any = random.word() & 0xffff_ffff;
    let mdscr = random.one_of(&[1 << 15 | 1 << 13, 1 << 15 | 1 << 13 | 1, 1 | 1 << 13, any]);
    // A breakpoint that was set before is hit by what comes now.
    let first = if random.below(4) == 0 { 2 } else { 0 };
    let hit = 4 * random.below(12);
    trial.prepare(&code[first..], x, pstate);
    trial.x[3] = trial.pc + hit;
    trial.mdscr = mdscr;
}
