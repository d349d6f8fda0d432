//! Work for the hypervisor without end: calls, faults, trapped registers, interrupts, sleep, cache maintenance, output,
//! restarts. None of it is forbidden; what counts is that the neighbours don't notice.

use core::sync::atomic::AtomicU64;

use runtime::call::{self, Immediate};
use runtime::encodings::{Encoding, Way};
use runtime::gic::{self, SgiTarget};
use runtime::machine::Conduit;
use runtime::probe::{self, Load, Store};
use runtime::timer::{self, Timer};
use runtime::{cache, console, cpu, machine, mmu, power, println};

use crate::handler::{all_taken, take, take_until, taken};
use crate::{Report, Strength, ensure};

/// Where nothing is.
const NOWHERE: u64 = 0x0b00_0000;

/// Calls, faults and trapped registers, as fast as they come.
pub fn attack_by_exits(strength: &mut Strength) -> Report {
    let count = strength.times(20_000);
    let id_register = Encoding::new(3, 0, 0, 4, 0);
    let unknown = Encoding::new(3, 0, 15, 2, 0);
    for n in 0..count {
        match n % 8 {
            0 => ensure(probe::load(Load::Word, NOWHERE + n % 4096 * 4).is_err(), "a load went through"),
            1 => ensure(probe::store(Store::Word, NOWHERE, n).is_err(), "a store went through"),
            2 => ensure(probe::fetch(NOWHERE).is_some(), "a fetch went through"),
            3 => ensure(id_register.run(Way::Read, 0).is_ok(), "an ID register can't be read"),
            4 => ensure(unknown.run(Way::Write, n).is_err(), "an unknown register can be written"),
            5 => drop(gic::distributor().read32(gic::register::TYPER)),
            6 => drop(call::call(Conduit::Smc, Immediate::Zero, [u64::MAX; 31])),
            _ => drop(call::call(Conduit::Hvc, Immediate::Zero, [0x8000_0000; 31])),
        }
        if n % 512 == 0 {
            mmu::invalidate_all();
        }
    }
    (count, "exits provoked")
}

/// Timers whose time has passed, both at once, over and over, and SGIs to itself on top.
pub fn attack_by_timers(strength: &mut Strength) -> Report {
    let count = strength.times(3000);
    Timer::ALL.iter().for_each(|timer| gic::enable(timer.intid()));
    for n in 1..=count as u32 {
        for timer in Timer::ALL {
            timer.start(timer.count().saturating_sub(u64::from(n)));
        }
        gic::send_sgi(n % 16, SgiTarget::Cpu(0));
        for timer in Timer::ALL {
            take_until(timer.intid(), n, "a timer whose time has passed");
        }
    }
    // Deadlines far away and at once, without a look at what comes of it.
    for n in 0..count {
        Timer::Virtual.start(if n % 2 == 0 { u64::MAX } else { 0 });
        Timer::Physical.start(timer::now() + n % 3);
        if n % 7 == 0 {
            take();
        }
    }
    (2 * count + u64::from(all_taken()), "timers and interrupts")
}

/// WFI with an interrupt that waits, WFE with and without an event, a timer that ends each sleep at once.
pub fn attack_by_sleep(strength: &mut Strength) -> Report {
    let count = strength.times(4000);
    let timer = Timer::Virtual;
    gic::enable(timer.intid());
    for n in 0..count {
        let before = taken(timer.intid());
        timer.start(timer::now() + n % 5 * timer::microseconds(1));
        match n % 4 {
            0 => cpu::wait_for_interrupt(),
            1 => {
                cpu::send_event();
                cpu::wait_for_event();
            }
            2 => {
                // The interrupt waits already, and is masked: this returns at once.
                while !cpu::irq_waits() {}
                cpu::wait_for_interrupt();
            }
            _ => drop(runtime::sysreg::probe(runtime::sysreg::Probe::Smc)),
        }
        take_until(timer.intid(), before + 1, "a timer that ends a sleep");
    }
    (count, "sleeps")
}

/// Maintenance of all caches by set and way, with caches turned off and on between, so that it can't be skipped; and of
/// TLBs and instruction caches, which reaches other CPUs.
pub fn attack_by_caches(strength: &mut Strength) -> Report {
    static WORD: AtomicU64 = AtomicU64::new(0);
    let count = strength.times(6);
    for n in 0..count {
        cache::clean_invalidate((&raw const WORD).addr(), 8);
        cache::exchange_uncached(&WORD, n);
        cache::clean_invalidate_all();
        for _ in 0..1000 {
            mmu::invalidate_all();
        }
    }
    (count, "times all caches cleaned")
}

/// Output as fast as the console takes it, bytes that it must drop, and registers of the console with any values.
pub fn attack_by_console(strength: &mut Strength) -> Report {
    let lines = strength.times(100);
    for n in 0..lines {
        println!("attacker: line {n} of many, and a tail that makes it as long as lines are: {:064x}", n);
    }
    let uart = console::uart();
    for _ in 0..strength.times(500) {
        let offset = 4 + strength.random.below(0x40 / 4 - 1) as usize * 4;
        uart.write32(offset, strength.random.word() as u32);
        uart.read32(strength.random.below(0x1000 / 4) as usize * 4);
    }
    console::set_up();
    // Without a look at whether there is room: what there is none for is lost, but only of this guest's own.
    for n in 0..strength.times(3000) {
        uart.write8(console::register::DR, if n % 60 == 59 { b'\n' } else { b'~' });
    }
    uart.write8(console::register::DR, b'\n');
    println!("\nattacker: these were waves");
    (lines, "lines")
}

/// Resets the machine, as often as it comes up again.
pub fn attack_by_reset(_: &mut Strength) -> Report {
    println!("attacker: once more, {} MiB", machine().ram_size() >> 20);
    power::reset()
}
