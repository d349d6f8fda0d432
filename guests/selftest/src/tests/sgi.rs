//! Software-generated interrupts on one CPU: all numbers, many at once, priorities.

use core::sync::atomic::{AtomicU32, Ordering};

use runtime::gic::SgiTarget;
use runtime::{cpu, gic, interrupts};

use crate::framework::{Outcome, check, check_eq, expect_soon, grace, on_every_cpu, tests, wait};
use crate::recorder;

tests! {
    "sgi.self" => to_self,
    "sgi.none-pending" => none_pending,
    "sgi.all-at-once-by-priority" => all_at_once_by_priority,
    "sgi.equal-priorities-by-number" => equal_priorities_by_number,
    "sgi.priority-mask" => priority_mask,
    "sgi.preemption" => preemption,
    "sgi.no-preemption-by-equals" => no_preemption_by_equals,
    "sgi.disabled-stays-pending" => disabled_stays_pending,
    "sgi.merged-while-pending" => merged_while_pending,
    "sgi.pending-again-while-active" => pending_again_while_active,
    "sgi.empty-target-list" => empty_target_list,
}

const COUNT: u32 = 16;

fn send(intid: u32) {
    gic::send_sgi(intid, SgiTarget::Cpu(cpu::index()));
}

/// Lets interrupts in until `count` have come, and a little longer, for those that should not come.
fn deliver(count: usize) {
    cpu::unmask_irqs();
    wait(|| recorder::count(cpu::index()) >= count);
    grace();
    cpu::mask_irqs();
}

fn to_self() -> Outcome {
    on_every_cpu(|| {
        let own = cpu::index();
        recorder::clear();
        for intid in 0..COUNT {
            cpu::unmask_irqs();
            send(intid);
            let seen = wait(|| recorder::count(own) > intid as usize);
            cpu::mask_irqs();
            check!(seen, "CPU {own}: SGI {intid} should come");
        }
        let intids = recorder::intids(own);
        check!(intids.iter().copied().eq(0..COUNT), "CPU {own}: each SGI once, got {intids:?}");
        let own_source = runtime::machine().cpus()[own] as u32 & 7;
        let sources = recorder::events(own).into_iter().filter_map(|event| event.source);
        check!(sources.into_iter().all(|source| source == own_source), "CPU {own}: itself as the source");
        Ok(())
    })
}

fn none_pending() -> Outcome {
    check_eq!(gic::acknowledge(), None, "acknowledge with nothing pending");
    check!(gic::highest_pending() >= 1020, "no pending interrupt, got {}", gic::highest_pending());
    let spurious = interrupts::spurious();
    deliver(0);
    check_eq!(recorder::count(0), 0, "interrupts that nobody sent");
    check_eq!(interrupts::spurious(), spurious, "IRQs without an interrupt");
    Ok(())
}

/// A priority of its own for every SGI, not in the order of their numbers.
fn priority_of(intid: u32) -> u8 {
    ((intid * 7 + 3) % COUNT * 16) as u8
}

fn all_at_once_by_priority() -> Outcome {
    // Sixteen pending interrupts are more than there are list registers on any CPU tested.
    for round in 0..20 {
        recorder::clear();
        for intid in 0..COUNT {
            gic::set_priority(intid, priority_of(intid));
        }
        for intid in 0..COUNT {
            send(intid);
        }
        deliver(COUNT as usize);
        let intids = recorder::intids(0);
        check_eq!(intids.len(), COUNT as usize, "round {round}: SGIs delivered");
        let priorities = intids.iter().map(|intid| priority_of(*intid));
        check!(priorities.is_sorted(), "round {round}: most urgent first, got {intids:?}");
    }
    Ok(())
}

fn equal_priorities_by_number() -> Outcome {
    // The architecture leaves the order open; all of them come, each once.
    for intid in (0..COUNT).rev() {
        send(intid);
    }
    deliver(COUNT as usize);
    let mut intids = recorder::intids(0);
    intids.sort_unstable();
    check!(intids.iter().copied().eq(0..COUNT), "each SGI once, got {intids:?}");
    Ok(())
}

fn priority_mask() -> Outcome {
    gic::set_priority(4, 0x40);
    gic::set_priority(5, 0x80);
    gic::set_priority_mask(0x80);
    check_eq!(gic::priority_mask() & 0xf0, 0x80, "priority mask");
    send(4);
    send(5);
    deliver(1);
    check_eq!(recorder::intids(0).as_slice(), &[4][..], "interrupts more urgent than the mask");
    gic::set_priority_mask(gic::MASK_NONE);
    deliver(2);
    check_eq!(recorder::intids(0).as_slice(), &[4, 5][..], "interrupts after the mask is off");
    Ok(())
}

static SEEN_INSIDE: AtomicU32 = AtomicU32::new(0);

/// In the handler of SGI 1: sends 2 and 3, lets interrupts in, and notes how many came.
fn send_from_handler(intid: u32) {
    if intid != 1 {
        return;
    }
    send(2);
    send(3);
    cpu::unmask_irqs();
    grace();
    cpu::mask_irqs();
    SEEN_INSIDE.store(recorder::count(0) as u32, Ordering::Relaxed);
}

fn preemption() -> Outcome {
    for (intid, priority) in [(1, 0x80), (2, 0x40), (3, 0xc0)] {
        gic::set_priority(intid, priority);
    }
    recorder::set_hook(send_from_handler);
    send(1);
    deliver(3);
    check_eq!(recorder::intids(0).as_slice(), &[1, 2, 3][..], "order of delivery");
    check_eq!(SEEN_INSIDE.load(Ordering::Relaxed), 2, "interrupts until the first handler's end");
    check!(gic::running_priority() >= 0xf8, "idle priority, got {:#x}", gic::running_priority());
    Ok(())
}

fn no_preemption_by_equals() -> Outcome {
    recorder::set_hook(send_from_handler);
    send(1);
    deliver(3);
    check_eq!(SEEN_INSIDE.load(Ordering::Relaxed), 1, "interrupts until the first handler's end");
    check_eq!(recorder::count(0), 3, "interrupts in all");
    Ok(())
}

fn disabled_stays_pending() -> Outcome {
    // A PPI or SGI can't be disabled on every GICv2; where it can't, there is nothing to see.
    gic::disable(6);
    if gic::is_enabled(6) {
        return Err(crate::framework::Stop::Skipped("SGIs are always enabled here"));
    }
    send(6);
    deliver(0);
    check_eq!(recorder::count(0), 0, "interrupts while SGI 6 is disabled");
    check!(gic::is_pending(6), "SGI 6 should be pending meanwhile");
    gic::enable(6);
    deliver(1);
    check_eq!(recorder::intids(0).as_slice(), &[6][..], "interrupts after enabling it");
    Ok(())
}

fn merged_while_pending() -> Outcome {
    for _ in 0..5 {
        send(9);
    }
    deliver(1);
    check_eq!(recorder::intids(0).as_slice(), &[9][..], "deliveries of an SGI sent five times while pending");
    Ok(())
}

fn pending_again_while_active() -> Outcome {
    send(9);
    expect_soon(cpu::irq_waits, format_args!("SGI 9 should wait"))?;
    let first = gic::acknowledge();
    check_eq!(first.map(|interrupt| interrupt.intid()), Some(9), "first acknowledge");
    check!(gic::is_active(9), "SGI 9 should be active");
    send(9);
    check_eq!(gic::acknowledge(), None, "acknowledge while SGI 9 is active and pending");
    first.into_iter().for_each(gic::end);
    expect_soon(cpu::irq_waits, format_args!("SGI 9 should wait again"))?;
    let second = gic::acknowledge();
    second.into_iter().for_each(gic::end);
    check_eq!(second.map(|interrupt| interrupt.intid()), Some(9), "second acknowledge");
    check_eq!(gic::acknowledge(), None, "third acknowledge");
    check!(!gic::is_active(9), "SGI 9 should be inactive");
    Ok(())
}

fn empty_target_list() -> Outcome {
    gic::send_to_nobody(5);
    deliver(0);
    check_eq!(recorder::count(0), 0, "interrupts sent to nobody");
    Ok(())
}
