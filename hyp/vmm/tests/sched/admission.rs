//! Which budgets can be kept together.

use vmm::sched::{Overcommit, admit};

use super::sim::*;

#[test]
#[cfg_attr(miri, ignore = "takes long there")]
fn agrees_with_trying_it_out() {
    let pairs: Vec<(u64, u64)> =
        (1..=7).flat_map(|period| (1..=period).map(move |own| (own, period))).collect();
    let mut refused = 0;
    for &a in &pairs {
        for &b in &pairs {
            for &c in &pairs {
                let set = [a, b, c];
                let expected = (0..3).find(|&index| response_by_trial(&set, index).is_none());
                // A fair member in between counts in the numbers and in nothing else.
                let shares = [budget(a.0, a.1), weight(9), budget(b.0, b.1), budget(c.0, c.1)];
                let expected = expected.map(|index| Overcommit { index: [0, 2, 3][index] });
                assert_eq!(admit(shares.into_iter()).err(), expected, "{set:?}");
                refused += usize::from(expected.is_some());
            }
        }
    }
    assert!(refused > 200 && refused < pairs.len().pow(3) - 200);
}

#[test]
fn absurd_shares_are_refused() {
    let big = u64::MAX;
    for shares in [
        [weight(1), budget(0, 5)],
        [weight(1), budget(0, 0)],
        [weight(1), budget(6, 5)],
        [budget(1, big), budget(big, big)],
        [budget(big / 2 + 2, big), budget(big / 2, big)],
    ] {
        assert_eq!(admit(shares.into_iter()), Err(Overcommit { index: 1 }), "{shares:?}");
    }
    assert_eq!(admit([budget(big, big)].into_iter()), Ok(()));
    assert_eq!(admit([weight(1); 3].into_iter()), Ok(()));
    let message = Overcommit { index: 3 }.to_string();
    assert!(message.starts_with("share 3: "), "{message}");
}

#[test]
fn it_ends_where_periods_are_far_apart() {
    // Nine tenths in periods of a microsecond, and a second in each year.
    let (second, year) = (1_000_000_000, 365 * 86_400 * 1_000_000_000);
    assert_eq!(admit([budget(900, 1_000), budget(second, year)].into_iter()), Ok(()));
    // It could be kept, but that takes millions of estimates to see.
    let shares = [budget(999_999, 1_000_000), budget(10 * second, 1 << 60)];
    assert_eq!(admit(shares.into_iter()), Err(Overcommit { index: 1 }));
}
