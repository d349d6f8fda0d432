//! SErrors while a guest runs. No device of QEMU's answers a store by one, so its gdb stub sends an exit of a guest's to the handler, with
//! the syndrome that it would have.

use tests::{Code, Machine, Outcome, Register, Scenario, Stop, Vm};

use crate::case::{Case, Named, on_both_gics};

/// Where QEMU loads the image.
const IMAGE: u64 = 0x4020_0000;

/// ESR_EL2 of an SError: class and IL; and of FEAT_RAS, that its status says how far the error has got.
const SERROR: u64 = 0x2f << 26 | 1 << 25;
const RAS: u64 = SERROR | 0x11;
const UNCONTAINABLE: u64 = RAS;
const UNRECOVERABLE: u64 = RAS | 1 << 10;
const CORRECTED: u64 = RAS | 6 << 10;

pub fn cases() -> Vec<Case> {
    let all: [Named; 4] = [
        ("contained", contained),
        ("corrected", corrected),
        ("uncontainable", |scenario, gic| stops_the_board(scenario, gic, UNCONTAINABLE)),
        ("nothing-told", |scenario, gic| stops_the_board(scenario, gic, SERROR)),
    ];
    on_both_gics("serror/", &all).collect()
}

/// Two VMs, each on its own CPU, of which the first, which is on CPU 1, has an SError at one of its exits.
fn boot(scenario: &Scenario, gic: u8, esr: u64, crashes: bool) -> Outcome<tests::Board> {
    let code = Code::read(&scenario.inputs().elf)?;
    let bundle = scenario.bundle(&[Vm::hello("first"), Vm::hello("second")])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    if crashes {
        board.want_crash();
    }
    gdb.run_to(Stop::At(IMAGE + code.address("handle_data_abort")?), 1)?;
    // Both handlers are called alike, with the guest's registers and the syndrome.
    gdb.set(1, Register::Pc, IMAGE + code.address("handle_serror")?)?;
    gdb.set(1, Register::X1, esr)?;
    gdb.run()?;
    Ok(board)
}

/// The error is the VM's alone: it stops with a report, and the other one goes on.
fn contained(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = boot(scenario, gic, UNRECOVERABLE, false)?;
    board.expect_log("error: first crashed: SError")?;
    board.expect(r"hello: tick 10 of 10\n")?;
    Ok(())
}

/// Nothing is lost: both go on. The exit in whose place it was is made again.
fn corrected(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = boot(scenario, gic, CORRECTED, false)?;
    board.expect_log("warning: first: 0xbe001811 (SError), corrected")?;
    board.expect(r"hello: tick 10 of 10\n")?;
    Ok(())
}

/// Whose the error is can't be told: a report, and nobody goes on.
fn stops_the_board(scenario: &Scenario, gic: u8, esr: u64) -> Outcome {
    let mut board = boot(scenario, gic, esr, true)?;
    board.expect(
        r"(?m)^hanok: the hardware failed on CPU 1 while first ran, and whom it concerns can't be told\n",
    )?;
    board
        .expect(&format!(r"(?m)^  {esr:#x} \(SError\), [A-Z][a-z]+, at pc 0x[0-9a-f]+ spsr 0x[0-9a-f]+\n"))?;
    board.expect(r"(?m)^hanok: all CPUs are stopped; reset the board\n")?;
    Ok(())
}
