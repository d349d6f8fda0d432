//! What EL2 controls on a CPU: which of a guest's instructions and registers trap, and where interrupts go.
//!
//! Every register is written whole, each field for a reason given here; nothing is inherited from firmware. Those that
//! exist only with a feature are written where ID registers show it. References: Arm ARM D24.2 by register name.

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use tock_registers::interfaces::{Readable, Writeable};

use vmm::mitigations::{self, Choice, Cpu, Firmware};
use vmm::smccc::Workaround;

use crate::sysreg::{read_sysreg, write_sysreg};
use crate::{context, pmu, serror};

/// MPIDR_EL1's affinity fields.
const AFFINITY: u64 = 0xff_00ff_ffff;

/// This CPU's affinity, without the bits of MPIDR_EL1 that are none.
pub fn mpidr() -> u64 {
    MPIDR_EL1.get() & AFFINITY
}

/// MIDR_EL1: which CPU this is.
pub fn midr() -> u64 {
    MIDR_EL1.get()
}

/// The ID register of an index (`vmm::idregs`), as this CPU has it.
pub fn id_register(index: u8) -> u64 {
    macro_rules! read_all {
        ($($index:literal: $name:literal,)*) => {
            match index {
                $($index => read_sysreg!($name),)*
                _ => 0,
            }
        };
    }
    read_all! {
        8: "S3_0_C0_C1_0",
        9: "S3_0_C0_C1_1",
        10: "S3_0_C0_C1_2",
        11: "S3_0_C0_C1_3",
        12: "S3_0_C0_C1_4",
        13: "S3_0_C0_C1_5",
        14: "S3_0_C0_C1_6",
        15: "S3_0_C0_C1_7",
        16: "S3_0_C0_C2_0",
        17: "S3_0_C0_C2_1",
        18: "S3_0_C0_C2_2",
        19: "S3_0_C0_C2_3",
        20: "S3_0_C0_C2_4",
        21: "S3_0_C0_C2_5",
        22: "S3_0_C0_C2_6",
        23: "S3_0_C0_C2_7",
        24: "S3_0_C0_C3_0",
        25: "S3_0_C0_C3_1",
        26: "S3_0_C0_C3_2",
        27: "S3_0_C0_C3_3",
        28: "S3_0_C0_C3_4",
        29: "S3_0_C0_C3_5",
        30: "S3_0_C0_C3_6",
        31: "S3_0_C0_C3_7",
        32: "S3_0_C0_C4_0",
        33: "S3_0_C0_C4_1",
        34: "S3_0_C0_C4_2",
        35: "S3_0_C0_C4_3",
        36: "S3_0_C0_C4_4",
        37: "S3_0_C0_C4_5",
        38: "S3_0_C0_C4_6",
        39: "S3_0_C0_C4_7",
        40: "S3_0_C0_C5_0",
        41: "S3_0_C0_C5_1",
        42: "S3_0_C0_C5_2",
        43: "S3_0_C0_C5_3",
        44: "S3_0_C0_C5_4",
        45: "S3_0_C0_C5_5",
        46: "S3_0_C0_C5_6",
        47: "S3_0_C0_C5_7",
        48: "S3_0_C0_C6_0",
        49: "S3_0_C0_C6_1",
        50: "S3_0_C0_C6_2",
        51: "S3_0_C0_C6_3",
        52: "S3_0_C0_C6_4",
        53: "S3_0_C0_C6_5",
        54: "S3_0_C0_C6_6",
        55: "S3_0_C0_C6_7",
        56: "S3_0_C0_C7_0",
        57: "S3_0_C0_C7_1",
        58: "S3_0_C0_C7_2",
        59: "S3_0_C0_C7_3",
        60: "S3_0_C0_C7_4",
        61: "S3_0_C0_C7_5",
        62: "S3_0_C0_C7_6",
        63: "S3_0_C0_C7_7",
    }
}

/// Features of the CPUs that change how EL2 sets things up. Read from each CPU's own ID registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Bits of a physical address, at most 48.
    pub pa_bits: u8,
    /// FEAT_S2FWB: stage 2 decides about cacheability alone.
    pub forced_write_back: bool,
    /// FEAT_PAuth.
    pub pointer_authentication: bool,
}

impl Features {
    /// Of the CPU that this runs on.
    pub fn read() -> Self {
        let isar1 = read_sysreg!("ID_AA64ISAR1_EL1");
        let isar2 = read_sysreg!("S3_0_C0_C6_2");
        // APA, API, GPA, GPI; APA3, GPA3.
        let authentication = isar1 >> 4 & 0xff | isar1 >> 24 & 0xff | isar2 >> 8 & 0xff;
        Self {
            pa_bits: stage2::pa_bits(read_sysreg!("ID_AA64MMFR0_EL1") & 0xf),
            forced_write_back: id::fwb() != 0,
            pointer_authentication: authentication != 0,
        }
    }
}

/// Whether this CPU has FEAT_TLBIRANGE: TLB invalidation of a range of addresses.
pub fn has_range_invalidation() -> bool {
    id::tlb() >= 2
}

/// Whether this CPU has FEAT_TTL: TLB invalidation by address takes a hint of the level. Elsewhere those bits are RES0.
pub fn has_level_hint() -> bool {
    id::ttl() != 0
}

/// How many breakpoints and watchpoints this CPU has: ID_AA64DFR0_EL1.BRPs and WRPs.
pub fn breakpoints() -> (usize, usize) {
    ((id::breakpoints() as usize).wrapping_add(1), (id::watchpoints() as usize).wrapping_add(1))
}

/// What 32-bit programs read from this CPU's DBGDIDR, if it has one.
pub fn debug_identity() -> Option<u32> {
    vmm::debug::identity(read_sysreg!("ID_AA64PFR0_EL1"), read_sysreg!("ID_AA64DFR0_EL1"))
}

/// Whether MDCR_EL2.TDCC keeps guests from the debug channel: it came with FEAT_FGT.
pub fn keeps_debug_channel() -> bool {
    id::fgt() != 0
}

/// Whether this CPU has a PMUv3.
pub fn has_counters() -> bool {
    vmm::pmu::exists(id::pmu() as u8)
}

/// Whether this CPU leaves EL2 out of what guests count, whatever they write.
pub fn excludes_el2() -> bool {
    vmm::pmu::excludes_el2(id::pmu() as u8)
}

/// Whether this CPU has PMMIR_EL1, which came with PMUv3p4.
pub fn has_pmmir() -> bool {
    has_counters() && id::pmu() >= 5
}

/// Whether this CPU has FEAT_RNG: random numbers by RNDR.
pub fn has_random() -> bool {
    id::rndr() != 0
}

/// Whether this CPU has FEAT_RAS.
pub fn has_ras() -> bool {
    id::ras() != 0
}

/// The four-bit field of an ID register's value that starts at bit `shift`.
const fn field(value: u64, shift: u32) -> u64 {
    value >> shift & 0xf
}

/// Fields of ID registers that say which of EL2's registers there are.
mod id {
    use super::field;
    use crate::sysreg::read_sysreg;

    macro_rules! fields {
        ($($name:ident: $register:literal, $shift:literal;)*) => {
            $(pub fn $name() -> u64 { field(read_sysreg!($register), $shift) })*
        };
    }
    fields! {
        fwb: "S3_0_C0_C7_2", 40; // ID_AA64MMFR2_EL1
        ttl: "S3_0_C0_C7_2", 48;
        tlb: "ID_AA64ISAR0_EL1", 56;
        rndr: "ID_AA64ISAR0_EL1", 60;
        hcx: "ID_AA64MMFR1_EL1", 40;
        fgt: "ID_AA64MMFR0_EL1", 56;
        ecv: "ID_AA64MMFR0_EL1", 60;
        ras: "ID_AA64PFR0_EL1", 28;
        mpam: "ID_AA64PFR0_EL1", 40;
        amu: "ID_AA64PFR0_EL1", 44;
        mpam_frac: "ID_AA64PFR1_EL1", 16;
        pmu: "ID_AA64DFR0_EL1", 8;
        breakpoints: "ID_AA64DFR0_EL1", 12;
        watchpoints: "ID_AA64DFR0_EL1", 20;
        profiling: "ID_AA64DFR0_EL1", 32;
        trace_filter: "ID_AA64DFR0_EL1", 40;
    }
}

/// HCR_EL2 bits that not every vCPU has at every time.
pub mod hcr {
    /// TWI, TWE: WFI and WFE trap where other vCPUs may use the time. A pinned vCPU sleeps on its CPU.
    pub const TWI_TWE: u64 = 0b11 << 13;
    /// API, APK: pointer authentication is there, and its keys are the guest's.
    pub const POINTER_AUTHENTICATION: u64 = 0b11 << 40;
    /// TVM: writes to stage 1's control registers trap, to see when a guest turns its caches on or off.
    pub const TVM: u64 = 1 << 26;
}

/// HCR_EL2 while a guest runs.
pub fn guest_hcr(features: &Features) -> u64 {
    const VM: u64 = 1 << 0; // stage 2 translates
    const SWIO: u64 = 1 << 1; // invalidation by set and way cleans too: a guest can't undo another's writes
    const PTW: u64 = 1 << 2; // a table walk that reaches device memory faults, so that no walk reads a device
    const FMO: u64 = 1 << 3; // FIQ, IRQ and SError come to EL2; guests get virtual ones
    const IMO: u64 = 1 << 4;
    const AMO: u64 = 1 << 5;
    const FB: u64 = 1 << 9; // TLB and I-cache maintenance of a guest reaches its vCPUs on other CPUs
    const BSU_INNER: u64 = 1 << 10; // barriers too
    const TID1: u64 = 1 << 16; // REVIDR, AIDR, SMIDR
    const TID3: u64 = 1 << 18; // ID registers: shown as idregs has them
    const TSC: u64 = 1 << 19; // SMC: none reaches firmware
    const TIDCP: u64 = 1 << 20; // IMPLEMENTATION DEFINED registers
    const TACR: u64 = 1 << 21; // ACTLR_EL1
    const TSW: u64 = 1 << 22; // cache maintenance by set and way
    const RW: u64 = 1 << 31; // EL1 is AArch64
    const TLOR: u64 = 1 << 35; // limited ordering regions, which are not shown
    const TERR: u64 = 1 << 36; // RAS error records, which are not shown
    const TEA: u64 = 1 << 37; // external aborts come to EL2 first
    const FWB: u64 = 1 << 46; // stage 2 decides about cacheability
    const TID5: u64 = 1 << 58; // GMID_EL1: memory tagging is not shown
    // Zero: TWI, TWE (set for vCPUs that share a CPU), TID0, TID2, TID4 (cache identification is the CPU's own),
    // TPCP, TPU, TOCU, TICAB, TTLB (maintenance by address is the guest's), DC, TGE, TDZ, HCD (HVC is a call), TRVM,
    // CD, ID, E2H (one regime for EL2, as on CPUs without VHE), NV, AT, FIEN, EnSCXT (CSV2_2 is not shown),
    // ATA (memory tagging traps), VI, VF, VSE (virtual interrupts come from list registers).
    let mut value = VM | SWIO | PTW | FMO | IMO | AMO | FB | BSU_INNER | TID1 | TID3 | TSC | TIDCP | TACR;
    value |= TSW | RW | TLOR | TERR | TEA | TID5;
    if features.pointer_authentication {
        value |= hcr::POINTER_AUTHENTICATION;
    }
    if features.forced_write_back {
        value |= FWB;
    }
    value
}

/// What is to be done about this CPU's branch predictor, by what it is, and by what firmware says. `by_smc`: SMC reaches a
/// PSCI firmware; elsewhere it may be UNDEFINED, and nobody is asked.
pub fn mitigations(by_smc: bool) -> Choice {
    use platform::power::psci::{self, Availability, Mitigation, availability};
    let ask = |mitigation| match by_smc.then(|| availability(mitigation)) {
        Some(Availability::Needed) => Workaround::Needed,
        Some(Availability::NotNeeded) => Workaround::NotNeeded,
        Some(Availability::Unknown) | None => Workaround::NotSupported,
    };
    let mut workaround_2 = ask(Mitigation::Workaround2);
    if workaround_2 == Workaround::Needed {
        // Speculative store bypass is switched off for good, so that EL2 never runs with it at a guest's wish.
        psci::stop_store_bypass();
        workaround_2 = Workaround::NotNeeded;
    }
    let firmware = Firmware {
        workaround_1: ask(Mitigation::Workaround1),
        workaround_2,
        workaround_3: ask(Mitigation::Workaround3),
    };
    let cpu = Cpu {
        midr: midr(),
        pfr0: read_sysreg!("ID_AA64PFR0_EL1"),
        mmfr1: read_sysreg!("ID_AA64MMFR1_EL1"),
        isar2: read_sysreg!("S3_0_C0_C6_2"),
    };
    mitigations::choose(&cpu, &firmware)
}

/// Sets every control register of EL2 on this CPU but those that depend on the VM that runs: VTCR_EL2, VTTBR_EL2,
/// VMPIDR_EL2 and the rest of HCR_EL2 are written when a vCPU is loaded.
pub fn init() {
    // Until then, and on a CPU without one: AArch64 below, and all interrupts here (FMO, IMO, AMO).
    HCR_EL2.set(1 << 31 | 0b111 << 3);
    // EL1's registers are UNKNOWN until a vCPU is loaded.
    let _ = context::forbid_walks();
    // Guests see which CPU they are on.
    write_sysreg!("VPIDR_EL2", midr());
    serror::init();
    trap_features();
    trap_debug();
    give_timers();
    fine_grained();
    partitioning();
    barrier::isb(barrier::SY);
}

fn trap_features() {
    // CPTR_EL2 with E2H 0. RES1: 13, 9, 7:0. TZ (8): SVE; TSM (12): SME; TTA (20): trace; TAM (30): activity monitors.
    // TFP (10) 0: FP and SIMD are the guest's. TCPAC (31) 0: so is CPACR_EL1.
    const RES1: u64 = 1 << 13 | 1 << 9 | 0xff;
    CPTR_EL2.set(RES1 | 1 << 8 | 1 << 12 | 1 << 20 | 1 << 30);
    // HSTR_EL2 traps AArch32 registers of EL1, which is AArch64 here.
    write_sysreg!("HSTR_EL2", 0);
    // ACTLR_EL2 and HACR_EL2 are IMPLEMENTATION DEFINED; where they mean anything, zero denies EL1 the CPU's knobs.
    ACTLR_EL2.set(0);
    write_sysreg!("HACR_EL2", 0);
    if id::hcx() != 0 {
        // HCRX_EL2: its enables (LS64, MOPS, TCR2, SCTLR2, FPMR, stage-1 permission extensions …) are all off, for none
        // of them is shown. TALLINT (6) traps writes of ALLINT, for NMIs aren't shown either; RES0 without them.
        write_sysreg!("S3_4_C1_C2_2", 1 << 6);
    }
}

fn trap_debug() {
    // MDCR_EL2. TPMCR (5), TPM (6): set until a guest uses the performance monitors ([`trap_counters`]). TDOSA (10): OS lock and
    // power registers are emulated.
    // TDRA (11): so is the debug ROM's address. TPMS (14), E2PB (13:12) 0: statistical profiling is not shown.
    // HPMD (17), HCCD (23): no event and no cycle is counted at EL2, where there are these bits. TTRF (19): trace filters. E2TB (25:24) 0: trace buffer.
    // TDCC (27): the debug channel belongs to the board's debugger. TDA (9): set until a guest uses breakpoints
    // ([`trap_debug_registers`]). Zero: TDE (breakpoints, watchpoints and single-step are the guest's own and never stop
    // EL2), HPME.
    let mut value = TDA | TPM | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 17 | 1 << 19 | 1 << 23 | 1 << 27;
    if has_counters() {
        pmu::stop();
        // HPMN: all counters on the guest's side, the value that changes nothing; below the number there are, EL2
        // would hold counters, and 0 is not allowed without FEAT_HPMN0.
        value |= read_sysreg!("PMCR_EL0") >> 11 & 0x1f;
    }
    MDCR_EL2.set(value);
    // The CPU's OS lock stays open (`vmm::debug`).
    write_sysreg!("OSLAR_EL1", 0);
    if id::profiling() != 0 {
        write_sysreg!("S3_4_C9_C9_0", 0); // PMSCR_EL2: no profiling at EL2
    }
    if id::trace_filter() != 0 {
        write_sysreg!("S3_4_C1_C2_1", 0); // TRFCR_EL2: no trace of EL2
    }
}

/// MDCR_EL2.TDA: debug registers trap that aren't trapped anyway.
const TDA: u64 = 1 << 9;
/// MDCR_EL2.TPM, TPMCR: so do the performance monitors' registers.
const TPM: u64 = 0b11 << 5;

/// Makes a guest's accesses to breakpoints, watchpoints and their control trap, or not.
pub fn trap_debug_registers(trap: bool) {
    trap_by(TDA, trap);
}

/// Makes a guest's accesses to the performance monitors trap, or not.
pub fn trap_counters(trap: bool) {
    trap_by(TPM, trap);
}

/// Makes both trap.
#[inline]
pub fn trap_debug_registers_and_counters() {
    trap_by(TDA | TPM, true);
}

#[inline]
fn trap_by(bits: u64, trap: bool) {
    let before = MDCR_EL2.get();
    let after = if trap { before | bits } else { before & !bits };
    if after != before {
        MDCR_EL2.set(after);
    }
}

fn give_timers() {
    // No event stream of EL2's, and none of the traps of FEAT_ECV.
    set_clock_offset(0);
    if id::ecv() >= 2 {
        write_sysreg!("S3_4_C14_C0_6", 0); // CNTPOFF_EL2
    }
    // EL2's own timer is armed when something is due.
    write_sysreg!("CNTHP_CTL_EL2", 0);
}

fn fine_grained() {
    if id::fgt() == 0 {
        return;
    }
    // Zero: nothing traps that the coarse controls let pass, and the bits of newer features, which are enables, are
    // off: their registers trap and are UNDEFINED.
    write_sysreg!("S3_4_C1_C1_4", 0); // HFGRTR_EL2
    write_sysreg!("S3_4_C1_C1_5", 0); // HFGWTR_EL2
    write_sysreg!("S3_4_C1_C1_6", 0); // HFGITR_EL2
    write_sysreg!("S3_4_C3_C1_4", 0); // HDFGRTR_EL2
    write_sysreg!("S3_4_C3_C1_5", 0); // HDFGWTR_EL2
    if id::amu() != 0 {
        write_sysreg!("S3_4_C3_C1_6", 0); // HAFGRTR_EL2
    }
    if id::fgt() >= 2 {
        write_sysreg!("S3_4_C3_C1_2", 0); // HFGRTR2_EL2
        write_sysreg!("S3_4_C3_C1_3", 0); // HFGWTR2_EL2
        write_sysreg!("S3_4_C3_C1_7", 0); // HFGITR2_EL2
        write_sysreg!("S3_4_C3_C1_0", 0); // HDFGRTR2_EL2
        write_sysreg!("S3_4_C3_C1_1", 0); // HDFGWTR2_EL2
    }
}

fn partitioning() {
    if id::mpam() == 0 && id::mpam_frac() == 0 {
        return;
    }
    // MPAM1_EL1, MPAM0_EL1: partition 0 for guests as well, whatever was there.
    write_sysreg!("S3_0_C10_C5_0", 0);
    write_sysreg!("S3_0_C10_C5_1", 0);
    // MPAM2_EL2: partition 0 for EL2; TRAPMPAM0EL1, TRAPMPAM1EL1 (48, 49): guests don't see MPAM.
    write_sysreg!("S3_4_C10_C5_0", 1 << 48 | 1 << 49);
    // MPAMHCR_EL2 exists where MPAMIDR_EL1.HAS_HCR says so: no virtual partitions.
    if read_sysreg!("S3_0_C10_C4_4") & 1 << 17 != 0 {
        // TRAP_MPAMIDR_EL1 (31).
        write_sysreg!("S3_4_C10_C4_0", 1 << 31);
    }
}

/// CNTHCTL_EL2 with E2H 0: EL1PCTEN, EL1PCEN: guests use the physical counter and timer.
const PHYSICAL_TIMER: u64 = 0b11;

/// The guest's counters are behind the board's by so many ticks. The virtual one by itself; what the guest does with the
/// physical ones traps where there is a difference.
pub fn set_clock_offset(offset: u64) {
    CNTVOFF_EL2.set(offset);
    CNTHCTL_EL2.set(if offset == 0 { PHYSICAL_TIMER } else { 0 });
}

/// The same, where it may be so already.
#[inline]
pub fn change_clock_offset(offset: u64) {
    if clock_offset() != offset {
        set_clock_offset(offset);
    }
}

/// What the guest's counters are behind the board's.
pub fn clock_offset() -> u64 {
    CNTVOFF_EL2.get()
}

/// The end of time, which is so for whatever clock.
const NEVER: u64 = u64::MAX;

/// CNTP_CVAL_EL0 as the guest has it, in its own time.
pub fn physical_deadline() -> u64 {
    match CNTP_CVAL_EL0.get() {
        NEVER => NEVER,
        deadline => deadline.wrapping_sub(clock_offset()),
    }
}

/// Sets CNTP_CVAL_EL0 to a time of a guest's whose counters are behind the board's by so many ticks. One that the board's counter never
/// comes to is the end of time.
pub fn set_physical_deadline(deadline: u64, clock_offset: u64) {
    CNTP_CVAL_EL0.set(deadline.saturating_add(clock_offset));
}
