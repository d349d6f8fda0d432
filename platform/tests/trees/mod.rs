//! Trees of boards, made with dtoolkit's writer from what the boards' own trees say.
#![allow(dead_code, reason = "each test file uses some of it")]

#[path = "../../../hyp/devicetree/tests/blob/mod.rs"]
pub mod blob;

use devicetree::Tree;
use dtoolkit::memreserve::MemoryReservation;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use platform::tree::{Board, BoardError, Range};
use stage2::Pa;

/// Name and value of a property.
pub type Property = (&'static str, Vec<u8>);

/// Cells.
pub fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// A list of strings.
pub fn strings(values: &[&str]) -> Vec<u8> {
    values.iter().flat_map(|value| value.bytes().chain([0])).collect()
}

pub fn property(name: &str, value: Vec<u8>) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}

pub fn node(name: &str, properties: &[Property], children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for (name, value) in properties {
        node.add_property(property(name, value.clone()));
    }
    children.into_iter().for_each(|child| node.add_child(child));
    node
}

/// Sets a property of the node at `path`.
pub fn set(tree: &mut DeviceTree, path: &str, name: &str, value: Vec<u8>) {
    tree.find_node_mut(path).expect(path).add_property(property(name, value));
}

/// Takes a property of the node at `path` away.
pub fn unset(tree: &mut DeviceTree, path: &str, name: &str) {
    tree.find_node_mut(path).expect(path).remove_property(name).expect(name);
}

/// Adds a node below the one at `path`.
pub fn add(tree: &mut DeviceTree, path: &str, child: DeviceTreeNode) {
    tree.find_node_mut(path).expect(path).add_child(child);
}

pub fn reserve(tree: &mut DeviceTree, address: u64, size: u64) {
    tree.memory_reservations.push(MemoryReservation::new(address, size));
}

pub fn range(start: u64, size: u64) -> Range {
    Range { start: Pa::new(start), size }
}

/// Checks and reads a tree, and hands the reading to `look`.
pub fn with_board<T>(tree: &DeviceTree, look: impl FnOnce(Result<Board<'_>, BoardError>) -> T) -> T {
    let blob = tree.to_dtb();
    look(Board::read(&Tree::check(&blob).expect("a good tree")))
}

/// Looks at a board that can be read.
pub fn board<T>(tree: &DeviceTree, look: impl FnOnce(Board<'_>) -> T) -> T {
    with_board(tree, |board| look(board.expect("a good board")))
}

/// What is wrong with a tree.
pub fn error(tree: &DeviceTree) -> BoardError {
    with_board(tree, |board| board.expect_err("a bad board"))
}

/// QEMU's `virt` machine with `virtualization=on`, a GICv3, four Cortex-A72 and 1 GiB.
pub fn virt_v3() -> DeviceTree {
    let gic = node(
        "intc@8000000",
        &[
            ("phandle", cells(&[0x8005])),
            ("interrupts", cells(&[1, 9, 4])),
            ("reg", cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0xf6_0000])),
            ("#redistributor-regions", cells(&[1])),
            ("compatible", strings(&["arm,gic-v3"])),
            ("ranges", vec![]),
            ("#size-cells", cells(&[2])),
            ("#address-cells", cells(&[2])),
            ("interrupt-controller", vec![]),
            ("#interrupt-cells", cells(&[3])),
        ],
        vec![node(
            "its@8080000",
            &[
                ("phandle", cells(&[0x8006])),
                ("reg", cells(&[0, 0x808_0000, 0, 0x2_0000])),
                ("#msi-cells", cells(&[1])),
                ("msi-controller", vec![]),
                ("compatible", strings(&["arm,gic-v3-its"])),
            ],
            vec![],
        )],
    );
    virt(gic)
}

/// The same machine with a GICv2.
pub fn virt_v2() -> DeviceTree {
    let gic = node(
        "intc@8000000",
        &[
            ("phandle", cells(&[0x8005])),
            ("interrupts", cells(&[1, 9, 4])),
            (
                "reg",
                cells(&[
                    0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x1_0000, 0, 0x803_0000, 0, 0x1_0000, 0,
                    0x804_0000, 0, 0x1_0000,
                ]),
            ),
            ("compatible", strings(&["arm,cortex-a15-gic"])),
            ("ranges", vec![]),
            ("#size-cells", cells(&[2])),
            ("#address-cells", cells(&[2])),
            ("interrupt-controller", vec![]),
            ("#interrupt-cells", cells(&[3])),
        ],
        vec![node(
            "v2m@8020000",
            &[
                ("phandle", cells(&[0x8006])),
                ("reg", cells(&[0, 0x802_0000, 0, 0x1000])),
                ("msi-controller", vec![]),
                ("compatible", strings(&["arm,gic-v2m-frame"])),
            ],
            vec![],
        )],
    );
    virt(gic)
}

fn virt(gic: DeviceTreeNode) -> DeviceTree {
    let cpu = |number: u32| {
        node(
            &format!("cpu@{number:x}"),
            &[
                ("phandle", cells(&[0x8004 - number])),
                ("reg", cells(&[number])),
                ("enable-method", strings(&["psci"])),
                ("compatible", strings(&["arm,cortex-a72"])),
                ("device_type", strings(&["cpu"])),
            ],
            vec![],
        )
    };
    let core = |number: u32| node(&format!("core{number}"), &[("cpu", cells(&[0x8004 - number]))], vec![]);
    let cluster = node("cluster0", &[], (0..4).map(core).collect());
    let cpu_map = node("cpu-map", &[], vec![node("socket0", &[], vec![cluster])]);
    let pcie: Property = (
        "ranges",
        cells(&[
            0x100_0000,
            0,
            0,
            0,
            0x3eff_0000,
            0,
            0x1_0000,
            0x200_0000,
            0,
            0x1000_0000,
            0,
            0x1000_0000,
            0,
            0x2eff_0000,
            0x300_0000,
            0x80,
            0,
            0x80,
            0,
            0x80,
            0,
        ]),
    );
    let children = vec![
        node(
            "psci",
            &[
                ("migrate", cells(&[0xc400_0005])),
                ("cpu_on", cells(&[0xc400_0003])),
                ("method", strings(&["smc"])),
                ("compatible", strings(&["arm,psci-1.0", "arm,psci-0.2", "arm,psci"])),
            ],
            vec![],
        ),
        node(
            "memory@40000000",
            &[("reg", cells(&[0, 0x4000_0000, 0, 0x4000_0000])), ("device_type", strings(&["memory"]))],
            vec![],
        ),
        node(
            "platform-bus@c000000",
            &[
                ("interrupt-parent", cells(&[0x8005])),
                ("ranges", cells(&[0, 0, 0xc00_0000, 0x200_0000])),
                ("#address-cells", cells(&[1])),
                ("#size-cells", cells(&[1])),
                ("compatible", strings(&["qemu,platform", "simple-bus"])),
            ],
            vec![],
        ),
        node(
            "virtio_mmio@a000000",
            &[
                ("dma-coherent", vec![]),
                ("interrupts", cells(&[0, 16, 1])),
                ("reg", cells(&[0, 0xa00_0000, 0, 0x200])),
                ("compatible", strings(&["virtio,mmio"])),
            ],
            vec![],
        ),
        node(
            "pcie@10000000",
            &[
                pcie,
                ("reg", cells(&[0x40, 0x1000_0000, 0, 0x1000_0000])),
                ("bus-range", cells(&[0, 0xff])),
                ("#size-cells", cells(&[2])),
                ("#address-cells", cells(&[3])),
                ("device_type", strings(&["pci"])),
                ("compatible", strings(&["pci-host-ecam-generic"])),
            ],
            vec![],
        ),
        node(
            "pl031@9010000",
            &[
                ("clock-names", strings(&["apb_pclk"])),
                ("clocks", cells(&[0x8000])),
                ("interrupts", cells(&[0, 2, 4])),
                ("reg", cells(&[0, 0x901_0000, 0, 0x1000])),
                ("compatible", strings(&["arm,pl031", "arm,primecell"])),
            ],
            vec![],
        ),
        pl011("pl011@9000000", &[0, 0x900_0000, 0, 0x1000], 1, &[0x8000, 0x8000]),
        gic,
        node(
            "pmu",
            &[("interrupts", cells(&[1, 7, 0x104])), ("compatible", strings(&["arm,armv8-pmuv3"]))],
            vec![],
        ),
        node(
            "cpus",
            &[("#size-cells", cells(&[0])), ("#address-cells", cells(&[1]))],
            [cpu_map].into_iter().chain((0..4).map(cpu)).collect(),
        ),
        node(
            "timer",
            &[
                ("interrupts", cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4])),
                ("always-on", vec![]),
                ("compatible", strings(&["arm,armv8-timer", "arm,armv7-timer"])),
            ],
            vec![],
        ),
        fixed_clock("apb-pclk", 0x8000, 24_000_000),
        node("aliases", &[("serial0", strings(&["/pl011@9000000"]))], vec![]),
        node(
            "chosen",
            &[
                ("stdout-path", strings(&["/pl011@9000000"])),
                ("bootargs", strings(&["console=ttyAMA0 quiet"])),
                ("rng-seed", (0..32).collect()),
                ("kaslr-seed", cells(&[0xc884_5bf8, 0x8eba_6f69])),
            ],
            vec![],
        ),
    ];
    let mut tree = DeviceTree::new();
    tree.root = node(
        "",
        &[
            ("interrupt-parent", cells(&[0x8005])),
            ("model", strings(&["linux,dummy-virt"])),
            ("#size-cells", cells(&[2])),
            ("#address-cells", cells(&[2])),
            ("compatible", strings(&["linux,dummy-virt"])),
        ],
        children,
    );
    tree
}

pub fn pl011(name: &str, reg: &[u32], spi: u32, clocks: &[u32]) -> DeviceTreeNode {
    node(
        name,
        &[
            ("clock-names", strings(&["uartclk", "apb_pclk"])),
            ("clocks", cells(clocks)),
            ("interrupts", cells(&[0, spi, 4])),
            ("reg", cells(reg)),
            ("compatible", strings(&["arm,pl011", "arm,primecell"])),
        ],
        vec![],
    )
}

pub fn fixed_clock(name: &str, phandle: u32, rate: u32) -> DeviceTreeNode {
    node(
        name,
        &[
            ("phandle", cells(&[phandle])),
            ("clock-frequency", cells(&[rate])),
            ("#clock-cells", cells(&[0])),
            ("compatible", strings(&["fixed-clock"])),
        ],
        vec![],
    )
}

/// A Raspberry Pi 4 with 4 GiB, as its firmware hands the tree over: sizes of one cell, devices on a `soc` bus that
/// moves them, CPUs in a spin table, and memory in two banks.
pub fn pi4() -> DeviceTree {
    let cpu = |number: u32| {
        node(
            &format!("cpu@{number}"),
            &[
                ("phandle", cells(&[0x22 + number])),
                ("device_type", strings(&["cpu"])),
                ("compatible", strings(&["arm,cortex-a72"])),
                ("reg", cells(&[number])),
                ("enable-method", strings(&["spin-table"])),
                ("cpu-release-addr", cells(&[0, 0xd8 + 8 * number])),
            ],
            vec![],
        )
    };
    let gic = node(
        "interrupt-controller@40041000",
        &[
            ("interrupt-controller", vec![]),
            ("#interrupt-cells", cells(&[3])),
            ("compatible", strings(&["arm,gic-400"])),
            (
                "reg",
                cells(&[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000]),
            ),
            ("interrupts", cells(&[1, 9, 0xf04])),
            ("phandle", cells(&[1])),
        ],
        vec![],
    );
    let mut unused = pl011("serial@7e201400", &[0x7e20_1400, 0x200], 121, &[7, 19, 7, 20]);
    unused.add_property(property("status", strings(&["disabled"])));
    let mini = node(
        "serial@7e215040",
        &[
            ("compatible", strings(&["brcm,bcm2835-aux-uart"])),
            ("reg", cells(&[0x7e21_5040, 0x40])),
            ("interrupts", cells(&[0, 93, 4])),
            ("status", strings(&["okay"])),
        ],
        vec![],
    );
    let watchdog = node(
        "watchdog@7e100000",
        &[
            ("compatible", strings(&["brcm,bcm2711-pm", "brcm,bcm2835-pm-wdt"])),
            ("reg", cells(&[0x7e10_0000, 0x114, 0x7e00_a000, 0x24, 0x7ec1_1000, 0x20])),
            ("system-power-controller", vec![]),
        ],
        vec![],
    );
    let soc = node(
        "soc",
        &[
            ("compatible", strings(&["simple-bus"])),
            ("#address-cells", cells(&[1])),
            ("#size-cells", cells(&[1])),
            (
                "ranges",
                cells(&[
                    0x7e00_0000,
                    0,
                    0xfe00_0000,
                    0x180_0000,
                    0x7c00_0000,
                    0,
                    0xfc00_0000,
                    0x200_0000,
                    0x4000_0000,
                    0,
                    0xff80_0000,
                    0x80_0000,
                ]),
            ),
            ("interrupt-parent", cells(&[1])),
        ],
        vec![
            watchdog,
            unused,
            pl011("serial@7e201000", &[0x7e20_1000, 0x200], 121, &[7, 19, 7, 20]),
            mini,
            gic,
        ],
    );
    let reserved = node(
        "reserved-memory",
        &[("#address-cells", cells(&[2])), ("#size-cells", cells(&[1])), ("ranges", vec![])],
        vec![
            node("linux,cma", &[("size", cells(&[0x400_0000])), ("reusable", vec![])], vec![]),
            node(
                "nvram@1",
                &[("compatible", strings(&["nvmem-rmem"])), ("reg", cells(&[0, 0x3ef6_2b20, 0x1ff]))],
                vec![],
            ),
            node(
                "secure@10000000",
                &[("reg", cells(&[0, 0x1000_0000, 0x20_0000])), ("no-map", vec![])],
                vec![],
            ),
        ],
    );
    let children = vec![
        node(
            "aliases",
            &[
                ("serial0", strings(&["/soc/serial@7e201000"])),
                ("serial1", strings(&["/soc/serial@7e215040"])),
            ],
            vec![],
        ),
        node(
            "chosen",
            &[
                ("stdout-path", strings(&["serial0:115200n8"])),
                ("linux,initrd-start", cells(&[0x2e00_0000])),
                ("linux,initrd-end", cells(&[0x2e12_3456])),
            ],
            vec![],
        ),
        reserved,
        soc,
        node(
            "arm-pmu",
            &[
                ("compatible", strings(&["arm,cortex-a72-pmu", "arm,armv8-pmuv3"])),
                ("interrupts", cells(&[0, 16, 4, 0, 17, 4, 0, 18, 4, 0, 19, 4])),
                ("interrupt-affinity", cells(&[0x22, 0x23, 0x24, 0x25])),
            ],
            vec![],
        ),
        node(
            "timer",
            &[
                ("compatible", strings(&["arm,armv8-timer"])),
                ("interrupts", cells(&[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08])),
            ],
            vec![],
        ),
        node(
            "cpus",
            &[
                ("#address-cells", cells(&[1])),
                ("#size-cells", cells(&[0])),
                ("enable-method", strings(&["brcm,bcm2836-smp"])),
            ],
            (0..4).map(cpu).collect(),
        ),
        node(
            "memory@0",
            &[
                ("device_type", strings(&["memory"])),
                ("reg", cells(&[0, 0, 0x3b40_0000, 0, 0x4000_0000, 0xbc00_0000, 0, 0, 0])),
            ],
            vec![],
        ),
    ];
    let mut tree = DeviceTree::new();
    tree.root = node(
        "",
        &[
            ("compatible", strings(&["raspberrypi,4-model-b", "brcm,bcm2711"])),
            ("model", strings(&["Raspberry Pi 4 Model B Rev 1.4"])),
            ("#address-cells", cells(&[2])),
            ("#size-cells", cells(&[1])),
            ("interrupt-parent", cells(&[1])),
        ],
        children,
    );
    reserve(&mut tree, 0, 0x1000);
    tree
}
