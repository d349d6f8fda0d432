//! Boards whose devices are handed out, after the trees of real ones, and VMs that want them.

use config::manifest::{DeviceConfig, LayoutKind, Payload, VmConfig};
use config::passthrough::{Devices, Given, Own};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use stage2::Pa;
use vmm::layout::{DeviceRoom, Ipa, Region, VIRT};

use crate::reader;
use crate::vm::config;

/// The addresses of the interrupt controllers' first registers.
pub const PI_GICD: u64 = 0xff84_1000;
pub const VIRT_GICD: u64 = 0x0800_0000;

/// A room where all is as on the board.
pub const ONE_TO_ONE: DeviceRoom = DeviceRoom {
    one_to_one: true,
    registers: Region { base: Ipa::new(0), size: 0 },
    first_spi: 0,
    spis: 988,
};

/// What a property has.
pub type Property<'a> = (&'a str, Vec<u8>);

pub fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

pub fn strings(values: &[&str]) -> Vec<u8> {
    values.iter().flat_map(|value| value.bytes().chain([0])).collect()
}

pub fn node(
    name: &str,
    properties: &[Property<'_>],
    children: impl IntoIterator<Item = DeviceTreeNode>,
) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new_unchecked(*name, value.clone()));
    }
    children.into_iter().for_each(|child| node.add_child(child));
    node
}

/// A device with no more than this.
pub fn device(name: &str, compatible: &str, reg: &[u32], more: &[Property<'_>]) -> DeviceTreeNode {
    let own = [("compatible", strings(&[compatible])), ("reg", cells(reg))];
    node(name, &[&own[..], more].concat(), [])
}

/// `interrupts` with level-triggered SPIs.
pub fn spis(numbers: &[u32]) -> Property<'static> {
    ("interrupts", numbers.iter().flat_map(|number| cells(&[0, *number, 4])).collect())
}

pub fn disabled() -> Property<'static> {
    ("status", strings(&["disabled"]))
}

/// Sets a property of the node at `path`.
pub fn set(tree: &mut DeviceTree, path: &str, name: &str, value: Vec<u8>) {
    let node = if path == "/" { &mut tree.root } else { tree.find_node_mut(path).expect(path) };
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

pub fn unset(tree: &mut DeviceTree, path: &str, name: &str) {
    tree.find_node_mut(path).expect(path).remove_property(name).expect(name);
}

/// Adds a node below the one at `path`.
pub fn add(tree: &mut DeviceTree, path: &str, child: DeviceTreeNode) {
    let node = if path == "/" { &mut tree.root } else { tree.find_node_mut(path).expect(path) };
    node.add_child(child);
}

pub mod phandle {
    pub const GIC: u32 = 1;
    pub const CPRMAN: u32 = 2;
    pub const AUX: u32 = 3;
    pub const GPIO: u32 = 4;
    pub const UART0_PINS: u32 = 5;
    pub const UART1_PINS: u32 = 6;
    pub const CRYSTAL: u32 = 7;
    pub const HALF: u32 = 8;
    pub const POWER: u32 = 9;
    pub const DMA: u32 = 10;
    pub const SUPPLY: u32 = 11;
    pub const I2C_PINS: u32 = 12;
}

/// A board like a Raspberry Pi 4.
pub fn pi() -> DeviceTree {
    let mut tree = DeviceTree::new();
    let bus_cells =
        |address: u32, size: u32| [("#address-cells", cells(&[address])), ("#size-cells", cells(&[size]))];
    for (name, value) in bus_cells(2, 1) {
        set(&mut tree, "/", name, value);
    }
    set(&mut tree, "/", "interrupt-parent", cells(&[phandle::GIC]));
    set(&mut tree, "/", "compatible", strings(&["raspberrypi,4-model-b", "brcm,bcm2711"]));
    let aliases = [
        ("serial0", "/soc/serial@7e201000"),
        ("serial1", "/soc/serial@7e215040"),
        ("lost", "/soc/nothing@0"),
        ("around", "serial1"),
    ];
    let aliases = aliases.map(|(alias, path)| (alias, strings(&[path])));
    let soc = [
        ("compatible", strings(&["simple-bus"])),
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
        ("dma-ranges", cells(&[0xc000_0000, 0, 0, 0x4000_0000])),
        ("#address-cells", cells(&[1])),
        ("#size-cells", cells(&[1])),
    ];
    let emmc2bus = [
        ("compatible", strings(&["simple-bus"])),
        ("#address-cells", cells(&[2])),
        ("#size-cells", cells(&[1])),
        ("ranges", cells(&[0, 0x7e00_0000, 0, 0xfe00_0000, 0x180_0000])),
        ("dma-ranges", cells(&[0, 0xc000_0000, 0, 0, 0x4000_0000])),
    ];
    let mmc = device(
        "mmc@7e340000",
        "brcm,bcm2711-emmc2",
        &[0, 0x7e34_0000, 0x100],
        &[
            spis(&[126]),
            ("clocks", cells(&[phandle::CPRMAN, 51])),
            ("vmmc-supply", cells(&[phandle::SUPPLY])),
            ("status", strings(&["okay"])),
        ],
    );
    let reserved = [
        node(
            "linux,cma",
            &[("compatible", strings(&["shared-dma-pool"])), ("size", cells(&[0x400_0000]))],
            [],
        ),
        device("nvram@3f000000", "nvmem-rmem", &[0, 0x3f00_0000, 0x1000], &[]),
    ];
    let pcie = [
        ("compatible", strings(&["brcm,bcm2711-pcie"])),
        ("reg", cells(&[0, 0x7d50_0000, 0x9310])),
        ("device_type", strings(&["pci"])),
        ("#address-cells", cells(&[3])),
        ("#size-cells", cells(&[2])),
        ("#interrupt-cells", cells(&[1])),
        ("ranges", cells(&[0x200_0000, 0, 0xc000_0000, 6, 0, 0, 0x4000_0000])),
        spis(&[147, 148]),
    ];
    let scb = [
        ("compatible", strings(&["simple-bus"])),
        ("#address-cells", cells(&[2])),
        ("#size-cells", cells(&[1])),
        ("ranges", cells(&[0, 0x7c00_0000, 0, 0xfc00_0000, 0x380_0000])),
    ];
    for child in [
        node("aliases", &aliases, []),
        node("chosen", &[("stdout-path", strings(&["serial1:115200n8"]))], []),
        node("reserved-memory", &[&bus_cells(2, 1)[..], &[("ranges", vec![])]].concat(), reserved),
        node(
            "memory@0",
            &[
                ("device_type", strings(&["memory"])),
                ("reg", cells(&[0, 0, 0x3b40_0000, 0, 0x4000_0000, 0xbc00_0000])),
            ],
            [],
        ),
        node(
            "cpus",
            &bus_cells(1, 0),
            (0..4).map(|cpu| device(&format!("cpu@{cpu}"), "arm,cortex-a72", &[cpu], &[])),
        ),
        node("psci", &[("compatible", strings(&["arm,psci-1.0"])), ("method", strings(&["smc"]))], []),
        node(
            "clk-osc",
            &[
                ("compatible", strings(&["fixed-clock"])),
                ("#clock-cells", cells(&[0])),
                ("clock-frequency", cells(&[54_000_000])),
                ("phandle", cells(&[phandle::CRYSTAL])),
            ],
            [],
        ),
        node(
            "clk-half",
            &[
                ("compatible", strings(&["fixed-factor-clock"])),
                ("#clock-cells", cells(&[0])),
                ("clocks", cells(&[phandle::CRYSTAL])),
                ("clock-mult", cells(&[1])),
                ("clock-div", cells(&[2])),
                ("phandle", cells(&[phandle::HALF])),
            ],
            [],
        ),
        node(
            "sd_vcc",
            &[
                ("compatible", strings(&["regulator-fixed"])),
                ("regulator-min-microvolt", cells(&[3_300_000])),
                ("phandle", cells(&[phandle::SUPPLY])),
            ],
            [],
        ),
        node("soc", &soc, pi_devices()),
        node("emmc2bus", &emmc2bus, [mmc]),
        node("scb", &scb, [node("pcie@7d500000", &pcie, [])]),
        node(
            "timer",
            &[
                ("compatible", strings(&["arm,armv8-timer"])),
                ("interrupts", cells(&[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08])),
            ],
            [],
        ),
    ] {
        tree.root.add_child(child);
    }
    tree
}

/// What is behind the Pi's `/soc`.
fn pi_devices() -> Vec<DeviceTreeNode> {
    let pins = |name: &str, phandle: u32, pins: &[u32]| {
        node(name, &[("brcm,pins", cells(pins)), ("phandle", cells(&[phandle]))], [])
    };
    let gpio = [
        ("compatible", strings(&["brcm,bcm2711-gpio"])),
        ("reg", cells(&[0x7e20_0000, 0xb4])),
        spis(&[113, 114]),
        ("gpio-controller", vec![]),
        ("#gpio-cells", cells(&[2])),
        ("interrupt-controller", vec![]),
        ("#interrupt-cells", cells(&[2])),
        ("gpio-ranges", cells(&[phandle::GPIO, 0, 0, 58])),
        ("phandle", cells(&[phandle::GPIO])),
    ];
    let gpio_children = [
        pins("uart0_gpio32", phandle::UART0_PINS, &[32, 33]),
        pins("uart1_gpio14", phandle::UART1_PINS, &[14, 15]),
        pins("i2c1_gpio2", phandle::I2C_PINS, &[2, 3]),
        node("hog", &[("gpio-hog", vec![]), ("gpios", cells(&[42, 0])), ("output-high", vec![])], []),
    ];
    let spi = |name: &str, address: u32, clock: u32| {
        let more = [
            spis(&[93]),
            ("clocks", cells(&[phandle::AUX, clock])),
            ("#address-cells", cells(&[1])),
            ("#size-cells", cells(&[0])),
            disabled(),
        ];
        device(name, "brcm,bcm2835-aux-spi", &[address, 0x40], &more)
    };
    let pl011 = |name: &str, address: u32, more: &[Property<'_>]| {
        let own = [
            ("compatible", strings(&["arm,pl011", "arm,primecell"])),
            ("reg", cells(&[address, 0x200])),
            spis(&[121]),
            ("clocks", cells(&[phandle::CPRMAN, 19, phandle::CPRMAN, 20])),
            ("clock-names", strings(&["uartclk", "apb_pclk"])),
            ("arm,primecell-periphid", cells(&[0x34_1011])),
        ];
        let bluetooth = [
            ("compatible", strings(&["brcm,bcm43438-bt"])),
            ("shutdown-gpios", cells(&[phandle::GPIO, 17, 0])),
        ];
        node(name, &[&own[..], more].concat(), [node("bluetooth", &bluetooth, [])])
    };
    let uart0_pins = [("pinctrl-names", strings(&["default"])), ("pinctrl-0", cells(&[phandle::UART0_PINS]))];
    let i2c = [
        ("compatible", strings(&["brcm,bcm2711-i2c", "brcm,bcm2835-i2c"])),
        ("reg", cells(&[0x7e80_4000, 0x1000])),
        spis(&[117]),
        ("clocks", cells(&[phandle::CPRMAN, 20])),
        ("#address-cells", cells(&[1])),
        ("#size-cells", cells(&[0])),
        ("pinctrl-names", strings(&["default"])),
        ("pinctrl-0", cells(&[phandle::I2C_PINS])),
        ("status", strings(&["okay"])),
    ];
    let rtc = [
        ("interrupt-parent", cells(&[phandle::GPIO])),
        ("interrupts", cells(&[4, 8])),
        ("reset-gpios", cells(&[phandle::GPIO, 5, 1])),
        ("vcc-supply", cells(&[phandle::SUPPLY])),
    ];
    let i2c_children = [
        device("rtc@68", "dallas,ds3231", &[0x68], &rtc),
        device("eeprom@50", "atmel,24c32", &[0x50], &[disabled()]),
    ];
    let gic = [
        ("interrupt-controller", vec![]),
        ("#interrupt-cells", cells(&[3])),
        ("compatible", strings(&["arm,gic-400"])),
        ("reg", cells(&[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000])),
        ("interrupts", cells(&[1, 9, 0xf04])),
        ("phandle", cells(&[phandle::GIC])),
    ];
    let uart1 = [
        spis(&[93]),
        ("clocks", cells(&[phandle::AUX, 0])),
        ("pinctrl-names", strings(&["default"])),
        ("pinctrl-0", cells(&[phandle::UART1_PINS])),
        ("status", strings(&["okay"])),
    ];
    vec![
        node("gpio@7e200000", &gpio, gpio_children),
        device(
            "cprman@7e101000",
            "brcm,bcm2711-cprman",
            &[0x7e10_1000, 0x2000],
            &[
                ("#clock-cells", cells(&[1])),
                ("clocks", cells(&[phandle::CRYSTAL])),
                ("phandle", cells(&[phandle::CPRMAN])),
            ],
        ),
        pl011("serial@7e201000", 0x7e20_1000, &uart0_pins),
        pl011("serial@7e201400", 0x7e20_1400, &[disabled()]),
        pl011("serial@7e201600", 0x7e20_1600, &[disabled()]),
        device(
            "aux@7e215000",
            "brcm,bcm2835-aux",
            &[0x7e21_5000, 8],
            &[
                ("#clock-cells", cells(&[1])),
                ("clocks", cells(&[phandle::CPRMAN, 20])),
                ("phandle", cells(&[phandle::AUX])),
            ],
        ),
        device("serial@7e215040", "brcm,bcm2835-aux-uart", &[0x7e21_5040, 0x40], &uart1),
        spi("spi@7e215080", 0x7e21_5080, 1),
        spi("spi@7e2150c0", 0x7e21_50c0, 2),
        node("i2c@7e804000", &i2c, i2c_children),
        device(
            "dma@7e007000",
            "brcm,bcm2835-dma",
            &[0x7e00_7000, 0xb00],
            &[
                spis(&[80, 81]),
                ("#dma-cells", cells(&[1])),
                ("interrupt-names", strings(&["dma0", "dma1"])),
                ("phandle", cells(&[phandle::DMA])),
            ],
        ),
        device(
            "spi@7e204000",
            "brcm,bcm2835-spi",
            &[0x7e20_4000, 0x200],
            &[
                spis(&[118]),
                ("clocks", cells(&[phandle::CPRMAN, 20])),
                ("dmas", cells(&[phandle::DMA, 6, phandle::DMA, 7])),
                ("dma-names", strings(&["tx", "rx"])),
                ("cs-gpios", cells(&[0, phandle::GPIO, 7, 1])),
                ("power-domains", cells(&[phandle::POWER, 3])),
                ("power-domain-names", strings(&["core"])),
            ],
        ),
        device("watchdog@7e100000", "brcm,bcm2835-pm-wdt", &[0x7e10_0000, 0x114, 0x7e00_a000, 0x24], &[]),
        device(
            "power@7e00b000",
            "brcm,bcm2835-power",
            &[0x7e00_b000, 0x40],
            &[("#power-domain-cells", cells(&[1])), ("phandle", cells(&[phandle::POWER]))],
        ),
        device("rng@7e104000", "brcm,bcm2711-rng200", &[0x7e10_4000, 0x28], &[]),
        node("interrupt-controller@40041000", &gic, []),
    ]
}

/// A board like QEMU's `virt`, with a second PL011 and what else a test needs.
pub fn virt(devices: impl IntoIterator<Item = DeviceTreeNode>) -> DeviceTree {
    let mut tree = DeviceTree::new();
    set(&mut tree, "/", "#address-cells", cells(&[2]));
    set(&mut tree, "/", "#size-cells", cells(&[2]));
    set(&mut tree, "/", "interrupt-parent", cells(&[0x8001]));
    set(&mut tree, "/", "dma-coherent", vec![]);
    let gic =
        [("interrupt-controller", vec![]), ("#interrupt-cells", cells(&[3])), ("phandle", cells(&[0x8001]))];
    let memory = [("device_type", strings(&["memory"])), ("reg", cells(&[0, 0x4000_0000, 0, 0x8000_0000]))];
    tree.root.add_child(node("memory@40000000", &memory, []));
    tree.root.add_child(device("intc@8000000", "arm,gic-v3", &[0, 0x800_0000, 0, 0x1_0000], &gic));
    devices.into_iter().for_each(|device| tree.root.add_child(device));
    tree
}

/// A device of that board that is known to do no DMA.
pub fn quiet(name: &str, address: u32, size: u32, more: &[Property<'_>]) -> DeviceTreeNode {
    device(name, "arm,pl031", &[0, address, 0, size], more)
}

/// One that may do any.
pub fn loud(name: &str, address: u32, size: u32, more: &[Property<'_>]) -> DeviceTreeNode {
    device(name, "virtio,mmio", &[0, address, 0, size], more)
}

/// What Hanok keeps of the Pi: its interrupt controller, and one of the UARTs as the console.
pub fn pi_own() -> Vec<Own> {
    let gic = [(PI_GICD, 0x1000), (0xff84_2000, 0x2000), (0xff84_4000, 0x2000), (0xff84_6000, 0x2000)];
    let own = |start, size, line, what| Own::new(Pa::new(start), size, line, what);
    let gic = gic.map(|(start, size)| own(start, size, None, "the interrupt controller"));
    let console = own(0xfe20_1000, 0x200, Some(32 + 121), "the console");
    let power = own(0xfe10_0000, 0x114, None, "the board's power manager");
    let counters = [48, 49, 50, 51].map(|line| own(0, 0, Some(line), "the CPUs' performance counters"));
    gic.into_iter().chain([console, power]).chain(counters).collect()
}

/// A VM that wants these devices, with a layout like QEMU's.
pub fn vm<'a>(name: &'a str, devices: &[&'a str]) -> VmConfig<'a> {
    let devices = DeviceConfig { nodes: devices.to_vec(), ..DeviceConfig::default() };
    VmConfig { name, devices, ..config(Payload::Elf(&[1]), 128 << 20) }
}

/// The same with everything allowed, and the board's layout.
pub fn trusted<'a>(name: &'a str, devices: &[&'a str]) -> VmConfig<'a> {
    let mut vm = vm(name, devices);
    vm.layout = LayoutKind::Board;
    vm.devices.unprotected_dma = true;
    vm.devices.pin_control = true;
    vm
}

pub fn with_rates<'a>(mut vm: VmConfig<'a>, rates: &[u32]) -> VmConfig<'a> {
    vm.devices.clock_rates = rates.to_vec();
    vm
}

/// What a VM is given of a board where nobody else has anything, or the message; the room is its layout's. What it is given is
/// looked at with an independent eye.
/// The devices in a blob; none where it is damaged, or too large.
pub fn find(blob: &[u8], gicd: u64) -> Option<Devices<'_>> {
    let tree = devicetree::Tree::check(blob).ok()?;
    Devices::find(&tree, Pa::new(gicd))
}

pub fn give(tree: &DeviceTree, gicd: u64, own: &[Own], vm: &VmConfig<'_>) -> Result<Given, String> {
    let blob = tree.to_dtb();
    let mut devices = find(&blob, gicd).unwrap();
    give_of(&mut devices, own, vm)
}

/// The same of a board where somebody else may have something.
pub fn give_of(devices: &mut Devices<'_>, own: &[Own], vm: &VmConfig<'_>) -> Result<Given, String> {
    let room = if vm.layout == LayoutKind::Board { ONE_TO_ONE } else { VIRT.devices };
    let given = devices.give(vm, &room, own).map_err(|error| error.to_string())?;
    reader::check(&given);
    Ok(given)
}

pub fn give_pi(tree: &DeviceTree, vm: &VmConfig<'_>) -> Result<Given, String> {
    give(tree, PI_GICD, &pi_own(), vm)
}

pub fn give_virt(tree: &DeviceTree, vm: &VmConfig<'_>) -> Result<Given, String> {
    give(tree, VIRT_GICD, &[], vm)
}

/// Why a VM gets nothing.
pub fn refusal(outcome: Result<Given, String>) -> String {
    outcome.expect_err("a refusal")
}
