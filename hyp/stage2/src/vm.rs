//! The names of VMs as memory knows them: a slot number, and sets of slots.

use core::fmt;

/// The slot of a VM, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(u8);

impl VmId {
    /// How many slots there are.
    pub const COUNT: usize = 64;

    /// The VM in `slot`, or `None` where there is no such slot.
    pub const fn new(slot: u8) -> Option<Self> {
        if (slot as usize) < Self::COUNT { Some(Self(slot)) } else { None }
    }

    /// The slot number.
    pub const fn slot(self) -> u8 {
        self.0
    }

    /// The VMID that tags the VM's TLB entries: slot + 1, so that VMID 0 is never a VM's. Fits 8-bit VMIDs.
    pub const fn vmid(self) -> u8 {
        self.0.wrapping_add(1)
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VM {}", self.0)
    }
}

/// A set of VMs, one bit per slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct VmSet(u64);

impl VmSet {
    /// The set without members.
    pub const EMPTY: Self = Self(0);

    /// The set whose bit n stands for the VM in slot n.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits, bit n standing for the VM in slot n.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of one VM.
    pub const fn only(vm: VmId) -> Self {
        Self(1u64.wrapping_shl(vm.0 as u32))
    }

    /// The set with `vm` added.
    #[must_use]
    pub const fn with(self, vm: VmId) -> Self {
        Self(self.0 | Self::only(vm).0)
    }

    /// The set with `vm` taken out.
    #[must_use]
    pub const fn without(self, vm: VmId) -> Self {
        Self(self.0 & !Self::only(vm).0)
    }

    /// Whether `vm` is a member.
    pub const fn contains(self, vm: VmId) -> bool {
        self.0 & Self::only(vm).0 != 0
    }

    /// Whether every member is a member of `other` too.
    pub const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there is no member.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for VmSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmSet({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_vmids() {
        assert_eq!(VmId::new(0).unwrap().vmid(), 1);
        assert_eq!(VmId::new(63).unwrap().vmid(), 64);
        assert_eq!(VmId::new(64), None);
    }

    #[test]
    fn sets() {
        let (a, z) = (VmId::new(0).unwrap(), VmId::new(63).unwrap());
        let both = VmSet::only(a).with(z);
        assert_eq!(both.bits(), 0x8000_0000_0000_0001);
        assert!(both.contains(a) && both.contains(z) && !both.contains(VmId::new(1).unwrap()));
        assert_eq!(both.without(z), VmSet::only(a));
        assert!(VmSet::only(a).is_subset_of(both) && !both.is_subset_of(VmSet::only(a)));
        assert!(both.without(a).without(z).is_empty());
    }
}
