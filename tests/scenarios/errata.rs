//! What EL2 does about errata, as far as it shows in registers: the emulated CPUs have none (docs/errata.md).

use tests::{Code, Gdb, Machine, Outcome, Scenario, Vm, ensure, find_843419};

use crate::case::{Case, Named, on_both_gics};

/// Where QEMU loads the image.
const IMAGE: u64 = 0x4020_0000;
/// How many changes of both kinds a scenario looks at.
const CHANGES: usize = 20;
/// The scenario gives up when it has seen so many writes of one kind.
const MOST: usize = 500;

pub fn cases() -> Vec<Case> {
    let all: [Named; 1] = [("no-walks-by-mixed-registers", no_walks_by_mixed_registers)];
    let images = Case::new("errata/843419", no_843419);
    on_both_gics("errata/", &all).chain([images]).collect()
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
