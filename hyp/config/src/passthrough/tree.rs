//! The board's tree as far as devices go: where each node's registers are in physical memory, and which lines of the interrupt
//! controller it has.
//!
//! It is read once, node by node, into a list in the order of the blob, so that what lies below a node follows it.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use devicetree::{Node, cell};
use stage2::PAGE_SIZE;

use super::dma::Window;

/// The most ranges of registers that are read, of all nodes together.
const MOST_REGISTERS: usize = 8192;
/// The most interrupts that are read of a node: more than there are lines.
const MOST_INTERRUPTS: usize = 1024;
/// The longest `ranges` of a bus, in bytes.
const LONGEST_RANGES: usize = 32 << 10;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first.
    pub start: u64,
    /// The first one behind it.
    pub end: u64,
}

impl Span {
    /// `size` bytes.
    pub const fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    /// Its length in bytes.
    pub const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// The whole pages in which it lies.
    pub const fn pages(self) -> Self {
        let below = PAGE_SIZE.wrapping_sub(1);
        Self { start: self.start & !below, end: self.end.saturating_add(below) & !below }
    }

    /// Whether some address is in both.
    pub const fn meets(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl Span {
    /// What is in both.
    pub fn common(self, other: Self) -> Option<Self> {
        let common = Self { start: self.start.max(other.start), end: self.end.min(other.end) };
        (common.start < common.end).then_some(common)
    }
}

/// A shared line of the board's interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its INTID, 32 to 1019.
    pub intid: u16,
    /// An edge, and not a level, raises the interrupt.
    pub edge: bool,
}

impl Line {
    /// An interrupt as the GIC's binding has it: kind, number, flags (Linux, bindings/interrupt-controller/arm,gic.yaml). `None` for a
    /// private one, or one that doesn't exist.
    pub(super) fn read(cells: &[u32]) -> Option<Self> {
        const SPI: u32 = 0;
        const EDGES: u32 = 0b11;
        let &[kind, number, flags, ..] = cells else { return None };
        let intid = number.checked_add(32).filter(|intid| kind == SPI && *intid < 1020)?;
        Some(Self { intid: intid as u16, edge: flags & EDGES != 0 })
    }
}

/// A node.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub node: Node<'a>,
    /// Its name, unit address included.
    pub name: &'a str,
    /// The node above; the root is its own.
    pub parent: usize,
    pub depth: usize,
    /// Neither it nor a node above is disabled.
    pub enabled: bool,
    pub phandle: Option<u32>,
    /// Its registers in physical memory.
    pub registers: Vec<Span>,
    /// It has registers that some bus above doesn't pass on, or that can't be understood.
    pub unreachable: bool,
    /// It stands for RAM, or for a part of it that something keeps for itself.
    pub is_memory: bool,
    /// What has an address on it has one in memory.
    pub is_bus: bool,
    pub is_pin_controller: bool,
    /// The phandle of the controller to which its `interrupts` go.
    pub interrupt_parent: Option<u32>,
    interrupts: Option<&'a [u8]>,
    interrupts_extended: Option<&'a [u8]>,
    /// It is an interrupt controller, whose interrupts have so many cells.
    interrupt_cells: Option<u32>,
    pub lines: Vec<Line>,
    /// It has a line that every CPU has of its own.
    pub private: bool,
}

impl<'a> Entry<'a> {
    /// The value of a property.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.node.value(name)
    }

    /// A property that is one cell.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.value(name).and_then(one_cell)
    }

    /// The first of its pages that has registers of these too.
    pub fn shared_page(&self, registers: &[Span]) -> Option<u64> {
        let pages = self.registers.iter().map(|span| span.pages());
        pages
            .into_iter()
            .find(|pages| registers.iter().any(|of| of.pages().meets(*pages)))
            .map(|pages| pages.start)
    }

    /// The first of its lines that is one of these too.
    pub fn shared_line(&self, lines: &[Line]) -> Option<u16> {
        self.lines.iter().map(|line| line.intid).find(|intid| lines.iter().any(|of| of.intid == *intid))
    }

    /// The strings of `compatible`.
    pub fn compatible(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        strings(self.value("compatible").unwrap_or_default())
    }
}

#[derive(Debug)]
pub(super) struct Tree<'a> {
    /// In the order of the blob.
    pub entries: Vec<Entry<'a>>,
    /// The place of the interrupt controller among them.
    gic: Option<usize>,
    /// RAM.
    pub memory: Vec<Span>,
    /// How many ranges of registers have been read, those of RAM among them.
    ranges: usize,
    /// There is more than is read: it takes memory, of which there is little when this is done.
    is_too_large: bool,
}

/// What the list is made from, gathered in a single pass over a node's properties: to look for each by itself takes ten times as long.
#[derive(Default)]
struct Properties<'a> {
    status: &'a [u8],
    reg: &'a [u8],
    device_type: &'a [u8],
    phandle: Option<u32>,
    old_phandle: Option<u32>,
    address_cells: Option<u32>,
    size_cells: Option<u32>,
    ranges: Option<&'a [u8]>,
    is_pin_controller: bool,
    interrupt_parent: Option<u32>,
    interrupts: Option<&'a [u8]>,
    interrupts_extended: Option<&'a [u8]>,
    interrupt_cells: Option<&'a [u8]>,
}

impl<'a> Properties<'a> {
    fn of(node: &Node<'a>) -> Self {
        let mut found = Self::default();
        for property in node.properties() {
            let value = property.value;
            match property.name {
                b"status" => found.status = value,
                b"reg" => found.reg = value,
                b"device_type" => found.device_type = value,
                b"phandle" => found.phandle = one_cell(value),
                b"linux,phandle" => found.old_phandle = one_cell(value),
                b"#address-cells" => found.address_cells = one_cell(value),
                b"#size-cells" => found.size_cells = one_cell(value),
                b"ranges" => found.ranges = Some(value),
                b"gpio-controller" => found.is_pin_controller = true,
                b"interrupt-parent" => found.interrupt_parent = one_cell(value),
                b"interrupts" => found.interrupts = Some(value),
                b"interrupts-extended" => found.interrupts_extended = Some(value),
                b"#interrupt-cells" => found.interrupt_cells = Some(value),
                _ => {}
            }
        }
        found
    }
}

/// A node whose children have addresses on it.
struct Bus {
    address_cells: usize,
    size_cells: usize,
    /// From addresses on it to addresses on the one above: start here, start there, size. `None`: nothing has one.
    ranges: Option<Vec<[u64; 3]>>,
    enabled: bool,
    /// The phandle of the controller to which interrupts of nodes on it go that name none.
    interrupt_parent: Option<u32>,
    /// It lists pieces of RAM that are kept for something.
    reserves: bool,
    index: usize,
}

/// The physical address behind one on the last of these buses, each of which lies on the one before it, where `size` bytes begin.
fn physical(buses: &[Bus], address: u64, size: u64) -> Option<u64> {
    let (_, below_root) = buses.split_first()?;
    below_root.iter().rev().try_fold(address, |address, bus| translate(bus.ranges.as_deref()?, address, size))
}

/// An address on the other side of a bus: the same one, where no windows are named. All `size` bytes have to lie in one of them: what
/// is behind its end is something else's.
fn translate(ranges: &[[u64; 3]], address: u64, size: u64) -> Option<u64> {
    if ranges.is_empty() {
        return Some(address);
    }
    ranges.iter().find_map(|&[here, there, length]| {
        let offset = address.checked_sub(here)?;
        let room = length.checked_sub(offset).filter(|room| *room != 0)?;
        if size <= room { there.checked_add(offset) } else { None }
    })
}

impl<'a> Tree<'a> {
    /// Reads all of it. `None` where it's too large.
    pub fn read(blob: &devicetree::Tree<'a>, gicd: u64) -> Option<Self> {
        let mut tree =
            Self { entries: Vec::new(), gic: None, memory: Vec::new(), ranges: 0, is_too_large: false };
        let mut buses = Vec::new();
        for node in blob.nodes() {
            tree.add(node, &mut buses);
            if tree.is_too_large {
                return None;
            }
        }
        let is_gic = |entry: &Entry<'_>| {
            entry.registers.first().is_some_and(|span| span.start == gicd)
                && entry.value("interrupt-controller").is_some()
        };
        tree.gic = tree.entries.iter().position(is_gic);
        tree.read_lines();
        (!tree.is_too_large).then_some(tree)
    }

    /// Adds a node. `buses` has those that the node before it lies on, and that node.
    fn add(&mut self, node: Node<'a>, buses: &mut Vec<Bus>) {
        let index = self.entries.len();
        let depth = node.depth;
        buses.truncate(depth);
        let above = buses.last();
        let found = Properties::of(&node);
        let enabled = above.is_none_or(|above| above.enabled)
            && matches!(strings(found.status).next(), None | Some("okay" | "ok" | ""));
        let interrupt_parent = found.interrupt_parent.or(above.and_then(|above| above.interrupt_parent));
        let (mut registers, mut unreachable) = (Vec::new(), false);
        if let Some(above) = above {
            let fields = [above.address_cells, above.size_cells];
            unreachable = !is_whole(found.reg, fields);
            for entry in entries(Some(found.reg), fields) {
                self.ranges = self.ranges.saturating_add(1);
                if self.ranges > MOST_REGISTERS {
                    self.is_too_large = true;
                    return;
                }
                let physical =
                    entry.and_then(|[address, size]| Some((physical(buses, address, size)?, size)));
                match physical {
                    Some((_, 0)) => {}
                    Some((address, size)) if address.checked_add(size).is_some() => {
                        registers.push(Span::new(address, size))
                    }
                    _ => unreachable = true,
                }
            }
        }
        let is_bank = depth == 1 && found.device_type == b"memory\0";
        let is_memory = is_bank || above.is_some_and(|above| above.reserves);
        if is_memory {
            self.memory.append(&mut registers);
        }
        self.is_too_large |= found.ranges.is_some_and(|ranges| ranges.len() > LONGEST_RANGES);
        if self.is_too_large {
            return;
        }
        let phandle = found.phandle.or(found.old_phandle);
        let above_cells = above.map_or(2, |above| above.address_cells);
        let address_cells = found.address_cells.map_or(2, |cells| cells as usize);
        let size_cells = found.size_cells.map_or(1, |cells| cells as usize);
        let windows = |ranges| windows(ranges, [address_cells, above_cells, size_cells]);
        let parent = above.map_or(0, |above| above.index);
        buses.push(Bus {
            address_cells,
            size_cells,
            ranges: found.ranges.and_then(windows),
            enabled,
            // A controller's nodes are its own, unless they say otherwise.
            interrupt_parent: if found.interrupt_cells.is_some() { phandle } else { interrupt_parent },
            reserves: depth == 1 && node.name == b"reserved-memory",
            index,
        });
        self.entries.push(Entry {
            node,
            name: core::str::from_utf8(node.name).unwrap_or_default(),
            parent,
            depth,
            enabled,
            phandle,
            registers,
            unreachable,
            is_memory,
            is_bus: depth == 0 || found.ranges.is_some(),
            is_pin_controller: found.is_pin_controller,
            interrupt_parent,
            interrupts: found.interrupts,
            interrupts_extended: found.interrupts_extended,
            interrupt_cells: found.interrupt_cells.and_then(one_cell),
            lines: Vec::new(),
            private: false,
        });
    }

    /// Reads the lines of every node, once it is known what the interrupt controller is.
    fn read_lines(&mut self) {
        let Some(gic) = self.gic else { return };
        for index in 0..self.entries.len() {
            let interrupts = self.entry(index).map_or_else(Vec::new, |entry| self.interrupts(entry));
            self.is_too_large |= interrupts.len() >= MOST_INTERRUPTS;
            let own = interrupts.iter().filter(|(controller, _)| *controller == gic);
            let lines: Vec<Option<Line>> = own.map(|(_, cells)| Line::read(cells)).collect();
            if let Some(entry) = self.entries.get_mut(index) {
                entry.private = lines.contains(&None);
                entry.lines = lines.into_iter().flatten().collect();
            }
        }
    }

    /// Whether a node is the board's interrupt controller.
    pub fn is_gic(&self, index: usize) -> bool {
        self.gic == Some(index)
    }

    /// The interrupts of a node: each one's controller, and what it says to that, up to the first whose controller isn't in the tree.
    pub fn interrupts(&self, entry: &Entry<'_>) -> Vec<(usize, Vec<u32>)> {
        let mut found = Vec::new();
        let extended = entry.interrupts_extended;
        let value = extended.or(entry.interrupts).unwrap_or_default();
        let mut at = 0_usize;
        while let Some(first) = cell(value, at).filter(|_| found.len() < MOST_INTERRUPTS) {
            let phandle = if extended.is_some() { Some(first) } else { entry.interrupt_parent };
            let Some(controller) = phandle.and_then(|phandle| self.by_phandle(phandle)) else { break };
            let cells = self.entry(controller).and_then(|entry| entry.interrupt_cells);
            let Some(count) = cells.filter(|cells| *cells != 0) else { break };
            let start = at.saturating_add(usize::from(extended.is_some()));
            at = start.saturating_add(count as usize);
            let cells: Vec<u32> = (start..at).map_while(|at| cell(value, at)).collect();
            if cells.len() < count as usize {
                break;
            }
            found.push((controller, cells));
        }
        found
    }

    pub fn entry(&self, index: usize) -> Option<&Entry<'a>> {
        self.entries.get(index)
    }

    /// The node that a name means, a path or an alias.
    pub fn find(&self, name: &str) -> Option<usize> {
        if name.starts_with('/') {
            return (0..self.entries.len()).find(|&index| index != 0 && self.is_path(index, name));
        }
        let aliases = self.entries.iter().find(|entry| entry.depth == 1 && entry.name == "aliases")?;
        let path = strings(aliases.value(name)?).next()?;
        path.starts_with('/').then(|| self.find(path))?
    }

    /// Whether a node is at this path.
    fn is_path(&self, index: usize, path: &str) -> bool {
        let mut rest = path;
        let mut at = index;
        while let Some(entry) = self.entry(at).filter(|_| at != 0) {
            let Some(shorter) = rest.strip_suffix(entry.name).and_then(|rest| rest.strip_suffix('/')) else {
                return false;
            };
            rest = shorter;
            at = entry.parent;
        }
        rest.is_empty()
    }

    /// A node's path, for a message.
    pub fn path(&self, index: usize) -> String {
        let mut names = Vec::new();
        let mut at = index;
        while let Some(entry) = self.entry(at).filter(|_| at != 0) {
            names.push(entry.name);
            at = entry.parent;
        }
        let mut path = String::new();
        for name in names.iter().rev() {
            path.push('/');
            path.extend(shown(name));
        }
        path
    }

    /// A node and all below it.
    pub fn subtree(&self, index: usize) -> Range<usize> {
        let Some(depth) = self.entry(index).map(|entry| entry.depth) else { return index..index };
        let below =
            self.entries.iter().skip(index.saturating_add(1)).take_while(|entry| entry.depth > depth).count();
        index..index.saturating_add(below).saturating_add(1)
    }

    /// The node with a phandle.
    pub fn by_phandle(&self, phandle: u32) -> Option<usize> {
        self.entries.iter().position(|entry| entry.phandle == Some(phandle))
    }

    /// What becomes of a device's addresses when it does DMA: the windows of the nearest bus above that has any, as CPUs see them.
    /// `None` without any: they are the CPUs' own.
    pub fn dma_windows(&self, index: usize) -> Option<Vec<Window>> {
        let mut windows: Option<Vec<Window>> = None;
        let mut at = index;
        while at != 0 {
            let Some(bus) = self.entry(at).map(|entry| entry.parent) else { break };
            if let Some(ranges) = self.dma_ranges(bus).filter(|ranges| !ranges.is_empty()) {
                windows = Some(match windows {
                    None => ranges,
                    Some(below) => below.into_iter().flat_map(|window| window.through(&ranges)).collect(),
                });
            }
            at = bus;
        }
        windows
    }

    fn dma_ranges(&self, index: usize) -> Option<Vec<Window>> {
        let entry = self.entry(index).filter(|_| index != 0)?;
        let above = self.entry(entry.parent)?;
        let cells =
            |entry: &Entry<'_>, name, default| entry.number(name).map_or(default, |cells| cells as usize);
        let fields = [
            cells(entry, "#address-cells", 2),
            cells(above, "#address-cells", 2),
            cells(entry, "#size-cells", 1),
        ];
        let window =
            |fields: Option<[u64; 3]>| fields.map(|[bus, physical, size]| Window { bus, physical, size });
        entries(Some(entry.value("dma-ranges")?), fields).map(window).collect()
    }

    /// Whether a device's DMA sees what CPUs have in their caches, as the nearest node says that says anything.
    pub fn is_dma_coherent(&self, index: usize) -> bool {
        let mut at = index;
        while let Some(entry) = self.entry(at) {
            if entry.value("dma-coherent").is_some() || entry.value("dma-noncoherent").is_some() || at == 0 {
                return entry.value("dma-noncoherent").is_none() && entry.value("dma-coherent").is_some();
            }
            at = entry.parent;
        }
        false
    }
}

/// The windows of a bus's `ranges`, whose fields have these numbers of cells; `None` where they can't be understood, as those of PCI.
fn windows(ranges: &[u8], fields: [usize; 3]) -> Option<Vec<[u64; 3]>> {
    // Of half a window nobody knows what it would be: it must not pass for none.
    if is_whole(ranges, fields) { entries(Some(ranges), fields).collect() } else { None }
}

/// A value that is one cell.
fn one_cell(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

/// A text of the board's tree as a message may have it: on one line, and nothing that a terminal would act on.
pub(super) fn shown(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|character| if character.is_control() { '?' } else { character })
}

/// The strings of a list; those that are not UTF-8 are left out.
pub(super) fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    value
        .split(|byte| *byte == 0)
        .filter_map(|string| core::str::from_utf8(string).ok())
        .filter(|text| !text.is_empty())
}

/// Whether a value ends with an entry whose fields have these numbers of cells.
fn is_whole<const N: usize>(value: &[u8], cells: [usize; N]) -> bool {
    value.len().checked_rem(entry_size(cells)).is_none_or(|rest| rest == 0)
}

fn entry_size<const N: usize>(cells: [usize; N]) -> usize {
    cells.iter().fold(0_usize, |sum, cells| sum.saturating_add(cells.saturating_mul(4)))
}

/// The entries of a value whose fields have these numbers of cells; `None` for one that has a number of more than 64 bits.
pub(super) fn entries<const N: usize>(
    value: Option<&[u8]>,
    cells: [usize; N],
) -> impl Iterator<Item = Option<[u64; N]>> + use<'_, N> {
    let size = entry_size(cells);
    // A list of nothing has no entries.
    value.unwrap_or_default().chunks_exact(size.max(4)).map(move |entry| {
        let mut fields = [0; N];
        let mut rest = entry;
        for (field, cells) in fields.iter_mut().zip(cells) {
            let (bytes, behind) = rest.split_at_checked(cells.checked_mul(4)?)?;
            *field = match cells {
                0 => 0,
                1 => u64::from(cell(bytes, 0)?),
                2 => u64::from(cell(bytes, 0)?) << 32 | u64::from(cell(bytes, 1)?),
                _ => return None,
            };
            rest = behind;
        }
        Some(fields)
    })
}
