//! System registers: identification, and what must be UNDEFINED at EL1.

use runtime::exceptions::class;
use runtime::sysreg::{self, Probe, SysReg};
use runtime::{cpu, features, machine};

use crate::framework::{Outcome, check, check_eq, needs_hanok, on_every_cpu, tests};

tests! {
    "sysreg.id-space-readable" => id_space_readable,
    "sysreg.id-processor" => id_processor,
    "sysreg.id-exception-levels" => id_exception_levels,
    "sysreg.id-hidden" => id_hidden,
    "sysreg.shown-or-undefined" => shown_or_undefined,
    "sysreg.el2-read" => el2_read,
    "sysreg.el2-write" => el2_write,
    "sysreg.implementation-defined" => implementation_defined,
    "sysreg.actlr" => actlr,
    "sysreg.midr-stable" => midr_stable,
    "sysreg.undefined-instruction" => undefined_instruction,
    "sysreg.smc" => smc,
}

const MIDR: SysReg = SysReg::new(3, 0, 0, 0, 0);
/// The part number in MIDR_EL1.
const CORTEX_A72: u64 = 0xd08;
const ID_ISAR5: SysReg = SysReg::new(3, 0, 0, 2, 5);
const PFR0: SysReg = SysReg::new(3, 0, 0, 4, 0);
const PFR1: SysReg = SysReg::new(3, 0, 0, 4, 1);
const ZFR0: SysReg = SysReg::new(3, 0, 0, 4, 4);
const SMFR0: SysReg = SysReg::new(3, 0, 0, 4, 5);
const DFR0: SysReg = SysReg::new(3, 0, 0, 5, 0);
const ISAR0: SysReg = SysReg::new(3, 0, 0, 6, 0);
const ISAR1: SysReg = SysReg::new(3, 0, 0, 6, 1);
const MMFR1: SysReg = SysReg::new(3, 0, 0, 7, 1);
const MMFR2: SysReg = SysReg::new(3, 0, 0, 7, 2);
const MMFR3: SysReg = SysReg::new(3, 0, 0, 7, 3);
const ISAR2: SysReg = SysReg::new(3, 0, 0, 6, 2);

fn field(register: SysReg, shift: u32) -> u64 {
    sysreg::read(register).unwrap_or(0) >> shift & 0xf
}

fn is_undefined<T>(result: Result<T, runtime::exceptions::Fault>) -> bool {
    result.is_err_and(|fault| fault.is_undefined())
}

fn id_space_readable() -> Outcome {
    on_every_cpu(|| {
        // S3_0_C0_C2_x to S3_0_C0_C7_x: AArch32 and AArch64 identification; what isn't given out reads as zero.
        for (crm, op2) in (1..8).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
            let register = SysReg::new(3, 0, 0, crm, op2);
            let value = sysreg::read(register);
            check!(value.is_ok(), "{register} should be readable on CPU {}", cpu::index());
        }
        Ok(())
    })
}

fn id_processor() -> Outcome {
    on_every_cpu(|| {
        let midr = sysreg::read(MIDR).unwrap_or(0);
        check_eq!(midr >> 16 & 0xf, 0xf, "architecture in MIDR_EL1: by ID registers");
        let mpidr = sysreg::read(SysReg::new(3, 0, 0, 0, 5)).unwrap_or(0);
        check_eq!(mpidr & 1 << 31, 1 << 31, "MPIDR_EL1 bit 31, RES1");
        check_eq!(
            mpidr & machine::AFFINITY_MASK,
            runtime::machine().cpus()[cpu::index()],
            "affinity in MPIDR_EL1"
        );
        let revidr = sysreg::read(SysReg::new(3, 0, 0, 0, 6));
        check!(revidr.is_ok(), "REVIDR_EL1 should be readable");
        Ok(())
    })
}

fn id_exception_levels() -> Outcome {
    let [el0, el1, el2] = [0, 4, 8].map(|shift| field(PFR0, shift));
    check!((1..=2).contains(&el0), "ID_AA64PFR0_EL1.EL0 of 1 or 2, got {el0}");
    check!((1..=2).contains(&el1), "ID_AA64PFR0_EL1.EL1 of 1 or 2, got {el1}");
    check_eq!(el2, 0, "ID_AA64PFR0_EL1.EL2: there is none for a guest");
    let gic = field(PFR0, 24);
    match runtime::gic::version() {
        runtime::gic::Version::V2 => check_eq!(gic, 0, "ID_AA64PFR0_EL1.GIC on GICv2"),
        runtime::gic::Version::V3 => check!(gic == 1 || gic == 3, "ID_AA64PFR0_EL1.GIC of 1 or 3, got {gic}"),
    }
    Ok(())
}

fn id_hidden() -> Outcome {
    needs_hanok()?;
    let hidden = [
        (PFR0, 12, "EL3"),
        (PFR0, 28, "RAS"),
        (PFR0, 32, "SVE"),
        (PFR0, 40, "MPAM"),
        (PFR0, 44, "AMU"),
        (PFR0, 52, "RME"),
        (PFR1, 8, "MTE"),
        (PFR1, 16, "MPAM_frac"),
        (PFR1, 24, "SME"),
        (PFR1, 44, "GCS"),
        (PFR1, 48, "THE"),
        (DFR0, 32, "PMSVer"),
        (DFR0, 40, "TraceFilt"),
        (DFR0, 44, "TraceBuffer"),
        (DFR0, 52, "BRBE"),
        (DFR0, 4, "TraceVer"),
        (ISAR2, 0, "WFxT"),
    ];
    for (register, shift, name) in hidden {
        check_eq!(field(register, shift), 0, "{name} in {register}");
    }
    for register in [ZFR0, SMFR0] {
        check_eq!(sysreg::read(register), Ok(0), "{register}, of an extension that isn't given");
    }
    let model = sysreg::read(MIDR).unwrap_or(0) >> 4 & 0xfff;
    if model == CORTEX_A72 {
        check_eq!(field(ID_ISAR5, 4), 0, "AES in {ID_ISAR5}, which erratum 1655431 spoils");
    }
    Ok(())
}

/// An extension: whether its ID field shows it, and some of its registers as (op1, CRn, CRm, op2), op0 being 3.
struct Extension {
    name: &'static str,
    shown: bool,
    registers: &'static [(u32, u32, u32, u32)],
}

/// An extension that a field shows from a value on.
fn extension(
    name: &'static str,
    (register, shift, least): (SysReg, u32, u64),
    registers: &'static [(u32, u32, u32, u32)],
) -> Extension {
    Extension { name, shown: field(register, shift) >= least, registers }
}

fn extensions() -> [Extension; 18] {
    let pmu = field(DFR0, 8);
    let mpam = field(PFR0, 40) | field(PFR1, 16);
    [
        Extension {
            name: "PMUVer",
            shown: pmu != 0 && pmu != 0xf,
            // PMCR, PMCNTENSET, PMCCNTR, PMUSERENR; PMINTENSET.
            registers: &[(3, 9, 12, 0), (3, 9, 12, 1), (3, 9, 13, 0), (3, 9, 14, 0), (0, 9, 14, 1)],
        },
        // MPAM1, MPAM0.
        Extension { name: "MPAM", shown: mpam != 0, registers: &[(0, 10, 5, 0), (0, 10, 5, 1)] },
        // ZCR. SMCR, SVCR, TPIDR2. RGSR, GCR, TFSR, TFSRE0. AMCR, AMCGCR. PMSCR, PMBLIMITR.
        extension("SVE", (PFR0, 32, 1), &[(0, 1, 2, 0)]),
        extension("SME", (PFR1, 24, 1), &[(0, 1, 2, 6), (3, 4, 2, 2), (3, 13, 0, 5)]),
        extension("MTE", (PFR1, 8, 2), &[(0, 1, 0, 5), (0, 1, 0, 6), (0, 5, 6, 0), (0, 5, 6, 1)]),
        extension("AMU", (PFR0, 44, 1), &[(3, 13, 2, 0), (3, 13, 2, 2)]),
        extension("PMSVer", (DFR0, 32, 1), &[(0, 9, 9, 0), (0, 9, 10, 0)]),
        // ERRIDR. LORID. SCXTNUM_EL0. ALLINT. ACCDATA.
        extension("RAS", (PFR0, 28, 1), &[(0, 5, 3, 0)]),
        extension("LO", (MMFR1, 16, 1), &[(0, 10, 4, 7)]),
        extension("CSV2", (PFR0, 56, 2), &[(3, 13, 0, 7)]),
        extension("NMI", (PFR1, 36, 1), &[(0, 4, 3, 0)]),
        extension("LS64", (ISAR1, 60, 3), &[(0, 13, 0, 5)]),
        // TCR2. PIR.
        extension("TCRX", (MMFR3, 0, 1), &[(0, 2, 0, 3)]),
        extension("S1PIE", (MMFR3, 8, 1), &[(0, 10, 2, 3)]),
        // DIT, SSBS, PAN, UAO: fields of PSTATE.
        extension("DIT", (PFR0, 48, 1), &[(3, 4, 2, 5)]),
        extension("SSBS", (PFR1, 4, 2), &[(3, 4, 2, 6)]),
        extension("PAN", (MMFR1, 20, 1), &[(0, 4, 2, 3)]),
        extension("UAO", (MMFR2, 4, 1), &[(0, 4, 2, 4)]),
    ]
}

/// Where an ID field is zero, what belongs to it is UNDEFINED, natively too; where it isn't, the registers are there.
fn shown_or_undefined() -> Outcome {
    features::untrap_vectors(true);
    let outcome = each_shown_or_undefined();
    features::untrap_vectors(false);
    outcome
}

fn each_shown_or_undefined() -> Outcome {
    for Extension { name, shown, registers } in extensions() {
        for (op1, crn, crm, op2) in registers {
            let register = SysReg::new(3, *op1, *crn, *crm, *op2);
            let undefined = is_undefined(sysreg::read(register));
            // CSV2_frac may show SCXTNUM where CSV2 doesn't; and no hypervisor can hide ALLINT from reads.
            let either_way = name == "CSV2" && field(PFR1, 32) != 0 || name == "NMI";
            check!(
                undefined != shown || either_way,
                "{register} of {name}: shown {shown}, UNDEFINED {undefined}"
            );
        }
    }
    // Those of MTE and WFxT are not among them: no hypervisor can make them UNDEFINED where the CPU has them.
    let instructions = [
        (Probe::Sve, field(PFR0, 32) | field(PFR1, 24)),
        (Probe::Sme, field(PFR1, 24)),
        (Probe::Sb, field(ISAR1, 36)),
        (Probe::Cfinv, field(ISAR0, 52)),
        (Probe::Rndr, field(ISAR0, 60)),
    ];
    for (instruction, value) in instructions {
        let undefined = is_undefined(sysreg::probe(instruction));
        check!(undefined != (value != 0), "{instruction:?}: ID field {value}, UNDEFINED {undefined}");
    }
    Ok(())
}

/// HCR, VTTBR, VTCR, SCTLR, VBAR, TTBR0, ESR, HPFAR, CNTHCTL, CNTVOFF, VPIDR, VMPIDR, ICH_HCR, ICH_VTR, ICH_LR0, MDCR,
/// CPTR, HSTR, TPIDR, HFGRTR, of EL2; SCR of EL3; SCTLR_EL12, CNTV_CTL_EL02.
const OF_EL2: [SysReg; 23] = [
    SysReg::new(3, 4, 1, 1, 0),
    SysReg::new(3, 4, 2, 1, 0),
    SysReg::new(3, 4, 2, 1, 2),
    SysReg::new(3, 4, 1, 0, 0),
    SysReg::new(3, 4, 12, 0, 0),
    SysReg::new(3, 4, 2, 0, 0),
    SysReg::new(3, 4, 5, 2, 0),
    SysReg::new(3, 4, 6, 0, 4),
    SysReg::new(3, 4, 14, 1, 0),
    SysReg::new(3, 4, 14, 0, 3),
    SysReg::new(3, 4, 0, 0, 0),
    SysReg::new(3, 4, 0, 0, 5),
    SysReg::new(3, 4, 12, 11, 0),
    SysReg::new(3, 4, 12, 11, 1),
    SysReg::new(3, 4, 12, 13, 0),
    SysReg::new(3, 4, 1, 1, 1),
    SysReg::new(3, 4, 1, 1, 2),
    SysReg::new(3, 4, 1, 1, 3),
    SysReg::new(3, 4, 13, 0, 2),
    SysReg::new(3, 4, 1, 1, 4),
    SysReg::new(3, 6, 1, 1, 0),
    SysReg::new(3, 5, 1, 0, 0),
    SysReg::new(3, 5, 14, 3, 1),
];

fn el2_read() -> Outcome {
    on_every_cpu(|| {
        for register in OF_EL2.into_iter().filter(|register| (register.crn, register.crm) != (12, 12)) {
            check!(is_undefined(sysreg::read(register)), "reading {register} should be UNDEFINED");
        }
        Ok(())
    })
}

fn el2_write() -> Outcome {
    on_every_cpu(|| {
        for register in OF_EL2 {
            for value in [0, u64::MAX] {
                check!(
                    is_undefined(sysreg::write(register, value)),
                    "writing {register} should be UNDEFINED"
                );
            }
        }
        Ok(())
    })
}

/// A cross-section of the IMPLEMENTATION DEFINED space, with registers that Cortex-A53 and A72 really have there: CPU
/// auxiliary control (S3_1_C15_C2_x), L2 control (S3_1_C11_C0_x), configuration base (S3_1_C15_C3_0).
const IMPLEMENTATION_DEFINED: [SysReg; 14] = [
    SysReg::new(3, 0, 15, 0, 0),
    SysReg::new(3, 0, 15, 2, 1),
    SysReg::new(3, 0, 11, 0, 2),
    SysReg::new(3, 0, 15, 15, 7),
    SysReg::new(3, 1, 11, 0, 2),
    SysReg::new(3, 1, 11, 0, 3),
    SysReg::new(3, 1, 15, 2, 0),
    SysReg::new(3, 1, 15, 2, 1),
    SysReg::new(3, 1, 15, 2, 2),
    SysReg::new(3, 1, 15, 2, 3),
    SysReg::new(3, 1, 15, 3, 0),
    SysReg::new(3, 3, 15, 0, 0),
    SysReg::new(3, 3, 11, 1, 5),
    SysReg::new(3, 7, 15, 1, 0),
];

fn implementation_defined() -> Outcome {
    needs_hanok()?;
    on_every_cpu(|| {
        for register in IMPLEMENTATION_DEFINED {
            check!(is_undefined(sysreg::read(register)), "reading {register} should be UNDEFINED");
            check!(is_undefined(sysreg::write(register, u64::MAX)), "writing {register} should be UNDEFINED");
        }
        Ok(())
    })
}

fn actlr() -> Outcome {
    on_every_cpu(|| {
        let first = sysreg::read(SysReg::new(3, 0, 1, 0, 1));
        check!(first.is_ok(), "ACTLR_EL1 should be readable");
        check_eq!(sysreg::read(SysReg::new(3, 0, 1, 0, 1)), first, "ACTLR_EL1, read again");
        Ok(())
    })
}

fn midr_stable() -> Outcome {
    // Trapped or not, and however often: the same value.
    let read = || [0, 5, 6].map(|op2| sysreg::read(SysReg::new(3, 0, 0, 0, op2)).unwrap_or(0));
    let first = read();
    for round in 0..200 {
        check_eq!(read(), first, "MIDR, MPIDR and REVIDR in round {round}");
    }
    Ok(())
}

fn undefined_instruction() -> Outcome {
    let fault = sysreg::probe(Probe::Udf).err();
    check_eq!(fault.map(|fault| fault.class()), Some(class::UNKNOWN), "exception class of UDF");
    Ok(())
}

fn smc() -> Outcome {
    // Under Hanok an unknown function; natively, without EL3, an UNDEFINED.
    match sysreg::probe(Probe::Smc) {
        Ok(x0) => check_eq!(x0 as u32, u32::MAX, "SMC of an unknown function"),
        Err(fault) => {
            check!(!crate::framework::is_hanok(), "SMC should be taken, got {fault}");
            check!(fault.is_undefined(), "SMC without EL3 should be UNDEFINED, got {fault}");
        }
    }
    Ok(())
}
