//! Trials: a few instructions with any registers, in any state of this CPU that EL1 can bring it to, and a way back that
//! needs none of what they may have destroyed: translation, exception vectors, stack, masks, debug state.
//!
//! The program is a step that is called again and again ([`begin`]): it hears how the last trial ended, and sets the next one
//! up. It keeps nothing on a stack between two. Every exception ends a trial, interrupts too, and whatever a trial's
//! instructions don't do to fetching these vectors' own instructions is put right again. What they do to that, or to the program's
//! own memory, nobody here puts right: the VM then hangs, or goes on wrongly, until somebody restarts it. Rust's rules end
//! where a trial begins.
//!
//! Code and data of each CPU's trials are in pages of their own, in a gigabyte where nothing else is: code in one page that
//! is only read and executed, at EL1 and at EL0, and a few that are read and written.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::machine::{Conduit, MAX_CPUS};
use crate::mmu::{self, Table};
use crate::random::mix;
use crate::{cache, cpu, smp};

/// The gigabyte of the pages: near enough for AArch32, and for both forms of branch to reach nothing else.
const BASE: u64 = 3 << 30;
/// What lies between the pages of two CPUs.
const STRIDE: u64 = 2 << 20;
const PAGE: u64 = 4 << 10;
/// Places of the pages in that: holes are before, between and behind.
const CODE_PLACE: u64 = 0x100;
const DATA_PLACE: u64 = 0x110;
/// How many pages of data there are.
pub const DATA_PAGES: usize = 2;

/// Bytes of what each CPU has for itself, its stack included.
const CELL_SIZE: usize = 8 << 10;
const ASID: u64 = 2;
/// What makes an address of the lower half, which TTBR0_EL1 translates, the same one in the upper half, by TTBR1_EL1.
pub const UPPER_HALF: u64 = 0xffff_ff80_0000_0000;
/// TCR_EL1 while no trial runs: both halves as the runtime has the lower one.
pub const TCR: u64 =
    25 | 1 << 8 | 1 << 10 | 3 << 12 | 25 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 | 2 << 32;
/// [`Ended::vector`] of a CPU that has just been started.
const FRESH: u64 = 16;

/// PSTATE of EL1 with its own stack pointer, IRQs let in.
pub const EL1H: u64 = 0x345;
/// PSTATE of EL1 with EL0's stack pointer, IRQs let in.
pub const EL1T: u64 = 0x344;
/// PSTATE of EL0, IRQs let in.
pub const EL0: u64 = 0x340;
/// PSTATE of AArch32's User mode, IRQs let in.
pub const USER_A32: u64 = 0x150;
/// As [`USER_A32`], for T32.
pub const USER_T32: u64 = 0x170;

global_asm!(
    include_str!("trial.S"),
    sctlr = const mmu::SCTLR,
    tcr = const TCR,
    mair = const mmu::MAIR,
    root = sym ROOT,
    asid = const ASID,
    fresh = const FRESH,
    cpu_mask = const MAX_CPUS - 1,
    cells = sym CELLS,
    cell_shift = const CELL_SIZE.ilog2(),
    cell_size = const CELL_SIZE,
    over = sym over,
    ended = const offset_of!(Cell, ended),
    half = const offset_of!(Trial, half),
    pc = const offset_of!(Trial, pc),
    sp = const offset_of!(Trial, sp_el1),
    ttbr0 = const offset_of!(Trial, ttbr0),
    mdscr = const offset_of!(Trial, mdscr),
);

unsafe extern "C" {
    safe fn runtime_trial_entry() -> !;
    fn runtime_trial_launch(cell: *const Cell) -> !;
}

/// What the next trial begins with. [`begin`]'s step finds in it what the last one began with.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Trial {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where it begins.
    pub pc: u64,
    /// Its PSTATE, as SPSR_EL1 has it; what is illegal there ends it at once.
    pub pstate: u64,
    /// SP_EL1.
    pub sp_el1: u64,
    /// SP_EL0.
    pub sp_el0: u64,
    /// TTBR0_EL1.
    pub ttbr0: u64,
    /// TCR_EL1. Its upper half has to be [`TCR`]'s for a trial [in the upper half](Self::in_upper_half).
    pub tcr: u64,
    /// MDSCR_EL1.
    pub mdscr: u64,
    /// [`UPPER_HALF`], or 0.
    half: u64,
}

/// How a trial has ended.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The exception's place in the vector table, 0 to 15; 16 if there was no trial, for this CPU has just begun.
    pub vector: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

impl Ended {
    /// This CPU has just begun.
    pub fn is_beginning(&self) -> bool {
        self.vector == FRESH
    }

    /// Whether an interrupt has ended it, or an SError: 1 is an IRQ, 2 an FIQ, 3 an SError, and 0 none of these.
    pub fn interrupt(&self) -> u64 {
        if self.is_beginning() { 0 } else { self.vector & 3 }
    }

    /// ESR_EL1.EC: the class of the synchronous exception that has ended it.
    pub fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }
}

/// What each CPU has for itself; its stack is the rest of the room.
#[repr(C)]
struct Cell {
    trial: Trial,
    ended: Ended,
}

#[repr(C, align(8192))]
struct Room(UnsafeCell<[u8; CELL_SIZE]>);

// SAFETY: each CPU uses its own.
unsafe impl Sync for Room {}

static CELLS: [Room; MAX_CPUS] = [const { Room(UnsafeCell::new([0; CELL_SIZE])) }; MAX_CPUS];

/// The table in use, for both halves; and those of the gigabyte with the pages.
static ROOT: Table = Table::empty();
static GIGABYTE: Table = Table::empty();
static PAGES: [Table; MAX_CPUS] = [const { Table::empty() }; MAX_CPUS];

#[repr(C, align(4096))]
struct Code([AtomicU32; 1024]);

#[repr(C, align(4096))]
struct Data([AtomicU64; 512 * DATA_PAGES]);

static CODE: [Code; MAX_CPUS] = [const { Code([const { AtomicU32::new(0) }; 1024]) }; MAX_CPUS];
static DATA: [Data; MAX_CPUS] = [const { Data([const { AtomicU64::new(0) }; 512 * DATA_PAGES]) }; MAX_CPUS];

/// A step: how the last trial ended, and room for the next one.
pub type Step = fn(&Ended, &mut Trial);

static STEP: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Whether each CPU is in its step: an exception from there is the program's own.
static IN_STEP: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];
/// How many such there were.
static OWN_FAULTS: AtomicU64 = AtomicU64::new(0);

/// Makes trials from now on, on this CPU: `step` sets each of them up. Other CPUs join in when CPU_ON starts them at
/// [`entry`].
pub fn begin(step: Step) -> ! {
    const AF: u64 = 1 << 10;
    const NG: u64 = 1 << 11;
    const INNER_SHAREABLE: u64 = 3 << 8;
    const EL0: u64 = 1 << 6;
    const READ_ONLY: u64 = 1 << 7;
    const NEVER_EXECUTE: u64 = 3 << 53;
    // All but RAM is open to EL0 as well.
    for (entry, runtimes) in ROOT.entries().iter().zip(mmu::runtimes_table()) {
        let entry_is_block = runtimes & 0b11 == 0b01;
        entry.store(runtimes | if entry_is_block { EL0 } else { 0 }, Ordering::Relaxed);
    }
    ROOT.entries()[(BASE >> 30) as usize].store(GIGABYTE.address() | 0b11, Ordering::Relaxed);
    for (cpu, table) in PAGES.iter().enumerate() {
        GIGABYTE.entries()[cpu].store(table.address() | 0b11, Ordering::Relaxed);
        let page = 0b11 | AF | NG | INNER_SHAREABLE | EL0;
        let code = &raw const CODE[cpu] as u64;
        table.entries()[CODE_PLACE as usize].store(code | page | READ_ONLY, Ordering::Relaxed);
        for n in 0..DATA_PAGES as u64 {
            let data = data_in_memory(cpu) + n * PAGE;
            let entry = &table.entries()[(DATA_PLACE + n) as usize];
            entry.store(data | page | NEVER_EXECUTE, Ordering::Relaxed);
        }
    }
    STEP.store(step as *mut (), Ordering::Release);
    cpu::synchronize();
    runtime_trial_entry()
}

/// Where CPU_ON starts a CPU that is to join in.
pub fn entry() -> u64 {
    runtime_trial_entry as extern "C" fn() -> ! as usize as u64
}

/// Starts the CPU with this affinity, to join in; what CPU_ON says.
pub fn start(conduit: Conduit, affinity: u64) -> i64 {
    smp::cpu_on(conduit, affinity, entry(), 0)
}

/// How often an exception came from a step and not from a trial, on all CPUs.
pub fn own_faults() -> u64 {
    OWN_FAULTS.load(Ordering::Relaxed)
}

/// Where every trial ends.
extern "C" fn over(cell: *mut Cell) -> ! {
    let this = cpu::index();
    // SAFETY: it is this CPU's, and nobody else has a reference to it: the last one ended with the last step.
    let cell = unsafe { &mut *cell };
    if IN_STEP[this].swap(true, Ordering::Relaxed) && !cell.ended.is_beginning() {
        OWN_FAULTS.fetch_add(1, Ordering::Relaxed);
    }
    let step = STEP.load(Ordering::Acquire);
    // SAFETY: `begin` stored a function of this type before any CPU came here.
    let step = unsafe { core::mem::transmute::<*mut (), Step>(step) };
    step(&cell.ended, &mut cell.trial);
    IN_STEP[this].store(false, Ordering::Relaxed);
    // SAFETY: the trial ends in `over`, with a fresh stack. What it does meanwhile to what Rust knows is told above.
    unsafe { runtime_trial_launch(cell) }
}

impl Trial {
    /// A trial of these instructions, 15 at most, with these registers, at the exception level and in the state that `pstate` tells.
    /// Behind them, there is a BRK.
    pub fn prepare(&mut self, code: &[u32], x: [u64; 31], pstate: u64) {
        const BRK: u32 = 0xd420_0000;
        /// The room for a trial's code, in words. Which one it gets follows from the code, so that what comes again and again is
        /// there already.
        const ROOM: usize = 16;
        const ROOMS: u64 = 1024 / ROOM as u64;
        let cpu = cpu::index();
        let all = || code.iter().copied().chain([BRK]);
        let room = all().fold(0, |hash, word| mix(hash ^ u64::from(word))) % ROOMS;
        let words = &CODE[cpu].0[room as usize * ROOM..][..ROOM];
        let changed = || words.iter().zip(all()).filter(|(word, code)| word.load(Ordering::Relaxed) != *code);
        if changed().count() > 0 {
            changed().for_each(|(word, code)| word.store(code, Ordering::Relaxed));
            cache::publish_code(words.as_ptr().addr(), 4 * ROOM);
        }
        *self = Self {
            x,
            pc: page(cpu, CODE_PLACE) + 4 * ROOM as u64 * room,
            pstate,
            sp_el1: data_end(),
            sp_el0: data_end(),
            ttbr0: &raw const ROOT as u64 | ASID << 48,
            tcr: TCR,
            mdscr: 0,
            half: 0,
        };
    }

    /// The same in the upper half, vectors included, so that nothing of it needs what TTBR0_EL1 translates.
    pub fn in_upper_half(&mut self) {
        self.half = UPPER_HALF;
        self.pc |= UPPER_HALF;
        self.sp_el1 |= UPPER_HALF;
        self.sp_el0 |= UPPER_HALF;
    }
}

fn page(cpu: usize, place: u64) -> u64 {
    BASE + cpu as u64 * STRIDE + place * PAGE
}

/// The first of this CPU's data, as trials see it.
pub fn data() -> u64 {
    page(cpu::index(), DATA_PLACE)
}

/// Behind the last of them.
pub fn data_end() -> u64 {
    data() + DATA_PAGES as u64 * PAGE
}

/// This CPU's page of code, as trials see it.
pub fn code() -> u64 {
    page(cpu::index(), CODE_PLACE)
}

/// This CPU's data, to fill them between trials.
pub fn data_words() -> &'static [AtomicU64] {
    &DATA[cpu::index()].0
}

fn data_in_memory(cpu: usize) -> u64 {
    DATA[cpu].0.as_ptr().addr() as u64
}

/// Where this CPU's data are in memory: their intermediate physical address.
pub fn data_address() -> u64 {
    data_in_memory(cpu::index())
}

/// Where this CPU's code is in memory.
pub fn code_address() -> u64 {
    CODE[cpu::index()].0.as_ptr().addr() as u64
}
