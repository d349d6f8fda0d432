//! What a sender sends its receiver gets, both ways, compared with a model that is a queue and two counts of words; and
//! who comes up, goes and comes again.

mod memory;

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use memory::{Bell, End, HEAD, HEADER, HELLO, RECEIVER_WAITS, SENDER_WAITS, TAIL, come_up, memory};
use proptest::prelude::*;
use ring::{Error, LEAST_WORDS, Side, TooSmall, attach};

/// The next message whole, released; `None` if there is none.
fn receive(end: &mut End<'_>) -> Option<Vec<u8>> {
    let message = end.1.peek().unwrap()?;
    let mut bytes = vec![0; message.len()];
    assert_eq!(message.read(0, &mut bytes), bytes.len());
    message.release();
    Some(bytes)
}

/// Both ends up, each knowing of the other; `rings` are those of side 0 and of side 1.
fn both<'a>(words: &'a [ring::atomic::AtomicU64], rings: &'a [Cell<u32>; 2]) -> [End<'a>; 2] {
    let mut ends = [come_up(words, 0, &rings[0]), come_up(words, 1, &rings[1])];
    for (sender, receiver) in &mut ends {
        assert!(receiver.peek().unwrap().is_none());
        let _ = sender.poll();
    }
    for (sender, _) in &mut ends {
        assert_eq!(sender.poll(), Ok(()));
    }
    rings.iter().for_each(|rings| rings.set(0));
    ends
}

#[test]
fn memory_is_laid_out_as_documented() {
    let words = memory(16);
    let rings = <[Cell<u32>; 2]>::default();
    let [(mut zero, _), (_, mut one)] = both(&words, &rings);
    let side_1 = HEADER + 16;
    let word = |at: usize| u64::from_le(words[at].load(Ordering::Relaxed));
    assert_eq!([word(HELLO), word(side_1 + HELLO)], [0x484e_4b43_0001_0001; 2], "magic, version, generation");
    zero.send(b"123456789").unwrap();
    assert_eq!(word(HEADER), 1 << 32 | 9, "a message's header: kind and bytes");
    let text: Vec<u8> =
        words[HEADER + 1..][..2].iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    assert_eq!(&text[..9], b"123456789");
    let mark = 1 << 48 | 1 << 32;
    assert_eq!(word(TAIL), mark | 3, "from, to, position");
    one.peek().unwrap().unwrap().release();
    assert_eq!(word(side_1 + HEAD), mark | 3);
    assert!(one.arm());
    assert_eq!(word(side_1 + RECEIVER_WAITS), mark | 1);
    while zero.send(&[0; 50]) != Err(Error::Full) {}
    assert!(zero.arm(50));
    assert_eq!(word(SENDER_WAITS), mark | 1);
}

#[test]
fn the_least_memory_takes_empty_messages() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(2);
    assert_eq!(words.len(), LEAST_WORDS);
    let too_small = attach(&words[1..], Side::Zero, Bell(&rings[0])).err();
    assert_eq!(too_small, Some(TooSmall { words: LEAST_WORDS - 1 }));
    let [mut zero, mut one] = both(&words, &rings);
    assert_eq!(zero.0.max_len(), 0);
    assert_eq!(zero.0.send(&[1]), Err(Error::TooLong));
    for _ in 0..5 {
        assert_eq!(
            [zero.0.send(&[]), zero.0.send(&[]), zero.0.send(&[])],
            [Ok(()), Ok(()), Err(Error::Full)]
        );
        assert_eq!(
            [receive(&mut one), receive(&mut one), receive(&mut one)],
            [Some(vec![]), Some(vec![]), None]
        );
    }
}

#[test]
fn an_odd_word_is_nobody_s() {
    let rings = <[Cell<u32>; 2]>::default();
    let mut words = memory(4);
    words.push(u64::MAX.into());
    let [mut zero, mut one] = both(&words, &rings);
    for _ in 0..9 {
        zero.0.send(&[5; 8]).unwrap();
        one.0.send(&[6; 8]).unwrap();
        assert_eq!([receive(&mut one), receive(&mut zero)], [Some(vec![5; 8]), Some(vec![6; 8])]);
    }
    assert_eq!(words[2 * (HEADER + 4)].load(Ordering::Relaxed), u64::MAX);
}

#[test]
fn nothing_is_copied() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, mut one] = both(&words, &rings);
    let slot = zero.0.reserve(20).unwrap();
    let written = slot.words();
    written[1].store(7, Ordering::Relaxed);
    slot.commit();
    let message = one.1.peek().unwrap().unwrap();
    assert!(std::ptr::eq(message.words(), written));
    assert_eq!((message.len(), message.words().len()), (20, 3));
    assert_eq!(message.words()[1].load(Ordering::Relaxed), 7);
}

#[test]
fn pieces_stop_at_the_message_s_end() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, mut one] = both(&words, &rings);
    let slot = zero.0.reserve(11).unwrap();
    assert_eq!(slot.write(0, &[9; 100]), 11);
    assert_eq!(slot.write(6, b"abc"), 3);
    assert_eq!(slot.write(10, b"xyz"), 1);
    assert_eq!([slot.write(11, b"x"), slot.write(usize::MAX, b"x")], [0, 0]);
    slot.commit();
    let message = one.1.peek().unwrap().unwrap();
    let mut bytes = [0; 5];
    assert_eq!((message.read(5, &mut bytes), &bytes), (5, b"\x09abc\x09"));
    assert_eq!((message.read(9, &mut bytes), &bytes[..2]), (2, &b"\x09x"[..]));
    assert_eq!([message.read(11, &mut bytes), message.read(usize::MAX, &mut bytes)], [0, 0]);
}

#[test]
fn whoever_is_alone_waits_for_the_other() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let (mut sender, mut receiver) = come_up(&words, 0, &rings[0]);
    assert_eq!([sender.send(&[1]), sender.poll()], [Err(Error::Absent); 2]);
    assert!(receiver.peek().unwrap().is_none());
    assert!(sender.arm(1) && receiver.arm());
    let (_, mut peer) = come_up(&words, 1, &rings[1]);
    assert!(rings[1].get() > 0);
    assert_eq!(sender.send(&[1]), Ok(()));
    assert_eq!(peer.peek().unwrap().unwrap().len(), 1);
}

#[test]
fn who_speaks_something_else_is_told_so() {
    let rings = Cell::new(0);
    let words = memory(16);
    let (mut sender, mut receiver) = come_up(&words, 0, &rings);
    // Another version; no generation; anything.
    for word in [0x484e_4b43_0002_0001, 0x484e_4b43_0001_0000, 1] {
        words[HEADER + 16 + HELLO].store(u64::to_le(word), Ordering::Relaxed);
        assert_eq!([sender.send(&[1]), sender.poll()], [Err(Error::Foreign(word)); 2]);
        assert_eq!(receiver.peek().err(), Some(Error::Foreign(word)));
        assert!(!sender.arm(1) && !receiver.arm());
    }
}

#[test]
fn a_new_start_is_told_once_to_each_half() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, mut one] = both(&words, &rings);
    one.0.send(b"lost").unwrap();
    zero.0.send(b"lost too").unwrap();
    let mut one = come_up(&words, 1, &rings[1]);
    assert!(one.1.peek().unwrap().is_none());
    assert_eq!(one.0.send(b"early"), Err(Error::Absent), "the peer may still be reading");
    // What was there already is read to its end first.
    assert_eq!(zero.1.peek().err(), Some(Error::Restarted));
    assert!(zero.1.peek().unwrap().is_none());
    // This one still goes to nobody; the next one would not.
    assert_eq!(
        [zero.0.send(b"1"), zero.0.send(b"2"), zero.0.send(b"3")],
        [Ok(()), Err(Error::Restarted), Ok(())]
    );
    one.0.send(b"new").unwrap();
    assert_eq!([receive(&mut zero), receive(&mut zero)], [Some(b"new".to_vec()), None]);
    assert_eq!([receive(&mut one), receive(&mut one)], [Some(b"3".to_vec()), None]);
}

#[test]
fn an_old_message_is_not_answered_to_a_new_peer() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, mut one] = both(&words, &rings);
    one.0.send(b"old").unwrap();
    one.0.send(b"old too").unwrap();
    let old = zero.1.peek().unwrap().unwrap().session();
    let mut one = come_up(&words, 1, &rings[1]);
    // The sender meets the new peer, while the receiver still has what the old one has left.
    assert_eq!(zero.0.poll(), Err(Error::Restarted));
    assert_eq!(zero.1.peek().unwrap().unwrap().session(), old);
    assert_eq!([zero.0.reply(old, b"1"), zero.0.reply(old, b"1")], [Err(Error::Outdated); 2]);
    assert_eq!([receive(&mut zero), receive(&mut zero)], [Some(b"old".to_vec()), Some(b"old too".to_vec())]);
    assert_eq!(zero.1.peek().err(), Some(Error::Restarted));
    assert_eq!(receive(&mut one), None);
    one.0.send(b"new").unwrap();
    let new = zero.1.peek().unwrap().unwrap().session();
    assert_eq!([zero.0.reply(old, b"1"), zero.0.reply(new, b"2")], [Err(Error::Outdated), Ok(())]);
    assert_eq!([receive(&mut one), receive(&mut one)], [Some(b"2".to_vec()), None]);
}

#[test]
fn a_new_message_is_not_answered_to_the_old_peer() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, _] = both(&words, &rings);
    let mut one = come_up(&words, 1, &rings[1]);
    assert_eq!(zero.1.peek().err(), Some(Error::Restarted));
    one.0.send(b"new").unwrap();
    let new = zero.1.peek().unwrap().unwrap().session();
    // The sender alone still takes the old peer for the one that is there, and has room for it.
    assert_eq!([zero.0.reply(new, b"1"), zero.0.reply(new, b"2")], [Err(Error::Restarted), Ok(())]);
    assert_eq!([receive(&mut one), receive(&mut one)], [Some(b"2".to_vec()), None]);
}

#[test]
fn a_reply_outlives_neither_end() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, mut one] = both(&words, &rings);
    one.0.send(b"old").unwrap();
    let old = zero.1.peek().unwrap().unwrap().session();
    // The same peer, but who was asked isn't there any more.
    let mut zero = come_up(&words, 0, &rings[0]);
    assert_eq!(one.1.peek().err(), Some(Error::Restarted));
    assert_eq!(zero.0.poll(), Ok(()));
    assert_eq!(zero.0.reply(old, b"1"), Err(Error::Outdated));
    assert_eq!([zero.0.reply(old, &[0; 200]), zero.0.send(b"2")], [Err(Error::TooLong), Ok(())]);
    assert_eq!([receive(&mut one), receive(&mut one)], [Some(b"2".to_vec()), None]);
}

#[test]
fn a_new_start_wakes_who_waited_for_the_old_one() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(16);
    let [mut zero, _] = both(&words, &rings);
    assert!(zero.1.arm());
    let _one = come_up(&words, 1, &rings[1]);
    assert!(rings[1].get() > 0);
    assert!(!zero.1.arm(), "there is something to be told");
    assert_eq!(zero.1.peek().err(), Some(Error::Restarted));
    assert!(zero.1.arm());
}

#[test]
fn generations_come_round() {
    let rings = <[Cell<u32>; 2]>::default();
    let words = memory(4);
    words[HEADER + 4 + HELLO].store(u64::to_le(0x484e_4b43_0001_fffe), Ordering::Relaxed);
    let mut zero = come_up(&words, 0, &rings[0]);
    for start in 0..4_u64 {
        let mut one = come_up(&words, 1, &rings[1]);
        let told = zero.1.peek().err();
        assert_eq!(told, Some(Error::Restarted), "start {start}");
        assert_eq!(zero.0.poll(), Err(Error::Restarted));
        one.0.send(&start.to_le_bytes()).unwrap();
        assert_eq!(receive(&mut zero), Some(start.to_le_bytes().to_vec()));
    }
}

/// One direction in the model.
#[derive(Default)]
struct Direction {
    messages: VecDeque<(Vec<u8>, u64)>,
    /// Words that were ever written, and those that were released.
    written: u64,
    released: u64,
    /// Up to where the receiver has looked.
    seen: u64,
    receiver_sleeps: bool,
    sender_sleeps: bool,
}

impl Direction {
    /// The words that a message takes now, with padding before it.
    fn needed(&self, len: usize, capacity: u64) -> u64 {
        let record = 1 + len.div_ceil(8) as u64;
        let left = capacity - self.written % capacity;
        if record <= left { record } else { left + record }
    }

    fn fits(&self, len: usize, capacity: u64) -> bool {
        self.written + self.needed(len, capacity) <= self.released + capacity
    }

    fn look(&mut self) {
        if self.seen == self.released {
            self.seen = self.written;
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A message of this length, written in pieces; sent or dropped.
    Send {
        len: usize,
        piece: usize,
        sent: bool,
    },
    /// The next message, read in pieces; released or left.
    Receive {
        piece: usize,
        released: bool,
    },
    ArmSender(usize),
    ArmReceiver,
    /// Gone, and come up again.
    Start,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let len = prop_oneof![3 => 0_usize..40, 1 => 0_usize..200];
    let step = prop_oneof![
        8 => (len.clone(), 1_usize..20, prop::bool::weighted(0.8))
            .prop_map(|(len, piece, sent)| Step::Send { len, piece, sent }),
        8 => (1_usize..20, prop::bool::weighted(0.8))
            .prop_map(|(piece, released)| Step::Receive { piece, released }),
        2 => len.prop_map(Step::ArmSender),
        2 => Just(Step::ArmReceiver),
        1 => Just(Step::Start),
    ];
    prop::collection::vec((0_usize..2, step), 1..if cfg!(miri) { 60 } else { 300 })
}

/// A side does a step; `out` and `into` are the directions that it sends and receives in. Returns whether it had to ring.
fn act(
    end: &mut End<'_>,
    out: &mut Direction,
    into: &mut Direction,
    step: &Step,
    fill: u8,
    capacity: u64,
) -> bool {
    match *step {
        Step::Send { len, piece, sent } => {
            let fits = out.fits(len, capacity);
            let slot = match end.0.reserve(len) {
                Ok(slot) => slot,
                Err(Error::TooLong) => {
                    assert!(1 + len.div_ceil(8) as u64 > capacity / 2);
                    return false;
                }
                Err(error) => {
                    assert_eq!((error, fits), (Error::Full, false));
                    return false;
                }
            };
            assert!(fits);
            let bytes: Vec<u8> = (0..len).map(|at| fill.wrapping_add(at as u8)).collect();
            for (index, part) in bytes.chunks(piece).enumerate() {
                assert_eq!(slot.write(index * piece, part), part.len());
            }
            if !sent {
                return false;
            }
            slot.commit();
            let needed = out.needed(len, capacity);
            out.written += needed;
            out.messages.push_back((bytes, out.written));
            std::mem::take(&mut out.receiver_sleeps)
        }
        Step::Receive { piece, released } => {
            into.look();
            let Some(message) = end.1.peek().unwrap() else {
                assert!(into.messages.is_empty());
                return false;
            };
            let (expected, behind) = into.messages.front().expect("a message that was sent");
            let mut bytes = vec![0; message.len()];
            for (index, part) in bytes.chunks_mut(piece).enumerate() {
                assert_eq!(message.read(index * piece, part), part.len());
            }
            assert_eq!(&bytes, expected);
            if !released {
                return false;
            }
            message.release();
            into.released = *behind;
            into.messages.pop_front();
            std::mem::take(&mut into.sender_sleeps)
        }
        Step::ArmSender(len) => {
            let sleeps = end.0.arm(len);
            if len <= end.0.max_len() {
                assert_eq!(sleeps, !out.fits(len, capacity));
                out.sender_sleeps = sleeps;
            } else {
                assert!(!sleeps);
            }
            false
        }
        Step::ArmReceiver => {
            let knew = into.seen != into.released;
            into.look();
            let sleeps = end.1.arm();
            assert_eq!(sleeps, into.messages.is_empty());
            if !knew {
                into.receiver_sleeps = sleeps;
            }
            false
        }
        Step::Start => unreachable!("not by one side alone"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 1500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn as_the_model_says(capacity in 2_usize..40, steps in steps()) {
        let words = memory(capacity);
        let rings = <[Cell<u32>; 2]>::default();
        let mut ends = both(&words, &rings);
        let mut directions = <[Direction; 2]>::default();
        for (number, (side, step)) in steps.iter().enumerate() {
            let [zero, one] = &mut directions;
            let (out, into) = if *side == 0 { (zero, one) } else { (one, zero) };
            if let Step::Start = step {
                let [zero, one] = ends;
                let mut peer = if *side == 0 { one } else { zero };
                let mut own = come_up(&words, *side as u32, &rings[*side]);
                // What the peer knows of already comes first.
                let read = Step::Receive { piece: 8, released: true };
                while out.seen != out.released {
                    act(&mut peer, into, out, &read, 0, capacity as u64);
                }
                prop_assert_eq!(peer.1.peek().err(), Some(Error::Restarted));
                prop_assert_eq!([peer.0.poll(), peer.0.poll()], [Err(Error::Restarted), Ok(())]);
                prop_assert!(peer.1.peek().unwrap().is_none() && own.1.peek().unwrap().is_none());
                prop_assert_eq!(own.0.poll(), Ok(()));
                ends = if *side == 0 { [own, peer] } else { [peer, own] };
                directions = Default::default();
                rings.iter().for_each(|rings| rings.set(0));
                continue;
            }
            let rang = act(&mut ends[*side], out, into, step, number as u8, capacity as u64);
            prop_assert_eq!(rings[*side].take(), u32::from(rang));
        }
    }
}
