//! The guest `chaos` beside good neighbours, for so many operations: what is looked at, and what was done.
//!
//! `keeper` sees that it gets on, and that no memory is lost whenever it is off; `busy` and `pulse` see that nothing of theirs is
//! touched, and have to come to their ends. CPUs may run at the same time (`at_once`), and the host has its part in what comes first. If not, time is
//! what instructions take: a run repeats, and `pulse` must be on time, which bounds every exit. But a vCPU that takes exceptions
//! without end and executes nothing then stops the clock for all.

use std::fmt;
use std::time::{Duration, Instant};

use crate::{Failure, Machine, Outcome, Scenario, Vm, ensure};

/// A run.
#[derive(Clone, Debug)]
pub struct Chaos {
    /// Version of the interrupt controller.
    pub gic: u8,
    /// The CPUs' model.
    pub cpu: &'static str,
    /// The guest's vCPUs.
    pub vcpus: u8,
    /// What all of it follows from.
    pub seed: u64,
    /// How many operations.
    pub operations: u64,
    /// QEMU runs all CPUs at the same time.
    pub at_once: bool,
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let at_once = if self.at_once { "-at-once" } else { "" };
        write!(f, "gicv{}/{}/{}-vcpus{at_once}/seed-{}", self.gic, self.cpu, self.vcpus, self.seed)
    }
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// Operations.
    pub operations: u64,
    /// Restarts and stops where it stood still, and how often it was off by itself or had crashed.
    pub helped: [u64; 4],
    /// How often a vCPU began.
    pub beginnings: u64,
    /// Operations of each kind.
    pub kinds: Vec<(String, u64)>,
    /// Ways in which operations ended.
    pub ends: Vec<(String, u64)>,
    /// How long it took here.
    pub took: Duration,
}

/// How late a tick of `pulse` may be, in microseconds.
const LATEST_US: u64 = 20;

impl Chaos {
    /// The machine.
    pub fn machine(&self) -> Machine {
        let machine = Machine::new(self.gic, self.vcpus).cpu(self.cpu);
        if self.at_once { machine } else { machine.option("-icount", "shift=0,sleep=off") }
    }

    /// The VMs, and what joins two of them.
    pub fn vms(&self) -> [Vm; 5] {
        let Self { vcpus, seed, operations, .. } = self;
        let every = operations.div_ceil(4);
        let rounds = (operations / 20).max(100);
        let reports = 2 + operations / 50_000;
        let guard = format!("victim=chaos what=guard operations={operations} every={every} most=2000000");
        let busy = format!("seed={seed} memory=1 interrupts=1 rounds={rounds} every={}", rounds.div_ceil(4));
        [
            Vm::keeper(&guard).weight(256),
            Vm::busy(vcpus.div_ceil(2), &busy).memory(8).weight(256),
            Vm::pulse(&format!("ticks=100 work=100 reports={reports}")).reserved(200, 1000),
            Vm::chaos(*vcpus, &format!("seed={seed}")).weight(1024),
            Vm::channel("progress", ["chaos", "keeper"], 64),
        ]
    }

    /// The longest that anything may take, on a host with much else to do.
    fn limit(&self) -> Duration {
        Duration::from_secs((90 + self.operations / 250).min(280))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When EL2 or a neighbour has noticed anything, when memory is missing, or when it doesn't come to its end.
    pub fn run(&self, scenario: &Scenario) -> Outcome<Done> {
        let start = Instant::now();
        let bundle = scenario.bundle(&self.vms())?;
        let mut board = scenario.boot(&self.machine().bundle(bundle))?;
        let limit = self.limit();
        board.expect_within(r"(?m)^keeper: all memory is there\n", limit)?;
        // All come to their ends, and the board with them.
        board
            .expect_ever_within(r"(?m)^(?:\[busy\] )?busy: done, \d+ rounds, all registers kept\n", limit)?;
        board.expect_ever_within(r"hanok: pulse turned itself off\n", limit)?;
        let text = board.expect_off()?;
        let mut done = done(&text)?;
        done.took = start.elapsed();
        ensure(done.operations >= self.operations, || format!("{} operations only", done.operations))?;
        has_no_errors(&text)?;
        if !self.at_once {
            is_punctual(&text)?;
        }
        Ok(done)
    }
}

/// Reads what `keeper` has told.
fn done(text: &str) -> Outcome<Done> {
    let mut done = Done::default();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("keeper: ")).collect();
    // Where others break into a line, its beginning stands there alone, and is said again with the rest.
    let is_half = |n: usize| lines.get(n + 1).is_some_and(|next| next.starts_with(lines[n]));
    for said in (0..lines.len()).filter(|n| !is_half(*n)).map(|n| lines[n]) {
        let words: Vec<&str> = said.split([' ', ':', ';', ',']).filter(|word| !word.is_empty()).collect();
        let number = |n: usize| words.get(n).and_then(|word| word.parse().ok());
        match (words.as_slice(), number(0), number(1)) {
            // Where it is meanwhile.
            (["guards" | "it" | "seed" | "vCPU" | "all", ..], ..) => {}
            ([_, "operations", ..], Some(operations), _) => {
                done.operations = operations;
                done.helped = [2, 5, 11, 14].map(|n| number(n).unwrap_or(0));
            }
            ([_, "ended", "by", ..], Some(count), _) => {
                let way = said.split_once("ended by ").map_or("", |(_, way)| way);
                done.ends.push((way.to_owned(), count));
            }
            (["vCPUs", "began", ..], ..) => done.beginnings = number(2).unwrap_or(0),
            ([kind, _], _, Some(count)) => done.kinds.push(((*kind).to_owned(), count)),
            _ => return Err(Failure::Wrong(format!("keeper says: {said}"))),
        }
    }
    Ok(done)
}

/// EL2 has no errors to tell of but crashes of `chaos`, which it has asked for itself. Neighbours that find something don't come to
/// their ends.
fn has_no_errors(text: &str) -> Outcome {
    for line in text.lines() {
        let Some((_, error)) = line.split_once("] hanok: error: ") else { continue };
        let asked_for =
            ["chaos crashed: it says so itself", "chaos crashed: its watchdog was not fed", "chaos: "];
        let fine = asked_for.iter().any(|start| error.starts_with(start));
        ensure(fine, || format!("EL2 says: {error}"))?;
    }
    Ok(())
}

/// Every tick of `pulse` came in time.
fn is_punctual(text: &str) -> Outcome {
    let said = |what: &'static str| {
        text.lines().filter_map(move |line| line.strip_prefix("[pulse] pulse: ")?.strip_prefix(what))
    };
    for report in said("report ") {
        ensure(report.ends_with(" 0 missed"), || format!("ticks were missed: report {report}"))?;
    }
    for max in said("max ") {
        let latest = max.split_once(", ").and_then(|(_, us)| us.split('.').next()?.parse::<u64>().ok());
        let late = latest.is_none_or(|latest| latest >= LATEST_US);
        ensure(!late, || format!("a tick came late: max {max}, {LATEST_US} us at most"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_not_counted() {
        let text = "keeper: guards a VM\nkeeper: tables: 1\n[    0.1] hanok: busy is off\nkeeper: tables: 12\n\
                    keeper: vCPU 1\n[busy] x\nkeeper: vCPU 1 is at 5, calls, has begun 1 times\nkeeper: 3 ended by IRQs\n";
        let done = done(text).expect("all of it is understood");
        assert_eq!(done.kinds, [("tables".to_owned(), 12)]);
        assert_eq!(done.ends, [("IRQs".to_owned(), 3)]);
        assert!(super::done("keeper: there were 5 bytes of memory, and there are 4\n").is_err());
    }
}
