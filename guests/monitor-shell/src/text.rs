//! Small texts: names, numbers with their units, and what guests said without what could upset a terminal.

use core::fmt::{self, Display, Write};

use abi::record::VmRecord;
use arrayvec::ArrayString;

/// A VM's name.
pub(crate) type Name = ArrayString<32>;

/// The record's name. A character that no name has is shown as `?`.
pub(crate) fn name(record: &VmRecord) -> Name {
    let mut name = Name::new();
    for byte in record.name_bytes() {
        match byte {
            0 => break,
            b'!'..=b'~' => name.push(char::from(byte)),
            _ => name.push('?'),
        }
    }
    name
}

/// The number of a VM as people know it: the console's keys count from 1 too.
pub(crate) fn number(vm: u32) -> u32 {
    vm + 1
}

/// A value's text, to be padded; what is longer than `N` bytes loses its end.
pub(crate) fn short<const N: usize>(value: impl Display) -> ArrayString<N> {
    let mut text = ArrayString::new();
    // There may be no room: the end is lost.
    let _ = write!(Cut(&mut text), "{value}");
    text
}

struct Cut<'a, const N: usize>(&'a mut ArrayString<N>);

impl<const N: usize> Write for Cut<'_, N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| self.0.try_push(character)).map_err(|_| fmt::Error)
    }
}

/// Bytes, in the unit that keeps the number short: `512M`.
pub(crate) struct Size(pub u64);

impl Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            0 => f.pad("0"),
            bytes if bytes < 1 << 20 => f.pad(&short::<8>(format_args!("{}K", bytes.div_ceil(1 << 10)))),
            bytes if bytes < 100_000 << 20 => f.pad(&short::<8>(format_args!("{}M", bytes >> 20))),
            bytes => f.pad(&short::<16>(format_args!("{}G", bytes >> 30))),
        }
    }
}

/// How often in a second, in four characters up to 999 million.
pub(crate) struct Rate(pub u64);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            rate @ ..10_000 => f.pad(&short::<8>(rate)),
            rate @ ..1_000_000 => f.pad(&short::<8>(format_args!("{}k", rate / 1000))),
            rate => f.pad(&short::<24>(format_args!("{}M", rate / 1_000_000))),
        }
    }
}

/// A share in tenths of a percent.
pub(crate) struct Share(pub u64);

impl Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&short::<24>(format_args!("{}.{}", self.0 / 10, self.0 % 10)))
    }
}

/// Ticks as a time that has passed: `12.3 s`, `5 min 3 s`.
pub(crate) struct Age {
    pub ticks: u64,
    pub frequency: u64,
}

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let frequency = self.frequency.max(1);
        let seconds = self.ticks / frequency;
        // Below one second, so it is small.
        let tenths = self.ticks % frequency * 10 / frequency;
        match seconds {
            0..60 => write!(f, "{seconds}.{tenths} s"),
            60..3600 => write!(f, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(f, "{} h {} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// Makes plain text of what a guest said: control sequences and control characters (ECMA-48) are left out, but for line ends
/// and tabs, so that nothing that a guest said earlier moves the cursor or clears the screen now.
pub(crate) struct Plain {
    place: Place,
    /// Bytes of text that wait, the beginning of a character at least.
    waiting: [u8; 64],
    count: usize,
    last: char,
}

enum Place {
    Text,
    /// Behind ESC.
    Escape,
    /// In a control sequence.
    Sequence,
    /// In a control string, such as a title.
    String,
}

impl Plain {
    pub fn new() -> Self {
        Self { place: Place::Text, waiting: [0; 64], count: 0, last: '\n' }
    }

    /// Prints what there is of text in these bytes.
    pub fn print(&mut self, bytes: &[u8], out: &mut impl Write) -> fmt::Result {
        for byte in bytes {
            match (&self.place, *byte) {
                (_, 0x1b) => self.place = Place::Escape,
                (Place::Text, byte) => self.push(byte, out)?,
                (Place::Escape, b'[') => self.place = Place::Sequence,
                (Place::Escape, b']' | b'P' | b'X' | b'^' | b'_') => self.place = Place::String,
                // Intermediate bytes, as when a character set is chosen.
                (Place::Escape, 0x20..=0x2f) => {}
                (Place::Sequence, 0x20..=0x3f) | (Place::String, 0x08..=0x0d | 0x20..) => {}
                // What no sequence contains ends it, and a line's end is one all the same.
                (_, b'\n') => {
                    self.place = Place::Text;
                    self.push(b'\n', out)?;
                }
                _ => self.place = Place::Text,
            }
        }
        Ok(())
    }

    /// Prints what waits, and ends the last line, if it isn't.
    pub fn finish(&mut self, out: &mut impl Write) -> fmt::Result {
        self.flush(true, out)?;
        if self.last == '\n' { Ok(()) } else { out.write_char('\n') }
    }

    fn push(&mut self, byte: u8, out: &mut impl Write) -> fmt::Result {
        self.waiting[self.count] = byte;
        self.count += 1;
        if self.count == self.waiting.len() { self.flush(false, out) } else { Ok(()) }
    }

    fn flush(&mut self, all: bool, out: &mut impl Write) -> fmt::Result {
        let waiting = &self.waiting[..self.count];
        let kept = match core::str::from_utf8(waiting) {
            Err(error) if error.error_len().is_none() && !all => self.count - error.valid_up_to(),
            // Something before is wrong; a character that the last three bytes begin may still be whole later.
            Err(_) if !all => {
                waiting.iter().rev().take(3).position(|byte| *byte >= 0xc0).map_or(0, |n| n + 1)
            }
            _ => 0,
        };
        let (now, later) = waiting.split_at(self.count - kept);
        for chunk in now.utf8_chunks() {
            for character in chunk.valid().chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()) {
                out.write_char(character)?;
                self.last = character;
            }
            if !chunk.invalid().is_empty() {
                out.write_char(char::REPLACEMENT_CHARACTER)?;
                self.last = char::REPLACEMENT_CHARACTER;
            }
        }
        let mut rest = [0; 4];
        rest[..kept].copy_from_slice(later);
        self.waiting[..kept].copy_from_slice(&rest[..kept]);
        self.count = kept;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::format;
    use std::string::String;

    fn plain(bytes: &[u8], piece: usize) -> String {
        let (mut plain, mut out) = (Plain::new(), String::new());
        for bytes in bytes.chunks(piece) {
            plain.print(bytes, &mut out).expect("strings have room");
        }
        plain.finish(&mut out).expect("strings have room");
        out
    }

    #[test]
    fn guests_words_upset_no_terminal() {
        let said = b"\x1b[2J\x1b[1;31mred\x1b[0m\r\n\x1b]0;title\x07\tx\x07\x08\x1b(B\xc2\x9b2J\x1b[12";
        for piece in [1, 2, 3, 100] {
            assert_eq!(plain(said, piece), "red\n\tx2J\n");
        }
        assert_eq!(plain(b"", 1), "");
        assert_eq!(plain(b"a\n", 1), "a\n");
        assert_eq!(plain(b"\x1b[3\nnext", 1), "\nnext\n");
    }

    #[test]
    fn characters_survive_any_piece() {
        let text = "αβγ €uro \u{1f3e0} ".repeat(20);
        for piece in 1..70 {
            assert_eq!(plain(text.as_bytes(), piece), format!("{text}\n"), "{piece}");
        }
        assert_eq!(plain(b"a\xffb\xe2\x82", 1), "a\u{fffd}b\u{fffd}\n");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(format!("{:>6}", Size(512 << 20)), "  512M");
        assert_eq!(format!("{} {} {}", Size(0), Size(4096), Size(255 << 30)), "0 4K 255G");
        assert_eq!(format!("{:>5}|{}|{}", Rate(7), Rate(123_456), Rate(12_345_678)), "    7|123k|12M");
        assert_eq!(format!("{:>6}", Share(1000)), " 100.0");
        let age = |ticks| format!("{}", Age { ticks, frequency: 100 });
        assert_eq!([age(123), age(6200), age(400_000)], ["1.2 s", "1 min 2 s", "1 h 6 min"]);
        assert_eq!(short::<4>("abcdef").as_str(), "abcd");
    }
}
