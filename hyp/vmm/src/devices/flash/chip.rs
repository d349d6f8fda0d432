//! One chip: which command it is at, what it shows, and what has gone wrong since that was last cleared.
//!
//! The commands are those of Intel's StrataFlash memory (28F128J3, P30) that don't need time to pass: none is ever suspended.

use super::query;
use super::{BUFFER, SECTOR, WORD};

/// Words of a sector.
const SECTOR_WORDS: u32 = SECTOR / WORD;

/// Commands, in the low byte of a store: their first cycle.
mod command {
    pub(super) const PROGRAM_OTHER: u8 = 0x10;
    pub(super) const ERASE: u8 = 0x20;
    pub(super) const PROGRAM: u8 = 0x40;
    pub(super) const CLEAR_STATUS: u8 = 0x50;
    pub(super) const LOCK: u8 = 0x60;
    pub(super) const READ_STATUS: u8 = 0x70;
    pub(super) const READ_IDENTITY: u8 = 0x90;
    pub(super) const READ_QUERY: u8 = 0x98;
    pub(super) const SUSPEND: u8 = 0xb0;
    pub(super) const RESUME: u8 = 0xd0;
    pub(super) const PROGRAM_BUFFER: u8 = 0xe8;
}

/// The second cycle of what changes something.
const CONFIRM: u8 = 0xd0;
/// Second cycles of LOCK: unlock, lock, lock down, and a setting of the bus.
const LOCKS: [u8; 4] = [CONFIRM, 0x01, 0x2f, 0x03];

/// Bits of the status register.
mod status {
    pub(super) const LOCKED: u8 = 1 << 1;
    pub(super) const PROGRAM: u8 = 1 << 4;
    pub(super) const ERASE: u8 = 1 << 5;
    pub(super) const READY: u8 = 1 << 7;
    /// The wrong second cycle.
    pub(super) const SEQUENCE: u8 = PROGRAM | ERASE;
}

/// Intel, and the 28F128J3: what QEMU's `virt` says.
const MANUFACTURER: u16 = 0x89;
const DEVICE: u16 = 0x18;

/// What loads show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    Cells,
    Status,
    Identity,
    Query,
}

/// What the next store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Command,
    /// The word to program.
    Word,
    /// The confirmation that this sector is to be erased.
    EraseOf(u32),
    /// What LOCK is to do.
    Lock,
    /// How many words will follow for the buffer.
    Count,
    /// So many more words for the buffer.
    Words(u16),
    /// The confirmation that the buffer is to be programmed.
    Buffered,
}

/// The buffer of words to program.
#[derive(Clone, Debug)]
struct Buffer {
    words: [u16; BUFFER],
    /// How many of them there will be.
    count: u16,
    /// Where they go, from the first word on that was stored.
    start: Option<u32>,
    /// Something was stored elsewhere.
    stray: bool,
    /// They go where nothing can be written.
    locked: bool,
}

impl Buffer {
    const EMPTY: Self = Self { words: [0; BUFFER], count: 0, start: None, stray: false, locked: false };

    /// Takes a word. Those that don't come stay ones, which change nothing.
    fn put(&mut self, at: u32, data: u16, locked: bool) {
        let start = *self.start.get_or_insert(at);
        let place = at.checked_sub(start).filter(|place| *place < self.count.into());
        match place.and_then(|place| self.words.get_mut(place as usize)) {
            Some(word) if sector(at) == sector(start) => *word = data,
            _ => self.stray = true,
        }
        self.locked |= locked;
    }
}

/// What is left to do after a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// The sector is to be erased.
    Erase,
}

/// A chip's state.
#[derive(Clone, Debug)]
pub(super) struct Chip {
    shows: Shows,
    awaits: Awaits,
    errors: u8,
    buffer: Buffer,
}

impl Chip {
    /// After power-up.
    pub(super) const NEW: Self =
        Self { shows: Shows::Cells, awaits: Awaits::Command, errors: 0, buffer: Buffer::EMPTY };

    /// Loads show what it holds.
    pub(super) fn shows_cells(&self) -> bool {
        self.shows == Shows::Cells
    }

    /// What a load of the word `at` gives, in a sector that is `locked` or not; `None`: what the chip holds there.
    pub(super) fn read(&self, at: u32, locked: bool) -> Option<u16> {
        let number = at & (SECTOR_WORDS - 1);
        match self.shows {
            Shows::Cells => None,
            Shows::Status => Some((status::READY | self.errors).into()),
            Shows::Identity => Some(match number {
                0 => MANUFACTURER,
                1 => DEVICE,
                2 => locked.into(),
                _ => 0,
            }),
            Shows::Query => Some(query::answer(number)),
        }
    }

    /// A store to the word `at`. `program` programs words from there on, which can't fail but by a fault of the caller's.
    pub(super) fn write(
        &mut self,
        at: u32,
        data: u16,
        locked: bool,
        program: impl FnOnce(u32, &[u16]) -> bool,
    ) -> Next {
        let [low, _] = data.to_le_bytes();
        match core::mem::replace(&mut self.awaits, Awaits::Command) {
            Awaits::Command => self.begin(low, at),
            Awaits::Word => self.program(locked, |_| program(at, &[data])),
            Awaits::EraseOf(begun) if low == CONFIRM && begun == sector(at) => {
                if !locked {
                    return Next::Erase;
                }
                self.errors |= status::ERASE | status::LOCKED;
            }
            Awaits::Lock if LOCKS.contains(&low) => {}
            // One less than there are.
            Awaits::Count if usize::from(data) < BUFFER => {
                self.buffer =
                    Buffer { count: data.saturating_add(1), words: [u16::MAX; BUFFER], ..Buffer::EMPTY };
                self.awaits = Awaits::Words(self.buffer.count);
            }
            Awaits::Words(left) => {
                self.buffer.put(at, data, locked);
                let left = left.saturating_sub(1);
                self.awaits = if left == 0 { Awaits::Buffered } else { Awaits::Words(left) };
            }
            Awaits::Buffered if low == CONFIRM && !self.buffer.stray => {
                self.program(self.buffer.locked, |buffer| {
                    let words = buffer.words.get(..buffer.count.into());
                    buffer.start.zip(words).is_some_and(|(start, words)| program(start, words))
                });
            }
            Awaits::EraseOf(_) | Awaits::Lock | Awaits::Count | Awaits::Buffered => {
                self.errors |= status::SEQUENCE;
            }
        }
        Next::Nothing
    }

    /// The first cycle of a command.
    fn begin(&mut self, command: u8, at: u32) {
        (self.shows, self.awaits) = match command {
            command::PROGRAM | command::PROGRAM_OTHER => (Shows::Status, Awaits::Word),
            command::ERASE => (Shows::Status, Awaits::EraseOf(sector(at))),
            command::LOCK => (Shows::Status, Awaits::Lock),
            command::PROGRAM_BUFFER => (Shows::Status, Awaits::Count),
            command::READ_STATUS => (Shows::Status, Awaits::Command),
            command::READ_IDENTITY => (Shows::Identity, Awaits::Command),
            command::READ_QUERY => (Shows::Query, Awaits::Command),
            // There is never anything to suspend or to resume.
            command::SUSPEND | command::RESUME => return,
            command::CLEAR_STATUS => {
                self.errors = 0;
                (Shows::Cells, Awaits::Command)
            }
            // READ ARRAY, 0xff, and what is no command.
            _ => (Shows::Cells, Awaits::Command),
        };
    }

    /// Programs something, or notes why not.
    fn program(&mut self, locked: bool, program: impl FnOnce(&Buffer) -> bool) {
        if locked {
            self.errors |= status::PROGRAM | status::LOCKED;
        } else if !program(&self.buffer) {
            self.errors |= status::PROGRAM;
        }
    }
}

/// The number of the sector that a word is in.
const fn sector(at: u32) -> u32 {
    at / SECTOR_WORDS
}
