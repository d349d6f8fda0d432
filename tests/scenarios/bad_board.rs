//! Boards on which no hypervisor can run, and device trees that can't be used: the image says so, as far as it has the
//! means, and stops.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tests::{Board, Failure, Machine, Outcome, Qmp, Scenario, ensure};

use crate::case::{Case, Named, on_both_gics};
use crate::handed_over::{HandedOver, KERNEL, Of};

pub fn cases() -> Vec<Case> {
    let bad: [Named; 4] = [
        ("entered-at-el1", entered_at_el1),
        ("no-gic", no_gic),
        ("unstartable-cpu", unstartable_cpu),
        ("no-tree", no_tree),
    ];
    type Run = fn(&Scenario, Of) -> Outcome;
    let everywhere: [(&str, Run); 4] = [
        ("damaged-tree", damaged_tree),
        ("no-memory", no_memory),
        ("image-outside", image_outside),
        ("bundle-outside", bundle_outside),
    ];
    let on = |of: Of| {
        everywhere.map(|(name, run)| {
            let case =
                Case::new(format!("bad-board/{name}/{}", of.name()), move |scenario| run(scenario, of));
            if of == Of::Pi { case.needs_linux() } else { case }
        })
    };
    let pi = [
        Case::new("bad-board/no-tree/pi", no_tree_on_pi),
        Case::new("bad-board/no-gic/pi", no_gic_on_pi).needs_linux(),
        Case::new("bad-board/no-bundle/pi", no_bundle_on_pi).needs_linux(),
    ];
    on_both_gics("bad-board/", &bad).chain(Of::ALL.into_iter().flat_map(on)).chain(pi).collect()
}

fn entered_at_el1(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = scenario.boot(&Machine::new(gic, 1).without_el2())?;
    board.expect(
        r"(?m)^hanok: entered below EL2, where no hypervisor can run\. Start the image at EL2: on QEMU with -M virt,virtualization=on; on a board, by firmware that enters its payload at EL2\.\n",
    )?;
    Ok(())
}

fn no_gic(scenario: &Scenario, gic: u8) -> Outcome {
    let machine = scenario.with_tree(Machine::new(gic, 1), |fdtput, tree| {
        fdtput.arg("-r").arg(tree).arg("/intc@8000000");
    })?;
    let mut board = scenario.boot(&machine)?;
    board.expect_log(
        "error: cannot start: the device tree has no interrupt controller that is known (GICv2 or GICv3)",
    )?;
    Ok(())
}

fn no_gic_on_pi(scenario: &Scenario) -> Outcome {
    let board = HandedOver::new(scenario, Of::Pi)?.with(&Of::Pi.memory(&[(0, 128 << 20)]));
    let mut board = board.with("/ { soc { /delete-node/ interrupt-controller@40041000; }; };\n").boot()?;
    board.expect_log(
        "error: cannot start: the device tree has no interrupt controller that is known (GICv2 or GICv3)",
    )?;
    at_rest(&board, KERNEL)
}

/// The tree as it is on a card: memory is for the firmware to put in.
fn no_memory(scenario: &Scenario, of: Of) -> Outcome {
    let mut board = HandedOver::new(scenario, of)?.with(&of.memory(&[(0, 0)])).boot()?;
    board.expect_log("error: cannot start: the device tree has no memory")?;
    at_rest(&board, of.ram() + KERNEL)
}

/// Nothing of a tree that isn't whole is believed, so that there is no UART to complain on.
fn damaged_tree(scenario: &Scenario, of: Of) -> Outcome {
    let board = HandedOver::new(scenario, of)?.with(&of.memory(&[(0, 128 << 20)])).damaged().boot()?;
    at_rest(&board, of.ram() + KERNEL)?;
    is_silent(&board)
}

fn image_outside(scenario: &Scenario, of: Of) -> Outcome {
    let mut board = HandedOver::new(scenario, of)?.with(&of.memory(&[(64 << 20, 64 << 20)])).boot()?;
    let at = of.ram() + KERNEL;
    board.expect_log(&format!(
        "error: cannot start: the image at {at:#x} is not in the memory that the device tree describes"
    ))?;
    at_rest(&board, at)
}

/// There is nothing to run where the bundle is said to be, and what the image has built in isn't what was asked for.
fn bundle_outside(scenario: &Scenario, of: Of) -> Outcome {
    let (start, end) = (of.ram() + (128 << 20), of.ram() + (129 << 20));
    let chosen = format!("linux,initrd-start = <0x0 {start:#x}>; linux,initrd-end = <0x0 {end:#x}>;");
    let board = HandedOver::new(scenario, of)?.with(&of.memory(&[(0, 128 << 20)]));
    let mut board = board.with(&format!("/ {{ chosen {{ {chosen} }}; }};\n")).boot()?;
    board.expect_log(&format!("error: the bundle at {start:#x} to {end:#x} is not in the board's memory"))?;
    board.expect_log("there is no VM to run: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

/// What the image has built in runs when the firmware hands nothing over.
fn no_bundle_on_pi(scenario: &Scenario) -> Outcome {
    let board = HandedOver::new(scenario, Of::Pi)?.with(&Of::Pi.memory(&[(0, 128 << 20)]));
    let mut board = board.boot()?;
    board.expect_log("no bundle was handed over as initrd: running the built-in guests")?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    board.send_line("off")?;
    board.expect_off()?;
    Ok(())
}

/// A CPU that nothing can start is left out; the others run.
fn unstartable_cpu(scenario: &Scenario, gic: u8) -> Outcome {
    let machine = scenario.with_tree(Machine::new(gic, 2), |fdtput, tree| {
        fdtput.arg("-d").arg(tree).args(["/cpus/cpu@1", "enable-method"]);
    })?;
    let mut board = scenario.boot(&machine)?;
    board.expect_log("warning: CPU 1 (0x1) is left out: the tree names no way to start it")?;
    board.expect_log("hello: 1 vCPU on CPU 0, 16 MiB")?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    Ok(())
}

const IMAGE: u64 = 0x4200_0000;
/// No image is larger, with what it has in memory beside the file.
const LARGEST: u64 = 0x20_0000;
const WFI: &str = "0xd503207f";

/// Entered with no device tree, the image knows of no UART: it stops in silence, and touches nothing.
fn no_tree(scenario: &Scenario, gic: u8) -> Outcome {
    let image = scenario.inputs().image.clone();
    let loader = format!("loader,file={},addr={IMAGE:#x},force-raw=on,cpu-num=0", image.display());
    let board = scenario.boot(&Machine::new(gic, 1).without_kernel().option("-device", loader))?;
    at_rest(&board, IMAGE)?;
    is_silent(&board)
}

/// The same on a Raspberry Pi, where x0 holds the address at which a Pi's older kernels looked for what the firmware tells them.
fn no_tree_on_pi(scenario: &Scenario) -> Outcome {
    let image = scenario.inputs().image.display().to_string();
    let machine = Machine::raspberry_pi_4(PathBuf::new()).without_kernel().option("-kernel", image);
    let board = scenario.boot(&machine)?;
    at_rest(&board, KERNEL)?;
    is_silent(&board)
}

fn is_silent(board: &Board) -> Outcome {
    let text = board.text();
    ensure(text.is_empty(), || format!("the console says {text:?}"))
}

/// The boot CPU sleeps, in the image that lies at `image`.
fn at_rest(board: &Board, image: u64) -> Outcome {
    let mut qmp = board.qmp()?;
    let limit = Instant::now() + Duration::from_secs(30);
    // QEMU shows the PC behind the WFI in which the CPU sleeps.
    loop {
        let pc = program_counter(&mut qmp)?;
        let word = qmp.monitor(&format!("xp /1wx {:#x}", pc.wrapping_sub(4)))?;
        if (image..image + LARGEST).contains(&pc) && word.contains(WFI) {
            break;
        }
        ensure(Instant::now() < limit, || format!("the CPU is at {pc:#x} and not at rest"))?;
    }
    Ok(())
}

fn program_counter(qmp: &mut Qmp) -> Outcome<u64> {
    let registers = qmp.monitor("info registers")?;
    let pc = registers.split_whitespace().find_map(|word| word.strip_prefix("PC="));
    pc.and_then(|pc| u64::from_str_radix(pc, 16).ok()).ok_or(Failure::Qmp(registers))
}
