//! Devices of the board that virtual machines drive: their registers and interrupts reach those alone, and DMA what it is
//! meant to. What is refused is tested on the host; here, that the hypervisor refuses it as well.

use std::fs;

use tests::{Failure, Machine, Outcome, Scenario, Shell, Vm, ensure, ensure_equal};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let all: [Named; 5] = [
        ("clock", clock),
        ("restarted", restarted),
        ("refused", refused),
        ("only-uart", only_uart),
        ("left-out", left_out),
    ];
    let with_linux: [Named; 2] =
        [("linux-disk", linux_disk), ("linux-at-its-addresses-afresh", linux_afresh)];
    let with_linux = on_both_gics("passthrough/", &with_linux).map(Case::needs_linux);
    with_linux.chain(on_both_gics("passthrough/", &all)).collect()
}

const CLOCK: &str = "/pl031@9010000";

/// The board's clock, and its alarm three times, on each kind of CPU; another VM on the same CPU all the while.
fn clock(scenario: &Scenario, gic: u8) -> Outcome {
    for cpu in ["cortex-a53", "cortex-a72", "max"] {
        let vms = [
            Vm::driver("clock", &[CLOCK]).weight(256),
            Vm::busy(1, "interrupts=1 every=1000000000").weight(256),
        ];
        let machine = Machine::new(gic, 1).cpu(cpu).bundle(scenario.bundle(&vms)?);
        let mut board = scenario.boot(&machine)?;
        board.expect(r"(?m)^driver: a clock at 0xc000000 with interrupt 144\n")?;
        for alarm in 1..=3 {
            board.expect(&format!(r"(?m)^driver: alarm {alarm} of 3\n"))?;
        }
        board.expect(r"(?m)^driver: done\n")?;
    }
    Ok(())
}

/// A VM that has a device is stopped at any time and started again: its line is its own again, and nobody else's.
fn restarted(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::keeper("victim=driver what=stop times=8 most=1500000"),
        Vm::driver("clock", &[CLOCK]),
        Vm::busy(1, "sleep=1 every=100 interrupts=1").named("bystander"),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 4).bundle(scenario.bundle(&vms)?))?;
    board.expect(r"(?m)^keeper: done\n")?;
    board.expect(r"(?m)^\[driver\] driver: alarm 3 of 3\n")?;
    let text = board.text();
    ensure(!text.contains("is nobody's"), || "an interrupt was nobody's".to_owned())?;
    ensure(!text.contains("without an alarm"), || "an interrupt came without an alarm".to_owned())?;
    ensure(!text.contains("bystander turned itself off"), || "the bystander gave up".to_owned())
}

/// Each of these is left out with its message; a VM that is in order runs beside them.
fn refused(scenario: &Scenario, gic: u8) -> Outcome {
    let driver = |name: &str, node: &str| Vm::driver("clock", &[node]).named(name).weight(256);
    let disk = "/virtio_mmio@a003e00";
    let vms = [
        driver("first", CLOCK),
        driver("second", CLOCK),
        driver("nothing", "/no-such-node"),
        driver("controller", "/intc@8000000"),
        driver("memory", "/memory@40000000"),
        driver("disk", disk),
        driver("disk-on-board", disk).property("layout", "\"board\""),
        driver("part-of-a-page", disk).property("layout", "\"board\"").property("allow-unprotected-dma", ""),
        driver("pins", "/pl061@9030000"),
        driver("timer", "/timer"),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&vms)?))?;
    board.expect(r"(?m)^driver: done\n")?;
    let text = board.expect_off()?;
    let wanted = [
        ("second", "passthrough: /pl031@9010000 belongs to first"),
        ("nothing", "passthrough: the board's device tree has no node or alias \"/no-such-node\""),
        ("memory", "passthrough: /memory@40000000"),
        (
            "disk",
            "passthrough: /virtio_mmio@a003e00 isn't known to do no DMA, and the board has no IOMMU: it needs `layout = \"board\"`",
        ),
        (
            "disk-on-board",
            "passthrough: /virtio_mmio@a003e00 isn't known to do no DMA, and the board has no IOMMU: with it, the VM can reach all memory. It needs `allow-unprotected-dma`",
        ),
        (
            "part-of-a-page",
            "passthrough: /virtio_mmio@a003e00 shares the page 0xa003000 with /virtio_mmio@a003",
        ),
        ("pins", "passthrough: /pl061@9030000 controls pins"),
        ("timer", "passthrough: /timer has a line to each CPU (a PPI), which can't be handed out"),
        (
            "controller",
            "passthrough: /intc@8000000 is Hanok's own, or shares a page or a line with it: the interrupt controller",
        ),
    ];
    are_left_out(&text, &wanted)
}

/// Just these VMs are left out, each with a message that has this.
pub fn are_left_out(text: &str, wanted: &[(&str, &str)]) -> Outcome {
    for (vm, message) in wanted {
        let start = format!("hanok: error: left out: /{vm}: ");
        let line = text.lines().find(|line| line.contains(&start));
        ensure(line.is_some_and(|line| line.contains(message)), || {
            format!("/{vm}: {line:?}, not {message}")
        })?;
    }
    ensure_equal("how many were left out", text.matches("left out").count(), wanted.len())
}

/// The board's only UART goes to a VM: Hanok says so, and nothing any more; it goes on working.
fn only_uart(scenario: &Scenario, gic: u8) -> Outcome {
    let vm = Vm::pulse("ticks=10 reports=1").property("passthrough", "\"/pl011@9000000\"");
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&[vm])?))?;
    board.expect_log(
        "warning: a VM is to have /pl011@9000000, and there is no other UART: Hanok says nothing from now on",
    )?;
    let text = board.expect_off()?;
    ensure(text.ends_with("nothing from now on\n"), || "it was heard after that".to_owned())
}

/// A VM that is given a device and then can't be built has it no longer: the next one gets it, and it works there.
fn left_out(scenario: &Scenario, gic: u8) -> Outcome {
    let driver = |name: &str| Vm::driver("clock", &[CLOCK]).named(name).weight(256);
    let vms = [
        // More than the board has, and behind all that it has.
        driver("too-large").memory(1 << 14),
        driver("elsewhere").property("layout", "\"board\"").property("memory-address", "<0x70 0x0>"),
        driver("next"),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(scenario.bundle(&vms)?))?;
    board.expect(r"(?m)^driver: alarm 3 of 3\n")?;
    let text = board.expect_off()?;
    for (vm, message) in [("too-large", "memory: "), ("elsewhere", "memory: no ")] {
        let start = format!("hanok: error: left out: /{vm}: {message}");
        ensure(text.contains(&start), || format!("/{vm} was not left out for want of memory"))?;
    }
    Ok(())
}

/// Linux with a disk that is the board's: what its controller reads and writes by DMA is the VM's memory.
fn linux_disk(scenario: &Scenario, gic: u8) -> Outcome {
    const SIZE: usize = 4 << 20;
    let contents: Vec<u8> = (0..SIZE).map(|at| (at / 512 * 7 + at) as u8).collect();
    let disk = scenario.write("disk.img", &contents)?;
    // A page has eight such transports, which go together.
    let nodes: Vec<String> =
        (0..8).map(|n| format!("\"/virtio_mmio@{:x}\"", 0xa00_3000 + n * 0x200)).collect();
    let linux = Vm::linux(2)
        .memory(256)
        .property("layout", "\"board\"")
        .property("allow-unprotected-dma", "")
        .property("passthrough", &nodes.join(", "));
    let vms = [linux, Vm::busy(1, "sleep=1 every=1000000000 interrupts=1").named("bystander")];
    let machine = Machine::new(gic, 3)
        .bundle(scenario.bundle(&vms)?)
        .option("-drive", format!("if=none,id=disk,format=raw,file={}", disk.display()))
        .option("-device", "virtio-blk-device,drive=disk");
    let mut board = scenario.boot(&machine)?;
    let mut shell = Shell::login(&mut board)?;
    shell.run("modprobe -a virtio_mmio virtio_blk")?;
    let there = scenario.write("expected", &contents)?;
    let sum = tests::run_tool(std::process::Command::new("md5sum").arg(&there))?;
    let sum = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or_default().to_owned();
    shell.check("cat /dev/vda | md5sum", &format!("{sum}  -"))?;
    // What the VM writes gets there, past the page cache.
    shell.run(
        "seq 200000 | head -c 1048576 >pattern; dd if=pattern of=/dev/vda bs=64k seek=16 conv=fsync 2>dd",
    )?;
    shell.check(
        "dd if=/dev/vda bs=64k skip=16 count=16 iflag=direct 2>dd | cmp - pattern && echo same",
        "same",
    )?;
    let interrupts =
        shell.number("cat /proc/interrupts | sed -n 's/^ *[0-9]*: *\\([0-9]*\\).*virtio.*/\\1/p'")?;
    ensure(interrupts > 10, || format!("{interrupts} interrupts"))?;
    let written = fs::read(&disk).map_err(Failure::io("read the disk"))?;
    let pattern: Vec<u8> = (1..=200_000).flat_map(|n| format!("{n}\n").into_bytes()).take(1 << 20).collect();
    ensure(written[..1 << 20] == contents[..1 << 20], || "what was not written has changed".to_owned())?;
    ensure(written[1 << 20..2 << 20] == pattern[..], || "the disk doesn't have what was written".to_owned())
}

/// Linux whose memory has its physical addresses starts afresh: it is loaded where it was, nothing of its
/// last life is there, and nobody else is disturbed.
fn linux_afresh(scenario: &Scenario, gic: u8) -> Outcome {
    let linux = Vm::linux(2).memory(256).property("layout", "\"board\"");
    let vms = [linux, Vm::busy(1, "sleep=1 every=1000000000 interrupts=1").named("bystander")];
    let mut board = scenario.boot(&Machine::new(gic, 3).bundle(scenario.bundle(&vms)?))?;
    let mut place = None;
    for life in 1..=3 {
        let mut shell = Shell::login(&mut board)?;
        let here = shell.run("grep -m 1 'System RAM' /proc/iomem")?;
        let first = place.get_or_insert_with(|| here.clone());
        ensure_equal("where its memory is", &here, first)?;
        shell.check("ls /tmp/mark 2>&1 | grep -c 'No such'", "1")?;
        shell.run("touch /tmp/mark; head -c 20000000 /dev/zero | tr '\\0' x >/tmp/filled")?;
        if life < 3 {
            shell.type_line("reboot -f")?;
            board.expect_log("linux starts afresh")?;
        }
    }
    ensure(!board.text().contains("bystander turned itself off"), || "the bystander gave up".to_owned())
}
