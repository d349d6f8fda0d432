//! Software-generated interrupts between CPUs.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use runtime::gic::{self, SgiTarget, Version};
use runtime::{cpu, machine};

use crate::framework::{
    Outcome, abandoned, check, check_eq, expect_soon, finish, grace, needs_cpus, needs_gic, secondaries,
    start, tests, wait,
};
use crate::recorder;

tests! {
    "sgi.ping-pong" => ping_pong,
    "sgi.ping-pong-asleep" => ping_pong_asleep,
    "sgi.broadcast" => broadcast,
    "sgi.broadcast-from-others" => broadcast_from_others,
    "sgi.sources" => sources,
    "sgi.one-pending-for-all-sources" => one_pending_for_all_sources,
    "sgi.storm" => storm,
    "sgi.to-cpu-that-is-off" => to_cpu_that_is_off,
}

/// Waits for an interrupt without taking an exception, acknowledges and ends it.
fn poll() -> Option<gic::Interrupt> {
    wait(cpu::irq_waits);
    let interrupt = gic::acknowledge();
    interrupt.into_iter().for_each(gic::end);
    interrupt
}

const ROUNDS: u64 = 40;

/// Answers each interrupt with the same number, until `rounds` are over.
fn answer(rounds: u64) {
    READY.fetch_add(1, Ordering::Release);
    for _ in 0..rounds {
        let Some(interrupt) = poll() else { return };
        gic::send_sgi(interrupt.intid(), SgiTarget::Cpu(0));
    }
}

static READY: AtomicUsize = AtomicUsize::new(0);

fn wait_ready(count: usize) -> Outcome {
    expect_soon(|| READY.load(Ordering::Acquire) == count, format_args!("{count} CPUs should be ready"))
}

fn ping_pong() -> Outcome {
    needs_cpus(2)?;
    for cpu in secondaries() {
        READY.store(0, Ordering::Release);
        start(cpu, answer, ROUNDS)?;
        wait_ready(1)?;
        for round in 0..ROUNDS {
            let intid = (round % 16) as u32;
            gic::send_sgi(intid, SgiTarget::Cpu(cpu));
            let back = poll().map(|interrupt| (interrupt.intid(), interrupt.source()));
            let source = (gic::version() == Version::V2).then(|| machine().cpus()[cpu] as u32 & 7);
            check_eq!(back, Some((intid, source)), "round {round}: the answer of CPU {cpu}");
        }
        finish(cpu)?;
    }
    Ok(())
}

static ANSWERS: AtomicU64 = AtomicU64::new(0);

/// As [`answer`], by exception and out of WFI.
fn answer_asleep(rounds: u64) {
    ANSWERS.store(0, Ordering::Relaxed);
    let own = cpu::index();
    READY.fetch_add(1, Ordering::Release);
    let mut seen = 0;
    while seen < rounds && !abandoned() {
        // Masked while looking: what comes after the look still ends WFI.
        cpu::mask_irqs();
        if recorder::count(own) as u64 == seen {
            cpu::wait_for_interrupt();
        }
        cpu::unmask_irqs();
        let count = recorder::count(own) as u64;
        while seen < count {
            seen += 1;
            gic::send_sgi(1, SgiTarget::Cpu(0));
        }
    }
    cpu::mask_irqs();
}

fn ping_pong_asleep() -> Outcome {
    needs_cpus(2)?;
    for cpu in secondaries() {
        recorder::clear();
        READY.store(0, Ordering::Release);
        start(cpu, answer_asleep, ROUNDS)?;
        wait_ready(1)?;
        for round in 0..ROUNDS as usize {
            gic::send_sgi(2, SgiTarget::Cpu(cpu));
            let mut sleeps = 0;
            while recorder::count(0) == round && sleeps < 100_000 {
                cpu::wait_for_interrupt();
                cpu::unmask_irqs();
                cpu::mask_irqs();
                sleeps += 1;
            }
            check_eq!(recorder::count(0), round + 1, "answers of CPU {cpu}");
        }
        finish(cpu)?;
        check_eq!(recorder::count(cpu), ROUNDS as usize, "interrupts that CPU {cpu} took");
    }
    Ok(())
}

static LEAVE: AtomicBool = AtomicBool::new(false);

/// Takes interrupts until told to leave.
fn take_interrupts(_: u64) {
    cpu::unmask_irqs();
    READY.fetch_add(1, Ordering::Release);
    wait(|| LEAVE.load(Ordering::Acquire));
    cpu::mask_irqs();
}

fn all_take_interrupts() -> Outcome {
    READY.store(0, Ordering::Release);
    LEAVE.store(false, Ordering::Release);
    secondaries().try_for_each(|cpu| start(cpu, take_interrupts, 0))?;
    wait_ready(secondaries().len())
}

fn all_leave() -> Outcome {
    LEAVE.store(true, Ordering::Release);
    secondaries().try_for_each(finish)
}

fn broadcast() -> Outcome {
    needs_cpus(2)?;
    all_take_interrupts()?;
    for intid in 0..16 {
        gic::send_sgi(intid, SgiTarget::Others);
        let reached = || secondaries().all(|cpu| recorder::count(cpu) > intid as usize);
        expect_soon(reached, format_args!("SGI {intid} should reach all others"))?;
    }
    grace();
    let waits = cpu::irq_waits();
    all_leave()?;
    check!(!waits, "the sender should get nothing");
    for cpu in secondaries() {
        let intids = recorder::intids(cpu);
        check!(intids.iter().copied().eq(0..16), "CPU {cpu}: each SGI once, got {intids:?}");
    }
    Ok(())
}

fn broadcast_from_here(intid: u64) {
    gic::send_sgi(intid as u32, SgiTarget::Others);
    grace();
    if cpu::irq_waits() {
        UNASKED.fetch_add(1, Ordering::Release);
    }
}

static UNASKED: AtomicUsize = AtomicUsize::new(0);

fn broadcast_from_others() -> Outcome {
    needs_cpus(2)?;
    UNASKED.store(0, Ordering::Release);
    for cpu in secondaries() {
        start(cpu, broadcast_from_here, cpu as u64)?;
        finish(cpu)?;
        let got = poll().map(|interrupt| interrupt.intid());
        check_eq!(got, Some(cpu as u32), "the SGI that CPU {cpu} sent to all others");
    }
    check_eq!(UNASKED.load(Ordering::Acquire), 0, "senders that got their own SGI");
    Ok(())
}

fn send_to_boot_cpu(intid: u64) {
    gic::send_sgi(intid as u32, SgiTarget::Cpu(0));
}

/// Has every CPU, this one included, send SGI 5 to this one while it takes none.
fn all_send_to_boot_cpu() -> Outcome {
    gic::send_sgi(5, SgiTarget::Cpu(0));
    for cpu in secondaries() {
        start(cpu, send_to_boot_cpu, 5)?;
        finish(cpu)?;
    }
    Ok(())
}

fn sources() -> Outcome {
    needs_cpus(2)?;
    needs_gic(Version::V2)?;
    all_send_to_boot_cpu()?;
    let mut sources = 0u32;
    for _ in machine().cpus() {
        let source = poll().and_then(|interrupt| interrupt.source());
        check!(source.is_some(), "SGI 5 should come once from each CPU");
        let bit = 1 << source.unwrap_or(0);
        check!(sources & bit == 0, "source {source:?} came twice");
        sources |= bit;
    }
    check_eq!(gic::acknowledge(), None, "acknowledge after all sources have come");
    let expected = machine().cpus().iter().fold(0, |all, affinity| all | 1 << (affinity & 7));
    check_eq!(sources, expected, "sources, as bits");
    Ok(())
}

fn one_pending_for_all_sources() -> Outcome {
    needs_cpus(2)?;
    needs_gic(Version::V3)?;
    all_send_to_boot_cpu()?;
    check_eq!(poll().map(|interrupt| interrupt.intid()), Some(5), "SGI 5");
    check_eq!(gic::acknowledge(), None, "acknowledge after it: GICv3 doesn't tell sources apart");
    Ok(())
}

const STORM: u64 = 100;

/// Sends an SGI of its own number, and each time waits until it has been taken.
fn send_storm(intid: u64) {
    for round in 0..STORM {
        gic::send_sgi(intid as u32, SgiTarget::Cpu(0));
        let taken = || TAKEN[intid as usize].load(Ordering::Acquire) > round;
        if !wait(taken) {
            return;
        }
    }
}

static TAKEN: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

fn count_taken(intid: u32) {
    TAKEN[intid as usize].fetch_add(1, Ordering::Release);
}

fn storm() -> Outcome {
    needs_cpus(2)?;
    TAKEN.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    recorder::set_hook(count_taken);
    secondaries().try_for_each(|cpu| start(cpu, send_storm, cpu as u64))?;
    cpu::unmask_irqs();
    let taken = || secondaries().map(|cpu| TAKEN[cpu].load(Ordering::Acquire)).sum::<u64>();
    let all = STORM * secondaries().count() as u64;
    // However slow they are, the next one comes.
    let mut before = 0;
    while before < all && wait(|| taken() > before) {
        before = taken();
    }
    cpu::mask_irqs();
    check_eq!(before, all, "interrupts of all CPUs");
    secondaries().try_for_each(finish)
}

fn to_cpu_that_is_off() -> Outcome {
    // Whether it arrives when the CPU is turned on later is open; that it harms nobody isn't.
    needs_cpus(2)?;
    gic::send_sgi(7, SgiTarget::Cpu(1));
    gic::send_sgi(8, SgiTarget::Others);
    start(1, |_| {}, 0)?;
    finish(1)?;
    check_eq!(gic::acknowledge(), None, "acknowledge on this CPU");
    Ok(())
}
