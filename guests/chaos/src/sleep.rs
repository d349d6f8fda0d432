//! WFI and WFE, with and without time limits, with interrupts and events under way or not.

use runtime::trial::{EL0, EL1H, Trial};

use crate::words::{NOP, SEV, WFE, WFI, encoding, msr, system};
use crate::{Operation, places};

/// Sleeps, which the timer ends.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    const I: u64 = 1 << 7;
    const SEVL: u32 = 0xd503_20bf;
    /// WFET and WFIT, with X0.
    const WFET: u32 = system(false, encoding(0, 3, 1, 0, 0), 0);
    const WFIT: u32 = system(false, encoding(0, 3, 1, 0, 1), 0);
    /// CNTKCTL_EL1: which bit of the counter makes events, and whether.
    const CNTKCTL_EL1: u32 = encoding(3, 0, 14, 1, 0);
    let random = &mut operation.random;
    let x = places::registers(random);
    let kinds = [WFI, WFI, WFE, WFE, SEV, SEVL, NOP, WFET, WFIT, msr(CNTKCTL_EL1, 1)];
    let code = [(); 4].map(|()| random.one_of(&kinds));
    // Masked, an interrupt ends WFI as well, and the trial goes on behind it.
    let masked = if random.below(2) == 0 { I } else { 0 };
    let pstate = random.one_of(&[EL1H, EL1H | masked, EL0]);
    trial.prepare(&code, x, pstate);
    operation.alarm = random.below(20) + 1;
}
