//! Self-hosted debug of the CPU that runs (Arm ARM D2): the OS lock, a breakpoint, a watchpoint, software step.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{DAIF, ID_AA64DFR0_EL1, MDSCR_EL1};
use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};

use crate::cpu;
use crate::exceptions::{Fault, Frame, catch, set_synchronous_handler};

global_asm!(include_str!("debug.S"));

unsafe extern "C" {
    safe fn runtime_debug_target();
    fn runtime_debug_steps(x0: u64, call: u64);
}

/// OSLSR_EL1.OSLK: the lock is closed.
const OSLK: u64 = 1 << 1;
/// MDSCR_EL1: SS, software step; KDE, at EL1 too; MDE, breakpoints and watchpoints.
const SS: u64 = 1;
const KDE: u64 = 1 << 13;
const MDE: u64 = 1 << 15;
/// SPSR_EL1: D, debug exceptions are masked; SS, one instruction before the next step.
const SPSR_D: u64 = 1 << 9;
const SPSR_SS: u64 = 1 << 21;
/// Breakpoint and watchpoint control: at EL1, enabled.
const AT_EL1: u64 = 0b01 << 1 | 1;
/// Breakpoint control: all four bytes of the instruction.
const WHOLE_INSTRUCTION: u64 = 0xf << 5;
/// Watchpoint control: all eight bytes, loads and stores.
const WHOLE_WORD: u64 = 0xff << 5 | 0b11 << 3;

/// OSLSR_EL1.
pub fn lock_status() -> u64 {
    let value: u64;
    // SAFETY: reading it changes nothing.
    unsafe { asm!("mrs {}, oslsr_el1", out(reg) value, options(nostack)) };
    value
}

/// Whether the OS lock is closed.
pub fn is_locked() -> bool {
    lock_status() & OSLK != 0
}

/// Closes or opens the OS lock.
pub fn lock(closed: bool) {
    // SAFETY: nothing in the program rests on debug exceptions.
    unsafe { asm!("msr oslar_el1, {}", in(reg) u64::from(closed), options(nostack)) };
    cpu::synchronize();
}

/// ID_AA64DFR0_EL1.DoubleLock: 0xf where there is no double lock.
pub fn double_lock_field() -> u64 {
    ID_AA64DFR0_EL1.get() >> 36 & 0xf
}

/// OSDLR_EL1, the double lock.
pub fn double_lock() -> u64 {
    let value: u64;
    // SAFETY: reading it changes nothing.
    unsafe { asm!("mrs {}, osdlr_el1", out(reg) value, options(nostack)) };
    value
}

/// Closes or opens the double lock.
pub fn lock_twice(closed: bool) {
    // SAFETY: as for the OS lock.
    unsafe { asm!("msr osdlr_el1, {}", in(reg) u64::from(closed), options(nostack)) };
    cpu::synchronize();
}

/// Runs `body` with debug exceptions from EL1 let in, by these bits of MDSCR_EL1, faults being caught.
fn with_events(mdscr: u64, body: impl FnOnce()) -> Option<Fault> {
    let (_, fault) = catch(|| {
        MDSCR_EL1.set(mdscr);
        let masks = DAIF.get();
        DAIF.modify(DAIF::D::Unmasked);
        cpu::synchronize();
        body();
        DAIF.set(masks);
        MDSCR_EL1.set(0);
        cpu::synchronize();
    });
    fault
}

/// Calls a function with a breakpoint at its first instruction: what comes of it, and where the function is.
pub fn call_with_breakpoint() -> (Option<Fault>, u64) {
    let target = runtime_debug_target as *const () as u64;
    set_breakpoint(target, AT_EL1 | WHOLE_INSTRUCTION);
    let fault = with_events(MDE | KDE, || runtime_debug_target());
    set_breakpoint(0, 0);
    (fault, target)
}

/// Reads a word that is watched: what comes of it, and where the word is.
pub fn read_watched() -> (Option<Fault>, u64) {
    static WORD: AtomicU64 = AtomicU64::new(0);
    let address = WORD.as_ptr().addr() as u64;
    set_watchpoint(address, AT_EL1 | WHOLE_WORD);
    let fault = with_events(MDE | KDE, || {
        core::hint::black_box(WORD.load(Ordering::Relaxed));
    });
    set_watchpoint(0, 0);
    (fault, address)
}

fn set_breakpoint(value: u64, control: u64) {
    // SAFETY: breakpoints change nothing but that they make exceptions.
    unsafe {
        asm!("msr dbgbvr0_el1, {}", "msr dbgbcr0_el1, {}", in(reg) value, in(reg) control, options(nostack));
    }
    cpu::synchronize();
}

fn set_watchpoint(value: u64, control: u64) {
    // SAFETY: as breakpoints.
    unsafe {
        asm!("msr dbgwvr0_el1, {}", "msr dbgwcr0_el1, {}", in(reg) value, in(reg) control, options(nostack));
    }
    cpu::synchronize();
}

/// Instructions that a step was taken to, as offsets in instructions from the one that started it.
static STEPS: [AtomicUsize; 16] = [const { AtomicUsize::new(0) }; 16];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static START: AtomicU64 = AtomicU64::new(0);

/// Starts a step behind BRK #0x57, notes where each one ends, and stops behind BRK #0x58.
fn step(frame: &mut Frame) -> bool {
    const SOFTWARE_STEP: u64 = 0x33;
    const BRK: u64 = 0x3c;
    match (frame.esr >> 26 & 0x3f, frame.esr & 0xffff) {
        (BRK, 0x57) => {
            START.store(frame.elr, Ordering::Relaxed);
            MDSCR_EL1.set(KDE | SS);
            frame.elr = frame.elr.wrapping_add(4);
            frame.spsr = frame.spsr & !SPSR_D | SPSR_SS;
        }
        (BRK, 0x58) => {
            MDSCR_EL1.set(0);
            frame.elr = frame.elr.wrapping_add(4);
            frame.spsr = frame.spsr & !SPSR_SS | SPSR_D;
        }
        (SOFTWARE_STEP, _) => {
            let offset = frame.elr.wrapping_sub(START.load(Ordering::Relaxed)) / 4;
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            if let Some(step) = STEPS.get(n) {
                step.store(offset as usize, Ordering::Relaxed);
            }
            frame.spsr |= SPSR_SS;
        }
        _ => return false,
    }
    true
}

/// Steps through `debug.S`'s instructions with a call (HVC, of PSCI_VERSION) or without: where each step ended, as offsets in instructions
/// from the BRK.
pub fn steps(call: bool) -> impl Iterator<Item = usize> {
    COUNT.store(0, Ordering::Relaxed);
    set_synchronous_handler(Some(step));
    let x0 = u64::from(abi::psci::VERSION.as_u32());
    // SAFETY: the function keeps to the procedure call standard: SMCCC's calls leave x4 to x17 at most changed beside results.
    unsafe { runtime_debug_steps(x0, u64::from(call)) };
    set_synchronous_handler(None);
    let count = COUNT.load(Ordering::Relaxed).min(STEPS.len());
    STEPS.iter().take(count).map(|step| step.load(Ordering::Relaxed))
}
