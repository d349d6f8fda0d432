//! Members with a budget in each period.

use proptest::prelude::*;
use vmm::sched::{Scheduler, Shared, Times, Turn, admit};

use super::SLICE;
use super::sim::*;

#[test]
#[cfg_attr(miri, ignore = "takes long there")]
fn it_gets_its_budget_in_each_period_under_any_load() {
    let mut sim = Sim::new(&[
        (weight(65535), Load::Busy),
        (budget(30, 200), Load::Busy),
        (weight(1), Load::Jobs { first: 3, period: 70, work: 20, excess: 9 }),
    ]);
    sim.run(&[], 200_000).check_times();
    for period in 0..1000 {
        assert_eq!(sim.ran_within(1, period * 200, (period + 1) * 200), 30);
    }
}

#[test]
fn without_budget_it_does_not_run_on_an_idle_cpu() {
    let mut queue = Shared::new(&[budget(30, 200)], SLICE);
    queue.wake(0, 1000);
    assert_eq!(queue.pick(1000), Turn { member: Some(0), until: Some(1030) });
    assert_eq!(queue.pick(1030), Turn { member: None, until: Some(1200) });
    assert_eq!(queue.pick(1100), Turn { member: None, until: Some(1200) });
    assert_eq!(queue.pick(1200), Turn { member: Some(0), until: Some(1230) });
    queue.block(0, 1210);
    assert_eq!(queue.pick(1210), Turn { member: None, until: None });
}

#[test]
fn a_whole_budget_never_ends() {
    let mut sim = Sim::new(&[(budget(50, 50), Load::Busy), (weight(9), Load::Busy)]);
    sim.run(&[], 10_000).check_times();
    assert_eq!((sim.ran(0), sim.ran(1)), (10_000, 0));
}

#[test]
fn the_shorter_period_goes_first() {
    let mut queue = Shared::new(&[budget(50, 500), budget(10, 100), budget(7, 100), weight(1)], SLICE);
    queue.wake(3, 0);
    assert_eq!(queue.pick(0).until, None);
    queue.wake(0, 10);
    assert_eq!(queue.pick(10), Turn { member: Some(0), until: Some(60) });
    queue.wake(2, 20);
    assert_eq!(queue.pick(20), Turn { member: Some(2), until: Some(27) });
    queue.wake(1, 22);
    assert_eq!(queue.pick(22), Turn { member: Some(1), until: Some(32) });
    assert_eq!(queue.pick(32), Turn { member: Some(2), until: Some(37) });
    // Its 40 ticks end before anybody else's budget comes back.
    assert_eq!(queue.pick(37), Turn { member: Some(0), until: Some(77) });
    // All have used theirs up: the fair one runs until the first budget is back. The second part of number 2's was
    // due as early as the first.
    assert_eq!(queue.pick(77), Turn { member: Some(3), until: Some(120) });
}

#[test]
fn a_budget_that_comes_back_interrupts_a_longer_period() {
    let mut queue = Shared::new(&[budget(10, 50), budget(300, 1000)], SLICE);
    queue.wake(0, 0);
    queue.wake(1, 0);
    assert_eq!(queue.pick(0), Turn { member: Some(0), until: Some(10) });
    assert_eq!(queue.pick(10), Turn { member: Some(1), until: Some(50) });
    assert_eq!(queue.pick(50), Turn { member: Some(0), until: Some(60) });
}

#[test]
fn lateness_is_charged() {
    let mut queue = Shared::new(&[budget(30, 200)], SLICE);
    queue.wake(0, 0);
    assert_eq!(queue.pick(0).until, Some(30));
    // Twelve ticks too late: they are missing in the next period, and come back in the one after it.
    assert_eq!(queue.pick(42), Turn { member: None, until: Some(212) });
    assert_eq!(queue.pick(212), Turn { member: Some(0), until: Some(230) });
    assert_eq!(queue.pick(230), Turn { member: None, until: Some(400) });
    assert_eq!(queue.pick(400), Turn { member: Some(0), until: Some(430) });
    // Ten budgets too late: ten periods without.
    assert_eq!(queue.pick(700), Turn { member: None, until: Some(2400) });
}

#[test]
fn in_the_long_run_lateness_gives_nothing() {
    let mut sim = Sim::new(&[(budget(30, 200), Load::Busy), (weight(1), Load::Busy)]);
    sim.late = 13;
    sim.run(&[], 200_000).check_times();
    assert!((29_900..=30_050).contains(&sim.ran(0)), "{}", sim.ran(0));
}

#[test]
fn who_passes_lets_a_fair_one_go_first_once() {
    let mut queue = Shared::new(&[budget(30, 200), weight(1)], SLICE);
    queue.wake(0, 0);
    queue.wake(1, 0);
    assert_eq!(queue.pick(0).member, Some(0));
    queue.pass(0, 10);
    assert_eq!(queue.pick(10), Turn { member: Some(1), until: Some(10 + SLICE) });
    // What it did not use counts from now, so the rest does not come back at 210.
    assert_eq!(queue.pick(10 + SLICE), Turn { member: Some(0), until: Some(130) });
    assert_eq!(queue.pick(130).until, Some(200));
    assert_eq!(queue.pick(200), Turn { member: Some(0), until: Some(210) });
    assert_eq!(queue.pick(210).until, Some(310));
    queue.block(1, 310);
    queue.pass(0, 310);
    assert_eq!(queue.pick(310).member, Some(0), "there is no other");
}

#[test]
fn what_an_overcommitted_member_missed_is_not_made_up_for() {
    let mut sim = Sim::new(&[(budget(100, 100), Load::Script), (budget(30, 200), Load::Busy)]);
    let script = [(0, 0, Act::Wake), (10_000, 0, Act::Block)];
    sim.run(&script, 20_000).check_times();
    assert_eq!(sim.ran_within(1, 0, 10_000), 0);
    assert_eq!(sim.most_within(1, 200), 30);
}

#[test]
fn shares_out_of_range_count_as_the_nearest() {
    let mut queue = Shared::new(&[budget(0, 0), budget(9, 5), weight(0), weight(u32::MAX)], 0);
    (0..5).for_each(|member| queue.wake(member, 0));
    assert_eq!(queue.pick(0), Turn { member: Some(0), until: Some(1) });
    queue.block(0, 1);
    assert_eq!(queue.pick(1), Turn { member: Some(1), until: Some(6) });
    queue.block(1, 6);
    assert_eq!(queue.pick(6).until, Some(7));
    assert!(!queue.is_ready(4));
    assert_eq!(queue.times(4), Times::default());
}

proptest! {
    #![proptest_config(cases(300))]

    /// Whatever it does, and whatever fair members do.
    #[test]
    fn no_window_holds_more_than_the_budget(
        amount in 1_u64..60, spare in 0_u64..200, script in script(3, 400, 40),
    ) {
        let period = amount + spare;
        let mut sim = Sim::new(&[
            (budget(amount, period), Load::Script), (weight(3), Load::Script), (weight(1), Load::Script),
        ]);
        sim.run(&script, 12_000).check_times();
        let most = sim.most_within(0, period);
        prop_assert!(most <= amount, "{} ran in a window of {}, its budget is {}", most, period, amount);
    }

    /// Several: where a shorter period held it up by at most its response time, so much the window is shorter.
    #[test]
    fn no_window_holds_more_than_the_budget_of_any(set in budgets(), script in script(4, 400, 12)) {
        prop_assume!(admit(reserve(&set).into_iter()).is_ok());
        let mut members: Vec<_> = set.iter().map(|&(own, period)| (budget(own, period), Load::Script)).collect();
        members.push((weight(1), Load::Busy));
        let script: Vec<_> = script.into_iter().filter(|event| event.1 < set.len()).collect();
        let mut sim = Sim::new(&members);
        sim.run(&script, 4_000).check_times();
        for (member, &(own, period)) in set.iter().enumerate() {
            let delay = response_by_trial(&set, member).unwrap() - own;
            let most = sim.most_within(member, period - delay);
            prop_assert!(most <= own, "{} ran {} in a window, its budget is {}", member, most, own);
        }
    }

    /// Jobs that fit into the budget, a period apart or more, are done by the response time, whatever the fair ones do.
    #[test]
    fn jobs_are_done_in_time(
        set in budgets(), first in prop::collection::vec(0_u64..50, 4), excess in 0_u64..20, short in 0_u64..5,
    ) {
        prop_assume!(admit(reserve(&set).into_iter()).is_ok());
        let mut members = vec![(weight(60000), Load::Busy), (weight(100), Load::Busy)];
        members.extend(set.iter().zip(first).map(|(&(own, period), first)| {
            let work = own.saturating_sub(short).max(1);
            (budget(own, period), Load::Jobs { first, period, work, excess })
        }));
        let mut sim = Sim::new(&members);
        sim.run(&[], 5_000).check_times();
        for member in 0..set.len() {
            let response = response_by_trial(&set, member).unwrap();
            let longest = sim.records[member + 2].longest_response;
            prop_assert!(longest > 0 && longest <= response, "{}: {} > {}", member, longest, response);
        }
    }

    /// All of them busy: each gets all of its budget in each period from its start.
    #[test]
    fn what_is_admitted_is_given(set in budgets()) {
        prop_assume!(admit(reserve(&set).into_iter()).is_ok());
        let mut members: Vec<_> = set.iter().map(|&(own, period)| (budget(own, period), Load::Busy)).collect();
        members.push((weight(1), Load::Busy));
        let mut sim = Sim::new(&members);
        sim.run(&[], 6_000).check_times();
        for (member, &(own, period)) in set.iter().enumerate() {
            for start in (0..6_000 - period).step_by(period as usize) {
                prop_assert_eq!(sim.ran_within(member, start, start + period), own, "{} from {}", member, start);
            }
        }
    }

    /// Late callers, passing members and too many budgets: times add up, and nothing gets stuck.
    #[test]
    fn any_storm_is_accounted_for(
        set in budgets(), script in script(6, 400, 12), late in 0_u64..40, passes in prop::collection::vec(any::<bool>(), 400),
    ) {
        let mut members: Vec<_> = set.iter().map(|&(own, period)| (budget(own, period), Load::Script)).collect();
        members.extend([(weight(1), Load::Script), (weight(7), Load::Script)]);
        let passing = |((now, member, act), passes)| (now, member, if passes { Act::Pass } else { act });
        let script: Vec<_> = script.into_iter().zip(passes).map(passing).filter(|event| event.1 < members.len()).collect();
        let mut sim = Sim::new(&members);
        sim.late = late;
        sim.run(&script, 4_000).check_times();
        // At most one pick for each event, each piece of a budget and each slice.
        let periods: u64 = set.iter().map(|&(_, period)| 2 * 8 * (4_000 / period + 1)).sum();
        prop_assert!(sim.picks <= 2 * (400 + periods + 4_000 / SLICE + 2), "{} picks", sim.picks);
    }
}
