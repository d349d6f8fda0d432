//! PSCI and SMCCC as calls: versions, discovery, unknown functions, and what a call does to the registers.

use abi::{FunctionId, psci, smccc};
use runtime::call::{Immediate, call, call3};
use runtime::exceptions::catch;
use runtime::machine;
use runtime::machine::Conduit;

use crate::framework::{Outcome, check, check_eq, needs_hanok, tests};

tests! {
    "psci.version" => version,
    "psci.features" => features,
    "psci.migrate-info-type" => migrate_info_type,
    "psci.registers" => registers,
    "psci.unknown-functions" => unknown_functions,
    "psci.upper-half-of-x0" => upper_half_of_x0,
    "psci.smc-answers-as-hvc" => smc_answers_as_hvc,
    "psci.immediate" => immediate,
}

fn version() -> Outcome {
    let version = call3(machine().conduit, psci::VERSION, [0; 3]);
    check_eq!(version, i64::from(psci::VERSION_1_1), "PSCI_VERSION");
    Ok(())
}

fn features_of(function: FunctionId) -> i64 {
    call3(machine().conduit, psci::FEATURES, [u64::from(function.as_u32()), 0, 0])
}

fn features() -> Outcome {
    let offered = [
        psci::VERSION,
        psci::FEATURES,
        psci::CPU_ON_32,
        psci::CPU_ON_64,
        psci::CPU_OFF,
        psci::AFFINITY_INFO_32,
        psci::AFFINITY_INFO_64,
        psci::SYSTEM_OFF,
        psci::SYSTEM_RESET,
        psci::MIGRATE_INFO_TYPE,
    ];
    for function in offered {
        check_eq!(features_of(function), 0, "PSCI_FEATURES of {:#x}", function.as_u32());
    }
    for function in [psci::CPU_SUSPEND_32, psci::CPU_SUSPEND_64] {
        let flags = features_of(function);
        check!(flags >= 0, "CPU_SUSPEND {:#x} should be offered, got {flags}", function.as_u32());
    }
    // MIGRATE, MIGRATE_INFO_UP_CPU, CPU_FREEZE, a 64-bit PSCI_VERSION, and numbers that are none.
    for function in
        [0xc400_0005, 0xc400_0007, 0x8400_000b, 0xc400_0000, 0x8400_001f, 0x8400_00ff, 0, u32::MAX]
    {
        let status = features_of(FunctionId::from_u32(function));
        check_eq!(status, psci::NOT_SUPPORTED, "PSCI_FEATURES of {function:#x}");
    }
    Ok(())
}

fn migrate_info_type() -> Outcome {
    let kind = call3(machine().conduit, psci::MIGRATE_INFO_TYPE, [0; 3]);
    check_eq!(kind, psci::MIGRATE_NOT_NEEDED, "MIGRATE_INFO_TYPE");
    Ok(())
}

/// A recognisable value for every register.
fn patterned(function: FunctionId, arguments: [u64; 3]) -> [u64; 31] {
    let mut registers = core::array::from_fn(|n| (0x0101_0101_0101_0101 * n as u64) ^ 0xa5a5_0000_5a5a_0000);
    registers[0] = u64::from(function.as_u32());
    registers[1..4].copy_from_slice(&arguments);
    registers
}

fn registers() -> Outcome {
    let own = machine().cpus()[0];
    let calls = [
        (psci::VERSION, [11, 12, 13]),
        (psci::FEATURES, [u64::from(psci::CPU_OFF.as_u32()), 12, 13]),
        (psci::AFFINITY_INFO_64, [own, 0, 13]),
        (psci::MIGRATE_INFO_TYPE, [11, 12, 13]),
        (FunctionId::from_u32(0x8400_001f), [11, 12, 13]),
    ];
    for (function, arguments) in calls {
        let before = patterned(function, arguments);
        let after = call(machine().conduit, Immediate::Zero, before);
        let changed = (1..31).find(|n| before[*n] != after[*n]);
        let at = changed.unwrap_or(0);
        check!(
            changed.is_none(),
            "{:#x}: x{at} should stay {:#x}, is {:#x}",
            function.as_u32(),
            before[at],
            after[at]
        );
    }
    Ok(())
}

/// Identifiers of every owner that nobody here answers, and some that are malformed.
const UNKNOWN: [u32; 18] = [
    0x8400_001f, // PSCI, no such function
    0xc400_001f,
    0xc400_0000, // PSCI_VERSION has no 64-bit form
    0xc400_0008,
    0x8400_0100, // standard secure service, no such function
    0x8000_ffff, // Arm architecture, no such function
    0x8100_0000, // CPU service
    0x8200_0000, // SiP
    0xc200_0001,
    0x8300_0000, // OEM
    0x8600_1234, // vendor hypervisor, no such function
    0xb000_0000, // trusted applications
    0xb200_0000, // trusted OS
    0xbf00_ff01,
    0x0400_0000, // a yielding call
    0x3200_0001, // a yielding call to a trusted OS
    0x8402_0000, // PSCI_VERSION with a reserved bit
    0x0000_0000,
];

fn unknown_by(conduit: Conduit) -> Outcome {
    for function in UNKNOWN.map(FunctionId::from_u32) {
        let (status, fault) = catch(|| call3(conduit, function, [0; 3]));
        check_eq!((status, fault), (smccc::NOT_SUPPORTED, None), "{conduit:?} of {:#x}", function.as_u32());
    }
    let all_ones = call3(conduit, FunctionId::from_u32(u32::MAX), [u64::MAX; 3]);
    check_eq!(all_ones, smccc::NOT_SUPPORTED, "{conduit:?} of all ones");
    Ok(())
}

fn unknown_functions() -> Outcome {
    unknown_by(Conduit::Hvc)?;
    match needs_hanok() {
        // Natively there is nobody to take an SMC.
        Err(_) => Ok(()),
        Ok(()) => unknown_by(Conduit::Smc),
    }
}

fn upper_half_of_x0() -> Outcome {
    // The identifier is in w0 (Arm DEN0028, 2.5); what is above is nobody's concern.
    needs_hanok()?;
    let mut before = patterned(psci::VERSION, [0; 3]);
    before[0] |= 0xdead_beef << 32;
    let after = call(Conduit::Hvc, Immediate::Zero, before);
    check_eq!(after[0] as u32, psci::VERSION_1_1, "PSCI_VERSION with bits above w0");
    Ok(())
}

fn smc_answers_as_hvc() -> Outcome {
    needs_hanok()?;
    let own = machine().cpus()[0];
    let calls = [
        (psci::VERSION, [0; 3]),
        (psci::FEATURES, [u64::from(psci::CPU_SUSPEND_64.as_u32()), 0, 0]),
        (psci::FEATURES, [0x8400_00ff, 0, 0]),
        (psci::AFFINITY_INFO_64, [own, 0, 0]),
        (psci::AFFINITY_INFO_32, [own, 0, 0]),
        (psci::AFFINITY_INFO_64, [0x7f_0000, 0, 0]),
        (psci::MIGRATE_INFO_TYPE, [0; 3]),
        (smccc::VERSION, [0; 3]),
        (smccc::ARCH_FEATURES, [u64::from(smccc::ARCH_WORKAROUND_1.as_u32()), 0, 0]),
        (abi::hanok::CALL_UID, [0; 3]),
        (abi::hanok::REVISION, [0; 3]),
    ];
    for (function, arguments) in calls {
        let before = patterned(function, arguments);
        let hvc = call(Conduit::Hvc, Immediate::Zero, before);
        let (smc, fault) = catch(|| call(Conduit::Smc, Immediate::Zero, before));
        check!(fault.is_none(), "SMC {:#x} should be taken", function.as_u32());
        check!(hvc == smc, "SMC {:#x} should answer as HVC: {:#x}, {:#x}", function.as_u32(), smc[0], hvc[0]);
    }
    Ok(())
}

fn immediate() -> Outcome {
    // Immediates other than 0 are reserved (Arm DEN0028, 2.9): an unknown function or an UNDEFINED, and not a version.
    needs_hanok()?;
    let before = patterned(psci::VERSION, [0; 3]);
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        for immediate in [Immediate::One, Immediate::Largest] {
            let (after, fault) = catch(|| call(conduit, immediate, before));
            let undefined = fault.is_some_and(|fault| fault.is_undefined());
            let refused = fault.is_none() && after[0] as i32 == -1;
            check!(undefined || refused, "{conduit:?} #{immediate:?}: refused, got x0 {:#x}", after[0]);
            check!(before[1..] == after[1..], "{conduit:?} #{immediate:?}: other registers unchanged");
        }
    }
    Ok(())
}
