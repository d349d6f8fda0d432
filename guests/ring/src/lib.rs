//! Messages between two VMs through the memory of a channel: a lock-free ring each way, with one producer and one
//! consumer. The producer writes a message where it stays, the consumer reads it there: nothing is copied on the way.
//!
//! - **The peer is not trusted.** It may crash, start afresh, or write anything anywhere at any time. What is read from
//!   shared memory is an allegation: positions and lengths are read once and checked, one's own positions are never
//!   read back. No access leaves the ring, nothing panics, and what can't be true is [`Error::Corrupt`]. All accesses
//!   are atomic, so races with the peer are no undefined behaviour; but the bytes of a message may change while one looks
//!   at them, so what is checked must be copied first.
//! - **Either side may start afresh.** Each start is a *generation*. Positions carry the generation of who wrote them and
//!   of the peer they are meant for, so nothing that was meant for an earlier one is taken for new, and nobody writes
//!   where an earlier one's message may still be read. [`Error::Restarted`] tells of it once to the sender and once to
//!   the receiver, and either may meet the new one first: what answers a message goes by [`Sender::reply`], into the
//!   session in which the message came or nowhere.
//! - **Sleeping.** Who has nothing to do calls `arm` and, if that agrees, waits for the doorbell. The other side rings
//!   once for that, and not at all while nobody waits.
//!
//! `docs/channels.md` describes the memory, for those who write their own.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod attach;
mod bytes;
mod memory;
mod position;
mod receiver;
mod sender;
mod session;

/// The atomics of the memory: [`core::sync::atomic`]'s, or loom's under its tests.
pub mod atomic {
    #[cfg(not(loom))]
    pub use core::sync::atomic::{AtomicU64, Ordering, fence};
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

pub use attach::{Side, TooSmall, attach};
pub use memory::{LEAST_WORDS, MAGIC, VERSION};
pub use receiver::{Message, Receiver};
pub use sender::{Sender, Slot};
pub use session::SessionId;

/// Rings the bell at the other side of the channel.
///
/// When the peer takes the interrupt, it must see everything that was written before: on Arm, the call to the
/// hypervisor comes after a `DSB ISH`.
pub trait Doorbell {
    /// Rings. More than one ring before the peer has looked may count as one.
    fn ring(&self);
}

impl<F: Fn()> Doorbell for F {
    fn ring(&self) {
        self();
    }
}

/// Why a message can't be sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// There is no room now. Only for sending.
    Full,
    /// The message is longer than [`Sender::max_len`].
    TooLong,
    /// The peer isn't there yet, or has not answered. Only for sending: a receiver has no message then.
    Absent,
    /// The peer has started afresh: what was sent and not received is lost, in both directions. Told once; the next
    /// call is about the new peer.
    Restarted,
    /// The session that a reply is for is over: nobody waits for it, and it goes nowhere.
    Outdated,
    /// What is on the other side doesn't speak this protocol: the word where its greeting should be.
    Foreign(u64),
    /// The peer says what can't be true. It stays so until one side starts afresh: [`attach`] again, or wait for
    /// [`Error::Restarted`].
    Corrupt,
}

impl core::error::Error for Error {}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("the ring is full"),
            Self::TooLong => f.write_str("the message is longer than the ring takes"),
            Self::Absent => f.write_str("the peer is not there"),
            Self::Restarted => f.write_str("the peer has started afresh"),
            Self::Outdated => f.write_str("the reply is for a session that is over"),
            Self::Foreign(word) => {
                write!(f, "the peer doesn't speak this protocol: it greets with {word:#x}")
            }
            Self::Corrupt => f.write_str("the peer has corrupted the ring"),
        }
    }
}
