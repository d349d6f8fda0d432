//! The shell: reads a line, does what it says, and says what came of it.

use core::fmt;

use abi::hanok::right;
use abi::record::state;
use abi::{Control, Error, Identity, Speaker};
use line_edit::{Editor, Event};

use crate::command::{COMMANDS, Command, Mistake, Operand, Verb, parse};
use crate::host::{Host, Stop};
use crate::refusal::{Refusal, lacking, lacks_any};
use crate::text::{Name, number};
use crate::top::Top;
use crate::{complete, crash, history, vms};

/// What stands before what is typed.
pub const PROMPT: &str = "monitor> ";

/// The longest line: with the prompt, and the cursor behind it, a row of 80 columns.
const ROOM: usize = 80 - PROMPT.len() - 1;

/// The shell of a monitor on this machine. It is large: keep it in a static.
pub struct Shell<H> {
    host: H,
    editor: Editor<ROOM>,
    top: Top,
    /// Who this is, where Hanok says so.
    identity: Option<Identity>,
}

impl<H: Host> Shell<H> {
    /// On this machine.
    pub const fn new(host: H) -> Self {
        Self { host, editor: Editor::new(PROMPT), top: Top::new(), identity: None }
    }

    /// The machine.
    pub fn host(&mut self) -> &mut H {
        &mut self.host
    }

    /// Reads and obeys lines until nobody is there any more.
    pub fn run(&mut self) {
        // A terminal that takes nothing is nobody.
        let _ = self.serve();
    }

    fn serve(&mut self) -> fmt::Result {
        self.greet()?;
        self.editor.begin(&mut self.host)?;
        while let Some(byte) = self.host.key(None) {
            match self.editor.take(byte, &mut self.host)? {
                None => {}
                Some(Event::Line(line)) => {
                    self.obey(&line)?;
                    self.editor.begin(&mut self.host)?;
                }
                Some(Event::Dropped) => self.editor.begin(&mut self.host)?,
                Some(Event::Complete) => self.complete()?,
            }
        }
        Ok(())
    }

    fn greet(&mut self) -> fmt::Result {
        let host = &mut self.host;
        match host.revision() {
            Ok((major, minor)) => writeln!(host, "monitor: Hanok, calls {major}.{minor}; type `help`")?,
            Err(_) => writeln!(host, "monitor: the hypervisor isn't Hanok, and can't be asked; type `help`")?,
        }
        self.identity = host.identity().ok();
        match self.identity {
            Some(identity) if lacks_any(identity.rights) => {
                writeln!(host, "monitor: without these rights: {}", lacking(identity.rights))
            }
            _ => Ok(()),
        }
    }

    fn obey(&mut self, line: &str) -> fmt::Result {
        let host = &mut self.host;
        let (command, operand) = match parse(line) {
            Ok(None) => return Ok(()),
            Ok(Some(said)) => said,
            Err(Mistake::Unknown(name)) => {
                return writeln!(host, "{name}: no such command; `help` lists them");
            }
            Err(Mistake::Usage(command)) => return writeln!(host, "usage: {}", command.usage()),
        };
        match self.execute(command, operand) {
            Ok(()) => Ok(()),
            Err(Stop::Terminal) => Err(fmt::Error),
            Err(Stop::Refused(error)) => self.refuse(command, command.verb.right(), error),
        }
    }

    fn execute(&mut self, command: &Command, operand: Option<&str>) -> Result<(), Stop> {
        let vm = match (command.operand, operand) {
            (Operand::Vm | Operand::MaybeVm, Some(operand)) => match vms::find(&mut self.host, operand) {
                Ok(Some(found)) => Some(found),
                Ok(None) => return Ok(writeln!(self.host, "{}: there is no VM {operand}", command.name)?),
                Err(Stop::Refused(Error::Denied)) => {
                    return Ok(writeln!(
                        self.host,
                        "{}: without the right `statistics`, VMs have no names here: say its number",
                        command.name
                    )?);
                }
                Err(stop) => return Err(stop),
            },
            _ => None,
        };
        let own = self.identity.map(|identity| identity.vm);
        match (command.verb, vm) {
            (Verb::Vms, _) => vms::print(&mut self.host, own),
            (Verb::Top, _) => {
                let pictures = operand.and_then(|number| number.parse().ok());
                self.top.run(&mut self.host, pictures)
            }
            (Verb::Help, _) => self.help(operand),
            (Verb::Log, None) => match history::print(&mut self.host, Speaker::Hanok) {
                Err(Stop::Refused(error)) => Ok(self.refuse(command, right::STATISTICS, error)?),
                other => other,
            },
            (Verb::Log, Some((vm, _))) => history::print(&mut self.host, Speaker::Vm(vm)),
            (Verb::Control(what), Some((vm, name))) => self.control(command, what, vm, &name),
            (Verb::Console, Some((vm, name))) => self.focus(vm, &name),
            (Verb::Crash, Some((vm, name))) => self.crash(vm, &name),
            // An operand that is needed is there.
            (Verb::Control(_) | Verb::Console | Verb::Crash, None) => Ok(()),
        }
    }

    /// Says why a call was refused that needs this right.
    fn refuse(&mut self, command: &Command, right: u32, error: Error) -> fmt::Result {
        let is_hanok = self.host.revision().is_ok();
        writeln!(self.host, "{}: {}", command.name, Refusal { error, right, is_hanok })
    }

    fn control(&mut self, command: &Command, what: Control, vm: u32, name: &Name) -> Result<(), Stop> {
        let is_own = self.identity.is_some_and(|identity| identity.vm == vm);
        if is_own && matches!(what, Control::Stop | Control::Pause) {
            let what = command.name;
            return Ok(writeln!(
                self.host,
                "{what}: this is {name} itself, which couldn't bring itself back"
            )?);
        }
        let done = self.host.control(what, vm);
        let state = self.host.vm(vm).ok().map(|record| state::name(record.state));
        match (done, state) {
            (Ok(()), Some(state)) => writeln!(self.host, "{name}: {state}")?,
            (Ok(()), None) => writeln!(self.host, "{name}: {} has begun", command.name)?,
            (Err(Error::WrongState), Some(state)) => {
                writeln!(
                    self.host,
                    "{}: {name} is {state}, which doesn't allow that (WRONG_STATE)",
                    command.name
                )?;
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(())
    }

    fn focus(&mut self, vm: u32, name: &Name) -> Result<(), Stop> {
        let host = &mut self.host;
        match self.identity.map(|identity| number(identity.vm)) {
            Some(own @ 1..=9) => writeln!(host, "console of {name}; Ctrl-T {own} comes back")?,
            _ => writeln!(host, "console of {name}; Ctrl-T and n or p go from VM to VM")?,
        }
        Ok(host.focus(vm)?)
    }

    fn crash(&mut self, vm: u32, name: &Name) -> Result<(), Stop> {
        let record = self.host.vm(vm)?;
        match self.host.crash(vm)? {
            Some(report) => crash::print(&mut self.host, name, &record, &report),
            None => Ok(writeln!(self.host, "{name} has not crashed")?),
        }
    }

    fn help(&mut self, operand: Option<&str>) -> Result<(), Stop> {
        let host = &mut self.host;
        let Some(name) = operand else {
            for command in COMMANDS {
                writeln!(host, "{:26} {}", crate::text::short::<32>(command.usage()), command.brief)?;
            }
            return Ok(());
        };
        let Some(command) = Command::find(name) else {
            return Ok(writeln!(host, "{name}: no such command; `help` lists them")?);
        };
        writeln!(host, "{}: {}", command.usage(), command.brief)?;
        for line in command.more {
            writeln!(host, "  {line}")?;
        }
        Ok(())
    }

    /// Completes the word before the cursor as far as it can be; where it can't, tells what it could be.
    fn complete(&mut self) -> fmt::Result {
        let line = self.editor.before_cursor();
        let completion = match complete::complete(&mut self.host, line) {
            Ok(completion) => completion,
            Err(Stop::Terminal) => return Err(fmt::Error),
            // Who may not ask isn't told so by a key: the command will say.
            Err(Stop::Refused(_)) => complete::Completion::default(),
        };
        if completion.count == 0 {
            return self.host.write_str("\x07");
        }
        if completion.count > 1 && completion.rest.is_empty() {
            return self.list();
        }
        self.editor.insert(completion.rest.as_bytes(), &mut self.host)?;
        if completion.count == 1 { self.editor.insert(b" ", &mut self.host) } else { Ok(()) }
    }

    fn list(&mut self) -> fmt::Result {
        let line = self.editor.before_cursor();
        let mut separator = "\n";
        let listed = complete::for_each(&mut self.host, line, |host, word| {
            write!(host, "{separator}{word}")?;
            separator = "  ";
            Ok(())
        });
        if matches!(listed, Err(Stop::Terminal)) {
            return Err(fmt::Error);
        }
        self.host.write_char('\n')?;
        self.editor.show(&mut self.host)
    }
}
