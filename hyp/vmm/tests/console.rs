//! The board's console: which bytes are commands, whom the focus goes to, what is kept.

use proptest::prelude::*;
use vmm::console::{Command, ESCAPE, History, Key, Keys, Line, Progress, Return, SEQUENCE, colour, show};

#[test]
fn bytes_go_through_but_for_commands() {
    let mut keys = Keys::new();
    for byte in (0..=255).filter(|&byte| byte != ESCAPE) {
        assert_eq!(keys.take(byte), Key::Input(byte));
    }
    for (byte, command) in [
        (b'n', Command::Next),
        (b'P', Command::Previous),
        (b'1', Command::Select(0)),
        (b'9', Command::Select(8)),
        (b'l', Command::List),
        (b'r', Command::Replay),
        (b'h', Command::Help),
        (b'0', Command::Help),
        (0xff, Command::Help),
    ] {
        assert_eq!(keys.take(ESCAPE), Key::Begun);
        assert_eq!(keys.take(byte), Key::Command(command));
        assert_eq!(keys.take(byte), Key::Input(byte), "a command is one key");
    }
}

#[test]
fn the_escape_key_goes_through_when_it_is_typed_twice() {
    let mut keys = Keys::new();
    let typed: Vec<Key> = [ESCAPE, ESCAPE, ESCAPE, b'n'].map(|byte| keys.take(byte)).into();
    assert_eq!(typed, [Key::Begun, Key::Input(ESCAPE), Key::Begun, Key::Command(Command::Next)]);
}

#[test]
fn the_focus_goes_round() {
    let go = |from, command: Command| command.focus(from, 3);
    assert_eq!([0, 1, 2].map(|from| go(from, Command::Next)), [1, 2, 0]);
    assert_eq!([0, 1, 2].map(|from| go(from, Command::Previous)), [2, 0, 1]);
    assert_eq!((go(1, Command::Select(2)), go(1, Command::Select(3))), (2, 1));
    for command in [Command::List, Command::Replay, Command::Help] {
        assert_eq!(go(1, command), 1);
    }
    assert_eq!([Command::Next, Command::Previous].map(|command| command.focus(0, 1)), [0, 0]);
    assert_eq!([Command::Next, Command::Previous].map(|command| command.focus(0, 0)), [0, 0]);
}

fn kept<const N: usize>(history: &History<N>) -> String {
    (history.start()..history.end()).map(|place| history.get(place).unwrap() as char).collect()
}

#[test]
fn the_last_lines_are_kept() {
    let mut history = History::<16>::new();
    assert_eq!(kept(&history), "");
    "first\nsecond\n".bytes().for_each(|byte| history.push(byte));
    assert_eq!(kept(&history), "first\nsecond\n");
    "third\nfo".bytes().for_each(|byte| history.push(byte));
    // 21 bytes were said; of the 16 that are kept, those of the broken line don't count.
    assert_eq!(kept(&history), "second\nthird\nfo");
    assert_eq!((history.get(history.end()), history.get(history.end() - 17)), (None, None));
    assert_eq!(history.get(history.end() - 16), Some(b'\n'));
    "a line that is longer than all".bytes().for_each(|byte| history.push(byte));
    assert_eq!(kept(&history), "");
}

#[test]
fn neighbours_differ_in_colour() {
    for vm in 0..64 {
        assert!((31..=36).contains(&colour(vm)));
        assert_ne!(colour(vm), colour(vm + 1));
    }
}

fn line(said: &str) -> (String, bool) {
    let mut line = Line::<64>::new();
    for byte in said.bytes() {
        assert_eq!(line.push(byte), Progress::Open, "{said:?}");
    }
    (String::from_utf8(line.text().to_vec()).unwrap(), line.is_coloured())
}

#[test]
fn a_line_is_text_and_colours() {
    let plain = |text: &str| (text.to_owned(), false);
    assert_eq!(line("a\tline, \u{e9}\r"), plain("a\tline, \u{e9}"));
    assert_eq!(line("\x1b[1;31mred\x1b[m"), ("\x1b[1;31mred\x1b[m".to_owned(), true));
    // Asking where the cursor is, clearing, moving, titles' beginnings, bells: nothing is left of them.
    for gone in ["\x1b[6n", "\x1b[2J", "\x1b[10;20H", "\x1b7", "\x07", "\x1b[?25l", "\x1b\x1b[K"] {
        assert_eq!(line(&format!("a{gone}b")), plain("ab"), "{gone:?}");
    }
    // Longer than any two colours, and a character set.
    assert_eq!(line(&format!("a\x1b[{}mb\x1b(B", "1;".repeat(40))), plain("ab"));
}

#[test]
fn a_backspace_takes_a_character_away_and_never_more_than_there_is() {
    assert_eq!(line("\x08\x08abc\x08 \x08d").0, "abd");
    assert_eq!(line("a\u{20ac}\x08b").0, "ab");
}

#[test]
fn a_line_ends_and_is_full() {
    let mut line = Line::<3>::new();
    let progress: Vec<Progress> = b"abc".iter().map(|&byte| line.push(byte)).collect();
    assert_eq!(progress, [Progress::Open, Progress::Open, Progress::Full]);
    assert_eq!((line.push(b'd'), line.text()), (Progress::Full, &b"abc"[..]));
    line.clear();
    assert_eq!(line.push(0x1b), Progress::Open);
    // A sequence that the line's end breaks off.
    assert_eq!(
        (line.push(b'\n'), line.push(b'['), line.text()),
        (Progress::Ended, Progress::Open, &b"["[..])
    );
    // A colour that has no room is left out as a whole.
    for &byte in b"\x1b[0m" {
        line.push(byte);
    }
    assert_eq!(line.text(), b"[");
}

/// What is shown of what a VM says, where others break in at each `|`.
fn shown(said: &str) -> String {
    let (mut line, mut end) = (Line::<16>::new(), Return::default());
    let mut shown = String::new();
    for (n, piece) in said.split('|').enumerate() {
        if n != 0 {
            shown.push_str(if end.break_in() { "\r\n<>" } else { "<>" });
        }
        show(&mut line, &mut end, piece.as_bytes(), |part| {
            shown.push_str(std::str::from_utf8(part).expect("ASCII"));
        });
    }
    shown
}

#[test]
fn a_line_that_others_end_is_ended_once() {
    assert_eq!(shown("one|\r\ntwo\r\n"), "one<>\r\ntwo\r\n");
    assert_eq!(shown("one\r|\ntwo\r\n"), "one\r\r\n<>two\r\n");
    assert_eq!(shown("one\r||\ntwo\r\n|"), "one\r\r\n<><>two\r\n<>");
    assert_eq!(shown("one\r|\r\n\r\n"), "one\r\r\n<>\r\n");
    // It is written over, and others break in later.
    assert_eq!(shown("1 %\r2 %|\r\n\n"), "1 %\r2 %<>\r\n\n");
    assert_eq!(shown("1 %\r|2 %\n"), "1 %\r\r\n<>2 %\n");
}

/// What [`show`] makes of pieces, each in brackets.
fn in_pieces(pieces: &[&str]) -> String {
    let (mut line, mut returned) = (Line::<16>::new(), Return::default());
    let mut shown = String::new();
    for piece in pieces {
        shown.push('<');
        show(&mut line, &mut returned, piece.as_bytes(), |part| {
            shown.push_str(std::str::from_utf8(part).expect("ASCII"));
        });
        shown.push('>');
    }
    shown
}

#[test]
fn a_control_sequence_is_shown_when_it_is_whole() {
    assert_eq!(in_pieces(&["# \x1b[6n", "x"]), "<# \x1b[6n><x>");
    assert_eq!(in_pieces(&["# \x1b", "[", "6n", "x"]), "<# ><><\x1b[6n><x>");
    assert_eq!(in_pieces(&["# \x1b[", "31mred\x1b"]), "<# ><\x1b[31mred>");
    assert_eq!(in_pieces(&["\x1b", "c", "\x1b(", "B"]), "<><\x1bc><><\x1b(B>");
    // One that is given up is gone.
    assert_eq!(in_pieces(&["\x1b[3", "\r", "\n"]), "<><\r><\n>");
    assert_eq!(in_pieces(&["\x1b[3", "\x1b[", "0m"]), "<><><\x1b[0m>");
    // One that is too long isn't waited for.
    let long = "1;".repeat(SEQUENCE);
    assert_eq!(in_pieces(&["\x1b[", &long, "m"]), format!("<><\x1b[{long}><m>"));
}

proptest! {
    /// Wherever it is cut, the same is shown in the end, and at no cut a sequence is half there.
    #[test]
    fn nothing_is_half_there(
        parts in proptest::collection::vec(
            "[a-z]{0,3}|\x1b\\[[0-9;]{0,60}[mnHJ]|\x1b\\(?|\x1b\\[|\r|\n|\r\n|\x08",
            0..12,
        ),
        cut in 1_usize..9,
    ) {
        let said = parts.concat() + "z";
        let (mut line, mut returned) = (Line::<16>::new(), Return::default());
        let mut shown = Vec::new();
        for piece in said.as_bytes().chunks(cut) {
            show(&mut line, &mut returned, piece, |part| shown.extend_from_slice(part));
            let start = shown.iter().rposition(|&byte| byte == 0x1b).unwrap_or(shown.len());
            let is_half = match &shown[start..] {
                [0x1b] => true,
                [0x1b, b'[', rest @ ..] => {
                    rest.len() + 2 <= SEQUENCE && rest.iter().all(|byte| (0x20..=0x3f).contains(byte))
                }
                _ => false,
            };
            prop_assert!(!is_half, "{:?}", String::from_utf8_lossy(&shown));
        }
        prop_assert_eq!(format!("<{}>", String::from_utf8_lossy(&shown)), in_pieces(&[&said]));
    }
}
