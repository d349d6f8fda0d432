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
use vgic::IntId;
use vmm::psci::Start;
use vmm::sysreg::{Given, REGISTERS, Register};

use crate::debug::DebugRegisters;
use crate::exit::Frame;
use crate::gic::VirtualInterface;
use crate::pmu::Counters;
use crate::simd::Simd;
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::{cpu, serror};

/// SCTLR_EL1 at reset: its RES1 bits; MMU, caches and checks off.
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;
/// EL1h, all interrupts masked.
const SPSR_START: u64 = 0x3c5;
/// SCTLR_EL1.M: stage 1 is on.
const SCTLR_M: u64 = 1;
/// TCR_EL1.EPD0 and EPD1: no table walks at all.
const TCR_NO_WALKS: u64 = 1 << 7 | 1 << 23;

/// A list of registers that are saved and loaded, two at a time where they are two.
macro_rules! registers {
    ($(#[$doc:meta])* $type:ident: $($first:literal $($second:literal)?),*) => {
        $(#[$doc])*
        #[derive(Default)]
        #[repr(transparent)]
        struct $type([[u64; 2]; [$($first),*].len()]);

        impl $type {
            const NAMES: &[&str] = &[$($first $(, $second)?),*];

            fn save(&mut self) {
                let mut slots = self.0.iter_mut();
                $(if let Some(slot) = slots.next() {
                    *slot = [read_sysreg!($first), registers!(@read $($second)?)];
                })*
            }

            fn load(&self) {
                // Both are read before the first one is written, so that the compiler may pair them.
                let mut slots = self.0.iter().copied();
                $(if let Some([_first, _second]) = slots.next() {
                    write_sysreg!($first, _first);
                    $(write_sysreg!($second, _second);)?
                })*
            }

            /// What was saved of a register, for reports; 0 where it isn't in the list.
            #[allow(dead_code, reason = "not of every list")]
            fn value(&self, name: &str) -> u64 {
                let mut names = [$([$first, registers!(@name $($second)?)]),*].into_iter().zip(self.0);
                let pair = names.find(|(names, _)| names.contains(&name));
                pair.map_or(0, |(names, [first, second])| if names[0] == name { first } else { second })
            }
        }
    };
    (@read) => { 0 };
    (@read $name:literal) => { read_sysreg!($name) };
    (@name) => { "" };
    (@name $name:literal) => { $name };
}

registers! {
    /// EL1's and EL0's registers, but for SCTLR_EL1 and TCR_EL1, whose order matters. By number: FPCR, FPSR.
    El1:
    "TTBR0_EL1" "TTBR1_EL1", "MAIR_EL1" "AMAIR_EL1", "VBAR_EL1" "ELR_EL1", "SPSR_EL1" "ESR_EL1", "FAR_EL1" "AFSR0_EL1",
    "AFSR1_EL1" "PAR_EL1", "SP_EL0" "SP_EL1", "TPIDR_EL0" "TPIDRRO_EL0", "TPIDR_EL1" "CONTEXTIDR_EL1",
    "CPACR_EL1" "CNTKCTL_EL1", "CSSELR_EL1" "MDSCR_EL1", "S3_3_C4_C4_0" "S3_3_C4_C4_1"
}

registers! {
    /// FEAT_PAuth's keys, by number: the assembler knows the names only with the extension. APIAKey, APIBKey, APDAKey,
    /// APDBKey, APGAKey, each Lo and Hi.
    Keys:
    "S3_0_C2_C1_0" "S3_0_C2_C1_1", "S3_0_C2_C1_2" "S3_0_C2_C1_3", "S3_0_C2_C2_0" "S3_0_C2_C2_1",
    "S3_0_C2_C2_2" "S3_0_C2_C2_3", "S3_0_C2_C3_0" "S3_0_C2_C3_1"
}

registers! {
    /// FEAT_RAS: VDISR_EL2, which a guest's DISR_EL1 is while HCR_EL2.AMO is set.
    Deferred:
    "S3_4_C12_C1_1"
}

/// What is switched beside those lists: in an order of its own, or by another register.
const BESIDE: [&str; 9] = [
    "SCTLR_EL1",
    "TCR_EL1",
    "DISR_EL1",
    "CNTP_TVAL_EL0",
    "CNTP_CTL_EL0",
    "CNTP_CVAL_EL0",
    "CNTV_TVAL_EL0",
    "CNTV_CTL_EL0",
    "CNTV_CVAL_EL0",
];

/// How many are in the lists under a name that EL1 doesn't have for them: its SP, and VDISR_EL2, which is its DISR_EL1.
const NOT_BY_NAME: usize = 2;

// What `vmm::sysreg` says is switched, is, and nothing else.
const _: () = {
    let lists = [El1::NAMES, Keys::NAMES, Deferred::NAMES, &BESIDE];
    let (mut rows, mut switched) = (REGISTERS, 0usize);
    while let [row, rest @ ..] = rows {
        rows = rest;
        let mut times = 0usize;
        let mut lists: &[&[&str]] = &lists;
        while let [list, rest @ ..] = lists {
            lists = rest;
            times = how_often(row, list).wrapping_add(times);
        }
        match row.given {
            Given::Switched => {
                assert!(times == 1, "a register that is to be switched isn't, or is twice");
                switched = switched.wrapping_add(1);
            }
            _ => assert!(times == 0, "a register is switched that the table gives otherwise"),
        }
    }
    let names = El1::NAMES.len() + Keys::NAMES.len() + Deferred::NAMES.len() + BESIDE.len();
    assert!(names == switched + NOT_BY_NAME, "a register is switched that the table doesn't have");
};

/// How often a register is in a list.
const fn how_often(row: &Register, mut list: &[&str]) -> usize {
    let mut times = 0usize;
    while let [name, rest @ ..] = list {
        list = rest;
        times = times.wrapping_add(row.is_called(name) as usize);
    }
    times
}

/// The timers of EL1: CNTV and CNTP.
#[derive(Default)]
struct Timers {
    controls: [u64; 2],
    deadlines: [u64; 2],
}

/// Turns this CPU's timers of EL1 off: what they would interrupt is not here any more. From the next barrier on.
fn stop_timers() {
    write_sysreg!("CNTV_CTL_EL0", 0);
    write_sysreg!("CNTP_CTL_EL0", 0);
}

/// A vCPU's registers while another vCPU has the CPU. In this order, those that are loaded and stored in pairs are near enough to one
/// base for that.
#[derive(Default)]
#[repr(C)]
pub struct Context {
    el1: El1,
    keys: Keys,
    pc: u64,
    pstate: u64,
    sctlr: u64,
    tcr: u64,
    /// It has used debug registers or counters.
    uses_more: bool,
    timers: Timers,
    deferred: Deferred,
    /// The virtual CPU interface.
    pub interface: VirtualInterface,
    frame: Frame,
    simd: Simd,
    debug: Option<DebugRegisters>,
    counters: Option<Counters>,
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
    /// This CPU has FEAT_RAS.
    pub has_ras: bool,
}

impl Context {
    /// The state in which PSCI has a vCPU start: at EL1, everything off.
    pub fn reset(&mut self, start: Start) {
        *self =
            Self { pc: start.entry.as_u64(), pstate: SPSR_START, sctlr: SCTLR_EL1_RESET, ..Self::default() };
        self.frame.set(0, start.context);
    }

    /// Takes a vCPU's registers out of this CPU, and turns its timers off ([`stop_timers`]).
    #[inline(always)]
    pub fn save(&mut self, frame: &Frame, keys: bool, has_ras: bool) {
        (self.pc, self.pstate) = (ELR_EL2.get(), SPSR_EL2.get());
        self.timers = Timers {
            controls: [CNTV_CTL_EL0.get(), CNTP_CTL_EL0.get()],
            deadlines: [CNTV_CVAL_EL0.get(), cpu::physical_deadline()],
        };
        stop_timers();
        (self.sctlr, self.tcr) = (SCTLR_EL1.get(), TCR_EL1.get());
        self.el1.save();
        if keys {
            self.keys.save();
        }
        if has_ras {
            self.deferred.save();
        }
        serror::look(has_ras);
        self.simd.save();
        Simd::copy(frame, &mut self.frame);
        if self.uses_more {
            self.save_more();
        }
    }

    /// Takes debug registers and counters out of this CPU, where both trap while no vCPU is loaded.
    #[inline(never)]
    fn save_more(&mut self) {
        if let Some(debug) = &mut self.debug {
            debug.save();
        }
        if let Some(counters) = &mut self.counters {
            counters.save();
        }
        cpu::trap_debug_registers_and_counters();
    }

    /// Forgets them: the vCPU begins anew when it is loaded next. Its timers and counters are off.
    pub fn discard(&mut self, has_ras: bool) {
        stop_timers();
        if self.uses_more {
            self.save_more();
        }
        serror::look(has_ras);
    }

    /// Puts a vCPU's registers into this CPU, but for what [`load_rest`](Self::load_rest) does: what raises interrupts, for their lines must
    /// be the guest's first. Returns the general-purpose ones, which `run` loads when it goes to the guest.
    #[inline(always)]
    pub fn load(&mut self, world: &World) -> *const Frame {
        // The saved registers take the place of those that were here.
        let _ = forbid_walks();
        VTCR_EL2.set(world.vtcr);
        VTTBR_EL2.set(world.vttbr);
        VMPIDR_EL2.set(world.vmpidr);
        HCR_EL2.set(world.hcr);
        cpu::change_clock_offset(world.clock_offset);
        let [virtual_deadline, physical_deadline] = self.timers.deadlines;
        CNTV_CVAL_EL0.set(virtual_deadline);
        cpu::set_physical_deadline(physical_deadline, world.clock_offset);
        self.el1.load();
        // Walks use all of these once they happen again, and the timers, once they are on, theirs.
        barrier::isb(barrier::SY);
        StageOne { sctlr: self.sctlr, tcr: self.tcr }.restore();
        if world.hcr & cpu::hcr::POINTER_AUTHENTICATION != 0 {
            self.keys.load();
        }
        if world.has_ras {
            self.deferred.load();
        }
        self.simd.load();
        let Self { pc, pstate, .. } = *self;
        ELR_EL2.set(pc);
        SPSR_EL2.set(pstate);
        &raw const self.frame
    }

    /// Turns the vCPU's timers on again, as far as they were, and puts its debug registers and counters into this CPU, if it uses them.
    pub fn load_rest(&mut self) {
        let [virtual_control, physical_control] = self.timers.controls;
        CNTV_CTL_EL0.set(virtual_control);
        CNTP_CTL_EL0.set(physical_control);
        if self.uses_more {
            self.load_more();
        }
    }

    #[inline(never)]
    fn load_more(&mut self) {
        if let Some(debug) = &mut self.debug {
            debug.load();
        }
        if let Some(counters) = &mut self.counters {
            counters.load();
        }
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

    /// When the saved timers and counters raise their interrupts, in the VM's time.
    pub fn interrupts_due(&self) -> [(IntId, Option<u64>); 3] {
        let Timers { controls: [virtual_control, physical_control], deadlines: [first, second] } =
            self.timers;
        // On, and not masked.
        let fires = |control: u64, deadline| (control & 0b11 == 0b01).then_some(deadline);
        let overflow = self.counters.as_ref().is_some_and(Counters::raises);
        [
            (IntId::VIRTUAL_TIMER, fires(virtual_control, first)),
            (IntId::PHYSICAL_TIMER, fires(physical_control, second)),
            (IntId::COUNTERS, overflow.then_some(0)),
        ]
    }

    /// Its debug registers, which it uses.
    pub fn debug(&mut self) -> &mut DebugRegisters {
        self.uses_more = true;
        self.debug.get_or_insert_with(DebugRegisters::new)
    }

    /// Its performance monitors, which it uses.
    pub fn counters(&mut self) -> &mut Counters {
        self.uses_more = true;
        self.counters.get_or_insert_default()
    }
}
