//! Boards on which no hypervisor can run, and device trees that can't be used: the image says so, as far as it has the
//! means, and stops.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::{Failure, Machine, Outcome, Qmp, Scenario, ensure, run_tool};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let bad: [Named; 4] = [
        ("entered-at-el1", entered_at_el1),
        ("no-gic", no_gic),
        ("unstartable-cpu", unstartable_cpu),
        ("no-tree", no_tree),
    ];
    on_both_gics("bad-board/", &bad).collect()
}

fn entered_at_el1(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = scenario.boot(&Machine::new(gic, 1).without_el2())?;
    board.expect(
        r"(?m)^hanok: entered below EL2, where no hypervisor can run\. Start the image at EL2: on QEMU with -M virt,virtualization=on; on a board, by firmware that enters its payload at EL2\.\n",
    )?;
    Ok(())
}

fn no_gic(scenario: &Scenario, gic: u8) -> Outcome {
    let tree = edited_tree(scenario, gic, 1, |fdtput, tree| {
        fdtput.arg("-r").arg(tree).arg("/intc@8000000");
    })?;
    let mut board = scenario.boot(&Machine::new(gic, 1).option("-dtb", tree))?;
    board.expect_log(
        "error: cannot start: the device tree has no interrupt controller that is known (GICv2 or GICv3)",
    )?;
    Ok(())
}

/// A CPU that nothing can start is left out; the others run.
fn unstartable_cpu(scenario: &Scenario, gic: u8) -> Outcome {
    let tree = edited_tree(scenario, gic, 2, |fdtput, tree| {
        fdtput.arg("-d").arg(tree).args(["/cpus/cpu@1", "enable-method"]);
    })?;
    let mut board = scenario.boot(&Machine::new(gic, 2).option("-dtb", tree))?;
    board.expect_log("warning: CPU 1 (0x1) is left out: the tree names no way to start it")?;
    board.expect_log("hello: 1 vCPU on CPU 0, 16 MiB")?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    Ok(())
}

/// The machine's own tree with a change.
fn edited_tree(
    scenario: &Scenario,
    gic: u8,
    cpus: u8,
    change: impl FnOnce(&mut Command, &Path),
) -> Outcome<String> {
    let tree = scenario.board_tree(&Machine::new(gic, cpus))?;
    let mut fdtput = Command::new("fdtput");
    change(&mut fdtput, &tree);
    run_tool(&mut fdtput)?;
    Ok(tree.display().to_string())
}

const IMAGE: u64 = 0x4200_0000;
const WFI: &str = "0xd503207f";

/// Entered with no device tree, the image knows of no UART: it stops in silence, and touches nothing.
fn no_tree(scenario: &Scenario, gic: u8) -> Outcome {
    let image = scenario.inputs().image.clone();
    let loader = format!("loader,file={},addr={IMAGE:#x},force-raw=on,cpu-num=0", image.display());
    let board = scenario.boot(&Machine::new(gic, 1).without_kernel().option("-device", loader))?;
    let size = std::fs::metadata(&image).map_err(Failure::io("look at the image"))?.len();
    let mut qmp = board.qmp()?;
    let limit = Instant::now() + Duration::from_secs(30);
    // QEMU shows the PC behind the WFI in which the CPU sleeps.
    loop {
        let pc = program_counter(&mut qmp)?;
        let word = qmp.monitor(&format!("xp /1wx {:#x}", pc.wrapping_sub(4)))?;
        if (IMAGE..IMAGE + size).contains(&pc) && word.contains(WFI) {
            break;
        }
        ensure(Instant::now() < limit, || format!("the CPU is at {pc:#x} and not at rest"))?;
    }
    let text = board.text();
    ensure(text.is_empty(), || format!("the console says {text:?}"))
}

fn program_counter(qmp: &mut Qmp) -> Outcome<u64> {
    let registers = qmp.monitor("info registers")?;
    let pc = registers.split_whitespace().find_map(|word| word.strip_prefix("PC="));
    pc.and_then(|pc| u64::from_str_radix(pc, 16).ok()).ok_or(Failure::Qmp(registers))
}
