//! Two that run by turns or wake each other: vCPUs by SGIs, VMs by the doorbells of a channel. They sleep by WFI, with IRQs
//! masked, and take what woke them by hand.
//!
//! The figures of those that run on two CPUs are for comparison with themselves alone: where time is counted in instructions,
//! the CPUs take turns, and the time in which one does something for the other is that of both.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use runtime::channel::{self, Channel};
use runtime::gic::{self, SgiTarget};
use runtime::ring::{Doorbell, Side};
use runtime::{cpu, hypervisor, power, println, smp, timed, timer};
use spin::Mutex;

use crate::samples::{Row, SAMPLES};

/// The SGI that wakes.
const SGI: u32 = 3;
/// How long the other one may take to start and to stop, in milliseconds.
const PATIENCE: u64 = 1000;

/// The second vCPU has begun.
static READY: AtomicBool = AtomicBool::new(false);
/// When each of the two vCPUs has let the other one go.
static MARKS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// From the instructions that send an SGI to another CPU until the SGI that this one answers with has been ended.
pub fn ipi(rounds: usize) {
    with_second(rounds, answer, || {
        SAMPLES
            .lock()
            .take("ipi-round-trip", rounds, 0, || there_and_back(wake_second, wait_for_sgi))
            .print();
    });
}

fn answer(rounds: u64) {
    for _ in 0..rounds {
        wait_for_sgi();
        wake(0);
    }
}

/// Two vCPUs of a VM on one CPU: from where one lets the other go first until that goes on, which has done the same before, by a
/// call that only Hanok has; and an SGI there and back where each sleeps until it comes.
pub fn switch(rounds: usize) {
    let passes = hypervisor::is_hanok();
    with_second(rounds, if passes { pass_and_answer } else { answer }, || {
        let passed = passes.then(|| pass("switch-in-vm", rounds, &MARKS[0], &MARKS[1]));
        let mut samples = SAMPLES.lock();
        let woken = samples.take("ping-pong-in-vm", rounds, 0, || there_and_back(wake_second, wait_for_sgi));
        drop(samples);
        passed.iter().for_each(Row::print);
        woken.print();
    });
}

fn pass_and_answer(rounds: u64) {
    for _ in 0..rounds {
        timed::pass(&MARKS[1]);
    }
    answer(rounds);
}

/// From the call that rings the peer's doorbell until the peer, who sleeps, has ended the interrupt.
pub fn doorbell(rounds: usize) {
    let peer = Peer::meet();
    let [rung, _] = peer.marks;
    match peer.channel.side {
        Side::Zero => {
            for _ in 0..rounds {
                rung.store(timer::now(), Ordering::Release);
                peer.ring();
                peer.wait();
            }
        }
        Side::One => {
            let row = SAMPLES.lock().take("doorbell", rounds, 0, || {
                peer.wait();
                let ticks = timer::now() - rung.load(Ordering::Acquire);
                peer.ring();
                ticks
            });
            row.print();
        }
    }
}

/// As [`switch`], with two VMs and the doorbells of a channel.
pub fn switch_vms(rounds: usize) {
    let peer = Peer::meet();
    let [first, second] = peer.marks;
    match peer.channel.side {
        Side::Zero => {
            let passed = pass("switch-between-vms", rounds, first, second);
            let mut samples = SAMPLES.lock();
            let woken = samples
                .take("ping-pong-between-vms", rounds, 0, || there_and_back(|| peer.ring(), || peer.wait()));
            passed.print();
            woken.print();
        }
        Side::One => {
            for _ in 0..rounds {
                timed::pass(second);
            }
            for _ in 0..rounds {
                peer.wait();
                peer.ring();
            }
        }
    }
}

/// Lets the other one go again and again, and takes what passes from when it lets go until this one does the next thing.
fn pass(name: &'static str, rounds: usize, own: &AtomicU64, other: &AtomicU64) -> Row {
    let mut samples = SAMPLES.lock();
    samples.begin();
    for _ in 0..rounds {
        let on = timed::pass(own);
        let let_go = other.load(Ordering::Acquire);
        // Where the other one isn't there yet or any more, nobody has run meanwhile.
        if let_go > own.load(Ordering::Relaxed) {
            samples.add(on - let_go);
        }
    }
    if samples.count() == 0 {
        println!("bench: the other one never had its turn");
        power::off()
    }
    samples.end(name)
}

/// What passes from a wake-up until the other one's has come back.
fn there_and_back(wake: impl FnOnce(), wait: impl FnOnce()) -> u64 {
    let start = timer::now();
    wake();
    wait();
    timer::now() - start
}

/// Starts the second vCPU with `function`, does `body` when that has begun, and waits until it is off.
fn with_second(rounds: usize, function: fn(u64), body: impl FnOnce()) {
    static FUNCTION: Mutex<fn(u64)> = Mutex::new(|_| {});
    fn begin(rounds: u64) {
        gic::enable(SGI);
        READY.store(true, Ordering::Release);
        let function = *FUNCTION.lock();
        function(rounds);
    }
    *FUNCTION.lock() = function;
    gic::enable(SGI);
    if let Err(error) = smp::start(1, begin, rounds as u64) {
        println!("bench: the second vCPU doesn't start: {error}");
        power::off()
    }
    assert!(timer::wait_until(PATIENCE, || READY.load(Ordering::Acquire)), "the second vCPU hasn't begun");
    body();
    assert!(smp::wait_off(1, PATIENCE), "the second vCPU doesn't go off");
}

fn wake_second() {
    wake(1);
}

fn wake(cpu: usize) {
    gic::send_sgi(SGI, SgiTarget::Cpu(cpu));
}

fn wait_for_sgi() {
    wait_for(SGI);
}

/// Sleeps until the interrupt comes, and ends it.
fn wait_for(intid: u32) {
    loop {
        if let Some(interrupt) = gic::acknowledge() {
            assert!(interrupt.intid() == intid, "interrupt {} in place of {intid}", interrupt.intid());
            return gic::end(interrupt);
        }
        cpu::wait_for_interrupt();
    }
}

/// The VM at the other end of the first channel.
struct Peer {
    channel: Channel,
    /// When each side, 0 and 1, has let the other one go.
    marks: [&'static AtomicU64; 2],
}

impl Peer {
    /// Waits until both are there.
    fn meet() -> Self {
        let Some(channel) = channel::all().next() else {
            println!("bench: there is no channel");
            power::off()
        };
        channel.listen();
        let words = channel.words();
        let (here, there) = match channel.side {
            Side::Zero => (&words[2], &words[3]),
            Side::One => (&words[3], &words[2]),
        };
        here.store(1, Ordering::Release);
        let met = timer::wait_until(10 * PATIENCE, || there.load(Ordering::Acquire) != 0);
        assert!(met, "the VM at the other end isn't there");
        Self { channel, marks: [&words[0], &words[1]] }
    }

    fn ring(&self) {
        self.channel.bell().ring();
    }

    /// Sleeps until the peer rings.
    fn wait(&self) {
        wait_for(self.channel.intid);
    }
}
