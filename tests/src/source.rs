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

/// A symbol's name as Rust writes it, without what the compiler adds to tell it from others.
pub fn plain_name(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}
