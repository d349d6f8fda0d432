//! A peer that writes anything anywhere at any time: every call comes back, without a panic, with an error or a message
//! that lies in the ring and is no longer than one can be; and once both sides start afresh, all is well.

mod memory;

use std::cell::Cell;
use std::sync::atomic::Ordering;

use memory::{Bell, End, HEAD, HEADER, HELLO, RECEIVER_WAITS, SENDER_WAITS, TAIL, come_up, memory};
use proptest::prelude::*;
use ring::atomic::AtomicU64;
use ring::{Error, Receiver};

const CAPACITY: usize = 16;
/// Where side 1's words are.
const PEER: usize = HEADER + CAPACITY;
/// From generation 1 for generation 1.
const MARK: u64 = 1 << 48 | 1 << 32;

fn write(words: &[AtomicU64], at: usize, value: u64) {
    words[at].store(value.to_le(), Ordering::Relaxed);
}

/// Side 0, whose peer has come up, and the peer.
fn both<'a>(words: &'a [AtomicU64], rings: &'a Cell<u32>) -> [End<'a>; 2] {
    let [mut zero, mut one] = [come_up(words, 0, rings), come_up(words, 1, rings)];
    assert!(zero.1.peek().unwrap().is_none() && one.1.peek().unwrap().is_none());
    [zero, one]
}

/// What the next message is: its length, or what is wrong.
fn next(receiver: &mut Receiver<'_, Bell<'_>>) -> Result<Option<usize>, Error> {
    receiver.peek().map(|message| message.map(|message| message.len()))
}

#[test]
fn positions_that_can_t_be() {
    for (tail, length) in [
        // Positions go up to twice the capacity, and are no more than the capacity apart.
        (2 * CAPACITY as u64, Err(Error::Corrupt)),
        (u64::from(u32::MAX), Err(Error::Corrupt)),
        (CAPACITY as u64 + 1, Err(Error::Corrupt)),
        (2 * CAPACITY as u64 - 1, Err(Error::Corrupt)),
        (CAPACITY as u64, Ok(Some(3))),
        (2, Ok(Some(3))),
        (1, Err(Error::Corrupt)),
        (0, Ok(None)),
    ] {
        let (words, rings) = (memory(CAPACITY), Cell::new(0));
        let [mut zero, _one] = both(&words, &rings);
        write(&words, PEER + HEADER, 1 << 32 | 3);
        write(&words, PEER + TAIL, MARK | tail);
        assert_eq!([next(&mut zero.1), next(&mut zero.1)], [length; 2], "{tail}");
    }
}

#[test]
fn positions_behind_the_last_one() {
    let (words, rings) = (memory(CAPACITY), Cell::new(0));
    let [mut zero, mut one] = both(&words, &rings);
    for _ in 0..CAPACITY + 4 {
        one.0.send(&[]).unwrap();
        zero.1.peek().unwrap().unwrap().release();
    }
    // No further from where the receiver is than the ring is long.
    for tail in [2 * CAPACITY as u64, 2 * CAPACITY as u64 + 3] {
        write(&words, PEER + TAIL, MARK | tail);
        assert_eq!(next(&mut zero.1), Err(Error::Corrupt), "{tail}");
    }
    write(&words, PEER + TAIL, MARK | (2 * CAPACITY as u64 - 1));
    assert_eq!(next(&mut zero.1), Ok(Some(0)));
}

#[test]
fn a_receiver_never_goes_back_or_ahead() {
    let (words, rings) = (memory(CAPACITY), Cell::new(0));
    let [mut zero, mut one] = both(&words, &rings);
    for _ in 0..3 {
        zero.0.send(&[0; 8]).unwrap();
    }
    one.1.peek().unwrap().unwrap().release();
    assert_eq!(zero.0.poll(), Ok(()));
    for (head, found) in [
        (0, Err(Error::Corrupt)),
        (7, Err(Error::Corrupt)),
        (2 * CAPACITY as u64, Err(Error::Corrupt)),
        (u64::from(u32::MAX), Err(Error::Corrupt)),
        (2, Ok(())),
        (6, Ok(())),
        (2, Err(Error::Corrupt)),
    ] {
        write(&words, PEER + HEAD, MARK | head);
        assert_eq!(zero.0.poll(), found, "{head}");
    }
}

#[test]
fn records_that_can_t_be() {
    let longest = 8 * (CAPACITY as u64 / 2 - 1);
    for (first, second, length) in [
        (1 << 32 | longest, 0, Ok(Some(longest as usize))),
        (1 << 32 | (longest + 1), 0, Err(Error::Corrupt)),
        (1 << 32 | 0xffff_ffff, 0, Err(Error::Corrupt)),
        (0, 0, Err(Error::Corrupt)),
        (3 << 32, 0, Err(Error::Corrupt)),
        // Padding at the ring's start would be all of it.
        (2 << 32, 1 << 32, Err(Error::Corrupt)),
    ] {
        let (words, rings) = (memory(CAPACITY), Cell::new(0));
        let [mut zero, _one] = both(&words, &rings);
        write(&words, PEER + HEADER, first);
        write(&words, PEER + HEADER + 1, second);
        write(&words, PEER + TAIL, MARK | CAPACITY as u64);
        assert_eq!([next(&mut zero.1), next(&mut zero.1)], [length; 2], "{first:#x}");
    }
}

#[test]
fn a_record_behind_padding_must_be_a_message_that_is_there() {
    for (first, tail, length) in [
        (1 << 32 | 8, CAPACITY as u64 + 2, Ok(Some(8))),
        (1 << 32 | 8, CAPACITY as u64 + 1, Err(Error::Corrupt)),
        (1 << 32, CAPACITY as u64, Err(Error::Corrupt)),
        (2 << 32, CAPACITY as u64 + 2, Err(Error::Corrupt)),
    ] {
        let (words, rings) = (memory(CAPACITY), Cell::new(0));
        let [mut zero, mut one] = both(&words, &rings);
        for _ in 0..2 {
            one.0.send(&[0; 40]).unwrap();
            zero.1.peek().unwrap().unwrap().release();
        }
        write(&words, PEER + HEADER + 12, 2 << 32);
        write(&words, PEER + HEADER, first);
        write(&words, PEER + TAIL, MARK | tail);
        assert_eq!(next(&mut zero.1), length, "{first:#x}, {tail}");
    }
}

#[test]
fn what_is_corrupt_stays_so_until_the_peer_starts_afresh() {
    let (words, rings) = (memory(CAPACITY), Cell::new(0));
    let [mut zero, _] = both(&words, &rings);
    write(&words, PEER + TAIL, MARK | 1);
    write(&words, PEER + HEAD, MARK | 5);
    for _ in 0..3 {
        assert_eq!([zero.1.peek().err(), zero.0.poll().err()], [Some(Error::Corrupt); 2]);
        assert!(!zero.1.arm() && !zero.0.arm(1), "nobody would ring");
    }
    let mut one = come_up(&words, 1, &rings);
    assert_eq!(zero.1.peek().err(), Some(Error::Corrupt), "what it had seen of the old one");
    assert_eq!([zero.1.peek().err(), zero.0.poll().err()], [Some(Error::Restarted); 2]);
    assert_eq!([one.0.send(&[1]), zero.0.send(&[2])], [Ok(()); 2]);
    assert_eq!([next(&mut zero.1), next(&mut one.1)], [Ok(Some(1)); 2]);
}

#[test]
fn a_length_that_changes_while_a_message_is_read_changes_nothing() {
    let (words, rings) = (memory(CAPACITY), Cell::new(0));
    let [mut zero, mut one] = both(&words, &rings);
    one.0.send(&[3; 8]).unwrap();
    let message = zero.1.peek().unwrap().unwrap();
    write(&words, PEER + HEADER, 1 << 32 | 0xffff_ffff);
    let mut bytes = [0; 100];
    assert_eq!((message.len(), message.read(0, &mut bytes)), (8, 8));
    message.release();
    assert_eq!(next(&mut zero.1), Ok(None));
}

#[test]
fn one_release_rings_once_however_asleep_the_peer_is() {
    let (words, rings) = (memory(CAPACITY), Cell::new(0));
    let [mut zero, mut one] = both(&words, &rings);
    rings.set(0);
    for wait in 0..9 {
        write(&words, PEER + RECEIVER_WAITS, MARK | (2 * wait + 1));
        zero.0.send(&[]).unwrap();
        assert_eq!(rings.take(), 1);
        one.1.peek().unwrap().unwrap().release();
    }
}

#[test]
fn who_counts_as_an_earlier_one_is_rung_up_all_the_same() {
    let (words, rings) = (memory(CAPACITY), Cell::new(0));
    let [mut zero, mut one] = both(&words, &rings);
    assert!(one.1.arm());
    rings.set(0);
    zero.0.send(&[]).unwrap();
    assert_eq!(rings.take(), 1);
    let _second = come_up(&words, 1, &rings);
    assert_eq!([zero.0.poll().err(), zero.1.peek().err()], [Some(Error::Restarted); 2]);
    // Its number is lost, and the third start is like the first.
    write(&words, PEER + HELLO, 0);
    let mut one = come_up(&words, 1, &rings);
    assert_eq!([zero.0.poll(), zero.0.poll()], [Err(Error::Restarted), Ok(())]);
    assert!(one.1.arm());
    rings.set(0);
    zero.0.send(&[]).unwrap();
    assert_eq!(rings.take(), 1);
}

/// What the honest side does.
#[derive(Clone, Debug)]
enum Step {
    /// The peer writes.
    Write(usize, u64),
    Send(usize),
    Poll,
    Receive,
    /// Answers the next message with its own bytes.
    Reply,
    ArmSender(usize),
    ArmReceiver,
    Start,
}

/// Anything, and what is nearly right, which goes further.
fn value() -> impl Strategy<Value = u64> {
    let generation = prop_oneof![4 => 0_u64..4, 1 => 0_u64..0x1_0000];
    let low = prop_oneof![4 => 0_u64..2 * CAPACITY as u64 + 2, 1 => 0_u64..1 << 32];
    prop_oneof![
        4 => (generation.clone(), generation.clone(), low.clone())
            .prop_map(|(from, to, low)| from << 48 | to << 32 | low),
        2 => (0_u64..4, prop_oneof![low, 0_u64..80]).prop_map(|(kind, len)| kind << 32 | len),
        2 => generation.prop_map(|generation| 0x484e_4b43_0001_0000 | generation),
        1 => any::<u64>(),
    ]
}

/// The words that mean something more often than the others, of both sides.
fn place() -> impl Strategy<Value = usize> {
    let header = prop::sample::select(vec![HELLO, TAIL, SENDER_WAITS, HEAD, RECEIVER_WAITS]);
    prop_oneof![
        3 => header.clone().prop_map(|word| PEER + word),
        1 => header,
        3 => (0..CAPACITY).prop_map(|word| PEER + HEADER + word),
        1 => 0..2 * PEER,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (place(), value()).prop_map(|(place, value)| Step::Write(place, value)),
        4 => (0_usize..80).prop_map(Step::Send),
        1 => Just(Step::Poll),
        6 => Just(Step::Receive),
        2 => Just(Step::Reply),
        1 => (0_usize..80).prop_map(Step::ArmSender),
        1 => Just(Step::ArmReceiver),
        1 => Just(Step::Start),
    ]
}

fn is_inside(part: &[AtomicU64], whole: &[AtomicU64]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

/// Does a step; returns how often it may ring at most.
fn act<'a>(end: &mut End<'a>, words: &'a [AtomicU64], rings: &'a Cell<u32>, step: &Step) -> u32 {
    let own_ring = &words[HEADER..PEER];
    let peer_ring = &words[PEER + HEADER..];
    match *step {
        Step::Write(place, value) => {
            write(words, place, value);
            0
        }
        Step::Send(len) => {
            if let Ok(slot) = end.0.reserve(len) {
                assert!(is_inside(slot.words(), own_ring) && slot.words().len() == len.div_ceil(8));
                assert_eq!(slot.write(0, &[0xaa; 100]), len);
                slot.commit();
            }
            2
        }
        Step::Poll => {
            let _ = end.0.poll();
            1
        }
        Step::Receive => {
            let longest = end.0.max_len();
            if let Ok(Some(message)) = end.1.peek() {
                let len = message.len();
                assert!(len <= longest && message.words().len() == len.div_ceil(8));
                assert!(is_inside(message.words(), peer_ring));
                assert_eq!(message.read(0, &mut [0; 100]), len);
                message.release();
            }
            2
        }
        Step::Reply => {
            let (sender, receiver) = end;
            if let Ok(Some(message)) = receiver.peek() {
                match sender.reserve_reply(message.session(), message.len()) {
                    Ok(slot) => {
                        assert!(is_inside(slot.words(), own_ring));
                        assert_eq!(slot.words().len(), message.words().len());
                        slot.commit();
                        message.release();
                    }
                    Err(Error::Outdated) => message.release(),
                    Err(_) => {}
                }
            }
            4
        }
        Step::ArmSender(len) => {
            end.0.arm(len);
            1
        }
        Step::ArmReceiver => {
            end.1.arm();
            1
        }
        Step::Start => {
            *end = come_up(words, 0, rings);
            3
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 4000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_that_is_written_does_harm(steps in prop::collection::vec(step(), 1..60)) {
        let (words, rings) = (memory(CAPACITY), Cell::new(0));
        let [mut zero, _] = both(&words, &rings);
        for step in &steps {
            rings.set(0);
            let most = act(&mut zero, &words, &rings, step);
            prop_assert!(rings.get() <= most, "{step:?} rang {} times", rings.get());
        }
        // Both start afresh, in either order; the writing has ended.
        let first = steps.len() % 2;
        let one = come_up(&words, first as u32, &rings);
        let two = come_up(&words, 1 - first as u32, &rings);
        let mut ends = [one, two];
        for (sender, receiver) in &mut ends {
            // The first of them may have taken what was left of the second for the second, and is told so.
            let _ = (receiver.peek().map(|_| ()), sender.poll());
        }
        for (sender, receiver) in &mut ends {
            prop_assert!(receiver.peek().unwrap().is_none());
            let _ = sender.poll();
        }
        for number in 0..40_u8 {
            let [one, two] = &mut ends;
            prop_assert_eq!([one.0.send(&[number; 13]), two.0.send(&[number; 14])], [Ok(()); 2]);
            prop_assert_eq!([next(&mut two.1), next(&mut one.1)], [Ok(Some(13)), Ok(Some(14))]);
            one.1.peek().unwrap().unwrap().release();
            two.1.peek().unwrap().unwrap().release();
        }
    }
}
