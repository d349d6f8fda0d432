//! A vCPU's performance monitors (PMUv3, Arm ARM D13): which registers there are, and what of a guest's values goes to the
//! hardware.
//!
//! The counters are the CPU's. From PMUv3p5 on it can leave EL2 out of what it counts whatever the guest writes (MDCR_EL2.HPMD,
//! HCCD), and the guest has the registers without exits. Older ones count at EL2 what a guest's filter asks them to: there every
//! access traps, and filters are cut to what a guest may have.

/// Event counters that a CPU has at most.
pub const MOST_COUNTERS: usize = 31;
/// The bit of the cycle counter in masks of counters.
pub const CYCLES: u64 = 1 << 31;

/// The registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// PMCR_EL0.
    Control,
    /// PMCNTENSET_EL0.
    CountersOn,
    /// PMCNTENCLR_EL0.
    CountersOff,
    /// PMOVSSET_EL0.
    OverflowsOn,
    /// PMOVSCLR_EL0.
    OverflowsOff,
    /// PMSWINC_EL0.
    Increment,
    /// PMSELR_EL0.
    Selection,
    /// PMCEID0_EL0.
    Events0,
    /// PMCEID1_EL0.
    Events1,
    /// PMCCNTR_EL0.
    Cycles,
    /// PMXEVTYPER_EL0.
    SelectedType,
    /// PMXEVCNTR_EL0.
    SelectedCounter,
    /// PMUSERENR_EL0.
    ForUsers,
    /// PMINTENSET_EL1.
    InterruptsOn,
    /// PMINTENCLR_EL1.
    InterruptsOff,
    /// PMMIR_EL1.
    Machine,
    /// `PMEVCNTR<n>_EL0`.
    Counter(u8),
    /// `PMEVTYPER<n>_EL0`.
    EventType(u8),
    /// PMCCFILTR_EL0.
    CycleFilter,
}

/// The highest version that guests are shown (ID_AA64DFR0_EL1.PMUVer): PMUv3p5. Later ones have more registers.
pub const MOST_VERSION: u8 = 6;

/// Whether the CPU can leave EL2 out of what a guest counts, whatever that writes: PMUv3p5 and later have HCCD beside HPMD. `version` is
/// its own ID_AA64DFR0_EL1.PMUVer.
pub const fn excludes_el2(version: u8) -> bool {
    version >= 6 && version != 0xf
}

/// Whether there is a PMUv3 at all, by the same field.
pub const fn exists(version: u8) -> bool {
    version != 0 && version != 0xf
}

/// `PMEVTYPER<n>_EL0` and PMCCFILTR_EL0: P and U, EL1 and EL0 aren't counted. The other filters are for EL2, EL3 and the Secure state, of
/// which guests have none, and for other threads of the core.
const FILTERS: u64 = 0b11 << 30;
/// `PMEVTYPER<n>_EL0`.evtCount.
const EVENT: u64 = 0xffff;

/// What of an event's type goes to the hardware.
pub const fn event_type(value: u64) -> u64 {
    value & (FILTERS | EVENT)
}

/// What of the cycle counter's filter does.
pub const fn cycle_filter(value: u64) -> u64 {
    value & FILTERS
}

/// PMCR_EL0's bits that a guest may set: E, P, C, D, DP, LC, LP. Not X, which exports events to a trace unit.
pub const fn control(value: u64) -> u64 {
    value & (0b1111 | 0b111 << 5)
}

/// Whether a counter of this type counts a write to PMSWINC_EL0 from EL0, or from EL1: event 0, SW_INCR, that isn't filtered.
pub const fn is_software_increment(event_type: u64, from_el0: bool) -> bool {
    let filter = if from_el0 { 1 << 30 } else { 1 << 31 };
    event_type & (EVENT | filter) == 0
}

/// Whether the overflow interrupt is raised with these PMCR_EL0, PMOVSSET_EL0 and PMINTENSET_EL1.
pub const fn raises(control: u64, overflows: u64, interrupts: u64) -> bool {
    control & 1 != 0 && overflows & interrupts != 0
}

/// How many event counters a PMCR_EL0 tells (N).
pub const fn counters(control: u64) -> u8 {
    (control >> 11 & 0x1f) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_filter_reaches_el2() {
        // NSH, and M, MT, SH.
        assert_eq!(event_type(u64::MAX) & (1 << 27 | 0b111 << 24), 0);
        assert_eq!(event_type(0xc000_0011), 0xc000_0011);
        assert_eq!(cycle_filter(u64::MAX), 0xc000_0000);
    }

    #[test]
    fn versions() {
        // None, IMPLEMENTATION DEFINED; PMUv3, p1, p4; p5, p7, p8, p9.
        let expected =
            [(0, false, false), (0xf, false, false), (1, true, false), (4, true, false), (5, true, false)];
        let later = [(6, true, true), (7, true, true), (8, true, true), (9, true, true)];
        for (version, there, excludes) in expected.into_iter().chain(later) {
            assert_eq!((exists(version), excludes_el2(version)), (there, excludes), "{version}");
        }
    }

    #[test]
    fn software_increments_are_filtered_by_where_they_come_from() {
        const NOT_EL1: u64 = 1 << 31;
        assert!(is_software_increment(0, true) && is_software_increment(0, false));
        assert!(is_software_increment(NOT_EL1, true) && !is_software_increment(NOT_EL1, false));
        assert!(!is_software_increment(NOT_EL1 >> 1, true) && is_software_increment(NOT_EL1 >> 1, false));
        assert!(!is_software_increment(0x11, false), "cycles");
    }

    #[test]
    fn an_overflow_counts_where_it_is_enabled() {
        assert!(raises(1, CYCLES, CYCLES | 1));
        assert!(!raises(0, CYCLES, CYCLES), "the counters are off");
        assert!(!raises(1, 0b10, 0b01), "that counter's interrupt is off");
    }

    #[test]
    fn control_keeps_what_is_the_boards() {
        assert_eq!(control(u64::MAX), 0xef);
        assert_eq!(counters(0x4102_3000), 6, "Cortex-A72");
    }
}
