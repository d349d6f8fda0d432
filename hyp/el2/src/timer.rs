//! EL2's use of the generic timer: the time, and one deadline for each CPU (CNTHP, Arm ARM D12).

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTPCT_EL0};
use tock_registers::interfaces::Readable;

use crate::sysreg::write_sysreg;

/// The physical counter now, in ticks.
pub fn now() -> u64 {
    barrier::isb(barrier::SY);
    CNTPCT_EL0.get()
}

/// Ticks in a second, never 0.
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get().max(1)
}

/// Microseconds since the counter started.
pub fn microseconds() -> u64 {
    let (ticks, frequency) = (now(), frequency());
    let seconds = ticks.checked_div(frequency).unwrap_or(0);
    let rest = ticks.checked_rem(frequency).unwrap_or(0);
    let micros = rest.saturating_mul(1_000_000).checked_div(frequency).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

/// Has EL2's timer interrupt come to this CPU at `deadline` ticks, or not at all.
pub fn arm(deadline: Option<u64>) {
    match deadline {
        Some(ticks) => {
            write_sysreg!("CNTHP_CVAL_EL2", ticks);
            write_sysreg!("CNTHP_CTL_EL2", 1);
        }
        None => write_sysreg!("CNTHP_CTL_EL2", 0),
    }
}
