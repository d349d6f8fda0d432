//! The shell's machine: Hanok's calls, the console's PL011, and the virtual timer.
//!
//! Nothing waits in a buffer of this guest: bytes stay in the PL011 until the shell wants them, so that none is lost when
//! many are typed at once. Its interrupt ends sleep and nothing else.

use core::fmt;

use abi::record::{BoardRecord, CrashRecord, VcpuRecord, VmRecord};
use abi::{Control, Error, Identity, Speaker};
use monitor_shell::Host;
use runtime::console::{self, RECEIVE_TIMEOUT, RX, TXFE, register};
use runtime::gic::{self, Interrupt};
use runtime::hanok::{self, watchdog};
use runtime::timer::{self, Timer};
use runtime::{cpu, interrupts, print};

/// Seconds after which a monitor that doesn't feed its watchdog has crashed.
const TIMEOUT: u32 = 10;
/// Feedings in that time.
const FEEDINGS: u64 = 4;
/// How long the console may take to send what it has, in milliseconds. It has no more than a few lines.
const FLUSH_MS: u64 = 500;

/// How long Hanok may be asked again when it is busy, in milliseconds: what it is busy with takes microseconds.
const BUSY_MS: u64 = 100;

/// The machine.
pub struct Machine {
    /// When the watchdog is to be fed next, if it is on.
    feed_at: Option<u64>,
}

impl Machine {
    /// Before [`init`](Self::init), which is to be called once.
    pub const fn new() -> Self {
        Self { feed_at: None }
    }

    /// Interrupts and the watchdog.
    pub fn init(&mut self) {
        interrupts::set_handler(wake);
        gic::enable(Timer::Virtual.intid());
        gic::enable(runtime::machine().uart.intid);
        // Without one, nothing restarts a monitor that hangs; it works all the same.
        let on = watchdog::set_timeout(TIMEOUT).and_then(|()| watchdog::enable(true));
        self.feed_at = on.is_ok().then(timer::now);
    }

    /// Feeds the watchdog, if it is time.
    fn feed(&mut self, now: u64) {
        if self.feed_at.is_some_and(|at| at <= now) {
            // It was there a moment ago.
            let _ = watchdog::feed();
            self.feed_at = Some(now + timer::frequency() * u64::from(TIMEOUT) / FEEDINGS);
        }
    }
}

/// The interrupts' handler: what has woken the CPU is put to rest, until the next sleep.
fn wake(interrupt: Interrupt) {
    if interrupt.intid() == Timer::Virtual.intid() {
        Timer::Virtual.stop();
    } else {
        console::uart().write32(register::IMSC, 0);
    }
}

/// Sleeps until there is something to read, or the counter is at `until`. It may end early.
fn sleep(until: Option<u64>) {
    match until {
        Some(deadline) => Timer::Virtual.start(deadline),
        None => Timer::Virtual.stop(),
    }
    // What has arrived since somebody looked raises the interrupt now, and ends the sleep at once.
    console::uart().write32(register::IMSC, RX | RECEIVE_TIMEOUT);
    cpu::wait_for_interrupt();
    cpu::unmask_irqs();
    cpu::mask_irqs();
}

/// Calls again as long as the answer is to do so. Whoever Hanok is busy with may share this CPU, and goes first.
fn patiently<T>(mut call: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut result = call();
    timer::wait_until(BUSY_MS, || {
        let busy = matches!(result, Err(Error::Busy));
        if busy {
            // Where it isn't offered, time passes all the same.
            let _ = hanok::yield_cpu();
            result = call();
        }
        !busy
    });
    result
}

impl fmt::Write for Machine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        print!("{text}");
        Ok(())
    }
}

impl Host for Machine {
    fn revision(&mut self) -> Result<(u32, u32), Error> {
        hanok::revision()
    }

    fn identity(&mut self) -> Result<Identity, Error> {
        hanok::identity()
    }

    fn board(&mut self) -> Result<BoardRecord, Error> {
        patiently(hanok::board_info)
    }

    fn vm(&mut self, vm: u32) -> Result<VmRecord, Error> {
        patiently(|| hanok::vm_info(vm))
    }

    fn vcpu(&mut self, vm: u32, vcpu: u32) -> Result<VcpuRecord, Error> {
        patiently(|| hanok::vcpu_info(vm, vcpu))
    }

    fn crash(&mut self, vm: u32) -> Result<Option<CrashRecord>, Error> {
        patiently(|| hanok::vm_crash(vm))
    }

    fn history(&mut self, whose: Speaker, position: u64, buffer: &mut [u8]) -> Result<(usize, u64), Error> {
        patiently(|| hanok::history(whose, position, buffer))
    }

    fn control(&mut self, what: Control, vm: u32) -> Result<(), Error> {
        patiently(|| hanok::control(what, vm))
    }

    fn focus(&mut self, vm: u32) -> Result<(), Error> {
        // What waits longer comes out under this VM's name, as all that it says without the focus.
        timer::wait_until(FLUSH_MS, || console::uart().read32(register::FR) & TXFE != 0);
        patiently(|| hanok::focus(vm))
    }

    fn now(&mut self) -> u64 {
        timer::now()
    }

    fn frequency(&mut self) -> u64 {
        timer::frequency()
    }

    fn key(&mut self, until: Option<u64>) -> Option<u8> {
        loop {
            let byte = console::read_byte();
            let now = timer::now();
            self.feed(now);
            if byte.is_some() || until.is_some_and(|until| until <= now) {
                return byte;
            }
            sleep([until, self.feed_at].into_iter().flatten().min());
        }
    }
}
