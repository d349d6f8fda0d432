//! What a VM is given, in words for a person.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use vmm::layout::Ipa;

use super::{Devices, Given, GivenLine, Span};
use crate::manifest::VmConfig;

/// A device that a VM is given. Prints as `/soc/serial@7e215040: 0xfe215040 to 0xfe21507f at 0xc010040, SPI 93 as 114`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its path in the board's tree.
    pub path: String,
    /// Its registers, and where the VM has them.
    pub registers: Vec<(Span, Ipa)>,
    /// Its lines.
    pub lines: Vec<GivenLine>,
}

impl fmt::Display for Described {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        let mut separator = "";
        for (span, at) in &self.registers {
            let last = span.end.saturating_sub(1);
            write!(f, "{separator}{:#x} to {last:#x} at {at}", span.start)?;
            separator = ", ";
        }
        for line in &self.lines {
            let spi = line.physical.intid.saturating_sub(32);
            write!(f, "{separator}SPI {spi} as {}", line.spi)?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("neither registers nor interrupts") } else { Ok(()) }
    }
}

impl Devices<'_> {
    /// The devices that a VM's manifest names, in its order, of which it was given `given`.
    #[inline(never)]
    pub fn describe(&self, config: &VmConfig<'_>, given: &Given) -> Vec<Described> {
        let named = config.devices.nodes.iter().filter_map(|name| self.tree.find(name));
        named.map(|index| self.describe_one(index, given)).collect()
    }

    fn describe_one(&self, index: usize, given: &Given) -> Described {
        let entries = || self.tree.subtree(index).filter_map(|index| self.tree.entry(index));
        let registers = entries().flat_map(|entry| &entry.registers);
        let lines = entries().flat_map(|entry| &entry.lines);
        Described {
            path: self.tree.path(index),
            registers: registers.filter_map(|span| Some((*span, given.guest_address(span.start)?))).collect(),
            lines: lines
                .filter_map(|line| given.lines.iter().find(|of| of.physical.intid == line.intid).copied())
                .collect(),
        }
    }

    /// The paths of devices that went along with those that a VM's manifest names, for they share a page or a line.
    #[inline(never)]
    pub fn gone_along(&self, config: &VmConfig<'_>) -> Vec<String> {
        let named: Vec<_> = config.devices.nodes.iter().filter_map(|name| self.tree.find(name)).collect();
        let is_named = |index: usize| named.iter().any(|named| self.tree.subtree(*named).contains(&index));
        let owners = self.owners.iter().enumerate();
        let along =
            owners.filter(|(index, owner)| owner.as_deref() == Some(config.name) && !is_named(*index));
        along.map(|(index, _)| self.tree.path(index)).collect()
    }
}

impl Given {
    fn guest_address(&self, physical: u64) -> Option<Ipa> {
        super::guest_address(&self.registers, physical).map(Ipa::new)
    }
}
