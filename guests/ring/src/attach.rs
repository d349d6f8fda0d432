//! Coming up: a new generation of one side.

use crate::atomic::{AtomicU64, Ordering};
use crate::memory::{Half, Hello, LEAST_WORDS, Mark, load, store};
use crate::{Doorbell, Receiver, Sender};

/// Which end of the channel this is, as the device tree says (`hanok,side`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// 0: it writes the first half of the memory.
    Zero,
    /// 1: it writes the second half.
    One,
}

impl Side {
    /// The side of this number.
    pub fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Zero),
            1 => Some(Self::One),
            _ => None,
        }
    }
}

/// The memory is too small: [`LEAST_WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// The words it has.
    pub words: usize,
}

impl core::error::Error for TooSmall {}

impl core::fmt::Display for TooSmall {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the channel's memory has {} words, {LEAST_WORDS} are the least", self.words)
    }
}

/// Comes up on a side of a channel, for the first time or again, and rings for the peer to notice. `words` is all of the
/// channel's memory, which both sides must see in the same size; it is zero before either side has come up.
///
/// Nothing else may use the same side, be it an earlier pair that this returned. A sender and a receiver may be used on
/// different CPUs.
///
/// # Errors
/// [`TooSmall`].
pub fn attach<'a, D: Doorbell + Clone>(
    words: &'a [AtomicU64],
    side: Side,
    bell: D,
) -> Result<(Sender<'a, D>, Receiver<'a, D>), TooSmall> {
    let [zero, one] = Half::split(words).ok_or(TooSmall { words: words.len() })?;
    let (own, peer) = match side {
        Side::Zero => (zero, one),
        Side::One => (one, zero),
    };
    let generation = next_generation(&own, &peer);
    // The greeting comes first: who finds that a position isn't the one it knew must find out from whom the new one is.
    store(own.hello(), Hello { generation }.word(), Ordering::Release);
    let nothing = Mark { from: generation, to: 0, value: 0 };
    for word in [own.tail(), own.head(), own.sender_waits(), own.receiver_waits()] {
        nothing.store(word, Ordering::Release);
    }
    let mut sender = Sender::new(own, peer, generation, bell.clone());
    let mut receiver = Receiver::new(own, peer, generation, bell.clone());
    // Where the peer is there already, it gets its answer now; what is wrong with it comes up again at the first use.
    let _ = sender.look();
    let _ = receiver.look();
    bell.ring();
    Ok((sender, receiver))
}

/// One more than the last, which is taken from what is written there; never 0, and none that the peer still follows,
/// whatever somebody may have written over one's own.
fn next_generation(own: &Half<'_>, peer: &Half<'_>) -> u16 {
    let last = Hello::of(load(own.hello(), Ordering::Relaxed)).map_or(0, |hello| hello.generation);
    let followed = [peer.tail(), peer.head()].map(|word| Mark::load(word, Ordering::Relaxed).to);
    let mut generation = last;
    // Three of four candidates can be ruled out: 0 and two that are followed.
    for _ in 0..4 {
        generation = generation.wrapping_add(1);
        if generation != 0 && !followed.contains(&generation) {
            break;
        }
    }
    generation
}
