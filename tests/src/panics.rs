//! Which panics of the image a trap can come to, by its instructions; and which of these are known, with the reason why each isn't
//! reached: `tests/panics.toml`.
//!
//! A panic is a call of a function that only leads to the panic handler, or BRK. Where it is said to be is the innermost function of
//! a crate other than `core` and `alloc` that its instruction is of: that is the same wherever the compiler puts a function's code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::call_graph::CallGraph;
use crate::code::Code;
use crate::source::{Source, plain_name};
use crate::{Failure, Outcome, ensure};

/// Where `vectors.s` goes when a guest is interrupted. EL2's own exceptions are none of a guest's, and crash anyhow.
const TRAPS: [&str; 3] = ["sync", "irq", "serror"];
/// What every panic comes to.
const HANDLER: &str = "__rustc::rust_begin_unwind";
/// Crates whose functions are named by whoever calls them.
const LIBRARY: [&str; 3] = ["core", "alloc", "compiler_builtins"];

/// Types whose methods are the library's.
const BUILT_IN: [&str; 8] = ["bool", "char", "str", "u8", "u16", "u32", "u64", "usize"];

/// A panic that is left in the image, and why no trap comes to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Left {
    functions: Vec<String>,
    panics: Vec<String>,
    why: String,
    /// They may be missing: that depends on how the library was built.
    #[serde(default)]
    may_be_missing: bool,
}

/// Functions whose addresses are taken where no trap comes, and why a trap calls them, or doesn't.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    functions: Vec<String>,
    why: String,
}

/// What is known of panics.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanicList {
    /// Where firmware and the CPU enter the image: no call goes there.
    entered: Known,
    /// What boot stores for traps to call.
    stored: Known,
    left: Vec<Left>,
}

/// A panic that a trap can come to, as far as the image's instructions say.
#[derive(Clone, Debug)]
pub struct Panic {
    /// The function of the source.
    function: String,
    /// The function that is called, or `brk`.
    panic: String,
    /// Where, in the image and in the source.
    place: String,
    /// From the function to the vectors.
    way: Vec<String>,
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, panic, place, way } = self;
        write!(f, "{function}\n    panics with {panic}, {place}\n    by {}", way.join(" < "))
    }
}

impl PanicList {
    /// The project's.
    ///
    /// # Errors
    /// When the file can't be read, or something in it is wrong.
    pub fn load() -> Outcome<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("panics.toml");
        let text = fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
        let list: Self =
            toml::from_str(&text).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))?;
        let reasons = list.left.iter().map(|left| &left.why).chain([&list.entered.why, &list.stored.why]);
        ensure(reasons.into_iter().all(|why| why.split_whitespace().count() > 3), || {
            format!("{}: an entry gives no reason", path.display())
        })?;
        Ok(list)
    }

    /// Fails unless the list has all of these panics, and no others.
    ///
    /// # Errors
    /// Says which are too many or too few.
    pub fn check(&self, panics: &[Panic]) -> Outcome {
        let found: BTreeMap<(&str, &str), &Panic> =
            panics.iter().map(|panic| ((&*panic.function, &*panic.panic), panic)).collect();
        let known: BTreeSet<(&str, &str)> = self.left.iter().flat_map(Left::pairs).collect();
        let new = found.iter().filter(|(pair, _)| !known.contains(pair));
        let new: Vec<String> = new.map(|(_, panic)| panic.to_string()).collect();
        ensure(new.is_empty(), || {
            format!("a trap can come to panics that panics.toml doesn't have:\n{}", new.join("\n"))
        })?;
        // Each function and each panic is to be in one pair at least.
        let mut gone = BTreeSet::new();
        for left in self.left.iter().filter(|left| !left.may_be_missing) {
            let is_there = |name: &str| {
                left.pairs().any(|pair| (pair.0 == name || pair.1 == name) && found.contains_key(&pair))
            };
            gone.extend(left.functions.iter().chain(&left.panics).filter(|name| !is_there(name)));
        }
        ensure(gone.is_empty(), || {
            format!("panics.toml has what no trap can come to any more, as far as the image tells: {gone:#?}")
        })
    }
}

impl Left {
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let of = |function| self.panics.iter().map(move |panic: &String| (function, panic.as_str()));
        self.functions.iter().map(String::as_str).flat_map(of)
    }
}

/// The names of an image's functions.
struct Names(Vec<(u64, String)>);

impl Names {
    fn of(code: &Code) -> Self {
        Self(code.functions().iter().map(|(start, name)| (*start, plain_name(name))).collect())
    }

    fn name(&self, function: u64) -> &str {
        self.0.iter().find(|(start, _)| *start == function).map_or("?", |(_, name)| name)
    }

    /// All functions that have one of these names.
    fn find<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Outcome<BTreeSet<u64>> {
        let mut found = BTreeSet::new();
        for wanted in names {
            let before = found.len();
            found.extend(self.0.iter().filter(|(_, name)| name == wanted).map(|(start, _)| *start));
            ensure(found.len() > before, || format!("the image has no other function {wanted}"))?;
        }
        Ok(found)
    }

    fn find_known(&self, known: &Known) -> Outcome<BTreeSet<u64>> {
        self.find(known.functions.iter().map(String::as_str))
    }
}

/// The panics that a guest's trap can come to in an image.
///
/// # Errors
/// When the file can't be read, `list` names a function that isn't there, or it isn't known whether a trap calls a function whose
/// address is taken.
pub fn panics_from_traps(elf: &Path, list: &PanicList) -> Outcome<Vec<Panic>> {
    let code = Code::read(elf)?;
    let file = fs::read(elf).map_err(Failure::io(format!("read {}", elf.display())))?;
    let source = Source::parse(&file)?;
    let names = Names::of(&code);
    let graph = CallGraph::new(&code);

    let handler = names.find([HANDLER])?;
    let ends: BTreeSet<u64> = handler.iter().flat_map(|handler| graph.only_lead_to(*handler)).collect();
    let entered = names.find_known(&list.entered)?;
    let first: Vec<u64> = names.find(TRAPS)?.into_iter().chain(names.find_known(&list.stored)?).collect();
    let reached = graph.reach(&first, &entered, &ends)?;

    // What boot hands to `core::fmt` is called by the formatting that it is handed to, and not kept. A table for that has how its
    // type is dropped, too.
    let is_for_formatting = |name: &str| {
        ["core::fmt::Write::", " as core::fmt::", "core::ptr::drop_in_place"]
            .iter()
            .any(|part| name.contains(part))
    };
    let kept_back = reached.kept_back.iter().filter(|function| !entered.contains(function));
    let unknown: Vec<&str> =
        kept_back.map(|function| names.name(*function)).filter(|name| !is_for_formatting(name)).collect();
    ensure(unknown.is_empty(), || {
        format!(
            "panics.toml doesn't say whether a trap calls these, whose addresses boot takes: {unknown:#?}"
        )
    })?;

    let panic = |function: u64, at: u64, panic: &str| {
        let frames = source.frames(at);
        let frame = frames.iter().find(|frame| !is_of_library(&frame.function)).or(frames.last());
        let name = frame.map_or(names.name(function), |frame| &frame.function);
        Panic {
            function: if is_of_library(name) { module(name) } else { name }.to_owned(),
            panic: panic.to_owned(),
            place: format!("image + {at:#x}, {}", frame.map_or("?", |frame| &frame.place)),
            way: reached.way(function).into_iter().map(|function| names.name(function).to_owned()).collect(),
        }
    };
    let looked_at: BTreeSet<u64> = reached.functions().filter(|function| !ends.contains(function)).collect();
    let mut panics = Vec::new();
    for function in &looked_at {
        let calls = graph.calls(*function).iter().filter(|(_, callee)| ends.contains(callee));
        panics.extend(calls.map(|(at, callee)| panic(*function, *at, names.name(*callee))));
    }
    for (at, word) in code.instructions().filter(|(_, word)| word & 0xffe0_001f == 0xd420_0000) {
        if let Some(function) = code.start(at).filter(|function| looked_at.contains(function)) {
            panics.push(panic(function, at, &format!("brk #{}", word >> 5 & 0xffff)));
        }
    }
    Ok(panics)
}

/// Whether a function is the library's: by its type's crate, or its trait's where the type is built in.
fn is_of_library(name: &str) -> bool {
    let (of, way) = name.strip_prefix('<').and_then(|name| name.split_once(" as ")).unwrap_or((name, ""));
    let of = of.trim_start_matches(['<', '&', '[', '*']);
    let path = if of.contains("::") || way.is_empty() { of } else { way };
    let first = path.split("::").next().unwrap_or_default();
    LIBRARY.contains(&first) || BUILT_IN.contains(&first)
}

/// `a::b::c` of a name `a::b::c::d` and so on: which function of the library it is matters less than which part of it.
fn module(name: &str) -> &str {
    let name = name.trim_start_matches('<');
    let end = name.match_indices("::").nth(2).map_or(name.len(), |(end, _)| end);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_library_are_known_by_name() {
        for name in [
            "core::slice::index::get",
            "<[T] as core::ops::Index>::index",
            "usize::pow",
            "<alloc::V as a::B>::c",
        ] {
            assert!(is_of_library(name), "{name}");
        }
        for name in ["vgic::lines::save", "<hanok::Cut as core::fmt::Write>::write_str", "corelib::f"] {
            assert!(!is_of_library(name), "{name}");
        }
        assert_eq!(
            module("alloc::collections::btree::map::BTreeMap<K,V,A>::insert"),
            "alloc::collections::btree"
        );
        assert_eq!(module("core::f"), "core::f");
    }

    fn panic(function: &str, panic: &str) -> Panic {
        let way = vec![function.to_owned(), "sync".to_owned()];
        Panic { function: function.to_owned(), panic: panic.to_owned(), place: String::new(), way }
    }

    #[test]
    fn one_more_or_one_less_is_an_error() {
        let known = || Known { functions: Vec::new(), why: String::new() };
        let left = Left {
            functions: vec!["f".into(), "g".into()],
            panics: vec!["p".into()],
            why: String::new(),
            may_be_missing: false,
        };
        let list = PanicList { entered: known(), stored: known(), left: vec![left] };
        let (f, g) = (panic("f", "p"), panic("g", "p"));
        assert!(list.check(&[f.clone(), g.clone()]).is_ok());
        let less = list.check(std::slice::from_ref(&g)).unwrap_err().to_string();
        assert!(less.contains("\"f\""), "{less}");
        let more = list.check(&[f, g, panic("f", "q")]).unwrap_err().to_string();
        assert!(more.contains("panics with q") && more.contains("f < sync"), "{more}");
    }
}
