//! Arm Architecture calls of the SMC Calling Convention (Arm DEN0028, section 7).

use crate::{FunctionId, Owner};

/// `SMCCC_VERSION`: the version of the calling convention, major number in bits 30:16, minor in bits 15:0.
pub const VERSION: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 0);
/// `SMCCC_ARCH_FEATURES`: whether the Arm Architecture call in W1 is there. Result by call.
pub const ARCH_FEATURES: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 1);
/// `SMCCC_ARCH_SOC_ID`, 32-bit convention.
pub const ARCH_SOC_ID: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 2);
/// `SMCCC_ARCH_WORKAROUND_1`: branch-predictor mitigation for CVE-2017-5715.
pub const ARCH_WORKAROUND_1: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 0x8000);
/// `SMCCC_ARCH_WORKAROUND_2`: turns the mitigation for CVE-2018-3639 on (W1 not 0) or off (W1 = 0) for the calling CPU.
pub const ARCH_WORKAROUND_2: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 0x7fff);
/// `SMCCC_ARCH_WORKAROUND_3`: mitigation for CVE-2017-5715 and CVE-2022-23960.
pub const ARCH_WORKAROUND_3: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 0x3fff);
/// `SMCCC_ARCH_WORKAROUND_4`: mitigation for CVE-2024-7881.
pub const ARCH_WORKAROUND_4: FunctionId = FunctionId::fast32(Owner::ARM_ARCHITECTURE, 4);

/// Version 1.2 of the convention, as `SMCCC_VERSION` reports it.
pub const VERSION_1_2: u32 = 0x1_0002;

/// The call did what it was asked.
pub const SUCCESS: i64 = 0;
/// The call isn't offered. Also the answer to every unknown identifier: -1, sign-extended to the register's width.
pub const NOT_SUPPORTED: i64 = -1;
/// The call isn't needed on this system.
pub const NOT_REQUIRED: i64 = -2;
/// An argument is out of its range.
pub const INVALID_PARAMETER: i64 = -3;

/// `ARCH_FEATURES` of a workaround: it can be called, and the calling CPU needs it.
pub const WORKAROUND_NEEDED: i64 = 0;
/// `ARCH_FEATURES` of a workaround: it can be called, but the calling CPU doesn't need it.
pub const WORKAROUND_CALLABLE: i64 = 1;
