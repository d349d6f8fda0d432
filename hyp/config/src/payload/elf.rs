//! ELF files for AArch64: 64-bit, little-endian, linked at the addresses where they run.
//!
//! Segments go to their physical addresses (`p_paddr`). Relocations aren't applied: a position-independent file is loaded where it was
//! linked, and relocates itself if it needs to. Section headers, symbols and notes aren't looked at.

use alloc::vec::Vec;

use super::bytes::{array, le16, le32, le64, length};
use super::error::PayloadReason;
use super::kind;

/// Size of the file's header in bytes.
const HEADER: usize = 64;
/// Size of a program header in bytes.
const PROGRAM_HEADER: u16 = 56;
const CLASS_64: u8 = 2;
const DATA_LITTLE: u8 = 1;
const MACHINE_AARCH64: u16 = 183;
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;

/// A `PT_LOAD` program header with something in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load<'a> {
    /// Index of the program header, for messages.
    pub(super) index: usize,
    /// `p_vaddr`.
    pub(super) virtual_address: u64,
    /// `p_paddr`.
    pub(super) physical_address: u64,
    /// `p_memsz`.
    pub(super) memory_size: u64,
    /// What the file has of it; never longer than `memory_size`.
    pub(super) bytes: &'a [u8],
}

/// An ELF file, as far as loading it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File<'a> {
    /// What is loaded, in the order of the file; at least one.
    pub(super) loads: Vec<Load<'a>>,
    /// The physical address of the entry point.
    pub(super) entry: u64,
}

/// Reads an ELF file's headers.
pub(super) fn parse(file: &[u8]) -> Result<File<'_>, PayloadReason> {
    if !file.starts_with(&kind::ELF_MAGIC) {
        return Err(PayloadReason::NotElf { looks_like: kind::of(file) });
    }
    check_header(file.get(..HEADER).ok_or_else(|| short(file))?)?;
    let headers = program_headers(file)?;
    let mut loads = Vec::new();
    for (index, header) in headers.chunks_exact(PROGRAM_HEADER.into()).enumerate() {
        match le32(header, 0) {
            Some(PT_LOAD) => loads.extend(load(file, index, header)?),
            Some(PT_INTERP) => return Err(PayloadReason::ElfDynamic),
            Some(PT_DYNAMIC) => check_dynamic(contents(file, header)?)?,
            _ => {}
        }
    }
    if loads.is_empty() {
        return Err(PayloadReason::ElfNothingToLoad);
    }
    let entry = entry(field64(file, 24)?, &loads)?;
    super::aligned_entry(entry)?;
    Ok(File { loads, entry })
}

fn truncated(what: &'static str, end: Option<u64>, file: &[u8]) -> PayloadReason {
    PayloadReason::ElfTruncated { what, end: end.unwrap_or(u64::MAX), got: length(file) }
}

/// A file without all of its header.
fn short(file: &[u8]) -> PayloadReason {
    truncated("headers", Some(HEADER as u64), file)
}

/// A 64-bit field of a header.
fn field64(header: &[u8], at: u64) -> Result<u64, PayloadReason> {
    le64(header, at).ok_or_else(|| short(header))
}

fn check_header(header: &[u8]) -> Result<(), PayloadReason> {
    let [class, data] = array(header, 4).ok_or_else(|| short(header))?;
    if (class, data) != (CLASS_64, DATA_LITTLE) {
        return Err(PayloadReason::ElfClass { class, data });
    }
    let machine = le16(header, 18).ok_or_else(|| short(header))?;
    if machine != MACHINE_AARCH64 {
        return Err(PayloadReason::ElfMachine { machine });
    }
    match le16(header, 16).ok_or_else(|| short(header))? {
        TYPE_EXEC | TYPE_DYN => Ok(()),
        kind => Err(PayloadReason::ElfType { kind }),
    }
}

/// The bytes of all program headers.
fn program_headers(file: &[u8]) -> Result<&[u8], PayloadReason> {
    let start = field64(file, 32)?;
    let size = le16(file, 54).ok_or_else(|| short(file))?;
    let count = le16(file, 56).ok_or_else(|| short(file))?;
    if count == 0 {
        return Err(PayloadReason::ElfNothingToLoad);
    }
    if size != PROGRAM_HEADER {
        return Err(PayloadReason::ElfHeaderSize { size });
    }
    slice(file, start, u64::from(size).saturating_mul(count.into()), "program headers")
}

/// `size` bytes of the file from `start` on.
fn slice<'a>(file: &'a [u8], start: u64, size: u64, what: &'static str) -> Result<&'a [u8], PayloadReason> {
    let end = start.checked_add(size);
    let range = end.and_then(|end| Some(usize::try_from(start).ok()?..usize::try_from(end).ok()?));
    range.and_then(|range| file.get(range)).ok_or_else(|| truncated(what, end, file))
}

/// What the file holds for a program header.
fn contents<'a>(file: &'a [u8], header: &[u8]) -> Result<&'a [u8], PayloadReason> {
    slice(file, field64(header, 8)?, field64(header, 32)?, "segments")
}

/// One `PT_LOAD`; none if it is empty.
fn load<'a>(file: &'a [u8], index: usize, header: &[u8]) -> Result<Option<Load<'a>>, PayloadReason> {
    let bytes = contents(file, header)?;
    let memory_size = field64(header, 40)?;
    if length(bytes) > memory_size {
        return Err(PayloadReason::ElfSegmentSize {
            segment: index,
            file: length(bytes),
            memory: memory_size,
        });
    }
    if memory_size == 0 {
        return Ok(None);
    }
    Ok(Some(Load {
        index,
        virtual_address: field64(header, 16)?,
        physical_address: field64(header, 24)?,
        memory_size,
        bytes,
    }))
}

/// Nobody here loads the libraries that `DT_NEEDED` asks for.
fn check_dynamic(table: &[u8]) -> Result<(), PayloadReason> {
    let tags = table.chunks_exact(16).map_while(|entry| le64(entry, 0));
    if tags.take_while(|&tag| tag != DT_NULL).any(|tag| tag == DT_NEEDED) {
        return Err(PayloadReason::ElfDynamic);
    }
    Ok(())
}

/// `e_entry` is a virtual address; what runs is at the physical one, as the MMU is off.
fn entry(entry: u64, loads: &[Load<'_>]) -> Result<u64, PayloadReason> {
    let place = |load: &Load<'_>| {
        let offset = entry.checked_sub(load.virtual_address)?;
        (offset < length(load.bytes)).then(|| load.physical_address.checked_add(offset))?
    };
    loads.iter().find_map(place).ok_or(PayloadReason::EntryOutside { entry })
}
