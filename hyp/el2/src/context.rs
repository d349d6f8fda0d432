//! What of a vCPU is in the CPU while it runs, and in memory while another vCPU does: general-purpose, EL1, FP and
//! debug registers, timers, and the virtual CPU interface. Interrupts are the vGIC's to keep.
//!
//! Every register that a guest can write without a trap is here, in one list; what is missed would pass from one VM
//! to another. The same list is what a vCPU starts with: all of it zero, where the architecture says nothing or
//! "UNKNOWN", but for [`SCTLR_EL1_RESET`].

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use abi::record::CrashRecord;
use tock_registers::interfaces::{Readable, Writeable};
use vmm::psci::Start;

use crate::breakpoints::Breakpoints;
use crate::cpu;
use crate::exit::Frame;
use crate::gic::VirtualInterface;
use crate::simd::Simd;
use crate::sysreg::{read_sysreg, write_sysreg};

/// SCTLR_EL1 at reset: its RES1 bits; MMU, caches and checks off.
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;
/// EL1h, all interrupts masked.
const SPSR_START: u64 = 0x3c5;
/// SCTLR_EL1.M: stage 1 is on.
const SCTLR_M: u64 = 1;
/// TCR_EL1.EPD0 and EPD1: no table walks at all.
const TCR_NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// A list of registers that are saved and loaded one by one.
macro_rules! registers {
    ($(#[$doc:meta])* $type:ident: $($name:literal)*) => {
        $(#[$doc])*
        #[derive(Default)]
        #[repr(transparent)]
        struct $type([u64; [$($name),*].len()]);

        impl $type {
            fn save(&mut self) {
                self.0 = [$(read_sysreg!($name)),*];
            }

            fn load(&self) {
                // All are read before the first one is written, so that the compiler may pair them.
                let values = self.0;
                let mut values = values.iter().copied();
                $(write_sysreg!($name, values.next().unwrap_or(0));)*
            }

            /// What was saved of a register, for reports; 0 where it isn't in the list.
            #[allow(dead_code, reason = "not of every list")]
            fn value(&self, name: &str) -> u64 {
                let mut names = [$($name),*].into_iter().zip(self.0);
                names.find(|(other, _)| *other == name).map_or(0, |(_, value)| value)
            }
        }
    };
}

registers! {
    /// EL1's and EL0's registers, but for SCTLR_EL1 and TCR_EL1, whose order matters. By number: FPCR, FPSR.
    El1:
    "TTBR0_EL1" "TTBR1_EL1" "MAIR_EL1" "AMAIR_EL1" "VBAR_EL1" "ELR_EL1" "SPSR_EL1" "ESR_EL1" "FAR_EL1"
    "AFSR0_EL1" "AFSR1_EL1" "PAR_EL1" "SP_EL0" "SP_EL1" "TPIDR_EL0" "TPIDRRO_EL0" "TPIDR_EL1"
    "CONTEXTIDR_EL1" "CPACR_EL1" "CNTKCTL_EL1" "CSSELR_EL1" "MDSCR_EL1" "S3_3_C4_C4_0" "S3_3_C4_C4_1"
}

registers! {
    /// FEAT_PAuth's keys, by number: the assembler knows the names only with the extension. APIAKey, APIBKey, APDAKey,
    /// APDBKey, APGAKey, each Lo and Hi.
    Keys:
    "S3_0_C2_C1_0" "S3_0_C2_C1_1" "S3_0_C2_C1_2" "S3_0_C2_C1_3" "S3_0_C2_C2_0" "S3_0_C2_C2_1" "S3_0_C2_C2_2"
    "S3_0_C2_C2_3" "S3_0_C2_C3_0" "S3_0_C2_C3_1"
}

registers! {
    /// FEAT_RAS: VDISR_EL2, which a guest's DISR_EL1 is while HCR_EL2.AMO is set.
    Deferred:
    "S3_4_C12_C1_1"
}

/// The virtual and the physical timer of EL1: CNTV and CNTP.
#[derive(Clone, Copy, Default)]
struct Timer {
    control: u64,
    deadline: u64,
}

impl Timer {
    /// The counter value at which it raises its interrupt, if it is on and not masked.
    fn fires_at(&self) -> Option<u64> {
        (self.control & 0b11 == 0b01).then_some(self.deadline)
    }
}

/// Turns this CPU's timers of EL1 off: what they would interrupt is not here any more. From the next barrier on.
pub fn stop_timers() {
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
}

/// Copies a guest's general-purpose registers, in pairs: as a whole, it would be done by a loop that copies words.
fn copy_frame(from: &Frame, to: &mut Frame) {
    macro_rules! copy {
        ($($n:literal)*) => {{
            $(to.set($n, from.get($n));)*
        }};
    }
    copy!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30);
}

/// A vCPU's registers while another vCPU has the CPU. In this order, the general-purpose registers, EL1's and the keys are near enough
/// to one base to be loaded and stored in pairs.
#[derive(Default)]
#[repr(C)]
pub struct Context {
    frame: Frame,
    el1: El1,
    keys: Keys,
    pc: u64,
    pstate: u64,
    sctlr: u64,
    tcr: u64,
    virtual_timer: Timer,
    physical_timer: Timer,
    deferred: Deferred,
    /// The virtual CPU interface.
    pub interface: VirtualInterface,
    simd: Simd,
    breakpoints: Option<Breakpoints>,
}

/// The two registers that decide whether EL1's tables are walked.
#[must_use = "walks stay off"]
pub struct StageOne {
    sctlr: u64,
    tcr: u64,
}

/// Keeps this CPU from walking EL1's tables from here on: an `AT` that runs ahead of its time, though it comes to nothing,
/// may leave in the TLB what it has found by registers that don't belong together (Cortex-A72 erratum 1319367, A53 1530924,
/// and others, see docs/errata.md). Stage 1 is on, so that without walks there is no translation at all, for stage 2 neither.
pub fn forbid_walks() -> StageOne {
    let before = StageOne { sctlr: SCTLR_EL1.get(), tcr: TCR_EL1.get() };
    TCR_EL1.set(before.tcr | TCR_NO_WALKS);
    barrier::isb(barrier::SY);
    SCTLR_EL1.set(before.sctlr | SCTLR_M);
    barrier::isb(barrier::SY);
    before
}

impl StageOne {
    /// Lets walks happen again, by registers which all belong together by now: from the next barrier on, which going to the guest
    /// is.
    pub fn restore(self) {
        SCTLR_EL1.set(self.sctlr);
        barrier::isb(barrier::SY);
        TCR_EL1.set(self.tcr);
    }
}

/// Which world a vCPU's registers are loaded into.
pub struct World {
    /// HCR_EL2.
    pub hcr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// VMPIDR_EL2.
    pub vmpidr: u64,
    /// What the VM's counters are behind the board's, in ticks.
    pub clock_offset: u64,
}

impl Context {
    /// The state in which PSCI has a vCPU start: at EL1, everything off.
    pub fn reset(&mut self, start: Start) {
        *self =
            Self { pc: start.entry.as_u64(), pstate: SPSR_START, sctlr: SCTLR_EL1_RESET, ..Self::default() };
        self.frame.set(0, start.context);
    }

    /// Takes a vCPU's registers out of this CPU, and turns its timers off ([`stop_timers`]).
    pub fn save(&mut self, frame: &Frame, keys: bool) {
        copy_frame(frame, &mut self.frame);
        self.pc = ELR_EL2.get();
        self.pstate = SPSR_EL2.get();
        self.virtual_timer = Timer { control: CNTV_CTL_EL0.get(), deadline: CNTV_CVAL_EL0.get() };
        self.physical_timer = Timer { control: CNTP_CTL_EL0.get(), deadline: cpu::physical_deadline() };
        stop_timers();
        self.sctlr = SCTLR_EL1.get();
        self.tcr = TCR_EL1.get();
        self.el1.save();
        if keys {
            self.keys.save();
        }
        if cpu::has_ras() {
            self.deferred.save();
        }
        self.simd.save();
        if let Some(breakpoints) = &mut self.breakpoints {
            breakpoints.save();
        }
    }

    /// Puts a vCPU's registers into this CPU, but for the timers' control, for their lines must be the guest's first.
    pub fn load(&self, world: &World, frame: &mut Frame, keys: bool) {
        // The saved registers take the place of those that were here.
        let _ = forbid_walks();
        VTCR_EL2.set(world.vtcr);
        VTTBR_EL2.set(world.vttbr);
        VMPIDR_EL2.set(world.vmpidr);
        HCR_EL2.set(world.hcr);
        cpu::set_clock_offset(world.clock_offset);
        CNTV_CVAL_EL0.set(self.virtual_timer.deadline);
        cpu::set_physical_deadline(self.physical_timer.deadline);
        self.el1.load();
        // Walks use all of these once they happen again, and the timers, once they are on, theirs.
        barrier::isb(barrier::SY);
        StageOne { sctlr: self.sctlr, tcr: self.tcr }.restore();
        if keys {
            self.keys.load();
        }
        if cpu::has_ras() {
            self.deferred.load();
        }
        self.simd.load();
        cpu::trap_breakpoints(self.breakpoints.is_none());
        if let Some(breakpoints) = &self.breakpoints {
            breakpoints.load();
        }
        copy_frame(&self.frame, frame);
        ELR_EL2.set(self.pc);
        SPSR_EL2.set(self.pstate);
    }

    /// Turns the vCPU's timers on again, as far as they were.
    pub fn load_timers(&self) {
        CNTV_CTL_EL0.set(self.virtual_timer.control);
        CNTP_CTL_EL0.set(self.physical_timer.control);
    }

    /// Puts what was saved into a report.
    pub fn describe(&self, report: &mut CrashRecord) {
        let el1 = |name| self.el1.value(name);
        report.pc = self.pc;
        report.pstate = self.pstate;
        for (slot, register) in report.x.iter_mut().zip(self.frame.registers()) {
            *slot = *register;
        }
        report.sp = [el1("SP_EL0"), el1("SP_EL1")];
        report.el1 = [el1("ELR_EL1"), el1("SPSR_EL1"), el1("ESR_EL1"), el1("FAR_EL1")];
        report.system = [self.sctlr, el1("VBAR_EL1"), el1("TTBR0_EL1"), el1("TTBR1_EL1")];
    }

    /// When the saved timers raise their interrupts, in the VM's time: the virtual and the physical one.
    pub fn timers(&self) -> [Option<u64>; 2] {
        [self.virtual_timer.fires_at(), self.physical_timer.fires_at()]
    }

    /// The guest has its first look at debug registers: from now on they are its own. `false`: they were already.
    pub fn open_breakpoints(&mut self) -> bool {
        if self.breakpoints.is_some() {
            return false;
        }
        let none = Breakpoints::default();
        none.load();
        self.breakpoints = Some(none);
        cpu::trap_breakpoints(false);
        true
    }
}
