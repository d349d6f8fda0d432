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
    weight: u64,
    /// Virtual time: whole steps, and `rest / weight` of one, so that nothing is lost by rounding.
    time: u64,
    rest: u64,
    ready: bool,
    /// It woke after the last choice.
    fresh: bool,
    /// It lets others go first at the next choice.
    passed: bool,
}

/// The fair members of a CPU.
#[derive(Clone, Debug)]
pub(super) struct Fair {
    entries: Box<[Entry]>,
    /// Steps of virtual time in a tick, times the weight.
    rate: u64,
    /// Ticks that a member runs at a stretch while another is ready.
    slice: u64,
    /// The virtual time that the last of the ready members has reached. It never goes back.
    floor: u64,
    /// Whose turn it is, and how long it ran in it. Reserved members come in between without ending it.
    turn: Option<usize>,
    used: u64,
}

impl Fair {
    /// Of each member its name in the rest of the scheduler and its weight, at least 1; `slice` in ticks, at least 1.
    pub(super) fn new(members: impl Iterator<Item = (usize, u32)>, slice: u64) -> Self {
        let entry = |(member, weight): (usize, u32)| Entry {
            member,
            weight: u64::from(weight.max(1)),
            time: 0,
            rest: 0,
            ready: false,
            fresh: false,
            passed: false,
        };
        let entries: Box<[Entry]> = members.map(entry).collect();
        let lightest = entries.iter().map(|entry| entry.weight).min().unwrap_or(1);
        let rate = lightest.saturating_mul(STEPS);
        Self { entries, rate, slice: slice.max(1), floor: 0, turn: None, used: 0 }
    }

    pub(super) const fn slice(&self) -> u64 {
        self.slice
    }

    /// Sleeping saves nothing up but half a slice, so that who sleeps much is served at once.
    pub(super) fn wake(&mut self, index: usize) {
        let (half, rate, floor) = (self.slice / 2, self.rate, self.floor);
        if let Some(entry) = self.entries.get_mut(index) {
            let earliest = floor.saturating_sub(virtual_time(half, rate, entry.weight));
            if entry.time < earliest {
                (entry.time, entry.rest) = (earliest, 0);
            }
            (entry.ready, entry.fresh, entry.passed) = (true, true, false);
        }
    }

    pub(super) fn block(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.ready = false;
        }
        if self.turn == Some(index) {
            self.turn = None;
        }
        self.raise_floor();
    }

    /// It waits for what another one does: it goes on soon after, but of what it gives away it gets back no more than a
    /// slice.
    pub(super) fn pass(&mut self, index: usize) {
        let (slice, rate) = (self.slice, self.rate);
        let others = self.entries.iter().enumerate().filter(|&(other, entry)| entry.ready && other != index);
        let Some(least) = others.map(|(_, entry)| entry.time).min() else { return };
        if let Some(entry) = self.entries.get_mut(index) {
            let earliest = least.saturating_sub(virtual_time(slice, rate, entry.weight));
            if entry.time < earliest {
                (entry.time, entry.rest) = (earliest, 0);
            }
            entry.passed = true;
        }
        if self.turn == Some(index) {
            self.turn = None;
        }
        self.raise_floor();
    }

    /// The member ran for so many ticks.
    pub(super) fn charge(&mut self, index: usize, ran: u64) {
        let rate = self.rate;
        if let Some(entry) = self.entries.get_mut(index) {
            // Split so that nothing overflows: `rate` is at most STEPS times the weight, and `rest` is below the weight.
            let weight = entry.weight;
            let whole = ran.checked_div(weight).unwrap_or(0).saturating_mul(rate);
            let part = ran.checked_rem(weight).unwrap_or(0).saturating_mul(rate).saturating_add(entry.rest);
            entry.time =
                entry.time.saturating_add(whole).saturating_add(part.checked_div(weight).unwrap_or(0));
            entry.rest = part.checked_rem(weight).unwrap_or(0);
        }
        if self.turn == Some(index) {
            self.used = self.used.saturating_add(ran);
        }
        self.raise_floor();
    }

    /// Who runs next, and for how many ticks; without a limit if nobody else is ready.
    pub(super) fn choose(&mut self) -> Option<(usize, Option<u64>)> {
        let turn = match self.turn {
            Some(turn) if self.used < self.slice && !self.is_overtaken(turn) => turn,
            _ => {
                let next = self.furthest_behind()?;
                (self.turn, self.used) = (Some(next), 0);
                next
            }
        };
        let mut ready: usize = 0;
        for entry in &mut self.entries {
            (entry.fresh, entry.passed) = (false, false);
            ready = ready.saturating_add(usize::from(entry.ready));
        }
        let left = self.slice.saturating_sub(self.used);
        Some((self.entries.get(turn)?.member, (ready > 1).then_some(left)))
    }

    /// Whether a member that woke is so far behind that the turn ends early. A quarter of a slice is not worth a switch.
    fn is_overtaken(&self, turn: usize) -> bool {
        let Some(running) = self.entries.get(turn) else { return true };
        self.entries.iter().any(|entry| {
            let quarter = virtual_time(self.slice / 4, self.rate, entry.weight);
            entry.ready && entry.fresh && entry.time.saturating_add(quarter) < running.time
        })
    }

    /// Those who passed come after all others; of equals, whoever had the last turn comes last.
    fn furthest_behind(&self) -> Option<usize> {
        let ready = self.entries.iter().enumerate().filter(|(_, entry)| entry.ready);
        ready
            .min_by_key(|&(index, entry)| (entry.passed, entry.time, self.turn == Some(index)))
            .map(|(index, _)| index)
    }

    fn raise_floor(&mut self) {
        let ready = self.entries.iter().filter(|entry| entry.ready);
        if let Some(least) = ready.map(|entry| entry.time).min() {
            self.floor = self.floor.max(least);
        }
    }
}

/// The virtual time, in whole steps, of so many ticks, for what is not charged.
fn virtual_time(ticks: u64, rate: u64, weight: u64) -> u64 {
    ticks.saturating_mul(rate).checked_div(weight).unwrap_or(0)
}
