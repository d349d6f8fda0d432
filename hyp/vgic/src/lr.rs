//! List registers: their contents in one form for both architectures, the two hardware formats, and the trait
//! by which the current physical CPU's are reached.

use crate::ids::{IntId, PhysicalIntId};

/// The contents of one list register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRegister {
    /// The interrupt that the guest sees.
    pub intid: IntId,
    /// Priority, 0 the highest; the low three bits are not kept.
    pub priority: u8,
    /// The interrupt is pending.
    pub pending: bool,
    /// The interrupt is active. With `pending`: active and pending, which `hw` must not be set with.
    pub active: bool,
    /// Group 1 rather than group 0.
    pub group1: bool,
    /// The physical interrupt that the guest's deactivation deactivates too.
    pub hw: Option<PhysicalIntId>,
    /// Raise the maintenance interrupt when the guest deactivates the interrupt. Not with `hw`.
    pub eoi: bool,
    /// GICv2, SGIs: the CPU (0..=7) that the guest is told as the source.
    pub source: u8,
}

impl ListRegister {
    /// A register with nothing in it.
    pub const EMPTY: ListRegister = ListRegister {
        intid: IntId(0),
        priority: 0,
        pending: false,
        active: false,
        group1: false,
        hw: None,
        eoi: false,
        source: 0,
    };

    /// The value of `ICH_LR<n>_EL2` (IHI 0069, 12.4).
    #[inline]
    pub const fn to_ich(self) -> u64 {
        let line = match self.hw {
            Some(physical) => 1 << 61 | (physical.0 as u64 & 0x1fff) << 32,
            None => (self.eoi as u64) << 41,
        };
        self.intid.0 as u64
            | line
            | (self.priority as u64 & 0xf8) << 48
            | (self.group1 as u64) << 60
            | (self.pending as u64) << 62
            | (self.active as u64) << 63
    }

    /// What `ICH_LR<n>_EL2` holds.
    #[inline]
    pub const fn from_ich(value: u64) -> ListRegister {
        let hw = value & 1 << 61 != 0;
        ListRegister {
            intid: IntId(value as u16),
            priority: (value >> 48) as u8 & 0xf8,
            pending: value & 1 << 62 != 0,
            active: value & 1 << 63 != 0,
            group1: value & 1 << 60 != 0,
            hw: if hw { Some(PhysicalIntId((value >> 32) as u16 & 0x1fff)) } else { None },
            eoi: !hw && value & 1 << 41 != 0,
            source: 0,
        }
    }

    /// The value of `GICH_LR<n>` (IHI 0048, 5.3.11).
    #[inline]
    pub const fn to_gich(self) -> u32 {
        let line = match self.hw {
            Some(physical) => 1 << 31 | (physical.0 as u32 & 0x3ff) << 10,
            None => (self.eoi as u32) << 19 | (self.source as u32 & 7) << 10,
        };
        self.intid.0 as u32 & 0x3ff
            | line
            | (self.priority as u32 >> 3) << 23
            | (self.pending as u32) << 28
            | (self.active as u32) << 29
            | (self.group1 as u32) << 30
    }

    /// What `GICH_LR<n>` holds.
    #[inline]
    pub const fn from_gich(value: u32) -> ListRegister {
        let hw = value & 1 << 31 != 0;
        ListRegister {
            intid: IntId(value as u16 & 0x3ff),
            priority: ((value >> 23) as u8 & 0x1f) << 3,
            pending: value & 1 << 28 != 0,
            active: value & 1 << 29 != 0,
            group1: value & 1 << 30 != 0,
            hw: if hw { Some(PhysicalIntId((value >> 10) as u16 & 0x3ff)) } else { None },
            eoi: !hw && value & 1 << 19 != 0,
            source: if hw { 0 } else { (value >> 10) as u8 & 7 },
        }
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

    fn any_lr() -> impl Strategy<Value = ListRegister> {
        (0u16..1020, 0u8..32, any::<[bool; 4]>(), proptest::option::of(16u16..1020), 0u8..8).prop_map(
            |(intid, priority, [pending, active, group1, eoi], hw, source)| ListRegister {
                intid: IntId(intid),
                priority: priority << 3,
                pending,
                active,
                group1,
                hw: hw.map(PhysicalIntId),
                eoi: eoi && hw.is_none(),
                source: if intid < 16 && hw.is_none() { source } else { 0 },
            },
        )
    }

    proptest! {
        #[test]
        fn both_formats_keep_everything(lr in any_lr()) {
            prop_assert_eq!(ListRegister::from_gich(lr.to_gich()), lr);
            let v3 = ListRegister { source: 0, ..lr };
            prop_assert_eq!(ListRegister::from_ich(v3.to_ich()), v3);
        }
    }

    /// Values put together by hand from the bit positions in the two specifications.
    #[test]
    fn known_values() {
        let timer = ListRegister {
            intid: IntId(27),
            priority: 0xa0,
            pending: true,
            group1: true,
            hw: Some(PhysicalIntId(27)),
            ..ListRegister::EMPTY
        };
        assert_eq!(timer.to_ich(), 0x70a0_001b_0000_001b);
        assert_eq!(timer.to_gich(), 0xda00_6c1b);
        let sgi = ListRegister {
            intid: IntId(3),
            priority: 0xf8,
            active: true,
            eoi: true,
            source: 5,
            ..ListRegister::EMPTY
        };
        assert_eq!(sgi.to_ich(), 0x80f8_0200_0000_0003);
        assert_eq!(sgi.to_gich(), 0x2f88_1403);
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
