//! Both sides of a channel on two CPUs, in every interleaving and with every reordering that loom finds. Built with `--cfg
//! loom` alone: `make loom`.
//!
//! A doorbell is a flag that stays up until it is waited for, as an edge stays pending in an interrupt controller. A wait
//! that nobody ends is a deadlock, which loom reports: that is how a lost wake-up shows. Where a model is too large for all
//! interleavings, those with more than so many preemptions are left out.
#![cfg(loom)]

use std::sync::Arc as PlainArc;

use loom::model::Builder;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use ring::atomic::{AtomicU64, Ordering};
use ring::{Doorbell, Error, LEAST_WORDS, Receiver, Sender, Side, attach};

/// A side's doorbell.
#[derive(Clone)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    /// Sleeps until it has rung since the last time.
    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !*rung {
            rung = self.0.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Doorbell for Bell {
    fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }
}

/// The memory of a channel whose rings have so many words.
fn words(capacity: usize) -> Vec<AtomicU64> {
    (0..LEAST_WORDS - 4 + 2 * capacity).map(|_| AtomicU64::new(0)).collect()
}

/// A channel whose rings have so many words, and the bells of side 0 and side 1.
struct Channel {
    memory: PlainArc<Vec<AtomicU64>>,
    bells: [Bell; 2],
}

impl Channel {
    fn new(capacity: usize) -> Self {
        Self { memory: PlainArc::new(words(capacity)), bells: [Bell::new(), Bell::new()] }
    }

    /// Another handle, for another thread.
    fn share(&self) -> Self {
        Self { memory: self.memory.clone(), bells: self.bells.clone() }
    }

    fn attach(&self, side: u32) -> (Sender<'_, Bell>, Receiver<'_, Bell>) {
        let peer = self.bells[1 - side as usize].clone();
        attach(&self.memory, Side::from_number(side).unwrap(), peer).unwrap()
    }
}

/// Sends a message, waiting for room and for the peer.
fn send(sender: &mut Sender<'_, Bell>, bell: &Bell, message: &[u8]) -> Result<(), Error> {
    loop {
        match sender.send(message) {
            Err(Error::Full | Error::Absent) => {
                if sender.arm(message.len()) {
                    bell.wait();
                }
            }
            other => return other,
        }
    }
}

/// Receives a message of 8 bytes, waiting for it.
fn receive(receiver: &mut Receiver<'_, Bell>, bell: &Bell) -> Result<u64, Error> {
    loop {
        if let Some(message) = receiver.peek()? {
            let mut bytes = [0; 8];
            assert_eq!(message.read(0, &mut bytes), 8);
            message.release();
            return Ok(u64::from_le_bytes(bytes));
        }
        if receiver.arm() {
            bell.wait();
        }
    }
}

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Messages go through a ring that has room for two at most, one of them with padding before it: the sender sleeps for
/// room, the receiver for messages, and neither sleeps on.
#[test]
fn messages_arrive_and_nobody_sleeps_on() {
    explore(3, || {
        let channel = Channel::new(5);
        let (mut sender, _unused) = channel.attach(0);
        let there = channel.share();
        let receiving = thread::spawn(move || {
            let (_unused, mut receiver) = there.attach(1);
            for number in 0..3 {
                assert_eq!(receive(&mut receiver, &there.bells[1]), Ok(number));
            }
        });
        for number in 0_u64..3 {
            send(&mut sender, &channel.bells[0], &number.to_le_bytes()).unwrap();
        }
        receiving.join().unwrap();
    });
}

/// Both sides come up at the same time, and one message goes each way.
#[test]
fn both_come_up_at_once() {
    explore(2, || {
        let channel = Channel::new(4);
        let there = channel.share();
        let other = thread::spawn(move || {
            let (mut sender, mut receiver) = there.attach(1);
            send(&mut sender, &there.bells[1], &1_u64.to_le_bytes()).unwrap();
            assert_eq!(receive(&mut receiver, &there.bells[1]), Ok(0));
        });
        let (mut sender, mut receiver) = channel.attach(0);
        assert_eq!(receive(&mut receiver, &channel.bells[0]), Ok(1));
        send(&mut sender, &channel.bells[0], &0_u64.to_le_bytes()).unwrap();
        other.join().unwrap();
    });
}

/// The receiving side starts afresh while the other sends. The new one gets what was sent after the sender has
/// been told, and nothing from before.
#[test]
fn a_new_receiver_gets_nothing_old() {
    explore(3, || {
        let channel = Channel::new(4);
        let (mut sender, _unused) = channel.attach(0);
        let (_, old) = channel.attach(1);
        sender.send(&7_u64.to_le_bytes()).unwrap();
        drop(old);
        let there = channel.share();
        let receiving = thread::spawn(move || {
            let (_unused, mut receiver) = there.attach(1);
            assert_eq!(receive(&mut receiver, &there.bells[1]), Ok(100));
        });
        // One more for whoever is there; then until the peer is the new one.
        let mut told = send(&mut sender, &channel.bells[0], &8_u64.to_le_bytes()).is_err();
        while !told {
            match sender.poll() {
                Err(Error::Restarted) => told = true,
                Ok(()) | Err(Error::Absent) => channel.bells[0].wait(),
                Err(other) => panic!("{other}"),
            }
        }
        send(&mut sender, &channel.bells[0], &100_u64.to_le_bytes()).unwrap();
        receiving.join().unwrap();
    });
}

/// The sending side starts afresh while a message of the old one is being read: it stays as it was until it is released, and
/// the receiver is told before it gets anything of the new one.
#[test]
fn a_new_sender_leaves_alone_what_is_being_read() {
    explore(3, || {
        let channel = Channel::new(4);
        let (mut old, _) = channel.attach(0);
        let (_unused, mut receiver) = channel.attach(1);
        old.send(&7_u64.to_le_bytes()).unwrap();
        drop(old);
        let there = channel.share();
        let sending = thread::spawn(move || {
            let (mut sender, _unused) = there.attach(0);
            send(&mut sender, &there.bells[0], &100_u64.to_le_bytes()).unwrap();
        });
        let mut told = false;
        let mut got = 0;
        while got != 100 {
            match receiver.peek() {
                Err(Error::Restarted) => told = true,
                Err(other) => panic!("{other}"),
                Ok(Some(message)) => {
                    let [first, again] = [0, 1].map(|_| {
                        let mut bytes = [0; 8];
                        message.read(0, &mut bytes);
                        u64::from_le_bytes(bytes)
                    });
                    assert_eq!((first, again), if told { (100, 100) } else { (7, 7) });
                    got = first;
                    message.release();
                }
                Ok(None) => {
                    if receiver.arm() {
                        channel.bells[1].wait();
                    }
                }
            }
        }
        sending.join().unwrap();
    });
}

/// Who asks starts afresh while the other side answers: the new one gets the answer to its own question and no other,
/// whichever half of the answering side meets it first, and the answer isn't lost to the old one.
#[test]
fn a_new_question_gets_its_own_answer() {
    explore(2, || {
        let channel = Channel::new(4);
        let (mut old, mut waiting) = channel.attach(0);
        let (mut answers, mut questions) = channel.attach(1);
        old.send(&7_u64.to_le_bytes()).unwrap();
        assert!(waiting.peek().unwrap().is_none());
        answers.poll().unwrap();
        drop((old, waiting));
        let there = channel.share();
        let asking = thread::spawn(move || {
            let (mut sender, mut receiver) = there.attach(0);
            send(&mut sender, &there.bells[0], &100_u64.to_le_bytes()).unwrap();
            assert_eq!(receive(&mut receiver, &there.bells[0]), Ok(100));
        });
        let mut answered = 0;
        while answered != 100 {
            let message = match questions.peek() {
                Ok(Some(message)) => message,
                Ok(None) => {
                    if questions.arm() {
                        channel.bells[1].wait();
                    }
                    continue;
                }
                Err(error) => {
                    assert_eq!(error, Error::Restarted);
                    continue;
                }
            };
            let mut bytes = [0; 8];
            message.read(0, &mut bytes);
            // As it happens where the ring is full: the sender looks, and may meet the new one now.
            if u64::from_le_bytes(bytes) == 7 {
                let _ = answers.poll();
            }
            match answers.reply(message.session(), &bytes) {
                Ok(()) => {
                    answered = u64::from_le_bytes(bytes);
                    message.release();
                }
                Err(Error::Outdated) => message.release(),
                Err(Error::Full | Error::Absent) => {
                    if answers.arm(8) {
                        channel.bells[1].wait();
                    }
                }
                Err(error) => assert_eq!(error, Error::Restarted),
            }
        }
        asking.join().unwrap();
    });
}

/// A sender and a receiver of one side on two CPUs, and a peer that answers each message with one.
#[test]
fn a_side_on_two_cpus() {
    explore(2, || {
        let channel = Channel::new(4);
        // Both halves outlive the thread that made them: leaked, some kilobytes for each interleaving.
        let memory: &'static [AtomicU64] = Vec::leak(words(4));
        let attach = |side: Side, peer: usize| attach(memory, side, channel.bells[peer].clone()).unwrap();
        let (mut sender, mut receiver) = attach(Side::Zero, 1);
        let (mut answers, mut questions) = attach(Side::One, 0);
        // Both know of each other, so that the sender needs no bell: there is one for both, and the receiver waits for it.
        assert!(receiver.peek().unwrap().is_none());
        let asking = thread::spawn(move || sender.send(&5_u64.to_le_bytes()).unwrap());
        let bells = channel.bells.clone();
        let answering = thread::spawn(move || {
            let number = receive(&mut questions, &bells[1]).unwrap();
            answers.send(&(number + 1).to_le_bytes()).unwrap();
        });
        assert_eq!(receive(&mut receiver, &channel.bells[0]), Ok(6));
        asking.join().unwrap();
        answering.join().unwrap();
    });
}

/// What a hostile peer writes over: a word's place in the whole memory, and what is written there.
type Blow = (usize, u64);

/// Words in a cache line, as the memory is divided under loom.
const LINE: usize = (LEAST_WORDS / 2 - 2) / 4;
/// Where side 1's words are, in rings of 4 words.
const HALF: usize = 4 * LINE + 4;
const HELLO: usize = HALF;
const TAIL: usize = HALF + LINE;
const HEAD: usize = HALF + 2 * LINE;
const RECEIVER_WAITS: usize = HALF + 2 * LINE + 1;
const FIRST_RECORD: usize = HALF + 4 * LINE;

/// A mark of the peer for us; both are of the first generation.
const fn mark(value: u64) -> u64 {
    1 << 48 | 1 << 32 | value
}

/// One side goes about its business while the other writes garbage between its accesses: everything comes to an end,
/// and what is received is no longer than a message can be.
fn survives<const N: usize>(blows: [Blow; N]) {
    explore(3, move || {
        let channel = Channel::new(4);
        let (mut sender, mut receiver) = channel.attach(0);
        let (mut theirs, _) = channel.attach(1);
        assert!(receiver.peek().unwrap().is_none());
        theirs.send(&[7; 8]).unwrap();
        let memory = channel.memory.clone();
        let hostile = thread::spawn(move || {
            for (word, value) in blows {
                memory[word].store(value.to_le(), Ordering::Relaxed);
            }
        });
        for _ in 0..2 {
            if let Ok(Some(message)) = receiver.peek() {
                let mut bytes = [0; 32];
                let len = message.len();
                assert!(len <= sender.max_len() && message.words().len() == len.div_ceil(8));
                assert_eq!(message.read(0, &mut bytes), len);
                message.release();
            }
            receiver.arm();
            let _ = sender.send(&[1; 8]);
            sender.arm(8);
        }
        hostile.join().unwrap();
        // Whatever it was, a new session is as good as the first.
        drop((sender, receiver));
        let (_, mut receiver) = channel.attach(0);
        let (mut theirs, _) = channel.attach(1);
        // What there was to tell of an earlier one is told once.
        let _ = receiver.peek();
        theirs.send(&9_u64.to_le_bytes()).unwrap();
        let mut bytes = [0; 8];
        receiver.peek().unwrap().unwrap().read(0, &mut bytes);
        assert_eq!(u64::from_le_bytes(bytes), 9);
    });
}

/// Positions that are none, that jump ahead, and that go back.
#[test]
fn hostile_positions() {
    survives([(TAIL, mark(0xffff_ffff)), (TAIL, mark(7)), (HEAD, mark(5)), (HEAD, mark(0))]);
}

/// Records that are longer than the ring, and padding that never ends.
#[test]
fn hostile_records() {
    survives([
        (FIRST_RECORD, 1 << 32 | 0xffff_ffff),
        (TAIL, mark(4)),
        (FIRST_RECORD, 2 << 32),
        (FIRST_RECORD + 2, 2 << 32),
    ]);
}

/// Somebody new all the time, who is always asleep.
#[test]
fn hostile_generations() {
    survives([
        (RECEIVER_WAITS, 1 << 48 | 1),
        (HELLO, 0x484e_4b43_0001_0002),
        (TAIL, 2 << 48 | 1 << 32 | 3),
        (RECEIVER_WAITS, 2 << 48 | 3),
        (HELLO, 0x484e_4b43_0001_0001),
        (HELLO, 1),
    ]);
}
