//! The firmware's PSCI (Arm DEN 0022), called by SMC: turning the board off or over, starting CPUs, and the mitigations
//! that are found beside it.

use smccc::Smc;
use smccc::psci;
pub use smccc::psci::error::Error;

/// Starts the CPU of affinity `mpidr` at physical address `entry`, at EL2 with caches off and `argument` in x0.
///
/// # Errors
/// What the firmware answers.
pub fn cpu_on(mpidr: u64, entry: u64, argument: u64) -> Result<(), Error> {
    psci::cpu_on::<Smc>(mpidr, entry, argument)
}

/// Turns the board off. Returns only when the firmware refuses.
///
/// # Errors
/// What the firmware answers.
pub fn system_off() -> Result<(), Error> {
    psci::system_off::<Smc>()
}

/// Resets the board. Returns only when the firmware refuses.
///
/// # Errors
/// What the firmware answers.
pub fn system_reset() -> Result<(), Error> {
    psci::system_reset::<Smc>()
}

/// A branch-predictor or store-bypass mitigation that firmware carries out (SMCCC 7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mitigation {
    /// SMCCC_ARCH_WORKAROUND_1.
    Workaround1,
    /// SMCCC_ARCH_WORKAROUND_2.
    Workaround2,
    /// SMCCC_ARCH_WORKAROUND_3.
    Workaround3,
}

/// What firmware says of a mitigation on the CPU that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    /// Nothing is known.
    Unknown,
    /// This CPU doesn't need it.
    NotNeeded,
    /// This CPU needs it, and firmware carries it out.
    Needed,
}

/// What firmware says of workaround 1, 2 or 3 on this CPU. Only where SMC reaches a firmware that has PSCI 1.0 or later:
/// before that, there is no way to ask.
pub fn availability(workaround: Mitigation) -> Availability {
    use smccc::arch;
    // PSCI_FEATURES(SMCCC_VERSION) is how SMCCC 1.1 is found; an older firmware may do anything with newer calls.
    if psci::psci_features::<Smc>(arch::SMCCC_VERSION).is_err() {
        return Availability::Unknown;
    }
    let function = match workaround {
        Mitigation::Workaround1 => arch::SMCCC_ARCH_WORKAROUND_1,
        Mitigation::Workaround2 => arch::SMCCC_ARCH_WORKAROUND_2,
        Mitigation::Workaround3 => arch::SMCCC_ARCH_WORKAROUND_3,
    };
    match arch::features::<Smc>(function) {
        Ok(0) => Availability::Needed,
        Ok(_) | Err(arch::error::Error::NotRequired) => Availability::NotNeeded,
        Err(_) => Availability::Unknown,
    }
}

/// Has firmware turn speculative store bypass off on the CPU that asks, by workaround 2. Only where [`availability`] says that it is needed.
pub fn stop_store_bypass() {
    // The answer says nothing that isn't known already.
    let _ = smccc::arch::arch_workaround_2::<Smc>(true);
}

/// What firmware says the board is made of, if it does (SMCCC 7.4): version and revision. As for [`availability`].
pub fn soc_id() -> Option<(u32, u32)> {
    use smccc::arch::{self, SocIdType};
    if psci::psci_features::<Smc>(arch::SMCCC_VERSION).is_err() {
        return None;
    }
    arch::features::<Smc>(arch::SMCCC_ARCH_SOC_ID).ok()?;
    let ask = |kind| arch::soc_id::<Smc>(kind).ok();
    Some((ask(SocIdType::Version)?, ask(SocIdType::Revision)?))
}
