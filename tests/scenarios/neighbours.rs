//! Virtual machines side by side: each has its own CPUs, memory, interrupts and end.

use std::time::Duration;

use tests::{Board, Machine, Outcome, Scenario, Vm, ensure, ensure_equal};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let all: [Named; 4] = [
        ("selftest", beside_selftest),
        ("restarts", beside_restarts),
        ("killings", beside_killings),
        ("hello", beside_hello),
    ];
    on_both_gics("linux-beside-", &all).map(Case::needs_linux).collect()
}

/// The checksum that Linux makes over and over, as coreutils on another machine has it.
const CHECKSUM: &str = "f6351f5ead9a700e34275480b3856ea738122a7c57bdeb744a631251c069587a";
/// A line of it at the console, which comes whole and named since another VM has the focus.
const LINE: &str = r"(?m)^\[linux\] [0-9a-f]{64}  -\n";

/// A Linux that computes from the moment that it is up, with nobody at its console.
fn busy_linux() -> Vm {
    Vm::linux_running(2, "while :; do seq 20000 | sha256sum; done & while :; do seq 20000 | sha256sum; done")
}

/// Boots three: one that has the console and is quiet, Linux, and the neighbour.
fn boot(scenario: &Scenario, gic: u8, neighbour: Vm) -> Outcome<Board> {
    let bundle = scenario.bundle(&[Vm::hello("hello"), busy_linux(), neighbour])?;
    let mut board = scenario.boot(&Machine::new(gic, 5).bundle(bundle))?;
    board.expect_log("hello: 1 vCPU on CPU 1, 16 MiB")?;
    board.expect_log("linux: 2 vCPUs on CPU 2, 3, 512 MiB")?;
    board.expect_log("selftest: 2 vCPUs on CPU 0, 4, 64 MiB")?;
    Ok(board)
}

/// The neighbour does all that the self-test does: faults, calls, interrupts, CPUs off and on. Then it turns its machine
/// off, which is its own alone.
fn beside_selftest(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = boot(scenario, gic, Vm::selftest(2, ""))?;
    board.expect(r"(?m)^\[selftest\] \d+ passed, 0 failed\n")?;
    board.expect_log("selftest turned itself off")?;
    linux_goes_on(&mut board)?;
    board.send_line("off")?;
    board.expect_log("hello turned itself off")?;
    linux_goes_on(&mut board)
}

/// The neighbour restarts without end.
fn beside_restarts(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = boot(scenario, gic, Vm::selftest(2, "selftest=reboot"))?;
    board.expect(LINE)?;
    for _ in 0..10 {
        board.expect_log("selftest starts afresh")?;
    }
    linux_goes_on(&mut board)
}

/// The neighbour is restarted 500 times from outside, wherever it is.
fn beside_killings(scenario: &Scenario, gic: u8) -> Outcome {
    let keeper = Vm::keeper("victim=selftest what=restart times=500 most=30000");
    let bundle = scenario.bundle(&[keeper, busy_linux(), Vm::selftest(2, "")])?;
    let mut board = scenario.boot(&Machine::new(gic, 5).bundle(bundle))?;
    board.expect(LINE)?;
    board.expect_within(r"(?m)^keeper: done\n", Duration::from_secs(200))?;
    linux_goes_on(&mut board)?;
    board.expect(r"(?m)^\[selftest\] \d+ passed, 0 failed\n")?;
    let restarts = board.text().matches("selftest starts afresh").count();
    ensure(restarts > 0, || "nobody said that it started afresh".to_owned())
}

/// The guest that has the console goes off while Linux boots; Linux gets to its shell all the same.
fn beside_hello(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::hello("hello"), Vm::linux(2)])?;
    let mut board = scenario.boot(&Machine::new(gic, 3).bundle(bundle))?;
    board.expect_log("hello: 1 vCPU on CPU 1, 16 MiB")?;
    board.expect_log("linux: 2 vCPUs on CPU 0, 2, 512 MiB")?;
    board.send_line("off")?;
    board.expect_log("hello turned itself off")?;
    board.expect(r"\[linux\] Hanok's Linux guest: \S+, 2 CPUs, \d+ MiB\.\n")?;
    ensure(!board.text().contains("turning the board off"), || {
        "the board went off with one of two VMs".to_owned()
    })
}

/// Linux computes on, and has never computed anything wrong.
fn linux_goes_on(board: &mut Board) -> Outcome {
    for _ in 0..4 {
        board.expect(LINE)?;
    }
    let text = board.text();
    for line in text.lines().filter(|line| line.starts_with("[linux] ") && line.ends_with("  -")) {
        ensure_equal("Linux's checksum", line, format!("[linux] {CHECKSUM}  -"))?;
    }
    Ok(())
}
