//! The image's code: which function lies where, and its instructions, by the ELF file.

use std::fs;
use std::path::Path;

use object::elf::PF_X;
use object::read::elf::{ElfFile64, SectionHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSegment, ObjectSymbol, SectionKind, SegmentFlags};

use crate::{Failure, Outcome};

/// The code of an ELF file that is linked at 0, so that addresses are offsets into the image.
pub struct Code {
    /// By address. Functions that are written in assembly have no size: each reaches to the next one.
    functions: Vec<(u64, String)>,
    /// What the linker script marks, wherever that is.
    marks: Vec<(u64, String)>,
    instructions: Vec<u32>,
    /// The words that are relocated at boot, by place, and what they hold.
    addresses_in_data: Vec<(u64, u64)>,
}

impl Code {
    /// Reads an ELF file.
    ///
    /// # Errors
    /// When it can't be read or has no code.
    pub fn read(path: &Path) -> Outcome<Self> {
        let file = fs::read(path).map_err(Failure::io(format!("read {}", path.display())))?;
        Self::parse(&file).map_err(|why| Failure::Wrong(format!("{}: {why}", path.display())))
    }

    fn parse(file: &[u8]) -> Result<Self, String> {
        let elf = ElfFile64::<LittleEndian>::parse(file).map_err(|error| error.to_string())?;
        let text = elf.sections().find(|section| section.kind() == SectionKind::Text);
        let text = text.filter(|text| text.address() == 0).ok_or("no code is linked at 0")?;
        let in_text = elf.symbols().filter(|symbol| symbol.section_index() == Some(text.index()));
        let mut functions = Vec::new();
        for symbol in in_text {
            let name = symbol.name().map_err(|error| error.to_string())?;
            // Marks between code and data ($x, $d) are no names.
            if !name.is_empty() && !name.starts_with('$') {
                functions.push((symbol.address(), name.to_owned()));
            }
        }
        functions.sort_unstable();
        let mut marks = Vec::new();
        for symbol in elf.symbols() {
            let name = symbol.name().map_err(|error| error.to_string())?;
            if name.starts_with("__") {
                marks.push((symbol.address(), name.to_owned()));
            }
        }
        let bytes = text.data().map_err(|error| error.to_string())?;
        let (words, _) = bytes.as_chunks();
        let instructions = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let addresses_in_data = addresses_in_data(&elf).map_err(|error| error.to_string())?;
        Ok(Self { functions, marks, instructions, addresses_in_data })
    }

    /// Of these functions and instructions.
    #[cfg(test)]
    pub(crate) fn with_functions(functions: Vec<(u64, String)>, instructions: &[u32]) -> Self {
        Self {
            functions,
            marks: Vec::new(),
            instructions: instructions.to_vec(),
            addresses_in_data: Vec::new(),
        }
    }

    /// Where the function begins whose name has this part; the compiler adds to names.
    ///
    /// # Errors
    /// When there is none.
    pub fn address(&self, part: &str) -> Outcome<u64> {
        let found = self.functions.iter().find(|(_, name)| name.contains(part));
        found.map(|(address, _)| *address).ok_or_else(|| Failure::Wrong(format!("the image has no {part}")))
    }

    /// Where the linker script's mark of this name is.
    ///
    /// # Errors
    /// When there is none.
    pub fn mark(&self, name: &str) -> Outcome<u64> {
        let found = self.marks.iter().find(|(_, mark)| mark == name);
        found.map(|(address, _)| *address).ok_or_else(|| Failure::Wrong(format!("the image has no {name}")))
    }

    /// The function that an address is in.
    pub fn function(&self, address: u64) -> Option<&str> {
        self.function_at(address).map(|(_, name)| name.as_str())
    }

    /// Where the function begins that an address is in.
    pub fn start(&self, address: u64) -> Option<u64> {
        self.function_at(address).map(|(start, _)| *start)
    }

    /// Each function's first address and name. One that is there once, though it is several, has several names.
    pub fn functions(&self) -> &[(u64, String)] {
        &self.functions
    }

    fn function_at(&self, address: u64) -> Option<&(u64, String)> {
        self.instruction(address)?;
        let behind = self.functions.partition_point(|(start, _)| *start <= address);
        self.functions.get(behind.checked_sub(1)?)
    }

    /// Addresses that lie in data, behind the places where they do.
    pub fn addresses_in_data(&self) -> &[(u64, u64)] {
        &self.addresses_in_data
    }

    /// The instruction at an address.
    pub fn instruction(&self, address: u64) -> Option<u32> {
        let index = usize::try_from(address / 4).ok()?;
        self.instructions.get(index).filter(|_| address.is_multiple_of(4)).copied()
    }

    /// All instructions with their addresses.
    pub fn instructions(&self) -> impl Iterator<Item = (u64, u32)> {
        (0..).step_by(4).zip(self.instructions.iter().copied())
    }
}

/// The words that the start code relocates, and what they hold.
fn addresses_in_data(elf: &ElfFile64<'_, LittleEndian>) -> object::read::Result<Vec<(u64, u64)>> {
    let mut addresses = Vec::new();
    for section in elf.elf_section_table().iter() {
        for place in section.relr(LittleEndian, elf.data())?.into_iter().flatten() {
            let holder = elf.sections().filter(|section| section.kind() != SectionKind::UninitializedData);
            let word = holder.filter_map(|section| section.data_range(place, 8).ok().flatten()).next();
            let word = word.and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
            addresses.extend(word.map(|word| (place, word)));
        }
    }
    Ok(addresses)
}

/// An ELF file's executable segments: where each begins, and its instructions. Guests' files have no sections.
///
/// # Errors
/// When it can't be read, or has no code.
pub(crate) fn executable(path: &Path) -> Outcome<Vec<(u64, Vec<u32>)>> {
    let wrong = |why: String| Failure::Wrong(format!("{}: {why}", path.display()));
    let file = fs::read(path).map_err(Failure::io(format!("read {}", path.display())))?;
    let elf = ElfFile64::<LittleEndian>::parse(&*file).map_err(|error| wrong(error.to_string()))?;
    let executable = |flags| matches!(flags, SegmentFlags::Elf { p_flags, .. } if p_flags.contains(PF_X));
    let mut segments = Vec::new();
    for segment in elf.segments().filter(|segment| executable(segment.flags())) {
        let bytes = segment.data().map_err(|error| wrong(error.to_string()))?;
        let (code, _) = bytes.as_chunks();
        segments.push((segment.address(), code.iter().map(|word| u32::from_le_bytes(*word)).collect()));
    }
    if segments.iter().all(|(_, code): &(_, Vec<u32>)| code.is_empty()) {
        return Err(wrong("it has no code".to_owned()));
    }
    Ok(segments)
}
