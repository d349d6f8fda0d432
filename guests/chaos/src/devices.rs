//! Accesses of every form to the VM's devices, and to what lies beside them.

use runtime::trial::{EL0, EL1H, Trial};

use crate::words::{DSB, maintenance, memory, plain};
use crate::{Operation, places};

/// One or two accesses, to one device or two.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let random = &mut operation.random;
    let mut x = places::registers(random);
    (x[10], x[11]) = (places::device(random), places::device(random));
    let mut access = |rn: u32| match random.below(8) {
        0..4 => plain(random, random_register(operation.number, rn), rn),
        4..7 => memory(random, rn),
        _ => maintenance(random, rn),
    };
    let code = [access(10), access(11), DSB];
    let pstate = if operation.random.below(8) == 0 { EL0 } else { EL1H };
    trial.prepare(&code, x, pstate);
}

/// A register that isn't one of the addresses' own.
fn random_register(number: u64, rn: u32) -> u32 {
    (number as u32).wrapping_mul(7).wrapping_add(rn) % 8
}
