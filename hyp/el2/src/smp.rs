//! Bringing up the board's other CPUs: by PSCI, or by a spin table (Devicetree Specification, 3.8.1), in which each waits for an
//! address to appear in a word of memory.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use platform::power::psci;
use platform::tree::{Board, EnableMethod, Psci, Range};
use spin::Once;
use stage2::Pa;
use vmm::mitigations::{Choice, Entry};
use vmm::smccc::SocId;

use crate::percpu::{self, PerCpu, own, this_cpu};
use crate::{cache, cpu, gic, memory, mmu, run, timer};

/// What a CPU finds on its way in; `head.s` reads it with caches off.
#[repr(C, align(64))]
struct SecondaryStart {
    root: u64,
    stack: u64,
    cpu: *const PerCpu,
    /// Its affinity, by which a CPU finds this that waited in a spin table.
    mpidr: u64,
}

/// An affinity that no CPU has.
const NOBODY: u64 = u64::MAX;

const _: () =
    assert!(size_of::<SecondaryStart>() == 64 && platform::tree::MAX_CPUS == 64, "head.s knows both");

/// Places for all CPUs, written by the boot CPU before it starts the CPU that reads it.
struct Starts(UnsafeCell<[SecondaryStart; platform::tree::MAX_CPUS]>);

// SAFETY: each element is written once by the boot CPU, before the one CPU that reads it runs.
unsafe impl Sync for Starts {}

#[unsafe(export_name = "secondary_starts")]
static STARTS: Starts = Starts(UnsafeCell::new(
    [const { SecondaryStart { root: 0, stack: 0, cpu: core::ptr::null(), mpidr: NOBODY } };
        platform::tree::MAX_CPUS],
));

/// How long a CPU may take to come up, in seconds.
const PATIENCE: u64 = 1;

/// SMC reaches a PSCI firmware; elsewhere it may be UNDEFINED.
static BY_SMC: AtomicBool = AtomicBool::new(false);

/// What firmware says the board is made of.
static SOC: Once<Option<SocId>> = Once::new();

/// It was said of a CPU that its branch predictor is open.
static TOLD_OPEN: AtomicBool = AtomicBool::new(false);

/// Sets up what the CPU that runs has of its own.
///
/// # Errors
/// Why this CPU can't be used.
pub fn init_cpu(by_smc: bool) -> Result<(), &'static str> {
    BY_SMC.store(by_smc, Ordering::Relaxed);
    own().has_ras.set(cpu::has_ras());
    cpu::init();
    SOC.call_once(|| {
        let (version, revision) = by_smc.then(psci::soc_id).flatten()?;
        Some(SocId { version, revision })
    });
    mitigate(by_smc);
    gic::init_cpu()
}

/// Sets what is done on each exit about the branch predictor of the CPU that runs, and what its guests are told.
fn mitigate(by_smc: bool) {
    let Choice { entry, is_open, told } = cpu::mitigations(by_smc);
    own().mitigations.set(told);
    percpu::set_vectors(entry);
    let cpu = this_cpu().index;
    log::debug!("CPU {cpu}: about its branch predictor, on each exit: {entry:?}");
    if is_open && !TOLD_OPEN.swap(true, Ordering::Relaxed) {
        let firmware = if by_smc { "has no workaround" } else { "answers no SMC" };
        log::warn!(
            "guests can train this board's branch predictors (CVE-2017-5715, CVE-2022-23960), and firmware {firmware}: \
             VMs that share a CPU, and EL2, aren't kept from each other there"
        );
    }
}

/// What firmware says the board is made of.
pub fn soc() -> Option<SocId> {
    *SOC.get()?
}

/// Whether SMC reaches a PSCI firmware.
pub fn by_smc() -> bool {
    BY_SMC.load(Ordering::Relaxed)
}

/// Starts all CPUs but the one that runs, and waits for each. One that doesn't come is left out, with a message.
pub fn start_all(board: &Board<'_>) {
    for target in percpu::all().skip(1) {
        let method = board.cpus.iter().find(|cpu| cpu.mpidr == target.mpidr).map(|cpu| cpu.enable_method);
        let started = match (method, board.psci) {
            (Some(EnableMethod::Psci), Some(Psci::Smc)) => start_by_psci(target),
            (Some(EnableMethod::Psci), Some(Psci::Hvc)) => {
                Err("the tree says that PSCI is called by HVC, which is EL2's own")
            }
            (Some(EnableMethod::Psci), None) => Err("the tree has no PSCI node"),
            (Some(EnableMethod::SpinTable(word)), _) => start_by_spin_table(target, board, word),
            _ => Err("the tree names no way to start it"),
        };
        match started.and_then(|()| wait_for(target)) {
            Ok(()) => {}
            Err(reason) => log::warn!("CPU {} ({:#x}) is left out: {reason}", target.index, target.mpidr),
        }
    }
}

/// Writes down what the CPU needs, and makes it readable with caches off. Returns its address.
fn prepare(target: &'static PerCpu) -> Option<u64> {
    let start = SecondaryStart {
        root: mmu::root(),
        stack: percpu::stack_top(target.index)?,
        cpu: core::ptr::from_ref(target),
        mpidr: target.mpidr,
    };
    // SAFETY: the element is this CPU's alone, which doesn't run yet.
    let slot = unsafe { (*STARTS.0.get()).get_mut(target.index)? };
    *slot = start;
    let address = core::ptr::from_ref(slot) as u64;
    cache::clean(address, address + size_of::<SecondaryStart>() as u64);
    cache::sync();
    Some(address)
}

unsafe extern "C" {
    fn secondary_start();
    fn spin_table_start();
}

fn start_by_psci(target: &'static PerCpu) -> Result<(), &'static str> {
    let argument = prepare(target).ok_or("no stack")?;
    psci::cpu_on(target.mpidr, secondary_start as *const () as u64, argument)
        .map_err(|_| "PSCI refuses to start it")
}

/// Writes the entry point to the word that the CPU waits for. It reads that with caches off, as all that it finds on its way in.
fn start_by_spin_table(target: &'static PerCpu, board: &Board<'_>, word: Pa) -> Result<(), &'static str> {
    let range = Range { start: word, size: size_of::<u64>() as u64 };
    let address = word.as_u64();
    if !memory::is_ram(board, range) || !address.is_multiple_of(8) {
        return Err("the word of the spin table that it waits for is not in memory");
    }
    let holds = |reserved: &Range| reserved.start <= range.start && range.end() <= reserved.end();
    if !board.reserved.iter().any(|reserved| holds(&reserved.range)) {
        return Err("the word of the spin table that it waits for is not reserved");
    }
    prepare(target).ok_or("no stack")?;
    // SAFETY: the tree says that the CPU waits for this word, which is RAM that EL2 maps, and is kept out of the free frames:
    // nothing of EL2's or a VM's is there.
    unsafe { core::ptr::write_volatile(address as *mut u64, spin_table_start as *const () as u64) };
    cache::clean(address, address + range.size);
    cache::sync();
    aarch64_cpu::asm::sev();
    Ok(())
}

fn wait_for(target: &PerCpu) -> Result<(), &'static str> {
    let deadline = timer::now() + PATIENCE * timer::frequency();
    while !target.online.load(Ordering::Acquire) {
        if timer::now() > deadline {
            return Err("it was started and has not come up within a second");
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// A secondary CPU, with the full map and on its own stack.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(cpu: &'static PerCpu) -> ! {
    cpu.adopt();
    percpu::set_vectors(Entry::Plain);
    if let Err(reason) = init_cpu(by_smc()) {
        log::error!("CPU {}: {reason}", cpu.index);
        crate::crash::halt();
    }
    cpu.online.store(true, Ordering::Release);
    // It waits for a kick, which comes when the VMs are there.
    while !crate::vm::started() {
        aarch64_cpu::asm::wfi();
        crate::interrupts::take(percpu::own(), None);
        #[cfg(feature = "stage2-check")]
        crate::stage2_check::serve();
    }
    run::enter()
}
