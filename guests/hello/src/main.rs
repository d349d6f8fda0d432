//! The small built-in guest: it says who it is and what machine it has, ticks for a second, and then answers what is
//! typed at its console. Who boots the bare image sees that it lives.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod shell;

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::gic::{Interrupt, Version};
use runtime::timer::{self, Timer};
use runtime::{gic, hypervisor, interrupts, machine, println};

runtime::entry!(main);

const TICKS: u64 = 10;
const TICK_MS: u64 = 100;

static TICKED: AtomicU64 = AtomicU64::new(0);

fn main() -> ! {
    let machine = machine();
    let above = if hypervisor::is_hanok() { "under Hanok" } else { "without Hanok" };
    println!("hello: a small guest {above}, on \"{}\"", machine.model);
    println!("hello: memory {} MiB at {:#x}", machine.ram_size() >> 20, machine.ram[0].base);
    let version = if gic::version() == Version::V2 { 2 } else { 3 };
    println!("hello: {} CPU(s), GICv{version}, counter at {} Hz", machine.cpus().len(), timer::frequency());
    interrupts::set_handler(tick);
    gic::enable(Timer::Virtual.intid());
    Timer::Virtual.start(timer::now() + timer::milliseconds(TICK_MS));
    interrupts::sleep_until(|| TICKED.load(Ordering::Relaxed) == TICKS);
    shell::run()
}

/// The timer's handler: says that it ticks, and sets the next deadline by the last one, so that none drifts.
fn tick(interrupt: Interrupt) {
    if interrupt.intid() != Timer::Virtual.intid() {
        shell::receive(interrupt);
        return;
    }
    let tick = TICKED.fetch_add(1, Ordering::Relaxed) + 1;
    println!("hello: tick {tick} of {TICKS}");
    if tick < TICKS {
        Timer::Virtual.start(Timer::Virtual.deadline() + timer::milliseconds(TICK_MS));
    } else {
        Timer::Virtual.stop();
    }
}
