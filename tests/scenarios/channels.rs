//! Channels between VMs: messages through shared memory, doorbells, and what becomes of them when one end is gone.

use std::time::Duration;

use tests::{Machine, Outcome, Scenario, Vm, ensure};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let all: [Named; 5] = [
        ("messages", messages),
        ("one-cpu", one_cpu),
        ("restarts", restarts),
        ("end-that-restarts", end_that_restarts),
        ("left-out", left_out),
    ];
    on_both_gics("channels/", &all).collect()
}

/// Two channels of different sizes from one VM to two others, on CPUs of their own: each message comes back as it was.
fn messages(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::courier("answers", "channel=small messages=2000"),
        Vm::courier("asks", "channel=small messages=2000"),
        Vm::courier("large-asks", "channel=large messages=500"),
        Vm::courier("large-answers", "channel=large"),
        Vm::channel("small", ["asks", "answers"], 4),
        Vm::channel("large", ["large-asks", "large-answers"], 4096),
        // These two see one channel each that they don't use.
        Vm::channel("other", ["answers", "large-asks"], 64),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 4).bundle(scenario.bundle(&vms)?))?;
    for (asks, answers, count) in [("asks", "answers", 2000), ("large-asks", "large-answers", 500)] {
        let said = format!(
            r"(?m)^\[{asks}\] courier: {count} messages to {answers} and back, \d+ bytes each way, each as it was\n"
        );
        board.expect_ever_within(&said, Duration::from_secs(100))?;
    }
    // The two of a pair go off at once, and one of them is the last.
    let ends = board.expect_off()?.matches("no VM is left").count();
    ensure(ends == 1, || format!("it was said {ends} times that no VM is left"))
}

/// The same where the two ends share one CPU: who waits sleeps, and a bell wakes it. The ring is small and soon full, so
/// that each waits thousands of times, also while it still waits for its turn.
fn one_cpu(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::courier("answers", "").weight(64),
        Vm::courier("asks", "messages=5000").weight(256),
        Vm::channel("link", ["asks", "answers"], 4),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(scenario.bundle(&vms)?))?;
    board.expect_ever_within(
        r"(?m)^\[asks\] courier: 5000 messages to answers and back, \d+ bytes each way, each as it was\n",
        Duration::from_secs(100),
    )?;
    board.expect_off()?;
    Ok(())
}

/// Whoever answers is restarted, wherever it is. Who asks is told, begins again, and gets every message back in the end.
fn restarts(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::courier("asks", "messages=50000"),
        Vm::courier("answers", ""),
        Vm::keeper("victim=answers what=restart times=20 most=20000"),
        Vm::channel("link", ["asks", "answers"], 64),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 3).bundle(scenario.bundle(&vms)?))?;
    let all = r"(?m)^courier: 50000 messages to answers and back, ";
    board.expect_within(all, Duration::from_secs(100))?;
    let text = board.text();
    ensure(text.contains("keeper: done"), || "the messages were there before the restarts".to_owned())?;
    let told = text.matches("courier: link: the peer has started afresh").count();
    ensure(told > 0, || "nobody was told of a restart".to_owned())
}

/// One end is restarted again and again. The other keeps its memory, and nothing else happens to it; a VM that has nothing to
/// do with the channel keeps its own.
fn end_that_restarts(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::keeper("victim=asks what=stop times=20 most=50000").weight(256),
        Vm::courier("asks", "messages=1000000").weight(256),
        Vm::courier("answers", "").weight(256),
        Vm::busy(1, "sleep=1 every=100").named("bystander").weight(256),
        Vm::channel("link", ["asks", "answers"], 64),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&vms)?))?;
    board.expect_within(r"(?m)^keeper: done\n", Duration::from_secs(100))?;
    board.expect(r"(?m)^\[bystander\] busy: vCPU 0: round \d+\n")?;
    let text = board.text();
    let gave_up = text.lines().find(|line| line.contains("turned itself off") || line.contains("crashed"));
    ensure(gave_up.is_none(), || format!("somebody gave up: {gave_up:?}"))
}

/// One of the two VMs can't be placed: the channel is left out, the other VM goes without.
fn left_out(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::hello("here"),
        Vm::hello("gone").property("cpu-affinity", "<7>"),
        Vm::channel("link", ["here", "gone"], 64),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&vms)?))?;
    board.expect_ever("hanok: error: left out: /link: vms: the VM \"gone\" is left out\n")?;
    board.expect_ever(r"hanok: error: left out: /gone: cpu-affinity: CPU 7 is not there\n")?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    board.send_line("off")?;
    board.expect_off()?;
    Ok(())
}
