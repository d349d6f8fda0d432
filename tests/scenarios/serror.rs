//! SErrors while a guest runs, and those that are found when it leaves its CPU. No device of QEMU's answers a store by one, so its gdb stub
//! sends an exit of a guest's to the handler, with the syndrome that it would have, and sets what EL2 reads where it looks.

use tests::{Board, Code, Failure, IMAGE, Machine, Outcome, Register, Scenario, Stop, Vm, ensure};

use crate::case::{Case, Named, on_both_gics};

/// ESR_EL2 of an SError: class and IL; and of FEAT_RAS, that its status says how far the error has got.
const SERROR: u64 = 0x2f << 26 | 1 << 25;
const RAS: u64 = SERROR | 0x11;
const UNCONTAINABLE: u64 = RAS;
const UNRECOVERABLE: u64 = RAS | 1 << 10;
const CORRECTED: u64 = RAS | 6 << 10;

pub fn cases() -> Vec<Case> {
    let all: [Named; 6] = [
        ("contained", contained),
        ("corrected", corrected),
        ("uncontainable", |scenario, gic| stops_the_board(scenario, gic, UNCONTAINABLE)),
        ("nothing-told", |scenario, gic| stops_the_board(scenario, gic, SERROR)),
        ("late", late),
        ("late-without-ras", late_without_ras),
    ];
    on_both_gics("serror/", &all).collect()
}

/// Two VMs, each on its own CPU, of which the first, which is on CPU 1, has an SError at one of its exits.
fn boot(scenario: &Scenario, gic: u8, esr: u64, crashes: bool) -> Outcome<Board> {
    let code = Code::read(&scenario.inputs().elf)?;
    let bundle = scenario.bundle(&[Vm::hello("first"), Vm::hello("second")])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    if crashes {
        board.want_crash();
    }
    gdb.run_to(Stop::At(IMAGE + code.address("handle_data_abort")?), 1)?;
    // Both handlers are called alike, with the syndrome and the guest's registers, of which only X20 to X27 aren't there.
    gdb.set(1, Register::Pc, IMAGE + code.address("handle_serror")?)?;
    gdb.set(1, Register::X(0), esr)?;
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

/// ESB, behind which EL2 reads DISR_EL1, and `dsb sy`, behind which it reads ISR_EL1.
const ESB: u32 = 0xd503_221f;
const DSB: u32 = 0xd503_3f9f;
/// `mrs x0, DISR_EL1` and `mrs x0, ISR_EL1`.
const MRS_DISR: u32 = 0xd538_c120;
const MRS_ISR: u32 = 0xd538_c100;

/// Two VMs on one CPU: where one of them leaves it, `mrs` behind `before` finds `value`.
fn found_at_leaving(
    scenario: &Scenario,
    machine: Machine,
    [before, mrs]: [u32; 2],
    value: u64,
    crashes: bool,
) -> Outcome<Board> {
    const DESTINATION: u32 = 0x1f;
    let code = Code::read(&scenario.inputs().elf)?;
    let instructions: Vec<_> = code.instructions().collect();
    let reads =
        instructions.windows(3).filter(|window| window[0].1 == before && window[1].1 & !DESTINATION == mrs);
    let places: Vec<(u64, u8)> =
        reads.map(|window| (IMAGE + window[2].0, (window[1].1 & DESTINATION) as u8)).collect();
    ensure(!places.is_empty(), || "EL2 looks nowhere".to_owned())?;
    let bundle = scenario.bundle(&["first", "second"].map(|name| Vm::hello(name).weight(256)))?;
    let mut board = scenario.boot(&machine.bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    if crashes {
        board.want_crash();
    }
    let addresses: Vec<u64> = places.iter().map(|(address, _)| *address).collect();
    let cpu = gdb.run_to_any(&addresses)?;
    let pc = gdb.registers(cpu)?.pc;
    let (_, register) = places
        .into_iter()
        .find(|(address, _)| *address == pc)
        .ok_or_else(|| Failure::Wrong(format!("stopped at {pc:#x}")))?;
    gdb.set(cpu, Register::X(register), value)?;
    gdb.run()?;
    Ok(board)
}

/// It is counted against the VM that leaves, and the next one isn't touched.
fn late(scenario: &Scenario, gic: u8) -> Outcome {
    let disr = 1 << 31 | UNRECOVERABLE & 0x1ff_ffff;
    let mut board =
        found_at_leaving(scenario, Machine::new(gic, 1).cpu("max"), [ESB, MRS_DISR], disr, false)?;
    board.expect(r"hanok: error: (?:first|second) crashed: SError\n")?;
    board.expect(&format!(r"hanok: error: \w+:   esr {UNRECOVERABLE:#x} \(SError\) "))?;
    board.expect_ever(r"hello: tick 10 of 10\n")?;
    Ok(())
}

/// It can't be told then how far it has got.
fn late_without_ras(scenario: &Scenario, gic: u8) -> Outcome {
    let machine = Machine::new(gic, 1).cpu("cortex-a72");
    let mut board = found_at_leaving(scenario, machine, [DSB, MRS_ISR], 1 << 8, true)?;
    board.expect(
        r"(?m)^hanok: the hardware failed on CPU 0 while (?:first|second) ran, and whom it concerns can't be told\n",
    )?;
    board.expect(r"(?m)^hanok: all CPUs are stopped; reset the board\n")?;
    Ok(())
}
