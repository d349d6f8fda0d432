//! What EL2 does about errata, as far as it shows in registers: the emulated CPUs have none (docs/errata.md).

use tests::{Code, Failure, Gdb, IMAGE, Machine, Outcome, Scenario, Vm, ensure, ensure_equal, find_843419};

use crate::case::{Case, Named, on_both_gics};

/// How many changes of both kinds a scenario looks at.
const CHANGES: usize = 20;
/// The scenario gives up when it has seen so many writes of one kind.
const MOST: usize = 500;

pub fn cases() -> Vec<Case> {
    let all: [Named; 1] = [("no-walks-by-mixed-registers", no_walks_by_mixed_registers)];
    let images = Case::new("errata/843419", no_843419);
    let vectors = VECTORS.map(|(cpu, table, branches)| {
        Case::new(format!("errata/vectors/{cpu}"), move |scenario| vectors(scenario, cpu, table, branches))
    });
    on_both_gics("errata/", &all).chain([images]).chain(vectors).collect()
}

/// Models of CPUs, the table of vectors that each has to have, and how many branches it takes in it. QEMU's firmware has no
/// workarounds.
const VECTORS: [(&str, &str, u64); 6] = [
    ("cortex-a53", "vectors", 0),
    ("cortex-a72", "vectors", 0),
    ("cortex-a76", "vectors_new_history", 24),
    ("neoverse-n1", "vectors_new_history", 24),
    ("neoverse-v1", "vectors_new_history", 32),
    ("max", "vectors", 0),
];
/// Where Hanok has to say that a CPU's predictor is open to guests.
const OPEN: [&str; 1] = ["cortex-a72"];

/// `b . + 4`, and `dsb nsh`.
const TO_THE_NEXT: u32 = 0x1400_0001;
const DSB_NSH: u32 = 0xd503_379f;

/// Branches on an immediate, on a register, on a bit or on zero have bits 28:26 = 101, as have system instructions.
fn is_branch(word: u32) -> bool {
    word >> 26 & 0b111 == 0b101 && word >> 22 != 0b11_0101_0100
}

/// Each CPU has the vectors that its branch predictor needs. Where the history of branches is to be replaced, as many are taken on an
/// exit as its model needs, and no others before them.
fn vectors(scenario: &Scenario, cpu: &str, table: &str, branches: u64) -> Outcome {
    const SYNCHRONOUS: u64 = 0x400;
    const INTERRUPT: u64 = 0x480;
    let code = Code::read(&scenario.inputs().elf)?;
    let table = code.address(table)?;
    let bundle = scenario.bundle(&[Vm::selftest(2, "")])?;
    let mut board = scenario.boot(&Machine::new(3, 2).cpu(cpu).bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    gdb.run()?;
    let said = board.expect(r"(?m)^test .* ok\n")?.before;
    let warning = "warning: guests can train this board's branch predictors (CVE-2017-5715, CVE-2022-23960), and \
                   firmware has no workaround: ";
    ensure_equal("warnings", said.matches(warning).count(), usize::from(OPEN.contains(&cpu)))?;
    gdb.interrupt()?;
    for cpu in 0..2 {
        ensure_equal("VBAR_EL2", gdb.system_registers(cpu, ["VBAR_EL2"])?, [IMAGE + table])?;
    }
    for vector in [SYNCHRONOUS, INTERRUPT] {
        let way = (0..32).map(|n| table + vector + 4 * n);
        let is_branch = |at: &u64| code.instruction(*at).is_some_and(is_branch);
        let first = way.clone().find(is_branch).ok_or_else(|| Failure::Wrong("no branch".to_owned()))?;
        let replaces = code.instruction(first) == Some(TO_THE_NEXT);
        ensure_equal("the first branch begins to replace the history", replaces, branches > 0)?;
        if branches == 0 {
            continue;
        }
        let end = way.clone().find(|at| code.instruction(*at) == Some(DSB_NSH));
        let end = end.ok_or_else(|| Failure::Wrong("no DSB behind the branches".to_owned()))?;
        let on = gdb.run_to_any(&[IMAGE + first])?;
        ensure_equal("branches that are left", gdb.registers(on)?.x[0], branches)?;
        for n in (0..branches).rev() {
            for _ in 0..3 {
                gdb.step(on)?;
            }
            let registers = gdb.registers(on)?;
            let expected = if n == 0 { end } else { first };
            ensure_equal(
                "PC and branches that are left",
                (registers.pc, registers.x[0]),
                (IMAGE + expected, n),
            )?;
        }
    }
    Ok(())
}

/// Neither EL2's image nor a bare-metal guest has the instructions in a row that Cortex-A53 may execute wrong: the linker mends
/// them.
fn no_843419(scenario: &Scenario) -> Outcome {
    let inputs = scenario.inputs();
    let guests = ["attacker", "busy", "chaos", "courier", "hello", "keeper", "monitor", "pulse", "selftest"];
    let guests = guests.map(|name| inputs.guests.join(format!("{name}.elf")));
    for image in [inputs.elf.clone()].iter().chain(&guests) {
        let found = find_843419(image)?;
        ensure(found.is_empty(), || format!("{}: at {found:x?}", image.display()))?;
    }
    Ok(())
}

/// `msr vttbr_el2, xN`: the instruction's fixed bits.
const WRITES_VTTBR: (u32, u32) = (0xffff_ffe0, 0xd51c_2100);
/// TCR_EL1.EPD0 and EPD1.
const NO_WALKS: u64 = 1 << 7 | 1 << 23;
/// What QEMU calls it.
const SCTLR_EL1: &str = "SCTLR";

/// Whenever VTTBR_EL2 changes, EL1's tables can't be walked (Cortex-A72 erratum 1319367): where another VM's vCPU is loaded, and
/// where a VM's translations are invalidated while another one's registers are here, for VMs are stopped and started.
fn no_walks_by_mixed_registers(scenario: &Scenario, gic: u8) -> Outcome {
    let code = Code::read(&scenario.inputs().elf)?;
    let vms = [
        Vm::keeper("victim=victim what=stop times=1000 most=2000"),
        Vm::busy(1, "sleep=1 every=1000").named("victim"),
    ];
    let bundle = scenario.bundle(&vms.map(|vm| vm.weight(256)))?;
    let board = scenario.boot(&Machine::new(gic, 1).bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;

    let writes = code.instructions().filter(|(_, word)| word & WRITES_VTTBR.0 == WRITES_VTTBR.1);
    let (invalidations, loads): (Vec<u64>, Vec<u64>) = writes
        .map(|(offset, _)| IMAGE + offset)
        .partition(|write| code.function(write - IMAGE).is_some_and(|name| name.contains("invalidate")));
    for writes in [loads, invalidations] {
        let mut changes = 0;
        for _ in 0..MOST {
            changes += usize::from(changes_without_walks(&mut gdb, &code, &writes)?);
            if changes == CHANGES {
                break;
            }
        }
        ensure(changes == CHANGES, || format!("{changes} changes are too few"))?;
    }
    Ok(())
}

/// Lets the machine run to one of these writes of VTTBR_EL2, and execute it. Returns whether it changes anything; then walks are
/// off.
fn changes_without_walks(gdb: &mut Gdb, code: &Code, writes: &[u64]) -> Outcome<bool> {
    let cpu = gdb.run_to_any(writes)?;
    let offset = gdb.registers(cpu)?.pc - IMAGE;
    let [before, tcr, sctlr] = gdb.system_registers(cpu, ["VTTBR_EL2", "TCR_EL1", SCTLR_EL1])?;
    gdb.step(cpu)?;
    let [after] = gdb.system_registers(cpu, ["VTTBR_EL2"])?;
    ensure(before == after || tcr & NO_WALKS == NO_WALKS && sctlr & 1 == 1, || {
        let function = code.function(offset).unwrap_or("?");
        format!(
            "image + {offset:#x} ({function}): VTTBR_EL2 changes from {before:#x} to {after:#x} while TCR_EL1 is {tcr:#x} and SCTLR_EL1 {sctlr:#x}"
        )
    })?;
    Ok(before != after)
}
