//! The board's tree as far as devices go: where each node's registers are in physical memory, and which lines of the interrupt
//! controller it has.
//!
//! It is read once, node by node, into a list in the order of the blob, so that what lies below a node follows it.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use stage2::PAGE_SIZE;

use super::dma::Window;

/// The deepest nesting that is followed.
const MAX_DEPTH: usize = 16;

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

/// A node.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub node: FdtNode<'a>,
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
    /// What has an address on it has one in memory.
    pub is_bus: bool,
    pub is_pin_controller: bool,
    /// The phandle of its interrupt controller.
    pub interrupt_parent: Option<u32>,
    pub lines: Vec<Line>,
    /// It has a line that every CPU has of its own.
    pub private: bool,
}

impl<'a> Entry<'a> {
    /// The value of a property.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        value(&self.node, name)
    }

    /// A property that is one cell.
    pub fn number(&self, name: &str) -> Option<u32> {
        number(&self.node, name)
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
}

/// A node whose children have addresses on it.
struct Bus<'b> {
    above: Option<&'b Bus<'b>>,
    address_cells: usize,
    size_cells: usize,
    /// From addresses on it to addresses on the one above: start here, start there, size. `None`: nothing has one.
    ranges: Option<Vec<[u64; 3]>>,
    enabled: bool,
    interrupt_parent: Option<u32>,
    index: usize,
    depth: usize,
}

impl Bus<'_> {
    /// The physical address behind one on this bus.
    fn physical(&self, address: u64) -> Option<u64> {
        let Some(above) = self.above else { return Some(address) };
        above.physical(translate(self.ranges.as_deref()?, address)?)
    }
}

/// An address on the other side of a bus: the same one, where no windows are named.
pub(super) fn translate(ranges: &[[u64; 3]], address: u64) -> Option<u64> {
    if ranges.is_empty() {
        return Some(address);
    }
    ranges.iter().find_map(|&[here, there, size]| {
        let offset = address.checked_sub(here).filter(|offset| *offset < size)?;
        there.checked_add(offset)
    })
}

impl<'a> Tree<'a> {
    pub fn read(blob: &'a [u8], gicd: u64) -> Option<Self> {
        let root = Fdt::new(blob).ok()?.root();
        let mut tree = Self { entries: Vec::new(), gic: None, memory: Vec::new() };
        tree.add(root, None);
        let is_gic = |entry: &Entry<'_>| {
            entry.registers.first().is_some_and(|span| span.start == gicd)
                && entry.value("interrupt-controller").is_some()
        };
        tree.gic = tree.entries.iter().position(is_gic);
        tree.read_lines();
        Some(tree)
    }

    /// Adds a node and all below it.
    fn add(&mut self, node: FdtNode<'a>, above: Option<&Bus<'_>>) {
        let index = self.entries.len();
        let depth = above.map_or(0, |above| above.depth.saturating_add(1));
        let enabled = above.is_none_or(|above| above.enabled)
            && matches!(
                strings(value(&node, "status").unwrap_or_default()).next(),
                None | Some("okay" | "ok" | "")
            );
        let interrupt_parent =
            number(&node, "interrupt-parent").or(above.and_then(|above| above.interrupt_parent));
        let (mut registers, mut unreachable) = (Vec::new(), false);
        for entry in above
            .into_iter()
            .flat_map(|above| entries(value(&node, "reg"), [above.address_cells, above.size_cells]))
        {
            let physical = entry.and_then(|[address, size]| Some((above?.physical(address)?, size)));
            match physical {
                Some((_, 0)) => {}
                Some((address, size)) if address.checked_add(size).is_some() => {
                    registers.push(Span::new(address, size))
                }
                _ => unreachable = true,
            }
        }
        if value(&node, "device_type").is_some_and(|kind| kind == b"memory\0") && depth == 1 {
            self.memory.extend(&registers);
        }
        let cells = |name, default| number(&node, name).map_or(default, |cells| cells as usize);
        let bus = Bus {
            above,
            address_cells: cells("#address-cells", 2),
            size_cells: cells("#size-cells", 1),
            ranges: None,
            enabled,
            interrupt_parent,
            index,
            depth,
        };
        let ranges = value(&node, "ranges");
        let bus = Bus { ranges: ranges.and_then(|ranges| windows(ranges, &bus)), ..bus };
        let parent = above.map_or(0, |above| above.index);
        self.entries.push(Entry {
            node,
            parent,
            depth,
            enabled,
            phandle: number(&node, "phandle").or(number(&node, "linux,phandle")),
            registers,
            unreachable,
            is_bus: depth == 0 || ranges.is_some(),
            is_pin_controller: value(&node, "gpio-controller").is_some(),
            interrupt_parent,
            lines: Vec::new(),
            private: false,
        });
        if depth < MAX_DEPTH {
            for child in node.children() {
                self.add(child, Some(&bus));
            }
        }
    }

    /// Reads the lines of every node, once it is known what the interrupt controller is.
    fn read_lines(&mut self) {
        let Some(gic) = self.gic.and_then(|gic| self.entries.get(gic)) else { return };
        let (phandle, cells) = (gic.phandle, gic.number("#interrupt-cells").unwrap_or(3));
        for entry in &mut self.entries {
            for line in lines(entry, phandle, cells as usize) {
                match line {
                    Some(line) => entry.lines.push(line),
                    None => entry.private = true,
                }
            }
        }
    }

    pub fn entry(&self, index: usize) -> Option<&Entry<'a>> {
        self.entries.get(index)
    }

    /// The node that a name means, a path or an alias.
    pub fn find(&self, name: &str) -> Option<usize> {
        if name.starts_with('/') {
            return (0..self.entries.len()).find(|&index| index != 0 && self.is_path(index, name));
        }
        let aliases = self.entries.iter().find(|entry| entry.depth == 1 && entry.node.name() == "aliases")?;
        let path = strings(aliases.value(name)?).next()?;
        path.starts_with('/').then(|| self.find(path))?
    }

    /// Whether a node is at this path.
    fn is_path(&self, index: usize, path: &str) -> bool {
        let mut rest = path;
        let mut at = index;
        while let Some(entry) = self.entry(at).filter(|_| at != 0) {
            let Some(shorter) = rest.strip_suffix(entry.node.name()).and_then(|rest| rest.strip_suffix('/'))
            else {
                return false;
            };
            rest = shorter;
            at = entry.parent;
        }
        rest.is_empty()
    }

    /// A node's path.
    pub fn path(&self, index: usize) -> String {
        let mut names = Vec::new();
        let mut at = index;
        while let Some(entry) = self.entry(at).filter(|_| at != 0) {
            names.push(entry.node.name());
            at = entry.parent;
        }
        let mut path = String::new();
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
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
    /// Without any, they are the CPUs' own.
    pub fn dma_windows(&self, index: usize) -> Vec<Window> {
        let mut windows: Option<Vec<Window>> = None;
        let mut at = index;
        while at != 0 {
            let Some(bus) = self.entry(at).map(|entry| entry.parent) else { break };
            if let Some(ranges) = self.dma_ranges(bus).filter(|ranges| !ranges.is_empty()) {
                windows = Some(match windows {
                    None => ranges,
                    Some(below) => below.into_iter().filter_map(|window| window.through(&ranges)).collect(),
                });
            }
            at = bus;
        }
        windows.unwrap_or_default()
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

    /// Whether a node's interrupts are lines of the board's interrupt controller.
    pub fn has_lines(&self, entry: &Entry<'_>) -> bool {
        !entry.lines.is_empty()
    }
}

/// The windows of a bus's `ranges`; `None` where they can't be understood, as those of PCI.
fn windows(ranges: &[u8], bus: &Bus<'_>) -> Option<Vec<[u64; 3]>> {
    let above = bus.above.map_or(2, |above| above.address_cells);
    entries(Some(ranges), [bus.address_cells, above, bus.size_cells]).collect()
}

/// The lines of a node; `None` for a private one, or one that doesn't exist.
fn lines<'a>(
    entry: &Entry<'a>,
    gic: Option<u32>,
    cells: usize,
) -> impl Iterator<Item = Option<Line>> + use<'a> {
    let mut found = Vec::new();
    if let Some(extended) = entry.value("interrupts-extended") {
        // Controllers may differ from entry to entry, and so may their cells: up to the first other one.
        let size = cells.saturating_add(1).saturating_mul(4);
        let own = extended.chunks_exact(size.max(4)).take_while(|chunk| cell(chunk, 0) == gic);
        found.extend(own.map(|chunk| line(chunk.get(4..).unwrap_or_default())));
    } else if let Some(interrupts) =
        entry.value("interrupts").filter(|_| entry.interrupt_parent == gic && gic.is_some())
    {
        found.extend(interrupts.chunks_exact(cells.max(3).saturating_mul(4)).map(line));
    }
    found.into_iter()
}

/// An entry of `interrupts`: kind, number, flags (Linux, bindings/interrupt-controller/arm,gic.yaml).
fn line(entry: &[u8]) -> Option<Line> {
    const SPI: u32 = 0;
    const EDGES: u32 = 0b11;
    let (kind, number, flags) = (cell(entry, 0)?, cell(entry, 1)?, cell(entry, 2)?);
    let intid = number.checked_add(32).filter(|intid| kind == SPI && *intid < 1020)?;
    Some(Line { intid: intid as u16, edge: flags & EDGES != 0 })
}

/// The value of a node's property.
fn value<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    let mut properties = node.properties();
    // The conversion of a value to bytes can't fail.
    properties
        .find(|property| property.name() == name)
        .and_then(|property| property.value_as::<&'a [u8]>().ok())
}

fn number(node: &FdtNode<'_>, name: &str) -> Option<u32> {
    value(node, name).filter(|value| value.len() == 4).and_then(|value| cell(value, 0))
}

/// The cell at `index` of a value.
pub(super) fn cell(value: &[u8], index: usize) -> Option<u32> {
    let (cells, _) = value.as_chunks::<4>();
    cells.get(index).map(|cell| u32::from_be_bytes(*cell))
}

/// The strings of a list; those that are not UTF-8 are left out.
pub(super) fn strings(value: &[u8]) -> impl Iterator<Item = &str> {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    value
        .split(|byte| *byte == 0)
        .filter_map(|string| core::str::from_utf8(string).ok())
        .filter(|text| !text.is_empty())
}

/// The entries of a value whose fields have these numbers of cells; `None` for one that has a number of more than 64 bits.
pub(super) fn entries<const N: usize>(
    value: Option<&[u8]>,
    cells: [usize; N],
) -> impl Iterator<Item = Option<[u64; N]>> + use<'_, N> {
    let size = cells.iter().fold(0_usize, |sum, cells| sum.saturating_add(cells.saturating_mul(4)));
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
