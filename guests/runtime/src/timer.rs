//! The generic timer: the counter, and EL1's virtual and physical timers.

use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0,
    CNTV_TVAL_EL0, CNTVCT_EL0,
};
use tock_registers::interfaces::{Readable, Writeable};

use crate::cpu;
use crate::machine::machine;

/// CTL: the timer runs.
pub const ENABLE: u64 = 1;
/// CTL: its interrupt is masked.
pub const IMASK: u64 = 1 << 1;
/// CTL: its deadline has passed.
pub const ISTATUS: u64 = 1 << 2;

/// One of EL1's timers on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// CNTV.
    Virtual,
    /// CNTP.
    Physical,
}

impl Timer {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Virtual, Self::Physical];

    /// The timer's interrupt.
    pub fn intid(self) -> u32 {
        match self {
            Self::Virtual => machine().virtual_timer,
            Self::Physical => machine().physical_timer,
        }
    }

    /// The counter that the timer compares with, in ticks, read no earlier than this.
    pub fn count(self) -> u64 {
        cpu::synchronize();
        match self {
            Self::Virtual => CNTVCT_EL0.get(),
            Self::Physical => CNTPCT_EL0.get(),
        }
    }

    /// CTL.
    pub fn control(self) -> u64 {
        match self {
            Self::Virtual => CNTV_CTL_EL0.get(),
            Self::Physical => CNTP_CTL_EL0.get(),
        }
    }

    /// Writes CTL.
    pub fn set_control(self, control: u64) {
        match self {
            Self::Virtual => CNTV_CTL_EL0.set(control),
            Self::Physical => CNTP_CTL_EL0.set(control),
        }
        cpu::synchronize();
    }

    /// CVAL: the deadline.
    pub fn deadline(self) -> u64 {
        match self {
            Self::Virtual => CNTV_CVAL_EL0.get(),
            Self::Physical => CNTP_CVAL_EL0.get(),
        }
    }

    /// Writes CVAL.
    pub fn set_deadline(self, deadline: u64) {
        match self {
            Self::Virtual => CNTV_CVAL_EL0.set(deadline),
            Self::Physical => CNTP_CVAL_EL0.set(deadline),
        }
        cpu::synchronize();
    }

    /// TVAL: ticks until the deadline, signed.
    pub fn value(self) -> i32 {
        match self {
            Self::Virtual => CNTV_TVAL_EL0.get() as i32,
            Self::Physical => CNTP_TVAL_EL0.get() as i32,
        }
    }

    /// Writes TVAL: the deadline is that many ticks from now.
    pub fn set_value(self, ticks: i32) {
        match self {
            Self::Virtual => CNTV_TVAL_EL0.set(ticks as u32 as u64),
            Self::Physical => CNTP_TVAL_EL0.set(ticks as u32 as u64),
        }
        cpu::synchronize();
    }

    /// Sets the deadline and lets the timer run, its interrupt unmasked.
    pub fn start(self, deadline: u64) {
        self.set_deadline(deadline);
        self.set_control(ENABLE);
    }

    /// Stops the timer; its line goes down.
    pub fn stop(self) {
        self.set_control(0);
    }

    /// Whether the deadline has passed while the timer runs (ISTATUS).
    pub fn expired(self) -> bool {
        self.control() & (ENABLE | ISTATUS) == ENABLE | ISTATUS
    }
}

/// Ticks in a second.
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get()
}

/// The virtual counter, in ticks.
pub fn now() -> u64 {
    Timer::Virtual.count()
}

/// Microseconds as ticks.
pub fn microseconds(microseconds: u64) -> u64 {
    // No product overflows: a frequency is at most 2^30 or so, and nobody waits for hours.
    frequency() * microseconds / 1_000_000
}

/// Milliseconds as ticks.
pub fn milliseconds(milliseconds: u64) -> u64 {
    microseconds(milliseconds * 1000)
}

/// Polls `condition` until it holds or the time is over; whether it held.
pub fn wait_until(limit_milliseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = now() + milliseconds(limit_milliseconds);
    loop {
        // The condition is asked once more after the time is over: this CPU may have been away meanwhile.
        let over = now() >= end;
        if condition() {
            return true;
        }
        if over {
            return false;
        }
        core::hint::spin_loop();
    }
}

/// Passes time.
pub fn delay_microseconds(time: u64) {
    let end = now() + microseconds(time);
    while now() < end {
        core::hint::spin_loop();
    }
}
