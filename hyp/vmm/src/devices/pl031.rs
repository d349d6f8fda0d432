//! The guest's clock: an Arm PL031 RTC (DDI 0224), which counts seconds and can interrupt at a given one.
//!
//! Time comes in with each call, as the board's counter; the caller arms a timer for [`Pl031::next_deadline`] and calls
//! [`Pl031::tick`] then. The clock always runs, for CR can only start it.

use super::{Line, from_byte, primecell};
use core::num::NonZeroU32;

/// PeriphID0 to 3, as on QEMU's `virt`.
const PERIPHERAL_ID: u32 = 0x0014_1031;

/// Register offsets, section 3.2.
mod register {
    pub(super) const DR: u32 = 0x00;
    pub(super) const MR: u32 = 0x04;
    pub(super) const LR: u32 = 0x08;
    pub(super) const CR: u32 = 0x0c;
    pub(super) const IMSC: u32 = 0x10;
    pub(super) const RIS: u32 = 0x14;
    pub(super) const MIS: u32 = 0x18;
    pub(super) const ICR: u32 = 0x1c;
}

/// The one interrupt, in IMSC, RIS, MIS and ICR; and CR's one bit.
const BIT: u32 = 1;

/// Seconds until a 32-bit count comes round to the same value.
const ROUND: u64 = 1 << 32;

/// A virtual PL031.
#[derive(Clone, Debug)]
pub struct Pl031 {
    /// Counter ticks per second.
    frequency: NonZeroU32,
    /// What DR shows beyond the counter's seconds, modulo 2^32.
    offset: u32,
    /// The counter's second in which DR next comes to equal MR.
    match_at: u64,
    mr: u32,
    lr: u32,
    imsc: u32,
    ris: u32,
}

impl Pl031 {
    /// A clock that shows `wall_clock` seconds (since 1970, as guests take it) when the counter is at `now` ticks of
    /// `frequency` to the second.
    pub fn new(wall_clock: u32, now: u64, frequency: NonZeroU32) -> Self {
        let mut rtc = Self { frequency, offset: 0, match_at: 0, mr: 0, lr: wall_clock, imsc: 0, ris: 0 };
        rtc.set_time(wall_clock, now);
        rtc.reset_alarm(now);
        rtc
    }

    /// Resets the alarm. The time goes on, as with a battery.
    pub fn reset(&mut self, now: u64) -> Line {
        let before = self.irq_level();
        self.reset_alarm(now);
        Line::change(before, self.irq_level())
    }

    /// The level of the interrupt line RTCINTR.
    pub const fn irq_level(&self) -> bool {
        self.ris & self.imsc != 0
    }

    /// The counter value at which the line goes up, if it will: to arm a timer with, again after every write and tick.
    /// It can lie in the past, when [`Self::tick`] is overdue; `u64::MAX` stands for "later than can be told".
    pub fn next_deadline(&self) -> Option<u64> {
        if self.imsc & !self.ris & BIT == 0 {
            return None;
        }
        Some(self.match_at.saturating_mul(u64::from(self.frequency.get())))
    }

    /// Takes notice of the time: the alarm, if its second has come.
    pub fn tick(&mut self, now: u64) -> Line {
        let before = self.irq_level();
        self.advance(now);
        Line::change(before, self.irq_level())
    }

    /// Reads the register at `offset`, 0 to 0xfff, at the time `now`: its bits from that byte on, of which the caller
    /// cuts out the access's size. Zero where there is no register. The line can go up, for the alarm may be due and
    /// not yet noticed.
    pub fn read(&mut self, offset: u32, now: u64) -> (u32, Line) {
        let line = self.tick(now);
        let value = match offset & !3 {
            register::DR => self.time(now),
            register::MR => self.mr,
            register::LR => self.lr,
            register::CR => BIT,
            register::IMSC => self.imsc,
            register::RIS => self.ris,
            register::MIS => self.ris & self.imsc,
            id => primecell::read(id, PERIPHERAL_ID),
        };
        (from_byte(value, offset), line)
    }

    /// Writes the register at `offset`, 0 to 0xfff, at the time `now`. `value` is cut to the access's size: a narrow
    /// write at a register's first byte writes zeros above it; one above the first byte is ignored.
    pub fn write(&mut self, offset: u32, value: u32, now: u64) -> Line {
        let before = self.irq_level();
        self.advance(now);
        match offset {
            register::MR => self.set_match(value, now),
            register::LR => {
                self.lr = value;
                self.set_time(value, now);
                self.set_match(self.mr, now);
            }
            register::IMSC => self.imsc = value & BIT,
            register::ICR => self.ris &= !value,
            _ => {}
        }
        Line::change(before, self.irq_level())
    }

    fn reset_alarm(&mut self, now: u64) {
        self.imsc = 0;
        self.set_match(0, now);
        self.ris = 0;
    }

    /// The counter's seconds.
    fn seconds(&self, now: u64) -> u64 {
        now.checked_div(u64::from(self.frequency.get())).unwrap_or(0)
    }

    /// DR: seconds modulo 2^32.
    fn time(&self, now: u64) -> u32 {
        (self.seconds(now) as u32).wrapping_add(self.offset)
    }

    fn set_time(&mut self, time: u32, now: u64) {
        self.offset = time.wrapping_sub(self.seconds(now) as u32);
    }

    /// Sets MR, and when DR will next equal it; that may be at once.
    fn set_match(&mut self, value: u32, now: u64) {
        self.mr = value;
        let ahead = value.wrapping_sub(self.time(now));
        self.match_at = self.seconds(now).saturating_add(u64::from(ahead));
        self.advance(now);
    }

    /// Raises the alarm if its second has begun, and sets the one a round later. Matches missed since the last call
    /// are one alarm: the interrupt is a level.
    fn advance(&mut self, now: u64) {
        let seconds = self.seconds(now);
        if seconds < self.match_at {
            return;
        }
        self.ris |= BIT;
        let rounds = (seconds.wrapping_sub(self.match_at) / ROUND).wrapping_add(1);
        self.match_at = self.match_at.saturating_add(rounds.saturating_mul(ROUND));
    }
}
