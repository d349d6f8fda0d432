//! The producer of one direction.

use crate::atomic::{AtomicU64, Ordering};
use crate::memory::{Half, Mark};
use crate::position::{Place, Ring};
use crate::session::{Session, SessionId};
use crate::{Doorbell, Error, bytes};

/// Sends messages to the peer.
pub struct Sender<'a, D> {
    own: Half<'a>,
    peer: Half<'a>,
    ring: Ring<'a>,
    bell: D,
    session: Session,
    /// Behind what was written.
    tail: u32,
    /// Up to where the peer has read, as far as is known; never further behind `tail` than the ring has words.
    head: u32,
    /// Whether `head` is this peer's.
    answered: bool,
}

/// Room for a message. What is written here goes out with [`Slot::commit`]; dropped before, it never was.
pub struct Slot<'s, 'a, D> {
    sender: &'s mut Sender<'a, D>,
    place: Place<'a>,
    len: u32,
}

impl<'a, D: Doorbell> Sender<'a, D> {
    pub(crate) fn new(own: Half<'a>, peer: Half<'a>, generation: u16, bell: D) -> Self {
        let ring = Ring::new(own.data);
        Self { own, peer, ring, bell, session: Session::new(generation), tail: 0, head: 0, answered: false }
    }

    /// The longest message, in bytes.
    pub fn max_len(&self) -> usize {
        self.ring.max_len()
    }

    /// Looks at the peer: whether it is there, has started afresh, or has made room. To be called after a doorbell where
    /// nothing is to be sent.
    ///
    /// # Errors
    /// All but [`Error::Full`] and [`Error::TooLong`].
    pub fn poll(&mut self) -> Result<(), Error> {
        let found = self.look();
        self.session.tell()?;
        found
    }

    /// Room for a message of `len` bytes, which holds whatever was there before.
    ///
    /// # Errors
    /// Each [`Error`]; on [`Error::Full`] and [`Error::Absent`] one may sleep: see [`Sender::arm`]. What went to a peer
    /// that has gone is lost; [`Error::Restarted`] tells that at the latest with the second message after it.
    pub fn reserve(&mut self, len: usize) -> Result<Slot<'_, 'a, D>, Error> {
        let len = self.checked(len)?;
        self.session.tell()?;
        if !self.answered || self.place(len).is_none() {
            self.poll()?;
        }
        let place = self.place(len).ok_or(Error::Full)?;
        Ok(Slot { sender: self, place, len })
    }

    /// Sends a copy of `message`.
    ///
    /// # Errors
    /// As for [`Sender::reserve`].
    pub fn send(&mut self, message: &[u8]) -> Result<(), Error> {
        let slot = self.reserve(message.len())?;
        slot.write(0, message);
        slot.commit();
        Ok(())
    }

    /// Room for a reply of `len` bytes to a message of this session ([`Message::session`](crate::Message::session)), or else
    /// none: a message of the peer's last start is answered neither to its next one, nor is the next one's to the last.
    ///
    /// # Errors
    /// As for [`Sender::reserve`]. [`Error::Outdated`] where the session is over; the message can be released then.
    pub fn reserve_reply(&mut self, to: SessionId, len: usize) -> Result<Slot<'_, 'a, D>, Error> {
        self.checked(len)?;
        self.session.tell()?;
        if self.session.id() != to {
            // The receiver may have met a new peer first.
            self.follow()?;
            self.session.tell()?;
        }
        if self.session.id() != to {
            return Err(Error::Outdated);
        }
        // Where this meets another peer, it is an error.
        self.reserve(len)
    }

    /// Sends a copy of `message` in reply to one of this session.
    ///
    /// # Errors
    /// As for [`Sender::reserve_reply`].
    pub fn reply(&mut self, to: SessionId, message: &[u8]) -> Result<(), Error> {
        let slot = self.reserve_reply(to, message.len())?;
        slot.write(0, message);
        slot.commit();
        Ok(())
    }

    /// Before sleeping for want of room for `len` bytes: asks the peer to ring when it has read something or comes up. Returns
    /// whether there is nothing to do but to sleep until the doorbell rings; else [`Sender::reserve`] has news.
    ///
    /// The doorbell is to be waited for so that one that has rung since this call ends the wait: by WFI with interrupts
    /// masked, for one.
    pub fn arm(&mut self, len: usize) -> bool {
        let Ok(len) = self.checked(len) else { return false };
        self.session.arm(self.own.sender_waits());
        let sleep = match self.look() {
            Ok(()) => self.place(len).is_none(),
            Err(error) => error == Error::Absent,
        };
        let sleep = sleep && !self.session.has_news();
        if !sleep {
            self.session.disarm(self.own.sender_waits());
        }
        sleep
    }

    fn checked(&self, len: usize) -> Result<u32, Error> {
        if len > self.max_len() {
            return Err(Error::TooLong);
        }
        u32::try_from(len).map_err(|_| Error::TooLong)
    }

    fn place(&self, len: u32) -> Option<Place<'a>> {
        let used = self.ring.distance(self.head, self.tail)?;
        self.ring.place(self.tail, self.ring.capacity().checked_sub(used)?, len)
    }

    /// Reads the peer's position, after having followed the peer where it is another one.
    pub(crate) fn look(&mut self) -> Result<(), Error> {
        let mut head = Mark::load(self.peer.head(), Ordering::Acquire);
        if !self.session.has(head) {
            self.answered = false;
            if self.follow()? {
                head = Mark::load(self.peer.head(), Ordering::Acquire);
            }
            if !self.session.has(head) {
                // Nothing is written before the peer says that it reads nothing of an earlier session.
                return Err(Error::Absent);
            }
        }
        let used = self.ring.distance(head.value, self.tail).ok_or(Error::Corrupt)?;
        if self.ring.distance(self.head, self.tail).is_none_or(|before| used > before) {
            return Err(Error::Corrupt);
        }
        self.head = head.value;
        self.answered = true;
        Ok(())
    }

    /// Looks who greets on the other side. Returns whether it is another one than before; then the session is a new one.
    fn follow(&mut self) -> Result<bool, Error> {
        let new = self.session.follow(self.peer.hello())?;
        if new {
            (self.tail, self.head, self.answered) = (0, 0, false);
            self.publish();
        }
        Ok(new)
    }

    fn publish(&mut self) {
        let tail = (self.tail, self.own.tail());
        if !self.session.publish(tail, self.peer.receiver_waits(), &self.bell) {
            // Somebody else is there: look before anything else is sent.
            self.answered = false;
        }
    }
}

impl<'a, D: Doorbell> Slot<'_, 'a, D> {
    /// The message's words, the last one perhaps in part. A word's bytes lie in memory as the message's bytes do
    /// (`from_ne_bytes`).
    pub fn words(&self) -> &'a [AtomicU64] {
        self.place.payload
    }

    /// Writes at byte `offset` as much of `bytes` as the message has room for, and returns how much that is.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        bytes::write(self.place.payload, self.len as usize, offset, bytes)
    }

    /// Sends it.
    pub fn commit(self) {
        self.place.write_headers(self.len);
        self.sender.tail = self.place.end;
        self.sender.publish();
    }
}
