//! U-Boot as the board's firmware: at EL2, it boots the image by `booti`.

use std::path::Path;

use tests::{Board, Failure, Machine, Outcome, Scenario, Vm};

use crate::case::{Case, GICS};

/// Where the image is put, and the bundle; U-Boot finds the board's tree at the base of RAM.
const IMAGE: u64 = 0x4800_0000;
const BUNDLE: u64 = 0x5000_0000;
const TREE: u64 = 0x4000_0000;

pub fn cases() -> Vec<Case> {
    let case = |gic| Case::new(format!("u-boot-on-board/gicv{gic}"), move |scenario| booti(scenario, gic));
    GICS.map(case).map(Case::needs_linux).into()
}

fn booti(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::hello("first"), Vm::hello("second")])?;
    let size = std::fs::metadata(&bundle).map_err(Failure::io("look at the bundle"))?.len();
    let inputs = scenario.inputs();
    let machine = Machine::new(gic, 2)
        .without_kernel()
        .option("-bios", inputs.guests.join("u-boot.bin").display().to_string())
        .option("-device", loader(&inputs.image, IMAGE))
        .option("-device", loader(&bundle, BUNDLE));
    let mut board = scenario.boot(&machine)?;
    board.expect("Hit any key to stop autoboot")?;
    board.send_line("")?;
    board.expect(r"(?m)^=> ")?;
    // A bundle is a device-tree blob, which U-Boot would take for a FIT image: so it isn't given to `booti`, but put into
    // the tree.
    command(&mut board, &format!("fdt addr {TREE:#x}"))?;
    command(&mut board, &format!("fdt set /chosen linux,initrd-start <0x0 {BUNDLE:#x}>"))?;
    command(&mut board, &format!("fdt set /chosen linux,initrd-end <0x0 {:#x}>", BUNDLE + size))?;
    board.send_line(&format!("booti {IMAGE:#x} - {TREE:#x}"))?;
    board.expect("Starting kernel")?;
    board.expect(&format!(r"hanok: Hanok \S+ on \S+, 2 CPUs, entered at {IMAGE:#x}\n"))?;
    board.expect(r"hanok: first: 1 vCPU on CPU 1, 16 MiB\n")?;
    board.expect(r"hanok: second: 1 vCPU on CPU 0, 16 MiB\n")?;
    // Its neighbour's last line may come before its own or after, and tear what comes then.
    board.expect_ever(r"\[second\] hello: type `help`\n")?;
    board.expect_ever(r"(?m)^hello: type `help`\n")?;
    board.send_line("uptime")?;
    board.expect(r"\n\d+\.\d{3} s\n")?;
    Ok(())
}

fn command(board: &mut Board, line: &str) -> Outcome {
    board.send_line(line)?;
    board.expect(r"(?m)^=> ")?;
    Ok(())
}

/// QEMU's device that puts a file into memory.
fn loader(file: &Path, address: u64) -> String {
    format!("loader,file={},addr={address:#x},force-raw=on", file.display())
}
