//! The console: a PL011, or the part of it that is an SBSA Generic UART, polled. Interrupts of the UART are left to guests that
//! want them.

use core::fmt::{self, Write};

use spin::{Mutex, Once};

use crate::mmio::Mmio;
use crate::{cpu, machine};

/// Offsets of the registers (Arm DDI 0183, chapter 3).
pub mod register {
    /// Data.
    pub const DR: usize = 0x00;
    /// Flags.
    pub const FR: usize = 0x18;
    /// Integer part of the baud rate divisor.
    pub const IBRD: usize = 0x24;
    /// Fraction of the baud rate divisor.
    pub const FBRD: usize = 0x28;
    /// Line control.
    pub const LCR_H: usize = 0x2c;
    /// Control.
    pub const CR: usize = 0x30;
    /// Interrupt FIFO levels.
    pub const IFLS: usize = 0x34;
    /// Interrupt mask: a set bit lets the interrupt through.
    pub const IMSC: usize = 0x38;
    /// Raw interrupt status.
    pub const RIS: usize = 0x3c;
    /// Masked interrupt status.
    pub const MIS: usize = 0x40;
    /// Interrupt clear.
    pub const ICR: usize = 0x44;
}

/// FR: the receive FIFO is empty.
pub const RXFE: u32 = 1 << 4;
/// FR: the transmit FIFO is full.
pub const TXFF: u32 = 1 << 5;
/// FR: the transmit FIFO is empty.
pub const TXFE: u32 = 1 << 7;
/// Interrupt bit: receive FIFO at its level.
pub const RX: u32 = 1 << 4;
/// Interrupt bit: transmit FIFO at its level.
pub const TX: u32 = 1 << 5;
/// Interrupt bit: data waits in the receive FIFO below its level.
pub const RECEIVE_TIMEOUT: u32 = 1 << 6;

static UART: Once<Mmio> = Once::new();
static LOCK: Mutex<()> = Mutex::new(());

/// Finds the UART and sets it up.
pub(crate) fn init() {
    // SAFETY: the tree names these as the registers of a UART of this kind, and RAM doesn't overlap them.
    UART.call_once(|| unsafe { Mmio::new(machine().uart.registers.base as usize) });
    set_up();
}

/// Sets the UART up, whatever was done to it: 8 bits, FIFOs on, no interrupts. Panics before the console is there.
pub fn set_up() {
    let uart = uart();
    uart.write32(register::IMSC, 0);
    uart.write32(register::ICR, 0x7ff);
    if machine().uart_is_sbsa {
        return;
    }
    uart.write32(register::LCR_H, 3 << 5 | 1 << 4);
    uart.write32(register::CR, 1 << 9 | 1 << 8 | 1);
}

/// The UART's registers. Panics before the console is there.
pub fn uart() -> Mmio {
    *UART.get().expect("the console has been set up")
}

/// Takes a byte that has arrived, if there is one.
pub fn read_byte() -> Option<u8> {
    let uart = UART.get()?;
    (uart.read32(register::FR) & RXFE == 0).then(|| uart.read32(register::DR) as u8)
}

/// Sends one byte, after waiting for room.
pub fn write_byte(byte: u8) {
    let Some(uart) = UART.get() else { return };
    while uart.read32(register::FR) & TXFF != 0 {
        core::hint::spin_loop();
    }
    uart.write32(register::DR, u32::from(byte));
}

struct Writer;

impl Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                write_byte(b'\r');
            }
            write_byte(byte);
        }
        Ok(())
    }
}

/// Prints, whole and unmixed with what other CPUs print. What [`print!`](crate::print) calls.
pub fn print(arguments: fmt::Arguments) {
    // An interrupt handler that prints must not find the lock taken by what it interrupted.
    cpu::without_irqs(|| {
        let _guard = LOCK.lock();
        // `Writer` never fails.
        let _ = Writer.write_fmt(arguments);
    });
}

/// For the last words of a panic: whoever holds the lock won't be heard again.
pub(crate) fn break_lock() {
    // SAFETY: at worst two CPUs print at once; the lock guards nothing else.
    unsafe { LOCK.force_unlock() };
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => { $crate::console::print(format_args!($($argument)*)) };
}

/// Prints a line to the console.
#[macro_export]
macro_rules! println {
    () => { $crate::console::print(format_args!("\n")) };
    ($($argument:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($argument)*))) };
}
