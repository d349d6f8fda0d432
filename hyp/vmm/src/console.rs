//! The board's one console, which all VMs share: the keys that say whose input it is, and what is kept of each VM's output.
//!
//! What a VM out of focus says is text and colours, nothing that moves the cursor, clears the screen or asks the terminal
//! something: that is for the VM in focus alone.
//!
//! Ctrl-T is the key that begins a command; all else goes to the VM in focus. What a command comes to, and where bytes
//! come from and go to, is the caller's.

/// The byte that begins a command, Ctrl-T. Twice, it goes to the VM once.
pub const ESCAPE: u8 = 0x14;

/// What can be typed after [`ESCAPE`], for people.
pub const HELP: &str =
    "Ctrl-T n: next VM, p: previous, 1-9: by number, l: list, r: last lines again, Ctrl-T: itself";

/// A command to the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The next VM gets the focus; after the last one, the first.
    Next,
    /// The one before; before the first one, the last.
    Previous,
    /// The VM of this number, counted from 0 in the order of the manifest.
    Select(usize),
    /// Which VMs there are.
    List,
    /// What the VM in focus said last is shown again.
    Replay,
    /// What can be typed; also after a key that means nothing.
    Help,
}

impl Command {
    /// Which of `count` VMs has the focus after it, if `focus` had it. A number that no VM has changes nothing.
    pub const fn focus(self, focus: usize, count: usize) -> usize {
        let next = focus.wrapping_add(1);
        match self {
            Self::Next if next < count => next,
            Self::Next => 0,
            Self::Previous if focus > 0 => focus.wrapping_sub(1),
            Self::Previous => count.saturating_sub(1),
            Self::Select(number) if number < count => number,
            Self::Select(_) | Self::List | Self::Replay | Self::Help => focus,
        }
    }
}

/// What a byte from the board's console is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Input of the VM in focus.
    Input(u8),
    /// A command.
    Command(Command),
    /// The beginning of a command.
    Begun,
}

/// Tells commands from input, byte by byte.
#[derive(Debug, Default)]
pub struct Keys {
    begun: bool,
}

impl Keys {
    /// Nothing has been typed.
    pub const fn new() -> Self {
        Self { begun: false }
    }

    /// What the next byte is.
    pub const fn take(&mut self, byte: u8) -> Key {
        if !self.begun {
            self.begun = byte == ESCAPE;
            return if self.begun { Key::Begun } else { Key::Input(byte) };
        }
        self.begun = false;
        Key::Command(match byte {
            ESCAPE => return Key::Input(ESCAPE),
            b'n' | b'N' => Command::Next,
            b'p' | b'P' => Command::Previous,
            digit @ b'1'..=b'9' => Command::Select(digit.wrapping_sub(b'1') as usize),
            b'l' | b'L' => Command::List,
            b'r' | b'R' => Command::Replay,
            _ => Command::Help,
        })
    }
}

/// A line as far as it has come: text and colours (SGR), of at most `N` bytes. Other control sequences (ECMA-48, 5.4) and
/// characters are left out; a backspace takes a character away.
#[derive(Debug)]
pub struct Line<const N: usize> {
    bytes: [u8; N],
    length: usize,
    /// A control sequence as far as it has come.
    sequence: [u8; SEQUENCE],
    sequence_length: usize,
    coloured: bool,
}

/// Bytes of a control sequence that are kept until it is whole: two colours, `ESC [ 38;2;255;255;255;48;2;255;255;255 m`, and
/// some room.
pub const SEQUENCE: usize = 48;

/// What one more byte made of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Open,
    /// It has no room for more.
    Full,
    /// It has ended.
    Ended,
}

const BACKSPACE: u8 = 8;
const ESC: u8 = 0x1b;

impl<const N: usize> Line<N> {
    /// A line without a character.
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0, sequence: [0; SEQUENCE], sequence_length: 0, coloured: false }
    }

    /// What has come of it.
    pub fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&[])
    }

    /// Whether a colour was set in it, so that it has to be reset at its end.
    pub const fn is_coloured(&self) -> bool {
        self.coloured
    }

    /// The control sequence that is under way, as far as it has come; nothing if it is too long to be kept.
    pub fn unfinished(&self) -> &[u8] {
        self.sequence.get(..self.sequence_length).unwrap_or(&[])
    }

    /// Begins anew. A control sequence that is under way goes on.
    pub const fn clear(&mut self) {
        self.length = 0;
        self.coloured = false;
    }

    /// One more byte.
    pub fn push(&mut self, byte: u8) -> Progress {
        if self.sequence_length > 0 {
            return self.push_sequence(byte);
        }
        match byte {
            b'\n' => return Progress::Ended,
            ESC => self.begin_sequence(),
            BACKSPACE => self.pop(),
            b'\t' | 0x20..=0x7e | 0x80.. => self.append(&[byte]),
            _ => {}
        }
        self.progress()
    }

    const fn progress(&self) -> Progress {
        if self.length < N { Progress::Open } else { Progress::Full }
    }

    fn append(&mut self, bytes: &[u8]) {
        let rest = self.bytes.get_mut(self.length..);
        if let Some(room) = rest.and_then(|rest| rest.get_mut(..bytes.len())) {
            room.copy_from_slice(bytes);
            self.length = self.length.saturating_add(bytes.len());
        }
    }

    /// Takes the last character away, in UTF-8 all of it.
    fn pop(&mut self) {
        while let Some(last) = self.length.checked_sub(1) {
            self.length = last;
            if self.bytes.get(last).is_none_or(|byte| byte & 0xc0 != 0x80) {
                return;
            }
        }
    }

    fn begin_sequence(&mut self) {
        self.sequence_length = 0;
        self.add_to_sequence(ESC);
    }

    /// What doesn't fit is counted all the same, so that it is known not to be whole.
    fn add_to_sequence(&mut self, byte: u8) {
        if let Some(slot) = self.sequence.get_mut(self.sequence_length) {
            *slot = byte;
        }
        self.sequence_length = self.sequence_length.saturating_add(1);
    }

    fn push_sequence(&mut self, byte: u8) -> Progress {
        // Behind the first byte: none, parameters of a control sequence, or other intermediate bytes.
        let second = self.sequence.get(1).filter(|_| self.sequence_length > 1).copied();
        let has_parameters = second == Some(b'[');
        match byte {
            b'\n' => {
                self.sequence_length = 0;
                return Progress::Ended;
            }
            ESC => self.begin_sequence(),
            b'[' if second.is_none() => self.add_to_sequence(byte),
            0x20..=0x2f => self.add_to_sequence(byte),
            0x30..=0x3f if has_parameters => self.add_to_sequence(byte),
            b'm' if has_parameters => {
                self.add_to_sequence(byte);
                let sequence = self.sequence;
                if let Some(whole) = sequence.get(..self.sequence_length) {
                    self.coloured = true;
                    self.append(whole);
                }
                self.sequence_length = 0;
            }
            _ => self.sequence_length = 0,
        }
        self.progress()
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether the line of the VM in focus has come to a carriage return. The line feed behind it may come late, and others may
/// have broken in meanwhile: they then ended the line in its stead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Return {
    /// The last byte was none.
    #[default]
    None,
    /// It was one: the line is whole, or is about to be written over.
    Came,
    /// Others broke in, and ended the line: its own line feed would be one too many.
    Given,
}

impl Return {
    /// One more byte. Whether it is to be shown.
    pub const fn take(&mut self, byte: u8) -> bool {
        let is_given = matches!(self, Self::Given);
        let is_return = byte == b'\r';
        if !(is_given && is_return) {
            *self = if is_return { Self::Came } else { Self::None };
        }
        !(is_given && (is_return || byte == b'\n'))
    }

    /// Others break in. Whether they are to leave the line there and end it, instead of taking its place.
    pub const fn break_in(&mut self) -> bool {
        let is_whole = matches!(self, Self::Came);
        if is_whole {
            *self = Self::Given;
        }
        is_whole
    }
}

/// The next piece of what the VM in focus says: hands what is to be shown of it to `put`, bit by bit.
///
/// A control sequence is held back until it is whole: what others say goes out between two pieces, and would become part of
/// it. What is held back is what `line` has unfinished, [`SEQUENCE`] bytes at most. One that is given up half-way isn't shown.
pub fn show<const N: usize>(
    line: &mut Line<N>,
    returned: &mut Return,
    said: &[u8],
    mut put: impl FnMut(&[u8]),
) {
    for &byte in said {
        if !returned.take(byte) {
            continue;
        }
        let held = line.unfinished().len();
        // What is written over is not said again, and of a line that is too long, only the end.
        if line.push(byte) != Progress::Open || byte == b'\r' {
            line.clear();
        }
        if !line.unfinished().is_empty() {
            continue;
        }
        let is_given_up = byte < b' ';
        if !is_given_up {
            put(line.sequence.get(..held).unwrap_or(&[]));
        }
        put(&[byte]);
    }
}

/// The last `N` bytes that a VM said, `N` a power of two.
#[derive(Debug)]
pub struct History<const N: usize> {
    bytes: [u8; N],
    /// Bytes ever said.
    said: usize,
}

impl<const N: usize> History<N> {
    const MASK: usize = {
        assert!(N.is_power_of_two());
        N - 1
    };

    /// Nothing said.
    pub const fn new() -> Self {
        Self { bytes: [0; N], said: 0 }
    }

    /// One more byte; the oldest one goes where there is no room.
    pub fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.said & Self::MASK) {
            *slot = byte;
        }
        self.said = self.said.wrapping_add(1);
    }

    /// Bytes ever said: where the next one will be.
    pub const fn end(&self) -> usize {
        self.said
    }

    /// The place of the first byte that is kept of a whole line: behind the first line's end, where bytes are missing
    /// before it.
    pub fn start(&self) -> usize {
        let kept = self.said.min(N);
        let oldest = self.said.wrapping_sub(kept);
        if oldest == 0 {
            return 0;
        }
        let places = (0..kept).map(|n| oldest.wrapping_add(n));
        let mut ends = places.filter(|&place| self.get(place) == Some(b'\n'));
        ends.next().map_or(self.said, |place| place.wrapping_add(1))
    }

    /// The byte at a place, if it is kept.
    pub fn get(&self, place: usize) -> Option<u8> {
        let age = self.said.wrapping_sub(place);
        if age == 0 || age > self.said.min(N) {
            return None;
        }
        self.bytes.get(place & Self::MASK).copied()
    }
}

impl<const N: usize> Default for History<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The colour of a VM's name, by its number: the SGR parameter of ECMA-48, one of six that are readable on dark and on
/// light ground.
pub const fn colour(vm: usize) -> u8 {
    match vm % 6 {
        0 => 32,
        1 => 36,
        2 => 35,
        3 => 33,
        4 => 34,
        _ => 31,
    }
}
