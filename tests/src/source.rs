//! Which source an instruction of the image comes from, by its debugging information.

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};

use crate::{Failure, Outcome};

/// The debugging information of an ELF file.
pub struct Source<'a>(Context<EndianSlice<'a, LittleEndian>>);

/// One of the functions that an instruction is of: itself, or what it was compiled into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its name, as Rust writes it.
    pub function: String,
    /// `file.rs:line`, the file without the folders above its crate's sources.
    pub place: String,
}

impl<'a> Source<'a> {
    /// Of an ELF file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn parse(file: &'a [u8]) -> Outcome<Self> {
        let wrong = |why: String| Failure::Wrong(format!("debugging information: {why}"));
        let elf = ElfFile64::<object::LittleEndian>::parse(file).map_err(|error| wrong(error.to_string()))?;
        let section = |id: SectionId| -> Result<_, addr2line::gimli::Error> {
            let section = elf.section_by_name(id.name());
            let bytes = section.and_then(|section| section.data().ok()).unwrap_or_default();
            Ok(EndianSlice::new(bytes, LittleEndian))
        };
        let context = Dwarf::load(section).and_then(Context::from_dwarf);
        Ok(Self(context.map_err(|error| wrong(error.to_string()))?))
    }

    /// The functions that an instruction is of, the innermost first.
    pub fn frames(&self, address: u64) -> Vec<Frame> {
        let mut frames = Vec::new();
        let Ok(mut found) = self.0.find_frames(address).skip_all_loads() else { return frames };
        while let Ok(Some(frame)) = found.next() {
            let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
            let place = frame.location.map(|location| {
                let file = location.file.unwrap_or("?");
                // Of a crate of the registry, from its own folder on.
                let above = ["/library/", "/registry/src/"];
                let file =
                    above.iter().find_map(|above| file.rsplit_once(above)).map_or(file, |(_, file)| file);
                format!("{file}:{}", location.line.unwrap_or_default())
            });
            frames.push(Frame {
                function: name.map(|name: std::borrow::Cow<'_, str>| plain_name(&name)).unwrap_or_default(),
                place: place.unwrap_or_default(),
            });
        }
        frames
    }
}

/// A symbol's name as Rust writes it, without what the compiler adds to tell it from others, and without what types and constants it
/// is compiled for: compilers differ in how they write these. A method is named by its type, wherever its `impl` is.
pub fn plain_name(symbol: &str) -> String {
    let name = format!("{:#}", rustc_demangle::demangle(symbol));
    let mut plain = String::new();
    let mut rest = name.as_str();
    while let Some(at) = rest.find(['<', '{']) {
        let (before, group) = rest.split_at(at);
        plain.push_str(before);
        let (inner, behind) = enclosed(group);
        if group.starts_with('{') {
            plain.push_str("{closure}");
        } else if let Some(of) = inner.strip_prefix("impl ") {
            // The module that the `impl` is in says nothing.
            plain = match of.split_once(" for ") {
                Some((way, of)) => format!("<{} as {}>", plain_name(of), plain_name(way)),
                None => plain_name(of),
            };
        } else if !before.is_empty()
            && before.ends_with(|last: char| last.is_alphanumeric() || "_:>".contains(last))
        {
            // Of generic types and functions.
            plain.truncate(plain.trim_end_matches("::").len());
        } else if let Some((of, way)) = split_at_as(inner) {
            plain.push_str(&format!("<{} as {}>", plain_name(of), plain_name(way)));
        } else {
            plain.push_str(&plain_name(inner));
        }
        rest = behind;
    }
    plain + rest
}

/// What is between the bracket at the start of a text and the one that closes it, and what is behind.
fn enclosed(text: &str) -> (&str, &str) {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        // Not the arrow of a function's type.
        let is_arrow = character == '>' && text[..at].ends_with('-');
        match character {
            '<' | '{' => depth += 1,
            '>' | '}' if !is_arrow => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&text[1..at], &text[at + 1..]);
        }
    }
    (&text[1..], "")
}

/// `of as way`, outside of brackets.
fn split_at_as(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_i32;
    text.char_indices().find_map(|(at, character)| {
        depth += i32::from(character == '<') - i32::from(character == '>');
        let behind = text[at..].strip_prefix(" as ").filter(|_| depth == 0)?;
        Some((&text[..at], behind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_whoever_writes_them() {
        let same = [
            [
                "arrayvec::array_string::ArrayString<_>::push",
                "<arrayvec::array_string::ArrayString<512>>::push",
            ],
            ["hanok::vm::life::<impl hanok::vm::Vm>::end", "<hanok::vm::Vm>::end"],
            ["vgic::f::{{closure}}", "vgic::f::{closure#0}"],
            ["run::with_queue", "run::with_queue::<(), run::wake::{closure#1}>"],
            ["<a::B<R> as c::D>::e", "<a::B<u8> as c::D>::e"],
            ["<&T as core::fmt::Debug>::fmt", "<&T as core::fmt::Debug>::fmt"],
            [
                "core::slice::<impl core::ops::Index<I> for [T]>::index",
                "<[T] as core::ops::Index<usize>>::index",
            ],
        ];
        for [one, other] in same {
            assert_eq!(plain_name(one), plain_name(other));
        }
        assert_eq!(plain_name("hanok::vm::life::<impl hanok::vm::Vm>::end"), "hanok::vm::Vm::end");
        assert_eq!(plain_name("run::with_queue::<(), run::wake>"), "run::with_queue");
        assert_eq!(plain_name("<a::B<R> as c::D<E>>::e"), "<a::B as c::D>::e");
        assert_eq!(plain_name("core::num::<impl usize>::f"), "usize::f");
    }
}
