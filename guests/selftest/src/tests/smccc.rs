//! SMCCC: version, discovery, and Hanok's own service.

use abi::{FunctionId, hanok, smccc};
use runtime::call::call3;
use runtime::{features, hypervisor, machine};

use crate::framework::{Outcome, check, check_eq, failed, needs_hanok, on_every_cpu, tests};

tests! {
    "smccc.version" => version,
    "smccc.arch-features" => arch_features,
    "smccc.workarounds" => workarounds,
    "smccc.soc-id" => soc_id,
    "smccc.vendor-uid" => vendor_uid,
    "smccc.vendor-revision" => vendor_revision,
}

fn call(function: FunctionId, argument: u64) -> i64 {
    call3(machine().conduit, function, [argument, 0, 0])
}

fn features_of(function: FunctionId) -> i64 {
    call(smccc::ARCH_FEATURES, u64::from(function.as_u32()))
}

fn version() -> Outcome {
    needs_hanok()?;
    let version = call(smccc::VERSION, 0);
    check!(
        (0x1_0001..=0x1_ffff).contains(&version),
        "SMCCC_VERSION should be 1.1 or later, got {version:#x}"
    );
    let features = call(abi::psci::FEATURES, u64::from(smccc::VERSION.as_u32()));
    check_eq!(features, 0, "PSCI_FEATURES of SMCCC_VERSION, by which its presence is known");
    Ok(())
}

fn arch_features() -> Outcome {
    needs_hanok()?;
    for function in [smccc::VERSION, smccc::ARCH_FEATURES] {
        check_eq!(features_of(function), 0, "ARCH_FEATURES of {:#x}", function.as_u32());
    }
    for function in [0x8000_ffff, 0x8000_0003, 0x8400_0000, 0, u32::MAX] {
        let status = features_of(FunctionId::from_u32(function));
        check_eq!(status, smccc::NOT_SUPPORTED, "ARCH_FEATURES of {function:#x}");
    }
    Ok(())
}

fn workarounds() -> Outcome {
    needs_hanok()?;
    on_every_cpu(|| {
        for function in [smccc::ARCH_WORKAROUND_1, smccc::ARCH_WORKAROUND_3] {
            let id = function.as_u32();
            let expected = match features_of(function) {
                smccc::WORKAROUND_NEEDED | smccc::WORKAROUND_CALLABLE => smccc::SUCCESS,
                smccc::NOT_SUPPORTED => smccc::NOT_SUPPORTED,
                other => return Err(failed(format_args!("ARCH_FEATURES of {id:#x}: -1 to 1, got {other}"))),
            };
            check_eq!(call(function, 1), expected, "{id:#x}, of which ARCH_FEATURES tells");
        }
        // It is either on for good, or nobody's.
        let store_bypass = features_of(smccc::ARCH_WORKAROUND_2);
        check!(
            [smccc::NOT_SUPPORTED, smccc::NOT_REQUIRED].contains(&store_bypass),
            "ARCH_FEATURES of WORKAROUND_2: -1 or -2, got {store_bypass}"
        );
        check_eq!(call(smccc::ARCH_WORKAROUND_2, 1), smccc::NOT_SUPPORTED, "WORKAROUND_2");
        // What is told of branch targets is what the CPU says.
        if features::keeps_branch_targets_apart() {
            let told = features_of(smccc::ARCH_WORKAROUND_1);
            check_eq!(
                told,
                smccc::WORKAROUND_CALLABLE,
                "ARCH_FEATURES of WORKAROUND_1, with ID_AA64PFR0_EL1.CSV2"
            );
        }
        Ok(())
    })
}

/// What the board's firmware says, or nothing.
fn soc_id() -> Outcome {
    needs_hanok()?;
    let feature = features_of(smccc::ARCH_SOC_ID);
    let answers = [0, 1, 2].map(|kind| call(smccc::ARCH_SOC_ID, kind));
    match feature {
        smccc::NOT_SUPPORTED => {
            check_eq!(answers, [smccc::NOT_SUPPORTED; 3], "SOC_ID, which isn't announced")
        }
        _ => {
            check_eq!(feature, smccc::SUCCESS, "ARCH_FEATURES of SOC_ID");
            check!(answers[..2].iter().all(|answer| *answer >= 0), "version and revision, got {answers:?}");
            check_eq!(answers[2], smccc::INVALID_PARAMETER, "a type that there isn't");
        }
    }
    Ok(())
}

fn vendor_uid() -> Outcome {
    needs_hanok()?;
    check_eq!(hypervisor::uid(), hanok::UID, "UID");
    Ok(())
}

fn vendor_revision() -> Outcome {
    needs_hanok()?;
    check_eq!(call(hanok::REVISION, 0), i64::from(hanok::REVISION_MAJOR), "revision");
    Ok(())
}
