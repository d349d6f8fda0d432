//! Strips a guest's ELF to what is loaded, so that a bundle doesn't carry its symbols and debug information.
//!
//! Header, program headers of the PT_LOAD segments, and their bytes, packed; no sections. Addresses are unchanged.

use object::LittleEndian as Le;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{U16, U64, pod};

/// Alignment of a segment's bytes in the file: enough for whoever copies words.
const ALIGN: usize = 8;

/// Returns the stripped file, or what the ELF reader says of one that isn't a 64-bit little-endian ELF.
pub fn strip(file: &[u8]) -> Result<Vec<u8>, String> {
    let header = FileHeader64::<Le>::parse(file).map_err(|why| why.to_string())?;
    header.endian().map_err(|why| why.to_string())?;
    let mut segments = header.program_headers(Le, file).map_err(|why| why.to_string())?.to_vec();
    segments.retain(|segment| segment.p_type(Le) == elf::PT_LOAD && segment.p_memsz(Le) != 0);

    let header_len = size_of::<FileHeader64<Le>>();
    let mut content = vec![0; header_len + segments.len() * size_of::<ProgramHeader64<Le>>()];
    for segment in &mut segments {
        let bytes = segment.data(Le, file).map_err(|()| "a segment lies outside of the file")?;
        content.resize(content.len().next_multiple_of(ALIGN), 0);
        segment.p_offset = U64::new(Le, content.len() as u64);
        segment.p_align = U64::new(Le, ALIGN as u64);
        content.extend_from_slice(bytes);
    }
    let mut header = *header;
    header.e_phoff = U64::new(Le, header_len as u64);
    header.e_phnum = U16::new(Le, segments.len() as u16);
    header.e_shoff = U64::new(Le, 0);
    header.e_shnum = U16::new(Le, 0);
    header.e_shstrndx = U16::new(Le, elf::SHN_UNDEF);
    content[..header_len].copy_from_slice(pod::bytes_of(&header));
    let table = pod::bytes_of_slice(&segments);
    content[header_len..header_len + table.len()].copy_from_slice(table);
    Ok(content)
}
