//! Programs of a few instructions at EL0, in AArch64 or AArch32: each runs until its first exception, which is its result.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{DAIF, ID_AA64PFR0_EL1};
use spin::Mutex;
use tock_registers::interfaces::{Readable, Writeable};

use crate::exceptions::{Fault, Frame};
use crate::mmu::{self, Kind};
use crate::{cache, cpu};

global_asm!(include_str!("user.S"));

unsafe extern "C" {
    fn runtime_enter_user(registers: *const [u64; 16], pc: u64, pstate: u64);
    safe fn runtime_leave_user();
}

/// The state that a program is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// AArch64.
    A64,
    /// AArch32, A32 instructions.
    A32,
    /// AArch32, T32 instructions.
    T32,
}

impl State {
    /// PSTATE at EL0, interrupts masked.
    fn pstate(self) -> u64 {
        match self {
            Self::A64 => 0x3c0,
            Self::A32 => 0x1d0,
            Self::T32 => 0x1f0,
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The exception.
    pub fault: Fault,
    /// Where in the vector table it came in, in bytes from VBAR_EL1.
    pub vector: u64,
    /// Its general-purpose registers.
    pub x: [u64; 31],
}

static RUNNING: AtomicBool = AtomicBool::new(false);
static ENDED: Mutex<Option<Ended>> = Mutex::new(None);

/// Where programs and devices are for EL0: below 4 GiB, where 32-bit programs reach, in a part of the map with nothing in it.
const CODE: u64 = 0x2000_0000;
const DEVICE: u64 = 0x2020_0000;
const BLOCK: u64 = 2 << 20;

/// Whether EL0 can be in AArch32: ID_AA64PFR0_EL1.EL0.
pub fn has_aarch32() -> bool {
    ID_AA64PFR0_EL1.get() & 0xf == 2
}

/// Maps the code for EL0: its address there.
pub fn map_code<T>(code: &'static T) -> u64 {
    let address = core::ptr::from_ref(code) as u64;
    cache::publish_code(address as usize, size_of::<T>());
    mmu::map_for_el0(CODE, address, Kind::Normal);
    CODE + address % BLOCK
}

/// Maps a device for EL0, or what else is outside RAM, as executable as `kind` says: its address there.
pub fn map_device(physical: u64, kind: Kind) -> u64 {
    mmu::map_for_el0(DEVICE, physical, kind);
    DEVICE + physical % BLOCK
}

/// Takes away what was mapped.
pub fn unmap() {
    mmu::map(CODE, CODE, Kind::Device);
    mmu::map(DEVICE, DEVICE, Kind::Device);
}

/// Runs the program at `pc` with these values in x0 to x15, until it takes an exception. On one CPU at a time.
pub fn run(pc: u64, state: State, registers: &[u64; 16]) -> Ended {
    assert!(!RUNNING.swap(true, Ordering::SeqCst), "there is a program at EL0 already");
    let daif = DAIF.get();
    cpu::mask_irqs();
    // SAFETY: EL0 reaches nothing of the program's but what `map_code` mapped, read-only; the exception that ends it comes back
    // here with the registers that a function keeps.
    unsafe { runtime_enter_user(registers, pc, state.pstate()) };
    DAIF.set(daif);
    ENDED.lock().take().expect("the exception was noted")
}

/// An exception at EL0: ends the program. False: there is none.
pub(crate) fn end(vector: u64, frame: &mut Frame) -> bool {
    /// EL1h, everything masked.
    const EL1H: u64 = 0x3c5;
    if !RUNNING.swap(false, Ordering::SeqCst) {
        return false;
    }
    let Frame { x, elr, spsr, esr, far } = *frame;
    *ENDED.lock() = Some(Ended { fault: Fault { esr, far, elr, spsr }, vector, x });
    frame.elr = runtime_leave_user as *const () as u64;
    frame.spsr = EL1H;
    true
}
