//! Bytes that a terminal sends, as keys (ECMA-48, 5.4; xterm's "Control Sequences", the parts on function keys).

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character.
    Character(u8),
    /// Enter.
    Enter,
    /// The character before the cursor goes.
    Backspace,
    /// The character under the cursor goes: Delete, Ctrl-D.
    Delete,
    /// Left, Ctrl-B.
    Left,
    /// Right, Ctrl-F.
    Right,
    /// Home, Ctrl-A.
    Home,
    /// End, Ctrl-E.
    End,
    /// Up, Ctrl-P.
    Up,
    /// Down, Ctrl-N.
    Down,
    /// Tab.
    Tab,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-K: all from the cursor on goes.
    KillToEnd,
    /// Ctrl-L.
    ClearScreen,
    /// Ctrl-U: all before the cursor goes.
    KillToStart,
    /// Ctrl-W: the word before the cursor goes.
    KillWord,
}

const ESC: u8 = 0x1b;

/// Makes keys of bytes.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    place: Place,
    /// The last byte was a carriage return: a line feed behind it is part of the same Enter.
    returned: bool,
}

#[derive(Clone, Copy, Debug, Default)]
enum Place {
    #[default]
    Ground,
    /// Behind ESC.
    Escape,
    /// In a control sequence, behind ESC and `[` or `O`.
    Sequence(Parameter),
    /// Behind `ESC [ [`: the Linux console's function keys have one more byte.
    LinuxFunction,
}

/// The first parameter of a control sequence.
#[derive(Clone, Copy, Debug)]
enum Parameter {
    /// Its digits go on.
    Number(u16),
    /// It is complete.
    Complete(u16),
    /// This is no sequence that a key sends.
    Strange,
}

impl Decoder {
    /// At rest.
    pub const fn new() -> Self {
        Self { place: Place::Ground, returned: false }
    }

    /// The key that the byte completes. Bytes that make no known key come to nothing.
    pub fn take(&mut self, byte: u8) -> Option<Key> {
        let returned = core::mem::replace(&mut self.returned, byte == b'\r');
        let place = core::mem::take(&mut self.place);
        match (place, byte) {
            (_, ESC) => {
                self.place = Place::Escape;
                None
            }
            (_, b'\n') if returned => None,
            // What no sequence contains breaks it off, and is what it is: a lost or late byte spoils no more than that.
            (_, 0..=0x1f | 0x7f..) | (Place::Ground, _) => plain(byte),
            (Place::Escape, b'[' | b'O') => {
                self.place = Place::Sequence(Parameter::Number(0));
                None
            }
            (Place::Sequence(parameter), _) => self.sequence(parameter, byte),
            (Place::Escape | Place::LinuxFunction, _) => None,
        }
    }

    /// One more byte of a control sequence, a printable one.
    fn sequence(&mut self, parameter: Parameter, byte: u8) -> Option<Key> {
        let next = match (byte, parameter) {
            (b'0'..=b'9', Parameter::Number(number)) => {
                let digit = u16::from(byte - b'0');
                Parameter::Number(number.saturating_mul(10).saturating_add(digit))
            }
            (b'0'..=b'9', other) => other,
            // Behind it come modifiers, which change nothing here.
            (b';' | b':', Parameter::Number(number) | Parameter::Complete(number)) => {
                Parameter::Complete(number)
            }
            (0x20..=0x3f, _) => Parameter::Strange,
            (b'[', Parameter::Number(0)) => {
                self.place = Place::LinuxFunction;
                return None;
            }
            (_, Parameter::Number(number) | Parameter::Complete(number)) => return function(number, byte),
            (_, Parameter::Strange) => return None,
        };
        self.place = Place::Sequence(next);
        None
    }
}

/// A byte outside sequences.
const fn plain(byte: u8) -> Option<Key> {
    const fn control(letter: u8) -> u8 {
        letter & 0x1f
    }
    const A: u8 = control(b'A');
    const B: u8 = control(b'B');
    const C: u8 = control(b'C');
    const D: u8 = control(b'D');
    const E: u8 = control(b'E');
    const F: u8 = control(b'F');
    const K: u8 = control(b'K');
    const L: u8 = control(b'L');
    const N: u8 = control(b'N');
    const P: u8 = control(b'P');
    const U: u8 = control(b'U');
    const W: u8 = control(b'W');
    Some(match byte {
        b'\r' | b'\n' => Key::Enter,
        b'\t' => Key::Tab,
        0x08 | 0x7f => Key::Backspace,
        A => Key::Home,
        B => Key::Left,
        C => Key::Interrupt,
        D => Key::Delete,
        E => Key::End,
        F => Key::Right,
        K => Key::KillToEnd,
        L => Key::ClearScreen,
        N => Key::Down,
        P => Key::Up,
        U => Key::KillToStart,
        W => Key::KillWord,
        b' '..=b'~' => Key::Character(byte),
        _ => return None,
    })
}

/// What a control sequence's last byte makes of it.
const fn function(number: u16, last: u8) -> Option<Key> {
    Some(match (last, number) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) => Key::Right,
        (b'D', _) => Key::Left,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'H', _) | (b'~', 1 | 7) => Key::Home,
        (b'~', 3) => Key::Delete,
        // The numeric pad's Enter.
        (b'M', 0) => Key::Enter,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::new();
        bytes.iter().filter_map(|byte| decoder.take(*byte)).collect()
    }

    #[test]
    fn terminals_differ_and_mean_the_same() {
        for up in [b"\x1b[A".as_slice(), b"\x1bOA", b"\x10", b"\x1b[1;5A"] {
            assert_eq!(keys(up), [Key::Up], "{up:?}");
        }
        for home in [b"\x1b[H".as_slice(), b"\x1bOH", b"\x1b[1~", b"\x1b[7~", b"\x01"] {
            assert_eq!(keys(home), [Key::Home], "{home:?}");
        }
        for end in [b"\x1b[F".as_slice(), b"\x1bOF", b"\x1b[4~", b"\x1b[8~", b"\x05"] {
            assert_eq!(keys(end), [Key::End], "{end:?}");
        }
        for delete in [b"\x1b[3~".as_slice(), b"\x1b[3;2~", b"\x04"] {
            assert_eq!(keys(delete), [Key::Delete], "{delete:?}");
        }
    }

    #[test]
    fn an_enter_is_one_however_lines_end() {
        assert_eq!(keys(b"\r\n\r\n\n\r\r"), [Key::Enter; 5]);
    }

    #[test]
    fn other_sequences_come_to_nothing() {
        for other in
            [b"\x1b[15~".as_slice(), b"\x1b[200~", b"\x1b[[A", b"\x1bOP", b"\x1b[?1;2c", b"\x1bx", b"\x1b[2~"]
        {
            assert_eq!(keys(&[other, b"z"].concat()), [Key::Character(b'z')], "{other:?}");
        }
    }

    #[test]
    fn a_broken_sequence_spoils_nothing_behind_it() {
        assert_eq!(keys(b"\x1b[\x1b[C"), [Key::Right]);
        assert_eq!(keys(b"\x1b[12\r"), [Key::Enter]);
        assert_eq!(keys(b"\x1b\x1b\x1bOD"), [Key::Left]);
        assert_eq!(keys(b"\x1b[99999999999999999999~a"), [Key::Character(b'a')]);
        assert_eq!(keys(b"\x00\xff\x80a"), [Key::Character(b'a')]);
    }
}
