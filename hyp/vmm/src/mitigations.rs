//! What an exit has to do about the branch predictor before EL2's first branch, on the CPU that it is on: what a guest has taught
//! it must lead neither EL2's branches nor those of whoever runs next (CVE-2017-5715, CVE-2022-23960).
//!
//! Decided once for each CPU, by its ID registers, by which CPU it is, and by what its firmware says. Arm's notes on
//! "Spectre-BHB" have the CPUs and their numbers.

use crate::smccc::{Mitigations, Workaround};

/// A CPU, as its ID registers have it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// MIDR_EL1.
    pub midr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64ISAR2_EL1.
    pub isar2: u64,
}

impl Cpu {
    /// CSV2: 0: nothing is said of branch targets; from 1 on, those of one context don't lead another one; from 3 on, neither does its
    /// history of branches.
    const fn csv2(&self) -> u64 {
        self.pfr0 >> 56 & 0xf
    }

    /// FEAT_ECBHB: an exception to a higher level leaves the history of branches behind.
    const fn leaves_history(&self) -> bool {
        self.mmfr1 >> 60 & 0xf != 0
    }

    /// FEAT_CLRBHB: there is an instruction that clears it.
    const fn clears_history(&self) -> bool {
        self.isar2 >> 28 & 0xf != 0
    }

    /// Implementer and part number.
    const fn part(&self) -> u32 {
        ((self.midr >> 24 & 0xff) << 12 | self.midr >> 4 & 0xfff) as u32
    }

    /// It doesn't speculate by branch targets of others' making, nor past their histories: its pipeline is in order. Of these, the first
    /// four don't pass stores either.
    fn is_in_order(&self) -> bool {
        IN_ORDER.contains(&self.part())
    }

    /// It doesn't load ahead of older stores (CVE-2018-3639).
    fn keeps_order_of_stores(&self) -> bool {
        IN_ORDER.iter().take(4).any(|part| *part == self.part())
    }

    /// So many branches replace all of its history.
    fn branches(&self) -> Option<u8> {
        HISTORIES.iter().find(|(_, parts)| parts.contains(&self.part())).map(|(branches, _)| *branches)
    }
}

/// Arm Limited, as a part's implementer.
const ARM: u32 = 0x41_000;
/// Ampere Computing.
const AMPERE: u32 = 0xc0_000;

/// Cortex-A34, A35, A53, A55; A510, A520.
const IN_ORDER: [u32; 6] = [ARM | 0xd02, ARM | 0xd04, ARM | 0xd03, ARM | 0xd05, ARM | 0xd46, ARM | 0xd80];

/// How many branches replace the history, and of which CPUs.
const HISTORIES: [(u8, &[u32]); 6] = [
    // Cortex-A57, A72.
    (8, &[ARM | 0xd07, ARM | 0xd08]),
    // Ampere-1.
    (11, &[AMPERE | 0xac3]),
    // Cortex-A76, A76AE, A77; Neoverse N1.
    (24, &[ARM | 0xd0b, ARM | 0xd0e, ARM | 0xd0d, ARM | 0xd0c]),
    // Cortex-A78, A78AE, A78C, X1, X1C, A710, X2; Neoverse N2, V1.
    (
        32,
        &[
            ARM | 0xd41,
            ARM | 0xd42,
            ARM | 0xd4b,
            ARM | 0xd44,
            ARM | 0xd4c,
            ARM | 0xd47,
            ARM | 0xd48,
            ARM | 0xd49,
            ARM | 0xd40,
        ],
    ),
    // Cortex-A715, A720.
    (38, &[ARM | 0xd4d, ARM | 0xd81]),
    // Cortex-X3; Neoverse V2.
    (132, &[ARM | 0xd4e, ARM | 0xd4f]),
];

/// What is done on each way in from a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing.
    Plain,
    /// So many branches are taken, which replace the history.
    Branches(u8),
    /// CLRBHB is executed.
    ClearHistory,
    /// Firmware's `SMCCC_ARCH_WORKAROUND_1` is called.
    Workaround1,
    /// Firmware's `SMCCC_ARCH_WORKAROUND_3` is called.
    Workaround3,
}

/// What is to be done on a CPU, and what its guests are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// On each way in from a guest.
    pub entry: Entry,
    /// The CPU may be affected, and there is nothing that EL2 can do.
    pub is_open: bool,
    /// What guests are told.
    pub told: Mitigations,
}

/// What firmware says of its workarounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Firmware {
    /// `SMCCC_ARCH_WORKAROUND_1`.
    pub workaround_1: Workaround,
    /// `SMCCC_ARCH_WORKAROUND_2`; not needed where EL2 has turned it on for good.
    pub workaround_2: Workaround,
    /// `SMCCC_ARCH_WORKAROUND_3`.
    pub workaround_3: Workaround,
}

/// What is to be done on this CPU.
pub fn choose(cpu: &Cpu, firmware: &Firmware) -> Choice {
    use Workaround::{Needed, NotNeeded, NotSupported};
    let store_bypass_is_safe = firmware.workaround_2 == NotNeeded || cpu.keeps_order_of_stores();
    let choice = |entry, is_open, workaround_1, workaround_3| Choice {
        entry,
        is_open,
        told: Mitigations { workaround_1, store_bypass_is_safe, workaround_3 },
    };
    // Firmware's "not needed" is about what firmware alone can do: branch targets.
    let targets_are_kept_apart = cpu.csv2() >= 1
        || cpu.is_in_order()
        || [firmware.workaround_1, firmware.workaround_3].contains(&NotNeeded);
    if !targets_are_kept_apart {
        // Where nothing has been taught to the predictor any more, the history leads nowhere. Without that, to replace the history
        // alone would close nothing.
        return match (firmware.workaround_3, firmware.workaround_1) {
            (Needed, one) => choice(Entry::Workaround3, false, one, Needed),
            (three, Needed) => choice(Entry::Workaround1, false, Needed, three),
            _ => choice(Entry::Plain, true, NotSupported, NotSupported),
        };
    }
    let (entry, is_open, history) = match (cpu.branches(), firmware.workaround_3) {
        _ if cpu.csv2() >= 3 || cpu.leaves_history() || cpu.is_in_order() => (Entry::Plain, false, NotNeeded),
        _ if cpu.clears_history() => (Entry::ClearHistory, false, Needed),
        (Some(branches), _) => (Entry::Branches(branches), false, Needed),
        (None, Needed) => (Entry::Workaround3, false, Needed),
        (None, NotNeeded) => (Entry::Plain, false, NotNeeded),
        (None, NotSupported) => (Entry::Plain, true, NotSupported),
    };
    choice(entry, is_open, NotNeeded, history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Workaround::{Needed, NotNeeded, NotSupported};

    const SILENT: Firmware =
        Firmware { workaround_1: NotSupported, workaround_2: NotSupported, workaround_3: NotSupported };

    fn cpu(midr: u64, csv2: u64) -> Cpu {
        Cpu { midr, pfr0: csv2 << 56 | 0x2222, ..Cpu::default() }
    }

    fn says(workaround_1: Workaround, workaround_3: Workaround) -> Firmware {
        Firmware { workaround_1, workaround_3, ..SILENT }
    }

    /// Of the Raspberry Pi 4.
    const A72_R0P3: u64 = 0x410f_d083;
    const A72_R1P0: u64 = 0x411f_d080;
    const A53: u64 = 0x410f_d034;
    /// Nobody's.
    const UNKNOWN: u64 = 0x000f_0510;

    #[test]
    fn firmware_makes_an_old_cpu_forget_or_nobody_does() {
        let of = |firmware| choose(&cpu(A72_R0P3, 0), &firmware);
        for (one, three, entry, is_open) in [
            (NotSupported, NotSupported, Entry::Plain, true),
            (Needed, NotSupported, Entry::Workaround1, false),
            (NotSupported, Needed, Entry::Workaround3, false),
            (Needed, Needed, Entry::Workaround3, false),
        ] {
            let choice = of(says(one, three));
            assert_eq!((choice.entry, choice.is_open), (entry, is_open), "{one:?} {three:?}");
            assert_eq!((choice.told.workaround_1, choice.told.workaround_3), (one, three));
        }
    }

    #[test]
    fn branches_replace_the_history_where_targets_are_kept_apart() {
        for (name, midr, branches) in [
            ("Cortex-A72 r1p0", A72_R1P0, 8),
            ("Ampere-1", 0xc00f_ac30, 11),
            ("Cortex-A76 r4p1", 0x414f_d0b1, 24),
            ("Neoverse N1 r4p1", 0x414f_d0c1, 24),
            ("Cortex-A77", 0x411f_d0d0, 24),
            ("Cortex-A78", 0x411f_d410, 32),
            ("Cortex-X1", 0x411f_d440, 32),
            ("Neoverse V1", 0x411f_d402, 32),
            ("Neoverse N2", 0x410f_d493, 32),
            ("Cortex-A710", 0x412f_d470, 32),
            ("Cortex-A715", 0x411f_d4d0, 38),
            ("Neoverse V2", 0x410f_d4f0, 132),
        ] {
            for csv2 in [1, 2] {
                let choice = choose(&cpu(midr, csv2), &SILENT);
                assert_eq!(choice.entry, Entry::Branches(branches), "{name}");
                assert!(!choice.is_open);
                assert_eq!((choice.told.workaround_1, choice.told.workaround_3), (NotNeeded, Needed));
            }
            // Firmware can't do it cheaper, and its "not needed" is not about history.
            for three in [Needed, NotNeeded] {
                let choice = choose(&cpu(midr, 1), &says(NotNeeded, three));
                assert_eq!(choice.entry, Entry::Branches(branches), "{name}");
            }
            let other = choose(&cpu(midr | 0x42 << 24, 1), &SILENT);
            assert!(other.is_open, "of another implementer: {name}");
        }
    }

    #[test]
    fn the_cpu_itself_is_believed_first() {
        let v1 = cpu(0x411f_d402, 1);
        let plain = (Entry::Plain, false, NotNeeded);
        let clear = (Entry::ClearHistory, false, Needed);
        for (cpu, expected) in [
            (Cpu { mmfr1: 1 << 60, ..v1 }, plain),
            (Cpu { isar2: 1 << 28, ..v1 }, clear),
            (Cpu { mmfr1: 1 << 60, isar2: 1 << 28, ..v1 }, plain),
            (Cpu { pfr0: 3 << 56, ..v1 }, plain),
            (Cpu { mmfr1: 1 << 60, ..self::cpu(UNKNOWN, 1) }, plain),
            (Cpu { isar2: 1 << 28, ..self::cpu(UNKNOWN, 2) }, clear),
        ] {
            let choice = choose(&cpu, &SILENT);
            assert_eq!((choice.entry, choice.is_open, choice.told.workaround_3), expected, "{cpu:x?}");
        }
        // That history is left behind doesn't help where targets are shared.
        assert!(choose(&Cpu { mmfr1: 1 << 60, ..self::cpu(UNKNOWN, 0) }, &SILENT).is_open);
    }

    #[test]
    fn cpus_in_order_need_nothing() {
        let choice = choose(&cpu(A53, 0), &SILENT);
        let told =
            Mitigations { workaround_1: NotNeeded, store_bypass_is_safe: true, workaround_3: NotNeeded };
        assert_eq!(choice, Choice { entry: Entry::Plain, is_open: false, told });
        let a510 = choose(&cpu(0x411f_d461, 1), &SILENT);
        assert_eq!((a510.entry, a510.is_open, a510.told.store_bypass_is_safe), (Entry::Plain, false, false));
    }

    #[test]
    fn of_an_unknown_cpu_firmware_may_know() {
        for (csv2, one, three, entry, is_open) in [
            (0, NotSupported, NotSupported, Entry::Plain, true),
            (0, NotNeeded, NotSupported, Entry::Plain, true),
            (0, NotNeeded, NotNeeded, Entry::Plain, false),
            (1, NotSupported, NotSupported, Entry::Plain, true),
            (1, NotNeeded, Needed, Entry::Workaround3, false),
            (1, NotSupported, NotNeeded, Entry::Plain, false),
        ] {
            let choice = choose(&cpu(UNKNOWN, csv2), &says(one, three));
            assert_eq!((choice.entry, choice.is_open), (entry, is_open), "{csv2} {one:?} {three:?}");
        }
    }

    #[test]
    fn store_bypass_is_safe_where_firmware_has_turned_it_off() {
        for (workaround_2, safe) in [(NotSupported, false), (NotNeeded, true)] {
            let choice = choose(&cpu(A72_R0P3, 0), &Firmware { workaround_2, ..SILENT });
            assert_eq!(choice.told.store_bypass_is_safe, safe);
        }
    }
}
