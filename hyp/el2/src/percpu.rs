//! What each CPU keeps for itself, reached through TPIDR_EL2.
//!
//! A CPU touches its own [`Own`] only, by [`this_cpu`], so that needs no lock; what other CPUs may reach is in
//! [`PerCpu`] itself and is atomic or locked.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use aarch64_cpu::registers::{TPIDR_EL2, VBAR_EL2};
use platform::tree::Board;
use spin::Once;
use tock_registers::interfaces::{Readable, Writeable};

use crate::gic::{CpuGic, EndedHere};
use crate::logging::Ring;
use crate::vcpu::Vcpu;
use vmm::smccc::Mitigations;

/// Reasons for which another CPU wants this one's attention.
pub mod request {
    /// The console has something to do (CPU 0 only).
    pub const CONSOLE: u32 = 1 << 0;
    /// The vCPU here must see to its interrupts.
    pub const SYNC: u32 = 1 << 1;
    /// A device of the VM here has set a deadline.
    pub const TIMER: u32 = 1 << 3;
    /// EL2 has crashed on another CPU: stop.
    pub const HALT: u32 = 1 << 2;
}

/// One CPU.
#[repr(C)]
pub struct PerCpu {
    /// Top of the stack that a crash report runs on; `vectors.s` reads it, so it comes first.
    crash_stack_top: usize,
    /// The CPU's number: 0 is the boot CPU, which does the board's housekeeping.
    pub index: usize,
    /// Its affinity.
    pub mpidr: u64,
    /// It has come up.
    pub online: AtomicBool,
    /// What others want of it: bits of [`request`].
    requests: AtomicU32,
    /// The vCPU that is pinned here, once VMs are built.
    pub assigned: Once<&'static Vcpu>,
    /// Log messages that wait for the console.
    pub log: Ring,
    own: Own,
}

/// What only the CPU itself may touch.
pub struct Own {
    /// The vCPU that is loaded.
    pub vcpu: Cell<Option<&'static Vcpu>>,
    /// Its interrupt controller.
    pub gic: Cell<Option<CpuGic>>,
    /// List registers whose interrupts EL2 deactivates itself.
    pub ended_here: EndedHere,
    /// What guests are told of mitigations here.
    pub mitigations: Cell<Mitigations>,
}

// SAFETY: `own`, the only part that isn't Sync, is reached by `this_cpu` alone, which returns the PerCpu of the CPU that
// calls; EL2 runs with interrupts masked, so nothing else runs on that CPU meanwhile.
unsafe impl Sync for PerCpu {}

const CRASH_STACK: usize = 8192;

#[repr(C, align(16))]
struct CrashStack([u8; CRASH_STACK]);

static CPUS: Once<Vec<&'static PerCpu>> = Once::new();

impl PerCpu {
    fn new(index: usize, mpidr: u64) -> &'static Self {
        let stack = Box::leak(Box::new(CrashStack([0; CRASH_STACK])));
        Box::leak(Box::new(Self {
            crash_stack_top: stack.0.as_ptr() as usize + CRASH_STACK,
            index,
            mpidr,
            online: AtomicBool::new(index == 0),
            requests: AtomicU32::new(0),
            assigned: Once::new(),
            log: Ring::new(),
            own: Own {
                vcpu: Cell::new(None),
                gic: Cell::new(None),
                ended_here: EndedHere::new(),
                mitigations: Cell::new(Mitigations::default()),
            },
        }))
    }

    /// Whether it has come up.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// Asks this CPU for something, and makes it look if it hasn't been asked already.
    pub fn request(&self, what: u32) {
        // Release: what the request is about is written before it.
        let before = self.requests.fetch_or(what, Ordering::Release);
        if before & what != what && !core::ptr::eq(self, this_cpu()) {
            crate::gic::kick(self);
        }
    }

    /// Takes the requests that have come.
    pub fn take_requests(&self) -> u32 {
        if self.requests.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.requests.swap(0, Ordering::Acquire)
    }

    /// Makes this the PerCpu of the CPU that runs.
    pub fn adopt(&'static self) {
        TPIDR_EL2.set(core::ptr::from_ref(self) as u64);
    }
}

/// Sets the vectors on the CPU that runs.
pub fn set_vectors() {
    unsafe extern "C" {
        static vectors: u8;
    }
    VBAR_EL2.set(core::ptr::addr_of!(vectors) as u64);
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// The boot CPU's PerCpu. Needs the heap.
pub fn init_boot_cpu() {
    let cpu = PerCpu::new(0, crate::cpu::mpidr());
    cpu.adopt();
    set_vectors();
}

/// The CPU that runs.
#[inline]
pub fn this_cpu() -> &'static PerCpu {
    // SAFETY: TPIDR_EL2 is set by `adopt` before anything calls this on a CPU, and to nothing but a leaked PerCpu; guests
    // cannot write it.
    unsafe { &*(TPIDR_EL2.get() as *const PerCpu) }
}

/// What only the CPU that runs may touch.
#[inline]
pub fn own() -> &'static Own {
    &this_cpu().own
}

const STACK_PAGES: u64 = 8;

/// A CPU's stack: its lowest page is the guard.
struct Stack {
    base: u64,
}

static STACKS: Once<Vec<Stack>> = Once::new();

/// All CPUs, the boot CPU first.
pub fn all() -> impl Iterator<Item = &'static PerCpu> {
    CPUS.get().into_iter().flatten().copied()
}

/// The CPU of a number.
pub fn get(index: usize) -> Option<&'static PerCpu> {
    CPUS.get()?.get(index).copied()
}

/// The board's other CPUs, in the tree's order.
fn others<'a>(board: &'a Board<'_>) -> impl Iterator<Item = u64> + 'a {
    let boot = this_cpu().mpidr;
    board.cpus.iter().map(|cpu| cpu.mpidr).filter(move |mpidr| *mpidr != boot)
}

/// Takes memory for the stacks of the board's other CPUs, before EL2's map is made.
///
/// # Errors
/// No memory for a stack.
pub fn plan_stacks(board: &Board<'_>) -> Result<(), crate::memory::FrameError> {
    let mut stacks = Vec::new();
    for _ in others(board) {
        // Twice the size is the next power of two that has room for the guard.
        stacks.push(Stack { base: crate::memory::claim(2 * STACK_PAGES as usize)?.as_u64() });
    }
    STACKS.call_once(|| stacks);
    Ok(())
}

/// Sets out a PerCpu for each of the board's other CPUs. CPUs are numbered in the tree's order, the boot CPU being 0.
pub fn plan(board: &Board<'_>) {
    let mut cpus = Vec::from([this_cpu()]);
    for mpidr in others(board) {
        cpus.push(PerCpu::new(cpus.len(), mpidr));
    }
    CPUS.call_once(|| cpus);
}

/// The pages below the stacks, which are not to be mapped.
pub fn guards() -> impl Iterator<Item = u64> {
    STACKS.get().into_iter().flatten().map(|stack| stack.base)
}

/// The top of the stack of CPU `index`, which isn't the boot CPU.
pub fn stack_top(index: usize) -> Option<u64> {
    let stack = STACKS.get()?.get(index.checked_sub(1)?)?;
    Some(stack.base + 2 * STACK_PAGES * stage2::PAGE_SIZE)
}

/// Whether 16 bytes at this address lie on some stack of EL2's.
pub fn is_on_a_stack(address: u64) -> bool {
    let image = crate::image::layout();
    let within = |start: u64, end: u64| address >= start && address.saturating_add(16) <= end;
    // The boot stack lies in the image; so does the heap's first part, with the boot CPU's crash stack. A crash on another
    // CPU's crash stack ends without a trace.
    within(image.data_start, image.guard)
        || within(image.guard + stage2::PAGE_SIZE, image.end)
        || STACKS.get().into_iter().flatten().any(|stack| {
            within(stack.base + stage2::PAGE_SIZE, stack.base + 2 * STACK_PAGES * stage2::PAGE_SIZE)
        })
}
