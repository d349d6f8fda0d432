//! Maintenance of TLBs and caches, of everybody's and its own, by address, by set and way, and of all.

use runtime::trial::{EL0, EL1H, Trial};

use crate::words::{DSB, ISB, encoding, maintenance, system};
use crate::{Operation, places};

/// Several at once.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let random = &mut operation.random;
    let x = places::registers(random);
    let mut one = || {
        let (crm, op2, rt) = (random.below(16) as u32, random.below(8) as u32, random.below(31) as u32);
        match random.below(64) {
            // DC ISW, CSW, CISW: all of the VM's memory.
            0 => system(false, encoding(1, 0, 7, random_way(crm), 2), rt),
            1..16 => maintenance(random, rt),
            // IC and DC.
            16..24 => system(false, encoding(1, 3 * (crm & 1), 7, crm, op2), rt),
            // TLBI, with nXS too, and by range; those of EL2 and EL3 are UNDEFINED.
            24..28 => system(false, encoding(1, 4 + 2 * (crm & 1), 8, crm, op2), rt),
            28..32 => system(false, encoding(1, 0, 9, crm, op2), rt),
            _ => system(false, encoding(1, 0, 8, crm, op2), rt),
        }
    };
    let code = [one(), one(), one(), one(), DSB, ISB];
    let pstate = if operation.random.below(8) == 0 { EL0 } else { EL1H };
    trial.prepare(&code, x, pstate);
}

fn random_way(n: u32) -> u32 {
    [6, 10, 14][n as usize % 3]
}
