//! Weighted fair queueing by virtual time, with a bounded slice, for the members that have a weight.
//!
//! A member's virtual time is what it ran, divided by its weight; the one that is furthest behind goes next. So over time
//! each gets its part exactly. Here a member is named by its place among the fair ones.

use alloc::boxed::Box;

/// Steps of virtual time in a tick of the lightest member. That member's is the fastest, so that no virtual time ever
/// passes the counter times this: thirty years at 1 GHz fit into 64 bits.
const STEPS: u64 = 16;

#[derive(Clone, Debug)]
struct Entry {
    /// What the rest of the scheduler calls it.
    member: usize,
    /// Its place among the entries.
    place: usize,
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

impl Entry {
    /// `rate`: steps of virtual time in a tick, times the weight.
    fn new(place: usize, member: usize, weight: u64, rate: u64, slice: u64) -> Self {
        let steps = |ticks: u64| ticks.saturating_mul(rate).checked_div(weight).unwrap_or(0);
        Self {
            member,
            place,
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

    fn charge(&mut self, ran: u64) {
        self.time = self.time.saturating_add(ran.saturating_mul(self.step));
        // A weight that is the lightest one times a power of two, up to 16, has no part, and needs no division.
        if self.part == 0 {
            return;
        }
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

/// The fair members of a CPU.
#[derive(Clone, Debug)]
pub(super) struct Fair {
    entries: Box<[Entry]>,
    /// Ticks that a member runs at a stretch while another is ready.
    slice: u64,
    /// The virtual time that the last of the ready members had reached when one woke or blocked. It never goes back.
    floor: u64,
    /// Whose turn it is, and how long it ran in it. Reserved members come in between without ending it.
    turn: Option<usize>,
    used: u64,
}

impl Fair {
    /// Of each member its name in the rest of the scheduler and its weight, at least 1; `slice` in ticks, at least 1.
    pub(super) fn new(members: impl Iterator<Item = (usize, u32)> + Clone, slice: u64) -> Self {
        let slice = slice.max(1);
        let weight = |weight: u32| u64::from(weight.max(1));
        let lightest = members.clone().map(|(_, other)| weight(other)).min().unwrap_or(1);
        let rate = lightest.saturating_mul(STEPS);
        let entry = |(place, (member, own)): (usize, (usize, u32))| {
            Entry::new(place, member, weight(own), rate, slice)
        };
        Self { entries: members.enumerate().map(entry).collect(), slice, floor: 0, turn: None, used: 0 }
    }

    pub(super) const fn slice(&self) -> u64 {
        self.slice
    }

    /// The least virtual time of those that are ready, but for this one.
    fn least_beside(&self, index: Option<usize>) -> Option<u64> {
        let others = self.entries.iter().filter(|entry| entry.is_ready() && Some(entry.place) != index);
        others.map(|entry| entry.time).min()
    }

    /// Sleeping saves nothing up but half a slice, so that who sleeps much is served at once.
    pub(super) fn wake(&mut self, index: usize) {
        // As long as the same members are ready, the least of their times only grows: it counts when that changes.
        self.floor = self.floor.max(self.least_beside(None).unwrap_or(0));
        let floor = self.floor;
        if let Some(entry) = self.entries.get_mut(index) {
            entry.catch_up(floor.saturating_sub(entry.half));
            entry.flags = READY | FRESH;
        }
    }

    pub(super) fn block(&mut self, index: usize) {
        let least = self.least_beside(Some(index));
        if let Some(entry) = self.entries.get_mut(index) {
            // The last one has been as far as it is itself.
            self.floor = self.floor.max(least.unwrap_or(entry.time));
            entry.flags = 0;
        }
        if self.turn == Some(index) {
            self.turn = None;
        }
    }

    /// It waits for what another one does: it goes on soon after, but of what it gives away it gets back no more than a
    /// slice.
    #[inline]
    pub(super) fn pass(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.flags |= PASSED;
        }
        if self.turn == Some(index) {
            self.turn = None;
        }
    }

    /// The member ran for so many ticks.
    #[inline]
    pub(super) fn charge(&mut self, index: usize, ran: u64) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.charge(ran);
        }
        if self.turn == Some(index) {
            self.used = self.used.saturating_add(ran);
        }
    }

    /// Who runs next, and for how many ticks; `u64::MAX`, without a limit, if nobody else is ready.
    #[inline(always)]
    pub(super) fn choose(&mut self) -> Option<(usize, u64)> {
        let turn = self.turn;
        let running = turn.filter(|_| self.used < self.slice).and_then(|turn| self.entries.get(turn));
        // Whoever woke and is behind this by more than a quarter of a slice ends the turn early; less is not worth a switch.
        let limit = running.map_or(0, |running| running.time);
        let mut goes_on = running.is_some();
        let mut next = None;
        let mut ready: usize = 0;
        let mut passed = None;
        for entry in &mut self.entries {
            let flags = entry.flags;
            if flags & READY == 0 {
                continue;
            }
            ready = ready.wrapping_add(1);
            if flags & PASSED != 0 {
                entry.flags = READY;
                passed = Some(entry.place);
                continue;
            }
            if flags & FRESH != 0 {
                entry.flags = READY;
                goes_on &= entry.time.saturating_add(entry.quarter) >= limit;
            }
            // Of equals, whoever had the last turn comes last.
            let key = (entry.time, turn == Some(entry.place));
            if next.is_none_or(|(least, _)| key < least) {
                next = Some((key, entry.place));
            }
        }
        // At most one has passed, for each time a choice follows.
        if let Some(place) = passed {
            match (next, self.entries.get_mut(place)) {
                (Some(((least, _), _)), Some(entry)) => entry.catch_up(least.saturating_sub(entry.slice)),
                (_, entry) => next = entry.map(|entry| ((entry.time, false), entry.place)),
            }
        }
        if !goes_on {
            (self.turn, self.used) = (Some(next?.1), 0);
        }
        let left = if ready > 1 { self.slice.saturating_sub(self.used) } else { u64::MAX };
        Some((self.entries.get(self.turn?)?.member, left))
    }
}
