//! The vector table's Rust side: interrupts go to the guest's handler, expected faults are recorded and stepped
//! over, anything else ends the guest with a report of the registers.

use core::arch::global_asm;
use core::fmt;
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::machine::MAX_CPUS;
use crate::{cpu, interrupts, power, println, user};

global_asm!(
    include_str!("vectors.S"),
    frame_size = const size_of::<Frame>(),
    handler = sym exception,
);

/// The registers of the interrupted code. What a handler changes here is what the code goes on with.
#[repr(C, align(16))]
#[derive(Debug)]
pub struct Frame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// ELR_EL1: where to return to.
    pub elr: u64,
    /// SPSR_EL1: the state to return to.
    pub spsr: u64,
    /// ESR_EL1; of no meaning for interrupts.
    pub esr: u64,
    /// FAR_EL1; of meaning for aborts, alignment faults and watchpoints.
    pub far: u64,
}

// The assembly stores pairs at these places.
const _: () = assert!(offset_of!(Frame, elr) == 248 && offset_of!(Frame, far) == 272);

/// What a synchronous exception left in the system registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1.
    pub far: u64,
    /// ELR_EL1: the instruction that faulted.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
}

impl Fault {
    /// ESR_EL1.EC: the exception class (Arm ARM D24.2.40).
    pub fn class(&self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// ESR_EL1.ISS: what the class says about its cause, 25 bits.
    pub fn syndrome(&self) -> u64 {
        self.esr & 0x1ff_ffff
    }

    /// DFSC or IFSC of an abort: the fault status code.
    pub fn status(&self) -> u64 {
        self.esr & 0x3f
    }

    /// Whether this is a data abort of EL1 itself with the status code of a synchronous external abort.
    pub fn is_external_abort(&self) -> bool {
        self.class() == class::DATA_ABORT && self.status() == status::EXTERNAL_ABORT
    }

    /// Whether the instruction was UNDEFINED.
    pub fn is_undefined(&self) -> bool {
        self.class() == class::UNKNOWN && self.syndrome() == 0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ESR {:#x} (EC {:#x}), FAR {:#x}, ELR {:#x}", self.esr, self.class(), self.far, self.elr)
    }
}

/// Exception classes, ESR_ELx.EC.
pub mod class {
    /// An UNDEFINED instruction, or one with no class of its own.
    pub const UNKNOWN: u64 = 0x00;
    /// Access to FP or SIMD registers while CPACR_EL1 traps it.
    pub const FP_TRAP: u64 = 0x07;
    /// SVC from AArch32.
    pub const SVC_AARCH32: u64 = 0x11;
    /// SVC from AArch64.
    pub const SVC_AARCH64: u64 = 0x15;
    /// Trapped MSR, MRS or system instruction.
    pub const SYSTEM_REGISTER: u64 = 0x18;
    /// Instruction abort of EL0.
    pub const INSTRUCTION_ABORT_OF_EL0: u64 = 0x20;
    /// Data abort of EL0.
    pub const DATA_ABORT_OF_EL0: u64 = 0x24;
    /// Instruction abort without a change of exception level.
    pub const INSTRUCTION_ABORT: u64 = 0x21;
    /// Data abort without a change of exception level.
    pub const DATA_ABORT: u64 = 0x25;
    /// BRK instruction.
    pub const BREAKPOINT: u64 = 0x3c;
}

/// Fault status codes, ESR_ELx.DFSC and IFSC.
pub mod status {
    /// Synchronous external abort, not on a translation table walk.
    pub const EXTERNAL_ABORT: u64 = 0x10;
    /// Synchronous external abort on a translation table walk; the level is added.
    pub const EXTERNAL_ABORT_ON_WALK: u64 = 0x14;
    /// Alignment fault.
    pub const ALIGNMENT: u64 = 0x21;
}

/// A handler of unexpected synchronous exceptions. It returns whether it dealt with this one.
pub type SynchronousHandler = fn(&mut Frame) -> bool;

static SYNCHRONOUS: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Makes `handler` the one that is asked about synchronous exceptions nobody expects; `None` takes it away.
pub fn set_synchronous_handler(handler: Option<SynchronousHandler>) {
    SYNCHRONOUS.store(handler.map_or(core::ptr::null_mut(), |f| f as *mut ()), Ordering::Release);
}

/// Per CPU: whether faults are expected, and the first that came.
struct Expectation {
    armed: AtomicBool,
    count: AtomicU64,
    esr: AtomicU64,
    far: AtomicU64,
    elr: AtomicU64,
    spsr: AtomicU64,
}

static EXPECTED: [Expectation; MAX_CPUS] = [const {
    Expectation {
        armed: AtomicBool::new(false),
        count: AtomicU64::new(0),
        esr: AtomicU64::new(0),
        far: AtomicU64::new(0),
        elr: AtomicU64::new(0),
        spsr: AtomicU64::new(0),
    }
}; MAX_CPUS];

/// Runs `body`, in which synchronous exceptions are expected: each is recorded and its instruction skipped (for an
/// instruction abort: the call that led there returns). Returns the first fault, if there was one, beside the
/// body's result. Not to be nested.
pub fn catch<R>(body: impl FnOnce() -> R) -> (R, Option<Fault>) {
    let (result, faults) = catch_counted(body);
    (result, faults.map(|(first, _)| first))
}

/// As [`catch`], with the number of faults beside the first one.
pub fn catch_counted<R>(body: impl FnOnce() -> R) -> (R, Option<(Fault, u64)>) {
    let expected = &EXPECTED[cpu::index()];
    assert!(!expected.armed.swap(true, Ordering::SeqCst), "exceptions::catch is nested");
    expected.count.store(0, Ordering::SeqCst);
    let result = body();
    expected.armed.store(false, Ordering::SeqCst);
    let count = expected.count.load(Ordering::SeqCst);
    let first = (count > 0).then(|| Fault {
        esr: expected.esr.load(Ordering::Relaxed),
        far: expected.far.load(Ordering::Relaxed),
        elr: expected.elr.load(Ordering::Relaxed),
        spsr: expected.spsr.load(Ordering::Relaxed),
    });
    (result, first.map(|fault| (fault, count)))
}

/// Kind and origin of an exception, by its place in the vector table (Arm ARM D1.4.1).
const CURRENT_SPX: u64 = 4;
const LOWER_AARCH64: u64 = 8;
const LOWER_AARCH32: u64 = 12;
const SYNCHRONOUS_KIND: u64 = 0;
const IRQ_KIND: u64 = 1;

extern "C" fn exception(index: u64, frame: &mut Frame) {
    match (index & !3, index & 3) {
        (CURRENT_SPX, IRQ_KIND) => interrupts::dispatch(),
        (CURRENT_SPX, SYNCHRONOUS_KIND) if expected(frame) || handled(frame) => {}
        (LOWER_AARCH64 | LOWER_AARCH32, SYNCHRONOUS_KIND) if user::end(index * 0x80, frame) => {}
        _ => die(index, frame),
    }
}

/// Records a fault that somebody waits for and moves past it.
fn expected(frame: &mut Frame) -> bool {
    let expected = &EXPECTED[cpu::index()];
    if !expected.armed.load(Ordering::SeqCst) {
        return false;
    }
    if expected.count.fetch_add(1, Ordering::SeqCst) == 0 {
        expected.esr.store(frame.esr, Ordering::Relaxed);
        expected.far.store(frame.far, Ordering::Relaxed);
        expected.elr.store(frame.elr, Ordering::Relaxed);
        expected.spsr.store(frame.spsr, Ordering::Relaxed);
    }
    // There is no next instruction where none could be fetched: return to the caller instead.
    let class = frame.esr >> 26 & 0x3f;
    frame.elr = if class == class::INSTRUCTION_ABORT { frame.x[30] } else { frame.elr.wrapping_add(4) };
    true
}

fn handled(frame: &mut Frame) -> bool {
    let handler = SYNCHRONOUS.load(Ordering::Acquire);
    if handler.is_null() {
        return false;
    }
    // SAFETY: the only non-null values ever stored are of this type (`set_synchronous_handler`).
    let handler = unsafe { core::mem::transmute::<*mut (), SynchronousHandler>(handler) };
    handler(frame)
}

fn die(index: u64, frame: &Frame) -> ! {
    const KIND: [&str; 4] = ["synchronous exception", "IRQ", "FIQ", "SError"];
    const FROM: [&str; 4] = ["EL1t", "EL1h", "AArch64 EL0", "AArch32 EL0"];
    let (kind, from) = (KIND[index as usize & 3], FROM[index as usize >> 2 & 3]);
    println!("guest: unexpected {kind} from {from} on CPU {}", cpu::index());
    println!(
        "  ELR {:#018x}  SPSR {:#010x}  ESR {:#010x}  FAR {:#018x}",
        frame.elr, frame.spsr, frame.esr, frame.far
    );
    for (n, row) in frame.x.chunks(4).enumerate() {
        for (m, value) in row.iter().enumerate() {
            crate::print!("  x{:<2} {value:#018x}", 4 * n + m);
        }
        println!();
    }
    power::give_up()
}
