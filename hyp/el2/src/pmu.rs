//! A vCPU's performance monitors: in the CPU while the guest uses them, in memory otherwise. Which registers there are, and what of a
//! guest's values goes to the hardware, is `vmm::pmu`'s.

use aarch64_cpu::asm::barrier;
use vmm::pmu::{self, MOST_COUNTERS, Register};

use crate::cpu;
use crate::exit::Trapped;
use crate::sysreg::{read_sysreg, write_sysreg};

/// Those of one vCPU, which has used them.
#[derive(Default)]
pub struct Counters {
    control: u64,
    on: u64,
    interrupts: u64,
    overflows: u64,
    selection: u64,
    for_users: u64,
    cycles: u64,
    cycle_filter: u64,
    /// Of each event counter its type and its value.
    events: [(u64, u64); MOST_COUNTERS],
    /// While the vCPU is loaded: they are in the CPU.
    live: bool,
}

/// PMCR_EL0.E: counters count.
const ENABLE: u64 = 1;
/// All counters that there may be, as bits.
const ALL: u64 = 0xffff_ffff;
/// PMUSERENR_EL0 of PMUv3p5: EN, SW, CR, ER.
const FOR_USERS: u64 = 0xf;

/// Nothing counts on this CPU, and nothing that counted is left to be seen.
pub fn stop() {
    write_sysreg!("PMCR_EL0", 0);
    write_sysreg!("PMCNTENCLR_EL0", ALL);
    write_sysreg!("PMINTENCLR_EL1", ALL);
    write_sysreg!("PMOVSCLR_EL0", ALL);
    write_sysreg!("PMUSERENR_EL0", 0);
}

/// How many event counters this CPU has.
fn count() -> u8 {
    pmu::counters(read_sysreg!("PMCR_EL0"))
}

/// Makes PMXEVCNTR_EL0 and PMXEVTYPER_EL0 those of an event counter that there is.
fn select(counter: u8) {
    write_sysreg!("PMSELR_EL0", u64::from(counter));
    barrier::isb(barrier::SY);
}

impl Counters {
    /// An access of the guest, which is loaded, that has trapped: a write of `value` or a read.
    pub fn access(&mut self, register: Register, value: Option<u64>, from_el0: bool) -> Trapped {
        if !self.live {
            self.go_live();
            if cpu::excludes_el2() {
                return Trapped::Again;
            }
        }
        match value {
            Some(value) => write(register, value, from_el0).map_or(Trapped::Undefined, |()| Trapped::Done),
            None => read(register).map_or(Trapped::Undefined, Trapped::Value),
        }
    }

    /// The vCPU is taken off its CPU: nothing counts from here on.
    pub fn save(&mut self) {
        if !self.live {
            return;
        }
        self.live = false;
        self.control = read_sysreg!("PMCR_EL0");
        write_sysreg!("PMCR_EL0", self.control & !ENABLE);
        barrier::isb(barrier::SY);
        self.on = read_sysreg!("PMCNTENSET_EL0");
        self.interrupts = read_sysreg!("PMINTENSET_EL1");
        self.overflows = read_sysreg!("PMOVSSET_EL0");
        self.selection = read_sysreg!("PMSELR_EL0");
        self.for_users = read_sysreg!("PMUSERENR_EL0");
        self.cycles = read_sysreg!("PMCCNTR_EL0");
        self.cycle_filter = read_sysreg!("PMCCFILTR_EL0");
        for (n, (event, counter)) in self.events_of_this_cpu() {
            select(n);
            *event = read_sysreg!("PMXEVTYPER_EL0");
            *counter = read_sysreg!("PMXEVCNTR_EL0");
        }
        stop();
    }

    /// The vCPU is loaded: what counts, and what its EL0 may reach, has to be there. Whatever else of these registers it uses, it says so
    /// by a trap.
    pub fn load(&mut self) {
        if self.control & ENABLE != 0 || self.for_users != 0 {
            self.go_live();
        }
    }

    /// Whether its interrupt is raised, while it isn't loaded.
    pub fn raises(&self) -> bool {
        pmu::raises(self.control, self.overflows, self.interrupts)
    }

    /// Into the CPU, where nothing counts.
    fn go_live(&mut self) {
        for (n, (event, counter)) in self.events_of_this_cpu() {
            select(n);
            write_sysreg!("PMXEVTYPER_EL0", *event);
            write_sysreg!("PMXEVCNTR_EL0", *counter);
        }
        write_sysreg!("PMCCFILTR_EL0", self.cycle_filter);
        write_sysreg!("PMCCNTR_EL0", self.cycles);
        write_sysreg!("PMUSERENR_EL0", self.for_users);
        write_sysreg!("PMSELR_EL0", self.selection);
        write_sysreg!("PMOVSSET_EL0", self.overflows);
        write_sysreg!("PMINTENSET_EL1", self.interrupts);
        write_sysreg!("PMCNTENSET_EL0", self.on);
        // What resets counters reads as zero.
        write_sysreg!("PMCR_EL0", self.control);
        self.live = true;
        cpu::trap_counters(!cpu::excludes_el2());
    }

    fn events_of_this_cpu(&mut self) -> impl Iterator<Item = (u8, &mut (u64, u64))> {
        (0..count()).zip(&mut self.events)
    }
}

/// What a guest reads, its registers being in the CPU.
fn read(register: Register) -> Option<u64> {
    Some(match register {
        Register::Control => read_sysreg!("PMCR_EL0"),
        Register::CountersOn | Register::CountersOff => read_sysreg!("PMCNTENSET_EL0"),
        Register::OverflowsOn | Register::OverflowsOff => read_sysreg!("PMOVSSET_EL0"),
        Register::InterruptsOn | Register::InterruptsOff => read_sysreg!("PMINTENSET_EL1"),
        Register::Selection => read_sysreg!("PMSELR_EL0"),
        Register::Events0 => read_sysreg!("PMCEID0_EL0"),
        Register::Events1 => read_sysreg!("PMCEID1_EL0"),
        Register::Cycles => read_sysreg!("PMCCNTR_EL0"),
        Register::CycleFilter => read_sysreg!("PMCCFILTR_EL0"),
        Register::ForUsers => read_sysreg!("PMUSERENR_EL0"),
        Register::Machine if cpu::has_pmmir() => read_sysreg!("S3_0_C9_C14_6"),
        Register::Machine | Register::Increment => return None,
        Register::SelectedType => match selected() {
            Selected::Cycles => read_sysreg!("PMCCFILTR_EL0"),
            Selected::Event => read_sysreg!("PMXEVTYPER_EL0"),
            Selected::Nothing => 0,
        },
        Register::SelectedCounter => match selected() {
            Selected::Event => read_sysreg!("PMXEVCNTR_EL0"),
            Selected::Cycles | Selected::Nothing => 0,
        },
        Register::Counter(n) => with(n, || read_sysreg!("PMXEVCNTR_EL0"))?,
        Register::EventType(n) => with(n, || read_sysreg!("PMXEVTYPER_EL0"))?,
    })
}

/// What PMSELR_EL0 selects.
enum Selected {
    Event,
    Cycles,
    /// No counter: what the other registers do then is nobody's to rely on.
    Nothing,
}

fn selected() -> Selected {
    const CYCLE_COUNTER: u64 = 31;
    match read_sysreg!("PMSELR_EL0") & 0x1f {
        CYCLE_COUNTER => Selected::Cycles,
        n if n < u64::from(count()) => Selected::Event,
        _ => Selected::Nothing,
    }
}

/// Does something with an event counter selected; `None`: there is no such counter.
fn with<T>(counter: u8, action: impl FnOnce() -> T) -> Option<T> {
    if counter >= count() {
        return None;
    }
    let selection = read_sysreg!("PMSELR_EL0");
    select(counter);
    let outcome = action();
    write_sysreg!("PMSELR_EL0", selection);
    Some(outcome)
}

/// What a guest writes, its registers being in the CPU.
fn write(register: Register, value: u64, from_el0: bool) -> Option<()> {
    match register {
        Register::Control => write_sysreg!("PMCR_EL0", pmu::control(value)),
        Register::CountersOn => write_sysreg!("PMCNTENSET_EL0", value),
        Register::CountersOff => write_sysreg!("PMCNTENCLR_EL0", value),
        Register::OverflowsOn => write_sysreg!("PMOVSSET_EL0", value),
        Register::OverflowsOff => write_sysreg!("PMOVSCLR_EL0", value),
        Register::InterruptsOn => write_sysreg!("PMINTENSET_EL1", value),
        Register::InterruptsOff => write_sysreg!("PMINTENCLR_EL1", value),
        Register::Selection => write_sysreg!("PMSELR_EL0", value & 0x1f),
        Register::Cycles => write_sysreg!("PMCCNTR_EL0", value),
        Register::CycleFilter => write_sysreg!("PMCCFILTR_EL0", pmu::cycle_filter(value)),
        Register::ForUsers => write_sysreg!("PMUSERENR_EL0", value & FOR_USERS),
        Register::Increment => increment(value, from_el0),
        Register::SelectedType => match selected() {
            Selected::Event => write_sysreg!("PMXEVTYPER_EL0", pmu::event_type(value)),
            Selected::Cycles => write_sysreg!("PMCCFILTR_EL0", pmu::cycle_filter(value)),
            Selected::Nothing => {}
        },
        Register::SelectedCounter => match selected() {
            Selected::Event => write_sysreg!("PMXEVCNTR_EL0", value),
            Selected::Cycles | Selected::Nothing => {}
        },
        Register::Counter(n) => with(n, || write_sysreg!("PMXEVCNTR_EL0", value))?,
        Register::EventType(n) => with(n, || write_sysreg!("PMXEVTYPER_EL0", pmu::event_type(value)))?,
        Register::Events0 | Register::Events1 | Register::Machine => return None,
    }
    Some(())
}

/// A guest's write to PMSWINC_EL0. Done by EL2's own, it would count at EL2, where nothing counts.
fn increment(counters: u64, from_el0: bool) {
    if read_sysreg!("PMCR_EL0") & ENABLE == 0 {
        return;
    }
    let counters = counters & read_sysreg!("PMCNTENSET_EL0");
    for n in (0..count()).filter(|n| counters.wrapping_shr((*n).into()) & 1 != 0) {
        with(n, || {
            if pmu::is_software_increment(read_sysreg!("PMXEVTYPER_EL0"), from_el0) {
                // 32 bits: those with more leave EL2 out by themselves.
                let value = read_sysreg!("PMXEVCNTR_EL0").wrapping_add(1) & 0xffff_ffff;
                write_sysreg!("PMXEVCNTR_EL0", value);
                if value == 0 {
                    write_sysreg!("PMOVSSET_EL0", 1u64.wrapping_shl(n.into()));
                }
            }
        });
    }
}
