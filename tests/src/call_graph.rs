//! Who calls whom in the image, by its instructions: what code can be reached from a given function on, and by which way.
//!
//! A direct call is a branch out of a function. An indirect one may go to every function whose address is taken by code that is
//! reached: by itself, or as a table of functions that has it, which is known by the table's first address. Where an address is
//! taken by code alone that isn't reached, this says so ([`Reached::kept_back`]): whether it is stored for an indirect call can't be
//! told from instructions.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::code::Code;
use crate::{Failure, Outcome};

type Functions = BTreeSet<u64>;

/// The functions of an image, each by its first address.
#[derive(Default)]
pub struct CallGraph {
    /// Branches out of each function, as place and destination.
    calls: BTreeMap<u64, Vec<(u64, u64)>>,
    /// Branches that leave a function for good, as it and their destinations.
    jumps: BTreeMap<u64, Functions>,
    /// The functions that return, or branch to what a register says.
    returns: Functions,
    /// The functions whose address each function takes, itself or in a table.
    takes: BTreeMap<u64, Functions>,
    /// Those in tables whose address is in data.
    in_data: Functions,
    /// Where a function takes a page's address alone, by ADRP. What it does with that isn't followed.
    pages: BTreeMap<u64, u64>,
}

/// What code can be reached.
pub struct Reached {
    /// Each function, and where it is reached from first: nothing, for the first ones.
    from: BTreeMap<u64, Option<u64>>,
    /// Functions whose address is taken by code that isn't reached, and which aren't reached otherwise.
    pub kept_back: Functions,
}

impl CallGraph {
    /// Of an image's code.
    pub fn new(code: &Code) -> Self {
        let mut graph = Self::default();
        let words: BTreeMap<u64, u64> = code.addresses_in_data().iter().copied().collect();
        // Who takes which address of data.
        let mut takers: BTreeMap<u64, Functions> = BTreeMap::new();
        for (at, word) in code.instructions() {
            let (Some(function), Some(meaning)) = (code.start(at), Meaning::of(at, word)) else { continue };
            let outside = |to| code.start(to).filter(|other| *other != function);
            match meaning {
                Meaning::Call(to) | Meaning::Jump(to) => {
                    let Some(callee) = outside(to) else { continue };
                    graph.calls.entry(function).or_default().push((at, callee));
                    if matches!(meaning, Meaning::Jump(_)) {
                        graph.jumps.entry(function).or_default().insert(callee);
                    }
                }
                Meaning::Return => {
                    graph.returns.insert(function);
                }
                // Jump tables are relative to a place within the function.
                Meaning::Address(to) => match code.start(to) {
                    Some(_) => graph.takes.entry(function).or_default().extend(outside(to)),
                    None => {
                        takers.entry(to).or_default().insert(function);
                    }
                },
                Meaning::Load(place) => {
                    let taken = words.get(&place).and_then(|address| code.start(*address));
                    graph.takes.entry(function).or_default().extend(taken);
                }
                Meaning::Page => {
                    graph.pages.entry(function).or_insert(at);
                }
            }
        }
        let in_data: BTreeSet<u64> =
            words.values().copied().filter(|address| code.start(*address).is_none()).collect();
        for (place, address) in &words {
            let Some(taken) = code.start(*address) else { continue };
            let by_code = takers.range(..=place).next_back();
            let by_data = in_data.range(..=place).next_back();
            match by_code.filter(|(table, _)| by_data.is_none_or(|by_data| by_data < table)) {
                Some((_, functions)) => {
                    functions.iter().for_each(|function| {
                        graph.takes.entry(*function).or_default().insert(taken);
                    });
                }
                None => {
                    graph.in_data.insert(taken);
                }
            }
        }
        graph
    }

    /// Branches out of a function, as place and destination.
    pub fn calls(&self, function: u64) -> &[(u64, u64)] {
        self.calls.get(&function).map_or(&[], Vec::as_slice)
    }

    /// The functions that don't come back, but end with a call of `last`, or stop.
    pub fn only_lead_to(&self, last: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::from([last]);
        loop {
            let leads = |function: &u64| {
                !self.returns.contains(function)
                    && self.calls(*function).iter().any(|(_, callee)| found.contains(callee))
                    && self.jumps.get(function).is_none_or(|jumps| jumps.is_subset(&found))
                    && !found.contains(function)
            };
            let more: Vec<u64> = self.calls.keys().copied().filter(leads).collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    /// What is reached from these functions on, and from those in tables that data has, but for `except`. What `ends` call isn't
    /// looked at.
    ///
    /// # Errors
    /// When code that is reached takes an address in a way that isn't followed.
    pub fn reach(&self, first: &[u64], except: &Functions, ends: &Functions) -> Outcome<Reached> {
        let mut from = BTreeMap::new();
        let mut next = VecDeque::new();
        for function in first.iter().chain(&self.in_data).filter(|function| !except.contains(function)) {
            if let Entry::Vacant(entry) = from.entry(*function) {
                entry.insert(None);
                next.push_back(*function);
            }
        }
        while let Some(function) = next.pop_front() {
            if ends.contains(&function) {
                continue;
            }
            if let Some(at) = self.pages.get(&function) {
                let way = Reached { from, kept_back: Functions::new() }.way(function);
                return Err(Failure::Wrong(format!(
                    "image + {at:#x} takes a page, which isn't followed; it is reached by the functions at {way:#x?}"
                )));
            }
            let called = self.calls(function).iter().map(|(_, callee)| *callee);
            let taken = self.takes.get(&function).into_iter().flatten().copied();
            for callee in called.chain(taken) {
                if let Entry::Vacant(entry) = from.entry(callee) {
                    entry.insert(Some(function));
                    next.push_back(callee);
                }
            }
        }
        let taken = self.takes.values().flatten().copied();
        let kept_back = taken.filter(|function| !from.contains_key(function)).collect();
        Ok(Reached { from, kept_back })
    }
}

impl Reached {
    /// All of it.
    pub fn functions(&self) -> impl Iterator<Item = u64> {
        self.from.keys().copied()
    }

    /// The shortest way to a function, from itself to the first one.
    pub fn way(&self, function: u64) -> Vec<u64> {
        let mut way = vec![function];
        let mut at = function;
        while let Some(Some(from)) = self.from.get(&at) {
            way.push(*from);
            at = *from;
        }
        way
    }
}

/// What an instruction means for who calls whom (Arm ARM, C4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// BL.
    Call(u64),
    /// Any other branch to an address.
    Jump(u64),
    /// ADR of this address.
    Address(u64),
    /// LDR (literal) of what is at this address.
    Load(u64),
    /// ADRP.
    Page,
    /// RET, ERET, or BR, which is a jump table's, or a call as the last step.
    Return,
}

impl Meaning {
    fn of(at: u64, word: u32) -> Option<Self> {
        let field = |low: u32, bits: u32| i64::from(word >> low & ((1 << bits) - 1));
        let signed = |value: i64, bits: u32| value << (64 - bits) >> (64 - bits);
        let behind = |low: u32, bits: u32| at.wrapping_add_signed(4 * signed(field(low, bits), bits));
        let is = |mask: u32, bits: u32| word & mask == bits;
        Some(match word {
            _ if is(0xfc00_0000, 0x9400_0000) => Self::Call(behind(0, 26)),
            _ if is(0xfc00_0000, 0x1400_0000) => Self::Jump(behind(0, 26)),
            // By condition, or by comparison with zero.
            _ if is(0xff00_0000, 0x5400_0000) || is(0x7e00_0000, 0x3400_0000) => Self::Jump(behind(5, 19)),
            _ if is(0x7e00_0000, 0x3600_0000) => Self::Jump(behind(5, 14)),
            _ if is(0x9f00_0000, 0x1000_0000) => {
                Self::Address(at.wrapping_add_signed(signed(field(5, 19) << 2 | field(29, 2), 21)))
            }
            _ if is(0xff00_0000, 0x5800_0000) => Self::Load(behind(5, 19)),
            _ if is(0x9f00_0000, 0x9000_0000) => Self::Page,
            // RET and BR; BLR is between them.
            _ if is(0xffff_fc1f, 0xd65f_0000) || is(0xffff_fc1f, 0xd61f_0000) => Self::Return,
            0xd69f_03e0 => Self::Return,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Words as an assembler makes them.
    #[test]
    fn meanings_are_told_by_the_word() {
        let wanted = [
            (0x9400_0004, Some(Meaning::Call(0x1010)), "bl .+16"),
            (0x97ff_ffff, Some(Meaning::Call(0xffc)), "bl .-4"),
            (0x1400_0002, Some(Meaning::Jump(0x1008)), "b .+8"),
            (0x5400_0041, Some(Meaning::Jump(0x1008)), "b.ne .+8"),
            (0xb400_0040, Some(Meaning::Jump(0x1008)), "cbz x0, .+8"),
            (0x3707_ffe0, Some(Meaning::Jump(0xffc)), "tbnz w0, #0, .-4"),
            (0x1000_0043, Some(Meaning::Address(0x1008)), "adr x3, .+8"),
            (0x70ff_ffe3, Some(Meaning::Address(0xfff)), "adr x3, .-1"),
            (0x5800_0043, Some(Meaning::Load(0x1008)), "ldr x3, .+8"),
            (0x9000_0003, Some(Meaning::Page), "adrp x3, ."),
            (0xd65f_03c0, Some(Meaning::Return), "ret"),
            (0xd61f_0060, Some(Meaning::Return), "br x3"),
            (0xd69f_03e0, Some(Meaning::Return), "eret"),
            (0xd63f_0060, None, "blr x3"),
            (0xd503_201f, None, "nop"),
        ];
        for (word, meaning, text) in wanted {
            assert_eq!(Meaning::of(0x1000, word), meaning, "{text}");
        }
    }

    /// Four functions of two words each.
    fn code(words: [u32; 8]) -> Code {
        let functions = (0..4).map(|n| (8 * n, format!("f{n}"))).collect();
        Code::with_functions(functions, &words)
    }

    const RET: u32 = 0xd65f_03c0;
    const NOP: u32 = 0xd503_201f;
    /// To the function behind this one, as its first instruction.
    const BL: u32 = 0x9400_0002;
    const B: u32 = 0x1400_0002;
    const ADR: u32 = 0x1000_0040;

    #[test]
    fn calls_jumps_and_addresses_are_followed() {
        let graph = CallGraph::new(&code([BL, RET, ADR, RET, B, NOP, NOP, RET]));
        let reached = graph.reach(&[0], &Functions::new(), &Functions::new()).unwrap();
        assert_eq!(reached.functions().collect::<Vec<_>>(), [0, 8, 16, 24]);
        assert_eq!(reached.way(24), [24, 16, 8, 0]);
        let reached = graph.reach(&[0], &Functions::new(), &Functions::from([8])).unwrap();
        assert_eq!(reached.functions().collect::<Vec<_>>(), [0, 8]);
        assert_eq!(reached.kept_back, Functions::from([16]));
    }

    #[test]
    fn what_may_return_does_not_only_lead_to_an_end() {
        // The first returns, and the second one doesn't; the third one jumps on.
        let graph = CallGraph::new(&code([BL, RET, BL, NOP, B, NOP, NOP, NOP]));
        assert_eq!(graph.only_lead_to(24), Functions::from([8, 16, 24]));
        // A jump elsewhere may return.
        let graph = CallGraph::new(&code([NOP, RET, BL, 0x17ff_fffd, NOP, NOP, NOP, NOP]));
        assert_eq!(graph.only_lead_to(16), Functions::from([16]));
    }

    #[test]
    fn pages_that_are_taken_are_refused() {
        let graph = CallGraph::new(&code([0x9000_0003, RET, NOP, RET, NOP, RET, NOP, RET]));
        assert!(graph.reach(&[0], &Functions::new(), &Functions::new()).is_err());
        assert!(graph.reach(&[8], &Functions::new(), &Functions::new()).is_ok());
    }
}
