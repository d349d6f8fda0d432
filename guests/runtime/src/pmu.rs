//! Performance monitors of the CPU that runs (PMUv3, Arm ARM D13): as much as shows that they work.

use core::arch::asm;

use aarch64_cpu::registers::ID_AA64DFR0_EL1;
use tock_registers::interfaces::Readable;

use crate::cpu;

/// The bit of the cycle counter in masks of counters.
pub const CYCLES: u64 = 1 << 31;
/// `PMEVTYPER<n>_EL0`.evtCount of what PMSWINC_EL0 counts.
pub const SW_INCR: u64 = 0;
/// The same of instructions that were executed, where the CPU can count them ([`counts`]).
pub const INST_RETIRED: u64 = 8;
/// `PMEVTYPER<n>_EL0`.P: EL1 isn't counted.
pub const NOT_EL1: u64 = 1 << 31;
/// `PMEVTYPER<n>_EL0`.NSH, PMCCFILTR_EL0.NSH: EL2 is counted.
pub const EL2_TOO: u64 = 1 << 27;
/// PMCR_EL0: E, counters count; P and C, they are reset; LC, the cycle counter has 64 bits.
const ENABLE: u64 = 1;
const RESET: u64 = 0b110;
const LONG_CYCLES: u64 = 1 << 6;

/// The registers, by name and assembler name.
macro_rules! registers {
    ($($(#[$doc:meta])* $read:ident $write:ident $register:literal;)*) => {
        $(
            $(#[$doc])*
            pub fn $read() -> u64 {
                let value: u64;
                // SAFETY: reading it changes nothing.
                unsafe { asm!(concat!("mrs {}, ", $register), out(reg) value, options(nostack)) };
                value
            }

            $(#[$doc])*
            pub fn $write(value: u64) {
                // SAFETY: nothing in the program rests on what is counted.
                unsafe { asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nostack)) };
                cpu::synchronize();
            }
        )*
    };
}

registers! {
    /// PMCR_EL0.
    control set_control "pmcr_el0";
    /// PMCNTENSET_EL0.
    enabled enable "pmcntenset_el0";
    /// PMCNTENCLR_EL0.
    enabled_too disable "pmcntenclr_el0";
    /// PMOVSCLR_EL0.
    overflows clear_overflows "pmovsclr_el0";
    /// PMINTENSET_EL1.
    interrupts enable_interrupts "pmintenset_el1";
    /// PMINTENCLR_EL1.
    interrupts_too disable_interrupts "pmintenclr_el1";
    /// PMCCNTR_EL0.
    cycles set_cycles "pmccntr_el0";
    /// PMCCFILTR_EL0.
    cycle_filter set_cycle_filter "pmccfiltr_el0";
    /// PMEVCNTR0_EL0.
    counter_0 set_counter_0 "pmevcntr0_el0";
    /// PMEVTYPER0_EL0.
    type_0 set_type_0 "pmevtyper0_el0";
    /// PMEVCNTR1_EL0.
    counter_1 set_counter_1 "pmevcntr1_el0";
    /// PMSELR_EL0.
    selection select "pmselr_el0";
    /// PMXEVCNTR_EL0.
    selected_counter set_selected_counter "pmxevcntr_el0";
    /// PMUSERENR_EL0.
    for_users set_for_users "pmuserenr_el0";
}

/// Counts `times` in those counters whose bits are set, and whose type is [`SW_INCR`] (PMSWINC_EL0).
pub fn increment(counters: u64, times: u32) {
    for _ in 0..times {
        // SAFETY: as above.
        unsafe { asm!("msr pmswinc_el0, {}", in(reg) counters, options(nostack)) };
    }
    cpu::synchronize();
}

/// Whether this CPU has a PMUv3, as it is shown (ID_AA64DFR0_EL1.PMUVer).
pub fn is_there() -> bool {
    !matches!(ID_AA64DFR0_EL1.get() >> 8 & 0xf, 0 | 0xf)
}

/// Whether this CPU can count an event, of the first 32 (PMCEID0_EL0).
pub fn counts(event: u64) -> bool {
    let events: u64;
    // SAFETY: reading it changes nothing.
    unsafe { asm!("mrs {}, pmceid0_el0", out(reg) events, options(nomem, nostack)) };
    events >> event & 1 != 0
}

/// Asks by HVC for PSCI_VERSION, so many times, in [`CALL`] instructions each.
pub fn call_by_hvc(times: u64) {
    // SAFETY: the call changes no more than these registers.
    unsafe {
        asm!("2: mov w0, #0x84000000", "hvc #0", "subs x9, x9, #1", "b.ne 2b",
            inout("x9") times => _, out("x0") _, out("x1") _, out("x2") _, out("x3") _, options(nostack));
    }
}

/// Instructions of a call in [`call_by_hvc`].
pub const CALL: u64 = 4;

/// How many event counters there are (PMCR_EL0.N).
pub fn counters() -> u64 {
    control() >> 11 & 0x1f
}

/// All counters at zero and off, no overflow and no interrupt of theirs; those that are enabled next count.
pub fn reset() {
    disable(u64::MAX);
    disable_interrupts(u64::MAX);
    clear_overflows(u64::MAX);
    set_for_users(0);
    set_control(ENABLE | RESET | LONG_CYCLES);
}

/// Nothing counts any more.
pub fn stop() {
    reset();
    set_control(0);
}
