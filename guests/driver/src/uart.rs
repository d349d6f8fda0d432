//! The conversation on the mini-UART.

use core::fmt::Write;
use core::sync::atomic::{AtomicU32, Ordering};

use runtime::gic::{self, Interrupt};
use runtime::queue::Queue;
use runtime::{board, interrupts, power, println};
use spin::Once;

use crate::gpio::{Function, Gpio, PINS};
use crate::mini_uart::MiniUart;

/// The longest line that is listened to.
const LINE: usize = 80;

static UART: Once<MiniUart> = Once::new();
static HEARD: Queue = Queue::new();
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// `on_pins`: it is put on the header's pins.
pub fn run(on_pins: bool) -> ! {
    let (aux, device) = (crate::device("brcm,bcm2835-aux"), crate::device("brcm,bcm2835-aux-uart"));
    let gpio = board::find("brcm,bcm2711-gpio").map(|device| Gpio(device.registers));
    let Some(intid) = device.intid(0) else {
        println!("driver: the mini-UART has no interrupt");
        power::off()
    };
    println!("driver: a mini-UART at {:#x} with interrupt {intid}", device.registers.base());
    if let Some(gpio) = gpio.filter(|_| on_pins) {
        gpio.select(14, Function::Alternate5);
        gpio.select(15, Function::Alternate5);
    }
    interrupts::set_handler(receive);
    let mut uart = *UART.call_once(|| MiniUart::start(aux.registers, device.registers));
    gic::enable(intid);
    // What is said there needs no error handling: a UART takes everything.
    let _ = writeln!(uart, "driver: here is the mini-UART");
    let mut line = [0; LINE];
    loop {
        let length = read_line(&mut line);
        let text = core::str::from_utf8(&line[..length]).unwrap_or("");
        let _ = answer(uart, gpio, text);
        println!("driver: heard {text:?}, {} interrupts", INTERRUPTS.load(Ordering::Relaxed));
    }
}

fn receive(_: Interrupt) {
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
    let Some(uart) = UART.get() else { return };
    while let Some(byte) = uart.read() {
        HEARD.put(byte);
    }
}

/// Waits for a whole line. Returns its length; what is longer loses its end.
fn read_line(line: &mut [u8]) -> usize {
    let mut length = 0;
    loop {
        let mut byte = None;
        interrupts::sleep_until(|| {
            byte = HEARD.take();
            byte.is_some()
        });
        match byte {
            Some(b'\r' | b'\n') => return length,
            Some(byte) if length < line.len() => {
                line[length] = byte;
                length += 1;
            }
            _ => {}
        }
    }
}

fn answer(mut uart: MiniUart, gpio: Option<Gpio>, text: &str) -> core::fmt::Result {
    let mut words = text.split_whitespace();
    if words.next() != Some("pin") {
        return writeln!(uart, "heard: {text}");
    }
    let Some(gpio) = gpio else { return writeln!(uart, "there is no GPIO") };
    let pin = words.next().and_then(|pin| pin.parse().ok()).filter(|pin| *pin < PINS);
    match (pin, words.next()) {
        (Some(pin), Some(level @ ("0" | "1"))) => {
            gpio.select(pin, Function::Output);
            gpio.set(pin, level == "1");
            writeln!(uart, "pin {pin} is {}", u8::from(gpio.level(pin)))
        }
        (Some(pin), None) => writeln!(uart, "pin {pin} is {}", u8::from(gpio.level(pin))),
        _ => writeln!(uart, "pin N, pin N 0 or pin N 1, with N below {PINS}"),
    }
}
