//! A CPU that several members share: reserved members by the length of their periods, then the fair ones.
//!
//! Who runs without a break is the business of [`fair`](super::fair) and [`reserved`](super::reserved); here they are put
//! in order, charged, and their time is accounted for.

use super::fair::{Entry, Fair};
use super::reserved::Server;
use super::{Account, Change, Decision, NOBODY, Scheduler, Share, State, Times, Turn};
use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::order;

/// What a reserved member has besides.
#[derive(Clone, Debug)]
struct Reserved {
    /// Who it is, by its place among the members.
    member: usize,
    server: Server,
    /// It lets others go first at the next pick.
    passed: bool,
    /// It did so, and has not run since: what is due to it counts from when it runs.
    gave_way: bool,
}

/// A member: all that a switch needs of it. Of a size that makes its place in a list a shift.
#[derive(Clone, Debug)]
#[repr(align(128))]
pub(super) struct Member {
    account: Account,
    pub(super) entry: Entry,
    /// Its place among the reserved ones, if it is one.
    reserved: Option<usize>,
}

/// The scheduler of a CPU that members share.
///
/// A reserved member that has budget left goes before all with a longer period (of equal periods, the earlier in the
/// list goes first), and before all fair members. If [`admit`](super::admit) accepts the budgets, a reserved member that
/// is always ready gets exactly its budget in each period, counted from when it woke. In no window of the length of its
/// period does it run longer than its budget, but for what other reserved members had delayed.
///
/// Of the fair members, each gets its part of what is left; while another one is ready it runs no longer than a slice at
/// a stretch.
#[derive(Clone, Debug)]
pub struct Shared {
    members: Box<[Member]>,
    /// The reserved ones, the most urgent one first.
    reserved: Box<[Reserved]>,
    fair: Fair,
    /// Who runs, or [`NOBODY`].
    running: usize,
    /// The time of the last event, up to which the running member is charged.
    now: u64,
}

impl Shared {
    /// Members with these shares, none of them ready. A slice is at least one tick. Allocates, which nothing else does.
    pub fn new(shares: &[Share], slice: u64) -> Self {
        let slice = slice.max(1);
        let weight = |share: &Share| match *share {
            Share::Weight(weight) => Some(weight),
            Share::Budget { .. } => None,
        };
        let lightest = shares.iter().filter_map(weight).min().unwrap_or(1);
        let budget = |(member, share): (usize, &Share)| match *share {
            Share::Weight(_) => None,
            Share::Budget { budget, period } => {
                let server = Server::new(budget, period);
                Some(Reserved { member, server, passed: false, gave_way: false })
            }
        };
        let mut reserved: Vec<_> = shares.iter().enumerate().filter_map(budget).collect();
        order::sort_by_key(&mut reserved, |reserved| reserved.server.period());
        let member = |(index, share): (usize, &Share)| Member {
            account: Account::new(),
            entry: Entry::new(weight(share).unwrap_or(1), lightest, slice),
            reserved: reserved.iter().position(|reserved| reserved.member == index),
        };
        Self {
            members: shares.iter().enumerate().map(member).collect(),
            reserved: reserved.into_boxed_slice(),
            fair: Fair::new(slice),
            running: NOBODY,
            now: 0,
        }
    }

    /// Charges who is running up to `now`. The time that counts from here on is `self.now`.
    #[inline]
    fn advance(&mut self, now: u64) {
        self.charge(now, false);
    }

    /// The same; and if it `passes`, the one that is running lets others go first.
    #[inline(always)]
    fn charge(&mut self, now: u64, passes: bool) {
        let ran = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let Some(Member { entry, reserved, .. }) = self.members.get_mut(self.running) else { return };
        let Some(place) = *reserved else {
            let fair = &mut self.fair;
            return if passes { fair.charge_and_pass(entry, ran) } else { fair.charge(entry, ran) };
        };
        // Apart, for most members have a weight.
        charge_reserved(&mut self.reserved, place, ran, passes);
    }

    /// Another one runs from now on, or nobody does. Returns the times of the one that ran, and of that one.
    #[inline]
    fn change(&mut self, next: usize) -> (Times, Times) {
        let (members, now) = (&mut *self.members, self.now);
        let last = members.get_mut(self.running).map_or(Times::NONE, |last| last.account.stop(now));
        self.running = next;
        (last, members.get_mut(next).map_or(Times::NONE, |next| next.account.start(now)))
    }

    /// Who runs from now on, or [`NOBODY`], and until when; `u64::MAX`: until something happens. That one's turn begins.
    #[inline(always)]
    fn choose(&mut self) -> (usize, u64) {
        if self.reserved.is_empty() { self.choose_fair(NOBODY, u64::MAX) } else { self.choose_urgent() }
    }

    /// Where the reserved members leave the CPU to the fair ones until then, or to `passed`, if none of those is ready.
    #[inline]
    fn choose_fair(&mut self, passed: usize, until: u64) -> (usize, u64) {
        let (next, limit) = self.fair.choose(&mut self.members);
        let until = until.min(self.now.saturating_add(limit));
        (if next == NOBODY { passed } else { next }, until)
    }

    /// Where there are reserved members. Apart, for most CPUs have none.
    #[inline(never)]
    fn choose_urgent(&mut self) -> (usize, u64) {
        let (next, until) = self.find_urgent();
        (next, until.min(self.start_reserved(next)))
    }

    fn find_urgent(&mut self) -> (usize, u64) {
        let now = self.now;
        let mut until = u64::MAX;
        let mut passed = NOBODY;
        for reserved in &self.reserved {
            if !self.is_ready(reserved.member) {
                continue;
            }
            let due = reserved.server.due();
            if due > now {
                until = until.min(due);
            } else if reserved.passed {
                passed = if passed == NOBODY { reserved.member } else { passed };
                until = until.min(now.saturating_add(self.fair.slice()));
            } else {
                return (reserved.member, until);
            }
        }
        self.choose_fair(passed, until)
    }

    /// Whoever has passed has done so; the one whose turn it is begins it. Returns when its budget ends.
    fn start_reserved(&mut self, turn: usize) -> u64 {
        let mut end = u64::MAX;
        for reserved in &mut self.reserved {
            reserved.passed = false;
            if reserved.member == turn {
                end = reserved.start(self.now);
            }
        }
        end
    }
}

/// The reserved member at this place ran for so many ticks, and lets others go first if it `passes`.
#[inline(never)]
fn charge_reserved(reserved: &mut [Reserved], place: usize, ran: u64, passes: bool) {
    let Some(reserved) = reserved.get_mut(place) else { return };
    if ran != 0 {
        reserved.server.charge(ran);
    }
    if passes {
        reserved.pass();
    }
}

impl Reserved {
    fn pass(&mut self) {
        (self.passed, self.gave_way) = (true, true);
    }

    /// Starts or goes on at `now`; the time at which its budget ends.
    fn start(&mut self, now: u64) -> u64 {
        // No admitted member waits for a whole period. In an overcommitted set, what was missed is not made up for.
        let missed = now.saturating_sub(self.server.due()) > self.server.period();
        if missed || self.gave_way {
            self.server.restart(now);
        }
        self.gave_way = false;
        now.saturating_add(self.server.available(now))
    }
}

impl Scheduler for Shared {
    fn wake(&mut self, member: usize, now: u64) {
        self.advance(now);
        let Some(Member { account, reserved, .. }) = self.members.get_mut(member) else { return };
        if account.is_ready() {
            return;
        }
        account.enter(State::Waiting, self.now);
        let Some(place) = *reserved else { return self.fair.wake(&mut self.members, member) };
        if let Some(reserved) = self.reserved.get_mut(place) {
            (reserved.passed, reserved.gave_way) = (false, false);
            reserved.server.restart(self.now);
        }
    }

    fn block(&mut self, member: usize, now: u64) {
        self.advance(now);
        let Some(Member { account, reserved, .. }) = self.members.get_mut(member) else { return };
        if !account.is_ready() {
            return;
        }
        account.enter(State::Blocked, self.now);
        if reserved.is_none() {
            self.fair.block(&mut self.members, member);
        }
        if self.running == member {
            self.running = NOBODY;
        }
    }

    #[inline]
    fn pass(&mut self, member: usize, now: u64) {
        self.advance(now);
        let Some(Member { account, entry, reserved }) = self.members.get_mut(member) else { return };
        if !account.is_ready() {
            return;
        }
        let Some(place) = *reserved else { return self.fair.pass(entry, member) };
        if let Some(reserved) = self.reserved.get_mut(place) {
            reserved.pass();
        }
    }

    #[inline]
    fn pick(&mut self, now: u64) -> Turn {
        self.decide(None, Change::Nothing, now).turn()
    }

    #[inline]
    fn is_ready(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|member| member.account.is_ready())
    }

    #[inline]
    fn times(&self, member: usize) -> Times {
        self.members.get(member).map_or(Times::default(), |member| member.account.times_at(self.now))
    }

    fn set_times(&mut self, member: usize, times: Times) {
        if let Some(member) = self.members.get_mut(member) {
            member.account.set_times(times);
        }
    }

    #[inline(always)]
    fn decide(&mut self, last: Option<usize>, change: Change, now: u64) -> Decision {
        let last = last.unwrap_or(NOBODY);
        match change {
            Change::Nothing => self.charge(now, false),
            Change::Passes if last == self.running => self.charge(now, true),
            Change::Passes => self.pass(last, now),
            Change::Blocks => self.block(last, now),
        }
        let before = self.running;
        let (next, until) = self.choose();
        if next == before {
            let last = (self.is_ready(last), self.times(last));
            return Decision { next, until, last, times: self.times(next) };
        }
        let (stopped, times) = self.change(next);
        // The one that ran is ready: else it would have been blocked, and run no more.
        let last = if last == before { (true, stopped) } else { (self.is_ready(last), self.times(last)) };
        Decision { next, until, last, times }
    }
}
