//! The device tree that a VM is given: names and values as on QEMU's `virt`, less what Hanok doesn't offer; and its channels.
//!
//! Equal input gives equal bytes, in which there is room for what is known later ([`Places`]). Of the board's tree it has what [`passthrough`](crate::passthrough) makes of it, and nothing else.

use alloc::vec::Vec;
use alloc::{format, vec};
use core::ops::Range;

use devicetree::Tree;
use vgic::IntId;
use vmm::layout::{DeviceSlot, Ipa, Layout, Region};

use crate::blob::{self, Node};
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
    /// It has an initial RAM disk, whose place [`Places::set_initrd`] tells: that depends on how large the blob is.
    pub has_initrd: bool,
    /// Its ends of channels, as [`ends`](crate::channel::ends) counts them.
    pub channels: &'a [ChannelEnd<'a>],
    /// It has random numbers, which [`Places::set_seeds`] puts in: the board has a source of them.
    pub has_seeds: bool,
    /// The seconds within which it must feed its watchdog, if it has one.
    pub watchdog: Option<u32>,
    /// It has performance monitors, and whether their interrupt with them.
    pub counters: Option<bool>,
    /// It has flash that it can write to, the second bank. The first one has no say in the tree: no store to it has an effect.
    pub has_flash: bool,
    /// What it has of the board's devices ([`Given::nodes`](crate::passthrough::Given::nodes)).
    pub devices: &'a [Node],
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
    pub rng: [u8; RNG_BYTES],
    /// `kaslr-seed`.
    pub kaslr: u64,
}

// Seeds are secrets: no log shows them.
impl core::fmt::Debug for Seeds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seeds(..)")
    }
}

/// Bytes of `rng-seed`.
pub const RNG_BYTES: usize = 64;

const CHOSEN: &str = "chosen";
const INITRD_START: &str = "linux,initrd-start";
const INITRD_END: &str = "linux,initrd-end";
const RNG_SEED: &str = "rng-seed";
const KASLR_SEED: &str = "kaslr-seed";

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
/// The PPI of performance counters.
const COUNTERS_PPI: u32 = IntId::COUNTERS.0 as u32 - 16;
/// The affinity fields of MPIDR_EL1.
const AFFINITY: u64 = 0xff_00ff_ffff;
/// Aff3 alone, which needs a second cell.
const AFF3: u64 = 0xff_0000_0000;
/// The frequency of the clock that the PL011 divides, in Hz.
const UART_CLOCK: u32 = 24_000_000;

/// Makes the blob.
#[inline(never)]
pub fn build(tree: &GuestTree<'_>) -> Vec<u8> {
    let mut root = Node::new("");
    root.set_cells("interrupt-parent", &[GIC]);
    root.set_flag("dma-coherent");
    root.set_text("model", "linux,dummy-virt");
    root.set_cells("#size-cells", &[2]);
    root.set_cells("#address-cells", &[2]);
    root.set_text("compatible", "linux,dummy-virt");
    root.add(psci());
    root.add(memory(tree));
    let [_, flash] = &tree.layout.flash;
    if tree.has_flash {
        root.add(self::flash(flash));
    }
    root.add(rtc(&tree.layout.rtc));
    root.add(uart(&tree.layout.uart));
    root.add(gic(tree));
    root.add(cpus(tree.affinities));
    root.add(timer(tree));
    if let Some(has_interrupt) = tree.counters {
        root.add(counters(tree, has_interrupt));
    }
    root.add(clock());
    if let Some(seconds) = tree.watchdog {
        root.add(watchdog(seconds));
    }
    if !tree.channels.is_empty() {
        root.add(reserved_memory(tree));
    }
    for end in tree.channels {
        root.add(channel(end, tree.layout));
    }
    for device in tree.devices {
        root.add(device.clone());
    }
    let console = format!("/{}", uart_name(&tree.layout.uart));
    let mut aliases = Node::new("aliases");
    aliases.set_text("serial0", &console);
    root.add(aliases);
    root.add(chosen(tree, &console));
    blob::build(&root)
}

/// The two cells of a 64-bit number.
pub(crate) fn cells(value: u64) -> [u32; 2] {
    // Truncation takes the low half, which is what the second cell is.
    [(value >> 32) as u32, value as u32]
}

/// `reg` with one entry for each region.
fn set_reg(node: &mut Node, regions: &[Region]) {
    let reg = regions.iter().flat_map(|region| [region.base.as_u64(), region.size]).flat_map(cells);
    node.set_cells("reg", &reg.collect::<Vec<u32>>());
}

fn psci() -> Node {
    let mut psci = Node::new("psci");
    psci.set_cells("cpu_on", &[0xc400_0003]);
    psci.set_cells("cpu_off", &[0x8400_0002]);
    psci.set_cells("cpu_suspend", &[0xc400_0001]);
    psci.set_text("method", "hvc");
    psci.set_texts("compatible", &["arm,psci-1.0", "arm,psci-0.2", "arm,psci"]);
    psci
}

/// Linux, `Documentation/devicetree/bindings/watchdog/arm-smc-wdt.yaml`.
fn watchdog(seconds: u32) -> Node {
    let mut watchdog = Node::new("watchdog");
    watchdog.set_cells("timeout-sec", &[seconds]);
    watchdog.set_cells("arm,smc-id", &[abi::hanok::WATCHDOG.as_u32()]);
    watchdog.set_text("compatible", "arm,smc-wdt");
    watchdog
}

fn memory(tree: &GuestTree<'_>) -> Node {
    let base = tree.layout.ram.base;
    let mut memory = Node::new(&format!("memory@{:x}", base.as_u64()));
    set_reg(&mut memory, &[Region { base, size: tree.memory }]);
    memory.set_text("device_type", "memory");
    memory
}

/// Linux, `Documentation/devicetree/bindings/mtd/mtd-physmap.yaml`.
fn flash(bank: &Region) -> Node {
    let mut flash = Node::new(&format!("flash@{:x}", bank.base.as_u64()));
    flash.set_cells("bank-width", &[4]);
    set_reg(&mut flash, &[*bank]);
    flash.set_text("compatible", "cfi-flash");
    flash
}

fn rtc(rtc: &DeviceSlot) -> Node {
    let mut node = Node::new(&format!("pl031@{:x}", rtc.registers.base.as_u64()));
    node.set_text("clock-names", "apb_pclk");
    node.set_cells("clocks", &[CLOCK]);
    node.set_cells("interrupts", &[SPI, rtc.spi, LEVEL]);
    set_reg(&mut node, &[rtc.registers]);
    node.set_texts("compatible", &["arm,pl031", "arm,primecell"]);
    node
}

fn uart_name(uart: &DeviceSlot) -> alloc::string::String {
    format!("pl011@{:x}", uart.registers.base.as_u64())
}

fn uart(uart: &DeviceSlot) -> Node {
    let mut node = Node::new(&uart_name(uart));
    node.set_texts("clock-names", &["uartclk", "apb_pclk"]);
    node.set_cells("clocks", &[CLOCK, CLOCK]);
    node.set_cells("interrupts", &[SPI, uart.spi, LEVEL]);
    set_reg(&mut node, &[uart.registers]);
    node.set_texts("compatible", &["arm,pl011", "arm,primecell"]);
    node
}

fn gic(tree: &GuestTree<'_>) -> Node {
    let layout = tree.layout;
    let mut gic = Node::new(&format!("intc@{:x}", layout.gicd.base.as_u64()));
    gic.set_cells("phandle", &[GIC]);
    match tree.gic {
        GicVersion::V2 => {
            set_reg(&mut gic, &[layout.gicd, layout.gicc]);
            gic.set_text("compatible", "arm,cortex-a15-gic");
        }
        GicVersion::V3 => {
            set_reg(&mut gic, &[layout.gicd, layout.gicr]);
            gic.set_cells("#redistributor-regions", &[1]);
            gic.set_text("compatible", "arm,gic-v3");
        }
    }
    gic.set_cells("#address-cells", &[0]);
    gic.set_flag("interrupt-controller");
    gic.set_cells("#interrupt-cells", &[3]);
    gic
}

fn cpus(affinities: &[u64]) -> Node {
    let mut cpus = Node::new("cpus");
    let wide = affinities.iter().any(|affinity| affinity & AFF3 != 0);
    cpus.set_cells("#size-cells", &[0]);
    cpus.set_cells("#address-cells", &[if wide { 2 } else { 1 }]);
    for affinity in affinities {
        cpus.add(cpu(affinity & AFFINITY, wide));
    }
    cpus
}

fn cpu(affinity: u64, wide: bool) -> Node {
    let mut cpu = Node::new(&format!("cpu@{affinity:x}"));
    let [high, low] = cells(affinity);
    if wide {
        cpu.set_cells("reg", &[high, low]);
    } else {
        cpu.set_cells("reg", &[low]);
    }
    cpu.set_text("enable-method", "psci");
    cpu.set_text("compatible", "arm,armv8");
    cpu.set_text("device_type", "cpu");
    cpu
}

/// The last cell of a level-sensitive PPI.
fn private_flags(tree: &GuestTree<'_>) -> u32 {
    match tree.gic {
        // Bits 8 to 15 say which CPUs have the interrupt, of the eight that GICv2 can have.
        GicVersion::V2 => LEVEL | (!(u32::MAX << tree.affinities.len().min(8)) << 8),
        GicVersion::V3 => LEVEL,
    }
}

/// Linux, `Documentation/devicetree/bindings/arm/pmu.yaml`.
fn counters(tree: &GuestTree<'_>, has_interrupt: bool) -> Node {
    let mut counters = Node::new("pmu");
    if has_interrupt {
        counters.set_cells("interrupts", &[PPI, COUNTERS_PPI, private_flags(tree)]);
    }
    counters.set_text("compatible", "arm,armv8-pmuv3");
    counters
}

fn timer(tree: &GuestTree<'_>) -> Node {
    let flags = private_flags(tree);
    let interrupts = TIMER_PPIS.iter().flat_map(|&ppi| [PPI, ppi, flags]);
    let mut timer = Node::new("timer");
    timer.set_cells("interrupts", &interrupts.collect::<Vec<u32>>());
    timer.set_flag("always-on");
    timer.set_texts("compatible", &["arm,armv8-timer", "arm,armv7-timer"]);
    timer
}

fn clock() -> Node {
    let mut clock = Node::new("apb-pclk");
    clock.set_cells("phandle", &[CLOCK]);
    clock.set_text("clock-output-names", "clk24mhz");
    clock.set_cells("clock-frequency", &[UART_CLOCK]);
    clock.set_cells("#clock-cells", &[0]);
    clock.set_text("compatible", "fixed-clock");
    clock
}

/// The memory of channels. It lies outside of RAM and is named here so that a system keeps off it that would put something there.
///
/// Without `no-map`: that forbids a mapping by any but a driver, and systems take it as a reason to map the memory uncached. Both
/// ends have to map it as what it is, Normal write-back.
fn reserved_memory(tree: &GuestTree<'_>) -> Node {
    let mut memory = Node::new("reserved-memory");
    memory.set_flag("ranges");
    memory.set_cells("#size-cells", &[2]);
    memory.set_cells("#address-cells", &[2]);
    for end in tree.channels {
        let region = end.region(tree.layout);
        let mut child = Node::new(&format!("channel@{:x}", region.base.as_u64()));
        child.set_cells("phandle", &[channel_memory(end)]);
        set_reg(&mut child, &[region]);
        memory.add(child);
    }
    memory
}

fn channel_memory(end: &ChannelEnd<'_>) -> u32 {
    CHANNEL_MEMORY.saturating_add(end.number)
}

fn channel(end: &ChannelEnd<'_>, layout: &Layout) -> Node {
    let mut channel = Node::new(&format!("channel-{}", end.number));
    channel.set_cells("hanok,number", &[end.number]);
    channel.set_cells("hanok,side", &[end.side]);
    channel.set_text("hanok,peer", end.peer);
    channel.set_text("label", end.name);
    channel.set_cells("interrupts", &[SPI, end.spi(layout), EDGE]);
    channel.set_cells("memory-region", &[channel_memory(end)]);
    channel.set_text("compatible", CHANNEL_COMPATIBLE);
    channel
}

fn chosen(tree: &GuestTree<'_>, console: &str) -> Node {
    let mut chosen = Node::new(CHOSEN);
    if tree.has_initrd {
        chosen.set_cells(INITRD_END, &[0; 2]);
        chosen.set_cells(INITRD_START, &[0; 2]);
    }
    if let Some(bootargs) = tree.bootargs {
        chosen.set_text("bootargs", bootargs);
    }
    chosen.set_text("stdout-path", console);
    if tree.has_seeds {
        chosen.set(RNG_SEED, vec![0; RNG_BYTES]);
        chosen.set_cells(KASLR_SEED, &[0; 2]);
    }
    chosen
}

/// Where a blob has what is put into it when it has been made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    initrd_start: Option<usize>,
    initrd_end: Option<usize>,
    rng_seed: Option<usize>,
    kaslr_seed: Option<usize>,
}

impl Places {
    /// Looks for them.
    pub fn find(blob: &[u8]) -> Self {
        let mut places = Self::default();
        let tree = Tree::check(blob).ok();
        let chosen =
            tree.and_then(|tree| tree.nodes().find(|node| node.depth == 1 && node.name == CHOSEN.as_bytes()));
        for property in chosen.iter().flat_map(devicetree::Node::properties) {
            let place = match str::from_utf8(property.name) {
                Ok(INITRD_START) => &mut places.initrd_start,
                Ok(INITRD_END) => &mut places.initrd_end,
                Ok(RNG_SEED) => &mut places.rng_seed,
                Ok(KASLR_SEED) => &mut places.kaslr_seed,
                _ => continue,
            };
            *place = Some(property.offset);
        }
        places
    }

    /// Puts in where the initial RAM disk lies.
    pub fn set_initrd(&self, blob: &mut [u8], initrd: &Range<Ipa>) {
        put(blob, self.initrd_start, &initrd.start.as_u64().to_be_bytes());
        put(blob, self.initrd_end, &initrd.end.as_u64().to_be_bytes());
    }

    /// Puts in fresh random numbers.
    pub fn set_seeds(&self, blob: &mut [u8], seeds: &Seeds) {
        put(blob, self.rng_seed, &seeds.rng);
        put(blob, self.kaslr_seed, &seeds.kaslr.to_be_bytes());
    }
}

fn put(blob: &mut [u8], place: Option<usize>, bytes: &[u8]) {
    let room = place.and_then(|place| blob.get_mut(place..place.checked_add(bytes.len())?));
    if let Some(room) = room {
        room.copy_from_slice(bytes);
    }
}
