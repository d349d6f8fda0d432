//! SErrors that come while a guest runs: whom they concern.
//!
//! An SError isn't taken at the instruction that has caused it. A CPU with FEAT_RAS says how far the error has got, and so whether
//! it is the running program's alone. One without says nothing.

use crate::esr::{Esr, Severity};

/// What follows from an SError.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is lost.
    GoOn,
    /// The VM that ran stops; the others are sound.
    StopVm,
    /// What is wrong may be anybody's, EL2's too: the board stops.
    StopBoard,
}

/// What follows from an SError with this syndrome, while a VM ran. `has_devices`: that VM has devices of the board, which may answer its
/// stores by errors, and so it can provoke SErrors as it likes.
pub const fn verdict(esr: Esr, has_devices: bool) -> Verdict {
    match esr.severity() {
        Severity::Corrected => Verdict::GoOn,
        Severity::Restartable | Severity::Recoverable | Severity::Unrecoverable => Verdict::StopVm,
        // Where the CPU doesn't say, the likeliest cause by far is such a store: no guest is to stop the board by one. RAM and emulated
        // devices answer no store by an error, so that of any other VM the hardware has failed, and where can't be told.
        Severity::Unknown if has_devices => Verdict::StopVm,
        Severity::Unknown | Severity::Uncontainable => Verdict::StopBoard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(iss: u64, has_devices: bool) -> Verdict {
        verdict(Esr(0x2f << 26 | 1 << 25 | iss), has_devices)
    }

    #[test]
    fn what_the_cpu_says_comes_first() {
        for has_devices in [false, true] {
            let all = [0, 1, 2, 3, 6].map(|aet| of(aet << 10 | 0x11, has_devices));
            use Verdict::*;
            assert_eq!(all, [StopBoard, StopVm, StopVm, StopVm, GoOn]);
        }
    }

    #[test]
    fn where_it_says_nothing_a_vm_with_devices_is_to_blame() {
        for iss in [0, 1 << 24, 1 << 24 | 2, 7 << 10 | 0x11] {
            assert_eq!((of(iss, true), of(iss, false)), (Verdict::StopVm, Verdict::StopBoard), "{iss:#x}");
        }
    }
}
