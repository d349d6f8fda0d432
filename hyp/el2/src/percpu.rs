//! What each CPU keeps for itself, reached through TPIDR_EL2.
//!
//! A CPU touches its own [`Own`] only, by [`this_cpu`], so that needs no lock; what other CPUs may reach is in
//! [`PerCpu`] itself and is atomic or locked.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell};
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use aarch64_cpu::registers::{TPIDR_EL2, VBAR_EL2};
use platform::tree::Board;
use spin::Once;
use stage2::{PAGE_SIZE, VmId};
use tock_registers::interfaces::{Readable, Writeable};

use crate::gic::{CpuGic, EndedHere};
use crate::logging::Ring;
use crate::memory::{FrameError, Survey};
use crate::timer::Deadlines;
use crate::vcpu::Vcpu;
use vgic::VcpuId;
use vmm::mitigations::Entry;
use vmm::sched::Queue;
use vmm::smccc::Mitigations;

/// Reasons for which a CPU, mostly another one, wants this one's attention.
pub mod request {
    /// The console has something to do (CPU 0 only).
    pub const CONSOLE: u32 = 1 << 0;
    /// vCPUs here ([`call`](super::PerCpu::call)) must be looked at.
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
    /// How many branches `vectors.s` takes on each way in from a guest, where it does; it reads this as well.
    branches: AtomicU64,
    /// The CPU's number: 0 is the boot CPU, which does the board's housekeeping.
    pub index: usize,
    /// Its affinity.
    pub mpidr: u64,
    /// It has come up.
    pub online: AtomicBool,
    /// What others want of it: bits of [`request`].
    requests: AtomicU32,
    /// Which of the vCPUs here must be looked at, one bit each.
    called: AtomicU64,
    /// The vCPUs that this CPU runs or may run, once VMs are built.
    pub members: Once<Vec<&'static Vcpu>>,
    /// Before what is large, so that it is near enough to be reached by one instruction.
    own: Own,
    /// Log messages that wait for the console.
    pub log: Ring,
}

/// CPUs that have nothing to run, a bit for each. One that is given something is taken out by the giver, or by itself.
pub static IDLE: AtomicU64 = AtomicU64::new(0);

/// Where `vectors.s` finds [`Own::look`], in bytes from the start of a [`PerCpu`].
pub const LOOK: usize = offset_of!(PerCpu, own.look);

/// What only the CPU itself may touch.
pub struct Own {
    /// The vCPU that is loaded.
    pub vcpu: Cell<Option<&'static Vcpu>>,
    /// Which of the members it is, or was last.
    pub member: Cell<usize>,
    /// Which of the vCPUs here is to run; nobody until [`run::enter`](crate::run::enter).
    pub queue: Cell<Option<&'static mut Queue>>,
    /// No vCPU that sleeps here has a timer that is due before this, in ticks.
    pub wakes_at: Cell<u64>,
    /// Before a guest runs here again, it must be seen what this CPU has asked itself for, and whether the VM has stopped, and the queue be asked
    /// whose turn it is.
    pub look: Cell<bool>,
    /// Which vCPU of each VM was last loaded here.
    pub last_loaded: LastLoaded,
    /// The same as [`PerCpu::members`], from [`run::enter`](crate::run::enter) on.
    pub members: Cell<&'static [&'static Vcpu]>,
    /// EL2's timer here.
    pub timer: Deadlines,
    /// Its interrupt controller.
    pub gic: OnceCell<CpuGic>,
    /// List registers whose interrupts EL2 deactivates itself.
    pub ended_here: EndedHere,
    /// It has FEAT_RAS.
    pub has_ras: Cell<bool>,
    /// What guests are told of mitigations here.
    pub mitigations: Cell<Mitigations>,
    /// The SError that is pending here has had its consequences: see [`serror`](crate::serror).
    pub serror_is_judged: Cell<bool>,
}

/// Which vCPU of each VM was last loaded on a CPU, by the VM's slot.
pub struct LastLoaded([Cell<u8>; VmId::COUNT]);

/// Who was loaded before.
pub enum Before {
    /// No vCPU of the VM.
    None,
    /// Another one.
    Other,
}

/// In [`LastLoaded`]: no vCPU.
const NONE_LOADED: u8 = u8::MAX;

impl LastLoaded {
    /// Now it is this one. What it was before, if that was another one.
    #[inline]
    pub fn change(&self, vm: VmId, vcpu: VcpuId) -> Option<Before> {
        let last = self.0.get(usize::from(vm.slot()))?;
        let before = last.get();
        if before == vcpu.0 {
            return None;
        }
        last.set(vcpu.0);
        Some(if before == NONE_LOADED { Before::None } else { Before::Other })
    }

    /// None of this VM was.
    pub fn forget(&self, vm: VmId) {
        if let Some(last) = self.0.get(usize::from(vm.slot())) {
            last.set(NONE_LOADED);
        }
    }
}

// SAFETY: `own`, the only part that isn't Sync, is reached by `this_cpu` alone, which returns the PerCpu of the CPU that
// calls; EL2 runs with interrupts masked, so nothing else runs on that CPU meanwhile.
unsafe impl Sync for PerCpu {}

static CPUS: Once<Vec<&'static PerCpu>> = Once::new();

impl PerCpu {
    fn new(index: usize, mpidr: u64, crash_stack_top: u64) -> &'static Self {
        Box::leak(Box::new(Self {
            crash_stack_top: crash_stack_top as usize,
            branches: AtomicU64::new(0),
            index,
            mpidr,
            online: AtomicBool::new(index == 0),
            requests: AtomicU32::new(0),
            called: AtomicU64::new(0),
            members: Once::new(),
            log: Ring::new(),
            own: Own {
                vcpu: Cell::new(None),
                member: Cell::new(usize::MAX),
                queue: Cell::new(None),
                wakes_at: Cell::new(u64::MAX),
                look: Cell::new(false),
                last_loaded: LastLoaded([const { Cell::new(NONE_LOADED) }; VmId::COUNT]),
                members: Cell::new(&[]),
                timer: Deadlines::new(),
                gic: OnceCell::new(),
                ended_here: EndedHere::new(),
                has_ras: Cell::new(false),
                mitigations: Cell::new(Mitigations::default()),
                serror_is_judged: Cell::new(false),
            },
        }))
    }

    /// Whether it has come up.
    pub fn is_online(&self) -> bool {
        self.online.load(Ordering::Acquire)
    }

    /// Asks this CPU for something, and makes it look if it hasn't been asked already: another one by an interrupt, the one that runs before
    /// a guest runs there again.
    pub fn request(&self, what: u32) {
        // Release: what the request is about is written before it.
        let before = self.requests.fetch_or(what, Ordering::Release);
        if before & what == what {
            return;
        }
        if core::ptr::eq(self, this_cpu()) {
            own().look.set(true);
        } else {
            crate::gic::kick(self);
        }
    }

    /// Asks this CPU to look at the vCPU that is the `member`th of those here.
    pub fn call(&self, member: usize) {
        self.called.fetch_or(1u64.wrapping_shl(member as u32), Ordering::Release);
        self.request(request::SYNC);
    }

    /// Takes the vCPUs that were called.
    pub fn take_called(&self) -> impl Iterator<Item = &'static Vcpu> {
        let mut called = self.called.swap(0, Ordering::Acquire);
        core::iter::from_fn(move || {
            let member = (called != 0).then(|| called.trailing_zeros() as usize)?;
            called &= called.wrapping_sub(1);
            self.member(member)
        })
    }

    /// The `member`th of the vCPUs here.
    pub fn member(&self, member: usize) -> Option<&'static Vcpu> {
        self.members().get(member).copied()
    }

    /// The vCPUs that this CPU runs, and those that may come to it: [`Vcpu::is_here`] tells which of both one is.
    pub fn members(&self) -> &[&'static Vcpu] {
        self.members.get().map_or(&[], |members| members)
    }

    /// Whether requests have come that weren't taken.
    pub fn has_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) != 0
    }

    /// Takes the requests that have come.
    pub fn take_requests(&self) -> u32 {
        if !self.has_requests() {
            return 0;
        }
        self.requests.swap(0, Ordering::Acquire)
    }

    /// Makes this the PerCpu of the CPU that runs.
    pub fn adopt(&'static self) {
        TPIDR_EL2.set(core::ptr::from_ref(self) as u64);
    }
}

/// Sets the vectors on the CPU that runs: those with what its branch predictor needs on each way in from a guest.
pub fn set_vectors(entry: Entry) {
    unsafe extern "C" {
        static vectors: u8;
        static vectors_new_history: u8;
        static vectors_workaround_1: u8;
        static vectors_workaround_3: u8;
    }
    let new_history = |branches: u8| {
        this_cpu().branches.store(branches.into(), Ordering::Relaxed);
        &raw const vectors_new_history
    };
    let table = match entry {
        Entry::Plain => &raw const vectors,
        Entry::Branches(count) => new_history(count),
        // One branch does no harm.
        Entry::ClearHistory => new_history(1),
        Entry::Workaround1 => &raw const vectors_workaround_1,
        Entry::Workaround3 => &raw const vectors_workaround_3,
    };
    VBAR_EL2.set(table as u64);
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// The boot CPU's PerCpu. Needs the heap.
pub fn init_boot_cpu() {
    let cpu = PerCpu::new(0, crate::cpu::mpidr(), crate::image::layout().crash_stack_top);
    cpu.adopt();
    set_vectors(Entry::Plain);
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
    this().1
}

/// Both.
#[inline]
pub fn this() -> (&'static PerCpu, &'static Own) {
    let cpu = this_cpu();
    (cpu, &cpu.own)
}

impl Own {
    /// Does something with this CPU's queue. Nothing that `f` does comes here again; if it did, it would find no queue.
    #[inline]
    pub fn with_queue<R>(&self, f: impl FnOnce(&mut Queue) -> R) -> Option<R> {
        let queue = self.queue.take()?;
        let result = f(queue);
        self.queue.set(Some(queue));
        Some(result)
    }
}

/// Pages that a CPU's two stacks take, with the guard below each.
const STACK_PAGES: u64 = 16;
/// Pages of the crash stack, which lies above the other.
const CRASH_PAGES: u64 = 2;

/// The stacks of a CPU other than the boot CPU: a guard, the stack, a guard, the crash stack.
struct Stack {
    base: u64,
}

impl Stack {
    fn top(&self) -> u64 {
        self.crash_guard()
    }

    fn crash_guard(&self) -> u64 {
        self.crash_top() - (CRASH_PAGES + 1) * PAGE_SIZE
    }

    fn crash_top(&self) -> u64 {
        self.base + STACK_PAGES * PAGE_SIZE
    }
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
pub fn plan_stacks(board: &Board<'_>, survey: &mut Survey) -> Result<(), FrameError> {
    let mut stacks = Vec::new();
    for _ in others(board) {
        stacks.push(Stack { base: survey.claim(STACK_PAGES as usize)?.as_u64() });
    }
    STACKS.call_once(|| stacks);
    Ok(())
}

/// Sets out a PerCpu for each of the board's other CPUs. CPUs are numbered in the tree's order, the boot CPU being 0.
pub fn plan(board: &Board<'_>) {
    let mut cpus = Vec::from([this_cpu()]);
    for (mpidr, stack) in others(board).zip(STACKS.get().into_iter().flatten()) {
        cpus.push(PerCpu::new(cpus.len(), mpidr, stack.crash_top()));
    }
    CPUS.call_once(|| cpus);
}

/// The pages below the stacks, which are not to be mapped.
pub fn guards() -> impl Iterator<Item = u64> {
    STACKS.get().into_iter().flatten().flat_map(|stack| [stack.base, stack.crash_guard()])
}

/// The top of the stack of CPU `index`, which isn't the boot CPU.
pub fn stack_top(index: usize) -> Option<u64> {
    Some(STACKS.get()?.get(index.checked_sub(1)?)?.top())
}

/// Whether 16 bytes at this address lie on some stack of EL2's.
pub fn is_on_a_stack(address: u64) -> bool {
    let within = |(start, end): (u64, u64)| address >= start && address.saturating_add(16) <= end;
    // The boot CPU's stacks are the image's last two writable parts.
    crate::image::layout().writable().into_iter().any(within)
        || STACKS.get().into_iter().flatten().any(|stack| {
            within((stack.base + PAGE_SIZE, stack.top()))
                || within((stack.crash_guard() + PAGE_SIZE, stack.crash_top()))
        })
}
