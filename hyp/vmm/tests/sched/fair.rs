//! Members with a weight.

use proptest::prelude::*;
use vmm::sched::{Queue, Scheduler, Shared, Times, Turn};

use super::SLICE;
use super::sim::*;

#[test]
#[cfg_attr(miri, ignore = "takes long there")]
fn each_gets_its_part() {
    for weights in [&[1, 1][..], &[1, 2, 3, 10], &[65535, 1000, 30000], &[100, 300, 100, 77, 512]] {
        let members: Vec<_> = weights.iter().map(|&one| (weight(one), Load::Busy)).collect();
        let mut sim = Sim::new(&members);
        sim.run(&[], 1_000_000).check_times();
        assert_eq!(sim.idle, 0);
        let sum: u32 = weights.iter().sum();
        for (member, &one) in weights.iter().enumerate() {
            let part = 1_000_000 * u64::from(one) / u64::from(sum);
            assert!(
                sim.ran(member).abs_diff(part) <= part / 100,
                "{weights:?}: {member} {}",
                sim.ran(member)
            );
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long there")]
fn nothing_is_lost_by_rounding() {
    // Turns of one tick, where the heavy ones advance by far less than a step.
    let shares = [weight(65535), weight(65534), weight(1)];
    let mut sim = Sim::of(Queue::Shared(Shared::new(&shares, 1)), &shares.map(|share| (share, Load::Busy)));
    sim.run(&[], 1_000_000);
    assert!((499_000..501_000).contains(&sim.ran(0)), "{}", sim.ran(0));
    assert!((499_000..501_000).contains(&sim.ran(1)), "{}", sim.ran(1));
    assert!((6..=16).contains(&sim.ran(2)), "{}", sim.ran(2));
}

#[test]
fn who_runs_alone_is_left_alone() {
    let mut queue = Shared::new(&[weight(1), weight(1)], SLICE);
    queue.wake(1, 0);
    assert_eq!(queue.pick(0), Turn { member: Some(1), until: None });
    // A turn of a slice is over when another one comes.
    queue.wake(0, 1000);
    assert_eq!(queue.pick(1000), Turn { member: Some(0), until: Some(1000 + SLICE) });
}

#[test]
fn a_pick_within_a_slice_changes_nothing() {
    let mut queue = Shared::new(&[weight(1), weight(1)], SLICE);
    queue.wake(0, 0);
    queue.wake(1, 0);
    let first = queue.pick(0);
    assert_eq!(first.until, Some(SLICE));
    for tick in 1..SLICE {
        assert_eq!(queue.pick(tick), first);
    }
    let second = queue.pick(SLICE);
    assert_ne!(second.member, first.member);
    assert_eq!(second.until, Some(2 * SLICE));
}

#[test]
fn a_reserved_member_interrupts_a_slice_and_does_not_end_it() {
    let mut queue = Shared::new(&[weight(1), weight(1), budget(10, 1000)], SLICE);
    queue.wake(0, 0);
    queue.wake(1, 0);
    let first = queue.pick(0).member;
    queue.wake(2, 30);
    assert_eq!(queue.pick(30), Turn { member: Some(2), until: Some(40) });
    queue.block(2, 40);
    assert_eq!(queue.pick(40), Turn { member: first, until: Some(40 + SLICE - 30) });
}

#[test]
fn who_wakes_goes_first_if_it_is_well_behind() {
    for (behind, switches) in [(SLICE / 4, false), (SLICE / 4 + 1, true)] {
        let mut queue = Shared::new(&[weight(1), weight(1), weight(1)], SLICE);
        queue.wake(0, 0);
        queue.wake(2, 0);
        assert_eq!(queue.pick(0).member, Some(0));
        assert_eq!(queue.pick(SLICE).member, Some(2));
        queue.block(2, 2 * SLICE);
        assert_eq!(queue.pick(2 * SLICE).member, Some(0));
        let now = 2 * SLICE + SLICE / 2;
        queue.block(0, now);
        queue.wake(2, now);
        // Number 0 has run a slice and a half, number 2 a slice. It runs until it is so far ahead.
        assert_eq!(queue.pick(now).member, Some(2));
        let ahead = now + SLICE / 2 + behind;
        queue.wake(0, ahead);
        let turn = queue.pick(ahead);
        assert_eq!(turn.member == Some(0), switches, "{turn:?} with {behind} behind");
    }
}

#[test]
fn sleep_saves_nothing_up() {
    for weights in [[1, 1], [10, 1], [1, 10]] {
        let mut sim = Sim::new(&[(weight(weights[0]), Load::Busy), (weight(weights[1]), Load::Script)]);
        sim.run(&[(500_000, 1, Act::Wake)], 520_000).check_times();
        let (own, all) = (u64::from(weights[1]), u64::from(weights[0] + weights[1]));
        for end in (500_000..520_000).step_by(10) {
            let ran = sim.ran_within(1, 500_000, end);
            let part = (end - 500_000) * own / all;
            assert!(ran <= part + 2 * SLICE, "{weights:?}: ran {ran}, its part was {part}");
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "takes long there")]
fn who_sleeps_much_is_served_at_once() {
    let sleeper = Load::Jobs { first: 5_000, period: 1_000, work: 20, excess: 130 };
    let mut sim = Sim::new(&[(weight(1), Load::Busy), (weight(1), sleeper), (weight(1), Load::Busy)]);
    sim.run(&[], 1_000_000).check_times();
    assert_eq!(sim.records[1].longest_response, 20);
}

#[test]
fn who_passes_lets_the_other_go_first() {
    let mut queue = Shared::new(&[weight(1), weight(1)], SLICE);
    queue.wake(0, 0);
    queue.wake(1, 0);
    assert_eq!(queue.pick(0).member, Some(0));
    queue.pass(0, 10);
    assert_eq!(queue.pick(10), Turn { member: Some(1), until: Some(10 + SLICE) });
    assert!(queue.is_ready(0));
    assert_eq!(queue.pick(10 + SLICE).member, Some(0));
    // It has run far less than the other one, which goes first all the same.
    queue.pass(0, 120);
    assert_eq!(queue.pick(120).member, Some(1));
    assert_eq!(queue.pick(120 + SLICE).member, Some(0));
    queue.block(1, 230);
    queue.pass(0, 230);
    assert_eq!(queue.pick(230).member, Some(0), "there is no other");
}

#[test]
fn what_is_given_away_does_not_come_back() {
    let mut queue = Shared::new(&[weight(1), weight(1)], SLICE);
    queue.wake(0, 0);
    queue.wake(1, 0);
    let mut now = 0;
    while now < 100_000 {
        let turn = queue.pick(now);
        now = if turn.member == Some(0) { now + 1 } else { turn.until.unwrap().max(now + 1) };
        if turn.member == Some(0) {
            queue.pass(0, now);
        }
    }
    let mut stretch = 0;
    while queue.pick(now).member == Some(0) || stretch == 0 {
        stretch += 1;
        now += 10;
        assert!(stretch <= 2 * SLICE / 10, "it was given back");
    }
}

#[test]
fn times_are_counted_on_from_those_of_another_cpu() {
    let mut queue = Shared::new(&[weight(1), weight(1)], SLICE);
    queue.set_times(1, Times { ran: 500, waited: 70 });
    assert_eq!(queue.times(1), Times { ran: 500, waited: 70 });
    queue.wake(0, 10);
    queue.wake(1, 10);
    assert_eq!(queue.pick(10).member, Some(0));
    assert_eq!(queue.pick(10 + SLICE).member, Some(1));
    queue.pick(30 + SLICE);
    assert_eq!(queue.times(1), Times { ran: 520, waited: 70 + SLICE });
    queue.set_times(1, Times::NONE);
    assert_eq!(queue.times(1), Times { ran: 520, waited: 70 + SLICE }, "it is ready");
    queue.block(1, 30 + SLICE);
    assert_eq!(queue.times(1), Times { ran: 520, waited: 70 + SLICE });
}

#[test]
#[cfg_attr(miri, ignore = "takes long there")]
fn old_counters_and_times_that_go_back_do_no_harm() {
    let thirty_years = 30 * 366 * 86400 * 1_000_000_000;
    let mut queue = Shared::new(&[weight(1), weight(65535)], 1_000_000);
    queue.wake(0, 0);
    queue.pick(0);
    queue.wake(1, thirty_years);
    assert_eq!(queue.pick(thirty_years).member, Some(1), "the other one has run for thirty years");
    assert_eq!(queue.pick(5).member, Some(1));
    assert_eq!(queue.times(0).ran, thirty_years);
    let mut turn = queue.pick(thirty_years + 1);
    for _ in 0..200_000 {
        turn = queue.pick(turn.until.unwrap());
    }
    assert!((2..=5).contains(&((queue.times(0).ran - thirty_years) / 1_000_000)), "{:?}", queue.times(0));
    queue.pick(u64::MAX);
    queue.pick(u64::MAX);
}

proptest! {
    #![proptest_config(cases(200))]

    /// Nobody who is ready waits longer than each other one needs for its part while this one had a slice, and two
    /// slices more of each.
    #[test]
    fn waits_and_slices_are_bounded(
        weights in prop::collection::vec(1_u32..20, 2..6), script in script(6, 300, 150), late in 0_u64..5,
    ) {
        let members: Vec<_> = weights.iter().map(|&one| (weight(one), Load::Script)).collect();
        let script: Vec<_> = script.into_iter().filter(|event| event.1 < members.len()).collect();
        let mut sim = Sim::new(&members);
        sim.late = late;
        sim.run(&script, 30_000).check_times();
        let (slice, all) = (SLICE + late, weights.iter().sum::<u32>());
        for (member, &own) in weights.iter().enumerate() {
            let others = (weights.len() - 1) as u64;
            let bound = slice * u64::from(all - own) / u64::from(own) + 2 * slice * others + others;
            let waited = sim.records[member].longest_wait;
            prop_assert!(waited <= bound, "{} waited {}, more than {}", member, waited, bound);
        }
    }

    #[test]
    fn no_turn_outlasts_the_slice(weights in prop::collection::vec(1_u32..20, 2..5), script in script(5, 200, 90)) {
        let count = weights.len();
        let shares: Vec<_> = weights.iter().map(|&one| weight(one)).collect();
        let mut queue = Shared::new(&shares, SLICE);
        (0..count).for_each(|member| queue.wake(member, 0));
        let mut turn = queue.pick(0);
        let mut end = turn.until.unwrap();
        for (now, member, act) in script {
            while turn.until.is_some_and(|until| until < now) {
                let at = turn.until.unwrap();
                prop_assert!(at <= end);
                turn = queue.pick(at);
                prop_assert!(turn.until > Some(at), "time stands still");
                end = at + SLICE;
            }
            // Nobody blocks, so the turn ends when it was said to, whatever is picked within.
            if matches!(act, Act::Nudge | Act::Wake) {
                queue.wake(member % count, now);
                let again = queue.pick(now);
                if now < end {
                    prop_assert_eq!(again, turn);
                } else {
                    end = now + SLICE;
                }
                turn = again;
            }
        }
    }
}
