//! Instructions of chance, a few in a row, with all registers of chance, at EL1, at EL0, and in both instruction sets of AArch32.

use runtime::trial::{EL0, EL1H, EL1T, Trial, USER_A32, USER_T32};

use crate::{Operation, places, words};

/// Several words.
fn some(operation: &mut Operation) -> [u32; 8] {
    [(); 8].map(|()| words::any(&mut operation.random))
}

fn length(operation: &mut Operation) -> usize {
    1 + operation.random.below(8) as usize
}

/// At EL1, in either half, on either stack.
pub fn run_at_el1(operation: &mut Operation, trial: &mut Trial) {
    let (code, length) = (some(operation), length(operation));
    let x = places::registers(&mut operation.random);
    let pstate = if operation.random.below(8) == 0 { EL1T } else { EL1H };
    trial.prepare(&code[..length], x, pstate);
    if operation.random.below(2) == 0 {
        trial.in_upper_half();
    }
}

/// At EL0.
pub fn run_at_el0(operation: &mut Operation, trial: &mut Trial) {
    let (code, length) = (some(operation), length(operation));
    let x = places::registers(&mut operation.random);
    trial.prepare(&code[..length], x, EL0);
}

/// In AArch32, at EL0: where the CPU hasn't it, it is an illegal state. What comes behind the words is harmless, up to the
/// end of the page.
pub fn run_aarch32(operation: &mut Operation, trial: &mut Trial) {
    const ALWAYS: u32 = 0xe << 28;
    let random = &mut operation.random;
    let t32 = random.below(2) == 0;
    let mut word = || {
        let word = random.word() as u32;
        match (random.below(4), t32) {
            (0, _) => word,
            // Coprocessors 10, 11, 14 and 15: MCR, MRC, MCRR, MRRC, LDC, STC, VFP.
            (1, false) => word & 0x01ff_f0ff | ALWAYS | 0x0c00_0000 | coprocessor(word) << 8 | word & 1 << 25,
            (1, true) => {
                (word & 0x01ff_f0ff | 0xec00_0000 | coprocessor(word) << 8 | word & 1 << 25).rotate_right(16)
            }
            (_, false) => word & 0x0fff_ffff | if word >> 30 == 0 { word & 0xf << 28 } else { ALWAYS },
            // IT, and whatever comes under it.
            (2, true) => word & 0xffff_0000 | 0xbf00 | word & 0xff,
            (_, true) => word,
        }
    };
    let code = [(); 8].map(|()| word());
    let length = length(operation);
    let x = places::registers(&mut operation.random).map(|x| x & 0xffff_ffff);
    let flags = operation.random.below(16) << 28;
    let pstate = if t32 { USER_T32 } else { USER_A32 };
    trial.prepare(&code[..length], x, pstate | flags);
}

fn coprocessor(word: u32) -> u32 {
    [10, 11, 14, 15][word as usize >> 28 & 3]
}
