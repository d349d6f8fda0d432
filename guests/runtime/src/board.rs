//! Devices of the board that the machine was given: real ones, in the node `/board` of its tree.

use dtoolkit::Node;
use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;

use crate::machine;
use crate::mmio::Mmio;

/// A device of the board.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its registers.
    pub registers: Mmio,
    node: FdtNode<'static>,
}

impl Device {
    /// Its `n`th interrupt, as the GIC numbers them.
    pub fn intid(&self, n: usize) -> Option<u32> {
        machine::interrupt(self.node, n)
    }
}

/// The first one with this `compatible`.
pub fn find(compatible: &str) -> Option<Device> {
    let board = machine::tree().root().child("board")?;
    let node = board.children().find(|node| node.is_compatible(compatible))?;
    let registers = machine::region(node, 0)?;
    // SAFETY: the tree names these as the registers of a device, which no RAM overlaps; what isn't RAM is mapped as a device.
    Some(Device { registers: unsafe { Mmio::new(registers.base as usize) }, node })
}
