//! The editor: keys change the line, and the terminal is brought to show it.
//!
//! Only what changed is printed. Where the cursor goes is always said by its column, never relative to where it was, and
//! what is to be replaced is taken back by backspaces first. So whoever keeps a copy of the terminal's row from what is
//! printed there (as Hanok's console does, to begin a line again that something broke into) needs to understand no more
//! than characters and backspaces, and after such a break the next key puts the cursor right.

use core::fmt::{self, Write};

use crate::history::History;
use crate::keys::{Decoder, Key};
use crate::line::Line;

/// What the line came to.
#[derive(Clone, Copy, Debug)]
pub enum Event<const N: usize> {
    /// It was entered. A new one begins with [`Editor::begin`].
    Line(Line<N>),
    /// It was dropped (Ctrl-C). A new one begins with [`Editor::begin`].
    Dropped,
    /// Somebody who knows how should complete what is [before the cursor](Editor::before_cursor).
    Complete,
}

/// A line of `N` characters at most, behind a prompt. Prompt and line must fit into a row of the terminal.
pub struct Editor<const N: usize> {
    prompt: &'static str,
    line: Line<N>,
    cursor: usize,
    decoder: Decoder,
    history: History<N>,
}

impl<const N: usize> Editor<N> {
    /// With this prompt, printable ASCII.
    pub const fn new(prompt: &'static str) -> Self {
        Self { prompt, line: Line::new(), cursor: 0, decoder: Decoder::new(), history: History::new() }
    }

    /// What has been typed.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The part of it before the cursor.
    pub fn before_cursor(&self) -> &str {
        self.line.get(..self.cursor).unwrap_or("")
    }

    /// Begins a line, where the terminal's cursor is at a row's start.
    pub fn begin(&mut self, out: &mut impl Write) -> fmt::Result {
        self.line = Line::new();
        self.cursor = 0;
        self.history.leave();
        self.show(out)
    }

    /// Shows prompt and line, as they are, where the terminal's cursor is at a row's start.
    pub fn show(&self, out: &mut impl Write) -> fmt::Result {
        out.write_str(self.prompt)?;
        out.write_str(&self.line)?;
        if self.cursor < self.line.len() { self.place(out, self.cursor) } else { Ok(()) }
    }

    /// Takes a byte in and prints what it changes. At the end of a line the terminal's cursor goes to the next row's start.
    pub fn take(&mut self, byte: u8, out: &mut impl Write) -> Result<Option<Event<N>>, fmt::Error> {
        let Some(key) = self.decoder.take(byte) else { return Ok(None) };
        match key {
            Key::Character(character) => self.insert(core::slice::from_ref(&character), out)?,
            Key::Enter => {
                self.leave(out, "\n")?;
                self.history.push(&self.line);
                return Ok(Some(Event::Line(self.line)));
            }
            Key::Interrupt => {
                self.leave(out, "^C\n")?;
                return Ok(Some(Event::Dropped));
            }
            Key::Tab => return Ok(Some(Event::Complete)),
            Key::ClearScreen => {
                out.write_str("\x1b[H\x1b[2J")?;
                self.show(out)?;
            }
            Key::Left => self.move_to(self.cursor.saturating_sub(1), out)?,
            Key::Right => self.move_to((self.cursor + 1).min(self.line.len()), out)?,
            Key::Home => self.move_to(0, out)?,
            Key::End => self.move_to(self.line.len(), out)?,
            Key::Backspace => self.remove(self.cursor.saturating_sub(1), self.cursor, out)?,
            Key::Delete => self.remove(self.cursor, self.cursor + 1, out)?,
            Key::KillToStart => self.remove(0, self.cursor, out)?,
            Key::KillToEnd => self.remove(self.cursor, self.line.len(), out)?,
            Key::KillWord => self.remove(self.word_start(), self.cursor, out)?,
            Key::Up => {
                let older = self.history.older(&self.line);
                self.replace(older, out)?;
            }
            Key::Down => {
                let newer = self.history.newer();
                self.replace(newer, out)?;
            }
        }
        Ok(None)
    }

    /// Inserts text at the cursor, as if it had been typed; what isn't printable ASCII, or has no room, is refused.
    pub fn insert(&mut self, text: &[u8], out: &mut impl Write) -> fmt::Result {
        let mut changed = self.line;
        let mut cursor = self.cursor;
        for character in text {
            if !changed.insert(cursor, *character) {
                out.write_char(BELL)?;
                break;
            }
            cursor += 1;
        }
        self.change(changed, self.cursor, cursor, out)
    }

    /// Takes characters away, the first one of which is where the cursor is then.
    fn remove(&mut self, from: usize, to: usize, out: &mut impl Write) -> fmt::Result {
        let mut changed = self.line;
        changed.remove(from, to);
        self.change(changed, from, from, out)
    }

    /// Has another line in place of this one, or rings the bell where there is none.
    fn replace(&mut self, other: Option<Line<N>>, out: &mut impl Write) -> fmt::Result {
        match other {
            Some(other) => self.change(other, 0, other.len(), out),
            None => out.write_char(BELL),
        }
    }

    /// Makes the line another one, which is the same before `from`.
    fn change(&mut self, changed: Line<N>, from: usize, cursor: usize, out: &mut impl Write) -> fmt::Result {
        let same = *changed == *self.line;
        if !same {
            let old = self.line.len();
            if self.cursor < old {
                self.place(out, old)?;
            }
            for _ in from..old {
                out.write_char('\x08')?;
            }
            out.write_str(changed.get(from..).unwrap_or(""))?;
            // Whatever is left of the old line; where nothing can be, nothing is printed.
            if changed.len() < old {
                out.write_str("\x1b[K")?;
            }
            self.line = changed;
        }
        let shown = if same { self.cursor } else { self.line.len() };
        self.cursor = cursor;
        if cursor == shown { Ok(()) } else { self.place(out, cursor) }
    }

    /// Where the word before the cursor begins.
    fn word_start(&self) -> usize {
        let before = self.before_cursor().trim_end();
        before.rfind(' ').map_or(0, |space| space + 1)
    }

    fn move_to(&mut self, cursor: usize, out: &mut impl Write) -> fmt::Result {
        self.cursor = cursor;
        self.place(out, cursor)
    }

    /// Puts the terminal's cursor on the line's character of this number (ECMA-48, CHA).
    fn place(&self, out: &mut impl Write, cursor: usize) -> fmt::Result {
        write!(out, "\x1b[{}G", self.prompt.len() + cursor + 1)
    }

    /// Leaves the line behind, as it is.
    fn leave(&mut self, out: &mut impl Write, last: &str) -> fmt::Result {
        if self.cursor < self.line.len() {
            self.place(out, self.line.len())?;
        }
        out.write_str(last)
    }
}

const BELL: char = '\x07';
