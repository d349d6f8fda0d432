//! Further CPUs: each is started by PSCI to run one function, and turns itself off when that returns.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use abi::psci;

use crate::call::call3;
use crate::machine::{Conduit, MAX_CPUS, machine};
use crate::timer::wait_until;
use crate::{cache, cpu, gic, mmu};

/// Bytes of stack for each CPU.
pub(crate) const STACK_SIZE: usize = 64 << 10;

/// One more than CPUs: see [`try_power_on`].
const SLOTS: usize = MAX_CPUS + 1;
const SPARE: usize = MAX_CPUS;

/// Memory that CPUs use as stacks, and that Rust code never reaches otherwise.
#[repr(C, align(4096))]
pub(crate) struct Stacks(UnsafeCell<[[u8; STACK_SIZE]; SLOTS]>);

// SAFETY: only ever used through each CPU's own stack pointer.
unsafe impl Sync for Stacks {}

// SAFETY: a section of .bss like any other; the linker script only puts it last.
#[unsafe(link_section = ".bss.stacks")]
pub(crate) static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_SIZE]; SLOTS]));

/// What a starting CPU finds behind the context id in x0. It reads `table` with caches off.
#[repr(C, align(64))]
pub(crate) struct Arguments {
    pub(crate) table: AtomicU64,
    pub(crate) stack_top: AtomicU64,
    index: AtomicU64,
    /// SCTLR_EL1, DAIF, CurrentEL and SPSel as they were at the entry.
    pub(crate) seen: [AtomicU64; 4],
    affinity: AtomicU64,
}

static ARGUMENTS: [Arguments; SLOTS] = [const {
    Arguments {
        table: AtomicU64::new(0),
        stack_top: AtomicU64::new(0),
        index: AtomicU64::new(0),
        seen: [const { AtomicU64::new(0) }; 4],
        affinity: AtomicU64::new(0),
    }
}; SLOTS];

/// What a CPU is to run.
struct Job {
    function: AtomicUsize,
    argument: AtomicU64,
    /// Set when the function has returned.
    done: AtomicBool,
}

static JOBS: [Job; MAX_CPUS] = [const {
    Job { function: AtomicUsize::new(0), argument: AtomicU64::new(0), done: AtomicBool::new(true) }
}; MAX_CPUS];

/// The state in which a CPU arrived at its entry point.
#[derive(Clone, Copy, Debug)]
pub struct EntryState {
    /// SCTLR_EL1.
    pub sctlr: u64,
    /// DAIF: bits 9 to 6.
    pub daif: u64,
    /// CurrentEL: the exception level in bits 3 and 2.
    pub current_el: u64,
    /// SPSel: 1 for the level's own stack pointer.
    pub spsel: u64,
    /// MPIDR_EL1's affinity fields.
    pub affinity: u64,
}

unsafe extern "C" {
    fn runtime_secondary_entry();
}

/// A status of PSCI other than success (`abi::psci`).
pub type PsciError = i64;

/// Turns `cpu` (an index, not the boot CPU's) on to run `function(argument)` and to turn itself off afterwards.
/// Errors are those of CPU_ON.
pub fn start(cpu: usize, function: fn(u64), argument: u64) -> Result<(), PsciError> {
    start_by(machine().conduit, cpu, function, argument)
}

/// As [`start`], by the conduit given.
pub fn start_by(conduit: Conduit, cpu: usize, function: fn(u64), argument: u64) -> Result<(), PsciError> {
    assert!(cpu != 0 && cpu < machine().cpus().len(), "CPU {cpu} can't be started");
    let job = &JOBS[cpu];
    if !job.done.load(Ordering::Acquire) && affinity_info(cpu) != psci::AFFINITY_OFF {
        return Err(psci::ALREADY_ON);
    }
    job.done.store(false, Ordering::Relaxed);
    job.function.store(function as usize, Ordering::Relaxed);
    job.argument.store(argument, Ordering::Release);
    let result = power_on(conduit, machine().cpus()[cpu], cpu);
    if result != psci::SUCCESS {
        job.done.store(true, Ordering::Release);
        return Err(result);
    }
    Ok(())
}

/// Calls CPU_ON for a CPU that should refuse: this one, a running one, or one that isn't there. Returns the status.
/// If it is started nevertheless, it turns itself off at once, on a stack of its own.
pub fn try_power_on(conduit: Conduit, affinity: u64) -> i64 {
    power_on(conduit, affinity, SPARE)
}

fn power_on(conduit: Conduit, affinity: u64, slot: usize) -> i64 {
    let arguments = &ARGUMENTS[slot];
    arguments.table.store(mmu::root(), Ordering::Relaxed);
    let top = STACKS.0.get() as usize + (slot + 1) * STACK_SIZE;
    arguments.stack_top.store(top as u64, Ordering::Relaxed);
    arguments.index.store(slot as u64, Ordering::Relaxed);
    let address = core::ptr::from_ref(arguments) as usize;
    cache::clean_invalidate(address, size_of::<Arguments>());
    let entry = runtime_secondary_entry as unsafe extern "C" fn() as usize as u64;
    cpu_on(conduit, affinity, entry, address as u64)
}

/// CPU_ON; its status.
pub(crate) fn cpu_on(conduit: Conduit, affinity: u64, entry: u64, context: u64) -> i64 {
    use smccc::{Call, Hvc, Smc};
    let mut arguments = [0; 17];
    arguments[..3].copy_from_slice(&[affinity, entry, context]);
    let function = psci::CPU_ON_64.as_u32();
    let results = match conduit {
        Conduit::Hvc => Hvc::call64(function, arguments),
        Conduit::Smc => Smc::call64(function, arguments),
    };
    results[0] as i64
}

/// Where the entry code arrives on a CPU that has been started.
pub(crate) extern "C" fn start_secondary(arguments: &'static Arguments) -> ! {
    let index = arguments.index.load(Ordering::Relaxed) as usize;
    arguments.affinity.store(cpu::affinity(), Ordering::Relaxed);
    let Some(job) = JOBS.get(index) else { power_off() };
    cpu::set_index(index);
    gic::init_cpu();
    let function = job.function.load(Ordering::Acquire);
    // SAFETY: `start` stored a function of this type before it turned the CPU on.
    let function = unsafe { core::mem::transmute::<usize, fn(u64)>(function) };
    function(job.argument.load(Ordering::Relaxed));
    cpu::mask_irqs();
    gic::quiesce_cpu();
    job.done.store(true, Ordering::Release);
    power_off()
}

fn power_off() -> ! {
    call3(machine().conduit, psci::CPU_OFF, [0; 3]);
    panic!("CPU_OFF returned");
}

/// In which state `cpu` arrived when it was last started.
pub fn entry_state(cpu: usize) -> EntryState {
    let arguments = &ARGUMENTS[cpu];
    let [sctlr, daif, current_el, spsel] = [0, 1, 2, 3].map(|n| arguments.seen[n].load(Ordering::Relaxed));
    let affinity = arguments.affinity.load(Ordering::Relaxed);
    EntryState { sctlr, daif, current_el, spsel, affinity }
}

/// AFFINITY_INFO of the CPU with this index.
pub fn affinity_info(cpu: usize) -> i64 {
    call3(machine().conduit, psci::AFFINITY_INFO_64, [machine().cpus()[cpu], 0, 0])
}

/// Whether `cpu`'s function has returned and PSCI says that it is off, waited for up to `milliseconds`.
pub fn wait_off(cpu: usize, milliseconds: u64) -> bool {
    let done = || JOBS[cpu].done.load(Ordering::Acquire) && affinity_info(cpu) == psci::AFFINITY_OFF;
    wait_until(milliseconds, done)
}

/// Starts `cpu` with `function(argument)` and waits until it is off again. Returns whether both worked in time.
pub fn run_on(cpu: usize, function: fn(u64), argument: u64, milliseconds: u64) -> bool {
    start(cpu, function, argument).is_ok() && wait_off(cpu, milliseconds)
}
