//! EL2's use of the generic timer: the time, and deadlines on each CPU (CNTHP, Arm ARM D12).

use core::cell::Cell;

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

/// So many microseconds in ticks.
pub fn ticks(microseconds: u64) -> u64 {
    // Frequencies are below 2^32 Hz and these times below a minute.
    microseconds.saturating_mul(frequency()).checked_div(1_000_000).unwrap_or(0)
}

/// Microseconds since the counter started.
pub fn microseconds() -> u64 {
    let (ticks, frequency) = (now(), frequency());
    let seconds = ticks.checked_div(frequency).unwrap_or(0);
    let rest = ticks.checked_rem(frequency).unwrap_or(0);
    let micros = rest.saturating_mul(1_000_000).checked_div(frequency).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

/// What a CPU's timer is for: the sooner of two things.
pub struct Deadlines {
    /// When another vCPU may have to run.
    turn: Cell<u64>,
    /// When a VM's clock has an alarm.
    alarm: Cell<u64>,
    /// The sooner one, for which the timer is armed.
    next: Cell<u64>,
}

impl Deadlines {
    /// Nothing is due.
    pub const fn new() -> Self {
        Self { turn: Cell::new(u64::MAX), alarm: Cell::new(u64::MAX), next: Cell::new(u64::MAX) }
    }

    /// Has the queue asked again at this time, in ticks; never, if it is `u64::MAX`.
    #[inline]
    pub fn set_turn(&self, at: u64) {
        self.turn.set(at);
        self.arm_anew();
    }

    /// Has clocks looked at at this time.
    pub fn set_alarm(&self, at: u64) {
        self.alarm.set(at);
        self.arm_anew();
    }

    /// Arms the timer, where it isn't for what is due next.
    #[inline]
    fn arm_anew(&self) {
        let next = self.turn.get().min(self.alarm.get());
        if self.next.get() != next {
            self.next.set(next);
            arm(next);
        }
    }

    /// The interrupt came. Returns what was due: the turn's end, an alarm.
    pub fn fired(&self, now: u64) -> (bool, bool) {
        let due = |deadline: &Cell<u64>| {
            let due = deadline.get() <= now;
            if due {
                deadline.set(u64::MAX);
            }
            due
        };
        let which = (due(&self.turn), due(&self.alarm));
        self.next.set(self.turn.get().min(self.alarm.get()));
        arm(self.next.get());
        // The line is low before the interrupt is deactivated, or it would come again.
        barrier::isb(barrier::SY);
        which
    }
}

/// Has EL2's timer interrupt come to this CPU at `deadline` ticks, or not at all.
fn arm(deadline: u64) {
    if deadline == u64::MAX {
        write_sysreg!("CNTHP_CTL_EL2", 0);
    } else {
        write_sysreg!("CNTHP_CVAL_EL2", deadline);
        write_sysreg!("CNTHP_CTL_EL2", 1);
    }
    // Without a barrier: going back to a guest is one, and so is `run::idle` before it waits.
}
