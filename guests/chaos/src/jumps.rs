//! Jumps to where no code is: nothing, devices, data, flash, halves of instructions.

use runtime::trial::{self, EL0, EL1H, EL1T, Trial};

use crate::words::{ERET, ISB, blr, br, encoding, msr};
use crate::{Operation, places};

const SPSR_EL1: u32 = encoding(3, 0, 4, 0, 0);
const ELR_EL1: u32 = encoding(3, 0, 4, 0, 1);

/// One jump: by a branch, a call, a return from an exception, or as the first instruction of all.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let random = &mut operation.random;
    let mut x = places::registers(random);
    let target = match random.below(6) {
        0 => places::device(random),
        1 => places::data(random),
        2 => trial::code() + random.below(0x1000),
        3 => places::data(random) | trial::UPPER_HALF,
        _ => places::nowhere(random),
    };
    let pstate = random.one_of(&[EL1H, EL1H, EL1T, EL0]);
    let any = random.word() & 0xffff_ff7f;
    (x[0], x[1]) = (target, random.one_of(&[EL1H, EL1T, EL0, any]));
    match random.below(4) {
        0 => trial.prepare(&[br(0)], x, pstate),
        1 => trial.prepare(&[blr(0)], x, pstate),
        2 => trial.prepare(&[msr(ELR_EL1, 0), msr(SPSR_EL1, 1), ISB, ERET], x, EL1H),
        _ => {
            trial.prepare(&[], x, pstate);
            trial.pc = target;
        }
    }
}
