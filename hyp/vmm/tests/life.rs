//! A VM's life, seen from outside: every way through the phases, crashes, the watchdog, the clock.

use std::collections::HashSet;

use vmm::life::{
    Clock, Crashes, Event, LONGEST_DELAY_MS, LONGEST_TIMEOUT, OnCrash, Phase, Verdict, WELL_AFTER_MS,
    Watchdog,
};

const EVENTS: [Event; 13] = [
    Event::Start,
    Event::Stop,
    Event::Restart,
    Event::Pause,
    Event::Resume,
    Event::Crash,
    Event::Loaded,
    Event::Refused,
    Event::BackOff,
    Event::Preserve,
    Event::Discard,
    Event::Due,
    Event::Released,
];

#[test]
fn phases_have_the_numbers_that_they_are_read_back_by() {
    for (number, phase) in Phase::ALL.into_iter().enumerate() {
        assert_eq!(phase as usize, number);
        assert_eq!(Phase::from_u8(number as u8), phase);
    }
}

#[test]
fn what_others_are_told_of_a_phase() {
    use Phase::*;
    use abi::record::state::*;
    let wanted = [
        (Created, CREATED, false),
        (Starting, STARTING, true),
        (Running, RUNNING, true),
        (Paused, PAUSED, true),
        (Restarting, STARTING, true),
        (Stopping, STOPPING, false),
        (Stopped, STOPPED, false),
        (Crashing, CRASHED, false),
        (BackingOff, CRASHED, false),
        (Preserved, CRASHED, false),
        (Discarding, CRASHED, false),
        (Crashed, CRASHED, false),
    ];
    assert!(Phase::ALL.iter().all(|phase| wanted.iter().any(|(listed, ..)| listed == phase)));
    for (phase, state, listens) in wanted {
        assert_eq!((phase.state(), phase.may_listen()), (state, listens), "{phase:?}");
    }
}

/// The whole table, written down once more: from where each event leads where.
#[test]
fn events_lead_where_they_should_and_nowhere_else() {
    use Phase::*;
    type Ways<'a> = &'a [(&'a [Phase], Phase)];
    let wanted: &[(Event, Ways<'_>)] = &[
        (Event::Start, &[(&[Created, Stopped, Crashed], Starting), (&[BackingOff, Preserved], Restarting)]),
        (
            Event::Restart,
            &[
                (&[Created, Stopped, Crashed], Starting),
                (&[BackingOff, Preserved, Running, Paused], Restarting),
            ],
        ),
        (Event::Stop, &[(&[Starting, Running, Paused, Restarting, BackingOff, Preserved], Stopping)]),
        (Event::Pause, &[(&[Running], Paused)]),
        (Event::Resume, &[(&[Paused], Running)]),
        (Event::Crash, &[(&[Running, Paused], Crashing)]),
        (Event::Loaded, &[(&[Starting, Restarting], Running)]),
        (Event::Refused, &[(&[Starting], Stopping)]),
        (Event::BackOff, &[(&[Crashing], BackingOff)]),
        (Event::Preserve, &[(&[Crashing], Preserved)]),
        (Event::Discard, &[(&[Crashing], Discarding)]),
        (Event::Due, &[(&[BackingOff], Restarting)]),
        (Event::Released, &[(&[Stopping], Stopped), (&[Discarding], Crashed)]),
    ];
    assert_eq!(wanted.len(), EVENTS.len());
    for (event, ways) in wanted {
        for phase in Phase::ALL {
            let to = ways.iter().find(|(from, _)| from.contains(&phase)).map(|(_, to)| *to);
            assert_eq!(phase.after(*event), to, "{event:?} in {phase:?}");
        }
    }
}

/// What anybody may ask for at any time, as opposed to what a VM's own CPU finds out.
const ASKED: [Event; 5] = [Event::Start, Event::Stop, Event::Restart, Event::Pause, Event::Resume];

#[test]
fn from_every_phase_a_vm_can_be_brought_to_run_and_to_stop() {
    for goal in [Phase::Running, Phase::Stopped] {
        for phase in Phase::ALL {
            let mut seen = HashSet::from([phase]);
            let mut reached = vec![phase];
            while let Some(at) = reached.pop() {
                let next = EVENTS.iter().filter_map(|event| at.after(*event));
                reached.extend(next.filter(|next| seen.insert(*next)));
            }
            assert!(seen.contains(&goal), "{phase:?} never comes to {goal:?}");
        }
    }
}

/// Memory may only be given back where no vCPU runs, and only phases with work do anything by themselves.
#[test]
fn whoever_is_off_stays_so_until_asked() {
    for phase in Phase::ALL {
        let moves = EVENTS.iter().filter(|event| phase.after(**event).is_some());
        if phase.is_off() {
            assert!(moves.into_iter().all(|event| ASKED.contains(event)), "{phase:?}");
            assert!(!phase.has_work());
        } else if phase.has_work() {
            assert!(moves.into_iter().any(|event| !ASKED.contains(event)), "{phase:?} would never end");
        }
    }
}

#[test]
fn a_crash_stops_or_preserves_as_the_policy_says() {
    let mut crashes = Crashes::default();
    assert_eq!(crashes.crashed(OnCrash::Stop, 0), Verdict::Stop);
    assert_eq!(crashes.crashed(OnCrash::Preserve, 0), Verdict::Preserve);
    assert_eq!(crashes.count, 2);
}

#[test]
fn restarts_wait_twice_as_long_each_time_and_end() {
    let mut crashes = Crashes::default();
    let policy = OnCrash::Restart { limit: 4, delay: 100 };
    let verdicts: Vec<_> = (0..5).map(|_| crashes.crashed(policy, 10)).collect();
    let wanted = [100, 200, 400, 800].map(Verdict::Restart);
    assert_eq!(verdicts[..4], wanted);
    assert_eq!(verdicts[4], Verdict::GiveUp(4));
    // Whoever starts it by hand gives it a new chance.
    assert_eq!(crashes.crashed(policy, 10), Verdict::Restart(100));
    assert_eq!(crashes.count, 6);
}

#[test]
fn a_delay_has_a_limit() {
    let mut crashes = Crashes::default();
    let policy = OnCrash::Restart { limit: 100, delay: 1000 };
    let delays: Vec<_> = (0..100).map(|_| crashes.crashed(policy, 0)).collect();
    assert_eq!(delays[5], Verdict::Restart(32_000));
    assert!(delays[6..].iter().all(|delay| *delay == Verdict::Restart(LONGEST_DELAY_MS)));
}

#[test]
fn whoever_ran_well_for_long_starts_from_zero() {
    let mut crashes = Crashes::default();
    let policy = OnCrash::Restart { limit: 2, delay: 10 };
    let well = u64::from(WELL_AFTER_MS);
    assert_eq!(crashes.crashed(policy, 0), Verdict::Restart(10));
    assert_eq!(crashes.crashed(policy, well - 1), Verdict::Restart(20));
    assert_eq!(crashes.crashed(policy, well), Verdict::Restart(10));
    assert_eq!(crashes.crashed(policy, 0), Verdict::Restart(20));
    assert_eq!(crashes.crashed(policy, 0), Verdict::GiveUp(2));
}

#[test]
fn a_clock_stands_still_while_it_is_stopped() {
    let mut clock = Clock::default();
    assert_eq!((clock.at(1000), clock.offset()), (1000, 0));
    clock.stop(1000);
    assert_eq!(clock.at(5000), 1000);
    // It stopped when it stopped.
    clock.stop(6000);
    assert_eq!(clock.at(7000), 1000);
    clock.go_on(9000);
    assert_eq!((clock.at(9000), clock.offset()), (1000, 8000));
    assert_eq!(clock.at(9500), 1500);
    clock.go_on(9600);
    assert_eq!(clock.at(9600), 1600);
    clock.stop(9700);
    clock.go_on(9800);
    assert_eq!((clock.at(9800), clock.offset()), (1700, 8100));
}

#[test]
fn a_watchdog_that_is_fed_does_not_expire() {
    let mut watchdog = Watchdog::new(10, 3);
    assert_eq!((watchdog.deadline(), watchdog.left(0)), (None, 0));
    assert!(!watchdog.has_expired(u64::MAX));
    watchdog.feed(100);
    assert_eq!((watchdog.deadline(), watchdog.left(101)), (Some(130), 2));
    assert!(!watchdog.has_expired(129));
    assert!(watchdog.has_expired(130));
    watchdog.feed(129);
    assert!(!watchdog.has_expired(158));
    watchdog.turn_off();
    assert!(!watchdog.has_expired(1000));
}

#[test]
fn a_timeout_has_its_range() {
    let mut watchdog = Watchdog::new(10, 3);
    assert!(!watchdog.set_timeout(0, 0));
    assert!(!watchdog.set_timeout(LONGEST_TIMEOUT + 1, 0));
    assert_eq!(watchdog.timeout(), 3);
    assert!(watchdog.set_timeout(LONGEST_TIMEOUT, 0));
    assert_eq!((watchdog.timeout(), watchdog.deadline()), (LONGEST_TIMEOUT, None));
    watchdog.feed(0);
    assert!(watchdog.set_timeout(1, 50));
    assert_eq!(watchdog.deadline(), Some(60));
}
