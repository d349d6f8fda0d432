//! Weighted fair queueing by virtual time, with a bounded slice, for the members that have a weight.
//!
//! A member's virtual time is what it ran, divided by its weight; the one that is furthest behind goes next. So over time
//! each gets its part exactly.

use super::NOBODY;
use super::shared::Member;

/// Steps of virtual time in a tick of the lightest member. That member's is the fastest, so that no virtual time ever
/// passes the counter times this: thirty years at 1 GHz fit into 64 bits.
const STEPS: u64 = 16;

/// What is known here of a member. Of one that is reserved, nothing: here it is never ready.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    weight: u64,
    /// Virtual time that passes while it runs for a tick: whole steps, and `part / weight` of one.
    step: u64,
    part: u64,
    /// Half a slice, a quarter and a whole one in its virtual time, for what is not charged.
    half: u64,
    quarter: u64,
    slice: u64,
    /// Virtual time: whole steps, and `rest / weight` of one, so that nothing is lost by rounding.
    time: u64,
    rest: u64,
    /// [`READY`], and what has happened since the last choice.
    flags: u8,
}

/// It can run.
const READY: u8 = 1;
/// It woke after the last choice.
const FRESH: u8 = 2;
/// It lets others go first at the next choice.
const PASSED: u8 = 4;

/// In [`Fair::used`]: longer than any slice.
const OVER: u64 = u64::MAX;

impl Entry {
    /// A member of this weight, at least 1, beside others of which the lightest has that one; `slice` in ticks.
    pub(super) fn new(weight: u32, lightest: u32, slice: u64) -> Self {
        let weight = u64::from(weight.max(1));
        // Steps of virtual time in a tick, times the weight.
        let rate = u64::from(lightest.max(1)).saturating_mul(STEPS);
        let steps = |ticks: u64| ticks.saturating_mul(rate).checked_div(weight).unwrap_or(0);
        Self {
            weight,
            step: rate.checked_div(weight).unwrap_or(0),
            part: rate.checked_rem(weight).unwrap_or(0),
            half: steps(slice / 2),
            quarter: steps(slice / 4),
            slice: steps(slice),
            time: 0,
            rest: 0,
            flags: 0,
        }
    }

    const fn is_ready(&self) -> bool {
        self.flags & READY != 0
    }

    /// It isn't further behind than this.
    const fn catch_up(&mut self, earliest: u64) {
        if self.time < earliest {
            (self.time, self.rest) = (earliest, 0);
        }
    }

    /// The member ran for so many ticks, of which thirty years are the most that count.
    #[inline]
    fn charge(&mut self, ran: u64) {
        self.time = self.time.saturating_add(ran.wrapping_mul(self.step));
        // A weight that is the lightest one times a power of two, up to 16, has no part, and needs no division.
        if self.part == 0 {
            return;
        }
        self.charge_part(ran);
    }

    /// What of it is less than a step for each tick.
    #[inline(never)]
    fn charge_part(&mut self, ran: u64) {
        // Split so that nothing overflows: part and rest are below the weight.
        let (rounds, ticks) =
            (ran.checked_div(self.weight).unwrap_or(0), ran.checked_rem(self.weight).unwrap_or(0));
        let parts = ticks.saturating_mul(self.part).saturating_add(self.rest);
        let steps =
            rounds.saturating_mul(self.part).saturating_add(parts.checked_div(self.weight).unwrap_or(0));
        self.time = self.time.saturating_add(steps);
        self.rest = parts.checked_rem(self.weight).unwrap_or(0);
    }
}

/// Whose turn it is of the fair members. Where a method takes members, they are all that the CPU has, and `index` is a place among them.
#[derive(Clone, Debug)]
pub(super) struct Fair {
    /// Ticks that a member runs at a stretch while another is ready.
    slice: u64,
    /// The virtual time that the last of the ready members had reached when one woke or blocked. It never goes back.
    floor: u64,
    /// Whose turn it is, or was last, and how long it ran in it; [`OVER`]: that turn has ended. Reserved members come in between without
    /// ending it.
    turn: usize,
    used: u64,
}

impl Fair {
    /// `slice` in ticks, at least 1.
    pub(super) const fn new(slice: u64) -> Self {
        Self { slice, floor: 0, turn: NOBODY, used: OVER }
    }

    pub(super) const fn slice(&self) -> u64 {
        self.slice
    }

    /// Sleeping saves nothing up but half a slice, so that who sleeps much is served at once.
    pub(super) fn wake(&mut self, members: &mut [Member], index: usize) {
        // As long as the same members are ready, the least of their times only grows: it counts when that changes.
        self.floor = self.floor.max(least_beside(members, NOBODY).unwrap_or(0));
        if let Some(Member { entry, .. }) = members.get_mut(index) {
            entry.catch_up(self.floor.saturating_sub(entry.half));
            entry.flags = READY | FRESH;
        }
    }

    pub(super) fn block(&mut self, members: &mut [Member], index: usize) {
        let least = least_beside(members, index);
        if let Some(Member { entry, .. }) = members.get_mut(index) {
            // The last one has been as far as it is itself.
            self.floor = self.floor.max(least.unwrap_or(entry.time));
            entry.flags = 0;
        }
        if self.turn == index {
            (self.turn, self.used) = (NOBODY, OVER);
        }
    }

    /// It waits for what another one does: it goes on soon after, but of what it gives away it gets back no more than a
    /// slice.
    #[inline]
    pub(super) fn pass(&mut self, entry: &mut Entry, index: usize) {
        entry.flags |= PASSED;
        if self.turn == index {
            self.used = OVER;
        }
    }

    /// The member that runs, whose turn it is or was until just now, ran for so many ticks.
    #[inline]
    pub(super) fn charge(&mut self, entry: &mut Entry, ran: u64) {
        entry.charge(ran);
        self.used = self.used.saturating_add(ran);
    }

    /// The same, and it [passes](Self::pass).
    #[inline]
    pub(super) fn charge_and_pass(&mut self, entry: &mut Entry, ran: u64) {
        entry.charge(ran);
        entry.flags |= PASSED;
        self.used = OVER;
    }

    /// Who runs next, or [`NOBODY`], and for how many ticks; `u64::MAX`, without a limit, if nobody else is ready.
    #[inline(always)]
    pub(super) fn choose(&mut self, members: &mut [Member]) -> (usize, u64) {
        let turn = self.turn;
        let mut goes_on = self.used < self.slice;
        let (mut next, mut least) = (NOBODY, u64::MAX);
        let mut ready: usize = 0;
        let mut passed = NOBODY;
        let mut index: usize = 0;
        while let Some(Member { entry, .. }) = members.get_mut(index) {
            let (place, flags, time) = (index, entry.flags, entry.time);
            index = index.wrapping_add(1);
            if flags & READY == 0 {
                continue;
            }
            ready = ready.wrapping_add(1);
            if flags != READY {
                entry.flags = READY;
                if flags & PASSED != 0 {
                    passed = place;
                    continue;
                }
                // Whoever woke and is behind by more than a quarter of a slice ends the turn early; less is not worth a switch.
                let reached = time.saturating_add(entry.quarter);
                goes_on &= members.get(turn).is_none_or(|running| reached >= running.entry.time);
            }
            // Of equals, whoever had the last turn comes last.
            let is_before = time < least || time == least && (next == turn || next == NOBODY);
            if is_before {
                (next, least) = (place, time);
            }
        }
        // At most one has passed, for each time a choice follows.
        if let Some(Member { entry, .. }) = members.get_mut(passed) {
            if next == NOBODY {
                next = passed;
            } else {
                entry.catch_up(least.saturating_sub(entry.slice));
            }
        }
        if next == NOBODY {
            // The last turn has ended, for whoever had it isn't ready.
            return (NOBODY, u64::MAX);
        }
        if !goes_on {
            (self.turn, self.used) = (next, 0);
        }
        let left = if ready > 1 { self.slice.saturating_sub(self.used) } else { u64::MAX };
        (self.turn, left)
    }
}

/// The least virtual time of those that are ready, but for this one.
fn least_beside(members: &[Member], index: usize) -> Option<u64> {
    let (before, others) = members.split_at_checked(index).unwrap_or((members, &[]));
    let others = before.iter().chain(others.iter().skip(1)).map(|member| &member.entry);
    others.filter(|entry| entry.is_ready()).map(|entry| entry.time).min()
}
