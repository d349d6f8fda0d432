//! A Linux guest's shell at the console: typing commands and reading what they answer.

use crate::{Board, Failure, Found, Outcome, ensure_equal};

/// The prompt: host name and folder.
const PROMPT: &str = r"linux:\S+# ";

/// The shell of the Linux guest.
pub struct Shell<'a> {
    board: &'a mut Board,
}

impl<'a> Shell<'a> {
    /// Waits until Linux has booted to its shell.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn login(board: &'a mut Board) -> Outcome<Self> {
        board.expect(PROMPT)?;
        Ok(Self { board })
    }

    /// The board, to look at what others say.
    pub fn board(&mut self) -> &mut Board {
        self.board
    }

    /// The board, when the shell ends.
    pub fn into_board(self) -> &'a mut Board {
        self.board
    }

    /// Types a line without waiting for what it does.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn type_line(&mut self, line: &str) -> Outcome {
        self.board.send_line(line)
    }

    /// Runs a command and returns what it says and its status. Its echo, which the editor of the line may have wrapped, is
    /// told from the answer by words that the shell computes.
    ///
    /// # Errors
    /// When it doesn't end.
    pub fn try_run(&mut self, command: &str) -> Outcome<(String, u64)> {
        self.board.send_line(&format!("echo @$((0))@; {command}; echo @$?@"))?;
        self.board.expect(r"(?m)^@0@\n").map_err(Failure::unanswered(command))?;
        let end = self.board.expect(&format!(r"(?s)@(\d+)@\n.*?{PROMPT}"));
        let end = end.map_err(Failure::unanswered(command))?;
        Ok((end.before.trim_end().to_owned(), end.number(1)?))
    }

    /// Runs a command that must succeed, and returns what it says.
    ///
    /// # Errors
    /// When it doesn't end or its status isn't 0.
    pub fn run(&mut self, command: &str) -> Outcome<String> {
        match self.try_run(command)? {
            (said, 0) => Ok(said),
            (said, status) => Err(Failure::Wrong(format!("`{command}` ended with status {status}: {said}"))),
        }
    }

    /// Runs a command that must say just this.
    ///
    /// # Errors
    /// When it says something else.
    pub fn check(&mut self, command: &str, wanted: &str) -> Outcome {
        let said = self.run(command)?;
        ensure_equal(&format!("`{command}`"), said.as_str(), wanted)
    }

    /// Runs a command that says a number.
    ///
    /// # Errors
    /// When it says something else.
    pub fn number(&mut self, command: &str) -> Outcome<u64> {
        let said = self.run(command)?;
        said.parse().map_err(|_| Failure::Wrong(format!("`{command}` should say a number, not {said:?}")))
    }

    /// Types all commands at once, without waiting for a prompt, and returns what each says: one line.
    ///
    /// # Errors
    /// When an answer doesn't come, in order.
    pub fn run_at_once(&mut self, commands: &[&str]) -> Outcome<Vec<String>> {
        let script: String = commands
            .iter()
            .enumerate()
            .map(|(n, command)| format!("echo \"Q{n}=$({command});\"\n"))
            .collect();
        self.board.send(&script)?;
        // What is echoed has the command where the answer has its text; and it may surround the answer.
        let answer = |(n, command): (usize, &&str)| {
            self.board.expect(&format!(r"Q{n}=([^$;\n][^;\n]*);")).map_err(Failure::unanswered(command))
        };
        let found: Outcome<Vec<Found>> = commands.iter().enumerate().map(answer).collect();
        Ok(found?.iter().map(|found| found.group(1).to_owned()).collect())
    }
}
