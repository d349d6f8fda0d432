//! A CPU that several members share: reserved members by the length of their periods, then the fair ones.
//!
//! Who runs without a break is the business of [`fair`](super::fair) and [`reserved`](super::reserved); here they are put
//! in order, charged, and their time is accounted for.

use super::fair::Fair;
use super::reserved::Server;
use super::{Account, Scheduler, Share, State, Times, Turn};
use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::order;

/// A reserved member.
#[derive(Clone, Debug)]
struct Reserved {
    server: Server,
    /// It lets others go first at the next pick.
    passed: bool,
    /// It did so, and has not run since: what is due to it counts from when it runs.
    gave_way: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    /// With its place among the fair ones.
    Fair(usize),
    Reserved(Reserved),
}

#[derive(Clone, Debug)]
struct Member {
    account: Account,
    kind: Kind,
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
    /// The reserved members, the most urgent one first.
    urgency: Box<[usize]>,
    fair: Fair,
    running: Option<usize>,
    /// The time of the last event, up to which the running member is charged.
    now: u64,
}

impl Shared {
    /// Members with these shares, none of them ready. A slice is at least one tick. Allocates, which nothing else does.
    pub fn new(shares: &[Share], slice: u64) -> Self {
        let mut weights = Vec::new();
        let mut urgency = Vec::new();
        let mut members = Vec::new();
        for (index, share) in shares.iter().enumerate() {
            let kind = match *share {
                Share::Weight(weight) => {
                    weights.push((index, weight));
                    Kind::Fair(weights.len().saturating_sub(1))
                }
                Share::Budget { budget, period } => {
                    let server = Server::new(budget, period);
                    urgency.push((server.period(), index));
                    Kind::Reserved(Reserved { server, passed: false, gave_way: false })
                }
            };
            members.push(Member { account: Account::new(), kind });
        }
        order::sort(&mut urgency);
        Self {
            members: members.into_boxed_slice(),
            urgency: urgency.into_iter().map(|(_, index)| index).collect(),
            fair: Fair::new(weights.into_iter(), slice),
            running: None,
            now: 0,
        }
    }

    /// Charges who is running up to `now`. The time that counts from here on is `self.now`.
    #[inline]
    fn advance(&mut self, now: u64) {
        let ran = now.saturating_sub(self.now);
        if ran == 0 {
            return;
        }
        self.now = now;
        match self.running.and_then(|running| self.members.get_mut(running)) {
            Some(Member { kind: Kind::Fair(place), .. }) => self.fair.charge(*place, ran),
            Some(Member { kind: Kind::Reserved(reserved), .. }) => reserved.server.charge(ran),
            None => {}
        }
    }

    /// Another one runs from now on, or nobody does.
    #[inline]
    fn change(&mut self, member: Option<usize>) {
        if let Some(before) = self.running.and_then(|running| self.members.get_mut(running)) {
            before.account.stop(self.now);
        }
        if let Some(next) = member.and_then(|member| self.members.get_mut(member)) {
            next.account.start(self.now);
        }
        self.running = member;
    }

    /// Who runs from now on, and until when; `u64::MAX`: until something happens. Nothing is changed but the order of the fair ones.
    #[inline(always)]
    fn choose(&mut self) -> (Option<usize>, u64) {
        if self.urgency.is_empty() { self.choose_fair(None, u64::MAX) } else { self.choose_urgent() }
    }

    /// Where the reserved members leave the CPU to the fair ones until then, or to `passed`, if none of those is ready.
    #[inline]
    fn choose_fair(&mut self, passed: Option<usize>, until: u64) -> (Option<usize>, u64) {
        match self.fair.choose() {
            Some((member, limit)) => (Some(member), until.min(self.now.saturating_add(limit))),
            None => (passed, until),
        }
    }

    /// Where there are reserved members. Apart, for most CPUs have none.
    #[inline(never)]
    fn choose_urgent(&mut self) -> (Option<usize>, u64) {
        let now = self.now;
        let mut until = u64::MAX;
        let mut passed = None;
        for &index in &self.urgency {
            let Some(Member { account, kind: Kind::Reserved(reserved) }) = self.members.get(index) else {
                continue;
            };
            let due = reserved.server.due();
            if !account.is_ready() {
                continue;
            }
            if due > now {
                until = until.min(due);
            } else if reserved.passed {
                passed = passed.or(Some(index));
                until = until.min(now.saturating_add(self.fair.slice()));
            } else {
                return (Some(index), until);
            }
        }
        self.choose_fair(passed, until)
    }

    /// Whoever has passed has done so; the one whose turn it is begins it. Returns when its budget ends.
    #[inline(never)]
    fn start_reserved(&mut self, turn: Option<usize>) -> u64 {
        let mut end = u64::MAX;
        for &index in &self.urgency {
            if let Some(Member { kind: Kind::Reserved(reserved), .. }) = self.members.get_mut(index) {
                reserved.passed = false;
                if turn == Some(index) {
                    end = Self::start(reserved, self.now);
                }
            }
        }
        end
    }

    /// Starts or goes on with `reserved` at `now`; the time at which its budget ends.
    fn start(reserved: &mut Reserved, now: u64) -> u64 {
        // No admitted member waits for a whole period. In an overcommitted set, what was missed is not made up for.
        let missed = now.saturating_sub(reserved.server.due()) > reserved.server.period();
        if missed || reserved.gave_way {
            reserved.server.restart(now);
        }
        reserved.gave_way = false;
        now.saturating_add(reserved.server.available(now))
    }
}

impl Scheduler for Shared {
    fn wake(&mut self, member: usize, now: u64) {
        self.advance(now);
        let Some(Member { account, kind }) = self.members.get_mut(member) else { return };
        if account.is_ready() {
            return;
        }
        account.enter(State::Waiting, self.now);
        match kind {
            Kind::Fair(place) => self.fair.wake(*place),
            Kind::Reserved(reserved) => {
                (reserved.passed, reserved.gave_way) = (false, false);
                reserved.server.restart(self.now);
            }
        }
    }

    fn block(&mut self, member: usize, now: u64) {
        self.advance(now);
        let Some(Member { account, kind }) = self.members.get_mut(member) else { return };
        if !account.is_ready() {
            return;
        }
        account.enter(State::Blocked, self.now);
        if let Kind::Fair(place) = kind {
            self.fair.block(*place);
        }
        if self.running == Some(member) {
            self.running = None;
        }
    }

    #[inline]
    fn pass(&mut self, member: usize, now: u64) {
        self.advance(now);
        let Some(Member { account, kind }) = self.members.get_mut(member) else { return };
        if !account.is_ready() {
            return;
        }
        match kind {
            Kind::Fair(place) => self.fair.pass(*place),
            Kind::Reserved(reserved) => (reserved.passed, reserved.gave_way) = (true, true),
        }
    }

    #[inline(always)]
    fn pick(&mut self, now: u64) -> Turn {
        self.advance(now);
        let (member, mut until) = self.choose();
        if !self.urgency.is_empty() {
            until = until.min(self.start_reserved(member));
        }
        if member != self.running {
            self.change(member);
        }
        Turn { member, until: (until != u64::MAX).then_some(until) }
    }

    #[inline]
    fn is_ready(&self, member: usize) -> bool {
        self.members.get(member).is_some_and(|member| member.account.is_ready())
    }

    #[inline]
    fn times(&self, member: usize) -> Times {
        self.members.get(member).map_or(Times::default(), |member| member.account.times_at(self.now))
    }
}
