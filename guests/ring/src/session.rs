//! Who talks to whom: one's own generation, and the peer's that is followed.

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::memory::{Hello, Mark, load};
use crate::{Doorbell, Error};

/// Which of one's own starts and which of the peer's talk to each other: the session that a message belongs to. Numbers of
/// starts come round after 65535: not to be kept for longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    own: u16,
    peer: u16,
}

/// What a sender or a receiver knows of both ends, each for itself.
pub(crate) struct Session {
    own: u16,
    /// 0 while there has been none.
    peer: u16,
    /// The peer that was followed before has gone, and it hasn't been told yet.
    restarted: bool,
    /// How often one's own sleep was announced (odd) or called off (even).
    waits: u32,
    /// The peer's sleep that was ended last by a ring.
    rung: Option<Mark>,
}

impl Session {
    pub fn new(own: u16) -> Self {
        Self { own, peer: 0, restarted: false, waits: 0, rung: None }
    }

    /// The session with the peer that is followed.
    pub fn id(&self) -> SessionId {
        SessionId { own: self.own, peer: self.peer }
    }

    /// One's own mark for the peer.
    pub fn mark(&self, value: u32) -> Mark {
        Mark { from: self.own, to: self.peer, value }
    }

    /// Whether a mark of the peer is of this session.
    pub fn has(&self, mark: Mark) -> bool {
        self.peer != 0 && mark.from == self.peer && mark.to == self.own
    }

    /// Looks who greets on the other side. Returns whether it is another one than before; then the session is a new one.
    pub fn follow(&mut self, hello: &AtomicU64) -> Result<bool, Error> {
        let word = load(hello, Ordering::Acquire);
        if word == 0 {
            return Ok(false);
        }
        let Hello { generation } = Hello::of(word).ok_or(Error::Foreign(word))?;
        let new = generation != self.peer;
        if new {
            self.restarted |= self.peer != 0;
            // Whoever is there now has not been rung up, even where it counts as one before it did.
            self.rung = None;
        }
        self.peer = generation;
        Ok(new)
    }

    /// Tells once that the peer has started afresh.
    pub fn tell(&mut self) -> Result<(), Error> {
        if core::mem::take(&mut self.restarted) { Err(Error::Restarted) } else { Ok(()) }
    }

    /// Whether there is something to tell.
    pub fn has_news(&self) -> bool {
        self.restarted
    }

    /// Announces to the peer that one is about to sleep. What is looked at afterwards is no older than what the peer had
    /// written when it last looked for sleepers: either the peer sees this, or one sees what it wrote before.
    pub fn arm(&mut self, waits: &AtomicU64) {
        self.waits = self.waits.wrapping_add(1) | 1;
        self.mark(self.waits).store(waits, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Calls it off.
    pub fn disarm(&mut self, waits: &AtomicU64) {
        self.waits = self.waits.wrapping_add(1);
        self.mark(self.waits).store(waits, Ordering::Relaxed);
    }

    /// Writes a position, and rings if the peer sleeps and hasn't been rung up for that. Returns whether the peer is still
    /// the one that is followed.
    pub fn publish(
        &mut self,
        (position, word): (u32, &AtomicU64),
        peer_waits: &AtomicU64,
        bell: &impl Doorbell,
    ) -> bool {
        self.mark(position).store(word, Ordering::Release);
        // The other half of `arm`.
        fence(Ordering::SeqCst);
        let waits = Mark::load(peer_waits, Ordering::Relaxed);
        if waits.value & 1 == 1 && self.rung != Some(waits) {
            self.rung = Some(waits);
            bell.ring();
        }
        waits.from == self.peer
    }
}
