//! Virtual machines that drive devices of a Raspberry Pi 4: mini-UART and pins by a bare-metal guest, and by a Linux those and
//! the memory card.

use std::fs;

use tests::{Board, Failure, Machine, Outcome, Scenario, Shell, Socket, Vm, ensure};

use crate::case::Case;
use crate::passthrough::are_left_out;
use crate::raspberry_pi_4::{self, DISABLED, changed_tree, comes_by_tf_a, machine_with_tf_a, tree};

pub fn cases() -> Vec<Case> {
    let all = [
        Case::new("raspberry-pi-4/passthrough/mini-uart", mini_uart),
        Case::new("raspberry-pi-4/passthrough/by-tf-a", by_tf_a),
        Case::new("raspberry-pi-4/passthrough/console-moves", console_moves),
        Case::new("raspberry-pi-4/passthrough/console-stays-in-its-page", console_in_one_page),
        Case::new("raspberry-pi-4/passthrough/refused", refused),
        Case::new("raspberry-pi-4/passthrough/linux", linux),
    ];
    all.map(Case::needs_linux).into()
}

const AUX: &str = "/soc/aux@7e215000";
const GPIO: &str = "/soc/gpio@7e200000";
const MINI_UART: &str = "serial1";

/// The guest with the mini-UART; the rate is that of the clock of [`AUX`].
fn driver(nodes: &[&str]) -> Vm {
    Vm::driver("uart", nodes).property("clock-rates", "<500000000>")
}

/// What is typed at the mini-UART comes to the guest by interrupt, what that says comes out there, and the pins do what it says.
/// Another VM, which enables all interrupts that it has, sees none of this.
fn mini_uart(scenario: &Scenario) -> Outcome {
    let socket = scenario.socket("uart")?;
    let bundle = scenario.bundle(&with_bystander())?;
    let machine = Machine::raspberry_pi_4(tree(scenario)).second_port(&socket).bundle(bundle);
    converse(scenario.boot(&machine)?, &socket)
}

/// The same where CPUs come up by PSCI.
fn by_tf_a(scenario: &Scenario) -> Outcome {
    let socket = scenario.socket("uart")?;
    let machine = machine_with_tf_a(scenario, "", &with_bystander())?.second_port(&socket);
    let mut board = scenario.boot(&machine)?;
    comes_by_tf_a(&mut board)?;
    converse(board, &socket)
}

fn with_bystander() -> [Vm; 2] {
    [
        driver(&[MINI_UART, AUX, GPIO]).property("allow-pin-control", ""),
        Vm::busy(2, "sleep=1 every=1000000000 interrupts=1").named("bystander"),
    ]
}

fn converse(mut board: Board, socket: &Socket) -> Outcome {
    board.expect(r"(?m)^driver: a mini-UART at 0xc010040 with interrupt 148\n")?;
    let mut uart = socket.accept()?;
    uart.expect(r"driver: here is the mini-UART\n")?;
    uart.send_line("what is heard")?;
    uart.expect(r"heard: what is heard\n")?;
    for (line, answer) in
        [("pin 21 1", "pin 21 is 1"), ("pin 21", "pin 21 is 1"), ("pin 21 0", "pin 21 is 0")]
    {
        uart.send_line(line)?;
        uart.expect(&format!(r"{answer}\n"))?;
    }
    // Longer than the FIFO, so that it takes several interrupts.
    let long = "the quick brown fox jumps over the lazy dog";
    uart.send_line(long)?;
    uart.expect(&format!(r"heard: {long}\n"))?;
    let last = board.expect(&format!(r#"(?m)^driver: heard "{long}", (\d+) interrupts\n"#))?;
    ensure(last.number(1)? > 5, || format!("{} interrupts for six lines", last.group(1)))?;
    let text = board.text();
    ensure(!text.contains("[bystander] busy: done") && !text.contains("bystander turned"), || text.clone())?;
    ensure(!text.contains("is nobody's"), || "an interrupt was nobody's".to_owned())
}

/// A VM is given the UART that is Hanok's console: Hanok goes on at the other one, and the VM's console is there too.
fn console_moves(scenario: &Scenario) -> Outcome {
    let vm = Vm::hello("hello")
        .property("passthrough", "\"serial0\"")
        .property("clock-rates", "<48000000 500000000>");
    let socket = scenario.socket("uart")?;
    let machine =
        Machine::raspberry_pi_4(tree(scenario)).second_port(&socket).bundle(scenario.bundle(&[vm])?);
    let mut board = scenario.boot(&machine)?;
    board.expect_log(
        "the console is /soc/serial@7e215040 from now on, for a VM is to have /soc/serial@7e201000",
    )?;
    let mut uart = socket.accept()?;
    uart.expect(r"hanok: the console is /soc/serial@7e215040\n")?;
    uart.expect(r"hello: type `help`\n")?;
    uart.send_line("off")?;
    uart.expect(r"hanok: no VM is left: turning the board off\n")?;
    let first = board.expect_off()?;
    ensure(!first.contains("hello:"), || "the guest was heard at the UART that it has itself".to_owned())
}

/// The UART at which Hanok goes on lies in one page with the one that a VM is to have, which it therefore isn't given. This
/// machine has no such second UART, so that nothing is heard of it; but all of it goes on, to the end.
fn console_in_one_page(scenario: &Scenario) -> Outcome {
    let vm = Vm::hello("hello").property("passthrough", "\"serial0\"").property("clock-rates", "<48000000>");
    let changes = [[DISABLED, "status", "okay"], [raspberry_pi_4::MINI_UART, "status", "disabled"]];
    let machine = Machine::raspberry_pi_4(changed_tree(scenario, &changes)?).bundle(scenario.bundle(&[vm])?);
    let mut board = scenario.boot(&machine)?;
    board.expect_log(&format!(
        "the console is {DISABLED} from now on, for a VM is to have /soc/serial@7e201000"
    ))?;
    board.expect_off().map(drop)
}

/// What shares a page or a line on this board is named, and so is what else is needed.
fn refused(scenario: &Scenario) -> Outcome {
    let vm = |name: &str, nodes: &[&str]| Vm::driver("uart", nodes).named(name).weight(256);
    let board_layout = |vm: Vm| vm.property("layout", "\"board\"");
    let vms = [
        vm("without-aux", &[MINI_UART]),
        vm("rate", &[MINI_UART, AUX]),
        vm("pins", &[GPIO]),
        vm("beside-console", &["/soc/serial@7e201600"]),
        board_layout(vm("card", &["/emmc2bus/mmc@7e340000"])).property("allow-unprotected-dma", ""),
        vm("card-in-virt", &["/emmc2bus/mmc@7e340000"]),
        board_layout(vm("bus", &["/soc"])),
    ];
    let machine = Machine::raspberry_pi_4(tree(scenario)).bundle(scenario.bundle(&vms)?);
    let text = scenario.boot(&machine)?.expect_off()?;
    let wanted = [
        (
            "without-aux",
            "passthrough: /soc/serial@7e215040 shares the page 0xfe215000 with /soc/aux@7e215000",
        ),
        ("rate", "clock-rates: 0 rates are given, and 1 clock without a fixed rate in the board's tree"),
        ("pins", "passthrough: /soc/gpio@7e200000 controls pins"),
        (
            "beside-console",
            "passthrough: /soc/serial@7e201600 is Hanok's own, or shares a page or a line with it",
        ),
        ("card", "passthrough: /emmc2bus/mmc@7e340000 shares interrupt 158 with /soc/mmc@7e300000"),
        ("card-in-virt", "passthrough: /emmc2bus/mmc@7e340000 isn't known to do no DMA"),
        ("bus", "passthrough: /soc is a bus"),
    ];
    are_left_out(&text, &wanted)
}

/// What `guests/rpi4-devices.dts` starts: Debian's Linux with the memory card, whose controller does DMA, the mini-UART and the
/// pins.
fn linux(scenario: &Scenario) -> Outcome {
    const SIZE: usize = 8 << 20;
    const PIECE: usize = 1 << 20;
    let contents: Vec<u8> = (0..SIZE).map(|at| (at / 512 * 11 + at) as u8).collect();
    let card = scenario.write("card.img", &contents)?;
    let expected = scenario.write("expected", &contents)?;
    let sum = tests::run_tool(std::process::Command::new("md5sum").arg(&expected))?;
    let sum = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or_default().to_owned();
    let socket = scenario.socket("uart")?;
    let machine = Machine::raspberry_pi_4(tree(scenario))
        .second_port(&socket)
        .bundle(scenario.built_bundle("rpi4-devices")?)
        .option("-drive", format!("if=sd,format=raw,file={}", card.display()));
    let mut board = scenario.boot(&machine)?;
    let mut shell = Shell::login(&mut board)?;
    let mut uart = socket.accept()?;

    shell.run("modprobe sdhci_iproc")?;
    // The card is found a moment later.
    shell.run("until [ -b /dev/mmcblk1 ] || [ -b /dev/mmcblk0 ]; do usleep 100000; done")?;
    let disk = shell.run("echo /dev/mmcblk?")?;
    shell.check(&format!("cat {disk} | md5sum"), &format!("{sum}  -"))?;
    shell.run(&format!(
        "seq 200000 | head -c {PIECE} >pattern; dd if=pattern of={disk} bs=64k seek=16 conv=fsync 2>dd"
    ))?;
    let interrupts = shell.number(r"sed -n 's/^ *[0-9]*: *\([0-9]*\).*mmc.*/\1/p' /proc/interrupts")?;
    ensure(interrupts > 10, || format!("{interrupts} interrupts of the card"))?;

    // Opened once: what comes while nobody has it open is lost.
    shell.run(
        "(exec 3<>/dev/ttyS0; stty raw -echo <&3; echo from linux >&3; head -n 1 <&3 >typed; :>heard) & true",
    )?;
    uart.expect(r"from linux\n")?;
    uart.send_line("to linux\n")?;
    shell.run("until [ -e heard ]; do usleep 100000; done")?;
    shell.check("tr -d '\\r' <typed", "to linux")?;

    let pin =
        r"cd /sys/class/gpio; base=$(cat gpiochip*/base); pin=$((base + 21)); echo $pin >export; cd gpio$pin";
    shell.check(
        &format!("({pin}; echo out >direction; echo 1 >value; cat value; echo 0 >value; cat value)"),
        "1\n0",
    )?;
    let written = fs::read(&card).map_err(Failure::io("read the card"))?;
    let pattern: Vec<u8> = (1..=200_000).flat_map(|n| format!("{n}\n").into_bytes()).take(PIECE).collect();
    ensure(written[PIECE..2 * PIECE] == pattern[..], || "the card doesn't have what was written".to_owned())?;
    ensure(written[..PIECE] == contents[..PIECE], || "what was not written has changed".to_owned())
}
