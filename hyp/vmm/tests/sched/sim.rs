//! A CPU in simulated time: what drives a scheduler, and the record of what ran.

use proptest::prelude::*;
use vmm::sched::{Queue, Scheduler, Share, Shared, Times, Turn};

use super::SLICE;

/// What makes a member ready.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Ready from the start, for ever.
    Busy,
    /// From the first time on, a job of so many ticks at least every `period`: by the given pseudo-random excess later.
    Jobs { first: u64, period: u64, work: u64, excess: u64 },
    /// What the script says.
    Script,
}

/// What happens from outside.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Wake,
    Block,
    Pass,
    /// Nothing, but the caller picks.
    Nudge,
}

#[derive(Clone, Debug, Default)]
pub struct Job {
    pub left: u64,
    pub released: u64,
    pub next: u64,
    pub count: u64,
}

/// What was seen of a member.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub runs: Vec<(u64, u64)>,
    /// From ready to running or blocked.
    pub longest_wait: u64,
    pub waits_since: Option<u64>,
    pub longest_response: u64,
    pub ran: u64,
    pub waited: u64,
    pub blocked: u64,
}

pub struct Sim {
    pub queue: Queue,
    pub loads: Vec<Load>,
    pub jobs: Vec<Job>,
    pub records: Vec<Record>,
    pub fair: Vec<bool>,
    pub now: u64,
    pub turn: Turn,
    pub idle: u64,
    pub picks: u64,
    /// How late the caller comes when its timer has fired.
    pub late: u64,
}

impl Sim {
    pub fn new(members: &[(Share, Load)]) -> Self {
        let shares: Vec<Share> = members.iter().map(|member| member.0).collect();
        Self::of(Queue::Shared(Shared::new(&shares, SLICE)), members)
    }

    pub fn of(queue: Queue, members: &[(Share, Load)]) -> Self {
        Self {
            queue,
            loads: members.iter().map(|member| member.1).collect(),
            jobs: vec![Job::default(); members.len()],
            records: vec![Record::default(); members.len()],
            fair: members.iter().map(|member| matches!(member.0, Share::Weight(_))).collect(),
            now: 0,
            turn: Turn { member: None, until: None },
            idle: 0,
            picks: 0,
            late: 0,
        }
    }

    pub fn run(&mut self, script: &[(u64, usize, Act)], end: u64) -> &mut Self {
        for member in 0..self.loads.len() {
            match self.loads[member] {
                Load::Busy => self.act(member, Act::Wake),
                Load::Jobs { first, .. } => self.jobs[member].next = first,
                Load::Script => {}
            }
        }
        let mut script = script.iter().peekable();
        loop {
            while let Some((_, member, act)) = script.next_if(|event| event.0 <= self.now) {
                self.act(*member, *act);
            }
            self.jobs_at_now();
            self.pick();
            if self.now >= end {
                return self;
            }
            let mut next = end;
            if let Some(until) = self.turn.until {
                next = next.min(until + self.late);
            }
            if let Some(event) = script.peek() {
                next = next.min(event.0);
            }
            for (member, load) in self.loads.iter().enumerate() {
                if matches!(load, Load::Jobs { .. }) {
                    let job = &self.jobs[member];
                    if job.left == 0 {
                        next = next.min(job.next);
                    } else if self.turn.member == Some(member) {
                        next = next.min(self.now + job.left);
                    }
                }
            }
            self.pass_time(next);
        }
    }

    /// Ends and releases jobs.
    pub fn jobs_at_now(&mut self) {
        for member in 0..self.loads.len() {
            let Load::Jobs { period, work, excess, .. } = self.loads[member] else { continue };
            let now = self.now;
            let job = &mut self.jobs[member];
            if job.left == 0 && self.queue.is_ready(member) {
                let response = now - job.released;
                let record = &mut self.records[member];
                record.longest_response = record.longest_response.max(response);
                self.act(member, Act::Block);
            }
            let job = &mut self.jobs[member];
            if job.left == 0 && job.next <= now {
                (job.left, job.released) = (work, job.next);
                job.count += 1;
                job.next += period + job.count * 7919 % (excess + 1);
                self.act(member, Act::Wake);
            }
        }
    }

    pub fn act(&mut self, member: usize, act: Act) {
        match act {
            Act::Wake => self.queue.wake(member, self.now),
            Act::Block => {
                self.queue.block(member, self.now);
                if self.turn.member == Some(member) {
                    self.turn.member = None;
                }
            }
            Act::Pass => self.queue.pass(member, self.now),
            Act::Nudge => {}
        }
    }

    pub fn pick(&mut self) {
        let turn = self.queue.pick(self.now);
        self.picks += 1;
        assert!(turn.until.is_none_or(|until| until > self.now), "{turn:?} at {} gets nowhere", self.now);
        if let Some(member) = turn.member {
            assert!(self.queue.is_ready(member), "{member} runs and is not ready");
        } else {
            let ready =
                (0..self.loads.len()).find(|&member| self.fair[member] && self.queue.is_ready(member));
            assert_eq!(ready, None, "the CPU idles at {}", self.now);
        }
        self.turn = turn;
        for (member, record) in self.records.iter_mut().enumerate() {
            if turn.member == Some(member) || !self.queue.is_ready(member) {
                record.waits_since = None;
            } else {
                record.waits_since.get_or_insert(self.now);
            }
        }
    }

    pub fn pass_time(&mut self, next: u64) {
        assert!(next > self.now, "time stands still");
        let passed = next - self.now;
        for (member, record) in self.records.iter_mut().enumerate() {
            if self.turn.member == Some(member) {
                record.ran += passed;
                match record.runs.last_mut() {
                    Some(last) if last.1 == self.now => last.1 = next,
                    _ => record.runs.push((self.now, next)),
                }
                self.jobs[member].left = self.jobs[member].left.saturating_sub(passed);
            } else if self.queue.is_ready(member) {
                record.waited += passed;
                let since = record.waits_since.unwrap();
                record.longest_wait = record.longest_wait.max(next - since);
            } else {
                record.blocked += passed;
            }
        }
        self.idle += if self.turn.member.is_none() { passed } else { 0 };
        self.now = next;
    }

    pub fn ran(&self, member: usize) -> u64 {
        self.records[member].ran
    }

    pub fn ran_within(&self, member: usize, start: u64, end: u64) -> u64 {
        let runs = self.records[member].runs.iter();
        runs.map(|run| run.1.min(end).saturating_sub(run.0.max(start))).sum()
    }

    /// The most that the member ran in any window of so many ticks. It is reached in one that begins or ends with a run.
    pub fn most_within(&self, member: usize, window: u64) -> u64 {
        let runs = &self.records[member].runs;
        let starts = runs.iter().flat_map(|run| [run.0, run.1.saturating_sub(window)]);
        starts.map(|start| self.ran_within(member, start, start + window)).max().unwrap_or(0)
    }

    pub fn check_times(&self) {
        let mut sum = self.idle;
        for (member, record) in self.records.iter().enumerate() {
            assert_eq!(
                self.queue.times(member),
                Times { ran: record.ran, waited: record.waited },
                "{member}"
            );
            assert_eq!(record.ran + record.waited + record.blocked, self.now);
            sum += self.queue.times(member).ran;
        }
        assert_eq!(sum, self.now);
    }
}

/// So many cases, and a few where each takes long.
pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig::with_cases(if cfg!(miri) { 2 } else { count })
}

pub const fn weight(weight: u32) -> Share {
    Share::Weight(weight)
}

pub const fn budget(budget: u64, period: u64) -> Share {
    Share::Budget { budget, period }
}

/// Events at random times, in order.
pub fn script(members: usize, length: usize, gap: u64) -> impl Strategy<Value = Vec<(u64, usize, Act)>> {
    let act = prop::sample::select(vec![Act::Wake, Act::Wake, Act::Wake, Act::Block, Act::Block, Act::Nudge]);
    prop::collection::vec((0..gap, 0..members, act), 1..length).prop_map(|events| {
        let mut time = 0;
        let at = |(gap, member, act)| {
            time += gap;
            (time, member, act)
        };
        events.into_iter().map(at).collect()
    })
}

/// The response time of the member by trying out each tick from the worst moment, when all begin at once.
pub fn response_by_trial(set: &[(u64, u64)], index: usize) -> Option<u64> {
    let mut order: Vec<usize> = (0..set.len()).collect();
    order.sort_by_key(|&member| (set[member].1, member));
    let mut left = vec![0; set.len()];
    let mut own = set[index].0;
    for tick in 0..set[index].1 {
        for (member, &(budget, period)) in set.iter().enumerate() {
            if tick % period == 0 {
                left[member] += budget;
            }
        }
        let Some(&running) = order.iter().find(|&&member| left[member] > 0) else { continue };
        left[running] -= 1;
        if running == index {
            own -= 1;
            if own == 0 {
                return Some(tick + 1);
            }
        }
    }
    None
}

/// A few budgets; about half of the sets can be kept.
pub fn budgets() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let one = (2_u64..60).prop_flat_map(|period| ((1..=period / 2), Just(period)));
    prop::collection::vec(one, 1..4)
}

pub fn reserve(set: &[(u64, u64)]) -> Vec<Share> {
    set.iter().map(|&(amount, period)| budget(amount, period)).collect()
}
