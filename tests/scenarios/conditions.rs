//! Instructions of AArch32 that trap although their condition fails. QEMU's CPUs trap none of those, so its gdb stub changes the
//! condition that EL2 is told.

use tests::{Code, IMAGE, Machine, Outcome, Register, Scenario, Stop, Vm, ensure_equal};

use crate::case::{Case, Named, on_both_gics};

/// ESR_EL2: the class of MRC and MCR on p14; CV, and a condition, which is NE.
const CP14: u64 = 0x05;
const CONDITION: u64 = 0x1f << 20;
const NE: u64 = 0x11 << 20;

pub fn cases() -> Vec<Case> {
    let all: [Named; 1] = [("condition-that-fails", fails)];
    on_both_gics("aarch32/", &all).collect()
}

/// The first one of the case is in an IT block, where Z is set. Were it executed, its register would be zero; the block goes on behind it.
fn fails(scenario: &Scenario, gic: u8) -> Outcome {
    let code = Code::read(&scenario.inputs().elf)?;
    let bundle = scenario.bundle(&[Vm::selftest(1, "selftest=user.aarch32-coprocessor")])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).cpu("cortex-a72").bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    let trapped = gdb.run_to(Stop::At(IMAGE + code.address("handle_aarch32")?), 0)?;
    let esr = trapped.x[0];
    ensure_equal("the exception's class", esr >> 26, CP14)?;
    gdb.set(0, Register::X(0), esr & !CONDITION | NE)?;
    gdb.run()?;
    board.expect(r"r1 to r3 behind an IT block: expected \[0, 5, 0\], got \[ffffffff, 5, 0\] \(hex\)")?;
    Ok(())
}
