//! List registers: their contents in one form for both architectures, the two hardware formats, and the trait
//! by which the current physical CPU's are reached.

use crate::ids::{IntId, PhysicalIntId};

/// The contents of one list register.
///
/// It is kept in the format of `ICH_LR<n>_EL2` (IHI 0069, 12.4), with the source of a GICv2 SGI in bits 34:32, which
/// are RES0 there without HW: so on GICv3 nothing is converted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ListRegister(u64);

impl ListRegister {
    /// A register with nothing in it.
    pub const EMPTY: ListRegister = ListRegister(0);

    const GROUP1: u64 = 1 << 60;
    const HW: u64 = 1 << 61;
    const PENDING: u64 = 1 << 62;
    const ACTIVE: u64 = 1 << 63;
    /// With HW clear.
    const EOI: u64 = 1 << 41;
    const PRIORITY: u64 = 0xf8 << 48;
    const PHYSICAL: u64 = 0x1fff << 32;
    const SOURCE: u64 = 7 << 32;

    /// An interrupt that is neither pending nor active. Of the priority, 0 the highest, five bits are kept.
    #[inline]
    pub const fn new(intid: IntId, priority: u8, group1: bool) -> ListRegister {
        ListRegister(intid.0 as u64).with_priority(priority, group1)
    }

    #[inline]
    const fn with(self, bits: u64, set: bool) -> ListRegister {
        ListRegister(if set { self.0 | bits } else { self.0 & !bits })
    }

    /// With another priority and group.
    #[inline]
    pub const fn with_priority(self, priority: u8, group1: bool) -> ListRegister {
        ListRegister(self.0 & !Self::PRIORITY | (priority as u64) << 48 & Self::PRIORITY)
            .with(Self::GROUP1, group1)
    }

    /// Pending, active, or both, which a mapped interrupt must not be.
    #[inline]
    pub const fn with_state(self, pending: bool, active: bool) -> ListRegister {
        self.with(Self::PENDING, pending).with(Self::ACTIVE, active)
    }

    /// Mapped: the guest's deactivation deactivates this physical interrupt too.
    #[inline]
    pub const fn with_hw(self, physical: PhysicalIntId) -> ListRegister {
        ListRegister(self.0 & !Self::PHYSICAL | Self::HW | (physical.0 as u64) << 32 & Self::PHYSICAL)
    }

    /// Raise the maintenance interrupt when the guest deactivates the interrupt, or not. Not for mapped ones.
    #[inline]
    pub const fn with_eoi(self, eoi: bool) -> ListRegister {
        self.with(Self::EOI, eoi)
    }

    /// GICv2, SGIs: tell the guest this CPU (0..=7) as the source.
    #[inline]
    pub const fn with_source(self, source: u8) -> ListRegister {
        ListRegister(self.0 & !Self::SOURCE | (source as u64) << 32 & Self::SOURCE)
    }

    /// The interrupt that the guest sees.
    #[inline]
    pub const fn intid(self) -> IntId {
        IntId(self.0 as u16)
    }

    /// Priority; the low three bits are clear.
    #[inline]
    pub const fn priority(self) -> u8 {
        ((self.0 & Self::PRIORITY) >> 48) as u8
    }

    /// The interrupt is pending.
    #[inline]
    pub const fn pending(self) -> bool {
        self.0 & Self::PENDING != 0
    }

    /// The interrupt is active.
    #[inline]
    pub const fn active(self) -> bool {
        self.0 & Self::ACTIVE != 0
    }

    /// Group 1 rather than group 0.
    #[inline]
    pub const fn group1(self) -> bool {
        self.0 & Self::GROUP1 != 0
    }

    /// The physical interrupt of a mapped one.
    #[inline]
    pub const fn hw(self) -> Option<PhysicalIntId> {
        if self.0 & Self::HW == 0 {
            return None;
        }
        Some(PhysicalIntId(((self.0 & Self::PHYSICAL) >> 32) as u16))
    }

    /// The maintenance interrupt is raised when the guest deactivates the interrupt.
    #[inline]
    pub const fn eoi(self) -> bool {
        self.0 & (Self::HW | Self::EOI) == Self::EOI
    }

    /// GICv2, SGIs: the source.
    #[inline]
    pub const fn source(self) -> u8 {
        if self.0 & Self::HW != 0 { 0 } else { ((self.0 & Self::SOURCE) >> 32) as u8 }
    }

    /// The value of `ICH_LR<n>_EL2`. Without a source, which GICv3 doesn't have.
    #[inline]
    pub const fn to_ich(self) -> u64 {
        self.0
    }

    /// What `ICH_LR<n>_EL2` holds.
    #[inline]
    pub const fn from_ich(value: u64) -> ListRegister {
        ListRegister(value)
    }

    /// The value of `GICH_LR<n>` (IHI 0048, 5.3.11).
    #[inline]
    pub const fn to_gich(self) -> u32 {
        let line = match self.hw() {
            Some(physical) => 1 << 31 | (physical.0 as u32 & 0x3ff) << 10,
            None => (self.eoi() as u32) << 19 | (self.source() as u32) << 10,
        };
        self.0 as u32 & 0x3ff
            | line
            | (self.priority() as u32 >> 3) << 23
            | (self.pending() as u32) << 28
            | (self.active() as u32) << 29
            | (self.group1() as u32) << 30
    }

    /// What `GICH_LR<n>` holds.
    #[inline]
    pub const fn from_gich(value: u32) -> ListRegister {
        let lr = ListRegister::new(
            IntId(value as u16 & 0x3ff),
            ((value >> 23) as u8 & 0x1f) << 3,
            value & 1 << 30 != 0,
        )
        .with_state(value & 1 << 28 != 0, value & 1 << 29 != 0);
        if value & 1 << 31 != 0 {
            return lr.with_hw(PhysicalIntId((value >> 10) as u16 & 0x3ff));
        }
        lr.with_eoi(value & 1 << 19 != 0).with_source((value >> 10) as u8 & 7)
    }
}

impl core::fmt::Debug for ListRegister {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ListRegister")
            .field("intid", &self.intid().0)
            .field("priority", &self.priority())
            .field("pending", &self.pending())
            .field("active", &self.active())
            .field("group1", &self.group1())
            .field("hw", &self.hw())
            .field("eoi", &self.eoi())
            .field("source", &self.source())
            .finish()
    }
}

/// The reasons for a maintenance interrupt, as bits of `ICH_HCR_EL2` and `GICH_HCR`, where they are the same;
/// and whether the guest's writes to `ICC_DIR_EL1` trap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(pub(crate) u32);

impl Maintenance {
    /// No reason.
    pub const NONE: Maintenance = Maintenance(0);
    /// LRENPIE: the guest deactivated an interrupt that is in no list register (EOIcount isn't 0).
    pub const EOI_COUNT: Maintenance = Maintenance(1 << 2);
    /// NPIE: no list register holds a pending interrupt.
    pub const NONE_PENDING: Maintenance = Maintenance(1 << 3);
    /// VGrp0EIE: the guest enabled group 0 at its CPU interface.
    pub const GROUP0_ENABLED: Maintenance = Maintenance(1 << 4);
    /// VGrp0DIE: the guest disabled group 0 at its CPU interface.
    pub const GROUP0_DISABLED: Maintenance = Maintenance(1 << 5);
    /// VGrp1EIE: the guest enabled group 1 at its CPU interface.
    pub const GROUP1_ENABLED: Maintenance = Maintenance(1 << 6);
    /// VGrp1DIE: the guest disabled group 1 at its CPU interface.
    pub const GROUP1_DISABLED: Maintenance = Maintenance(1 << 7);
    /// TDIR: writes to `ICC_DIR_EL1` trap and are handed to [`crate::Vgic::write_dir`]. `ICH_HCR_EL2` alone has
    /// it, and only where `ICH_VTR_EL2.TDS` is 1.
    pub const TRAP_DIR: Maintenance = Maintenance(1 << 14);

    /// The bits, in their places in `ICH_HCR_EL2`. For `GICH_HCR` leave out [`Maintenance::TRAP_DIR`].
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// True where all of `other` is in this set.
    pub const fn contains(self, other: Maintenance) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn and(self, other: Maintenance) -> Maintenance {
        Maintenance(self.0 | other.0)
    }
}

/// What of the virtual CPU interface decides which interrupts the guest can be signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuInterface {
    /// Priority mask: only interrupts of a lower value are signalled.
    pub pmr: u8,
    /// Group 0 is enabled.
    pub group0: bool,
    /// Group 1 is enabled.
    pub group1: bool,
}

impl CpuInterface {
    /// As `ICH_VMCR_EL2` says.
    #[inline]
    pub const fn from_ich_vmcr(vmcr: u64) -> CpuInterface {
        CpuInterface { pmr: (vmcr >> 24) as u8, group0: vmcr & 1 != 0, group1: vmcr & 2 != 0 }
    }

    /// As `GICH_VMCR` says, which has five bits of the mask.
    #[inline]
    pub const fn from_gich_vmcr(vmcr: u32) -> CpuInterface {
        CpuInterface { pmr: (vmcr >> 27 << 3) as u8, group0: vmcr & 1 != 0, group1: vmcr & 2 != 0 }
    }
}

/// The list registers of the current physical CPU. Valid for the vCPU that is loaded there and no other.
///
/// Device accesses cost the most, above all on GICv2: the vGIC remembers which registers it uses and calls
/// these only where it must.
pub trait ListRegisters {
    /// How many there are: 1..=16. Called often: it should be a load, not a device access.
    fn count(&self) -> usize;
    /// The contents of register `n`, which is below [`ListRegisters::count`].
    fn read(&mut self, n: usize) -> ListRegister;
    /// Set register `n`, which is below [`ListRegisters::count`].
    fn write(&mut self, n: usize, value: ListRegister);
    /// `ICH_ELRSR_EL2`, `GICH_ELRSR0`: bit n is set where register n has no interrupt and no maintenance
    /// interrupt to raise.
    fn empty(&mut self) -> u32;
    /// `ICH_EISR_EL2`, `GICH_EISR0`: bit n is set where register n raises the maintenance interrupt because
    /// its interrupt was deactivated.
    fn ended(&mut self) -> u32;
    /// Read `HCR.EOIcount` and clear it.
    fn take_eoi_count(&mut self) -> u32;
    /// Set the reasons for a maintenance interrupt, in `HCR`. EOIcount is kept.
    fn set_maintenance(&mut self, reasons: Maintenance);
    /// The state of the virtual CPU interface, from `VMCR`.
    fn interface(&mut self) -> CpuInterface;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_field_is_kept(
            intid in 0u16..1020,
            priority in 0u8..32,
            [pending, active, group1, eoi] in any::<[bool; 4]>(),
            hw in proptest::option::of(16u16..1020),
            source in 0u8..8,
        ) {
            let mut lr = ListRegister::new(IntId(intid), 0xff, !group1)
                .with_priority(priority << 3 | 5, group1)
                .with_state(pending, active);
            match hw {
                Some(physical) => lr = lr.with_hw(PhysicalIntId(physical)),
                None => lr = lr.with_eoi(eoi).with_source(7).with_source(source),
            }
            prop_assert_eq!(lr.intid(), IntId(intid));
            prop_assert_eq!(lr.priority(), priority << 3);
            prop_assert_eq!((lr.pending(), lr.active(), lr.group1()), (pending, active, group1));
            prop_assert_eq!(lr.hw(), hw.map(PhysicalIntId));
            prop_assert_eq!(lr.eoi(), eoi && hw.is_none());
            prop_assert_eq!(lr.source(), if hw.is_none() { source } else { 0 });
            prop_assert_eq!(ListRegister::from_gich(lr.to_gich()), lr);
            prop_assert_eq!(ListRegister::from_ich(lr.to_ich()), lr);
        }
    }

    /// Values put together by hand from the bit positions in the two specifications.
    #[test]
    fn known_values() {
        let timer =
            ListRegister::new(IntId(27), 0xa0, true).with_state(true, false).with_hw(PhysicalIntId(27));
        assert_eq!(timer.to_ich(), 0x70a0_001b_0000_001b);
        assert_eq!(timer.to_gich(), 0xda00_6c1b);
        let sgi = ListRegister::new(IntId(3), 0xf8, false).with_state(false, true).with_eoi(true);
        assert_eq!(sgi.to_ich(), 0x80f8_0200_0000_0003);
        assert_eq!(sgi.with_source(5).to_gich(), 0x2f88_1403);
        assert_eq!(ListRegister::EMPTY.to_ich(), 0);
        assert_eq!(ListRegister::EMPTY.to_gich(), 0);
    }

    #[test]
    fn interface_fields() {
        let expected = CpuInterface { pmr: 0xf0, group0: false, group1: true };
        assert_eq!(CpuInterface::from_ich_vmcr(0xf000_0002), expected);
        assert_eq!(CpuInterface::from_gich_vmcr(0xf000_0002), expected);
    }
}
