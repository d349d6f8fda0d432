//! QEMU's Raspberry Pi 4 with the files of a card. With the stock stub its CPUs wait in a spin table, and there is no PSCI, so
//! that an SMC would be undefined; with TF-A there is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::{Board, Code, Failure, Machine, Outcome, Scenario, Shell, Vm, ensure, ensure_equal, run_tool};

use crate::case::Case;
use crate::life::starts_over;

pub fn cases() -> Vec<Case> {
    let selftest = [1, 2, 4].map(|vcpus| {
        Case::new(format!("raspberry-pi-4/selftest/{vcpus}-vcpus"), move |scenario| selftest(scenario, vcpus))
    });
    let linux = [1, 2, 4].map(|vcpus| {
        Case::new(format!("raspberry-pi-4/linux/{vcpus}-vcpus"), move |scenario| linux(scenario, vcpus))
    });
    let others = [
        Case::new("raspberry-pi-4/card", card),
        Case::new("raspberry-pi-4/side-by-side", side_by_side),
        Case::new("raspberry-pi-4/mini-uart/selftest", mini_uart_selftest),
        Case::new("raspberry-pi-4/mini-uart/input", mini_uart_input),
        Case::new("raspberry-pi-4/console/stdout-path-disabled", stdout_path_disabled),
        Case::new("raspberry-pi-4/console/serial0-disabled", serial0_disabled),
        Case::new("raspberry-pi-4/reset", reset),
        Case::new("raspberry-pi-4/without-switch", without_switch),
        Case::new("raspberry-pi-4/switch-is-hanoks", switch_is_hanoks),
        Case::new("raspberry-pi-4/tf-a/selftest", selftest_by_tf_a),
        Case::new("raspberry-pi-4/tf-a/forgets-branches", forgets_branches),
        Case::new("raspberry-pi-4/tf-a/side-by-side", side_by_side_by_tf_a),
        Case::new("raspberry-pi-4/tf-a/reset", reset_by_tf_a),
    ];
    let linux_by_tf_a = [1, 2, 4].map(|vcpus| {
        Case::new(format!("raspberry-pi-4/tf-a/linux/{vcpus}-vcpus"), move |scenario| {
            linux_by_tf_a(scenario, vcpus)
        })
    });
    selftest.into_iter().chain(linux).chain(linux_by_tf_a).chain(others).map(Case::needs_linux).collect()
}

/// The tree of a card with the stock stub.
pub fn tree(scenario: &Scenario) -> PathBuf {
    scenario.inputs().cards.join("stock/boot/bcm2711-rpi-4-b.dtb")
}

/// What Hanok calls the board.
const BOARD: &str = "Raspberry Pi 4 Model B, 4 CPUs";

/// That tree with other values of properties that are strings: node, property, value.
pub fn changed_tree(scenario: &Scenario, changes: &[[&str; 3]]) -> Outcome<PathBuf> {
    let tree = scenario.copy(&tree(scenario), "changed.dtb")?;
    for change in changes {
        run_tool(Command::new("fdtput").args(["-t", "s"]).arg(&tree).args(change))?;
    }
    Ok(tree)
}

/// QEMU's counters raise PPI 23 here as on its other boards; a Raspberry Pi 4's, and so its tree's, an SPI for each CPU.
pub const NO_OVERFLOW: &str = "without=pmu.interrupt";

fn boot(scenario: &Scenario, vms: &[Vm]) -> Outcome<Board> {
    boot_machine(scenario, &Machine::raspberry_pi_4(tree(scenario)), vms)
}

fn boot_machine(scenario: &Scenario, machine: &Machine, vms: &[Vm]) -> Outcome<Board> {
    let mut board = scenario.boot(&machine.clone().bundle(scenario.bundle(vms)?))?;
    board.expect_log(&format!("Hanok <n>.<n>.<n> on {BOARD}, entered at <n>"))?;
    Ok(board)
}

/// No CPU was left out, and nothing went wrong in EL2.
fn is_well(board: &Board) -> Outcome {
    let text = board.text();
    let wrong = text.lines().find(|line| line.contains("left out") || line.contains("EL2 crashed"));
    ensure(wrong.is_none(), || format!("something went wrong: {wrong:?}"))
}

/// All that the self-test does, each vCPU on a CPU of its own.
fn selftest(scenario: &Scenario, vcpus: u8) -> Outcome {
    let mut board = boot(scenario, &[Vm::selftest(vcpus, NO_OVERFLOW)])?;
    // What the stub can't do is said.
    board.expect_log(
        "warning: guests can train this board's branch predictors (CVE-2017-5715, CVE-2022-23960), and firmware \
         answers no SMC: VMs that share a CPU, and EL2, aren't kept from each other there",
    )?;
    selftest_on(board)
}

fn selftest_on(mut board: Board) -> Outcome {
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(120))?;
    ensure_equal("failed cases", end.number(2)?, 0)?;
    is_well(&board)?;
    goes_off(board, "selftest")
}

/// This was the last VM that ran, and the board, which has no PSCI unless TF-A brings it, is off.
fn goes_off(mut board: Board, last: &str) -> Outcome {
    board.expect_log(&format!("{last} is off"))?;
    board.expect_log("no VM is left: turning the board off")?;
    let text = board.expect_off()?;
    ensure(!text.contains("by software"), || "it was another who turned the board off".to_owned())
}

/// The manifest says that the board starts afresh: it does, from its first instruction on, and the VM runs again.
fn reset(scenario: &Scenario) -> Outcome {
    let bundle = scenario.bundle_with("when-all-off = \"reset\";", &[Vm::hello("hello")])?;
    let mut board = scenario.boot(&Machine::raspberry_pi_4(tree(scenario)).bundle(bundle))?;
    starts_over(&mut board, BOARD)
}

/// No VM is given what could turn the board off under all others.
fn switch_is_hanoks(scenario: &Scenario) -> Outcome {
    let device = "/soc/watchdog@7e100000";
    let greedy = Vm::hello("greedy").property("passthrough", &format!("\"{device}\""));
    let bundle = scenario.bundle(&[greedy, Vm::hello("hello")])?;
    let mut board = scenario.boot(&Machine::raspberry_pi_4(tree(scenario)).bundle(bundle))?;
    let own = format!("{device} is Hanok's own, or shares a page or a line with it");
    board.expect_log(&format!("error: left out: /greedy: passthrough: {own}: the board's power manager"))?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    board.send_line("off")?;
    goes_off(board, "hello")
}

/// Nothing in the tree turns the board off: it says so, and stays where it is.
fn without_switch(scenario: &Scenario) -> Outcome {
    let tree = changed_tree(scenario, &[["/soc/watchdog@7e100000", "status", "disabled"]])?;
    for (property, verb) in [("", "turned off"), ("when-all-off = \"reset\";", "reset")] {
        let bundle = scenario.bundle_with(property, &[Vm::hello("hello")])?;
        let mut board = scenario.boot(&Machine::raspberry_pi_4(tree.clone()).bundle(bundle))?;
        board.expect(r"(?m)^hello: tick 1 of 10\n")?;
        board.send_line("off")?;
        board.expect(&format!(r"(?m)^hanok: this board can't be {verb} by software\n"))?;
        is_well(&board)?;
    }
    Ok(())
}

/// Debian's Linux to its shell.
fn linux(scenario: &Scenario, vcpus: u8) -> Outcome {
    comes_to_its_shell(boot(scenario, &[Vm::linux(vcpus)])?, vcpus)
}

fn linux_by_tf_a(scenario: &Scenario, vcpus: u8) -> Outcome {
    comes_to_its_shell(boot_by_tf_a(scenario, "", &[Vm::linux(vcpus)])?, vcpus)
}

fn comes_to_its_shell(mut board: Board, vcpus: u8) -> Outcome {
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", &vcpus.to_string())?;
    shell.check("echo hanok | md5sum", "58bb721193dd2abf3b515b4c260d17a2  -")?;
    is_well(&board)
}

/// What the card has: Linux, the monitor and a real-time guest, which share the four CPUs.
fn card(scenario: &Scenario) -> Outcome {
    let machine = Machine::raspberry_pi_4(tree(scenario)).bundle(scenario.built_bundle("rpi4")?);
    let mut board = scenario.boot(&machine)?;
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", "4")?;
    board.expect_ever(r"(?m)^\[pulse\] pulse: a timer of 1000 Hz; ")?;
    board.send("\x142")?;
    board.expect_log("console of monitor (2 of 3)")?;
    is_well(&board)
}

/// Two VMs on CPUs of their own, of which one stops and is started again by the third.
fn neighbours() -> [Vm; 3] {
    [
        Vm::keeper("victim=selftest what=stop times=5 most=200000"),
        Vm::selftest(2, NO_OVERFLOW),
        Vm::busy(1, "sleep=1 every=100").named("bystander"),
    ]
}

fn side_by_side(scenario: &Scenario) -> Outcome {
    get_along(boot(scenario, &neighbours())?)
}

fn side_by_side_by_tf_a(scenario: &Scenario) -> Outcome {
    get_along(boot_by_tf_a(scenario, "", &neighbours())?)
}

fn get_along(mut board: Board) -> Outcome {
    board.expect_within(r"(?m)^keeper: done\n", Duration::from_secs(120))?;
    board.expect_within(r"(?m)^\[selftest\] \d+ passed, 0 failed\n", Duration::from_secs(120))?;
    board.expect(r"(?m)^\[bystander\] busy: vCPU 0: round \d+\n")?;
    ensure(!board.text().contains("bystander turned itself off"), || "the bystander gave up".to_owned())?;
    is_well(&board)
}

const PL011: &str = "/soc/serial@7e201000";
pub const MINI_UART: &str = "/soc/serial@7e215040";
/// A PL011 that the board's pins leave no place for, in one page with [`PL011`].
pub const DISABLED: &str = "/soc/serial@7e201400";
/// The serial port that QEMU has the mini-UART as.
const MINI_UART_PORT: u8 = 1;

/// With the mini-UART as `stdout-path` has it, by its alias.
fn boot_with_mini_uart(scenario: &Scenario, vms: &[Vm]) -> Outcome<Board> {
    let tree = changed_tree(scenario, &[["/chosen", "stdout-path", "serial1:115200n8"]])?;
    let machine = Machine::raspberry_pi_4(tree).console_at(MINI_UART_PORT);
    let mut board = boot_machine(scenario, &machine, vms)?;
    board.expect_log(&format!("the console is {MINI_UART}"))?;
    Ok(board)
}

fn mini_uart_selftest(scenario: &Scenario) -> Outcome {
    selftest_on(boot_with_mini_uart(scenario, &[Vm::selftest(4, NO_OVERFLOW)])?)
}

/// What is typed gets to a guest whole, more at once than the FIFO of 8 has room for; and Hanok's own keys work.
fn mini_uart_input(scenario: &Scenario) -> Outcome {
    let vms = [Vm::hello("first"), Vm::hello("second")];
    let mut board = boot_with_mini_uart(scenario, &vms)?;
    types_help(&mut board)?;
    board.expect_ever(r"(?m)^\[second\] hello: type `help`\n")?;
    let line = "the quick brown fox jumps over the lazy dog, and again over the lazy dog";
    board.send_line(line)?;
    board.expect_text(&format!("{line}\n"))?;
    board.send("\x142")?;
    board.expect_log("console of second (2 of 2)")?;
    is_well(&board)
}

/// The small guest, when it can be asked, says what it can be asked.
fn types_help(board: &mut Board) -> Outcome {
    board.expect(r"(?m)^hello: type `help`\n")?;
    board.expect("> ")?;
    board.send_line("help")?;
    board.expect(r"(?m)^uptime  since when it runs\n")?;
    Ok(())
}

/// `stdout-path` names a UART that is off: the console is `serial0`.
fn stdout_path_disabled(scenario: &Scenario) -> Outcome {
    let tree = changed_tree(scenario, &[["/chosen", "stdout-path", DISABLED]])?;
    let mut board = boot_machine(scenario, &Machine::raspberry_pi_4(tree), &[Vm::hello("hello")])?;
    board.expect_log(&format!("the console is {PL011}"))?;
    types_help(&mut board)?;
    is_well(&board)
}

/// So is `serial0`: the console is the UART that is left.
fn serial0_disabled(scenario: &Scenario) -> Outcome {
    let changes = [["/chosen", "stdout-path", "serial0:115200n8"], [PL011, "status", "disabled"]];
    let machine = Machine::raspberry_pi_4(changed_tree(scenario, &changes)?).console_at(MINI_UART_PORT);
    let mut board = boot_machine(scenario, &machine, &[Vm::hello("hello")])?;
    board.expect_log(&format!("the console is {MINI_UART}"))?;
    types_help(&mut board)?;
    is_well(&board)
}

/// Where the firmware puts things, or could.
mod place {
    /// The kernel.
    pub const KERNEL: u64 = 0x20_0000;
    /// Two instructions that lead to 0, where the stub is: QEMU has no place else to begin with at EL3.
    pub const JUMP: u64 = 0x300_0000;
    /// The device tree.
    pub const TREE: u64 = 0x700_0000;
    /// The bundle.
    pub const BUNDLE: u64 = 0x800_0000;
}

/// `mov x0, #0` and `br x0`.
const JUMP_TO_0: u64 = 0xd61f_0000_d280_0000;

/// The board as the firmware leaves it to TF-A, at EL3: stub, kernel, tree and bundle in memory, and the stub told of them.
pub fn machine_with_tf_a(scenario: &Scenario, root: &str, vms: &[Vm]) -> Outcome<Machine> {
    let card = scenario.inputs().cards.join("tf-a/boot");
    let bundle = scenario.bundle_with(root, vms)?;
    let size = fs::metadata(&bundle).map_err(Failure::io("look at the bundle"))?.len();

    let mut stub = fs::read(card.join("bl31.bin")).map_err(Failure::io("read the stub"))?;
    // The firmware puts these where the stub has a magic word (armstub8.S of the Raspberry Pi's tools).
    for (at, word) in [(0xf0, 0), (0xf8, place::TREE as u32), (0xfc, place::KERNEL as u32)] {
        let slot = stub.get_mut(at..at + 4).ok_or_else(|| Failure::Wrong("the stub is too short".into()))?;
        slot.copy_from_slice(&word.to_le_bytes());
    }
    let stub = scenario.write("stub.bin", stub)?;

    let tree = scenario.copy(&card.join("bcm2711-rpi-4-b.dtb"), "tree.dtb")?;
    let set = |node: &str, property: &str, cells: &[u64]| {
        let cells = cells.iter().map(|cell| format!("{cell:x}"));
        run_tool(Command::new("fdtput").args(["-t", "x"]).arg(&tree).args([node, property]).args(cells))
    };
    // 948 MiB, as a board of 1 GiB has it beside the firmware's own.
    set("/memory@0", "reg", &[0, 0, 0x3b40_0000])?;
    set("/chosen", "linux,initrd-start", &[0, place::BUNDLE])?;
    set("/chosen", "linux,initrd-end", &[0, place::BUNDLE + size])?;
    run_tool(Command::new("fdtput").args(["-t", "s"]).arg(&tree).args([
        "/chosen",
        "bootargs",
        "hanok.color=off",
    ]))?;

    let load = |machine: Machine, file: &Path, at: u64| {
        machine.option("-device", format!("loader,file={},addr={at:#x},force-raw=on", file.display()))
    };
    let mut machine = Machine::raspberry_pi_4(tree.clone()).without_kernel();
    for (file, at) in [
        (&stub, 0),
        (&tree, place::TREE),
        (&scenario.inputs().image, place::KERNEL),
        (&bundle, place::BUNDLE),
    ] {
        machine = load(machine, file, at);
    }
    let at = place::JUMP;
    machine = machine.option("-device", format!("loader,addr={at:#x},data={JUMP_TO_0:#x},data-len=8"));
    for cpu in 0..4 {
        machine = machine.option("-device", format!("loader,addr={at:#x},cpu-num={cpu}"));
    }
    Ok(machine)
}

/// It has come to Hanok.
pub fn comes_by_tf_a(board: &mut Board) -> Outcome {
    board.expect(r"(?m)^INFO:    Changed device tree to advertise PSCI\.\n")?;
    Ok(())
}

fn boot_by_tf_a(scenario: &Scenario, root: &str, vms: &[Vm]) -> Outcome<Board> {
    let mut board = scenario.boot(&machine_with_tf_a(scenario, root, vms)?)?;
    comes_by_tf_a(&mut board)?;
    Ok(board)
}

/// `smc #0`.
const SMC: u32 = 0xd400_0003;
/// SMCCC_ARCH_WORKAROUND_3.
const WORKAROUND_3: u64 = 0x8000_3fff;

/// TF-A has a way to make a Cortex-A72 forget what its branches have learnt, and says that it needs it: on every CPU, each
/// exit goes that way, before EL2's first branch.
fn forgets_branches(scenario: &Scenario) -> Outcome {
    const SYNCHRONOUS: u64 = 0x400;
    const INTERRUPT: u64 = 0x480;
    let code = Code::read(&scenario.inputs().elf)?;
    let table = code.address("vectors_workaround_3")?;
    let mut board =
        scenario.boot(&machine_with_tf_a(scenario, "", &[Vm::selftest(4, NO_OVERFLOW)])?.with_gdb())?;
    let mut gdb = board.gdb()?;
    gdb.run()?;
    comes_by_tf_a(&mut board)?;
    board.expect(r"(?m)^test .* ok\n")?;
    gdb.interrupt()?;
    for cpu in 0..4 {
        ensure_equal("VBAR_EL2", gdb.system_registers(cpu, ["VBAR_EL2"])?, [place::KERNEL + table])?;
    }
    for vector in [SYNCHRONOUS, INTERRUPT] {
        let way = (0..32).map(|n| table + vector + 4 * n);
        let call = way.clone().find(|at| code.instruction(*at) == Some(SMC));
        let call = call.ok_or_else(|| Failure::Wrong(format!("no SMC is in the vector {vector:#x}")))?;
        // Branches on an immediate, on a register, on a bit or on zero have bits 28:26 = 101.
        let is_branch = |at: u64| code.instruction(at).is_some_and(|word| word >> 26 & 0b111 == 0b101);
        ensure(!way.take_while(|at| *at < call).any(is_branch), || {
            format!("the vector {vector:#x} branches before its SMC")
        })?;
        let cpu = gdb.run_to_any(&[place::KERNEL + call])?;
        ensure_equal("what is asked of firmware", gdb.registers(cpu)?.x[0], WORKAROUND_3)?;
        gdb.step(cpu)?;
    }
    gdb.run()?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(120))?;
    ensure_equal("failed cases", end.number(2)?, 0)?;
    is_well(&board)
}

fn selftest_by_tf_a(scenario: &Scenario) -> Outcome {
    let mut board = boot_by_tf_a(scenario, "", &[Vm::selftest(4, NO_OVERFLOW)])?;
    board.expect_log(&format!("Hanok <n>.<n>.<n> on {BOARD}, entered at 0x200000"))?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(120))?;
    ensure_equal("failed cases", end.number(2)?, 0)?;
    is_well(&board)?;
    goes_off(board, "selftest")
}

fn reset_by_tf_a(scenario: &Scenario) -> Outcome {
    let mut board = boot_by_tf_a(scenario, "when-all-off = \"reset\";", &[Vm::hello("hello")])?;
    starts_over(&mut board, BOARD)
}
