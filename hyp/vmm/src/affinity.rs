//! The affinity of a vCPU: what its MPIDR_EL1 shows, what its node in the guest's device tree says, where the GIC
//! routes to, and what PSCI takes as a target. This is the one place that decides it.
//!
//! As on QEMU's `virt`, a cluster holds 16 CPUs, the most that one GICv3 SGI target list can name.

use vgic::{Affinity, VcpuId};

/// The most vCPUs that a VM can have; sets of vCPUs are one 64-bit word.
pub const MAX_VCPUS: u8 = 64;

const CLUSTER_SHIFT: u32 = 4;
const AFF0_MASK: u64 = 0xf;
const AFF1_SHIFT: u32 = 8;

/// MPIDR_EL1 bit 31, RES1.
const MPIDR_RES1: u64 = 1 << 31;

/// The affinity of a vCPU: Aff0 counts 0 to 15, Aff1 above it.
pub const fn vcpu_affinity(vcpu: VcpuId) -> Affinity {
    let n = vcpu.0 as u32;
    Affinity((n & AFF0_MASK as u32) | (n >> CLUSTER_SHIFT) << AFF1_SHIFT)
}

/// The vCPU's MPIDR_EL1: its affinity fields, bit 31 set, U and MT clear.
pub const fn vcpu_mpidr(vcpu: VcpuId) -> u64 {
    vcpu_affinity(vcpu).to_mpidr() | MPIDR_RES1
}

/// The vCPUs in the affinity instance that `affinity` names at `level` (0: that CPU alone; 1: its cluster; 2, 3: all),
/// one bit each, whether or not the VM has them. Fields below `level` don't count. Nothing for an instance that no
/// vCPU can be in, a reserved bit set, or a level above 3.
pub fn affinity_instance(affinity: u64, level: u32) -> u64 {
    const CLUSTER: u64 = 0xffff;
    if affinity & !abi::psci::AFFINITY_MASK != 0 {
        return 0;
    }
    let clusters = u64::from(MAX_VCPUS) >> CLUSTER_SHIFT;
    // Aff1 and all above it, so that one comparison tells that the higher fields are zero.
    let aff1_up = affinity >> AFF1_SHIFT;
    match level {
        0 if affinity & 0xff <= AFF0_MASK && aff1_up < clusters => {
            1_u64.wrapping_shl(((affinity & AFF0_MASK) | aff1_up << CLUSTER_SHIFT) as u32)
        }
        1 if aff1_up < clusters => CLUSTER.wrapping_shl((aff1_up << CLUSTER_SHIFT) as u32),
        2 if affinity >> 16 == 0 => u64::MAX,
        3 if affinity >> 32 == 0 => u64::MAX,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpus() -> impl Iterator<Item = VcpuId> {
        (0..MAX_VCPUS).map(VcpuId)
    }

    #[test]
    fn sixteen_to_a_cluster() {
        let of = |n| vcpu_affinity(VcpuId(n)).0;
        assert_eq!(of(0), 0);
        assert_eq!(of(7), 7);
        assert_eq!(of(15), 15);
        assert_eq!(of(16), 0x100);
        assert_eq!(of(63), 0x30f);
        assert_eq!(vcpu_mpidr(VcpuId(17)), 0x8000_0101);
    }

    #[test]
    fn instance_is_the_inverse_of_affinity() {
        for vcpu in vcpus() {
            let affinity = vcpu_affinity(vcpu).to_mpidr();
            assert_eq!(affinity_instance(affinity, 0), 1 << vcpu.0);
        }
    }

    #[test]
    fn instance_agrees_with_a_comparison_of_fields() {
        let samples = [0, 1, 15, 16, 0x10f, 0x300, 0x30f, 0x310, 0x400, 0xff00, 0x1_0000, 1 << 24, 1 << 31];
        for affinity in samples.into_iter().chain([1 << 32, 0xff << 32 | 3, 1 << 40, u64::MAX]) {
            for level in 0..5 {
                let reserved = affinity & !0xff_00ff_ffff_u64 != 0;
                let above = |a: u64| ((a & 0xff_ffff) | (a >> 32 << 24)) >> (8 * level);
                let expected = vcpus()
                    .filter(|v| {
                        !reserved && level < 4 && above(vcpu_affinity(*v).to_mpidr()) == above(affinity)
                    })
                    .fold(0, |set, v| set | 1_u64 << v.0);
                assert_eq!(affinity_instance(affinity, level), expected, "{affinity:#x} level {level}");
            }
        }
    }
}
