//! GICv2 with virtualization extensions: everything in memory (Arm IHI 0048B, "GIC architecture specification
//! version 2.0"). GIC-400 on the Raspberry Pi 4; `gic-version=2` on QEMU's `virt`.

use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};

use super::{PRIORITY, Trigger};

register_structs! {
    /// The distributor's registers (IHI 0048B, 4.3).
    #[allow(missing_docs, reason = "the names are the architecture's")]
    pub DistributorRegisters {
        (0x0000 => pub ctlr: ReadWrite<u32>),
        (0x0004 => pub typer: ReadOnly<u32>),
        (0x0008 => pub iidr: ReadOnly<u32>),
        (0x000c => _reserved0),
        (0x0080 => pub igroupr: [ReadWrite<u32>; 32]),
        (0x0100 => pub isenabler: [ReadWrite<u32>; 32]),
        (0x0180 => pub icenabler: [ReadWrite<u32>; 32]),
        (0x0200 => pub ispendr: [ReadWrite<u32>; 32]),
        (0x0280 => pub icpendr: [ReadWrite<u32>; 32]),
        (0x0300 => pub isactiver: [ReadWrite<u32>; 32]),
        (0x0380 => pub icactiver: [ReadWrite<u32>; 32]),
        (0x0400 => pub ipriorityr: [ReadWrite<u32>; 256]),
        (0x0800 => pub itargetsr: [ReadWrite<u8>; 1020]),
        (0x0bfc => _reserved1),
        (0x0c00 => pub icfgr: [ReadWrite<u32>; 64]),
        (0x0d00 => _reserved2),
        (0x0f00 => pub sgir: WriteOnly<u32>),
        (0x0f04 => @END),
    }
}

register_structs! {
    /// The CPU interface's registers (IHI 0048B, 4.4).
    #[allow(missing_docs, reason = "the names are the architecture's")]
    pub InterfaceRegisters {
        (0x0000 => pub ctlr: ReadWrite<u32>),
        (0x0004 => pub pmr: ReadWrite<u32>),
        (0x0008 => pub bpr: ReadWrite<u32>),
        (0x000c => pub iar: ReadOnly<u32>),
        (0x0010 => pub eoir: WriteOnly<u32>),
        (0x0014 => _reserved0),
        (0x1000 => pub dir: WriteOnly<u32>),
        (0x1004 => @END),
    }
}

register_structs! {
    /// The virtual interface's control registers (IHI 0048B, 5.3).
    #[allow(missing_docs, reason = "the names are the architecture's")]
    pub VirtualRegisters {
        (0x0000 => pub hcr: ReadWrite<u32>),
        (0x0004 => pub vtr: ReadOnly<u32>),
        (0x0008 => pub vmcr: ReadWrite<u32>),
        (0x000c => _reserved0),
        (0x0010 => pub misr: ReadOnly<u32>),
        (0x0014 => _reserved1),
        (0x0020 => pub eisr: [ReadOnly<u32>; 2]),
        (0x0028 => _reserved2),
        (0x0030 => pub elrsr: [ReadOnly<u32>; 2]),
        (0x0038 => _reserved3),
        (0x00f0 => pub apr: ReadWrite<u32>),
        (0x00f4 => _reserved4),
        (0x0100 => pub lr: [ReadWrite<u32>; 64]),
        (0x0200 => @END),
    }
}

const PRIORITIES: u32 = PRIORITY as u32 * 0x0101_0101;

/// GICC_CTLR: signal interrupts (group 1 as the non-secure side sees it, group 0 where there is one security state),
/// and EOI apart from deactivation.
const CTLR_ENABLE_AND_SPLIT_EOI: u32 = 1 | 1 << 9;

/// The distributor.
pub struct Distributor {
    registers: &'static DistributorRegisters,
}

// SAFETY: the registers are the same for all CPUs or banked; those that CPUs write at the same time (set and clear
// registers, the bytes of itargetsr, SGIR) take each write as a whole, of icfgr the caller says that one CPU writes it at a time,
// and the others are written by the boot CPU before other CPUs run.
unsafe impl Send for Distributor {}
// SAFETY: as above.
unsafe impl Sync for Distributor {}

impl Distributor {
    /// # Safety
    /// `base` is the address of a GICv2 distributor, mapped as device memory for ever.
    pub unsafe fn new(base: usize) -> Self {
        // SAFETY: the caller says that the registers are there; all of them are cells that allow shared access.
        Self { registers: unsafe { &*(base as *const DistributorRegisters) } }
    }

    /// Brings it to a known state: all SPIs disabled and of one priority, in the group that bit 0 of the control registers
    /// enables: group 0 where there is one security state. Where there are two, that bit is the non-secure side's group 1,
    /// and groups are firmware's to set: writes of them are ignored.
    pub fn init(&self) {
        let registers = self.registers;
        registers.ctlr.set(0);
        let words = self.words();
        for word in 1..words {
            registers.icenabler[word].set(!0);
            registers.icpendr[word].set(!0);
            registers.icactiver[word].set(!0);
            registers.igroupr[word].set(0);
        }
        for priorities in &registers.ipriorityr[8..words * 8] {
            priorities.set(PRIORITIES);
        }
        registers.ctlr.set(1);
    }

    /// Brings the SGIs and PPIs of the CPU that this runs on to a known state.
    pub fn init_private(&self) {
        let registers = self.registers;
        registers.icenabler[0].set(!0);
        registers.icpendr[0].set(!0);
        registers.icactiver[0].set(!0);
        registers.igroupr[0].set(0);
        for priorities in &registers.ipriorityr[..8] {
            priorities.set(PRIORITIES);
        }
    }

    fn words(&self) -> usize {
        (self.registers.typer.get() & 0x1f) as usize + 1
    }

    /// A guest's end of a mapped interrupt deactivates the physical one, but a level that is still asserted is not
    /// signalled again by itself. So it is with QEMU's model, which says that it is the GIC of a Cortex-A15; no CPU that
    /// has AArch64 has that one.
    pub fn forgets_levels(&self) -> bool {
        const CORTEX_A15: u32 = 0x0000_043b;
        self.registers.iidr.get() == CORTEX_A15
    }

    /// The bit of the CPU that this runs on in target masks: GICD_ITARGETSR0 reads as the reader's own.
    pub fn own_target(&self) -> u8 {
        self.registers.itargetsr[0].get()
    }

    /// Whether the distributor has this SPI.
    #[inline]
    pub fn has_spi(&self, intid: u32) -> bool {
        (32..(self.words() as u32 * 32).min(super::SPECIAL.start)).contains(&intid)
    }

    /// Sends an SPI to the CPUs in this mask. The registers are bytes that CPUs may write at the same time.
    #[inline]
    pub fn route(&self, intid: u32, targets: u8) {
        if self.has_spi(intid) {
            self.registers.itargetsr[intid as usize].set(targets);
        }
    }

    /// Sets how an SPI is signalled. The register has 16 interrupts: only one CPU at a time may do this.
    #[inline]
    pub fn set_trigger(&self, intid: u32, trigger: Trigger) {
        if !self.has_spi(intid) {
            return;
        }
        let config = &self.registers.icfgr[intid as usize / 16];
        let bit = 2 << (intid % 16 * 2);
        config.set(if trigger == Trigger::Edge { config.get() | bit } else { config.get() & !bit });
    }

    /// Enables or disables an interrupt; a private one on the CPU that this runs on.
    #[inline]
    pub fn set_enabled(&self, intid: u32, enabled: bool) {
        let word = intid as usize / 32;
        let bank = if enabled { &self.registers.isenabler } else { &self.registers.icenabler };
        if let Some(word) = bank.get(word).filter(|_| word < self.words()) {
            word.set(1 << (intid % 32));
        }
    }

    /// Gives an interrupt the active state or takes it; a private one on the CPU that this runs on.
    #[inline]
    pub fn set_active(&self, intid: u32, active: bool) {
        let bank = if active { &self.registers.isactiver } else { &self.registers.icactiver };
        if let Some(word) = bank.get(intid as usize / 32) {
            word.set(1 << (intid % 32));
        }
    }

    /// Whether an interrupt is pending; a private one on the CPU that this runs on.
    #[inline]
    pub fn is_pending(&self, intid: u32) -> bool {
        self.registers
            .ispendr
            .get(intid as usize / 32)
            .is_some_and(|word| word.get() & 1 << (intid % 32) != 0)
    }

    /// Makes an interrupt pending or not; a private one on the CPU that this runs on.
    #[inline]
    pub fn set_pending(&self, intid: u32, pending: bool) {
        let bank = if pending { &self.registers.ispendr } else { &self.registers.icpendr };
        if let Some(word) = bank.get(intid as usize / 32) {
            word.set(1 << (intid % 32));
        }
    }

    /// Sends an SGI to the CPUs in this mask.
    #[inline]
    pub fn send_sgi(&self, targets: u8, intid: u32) {
        self.registers.sgir.set(u32::from(targets) << 16 | intid & 0xf);
    }
}

/// The CPU interface and the virtual interface; both are banked, so this is of the CPU that it runs on.
pub struct Interface {
    physical: &'static InterfaceRegisters,
    virtual_: &'static VirtualRegisters,
    list_registers: u8,
}

impl Interface {
    /// Turns the CPU interface on, and the virtual interface off with its list registers empty.
    ///
    /// # Safety
    /// `gicc` and `gich` are the addresses of a GICv2's interfaces, mapped as device memory for ever.
    pub unsafe fn init(gicc: usize, gich: usize) -> Self {
        // SAFETY: the caller says that the registers are there; all of them are cells that allow shared access.
        let (physical, virtual_) =
            unsafe { (&*(gicc as *const InterfaceRegisters), &*(gich as *const VirtualRegisters)) };
        physical.pmr.set(0xff);
        physical.bpr.set(0);
        physical.ctlr.set(CTLR_ENABLE_AND_SPLIT_EOI);
        virtual_.hcr.set(0);
        let list_registers = (virtual_.vtr.get() & 0x3f) as u8 + 1;
        for lr in &virtual_.lr[..usize::from(list_registers)] {
            lr.set(0);
        }
        Self { physical, virtual_, list_registers }
    }

    /// The number of list registers.
    #[inline]
    pub fn count(&self) -> usize {
        usize::from(self.list_registers)
    }

    /// Acknowledges the highest pending interrupt: the whole GICC_IAR, whose low ten bits are the INTID (1020 and
    /// above for none); for an SGI, bits 12:10 are its source, and EOIR and DIR want them back.
    #[inline]
    pub fn acknowledge(&self) -> u32 {
        self.physical.iar.get()
    }

    /// Ends an interrupt's priority; it stays active until it is deactivated.
    #[inline]
    pub fn drop_priority(&self, iar: u32) {
        self.physical.eoir.set(iar);
    }

    /// Deactivates an interrupt.
    #[inline]
    pub fn deactivate(&self, iar: u32) {
        self.physical.dir.set(iar);
    }

    /// GICH_LR\<n\>; 0 for an index that there isn't.
    #[inline]
    pub fn read_lr(&self, index: usize) -> u32 {
        self.virtual_.lr.get(index).map_or(0, Readable::get)
    }

    /// Writes GICH_LR\<n\>; nothing for an index that there isn't.
    #[inline]
    pub fn write_lr(&self, index: usize, value: u32) {
        if let Some(lr) = self.virtual_.lr.get(index) {
            lr.set(value);
        }
    }

    /// GICH_ELRSR0: one bit per list register that is empty.
    #[inline]
    pub fn empty(&self) -> u32 {
        self.virtual_.elrsr[0].get()
    }

    /// GICH_EISR0: one bit per list register with an EOI to report.
    #[inline]
    pub fn ended(&self) -> u32 {
        self.virtual_.eisr[0].get()
    }

    /// GICH_HCR.
    #[inline]
    pub fn control(&self) -> u32 {
        self.virtual_.hcr.get()
    }

    /// Writes GICH_HCR.
    #[inline]
    pub fn set_control(&self, value: u32) {
        self.virtual_.hcr.set(value);
    }

    /// GICH_VMCR: the guest's view of its CPU interface.
    #[inline]
    pub fn vmcr(&self) -> u32 {
        self.virtual_.vmcr.get()
    }

    /// Writes GICH_VMCR.
    #[inline]
    pub fn set_vmcr(&self, value: u32) {
        self.virtual_.vmcr.set(value);
    }

    /// The guest's active priorities: GICH_APR.
    #[inline]
    pub fn active_priorities(&self) -> u32 {
        self.virtual_.apr.get()
    }

    /// Sets the guest's active priorities: to what was read here, or 0.
    #[inline]
    pub fn set_active_priorities(&self, value: u32) {
        self.virtual_.apr.set(value);
    }
}
