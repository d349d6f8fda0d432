//! Who is above: whether this guest runs under Hanok.

use smccc::{Call, Hvc};

use crate::exceptions;

/// Whether the hypervisor above is Hanok, by the UID of its service (SMCCC section 6.2). Where there is no EL2, HVC is UNDEFINED,
/// and nobody is above.
pub fn is_hanok() -> bool {
    let (uid, fault) = exceptions::catch(uid);
    fault.is_none() && uid == abi::hanok::UID
}

/// What the vendor-specific hypervisor service answers to the query of its UID: four words, in x0 to x3; the first
/// is 0xffff_ffff where there is no such service.
pub fn uid() -> [u32; 4] {
    let [a, b, c, d, ..] = Hvc::call32(abi::hanok::CALL_UID.as_u32(), [0; 7]);
    [a, b, c, d]
}
