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
    /// Memory that several VMs read; who writes to it gets a copy.
    CopyOnWrite,
}

impl Use {
    /// The memory type that stage 2 gives to it.
    pub const fn memory_type(self) -> MemoryType {
        match self {
            Self::Ram | Self::Shared | Self::CopyOnWrite => MemoryType::Normal,
            Self::Device | Self::Banked => MemoryType::Device,
        }
    }

    /// The code that a leaf keeps of a grant, and so of what an unmap gives back.
    pub(crate) const fn bits(self, may_write: bool) -> u64 {
        match (self, may_write) {
            (Self::Ram, _) => 0,
            (Self::Shared, false) => 1,
            (Self::Shared, true) => 2,
            (Self::Device, _) => 3,
            (Self::Banked, _) => 4,
            (Self::CopyOnWrite, _) => 5,
        }
    }

    /// The use and whether stores were granted. The codes that nobody writes are read as the least that there is.
    pub(crate) const fn from_bits(bits: u64) -> (Self, bool) {
        match bits {
            0 => (Self::Ram, true),
            2 => (Self::Shared, true),
            3 => (Self::Device, true),
            4 => (Self::Banked, true),
            5 => (Self::CopyOnWrite, false),
            _ => (Self::Shared, false),
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

    /// The right to the first `size` bytes, and to the rest, if there is one.
    pub(crate) fn split(self, size: u64) -> (Self, Option<Self>) {
        let Self { vm, range, usage, may_write } = self;
        let at = range.start().as_u64().saturating_add(size);
        if at >= range.end().as_u64() {
            return (self, None);
        }
        let part = |from, to| Self::new(vm, PaRange::from_bounds(from, to), usage, may_write);
        (part(range.start().as_u64(), at), Some(part(at, range.end().as_u64())))
    }

    /// One right for two that follow each other and are alike; both come back where they don't or aren't.
    pub(crate) fn join(self, next: Self) -> Result<Self, (Self, Self)> {
        let fits = self.range.end() == next.range.start()
            && (self.vm, self.usage, self.may_write) == (next.vm, next.usage, next.may_write);
        if !fits {
            return Err((self, next));
        }
        let range = PaRange::from_bounds(self.range.start().as_u64(), next.range.end().as_u64());
        Ok(Self::new(self.vm, range, self.usage, self.may_write))
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
        let Leaf { pa, attributes: Attributes { usage, may_write, .. }, .. } = leaf;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(from: u64, to: u64, usage: Use) -> Grant {
        Grant::new(VmId::new(3).unwrap(), PaRange::from_bounds(from, to), usage, true)
    }

    #[test]
    fn a_grant_is_split_and_joined() {
        let (first, rest) = grant(0x1000, 0x5000, Use::Ram).split(0x1000);
        let rest = rest.unwrap();
        assert_eq!((&first, &rest), (&grant(0x1000, 0x2000, Use::Ram), &grant(0x2000, 0x5000, Use::Ram)));
        assert_eq!(first.join(rest), Ok(grant(0x1000, 0x5000, Use::Ram)));
        for size in [0x4000, u64::MAX] {
            assert_eq!(grant(0x1000, 0x5000, Use::Ram).split(size), (grant(0x1000, 0x5000, Use::Ram), None));
        }
    }

    #[test]
    fn grants_that_do_not_follow_or_differ_are_not_joined() {
        let first = || grant(0x1000, 0x2000, Use::Ram);
        for next in [(0x3000, 0x4000, Use::Ram), (0x2000, 0x3000, Use::Shared), (0x0, 0x1000, Use::Ram)] {
            let next = || grant(next.0, next.1, next.2);
            assert_eq!(first().join(next()), Err((first(), next())));
        }
    }
}
