//! A serial port besides the console, behind a socket of the scenario's own.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use crate::console::{Console, Found, Search};
use crate::{Failure, Outcome};

/// How long to wait for one thing that should be said there.
const PATIENCE: Duration = Duration::from_secs(60);

/// The place where QEMU will find the port's other side.
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// The port.
pub struct Port {
    console: Arc<Console>,
    line: UnixStream,
}

impl Socket {
    pub(crate) fn new(path: PathBuf) -> Outcome<Self> {
        let what = || format!("make the socket {}", path.display());
        let listener = UnixListener::bind(&path).map_err(Failure::io(what()))?;
        Ok(Self { listener, path })
    }

    /// Where it is, for QEMU.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The port, once the machine runs: QEMU has come by then.
    ///
    /// # Errors
    /// When it hasn't.
    pub fn accept(&self) -> Outcome<Port> {
        self.listener.set_nonblocking(true).map_err(Failure::io("look at a socket"))?;
        let (line, _) = self.listener.accept().map_err(Failure::io("find QEMU at a socket"))?;
        line.set_nonblocking(false).map_err(Failure::io("look at a socket"))?;
        let console = Arc::new(Console::default());
        let reader = console.clone();
        let said = line.try_clone().map_err(Failure::io("share a socket"))?;
        thread::spawn(move || {
            reader.fill_from(said);
            reader.end();
        });
        Ok(Port { console, line })
    }
}

impl Port {
    /// Waits until something is said there that matches, behind what matched last.
    ///
    /// # Errors
    /// When it isn't in time, or QEMU ends.
    pub fn expect(&mut self, pattern: &str) -> Outcome<Found> {
        let pattern = Regex::new(pattern)
            .map_err(|error| Failure::Wrong(format!("the pattern /{pattern}/ is wrong: {error}")))?;
        self.console.expect(&pattern, Instant::now() + PATIENCE, Search::Rest)
    }

    /// Types a line there.
    ///
    /// # Errors
    /// When QEMU has ended.
    pub fn send_line(&mut self, line: &str) -> Outcome {
        self.line.write_all(format!("{line}\r").as_bytes()).map_err(Failure::io("type at a serial port"))
    }
}
