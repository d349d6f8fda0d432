//! The board as EL2 needs it, read from a checked tree in one pass over its nodes.
//!
//! Nodes are recognised by `compatible` and `device_type`, as the Devicetree Specification and the kernel's bindings
//! have them; everything else is left alone. Addresses are translated through the `ranges` of every bus above.

use arrayvec::{ArrayString, ArrayVec};
use fdt::Fdt;
use fdt::node::FdtNode;
use stage2::Pa;
use thiserror::Error;

use super::Shape;

/// Most CPUs that a board may have.
pub const MAX_CPUS: usize = 64;
const MAX_REGIONS: usize = 64;
const MAX_UARTS: usize = 8;
const MAX_DEPTH: usize = 16;
const MAX_RANGES: usize = 8;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub start: Pa,
    /// Length in bytes.
    pub size: u64,
}

impl Range {
    /// The first address behind the range.
    pub fn end(&self) -> u64 {
        self.start.as_u64().saturating_add(self.size)
    }
}

/// Memory that firmware keeps for itself or for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where it lies.
    pub range: Range,
    /// It may not even be mapped (`no-map`).
    pub no_map: bool,
}

/// How a CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// PSCI's CPU_ON.
    Psci,
    /// It polls this address for where to go.
    SpinTable(Pa),
    /// The tree doesn't say, or names a method that is not known.
    Unknown,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its affinity, as MPIDR_EL1 has it in Aff3..Aff0.
    pub mpidr: u64,
    /// How it is started.
    pub enable_method: EnableMethod,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv2 with virtualization extensions.
    V2 {
        /// Distributor.
        gicd: Range,
        /// Physical CPU interface.
        gicc: Range,
        /// Virtual interface control.
        gich: Range,
        /// Virtual CPU interface, which guests see as their GICC.
        gicv: Range,
        /// INTID of the maintenance interrupt.
        maintenance: u32,
    },
    /// GICv3 or later, by system registers.
    V3 {
        /// Distributor.
        gicd: Range,
        /// Redistributor regions.
        redistributors: ArrayVec<Range, MAX_RANGES>,
        /// Distance between redistributors in bytes, where the tree says it.
        stride: Option<u64>,
        /// INTID of the maintenance interrupt.
        maintenance: u32,
    },
}

/// INTIDs of the generic timer's interrupts (binding `arm,armv8-timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// EL1 physical timer (non-secure).
    pub physical: u32,
    /// EL1 virtual timer.
    pub virtual_: u32,
    /// EL2 physical timer.
    pub hypervisor: u32,
}

/// Kinds of UART that EL2 can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm PrimeCell PL011.
    Pl011,
}

/// The UART that the tree's `stdout-path` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// What it is.
    pub kind: UartKind,
    /// Its registers.
    pub registers: Range,
    /// Its INTID.
    pub interrupt: Option<u32>,
    /// The frequency of its clock in Hz, where the tree has it as a fixed clock.
    pub clock: Option<u32>,
}

/// How firmware's PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Psci {
    /// By SMC, the only way there is from EL2.
    Smc,
    /// By HVC, which from EL2 would be a call to EL2 itself.
    Hvc,
}

/// All that EL2 takes from the tree. Text borrows from the tree's blob.
#[derive(Debug, Default)]
pub struct Board<'a> {
    /// `model`, or else the first `compatible` string.
    pub model: &'a str,
    /// RAM banks.
    pub memory: ArrayVec<Range, MAX_REGIONS>,
    /// Reserved memory, from `/reserved-memory` and the blob's own reservation block.
    pub reserved: ArrayVec<Reserved, MAX_REGIONS>,
    /// CPUs, in the tree's order.
    pub cpus: ArrayVec<Cpu, MAX_CPUS>,
    /// The interrupt controller.
    pub gic: Option<Gic>,
    /// The timer's interrupts.
    pub timer: Option<Timer>,
    /// The console.
    pub uart: Option<Uart>,
    /// A PL031 real-time clock.
    pub rtc: Option<Range>,
    /// How firmware is called.
    pub psci: Option<Psci>,
    /// `linux,initrd-start` to `linux,initrd-end`: the VM bundle.
    pub initrd: Option<Range>,
    /// `/chosen/bootargs`.
    pub bootargs: &'a str,
    /// `/chosen/rng-seed`.
    pub rng_seed: &'a [u8],
}

/// What a tree lacks, or has in a form that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum BoardError {
    #[error("the device tree's reader refuses the blob")]
    Reader,
    #[error("the device tree has no {0}")]
    Missing(&'static str),
    #[error("node {node} of the device tree: {what}")]
    Node { node: ArrayString<64>, what: &'static str },
    #[error("the device tree has more {0} than fit")]
    TooMany(&'static str),
}

impl<'a> Board<'a> {
    /// Reads a blob that [`super::check`] has found good.
    ///
    /// # Errors
    /// What a hypervisor cannot do without is missing or malformed: RAM, CPUs, GIC, timer. A missing UART is not an
    /// error: a board may run without a console.
    pub fn read(blob: &'a [u8], shape: &Shape) -> Result<Self, BoardError> {
        let mut reader = Reader::new();
        let board = reader.run(blob, shape)?;
        let need = |there: bool, what| if there { Ok(()) } else { Err(BoardError::Missing(what)) };
        need(!board.memory.is_empty(), "memory")?;
        need(!board.cpus.is_empty(), "CPUs")?;
        need(board.gic.is_some(), "interrupt controller that is known (GICv2 or GICv3)")?;
        need(board.timer.is_some(), "arm,armv8-timer")?;
        Ok(board)
    }

    /// Only the console, from a tree that may lack everything else: for the message that says so.
    pub fn console_of(blob: &'a [u8], shape: &Shape) -> Option<Uart> {
        Reader::new().run(blob, shape).ok()?.uart
    }
}

/// A bus on the way from the root to the node at hand.
#[derive(Clone, Debug, Default)]
struct Bus<'a> {
    name: &'a str,
    address_cells: usize,
    size_cells: usize,
    /// (child address, parent address, size); no entries and `identity` for an empty `ranges`.
    ranges: ArrayVec<(u64, u64, u64), MAX_RANGES>,
    identity: bool,
}

struct Reader<'a> {
    path: ArrayVec<Bus<'a>, MAX_DEPTH>,
    stdout: &'a str,
    /// `/aliases`, as far as they may name a UART.
    aliases: ArrayVec<(&'a str, &'a str), 16>,
    /// Path, phandle of the clock, and what the node says.
    uarts: ArrayVec<(ArrayString<96>, Option<u32>, Uart), MAX_UARTS>,
    /// Fixed clocks: phandle and frequency.
    clocks: ArrayVec<(u32, u32), 16>,
}

/// What is wanted of one node, gathered in a single pass over its properties.
#[derive(Default)]
struct Properties<'a> {
    compatible: &'a [u8],
    device_type: &'a [u8],
    reg: &'a [u8],
    interrupts: &'a [u8],
    ranges: Option<&'a [u8]>,
    enable_method: &'a [u8],
    release_address: &'a [u8],
    method: &'a [u8],
    status: &'a [u8],
    model: &'a [u8],
    stride: &'a [u8],
    clocks: &'a [u8],
    phandle: &'a [u8],
    clock_frequency: &'a [u8],
    no_map: bool,
    address_cells: Option<usize>,
    size_cells: Option<usize>,
}

impl<'a> Properties<'a> {
    fn of(node: FdtNode<'_, 'a>) -> Self {
        let mut found = Self::default();
        for property in node.properties() {
            let value = property.value;
            match property.name {
                "compatible" => found.compatible = value,
                "device_type" => found.device_type = value,
                "reg" => found.reg = value,
                "interrupts" => found.interrupts = value,
                "ranges" => found.ranges = Some(value),
                "enable-method" => found.enable_method = value,
                "cpu-release-addr" => found.release_address = value,
                "method" => found.method = value,
                "status" => found.status = value,
                "model" => found.model = value,
                "redistributor-stride" => found.stride = value,
                "clocks" => found.clocks = value,
                "phandle" => found.phandle = value,
                "clock-frequency" => found.clock_frequency = value,
                "no-map" => found.no_map = true,
                "#address-cells" => found.address_cells = cell(value, 0).map(|cells| cells as usize),
                "#size-cells" => found.size_cells = cell(value, 0).map(|cells| cells as usize),
                _ => {}
            }
        }
        found
    }

    fn is_compatible(&self, wanted: &[&str]) -> bool {
        strings(self.compatible).any(|string| wanted.contains(&string))
    }

    fn is_enabled(&self) -> bool {
        matches!(text(self.status), "" | "okay" | "ok")
    }
}

const GIC_V2: &[&str] = &["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a7-gic"];
const PSCI: &[&str] = &["arm,psci", "arm,psci-0.2", "arm,psci-1.0"];

impl<'a> Reader<'a> {
    fn new() -> Self {
        Self {
            path: ArrayVec::new(),
            stdout: "",
            aliases: ArrayVec::new(),
            uarts: ArrayVec::new(),
            clocks: ArrayVec::new(),
        }
    }

    fn run(&mut self, blob: &'a [u8], shape: &Shape) -> Result<Board<'a>, BoardError> {
        let fdt = Fdt::new(blob).map_err(|_| BoardError::Reader)?;
        let mut board = Board::default();
        for reservation in fdt.memory_reservations() {
            let range =
                Range { start: Pa::new(reservation.address() as u64), size: reservation.size() as u64 };
            push(&mut board.reserved, Reserved { range, no_map: false }, "memory reservations")?;
        }
        for (node, depth) in fdt.all_nodes().zip(shape.depths()) {
            self.node(&mut board, node, depth)?;
        }
        board.uart = self.console();
        Ok(board)
    }

    fn node(&mut self, board: &mut Board<'a>, node: FdtNode<'_, 'a>, depth: usize) -> Result<(), BoardError> {
        self.path.truncate(depth);
        let properties = Properties::of(node);
        let parent = self.path.get(1).map(|bus| bus.name);
        match (depth, node.name, parent) {
            (0, _, _) => {
                board.model = match text(properties.model) {
                    "" => text(properties.compatible),
                    model => model,
                }
            }
            (1, "chosen", _) => self.chosen(board, node),
            (1, "aliases", _) => self.aliases(node),
            (2, _, Some("cpus")) if properties.device_type == b"cpu\0" => {
                self.cpu(board, node, &properties)?
            }
            (2, _, Some("reserved-memory")) if properties.is_enabled() => {
                self.reserved(board, &properties)?
            }
            _ if properties.device_type == b"memory\0" && properties.is_enabled() => {
                for range in self.regions(&properties) {
                    if range.size != 0 {
                        push(&mut board.memory, range, "RAM banks")?;
                    }
                }
            }
            _ if !properties.compatible.is_empty() && properties.is_enabled() => {
                self.device(board, node, &properties)?;
            }
            _ => {}
        }
        self.path.push(Bus {
            name: node.name,
            address_cells: properties.address_cells.unwrap_or(2),
            size_cells: properties.size_cells.unwrap_or(1),
            ranges: self.bus_ranges(&properties),
            identity: properties.ranges.is_some_and(<[u8]>::is_empty) || depth == 0,
        });
        Ok(())
    }

    fn chosen(&mut self, board: &mut Board<'a>, node: FdtNode<'_, 'a>) {
        let (mut start, mut end) = (None, None);
        for property in node.properties() {
            match property.name {
                "bootargs" => board.bootargs = text(property.value),
                "stdout-path" => self.stdout = text(property.value),
                "linux,initrd-start" => start = number(property.value),
                "linux,initrd-end" => end = number(property.value),
                "rng-seed" => board.rng_seed = property.value,
                _ => {}
            }
        }
        if let (Some(start), Some(end)) = (start, end)
            && let Some(size) = end.checked_sub(start).filter(|size| *size != 0)
        {
            board.initrd = Some(Range { start: Pa::new(start), size });
        }
    }

    fn aliases(&mut self, node: FdtNode<'_, 'a>) {
        for property in node.properties() {
            let uart = property.name.starts_with("serial") || property.name.starts_with("uart");
            if uart && self.aliases.try_push((property.name, text(property.value))).is_err() {
                return;
            }
        }
    }

    fn cpu(
        &self,
        board: &mut Board<'a>,
        node: FdtNode<'_, 'a>,
        found: &Properties<'a>,
    ) -> Result<(), BoardError> {
        // A CPU whose status is "disabled" may still be started (Devicetree Specification, 3.8.1); "fail" may not.
        if text(found.status).starts_with("fail") {
            return Ok(());
        }
        let mpidr = number(found.reg).ok_or_else(|| malformed(node, "reg is no CPU number"))?;
        let enable_method = match text(found.enable_method) {
            "psci" => EnableMethod::Psci,
            "spin-table" => {
                let address = number(found.release_address);
                EnableMethod::SpinTable(Pa::new(
                    address.ok_or_else(|| malformed(node, "cpu-release-addr is missing"))?,
                ))
            }
            _ => EnableMethod::Unknown,
        };
        push(&mut board.cpus, Cpu { mpidr, enable_method }, "CPUs")
    }

    fn reserved(&self, board: &mut Board<'a>, found: &Properties<'a>) -> Result<(), BoardError> {
        for range in self.regions(found) {
            push(&mut board.reserved, Reserved { range, no_map: found.no_map }, "reserved regions")?;
        }
        Ok(())
    }

    fn device(
        &mut self,
        board: &mut Board<'a>,
        node: FdtNode<'_, 'a>,
        found: &Properties<'a>,
    ) -> Result<(), BoardError> {
        if found.is_compatible(&["arm,gic-v3"]) {
            board.gic = Some(self.gic_v3(node, found)?);
        } else if found.is_compatible(GIC_V2) {
            board.gic = Some(self.gic_v2(node, found)?);
        } else if found.is_compatible(&["arm,armv8-timer", "arm,armv7-timer"]) {
            let line = |index| {
                interrupt(found.interrupts, index)
                    .ok_or_else(|| malformed(node, "four interrupts are needed"))
            };
            board.timer = Some(Timer { physical: line(1)?, virtual_: line(2)?, hypervisor: line(3)? });
        } else if found.is_compatible(&["arm,pl011"]) {
            self.uart(node, found);
        } else if found.is_compatible(&["arm,pl031"]) {
            board.rtc = self.regions(found).next();
        } else if found.is_compatible(&["fixed-clock"]) {
            if let (Some(phandle), Some(rate)) = (cell(found.phandle, 0), cell(found.clock_frequency, 0)) {
                // Only the console's is wanted; a board with more fixed clocks than these keeps firmware's settings.
                let _ = self.clocks.try_push((phandle, rate));
            }
        } else if found.is_compatible(PSCI) {
            board.psci = match text(found.method) {
                "smc" => Some(Psci::Smc),
                "hvc" => Some(Psci::Hvc),
                _ => return Err(malformed(node, "method is neither smc nor hvc")),
            };
        }
        Ok(())
    }

    fn gic_v3(&self, node: FdtNode<'_, 'a>, found: &Properties<'a>) -> Result<Gic, BoardError> {
        let count = node.property("#redistributor-regions").and_then(|property| cell(property.value, 0));
        let mut regions = self.regions(found);
        let gicd = regions.next().ok_or_else(|| malformed(node, "reg has no distributor"))?;
        let redistributors: ArrayVec<_, MAX_RANGES> =
            regions.take((count.unwrap_or(1) as usize).min(MAX_RANGES)).collect();
        if redistributors.is_empty() {
            return Err(malformed(node, "reg has no redistributors"));
        }
        let maintenance = interrupt(found.interrupts, 0);
        Ok(Gic::V3 {
            gicd,
            redistributors,
            stride: number(found.stride),
            maintenance: maintenance.ok_or_else(|| malformed(node, "no maintenance interrupt"))?,
        })
    }

    fn gic_v2(&self, node: FdtNode<'_, 'a>, found: &Properties<'a>) -> Result<Gic, BoardError> {
        let regions: ArrayVec<Range, 4> = self.regions(found).take(4).collect();
        let [gicd, gicc, gich, gicv] = regions[..] else {
            return Err(malformed(node, "reg lacks the virtualization extensions (GICH, GICV)"));
        };
        let maintenance = interrupt(found.interrupts, 0);
        let maintenance = maintenance.ok_or_else(|| malformed(node, "no maintenance interrupt"))?;
        Ok(Gic::V2 { gicd, gicc, gich, gicv, maintenance })
    }

    fn uart(&mut self, node: FdtNode<'_, 'a>, found: &Properties<'a>) {
        let Some(registers) = self.regions(found).next() else { return };
        let uart =
            Uart { kind: UartKind::Pl011, registers, interrupt: interrupt(found.interrupts, 0), clock: None };
        let mut path = ArrayString::new();
        let names = self.path.iter().skip(1).map(|bus| bus.name).chain([node.name]);
        for name in names {
            if path.try_push_str("/").and_then(|()| path.try_push_str(name)).is_err() {
                return;
            }
        }
        // A ninth UART can be no console; nothing else is lost with it.
        let _ = self.uarts.try_push((path, cell(found.clocks, 0), uart));
    }

    /// The UART that `stdout-path` names, or else the only one there is.
    fn console(&self) -> Option<Uart> {
        let wanted = self.stdout.split(':').next().unwrap_or("");
        let wanted = match self.aliases.iter().find(|(alias, _)| *alias == wanted) {
            Some((_, path)) => path,
            None => wanted,
        };
        let named = self.uarts.iter().find(|(path, ..)| path.as_str() == wanted);
        let (_, clock, uart) = named.or_else(|| self.uarts.first())?;
        let rate = self.clocks.iter().find(|(phandle, _)| Some(*phandle) == *clock).map(|(_, rate)| *rate);
        Some(Uart { clock: rate, ..*uart })
    }

    /// The `reg` entries of a node on the bus at hand, as physical addresses; those that no bus passes on are left out.
    fn regions<'p>(&'p self, found: &Properties<'a>) -> impl Iterator<Item = Range> + use<'a, 'p> {
        let (address_cells, size_cells) =
            self.path.last().map_or((2, 1), |bus| (bus.address_cells, bus.size_cells));
        let entry = (address_cells + size_cells) * 4;
        let usable = (1..=2).contains(&address_cells) && size_cells <= 2;
        let bytes: &'a [u8] = if usable { found.reg } else { &[] };
        bytes.chunks_exact(entry.max(4)).filter_map(move |entry| {
            let address = number(entry.get(..address_cells * 4)?)?;
            let size = if size_cells == 0 { 0 } else { number(entry.get(address_cells * 4..)?)? };
            Some(Range { start: Pa::new(self.translate(address)?), size })
        })
    }

    /// Takes an address on the bus at hand up to the root.
    fn translate(&self, address: u64) -> Option<u64> {
        self.path.iter().rev().try_fold(address, |address, bus| {
            if bus.identity {
                return Some(address);
            }
            bus.ranges.iter().find_map(|(child, parent, size)| {
                let offset = address.checked_sub(*child).filter(|offset| offset < size)?;
                parent.checked_add(offset)
            })
        })
    }

    fn bus_ranges(&self, found: &Properties<'a>) -> ArrayVec<(u64, u64, u64), MAX_RANGES> {
        let mut ranges = ArrayVec::new();
        let parent_cells = self.path.last().map_or(2, |bus| bus.address_cells);
        let (child_cells, size_cells) = (found.address_cells.unwrap_or(2), found.size_cells.unwrap_or(1));
        let usable = |cells| (1..=2).contains(&cells);
        if !usable(parent_cells) || !usable(child_cells) || !usable(size_cells) {
            return ranges;
        }
        let (parent_at, size_at) = (child_cells * 4, (child_cells + parent_cells) * 4);
        for entry in found.ranges.unwrap_or(&[]).chunks_exact(size_at + size_cells * 4) {
            let field = |from, to| entry.get(from..to).and_then(number);
            if let (Some(child), Some(parent), Some(size)) =
                (field(0, parent_at), field(parent_at, size_at), field(size_at, entry.len()))
                && ranges.try_push((child, parent, size)).is_err()
            {
                break;
            }
        }
        ranges
    }
}

fn malformed(node: FdtNode<'_, '_>, what: &'static str) -> BoardError {
    let mut name = ArrayString::new();
    for character in node.name.chars() {
        if name.try_push(character).is_err() {
            break;
        }
    }
    BoardError::Node { node: name, what }
}

fn push<T, const N: usize>(
    list: &mut ArrayVec<T, N>,
    value: T,
    what: &'static str,
) -> Result<(), BoardError> {
    list.try_push(value).map_err(|_| BoardError::TooMany(what))
}

fn cell(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A number of one or two cells.
fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => cell(bytes, 0).map(u64::from),
        8 => Some(u64::from(cell(bytes, 0)?) << 32 | u64::from(cell(bytes, 1)?)),
        _ => None,
    }
}

/// The first string of a value, without its zero.
fn text(bytes: &[u8]) -> &str {
    strings(bytes).next().unwrap_or("")
}

fn strings(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|byte| *byte == 0).filter_map(|string| core::str::from_utf8(string).ok())
}

/// The INTID of the entry at `index` of an `interrupts` property in the GIC's three cells: kind, number, flags.
fn interrupt(bytes: &[u8], index: usize) -> Option<u32> {
    let number = cell(bytes, index * 3 + 1)?;
    match cell(bytes, index * 3)? {
        0 if number < 988 => Some(number + 32),
        1 if number < 16 => Some(number + 16),
        _ => None,
    }
}
