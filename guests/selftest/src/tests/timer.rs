//! The virtual and the physical timer of every CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::timer::{self, ENABLE, IMASK, ISTATUS, Timer, milliseconds, wait_until};
use runtime::{cpu, gic};

use crate::framework::{
    GRACE_MS, Outcome, check, check_eq, expect_soon, finish, grace, is_hanok, needs_cpus, on_every_cpu,
    secondaries, start, tests, wait,
};
use crate::recorder;

tests! {
    "timer.counters" => counters,
    "timer.counters-agree" => counters_agree,
    "timer.deadline" => deadline,
    "timer.deadline-on-every-cpu" => deadline_on_every_cpu,
    "timer.deadline-in-the-past" => deadline_in_the_past,
    "timer.wakes-wfi" => wakes_wfi,
    "timer.tval" => tval,
    "timer.both" => both,
    "timer.level-comes-again" => level_comes_again,
    "timer.masked-at-the-gic" => masked_at_the_gic,
    "timer.masked-at-the-timer" => masked_at_the_timer,
    "timer.stopped-before-taken" => stopped_before_taken,
    "timer.moved-before-taken" => moved_before_taken,
    "timer.periodic" => periodic,
}

/// A deadline that is near, and yet ahead.
fn soon(timer: Timer) -> u64 {
    timer.count() + milliseconds(5)
}

fn counters() -> Outcome {
    let frequency = timer::frequency();
    check!((1_000_000..=2_000_000_000).contains(&frequency), "CNTFRQ_EL0 of 1 MHz to 2 GHz, got {frequency}");
    for timer in Timer::ALL {
        let first = timer.count();
        let mut last = first;
        for _ in 0..1000 {
            let next = timer.count();
            check!(next >= last, "{timer:?} should not go back: {last}, {next}");
            last = next;
        }
        expect_soon(|| timer.count() > first, format_args!("{timer:?} should advance"))?;
    }
    Ok(())
}

static ASKED: AtomicU64 = AtomicU64::new(0);
static ANSWER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Reads both counters as often as asked.
fn tell_count(rounds: u64) {
    for round in 1..=rounds {
        wait(|| ASKED.load(Ordering::Acquire) == round);
        for (timer, answer) in Timer::ALL.iter().zip(&ANSWER) {
            answer.store(timer.count(), Ordering::Relaxed);
        }
        ASKED.store(0, Ordering::Release);
    }
}

fn counters_agree() -> Outcome {
    const ROUNDS: u64 = 20;
    needs_cpus(2)?;
    for cpu in secondaries() {
        ASKED.store(0, Ordering::Release);
        start(cpu, tell_count, ROUNDS)?;
        for round in 1..=ROUNDS {
            let before = Timer::ALL.map(Timer::count);
            ASKED.store(round, Ordering::Release);
            expect_soon(|| ASKED.load(Ordering::Acquire) == 0, format_args!("CPU {cpu} should answer"))?;
            let after = Timer::ALL.map(Timer::count);
            for (n, timer) in Timer::ALL.iter().enumerate() {
                let there = ANSWER[n].load(Ordering::Relaxed);
                let range = before[n]..=after[n];
                check!(range.contains(&there), "{timer:?} of CPU {cpu}: {there} should be in {range:?}");
            }
        }
        finish(cpu)?;
    }
    Ok(())
}

/// Waits for the IRQ without taking it: when it came, by the timer's own counter.
fn await_irq(timer: Timer) -> Result<u64, crate::framework::Stop> {
    expect_soon(cpu::irq_waits, format_args!("{timer:?}: its interrupt should come"))?;
    Ok(timer.count())
}

/// Acknowledges, and expects the timer's interrupt.
fn acknowledge(timer: Timer) -> Result<gic::Interrupt, crate::framework::Stop> {
    let interrupt = gic::acknowledge();
    check_eq!(interrupt.map(|interrupt| interrupt.intid()), Some(timer.intid()), "{timer:?}: acknowledge");
    interrupt.ok_or(crate::framework::Stop::Skipped("checked above"))
}

fn deadline() -> Outcome {
    for timer in Timer::ALL {
        gic::enable(timer.intid());
        for _ in 0..10 {
            let deadline = soon(timer);
            timer.start(deadline);
            let came = await_irq(timer)?;
            check!(came >= deadline, "{timer:?} should not come early: {deadline}, came at {came}");
            check!(timer.expired(), "{timer:?}: ISTATUS should be set");
            let interrupt = acknowledge(timer)?;
            timer.stop();
            gic::end(interrupt);
            check_eq!(gic::acknowledge(), None, "{timer:?}: acknowledge after it was handled");
        }
    }
    Ok(())
}

fn deadline_on_every_cpu() -> Outcome {
    needs_cpus(2)?;
    on_every_cpu(deadline)
}

fn deadline_in_the_past() -> Outcome {
    for timer in Timer::ALL {
        gic::enable(timer.intid());
        for deadline in [0, timer.count() - 1] {
            timer.start(deadline);
            await_irq(timer)?;
            let interrupt = acknowledge(timer)?;
            timer.stop();
            gic::end(interrupt);
        }
    }
    Ok(())
}

fn wakes_wfi() -> Outcome {
    for timer in Timer::ALL {
        recorder::clear();
        gic::enable(timer.intid());
        let deadline = soon(timer);
        timer.start(deadline);
        let mut sleeps = 0;
        while recorder::count(0) == 0 && sleeps < 100_000 {
            cpu::wait_for_interrupt();
            cpu::unmask_irqs();
            cpu::mask_irqs();
            sleeps += 1;
        }
        check_eq!(recorder::intids(0).as_slice(), &[timer.intid()][..], "{timer:?}: interrupts out of WFI");
        check!(timer.count() >= deadline, "{timer:?} should not come early");
    }
    Ok(())
}

fn tval() -> Outcome {
    for timer in Timer::ALL {
        let ticks = milliseconds(1000) as i32;
        let before = timer.count();
        timer.set_value(ticks);
        let after = timer.count();
        let range = before + ticks as u64..=after + ticks as u64;
        check!(
            range.contains(&timer.deadline()),
            "{timer:?}: CVAL from TVAL in {range:?}, got {}",
            timer.deadline()
        );
        let left = timer.value();
        check!((1..=ticks).contains(&left), "{timer:?}: TVAL should count down from {ticks}, got {left}");
        timer.set_value(-1);
        check!(timer.value() < 0, "{timer:?}: TVAL in the past should be negative, got {}", timer.value());
        timer.set_control(ENABLE | IMASK);
        check_eq!(timer.control() & 7, ENABLE | IMASK | ISTATUS, "{timer:?}: CTL");
        timer.stop();
        check_eq!(timer.control() & 3, 0, "{timer:?}: CTL when off");
    }
    Ok(())
}

fn both() -> Outcome {
    for (first, second) in [(Timer::Virtual, Timer::Physical), (Timer::Physical, Timer::Virtual)] {
        recorder::clear();
        Timer::ALL.iter().for_each(|timer| gic::enable(timer.intid()));
        first.start(first.count() + milliseconds(5));
        second.start(second.count() + milliseconds(40));
        cpu::unmask_irqs();
        let came = wait(|| recorder::count(0) == 2);
        cpu::mask_irqs();
        check!(came, "both timers should come");
        let mut intids = recorder::intids(0);
        // A CPU that was away for 40 ms takes them in any order.
        intids.sort_unstable();
        let mut expected = [first.intid(), second.intid()];
        expected.sort_unstable();
        check_eq!(intids.as_slice(), &expected[..], "interrupts");
    }
    Ok(())
}

fn level_comes_again() -> Outcome {
    for timer in Timer::ALL {
        gic::enable(timer.intid());
        timer.start(timer.count());
        for _ in 0..3 {
            await_irq(timer)?;
            let interrupt = acknowledge(timer)?;
            gic::end(interrupt);
        }
        await_irq(timer)?;
        let interrupt = acknowledge(timer)?;
        timer.stop();
        gic::end(interrupt);
        let again = wait_until(GRACE_MS, || gic::acknowledge().is_some());
        check!(!again, "{timer:?} should not come after it was stopped");
    }
    Ok(())
}

fn masked_at_the_gic() -> Outcome {
    for timer in Timer::ALL {
        gic::disable(timer.intid());
        timer.start(timer.count());
        check!(!wait_until(GRACE_MS, cpu::irq_waits), "{timer:?} should not come while disabled");
        check!(gic::is_pending(timer.intid()), "{timer:?} should be pending while disabled");
        gic::enable(timer.intid());
        await_irq(timer)?;
        let interrupt = acknowledge(timer)?;
        timer.stop();
        gic::end(interrupt);
    }
    Ok(())
}

fn masked_at_the_timer() -> Outcome {
    for timer in Timer::ALL {
        gic::enable(timer.intid());
        timer.set_deadline(timer.count());
        timer.set_control(ENABLE | IMASK);
        check!(!wait_until(GRACE_MS, cpu::irq_waits), "{timer:?} should not come while IMASK is set");
        check!(timer.expired(), "{timer:?}: ISTATUS should be set while IMASK is");
        timer.set_control(ENABLE);
        await_irq(timer)?;
        let interrupt = acknowledge(timer)?;
        timer.stop();
        gic::end(interrupt);
    }
    Ok(())
}

/// How many interrupts a guest may still take when it has lowered a timer's line before it took the interrupt: none on
/// hardware. Under Hanok one that waits in a list register isn't withdrawn, for the guest's write to its own timer doesn't
/// come to EL2's notice (docs/architecture.md); a second one would be wrong.
fn late_interrupts() -> usize {
    usize::from(is_hanok())
}

fn stopped_before_taken() -> Outcome {
    for timer in Timer::ALL {
        recorder::clear();
        gic::enable(timer.intid());
        timer.start(timer.count());
        await_irq(timer)?;
        timer.stop();
        // The line is down before anybody took the interrupt: there is none.
        cpu::unmask_irqs();
        grace();
        cpu::mask_irqs();
        check!(
            recorder::count(0) <= late_interrupts(),
            "{timer:?}: {} interrupts after it was stopped",
            recorder::count(0)
        );
        check!(!gic::is_pending(timer.intid()), "{timer:?} should not be pending after it was stopped");
    }
    Ok(())
}

fn moved_before_taken() -> Outcome {
    for timer in Timer::ALL {
        recorder::clear();
        gic::enable(timer.intid());
        timer.start(timer.count());
        await_irq(timer)?;
        let later = timer.count() + milliseconds(100);
        timer.set_deadline(later);
        cpu::unmask_irqs();
        let early = recorder::count(0);
        check!(
            early <= late_interrupts(),
            "{timer:?} should not come before the later deadline: {early} times"
        );
        if early > 0 {
            // Its handler has stopped it.
            timer.start(later);
        }
        let came = wait(|| recorder::count(0) > early);
        cpu::mask_irqs();
        check!(came, "{timer:?} should come at the later deadline");
        check!(timer.count() >= later, "{timer:?} should not come before the later deadline");
        check_eq!(recorder::count(0), early + 1, "{timer:?}: interrupts");
    }
    Ok(())
}

static TICKS: AtomicU64 = AtomicU64::new(0);
const PERIODS: u64 = 50;

/// Sets the next deadline, a period after the last one.
fn next_period(intid: u32) {
    let ticks = TICKS.fetch_add(1, Ordering::Relaxed) + 1;
    for timer in Timer::ALL.into_iter().filter(|timer| timer.intid() == intid) {
        if ticks < PERIODS {
            timer.start(timer.deadline() + milliseconds(1));
        }
    }
}

fn periodic() -> Outcome {
    for timer in Timer::ALL {
        recorder::clear();
        recorder::set_hook(next_period);
        TICKS.store(0, Ordering::Relaxed);
        gic::enable(timer.intid());
        let start = timer.count();
        timer.start(start + milliseconds(1));
        cpu::unmask_irqs();
        let complete = wait(|| TICKS.load(Ordering::Relaxed) == PERIODS);
        cpu::mask_irqs();
        let passed = timer.count() - start;
        check!(complete, "{timer:?}: {PERIODS} periods, got {}", TICKS.load(Ordering::Relaxed));
        check!(passed >= milliseconds(PERIODS), "{timer:?}: {PERIODS} ms should have passed");
    }
    Ok(())
}
