//! A member with a CPU to itself.

use vmm::sched::{Change, Pinned, Queue, Scheduler, Shared, Times, Turn};

use super::sim::*;

#[test]
fn its_member_runs_whenever_it_is_ready() {
    let mut queue = Queue::Pinned(Pinned::new());
    let idle = Turn { member: None, until: None };
    assert_eq!(queue.pick(5), idle);
    queue.wake(0, 10);
    assert!(queue.is_ready(0));
    assert_eq!(queue.pick(12), Turn { member: Some(0), until: None });
    queue.wake(0, 13);
    queue.pass(0, 14);
    assert_eq!(queue.pick(20), Turn { member: Some(0), until: None });
    queue.block(0, 50);
    assert!(!queue.is_ready(0));
    assert_eq!(queue.pick(60), idle);
    assert_eq!(queue.times(0), Times { ran: 38, waited: 2 });
}

/// All that a change of who runs takes, in one: the same as its parts one by one.
#[test]
fn deciding_is_changing_and_picking() {
    let shared = |shares: &[_]| Queue::Shared(Shared::new(shares, 1_000));
    let queues = || {
        [
            Queue::Pinned(Pinned::new()),
            shared(&[weight(100), weight(100)]),
            shared(&[budget(200, 2_000), weight(1), budget(500, 5_000)]),
        ]
    };
    for (mut one, mut other) in queues().into_iter().zip(queues()) {
        for queue in [&mut one, &mut other] {
            (0..3).for_each(|member| queue.wake(member, 5));
        }
        let mut last = None;
        for (now, change) in (10..).step_by(300).zip([
            Change::Nothing,
            Change::Passes,
            Change::Nothing,
            Change::Blocks,
            Change::Passes,
            Change::Blocks,
        ]) {
            let decision = one.decide(last, change, now);
            match (last, change) {
                (Some(member), Change::Passes) => other.pass(member, now),
                (Some(member), Change::Blocks) => other.block(member, now),
                _ => {}
            }
            let turn = other.pick(now);
            assert_eq!(decision.turn(), turn);
            if let Some(last) = last {
                assert_eq!(decision.last, (other.is_ready(last), other.times(last)));
            }
            assert_eq!(decision.times, turn.member.map(|next| other.times(next)).unwrap_or_default());
            last = turn.member;
        }
    }
}

/// Whoever waits may pass, too: it is not the one that is charged.
#[test]
fn deciding_for_one_that_does_not_run() {
    let shares = [budget(200, 2_000), weight(1), budget(500, 5_000)];
    let queue = || {
        let mut queue = Queue::Shared(Shared::new(&shares, 1_000));
        (0..3).for_each(|member| queue.wake(member, 5));
        queue.pick(5);
        queue
    };
    // Number 0 runs, and goes on.
    let decision = queue().decide(Some(2), Change::Passes, 20);
    assert_eq!((decision.next, decision.last), (0, (true, Times { ran: 0, waited: 15 })));
    assert_eq!(decision.times, Times { ran: 15, waited: 0 });
    for last in 0..5 {
        let (mut one, mut other) = (queue(), queue());
        let decision = one.decide(Some(last), Change::Passes, 20);
        other.pass(last, 20);
        assert_eq!(decision.turn(), other.pick(20), "{last}");
        assert_eq!(decision.last, (other.is_ready(last), other.times(last)), "{last}");
    }
}

#[test]
fn it_counts_on_from_the_times_on_another_cpu() {
    let before = Times { ran: 500, waited: 70 };
    let mut queue = Queue::Pinned(Pinned::new());
    queue.set_times(1, before);
    assert_eq!((queue.times(0), queue.times(1)), (Times::NONE, Times::NONE), "there is no other member");
    queue.set_times(0, before);
    queue.wake(0, 10);
    queue.set_times(0, Times::NONE);
    queue.pick(12);
    queue.set_times(0, Times::NONE);
    queue.block(0, 50);
    assert_eq!(queue.times(0), Times { ran: 538, waited: 72 });
}

#[test]
fn there_is_no_other_member() {
    let mut pinned = Pinned::default();
    pinned.wake(1, 10);
    assert_eq!(pinned.pick(10).member, None);
    pinned.wake(0, 20);
    pinned.block(1, 20);
    assert_eq!(pinned.pick(20).member, Some(0));
    assert!(!pinned.is_ready(1));
    assert_eq!(pinned.times(1), Times::default());
}

#[test]
fn times_add_up() {
    let load = Load::Jobs { first: 7, period: 100, work: 33, excess: 20 };
    let mut sim = Sim::of(Queue::Pinned(Pinned::new()), &[(weight(1), load)]);
    sim.run(&[], 10_000).check_times();
    assert!(sim.ran(0) > 2_500);
    assert_eq!(sim.records[0].longest_response, 33);
}
