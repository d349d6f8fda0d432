//! A machine that runs: QEMU as a child process, its console, its end.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use crate::console::{Console, Found, Search};
use crate::machine::Control;
use crate::{Failure, Gdb, Machine, Outcome, Qmp};

/// The longest that any QEMU may run, however slow the machine is.
const LIMIT: Duration = Duration::from_secs(300);
/// How long to wait for one thing that the console should say.
const PATIENCE: Duration = Duration::from_secs(60);

/// The options that make a socket on standard output the console, and one on standard input QEMU's control socket. So
/// both are there before QEMU is, have no names, and close with it.
pub(crate) fn sockets(machine: &Machine) -> Vec<String> {
    let mut all = Vec::from(["-chardev", "socket,id=control,fd=0", "-chardev", "socket,id=console,fd=1"]);
    // The options stand for the machine's serial ports one by one.
    (0..machine.port).for_each(|_| all.extend(["-serial", "null"]));
    all.extend(["-serial", "chardev:console"]);
    let second = machine.second_port.as_ref().map(|path| format!("unix:{}", path.display()));
    if let Some(second) = &second {
        all.extend(["-serial", second]);
    }
    match machine.control {
        Control::Qmp => all.extend(["-mon", "chardev=control,mode=control"]),
        Control::Gdb => all.extend(["-S", "-gdb", "chardev:control"]),
    }
    all.into_iter().map(str::to_owned).collect()
}

/// A machine that runs. It is killed, if it still runs, when this is dropped.
pub struct Board {
    child: Arc<Mutex<Child>>,
    console: Arc<Console>,
    line: UnixStream,
    control: UnixStream,
    /// Closed when the board is dropped: then the watchdog's work is done.
    _watched: Sender<()>,
}

impl Board {
    /// Starts QEMU, which is told of its sockets by [`sockets`].
    pub(crate) fn start(mut command: Command, console: Arc<Console>) -> Outcome<Self> {
        let (line, its_line) = pair()?;
        let (control, its_control) = pair()?;
        let mut child = command
            .stdin(its_control)
            .stdout(its_line)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Failure::io(format!("run {}", command.get_program().display())))?;
        // It holds QEMU's ends of the sockets as well, and they wouldn't close.
        drop(command);
        let complaints = child.stderr.take();
        let reader = console.clone();
        thread::spawn(move || complaints.map(|complaints| reader.complain_from(complaints)));
        let reader = console.clone();
        let said = line.try_clone().map_err(Failure::io("share a socket"))?;
        thread::spawn(move || {
            reader.fill_from(said);
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
        Ok(Self { child, console, line, control, _watched: watched })
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
        self.console.expect(&compile(pattern)?, Instant::now() + limit, Search::Rest)
    }

    /// Waits until the console has said something that matches, before what matched last or behind it. The next
    /// [`expect`](Self::expect) goes on from where it would have.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub fn expect_ever(&mut self, pattern: &str) -> Outcome<Found> {
        self.expect_ever_within(pattern, PATIENCE)
    }

    /// [`expect_ever`](Self::expect_ever) with a limit of its own.
    ///
    /// # Errors
    /// As there.
    pub fn expect_ever_within(&mut self, pattern: &str, limit: Duration) -> Outcome<Found> {
        self.console.expect(&compile(pattern)?, Instant::now() + limit, Search::All)
    }

    /// Waits for a piece of text, whatever characters it has.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub fn expect_text(&mut self, text: &str) -> Outcome<Found> {
        self.expect(&regex_lite::escape(text))
    }

    /// Waits for a message of EL2, of which this is all, from behind its name to the line's end. `<n>` stands for any number.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub fn expect_log(&mut self, message: &str) -> Outcome<Found> {
        let message = regex_lite::escape(message).replace("<n>", "(?:0x[0-9a-f]+|[0-9]+)");
        self.expect(&format!(r"(?m)^\[ *\d+\.\d{{6}}\] hanok: {message}\n"))
    }

    /// Types text at the console.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn send(&mut self, text: &str) -> Outcome {
        let sent = self.line.write_all(text.as_bytes());
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

    /// All that the console has said, control sequences included.
    pub fn raw(&self) -> Vec<u8> {
        self.console.raw()
    }

    /// Speaks to QEMU by its control socket; once for a board.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn qmp(&self) -> Outcome<Qmp> {
        Qmp::new(self.control.try_clone().map_err(Failure::io("share a socket"))?)
    }

    /// Speaks to QEMU's gdb stub, on a machine [`with_gdb`](crate::Machine::with_gdb); once for a board.
    ///
    /// # Errors
    /// When it doesn't answer.
    pub fn gdb(&self) -> Outcome<Gdb> {
        Gdb::new(self.control.try_clone().map_err(Failure::io("share a socket"))?)
    }

    /// From now on a crash of EL2 is what the scenario wants, and fails nothing.
    pub fn want_crash(&mut self) {
        self.console.want_crash();
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        kill(&self.child);
    }
}

fn compile(pattern: &str) -> Outcome<Regex> {
    Regex::new(pattern).map_err(|error| Failure::Wrong(format!("the pattern /{pattern}/ is wrong: {error}")))
}

/// Two connected sockets: ours, and what becomes one of QEMU's standard streams.
fn pair() -> Outcome<(UnixStream, Stdio)> {
    let (ours, its) = UnixStream::pair().map_err(Failure::io("make sockets"))?;
    Ok((ours, Stdio::from(OwnedFd::from(its))))
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
