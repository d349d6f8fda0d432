//! Every encoding of the system registers' space, op0 0 to 3, in both directions, with any operand.

use runtime::trial::{EL0, EL1H, Trial};

use crate::words::{ISB, encoding, mrs, msr, system};
use crate::{Operation, places};

/// Encodings and directions.
const ALL: u64 = 1 << 17;
/// A step through all of them in no order that one would see.
const STRIDE: u64 = 47_629;
const _: () = assert!(STRIDE % 2 == 1, "it comes to every one");

/// What fetching rests on, so that a value of chance is the end, mostly: SCTLR_EL1, TTBR0_EL1, TTBR1_EL1, TCR_EL1, VBAR_EL1.
const GROUND: [u32; 5] = [
    encoding(3, 0, 1, 0, 0),
    encoding(3, 0, 2, 0, 0),
    encoding(3, 0, 2, 0, 1),
    encoding(3, 0, 2, 0, 2),
    encoding(3, 0, 12, 0, 0),
];

/// Every other one takes the next encoding and direction, so that after some time all have come; the rest take any.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let random = &mut operation.random;
    let n = match operation.number % 2 {
        0 => (operation.number / 2).wrapping_mul(STRIDE) % ALL,
        _ => random.below(ALL),
    };
    let (word, read) = ((n & 0xffff) as u32, n >> 16 != 0);
    let pstate = if random.below(4) == 0 { EL0 } else { EL1H };
    let x = places::registers(random);
    let rt = if random.below(8) == 0 { random.below(32) as u32 } else { 0 };
    if GROUND.contains(&word) && !read && random.below(8) != 0 {
        // It is put back at once, and the change is seen all the same where it is one of traps or of what is walked next.
        trial.prepare(&[mrs(word, 1), msr(word, 0), ISB, msr(word, 1)], x, pstate);
    } else {
        trial.prepare(&[system(read, word, rt), ISB], x, pstate);
    }
    if random.below(2) == 0 {
        trial.in_upper_half();
    }
}
