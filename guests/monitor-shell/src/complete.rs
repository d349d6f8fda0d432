//! Completion of the word before the cursor: a command, or what stands behind one.

use core::fmt::Write;

use arrayvec::ArrayString;

use crate::command::{COMMANDS, Command, Operand};
use crate::host::{Host, Stop, for_each_vm};
use crate::text::{Name, name};

/// What can be said of a word that is begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Completion {
    /// How many words begin so.
    pub count: usize,
    /// What all of them have in common behind that beginning.
    pub rest: ArrayString<32>,
}

/// The words that could stand at the end of this beginning of a line, each given to `body`.
pub(crate) fn for_each<H: Host>(
    host: &mut H,
    line: &str,
    mut body: impl FnMut(&mut H, &str) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (before, word) = split(line);
    let mut words = before.split_ascii_whitespace();
    let operand = match (words.next(), words.next()) {
        (None, _) => Operand::MaybeCommand,
        (Some(command), None) => Command::find(command).map_or(Operand::None, |command| command.operand),
        (Some(_), Some(_)) => Operand::None,
    };
    match operand {
        Operand::MaybeCommand => {
            let names = COMMANDS.iter().map(|command| command.name);
            names.filter(|name| name.starts_with(word)).try_for_each(|name| body(host, name))
        }
        Operand::Vm | Operand::MaybeVm => for_each_vm(host, |host, _, record| {
            let name: Name = name(record);
            if name.starts_with(word) { body(host, &name) } else { Ok(()) }
        }),
        Operand::None | Operand::MaybeNumber => Ok(()),
    }
}

/// What all words that could stand there have in common.
pub(crate) fn complete(host: &mut impl Host, line: &str) -> Result<Completion, Stop> {
    let begun = split(line).1.len();
    let mut completion = Completion::default();
    for_each(host, line, |_, word| {
        let rest = word.get(begun..).unwrap_or("");
        completion.count += 1;
        if completion.count == 1 {
            // No name is longer.
            let _ = completion.rest.write_str(rest);
        } else {
            let same = completion.rest.bytes().zip(rest.bytes()).take_while(|(a, b)| a == b).count();
            completion.rest.truncate(same);
        }
        Ok(())
    })?;
    Ok(completion)
}

/// The last word, which may be empty, and what is before it.
fn split(line: &str) -> (&str, &str) {
    line.split_at(line.rfind(' ').map_or(0, |space| space + 1))
}
