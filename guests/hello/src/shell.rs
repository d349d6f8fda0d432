//! What one can type: a line at a time, echoed, with backspace. Input comes by interrupt.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use runtime::console::{self, RECEIVE_TIMEOUT, RX, register};
use runtime::gic::{self, Interrupt};
use runtime::{machine, power, print, println, timer};

/// Bytes between the interrupt handler and the shell, both on the boot CPU.
struct Ring {
    bytes: [AtomicU8; SIZE],
    /// Bytes ever put in, and ever taken out.
    put: AtomicUsize,
    taken: AtomicUsize,
}

const SIZE: usize = 256;

static RING: Ring =
    Ring { bytes: [const { AtomicU8::new(0) }; SIZE], put: AtomicUsize::new(0), taken: AtomicUsize::new(0) };

impl Ring {
    /// Puts a byte in. What doesn't fit is lost, as on a terminal whose reader is too slow.
    fn put(&self, byte: u8) {
        let put = self.put.load(Ordering::Relaxed);
        if put - self.taken.load(Ordering::Acquire) < SIZE {
            self.bytes[put % SIZE].store(byte, Ordering::Relaxed);
            self.put.store(put + 1, Ordering::Release);
        }
    }

    fn take(&self) -> Option<u8> {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken == self.put.load(Ordering::Acquire) {
            return None;
        }
        let byte = self.bytes[taken % SIZE].load(Ordering::Relaxed);
        self.taken.store(taken + 1, Ordering::Release);
        Some(byte)
    }
}

/// The UART's handler.
pub fn receive(interrupt: Interrupt) {
    if interrupt.intid() != machine().uart.intid {
        println!("hello: interrupt {} was not asked for", interrupt.intid());
        return;
    }
    while let Some(byte) = console::read_byte() {
        RING.put(byte);
    }
}

/// A line as it is typed; what is longer loses its end.
struct Line {
    bytes: [u8; 80],
    length: usize,
}

impl Line {
    /// Takes one more byte in and echoes it; whether the line is complete.
    fn push(&mut self, byte: u8) -> bool {
        match byte {
            b'\r' | b'\n' => {
                println!();
                return true;
            }
            // Backspace and delete.
            0x08 | 0x7f if self.length > 0 => {
                self.length -= 1;
                print!("\x08 \x08");
            }
            b' '..=b'~' if self.length < self.bytes.len() => {
                self.bytes[self.length] = byte;
                self.length += 1;
                console::write_byte(byte);
            }
            _ => {}
        }
        false
    }

    fn text(&self) -> &str {
        // Only ASCII gets in.
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or("").trim()
    }
}

/// Reads lines and does what they say.
pub fn run() -> ! {
    console::uart().write32(register::IMSC, RX | RECEIVE_TIMEOUT);
    gic::enable(machine().uart.intid);
    println!("hello: type `help`");
    loop {
        print!("> ");
        let line = read_line();
        obey(line.text());
    }
}

fn read_line() -> Line {
    let mut line = Line { bytes: [0; 80], length: 0 };
    loop {
        let mut byte = None;
        crate::sleep_until(|| {
            byte = RING.take();
            byte.is_some()
        });
        if byte.is_some_and(|byte| line.push(byte)) {
            return line;
        }
    }
}

fn obey(line: &str) {
    match line {
        "" => {}
        "help" => {
            println!("help    this\nuptime  since when it runs\noff     power off\nreboot  start again")
        }
        "uptime" => {
            let milliseconds = timer::now() / (timer::frequency() / 1000).max(1);
            println!("{}.{:03} s", milliseconds / 1000, milliseconds % 1000);
        }
        "off" => power::off(),
        "reboot" => power::reset(),
        other => println!("{other}"),
    }
}
