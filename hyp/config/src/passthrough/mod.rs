//! Devices of the board that VMs are given: found in the board's tree, checked, handed to one VM each, and described in its tree.
//!
//! A device goes to one VM with all of its registers, in whole pages, and all of its interrupt lines. What shares a page or a line
//! with it goes to the same VM, or the device isn't handed out. A device that may read and write memory by itself (DMA) is
//! stopped by nothing on a board without an IOMMU: a VM that has one is as trusted as Hanok, and the manifest has to say so.
//!
//! Nothing is mapped here: [`Given`] says what the caller is to map, and what the VM's tree has of it.

mod copy;
mod describe;
mod dma;
mod error;
mod tree;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use stage2::{Pa, PaRange};
use vmm::layout::{DeviceRoom, Ipa};
use vmm::order;

pub use describe::Described;
pub use dma::Window;
pub use error::PassthroughError;
pub use tree::{Line, Span};

use crate::blob::Node;
use crate::manifest::{LayoutKind, VmConfig};
use tree::Tree;

/// What Hanok itself uses of the board, and nobody can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Its registers.
    pub registers: Span,
    /// The INTID of its line.
    pub line: Option<u16>,
    /// What it is, for a message: "the console".
    pub what: &'static str,
}

impl Own {
    /// `size` bytes of registers from `start` on, with the line of this INTID, if it's one that a device can have.
    pub fn new(start: Pa, size: u64, line: Option<u32>, what: &'static str) -> Self {
        let line = line.and_then(|intid| u16::try_from(intid).ok());
        Self { registers: Span::new(start.as_u64(), size), line, what }
    }
}

/// The devices of the board, and whose they are.
#[derive(Debug)]
pub struct Devices<'a> {
    tree: Tree<'a>,
    /// Who has each node of the tree.
    owners: Vec<Option<String>>,
}

/// What a VM is given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Registers, and where the VM has them. No page is there twice.
    pub registers: Vec<(Ipa, PaRange)>,
    /// Interrupt lines.
    pub lines: Vec<GivenLine>,
    /// What its tree has of them, for the root.
    pub nodes: Vec<Node>,
    /// Where its RAM has to be for all of them to reach it by DMA.
    pub reach: Option<Span>,
}

/// A line of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenLine {
    /// The board's.
    pub physical: Line,
    /// The number of the shared peripheral interrupt that the VM has for it (INTID minus 32).
    pub spi: u32,
}

impl<'a> Devices<'a> {
    /// Finds them in the board's tree, `gicd` being the address of the interrupt controller's registers. `None` where it has so many
    /// registers that there may be no memory for a list of them.
    #[inline(never)]
    pub fn find(tree: &devicetree::Tree<'a>, gicd: Pa) -> Option<Self> {
        let tree = Tree::read(tree, gicd.as_u64())?;
        let owners = tree.entries.iter().map(|_| None).collect();
        Some(Self { tree, owners })
    }

    /// All pages with registers of devices, in ascending order and without overlap.
    pub fn pages(&self) -> Vec<Span> {
        join(self.tree.entries.iter().flat_map(|entry| &entry.registers).map(|span| span.pages()))
    }

    /// Whether one of these VMs names the device at this path.
    pub fn is_wanted<'c>(&self, path: &str, mut configs: impl Iterator<Item = &'c VmConfig<'c>>) -> bool {
        let Some(wanted) = self.tree.find(path) else { return false };
        configs.any(|config| config.devices.nodes.iter().any(|name| self.tree.find(name) == Some(wanted)))
    }

    /// Hands a VM the devices that its manifest names.
    ///
    /// # Errors
    /// Why it can't have one of them; it gets none then.
    #[inline(never)]
    pub fn give(
        &mut self,
        config: &VmConfig<'_>,
        room: &DeviceRoom,
        own: &[Own],
    ) -> Result<Given, PassthroughError> {
        let named = self.named(config)?;
        let mut taken: Vec<usize> = named.iter().flat_map(|&index| self.tree.subtree(index)).collect();
        order::sort(&mut taken);
        if let Some(&[inner, _]) = taken.array_windows().find(|[one, next]| one == next) {
            return Err(PassthroughError::Nested { node: self.tree.path(inner) });
        }
        for &index in &named {
            self.check_owner(index, own)?;
            self.check_device(index)?;
        }
        for &index in &taken {
            self.check_owner(index, own)?;
            self.check(index, config)?;
            self.check_neighbours(index, &taken)?;
        }
        let along = self.along(&taken);
        for &index in &along {
            self.check_power(index, config)?;
        }
        let registers = self.place(&taken, room)?;
        let lines = self.lines(&taken, room)?;
        let reach = self.reach(&named, config)?;
        let nodes = copy::Copy {
            tree: &self.tree,
            named: &named,
            taken: &taken,
            registers: &registers,
            lines: &lines,
        }
        .nodes(config)?;
        for &index in taken.iter().chain(&along) {
            if let Some(owner) = self.owners.get_mut(index) {
                *owner = Some(config.name.to_owned());
            }
        }
        Ok(Given { registers, lines, nodes, reach })
    }

    /// Takes back all that a VM was given, which can't be built after all: others may have it.
    #[inline(never)]
    pub fn take_back(&mut self, vm: &str) {
        for owner in self.owners.iter_mut().filter(|owner| owner.as_deref() == Some(vm)) {
            *owner = None;
        }
    }

    /// The nodes that a manifest names.
    fn named(&self, config: &VmConfig<'_>) -> Result<Vec<usize>, PassthroughError> {
        let find = |name: &&str| {
            self.tree.find(name).ok_or_else(|| PassthroughError::NoSuchNode { name: (*name).to_owned() })
        };
        let named = config.devices.nodes.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let is_again = |(place, index): &(usize, &usize)| {
            named.get(..*place).is_some_and(|before| before.contains(index))
        };
        if let Some((_, &index)) = named.iter().enumerate().find(is_again) {
            return Err(PassthroughError::Twice { node: self.tree.path(index) });
        }
        Ok(named)
    }

    /// Whether a node that is named is something that can be used where it is: it has its registers in memory, or it has none, and
    /// a driver knows what it is (a supply, lamps at pins). What lies below one need not have registers in memory.
    fn check_device(&self, index: usize) -> Result<(), PassthroughError> {
        let Some(entry) = self.tree.entry(index) else { return Ok(()) };
        let node = || self.tree.path(index);
        if entry.is_memory {
            return Err(PassthroughError::MemoryNode { node: node() });
        }
        if entry.compatible().next().is_none() && entry.registers.is_empty() {
            return Err(PassthroughError::NoDevice { node: node() });
        }
        if entry.is_bus {
            return Err(PassthroughError::Bus { node: node() });
        }
        if entry.unreachable || entry.registers.is_empty() && entry.value("reg").is_some() {
            return Err(PassthroughError::Unreachable { node: node() });
        }
        Ok(())
    }

    /// Whether nobody has a node.
    fn check_owner(&self, index: usize, own: &[Own]) -> Result<(), PassthroughError> {
        let Some(entry) = self.tree.entry(index) else { return Ok(()) };
        let node = || self.tree.path(index);
        if let Some(Some(owner)) = self.owners.get(index) {
            return Err(PassthroughError::Taken { node: node(), owner: owner.clone() });
        }
        for own in own {
            let has_line = own.line.is_some_and(|line| entry.lines.iter().any(|of| of.intid == line));
            if has_line || entry.shared_page(&[own.registers]).is_some() {
                return Err(PassthroughError::Own { node: node(), what: own.what });
            }
        }
        Ok(())
    }

    /// Whether a node can be handed out to this VM.
    fn check(&self, index: usize, config: &VmConfig<'_>) -> Result<(), PassthroughError> {
        let Some(entry) = self.tree.entry(index) else { return Ok(()) };
        let node = || self.tree.path(index);
        if entry.private {
            return Err(PassthroughError::PrivateLine { node: node() });
        }
        if let Some(span) =
            entry.registers.iter().find(|span| self.tree.memory.iter().any(|bank| bank.meets(span.pages())))
        {
            return Err(PassthroughError::Memory { node: node(), address: span.start });
        }
        self.check_power(index, config)
    }

    /// Whether a VM may have what a device can do to others.
    fn check_power(&self, index: usize, config: &VmConfig<'_>) -> Result<(), PassthroughError> {
        let Some(entry) = self.tree.entry(index) else { return Ok(()) };
        let node = || self.tree.path(index);
        if entry.is_pin_controller && !config.devices.pin_control {
            return Err(PassthroughError::PinControl { node: node() });
        }
        if dma::may_do_dma(entry) {
            if config.layout != LayoutKind::Board {
                return Err(PassthroughError::DmaNeedsLayout { node: node() });
            }
            if !config.devices.unprotected_dma {
                return Err(PassthroughError::UnprotectedDma { node: node() });
            }
        }
        Ok(())
    }

    /// Whether all that shares a page or a line with a device goes with it. Devices that are disabled in the tree and nobody has
    /// may stay where they are: they go along.
    fn check_neighbours(&self, index: usize, taken: &[usize]) -> Result<(), PassthroughError> {
        let Some(entry) = self.tree.entry(index) else { return Ok(()) };
        for (other, neighbour) in self.tree.entries.iter().enumerate() {
            let owner = self.owners.get(other).and_then(Option::as_ref);
            if taken.contains(&other) || !neighbour.enabled && owner.is_none() {
                continue;
            }
            let names = || (self.tree.path(index), self.tree.path(other), owner.cloned());
            if let Some(page) = entry.shared_page(&neighbour.registers) {
                let (node, neighbour, owner) = names();
                return Err(PassthroughError::SharedPage { node, page, neighbour, owner });
            }
            if let Some(intid) = entry.shared_line(&neighbour.lines) {
                let (node, neighbour, owner) = names();
                return Err(PassthroughError::SharedLine { node, intid, neighbour, owner });
            }
        }
        Ok(())
    }

    /// The devices that go along with those that are taken: they are disabled in the tree, nobody has them, and they share a page or a
    /// line.
    fn along(&self, taken: &[usize]) -> Vec<usize> {
        let taken_entries = || taken.iter().filter_map(|&index| self.tree.entry(index));
        let shares = |neighbour: &tree::Entry<'_>| {
            taken_entries().any(|entry| {
                entry.shared_page(&neighbour.registers).is_some()
                    || entry.shared_line(&neighbour.lines).is_some()
            })
        };
        let entries = self.tree.entries.iter().enumerate();
        let along =
            entries.filter(|(index, entry)| !taken.contains(index) && !entry.enabled && shares(entry));
        along.map(|(index, _)| index).collect()
    }

    /// What all of these devices reach that may do DMA.
    fn reach(&self, named: &[usize], config: &VmConfig<'_>) -> Result<Option<Span>, PassthroughError> {
        let mut reach: Option<Vec<Span>> = None;
        for &index in named {
            if !self.tree.entry(index).is_some_and(dma::may_do_dma) {
                continue;
            }
            let Some(windows) = self.tree.dma_windows(index) else { continue };
            let so_far = reach.unwrap_or_else(|| Vec::from([Span { start: 0, end: u64::MAX }]));
            let spans = windows.iter().map(|window| Span::new(window.physical, window.size));
            let common: Vec<Span> =
                spans.flat_map(|span| so_far.iter().filter_map(move |of| of.common(span))).collect();
            if common.is_empty() {
                return Err(PassthroughError::NoReach { node: self.tree.path(index) });
            }
            reach = Some(common);
        }
        let Some(reach) = reach else { return Ok(None) };
        let widest = reach.iter().copied().max_by_key(|span| span.size());
        let Some(start) = config.memory_address else { return Ok(widest) };
        let ram = Span::new(start, config.memory);
        match reach.into_iter().find(|span| span.common(ram) == Some(ram)) {
            Some(span) => Ok(Some(span)),
            None => Err(PassthroughError::OutOfReach { ram, reach: widest.unwrap_or(ram) }),
        }
    }

    /// Where the VM has the registers.
    fn place(&self, taken: &[usize], room: &DeviceRoom) -> Result<Vec<(Ipa, PaRange)>, PassthroughError> {
        let spans =
            taken.iter().filter_map(|&index| self.tree.entry(index)).flat_map(|entry| &entry.registers);
        let mut next = room.registers.base.as_u64();
        let mut places = Vec::new();
        for span in join(spans.map(|span| span.pages())) {
            let too_far = || PassthroughError::TooFar { address: span.start };
            let pages = PaRange::new(Pa::new(span.start), span.size()).map_err(|_| too_far())?;
            if room.one_to_one {
                places.push((Ipa::new(span.start), pages));
                continue;
            }
            // Apart from each other, so that a guest with larger pages can map them one by one.
            let end = next.saturating_add(span.size());
            if end > room.registers.end().as_u64() {
                return Err(PassthroughError::NoRoom { room: room.registers.size });
            }
            places.push((Ipa::new(next), pages));
            next = end.next_multiple_of(LARGEST_PAGE);
        }
        Ok(places)
    }

    /// Which interrupts the VM has for the lines.
    fn lines(&self, taken: &[usize], room: &DeviceRoom) -> Result<Vec<GivenLine>, PassthroughError> {
        let mut lines: Vec<GivenLine> = Vec::new();
        for physical in
            taken.iter().filter_map(|&index| self.tree.entry(index)).flat_map(|entry| &entry.lines)
        {
            if lines.iter().any(|line| line.physical.intid == physical.intid) {
                continue;
            }
            let spi = if room.one_to_one {
                u32::from(physical.intid).saturating_sub(32)
            } else {
                room.first_spi.saturating_add(lines.len() as u32)
            };
            if spi.saturating_sub(room.first_spi) >= room.spis {
                return Err(PassthroughError::TooManyLines { room: room.spis });
            }
            lines.push(GivenLine { physical: *physical, spi });
        }
        Ok(lines)
    }
}

/// Where a VM that has these pages has a physical address.
fn guest_address(registers: &[(Ipa, PaRange)], physical: u64) -> Option<u64> {
    registers.iter().find_map(|(at, pages)| {
        let offset = physical.checked_sub(pages.start().as_u64()).filter(|offset| *offset < pages.size())?;
        at.as_u64().checked_add(offset)
    })
}

/// The largest page that a guest can have.
const LARGEST_PAGE: u64 = 64 << 10;

/// Spans in ascending order, those that touch joined.
fn join(spans: impl Iterator<Item = Span>) -> Vec<Span> {
    let mut sorted: Vec<Span> = spans.collect();
    order::sort(&mut sorted);
    let mut joined: Vec<Span> = Vec::new();
    for span in sorted {
        match joined.last_mut().filter(|last| span.start <= last.end) {
            Some(last) => last.end = last.end.max(span.end),
            None => joined.push(span),
        }
    }
    joined
}
