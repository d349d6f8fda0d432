//! Programs for tests from outside the machine: an echo driven by receive interrupts, a machine that restarts, one that
//! computes for ever, one that feeds a watchdog for a while, and one that says that it has crashed.

use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;
use runtime::console::{self, RECEIVE_TIMEOUT, RX, register};
use runtime::gic::{self, Interrupt};
use runtime::hanok::watchdog;
use runtime::{cpu, hanok, interrupts, machine, power, println, timer};
use spin::Mutex;

static INPUT: Mutex<ArrayVec<u8, 256>> = Mutex::new(ArrayVec::new_const());
static OVERFLOW: AtomicBool = AtomicBool::new(false);

/// Says every line that is typed again, as `echo: <line>`, until a line says `off`. Input comes by interrupt alone.
pub fn echo() {
    interrupts::set_handler(receive);
    let uart = console::uart();
    uart.write32(register::IMSC, RX | RECEIVE_TIMEOUT);
    gic::enable(machine().uart.intid);
    println!("echo: ready");
    say_again(next_byte, |line| println!("echo: {line}"));
}

/// The same by Hanok's calls, which move blocks.
pub fn echo_in_blocks() {
    let mut block = ArrayVec::<u8, 64>::new();
    let next_byte = || loop {
        if let Some(byte) = block.pop_at(0) {
            return byte;
        }
        let mut bytes = [0; 64];
        let count = hanok::console_read(&mut bytes).unwrap_or_else(|error| panic!("Hanok says {error}"));
        block.extend(bytes.into_iter().take(count));
    };
    write_block("echo: ready\n");
    say_again(next_byte, |line| {
        write_block("echo: ");
        write_block(line);
        write_block("\n");
    });
}

/// All of it, however long that takes.
fn write_block(text: &str) {
    let mut left = text.as_bytes();
    while !left.is_empty() {
        let taken = hanok::console_write(left).unwrap_or_else(|error| panic!("Hanok says {error}"));
        left = &left[taken..];
    }
}

/// Says every line again, until one says `off`.
fn say_again(mut next_byte: impl FnMut() -> u8, say: impl Fn(&str)) {
    let mut line = ArrayVec::<u8, 256>::new();
    loop {
        let byte = next_byte();
        if byte != b'\r' && byte != b'\n' {
            // A longer line loses its end.
            let _ = line.try_push(byte);
            continue;
        }
        say(core::str::from_utf8(&line).unwrap_or("(not UTF-8)"));
        if line.as_slice() == b"off" {
            return;
        }
        line.clear();
    }
}

/// Waits for a byte; the interrupt handler brings it. IRQs stay masked between looking and sleeping, so that none
/// comes in between: a pending one ends WFI nevertheless.
fn next_byte() -> u8 {
    loop {
        assert!(!OVERFLOW.load(Ordering::Relaxed), "more input than fits");
        if let Some(byte) = INPUT.lock().pop_at(0) {
            return byte;
        }
        cpu::wait_for_interrupt();
        cpu::unmask_irqs();
        cpu::mask_irqs();
    }
}

fn receive(interrupt: Interrupt) {
    assert!(interrupt.intid() == machine().uart.intid, "interrupt {} was not asked for", interrupt.intid());
    let mut input = INPUT.lock();
    while let Some(byte) = console::read_byte() {
        if input.try_push(byte).is_err() {
            OVERFLOW.store(true, Ordering::Relaxed);
        }
    }
}

/// Restarts the machine, over and over: nothing in it could count the rounds.
pub fn reboot() -> ! {
    println!("reboot: SYSTEM_RESET");
    power::reset()
}

/// Computes for ever, and does nothing that a hypervisor would hear of.
pub fn spin() -> ! {
    println!("spin: computing");
    loop {
        cpu::count_down(u64::from(u32::MAX));
    }
}

/// Asks for a watchdog of a second, feeds it for three, and then no more.
pub fn watchdog() -> ! {
    let second = timer::frequency();
    watchdog::set_timeout(1).unwrap_or_else(|error| panic!("Hanok says {error}"));
    watchdog::enable(true).unwrap_or_else(|error| panic!("Hanok says {error}"));
    let end = timer::now() + 3 * second;
    while timer::now() < end {
        watchdog::feed().unwrap_or_else(|error| panic!("Hanok says {error}"));
    }
    println!("watchdog: fed for 3 s");
    spin()
}

/// Says that it has crashed.
pub fn crash() {
    println!("crash: it is over");
    let heard = hanok::crash();
    println!("crash: Hanok says {heard:?}");
}
