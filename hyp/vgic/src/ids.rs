//! The small types that name interrupts, vCPUs and sets of them.

/// An interrupt of the virtual machine: 0..=15 SGI, 16..=31 PPI, 32..=1019 SPI.
///
/// Any value may be constructed; operations on an interrupt that the VM doesn't have do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntId(pub u16);

impl IntId {
    /// Overflow of performance counters (PPI 23).
    pub const COUNTERS: IntId = IntId(23);
    /// EL1 virtual timer (PPI 27).
    pub const VIRTUAL_TIMER: IntId = IntId(27);
    /// EL1 physical timer (PPI 30).
    pub const PHYSICAL_TIMER: IntId = IntId(30);

    /// SPI number `n` (0..=987), which is interrupt `32 + n`.
    pub const fn spi(n: u16) -> IntId {
        IntId(n.wrapping_add(32))
    }

    /// True for SGIs and PPIs, of which every vCPU has its own.
    pub const fn is_private(self) -> bool {
        self.0 < 32
    }

    /// True for software-generated interrupts.
    pub const fn is_sgi(self) -> bool {
        self.0 < 16
    }

    /// The word of 32 interrupts that holds this one: 0 is the private one.
    pub(crate) const fn word(self) -> usize {
        (self.0 >> 5) as usize
    }

    /// This interrupt's bit in its word.
    pub(crate) const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }
}

/// An interrupt of the physical interrupt controller (16..=1019).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysicalIntId(pub u16);

/// A vCPU of the VM, counted from 0. At most 8 on GICv2, 64 on GICv3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VcpuId(pub u8);

impl VcpuId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The vCPU as a set of one. Identifiers are below 64 wherever they come from a VM.
    pub(crate) const fn mask(self) -> u64 {
        1 << (self.0 & 63)
    }
}

/// A set of vCPUs that must call [`crate::Vgic::sync`] before they next run guest code. The vCPU that made the
/// call may be among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "the vCPUs named here miss an interrupt if they don't sync"]
pub struct Kicks(pub u64);

impl Kicks {
    /// Nobody.
    pub const NONE: Kicks = Kicks(0);

    /// True where `vcpu` must sync.
    pub const fn contains(self, vcpu: VcpuId) -> bool {
        self.0 & vcpu.mask() != 0
    }

    /// The same set without `vcpu`: whom the caller, having synced `vcpu` itself, must still reach.
    pub const fn without(self, vcpu: VcpuId) -> Kicks {
        Kicks(self.0 & !vcpu.mask())
    }

    /// True where nobody needs to sync.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl core::ops::BitOr for Kicks {
    type Output = Kicks;
    fn bitor(self, other: Kicks) -> Kicks {
        Kicks(self.0 | other.0)
    }
}

impl core::ops::BitOrAssign for Kicks {
    fn bitor_assign(&mut self, other: Kicks) {
        self.0 |= other.0;
    }
}

impl Iterator for Kicks {
    type Item = VcpuId;
    /// Takes the lowest vCPU out of the set.
    fn next(&mut self) -> Option<VcpuId> {
        if self.0 == 0 {
            return None;
        }
        let n = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        Some(VcpuId(n as u8))
    }
}

/// An affinity, laid out as in `GICR_TYPER[63:32]`: Aff3 in bits 31:24 down to Aff0 in bits 7:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Affinity(pub u32);

impl Affinity {
    /// The affinity fields of an `MPIDR_EL1` value; `GICD_IROUTER<n>` has the same layout.
    pub const fn from_mpidr(mpidr: u64) -> Affinity {
        Affinity((mpidr & 0x00ff_ffff) as u32 | ((mpidr >> 8) as u32 & 0xff00_0000))
    }

    /// What a write of ICC_SGI1R_EL1 has that names it alone, INTID apart.
    pub const fn to_sgi1r(self) -> u64 {
        let [aff3, aff2, aff1, aff0] = self.0.to_be_bytes();
        let list = 1 << (aff0 & 0xf);
        (aff3 as u64) << 48 | (aff0 as u64 >> 4) << 44 | (aff2 as u64) << 32 | (aff1 as u64) << 16 | list
    }

    /// The affinity as in `MPIDR_EL1` and `GICD_IROUTER<n>`, the other bits clear.
    pub const fn to_mpidr(self) -> u64 {
        (self.0 & 0x00ff_ffff) as u64 | ((self.0 & 0xff00_0000) as u64) << 8
    }
}

/// The size of a register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits: no GIC register takes it.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits: `GICD_IROUTER<n>`, `GICR_TYPER`.
    Double,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn affinity_goes_both_ways() {
        let mpidr = 0x12_0034_5678u64 | 1 << 31;
        let affinity = Affinity::from_mpidr(0x12_0034_5678 | 1 << 31);
        assert_eq!(affinity.0, 0x1234_5678);
        assert_eq!(affinity.to_mpidr(), mpidr & !(1 << 31));
    }

    #[test]
    fn kicks_iterate_upwards() {
        let kicks = Kicks(1 << 63 | 0b101);
        assert!(kicks.contains(VcpuId(2)) && !kicks.contains(VcpuId(1)));
        assert!(kicks.eq([VcpuId(0), VcpuId(2), VcpuId(63)]));
        assert_eq!(kicks.without(VcpuId(63)), Kicks(5));
    }
}
