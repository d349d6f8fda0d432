//! The log: messages of EL2 to the board's console.
//!
//! Until guests run, a message goes out at once. From then on it waits in a ring of the CPU that made it, which the
//! housekeeping CPU drains, so that no exit waits for a UART or for another CPU's lock. A ring that is full drops whole
//! messages and says how many.

use alloc::boxed::Box;
use core::fmt::{Arguments, Write};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use arrayvec::ArrayString;
use log::{LevelFilter, Metadata, Record};

use crate::lock::Mutex;
use crate::percpu::this_cpu;
use crate::{console, timer};

/// Longest message in bytes, its end included; what is longer is cut.
pub const MESSAGE: usize = 512;
/// Bytes in a ring, a power of two.
const RING: usize = 8192;
const WRAP: usize = RING - 1;

static DEFERRED: AtomicBool = AtomicBool::new(false);

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            _ => "",
        };
        write_message(level, *record.args());
    }

    fn flush(&self) {}
}

/// Says something whatever the level of the log: what somebody at the console has asked for.
pub fn say(message: Arguments<'_>) {
    write_message("", message);
}

fn write_message(level: &str, message: Arguments<'_>) {
    let mut text: ArrayString<MESSAGE> = ArrayString::new();
    let us = timer::microseconds();
    // What doesn't fit is cut; the line's end below always has room.
    let mut cut = Cut(&mut text);
    let _ = write!(cut, "[{:5}.{:06}] hanok: {level}{message}", us / 1_000_000, us % 1_000_000);
    let _ = text.try_push_str("\r\n");
    if DEFERRED.load(Ordering::Relaxed) {
        this_cpu().log.push(text.as_bytes());
        console::wake();
    } else {
        console::write_now(text.as_bytes());
    }
}

/// Writes until only the line's end fits.
struct Cut<'a>(&'a mut ArrayString<MESSAGE>);

impl Write for Cut<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for character in text.chars() {
            if self.0.remaining_capacity() < character.len_utf8().wrapping_add(2) {
                return Ok(());
            }
            let _ = self.0.try_push(character);
        }
        Ok(())
    }
}

/// Turns the log on, at level `info`.
pub fn init() {
    // A logger can be set once, and this is called once.
    let _ = log::set_logger(&Logger);
    log::set_max_level(LevelFilter::Info);
}

/// Sets the level that the board's boot arguments ask for: `hanok.log=off|error|warn|info|debug|trace`.
pub fn set_level(bootargs: &str) {
    for argument in bootargs.split_whitespace() {
        let Some(level) = argument.strip_prefix("hanok.log=") else { continue };
        match level.parse() {
            Ok(level) => log::set_max_level(level),
            Err(_) => log::warn!(
                "boot argument hanok.log={level}: levels are off, error, warn, info, debug and trace"
            ),
        }
    }
}

/// From now on messages wait for the housekeeping CPU.
pub fn defer() {
    DEFERRED.store(true, Ordering::Relaxed);
}

/// Messages that wait.
pub struct Ring {
    bytes: Mutex<Bytes>,
    lost: AtomicU32,
}

struct Bytes {
    /// [`RING`] bytes.
    ring: Box<[u8]>,
    start: usize,
    length: usize,
}

impl Ring {
    /// An empty one.
    pub fn new() -> Self {
        let ring = alloc::vec![0; RING].into_boxed_slice();
        Self { bytes: Mutex::new(Bytes { ring, start: 0, length: 0 }), lost: AtomicU32::new(0) }
    }

    /// Adds a message, or counts it as lost.
    fn push(&self, message: &[u8]) {
        let mut bytes = self.bytes.lock();
        if RING.saturating_sub(bytes.length) < message.len() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        for byte in message {
            let end = bytes.start.wrapping_add(bytes.length);
            if let Some(slot) = bytes.ring.get_mut(end & WRAP) {
                *slot = *byte;
            }
            bytes.length = bytes.length.wrapping_add(1);
        }
    }

    /// Whether there is anything to take.
    pub fn waits(&self) -> bool {
        self.lost.load(Ordering::Relaxed) != 0 || self.bytes.lock().length != 0
    }

    /// Takes out what fits into `out`, up to the end of the last whole line of it; and, once the ring is empty, a line
    /// that tells what was lost. Returns how many bytes.
    pub fn take(&self, out: &mut [u8]) -> usize {
        let mut bytes = self.bytes.lock();
        let mut whole = 0;
        for (taken, slot) in out.iter_mut().enumerate().take(bytes.length) {
            *slot = bytes.ring.get(bytes.start.wrapping_add(taken) & WRAP).copied().unwrap_or(0);
            if *slot == b'\n' {
                whole = taken.wrapping_add(1);
            }
        }
        bytes.start = bytes.start.wrapping_add(whole) & WRAP;
        bytes.length = bytes.length.saturating_sub(whole);
        drop(bytes);
        if whole > 0 {
            return whole;
        }
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => 0,
            lost => {
                let mut text: ArrayString<64> = ArrayString::new();
                let _ = write!(text, "hanok: {lost} messages lost\r\n");
                for (slot, byte) in out.iter_mut().zip(text.bytes()) {
                    *slot = byte;
                }
                text.len().min(out.len())
            }
        }
    }
}

/// Which messages a guest may provoke: a few at once and then one a second, so that no guest can flood the console.
#[derive(Debug)]
pub struct Budget {
    /// Tokens left, and the second in which they were last filled up.
    state: Mutex<(u32, u64)>,
    suppressed: AtomicU32,
}

impl Budget {
    const BURST: u32 = 10;

    /// A full one.
    pub const fn new() -> Self {
        Self { state: Mutex::new((Self::BURST, 0)), suppressed: AtomicU32::new(0) }
    }

    /// Whether a message may be made now, and how many were not made since the last one.
    pub fn take(&self) -> Option<u32> {
        let now = timer::microseconds() / 1_000_000;
        let mut state = self.state.lock();
        let (tokens, filled) = *state;
        let tokens = u64::from(tokens).saturating_add(now.saturating_sub(filled)).min(u64::from(Self::BURST));
        *state = (tokens.saturating_sub(1) as u32, now);
        if tokens == 0 {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}
