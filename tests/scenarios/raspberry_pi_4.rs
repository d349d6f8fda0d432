//! QEMU's Raspberry Pi 4 with the device tree of a card: its CPUs wait in a spin table, and there is no PSCI, so that an SMC
//! would be undefined.

use std::path::PathBuf;
use std::time::Duration;

use tests::{Board, Machine, Outcome, Scenario, Shell, Vm, ensure, ensure_equal};

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    let selftest = [1, 2, 4].map(|vcpus| {
        Case::new(format!("raspberry-pi-4/selftest/{vcpus}-vcpus"), move |scenario| selftest(scenario, vcpus))
    });
    let linux = [1, 2, 4].map(|vcpus| {
        Case::new(format!("raspberry-pi-4/linux/{vcpus}-vcpus"), move |scenario| linux(scenario, vcpus))
    });
    let others =
        [Case::new("raspberry-pi-4/card", card), Case::new("raspberry-pi-4/side-by-side", side_by_side)];
    selftest.into_iter().chain(linux).chain(others).map(Case::needs_linux).collect()
}

/// The tree of a card with the stock stub.
fn tree(scenario: &Scenario) -> PathBuf {
    scenario.inputs().cards.join("stock/boot/bcm2711-rpi-4-b.dtb")
}

fn boot(scenario: &Scenario, vms: &[Vm]) -> Outcome<Board> {
    let bundle = scenario.bundle(vms)?;
    let mut board = scenario.boot(&Machine::raspberry_pi_4(tree(scenario)).bundle(bundle))?;
    board.expect_log("Hanok <n>.<n>.<n> on Raspberry Pi 4 Model B, 4 CPUs, entered at <n>")?;
    Ok(board)
}

/// No CPU was left out, and nothing went wrong in EL2.
fn is_well(board: &Board) -> Outcome {
    let text = board.text();
    let wrong = text.lines().find(|line| line.contains("left out") || line.contains("EL2 crashed"));
    ensure(wrong.is_none(), || format!("something went wrong: {wrong:?}"))
}

/// All that the self-test does, each vCPU on a CPU of its own.
fn selftest(scenario: &Scenario, vcpus: u8) -> Outcome {
    let mut board = boot(scenario, &[Vm::selftest(vcpus, "")])?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(120))?;
    ensure_equal("failed cases", end.number(2)?, 0)?;
    board.expect_log("selftest is off")?;
    // There is nobody to turn the board off.
    board.expect(r"hanok: this board can't be turned off by software\n")?;
    is_well(&board)
}

/// Debian's Linux to its shell.
fn linux(scenario: &Scenario, vcpus: u8) -> Outcome {
    let mut board = boot(scenario, &[Vm::linux(vcpus)])?;
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", &vcpus.to_string())?;
    shell.check("echo hanok | md5sum", "58bb721193dd2abf3b515b4c260d17a2  -")?;
    is_well(&board)
}

/// What the card has: Linux, the monitor and a real-time guest, which share the four CPUs.
fn card(scenario: &Scenario) -> Outcome {
    let machine = Machine::raspberry_pi_4(tree(scenario)).bundle(scenario.built_bundle("rpi4")?);
    let mut board = scenario.boot(&machine)?;
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", "4")?;
    board.expect_ever(r"(?m)^\[pulse\] pulse: a timer of 1000 Hz; ")?;
    board.send("\x142")?;
    board.expect_log("console of monitor (2 of 3)")?;
    is_well(&board)
}

/// Two VMs on CPUs of their own, of which one stops and is started again by the third.
fn side_by_side(scenario: &Scenario) -> Outcome {
    let vms = [
        Vm::keeper("victim=selftest what=stop times=5 most=200000"),
        Vm::selftest(2, ""),
        Vm::busy(1, "sleep=1 every=100").named("bystander"),
    ];
    let mut board = boot(scenario, &vms)?;
    board.expect_within(r"(?m)^keeper: done\n", Duration::from_secs(120))?;
    board.expect_within(r"(?m)^\[selftest\] \d+ passed, 0 failed\n", Duration::from_secs(120))?;
    board.expect(r"(?m)^\[bystander\] busy: vCPU 0: round \d+\n")?;
    ensure(!board.text().contains("bystander turned itself off"), || "the bystander gave up".to_owned())?;
    is_well(&board)
}
