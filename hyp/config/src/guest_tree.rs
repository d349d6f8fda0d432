//! The device tree that a VM is given: names and values as on QEMU's `virt`, less what Hanok doesn't offer; and its channels.
//!
//! Equal input gives equal bytes. Of the board's tree it has what [`passthrough`](crate::passthrough) makes of it, and nothing else.

use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use vmm::layout::{DeviceSlot, Ipa, Layout, Region};

use crate::channel::ChannelEnd;
use crate::manifest::CHANNEL_COMPATIBLE;

/// What a VM's tree is made from.
#[derive(Clone, Debug)]
pub struct GuestTree<'a> {
    /// Where things are.
    pub layout: &'a Layout,
    /// RAM in bytes.
    pub memory: u64,
    /// The affinity of each vCPU: the fields Aff3 to Aff0 at their places in MPIDR_EL1; other bits are ignored.
    pub affinities: &'a [u64],
    /// The interrupt controller that the VM sees.
    pub gic: GicVersion,
    /// The command line.
    pub bootargs: Option<&'a str>,
    /// Where the initial RAM disk lies.
    pub initrd: Option<Range<Ipa>>,
    /// Its ends of channels, as [`ends`](crate::channel::ends) counts them.
    pub channels: &'a [ChannelEnd<'a>],
    /// Fresh random numbers, if the board has a source of them.
    pub seeds: Option<Seeds>,
    /// The seconds within which it must feed its watchdog, if it has one.
    pub watchdog: Option<u32>,
    /// What it has of the board's devices ([`Given::nodes`](crate::passthrough::Given::nodes)).
    pub devices: &'a [DeviceTreeNode],
}

/// The version of a VM's interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicVersion {
    /// GICv2.
    V2,
    /// GICv3.
    V3,
}

/// Random numbers for `/chosen`: fresh for every VM and every start, and used nowhere else.
#[derive(Clone)]
pub struct Seeds {
    /// `rng-seed`; Linux credits it bit by bit.
    pub rng: [u8; 64],
    /// `kaslr-seed`.
    pub kaslr: u64,
}

// Seeds are secrets: no log shows them.
impl core::fmt::Debug for Seeds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seeds(..)")
    }
}

/// Phandle of the interrupt controller.
pub(crate) const GIC: u32 = 1;
/// Phandle of the devices' clock.
const CLOCK: u32 = 2;
/// Phandle of the memory of the channel with number 0; those of the others follow.
const CHANNEL_MEMORY: u32 = 3;
/// First cell of an interrupt: shared or private (Linux, bindings/interrupt-controller/arm,gic.yaml).
pub(crate) const SPI: u32 = 0;
const PPI: u32 = 1;
/// Last cell of an interrupt: level-sensitive, active high.
pub(crate) const LEVEL: u32 = 4;
/// Last cell of an interrupt: a rising edge.
pub(crate) const EDGE: u32 = 1;
/// The generic timer's PPIs in the order of its binding: secure and non-secure EL1 physical, virtual, EL2. A guest can use the second and
/// the third.
const TIMER_PPIS: [u32; 4] = [13, 14, 11, 10];
/// The affinity fields of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// Aff3 alone, which needs a second cell.
const AFF3: u64 = 0xff_0000_0000;
/// The frequency of the clock that the PL011 divides, in Hz.
const UART_CLOCK: u32 = 24_000_000;

/// The most bytes that the tree takes, `initrd` set or not: for [`payload::plan`](crate::payload::plan), which finds out where
/// the RAM disk lies.
pub fn size(tree: &GuestTree<'_>) -> u64 {
    let with_initrd = GuestTree { initrd: Some(tree.layout.ram.base..tree.layout.ram.base), ..tree.clone() };
    u64::try_from(build(&with_initrd).len()).unwrap_or(u64::MAX)
}

/// Makes the blob.
pub fn build(tree: &GuestTree<'_>) -> Vec<u8> {
    let mut blob = DeviceTree::new();
    let root = &mut blob.root;
    set(root, "interrupt-parent", GIC);
    set(root, "dma-coherent", [0_u8; 0]);
    set(root, "model", "linux,dummy-virt");
    set(root, "#size-cells", 2_u32);
    set(root, "#address-cells", 2_u32);
    set(root, "compatible", "linux,dummy-virt");
    root.add_child(psci());
    root.add_child(memory(tree));
    root.add_child(rtc(&tree.layout.rtc));
    root.add_child(uart(&tree.layout.uart));
    root.add_child(gic(tree));
    root.add_child(cpus(tree.affinities));
    root.add_child(timer(tree));
    root.add_child(clock());
    if let Some(seconds) = tree.watchdog {
        root.add_child(watchdog(seconds));
    }
    if !tree.channels.is_empty() {
        root.add_child(reserved_memory(tree));
    }
    for end in tree.channels {
        root.add_child(channel(end, tree.layout));
    }
    for device in tree.devices {
        root.add_child(device.clone());
    }
    let console = format!("/{}", uart_name(&tree.layout.uart));
    let mut aliases = node("aliases");
    set(&mut aliases, "serial0", console.as_str());
    root.add_child(aliases);
    root.add_child(chosen(tree, &console));
    blob.to_dtb()
}

/// A node; all names here are valid ones.
pub(crate) fn node(name: &str) -> DeviceTreeNode {
    DeviceTreeNode::new_unchecked(name)
}

/// Appends a property.
pub(crate) fn set<T: ToPropertyValue>(node: &mut DeviceTreeNode, name: &str, value: T) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

/// The two cells of a 64-bit number.
pub(crate) fn cells(value: u64) -> [u32; 2] {
    // Truncation takes the low half, which is what the second cell is.
    [(value >> 32) as u32, value as u32]
}

/// `reg` with one entry for each region.
fn set_reg<const N: usize>(node: &mut DeviceTreeNode, regions: [Region; N]) {
    let reg = regions.iter().flat_map(|region| [region.base.as_u64(), region.size]).flat_map(cells);
    set(node, "reg", reg.collect::<Vec<u32>>());
}

fn psci() -> DeviceTreeNode {
    let mut psci = node("psci");
    set(&mut psci, "cpu_on", 0xc400_0003_u32);
    set(&mut psci, "cpu_off", 0x8400_0002_u32);
    set(&mut psci, "cpu_suspend", 0xc400_0001_u32);
    set(&mut psci, "method", "hvc");
    set(&mut psci, "compatible", ["arm,psci-1.0", "arm,psci-0.2", "arm,psci"].as_slice());
    psci
}

/// Linux, `Documentation/devicetree/bindings/watchdog/arm-smc-wdt.yaml`.
fn watchdog(seconds: u32) -> DeviceTreeNode {
    let mut watchdog = node("watchdog");
    set(&mut watchdog, "timeout-sec", seconds);
    set(&mut watchdog, "arm,smc-id", abi::hanok::WATCHDOG.as_u32());
    set(&mut watchdog, "compatible", "arm,smc-wdt");
    watchdog
}

fn memory(tree: &GuestTree<'_>) -> DeviceTreeNode {
    let base = tree.layout.ram.base;
    let mut memory = node(&format!("memory@{:x}", base.as_u64()));
    set_reg(&mut memory, [Region { base, size: tree.memory }]);
    set(&mut memory, "device_type", "memory");
    memory
}

fn rtc(rtc: &DeviceSlot) -> DeviceTreeNode {
    let mut node = node(&format!("pl031@{:x}", rtc.registers.base.as_u64()));
    set(&mut node, "clock-names", "apb_pclk");
    set(&mut node, "clocks", CLOCK);
    set(&mut node, "interrupts", [SPI, rtc.spi, LEVEL]);
    set_reg(&mut node, [rtc.registers]);
    set(&mut node, "compatible", ["arm,pl031", "arm,primecell"].as_slice());
    node
}

fn uart_name(uart: &DeviceSlot) -> alloc::string::String {
    format!("pl011@{:x}", uart.registers.base.as_u64())
}

fn uart(uart: &DeviceSlot) -> DeviceTreeNode {
    let mut node = node(&uart_name(uart));
    set(&mut node, "clock-names", ["uartclk", "apb_pclk"].as_slice());
    set(&mut node, "clocks", [CLOCK, CLOCK]);
    set(&mut node, "interrupts", [SPI, uart.spi, LEVEL]);
    set_reg(&mut node, [uart.registers]);
    set(&mut node, "compatible", ["arm,pl011", "arm,primecell"].as_slice());
    node
}

fn gic(tree: &GuestTree<'_>) -> DeviceTreeNode {
    let layout = tree.layout;
    let mut gic = node(&format!("intc@{:x}", layout.gicd.base.as_u64()));
    set(&mut gic, "phandle", GIC);
    match tree.gic {
        GicVersion::V2 => {
            set_reg(&mut gic, [layout.gicd, layout.gicc]);
            set(&mut gic, "compatible", "arm,cortex-a15-gic");
        }
        GicVersion::V3 => {
            set_reg(&mut gic, [layout.gicd, layout.gicr]);
            set(&mut gic, "#redistributor-regions", 1_u32);
            set(&mut gic, "compatible", "arm,gic-v3");
        }
    }
    set(&mut gic, "#address-cells", 0_u32);
    set(&mut gic, "interrupt-controller", [0_u8; 0]);
    set(&mut gic, "#interrupt-cells", 3_u32);
    gic
}

fn cpus(affinities: &[u64]) -> DeviceTreeNode {
    let mut cpus = node("cpus");
    let wide = affinities.iter().any(|affinity| affinity & AFF3 != 0);
    set(&mut cpus, "#size-cells", 0_u32);
    set(&mut cpus, "#address-cells", if wide { 2_u32 } else { 1 });
    for affinity in affinities {
        cpus.add_child(cpu(affinity & AFFINITY, wide));
    }
    cpus
}

fn cpu(affinity: u64, wide: bool) -> DeviceTreeNode {
    let mut cpu = node(&format!("cpu@{affinity:x}"));
    let [high, low] = cells(affinity);
    if wide {
        set(&mut cpu, "reg", [high, low]);
    } else {
        set(&mut cpu, "reg", low);
    }
    set(&mut cpu, "enable-method", "psci");
    set(&mut cpu, "compatible", "arm,armv8");
    set(&mut cpu, "device_type", "cpu");
    cpu
}

fn timer(tree: &GuestTree<'_>) -> DeviceTreeNode {
    let flags = match tree.gic {
        // Bits 8 to 15 say which CPUs have the interrupt, of the eight that GICv2 can have.
        GicVersion::V2 => LEVEL | (!(u32::MAX << tree.affinities.len().min(8)) << 8),
        GicVersion::V3 => LEVEL,
    };
    let interrupts = TIMER_PPIS.iter().flat_map(|&ppi| [PPI, ppi, flags]);
    let mut timer = node("timer");
    set(&mut timer, "interrupts", interrupts.collect::<Vec<u32>>());
    set(&mut timer, "always-on", [0_u8; 0]);
    set(&mut timer, "compatible", ["arm,armv8-timer", "arm,armv7-timer"].as_slice());
    timer
}

fn clock() -> DeviceTreeNode {
    let mut clock = node("apb-pclk");
    set(&mut clock, "phandle", CLOCK);
    set(&mut clock, "clock-output-names", "clk24mhz");
    set(&mut clock, "clock-frequency", UART_CLOCK);
    set(&mut clock, "#clock-cells", 0_u32);
    set(&mut clock, "compatible", "fixed-clock");
    clock
}

/// The memory of channels. It lies outside of RAM and is named here so that a system keeps off it that would put something there.
///
/// Without `no-map`: that forbids a mapping by any but a driver, and systems take it as a reason to map the memory uncached. Both
/// ends have to map it as what it is, Normal write-back.
fn reserved_memory(tree: &GuestTree<'_>) -> DeviceTreeNode {
    let mut memory = node("reserved-memory");
    set(&mut memory, "ranges", [0_u8; 0]);
    set(&mut memory, "#size-cells", 2_u32);
    set(&mut memory, "#address-cells", 2_u32);
    for end in tree.channels {
        let region = end.region(tree.layout);
        let mut child = node(&format!("channel@{:x}", region.base.as_u64()));
        set(&mut child, "phandle", channel_memory(end));
        set_reg(&mut child, [region]);
        memory.add_child(child);
    }
    memory
}

fn channel_memory(end: &ChannelEnd<'_>) -> u32 {
    CHANNEL_MEMORY.saturating_add(end.number)
}

fn channel(end: &ChannelEnd<'_>, layout: &Layout) -> DeviceTreeNode {
    let mut channel = node(&format!("channel-{}", end.number));
    set(&mut channel, "hanok,number", end.number);
    set(&mut channel, "hanok,side", end.side);
    set(&mut channel, "hanok,peer", end.peer);
    set(&mut channel, "label", end.name);
    set(&mut channel, "interrupts", [SPI, end.spi(layout), EDGE]);
    set(&mut channel, "memory-region", channel_memory(end));
    set(&mut channel, "compatible", CHANNEL_COMPATIBLE);
    channel
}

fn chosen(tree: &GuestTree<'_>, console: &str) -> DeviceTreeNode {
    let mut chosen = node("chosen");
    if let Some(initrd) = &tree.initrd {
        set(&mut chosen, "linux,initrd-end", initrd.end.as_u64());
        set(&mut chosen, "linux,initrd-start", initrd.start.as_u64());
    }
    if let Some(bootargs) = tree.bootargs {
        set(&mut chosen, "bootargs", bootargs);
    }
    set(&mut chosen, "stdout-path", console);
    if let Some(seeds) = &tree.seeds {
        set(&mut chosen, "rng-seed", seeds.rng);
        set(&mut chosen, "kaslr-seed", seeds.kaslr);
    }
    chosen
}
