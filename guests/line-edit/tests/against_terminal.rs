//! The editor against a model of what is typed and a model of the terminal that shows it: the row is the prompt and the line,
//! and the cursor is where it should be, after every byte.

use line_edit::{Editor, Event};
use proptest::collection::vec;
use proptest::prelude::*;

const PROMPT: &str = "monitor> ";
const ROOM: usize = 20;
const COLUMNS: usize = 80;

/// The row of a terminal that the cursor is in, by what ECMA-48 says of the few sequences that it knows.
#[derive(Default)]
struct Terminal {
    row: String,
    column: usize,
    /// What somebody has who understands characters and backspaces alone, and appends: Hanok's console.
    copy: String,
    bells: usize,
}

impl Terminal {
    fn print(&mut self, text: &str) {
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '\n' => *self = Self { bells: self.bells, ..Self::default() },
                '\x08' => {
                    self.column = self.column.checked_sub(1).expect("a backspace at the row's start");
                    self.copy.pop();
                }
                '\x07' => self.bells += 1,
                '\x1b' => self.sequence(&mut rest),
                ' '..='~' => {
                    self.row.truncate(self.row.len().max(self.column));
                    self.row.replace_range(self.column..self.row.len().min(self.column + 1), "");
                    self.row.insert(self.column, character);
                    self.column += 1;
                    assert!(self.column < COLUMNS, "the row wraps");
                    self.copy.push(character);
                }
                other => panic!("{other:?} is printed"),
            }
        }
    }

    fn sequence(&mut self, rest: &mut std::str::Chars) {
        assert_eq!(rest.next(), Some('['));
        let mut parameter = String::new();
        let last = loop {
            match rest.next().expect("a whole sequence") {
                digit @ '0'..='9' => parameter.push(digit),
                last => break last,
            }
        };
        match (last, parameter.as_str()) {
            ('K', "") => self.row.truncate(self.column),
            ('G', column) => {
                self.column = column.parse::<usize>().expect("a column") - 1;
                assert!(self.column <= self.row.len(), "the cursor is behind the row's end");
            }
            ('H', "") => {}
            // The copy is begun again as well by whoever sees this; Hanok's isn't, and the prompt is there twice then.
            ('J', "2") => *self = Self { bells: self.bells, ..Self::default() },
            other => panic!("{other:?} is printed"),
        }
    }

    /// Something else is printed in between, and the row is begun again from the copy.
    fn interrupt(&mut self) {
        self.row = self.copy.clone();
        self.column = self.row.len();
    }
}

/// What is typed.
#[derive(Clone, Debug)]
enum Typed {
    Text(u8),
    Enter,
    Backspace,
    Delete,
    Left,
    Right,
    Home,
    End,
    Up,
    Down,
    KillToEnd,
    KillToStart,
    KillWord,
    Drop,
    Clear,
}

impl Typed {
    /// The ways in which terminals send it.
    fn bytes(&self) -> Vec<&'static [u8]> {
        match self {
            Self::Text(_) => vec![],
            Self::Enter => vec![b"\r", b"\r\n", b"\x1bOM"],
            Self::Backspace => vec![b"\x7f", b"\x08"],
            Self::Delete => vec![b"\x1b[3~", b"\x04"],
            Self::Left => vec![b"\x1b[D", b"\x1bOD", b"\x02", b"\x1b[1;2D"],
            Self::Right => vec![b"\x1b[C", b"\x1bOC", b"\x06"],
            Self::Home => vec![b"\x1b[H", b"\x1bOH", b"\x1b[1~", b"\x01"],
            Self::End => vec![b"\x1b[F", b"\x1bOF", b"\x1b[4~", b"\x05"],
            Self::Up => vec![b"\x1b[A", b"\x1bOA", b"\x10"],
            Self::Down => vec![b"\x1b[B", b"\x1bOB", b"\x0e"],
            Self::KillToEnd => vec![b"\x0b"],
            Self::KillToStart => vec![b"\x15"],
            Self::KillWord => vec![b"\x17"],
            Self::Drop => vec![b"\x03"],
            Self::Clear => vec![b"\x0c"],
        }
    }
}

fn typed() -> impl Strategy<Value = Typed> {
    prop_oneof![
        8 => prop_oneof![Just(b' '), b'!'..=b'~'].prop_map(Typed::Text),
        1 => Just(Typed::Enter),
        2 => Just(Typed::Backspace),
        1 => Just(Typed::Delete),
        3 => Just(Typed::Left),
        1 => Just(Typed::Right),
        1 => Just(Typed::Home),
        1 => Just(Typed::End),
        2 => Just(Typed::Up),
        2 => Just(Typed::Down),
        1 => Just(Typed::KillToEnd),
        1 => Just(Typed::KillToStart),
        1 => Just(Typed::KillWord),
        1 => Just(Typed::Drop),
        1 => Just(Typed::Clear),
    ]
}

/// A line editor as one would explain it: a vector before the cursor, one behind it, and all lines ever entered.
#[derive(Default)]
struct Model {
    before: Vec<u8>,
    after: Vec<u8>,
    entered: Vec<Vec<u8>>,
    looked_at: usize,
    draft: Vec<u8>,
}

impl Model {
    fn whole(&self) -> Vec<u8> {
        [self.before.as_slice(), &self.after].concat()
    }

    fn set(&mut self, line: Vec<u8>) {
        self.before = line;
        self.after.clear();
    }

    fn look_at(&mut self, age: usize) {
        if age == 0 {
            self.set(self.draft.clone());
        } else {
            self.set(self.entered[self.entered.len() - age].clone());
        }
        self.looked_at = age;
    }

    fn take(&mut self, typed: &Typed) {
        match typed {
            Typed::Text(character) if self.whole().len() < ROOM => self.before.push(*character),
            Typed::Text(_) | Typed::Clear => {}
            Typed::Backspace => drop(self.before.pop()),
            Typed::Delete => drop((!self.after.is_empty()).then(|| self.after.remove(0))),
            Typed::Left => self.after.splice(..0, self.before.pop()).for_each(drop),
            Typed::Right if !self.after.is_empty() => self.before.push(self.after.remove(0)),
            Typed::Right => {}
            Typed::Home => self.after.splice(..0, self.before.drain(..)).for_each(drop),
            Typed::End => self.before.append(&mut self.after),
            Typed::KillToEnd => self.after.clear(),
            Typed::KillToStart => self.before.clear(),
            Typed::KillWord => {
                while self.before.last() == Some(&b' ') {
                    self.before.pop();
                }
                while self.before.last().is_some_and(|last| *last != b' ') {
                    self.before.pop();
                }
            }
            Typed::Up if self.looked_at < self.entered.len().min(16) => {
                if self.looked_at == 0 {
                    self.draft = self.whole();
                }
                self.look_at(self.looked_at + 1);
            }
            Typed::Down if self.looked_at > 0 => self.look_at(self.looked_at - 1),
            Typed::Up | Typed::Down => {}
            Typed::Enter | Typed::Drop => {
                let line = self.whole();
                let blank = line.iter().all(|character| *character == b' ');
                if matches!(typed, Typed::Enter) && !blank && self.entered.last() != Some(&line) {
                    self.entered.push(line);
                }
                self.set(Vec::new());
                self.looked_at = 0;
            }
        }
    }
}

/// An editor and the terminal that it prints to.
struct Session {
    editor: Editor<ROOM>,
    terminal: Terminal,
}

impl Session {
    fn new() -> Self {
        let mut session = Self { editor: Editor::new(PROMPT), terminal: Terminal::default() };
        session.begin();
        session
    }

    fn begin(&mut self) {
        let mut out = String::new();
        self.editor.begin(&mut out).expect("strings have room");
        self.terminal.print(&out);
    }

    /// Types a byte; the line that it ends.
    fn take(&mut self, byte: u8) -> Option<String> {
        let mut out = String::new();
        let event = self.editor.take(byte, &mut out).expect("strings have room");
        self.terminal.print(&out);
        match event {
            Some(Event::Line(line)) => {
                assert!(self.terminal.row.is_empty(), "the line is left behind");
                self.begin();
                Some(line.to_string())
            }
            Some(Event::Dropped) => {
                self.begin();
                None
            }
            Some(Event::Complete) | None => None,
        }
    }

    fn is_shown(&self) {
        let wanted = format!("{PROMPT}{}", self.editor.line());
        assert_eq!(self.terminal.row, wanted, "the terminal's row");
        assert_eq!(self.terminal.copy, wanted, "the copy of who understands little");
        let column = PROMPT.len() + self.editor.before_cursor().len();
        assert_eq!(self.terminal.column, column, "the cursor");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

    #[test]
    fn keys_do_what_they_should(keys in vec((typed(), any::<u8>()), 0..120)) {
        let mut session = Session::new();
        let mut model = Model::default();
        for (key, way) in keys {
            let ways = key.bytes();
            let text;
            let bytes = match key {
                Typed::Text(character) => {
                    text = [character];
                    text.as_slice()
                }
                _ => ways[way as usize % ways.len()],
            };
            let before = model.whole();
            let mut entered = None;
            for byte in bytes {
                entered = entered.or(session.take(*byte));
                session.is_shown();
            }
            let wanted = matches!(key, Typed::Enter).then(|| String::from_utf8(before).expect("ASCII"));
            prop_assert_eq!(entered, wanted);
            model.take(&key);
            prop_assert_eq!(session.editor.line().as_bytes(), model.whole());
            prop_assert_eq!(session.editor.before_cursor().as_bytes(), &model.before);
        }
    }

    #[test]
    fn any_bytes_leave_the_terminal_as_it_should_be(bytes in vec(any::<u8>(), 0..400)) {
        let mut session = Session::new();
        for byte in bytes {
            session.take(byte);
            session.is_shown();
        }
    }

    /// The same, of the bytes that matter most.
    #[test]
    fn any_sequences_leave_the_terminal_as_it_should_be(
        bytes in vec(prop::sample::select(b"\x1b[O;0134ABCDFH~ab \x7f\x15\x17\x0b\x0c\r\t\x03".to_vec()), 0..400),
    ) {
        let mut session = Session::new();
        for byte in bytes {
            session.take(byte);
            session.is_shown();
        }
    }

    /// Whatever breaks into the line: the next character that is typed puts all right.
    #[test]
    fn a_break_is_healed_by_the_next_key(keys in vec((typed(), any::<bool>()), 0..120)) {
        let mut session = Session::new();
        for (key, broken) in keys {
            if broken {
                session.terminal.interrupt();
            }
            match key {
                Typed::Text(character) => drop(session.take(character)),
                _ => key.bytes()[0].iter().for_each(|byte| drop(session.take(*byte))),
            }
            let wanted = format!("{PROMPT}{}", session.editor.line());
            prop_assert_eq!(&session.terminal.row, &wanted);
        }
    }
}

#[test]
fn a_full_line_rings_the_bell() {
    let mut session = Session::new();
    for _ in 0..ROOM {
        session.take(b'x');
    }
    assert_eq!(session.terminal.bells, 0);
    session.take(b'y');
    session.is_shown();
    assert_eq!((session.terminal.bells, session.editor.line()), (1, "x".repeat(ROOM).as_str()));
}

#[test]
fn a_completion_is_inserted_at_the_cursor() {
    let mut session = Session::new();
    for byte in b"sta x\x1b[D\x1b[D" {
        session.take(*byte);
    }
    let mut out = String::new();
    session.editor.insert(b"rt", &mut out).expect("strings have room");
    session.terminal.print(&out);
    session.is_shown();
    assert_eq!((session.editor.line(), session.editor.before_cursor()), ("start x", "start"));
}

#[test]
fn sixteen_lines_are_kept() {
    let mut session = Session::new();
    for n in 0..20 {
        for byte in format!("line {n}\r").bytes() {
            session.take(byte);
        }
    }
    for n in (4..20).rev() {
        session.take(0x10);
        assert_eq!(session.editor.line(), format!("line {n}"));
    }
    session.take(0x10);
    assert_eq!((session.editor.line(), session.terminal.bells), ("line 4", 1));
}
