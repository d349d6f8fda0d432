//! The identifiers against the numbers printed in the specifications.

use abi::{FunctionId, hanok, psci, pv_time, smccc, trng};

#[test]
fn identifiers_are_those_of_the_specifications() {
    let expected: &[(FunctionId, u32)] = &[
        (smccc::VERSION, 0x8000_0000),
        (smccc::ARCH_FEATURES, 0x8000_0001),
        (smccc::ARCH_SOC_ID, 0x8000_0002),
        (smccc::ARCH_WORKAROUND_1, 0x8000_8000),
        (smccc::ARCH_WORKAROUND_2, 0x8000_7fff),
        (smccc::ARCH_WORKAROUND_3, 0x8000_3fff),
        (smccc::ARCH_WORKAROUND_4, 0x8000_0004),
        (psci::VERSION, 0x8400_0000),
        (psci::CPU_SUSPEND_32, 0x8400_0001),
        (psci::CPU_SUSPEND_64, 0xc400_0001),
        (psci::CPU_OFF, 0x8400_0002),
        (psci::CPU_ON_32, 0x8400_0003),
        (psci::CPU_ON_64, 0xc400_0003),
        (psci::AFFINITY_INFO_32, 0x8400_0004),
        (psci::AFFINITY_INFO_64, 0xc400_0004),
        (psci::MIGRATE_INFO_TYPE, 0x8400_0006),
        (psci::SYSTEM_OFF, 0x8400_0008),
        (psci::SYSTEM_RESET, 0x8400_0009),
        (psci::FEATURES, 0x8400_000a),
        (psci::SYSTEM_SUSPEND_64, 0xc400_000e),
        (psci::SYSTEM_RESET2_64, 0xc400_0012),
        (trng::VERSION, 0x8400_0050),
        (trng::FEATURES, 0x8400_0051),
        (trng::GET_UUID, 0x8400_0052),
        (trng::RND_32, 0x8400_0053),
        (trng::RND_64, 0xc400_0053),
        (pv_time::FEATURES, 0xc500_0020),
        (pv_time::STOLEN_TIME, 0xc500_0021),
        (hanok::CALL_UID, 0x8600_ff01),
        (hanok::REVISION, 0x8600_ff03),
    ];
    for (id, number) in expected {
        assert_eq!(id.as_u32(), *number, "{id:x?}");
    }
}
