//! EL2's own map, read out of the machine while guests run: it has the devices that EL2 uses, by the board's tree, and no
//! other page of registers; nothing is writable and executable; and the image's code is all that is executable, so that no
//! guest's memory is. On a Raspberry Pi 4 with a tree that has the least, an access to a device that the tree doesn't have
//! would fault, and none does.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use tests::{
    Code, Device, Failure, Gdb, Machine, Mapping, Outcome, Scenario, Tree, Vm, el2_map, ensure, ensure_equal,
};

use crate::case::{Case, Named, on_both_gics};

/// Where QEMU loads the image: 2 MiB into RAM.
const IMAGE_ON_VIRT: u64 = 0x4020_0000;
const IMAGE_ON_RASPBERRY: u64 = 0x20_0000;
const PAGE: u64 = 4096;

pub fn cases() -> Vec<Case> {
    let virt: [Named; 1] = [("map", on_virt)];
    let raspberry = [
        Case::new("el2-map/raspberry-pi-4", on_raspberry_pi_4),
        Case::new("el2-map/raspberry-pi-4/least-tree", least_tree),
    ];
    on_both_gics("el2-map/", &virt).chain(raspberry.map(Case::needs_linux)).collect()
}

fn on_virt(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::hello("first"), Vm::hello("second")])?;
    let machine = Machine::new(gic, 2);
    let tree = Tree::read(&scenario.board_tree(&machine)?)?;
    let mut board = scenario.boot(&machine.bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    gdb.run()?;
    board.expect_ever(r"(?m)^(\[first\] )?hello: tick 2 of 10\n")?;
    gdb.interrupt()?;
    check(scenario, &mut gdb, 2, IMAGE_ON_VIRT, &tree, &tree)
}

/// The tree of a card with the stock stub.
fn card_tree(scenario: &Scenario) -> PathBuf {
    scenario.inputs().cards.join("stock/boot/bcm2711-rpi-4-b.dtb")
}

fn on_raspberry_pi_4(scenario: &Scenario) -> Outcome {
    let bundle = scenario.bundle(&[Vm::hello("first"), Vm::hello("second")])?;
    let path = card_tree(scenario);
    let tree = Tree::read(&path)?;
    let mut board = scenario.boot(&Machine::raspberry_pi_4(path).bundle(bundle).with_gdb())?;
    let mut gdb = board.gdb()?;
    gdb.run()?;
    board.expect_ever(r"(?m)^(\[first\] )?hello: tick 2 of 10\n")?;
    gdb.interrupt()?;
    check(scenario, &mut gdb, 4, IMAGE_ON_RASPBERRY, &tree, &tree)
}

/// What no board can do without.
const LEAST: [&str; 6] = [
    "/aliases",
    "/cpus",
    "/memory@0",
    "/timer",
    "/soc/interrupt-controller@40041000",
    "/soc/serial@7e201000",
];

/// Where there is nothing but memory, CPUs, GIC, timer and one UART, everything works, and nothing else is touched: QEMU
/// aborts an access to an address that it has nothing at, and writes one down to a device that it knows of and doesn't have.
fn least_tree(scenario: &Scenario) -> Outcome {
    let whole = Tree::read(&card_tree(scenario))?;
    let mut tree = Tree::read(&card_tree(scenario))?;
    tree.keep(&[&LEAST[..], &["/chosen"]].concat())?;
    // The memory's size is QEMU's to fill in.
    ensure_equal("devices", tree.devices().len(), 2)?;
    let path = scenario.write("least.dtb", tree.to_blob())?;

    let accesses = scenario.file("accesses.txt");
    let bundle = scenario.bundle(&[Vm::selftest(4, "")])?;
    let machine = Machine::raspberry_pi_4(path).bundle(bundle).with_gdb();
    let machine = machine.option("-d", "unimp,guest_errors").option("-D", accesses.display().to_string());
    let mut board = scenario.boot(&machine)?;
    let mut gdb = board.gdb()?;
    gdb.run()?;
    board.expect_log("Hanok <n>.<n>.<n> on Raspberry Pi 4 Model B, 4 CPUs, entered at <n>")?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(120))?;
    ensure_equal("failed cases", end.number(2)?, 0)?;
    gdb.interrupt()?;
    check(scenario, &mut gdb, 4, IMAGE_ON_RASPBERRY, &tree, &whole)?;
    let accesses = fs::read_to_string(&accesses).map_err(Failure::io("read what QEMU wrote down"))?;
    // What the self-test tries, and what EL2 has for newer CPUs: QEMU names a register when it translates the code.
    let is_memory = |line: &&str| !line.contains("AArch64 system register");
    let nothing: Vec<_> = accesses.lines().filter(is_memory).collect();
    ensure(nothing.is_empty(), || format!("what isn't there was accessed: {nothing:#?}"))
}

/// Looks at the map of a machine that stands still. `tree` is what EL2 was given, `whole` names all devices that the board has.
fn check(scenario: &Scenario, gdb: &mut Gdb, cpus: usize, image: u64, tree: &Tree, whole: &Tree) -> Outcome {
    let map = el2_map(gdb, cpus)?;
    check_rights(&map, &Code::read(&scenario.inputs().elf)?, image)?;
    check_devices(&map, tree)?;
    check_memory(&map, whole)
}

/// Nothing is writable and executable. The image's code, and nothing else, is executable; what follows it is read-only.
fn check_rights(map: &[Mapping], code: &Code, image: u64) -> Outcome {
    let both = map.iter().find(|mapping| mapping.rights.writable && mapping.rights.executable);
    ensure(both.is_none(), || format!("writable and executable: {both:x?}"))?;
    let code_end = image + code.mark("__text_end")?;
    let data_start = image + code.mark("__data_start")?;
    let executable: Vec<_> = map.iter().filter(|mapping| mapping.rights.executable).collect();
    ensure(matches!(executable[..], [one] if one.range == (image..code_end)), || {
        format!("executable is not {image:#x} to {code_end:#x} but {executable:x?}")
    })?;
    let constants = map.iter().find(|mapping| mapping.range.contains(&code_end));
    let read_only =
        constants.is_some_and(|mapping| !mapping.rights.writable && mapping.range == (code_end..data_start));
    ensure(read_only, || format!("{code_end:#x} to {data_start:#x} is not read-only: {constants:x?}"))
}

/// As Device memory are mapped the pages of the devices that EL2 uses: GIC, console, clock, and the Raspberry Pi's watchdog.
fn check_devices(map: &[Mapping], tree: &Tree) -> Outcome {
    let of = |compatible: &[&str], which: Range<usize>| {
        let devices = tree.compatible(compatible);
        devices.into_iter().flat_map(move |device| {
            let last = which.end.min(device.registers.len());
            device.registers.get(which.start..last).unwrap_or_default().to_vec()
        })
    };
    // The virtual CPU interface, the fourth one, is the guests' alone.
    let mut needed: Vec<Range<u64>> = of(&["arm,cortex-a15-gic", "arm,gic-400"], 0..3).collect();
    needed.extend(of(&["arm,gic-v3"], 0..2));
    needed.extend(of(&["arm,pl031"], 0..1));
    let console = tree.console().ok_or_else(|| Failure::Wrong("the tree names no console".to_owned()))?;
    needed.extend(console.registers.first().cloned());
    let needed = pages(needed);
    let allowed = pages(of(&["brcm,bcm2835-pm", "brcm,bcm2711-pm"], 0..1));

    let mapped = map.iter().filter(|mapping| mapping.rights.device);
    let mapped = pages(mapped.map(|mapping| mapping.range.clone()));
    ensure(needed.len() >= 4, || format!("the tree names too few devices: {needed:x?}"))?;
    let missing: Vec<_> = needed.iter().filter(|page| !mapped.contains(page)).collect();
    let idle: Vec<_> =
        mapped.iter().filter(|page| !needed.contains(page) && !allowed.contains(page)).collect();
    ensure(missing.is_empty() && idle.is_empty(), || {
        format!(
            "pages of devices that EL2 uses and doesn't map: {missing:x?}; that it maps for nothing: {idle:x?}"
        )
    })
}

/// No device's registers are mapped as memory, where reads may run ahead.
fn check_memory(map: &[Mapping], whole: &Tree) -> Outcome {
    let is_memory = |device: &Device| {
        ["/memory", "/cpus/", "/reserved-memory/"].iter().any(|start| device.path.starts_with(start))
    };
    let memory: Vec<_> = map.iter().filter(|mapping| !mapping.rights.device).collect();
    for device in whole.devices().iter().filter(|device| !is_memory(device)) {
        for registers in &device.registers {
            let hit = memory
                .iter()
                .find(|mapping| mapping.range.start < registers.end && registers.start < mapping.range.end);
            ensure(hit.is_none(), || format!("{} is mapped as memory: {hit:x?}", device.path))?;
        }
    }
    Ok(())
}

/// The pages that these reach, by address.
fn pages(ranges: impl IntoIterator<Item = Range<u64>>) -> Vec<u64> {
    let page = |range: Range<u64>| (range.start / PAGE..range.end.div_ceil(PAGE)).map(|page| page * PAGE);
    let mut pages: Vec<u64> = ranges.into_iter().flat_map(page).collect();
    pages.sort_unstable();
    pages.dedup();
    pages
}
