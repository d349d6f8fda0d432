//! What a console has said so far, and waiting for more of it.

use std::io::Read;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use regex_lite::Regex;

use crate::{Failure, Outcome};

/// What no console may ever say: the wait for anything else ends at once.
const ALARMS: [&str; 5] = [
    "Kernel panic - not syncing",
    "Internal error: Oops",
    "Unable to handle kernel",
    "BUG: ",
    "WARNING: CPU: ",
];

/// As little as that, but where a scenario wants it.
const CRASHES: [&str; 3] = ["hanok: EL2 crashed", "hanok: EL2 panicked", "hanok: the hardware failed"];

/// The text of a console, written by a thread that reads it and searched by the scenario.
#[derive(Default)]
pub(crate) struct Console {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    /// The very bytes.
    raw: Vec<u8>,
    /// What QEMU itself said meanwhile: apart, for it could come in the middle of a line.
    complaints: String,
    /// Byte offset up to which the text has been matched.
    seen: usize,
    /// Byte offset of the first line that has not been searched for alarms.
    checked: usize,
    /// A crash of EL2 is no alarm.
    crash_wanted: bool,
    /// The other side is closed.
    ended: bool,
}

/// Where to look for a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Behind the last match, which this match then is.
    Rest,
    /// Everywhere; it doesn't count as a match.
    All,
}

/// A place where the console's text matched a pattern.
#[derive(Clone, Debug)]
pub struct Found {
    /// What came before it, from the previous match on.
    pub before: String,
    /// The match and its groups; a group that didn't take part is empty.
    pub groups: Vec<String>,
}

impl Found {
    /// A group of the pattern; 0 is the whole match.
    pub fn group(&self, n: usize) -> &str {
        self.groups.get(n).map_or("", String::as_str)
    }

    /// A group that is a decimal number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, n: usize) -> Outcome<u64> {
        let text = self.group(n);
        text.parse().map_err(|_| Failure::Wrong(format!("\"{text}\" should be a number")))
    }
}

impl Console {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A thread that panicked while it held the lock leaves text that is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a stream into the text until it ends.
    pub(crate) fn fill_from(&self, mut stream: impl Read) {
        let mut cleaner = Cleaner::default();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            let text = cleaner.clean(&chunk[..count]);
            let mut state = self.lock();
            state.text.push_str(&text);
            state.raw.extend_from_slice(&chunk[..count]);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Keeps what QEMU itself says, until that ends.
    pub(crate) fn complain_from(&self, mut stream: impl Read) {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            self.lock().complaints.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
    }

    /// What QEMU itself has said.
    pub(crate) fn complaints(&self) -> String {
        self.lock().complaints.clone()
    }

    /// Nothing more will come.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// Waits until the text matches, or the deadline passes.
    pub(crate) fn expect(&self, pattern: &Regex, deadline: Instant, search: Search) -> Outcome<Found> {
        let start = Instant::now();
        let mut state = self.lock();
        loop {
            state.check()?;
            if let Some(found) = state.find(pattern, search) {
                return Ok(found);
            }
            let wanted = || pattern.as_str().to_owned();
            if state.ended {
                return Err(Failure::Ended { wanted: wanted() });
            }
            let now = Instant::now();
            if now >= deadline {
                let seconds = (now - start).as_secs();
                return Err(Failure::Timeout { wanted: wanted(), seconds });
            }
            let waited = self.changed.wait_timeout(state, deadline - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the stream ends; false when the deadline passes first.
    pub(crate) fn wait_for_end(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    /// Fails if an alarm has come since this was looked at.
    pub(crate) fn check(&self) -> Outcome {
        self.lock().check()
    }

    /// From now on a crash of EL2, or of the board, is no alarm.
    pub(crate) fn want_crash(&self) {
        self.lock().crash_wanted = true;
    }

    /// All that was said, as it came.
    pub(crate) fn raw(&self) -> Vec<u8> {
        self.lock().raw.clone()
    }

    /// All that was said.
    pub(crate) fn text(&self) -> String {
        self.lock().text.clone()
    }
}

impl State {
    fn find(&mut self, pattern: &Regex, search: Search) -> Option<Found> {
        let text = match search {
            Search::Rest => &self.text[self.seen..],
            Search::All => &self.text,
        };
        let captures = pattern.captures(text)?;
        let whole = captures.get(0)?;
        let groups =
            captures.iter().map(|group| group.map_or("", |group| group.as_str()).to_owned()).collect();
        let found = Found { before: text[..whole.start()].to_owned(), groups };
        if search == Search::Rest {
            self.seen += whole.end();
        }
        Some(found)
    }

    fn check(&mut self) -> Outcome {
        let text = &self.text[self.checked..];
        // The last line may not be whole.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let crashes: &[&str] = if self.crash_wanted { &[] } else { &CRASHES };
        let is_alarm = |line: &&str| ALARMS.iter().chain(crashes).any(|alarm| line.contains(alarm));
        let alarm = text[..whole].lines().find(is_alarm);
        match alarm {
            Some(line) => Err(Failure::Alarm { line: line.to_owned() }),
            None => {
                self.checked += whole;
                Ok(())
            }
        }
    }
}

/// Makes plain text of what a serial line brings: without carriage returns and control sequences (ECMA-48, 5.4), with
/// the replacement character where it is no UTF-8.
#[derive(Default)]
struct Cleaner {
    place: Place,
    /// The beginning of a character that isn't complete.
    partial: Vec<u8>,
}

#[derive(Default)]
enum Place {
    #[default]
    Text,
    Escape,
    Sequence,
}

impl Cleaner {
    fn clean(&mut self, bytes: &[u8]) -> String {
        let mut kept = std::mem::take(&mut self.partial);
        for &byte in bytes {
            match (&self.place, byte) {
                (Place::Text, 0x1b) => self.place = Place::Escape,
                (Place::Text, b'\r' | 0) => {}
                (Place::Text, _) => kept.push(byte),
                (Place::Escape, b'[') => self.place = Place::Sequence,
                (Place::Escape, _) | (Place::Sequence, 0x40..=0x7e) => self.place = Place::Text,
                (Place::Sequence, _) => {}
            }
        }
        let whole = match std::str::from_utf8(&kept) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => kept.len(),
        };
        self.partial = kept.split_off(whole);
        String::from_utf8_lossy(&kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn console(text: &str) -> Console {
        let console = Console::default();
        console.fill_from(text.as_bytes());
        console
    }

    fn expect(console: &Console, pattern: &str) -> Outcome<Found> {
        let soon = Instant::now() + Duration::from_millis(10);
        console.expect(&Regex::new(pattern).expect("a pattern"), soon, Search::Rest)
    }

    #[test]
    fn matches_follow_each_other() {
        let console = console("one 1\r\ntwo 2\r\n");
        let first = expect(&console, r"one (\d+)\n").expect("the first line");
        assert_eq!(first.number(1).expect("a number"), 1);
        let second = expect(&console, "2").expect("the second line");
        assert_eq!(second.before, "two ");
        assert!(matches!(expect(&console, "one"), Err(Failure::Timeout { .. })));
    }

    #[test]
    fn an_end_is_told_from_silence() {
        let console = console("text");
        console.end();
        assert!(matches!(expect(&console, "more"), Err(Failure::Ended { .. })));
    }

    #[test]
    fn alarms_end_the_wait() {
        let console = console("x\nhanok: EL2 crashed on CPU 0\nfine\n");
        let failure = expect(&console, "fine").expect_err("an alarm");
        assert_eq!(failure.to_string(), "the console says \"hanok: EL2 crashed on CPU 0\"");
    }

    #[test]
    fn half_sequences_and_characters_wait_for_the_rest() {
        let mut cleaner = Cleaner::default();
        let parts: [&[u8]; 4] = [b"a\x1b[", b"6nb\r\n", b"\xc3", b"\xa9\xff"];
        let text: String = parts.iter().map(|part| cleaner.clean(part)).collect();
        assert_eq!(text, "ab\n\u{e9}\u{fffd}");
    }
}
