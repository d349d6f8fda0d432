//! What starting, stopping and restarting a VM takes: of the VM at the other end of the first channel, which is this same
//! program, told to be the victim. This one needs the rights to control and to statistics.
//!
//! A victim says at once what its counter was at its first instruction. Stopping is over when the hypervisor says that it is. In
//! between this one sleeps: where time is counted in instructions, those of all CPUs count, and CPUs run in turns.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::record::{VmRecord, state};
use abi::{Control, Error};
use runtime::channel::{self, Channel};
use runtime::gic;
use runtime::timer::{self, Timer};
use runtime::{boot, cpu, hanok, power, println};

use crate::samples::SAMPLES;

/// How often each thing is done: all times are nearly the same, and each is long.
const ROUNDS: usize = 10;
/// Microseconds between two looks.
const BETWEEN_LOOKS: u64 = 50;
/// How long one thing may take, in microseconds.
const PATIENCE: u64 = 10_000_000;

/// Starts, restarts and stops the victim, which has to be off at the start.
pub fn measure() {
    gic::enable(Timer::Virtual.intid());
    let victim = Victim::find();
    let mut samples = SAMPLES.lock();
    let start = samples.take("vm-start", ROUNDS, 0, || {
        let ticks = victim.comes_up(Control::Start);
        victim.stop();
        ticks
    });
    let stop = samples.take("vm-stop", ROUNDS, 0, || {
        victim.comes_up(Control::Start);
        victim.stop()
    });
    victim.comes_up(Control::Start);
    let restart = samples.take("vm-restart", ROUNDS, 0, || victim.comes_up(Control::Restart));
    victim.stop();
    [start, restart, stop].iter().for_each(|row| row.print());
}

/// Says when it came up, and waits for its end.
pub fn be_victim() -> ! {
    let (came_up, _) = words();
    came_up.store(boot::entered(), Ordering::Release);
    loop {
        cpu::wait_for_interrupt();
    }
}

/// The word of the channel in which the victim says when it came up, and the channel.
fn words() -> (&'static AtomicU64, Channel) {
    let Some(channel) = channel::all().next() else {
        println!("bench: there is no channel");
        power::off()
    };
    (&channel.words()[0], channel)
}

struct Victim {
    vm: u32,
    came_up: &'static AtomicU64,
}

impl Victim {
    fn find() -> Self {
        let (came_up, channel) = words();
        let board = patiently(hanok::board_info);
        let is_peer = |vm: &u32| {
            let record = patiently(|| hanok::vm_info(*vm));
            record.name_bytes().split(|byte| *byte == 0).next() == Some(channel.peer.as_bytes())
        };
        let Some(vm) = (0..board.vms as u32).find(is_peer) else {
            println!("bench: Hanok has no VM {}", channel.peer);
            power::off()
        };
        Self { vm, came_up }
    }

    /// From the call that starts or restarts it to its first instruction.
    fn comes_up(&self, how: Control) -> u64 {
        self.came_up.store(0, Ordering::Release);
        let called = self.call(how);
        wait("up", || self.came_up.load(Ordering::Acquire) != 0);
        self.wait_for(state::RUNNING);
        self.came_up.load(Ordering::Acquire) - called
    }

    /// From the call that stops it until its memory has been given back.
    fn stop(&self) -> u64 {
        let called = self.call(Control::Stop);
        self.wait_for(state::STOPPED);
        timer::now() - called
    }

    /// The counter right before the call that was heard.
    fn call(&self, what: Control) -> u64 {
        let mut before = timer::now();
        while let Err(error) = hanok::control(what, self.vm) {
            assert!(error == Error::Busy, "Hanok says {error}");
            before = timer::now();
        }
        before
    }

    fn wait_for(&self, wanted: u64) {
        // Busy is whoever does what is waited for.
        let is_so = || match hanok::vm_info(self.vm) {
            Ok(VmRecord { state, .. }) => state == wanted,
            Err(error) => {
                assert!(error == Error::Busy, "Hanok says {error}");
                false
            }
        };
        wait(state::name(wanted), is_so);
    }
}

/// Sleeps until the victim is as wanted.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let end = timer::now() + timer::microseconds(PATIENCE);
    while !is_so() {
        let now = timer::now();
        assert!(now < end, "the victim isn't {what} after {PATIENCE} us");
        let look = now + timer::microseconds(BETWEEN_LOOKS);
        Timer::Virtual.start(look);
        // IRQs are masked: the interrupt that ends the sleep is not taken.
        while timer::now() < look {
            cpu::wait_for_interrupt();
        }
        Timer::Virtual.stop();
    }
}

/// Calls again while Hanok says that it can't answer just now.
fn patiently<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(error) => assert!(error == Error::Busy, "Hanok says {error}"),
        }
    }
}
