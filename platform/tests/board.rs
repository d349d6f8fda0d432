//! What is read from good trees, and what is left alone in them.

mod trees;

use platform::tree::{
    Board, BoardError, Cpu, EnableMethod, Gic, Psci, Reserved, Timer, Uart, UartKind, Used,
};
use stage2::Pa;
use trees::*;

/// The UARTs of a Raspberry Pi 4: two that are on, and one that isn't.
const PI4_PL011: &str = "/soc/serial@7e201000";
const PI4_MINI: &str = "/soc/serial@7e215040";
const PI4_DISABLED: &str = "/soc/serial@7e201400";

const TIMER: Timer = Timer { physical: 30, virtual_: 27, hypervisor: 26 };

fn virt_uart() -> Uart {
    Uart {
        kind: UartKind::Pl011,
        registers: range(0x900_0000, 0x1000),
        interrupt: Some(33),
        clock: Some(24_000_000),
        path: "/pl011@9000000".parse().unwrap(),
    }
}

/// All but the interrupt controller of QEMU's `virt`.
fn assert_virt(board: &Board<'_>) {
    assert_virt_but_for_uarts(board);
    assert_eq!(board.uarts[..], [virt_uart()]);
}

fn assert_virt_but_for_uarts(board: &Board<'_>) {
    assert_eq!(board.model, "linux,dummy-virt");
    assert_eq!(board.memory[..], [range(0x4000_0000, 0x4000_0000)]);
    assert!(board.reserved.is_empty());
    let cpu = |mpidr| Cpu { mpidr, enable_method: EnableMethod::Psci, counters: Some(23) };
    assert_eq!(board.cpus[..], [cpu(0), cpu(1), cpu(2), cpu(3)]);
    assert_eq!(board.timer, Some(TIMER));
    assert_eq!(board.rtc, Some(range(0x901_0000, 0x1000)));
    assert_eq!(board.psci, Some(Psci::Smc));
    assert_eq!(board.bcm2835_pm, None);
    assert_eq!(board.initrd, None);
    assert_eq!(board.bootargs, "console=ttyAMA0 quiet");
    assert_eq!(board.rng_seed, (0..32).collect::<Vec<u8>>());
}

#[test]
fn virt_with_gicv3() {
    board(&virt_v3(), |board| {
        assert_virt(&board);
        let expected = Gic::V3 {
            gicd: range(0x800_0000, 0x1_0000),
            redistributors: [range(0x80a_0000, 0xf6_0000)].into_iter().collect(),
            stride: None,
            maintenance: 25,
        };
        assert_eq!(board.gic, Some(expected));
    });
}

#[test]
fn virt_with_gicv2() {
    board(&virt_v2(), |board| {
        assert_virt(&board);
        let expected = Gic::V2 {
            gicd: range(0x800_0000, 0x1_0000),
            gicc: range(0x801_0000, 0x1_0000),
            gich: range(0x803_0000, 0x1_0000),
            gicv: range(0x804_0000, 0x1_0000),
            maintenance: 25,
        };
        assert_eq!(board.gic, Some(expected));
    });
}

#[test]
fn raspberry_pi_4() {
    board(&pi4(), |board| {
        assert_eq!(board.model, "Raspberry Pi 4 Model B Rev 1.4");
        // The third bank, which firmware leaves empty on this size of board, is none.
        assert_eq!(board.memory[..], [range(0, 0x3b40_0000), range(0x4000_0000, 0xbc00_0000)]);
        let kept = |start, size| Reserved { range: range(start, size), no_map: false };
        let hidden = Reserved { range: range(0x1000_0000, 0x20_0000), no_map: true };
        assert_eq!(board.reserved[..], [kept(0, 0x1000), kept(0x3ef6_2b20, 0x1ff), hidden]);
        let cpu = |mpidr: u64| Cpu {
            mpidr,
            enable_method: EnableMethod::SpinTable(Pa::new(0xd8 + 8 * mpidr)),
            counters: Some(48 + mpidr as u32),
        };
        assert_eq!(board.cpus[..], [cpu(0), cpu(1), cpu(2), cpu(3)]);
        let gic = Gic::V2 {
            gicd: range(0xff84_1000, 0x1000),
            gicc: range(0xff84_2000, 0x2000),
            gich: range(0xff84_4000, 0x2000),
            gicv: range(0xff84_6000, 0x2000),
            maintenance: 25,
        };
        assert_eq!(board.gic, Some(gic));
        assert_eq!(board.timer, Some(TIMER));
        // Their clocks are firmware's, of no fixed frequency.
        let pl011 = Uart {
            kind: UartKind::Pl011,
            registers: range(0xfe20_1000, 0x200),
            interrupt: Some(153),
            clock: None,
            path: PI4_PL011.parse().unwrap(),
        };
        let mini = Uart {
            kind: UartKind::MiniUart,
            registers: range(0xfe21_5040, 0x40),
            interrupt: Some(125),
            clock: None,
            path: PI4_MINI.parse().unwrap(),
        };
        assert_eq!(board.uarts[..], [pl011, mini]);
        assert_eq!(board.console(), Some(&pl011));
        assert_eq!(board.psci, None);
        assert_eq!(board.bcm2835_pm, Some(range(0xfe10_0000, 0x114)));
        assert_eq!(board.rtc, None);
        assert_eq!(board.initrd, Some(range(0x2e00_0000, 0x12_3456)));
        assert_eq!((board.bootargs, board.rng_seed), ("", &[][..]));
    });
}

#[test]
fn what_turns_a_raspberry_pi_off_is_known_by_its_names() {
    let watchdog = "/soc/watchdog@7e100000";
    let read = |name: &str, property: &str, value: &str| {
        let mut tree = pi4();
        set(&mut tree, watchdog, "compatible", strings(&[name]));
        set(&mut tree, watchdog, property, strings(&[value]));
        board(&tree, |board| board.bcm2835_pm)
    };
    let there = Some(range(0xfe10_0000, 0x114));
    for name in ["brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt", "brcm,bcm2711-pm"] {
        assert_eq!(read(name, "status", "okay"), there, "{name}");
        assert_eq!(read(name, "status", "disabled"), None, "{name}");
    }
    assert_eq!(read("brcm,bcm2835-power", "status", "okay"), None);
    // What its bus doesn't pass on has no address.
    let mut tree = pi4();
    set(&mut tree, watchdog, "reg", cells(&[0x7d10_0000 - 0x200_0000, 0x114]));
    board(&tree, |board| assert_eq!(board.bcm2835_pm, None));
}

#[test]
fn a_board_without_model_is_called_by_its_compatible() {
    let mut tree = pi4();
    unset(&mut tree, "/", "model");
    board(&tree, |board| assert_eq!(board.model, "raspberrypi,4-model-b"));
}

/// The `virt` board with three PL011s; in the tree, the one on a bus that moves it comes before the others.
fn three_uarts() -> dtoolkit::model::DeviceTree {
    let mut tree = virt_v3();
    add(&mut tree, "/", fixed_clock("other", 0x9000, 48_000_000));
    let moved = pl011("uart@1000", &[0x1000, 0x1000], 2, &[0x9000]);
    let bus = tree.find_node_mut("/platform-bus@c000000").unwrap();
    bus.add_property(property("ranges", cells(&[0, 0, 0xc00_0000, 0x200_0000])));
    bus.add_child(moved);
    add(&mut tree, "/", pl011("pl011@9040000", &[0, 0x904_0000, 0, 0x1000], 3, &[0x8000]));
    tree
}

const FIRST: &str = "/pl011@9000000";
const MOVED: &str = "/platform-bus@c000000/uart@1000";
const LAST: &str = "/pl011@9040000";

/// The paths of the board's UARTs, the console first.
fn uarts(tree: &dtoolkit::model::DeviceTree) -> Vec<String> {
    board(tree, |board| {
        assert_eq!(board.console(), board.uarts.first());
        board.uarts.iter().map(|uart| uart.path.to_string()).collect()
    })
}

#[test]
fn every_uart_is_told_whole() {
    let moved = Uart {
        registers: range(0xc00_1000, 0x1000),
        interrupt: Some(34),
        clock: Some(48_000_000),
        path: MOVED.parse().unwrap(),
        ..virt_uart()
    };
    let last = Uart {
        registers: range(0x904_0000, 0x1000),
        interrupt: Some(35),
        path: LAST.parse().unwrap(),
        ..virt_uart()
    };
    let mut tree = three_uarts();
    set(&mut tree, "/chosen", "stdout-path", strings(&[LAST]));
    board(&tree, |board| assert_eq!(board.uarts[..], [last, virt_uart(), moved]));
}

#[test]
fn stdout_path_comes_first_then_serial0_then_the_trees_order() {
    // The tree's order is the one that is moved, the first and the last. `serial0` is the first, then the last.
    for (path, by_first, by_last) in [
        (FIRST, [FIRST, MOVED, LAST], [FIRST, LAST, MOVED]),
        ("/pl011@9000000:115200", [FIRST, MOVED, LAST], [FIRST, LAST, MOVED]),
        (MOVED, [MOVED, FIRST, LAST], [MOVED, LAST, FIRST]),
        (LAST, [LAST, FIRST, MOVED], [LAST, MOVED, FIRST]),
        ("serial0", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
        ("serial1:115200n8", [MOVED, FIRST, LAST], [MOVED, LAST, FIRST]),
        // It names nothing, or nothing that is there, or what is no UART.
        ("", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
        (":115200", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
        ("/nothing", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
        ("/pl011", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
        ("serial7", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
        ("/virtio_mmio@a000000", [FIRST, MOVED, LAST], [LAST, MOVED, FIRST]),
    ] {
        let mut tree = three_uarts();
        set(&mut tree, "/aliases", "serial1", strings(&[MOVED]));
        set(&mut tree, "/chosen", "stdout-path", strings(&[path]));
        assert_eq!(uarts(&tree), by_first, "{path}");
        set(&mut tree, "/aliases", "serial0", strings(&[LAST]));
        assert_eq!(uarts(&tree), by_last, "{path}");
    }
}

#[test]
fn without_stdout_path_and_serial0_the_trees_order_decides() {
    let mut tree = three_uarts();
    unset(&mut tree, "/chosen", "stdout-path");
    set(&mut tree, "/aliases", "serial0", strings(&[LAST]));
    assert_eq!(uarts(&tree), [LAST, MOVED, FIRST]);
    unset(&mut tree, "/aliases", "serial0");
    assert_eq!(uarts(&tree), [MOVED, FIRST, LAST]);
}

#[test]
fn a_mini_uart_is_a_console_as_good_as_any() {
    let with = |stdout: &str| {
        let mut tree = pi4();
        set(&mut tree, "/chosen", "stdout-path", strings(&[stdout]));
        uarts(&tree)
    };
    assert_eq!(with("serial0:115200n8"), [PI4_PL011, PI4_MINI]);
    assert_eq!(with("serial1:115200n8"), [PI4_MINI, PI4_PL011]);
    assert_eq!(with(PI4_MINI), [PI4_MINI, PI4_PL011]);
}

#[test]
fn what_is_disabled_or_unknown_is_no_console() {
    let mut tree = pi4();
    set(&mut tree, "/chosen", "stdout-path", strings(&[PI4_DISABLED]));
    assert_eq!(uarts(&tree), [PI4_PL011, PI4_MINI]);
    set(&mut tree, PI4_DISABLED, "status", strings(&["okay"]));
    assert_eq!(uarts(&tree), [PI4_DISABLED, PI4_PL011, PI4_MINI]);
    set(&mut tree, PI4_DISABLED, "compatible", strings(&["snps,dw-apb-uart"]));
    assert_eq!(uarts(&tree), [PI4_PL011, PI4_MINI]);
    // Both that are named are off.
    set(&mut tree, PI4_PL011, "status", strings(&["disabled"]));
    assert_eq!(uarts(&tree), [PI4_MINI]);
    set(&mut tree, PI4_MINI, "status", strings(&["disabled"]));
    assert!(uarts(&tree).is_empty());
}

/// Its driver writes a register of the block that it is a part of, so that it has to be where the block has it.
#[test]
fn a_mini_uart_that_is_not_where_its_block_has_it_is_none() {
    for place in [0x7e21_5000, 0x7e21_5080, 0x7e21_5440] {
        let mut tree = pi4();
        set(&mut tree, PI4_MINI, "reg", cells(&[place, 0x40]));
        assert_eq!(uarts(&tree), [PI4_PL011], "{place:#x}");
    }
}

#[test]
fn eight_uarts_are_known() {
    let mut tree = virt_v3();
    for index in 0..9 {
        add(&mut tree, "/", pl011(&format!("uart@{index}"), &[1, index << 12, 0, 0x1000], 9, &[]));
    }
    set(&mut tree, "/chosen", "stdout-path", strings(&["/uart@5"]));
    let uarts = uarts(&tree);
    assert_eq!((uarts.len(), uarts[0].as_str(), uarts[1].as_str()), (8, "/uart@5", FIRST));
}

/// Paths have room for 96 bytes, and aliases for 16: what is beyond that is left out, and all else is read.
#[test]
fn what_there_is_no_room_for_is_left_out() {
    for (length, fits) in [(95, true), (96, false)] {
        let mut tree = virt_v3();
        let name = format!("uart@{}", "1".repeat(length - "uart@".len()));
        add(&mut tree, "/", pl011(&name, &[1, 0, 0, 0x1000], 9, &[]));
        assert_eq!(uarts(&tree).len(), 1 + usize::from(fits), "/ and {length}");
        assert_eq!(uarts(&tree)[0], FIRST);
    }
    let with = |before: usize| {
        let mut tree = three_uarts();
        set(&mut tree, "/chosen", "stdout-path", strings(&["serial1"]));
        unset(&mut tree, "/aliases", "serial0");
        for index in 1..=before {
            set(&mut tree, "/aliases", &format!("serial{index}"), strings(&[LAST]));
        }
        set(&mut tree, "/aliases", "serial0", strings(&[FIRST]));
        board(&tree, |board| assert_virt_but_for_uarts(&board));
        uarts(&tree)
    };
    assert_eq!(with(15), [LAST, FIRST, MOVED]);
    assert_eq!(with(16), [LAST, MOVED, FIRST]);
}

#[test]
fn a_board_may_have_no_uart() {
    let mut tree = virt_v3();
    tree.root.remove_child("pl011@9000000");
    board(&tree, |board| assert!(board.uarts.is_empty() && board.console().is_none()));
}

#[test]
fn the_uarts_clock_is_found_by_phandle() {
    let mut tree = virt_v3();
    add(&mut tree, "/", fixed_clock("other", 0x9000, 3_686_400));
    set(&mut tree, "/pl011@9000000", "clocks", cells(&[0x9000, 0x8000]));
    board(&tree, |board| assert_eq!(board.uarts[0].clock, Some(3_686_400)));
    set(&mut tree, "/pl011@9000000", "clocks", cells(&[0x9001]));
    board(&tree, |board| assert_eq!(board.uarts[0].clock, None));
    unset(&mut tree, "/pl011@9000000", "clocks");
    board(&tree, |board| assert_eq!(board.uarts[0].clock, None));
}

#[test]
fn initrd_of_one_and_two_cells() {
    let initrd = |start: &[u32], end: &[u32]| {
        let mut tree = virt_v3();
        set(&mut tree, "/chosen", "linux,initrd-start", cells(start));
        set(&mut tree, "/chosen", "linux,initrd-end", cells(end));
        board(&tree, |board| board.initrd)
    };
    assert_eq!(initrd(&[0x4800_0000], &[0x4800_1234]), Some(range(0x4800_0000, 0x1234)));
    assert_eq!(initrd(&[1, 0x4800_0000], &[2, 0x4800_1234]), Some(range(0x1_4800_0000, 0x1_0000_1234)));
    assert_eq!(initrd(&[0x4800_0000], &[0, 0x4800_1234]), Some(range(0x4800_0000, 0x1234)));
    // Empty, backwards, of three cells, or beyond 52 bits.
    assert_eq!(initrd(&[0x4800_0000], &[0x4800_0000]), None);
    assert_eq!(initrd(&[0x4800_0001], &[0x4800_0000]), None);
    assert_eq!(initrd(&[0, 0, 0x4800_0000], &[0x4900_0000]), None);
    assert_eq!(initrd(&[0x4800_0000], &[0x10_0000, 1]), None);
    let mut tree = virt_v3();
    set(&mut tree, "/chosen", "linux,initrd-start", cells(&[0x4800_0000]));
    board(&tree, |board| assert_eq!(board.initrd, None));
}

#[test]
fn reserved_memory_and_the_reservation_block() {
    let mut tree = virt_v3();
    reserve(&mut tree, 0x4000_0000, 0x1_0000);
    reserve(&mut tree, 0x8_0000_0000, 0x2_0000_0000);
    reserve(&mut tree, 0x4400_0000, 0);
    reserve(&mut tree, 0xf_ffff_ffff_f000, u64::MAX);
    reserve(&mut tree, u64::MAX, u64::MAX);
    let region = |name, start, extra: &[Property]| {
        let reg: Property = ("reg", cells(&[0, start, 0, 0x1000]));
        let properties: Vec<Property> = [reg].into_iter().chain(extra.iter().cloned()).collect();
        node(name, &properties, vec![])
    };
    let children = vec![
        region("plain@50000000", 0x5000_0000, &[]),
        region("hidden@51000000", 0x5100_0000, &[("no-map", vec![])]),
        region("off@52000000", 0x5200_0000, &[("status", strings(&["disabled"]))]),
        // Nothing but its name and its place says that this is reserved.
        region("pl011@53000000", 0x5300_0000, &[("compatible", strings(&["arm,pl011"]))]),
    ];
    // Without `ranges`, which is wrong; the regions are still to be left alone.
    let parent = [("#address-cells", cells(&[2])), ("#size-cells", cells(&[2]))];
    add(&mut tree, "/", node("reserved-memory", &parent, children));
    board(&tree, |board| {
        let reserved = |start, size, no_map| Reserved { range: range(start, size), no_map };
        let expected = [
            reserved(0x4000_0000, 0x1_0000, false),
            reserved(0x8_0000_0000, 0x2_0000_0000, false),
            reserved(0xf_ffff_ffff_f000, 0x1000, false),
            reserved(0x5000_0000, 0x1000, false),
            reserved(0x5100_0000, 0x1000, true),
            reserved(0x5300_0000, 0x1000, false),
        ];
        assert_eq!(board.reserved[..], expected);
        assert_eq!(board.uarts[..], [virt_uart()]);
    });
}

#[test]
fn cpus_that_failed_are_left_out() {
    let mut tree = virt_v3();
    set(&mut tree, "/cpus/cpu@0", "status", strings(&["okay"]));
    set(&mut tree, "/cpus/cpu@1", "status", strings(&["fail"]));
    set(&mut tree, "/cpus/cpu@2", "status", strings(&["fail-sram"]));
    set(&mut tree, "/cpus/cpu@3", "status", strings(&["disabled"]));
    board(&tree, |board| assert_eq!(board.cpus.iter().map(|cpu| cpu.mpidr).collect::<Vec<_>>(), [0, 3]));
}

#[test]
fn cpu_numbers_of_two_cells_and_unknown_methods() {
    let mut tree = virt_v3();
    set(&mut tree, "/cpus", "#address-cells", cells(&[2]));
    for number in 0..4 {
        set(&mut tree, &format!("/cpus/cpu@{number}"), "reg", cells(&[number, 0x8100_0300]));
    }
    unset(&mut tree, "/cpus/cpu@0", "enable-method");
    set(&mut tree, "/cpus/cpu@1", "enable-method", strings(&["vendor,smp"]));
    set(&mut tree, "/cpus/cpu@2", "enable-method", strings(&["spin-table"]));
    set(&mut tree, "/cpus/cpu@2", "cpu-release-addr", cells(&[0x8000_0000]));
    board(&tree, |board| {
        let methods = [
            EnableMethod::Unknown,
            EnableMethod::Unknown,
            EnableMethod::SpinTable(Pa::new(0x8000_0000)),
            EnableMethod::Psci,
        ];
        for (number, (cpu, enable_method)) in board.cpus.iter().zip(methods).enumerate() {
            let mpidr = (number as u64) << 32 | 0x8100_0300;
            assert_eq!(*cpu, Cpu { mpidr, enable_method, counters: Some(23) });
        }
    });
}

/// The counters' interrupts of all CPUs.
fn counters(tree: &dtoolkit::model::DeviceTree) -> Vec<Option<u32>> {
    board(tree, |board| board.cpus.iter().map(|cpu| cpu.counters).collect())
}

#[test]
fn counters_interrupts_go_by_affinity_or_in_order() {
    let mut tree = pi4();
    set(&mut tree, "/arm-pmu", "interrupt-affinity", cells(&[0x24, 0x99, 0x22, 0x25]));
    assert_eq!(
        counters(&tree),
        [Some(50), None, Some(48), Some(51)],
        "by phandles, one of which is nobody's"
    );
    unset(&mut tree, "/arm-pmu", "interrupt-affinity");
    assert_eq!(counters(&tree), [48, 49, 50, 51].map(Some), "in the CPUs' order");
    set(&mut tree, "/arm-pmu", "interrupts", cells(&[0, 16, 4, 0, 17, 4]));
    assert_eq!(counters(&tree), [Some(48), Some(49), None, None]);
    set(&mut tree, "/arm-pmu", "compatible", strings(&["arm,cortex-a72-pmu"]));
    assert_eq!(counters(&tree)[0], Some(48), "a model's name is enough");
    set(&mut tree, "/arm-pmu", "status", strings(&["disabled"]));
    assert_eq!(counters(&tree), [None; 4]);
    unset(&mut tree, "/arm-pmu", "status");
    for other in ["arm,cci-400-pmu", "arm,cortex-a72", "vendor,pmu"] {
        set(&mut tree, "/arm-pmu", "compatible", strings(&[other]));
        assert_eq!(counters(&tree), [None; 4], "{other}");
    }
}

/// How many cells an interrupt has is known only with the controller, which may stand behind them.
#[test]
fn counters_may_stand_before_the_interrupt_controller() {
    let mut tree = virt_v3();
    set(&mut tree, "/intc@8000000", "#interrupt-cells", cells(&[4]));
    set(&mut tree, "/intc@8000000", "interrupts", cells(&[1, 9, 4, 0]));
    set(&mut tree, "/pmu", "interrupts", cells(&[1, 7, 4, 0]));
    set(
        &mut tree,
        "/timer",
        "interrupts",
        cells(&[[1, 13, 4, 0], [1, 14, 4, 0], [1, 11, 4, 0], [1, 10, 4, 0]].concat()),
    );
    for _ in 0..2 {
        assert_eq!(counters(&tree), [Some(23); 4]);
        let controller = tree.root.remove_child("intc@8000000").expect("it was there");
        tree.root.add_child(controller);
    }
}

#[test]
fn cpus_of_two_models_have_their_counters_in_two_nodes() {
    let mut tree = pi4();
    set(&mut tree, "/arm-pmu", "interrupts", cells(&[0, 16, 4, 0, 17, 4]));
    set(&mut tree, "/arm-pmu", "interrupt-affinity", cells(&[0x24, 0x25]));
    let others = node(
        "arm-pmu-1",
        &[
            ("compatible", strings(&["arm,cortex-a53-pmu"])),
            ("interrupts", cells(&[0, 30, 4, 0, 31, 4])),
            ("interrupt-affinity", cells(&[0x22, 0x23])),
        ],
        vec![],
    );
    tree.root.add_child(others);
    assert_eq!(counters(&tree), [62, 63, 48, 49].map(Some));
    // One with a private interrupt has it on all that have none of their own.
    set(&mut tree, "/arm-pmu-1", "interrupts", cells(&[1, 7, 4]));
    assert_eq!(counters(&tree), [23, 23, 48, 49].map(Some));
}

#[test]
fn disabled_devices_are_ignored() {
    let mut tree = three_uarts();
    set(&mut tree, "/pl011@9000000", "status", strings(&["disabled"]));
    set(&mut tree, "/pl031@9010000", "status", strings(&["disabled"]));
    set(&mut tree, "/psci", "status", strings(&["fail"]));
    // What is on a disabled bus is not there either.
    set(&mut tree, "/platform-bus@c000000", "status", strings(&["disabled"]));
    let mut bank = node("memory@80000000", &[("device_type", strings(&["memory"]))], vec![]);
    bank.add_property(property("reg", cells(&[0, 0x8000_0000, 0, 0x1000_0000])));
    bank.add_property(property("status", strings(&["disabled"])));
    add(&mut tree, "/", bank);
    board(&tree, |board| {
        let uarts: Vec<_> = board.uarts.iter().map(|uart| uart.path.as_str()).collect();
        assert_eq!(uarts, [LAST]);
        assert_eq!((board.rtc, board.psci), (None, None));
        assert_eq!(board.memory[..], [range(0x4000_0000, 0x4000_0000)]);
    });
    set(&mut tree, "/pl031@9010000", "status", strings(&["ok"]));
    set(&mut tree, "/psci", "status", strings(&["okay"]));
    set(&mut tree, "/psci", "method", strings(&["hvc"]));
    board(&tree, |board| {
        assert_eq!((board.rtc, board.psci), (Some(range(0x901_0000, 0x1000)), Some(Psci::Hvc)));
    });
}

#[test]
fn memory_is_in_many_nodes_and_cut_at_the_end_of_physical_addresses() {
    let mut tree = virt_v3();
    set(
        &mut tree,
        "/memory@40000000",
        "reg",
        // A bank, one that would wrap, one that begins beyond 52 bits, and half an entry.
        cells(&[8, 0, 4, 0, 0xf_ffff, 0xffff_0000, 0xffff_ffff, 0, 0x10_0000, 0, 0, 0x1000, 0, 1]),
    );
    let second = [("device_type", strings(&["memory"])), ("reg", cells(&[0, 0, 0, 0x1000_0000]))];
    add(&mut tree, "/", node("memory@0", &second, vec![]));
    // Not a child of the root: what a memory controller says of a module, say.
    add(&mut tree, "/platform-bus@c000000", node("dimm", &second, vec![]));
    board(&tree, |board| {
        let expected =
            [range(0x8_0000_0000, 0x4_0000_0000), range(0xf_ffff_ffff_0000, 0x1_0000), range(0, 0x1000_0000)];
        assert_eq!(board.memory[..], expected);
    });
}

#[test]
fn addresses_go_through_every_bus() {
    let uart = |outer: Vec<u8>, inner: Vec<u8>, address| {
        let device = pl011("uart", &[address, 0x100], 4, &[]);
        let bus = |name, ranges, children| {
            let cells = [("#address-cells", cells(&[1])), ("#size-cells", cells(&[1])), ("ranges", ranges)];
            node(name, &cells, children)
        };
        let mut tree = virt_v3();
        add(&mut tree, "/", bus("outer", outer, vec![bus("inner", inner, vec![device])]));
        set(&mut tree, "/chosen", "stdout-path", strings(&["/outer/inner/uart"]));
        tree.root.remove_child("pl011@9000000");
        board(&tree, |board| board.console().map(|uart| uart.registers.start.as_u64()))
    };
    let outer = || cells(&[0, 1, 0, 0x1000, 0x8000, 2, 0, 0x1000]);
    let inner = || cells(&[0x10_0000, 0x8000, 0x1000]);
    assert_eq!(uart(outer(), inner(), 0x10_0ff0), Some(0x2_0000_0ff0));
    assert_eq!(uart(outer(), vec![], 0x8), Some(0x1_0000_0008));
    assert_eq!(uart(vec![], vec![], 0x8), Some(8));
    // Before and behind what the inner bus passes on; then what only the outer one stops.
    assert_eq!(uart(outer(), inner(), 0xf_ffff), None);
    assert_eq!(uart(outer(), inner(), 0x10_1000), None);
    assert_eq!(uart(outer(), vec![], 0x1000), None);
    // Past the end of 64 bits, and a tenth range.
    assert_eq!(uart(cells(&[0, u32::MAX, u32::MAX, 0x1000]), vec![], 8), None);
    let many: Vec<u32> = (0..10).flat_map(|index| [index << 16, 3, index << 20, 0x1000]).collect();
    assert_eq!(uart(cells(&many), vec![], 0x9_0008), Some(0x3_0090_0008));
}

#[test]
fn what_no_bus_passes_on_has_no_address() {
    // No `ranges`; addresses of three cells, of none, and of more than any arithmetic holds.
    for (address_cells, with_ranges) in [(1, false), (3, true), (0, true), (u32::MAX, true)] {
        let device = pl011("uart@1000", &[0x1000, 0x1000], 2, &[]);
        let mut properties = vec![
            ("#address-cells", cells(&[address_cells])),
            ("#size-cells", cells(&[u32::from(address_cells == 1)])),
        ];
        if with_ranges {
            properties.push(("ranges", cells(&[0, 0, 0, 1, 0, 0, 0, 1])));
        }
        let mut tree = virt_v3();
        add(&mut tree, "/", node("bus", &properties, vec![device]));
        set(&mut tree, "/chosen", "stdout-path", strings(&["/bus/uart@1000"]));
        tree.root.remove_child("pl011@9000000");
        board(&tree, |board| assert!(board.uarts.is_empty(), "{address_cells}"));
    }
}

#[test]
fn interrupts_of_four_cells() {
    let mut tree = virt_v3();
    set(&mut tree, "/intc@8000000", "#interrupt-cells", cells(&[4]));
    set(&mut tree, "/intc@8000000", "interrupts", cells(&[1, 9, 4, 0]));
    set(&mut tree, "/pl011@9000000", "interrupts", cells(&[0, 987, 4, 0]));
    set(&mut tree, "/timer", "interrupts", cells(&[1, 13, 4, 0, 1, 14, 4, 0, 1, 11, 4, 0, 1, 10, 4, 0]));
    board(&tree, |board| {
        assert_eq!(board.timer, Some(TIMER));
        assert_eq!(board.uarts[0].interrupt, Some(1019));
        assert!(matches!(board.gic, Some(Gic::V3 { maintenance: 25, .. })));
    });
}

#[test]
fn interrupts_out_of_range_are_none() {
    for interrupts in [&[0, 988, 4][..], &[1, 16, 4], &[2, 1, 4], &[0, u32::MAX, 4], &[0, 1], &[]] {
        let mut tree = virt_v3();
        set(&mut tree, "/pl011@9000000", "interrupts", cells(interrupts));
        board(&tree, |board| assert_eq!(board.uarts[0].interrupt, None, "{interrupts:?}"));
    }
}

#[test]
fn redistributor_regions_and_stride() {
    let mut tree = virt_v3();
    let gic = "/intc@8000000";
    let mut reg = vec![0, 0x800_0000, 0, 0x1_0000];
    (0..9).for_each(|index| reg.extend([1, index << 24, 0, 0x80_0000]));
    set(&mut tree, gic, "reg", cells(&reg));
    set(&mut tree, gic, "#redistributor-regions", cells(&[8]));
    set(&mut tree, gic, "redistributor-stride", cells(&[0, 0x4_0000]));
    board(&tree, |board| {
        let Some(Gic::V3 { redistributors, stride, .. }) = board.gic else { panic!("{:?}", board.gic) };
        let expected: Vec<_> = (0..8).map(|index| range(0x1_0000_0000 + (index << 24), 0x80_0000)).collect();
        assert_eq!(redistributors[..], expected);
        assert_eq!(stride, Some(0x4_0000));
    });
    // The one that follows is not a redistributor if the tree doesn't count it: GICC, for guests with a GICv2.
    unset(&mut tree, gic, "#redistributor-regions");
    board(&tree, |board| {
        assert!(matches!(board.gic, Some(Gic::V3 { redistributors, .. }) if redistributors.len() == 1));
    });
}

#[test]
fn what_a_hypervisor_uses_itself() {
    let gic = |start, size| Used {
        registers: range(start, size),
        interrupt: None,
        what: "the interrupt controller",
    };
    let console = |start, size, intid| Used {
        registers: range(start, size),
        interrupt: Some(intid),
        what: "the console",
    };
    board(&pi4(), |mut board| {
        let controller =
            [(0xff84_1000, 0x1000), (0xff84_2000, 0x2000), (0xff84_4000, 0x2000), (0xff84_6000, 0x2000)];
        let controller = controller.map(|(start, size)| gic(start, size));
        let power =
            Used { registers: range(0xfe10_0000, 0x114), interrupt: None, what: "the board's power manager" };
        let nothing = range(0, 0);
        let counters = [48, 49, 50, 51].map(|intid| Used {
            registers: nothing,
            interrupt: Some(intid),
            what: "the CPUs' performance counters",
        });
        let with = |uart: Used| [&controller[..], &[power, uart], &counters].concat();
        assert_eq!(board.used().collect::<Vec<_>>(), with(console(0xfe20_1000, 0x200, 153)));
        assert_eq!(board.used_for_ever().collect::<Vec<_>>(), [&controller[..], &[power]].concat());
        // Whoever takes a UART away leaves the next one.
        board.uarts.remove(0);
        assert_eq!(board.used().collect::<Vec<_>>(), with(console(0xfe21_5040, 0x40, 125)));
        board.uarts.clear();
        board.bcm2835_pm = None;
        board.cpus.clear();
        assert_eq!(board.used().collect::<Vec<_>>(), controller);
    });
    board(&virt_v3(), |board| {
        let expected =
            [gic(0x800_0000, 0x1_0000), gic(0x80a_0000, 0xf6_0000), console(0x900_0000, 0x1000, 33)];
        assert_eq!(board.used().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn a_tree_that_firmware_has_not_completed() {
    let mut tree = pi4();
    unset(&mut tree, "/memory@0", "reg");
    let blob = tree.to_dtb();
    let tree = devicetree::Tree::check(&blob).unwrap();
    let (board, outcome) = Board::read_any(&tree);
    assert_eq!(outcome, Ok(()));
    assert!(board.memory.is_empty() && board.gic.is_some());
    assert_eq!(board.uarts.len(), 2);
    assert_eq!(board.check_complete(), Err(BoardError::Missing("memory")));
    assert_eq!(Board::read(&tree).unwrap_err(), BoardError::Missing("memory"));
}
