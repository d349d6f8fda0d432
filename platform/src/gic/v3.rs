//! GICv3 and later: distributor and redistributors in memory, CPU and virtual interface in system registers
//! (Arm IHI 0069, "GIC architecture specification version 3 and 4").

use core::arch::asm;

use aarch64_cpu::registers::*;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite};

use super::{PRIORITY, Trigger};
use crate::tree::Range;

register_structs! {
    /// The distributor's registers (IHI 0069, 12.8), with affinity routing.
    #[allow(missing_docs, reason = "the names are the architecture's")]
    pub DistributorRegisters {
        (0x0000 => pub ctlr: ReadWrite<u32>),
        (0x0004 => pub typer: ReadOnly<u32>),
        (0x0008 => _reserved0),
        (0x0080 => pub igroupr: [ReadWrite<u32>; 32]),
        (0x0100 => pub isenabler: [ReadWrite<u32>; 32]),
        (0x0180 => pub icenabler: [ReadWrite<u32>; 32]),
        (0x0200 => pub ispendr: [ReadWrite<u32>; 32]),
        (0x0280 => pub icpendr: [ReadWrite<u32>; 32]),
        (0x0300 => pub isactiver: [ReadWrite<u32>; 32]),
        (0x0380 => pub icactiver: [ReadWrite<u32>; 32]),
        (0x0400 => pub ipriorityr: [ReadWrite<u32>; 256]),
        (0x0800 => _reserved1),
        (0x0c00 => pub icfgr: [ReadWrite<u32>; 64]),
        (0x0d00 => pub igrpmodr: [ReadWrite<u32>; 32]),
        (0x0d80 => _reserved2),
        (0x6100 => pub irouter: [ReadWrite<u64>; 988]),
        (0x7fe0 => @END),
    }
}

register_structs! {
    /// The first frame of a redistributor (IHI 0069, 12.10).
    #[allow(missing_docs, reason = "the names are the architecture's")]
    pub RedistributorRegisters {
        (0x0000 => pub ctlr: ReadWrite<u32>),
        (0x0004 => pub iidr: ReadOnly<u32>),
        (0x0008 => pub typer: ReadOnly<u64>),
        (0x0010 => _reserved0),
        (0x0014 => pub waker: ReadWrite<u32>),
        (0x0018 => @END),
    }
}

register_structs! {
    /// The second frame of a redistributor: SGIs and PPIs.
    #[allow(missing_docs, reason = "the names are the architecture's")]
    pub PrivateRegisters {
        (0x0000 => _reserved0),
        (0x0080 => pub igroupr0: ReadWrite<u32>),
        (0x0084 => _reserved1),
        (0x0100 => pub isenabler0: ReadWrite<u32>),
        (0x0104 => _reserved2),
        (0x0180 => pub icenabler0: ReadWrite<u32>),
        (0x0184 => _reserved3),
        (0x0200 => pub ispendr0: ReadWrite<u32>),
        (0x0204 => _reserved4),
        (0x0280 => pub icpendr0: ReadWrite<u32>),
        (0x0284 => _reserved5),
        (0x0300 => pub isactiver0: ReadWrite<u32>),
        (0x0304 => _reserved6),
        (0x0380 => pub icactiver0: ReadWrite<u32>),
        (0x0384 => _reserved7),
        (0x0400 => pub ipriorityr: [ReadWrite<u32>; 8]),
        (0x0420 => _reserved8),
        (0x0c00 => pub icfgr: [ReadWrite<u32>; 2]),
        (0x0c08 => _reserved9),
        (0x0d00 => pub igrpmodr0: ReadWrite<u32>),
        (0x0d04 => @END),
    }
}

/// Four bytes of [`PRIORITY`].
const PRIORITIES: u32 = PRIORITY as u32 * 0x0101_0101;

/// GICD_CTLR.ARE_NS, or ARE in a single security state.
const CTLR_ARE: u32 = 1 << 4;
/// GICD_CTLR.EnableGrp1A, or EnableGrp1 in a single security state.
const CTLR_ENABLE_GROUP1: u32 = 1 << 1;
/// GICD_CTLR.RWP: a write has not taken effect everywhere yet.
const CTLR_RWP: u32 = 1 << 31;

/// GICR_CTLR.RWP: a write has not taken effect yet.
const GICR_CTLR_RWP: u32 = 1 << 3;

const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;

/// GICR_TYPER.VLPIS: the redistributor has four frames instead of two.
const TYPER_VLPIS: u64 = 1 << 1;
const TYPER_LAST: u64 = 1 << 4;

/// Size of one redistributor frame in bytes.
const FRAME: u64 = 0x1_0000;

/// The distributor.
pub struct Distributor {
    registers: &'static DistributorRegisters,
}

// SAFETY: the registers are the same for all CPUs; those that CPUs write at the same time (set and clear registers, routes) take
// each write as a whole, of icfgr the caller says that one CPU writes it at a time, and the others are written by the boot CPU
// before other CPUs run.
unsafe impl Send for Distributor {}
// SAFETY: as above.
unsafe impl Sync for Distributor {}

impl Distributor {
    /// # Safety
    /// `base` is the address of a GICv3 distributor, mapped as device memory for ever.
    pub unsafe fn new(base: usize) -> Self {
        // SAFETY: the caller says that the registers are there; all of them are cells that allow shared access.
        Self { registers: unsafe { &*(base as *const DistributorRegisters) } }
    }

    /// Brings it to a known state: all SPIs disabled, in group 1, of one priority; affinity routing on.
    pub fn init(&self) {
        let registers = self.registers;
        // All groups off; affinity routing, once on, stays on.
        registers.ctlr.set(registers.ctlr.get() & CTLR_ARE);
        self.wait();
        let words = self.words();
        for word in 1..words {
            registers.icenabler[word].set(!0);
            registers.icpendr[word].set(!0);
            registers.icactiver[word].set(!0);
            registers.igroupr[word].set(!0);
            registers.igrpmodr[word].set(0);
        }
        for priorities in &registers.ipriorityr[8..words * 8] {
            priorities.set(PRIORITIES);
        }
        self.wait();
        registers.ctlr.set(CTLR_ARE | CTLR_ENABLE_GROUP1);
        self.wait();
    }

    /// The number of 32-interrupt words, private ones included.
    fn words(&self) -> usize {
        (self.registers.typer.get() & 0x1f) as usize + 1
    }

    fn wait(&self) {
        while self.registers.ctlr.get() & CTLR_RWP != 0 {}
    }

    /// Whether the distributor has this SPI.
    #[inline]
    pub fn has_spi(&self, intid: u32) -> bool {
        (32..(self.words() as u32 * 32).min(super::SPECIAL.start)).contains(&intid)
    }

    /// Sends an SPI to the CPU of this affinity.
    #[inline]
    pub fn route(&self, intid: u32, mpidr: u64) {
        if self.has_spi(intid) {
            self.registers.irouter[intid as usize - 32].set(mpidr & 0xff_00ff_ffff);
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

    /// Gives an SPI the active state or takes it.
    #[inline]
    pub fn set_active(&self, intid: u32, active: bool) {
        if self.has_spi(intid) {
            let bank = if active { &self.registers.isactiver } else { &self.registers.icactiver };
            bank[intid as usize / 32].set(1 << (intid % 32));
        }
    }

    /// Whether an SPI is pending.
    #[inline]
    pub fn is_pending(&self, intid: u32) -> bool {
        self.has_spi(intid) && self.registers.ispendr[intid as usize / 32].get() & 1 << (intid % 32) != 0
    }

    /// Makes an SPI pending or not.
    #[inline]
    pub fn set_pending(&self, intid: u32, pending: bool) {
        if self.has_spi(intid) {
            let bank = if pending { &self.registers.ispendr } else { &self.registers.icpendr };
            bank[intid as usize / 32].set(1 << (intid % 32));
        }
    }

    /// Enables or disables an SPI.
    #[inline]
    pub fn set_enabled(&self, intid: u32, enabled: bool) {
        if !self.has_spi(intid) {
            return;
        }
        let (word, bit) = (intid as usize / 32, 1 << (intid % 32));
        let bank = if enabled { &self.registers.isenabler } else { &self.registers.icenabler };
        if let Some(word) = bank.get(word) {
            word.set(bit);
        }
    }
}

/// The redistributor of one CPU: its SGIs and PPIs.
pub struct Redistributor {
    control: &'static RedistributorRegisters,
    private: &'static PrivateRegisters,
}

// SAFETY: set and clear registers take each write as a whole, from whichever CPU; the others are written in `init` alone, by
// the CPU that the redistributor belongs to.
unsafe impl Send for Redistributor {}
// SAFETY: as above.
unsafe impl Sync for Redistributor {}

impl Redistributor {
    /// Looks for the redistributor of the CPU of this affinity.
    ///
    /// # Safety
    /// `regions` are the board's redistributor regions, mapped as device memory for ever.
    pub unsafe fn find(regions: &[Range], stride: Option<u64>, mpidr: u64) -> Option<Self> {
        let affinity = mpidr >> 8 & 0xff00_0000 | mpidr & 0xff_ffff;
        regions.iter().find_map(|region| {
            // SAFETY: the caller's promise, passed on.
            unsafe { Self::find_in(region, stride, affinity) }
        })
    }

    /// # Safety
    /// As for [`Self::find`].
    unsafe fn find_in(region: &Range, stride: Option<u64>, affinity: u64) -> Option<Self> {
        let mut base = region.start.as_u64();
        while base + 2 * FRAME <= region.end() {
            // SAFETY: the frame lies in the region, which the caller says is mapped redistributors.
            let control = unsafe { &*(base as *const RedistributorRegisters) };
            let typer = control.typer.get();
            if typer >> 32 == affinity {
                // SAFETY: the second frame follows the first within the region.
                let private = unsafe { &*((base + FRAME) as *const PrivateRegisters) };
                return Some(Self { control, private });
            }
            if typer & TYPER_LAST != 0 {
                return None;
            }
            let frames = if typer & TYPER_VLPIS != 0 { 4 } else { 2 };
            base += stride.filter(|stride| *stride != 0).unwrap_or(frames * FRAME);
        }
        None
    }

    /// Wakes it and brings SGIs and PPIs to a known state: disabled, inactive, group 1, one priority.
    pub fn init(&self) {
        self.control.waker.set(self.control.waker.get() & !WAKER_PROCESSOR_SLEEP);
        while self.control.waker.get() & WAKER_CHILDREN_ASLEEP != 0 {}
        let private = self.private;
        private.icenabler0.set(!0);
        while self.control.ctlr.get() & GICR_CTLR_RWP != 0 {}
        // The timer's and the maintenance interrupt are levels; where a PPI's kind is fixed, this is ignored.
        private.icfgr[1].set(0);
        private.icpendr0.set(!0);
        private.icactiver0.set(!0);
        private.igroupr0.set(!0);
        private.igrpmodr0.set(0);
        for priorities in &private.ipriorityr {
            priorities.set(PRIORITIES);
        }
    }

    /// Enables or disables an SGI or PPI.
    #[inline]
    pub fn set_enabled(&self, intid: u32, enabled: bool) {
        let bit = 1u32.wrapping_shl(intid);
        if enabled { self.private.isenabler0.set(bit) } else { self.private.icenabler0.set(bit) }
    }

    /// Gives SGIs and PPIs, one bit each, the active state or takes it.
    #[inline]
    pub fn set_active(&self, mask: u32, active: bool) {
        if active { self.private.isactiver0.set(mask) } else { self.private.icactiver0.set(mask) }
    }

    /// The pending SGIs and PPIs, one bit each.
    #[inline]
    pub fn pending(&self) -> u32 {
        self.private.ispendr0.get()
    }

    /// Makes SGIs and PPIs, one bit each, pending or not.
    #[inline]
    pub fn set_pending(&self, mask: u32, pending: bool) {
        if pending { self.private.ispendr0.set(mask) } else { self.private.icpendr0.set(mask) }
    }
}

/// Reads a GIC system register that `aarch64-cpu` doesn't have.
macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: a read of a GIC CPU interface register at EL2, which changes no memory; its effect on the interface
        // (acknowledge) is what the caller asks for.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack)) };
        value
    }};
}

/// Writes a GIC system register that `aarch64-cpu` doesn't have.
macro_rules! write {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: a write of a GIC CPU interface register at EL2, which changes no memory.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack)) };
    }};
}

fn isb() {
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// The CPU interface and the virtual interface of the CPU that this runs on.
#[derive(Debug)]
pub struct Interface {
    list_registers: u8,
    preemption_bits: u8,
}

impl Interface {
    /// Turns the CPU interface on: system registers, all priorities, EOI and deactivation apart, group 1; and the
    /// virtual interface off, its list registers empty. `None` where a higher level keeps the system registers off.
    pub fn init() -> Option<Self> {
        // SRE: system registers. DFB, DIB: no bypass. Enable 0: guests' accesses to ICC_SRE_EL1 trap, for turning system
        // registers off again is UNPREDICTABLE.
        write!("ICC_SRE_EL2", 0b0111);
        isb();
        if ICC_SRE_EL2.get() & 1 == 0 {
            return None;
        }
        // What firmware left active would hold back everything of its priority and below.
        write!("ICC_AP0R0_EL1", 0);
        write!("ICC_AP1R0_EL1", 0);
        write!("ICC_PMR_EL1", 0xff);
        write!("ICC_BPR1_EL1", 0);
        // EOImode 1: EOIR drops the priority, DIR deactivates. CBPR 0.
        write!("ICC_CTLR_EL1", 1 << 1);
        write!("ICC_IGRPEN1_EL1", 1);
        isb();
        let vtr = ICH_VTR_EL2.get();
        // ListRegs and PREbits, which are numbers less one.
        let (list_registers, preemption_bits) = ((vtr & 0x1f) as u8 + 1, (vtr >> 26 & 7) as u8 + 1);
        let interface = Self { list_registers, preemption_bits };
        interface.set_control(0);
        for index in 0..interface.count() {
            interface.write_lr(index, 0);
        }
        Some(interface)
    }

    /// The number of list registers.
    #[inline]
    pub fn count(&self) -> usize {
        usize::from(self.list_registers)
    }

    /// Preemption bits, which say how many active-priority registers there are.
    #[inline]
    pub fn preemption_bits(&self) -> u32 {
        u32::from(self.preemption_bits)
    }

    /// Acknowledges the highest pending interrupt: its INTID, or 1020 and above for none.
    #[inline]
    pub fn acknowledge(&self) -> u32 {
        read!("ICC_IAR1_EL1") as u32 & 0xff_ffff
    }

    /// Ends an interrupt's priority; it stays active until it is deactivated.
    #[inline]
    pub fn drop_priority(&self, intid: u32) {
        write!("ICC_EOIR1_EL1", u64::from(intid));
    }

    /// Deactivates an interrupt.
    #[inline]
    pub fn deactivate(&self, intid: u32) {
        write!("ICC_DIR_EL1", u64::from(intid));
    }

    /// Sends an SGI to the CPU of this affinity.
    #[inline]
    pub fn send_sgi(&self, mpidr: u64, intid: u32) {
        let (aff3, aff2) = (mpidr >> 32 & 0xff, mpidr >> 16 & 0xff);
        let (aff1, aff0) = (mpidr >> 8 & 0xff, mpidr & 0xff);
        let range = aff0 >> 4;
        let list = 1 << (aff0 & 0xf);
        let value = aff3 << 48 | range << 44 | aff2 << 32 | u64::from(intid & 0xf) << 24 | aff1 << 16 | list;
        write!("ICC_SGI1R_EL1", value);
        isb();
    }

    /// ICH_LR\<n\>_EL2; 0 for an index that there isn't.
    #[inline]
    pub fn read_lr(&self, index: usize) -> u64 {
        match index {
            0 => ICH_LR0_EL2.get(),
            1 => ICH_LR1_EL2.get(),
            2 => ICH_LR2_EL2.get(),
            3 => ICH_LR3_EL2.get(),
            4 => ICH_LR4_EL2.get(),
            5 => ICH_LR5_EL2.get(),
            6 => ICH_LR6_EL2.get(),
            7 => ICH_LR7_EL2.get(),
            8 => ICH_LR8_EL2.get(),
            9 => ICH_LR9_EL2.get(),
            10 => ICH_LR10_EL2.get(),
            11 => ICH_LR11_EL2.get(),
            12 => ICH_LR12_EL2.get(),
            13 => ICH_LR13_EL2.get(),
            14 => ICH_LR14_EL2.get(),
            15 => ICH_LR15_EL2.get(),
            _ => 0,
        }
    }

    /// Writes ICH_LR\<n\>_EL2; nothing for an index that there isn't. The first four, of which few CPUs have more, without a table.
    #[inline(always)]
    pub fn write_lr(&self, index: usize, value: u64) {
        if index > 3 {
            return self.write_further_lr(index, value);
        }
        match (index & 2 != 0, index & 1 != 0) {
            (false, false) => ICH_LR0_EL2.set(value),
            (false, true) => ICH_LR1_EL2.set(value),
            (true, false) => ICH_LR2_EL2.set(value),
            (true, true) => ICH_LR3_EL2.set(value),
        }
    }

    fn write_further_lr(&self, index: usize, value: u64) {
        match index {
            4 => ICH_LR4_EL2.set(value),
            5 => ICH_LR5_EL2.set(value),
            6 => ICH_LR6_EL2.set(value),
            7 => ICH_LR7_EL2.set(value),
            8 => ICH_LR8_EL2.set(value),
            9 => ICH_LR9_EL2.set(value),
            10 => ICH_LR10_EL2.set(value),
            11 => ICH_LR11_EL2.set(value),
            12 => ICH_LR12_EL2.set(value),
            13 => ICH_LR13_EL2.set(value),
            14 => ICH_LR14_EL2.set(value),
            15 => ICH_LR15_EL2.set(value),
            _ => {}
        }
    }

    /// ICH_ELRSR_EL2: one bit per list register that is empty.
    #[inline]
    pub fn empty(&self) -> u32 {
        read!("ICH_ELRSR_EL2") as u32
    }

    /// ICH_EISR_EL2: one bit per list register with an EOI to report.
    #[inline]
    pub fn ended(&self) -> u32 {
        read!("ICH_EISR_EL2") as u32
    }

    /// ICH_HCR_EL2.
    #[inline]
    pub fn control(&self) -> u32 {
        ICH_HCR_EL2.get() as u32
    }

    /// Writes ICH_HCR_EL2.
    #[inline]
    pub fn set_control(&self, value: u32) {
        ICH_HCR_EL2.set(u64::from(value));
    }

    /// ICH_VMCR_EL2: the guest's view of its CPU interface.
    #[inline]
    pub fn vmcr(&self) -> u64 {
        ICH_VMCR_EL2.get()
    }

    /// Writes ICH_VMCR_EL2.
    #[inline]
    pub fn set_vmcr(&self, value: u64) {
        ICH_VMCR_EL2.set(value);
    }

    /// Reads the guest's active priorities: for each n, ICH_AP0R\<n\>_EL2 and ICH_AP1R\<n\>_EL2. Those that this CPU doesn't have are left
    /// alone.
    #[inline]
    pub fn read_active_priorities(&self, values: &mut [[u64; 2]; 4]) {
        let bits = self.preemption_bits();
        values[0] = [ICH_AP0R0_EL2.get(), ICH_AP1R0_EL2.get()];
        if bits >= 6 {
            values[1] = [ICH_AP0R1_EL2.get(), ICH_AP1R1_EL2.get()];
        }
        if bits >= 7 {
            values[2] = [ICH_AP0R2_EL2.get(), ICH_AP1R2_EL2.get()];
            values[3] = [ICH_AP0R3_EL2.get(), ICH_AP1R3_EL2.get()];
        }
    }

    /// Sets the guest's active priorities: to what was read here, or 0.
    #[inline]
    pub fn set_active_priorities(&self, values: &[[u64; 2]; 4]) {
        let bits = self.preemption_bits();
        let [group0, group1] = values[0];
        ICH_AP0R0_EL2.set(group0);
        ICH_AP1R0_EL2.set(group1);
        if bits >= 6 {
            ICH_AP0R1_EL2.set(values[1][0]);
            ICH_AP1R1_EL2.set(values[1][1]);
        }
        if bits >= 7 {
            ICH_AP0R2_EL2.set(values[2][0]);
            ICH_AP1R2_EL2.set(values[2][1]);
            ICH_AP0R3_EL2.set(values[3][0]);
            ICH_AP1R3_EL2.set(values[3][1]);
        }
    }
}
