//! A guest with the rights to control and to statistics that does something to another VM, again and again at random
//! times, and checks what became of it. For tests; people have the monitor.
//!
//! Its command line:
//! - `victim=NAME`: the other VM. It has to run by itself.
//! - `what=stop`: stop it, see that nothing of its memory is left and as much is free as before, and start it again.
//! - `what=restart`: restart it.
//! - `what=pause`: pause it, see that it stands still, and resume it.
//! - `what=watch`: see that it runs, and never comes to Hanok, in M microseconds.
//! - `what=guard`: see that it gets on, by what it counts in the memory of the channel `progress`, and help it when it doesn't,
//!   until it has done as much as it is to: [`guard`].
//! - `times=N`: how often (100). `most=M`: up to M microseconds lie in between (100000).
//! - `seed=S`: what chance follows from (1).
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod guard;

use core::str::FromStr;

use abi::record::{BoardRecord, VmRecord, state};
use abi::{Control, Error};
use runtime::random::Random;
use runtime::timer::{self, Timer};
use runtime::{gic, hanok, interrupts, machine, power, println};

runtime::entry!(main);

/// How long the victim has for a change, in seconds of the board's time.
const PATIENCE: u64 = 20;
/// Microseconds between two looks at it.
const BETWEEN_LOOKS: u64 = 200;

fn main() -> ! {
    interrupts::set_handler(|_| Timer::Virtual.stop());
    gic::enable(Timer::Virtual.intid());
    let name = machine().argument("victim").unwrap_or("");
    let what = machine().argument("what").unwrap_or("");
    let times: u64 = argument("times", 100);
    let most: u64 = argument("most", 100_000);
    let mut random = Random::new(argument("seed", 1));
    let keeper = Keeper::new(name);
    if what == "guard" {
        guard::run(&keeper);
    }
    println!("keeper: {what} {name}, {times} times, with up to {most} us in between");
    for time in 1..=times {
        sleep(random.below(most + 1));
        match what {
            "stop" => keeper.stop_and_start(),
            "restart" => keeper.restart(),
            "watch" => keeper.watch(most),
            "pause" => keeper.pause_and_resume(random.below(most + 1)),
            other => fail(format_args!("what={other} is nothing that can be done")),
        }
        if time % 10 == 0 {
            println!("keeper: {time} times");
        }
    }
    println!("keeper: done");
    loop {
        sleep(1_000_000);
    }
}

/// A VM that things are done to.
struct Keeper {
    victim: u32,
    /// The board, when the victim ran.
    board: BoardRecord,
}

impl Keeper {
    fn new(name: &str) -> Self {
        let board = patiently(hanok::board_info);
        let is_meant = |vm: &u32| {
            let record = patiently(|| hanok::vm_info(*vm));
            record.name_bytes().split(|byte| *byte == 0).next() == Some(name.as_bytes())
        };
        let victim = (0..board.vms as u32).find(is_meant);
        let Some(victim) = victim else { fail(format_args!("there is no VM {name:?}")) };
        Self { victim, board }
    }

    fn info(&self) -> VmRecord {
        patiently(|| hanok::vm_info(self.victim))
    }

    fn control(&self, what: Control) {
        patiently(|| hanok::control(what, self.victim));
    }

    /// Waits until the victim is as `wanted` says, and tells what it is then.
    fn wait(&self, what: &str, wanted: impl Fn(&VmRecord) -> bool) -> VmRecord {
        let start = timer::now();
        loop {
            let info = self.info();
            if wanted(&info) {
                return info;
            }
            if timer::now() - start > PATIENCE * timer::frequency() {
                fail(format_args!("after {PATIENCE} s it is not {what}: {info:?}"));
            }
            sleep(BETWEEN_LOOKS);
        }
    }

    fn stop_and_start(&self) {
        self.wait("running", |info| info.state == state::RUNNING);
        self.control(Control::Stop);
        let info = self.wait("stopped", |info| info.state == state::STOPPED);
        if info.held != 0 {
            fail(format_args!("it is stopped, and has memory: {info:?}"));
        }
        let board = patiently(hanok::board_info);
        let given_back = board.free.wrapping_sub(self.board.free);
        if given_back < info.memory || board.memory != self.board.memory {
            fail(format_args!("it had {} bytes or more, and {given_back} came back", info.memory));
        }
        self.control(Control::Start);
        self.wait("running", |info| info.state == state::RUNNING);
        let board = patiently(hanok::board_info);
        if board.free != self.board.free {
            fail(format_args!(
                "started again, {} bytes are free; there were {}",
                board.free, self.board.free
            ));
        }
    }

    fn restart(&self) {
        let before = self.wait("running", |info| info.state == state::RUNNING);
        self.control(Control::Restart);
        self.wait("running afresh", |info| info.state == state::RUNNING && info.starts == before.starts + 1);
    }

    fn pause_and_resume(&self, microseconds: u64) {
        self.wait("running", |info| info.state == state::RUNNING);
        self.control(Control::Pause);
        self.wait("paused", |info| info.state == state::PAUSED);
        let (_, before) = self.ran();
        sleep(microseconds);
        let (_, after) = self.ran();
        if after != before {
            fail(format_args!("it is paused, and came to Hanok {} times", after - before));
        }
        self.control(Control::Resume);
    }

    /// For how many ticks its vCPUs had their CPUs, and how often they came to Hanok.
    fn ran(&self) -> (u64, u64) {
        let vcpus =
            (0..self.info().vcpus as u32).map(|vcpu| patiently(|| hanok::vcpu_info(self.victim, vcpu)));
        vcpus
            .fold((0, 0), |(ran, exits), record| (ran + record.ran, exits + record.exits.iter().sum::<u64>()))
    }

    fn watch(&self, microseconds: u64) {
        let (ran, exits) = self.ran();
        sleep(microseconds);
        let (ran, exits) = {
            let (now, after) = self.ran();
            (now - ran, after - exits)
        };
        println!("keeper: in {microseconds} us it ran for {ran} ticks, and came to Hanok {exits} times");
        if ran * 1_000_000 < microseconds * self.board.frequency || exits != 0 {
            fail(format_args!("it should have run all the time"));
        }
    }
}

/// Calls again while Hanok says that it can't answer just now.
fn patiently<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match call() {
            Ok(answer) => return answer,
            Err(Error::Busy) => {}
            Err(error) => fail(format_args!("Hanok says {error}")),
        }
    }
}

/// Sleeps for so many microseconds, until the timer's interrupt: it is taken, for as long as one waits, WFI doesn't sleep.
fn sleep(microseconds: u64) {
    Timer::Virtual.start(timer::now() + microseconds * timer::frequency() / 1_000_000);
    interrupts::sleep_until(|| Timer::Virtual.control() & timer::ENABLE == 0);
}

/// The number in the command line, or what it is without one.
fn argument<T: FromStr>(name: &str, default: T) -> T {
    let Some(text) = machine().argument(name) else { return default };
    text.parse().unwrap_or_else(|_| fail(format_args!("{name}={text} is no number")))
}

/// Says what is wrong, and ends the machine.
fn fail(what: core::fmt::Arguments) -> ! {
    println!("keeper: {what}");
    power::off()
}
