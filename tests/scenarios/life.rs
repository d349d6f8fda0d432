//! VMs that are stopped, started, paused and restarted at run time, and that crash: what becomes of them, and of others.

use std::time::Duration;

use tests::{Board, Machine, Outcome, Scenario, Vm, ensure};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let all: [Named; 11] = [
        ("kills", kills),
        ("pauses", pauses),
        ("paused-pulse", paused_pulse),
        ("quiet", quiet),
        ("watchdog", watchdog),
        ("asked-for-watchdog", asked_for_watchdog),
        ("preserved", preserved),
        ("manual", manual),
        ("stays", stays),
        ("starts-afresh", starts_afresh),
        ("nothing-to-start-afresh", nothing_to_start_afresh),
    ];
    on_both_gics("life/", &all).collect()
}

fn shared(vm: Vm) -> Vm {
    vm.weight(256)
}

/// The keeper, which has the console, and others beside it.
fn boot_with_keeper(scenario: &Scenario, machine: Machine, arguments: &str, others: &[Vm]) -> Outcome<Board> {
    let mut vms = vec![shared(Vm::keeper(arguments))];
    vms.extend(others.iter().cloned().map(shared));
    scenario.boot(&machine.bundle(scenario.bundle(&vms)?))
}

fn is_done(board: &mut Board) -> Outcome {
    board.expect_within(r"(?m)^keeper: done\n", Duration::from_secs(200))?;
    Ok(())
}

/// A VM is stopped a hundred times wherever it is in all that the self-test does, and started again: nothing of its memory is
/// left or missing (the keeper sees to that). Another one on the same CPUs, which needs its timers and its SGIs, keeps what is its own. In the end the
/// victim does all of the self-test, so nothing is left in its interrupt controller either.
fn kills(scenario: &Scenario, gic: u8) -> Outcome {
    let others = [Vm::selftest(4, ""), Vm::busy(2, "sleep=1 every=100").named("bystander")];
    let machine = Machine::new(gic, 2).cpu("max");
    let arguments = "victim=selftest what=stop times=100 most=400000";
    let mut board = boot_with_keeper(scenario, machine, arguments, &others)?;
    is_done(&mut board)?;
    board.expect_within(r"(?m)^\[selftest\] \d+ passed, 0 failed\n", Duration::from_secs(100))?;
    goes_on(&mut board)
}

/// The bystander does another round, and has found nothing wrong.
fn goes_on(board: &mut Board) -> Outcome {
    board.expect(r"(?m)^\[bystander\] busy: vCPU 0: round \d+\n")?;
    let text = board.text();
    ensure(!text.contains("bystander turned itself off"), || "the bystander gave up".to_owned())?;
    let lost = text.lines().find(|line| line.contains("lost") || line.contains("can't be"));
    ensure(lost.is_none(), || format!("something went wrong: {lost:?}"))
}

/// A VM is paused over and over wherever it is in all that the self-test does, which sees nothing of it: the times that it
/// measures are its own.
fn pauses(scenario: &Scenario, gic: u8) -> Outcome {
    let others = [Vm::selftest(2, ""), Vm::busy(1, "sleep=1 every=100").named("bystander")];
    let arguments = "victim=selftest what=pause times=50 most=20000";
    let mut board = boot_with_keeper(scenario, Machine::new(gic, 2).cpu("max"), arguments, &others)?;
    is_done(&mut board)?;
    board.expect_ever_within(r"(?m)^\[selftest\] \d+ passed, 0 failed\n", Duration::from_secs(100))?;
    goes_on(&mut board)
}

/// A real-time VM that is paused for up to ten of its periods, again and again, misses none: its counters stand still.
fn paused_pulse(scenario: &Scenario, gic: u8) -> Outcome {
    let machine = Machine::new(gic, 1).option("-icount", "shift=0,sleep=off");
    let pulse = Vm::pulse("ticks=1000 reports=1").reserved(500, 1000);
    let keeper = shared(Vm::keeper("victim=pulse what=pause times=50 most=10000"));
    let bundle = scenario.bundle(&[keeper, pulse])?;
    let mut board = scenario.boot(&machine.bundle(bundle))?;
    board
        .expect_within(r"(?m)^\[pulse\] pulse: report 1: 1000 ticks, 0 missed\n", Duration::from_secs(100))?;
    let pauses = board.text().matches("pulse is paused by keeper").count();
    ensure(pauses >= 5, || format!("{pauses} pauses are told of"))
}

/// A pinned VM that computes, on a CPU that isn't the housekeeping one: EL2 runs nothing there.
fn quiet(scenario: &Scenario, gic: u8) -> Outcome {
    let keeper = Vm::keeper("victim=selftest what=watch times=5 most=500000").property("cpu-affinity", "<0>");
    let spins = Vm::selftest(1, "selftest=spin").property("cpu-affinity", "<1>");
    let bundle = scenario.bundle(&[keeper, spins, Vm::busy(1, "every=100")])?;
    let mut board = scenario.boot(&Machine::new(gic, 3).bundle(bundle))?;
    is_done(&mut board)
}

/// A VM doesn't feed its watchdog: it is reported, and starts afresh as often as the manifest says.
fn watchdog(scenario: &Scenario, gic: u8) -> Outcome {
    let hangs = Vm::selftest(2, "selftest=spin")
        .property("watchdog", "<1>")
        .property("on-crash", "\"restart\"")
        .property("restart-limit", "<2>")
        .property("restart-delay", "<50>");
    let bundle = scenario.bundle(&[shared(Vm::hello("hello")), shared(hangs)])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    for wait in [50, 100] {
        is_reported(&mut board, "its watchdog was not fed")?;
        board.expect_log(&format!("selftest starts afresh in {wait} ms"))?;
        board.expect_log("selftest starts afresh")?;
    }
    is_reported(&mut board, "its watchdog was not fed")?;
    board.expect_log("error: selftest has been restarted 2 times in a row: it stays off")?;
    board.expect_log("selftest is off")?;
    board.send_line("off")?;
    board.expect_off()?;
    Ok(())
}

/// A VM asks for a watchdog itself, feeds it for longer than it would wait, and stops to.
fn asked_for_watchdog(scenario: &Scenario, gic: u8) -> Outcome {
    let hangs = Vm::selftest(1, "selftest=watchdog");
    let bundle = scenario.bundle(&[shared(Vm::hello("hello")), shared(hangs)])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    board.expect(r"(?m)^\[selftest\] watchdog: fed for 3 s\n")?;
    is_reported(&mut board, "its watchdog was not fed")?;
    board.expect_log("selftest is off")?;
    ensure(!board.text().contains("starts afresh"), || "it was started again".to_owned())
}

fn is_reported(board: &mut Board, why: &str) -> Outcome {
    board.expect_log(&format!("error: selftest crashed: {why}"))?;
    board.expect(
        r"hanok: error: selftest:   vCPU 0: pc 0x4[0-9a-f]{7} pstate 0x[0-9a-f]+ sp_el0 0x[0-9a-f]+",
    )?;
    board.expect(r"hanok: error: selftest:   x28\.\. \[")?;
    board.expect(r"hanok: error: selftest:   exit -1: ")?;
    Ok(())
}

/// A VM says that it has crashed, and is kept as it is. Its neighbour goes on; the board stays on for it.
fn preserved(scenario: &Scenario, gic: u8) -> Outcome {
    let crashes = Vm::selftest(1, "selftest=crash").property("on-crash", "\"preserve\"");
    let bundle = scenario.bundle(&[shared(Vm::hello("hello")), shared(crashes)])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    is_reported(&mut board, "it says so itself")?;
    board.expect_log("selftest keeps its memory as it was")?;
    board.send_line("off")?;
    board.expect_log("hello is off")?;
    board.send("\x14l")?;
    board.expect_log("1 hello: stopped, in focus")?;
    board.expect_log("2 selftest: crashed")?;
    Ok(())
}

/// A VM that isn't started with the board has no memory until somebody starts it, and the board goes off without it.
fn manual(scenario: &Scenario, gic: u8) -> Outcome {
    let later = Vm::selftest(1, "").property("start", "\"manual\"");
    let bundle = scenario.bundle(&[Vm::hello("hello"), later])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    board.send("\x14l")?;
    board.expect_log("2 selftest: created")?;
    board.send_line("off")?;
    board.expect_log("no VM is left: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

/// The manifest says that the board starts afresh.
fn starts_afresh(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle_with("when-all-off = \"reset\";", &[Vm::hello("hello")])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle))?;
    starts_over(&mut board, "linux,dummy-virt, 2 CPUs")
}

/// `hello`, the only VM of a manifest that says so, goes off, and the board starts afresh: from its first instruction on, all of its
/// CPUs, and the VM runs again. Twice, since what one reset leaves behind the next one may meet.
pub fn starts_over(board: &mut Board, name: &str) -> Outcome {
    for _ in 0..2 {
        board.expect_log(&format!("Hanok <n>.<n>.<n> on {name}, entered at <n>"))?;
        board.expect(r"(?m)^hello: tick 1 of 10\n")?;
        board.send_line("off")?;
        board.expect_log("hello is off")?;
        board.expect_log("no VM is left: resetting the board")?;
    }
    board.expect_log(&format!("Hanok <n>.<n>.<n> on {name}, entered at <n>"))?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    let text = board.text();
    ensure(!text.contains("left out"), || "a CPU didn't come back".to_owned())
}

/// With no VM that ever ran, a reset would be followed by the next: the board is turned off.
fn nothing_to_start_afresh(scenario: &Scenario, gic: u8) -> Outcome {
    let later = Vm::hello("hello").property("start", "\"manual\"");
    let bundle = scenario.bundle_with("when-all-off = \"reset\";", &[later])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    board.expect_log("no VM is left, nor would there be after a reset: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

/// The manifest says that the board stays on.
fn stays(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle_with("when-all-off = \"stay\";", &[Vm::hello("hello")])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    board.send_line("off")?;
    board.expect(r"(?m)hanok: no VM is left\n")?;
    board.send("\x14l")?;
    board.expect_log("1 hello: stopped, in focus")?;
    Ok(())
}
