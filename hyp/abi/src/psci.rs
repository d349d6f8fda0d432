//! Power State Coordination Interface 1.1 (Arm DEN0022).

use crate::{FunctionId, Owner};

/// `PSCI_VERSION`.
pub const VERSION: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 0);
/// `CPU_SUSPEND` (power state, entry, context), 32-bit convention.
pub const CPU_SUSPEND_32: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 1);
/// `CPU_SUSPEND` (power state, entry, context), 64-bit convention.
pub const CPU_SUSPEND_64: FunctionId = FunctionId::fast64(Owner::STANDARD_SECURE, 1);
/// `CPU_OFF`: doesn't return when it succeeds.
pub const CPU_OFF: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 2);
/// `CPU_ON` (target affinity, entry, context), 32-bit convention.
pub const CPU_ON_32: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 3);
/// `CPU_ON` (target affinity, entry, context), 64-bit convention.
pub const CPU_ON_64: FunctionId = FunctionId::fast64(Owner::STANDARD_SECURE, 3);
/// `AFFINITY_INFO` (target affinity, lowest affinity level), 32-bit convention.
pub const AFFINITY_INFO_32: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 4);
/// `AFFINITY_INFO` (target affinity, lowest affinity level), 64-bit convention.
pub const AFFINITY_INFO_64: FunctionId = FunctionId::fast64(Owner::STANDARD_SECURE, 4);
/// `MIGRATE_INFO_TYPE`.
pub const MIGRATE_INFO_TYPE: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 6);
/// `SYSTEM_OFF`: doesn't return.
pub const SYSTEM_OFF: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 8);
/// `SYSTEM_RESET`: doesn't return.
pub const SYSTEM_RESET: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 9);
/// `PSCI_FEATURES` (function identifier).
pub const FEATURES: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 10);
/// `SYSTEM_SUSPEND` (entry, context), 64-bit convention.
pub const SYSTEM_SUSPEND_64: FunctionId = FunctionId::fast64(Owner::STANDARD_SECURE, 14);
/// `SYSTEM_RESET2` (type, cookie), 64-bit convention.
pub const SYSTEM_RESET2_64: FunctionId = FunctionId::fast64(Owner::STANDARD_SECURE, 18);

/// Version 1.1, as `PSCI_VERSION` reports it: major number in bits 31:16, minor in bits 15:0.
pub const VERSION_1_1: u32 = 0x1_0001;

/// The call did what it was asked.
pub const SUCCESS: i64 = 0;
/// The function isn't offered.
pub const NOT_SUPPORTED: i64 = -1;
/// An argument names no CPU or state that there is, or has a reserved bit set.
pub const INVALID_PARAMETERS: i64 = -2;
/// The state of the system or the caller's rights forbid it.
pub const DENIED: i64 = -3;
/// The target CPU already runs.
pub const ALREADY_ON: i64 = -4;
/// An earlier `CPU_ON` for the target CPU is still under way.
pub const ON_PENDING: i64 = -5;
/// The target failed.
pub const INTERNAL_FAILURE: i64 = -6;
/// The trusted OS isn't on this CPU.
pub const NOT_PRESENT: i64 = -7;
/// The target CPU can't be turned on.
pub const DISABLED: i64 = -8;
/// The entry point isn't an address where the caller may start a CPU.
pub const INVALID_ADDRESS: i64 = -9;

/// `AFFINITY_INFO`: at least one CPU of the affinity instance runs.
pub const AFFINITY_ON: i64 = 0;
/// `AFFINITY_INFO`: all of its CPUs are off.
pub const AFFINITY_OFF: i64 = 1;
/// `AFFINITY_INFO`: none runs and at least one is on its way.
pub const AFFINITY_ON_PENDING: i64 = 2;

/// `MIGRATE_INFO_TYPE`: there is no trusted OS that would have to migrate.
pub const MIGRATE_NOT_NEEDED: i64 = 2;

/// `PSCI_FEATURES` of `CPU_SUSPEND`: the original format of the power state, and no OS-initiated mode.
pub const SUSPEND_ORIGINAL_FORMAT: i64 = 0;

/// Power state, original format: a power-down, bit 16. Otherwise a standby.
pub const POWER_STATE_DOWN: u32 = 1 << 16;
/// Power state, original format: bits 31:26 and 23:17 are reserved and must be zero.
pub const POWER_STATE_RESERVED: u32 = 0xfcfe_0000;

/// The bits of a 64-bit target affinity that may be set: Aff3 in bits 39:32, Aff2 to Aff0 in bits 23:0.
pub const AFFINITY_MASK: u64 = 0xff_00ff_ffff;
