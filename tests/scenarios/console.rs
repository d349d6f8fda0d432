//! One console for several virtual machines: whose the input is, whose words are whose, and what was said before.

use tests::{Board, Failure, Machine, Outcome, Scenario, Vm, ensure};

use crate::case::{Case, on_both_gics};

/// Ctrl-T, which begins a command.
const ESCAPE: &str = "\x14";

pub fn cases() -> Vec<Case> {
    on_both_gics("console/", &[("switches", switches), ("colours", colours)]).collect()
}

/// Three small guests that have told all that they tell by themselves.
fn boot(scenario: &Scenario, gic: u8, arguments: &str) -> Outcome<Board> {
    let bundle = scenario.bundle(&["one", "two", "three"].map(Vm::hello))?;
    let mut board = scenario.boot(&Machine::new(gic, 3).bundle(bundle).arguments(arguments))?;
    board.expect_ever(r"(?m)^hello: type `help`\n")?;
    board.expect_ever(r"\[two\]\S* hello: type `help`\n")?;
    board.expect_ever(r"\[three\]\S* hello: type `help`\n")?;
    Ok(board)
}

fn switches(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = boot(scenario, gic, "hanok.color=off")?;
    // The first VM has the focus, and its output comes as it is.
    board.send_line("ahoy")?;
    board.expect(r"(?m)^> ahoy\nahoy\n")?;
    broken_line(&mut board)?;
    board.send(&format!("{ESCAPE}n"))?;
    board.expect_log("console of two (2 of 3)")?;
    // Its prompt, which waited for a line's end, is there at once.
    board.send_line("ahoy two")?;
    board.expect(r"(?m)^> ahoy two\nahoy two\n")?;
    // By number; past the last one; backwards around the end.
    for (keys, name) in
        [("3", "three (3 of 3)"), ("n", "one (1 of 3)"), ("p", "three (3 of 3)"), ("9", "three (3 of 3)")]
    {
        board.send(&format!("{ESCAPE}{keys}"))?;
        board.expect_log(&format!("console of {name}"))?;
    }
    board.send(&format!("{ESCAPE}l"))?;
    board.expect_log("1 one: running")?;
    board.expect_log("2 two: running")?;
    board.expect_log("3 three: running, in focus")?;
    board.send(&format!("{ESCAPE}x"))?;
    board.expect_log(
        "Ctrl-T n: next VM, p: previous, 1-9: by number, l: list, r: last lines again, Ctrl-T: itself",
    )?;
    // What the third one said before it had the focus, as it said it.
    board.send(&format!("{ESCAPE}r"))?;
    board.expect_log("the last lines of three:")?;
    board.expect(r"(?m)^hello: tick 10 of 10\n")?;
    board.expect(r"(?m)^hello: type `help`\n")?;
    // Each turns off alone; what is off is told.
    board.send_line("off")?;
    board.expect_log("three turned itself off")?;
    board.expect_log("three is off")?;
    board.send(&format!("{ESCAPE}l"))?;
    board.expect_log("3 three: stopped, in focus")?;
    // What is typed at it is lost, and it holds up nothing.
    board.send_line(&"who is there? ".repeat(40))?;
    for name in ["one", "two"] {
        board.send(&format!("{ESCAPE}n"))?;
        board.expect_log(&format!("console of {name} (<n> of 3)"))?;
        board.send_line("off")?;
        board.expect_log(&format!("{name} turned itself off"))?;
    }
    board.expect_off()?;
    Ok(())
}

/// A line is typed, and something else breaks into it: what was typed is there again, and goes on.
fn broken_line(board: &mut Board) -> Outcome {
    board.send("ab")?;
    board.expect(r"(?m)^> ab")?;
    board.send(&format!("{ESCAPE}l"))?;
    board.expect_log("3 three: running")?;
    board.send_line("c")?;
    // With the prompt behind it, so that no line is still being written.
    board.expect(r"(?m)^> abc\nabc\n> ")?;
    Ok(())
}

/// On a terminal, names have colours, each its own; and every line that is left on the screen is whole and somebody's.
fn colours(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = boot(scenario, gic, "")?;
    broken_line(&mut board)?;
    let raw = String::from_utf8_lossy(&board.raw()).into_owned();
    for name in
        ["\x1b[36m[two]\x1b[0m hello: tick 1 of 10\r\n", "\x1b[35m[three]\x1b[0m hello: tick 1 of 10\r\n"]
    {
        ensure(raw.contains(name), || format!("{name:?} is not in {raw:?}"))?;
    }
    let whole = |line: &&String| {
        let ours = line.contains("] hanok: ");
        let line = line.trim_start_matches("[two] ").trim_start_matches("[three] ");
        // What a small guest says by itself, and its prompt.
        let ends = ["virt\"", " at 0x40000000", " Hz", " of 10", "type `help`"];
        let typed = ["", "> ", "> abc", "abc"].contains(&line);
        let told = line.starts_with("hello: ") && ends.iter().any(|end| line.ends_with(end));
        ours || typed || told
    };
    let lines = screen(&raw);
    match lines.iter().find(|line| !whole(line)) {
        Some(torn) => Err(Failure::Wrong(format!("{torn:?} is torn: {lines:#?}"))),
        None => Ok(()),
    }
}

/// The lines that a terminal shows, if it has any number of them: carriage return, line feed, and the sequence that erases to
/// the end of the line (ECMA-48, EL); others, which only colour, are left out.
fn screen(raw: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut column = 0;
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        let last = lines.len() - 1;
        match character {
            '\r' => column = 0,
            '\n' => lines.push(String::new()),
            '\x1b' => {
                if characters.find(char::is_ascii_alphabetic) == Some('K') {
                    lines[last].truncate(column);
                }
            }
            _ => {
                lines[last].truncate(column);
                lines[last].push(character);
                column += 1;
            }
        }
    }
    lines
}
