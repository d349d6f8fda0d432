//! Reserved time: a sporadic server for each member that has a budget, and whether all budgets of a CPU can be kept.
//!
//! The server is that of Stanovich, Baker, Wang and Harbour, "Defects of the POSIX sporadic server and how to correct
//! them" (RTAS 2010): to all others, the member is never worse than a periodic task of the same budget and period.

use super::Share;
use thiserror::Error;

/// How many pieces a budget can be in. When it is full, pieces are put together, at the time of the later one.
const PIECES: usize = 8;

/// A piece of the budget, and the time from which it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    time: u64,
    amount: u64,
}

impl Piece {
    const NONE: Self = Self { time: 0, amount: 0 };

    /// The earliest time at which it can have been used up.
    const fn end(&self) -> u64 {
        self.time.saturating_add(self.amount)
    }
}

/// A sporadic server: the budget in pieces.
///
/// What holds: the amounts add up to the budget, there is at least one piece, and no piece begins before the end of the
/// one before it. Each tick of the budget so has a time of its own from which it can be used, and comes back a period
/// after that time, never earlier.
#[derive(Clone, Debug)]
pub(super) struct Server {
    budget: u64,
    period: u64,
    pieces: [Piece; PIECES],
    count: usize,
}

impl Server {
    /// In ticks; what is out of range counts as the nearest that is in it.
    pub(super) fn new(budget: u64, period: u64) -> Self {
        let period = period.max(1);
        let budget = budget.clamp(1, period);
        let mut pieces = [Piece::NONE; PIECES];
        pieces[0] = Piece { time: 0, amount: budget };
        Self { budget, period, pieces, count: 1 }
    }

    pub(super) const fn period(&self) -> u64 {
        self.period
    }

    const fn head(&self) -> Piece {
        self.pieces[0]
    }

    /// The time from which there is something to use.
    pub(super) const fn due(&self) -> u64 {
        self.head().time
    }

    /// How long the member can run from `now` on without a break.
    pub(super) fn available(&self, now: u64) -> u64 {
        let mut sum: u64 = 0;
        for piece in self.pieces.iter().take(self.count) {
            if piece.time > now.saturating_add(sum) {
                break;
            }
            sum = sum.saturating_add(piece.amount);
        }
        sum
    }

    /// The member ran for so many ticks. More than it had is taken from what comes back later.
    // Apart, for most members have a weight.
    #[inline(never)]
    pub(super) fn charge(&mut self, ran: u64) {
        // Each time that it is used up as a whole, all of it moves by a period.
        let rounds = ran.checked_div(self.budget).unwrap_or(0);
        let mut left = ran.checked_rem(self.budget).unwrap_or(0);
        let later = rounds.saturating_mul(self.period);
        for piece in self.pieces.iter_mut().take(self.count) {
            piece.time = piece.time.saturating_add(later);
        }
        // Less than the budget is left to charge, so that each piece is met once at most.
        for _ in 0..PIECES {
            let head = self.head();
            let used = left.min(head.amount);
            if used == 0 {
                break;
            }
            left = left.saturating_sub(used);
            if used == head.amount {
                self.remove_head();
            } else {
                let amount = head.amount.saturating_sub(used);
                self.pieces[0] = Piece { time: head.time.saturating_add(used), amount };
            }
            self.append(Piece { time: head.time.saturating_add(self.period), amount: used });
        }
    }

    /// The member could have used what is due and did not, so that it counts from `now`: else a budget saved up would
    /// come back early, right after it is used.
    pub(super) fn restart(&mut self, now: u64) {
        if self.head().time > now {
            return;
        }
        self.pieces[0].time = now;
        for _ in 0..PIECES {
            let [head, next, ..] = self.pieces;
            if self.count < 2 || next.time > head.end() {
                break;
            }
            self.remove_head();
            self.pieces[0] = Piece { time: now, amount: head.amount.saturating_add(next.amount) };
        }
    }

    fn remove_head(&mut self) {
        self.pieces.rotate_left(1);
        self.count = self.count.saturating_sub(1);
    }

    /// `piece` is the last to come back.
    fn append(&mut self, piece: Piece) {
        let is_full = self.count >= PIECES;
        if let Some(last) = self.count.checked_sub(1).and_then(|last| self.pieces.get_mut(last)) {
            let adjoins = last.end() >= piece.time;
            if adjoins || is_full {
                if !adjoins {
                    last.time = piece.time.saturating_sub(last.amount);
                }
                last.amount = last.amount.saturating_add(piece.amount);
                return;
            }
        }
        if let Some(free) = self.pieces.get_mut(self.count) {
            *free = piece;
            self.count = self.count.saturating_add(1);
        }
    }
}

/// A budget that could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("share {index}: its budget cannot be kept in each period beside those with shorter periods")]
pub struct Overcommit {
    /// The first in the list that would miss its period.
    pub index: usize,
}

/// How often a response time is estimated anew. It grows each time; few sets need more than some dozens.
const ESTIMATES: usize = 10_000;

/// Whether each reserved member gets its budget in each period, whatever the others do: exact response-time analysis for
/// fixed priorities (Joseph and Pandya, 1986). Members with a weight don't count.
///
/// # Errors
/// Names the first that would miss its period, has a budget that is not 1 to its period, or whose response time is not
/// found in 10,000 estimates.
pub fn admit(shares: impl Iterator<Item = Share> + Clone) -> Result<(), Overcommit> {
    for (index, share) in shares.clone().enumerate() {
        if let Share::Budget { budget, period } = share
            && response(shares.clone(), index, budget, period).is_none()
        {
            return Err(Overcommit { index });
        }
    }
    Ok(())
}

/// The longest time, in ticks, from the release of a whole budget to its end; `None` if that is later than its period.
fn response(
    shares: impl Iterator<Item = Share> + Clone,
    index: usize,
    budget: u64,
    period: u64,
) -> Option<u64> {
    if budget == 0 {
        return None;
    }
    let mut estimate = budget;
    for _ in 0..ESTIMATES {
        let mut sum = budget;
        for (other, share) in shares.clone().enumerate() {
            if let Share::Budget { budget, period: shorter } = share
                && (shorter, other) < (period, index)
            {
                let releases = estimate.checked_add(shorter)?.checked_sub(1)?.checked_div(shorter)?;
                sum = sum.checked_add(releases.checked_mul(budget)?)?;
            }
        }
        if sum > period {
            return None;
        }
        if sum == estimate {
            return Some(sum);
        }
        estimate = sum;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn pieces(server: &Server) -> Vec<(u64, u64)> {
        server.pieces[..server.count].iter().map(|piece| (piece.time, piece.amount)).collect()
    }

    #[test]
    fn what_is_used_comes_back_a_period_after_it_was_due() {
        let mut server = Server::new(10, 100);
        server.restart(1000);
        server.charge(4);
        assert_eq!(pieces(&server), [(1004, 6), (1100, 4)]);
        // It was kept from running: what is left is still due since 1004.
        assert_eq!(server.available(1050), 6);
        server.charge(6);
        assert_eq!(pieces(&server), [(1100, 10)]);
    }

    #[test]
    fn what_was_not_used_counts_from_the_time_it_wakes() {
        let mut server = Server::new(10, 100);
        server.restart(1000);
        server.charge(4);
        server.restart(1050);
        assert_eq!(pieces(&server), [(1050, 6), (1100, 4)]);
        assert_eq!(server.available(1050), 6);
        // The later piece is due by the time that the earlier one can be used up.
        server.restart(1095);
        assert_eq!(pieces(&server), [(1095, 10)]);
        server.charge(10);
        server.restart(1194);
        assert_eq!(pieces(&server), [(1195, 10)], "nothing is due");
    }

    #[test]
    fn an_overrun_is_taken_from_what_comes_later() {
        let mut server = Server::new(10, 100);
        server.charge(13);
        assert_eq!(pieces(&server), [(103, 7), (200, 3)]);
        server.charge(u64::MAX);
        assert_eq!(server.due(), u64::MAX);
        let mut server = Server::new(10, 100);
        server.charge(1_000_000);
        assert_eq!(pieces(&server), [(10_000_000, 10)]);
    }

    proptest! {
        #[test]
        fn no_tick_is_lost_or_comes_back_early(
            budget in 1_u64..60, spare in 0_u64..100, steps in prop::collection::vec((0_u64..8, 0_u64..30), 0..200),
        ) {
            let period = budget + spare;
            let mut server = Server::new(budget, period);
            let mut now = 0;
            // When each tick of the budget was used last: it is a queue, the oldest is used next.
            let mut used: Vec<u64> = Vec::new();
            for (ran, slept) in steps {
                let ran = ran.min(server.available(now));
                for tick in now..now + ran {
                    if used.len() == budget as usize {
                        let last = used.remove(0);
                        prop_assert!(tick >= last + period, "used at {last} and at {tick}");
                    }
                    used.push(tick);
                }
                server.charge(ran);
                now += ran + slept;
                server.restart(now);
                let list = pieces(&server);
                prop_assert_eq!(list.iter().map(|piece| piece.1).sum::<u64>(), budget);
                prop_assert!(list.iter().all(|piece| piece.1 > 0));
                prop_assert!(list.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{:?}", list);
            }
        }
    }
}
