//! A guest that drives devices of the board that it is given, and tells its console of it:
//! - `uart`: a Raspberry Pi's mini-UART (`brcm,bcm2835-aux-uart`), and its GPIO where it has that too. It answers the lines that come in
//!   there: `pin N` and `pin N 0|1` say and set the level of a pin, anything else is said back.
//! - `clock`: a PL031, whose alarm it sets three times.
//!
//! Its command line is one of these words; and `pins`, for the mini-UART to be put on the header's pins 8 and 10.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod clock;
mod gpio;
mod mini_uart;
mod uart;

use runtime::{machine, power, println};

runtime::entry!(main);

fn main() -> ! {
    let words = || machine().bootargs.split_whitespace();
    match words().next() {
        Some("uart") => uart::run(words().any(|word| word == "pins")),
        Some("clock") => clock::run(),
        other => {
            println!("driver: {other:?} is neither uart nor clock");
            power::off()
        }
    }
}

/// The device, which has to be there.
fn device(compatible: &str) -> runtime::board::Device {
    runtime::board::find(compatible).unwrap_or_else(|| {
        println!("driver: the board has no {compatible} for this machine");
        power::off()
    })
}
