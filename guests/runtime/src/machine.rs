//! The machine as its device tree describes it: RAM, CPUs, interrupt controller, timers, UART, clock, and the way
//! to call whoever is above. Read once, before the first line is printed.

use aarch64_cpu::registers::MPIDR_EL1;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property, ToCellInt};
use spin::Once;
use tock_registers::interfaces::Readable;

/// The largest number of CPUs that the runtime has stacks for. Further ones in the tree are left alone.
pub const MAX_CPUS: usize = 8;

/// Bits of MPIDR_EL1 that are affinity: Aff3, and Aff2 to Aff0.
pub const AFFINITY_MASK: u64 = 0xff_00ff_ffff;

/// A range of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
}

impl Region {
    /// The first address behind the region.
    pub fn end(&self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// Whether `address` lies in the region.
    pub fn contains(&self, address: u64) -> bool {
        address >= self.base && address < self.end()
    }
}

/// A device with registers and one interrupt.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Where its registers are.
    pub registers: Region,
    /// Its interrupt, as the GIC numbers them (SPIs from 32, PPIs from 16).
    pub intid: u32,
}

/// Where the interrupt controller is.
#[derive(Clone, Copy, Debug)]
pub enum GicRegisters {
    /// GICv2: distributor and CPU interface.
    V2 {
        /// GICD.
        distributor: Region,
        /// GICC.
        cpu_interface: Region,
    },
    /// GICv3: distributor and the regions of redistributors, unused ones being empty.
    V3 {
        /// GICD.
        distributor: Region,
        /// GICR frames, two or four 64 KiB pages for each CPU.
        redistributors: [Region; 4],
    },
}

/// The instruction that calls whoever is above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// HVC, to a hypervisor.
    Hvc,
    /// SMC, to firmware, or to a hypervisor that catches it.
    Smc,
}

/// What the device tree says.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// The root's `model`.
    pub model: &'static str,
    /// RAM; unused entries are empty.
    pub ram: [Region; 4],
    /// The device tree itself.
    pub tree: Region,
    cpus: [u64; MAX_CPUS],
    cpu_count: usize,
    /// The interrupt controller.
    pub gic: GicRegisters,
    /// The console, a PL011 or what of one the SBSA asks for.
    pub uart: Device,
    /// The console has no registers for line control and baud rate, and is ready as it is: an SBSA Generic UART.
    pub uart_is_sbsa: bool,
    /// The PL031 real-time clock, where there is one.
    pub rtc: Option<Device>,
    /// Interrupt of the EL1 physical timer.
    pub physical_timer: u32,
    /// Interrupt of the EL1 virtual timer.
    pub virtual_timer: u32,
    /// Interrupt of the performance counters, where the tree has one.
    pub counters: Option<u32>,
    /// How the tree says that PSCI is called.
    pub conduit: Conduit,
    /// There are random bytes, `/chosen/rng-seed`.
    pub has_seed: bool,
    /// The command line, `/chosen/bootargs`.
    pub bootargs: &'static str,
}

static MACHINE: Once<Machine> = Once::new();
static TREE: Once<Fdt<'static>> = Once::new();

/// The machine. Panics before the runtime has read the tree, which is before a guest's `main`.
pub fn machine() -> &'static Machine {
    MACHINE.get().expect("the device tree has been read")
}

/// What makes a tree unusable. There is no console to say so on: a debugger finds it in `boot`'s argument.
#[derive(Clone, Copy, Debug)]
pub enum TreeError {
    /// No blob with a valid header, structure and strings.
    NotATree,
    /// No usable node of this kind.
    Missing(&'static str),
}

/// Reads the tree, for good.
pub(crate) fn read(blob: &'static [u8]) -> Result<&'static Machine, TreeError> {
    let tree = Fdt::new(blob).map_err(|_| TreeError::NotATree)?;
    let machine = parse(tree, blob)?;
    TREE.call_once(|| tree);
    Ok(MACHINE.call_once(|| machine))
}

/// The tree, for what only some guests want to know. Panics as [`machine`] does.
pub(crate) fn tree() -> Fdt<'static> {
    *TREE.get().expect("the device tree has been read")
}

impl Machine {
    /// The affinities of the CPUs, the boot CPU first.
    pub fn cpus(&self) -> &[u64] {
        &self.cpus[..self.cpu_count]
    }

    /// All of RAM, in bytes.
    pub fn ram_size(&self) -> u64 {
        self.ram.iter().map(|region| region.size).sum()
    }

    /// The highest address behind any RAM.
    pub fn ram_end(&self) -> u64 {
        self.ram.iter().filter(|region| region.size > 0).map(Region::end).max().unwrap_or(0)
    }

    /// The value of `name=value` in the command line.
    pub fn argument(&self, name: &str) -> Option<&'static str> {
        self.bootargs.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }
}

fn parse(tree: Fdt<'static>, blob: &'static [u8]) -> Result<Machine, TreeError> {
    let root = tree.root();
    let (cpus, cpu_count) = cpus(root)?;
    let uart = uart(tree).ok_or(TreeError::Missing("arm,pl011 or arm,sbsa-uart"))?;
    let chosen = root.child("chosen");
    let bootargs = chosen.and_then(|node| string(node, "bootargs")).unwrap_or("");
    let timer = compatible(root, "arm,armv8-timer").ok_or(TreeError::Missing("arm,armv8-timer"))?;
    let timer = |n| interrupt(timer, n).ok_or(TreeError::Missing("interrupts of arm,armv8-timer"));
    let conduit = match compatible(root, "arm,psci-1.0").or(compatible(root, "arm,psci-0.2")) {
        Some(psci) if string(psci, "method") == Some("smc") => Conduit::Smc,
        _ => Conduit::Hvc,
    };
    Ok(Machine {
        model: string(root, "model").unwrap_or("unknown"),
        ram: ram(root)?,
        tree: Region { base: blob.as_ptr() as u64, size: blob.len() as u64 },
        cpus,
        cpu_count,
        gic: gic(root)?,
        uart: device(uart).ok_or(TreeError::Missing("reg and interrupts of the console"))?,
        uart_is_sbsa: !uart.is_compatible(PL011),
        rtc: compatible(root, "arm,pl031").and_then(device),
        // The binding's order: secure physical, non-secure physical, virtual, hypervisor.
        physical_timer: timer(1)?,
        virtual_timer: timer(2)?,
        counters: compatible(root, "arm,armv8-pmuv3").and_then(|node| interrupt(node, 0)),
        conduit,
        has_seed: chosen.is_some_and(|node| node.properties().any(|property| property.name() == "rng-seed")),
        bootargs,
    })
}

/// A property that is one string.
pub(crate) fn string(node: FdtNode<'static>, name: &str) -> Option<&'static str> {
    node.properties().find(|property| property.name() == name)?.value_as::<&'static str>().ok()
}

/// A property that is one cell.
pub(crate) fn cell(node: FdtNode<'static>, name: &str) -> Option<u32> {
    node.properties().find(|property| property.name() == name)?.value_as::<u32>().ok()
}

fn compatible(root: FdtNode<'static>, name: &str) -> Option<FdtNode<'static>> {
    root.children().find(|node| node.is_compatible(name))
}

/// The `n`th entry of the node's `reg`.
pub(crate) fn region(node: FdtNode<'static>, n: usize) -> Option<Region> {
    let reg = node.reg().ok()??.nth(n)?;
    Some(Region { base: reg.address().ok()?, size: reg.size().ok()? })
}

/// The `n`th interrupt of a node whose interrupt parent is the GIC: kind, number, flags.
pub(crate) fn interrupt(node: FdtNode<'static>, n: usize) -> Option<u32> {
    let interrupts = node.properties().find(|property| property.name() == "interrupts")?;
    let [kind, number, _flags] = interrupts.as_prop_encoded_array([1, 1, 1]).ok()?.nth(n)?;
    let (kind, number): (u32, u32) = (kind.to_int().ok()?, number.to_int().ok()?);
    match kind {
        0 => number.checked_add(32),
        1 => number.checked_add(16),
        _ => None,
    }
}

fn device(node: FdtNode<'static>) -> Option<Device> {
    Some(Device { registers: region(node, 0)?, intid: interrupt(node, 0)? })
}

fn ram(root: FdtNode<'static>) -> Result<[Region; 4], TreeError> {
    let mut ram = [Region::default(); 4];
    let banks = root
        .children()
        .filter(|node| string(*node, "device_type") == Some("memory"))
        .flat_map(|node| (0..).map_while(move |n| region(node, n)))
        .filter(|bank| bank.size > 0);
    for (place, bank) in ram.iter_mut().zip(banks) {
        *place = bank;
    }
    if ram[0].size > 0 { Ok(ram) } else { Err(TreeError::Missing("memory")) }
}

fn cpus(root: FdtNode<'static>) -> Result<([u64; MAX_CPUS], usize), TreeError> {
    let mut cpus = [0; MAX_CPUS];
    let mut count = 0;
    let nodes = root.child("cpus").ok_or(TreeError::Missing("cpus"))?;
    for node in nodes.children().filter(|node| string(*node, "device_type") == Some("cpu")) {
        let affinity = node.reg().ok().flatten().and_then(|mut reg| reg.next()?.address::<u64>().ok());
        if let (Some(affinity), Some(place)) = (affinity, cpus.get_mut(count)) {
            *place = affinity;
            count += 1;
        }
    }
    // The boot CPU comes first, whichever it is.
    let own = MPIDR_EL1.get() & AFFINITY_MASK;
    let place = cpus[..count].iter().position(|cpu| *cpu == own).ok_or(TreeError::Missing("the boot CPU"))?;
    cpus.swap(0, place);
    Ok((cpus, count))
}

fn gic(root: FdtNode<'static>) -> Result<GicRegisters, TreeError> {
    if let Some(node) = compatible(root, "arm,gic-v3") {
        let distributor = region(node, 0).ok_or(TreeError::Missing("reg of arm,gic-v3"))?;
        let regions = node.properties().find(|property| property.name() == "#redistributor-regions");
        let regions = regions.and_then(|property| property.value_as::<u32>().ok()).unwrap_or(1);
        let mut redistributors = [Region::default(); 4];
        for (n, place) in redistributors.iter_mut().enumerate().take(regions as usize) {
            *place = region(node, n + 1).ok_or(TreeError::Missing("redistributors of arm,gic-v3"))?;
        }
        return Ok(GicRegisters::V3 { distributor, redistributors });
    }
    let node = compatible(root, "arm,cortex-a15-gic").or(compatible(root, "arm,gic-400"));
    let node = node.ok_or(TreeError::Missing("arm,gic-v3, arm,cortex-a15-gic or arm,gic-400"))?;
    let reg = |n| region(node, n).ok_or(TreeError::Missing("reg of the GIC"));
    Ok(GicRegisters::V2 { distributor: reg(0)?, cpu_interface: reg(1)? })
}

const PL011: &str = "arm,pl011";
const SBSA_UART: &str = "arm,sbsa-uart";

/// The UART that `/chosen/stdout-path` names, by path or alias, or else the first one.
fn uart(tree: Fdt<'static>) -> Option<FdtNode<'static>> {
    let is_uart = |node: &FdtNode<'static>| node.is_compatible(PL011) || node.is_compatible(SBSA_UART);
    let root = tree.root();
    let path = root.child("chosen").and_then(|node| string(node, "stdout-path"));
    let path = path.map(|path| path.split(':').next().unwrap_or(path));
    let path = path.and_then(|path| match path.starts_with('/') {
        true => Some(path),
        false => root.child("aliases").and_then(|aliases| string(aliases, path)),
    });
    path.and_then(|path| tree.find_node(path)).filter(is_uart).or_else(|| root.children().find(is_uart))
}
