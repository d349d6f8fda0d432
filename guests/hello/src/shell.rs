//! What one can type: a line at a time, echoed, with backspace. Input comes by interrupt.

use runtime::console::{self, RECEIVE_TIMEOUT, RX, register};
use runtime::gic::{self, Interrupt};
use runtime::queue::Queue;
use runtime::{interrupts, machine, power, print, println, timer};

/// What has come in.
static HEARD: Queue = Queue::new();

/// The UART's handler.
pub fn receive(interrupt: Interrupt) {
    if interrupt.intid() != machine().uart.intid {
        println!("hello: interrupt {} was not asked for", interrupt.intid());
        return;
    }
    while let Some(byte) = console::read_byte() {
        HEARD.put(byte);
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
        interrupts::sleep_until(|| {
            byte = HEARD.take();
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
