//! The ledger's word that a VM may map a range of physical pages: a token that only the ledger makes.
//!
//! Grants come from [`Ledger::grant`](crate::Ledger::grant), are used up by [`Stage2::map`](crate::Stage2::map), come back
//! from an unmap, and end in [`Ledger::release`](crate::Ledger::release). A grant that is dropped on the way leaves its
//! pages counted as mapped, so that they can never be given away: a leak, but no breach.

use crate::addr::{Pa, PaRange};
use crate::descriptor::{Attributes, Leaf, MemoryType, Permissions};
use crate::vm::VmId;

/// What a mapped page is to the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Memory that the VM alone owns.
    Ram,
    /// Memory shared between named VMs.
    Shared,
    /// Registers of a device that the VM alone has been given.
    Device,
    /// Registers that each CPU sees its own copy of (GICV), mapped to several VMs.
    Banked,
}

impl Use {
    /// The memory type that stage 2 gives to it.
    pub const fn memory_type(self) -> MemoryType {
        match self {
            Self::Ram | Self::Shared => MemoryType::Normal,
            Self::Device | Self::Banked => MemoryType::Device,
        }
    }

    pub(crate) const fn bits(self) -> u64 {
        match self {
            Self::Ram => 0,
            Self::Shared => 1,
            Self::Device => 2,
            Self::Banked => 3,
        }
    }

    pub(crate) const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Ram,
            1 => Self::Shared,
            2 => Self::Device,
            _ => Self::Banked,
        }
    }
}

/// The right to map `range` once in the stage 2 of `vm`. Neither copied nor made outside this crate.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a grant that is dropped leaves its pages counted as mapped"]
pub struct Grant {
    vm: VmId,
    range: PaRange,
    usage: Use,
    may_write: bool,
}

impl Grant {
    /// For the ledger, which has counted it, and for unmapping, which gives back what was used up.
    pub(crate) const fn new(vm: VmId, range: PaRange, usage: Use, may_write: bool) -> Self {
        Self { vm, range, usage, may_write }
    }

    /// Whom the right is given to.
    pub const fn vm(&self) -> VmId {
        self.vm
    }

    /// Which pages.
    pub const fn range(&self) -> PaRange {
        self.range
    }

    /// What they are to the VM.
    pub const fn usage(&self) -> Use {
        self.usage
    }

    /// Whether the VM may have stores to them.
    pub const fn may_write(&self) -> bool {
        self.may_write
    }

    pub(crate) const fn attributes(&self, permissions: Permissions) -> Attributes {
        Attributes { permissions, usage: self.usage, may_write: self.may_write }
    }
}

/// Puts leaves together that follow each other in physical memory, so that few grants come back from many entries.
pub(crate) struct Collector<F> {
    vm: VmId,
    taken: F,
    pending: Option<Pending>,
}

#[derive(Clone, Copy)]
struct Pending {
    start: u64,
    end: u64,
    usage: Use,
    may_write: bool,
}

impl<F: FnMut(Grant)> Collector<F> {
    pub(crate) const fn new(vm: VmId, taken: F) -> Self {
        Self { vm, taken, pending: None }
    }

    /// One more leaf, which spans `span` bytes.
    pub(crate) fn add(&mut self, leaf: Leaf, span: u64) {
        let Leaf { pa, attributes: Attributes { usage, may_write, .. } } = leaf;
        let end = end_of(pa, span);
        if let Some(pending) = &mut self.pending
            && (pending.end, pending.usage, pending.may_write) == (pa.as_u64(), usage, may_write)
        {
            pending.end = end;
            return;
        }
        self.finish();
        self.pending = Some(Pending { start: pa.as_u64(), end, usage, may_write });
    }

    /// Hands out what is left.
    pub(crate) fn finish(&mut self) {
        if let Some(Pending { start, end, usage, may_write }) = self.pending.take() {
            (self.taken)(Grant::new(self.vm, PaRange::from_bounds(start, end), usage, may_write));
        }
    }
}

/// The end of a leaf. Addresses have 48 bits, so this cannot wrap.
const fn end_of(pa: Pa, span: u64) -> u64 {
    pa.as_u64().wrapping_add(span)
}
