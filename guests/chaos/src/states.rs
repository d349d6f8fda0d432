//! Returns to every PSTATE there is, and to those that there aren't.

use runtime::trial::{EL1H, Trial};

use crate::words::{ERET, ISB, NOP, encoding, msr};
use crate::{Operation, places};

/// By the return that begins the trial, or by one of its own.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    const SPSR_EL1: u32 = encoding(3, 0, 4, 0, 0);
    const ELR_EL1: u32 = encoding(3, 0, 4, 0, 1);
    let random = &mut operation.random;
    // IRQs are let in mostly, so that what doesn't end can be ended.
    let irqs = if random.below(8) == 0 { 0 } else { 1 << 7 };
    let pstate = match random.below(4) {
        0 => random.below(32) | 0x340,
        1 => random.word() & 0xffff_ffff,
        2 => random.below(16) | 1 << random.below(32),
        _ => random.word(),
    } & !irqs;
    let mut x = places::registers(random);
    if random.below(2) == 0 {
        trial.prepare(&[NOP, NOP], x, pstate);
    } else {
        x[1] = pstate;
        trial.prepare(&[msr(ELR_EL1, 0), msr(SPSR_EL1, 1), ISB, ERET, NOP], x, EL1H);
        trial.x[0] = trial.pc + 16;
    }
}
