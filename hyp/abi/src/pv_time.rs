//! Paravirtualized time (Arm DEN0057): the time stolen from a vCPU.

use crate::{FunctionId, Owner};

/// `PV_TIME_FEATURES` (function identifier).
pub const FEATURES: FunctionId = FunctionId::fast64(Owner::STANDARD_HYPERVISOR, 0x20);
/// `PV_TIME_ST`: the address of the calling vCPU's stolen-time structure.
pub const STOLEN_TIME: FunctionId = FunctionId::fast64(Owner::STANDARD_HYPERVISOR, 0x21);

/// The call did what it was asked.
pub const SUCCESS: i64 = 0;
/// The function isn't offered.
pub const NOT_SUPPORTED: i64 = -1;
