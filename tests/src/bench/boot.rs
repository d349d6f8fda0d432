//! Where EL2's instructions go from the board's reset to the first instruction of a guest: from QEMU's log of each of them, by the
//! function that has it. What grows with a VM's memory or its payload is told apart from the rest.

use std::collections::HashMap;

use serde::Serialize;

use super::accesses::all_executed;
use super::{Row, System};
use crate::code::Code;
use crate::{Failure, Outcome};

/// The function that clears guests' memory and cleans it, by a part of its name.
pub(super) const SCRUB: &str = "5scrub5Scrub4step";
/// The function that copies payloads and cleans them.
const PAYLOAD: &str = "12guest_memory5write";
/// The function that invalidates the image's own lines, before caches are on.
const CACHES: &str = "invalidate_to_poc";
/// The compiler's functions for memory: what they do is their caller's.
const HELPERS: [&str; 4] = ["memcpy", "memmove", "memset", "memcmp"];
/// How many of the functions with the most instructions are told.
const TOLD: usize = 20;

/// Instructions of EL2's, from reset to the first one of a guest.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Boot {
    /// To clear guests' memory.
    pub scrub: u64,
    /// To copy payloads and trees.
    pub payload: u64,
    /// To invalidate the image's lines.
    pub caches: u64,
    /// All others.
    pub rest: u64,
    /// Of these, the functions that have most.
    pub functions: Vec<(String, u64)>,
}

impl Boot {
    /// From a log of all instructions of EL2's, whose code lies at `base`.
    ///
    /// # Errors
    /// When there is none of a kind that there should be: then names of functions have changed.
    pub fn read(el2: &Code, base: u64, log: &str) -> Outcome<Self> {
        let mut boot = Self::default();
        let mut by_function: HashMap<&str, u64> = HashMap::new();
        let mut caller = "";
        for (_, address) in all_executed(log) {
            let function = address.checked_sub(base).and_then(|offset| el2.function(offset));
            let Some(function) = function else { continue };
            if !HELPERS.contains(&function) {
                caller = function;
            }
            let place = match caller {
                _ if caller.contains(SCRUB) => &mut boot.scrub,
                _ if caller.contains(PAYLOAD) => &mut boot.payload,
                _ if caller.contains(CACHES) => &mut boot.caches,
                _ => by_function.entry(caller).or_default(),
            };
            *place += 1;
        }
        if [boot.scrub, boot.payload, boot.caches].contains(&0) {
            return Err(Failure::Wrong(format!("the image has no {SCRUB}, {PAYLOAD} or {CACHES}: {boot:?}")));
        }
        boot.rest = by_function.values().sum();
        let mut functions: Vec<_> =
            by_function.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        functions.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        functions.truncate(TOLD);
        boot.functions = functions;
        Ok(boot)
    }

    /// The row for [`rest`](Self::rest), with the GIC of this version.
    pub fn row(&self, gic: u8) -> Row {
        let rest = self.rest;
        let row = "boot-apart".to_owned();
        Row {
            system: System::Hanok,
            row,
            gic,
            rounds: 1,
            min: rest,
            median: rest,
            p99: rest,
            max: rest,
            histogram: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_helper_does_is_its_caller_s() {
        let names = ["_start", PAYLOAD, SCRUB, CACHES, "memcpy"];
        let functions = (0..).step_by(4).zip(names.map(str::to_owned)).collect();
        let el2 = Code::with_functions(functions, &[0; 5]);
        // Behind 0x1000 is nothing of EL2's.
        let log: String = [0, 16, 16, 4, 16, 16, 16, 8, 12, 0x1000, 0]
            .map(|offset: u64| format!("Trace 0: 0x7f [0/{:x}/0/0] name\n", 0x100 + offset))
            .concat();
        let boot = Boot::read(&el2, 0x100, &log).expect("it is sound");
        assert_eq!((boot.rest, boot.payload, boot.scrub, boot.caches), (4, 4, 1, 1));
        assert_eq!(boot.functions, [("_start".to_owned(), 4)]);
        assert!(Boot::read(&el2, 0x100, &log.replace("/108/", "/100/")).is_err(), "nothing was cleared");
    }
}
