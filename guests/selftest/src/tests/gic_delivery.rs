//! What the distributor delivers, to whom, in which order, and what it holds back.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use runtime::gic::{self, SgiTarget, distributor, register};
use runtime::timer::Timer;
use runtime::{cpu, machine};

use super::gic::two_spis;
use crate::framework::{
    Outcome, check, check_eq, expect_soon, finish, grace, needs_cpus, secondaries, start, tests, wait,
};
use crate::recorder;

tests! {
    "gic.delivery" => delivery,
    "gic.delivery-cleared" => cleared,
    "gic.delivery-held-by-active" => held_by_active,
    "gic.delivery-held-by-ctlr" => held_by_ctlr,
    "gic.delivery-held-by-group" => held_by_group,
    "gic.delivery-of-edges" => edges,
    "gic.delivery-of-all-kinds" => all_kinds,
    "gic.delivery-routed" => routed,
    "gic.delivery-rerouted-while-pending" => rerouted_while_pending,
    "gic.delivery-end-in-two-steps" => end_in_two_steps,
}

/// Expects exactly `intid` to be acknowledged now, and returns it.
fn take(intid: u32) -> Result<Option<gic::Interrupt>, crate::framework::Stop> {
    wait(cpu::irq_waits);
    let interrupt = gic::acknowledge();
    check_eq!(interrupt.map(|interrupt| interrupt.intid()), Some(intid), "acknowledge");
    Ok(interrupt)
}

fn nothing_comes(when: &str) -> Outcome {
    grace();
    check_eq!(gic::acknowledge(), None, "acknowledge {when}");
    Ok(())
}

fn delivery() -> Outcome {
    let (first, second) = two_spis()?;
    for intid in [first, second] {
        gic::enable(intid);
        gic::set_pending(intid);
        let interrupt = take(intid)?;
        check!(gic::is_active(intid), "INTID {intid} should be active after acknowledge");
        check!(!gic::is_pending(intid), "INTID {intid} should not be pending after acknowledge");
        interrupt.into_iter().for_each(gic::end);
        check!(!gic::is_active(intid), "INTID {intid} should be inactive after its end");
        nothing_comes("after it was handled")?;
    }
    Ok(())
}

fn cleared() -> Outcome {
    let (intid, _) = two_spis()?;
    gic::set_pending(intid);
    nothing_comes("while disabled")?;
    gic::clear_pending(intid);
    gic::enable(intid);
    nothing_comes("after its pending bit was cleared")?;
    // And the other way round: enabled first, IRQs masked.
    gic::set_pending(intid);
    expect_soon(cpu::irq_waits, format_args!("INTID {intid} should wait"))?;
    gic::clear_pending(intid);
    nothing_comes("after its pending bit was cleared, enabled")?;
    gic::set_pending(intid);
    expect_soon(cpu::irq_waits, format_args!("INTID {intid} should wait again"))?;
    gic::disable(intid);
    nothing_comes("after it was disabled, pending")?;
    check!(gic::is_pending(intid), "INTID {intid} should be pending still");
    Ok(())
}

fn held_by_active() -> Outcome {
    let (intid, _) = two_spis()?;
    gic::set_active(intid);
    gic::enable(intid);
    gic::set_pending(intid);
    nothing_comes("while it is active")?;
    gic::clear_active(intid);
    take(intid)?.into_iter().for_each(gic::end);
    nothing_comes("after it was handled")
}

fn held_by_ctlr() -> Outcome {
    let (intid, _) = two_spis()?;
    gic::enable(intid);
    gic::enable_distributor(false);
    gic::set_pending(intid);
    gic::send_sgi(2, SgiTarget::Cpu(0));
    nothing_comes("while the distributor is off")?;
    gic::enable_distributor(true);
    gic::set_priority(intid, 0x20);
    take(intid)?.into_iter().for_each(gic::end);
    // Whether an SGI sent meanwhile is kept is open.
    gic::acknowledge().into_iter().for_each(gic::end);
    nothing_comes("at last")
}

fn held_by_group() -> Outcome {
    let (intid, _) = two_spis()?;
    let at = register::IGROUPR + intid as usize / 32 * 4;
    let groups = distributor().read32(at);
    gic::enable(intid);
    // The group that this CPU's interface has not enabled.
    distributor().write32(at, groups ^ 1 << (intid % 32));
    gic::set_pending(intid);
    nothing_comes("while its group is disabled")?;
    distributor().write32(at, groups);
    take(intid)?.into_iter().for_each(gic::end);
    nothing_comes("after it was handled")
}

fn edges() -> Outcome {
    let (intid, _) = two_spis()?;
    gic::set_trigger(intid, gic::Trigger::Edge);
    gic::enable(intid);
    gic::set_pending(intid);
    let interrupt = take(intid)?;
    // Pending again while active, and delivered again after the end.
    gic::set_pending(intid);
    check!(gic::is_active(intid) && gic::is_pending(intid), "INTID {intid} should be active and pending");
    nothing_comes("while it is active and pending")?;
    interrupt.into_iter().for_each(gic::end);
    take(intid)?.into_iter().for_each(gic::end);
    nothing_comes("after both were handled")
}

fn all_kinds() -> Outcome {
    // Sixteen SGIs, two PPIs and two SPIs at once, in order of priorities that differ.
    let (first, second) = two_spis()?;
    let [third, fourth] = Timer::ALL.map(Timer::intid);
    // The upper four bits tell sixteen priorities apart; the last SGIs share theirs with others.
    for (n, intid) in [fourth, second, third, first].into_iter().chain(0..16).enumerate() {
        gic::set_priority(intid, (n.min(14) * 16) as u8);
        gic::enable(intid);
    }
    for intid in 0..16 {
        gic::send_sgi(intid, SgiTarget::Cpu(0));
    }
    gic::set_pending(first);
    gic::set_pending(second);
    Timer::ALL.iter().for_each(|timer| timer.start(timer.count()));
    let timers_pend = || Timer::ALL.iter().all(|timer| gic::is_pending(timer.intid()));
    expect_soon(timers_pend, format_args!("both timers should be pending"))?;
    cpu::unmask_irqs();
    wait(|| recorder::count(0) >= 20);
    grace();
    cpu::mask_irqs();
    let mut intids = recorder::intids(0);
    check_eq!(intids.len(), 20, "interrupts delivered: {intids:?}");
    check_eq!(&intids[..4], &[fourth, second, third, first][..], "the most urgent, in order");
    check!(intids[4..14].iter().copied().eq(0..10), "SGIs by priority, got {intids:?}");
    intids.sort_unstable();
    check!(intids.windows(2).all(|pair| pair[0] != pair[1]), "each interrupt once, got {intids:?}");
    Ok(())
}

static READY: AtomicUsize = AtomicUsize::new(0);
static LEAVE: AtomicBool = AtomicBool::new(false);

fn take_interrupts(_: u64) {
    cpu::unmask_irqs();
    READY.fetch_add(1, Ordering::Release);
    wait(|| LEAVE.load(Ordering::Acquire));
    cpu::mask_irqs();
}

fn routed() -> Outcome {
    needs_cpus(2)?;
    let (intid, _) = two_spis()?;
    READY.store(0, Ordering::Release);
    LEAVE.store(false, Ordering::Release);
    secondaries().try_for_each(|cpu| start(cpu, take_interrupts, 0))?;
    expect_soon(
        || READY.load(Ordering::Acquire) == secondaries().len(),
        format_args!("all CPUs should be ready"),
    )?;
    gic::enable(intid);
    let mut reached = Ok(());
    for cpu in secondaries() {
        gic::route(intid, cpu);
        cpu::synchronize();
        gic::set_pending(intid);
        let came = || recorder::count(cpu) == 1;
        reached = reached.and(expect_soon(came, format_args!("INTID {intid} should reach CPU {cpu}")));
    }
    LEAVE.store(true, Ordering::Release);
    secondaries().try_for_each(finish)?;
    reached?;
    for cpu in secondaries() {
        check_eq!(recorder::intids(cpu).as_slice(), &[intid][..], "what CPU {cpu} took");
    }
    nothing_comes("on the boot CPU")?;
    gic::route(intid, 0);
    gic::set_pending(intid);
    take(intid)?.into_iter().for_each(gic::end);
    Ok(())
}

fn rerouted_while_pending() -> Outcome {
    needs_cpus(2)?;
    let (intid, _) = two_spis()?;
    // Pending for a CPU that is off, then routed here.
    gic::route(intid, machine().cpus().len() - 1);
    gic::enable(intid);
    gic::set_pending(intid);
    nothing_comes("while it is routed elsewhere")?;
    gic::route(intid, 0);
    take(intid)?.into_iter().for_each(gic::end);
    nothing_comes("after it was handled")
}

fn end_in_two_steps() -> Outcome {
    let (intid, _) = two_spis()?;
    gic::split_end(true);
    gic::enable(intid);
    gic::set_pending(intid);
    let interrupt = take(intid)?;
    interrupt.into_iter().for_each(gic::end);
    let dropped = gic::running_priority() >= 0xf8;
    let active = gic::is_active(intid);
    gic::set_pending(intid);
    let early = gic::acknowledge();
    interrupt.into_iter().for_each(gic::deactivate);
    let second = take(intid)?;
    second.into_iter().for_each(gic::end);
    second.into_iter().for_each(gic::deactivate);
    let inactive = !gic::is_active(intid);
    gic::split_end(false);
    check!(dropped, "the first step should drop the priority");
    check!(active, "INTID {intid} should be active between the steps");
    check_eq!(early, None, "acknowledge between the steps");
    check!(inactive, "INTID {intid} should be inactive after the second step");
    Ok(())
}
