//! EDK2 as a guest: UEFI firmware as Debian builds it for QEMU's `virt`, which keeps its variables in flash.

use std::time::Duration;

use tests::{Board, Machine, Outcome, Scenario, ensure};

use crate::case::{Case, GICS};

/// The shell's prompt. It is drawn anew for each command, between sequences that set colours.
const PROMPT: &str = r"Shell> ";
/// How long EDK2 may take to its shell: natively some 11 s.
const TO_SHELL: Duration = Duration::from_secs(120);

pub fn cases() -> Vec<Case> {
    let case = |gic| Case::new(format!("edk2/gicv{gic}"), move |scenario| variables(scenario, gic));
    GICS.map(case).map(Case::needs_linux).into()
}

/// To the shell, where it counts down before it looks for a script.
fn to_shell(board: &mut Board) -> Outcome {
    board.expect_within("Press .*ESC.* in \\d seconds", TO_SHELL)?;
    board.send("\x1b")?;
    board.expect(PROMPT)?;
    Ok(())
}

/// Types a command, whose line carriage return ends.
fn command(board: &mut Board, line: &str) -> Outcome {
    board.send(line)?;
    board.send("\r")
}

/// A variable that is not to be forgotten is there again when the VM has started afresh; one that may be isn't.
fn variables(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.built_bundle("edk2")?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    to_shell(&mut board)?;
    command(&mut board, "setvar kept -guid 11111111-2222-3333-4444-555555555555 -nv -bs =1122aabb")?;
    board.expect(PROMPT)?;
    command(&mut board, "setvar lost -guid 11111111-2222-3333-4444-555555555555 -bs =33")?;
    board.expect(PROMPT)?;
    command(&mut board, "reset")?;
    board.expect_log("edk2 starts afresh")?;
    to_shell(&mut board)?;
    command(&mut board, "setvar kept -guid 11111111-2222-3333-4444-555555555555")?;
    board.expect(r"11 22 AA BB")?;
    board.expect(PROMPT)?;
    command(&mut board, "setvar lost -guid 11111111-2222-3333-4444-555555555555")?;
    board.expect(r"(?i)unable to get|not found")?;
    board.expect(PROMPT)?;
    command(&mut board, "reset -s")?;
    board.expect_log("edk2 turned itself off")?;
    let said = board.expect_off()?;
    ensure(!said.contains("Exception"), || "EDK2 took an exception".to_owned())
}
