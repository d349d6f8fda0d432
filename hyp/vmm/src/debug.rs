//! A vCPU's debug registers while they aren't in a CPU: before the guest first uses them, while another vCPU has the CPU,
//! and while the guest keeps its OS lock closed (Arm ARM D2, "AArch64 self-hosted debug"; H6, "the OS lock").
//!
//! The CPU's own OS lock stays open for ever: closed, it would give a guest OSECCR_EL1, by which a debugger that is connected
//! to the board could be made to stop EL2. What the guest's lock does to it is done here: no breakpoint, watchpoint or step.

/// Breakpoints, and watchpoints, that a CPU has at most.
pub const MOST: usize = 16;

/// The registers of self-hosted debug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// `DBGBVR<n>_EL1`.
    BreakpointValue(u8),
    /// `DBGBCR<n>_EL1`.
    BreakpointControl(u8),
    /// `DBGWVR<n>_EL1`.
    WatchpointValue(u8),
    /// `DBGWCR<n>_EL1`.
    WatchpointControl(u8),
    /// MDSCR_EL1.
    Monitor,
    /// DBGCLAIMSET_EL1.
    ClaimSet,
    /// DBGCLAIMCLR_EL1.
    ClaimClear,
    /// DBGAUTHSTATUS_EL1.
    Authentication,
    /// Of the debug communications channel, or OSECCR_EL1.
    Channel,
    /// OSLAR_EL1.
    Lock,
    /// OSLSR_EL1.
    LockStatus,
}

/// A value and its control: `DBGBVR<n>_EL1` and `DBGBCR<n>_EL1`, `DBGWVR<n>_EL1` and `DBGWCR<n>_EL1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What is looked for.
    pub value: u64,
    /// When.
    pub control: u64,
}

/// What a vCPU has of debug registers, as after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debug {
    /// Breakpoints.
    pub breakpoints: [Pair; MOST],
    /// Watchpoints.
    pub watchpoints: [Pair; MOST],
    /// Claim tags.
    pub claim: u64,
    /// How many breakpoints and watchpoints there are.
    counts: (usize, usize),
    /// What MDSCR_EL1 is for the guest while its lock is closed.
    monitor: u64,
    /// OSLSR_EL1.OSLK.
    locked: bool,
}

/// What an access comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The registers belong into the CPU, where the guest reaches them: it tries again.
    GoLive,
    /// A read gives this.
    Value(u64),
    /// A write is done.
    Done,
    /// The CPU's own value.
    Own,
    /// The lock is closed now: the registers come out of the CPU, and MDSCR_EL1 becomes [`without_events`] of what it is, which is
    /// noted by [`Debug::close`].
    Close,
    /// It is open now, and this is what MDSCR_EL1 becomes.
    Open(u64),
    /// There is no such register.
    Undefined,
}

/// MDSCR_EL1.MDE: breakpoints, watchpoints.
const MDE: u64 = 1 << 15;
/// MDSCR_EL1.KDE: at EL1 too.
const KDE: u64 = 1 << 13;
/// MDSCR_EL1.SS: software step.
const SS: u64 = 1;
/// OSLSR_EL1.OSLM = 0b10: there is a lock.
const OSLM: u64 = 1 << 3;
/// OSLSR_EL1.OSLK.
const OSLK: u64 = 1 << 1;
/// Claim tags that there are: all eight.
const TAGS: u64 = 0xff;

/// MDSCR_EL1 with which there are no debug exceptions but those of BRK.
pub const fn without_events(mdscr: u64) -> u64 {
    mdscr & !(MDE | KDE | SS)
}

/// Whether breakpoints and watchpoints are to be in the CPU with this MDSCR_EL1.
pub const fn needs_breakpoints(mdscr: u64) -> bool {
    mdscr & MDE != 0
}

impl Debug {
    /// As after a reset, of a CPU with so many breakpoints and watchpoints: nothing set, and the lock closed.
    pub const fn new(breakpoints: usize, watchpoints: usize) -> Self {
        const NONE: Pair = Pair { value: 0, control: 0 };
        Self {
            breakpoints: [NONE; MOST],
            watchpoints: [NONE; MOST],
            claim: 0,
            counts: (breakpoints, watchpoints),
            monitor: 0,
            locked: true,
        }
    }

    /// The lock is closed while MDSCR_EL1 was this.
    pub const fn close(&mut self, mdscr: u64) {
        self.monitor = mdscr;
    }

    /// An access that traps, a write of `value` or a read, while the registers aren't in the CPU, or of one that traps always.
    pub fn access(&mut self, register: Register, value: Option<u64>) -> Answer {
        match (register, value) {
            (Register::Lock, Some(value)) => self.lock(value & 1 != 0),
            (Register::LockStatus, None) => Answer::Value(OSLM | if self.locked { OSLK } else { 0 }),
            (Register::Lock | Register::LockStatus, _) => Answer::Undefined,
            (Register::Channel, Some(_)) => Answer::Done,
            (Register::Channel, None) => Answer::Value(0),
            (Register::Authentication, None) => Answer::Own,
            (Register::Authentication, Some(_)) => Answer::Undefined,
            _ if !self.locked => Answer::GoLive,
            _ => self.access_locked(register, value),
        }
    }

    fn lock(&mut self, locked: bool) -> Answer {
        if self.locked == locked {
            return Answer::Done;
        }
        self.locked = locked;
        if locked { Answer::Close } else { Answer::Open(self.monitor) }
    }

    fn access_locked(&mut self, register: Register, value: Option<u64>) -> Answer {
        let place = match register {
            Register::Monitor => Some(&mut self.monitor),
            // Reads give the tags that there are.
            Register::ClaimSet => {
                self.claim |= value.unwrap_or(0) & TAGS;
                return value.map_or(Answer::Value(TAGS), |_| Answer::Done);
            }
            Register::ClaimClear => {
                self.claim &= !value.unwrap_or(0);
                return value.map_or(Answer::Value(self.claim), |_| Answer::Done);
            }
            _ => self.half_of_a_pair(register),
        };
        match (place, value) {
            (None, _) => Answer::Undefined,
            (Some(place), None) => Answer::Value(*place),
            (Some(place), Some(value)) => {
                *place = value;
                Answer::Done
            }
        }
    }

    fn half_of_a_pair(&mut self, register: Register) -> Option<&mut u64> {
        let (breakpoints, watchpoints) = self.counts;
        let (pairs, count, n) = match register {
            Register::BreakpointValue(n) | Register::BreakpointControl(n) => {
                (&mut self.breakpoints, breakpoints, n)
            }
            Register::WatchpointValue(n) | Register::WatchpointControl(n) => {
                (&mut self.watchpoints, watchpoints, n)
            }
            _ => return None,
        };
        let pair = pairs.get_mut(..count)?.get_mut(usize::from(n))?;
        Some(match register {
            Register::BreakpointValue(_) | Register::WatchpointValue(_) => &mut pair.value,
            _ => &mut pair.control,
        })
    }
}

/// DBGDIDR, which only 32-bit programs read (Arm ARM G8.3.8), by a CPU's ID_AA64PFR0_EL1 and ID_AA64DFR0_EL1. `None`: it has none, for its EL1 is
/// never AArch32.
pub fn identity(pfr0: u64, dfr0: u64) -> Option<u32> {
    const RES1: u32 = 1 << 15;
    const AARCH32_AT_EL1: u64 = 2;
    if pfr0 >> 4 & 0xf != AARCH32_AT_EL1 {
        return None;
    }
    let field = |shift: u32| (dfr0 >> shift) as u32 & 0xf;
    let has_el3 = u32::from(pfr0 >> 12 & 0xf != 0);
    let (version, breakpoints, watchpoints, contexts) = (field(0), field(12), field(20), field(28));
    let counts = watchpoints << 28 | breakpoints << 24 | contexts << 20;
    Some(counts | version << 16 | RES1 | has_el3 << 14 | has_el3 << 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a Cortex-A72, the same without EL3, and of a CPU of which EL1 is AArch64 alone.
    #[test]
    fn dbgdidr_says_what_the_id_registers_do() {
        assert_eq!(identity(0x2222, 0x1030_5106), Some(0x3516_d000));
        assert_eq!(identity(0x0222, 0x1030_5106), Some(0x3516_8000));
        assert_eq!(identity(0x2212, 0x1030_5106), None);
    }

    /// A Cortex-A72.
    fn reset() -> Debug {
        Debug::new(6, 4)
    }

    fn opened() -> Debug {
        let mut debug = reset();
        assert_eq!(debug.access(Register::Lock, Some(0)), Answer::Open(0));
        debug
    }

    #[test]
    fn a_reset_closes_the_lock() {
        let mut debug = reset();
        assert_eq!(debug.access(Register::LockStatus, None), Answer::Value(0b1010));
        assert_eq!(opened().access(Register::LockStatus, None), Answer::Value(0b1000));
        // Closed again, and closed once more.
        assert_eq!(debug.access(Register::Lock, Some(1)), Answer::Done);
        assert_eq!(opened().access(Register::Lock, Some(0xffff_fffe)), Answer::Done, "bit 0 is the lock");
        assert_eq!(opened().access(Register::Lock, Some(u64::MAX)), Answer::Close);
    }

    #[test]
    fn the_lock_is_written_and_its_status_is_read() {
        for mut debug in [reset(), opened()] {
            let locked = debug.access(Register::LockStatus, None);
            assert_eq!(debug.access(Register::Lock, None), Answer::Undefined);
            for value in [0, 1, u64::MAX] {
                assert_eq!(debug.access(Register::LockStatus, Some(value)), Answer::Undefined);
            }
            assert_eq!(debug.access(Register::LockStatus, None), locked);
        }
    }

    #[test]
    fn behind_an_open_lock_registers_are_the_cpus() {
        let registers = [
            Register::Monitor,
            Register::BreakpointValue(5),
            Register::WatchpointControl(3),
            Register::ClaimSet,
            Register::ClaimClear,
        ];
        for register in registers {
            assert_eq!(opened().access(register, None), Answer::GoLive);
            assert_eq!(opened().access(register, Some(1)), Answer::GoLive);
        }
    }

    #[test]
    fn behind_a_closed_one_they_hold_what_is_written() {
        for register in [
            Register::Monitor,
            Register::BreakpointValue(0),
            Register::BreakpointControl(5),
            Register::WatchpointValue(3),
            Register::WatchpointControl(0),
        ] {
            let mut debug = reset();
            assert_eq!(debug.access(register, None), Answer::Value(0));
            assert_eq!(debug.access(register, Some(0x1234)), Answer::Done);
            assert_eq!(debug.access(register, None), Answer::Value(0x1234));
            // And no other one does.
            let mut changed = 0;
            changed += u32::from(debug.monitor != 0);
            let pairs = debug.breakpoints.iter().chain(&debug.watchpoints);
            changed +=
                pairs.map(|pair| u32::from(pair.value != 0) + u32::from(pair.control != 0)).sum::<u32>();
            assert_eq!(changed, 1, "{register:?}");
        }
    }

    #[test]
    fn registers_that_the_cpu_lacks_are_undefined() {
        for register in
            [Register::BreakpointValue(6), Register::WatchpointControl(4), Register::WatchpointValue(200)]
        {
            assert_eq!(reset().access(register, None), Answer::Undefined);
            assert_eq!(reset().access(register, Some(1)), Answer::Undefined);
        }
        assert_eq!(Debug::new(usize::MAX, 4).access(Register::BreakpointValue(0), None), Answer::Undefined);
    }

    #[test]
    fn claim_tags_are_set_and_cleared_by_bits() {
        let mut debug = reset();
        assert_eq!(debug.access(Register::ClaimSet, Some(0x1f0)), Answer::Done);
        assert_eq!(debug.access(Register::ClaimClear, None), Answer::Value(0xf0));
        assert_eq!(debug.access(Register::ClaimClear, Some(0x30)), Answer::Done);
        assert_eq!(debug.access(Register::ClaimClear, None), Answer::Value(0xc0));
        assert_eq!(debug.access(Register::ClaimSet, None), Answer::Value(0xff));
    }

    #[test]
    fn what_was_written_while_it_was_closed_holds_when_it_opens() {
        let mut debug = opened();
        assert_eq!(debug.access(Register::Lock, Some(1)), Answer::Close);
        debug.close(0x1000);
        assert_eq!(debug.access(Register::Monitor, None), Answer::Value(0x1000));
        assert_eq!(debug.access(Register::Monitor, Some(MDE | KDE)), Answer::Done);
        assert_eq!(debug.access(Register::Lock, Some(0)), Answer::Open(MDE | KDE));
    }

    #[test]
    fn a_closed_lock_leaves_no_debug_exceptions() {
        assert_eq!(without_events(u64::MAX) & 0xa001, 0);
        assert_eq!(without_events(0x1000), 0x1000);
        assert!(needs_breakpoints(MDE) && !needs_breakpoints(KDE | SS));
    }

    #[test]
    fn the_channel_leads_nowhere() {
        assert_eq!(reset().access(Register::Channel, None), Answer::Value(0));
        assert_eq!(opened().access(Register::Channel, Some(7)), Answer::Done);
        assert_eq!(opened().access(Register::Authentication, None), Answer::Own);
        assert_eq!(opened().access(Register::Authentication, Some(0)), Answer::Undefined);
    }
}
