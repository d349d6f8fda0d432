//! Messages through a channel, there and back. Side 0 of the channel asks: it sends messages of all lengths, as many at a time
//! as there is room for, and checks that each comes back as it was. Side 1 answers: it sends back whatever comes, until an empty
//! message tells it that this was all. Nothing is copied but from one ring to the other.
//!
//! Its command line:
//! - `channel=NAME`: which channel (the first).
//! - `messages=N`: how many are sent there and back (1000).
#![no_std]
#![no_main]
#![deny(unsafe_code)]

use core::sync::atomic::Ordering;

use runtime::channel::{self, Bell, Channel};
use runtime::random::mix;
use runtime::ring::{Error, Receiver, Sender, Side};
use runtime::{machine, power, println};

runtime::entry!(main);

/// Bytes in a word.
const WORD: usize = 8;

/// One side at work.
struct Courier {
    channel: Channel,
    sender: Sender<'static, Bell>,
    receiver: Receiver<'static, Bell>,
}

fn main() -> ! {
    let found = match machine().argument("channel") {
        Some(name) => channel::find(name),
        None => channel::all().next(),
    };
    let Some(channel) = found else {
        println!("courier: there is no such channel");
        power::off()
    };
    let messages = machine().argument("messages").map_or(Some(1000), |number| number.parse().ok());
    let messages = messages.unwrap_or_else(|| {
        println!("courier: messages= is no number");
        power::off()
    });
    let (sender, receiver) = channel.open().unwrap_or_else(|error| {
        println!("courier: {}: {error}", channel.name);
        power::off()
    });
    let Channel { name, peer, memory, .. } = channel;
    let mut courier = Courier { channel, sender, receiver };
    println!("courier: {name} to {peer} is open, {} KiB", memory.size >> 10);
    match channel.side {
        Side::Zero => {
            let bytes = courier.ask(messages);
            println!(
                "courier: {messages} messages to {peer} and back, {bytes} bytes each way, each as it was"
            );
        }
        Side::One => {
            let messages = courier.answer();
            println!("courier: {messages} messages from {peer} and back");
        }
    }
    power::off()
}

impl Courier {
    /// Sends messages and checks what comes back; returns how many bytes they had. A peer that starts afresh gets them all from
    /// the first one on.
    fn ask(&mut self, messages: u64) -> u64 {
        let (mut sent, mut came, mut bytes) = (0, 0, 0);
        let longest = self.sender.max_len();
        while came < messages {
            let mut idle = true;
            while sent < messages {
                match self.sender.reserve(length(sent, longest)) {
                    Ok(slot) => {
                        for (index, word) in slot.words().iter().enumerate() {
                            word.store(content(sent, index), Ordering::Relaxed);
                        }
                        slot.commit();
                        sent += 1;
                        idle = false;
                    }
                    Err(Error::Full | Error::Absent) => break,
                    Err(error) => {
                        self.tell(error);
                        sent = 0;
                    }
                }
            }
            match self.receiver.peek() {
                Ok(Some(message)) => {
                    let sound = message
                        .words()
                        .iter()
                        .enumerate()
                        .all(|(index, word)| word.load(Ordering::Relaxed) == content(came, index));
                    assert!(sound && message.len() == length(came, longest), "message {came} is another one");
                    bytes += message.len() as u64;
                    message.release();
                    came += 1;
                    idle = false;
                }
                Ok(None) => {}
                Err(error) => {
                    self.tell(error);
                    (came, bytes, idle) = (0, 0, false);
                }
            }
            if idle && (sent == messages || self.sender.arm(length(sent, longest))) && self.receiver.arm() {
                self.channel.wait();
            }
        }
        self.send_end();
        bytes
    }

    /// Sends back what comes, each to whom it came from; returns how many messages.
    fn answer(&mut self) -> u64 {
        let mut messages = 0;
        loop {
            match self.receiver.peek() {
                Ok(Some(message)) => match self.sender.reserve_reply(message.session(), message.len()) {
                    // Whoever sent it has begun again, and so does what it asks.
                    Err(Error::Outdated) => message.release(),
                    Ok(_) | Err(Error::Full | Error::Absent) if message.is_empty() => {
                        message.release();
                        return messages;
                    }
                    Ok(slot) => {
                        for (to, from) in slot.words().iter().zip(message.words()) {
                            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
                        }
                        slot.commit();
                        message.release();
                        messages += 1;
                    }
                    Err(Error::Full | Error::Absent) => {
                        if self.sender.arm(message.len()) {
                            self.channel.wait();
                        }
                    }
                    Err(error) => self.tell(error),
                },
                Ok(None) => {
                    if self.receiver.arm() {
                        self.channel.wait();
                    }
                }
                Err(error) => self.tell(error),
            }
        }
    }

    /// Sends the empty message behind the last one.
    fn send_end(&mut self) {
        while let Err(error) = self.sender.send(&[]) {
            match error {
                Error::Full | Error::Absent => {
                    if self.sender.arm(0) {
                        self.channel.wait();
                    }
                }
                error => self.tell(error),
            }
        }
    }

    /// Goes on where the peer has started afresh, and gives up where it is no peer.
    fn tell(&self, error: Error) {
        println!("courier: {}: {error}", self.channel.name);
        if error != Error::Restarted {
            power::off()
        }
    }
}

/// The length of a message in bytes: whole words, one at least.
fn length(number: u64, longest: usize) -> usize {
    let words = (longest / WORD).max(1) as u64;
    (1 + mix(number) % words) as usize * WORD
}

/// A word of a message.
fn content(number: u64, index: usize) -> u64 {
    mix((number + 1) << 32 | index as u64)
}
