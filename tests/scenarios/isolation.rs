//! A guest that attacks, and its neighbours, who must not notice: their registers, memory, interrupts, output and time
//! stay their own. The attacker knows what it must be answered and fails by itself; the neighbours tell the rest.

use std::time::Duration;

use tests::{Board, Machine, Outcome, Scenario, Vm, ensure, ensure_equal};

use crate::case::{Case, Named, on_both_gics};
use crate::shared_cpus::{LATEST_US, one_cpu};

pub fn cases() -> Vec<Case> {
    let all: [Named; 3] = [("one-cpu", one_cpu_for_all), ("restarts", restarts), ("registers", registers)];
    let models = [(2, "cortex-a53"), (3, "cortex-a72"), (2, "max"), (3, "max")];
    let beside = models.map(|(gic, cpu)| {
        Case::new(format!("isolation/four-cpus/gicv{gic}/{cpu}"), move |scenario| {
            four_cpus(scenario, gic, cpu)
        })
    });
    on_both_gics("isolation/", &all).chain(beside).collect()
}

/// The attacks of `attack=all`, and what is said of each.
const ATTACKS: [&str; 14] = [
    r"memory: \d{5,} accesses, all refused",
    r"devices: \d{5,} accesses, all refused",
    r"interrupts: \d{4} interrupts tried, none but its own came",
    r"sgis: \d{4} SGIs sent, those to itself came",
    r"gic: \d{5} accesses to its own controller, which works",
    r"power: \d{5} calls about CPUs, all refused",
    r"calls: \d{5} calls, no register lost by them",
    r"registers: \d{5} system instructions, none of EL2's or EL3's went through",
    r"held: \d{2} registers that hold something, all kept",
    r"exits: \d+ exits provoked",
    r"timers: \d+ timers and interrupts",
    r"sleep: \d+ sleeps",
    r"caches: \d+ times all caches cleaned",
    r"console: \d+ lines",
];

/// Lines that each kind of guest may say, whole and unmixed. Behind its own name, if it hasn't the console.
const LINES: [&str; 3] = [
    r"(?:\[busy\d?\] )?busy: (?:vCPU \d: round \d+|\d vCPU\(s\) compute .*|\d+ registers of a vCPU are compared|\d+ KiB of memory are compared|done, .*)",
    r"\[pulse\] pulse: (?:a timer of .*|report \d+: \d+ ticks, 0 missed|(?:min|median|99%|max) \d+ ticks of the counter, [\d.]+ us|<\d+ us \d+)",
    r"(?:\[attacker\d?\] )?(?:attacker: .*|~*)",
];

/// A neighbour that compares its registers and its memory, and has all of its interrupts enabled.
fn victim() -> Vm {
    Vm::busy(1, "seed=5 memory=1 interrupts=1 every=100").memory(8)
}

/// All three on one CPU, where time is what instructions take.
fn one_cpu_for_all(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        victim().weight(256),
        Vm::pulse("ticks=100 work=100").reserved(200, 1000),
        Vm::attacker(1, "attack=all rounds=1 seed=1").weight(256),
    ];
    let mut board = scenario.boot(&one_cpu(gic).bundle(scenario.bundle(&vms)?))?;
    expect_attacks(&mut board, r"\[attacker\] ")?;
    let last = goes_on(&mut board)?;
    ensure(last > 100, || format!("the neighbour has only come to round {last}"))?;
    board.expect(r"(?m)^\[pulse\] pulse: report \d+: ")?;
    board.expect(r"(?m)^\[pulse\] pulse: max .*\n")?;
    is_punctual(&board, 10)?;
    only_said_what_it_may(&board)
}

/// The attacker resets its machine without end. EL2 says so, though not each time.
fn restarts(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        victim().weight(256),
        Vm::pulse("ticks=100 work=100").reserved(200, 1000),
        Vm::attacker(1, "attack=reset").weight(256),
    ];
    let mut board = scenario.boot(&one_cpu(gic).bundle(scenario.bundle(&vms)?))?;
    for _ in 0..20 {
        board.expect(r"(?m)^\[attacker\] attacker: once more, 8 MiB\n")?;
    }
    board.expect_log("attacker starts afresh")?;
    board.expect_log("warning: attacker: <n> messages were suppressed")?;
    goes_on(&mut board)?;
    is_punctual(&board, 5)
}

/// Two that look for registers which the other one's values show in.
fn registers(scenario: &Scenario, gic: u8) -> Outcome {
    for cpu in ["cortex-a72", "max"] {
        let vms = [1, 2].map(|n| {
            let arguments = format!("attack=registers,held rounds=2 seed={n}");
            Vm::attacker(1, &arguments).named(&format!("attacker{n}")).weight(256)
        });
        let board = scenario.boot(&Machine::new(gic, 1).cpu(cpu).bundle(scenario.bundle(&vms)?))?;
        let text = board.expect_off()?;
        let done = text.lines().filter(|line| line.ends_with("attacker: done, 2 rounds")).count();
        ensure_equal("attackers that came to their end", done, 2)?;
    }
    Ok(())
}

/// The attacker has CPUs of its own, and its neighbours have theirs.
fn four_cpus(scenario: &Scenario, gic: u8, cpu: &str) -> Outcome {
    let vms =
        [victim().named("busy1"), Vm::attacker(2, "attack=all rounds=1 seed=3"), victim().named("busy2")];
    let mut board = scenario.boot(&Machine::new(gic, 4).cpu(cpu).bundle(scenario.bundle(&vms)?))?;
    expect_attacks(&mut board, r"\[attacker\] ")?;
    for name in ["", r"\[busy2\] "] {
        board.expect(&format!(r"(?m)^{name}busy: vCPU 0: round \d+\n"))?;
    }
    only_said_what_it_may(&board)
}

/// The attacker goes through all of its attacks, and finds none that succeeds; then it turns itself off.
fn expect_attacks(board: &mut Board, name: &str) -> Outcome {
    let fails = format!(r"(?m)^{name}(?:attacker: FAILED: |guest: )(.*)\n");
    for attack in ATTACKS {
        let said = format!(r"(?m)^{name}attacker: {attack}\n|{fails}");
        let found = board.expect_within(&said, Duration::from_secs(120))?;
        ensure(found.group(1).is_empty(), || format!("an attack went wrong: {}", found.group(1)))?;
    }
    let found = board.expect(&format!(r"(?m)^{name}attacker: done, \d+ rounds\n|{fails}"))?;
    ensure(found.group(1).is_empty(), || format!("an attack went wrong: {}", found.group(1)))?;
    // It asked for what it has no right to.
    board.expect_ever(r"hanok: warning: attacker has no right to this: ")?;
    // What EL2 says doesn't wait for what a guest has said before.
    board.expect_ever(r"hanok: attacker turned itself off\n")?;
    Ok(())
}

/// The neighbour computes on, and tells how far it is.
fn goes_on(board: &mut Board) -> Outcome<u64> {
    board.expect(r"(?m)^busy: vCPU 0: round (\d+)\n")?.number(1)
}

/// Every tick that the real-time guest has told of came in time, and it has told of some.
fn is_punctual(board: &Board, least: usize) -> Outcome {
    let text = board.text();
    let said = |what: &'static str| {
        text.lines().filter_map(move |line| line.strip_prefix("[pulse] pulse: ")?.strip_prefix(what))
    };
    for report in said("report ") {
        ensure(report.ends_with(" 0 missed"), || format!("ticks were missed: report {report}"))?;
    }
    let mut reports = 0;
    for max in said("max ") {
        let latest = max.split_once(", ").and_then(|(_, us)| us.split('.').next()?.parse::<u64>().ok());
        let late = latest.is_none_or(|latest| latest >= LATEST_US);
        ensure(!late, || format!("a tick came late: max {max}, {LATEST_US} us at most"))?;
        reports += 1;
    }
    ensure(reports >= least, || format!("{reports} reports only"))
}

/// Every whole line on the console is one that a guest or EL2 may say: none is torn or missing its end, no guest has
/// complained, and EL2 has no warning. A line of the guest with the console may be broken into, and is then begun again.
fn only_said_what_it_may(board: &Board) -> Outcome {
    let log = r"\[ *\d+\.\d{6}\] hanok: (.*)";
    let guests = LINES.map(|line| format!("(?:{line})")).join("|");
    let line_of_guest = compile(&format!("^(?:{guests}|)$"))?;
    let line_of_log = compile(&format!("^{log}$"))?;
    // What it says of whoever attacks, and of a Cortex-A72 without firmware.
    let attacker = r"attacker(?: has no right to this: |: \d+ messages were suppressed)";
    let tells =
        compile(&format!("^warning: (?:{attacker}|guests can train this board's branch predictors )"))?;
    let text = board.text();
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    let mut begun = "";
    for line in whole.lines() {
        if let Some(message) = line_of_log.captures(line) {
            let message = message.get(1).map_or("", |message| message.as_str());
            let alarming = message.starts_with("warning: ") || message.starts_with("error: ");
            ensure(!alarming || tells.is_match(message), || format!("EL2 says: {message}"))?;
        } else if line_of_guest.is_match(line) {
            if !line.starts_with('[') {
                ensure(line.starts_with(begun), || format!("{begun:?} is not begun again: {line:?}"))?;
                begun = "";
            }
        } else {
            // The guest with the console has begun it, and will begin it again.
            let is_begun =
                line.starts_with(begun) && (line.starts_with("busy: ") || "busy: ".starts_with(line));
            ensure(is_begun, || format!("somebody says: {line:?}"))?;
            begun = line;
        }
    }
    Ok(())
}

fn compile(pattern: &str) -> Outcome<regex_lite::Regex> {
    regex_lite::Regex::new(pattern).map_err(|error| tests::Failure::Wrong(format!("/{pattern}/: {error}")))
}
