//! Every system register that EL1 and EL0 can name, and what a guest has of it. `docs/sysregs.md` is made from this
//! (`make sysregs`); what traps is answered by it; and `el2` switches exactly what it says is switched.
//!
//! By op0, op1 and CRn, and within these by CRm and op2 (Arm ARM D23.3). Encodings that no row has are UNDEFINED: the
//! architecture has nothing there, or something newer than this table, which no ID register shows.

use vgic::SgiRegister;

use super::Action::{self, *};
use super::{Identity, PhysicalTimer, StageOne};
use crate::debug::{self, Register::*};
use crate::esr::Sysreg;
use crate::pmu::{self, Register::*};

/// What a guest has of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// The CPU's own, without an exit: it is the same for all, or nothing of it lasts.
    Direct,
    /// The CPU's own, without an exit, kept for each vCPU.
    Switched,
    /// The same for a vCPU that has used it; until then it traps.
    WhenUsed,
    /// EL2 answers for it.
    Emulated,
    /// Nothing: UNDEFINED.
    Undefined,
}

/// A register, or a family of them that are told apart by a number.
#[derive(Clone, Copy, Debug)]
pub struct Register {
    /// The architecture's name; of a family with `<n>`.
    pub name: &'static str,
    /// Its encoding, or the first one's.
    pub first: Sysreg,
    /// How many there are: 1 but for a family.
    pub count: u16,
    /// What tells a family's members apart.
    pub step: Step,
    /// What a guest has of it.
    pub given: Given,
    /// What a read does where it traps; `None`: UNDEFINED.
    pub read: Option<Action>,
    /// The same of a write.
    pub write: Option<Action>,
    /// How that comes about, or what for.
    pub why: &'static str,
}

/// How the encodings of a family go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// By op2, and where that is full by CRm, and then by CRn.
    Op2,
    /// By CRm.
    Crm,
}

const fn at(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Sysreg {
    Sysreg::new(op0, op1, crn, crm, op2)
}

const fn row(
    name: &'static str,
    first: Sysreg,
    given: Given,
    read: Option<Action>,
    write: Option<Action>,
    why: &'static str,
) -> Register {
    Register { name, first, count: 1, step: Step::Op2, given, read, write, why }
}

const fn direct(name: &'static str, first: Sysreg, why: &'static str) -> Register {
    row(name, first, Given::Direct, None, None, why)
}

const fn switched(name: &'static str, first: Sysreg, why: &'static str) -> Register {
    row(name, first, Given::Switched, None, None, why)
}

/// A register of stage 1, whose writes trap while caches are watched.
const fn stage_one(name: &'static str, first: Sysreg, register: StageOne) -> Register {
    let why = "writes trap (HCR_EL2.TVM) from set/way maintenance on until caches are turned on or off";
    row(name, first, Given::Switched, None, Some(StageOne(register)), why)
}

const fn physical_timer(name: &'static str, first: Sysreg, register: PhysicalTimer) -> Register {
    let action = Some(PhysicalTimer(register));
    let why = "traps (CNTHCTL_EL2) while the VM's time isn't the board's";
    row(name, first, Given::Switched, action, action, why)
}

const fn when_used(name: &'static str, first: Sysreg, action: Action, why: &'static str) -> Register {
    row(name, first, Given::WhenUsed, Some(action), Some(action), why)
}

const fn debug(name: &'static str, first: Sysreg, register: debug::Register) -> Register {
    let why = "traps (MDCR_EL2.TDA) until it is used, and where the OS lock is closed";
    when_used(name, first, Debug(register), why)
}

/// The debug communications channel.
const fn channel(name: &'static str, first: Sysreg) -> Register {
    let (read, write) = (Some(Debug(Channel)), Some(Debug(Channel)));
    row(
        name,
        first,
        Given::Emulated,
        read,
        write,
        "reads as zero, writes are ignored: nobody is at the other end",
    )
}

const fn performance(name: &'static str, first: Sysreg, register: pmu::Register) -> Register {
    let why =
        "traps (MDCR_EL2.TPM) until it is used; always where the CPU can't leave EL2 out of what it counts";
    when_used(name, first, Pmu(register), why)
}

const fn emulated(
    name: &'static str,
    first: Sysreg,
    read: Option<Action>,
    write: Option<Action>,
    why: &'static str,
) -> Register {
    row(name, first, Given::Emulated, read, write, why)
}

const fn absent(name: &'static str, first: Sysreg, why: &'static str) -> Register {
    row(name, first, Given::Undefined, None, None, why)
}

impl Register {
    /// Which of a family an encoding is, from 0; `None`: none of it.
    pub const fn place(&self, register: Sysreg) -> Option<u16> {
        let (op0, op1, crn, crm, op2) = register.fields();
        let (first_op0, first_op1, first_crn, first_crm, first_op2) = self.first.fields();
        if op0 != first_op0 || op1 != first_op1 {
            return None;
        }
        let place = match self.step {
            Step::Op2 => along(crn, crm, op2).checked_sub(along(first_crn, first_crm, first_op2)),
            Step::Crm if crn == first_crn && op2 == first_op2 => (crm as u16).checked_sub(first_crm as u16),
            Step::Crm => None,
        };
        match place {
            Some(place) if place < self.count => Some(place),
            _ => None,
        }
    }

    /// Whether the assembler means this register by `name`: its own, or `S<op0>_<op1>_C<n>_C<m>_<op2>`. For checks at compile time.
    pub const fn is_called(&self, name: &str) -> bool {
        if same(name.as_bytes(), self.name.as_bytes()) {
            return true;
        }
        match encoding(name.as_bytes()) {
            Some(register) => register.bits() == self.first.bits(),
            None => false,
        }
    }

    const fn family(self, count: u16, step: Step) -> Self {
        Self { count, step, ..self }
    }

    /// Whether there are only reads: a trapped write is UNDEFINED, and so is one that doesn't trap.
    const fn read_only(self) -> Self {
        Self { write: None, ..self }
    }

    const fn switched(self) -> Self {
        Self { given: Given::Switched, ..self }
    }

    const fn write_only(self) -> Self {
        Self { read: None, ..self }
    }
}

const fn same(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, rest_of_a @ ..], [y, rest_of_b @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (rest_of_a, rest_of_b);
    }
    a.is_empty() && b.is_empty()
}

/// What `S<op0>_<op1>_C<n>_C<m>_<op2>` means; `None`: it is another kind of name.
const fn encoding(name: &[u8]) -> Option<Sysreg> {
    let Some((op0, name)) = number(name, b"S") else { return None };
    let Some((op1, name)) = number(name, b"_") else { return None };
    let Some((crn, name)) = number(name, b"_C") else { return None };
    let Some((crm, name)) = number(name, b"_C") else { return None };
    let Some((op2, name)) = number(name, b"_") else { return None };
    let fits = op0 < 4 && op1 < 8 && crn < 16 && crm < 16 && op2 < 8;
    if name.is_empty() && fits { Some(at(op0, op1, crn, crm, op2)) } else { None }
}

/// The number behind `before`, and what comes behind that.
const fn number<'a>(mut name: &'a [u8], mut before: &[u8]) -> Option<(u32, &'a [u8])> {
    while let [expected, rest @ ..] = before {
        before = rest;
        match name {
            [first, rest @ ..] if *first == *expected => name = rest,
            _ => return None,
        }
    }
    let mut value: u32 = 0;
    while let [digit @ b'0'..=b'9', rest @ ..] = name {
        value = value.wrapping_mul(10).wrapping_add(digit.wrapping_sub(b'0') as u32);
        name = rest;
    }
    Some((value, name))
}

/// Where an encoding is among those of its op0 and op1.
const fn along(crn: u8, crm: u8, op2: u8) -> u16 {
    (crn as u16) << 7 | (crm as u16) << 3 | op2 as u16
}

/// The table.
#[rustfmt::skip]
pub const REGISTERS: &[Register] = &[
    // Self-hosted debug.
    channel("OSDTRRX_EL1", at(2, 0, 0, 0, 2)),
    debug("DBGBVR<n>_EL1", at(2, 0, 0, 0, 4), BreakpointValue(0)).family(16, Step::Crm),
    debug("DBGBCR<n>_EL1", at(2, 0, 0, 0, 5), BreakpointControl(0)).family(16, Step::Crm),
    debug("DBGWVR<n>_EL1", at(2, 0, 0, 0, 6), WatchpointValue(0)).family(16, Step::Crm),
    debug("DBGWCR<n>_EL1", at(2, 0, 0, 0, 7), WatchpointControl(0)).family(16, Step::Crm),
    channel("MDCCINT_EL1", at(2, 0, 0, 2, 0)),
    debug("MDSCR_EL1", at(2, 0, 0, 2, 2), Monitor).switched(),
    channel("OSDTRTX_EL1", at(2, 0, 0, 3, 2)),
    absent("MDSELR_EL1", at(2, 0, 0, 4, 2), "FEAT_Debugv8p9: HDFGRTR2_EL2.nMDSELR_EL1 = 0"),
    absent("MDSTEPOP_EL1", at(2, 0, 0, 5, 2), "FEAT_STEP2: HDFGRTR2_EL2.nMDSTEPOP_EL1 = 0"),
    channel("OSECCR_EL1", at(2, 0, 0, 6, 2)),
    emulated("MDRAR_EL1", at(2, 0, 1, 0, 0), Some(Constant(0)), None, "MDCR_EL2.TDRA: no debug ROM table"),
    emulated("OSLAR_EL1", at(2, 0, 1, 0, 4), None, Some(Debug(Lock)), "MDCR_EL2.TDOSA: the CPU's own lock stays open"),
    emulated("OSLSR_EL1", at(2, 0, 1, 1, 4), Some(Debug(LockStatus)), None, "MDCR_EL2.TDOSA"),
    emulated("OSDLR_EL1", at(2, 0, 1, 3, 4), Some(Constant(0)), Some(Ignored), "MDCR_EL2.TDOSA: no double lock (ID_AA64DFR0_EL1.DoubleLock)"),
    emulated("DBGPRCR_EL1", at(2, 0, 1, 4, 4), Some(Constant(0)), Some(Ignored), "MDCR_EL2.TDOSA: power requests are the board's business"),
    debug("DBGCLAIMSET_EL1", at(2, 0, 7, 8, 6), ClaimSet),
    debug("DBGCLAIMCLR_EL1", at(2, 0, 7, 9, 6), ClaimClear),
    debug("DBGAUTHSTATUS_EL1", at(2, 0, 7, 14, 6), Authentication).read_only(),
    absent("SPM*_EL1", at(2, 0, 9, 0, 0), "FEAT_SPMU: MDCR_EL2.EnSPM = 0").family(0x80, Step::Op2),
    absent("PM*SVR_EL1", at(2, 0, 14, 0, 0), "FEAT_PMUv3_SS: HDFGRTR2_EL2.nPMSSDATA = 0").family(0x80, Step::Op2),
    // Trace unit and branch records.
    absent("TRC*, BRB*", at(2, 1, 0, 0, 0), "CPTR_EL2.TTA; FEAT_BRBE: HDFGRTR_EL2.nBRBCTL, nBRBDATA, nBRBIDR = 0").family(0x800, Step::Op2),
    channel("MDCCSR_EL0", at(2, 3, 0, 1, 0)).read_only(),
    channel("DBGDTR_EL0", at(2, 3, 0, 4, 0)),
    channel("DBGDTRRX_EL0, DBGDTRTX_EL0", at(2, 3, 0, 5, 0)),
    absent("SPM*_EL0", at(2, 3, 9, 0, 0), "FEAT_SPMU: MDCR_EL2.EnSPM = 0").family(0x300, Step::Op2),

    // Identification.
    direct("MIDR_EL1", at(3, 0, 0, 0, 0), "the CPU's (VPIDR_EL2)"),
    direct("MPIDR_EL1", at(3, 0, 0, 0, 5), "the vCPU's number (VMPIDR_EL2)"),
    emulated("REVIDR_EL1", at(3, 0, 0, 0, 6), Some(Identity(Identity::Revidr)), None, "HCR_EL2.TID1: the CPU's"),
    emulated("ID_*_EL1, MVFR<n>_EL1", at(3, 0, 0, 1, 0), Some(IdRegister(8)), None, "HCR_EL2.TID3: by field, see below").family(56, Step::Op2),
    // Control of EL1.
    stage_one("SCTLR_EL1", at(3, 0, 1, 0, 0), StageOne::Sctlr),
    emulated("ACTLR_EL1", at(3, 0, 1, 0, 1), Some(Constant(0)), Some(Ignored), "HCR_EL2.TACR: the implementation's knobs are none of a guest's"),
    switched("CPACR_EL1", at(3, 0, 1, 0, 2), ""),
    absent("SCTLR2_EL1", at(3, 0, 1, 0, 3), "FEAT_SCTLR2: HCRX_EL2.SCTLR2En = 0"),
    absent("RGSR_EL1, GCR_EL1", at(3, 0, 1, 0, 5), "FEAT_MTE: HCR_EL2.ATA = 0").family(2, Step::Op2),
    absent("ZCR_EL1", at(3, 0, 1, 2, 0), "FEAT_SVE: CPTR_EL2.TZ"),
    absent("TRFCR_EL1, TRCITECR_EL1", at(3, 0, 1, 2, 1), "FEAT_TRF: MDCR_EL2.TTRF; FEAT_ITE: HDFGRTR2_EL2.nTRCITECR_EL1 = 0").family(3, Step::Op2),
    absent("SMPRI_EL1", at(3, 0, 1, 2, 4), "FEAT_SME: HFGRTR_EL2.nSMPRI_EL1 = 0"),
    absent("SMCR_EL1", at(3, 0, 1, 2, 6), "FEAT_SME: CPTR_EL2.TSM"),
    stage_one("TTBR0_EL1", at(3, 0, 2, 0, 0), StageOne::Ttbr0),
    stage_one("TTBR1_EL1", at(3, 0, 2, 0, 1), StageOne::Ttbr1),
    stage_one("TCR_EL1", at(3, 0, 2, 0, 2), StageOne::Tcr),
    absent("TCR2_EL1", at(3, 0, 2, 0, 3), "FEAT_TCR2: HCRX_EL2.TCR2En = 0"),
    switched("APIAKeyLo_EL1", at(3, 0, 2, 1, 0), "FEAT_PAuth"),
    switched("APIAKeyHi_EL1", at(3, 0, 2, 1, 1), "FEAT_PAuth"),
    switched("APIBKeyLo_EL1", at(3, 0, 2, 1, 2), "FEAT_PAuth"),
    switched("APIBKeyHi_EL1", at(3, 0, 2, 1, 3), "FEAT_PAuth"),
    switched("APDAKeyLo_EL1", at(3, 0, 2, 2, 0), "FEAT_PAuth"),
    switched("APDAKeyHi_EL1", at(3, 0, 2, 2, 1), "FEAT_PAuth"),
    switched("APDBKeyLo_EL1", at(3, 0, 2, 2, 2), "FEAT_PAuth"),
    switched("APDBKeyHi_EL1", at(3, 0, 2, 2, 3), "FEAT_PAuth"),
    switched("APGAKeyLo_EL1", at(3, 0, 2, 3, 0), "FEAT_PAuth"),
    switched("APGAKeyHi_EL1", at(3, 0, 2, 3, 1), "FEAT_PAuth"),
    absent("GCSCR_EL1, GCSPR_EL1, GCSCRE0_EL1", at(3, 0, 2, 5, 0), "FEAT_GCS: HFGRTR_EL2.nGCS_EL1, nGCS_EL0 = 0").family(3, Step::Op2),
    switched("SPSR_EL1", at(3, 0, 4, 0, 0), ""),
    switched("ELR_EL1", at(3, 0, 4, 0, 1), ""),
    switched("SP_EL0", at(3, 0, 4, 1, 0), ""),
    direct("SPSel, CurrentEL, PAN, UAO", at(3, 0, 4, 2, 0), "PSTATE, which is switched with the PC").family(5, Step::Op2),
    absent("ALLINT, PM", at(3, 0, 4, 3, 0), "FEAT_NMI: HCRX_EL2.TALLINT; FEAT_EBEP: MDCR_EL2.PMEE = 0").family(2, Step::Op2),
    direct("ICC_PMR_EL1", at(3, 0, 4, 6, 0), "the virtual CPU interface, switched by ICH_VMCR_EL2"),
    stage_one("AFSR0_EL1", at(3, 0, 5, 1, 0), StageOne::Afsr0),
    stage_one("AFSR1_EL1", at(3, 0, 5, 1, 1), StageOne::Afsr1),
    stage_one("ESR_EL1", at(3, 0, 5, 2, 0), StageOne::Esr),
    absent("ERRIDR_EL1, ERRSELR_EL1, ERX*_EL1", at(3, 0, 5, 3, 0), "FEAT_RAS: HCR_EL2.TERR").family(24, Step::Op2),
    absent("TFSR_EL1, TFSRE0_EL1", at(3, 0, 5, 6, 0), "FEAT_MTE: HCR_EL2.ATA = 0").family(2, Step::Op2),
    stage_one("FAR_EL1", at(3, 0, 6, 0, 0), StageOne::Far),
    absent("PFAR_EL1", at(3, 0, 6, 0, 5), "FEAT_PFAR: HFGRTR2_EL2.nPFAR_EL1 = 0"),
    switched("PAR_EL1", at(3, 0, 7, 4, 0), ""),
    absent("PMS*_EL1, PMB*_EL1", at(3, 0, 9, 9, 0), "FEAT_SPE: MDCR_EL2.TPMS, E2PB = 0").family(16, Step::Op2),
    absent("TRB*_EL1", at(3, 0, 9, 11, 0), "FEAT_TRBE: MDCR_EL2.E2TB = 0").family(8, Step::Op2),
    absent("PMSSCR_EL1", at(3, 0, 9, 13, 3), "FEAT_PMUv3_SS: HDFGRTR2_EL2.nPMSSCR_EL1 = 0"),
    performance("PMINTENSET_EL1", at(3, 0, 9, 14, 1), InterruptsOn),
    performance("PMINTENCLR_EL1", at(3, 0, 9, 14, 2), InterruptsOff),
    absent("PMUACR_EL1, PMECR_EL1", at(3, 0, 9, 14, 4), "FEAT_PMUv3p9, FEAT_EBEP: HDFGRTR2_EL2.nPMUACR_EL1, nPMECR_EL1 = 0").family(2, Step::Op2),
    performance("PMMIR_EL1", at(3, 0, 9, 14, 6), Machine).read_only(),
    absent("PMIAR_EL1", at(3, 0, 9, 14, 7), "FEAT_SEBEP: HDFGRTR2_EL2.nPMIAR_EL1 = 0"),
    stage_one("MAIR_EL1", at(3, 0, 10, 2, 0), StageOne::Mair),
    absent("MAIR2_EL1, PIRE0_EL1, PIR_EL1, POR_EL1, S2POR_EL1", at(3, 0, 10, 2, 1), "FEAT_AIE, S1PIE, S1POE, S2POE: HFGRTR_EL2.nMAIR2_EL1, nPIRE0_EL1, nPIR_EL1, nPOR_EL1, nS2POR_EL1 = 0").family(5, Step::Op2),
    stage_one("AMAIR_EL1", at(3, 0, 10, 3, 0), StageOne::Amair),
    absent("AMAIR2_EL1", at(3, 0, 10, 3, 1), "FEAT_AIE: HFGRTR_EL2.nAMAIR2_EL1 = 0"),
    absent("LOR*_EL1", at(3, 0, 10, 4, 0), "FEAT_LOR: HCR_EL2.TLOR").family(4, Step::Op2),
    absent("MPAMIDR_EL1, MPAMBWIDR_EL1", at(3, 0, 10, 4, 4), "FEAT_MPAM: MPAMHCR_EL2.TRAP_MPAMIDR_EL1, MPAM2_EL2").family(2, Step::Op2),
    absent("LORID_EL1", at(3, 0, 10, 4, 7), "FEAT_LOR: HCR_EL2.TLOR"),
    absent("MPAM*_EL1", at(3, 0, 10, 5, 0), "FEAT_MPAM: MPAM2_EL2.TRAPMPAM0EL1, TRAPMPAM1EL1").family(8, Step::Op2),
    switched("VBAR_EL1", at(3, 0, 12, 0, 0), ""),
    absent("RVBAR_EL1, RMR_EL1", at(3, 0, 12, 0, 1), "the highest exception level's alone").family(2, Step::Op2),
    direct("ISR_EL1", at(3, 0, 12, 1, 0), "the virtual interrupts (HCR_EL2.IMO, FMO, AMO)"),
    switched("DISR_EL1", at(3, 0, 12, 1, 1), "FEAT_RAS: VDISR_EL2"),
    direct("ICC_IAR0_EL1, EOIR0, HPPIR0, BPR0, AP0R<n>", at(3, 0, 12, 8, 0), "the virtual CPU interface, switched by ICH_VMCR_EL2, ICH_AP0R<n>_EL2").family(8, Step::Op2),
    direct("ICC_AP1R<n>_EL1", at(3, 0, 12, 9, 0), "switched by ICH_AP1R<n>_EL2").family(4, Step::Op2),
    direct("ICC_NMIAR1_EL1", at(3, 0, 12, 9, 5), "FEAT_GICv3_NMI: no list register holds such an interrupt"),
    emulated("ICC_DIR_EL1", at(3, 0, 12, 11, 1), None, Some(Deactivate), "the virtual CPU interface; traps while the vGIC must see it (ICH_HCR_EL2.TDIR)"),
    direct("ICC_RPR_EL1", at(3, 0, 12, 11, 3), "the virtual CPU interface"),
    emulated("ICC_SGI1R_EL1", at(3, 0, 12, 11, 5), None, Some(Sgi(SgiRegister::Sgi1r)), "HCR_EL2.IMO"),
    emulated("ICC_ASGI1R_EL1", at(3, 0, 12, 11, 6), None, Some(Sgi(SgiRegister::Asgi1r)), "HCR_EL2.IMO"),
    emulated("ICC_SGI0R_EL1", at(3, 0, 12, 11, 7), None, Some(Sgi(SgiRegister::Sgi0r)), "HCR_EL2.FMO"),
    direct("ICC_IAR1_EL1, EOIR1, HPPIR1, BPR1, CTLR", at(3, 0, 12, 12, 0), "the virtual CPU interface, switched by ICH_VMCR_EL2").family(5, Step::Op2),
    // SRE, DFB, DIB.
    emulated("ICC_SRE_EL1", at(3, 0, 12, 12, 5), Some(Constant(0b111)), Some(Ignored), "ICC_SRE_EL2.Enable = 0: system registers are the only way"),
    direct("ICC_IGRPEN<n>_EL1", at(3, 0, 12, 12, 6), "the virtual CPU interface, switched by ICH_VMCR_EL2").family(2, Step::Op2),
    stage_one("CONTEXTIDR_EL1", at(3, 0, 13, 0, 1), StageOne::Contextidr),
    absent("RCWSMASK_EL1", at(3, 0, 13, 0, 3), "FEAT_THE: HFGRTR_EL2.nRCWMASK_EL1 = 0"),
    switched("TPIDR_EL1", at(3, 0, 13, 0, 4), ""),
    absent("ACCDATA_EL1", at(3, 0, 13, 0, 5), "FEAT_LS64_ACCDATA: HFGRTR_EL2.nACCDATA_EL1 = 0"),
    absent("RCWMASK_EL1", at(3, 0, 13, 0, 6), "FEAT_THE: HFGRTR_EL2.nRCWMASK_EL1 = 0"),
    absent("SCXTNUM_EL1", at(3, 0, 13, 0, 7), "FEAT_CSV2_2: HCR_EL2.EnSCXT = 0"),
    switched("CNTKCTL_EL1", at(3, 0, 14, 1, 0), ""),

    // Caches.
    direct("CCSIDR_EL1, CLIDR_EL1, CCSIDR2_EL1", at(3, 1, 0, 0, 0), "the CPU's caches").family(3, Step::Op2),
    absent("GMID_EL1", at(3, 1, 0, 0, 4), "FEAT_MTE: HCR_EL2.TID5"),
    absent("SMIDR_EL1", at(3, 1, 0, 0, 6), "FEAT_SME: HCR_EL2.TID1"),
    emulated("AIDR_EL1", at(3, 1, 0, 0, 7), Some(Identity(Identity::Aidr)), None, "HCR_EL2.TID1: the CPU's"),
    switched("CSSELR_EL1", at(3, 2, 0, 0, 0), ""),
    direct("CTR_EL0", at(3, 3, 0, 0, 1), "the CPU's caches"),
    direct("DCZID_EL0", at(3, 3, 0, 0, 7), "the CPU's caches; DC ZVA is the guest's (HCR_EL2.TDZ = 0)"),

    // EL0.
    direct("RNDR, RNDRRS", at(3, 3, 2, 4, 0), "FEAT_RNG").family(2, Step::Op2),
    absent("GCSPR_EL0", at(3, 3, 2, 5, 1), "FEAT_GCS: HFGRTR_EL2.nGCS_EL0 = 0"),
    direct("NZCV, DAIF", at(3, 3, 4, 2, 0), "PSTATE, which is switched with the PC").family(2, Step::Op2),
    absent("SVCR", at(3, 3, 4, 2, 2), "FEAT_SME: CPTR_EL2.TSM"),
    direct("DIT, SSBS", at(3, 3, 4, 2, 5), "PSTATE, which is switched with the PC").family(2, Step::Op2),
    direct("TCO", at(3, 3, 4, 2, 7), "FEAT_MTE: PSTATE; no memory is tagged (HCR_EL2.ATA = 0)"),
    switched("FPCR", at(3, 3, 4, 4, 0), ""),
    switched("FPSR", at(3, 3, 4, 4, 1), ""),
    absent("FPMR", at(3, 3, 4, 4, 2), "FEAT_FPMR: HCRX_EL2.EnFPM = 0"),
    absent("DSPSR_EL0, DLR_EL0", at(3, 3, 4, 5, 0), "Debug state's alone").family(2, Step::Op2),
    absent("PMICNTR_EL0", at(3, 3, 9, 4, 0), "FEAT_PMUv3_ICNTR: HDFGRTR2_EL2.nPMICNTR_EL0 = 0"),
    absent("PMICFILTR_EL0", at(3, 3, 9, 6, 0), "FEAT_PMUv3_ICNTR: HDFGRTR2_EL2.nPMICFILTR_EL0 = 0"),
    performance("PMCR_EL0", at(3, 3, 9, 12, 0), Control),
    performance("PMCNTENSET_EL0", at(3, 3, 9, 12, 1), CountersOn),
    performance("PMCNTENCLR_EL0", at(3, 3, 9, 12, 2), CountersOff),
    performance("PMOVSCLR_EL0", at(3, 3, 9, 12, 3), OverflowsOff),
    performance("PMSWINC_EL0", at(3, 3, 9, 12, 4), Increment).write_only(),
    performance("PMSELR_EL0", at(3, 3, 9, 12, 5), Selection),
    performance("PMCEID0_EL0", at(3, 3, 9, 12, 6), Events0).read_only(),
    performance("PMCEID1_EL0", at(3, 3, 9, 12, 7), Events1).read_only(),
    performance("PMCCNTR_EL0", at(3, 3, 9, 13, 0), Cycles),
    performance("PMXEVTYPER_EL0", at(3, 3, 9, 13, 1), SelectedType),
    performance("PMXEVCNTR_EL0", at(3, 3, 9, 13, 2), SelectedCounter),
    absent("PMZR_EL0", at(3, 3, 9, 13, 4), "FEAT_PMUv3p9: HDFGWTR2_EL2.nPMZR_EL0 = 0"),
    performance("PMUSERENR_EL0", at(3, 3, 9, 14, 0), ForUsers),
    performance("PMOVSSET_EL0", at(3, 3, 9, 14, 3), OverflowsOn),
    absent("POR_EL0", at(3, 3, 10, 2, 4), "FEAT_S1POE: HFGRTR_EL2.nPOR_EL0 = 0"),
    switched("TPIDR_EL0", at(3, 3, 13, 0, 2), ""),
    switched("TPIDRRO_EL0", at(3, 3, 13, 0, 3), ""),
    absent("TPIDR2_EL0", at(3, 3, 13, 0, 5), "FEAT_SME: HFGRTR_EL2.nTPIDR2_EL0 = 0"),
    absent("SCXTNUM_EL0", at(3, 3, 13, 0, 7), "FEAT_CSV2_2: HCR_EL2.EnSCXT = 0"),
    absent("AM*_EL0", at(3, 3, 13, 2, 0), "FEAT_AMUv1: CPTR_EL2.TAM").family(112, Step::Op2),

    // Counters and timers.
    direct("CNTFRQ_EL0", at(3, 3, 14, 0, 0), "the board's frequency"),
    row("CNTPCT_EL0", at(3, 3, 14, 0, 1), Given::Direct, Some(PhysicalTimer(PhysicalTimer::Counter)), None, "traps (CNTHCTL_EL2) while the VM's time isn't the board's"),
    direct("CNTVCT_EL0", at(3, 3, 14, 0, 2), "the VM's time (CNTVOFF_EL2)"),
    row("CNTPCTSS_EL0", at(3, 3, 14, 0, 5), Given::Direct, Some(PhysicalTimer(PhysicalTimer::Counter)), None, "FEAT_ECV: as CNTPCT_EL0"),
    direct("CNTVCTSS_EL0", at(3, 3, 14, 0, 6), "FEAT_ECV: as CNTVCT_EL0"),
    physical_timer("CNTP_TVAL_EL0", at(3, 3, 14, 2, 0), PhysicalTimer::Left),
    physical_timer("CNTP_CTL_EL0", at(3, 3, 14, 2, 1), PhysicalTimer::Control),
    physical_timer("CNTP_CVAL_EL0", at(3, 3, 14, 2, 2), PhysicalTimer::Deadline),
    switched("CNTV_TVAL_EL0", at(3, 3, 14, 3, 0), "by CNTV_CVAL_EL0"),
    switched("CNTV_CTL_EL0", at(3, 3, 14, 3, 1), ""),
    switched("CNTV_CVAL_EL0", at(3, 3, 14, 3, 2), ""),
    performance("PMEVCNTR<n>_EL0", at(3, 3, 14, 8, 0), Counter(0)).family(31, Step::Op2),
    performance("PMEVTYPER<n>_EL0", at(3, 3, 14, 12, 0), EventType(0)).family(31, Step::Op2),
    performance("PMCCFILTR_EL0", at(3, 3, 14, 15, 7), CycleFilter),
];
