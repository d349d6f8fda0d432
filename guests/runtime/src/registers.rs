//! EL1's registers that nothing in a guest rests on, in whole or in part: a guest may fill them with what it likes,
//! and look later whether they still hold it. [`features`](crate::features) has V0 to V31, [`call::hold`](crate::call::hold)
//! the general registers.
//!
//! Some are of use to the runtime at other times. Between filling and looking, IRQs are masked, no fault is expected,
//! and neither timer is asked for; [`release`] then puts back what the runtime needs.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{CPACR_EL1, MAIR_EL1, TPIDR_EL1, VBAR_EL1};
use tock_registers::interfaces::{Readable, Writeable};

use crate::timer::Timer;
use crate::{cpu, exceptions, gic};

/// A register, and what of it is free.
pub struct Register {
    /// The architecture's name.
    pub name: &'static str,
    /// The bits that a guest may change. A write makes the others zero, which does no harm in any of these.
    free: u64,
    /// Whether some CPUs don't have it, or have it with no bits that hold anything.
    optional: bool,
    read: fn() -> u64,
    write: fn(u64),
}

/// A row for each register: its name, its encoding, its free bits, and whether it is optional. Behind them, whole
/// registers that aren't read and written by one instruction.
macro_rules! registers {
    ($($name:literal $encoding:literal $free:literal $optional:literal,)* ; $($more:expr),*) => {
        [$(Register {
            name: $name,
            free: $free,
            optional: $optional,
            read: || {
                let value: u64;
                // SAFETY: none of the registers in the table changes anything by being read.
                unsafe { asm!(concat!("mrs {}, ", $encoding), out(reg) value, options(nomem, nostack)) };
                value
            },
            write: |value| {
                // SAFETY: the program doesn't rest on the register's free bits, and on zeros in the others it may.
                unsafe { asm!(concat!("msr ", $encoding, ", {}"), in(reg) value, options(nomem, nostack)) };
            },
        },)* $($more),*]
    };
}

/// A register whose other bits stay as they are when the free ones are written.
macro_rules! part {
    ($name:literal $register:ident ($free:expr) $optional:literal) => {
        Register {
            name: $name,
            free: $free,
            optional: $optional,
            read: || $register.get(),
            write: |value| $register.set($register.get() & !($free) | value),
        }
    };
}

/// The runtime's VBAR_EL1, once it has been changed.
static VECTORS: AtomicU64 = AtomicU64::new(0);

/// All of them. Left out: what controls translation, exceptions or traps, and what hardware may refuse to hold.
pub const REGISTERS: &[Register] = &registers! {
    "TPIDR_EL0"       "tpidr_el0"       0xffff_ffff_ffff_ffff false,
    "TPIDRRO_EL0"     "tpidrro_el0"     0xffff_ffff_ffff_ffff false,
    "SP_EL0"          "sp_el0"          0xffff_ffff_ffff_ffff false,
    "ELR_EL1"         "elr_el1"         0xffff_ffff_ffff_fffc false,
    // NZCV and DAIF.
    "SPSR_EL1"        "spsr_el1"        0x0000_0000_f000_03c0 false,
    "ESR_EL1"         "esr_el1"         0x0000_0000_ffff_ffff false,
    "FAR_EL1"         "far_el1"         0xffff_ffff_ffff_ffff false,
    // As after a translation that succeeded: the address, and attributes.
    "PAR_EL1"         "par_el1"         0xff00_ffff_ffff_f000 false,
    "CONTEXTIDR_EL1"  "contextidr_el1"  0x0000_0000_ffff_ffff false,
    // TCR_EL1.EPD1 is set, so nothing walks it.
    "TTBR1_EL1"       "ttbr1_el1"       0x0000_ffff_ffff_f000 false,
    // Access from EL0, and which bit makes events, without EVNTEN, which would make them.
    "CNTKCTL_EL1"     "cntkctl_el1"     0x0000_0000_0000_03fb false,
    "CNTP_CVAL_EL0"   "cntp_cval_el0"   0xffff_ffff_ffff_ffff false,
    "CNTV_CVAL_EL0"   "cntv_cval_el0"   0xffff_ffff_ffff_ffff false,
    // IMASK, without ENABLE.
    "CNTP_CTL_EL0"    "cntp_ctl_el0"    0x0000_0000_0000_0002 false,
    "CNTV_CTL_EL0"    "cntv_ctl_el0"    0x0000_0000_0000_0002 false,
    // The first level's instruction cache or its data cache, which every CPU has.
    "CSSELR_EL1"      "csselr_el1"      0x0000_0000_0000_0001 false,
    // KDE and TDCC.
    "MDSCR_EL1"       "mdscr_el1"       0x0000_0000_0000_3000 false,
    // Of the controls, which modes and accesses they are for, without E, which would enable them.
    "DBGBCR0_EL1"     "dbgbcr0_el1"     0x0000_0000_0000_0006 false,
    "DBGBCR1_EL1"     "dbgbcr1_el1"     0x0000_0000_0000_0006 false,
    "DBGWCR0_EL1"     "dbgwcr0_el1"     0x0000_0000_0000_1ffe false,
    "DBGWCR1_EL1"     "dbgwcr1_el1"     0x0000_0000_0000_1ffe false,
    "DBGBVR0_EL1"     "dbgbvr0_el1"     0x0000_ffff_ffff_fffc false,
    "DBGBVR1_EL1"     "dbgbvr1_el1"     0x0000_ffff_ffff_fffc false,
    "DBGWVR0_EL1"     "dbgwvr0_el1"     0x0000_ffff_ffff_fff8 false,
    "DBGWVR1_EL1"     "dbgwvr1_el1"     0x0000_ffff_ffff_fff8 false,
    // FPCR and FPSR, by number, for the target has no FP: rounding, flushing, NaNs; the flags that gather.
    "FPCR"            "s3_3_c4_c4_0"    0x0000_0000_07c0_0000 false,
    "FPSR"            "s3_3_c4_c4_1"    0x0000_0000_0800_009f false,
    "AFSR0_EL1"       "afsr0_el1"       0xffff_ffff_ffff_ffff true,
    "AFSR1_EL1"       "afsr1_el1"       0xffff_ffff_ffff_ffff true,
    "AMAIR_EL1"       "amair_el1"       0xffff_ffff_ffff_ffff true,
    // Counters, which are off: their values, who isn't counted (P and U), and what EL0 may reach.
    "PMCCNTR_EL0"     "pmccntr_el0"     0xffff_ffff_ffff_ffff true,
    "PMCCFILTR_EL0"   "pmccfiltr_el0"   0x0000_0000_c000_0000 true,
    "PMEVCNTR0_EL0"   "pmevcntr0_el0"   0x0000_0000_ffff_ffff true,
    "PMEVTYPER0_EL0"  "pmevtyper0_el0"  0x0000_0000_c000_0000 true,
    "PMUSERENR_EL0"   "pmuserenr_el0"   0x0000_0000_0000_000f true,
    // FEAT_RAS, by number: an SError that was put off, of which there is none.
    "DISR_EL1"        "s3_0_c12_c1_1"   0x0000_0000_81ff_ffff true,
    // Keys of pointer authentication, which SCTLR_EL1 leaves off.
    "APIAKeyLo_EL1"   "s3_0_c2_c1_0"    0xffff_ffff_ffff_ffff true,
    "APIAKeyHi_EL1"   "s3_0_c2_c1_1"    0xffff_ffff_ffff_ffff true,
    "APIBKeyLo_EL1"   "s3_0_c2_c1_2"    0xffff_ffff_ffff_ffff true,
    "APIBKeyHi_EL1"   "s3_0_c2_c1_3"    0xffff_ffff_ffff_ffff true,
    "APDAKeyLo_EL1"   "s3_0_c2_c2_0"    0xffff_ffff_ffff_ffff true,
    "APDAKeyHi_EL1"   "s3_0_c2_c2_1"    0xffff_ffff_ffff_ffff true,
    "APDBKeyLo_EL1"   "s3_0_c2_c2_2"    0xffff_ffff_ffff_ffff true,
    "APDBKeyHi_EL1"   "s3_0_c2_c2_3"    0xffff_ffff_ffff_ffff true,
    "APGAKeyLo_EL1"   "s3_0_c2_c3_0"    0xffff_ffff_ffff_ffff true,
    "APGAKeyHi_EL1"   "s3_0_c2_c3_1"    0xffff_ffff_ffff_ffff true,
    ;
    // Its low byte is the CPU's index.
    Register {
        name: "TPIDR_EL1",
        free: !cpu::INDEX_MASK,
        optional: false,
        read: || TPIDR_EL1.get(),
        write: |value| TPIDR_EL1.set(value | cpu::index() as u64),
    },
    // Attributes 6 and 7, which no descriptor names.
    part!("MAIR_EL1" MAIR_EL1 (0xffff << 48) false),
    // ZEN, of CPUs that have SVE, which no guest has.
    part!("CPACR_EL1" CPACR_EL1 (0b11 << 16) true),
    // Without exceptions, it may be anywhere.
    Register {
        name: "VBAR_EL1",
        free: 0x0000_ffff_ffff_f800,
        optional: false,
        read: || VBAR_EL1.get(),
        write: |value| {
            // The first one to write finds what the runtime has set, which is the same for all CPUs.
            let _ = VECTORS.compare_exchange(0, VBAR_EL1.get(), Ordering::Relaxed, Ordering::Relaxed);
            VBAR_EL1.set(value);
        },
    },
    // Tags that are set by one register and cleared by another one.
    Register {
        name: "DBGCLAIM",
        free: 0xff,
        optional: true,
        read: || {
            let value: u64;
            // SAFETY: reading it changes nothing.
            unsafe { asm!("mrs {}, dbgclaimclr_el1", out(reg) value, options(nomem, nostack)) };
            value
        },
        write: |value| {
            // SAFETY: nothing rests on these tags.
            unsafe {
                asm!("msr dbgclaimclr_el1, {}", "msr dbgclaimset_el1, {}", in(reg) 0xff_u64, in(reg) value,
                    options(nomem, nostack));
            }
        },
    },
    // The four bits that every controller has.
    Register {
        name: "PMR",
        free: 0xf0,
        optional: false,
        read: || u64::from(gic::priority_mask()),
        write: |value| gic::set_priority_mask(value as u8),
    }
};

impl Register {
    /// Its free bits, in so far as they hold what is written on this CPU; none, if the CPU doesn't have it.
    pub fn held(&self) -> u64 {
        if !self.optional {
            return self.free;
        }
        let (held, fault) = exceptions::catch(|| {
            let [ones, zeros] = [self.free, 0].map(|value| {
                self.write(value);
                self.read()
            });
            ones & !zeros & self.free
        });
        if fault.is_none() { held } else { 0 }
    }

    /// Its value.
    pub fn read(&self) -> u64 {
        (self.read)()
    }

    /// Writes its free bits.
    pub fn write(&self, value: u64) {
        (self.write)(value & self.free);
        cpu::synchronize();
    }
}

/// Stops the timers and lets all interrupts through again.
pub fn release() {
    match VECTORS.load(Ordering::Relaxed) {
        0 => {}
        vectors => VBAR_EL1.set(vectors),
    }
    cpu::synchronize();
    Timer::ALL.iter().for_each(|timer| timer.stop());
    gic::set_priority_mask(gic::MASK_NONE);
}
