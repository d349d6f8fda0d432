//! The consumer of one direction.

use crate::atomic::{AtomicU64, Ordering};
use crate::memory::{Half, Mark};
use crate::position::{Record, Ring};
use crate::session::{Session, SessionId};
use crate::{Doorbell, Error, bytes};

/// Receives the peer's messages, in the order in which they were sent.
pub struct Receiver<'a, D> {
    own: Half<'a>,
    peer: Half<'a>,
    ring: Ring<'a>,
    bell: D,
    session: Session,
    /// Up to where messages were released.
    head: u32,
    /// Up to where the peer has written, as far as is known; never further from `head` than the ring has words.
    tail: u32,
}

/// A message, where the peer has written it. Dropped without [`Message::release`], it comes again.
pub struct Message<'r, 'a, D> {
    receiver: &'r mut Receiver<'a, D>,
    record: Record<'a>,
}

impl<'a, D: Doorbell> Receiver<'a, D> {
    pub(crate) fn new(own: Half<'a>, peer: Half<'a>, generation: u16, bell: D) -> Self {
        let ring = Ring::new(peer.data);
        Self { own, peer, ring, bell, session: Session::new(generation), head: 0, tail: 0 }
    }

    /// The next message, if there is one.
    ///
    /// # Errors
    /// [`Error::Restarted`], [`Error::Foreign`] and [`Error::Corrupt`].
    pub fn peek(&mut self) -> Result<Option<Message<'_, 'a, D>>, Error> {
        self.session.tell()?;
        if self.is_empty() {
            let found = self.look();
            self.session.tell()?;
            found?;
        }
        if self.is_empty() {
            return Ok(None);
        }
        let available = self.ring.distance(self.head, self.tail).unwrap_or(0);
        let Some(record) = self.ring.record(self.head, available) else {
            // To look at the peer again next time, which may be another one by then.
            self.tail = self.head;
            return Err(Error::Corrupt);
        };
        Ok(Some(Message { receiver: self, record }))
    }

    /// Before sleeping for want of messages: asks the peer to ring when it sends one or comes up. Returns whether there is nothing
    /// to do but to sleep until the doorbell rings; else [`Receiver::peek`] has news. For the wait, see
    /// [`Sender::arm`](crate::Sender::arm).
    pub fn arm(&mut self) -> bool {
        if !self.is_empty() || self.session.has_news() {
            return false;
        }
        self.session.arm(self.own.receiver_waits());
        let sleep = self.look().is_ok() && self.is_empty() && !self.session.has_news();
        if !sleep {
            self.session.disarm(self.own.receiver_waits());
        }
        sleep
    }

    /// Whether no message is known of.
    fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Reads the peer's position, after having followed the peer where it is another one.
    pub(crate) fn look(&mut self) -> Result<(), Error> {
        let mut tail = Mark::load(self.peer.tail(), Ordering::Acquire);
        if !self.session.has(tail) {
            if self.session.follow(self.peer.hello())? {
                (self.head, self.tail) = (0, 0);
                // From here on the peer may write where messages of an earlier session were.
                self.publish();
                tail = Mark::load(self.peer.tail(), Ordering::Acquire);
            }
            if !self.session.has(tail) {
                return Ok(());
            }
        }
        self.ring.distance(self.head, tail.value).ok_or(Error::Corrupt)?;
        self.tail = tail.value;
        Ok(())
    }

    fn publish(&mut self) {
        let head = (self.head, self.own.head());
        self.session.publish(head, self.peer.sender_waits(), &self.bell);
    }
}

impl<'a, D: Doorbell> Message<'_, 'a, D> {
    /// The session in which it came, for [`Sender::reply`](crate::Sender::reply).
    pub fn session(&self) -> SessionId {
        self.receiver.session.id()
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.record.len as usize
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.record.len == 0
    }

    /// Its words, the last one perhaps in part; see [`Slot::words`](crate::Slot::words).
    pub fn words(&self) -> &'a [AtomicU64] {
        self.record.payload
    }

    /// Copies from byte `offset` on as much as there is into `into`, and returns how much that is.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        bytes::read(self.record.payload, self.len(), offset, into)
    }

    /// Gives its room back to the peer.
    pub fn release(self) {
        self.receiver.head = self.record.end;
        self.receiver.publish();
    }
}
