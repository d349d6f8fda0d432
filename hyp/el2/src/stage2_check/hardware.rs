//! The translation hardware as the check asks it: EL1's registers, the `AT` instructions and what PAR_EL1 says.
//!
//! Only this check has `AT` in it.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use tock_registers::interfaces::{Readable, Writeable};

use super::answer::{Answer, Cache, Fault, Memory, Shareability};
use super::stage_one::MAIR;
use crate::cpu::{self, Features};
use crate::sysreg::read_sysreg;

/// What the guest's stage 1 is while the hardware is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regime {
    /// Off: addresses are intermediate physical ones, all memory Device-nGnRnE.
    Off,
    /// Off with HCR_EL2.DC: all memory Normal write-back, not shareable.
    DefaultCacheable,
    /// On, by the tables of `stage_one`, which are walked through stage 2.
    On,
}

/// An `AT` instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `AT S12E1R`: a load at EL1.
    Read,
    /// `AT S12E1W`: a store at EL1.
    Write,
    /// `AT S12E0R`: a load at EL0.
    UserRead,
    /// `AT S12E0W`: a store at EL0.
    UserWrite,
    /// `AT S1E1R`: where stage 1 alone leads, its tables being read through stage 2 all the same.
    StageOne,
}

impl Access {
    /// The instructions that go through both stages.
    pub const BOTH_STAGES: [Self; 4] = [Self::Read, Self::Write, Self::UserRead, Self::UserWrite];

    /// Whether it asks for a store.
    pub const fn is_write(self) -> bool {
        matches!(self, Self::Write | Self::UserWrite)
    }
}

/// PAR_EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Par(pub u64);

/// Bits of a physical address as the CPU has them (ID_AA64MMFR0_EL1.PARange): more than 48 where it has FEAT_LPA. Stage 1,
/// being off, lets no address pass that has more.
pub fn physical_bits() -> u32 {
    match read_sysreg!("ID_AA64MMFR0_EL1") & 0xf {
        6 => 52,
        7 => 56,
        parange => u32::from(stage2::pa_bits(parange)),
    }
}

/// SCTLR_EL1 with its RES1 bits alone.
const SCTLR_OFF: u64 = 0x30d0_0800;
/// M, C and I: stage 1 and caches are on.
const SCTLR_ON: u64 = SCTLR_OFF | 1 << 0 | 1 << 2 | 1 << 12;
/// EPD0 and EPD1: no walks.
const TCR_NO_WALKS: u64 = 1 << 7 | 1 << 23;
/// HCR_EL2.DC.
const DC: u64 = 1 << 12;
/// HCR_EL2.FMO, IMO and AMO: without them interrupts are EL1's, where they are masked.
const INTERRUPTS: u64 = 0b111 << 3;

/// TCR_EL1 for `stage_one`: T0SZ 25, write-back and inner shareable walks, 4 KiB; EPD1; IPS as the CPU has it.
fn tcr() -> u64 {
    let ips = (read_sysreg!("ID_AA64MMFR0_EL1") & 0xf).min(5);
    25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | ips << 32
}

/// Makes EL1&0 translate by these tables, as a vCPU's start does, walks being off meanwhile.
pub fn load(vtcr: u64, vttbr: u64, regime: Regime) {
    TCR_EL1.set(TCR_NO_WALKS);
    barrier::isb(barrier::SY);
    SCTLR_EL1.set(SCTLR_OFF | 1);
    barrier::isb(barrier::SY);
    VTCR_EL2.set(vtcr);
    VTTBR_EL2.set(vttbr);
    barrier::isb(barrier::SY);
    let dc = if regime == Regime::DefaultCacheable { DC } else { 0 };
    HCR_EL2.set(cpu::guest_hcr(&Features::read()) & !INTERRUPTS | dc);
    MAIR_EL1.set(MAIR);
    TTBR0_EL1.set(0);
    TTBR1_EL1.set(0);
    barrier::isb(barrier::SY);
    let (tcr, sctlr) = if regime == Regime::On { (tcr(), SCTLR_ON) } else { (0, SCTLR_OFF) };
    SCTLR_EL1.set(sctlr);
    barrier::isb(barrier::SY);
    TCR_EL1.set(tcr);
    barrier::isb(barrier::SY);
}

/// Stage 2 is off again; the tables can go.
pub fn unload() {
    TCR_EL1.set(TCR_NO_WALKS);
    barrier::isb(barrier::SY);
    cpu::init();
    VTTBR_EL2.set(0);
    barrier::isb(barrier::SY);
}

/// Where stage 1's table is, as an intermediate physical address.
pub fn set_stage_one(table: u64) {
    TTBR0_EL1.set(table);
    barrier::isb(barrier::SY);
}

/// Asks for the translation of an address. No TLB maintenance of any kind goes with it.
pub fn ask(access: Access, address: u64) -> Par {
    // SAFETY: AT changes PAR_EL1 and TLBs, which are of no consequence to EL2.
    unsafe {
        match access {
            Access::Read => asm!("at s12e1r, {}", in(reg) address, options(nostack)),
            Access::Write => asm!("at s12e1w, {}", in(reg) address, options(nostack)),
            Access::UserRead => asm!("at s12e0r, {}", in(reg) address, options(nostack)),
            Access::UserWrite => asm!("at s12e0w, {}", in(reg) address, options(nostack)),
            Access::StageOne => asm!("at s1e1r, {}", in(reg) address, options(nostack)),
        }
    }
    barrier::isb(barrier::SY);
    Par(PAR_EL1.get())
}

impl Par {
    /// What it says (Arm ARM D24.2, PAR_EL1).
    pub fn answer(self) -> Answer {
        let Self(par) = self;
        if par & 1 == 0 {
            return Answer::Address {
                page: par & 0xffff_ffff_f000,
                memory: memory((par >> 56) as u8),
                shareability: shareability(par >> 7 & 3),
            };
        }
        let fault = Fault::from_status(par >> 1 & 0x3f);
        Answer::Fault { fault, stage2: par & 1 << 9 != 0, on_walk: par & 1 << 8 != 0 }
    }
}

/// ATTR, encoded as a field of MAIR_EL1. Allocation hints are hints, and left out.
fn memory(attr: u8) -> Memory {
    let cache = |nibble| match nibble {
        0b0100 => Cache::None,
        0b0001..=0b0011 | 0b1000..=0b1011 => Cache::WriteThrough,
        _ => Cache::WriteBack,
    };
    match attr {
        0x00 | 0x04 | 0x08 | 0x0c => Memory::Device(attr >> 2),
        0x10.. if attr & 0xf != 0 => Memory::Normal { outer: cache(attr >> 4), inner: cache(attr & 0xf) },
        _ => Memory::Unknown(attr),
    }
}

fn shareability(sh: u64) -> Shareability {
    match sh {
        0 => Shareability::None,
        2 => Shareability::Outer,
        3 => Shareability::Inner,
        _ => Shareability::Reserved,
    }
}
