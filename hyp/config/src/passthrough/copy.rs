//! What a VM's tree has of its devices: copies of the board's nodes.
//!
//! Registers and interrupts become those that the VM has. A clock becomes one of a fixed rate, unless its provider is the VM's
//! too. Properties that refer to nodes which the VM doesn't have are left out, with their names; all others are as they were. The copies
//! lie on a bus of their own, since what may hold for a VM's virtual devices (their DMA is coherent) doesn't for these.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use devicetree::cell;
use stage2::PaRange;
use vmm::layout::Ipa;
use vmm::order;

use super::dma::{Window, may_do_dma};
use super::tree::{Entry, Line, Tree, shown, strings};
use super::{GivenLine, PassthroughError};
use crate::blob::{Node, bytes};
use crate::guest_tree::{EDGE, GIC, LEVEL, SPI, cells};
use crate::manifest::VmConfig;

/// Phandles of copies: this, and the node's number in the board's tree on top. A VM's own nodes have smaller ones.
const COPIES: u32 = 0x1_0000;
/// Phandles of fixed clocks, the first one's.
const CLOCKS: u32 = 0x1000_0000;

/// In a list of references: none at this place.
const NOTHING: u32 = 0;

/// Properties that refer to nodes. Each reference is a phandle, and behind it as many cells as the property with this name says in
/// the node that is referred to; or none.
const REFERENCES: &[(&str, Option<&str>)] = &[
    ("dmas", Some("#dma-cells")),
    ("gpio-ranges", Some("#gpio-range-cells")),
    ("hwlocks", Some("#hwlock-cells")),
    ("interconnects", Some("#interconnect-cells")),
    ("interrupt-affinity", None),
    ("interrupt-parent", None),
    ("io-channels", Some("#io-channel-cells")),
    ("iommus", Some("#iommu-cells")),
    ("mboxes", Some("#mbox-cells")),
    ("memory-region", None),
    ("mmc-pwrseq", None),
    ("msi-parent", Some("#msi-cells")),
    ("nvmem-cells", None),
    ("operating-points-v2", None),
    ("phy-handle", None),
    ("phys", Some("#phy-cells")),
    ("power-domains", Some("#power-domain-cells")),
    ("pwms", Some("#pwm-cells")),
    ("remote-endpoint", None),
    ("resets", Some("#reset-cells")),
    ("sound-dai", Some("#sound-dai-cells")),
    ("thermal-sensors", Some("#thermal-sensor-cells")),
    ("usb-phy", None),
];

/// Cells of a reference in `gpio-ranges`, for which no property tells them: first pin here, first pin there, count.
const GPIO_RANGE_CELLS: u32 = 3;

/// Names that belong to references, and go where those go.
const NAMES: &[(&str, &str)] = &[
    ("dma-names", "dmas"),
    ("interconnect-names", "interconnects"),
    ("io-channel-names", "io-channels"),
    ("mbox-names", "mboxes"),
    ("memory-region-names", "memory-region"),
    ("nvmem-cell-names", "nvmem-cells"),
    ("phy-names", "phys"),
    ("pinctrl-names", "pinctrl-0"),
    ("power-domain-names", "power-domains"),
    ("pwm-names", "pwms"),
    ("reset-names", "resets"),
];

/// What is copied, and what becomes of it.
pub(super) struct Copy<'t, 'a> {
    pub tree: &'t Tree<'a>,
    /// The nodes that the manifest names.
    pub named: &'t [usize],
    /// Those and all below them, in ascending order.
    pub taken: &'t [usize],
    pub registers: &'t [(Ipa, PaRange)],
    pub lines: &'t [GivenLine],
}

/// A clock of the board: its provider, and the cells that say which.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Clock {
    provider: usize,
    cells: Vec<u32>,
}

/// The clocks that become fixed ones, and their rates in Hz.
#[derive(Debug, Default)]
struct Rates {
    clocks: Vec<(Clock, u32)>,
}

impl Rates {
    fn of(&self, clock: &Clock) -> Option<u32> {
        self.clocks.iter().find(|(of, _)| of == clock).map(|(_, rate)| *rate)
    }

    /// All rates, each once.
    fn distinct(&self) -> Vec<u32> {
        let mut rates: Vec<u32> = self.clocks.iter().map(|(_, rate)| *rate).collect();
        order::sort(&mut rates);
        rates.dedup();
        rates
    }

    fn phandle(&self, rate: u32) -> Option<u32> {
        let place = self.distinct().iter().position(|of| *of == rate)?;
        Some(CLOCKS.saturating_add(place as u32))
    }
}

impl Copy<'_, '_> {
    /// The copies, on their bus, and the clocks that they need.
    #[inline(never)]
    pub fn nodes(&self, config: &VmConfig<'_>) -> Result<Vec<Node>, PassthroughError> {
        let rates = self.rates(&config.devices.clock_rates)?;
        let mut nodes: Vec<Node> = Vec::new();
        let mut buses: Vec<(Option<Vec<Window>>, Node)> = Vec::new();
        for &index in self.named {
            let Some(copy) = self.copy(index, true, &rates) else { continue };
            // What does no DMA may be on any bus.
            let does = self.tree.entry(index).is_some_and(may_do_dma);
            let windows = if does { self.tree.dma_windows(index) } else { None };
            // No two nodes of a bus have one name.
            let has_room = |bus: &Node| bus.children().all(|child| child.name() != copy.name());
            let number = match buses.iter().position(|(of, bus)| *of == windows && has_room(bus)) {
                Some(number) => number,
                None => {
                    let bus = bus(buses.len(), windows.as_deref().unwrap_or_default());
                    buses.push((windows, bus));
                    buses.len().saturating_sub(1)
                }
            };
            if let Some((_, bus)) = buses.get_mut(number) {
                bus.add(copy);
            }
        }
        nodes.extend(buses.into_iter().map(|(_, bus)| bus));
        nodes.extend(rates.distinct().into_iter().map(|rate| {
            let mut clock = Node::new(&format!("clock-{rate}"));
            clock.set_text("compatible", "fixed-clock");
            clock.set_cells("#clock-cells", &[0]);
            clock.set_cells("clock-frequency", &[rate]);
            clock.set_cells("phandle", &[rates.phandle(rate).unwrap_or(0)]);
            clock
        }));
        Ok(nodes)
    }

    /// Finds the rate of every clock whose provider isn't taken: the board's tree has it, or else the manifest.
    fn rates(&self, given: &[u32]) -> Result<Rates, PassthroughError> {
        let mut rates = Rates::default();
        let mut unknown: Vec<(Clock, String)> = Vec::new();
        for (index, entry) in self.entries() {
            let names: Vec<&str> = strings(entry.value("clock-names").unwrap_or_default()).collect();
            for (number, (_, clock)) in self.clocks(entry).into_iter().enumerate() {
                let Some(clock) = clock else { continue };
                if self.taken.contains(&clock.provider) || rates.of(&clock).is_some() {
                    continue;
                }
                if let Some(rate) = self.fixed_rate(clock.provider, 0) {
                    rates.clocks.push((clock, rate));
                } else if !unknown.iter().any(|(known, _)| *known == clock) {
                    let node = self.tree.path(index);
                    let name = names
                        .get(number)
                        .map_or_else(|| format!("clock {number}"), |name| shown(name).collect());
                    unknown.push((clock, format!("{name} of {node}")));
                }
            }
        }
        if unknown.len() != given.len() {
            let clocks = unknown.into_iter().map(|(_, name)| name).collect();
            return Err(PassthroughError::ClockRates { given: given.len(), clocks });
        }
        rates.clocks.extend(unknown.into_iter().zip(given).map(|((clock, _), rate)| (clock, *rate)));
        Ok(rates)
    }

    fn entries(&self) -> impl Iterator<Item = (usize, &Entry<'_>)> {
        self.taken.iter().filter_map(|&index| Some((index, self.tree.entry(index)?)))
    }

    /// The references in a value: each one's phandle, the node that this is, if it's in the tree, and the cells behind it, of which
    /// that node tells the number.
    fn targets(
        &self,
        value: &[u8],
        count: impl Fn(&Entry<'_>) -> u32,
    ) -> Vec<(u32, Option<usize>, Vec<u32>)> {
        let mut targets = Vec::new();
        let mut at = 0_usize;
        while let Some(phandle) = cell(value, at) {
            let target = self.tree.by_phandle(phandle).filter(|_| phandle != NOTHING);
            let cells = target.and_then(|target| self.tree.entry(target)).map_or(0, &count);
            let first = at.saturating_add(1);
            at = first.saturating_add(cells as usize);
            targets.push((phandle, target, (first..at).map_while(|at| cell(value, at)).collect()));
        }
        targets
    }

    /// The clocks of a node, each with the phandle of its provider; `None` for one whose provider isn't in the tree.
    fn clocks(&self, entry: &Entry<'_>) -> Vec<(u32, Option<Clock>)> {
        let value = entry.value("clocks").unwrap_or_default();
        let targets = self.targets(value, |provider| provider.number("#clock-cells").unwrap_or(0));
        let clock = |(phandle, provider, cells): (u32, Option<usize>, _)| {
            (phandle, provider.map(|provider| Clock { provider, cells }))
        };
        targets.into_iter().map(clock).collect()
    }

    /// The rate of a clock that never changes, by its binding.
    fn fixed_rate(&self, provider: usize, depth: u32) -> Option<u32> {
        const DEEPEST: u32 = 8;
        let entry = self.tree.entry(provider).filter(|_| depth < DEEPEST)?;
        let is = |name| entry.compatible().any(|compatible| compatible == name);
        if is("fixed-clock") {
            return entry.number("clock-frequency");
        }
        if !is("fixed-factor-clock") {
            return None;
        }
        let parent = self.clocks(entry).into_iter().next()?.1?;
        let rate = u64::from(self.fixed_rate(parent.provider, depth.saturating_add(1))?);
        let rate = rate
            .checked_mul(entry.number("clock-mult")?.into())?
            .checked_div(entry.number("clock-div")?.into())?;
        u32::try_from(rate).ok()
    }

    /// The copy of a node and of what lies below it. `is_device`: it has its registers in memory, and is the VM's to use.
    fn copy(&self, index: usize, is_device: bool, rates: &Rates) -> Option<Node> {
        let entry = self.tree.entry(index)?;
        let place =
            entry.registers.first().and_then(|span| self.guest_address(span.start)).filter(|_| is_device);
        let mut copy = Node::new(&match place {
            Some(address) => format!("{}@{address:x}", entry.name.split('@').next().unwrap_or_default()),
            None => String::from(entry.name),
        });
        for property in entry.node.properties() {
            let (name, value) = (core::str::from_utf8(property.name).unwrap_or_default(), property.value);
            if let Some(value) = self.property(entry, index, is_device, rates, name, value) {
                copy.set(String::from(name), value);
            }
        }
        // The node may have it by its old name.
        if entry.phandle.is_some() {
            copy.set_cells("phandle", &[copied(index)]);
        }
        if is_device {
            self.add_inherited(&mut copy, index, entry);
        }
        let below = self.tree.subtree(index).filter(|below| *below != index);
        for child in below.filter(|below| self.tree.entry(*below).is_some_and(|entry| entry.parent == index))
        {
            if let Some(child) = self.copy(child, false, rates) {
                copy.add(child);
            }
        }
        Some(copy)
    }

    /// Gives the copy of a device what nodes above it said that hold for all below them, where that isn't so on the VM's bus.
    fn add_inherited(&self, copy: &mut Node, index: usize, entry: &Entry<'_>) {
        let parent = entry.interrupt_parent.and_then(|phandle| self.tree.by_phandle(phandle));
        if let Some(parent) = parent.filter(|parent| self.taken.contains(parent)) {
            copy.set_cells("interrupt-parent", &[copied(parent)]);
        }
        if may_do_dma(entry) && self.tree.is_dma_coherent(index) {
            copy.set_flag("dma-coherent");
        }
    }

    /// What becomes of a property's value; `None`, the property is left out.
    fn property(
        &self,
        entry: &Entry<'_>,
        index: usize,
        is_device: bool,
        rates: &Rates,
        name: &str,
        value: &[u8],
    ) -> Option<Vec<u8>> {
        match name {
            "reg" if is_device => Some(bytes(&self.registers(entry))),
            "phandle" => Some(bytes(&[copied(index)])),
            "clocks" => Some(bytes(&self.copied_clocks(entry, rates)?)),
            "clock-names" if entry.value("clocks").is_some() => {
                self.copied_clocks(entry, rates).map(|_| value.to_vec())
            }
            // The other form goes before it.
            "interrupts" if entry.value("interrupts-extended").is_some() => None,
            "interrupts" | "interrupts-extended" => {
                let cells: Vec<u32> = self.interrupts(entry).into_iter().flatten().flatten().collect();
                (!cells.is_empty()).then(|| bytes(&cells))
            }
            "interrupt-names" => {
                let mut names = Vec::new();
                for (name, kept) in strings(value).zip(self.interrupts(entry)) {
                    if kept.is_some() {
                        names.extend_from_slice(name.as_bytes());
                        names.push(0);
                    }
                }
                (!names.is_empty()).then_some(names)
            }
            "interrupt-parent" if self.is_to_gic(value) => Some(bytes(&[GIC])),
            "linux,phandle" => None,
            "status" if is_device => None,
            _ if name.starts_with("assigned-clock") => None,
            _ => self.references(entry, name, value).unwrap_or_else(|| Some(value.to_vec())),
        }
    }

    fn guest_address(&self, physical: u64) -> Option<u64> {
        super::guest_address(self.registers, physical)
    }

    fn registers(&self, entry: &Entry<'_>) -> Vec<u32> {
        let spans =
            entry.registers.iter().filter_map(|span| Some([self.guest_address(span.start)?, span.size()]));
        spans.flatten().flat_map(cells).collect()
    }

    /// What the VM has for each interrupt of a node; `None` for one that goes to a controller which it doesn't have.
    fn interrupts(&self, entry: &Entry<'_>) -> Vec<Option<Vec<u32>>> {
        let is_extended = entry.value("interrupts-extended").is_some();
        let of = |(controller, cells): (usize, Vec<u32>)| {
            let (phandle, cells) = if self.tree.is_gic(controller) {
                (GIC, self.line(&cells)?.to_vec())
            } else if self.taken.contains(&controller) {
                (copied(controller), cells)
            } else {
                return None;
            };
            Some(is_extended.then_some(phandle).into_iter().chain(cells).collect())
        };
        self.tree.interrupts(entry).into_iter().map(of).collect()
    }

    /// The VM's line for one of the board's.
    fn line(&self, cells: &[u32]) -> Option<[u32; 3]> {
        let physical = Line::read(cells)?;
        let given = self.lines.iter().find(|line| line.physical.intid == physical.intid)?;
        Some([SPI, given.spi, if given.physical.edge { EDGE } else { LEVEL }])
    }

    /// Whether a reference is to the interrupt controller, for which the VM has one of its own.
    fn is_to_gic(&self, value: &[u8]) -> bool {
        let target = cell(value, 0).and_then(|phandle| self.tree.by_phandle(phandle));
        target.is_some_and(|target| self.tree.is_gic(target))
    }

    /// Clocks of the VM's own devices as they are, others as fixed ones. `None` where one isn't in the board's tree.
    fn copied_clocks(&self, entry: &Entry<'_>, rates: &Rates) -> Option<Vec<u32>> {
        let mut cells = Vec::new();
        for (phandle, clock) in self.clocks(entry) {
            if phandle == NOTHING {
                cells.push(NOTHING);
                continue;
            }
            let clock = clock?;
            if self.taken.contains(&clock.provider) {
                cells.push(copied(clock.provider));
                cells.extend(clock.cells);
            } else {
                cells.push(rates.phandle(rates.of(&clock)?)?);
            }
        }
        Some(cells)
    }

    /// What becomes of a property that refers to nodes, or has the names for one: `Some(None)`, it is left out. `None` for any other
    /// property.
    fn references(&self, entry: &Entry<'_>, name: &str, value: &[u8]) -> Option<Option<Vec<u8>>> {
        if let Some((_, of)) = NAMES.iter().find(|(names, _)| *names == name) {
            let whole = entry.value(of).is_none_or(|value| self.references(entry, of, value) != Some(None));
            return Some(whole.then(|| value.to_vec()));
        }
        // Its pins are the parent's.
        if name == "gpios" && entry.value("gpio-hog").is_some() {
            return None;
        }
        let cells = match REFERENCES.iter().find(|(known, _)| *known == name) {
            Some((_, cells)) => *cells,
            // Numbers, by the name of all things.
            None if name.ends_with("nr-gpios") => return None,
            None if name == "gpios" || name.ends_with("-gpios") || name.ends_with("-gpio") => {
                Some("#gpio-cells")
            }
            None if name.ends_with("-supply") => None,
            None if is_numbered(name, "pinctrl-") => None,
            None => return None,
        };
        let count = |target: &Entry<'_>| match cells {
            None => 0,
            Some("#gpio-range-cells") => GPIO_RANGE_CELLS,
            Some(cells) => target.number(cells).unwrap_or(0),
        };
        let mut copy = Vec::new();
        for (phandle, target, cells) in self.targets(value, count) {
            match target.filter(|target| self.taken.contains(target)) {
                Some(target) => copy.extend(copied(target).to_be_bytes()),
                None if phandle == NOTHING => copy.extend(NOTHING.to_be_bytes()),
                None => return Some(None),
            }
            copy.extend(cells.into_iter().flat_map(u32::to_be_bytes));
        }
        Some(Some(copy))
    }
}

/// A bus on which devices are that have these windows to memory: addresses are those of the VM.
fn bus(number: usize, windows: &[Window]) -> Node {
    let name = if number == 0 { String::from("board") } else { format!("board-{number}") };
    let mut bus = Node::new(&name);
    bus.set_text("compatible", "simple-bus");
    bus.set_cells("#address-cells", &[2]);
    bus.set_cells("#size-cells", &[2]);
    bus.set_flag("ranges");
    bus.set_flag("dma-noncoherent");
    if !windows.is_empty() {
        let fields = windows.iter().flat_map(|window| [window.bus, window.physical, window.size]);
        bus.set_cells("dma-ranges", &fields.flat_map(cells).collect::<Vec<u32>>());
    }
    bus
}

/// `pinctrl-0` and the like.
fn is_numbered(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The phandle of a copy.
fn copied(index: usize) -> u32 {
    COPIES.saturating_add(index as u32)
}
