//! What is wrong with the board in a tree that is well made.

mod trees;

use dtoolkit::model::DeviceTree;
use platform::tree::{Board, BoardError, UartKind};
use trees::*;

fn at(node: &str, what: &'static str) -> BoardError {
    BoardError::Node { node: node.parse().unwrap(), what }
}

/// What is wrong with `virt` after a change.
fn virt_error(change: impl FnOnce(&mut DeviceTree)) -> BoardError {
    let mut tree = virt_v3();
    change(&mut tree);
    error(&tree)
}

#[test]
fn missing() {
    let without = |child: &'static str| {
        virt_error(|tree| {
            tree.root.remove_child(child).unwrap();
        })
    };
    assert_eq!(without("memory@40000000"), BoardError::Missing("memory"));
    assert_eq!(without("cpus"), BoardError::Missing("CPUs"));
    let gic = BoardError::Missing("interrupt controller that is known (GICv2 or GICv3)");
    assert_eq!(without("intc@8000000"), gic);
    assert_eq!(without("timer"), BoardError::Missing("arm,armv8-timer"));
    let disabled = |path| virt_error(|tree| set(tree, path, "status", strings(&["disabled"])));
    assert_eq!(disabled("/memory@40000000"), BoardError::Missing("memory"));
    assert_eq!(disabled("/intc@8000000"), gic);
    assert_eq!(disabled("/timer"), BoardError::Missing("arm,armv8-timer"));
    let other = virt_error(|tree| set(tree, "/intc@8000000", "compatible", strings(&["arm,pl190"])));
    assert_eq!(other, gic);
    let failed = virt_error(|tree| {
        (0..4).for_each(|n| set(tree, &format!("/cpus/cpu@{n}"), "status", strings(&["fail"])));
    });
    assert_eq!(failed, BoardError::Missing("CPUs"));
    // Memory of no size; and in a reg of fewer cells than the root has.
    let memory = |reg: &[u32]| virt_error(|tree| set(tree, "/memory@40000000", "reg", cells(reg)));
    assert_eq!(memory(&[0, 0x4000_0000, 0, 0]), BoardError::Missing("memory"));
    assert_eq!(memory(&[0x4000_0000, 0x1000_0000]), BoardError::Missing("memory"));
}

#[test]
fn cpus() {
    let cpu = "/cpus/cpu@2";
    let no_number = at("cpu@2", "reg is no CPU number");
    assert_eq!(virt_error(|tree| unset(tree, cpu, "reg")), no_number);
    assert_eq!(virt_error(|tree| set(tree, cpu, "reg", cells(&[0, 0, 2]))), no_number);
    assert_eq!(virt_error(|tree| set(tree, cpu, "reg", vec![2])), no_number);
    let twice = virt_error(|tree| set(tree, cpu, "reg", cells(&[1])));
    assert_eq!(twice, at("cpu@2", "reg is the number of a CPU before it"));
    let nowhere = virt_error(|tree| set(tree, cpu, "enable-method", strings(&["spin-table"])));
    assert_eq!(nowhere, at("cpu@2", "cpu-release-addr is missing"));
}

#[test]
fn timer() {
    let wrong = at("timer", "four private interrupts are needed");
    let with = |interrupts: &[u32]| virt_error(|tree| set(tree, "/timer", "interrupts", cells(interrupts)));
    assert_eq!(virt_error(|tree| unset(tree, "/timer", "interrupts")), wrong);
    assert_eq!(with(&[1, 13, 4, 1, 14, 4, 1, 11, 4]), wrong);
    assert_eq!(with(&[1, 13, 4, 1, 14, 4, 1, 16, 4, 1, 10, 4]), wrong);
    // A line of the board's, which no CPU's timer has.
    assert_eq!(with(&[1, 13, 4, 1, 14, 4, 0, 11, 4, 1, 10, 4]), wrong);
}

#[test]
fn psci() {
    let wrong = at("psci", "method is neither smc nor hvc");
    assert_eq!(virt_error(|tree| unset(tree, "/psci", "method")), wrong);
    assert_eq!(virt_error(|tree| set(tree, "/psci", "method", strings(&["smcc"]))), wrong);
}

#[test]
fn gic_v3() {
    let (path, name) = ("/intc@8000000", "intc@8000000");
    let with = |name: &'static str, value: &[u32]| virt_error(|tree| set(tree, path, name, cells(value)));
    assert_eq!(with("reg", &[]), at(name, "reg has no distributor"));
    let none = at(name, "reg has no redistributors");
    assert_eq!(with("reg", &[0, 0x800_0000, 0, 0x1_0000]), none);
    assert_eq!(with("#redistributor-regions", &[0]), none);
    // The redistributors begin beyond 52 bits: what follows them does not move up into their place.
    let reg = [0, 0x800_0000, 0, 0x1_0000, 0x10_0000, 0, 0, 0x1_0000, 0, 0x900_0000, 0, 0x1_0000];
    assert_eq!(with("reg", &reg), none);
    let no_interrupt = at(name, "no private maintenance interrupt");
    assert_eq!(virt_error(|tree| unset(tree, path, "interrupts")), no_interrupt);
    assert_eq!(with("interrupts", &[1, 9]), no_interrupt);
    assert_eq!(with("interrupts", &[0, 9, 4]), no_interrupt, "a line of the board's");
    let too_many = virt_error(|tree| {
        let reg: Vec<u32> = (0..10).flat_map(|index| [1, index << 24, 0, 0x80_0000]).collect();
        set(tree, path, "reg", cells(&reg));
        set(tree, path, "#redistributor-regions", cells(&[9]));
    });
    assert_eq!(too_many, BoardError::TooMany("redistributor regions"));
    // A count that is not to be believed is no harm.
    let reg = [0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000];
    let mut tree = virt_v3();
    set(&mut tree, path, "reg", cells(&reg));
    set(&mut tree, path, "#redistributor-regions", cells(&[u32::MAX]));
    board(&tree, |board| assert!(board.gic.is_some()));
}

#[test]
fn gic_v2() {
    let name = "interrupt-controller@40041000";
    let path = format!("/soc/{name}");
    let with = |name: &'static str, value: &[u32]| {
        let mut tree = pi4();
        set(&mut tree, &path, name, cells(value));
        error(&tree)
    };
    let lacks = at(name, "reg lacks the virtualization extensions (GICH, GICV)");
    assert_eq!(with("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000]), lacks);
    // The second is outside of what the bus passes on: the others do not move up.
    let reg = [0x4004_1000, 1, 0x1000, 1, 0x4004_4000, 1, 0x4004_6000, 1, 0x4004_8000, 1];
    assert_eq!(with("reg", &reg), lacks);
    assert_eq!(with("interrupts", &[]), at(name, "no private maintenance interrupt"));
}

#[test]
fn too_many() {
    let banks: Vec<u32> = (0..65).flat_map(|index| [index, 0, 0, 0x1000]).collect();
    let memory = |count: usize| {
        let mut tree = virt_v3();
        set(&mut tree, "/memory@40000000", "reg", cells(&banks[..count * 4]));
        tree
    };
    board(&memory(64), |board| assert_eq!(board.memory.len(), 64));
    assert_eq!(error(&memory(65)), BoardError::TooMany("RAM banks"));
    let reservations = |count: u64| {
        let mut tree = virt_v3();
        (1..=count).for_each(|index| reserve(&mut tree, index << 32, 0x1000));
        tree
    };
    board(&reservations(64), |board| assert_eq!(board.reserved.len(), 64));
    assert_eq!(error(&reservations(65)), BoardError::TooMany("reserved regions"));
    let cpus = |count: u32| {
        let mut tree = virt_v3();
        for number in 4..count {
            let properties = [("device_type", strings(&["cpu"])), ("reg", cells(&[number]))];
            add(&mut tree, "/cpus", node(&format!("cpu@{number:x}"), &properties, vec![]));
        }
        tree
    };
    board(&cpus(64), |board| assert_eq!(board.cpus.len(), 64));
    assert_eq!(error(&cpus(65)), BoardError::TooMany("CPUs"));
}

#[test]
fn the_first_of_several_errors_is_told() {
    let error = virt_error(|tree| {
        unset(tree, "/psci", "method");
        unset(tree, "/timer", "interrupts");
    });
    assert_eq!(error, at("psci", "method is neither smc nor hvc"));
}

#[test]
fn a_long_name_is_cut_between_characters() {
    // The 64th byte is the first of two.
    let name = format!("{}\u{e4}\u{e4}", "p".repeat(63));
    let error = virt_error(|tree| {
        add(tree, "/", node(&name, &[("compatible", strings(&["arm,psci"]))], vec![]));
    });
    assert_eq!(error, at(&"p".repeat(63), "method is neither smc nor hvc"));
}

#[test]
fn the_console_is_found_whatever_else_is_wrong() {
    let mut tree = virt_v3();
    unset(&mut tree, "/psci", "method");
    unset(&mut tree, "/timer", "interrupts");
    unset(&mut tree, "/intc@8000000", "reg");
    unset(&mut tree, "/cpus/cpu@0", "reg");
    tree.root.remove_child("memory@40000000");
    (0..100).for_each(|index| reserve(&mut tree, index << 32, 0x1000));
    let blob = tree.to_dtb();
    let (board, outcome) = Board::read_any(&devicetree::Tree::check(&blob).unwrap());
    assert!(outcome.is_err());
    let uart = board.console().unwrap();
    assert_eq!((uart.kind, uart.registers), (UartKind::Pl011, range(0x900_0000, 0x1000)));
    assert_eq!((uart.interrupt, uart.clock), (Some(33), Some(24_000_000)));
}

#[test]
fn messages_name_the_node() {
    let text = at("psci", "method is neither smc nor hvc").to_string();
    assert_eq!(text, "node psci of the device tree: method is neither smc nor hvc");
    assert_eq!(BoardError::TooMany("CPUs").to_string(), "the device tree has more CPUs than fit");
    assert_eq!(BoardError::Missing("memory").to_string(), "the device tree has no memory");
}

#[test]
fn a_name_is_shown_on_one_line() {
    let name = "interrupt\r\x1b[Acontroller";
    let gic = node(name, &[("compatible", strings(&["arm,gic-400"])), ("reg", cells(&[0, 0, 0, 0]))], vec![]);
    let mut tree = virt_v3();
    tree.root.remove_child("intc@8000000").unwrap();
    add(&mut tree, "/", gic);
    let lacks = "reg lacks the virtualization extensions (GICH, GICV)";
    assert_eq!(error(&tree).to_string(), format!("node interrupt??[Acontroller of the device tree: {lacks}"));
}
