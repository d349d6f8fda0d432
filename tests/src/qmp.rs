//! QEMU's control socket (QMP): JSON, a line at a time.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{Failure, Outcome};

const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to QEMU's control socket.
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Outcome<Self> {
        stream.set_read_timeout(Some(PATIENCE)).map_err(Failure::io("set a time limit"))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        // The greeting, which says versions.
        qmp.read()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    fn read(&mut self) -> Outcome<Value> {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).map_err(Failure::io("read from QMP"))?;
        if count == 0 {
            return Err(Failure::Qmp("QEMU closed the socket".to_owned()));
        }
        serde_json::from_str(&line).map_err(|error| Failure::Qmp(format!("{error} in {line}")))
    }

    /// Executes a command and returns what it answers; events that come in between are passed over.
    ///
    /// # Errors
    /// When QEMU refuses it or doesn't answer.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Outcome<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        let sent = self.stream.get_mut().write_all(format!("{request}\n").as_bytes());
        sent.map_err(Failure::io("write to QMP"))?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(Failure::Qmp(format!("{command}: {error}")));
            }
        }
    }

    /// Waits until the machine has been turned off, which is kept then (QEMU's `-action shutdown=pause`). `limit` is for each of QEMU's events
    /// before that.
    ///
    /// # Errors
    /// When it isn't in time.
    pub fn wait_for_shutdown(&mut self, limit: Duration) -> Outcome {
        let set = |qmp: &Self, limit| {
            qmp.stream.get_ref().set_read_timeout(Some(limit)).map_err(Failure::io("set a time limit"))
        };
        // Where it runs still, an event is to come that says otherwise.
        while self.execute("query-status", json!({}))?.get("status") != Some(&json!("shutdown")) {
            set(self, limit)?;
            self.read()?;
            set(self, PATIENCE)?;
        }
        Ok(())
    }

    /// Executes a command of the human monitor and returns its text.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn monitor(&mut self, command: &str) -> Outcome<String> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": command }))?;
        Ok(answer.as_str().unwrap_or_default().replace('\r', ""))
    }
}
