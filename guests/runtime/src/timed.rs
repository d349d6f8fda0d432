//! How long single instructions and interrupts take, in ticks of the virtual counter, which is read right before and right
//! behind them: no code of the guest's own lies in between. What the readings take themselves, [`nothing`] tells.
//!
//! It measures, and judges nothing. Where a tick is an instruction (QEMU's `-icount shift=0` and a counter of 1 GHz), so is the
//! time.

use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

use abi::{FunctionId, hanok, psci, trng};

use crate::boot::runtime_vectors;
use crate::gic::{self, Version, cpu_register};
use crate::mmio::Mmio;
use crate::{console, cpu};

global_asm!(
    include_str!("timed.S"),
    vectors = sym runtime_vectors,
    iar = const cpu_register::IAR,
    eoir = const cpu_register::EOIR,
);

unsafe extern "C" {
    fn runtime_timed_sgi_v2(readings: *mut [u64; 5], register: usize, value: u64, gicc: usize);
    fn runtime_timed_sgi_v3(readings: *mut [u64; 5], register: usize, value: u64, gicc: usize);
    fn runtime_timed_device_v2(readings: *mut [u64; 5], register: usize, value: u64, gicc: usize);
    fn runtime_timed_device_v3(readings: *mut [u64; 5], register: usize, value: u64, gicc: usize);
    fn runtime_timed_load(readings: *mut [u64; 5], register: usize, _: u64, _: usize);
    fn runtime_timed_timer_spinning_v2(readings: *mut [u64; 5], _: usize, ahead: u64, gicc: usize);
    fn runtime_timed_timer_spinning_v3(readings: *mut [u64; 5], _: usize, ahead: u64, gicc: usize);
    fn runtime_timed_timer_sleeping_v2(readings: *mut [u64; 5], _: usize, ahead: u64, gicc: usize);
    fn runtime_timed_timer_sleeping_v3(readings: *mut [u64; 5], _: usize, ahead: u64, gicc: usize);
}

/// The number of [`Mark::Begin`].
const BEGIN: u16 = 0xbe61;
/// The number of [`Mark::End`].
const END: u16 = 0xe4d5;
/// The number of [`Mark::Told`].
const TOLD: u16 = 0x701d;

/// One instruction between two readings; ticks from one to the other. The readings' registers are such as no call changes.
macro_rules! timed {
    ($instruction:literal $(, $($operands:tt)*)?) => {{
        let (start, end): (u64, u64);
        asm!(
            "isb",
            "mrs x20, cntvct_el0",
            $instruction,
            "isb",
            "mrs x21, cntvct_el0",
            $($($operands)*,)?
            out("x20") start,
            lateout("x21") end,
            options(nostack),
        );
        end - start
    }};
}

/// What marks where rows are, in a trace of the instructions that the CPU executes: `movz xzr, #n`, which changes nothing, and
/// which no compiler has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Rounds of the next row begin.
    Begin,
    /// They have ended.
    End,
    /// All rows have ended, and are told.
    Told,
}

/// Executes a mark. One function, so that each mark is at one address.
#[inline(never)]
pub fn mark(mark: Mark) {
    // SAFETY: these instructions write to no register.
    unsafe {
        match mark {
            Mark::Begin => asm!("movz xzr, #{}", const BEGIN, options(nomem, nostack)),
            Mark::End => asm!("movz xzr, #{}", const END, options(nomem, nostack)),
            Mark::Told => asm!("movz xzr, #{}", const TOLD, options(nomem, nostack)),
        }
    }
}

/// What the two readings take with nothing between them.
pub fn nothing() -> u64 {
    // SAFETY: reads a counter.
    unsafe { timed!("") }
}

/// How many bits TRNG_RND is asked for. Other calls don't look at it.
const BITS: u64 = 192;

/// A call that is answered and has no other effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// PSCI_VERSION.
    PsciVersion,
    /// Hanok's call for who the caller is.
    Identity,
    /// TRNG_RND64, of as many bits as there may be.
    Random,
    /// One that nobody has.
    Unknown,
}

impl Call {
    fn function(self) -> FunctionId {
        match self {
            Self::PsciVersion => psci::VERSION,
            Self::Identity => hanok::IDENTITY,
            Self::Random => trng::RND_64,
            // The last number of the vendor's fast calls: SMCCC has no use for it, and Hanok none.
            Self::Unknown => FunctionId::fast32(abi::Owner::VENDOR_HYPERVISOR, 0xfeff),
        }
    }
}

/// A call by HVC, and what it returned in x0.
pub fn hvc(call: Call) -> (u64, u64) {
    let mut x0 = u64::from(call.function().as_u32());
    // SAFETY: none of these calls changes memory or starts code; what SMCCC lets them clobber is given up.
    let ticks = unsafe { timed!("hvc #0", inout("x0") x0, inout("x1") BITS => _, clobber_abi("C")) };
    (ticks, x0)
}

/// A call by SMC, and what it returned in x0.
pub fn smc(call: Call) -> (u64, u64) {
    let mut x0 = u64::from(call.function().as_u32());
    // SAFETY: as for HVC.
    let ticks = unsafe { timed!("smc #0", inout("x0") x0, inout("x1") BITS => _, clobber_abi("C")) };
    (ticks, x0)
}

/// A read of ID_AA64ISAR0_EL1, one of the registers that HCR_EL2.TID3 traps.
pub fn id_register() -> u64 {
    // SAFETY: reads an identification register.
    unsafe { timed!("mrs {value}, id_aa64isar0_el1", value = out(reg) _) }
}

/// A read of a word of the distributor, at byte `offset`.
pub fn distributor_read(offset: usize) -> u64 {
    load(gic::distributor(), offset)
}

/// A read of the console's flags.
pub fn console_flags() -> u64 {
    load(console::uart(), console::register::FR)
}

/// A byte written to the console. The caller sees to it that there is room.
pub fn console_write(byte: u8) -> u64 {
    let address = console::uart().base() + console::register::DR;
    // SAFETY: these are the UART's registers; what it sends changes no memory.
    unsafe {
        timed!("str {value:w}, [{address}]", value = in(reg) u64::from(byte), address = in(reg) address)
    }
}

fn load(registers: Mmio, offset: usize) -> u64 {
    let address = registers.base() + offset;
    // SAFETY: whoever made `registers` promised that these are device registers; a load changes no memory.
    unsafe { timed!("ldr {value:w}, [{address}]", value = out(reg) _, address = in(reg) address) }
}

/// WFI, with IRQs masked and an interrupt pending, which ends it at once.
pub fn wait_for_pending() -> u64 {
    assert!(cpu::irq_waits(), "there is no interrupt to end the wait");
    // SAFETY: WFI changes no state.
    unsafe { timed!("wfi") }
}

/// Lets whoever shares the CPU go first, by Hanok's call. Returns the time at which this one goes on; in `mark` is the time
/// before, for who runs meanwhile.
pub fn pass(mark: &AtomicU64) -> u64 {
    let end: u64;
    // SAFETY: `mark` is an aligned doubleword that outlives this, and is written to as atomics are. The call changes no memory;
    // what SMCCC lets it clobber is given up. Without `nomem`, so that what was stored before is there for the other one.
    unsafe {
        asm!("dsb sy", "isb", "mrs x20, cntvct_el0", "str x20, [x1]", "hvc #0", "isb", "mrs x20, cntvct_el0",
            inout("x0") u64::from(hanok::YIELD.as_u32()) => _, in("x1") mark.as_ptr(), out("x20") end,
            clobber_abi("C"), options(nostack));
    }
    end
}

/// An interrupt that this CPU has caused, taken and ended: readings of the virtual counter.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// Before the instruction that caused it; of a timer, its deadline.
    pub caused: u64,
    /// By the handler's first instruction.
    pub entered: u64,
    /// When it had been acknowledged and, of a timer, the timer stopped.
    pub acknowledged: u64,
    /// When it had been ended.
    pub ended: u64,
    /// Which it was, as the GIC numbers them.
    pub intid: u32,
}

/// The function that measures, and its operands.
type Measured = unsafe extern "C" fn(*mut [u64; 5], usize, u64, usize);

fn deliver(measured: Measured, register: usize, operand: u64) -> Delivery {
    let [caused, entered, acknowledged, ended, intid] = take_readings(measured, register, operand);
    Delivery { caused, entered, acknowledged, ended, intid: intid as u32 & 0x3ff }
}

/// x8, x10, x11, x12 and x13.
fn take_readings(measured: Measured, register: usize, operand: u64) -> [u64; 5] {
    let gicc = gic::cpu_interface().map_or(0, |registers| registers.base());
    let mut readings = [0; 5];
    // SAFETY: the function keeps to the procedure call standard, uses no stack, writes to `readings` alone, and puts the
    // vector table back. Its handlers change nothing but its own registers.
    cpu::without_irqs(|| unsafe { measured(&raw mut readings, register, operand, gicc) });
    readings
}

/// An SGI (0 to 15) to this CPU itself, which has to be enabled and is handled here, not by the guest's handler. No other
/// interrupt may come meanwhile.
pub fn sgi_to_self(intid: u32) -> Delivery {
    let (register, value) = gic::sgi_write(intid, gic::SgiTarget::Cpu(cpu::index()));
    let measured = match gic::version() {
        Version::V2 => runtime_timed_sgi_v2,
        Version::V3 => runtime_timed_sgi_v3,
    };
    deliver(measured, register, value)
}

/// How the CPU passes the time until its timer's interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// By a loop of one instruction.
    Spinning,
    /// By WFI, with IRQs masked: then they are let in.
    Sleeping,
}

/// The virtual timer's interrupt, which has to be enabled, this many ticks from now; handled as [`sgi_to_self`]'s.
pub fn virtual_timer(ahead: u64, until: Until) -> Delivery {
    let measured = match (gic::version(), until) {
        (Version::V2, Until::Spinning) => runtime_timed_timer_spinning_v2,
        (Version::V2, Until::Sleeping) => runtime_timed_timer_sleeping_v2,
        (Version::V3, Until::Spinning) => runtime_timed_timer_spinning_v3,
        (Version::V3, Until::Sleeping) => runtime_timed_timer_sleeping_v3,
    };
    deliver(measured, 0, ahead)
}

/// The interrupt of a device, which a store of `value` to `register` raises and one of 0 takes back. It has to be enabled, and is
/// handled as [`sgi_to_self`]'s.
pub fn device(registers: Mmio, register: usize, value: u32) -> Delivery {
    let measured = match gic::version() {
        Version::V2 => runtime_timed_device_v2,
        Version::V3 => runtime_timed_device_v3,
    };
    deliver(measured, registers.base() + register, u64::from(value))
}

/// A load that faults.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The virtual counter before it.
    pub caused: u64,
    /// The counter at the handler's first instruction; 0 if there was no fault.
    pub entered: u64,
    /// ESR_EL1.
    pub esr: u64,
}

/// A load of a word from an address that should have nothing.
pub fn faulting_load(address: usize) -> Fault {
    let [caused, _, _, entered, esr] = take_readings(runtime_timed_load, address, 0);
    Fault { caused, entered, esr }
}
