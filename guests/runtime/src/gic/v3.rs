//! GICv3: redistributors, and the CPU interface by system registers (Arm IHI 0069H).

use core::arch::asm;

use super::{SgiRegister, SgiTarget};
use crate::cpu;
use crate::machine::{MAX_CPUS, Region, machine};
use crate::mmio::Mmio;

const GICR_TYPER: usize = 0x008;
const GICR_WAKER: usize = 0x014;
const FRAME: u64 = 0x2_0000;

/// GICD_CTLR: ARE and both groups, in the layout of a single security state (DS) and in that of the non-secure view.
const ARE: u32 = 1 << 4;
const GROUPS: u32 = 0b11;
/// GICD_CTLR.RWP and GICR_CTLR.RWP: a write is still on its way.
const GICD_RWP: u32 = 1 << 31;
const GICR_RWP: u32 = 1 << 3;

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: registers of this CPU's interrupt interface; no memory is touched.
        unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack)) };
        value
    }};
}

macro_rules! write {
    ($register:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: as for the read.
        unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack)) }
    }};
}

/// Each CPU's frame, found by the affinity in GICR_TYPER.
pub(super) fn find_redistributors(regions: &[Region]) -> [Option<Mmio>; MAX_CPUS] {
    let mut found = [None; MAX_CPUS];
    for region in regions.iter().filter(|region| region.size > 0) {
        let mut at = region.base;
        while at + FRAME <= region.end() {
            let frame = super::registers(at);
            let typer = frame.read64(GICR_TYPER);
            let affinity = typer >> 32 & 0xff_ffff | (typer >> 56) << 32;
            let cpus = machine().cpus().iter().zip(&mut found);
            for (_, place) in cpus.filter(|(cpu, _)| **cpu == affinity) {
                *place = Some(frame);
            }
            const LAST: u64 = 1 << 4;
            const VLPIS: u64 = 1 << 1;
            if typer & LAST != 0 {
                break;
            }
            at += if typer & VLPIS != 0 { 2 * FRAME } else { FRAME };
        }
    }
    found
}

/// The redistributor's second page: private interrupts, in the distributor's layout.
pub(super) fn sgi_page(frame: Mmio) -> Mmio {
    super::registers(frame.base() as u64 + 0x1_0000)
}

/// Wakes a redistributor: ProcessorSleep off, then ChildrenAsleep must go.
pub(super) fn wake(frame: Mmio) {
    const PROCESSOR_SLEEP: u32 = 1 << 1;
    const CHILDREN_ASLEEP: u32 = 1 << 2;
    frame.write32(GICR_WAKER, frame.read32(GICR_WAKER) & !PROCESSOR_SLEEP);
    while frame.read32(GICR_WAKER) & CHILDREN_ASLEEP != 0 {
        core::hint::spin_loop();
    }
}

pub(super) fn enable_distributor(gicd: Mmio, enable: bool) {
    gicd.write32(super::register::CTLR, ARE | if enable { GROUPS } else { 0 });
    while gicd.read32(super::register::CTLR) & GICD_RWP != 0 {
        core::hint::spin_loop();
    }
}

/// Waits until a disable has taken effect.
pub(super) fn wait_for_write(bank: Mmio, intid: u32) {
    // GICR_CTLR is in the page before the one that `bank` is for private interrupts.
    let (control, bit) = match intid {
        0..32 => (super::registers(bank.base() as u64 - 0x1_0000), GICR_RWP),
        _ => (bank, GICD_RWP),
    };
    while control.read32(0) & bit != 0 {
        core::hint::spin_loop();
    }
}

pub(super) fn init_interface() {
    write!("icc_sre_el1", 0b111);
    cpu::synchronize();
    set_priority_mask(super::MASK_NONE);
    write!("icc_bpr1_el1", 0);
    split_end(false);
    write!("icc_igrpen1_el1", 1);
}

/// What to write to ICC_SGI1R_EL1.
pub(super) fn sgi_value(intid: u32, target: SgiTarget) -> u64 {
    let targets = match target {
        SgiTarget::Others => 1 << 40,
        SgiTarget::Cpu(cpu) => {
            let affinity = machine().cpus()[cpu];
            let [aff0, aff1, aff2] = [0, 8, 16].map(|shift| affinity >> shift & 0xff);
            let aff3 = affinity >> 32 & 0xff;
            // The list names 16 CPUs of the range that RS selects.
            1 << (aff0 % 16) | aff1 << 16 | aff2 << 32 | (aff0 / 16) << 44 | aff3 << 48
        }
    };
    targets | u64::from(intid) << 24
}

pub(super) fn send_sgi(intid: u32, target: SgiTarget) {
    write!("icc_sgi1r_el1", sgi_value(intid, target));
}

pub(super) fn acknowledge() -> u32 {
    let value = read!("icc_iar1_el1");
    cpu::synchronize();
    value as u32
}

pub(super) fn end(raw: u32) {
    write!("icc_eoir1_el1", u64::from(raw));
}

pub(super) fn split_end(split: bool) {
    write!("icc_ctlr_el1", u64::from(split) << 1);
    cpu::synchronize();
}

pub(super) fn deactivate(raw: u32) {
    write!("icc_dir_el1", u64::from(raw));
}

pub(super) fn set_priority_mask(mask: u8) {
    write!("icc_pmr_el1", u64::from(mask));
}

pub(super) fn priority_mask() -> u8 {
    read!("icc_pmr_el1") as u8
}

pub(super) fn running_priority() -> u8 {
    read!("icc_rpr_el1") as u8
}

pub(super) fn highest_pending() -> u32 {
    read!("icc_hppir1_el1") as u32
}

pub(super) fn send_to_nobody(intid: u32) {
    let value = u64::from(intid) << 24;
    write!("icc_sgi1r_el1", value);
    write!("icc_asgi1r_el1", value);
    write!("icc_sgi0r_el1", value);
    cpu::synchronize();
}

pub(super) fn send_raw_sgi(register: SgiRegister, value: u64) {
    match register {
        SgiRegister::Own => write!("icc_sgi1r_el1", value),
        SgiRegister::OtherState => write!("icc_asgi1r_el1", value),
        SgiRegister::Group0 => write!("icc_sgi0r_el1", value),
    }
}
