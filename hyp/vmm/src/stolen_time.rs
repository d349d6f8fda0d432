//! The record that tells a vCPU how long it was ready to run and another one ran in its place: Arm DEN0057, section 3.2.1.
//!
//! A VM whose vCPUs share CPUs has a page of these, which it can only read, one record for each vCPU. What is in it but the
//! time stays zero: revision 0, no attributes.

use vgic::VcpuId;

use crate::layout::{Ipa, Layout};

/// Bytes of a record, which is also its alignment.
const SIZE: u64 = 64;
/// Offset of the stolen time, a little-endian number of nanoseconds.
const NANOSECONDS: u64 = 8;

/// Where the record of `vcpu` is.
pub fn record(layout: &Layout, vcpu: VcpuId) -> Ipa {
    Ipa::new(layout.stolen_time.base.as_u64().saturating_add(u64::from(vcpu.0).saturating_mul(SIZE)))
}

/// Where the time itself is in it.
pub fn time(layout: &Layout, vcpu: VcpuId) -> Ipa {
    Ipa::new(record(layout, vcpu).as_u64().saturating_add(NANOSECONDS))
}

/// Ticks of a counter of `frequency` Hz in nanoseconds.
pub fn nanoseconds(ticks: u64, frequency: u64) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    let seconds = ticks.checked_div(frequency).unwrap_or(0);
    // Frequencies are below 2^32 Hz, so this doesn't saturate.
    let rest = ticks.checked_rem(frequency).unwrap_or(0).saturating_mul(SECOND);
    seconds.saturating_mul(SECOND).saturating_add(rest.checked_div(frequency).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affinity::MAX_VCPUS;
    use crate::layout::VIRT;

    #[test]
    fn records_of_all_vcpus_fit_into_the_page() {
        let last = record(&VIRT, VcpuId(MAX_VCPUS - 1));
        assert!(VIRT.stolen_time.contains(last));
        assert_eq!(last.as_u64() + SIZE, VIRT.stolen_time.end().as_u64());
        assert_eq!(time(&VIRT, VcpuId(1)).as_u64(), VIRT.stolen_time.base.as_u64() + 72);
    }

    #[test]
    fn time_in_nanoseconds() {
        assert_eq!(nanoseconds(62_500_000, 62_500_000), 1_000_000_000);
        assert_eq!(nanoseconds(1, 54_000_000), 18);
        assert_eq!(nanoseconds(1 << 60, 1_000_000_000), 1 << 60);
        assert_eq!(nanoseconds(u64::MAX, 1), u64::MAX);
    }
}
