//! A machine that runs: QEMU as a child process, its console, its end.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use crate::console::{Console, Found};
use crate::{Failure, Outcome, Qmp};

/// The longest that any QEMU may run, however slow the machine is.
const LIMIT: Duration = Duration::from_secs(300);
/// How long to wait for one thing that the console should say.
const PATIENCE: Duration = Duration::from_secs(90);

/// A machine that runs. It is killed, if it still runs, when this is dropped.
pub struct Board {
    child: Arc<Mutex<Child>>,
    console: Arc<Console>,
    stdin: ChildStdin,
    qmp: PathBuf,
    /// Closed when the board is dropped: then the watchdog's work is done.
    _watched: Sender<()>,
}

impl Board {
    /// Starts QEMU; its first serial port is the console.
    pub(crate) fn start(command: &mut Command, console: Arc<Console>, qmp: PathBuf) -> Outcome<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::io(format!("run {}", command.get_program().display())))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::Wrong("QEMU has no pipes".to_owned()));
        };
        let reader = console.clone();
        thread::spawn(move || reader.fill_from(stderr));
        let reader = console.clone();
        thread::spawn(move || {
            reader.fill_from(stdout);
            reader.end();
        });
        let child = Arc::new(Mutex::new(child));
        let (watched, end) = channel();
        let victim = child.clone();
        thread::spawn(move || {
            if end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                kill(&victim);
            }
        });
        Ok(Self { child, console, stdin, qmp, _watched: watched })
    }

    /// Waits until the console says something that matches, behind what matched last.
    ///
    /// # Errors
    /// When it doesn't in time, when QEMU ends, or when EL2 or a guest's kernel crashes.
    pub fn expect(&mut self, pattern: &str) -> Outcome<Found> {
        self.expect_within(pattern, PATIENCE)
    }

    /// [`expect`](Self::expect) with a limit of its own.
    ///
    /// # Errors
    /// As there.
    pub fn expect_within(&mut self, pattern: &str, limit: Duration) -> Outcome<Found> {
        let pattern = Regex::new(pattern)
            .map_err(|error| Failure::Wrong(format!("the pattern /{pattern}/ is wrong: {error}")))?;
        self.console.expect(&pattern, Instant::now() + limit)
    }

    /// Waits for a piece of text, whatever characters it has.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub fn expect_text(&mut self, text: &str) -> Outcome<Found> {
        self.expect(&regex_lite::escape(text))
    }

    /// Waits for a message of EL2, of which this is all, from the word after the time to the line's end.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub fn expect_log(&mut self, message: &str) -> Outcome<Found> {
        self.expect(&format!(r"(?m)^\[ *\d+\.\d{{6}}\] hanok: {}\n", regex_lite::escape(message)))
    }

    /// Types text at the console.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn send(&mut self, text: &str) -> Outcome {
        let sent = self.stdin.write_all(text.as_bytes()).and_then(|()| self.stdin.flush());
        sent.map_err(Failure::io("type at the console"))
    }

    /// Types a line at the console.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn send_line(&mut self, line: &str) -> Outcome {
        self.send(&format!("{line}\n"))
    }

    /// Waits until the board is off, which ends QEMU with status 0. Returns all that the console said.
    ///
    /// # Errors
    /// When it doesn't end in time or ends otherwise, or something crashed.
    pub fn expect_off(self) -> Outcome<String> {
        if !self.console.wait_for_end(Instant::now() + PATIENCE) {
            return Err(Failure::StillRunning { seconds: PATIENCE.as_secs() });
        }
        let status = lock(&self.child).wait().map_err(Failure::io("wait for QEMU"))?;
        self.console.check()?;
        if status.success() { Ok(self.console.text()) } else { Err(Failure::ExitStatus(status)) }
    }

    /// All that the console has said.
    pub fn text(&self) -> String {
        self.console.text()
    }

    /// Connects to QEMU's control socket.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn qmp(&self) -> Outcome<Qmp> {
        Qmp::connect(&self.qmp)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        kill(&self.child);
        // The socket is QEMU's, which is gone.
        let _ = std::fs::remove_file(&self.qmp);
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a child, if it hasn't ended, and collects it.
fn kill(child: &Mutex<Child>) {
    let mut child = lock(child);
    // It may have ended on its own.
    let _ = child.kill();
    let _ = child.wait();
}
