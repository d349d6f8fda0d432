//! The commands: their names, how they are used, and what they do, in one table.

use core::fmt;

use abi::Control;
use abi::hanok::right;

/// What a command is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Console,
    Control(Control),
    Crash,
    Help,
    Log,
    Top,
    Vms,
}

/// What stands behind a command's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    None,
    /// A VM, by name or number.
    Vm,
    /// A VM, or nothing.
    MaybeVm,
    /// A whole number, or nothing.
    MaybeNumber,
    /// A command, or nothing.
    MaybeCommand,
}

impl Verb {
    /// The right that its calls need: a bit of [`right`], 0 where it makes none.
    pub fn right(self) -> u32 {
        match self {
            Self::Help => 0,
            Self::Control(_) => right::CONTROL,
            Self::Console => right::CONSOLE,
            // Hanok's own log needs another one: see there.
            Self::Log => right::CONSOLE,
            Self::Crash | Self::Top | Self::Vms => right::STATISTICS,
        }
    }
}

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    pub name: &'static str,
    pub verb: Verb,
    pub operand: Operand,
    /// In a few words.
    pub brief: &'static str,
    /// In whole sentences, a line each.
    pub more: &'static [&'static str],
}

macro_rules! commands {
    ($($name:literal, $verb:expr, $operand:ident, $brief:literal, [$($more:literal),*];)*) => {
        /// All commands, in the order in which `help` tells them.
        pub(crate) const COMMANDS: &[Command] = &[$(Command {
            name: $name, verb: $verb, operand: Operand::$operand, brief: $brief, more: &[$($more),*],
        },)*];
    };
}

commands! {
    "vms", Verb::Vms, None, "which VMs there are, and how they are", [
        "A row for each VM: number, name and state; its vCPUs and their CPUs; how it",
        "shares those (pinned, by weight, or a budget in each period); its RAM while",
        "it runs, and all memory that it holds now; how often it was started,",
        "crashed, and made a call that it has no right to. * marks the VM that this",
        "is. Needs the right `statistics`."
    ];
    "top", Verb::Top, MaybeNumber, "what each vCPU does, every second, until a key is typed", [
        "For each vCPU that is on: run% of the last second it had its CPU (one that",
        "is pinned has it always), wait% it was ready and another one had it; the",
        "memory that its VM holds; and in a second: interrupts that it got (int), and",
        "exits to Hanok by their reason. The busiest come first where not all have",
        "room. With a number, it ends after so many seconds. Needs the right",
        "`statistics`."
    ];
    "start", Verb::Control(Control::Start), Vm, "start a VM that isn't running", [
        "The VM gets its memory, is loaded, and runs. Needs the right `control`."
    ];
    "stop", Verb::Control(Control::Stop), Vm, "stop a VM, as if its power were cut", [
        "The VM isn't asked. Its memory is scrubbed and given back. The monitor",
        "doesn't stop or pause itself, since nobody might be there to bring it back.",
        "Needs the right `control`."
    ];
    "pause", Verb::Control(Control::Pause), Vm, "let a VM stand still", [
        "Its vCPUs and its counters stand still until `resume`. Needs the right",
        "`control`."
    ];
    "resume", Verb::Control(Control::Resume), Vm, "let a paused VM go on", [
        "It goes on where it was. Needs the right `control`."
    ];
    "restart", Verb::Control(Control::Restart), Vm, "start a VM afresh, whatever it is at", [
        "It is loaded afresh into the memory that it has. Needs the right `control`."
    ];
    "log", Verb::Log, MaybeVm, "what a VM said last; without a name, Hanok's own messages", [
        "Control sequences are left out. Hanok's messages need the right",
        "`statistics`, a VM's words the right `console`."
    ];
    "console", Verb::Console, Vm, "give a VM the board's console", [
        "What is typed goes to that VM then, and its output comes as it is. Ctrl-T",
        "and this VM's number, or n or p, come back. Needs the right `console`."
    ];
    "crash", Verb::Crash, Vm, "the report of a VM's last crash", [
        "Why and when, the syndrome in words, all registers, and the exits before it.",
        "Needs the right `statistics`."
    ];
    "help", Verb::Help, MaybeCommand, "this list, or more about a command", [
        "Keys: arrows, Home, End, Ctrl-A, Ctrl-E move; Backspace, Delete, Ctrl-U,",
        "Ctrl-K, Ctrl-W delete; up and down bring earlier lines; Tab completes;",
        "Ctrl-C drops the line; Ctrl-L clears the screen."
    ];
}

impl Command {
    /// The command with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|command| command.name == name)
    }

    /// How it is used.
    pub fn usage(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            f.write_str(self.name)?;
            f.write_str(match self.operand {
                Operand::None => "",
                Operand::Vm => " NAME|NUMBER",
                Operand::MaybeVm => " [NAME|NUMBER]",
                Operand::MaybeNumber => " [SECONDS]",
                Operand::MaybeCommand => " [COMMAND]",
            })
        })
    }
}

/// What can be wrong with a line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mistake<'a> {
    /// There is no such command.
    Unknown(&'a str),
    /// It is used otherwise.
    Usage(&'static Command),
}

/// What a line says: nothing, or a command with its operand, if it has one. An operand that is needed is there.
pub(crate) fn parse(line: &str) -> Result<Option<(&'static Command, Option<&str>)>, Mistake<'_>> {
    let mut words = line.split_ascii_whitespace();
    let Some(name) = words.next() else { return Ok(None) };
    let command = Command::find(name).ok_or(Mistake::Unknown(name))?;
    let operand = words.next();
    let fits = match command.operand {
        Operand::None => operand.is_none(),
        Operand::Vm => operand.is_some(),
        Operand::MaybeVm | Operand::MaybeCommand => true,
        // 1 s to about a day.
        Operand::MaybeNumber => operand.is_none_or(|text| matches!(text.parse(), Ok(1..100_000u32))),
    };
    if fits && words.next().is_none() { Ok(Some((command, operand))) } else { Err(Mistake::Usage(command)) }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn lines_are_commands_with_operands() {
        let said = |line| parse(line).ok().flatten().map(|(command, operand)| (command.name, operand));
        assert_eq!(said("  vms  "), Some(("vms", None)));
        assert_eq!(said("start linux"), Some(("start", Some("linux"))));
        assert_eq!(said("top 5"), Some(("top", Some("5"))));
        assert!(matches!(parse("   "), Ok(None)));
        assert!(matches!(parse("Vms"), Err(Mistake::Unknown("Vms"))));
        for wrong in ["start", "start a b", "vms x", "top x", "top 0", "top 1 2", "crash", "top 100000"] {
            assert!(matches!(parse(wrong), Err(Mistake::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn help_fits_into_a_row() {
        for command in COMMANDS {
            assert!(command.usage().to_string().len() + command.brief.len() + 4 < 80, "{}", command.name);
            assert!(command.more.iter().all(|line| line.len() + 2 < 80), "{}", command.name);
        }
    }
}
