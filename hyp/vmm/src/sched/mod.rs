//! Who runs on a physical CPU: the scheduler of one CPU and the members (vCPUs) that have a share of it.
//!
//! It only decides. The caller tells what happens to the members and when, sets its timer to what [`Turn::until`] says,
//! and switches. No method allocates, and none takes longer than a few steps for each member.
//!
//! All times are ticks of the board's counter, which never goes back. A time before that of the last event counts as
//! that one. A member is named by its place in the list of shares; a name that is not in it has no effect.

mod fair;
mod reserved;
mod shared;

pub use reserved::{Overcommit, admit};
pub use shared::Shared;

/// What a member is entitled to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// A part of the time that the reserved members leave, in proportion to this weight: 1 to 65535. A zero counts as
    /// one.
    Weight(u32),
    /// A reserved time, ahead of all members with a weight. Nothing beyond it, even where the CPU would idle.
    Budget {
        /// Ticks in each period: 1 to `period`. What lies outside counts as the nearest of these.
        budget: u64,
        /// Ticks: at least 1.
        period: u64,
    },
}

/// What [`Scheduler::pick`] decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who runs; `None`: the CPU idles.
    pub member: Option<usize>,
    /// The time, in ticks, at which to pick again at the latest; `None`: only when something happens to a member.
    pub until: Option<u64>,
}

/// Where a member's time went, in ticks, up to the last event that its scheduler was told of. The rest of the time it
/// was not ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// It ran.
    pub ran: u64,
    /// It was ready and did not run: stolen time.
    pub waited: u64,
}

/// What the member that ran has just done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Change {
    /// Nothing that counts.
    Nothing,
    /// It lets others go first.
    Passes,
    /// It is no longer ready.
    Blocks,
}

/// What is decided, and what is known of those whom that concerns: a [`Turn`] in numbers alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who runs from now on; [`NOBODY`]: the CPU idles.
    pub next: usize,
    /// The time, in ticks, at which to decide again at the latest; `u64::MAX`: only when something happens to a member.
    pub until: u64,
    /// Whether the one that ran is ready, and its times.
    pub last: (bool, Times),
    /// The times of the one whose turn it is.
    pub times: Times,
}

impl Times {
    /// It never was ready.
    pub const NONE: Self = Self { ran: 0, waited: 0 };
}

impl Decision {
    /// Nobody runs.
    pub const NONE: Self =
        Self { next: NOBODY, until: u64::MAX, last: (false, Times::NONE), times: Times::NONE };

    /// Who runs, and until when.
    pub fn turn(&self) -> Turn {
        Turn {
            member: (self.next != NOBODY).then_some(self.next),
            until: (self.until != u64::MAX).then_some(self.until),
        }
    }
}

/// The policy of one physical CPU. No member is ready at first.
///
/// After `wake`, `block` or `pass` the caller picks anew: until then the one that was running is taken to go on, unless
/// it is the one that blocked.
pub trait Scheduler {
    /// `member` is ready to run from `now` on. No effect if it is ready already.
    fn wake(&mut self, member: usize, now: u64);
    /// `member` is no longer ready.
    fn block(&mut self, member: usize, now: u64);
    /// `member` stays ready, and lets others that can run go first once.
    fn pass(&mut self, member: usize, now: u64);
    /// Charges who ran since the last pick, and decides who runs from `now` on.
    fn pick(&mut self, now: u64) -> Turn;
    /// Whether `member` is ready, running or not.
    fn is_ready(&self, member: usize) -> bool;
    /// Where the time of `member` went.
    fn times(&self, member: usize) -> Times;
    /// `member`, which isn't ready, comes from another CPU: where its time went is counted on from there.
    fn set_times(&mut self, member: usize, times: Times);
    /// What has happened to the member that ran, if one did, and who runs from `now` on: all of the above at once.
    #[inline]
    fn decide(&mut self, last: Option<usize>, change: Change, now: u64) -> Decision {
        if let Some(last) = last {
            match change {
                Change::Nothing => {}
                Change::Passes => self.pass(last, now),
                Change::Blocks => self.block(last, now),
            }
        }
        let Turn { member, until } = self.pick(now);
        let last = last.unwrap_or(NOBODY);
        let next = member.unwrap_or(NOBODY);
        let last = (self.is_ready(last), self.times(last));
        Decision { next, until: until.unwrap_or(u64::MAX), last, times: self.times(next) }
    }
}

/// No member: a place that is in no list.
pub const NOBODY: usize = usize::MAX;

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Blocked,
    Waiting,
    Running,
}

/// What a member does, and where its time went: of what it does just now, less the time at which that began.
#[derive(Clone, Copy, Debug)]
struct Account {
    state: State,
    ran: u64,
    waited: u64,
}

impl Account {
    const fn new() -> Self {
        Self { state: State::Blocked, ran: 0, waited: 0 }
    }

    const fn is_ready(&self) -> bool {
        !matches!(self.state, State::Blocked)
    }

    /// No effect where it is ready.
    const fn set_times(&mut self, Times { ran, waited }: Times) {
        if !self.is_ready() {
            *self = Self { state: State::Blocked, ran, waited };
        }
    }

    /// From `now` on, it is in `state`.
    const fn enter(&mut self, state: State, now: u64) {
        let Times { ran, waited } = self.times_at(now);
        *self = match state {
            State::Blocked => Self { state, ran, waited },
            State::Waiting => Self { state, ran, waited: waited.wrapping_sub(now) },
            State::Running => Self { state, ran: ran.wrapping_sub(now), waited },
        };
    }

    /// It ran, and waits from now on. Returns its times.
    const fn stop(&mut self, now: u64) -> Times {
        let times = Times { ran: self.ran.wrapping_add(now), waited: self.waited };
        *self = Self { state: State::Waiting, ran: times.ran, waited: times.waited.wrapping_sub(now) };
        times
    }

    /// It waited, and runs from now on. Returns its times.
    const fn start(&mut self, now: u64) -> Times {
        let times = Times { ran: self.ran, waited: self.waited.wrapping_add(now) };
        *self = Self { state: State::Running, ran: times.ran.wrapping_sub(now), waited: times.waited };
        times
    }

    const fn times_at(&self, now: u64) -> Times {
        let Self { state, ran, waited } = *self;
        match state {
            State::Blocked => Times { ran, waited },
            State::Waiting => Times { ran, waited: waited.wrapping_add(now) },
            State::Running => Times { ran: ran.wrapping_add(now), waited },
        }
    }
}

/// A CPU that has one member, number 0, which runs whenever it is ready: no tick, and nothing to decide.
#[derive(Clone, Debug)]
pub struct Pinned {
    member: Account,
    now: u64,
}

impl Pinned {
    /// The member is not ready.
    pub const fn new() -> Self {
        Self { member: Account::new(), now: 0 }
    }

    fn enter(&mut self, state: State, now: u64) {
        self.now = self.now.max(now);
        if self.member.state != state {
            self.member.enter(state, self.now);
        }
    }
}

impl Default for Pinned {
    fn default() -> Self {
        Self::new()
    }
}

impl Scheduler for Pinned {
    #[inline]
    fn wake(&mut self, member: usize, now: u64) {
        if member == 0 && !self.member.is_ready() {
            self.enter(State::Waiting, now);
        }
    }

    #[inline]
    fn block(&mut self, member: usize, now: u64) {
        if member == 0 {
            self.enter(State::Blocked, now);
        }
    }

    /// There is nobody to let go first.
    #[inline]
    fn pass(&mut self, _member: usize, _now: u64) {}

    #[inline]
    fn pick(&mut self, now: u64) -> Turn {
        let ready = self.member.is_ready();
        self.enter(if ready { State::Running } else { State::Blocked }, now);
        Turn { member: ready.then_some(0), until: None }
    }

    #[inline]
    fn is_ready(&self, member: usize) -> bool {
        member == 0 && self.member.is_ready()
    }

    fn times(&self, member: usize) -> Times {
        if member == 0 { self.member.times_at(self.now) } else { Times::default() }
    }

    fn set_times(&mut self, member: usize, times: Times) {
        if member == 0 {
            self.member.set_times(times);
        }
    }
}

/// The scheduler that a CPU has.
#[derive(Clone, Debug)]
pub enum Queue {
    /// For one member that has the CPU to itself.
    Pinned(Pinned),
    /// For members that share it.
    Shared(Shared),
}

/// The same call on the one that it is.
macro_rules! either {
    ($queue:expr, $one:ident => $call:expr) => {
        match $queue {
            Queue::Pinned($one) => $call,
            Queue::Shared($one) => $call,
        }
    };
}

impl Scheduler for Queue {
    #[inline]
    fn wake(&mut self, member: usize, now: u64) {
        either!(self, one => one.wake(member, now));
    }

    #[inline]
    fn block(&mut self, member: usize, now: u64) {
        either!(self, one => one.block(member, now));
    }

    #[inline]
    fn pass(&mut self, member: usize, now: u64) {
        either!(self, one => one.pass(member, now));
    }

    #[inline]
    fn pick(&mut self, now: u64) -> Turn {
        either!(self, one => one.pick(now))
    }

    #[inline]
    fn is_ready(&self, member: usize) -> bool {
        either!(self, one => one.is_ready(member))
    }

    #[inline]
    fn times(&self, member: usize) -> Times {
        either!(self, one => one.times(member))
    }

    fn set_times(&mut self, member: usize, times: Times) {
        either!(self, one => one.set_times(member, times));
    }

    #[inline]
    fn decide(&mut self, last: Option<usize>, change: Change, now: u64) -> Decision {
        either!(self, one => one.decide(last, change, now))
    }
}
