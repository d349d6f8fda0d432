//! GICv2: the CPU interface by registers, SGIs by the distributor (Arm IHI 0048B).

use super::{SgiTarget, register};
use crate::machine::machine;
use crate::mmio::Mmio;
use crate::{cpu, exceptions};

/// Offsets in the CPU interface.
pub mod cpu_register {
    /// Control.
    pub const CTLR: usize = 0x0000;
    /// Priority mask.
    pub const PMR: usize = 0x0004;
    /// Binary point.
    pub const BPR: usize = 0x0008;
    /// Interrupt acknowledge.
    pub const IAR: usize = 0x000c;
    /// End of interrupt.
    pub const EOIR: usize = 0x0010;
    /// Running priority.
    pub const RPR: usize = 0x0014;
    /// Highest priority pending interrupt.
    pub const HPPIR: usize = 0x0018;
    /// Implementer.
    pub const IIDR: usize = 0x00fc;
    /// Deactivate, in the second page.
    pub const DIR: usize = 0x1000;
}

/// GICC_CTLR.EOImode, for group 0 where there are no security extensions.
const EOI_MODE: u32 = 1 << 9;

pub(super) fn init_interface(gicc: Mmio) {
    gicc.write32(cpu_register::PMR, u32::from(super::MASK_NONE));
    gicc.write32(cpu_register::BPR, 0);
    gicc.write32(cpu_register::CTLR, 1);
}

/// SGIs aren't cleared by ICPENDR here, but by source. Xen's distributor doesn't have these registers and answers by an abort: what
/// it lets a guest have is clear from the start.
pub(super) fn clear_sgis(gicd: Mmio) {
    let ((), _absent) = exceptions::catch(|| {
        for at in (0..16).step_by(4) {
            gicd.write32(register::CPENDSGIR + at, u32::MAX);
        }
    });
}

/// The CPU interface bit of the CPU with this index. On every GICv2 that these guests run on, interfaces are
/// numbered as Aff0 is.
pub(super) fn target(cpu: usize) -> u8 {
    1 << (machine().cpus()[cpu] & 7)
}

/// What to write to GICD_SGIR.
pub(super) fn sgi_value(intid: u32, target: SgiTarget) -> u32 {
    let filter = match target {
        SgiTarget::Cpu(cpu) => u32::from(self::target(cpu)) << 16,
        SgiTarget::Others => 1 << 24,
    };
    filter | intid
}

pub(super) fn send_sgi(gicd: Mmio, intid: u32, target: SgiTarget) {
    gicd.write32(register::SGIR, sgi_value(intid, target));
}

pub(super) fn acknowledge(gicc: Mmio) -> u32 {
    let value = gicc.read32(cpu_register::IAR);
    cpu::synchronize();
    value
}

pub(super) fn end(gicc: Mmio, raw: u32) {
    gicc.write32(cpu_register::EOIR, raw);
}

pub(super) fn split_end(gicc: Mmio, split: bool) {
    let control = gicc.read32(cpu_register::CTLR) & !EOI_MODE;
    gicc.write32(cpu_register::CTLR, control | if split { EOI_MODE } else { 0 });
}

pub(super) fn deactivate(gicc: Mmio, raw: u32) {
    gicc.write32(cpu_register::DIR, raw);
}

pub(super) fn set_priority_mask(gicc: Mmio, mask: u8) {
    gicc.write32(cpu_register::PMR, u32::from(mask));
}

pub(super) fn priority_mask(gicc: Mmio) -> u8 {
    gicc.read32(cpu_register::PMR) as u8
}

pub(super) fn running_priority(gicc: Mmio) -> u8 {
    gicc.read32(cpu_register::RPR) as u8
}

pub(super) fn highest_pending(gicc: Mmio) -> u32 {
    gicc.read32(cpu_register::HPPIR) & 0x3ff
}
