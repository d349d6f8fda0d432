//! An arm64 `Image` made of a guest's ELF, for those who load nothing else. The program is the very same: in front of it comes a page
//! with the header, whose first instruction jumps to the entry.

use object::LittleEndian as Le;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};

/// What comes in front of the program, in bytes: a page, so that the program lies on pages as it did.
const FRONT: u64 = 4096;
/// An `Image` is placed at a multiple of this, plus its `text_offset` (Linux, Documentation/arch/arm64/booting.rst).
const PLACEMENT: u64 = 2 << 20;
/// "ARM\x64", at byte 56.
const MAGIC: u32 = 0x644d_5241;
/// Flags: 4 KiB pages, little-endian.
const FLAGS: u64 = 1 << 1;
/// The largest guest, in bytes, that makes sense; B reaches as far.
const MAX_SPAN: u64 = 64 << 20;

/// Why an ELF can't become an `Image`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GuestImageError {
    /// Not an ELF file that can be read, with the reader's reason.
    #[error("not a readable 64-bit little-endian ELF: {0}")]
    Elf(String),
    /// Nothing in it is loaded.
    #[error("the ELF has no PT_LOAD segment")]
    Empty,
    /// The first segment doesn't start at a page, or at 0, where there is no room in front.
    #[error("the first segment starts at {0:#x}: it has to be a page's start, and not the first one's")]
    Base(u64),
    /// Segments that are too far apart, or end before they start.
    #[error("the segments span {from:#x}..{to:#x}, more than {MAX_SPAN} bytes")]
    Span {
        /// Lowest address.
        from: u64,
        /// Address behind the last byte.
        to: u64,
    },
    /// The entry is no instruction of the program.
    #[error("the entry point {0:#x} isn't in the segments, or not aligned to 4")]
    Entry(u64),
    /// A segment has more bytes in the file than in memory.
    #[error("the segment at {0:#x} has more bytes than its memory size holds")]
    Segment(u64),
}

/// Makes the `Image`. Loaded at a multiple of 2 MiB plus its `text_offset`, it lies where the ELF is linked, if the multiple is
/// the one below.
///
/// # Errors
/// When the ELF isn't such as can be laid out so.
pub fn build(file: &[u8]) -> Result<Vec<u8>, GuestImageError> {
    let unreadable = |why: object::Error| GuestImageError::Elf(why.to_string());
    let header = FileHeader64::<Le>::parse(file).map_err(unreadable)?;
    header.endian().map_err(unreadable)?;
    let segments = header.program_headers(Le, file).map_err(unreadable)?;
    let loaded = || segments.iter().filter(|segment| segment.p_type(Le) == elf::PT_LOAD);

    let from = loaded().map(|segment| segment.p_paddr(Le)).min().ok_or(GuestImageError::Empty)?;
    let end = |segment: &&elf::ProgramHeader64<Le>| segment.p_paddr(Le).saturating_add(segment.p_memsz(Le));
    let to = loaded().map(|segment| end(&segment)).max().ok_or(GuestImageError::Empty)?;
    if from == 0 || !from.is_multiple_of(FRONT) {
        return Err(GuestImageError::Base(from));
    }
    let span = to.checked_sub(from).filter(|span| *span <= MAX_SPAN);
    let span = span.ok_or(GuestImageError::Span { from, to })?;
    let entry = header.e_entry(Le);
    if !(from..to).contains(&entry) || !entry.is_multiple_of(4) {
        return Err(GuestImageError::Entry(entry));
    }

    let mut image = front(from, entry, span);
    for segment in loaded() {
        let bytes =
            segment.data(Le, file).map_err(|()| GuestImageError::Elf("it ends in a segment".to_owned()))?;
        if bytes.len() as u64 > segment.p_memsz(Le) {
            return Err(GuestImageError::Segment(segment.p_paddr(Le)));
        }
        // All of it lies within the span, which is checked.
        let at = (FRONT + segment.p_paddr(Le) - from) as usize;
        image.resize(image.len().max(at + bytes.len()), 0);
        image[at..][..bytes.len()].copy_from_slice(bytes);
    }
    Ok(image)
}

/// The page with the header, for a program of `span` bytes from `from` on.
fn front(from: u64, entry: u64, span: u64) -> Vec<u8> {
    // B, by as many instructions.
    let jump = 0x1400_0000 | ((FRONT + entry - from) / 4) as u32;
    let mut page = Vec::with_capacity(FRONT as usize);
    page.extend(jump.to_le_bytes());
    page.extend([0; 4]);
    for field in [(from - FRONT) % PLACEMENT, FRONT + span, FLAGS, 0, 0, 0] {
        page.extend(field.to_le_bytes());
    }
    page.extend(MAGIC.to_le_bytes());
    page.resize(FRONT as usize, 0);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF with these segments: address, bytes, size in memory.
    fn elf(entry: u64, segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        // ET_EXEC, AArch64, version 1.
        file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
        for field in [entry, 64, 0] {
            file.extend(field.to_le_bytes());
        }
        file.extend([0; 4]);
        for field in [64, 56, segments.len() as u16, 64, 0, 0] {
            file.extend(field.to_le_bytes());
        }
        let mut offset = 64 + 56 * segments.len() as u64;
        for (address, bytes, size) in segments {
            file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
            for field in [offset, *address, *address, bytes.len() as u64, *size, 8] {
                file.extend(field.to_le_bytes());
            }
            offset += bytes.len() as u64;
        }
        segments.iter().for_each(|(_, bytes, _)| file.extend(*bytes));
        file
    }

    fn word(image: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(image[at..][..8].try_into().expect("eight bytes"))
    }

    #[test]
    fn the_program_lies_where_it_is_linked() {
        let file = elf(0x4020_0008, &[(0x4020_0000, &[1; 16], 16), (0x4020_1000, &[2; 4], 0x3000)]);
        let image = build(&file).expect("it is sound");
        let base = 0x4000_0000 + word(&image, 8);
        assert_eq!(base, 0x401f_f000);
        assert_eq!(base + word(&image, 16), 0x4020_4000, "memory reaches to the end of the last segment");
        assert_eq!(&image[56..60], b"ARM\x64");
        assert_eq!(image.len(), 0x2004, "what is zero at the end isn't in the file");
        assert_eq!((&image[0x1000..][..16], &image[0x2000..]), (&[1; 16][..], &[2; 4][..]));
        assert!(image[0x1010..0x2000].iter().all(|byte| *byte == 0));
        // 0x1400_0000 is B; the rest is how many instructions forward.
        assert_eq!(word(&image, 0), 0x1400_0000 + 0x1008 / 4);
    }

    #[test]
    fn what_cannot_be_laid_out_is_refused() {
        let of = |entry, segments: &[(u64, &[u8], u64)]| build(&elf(entry, segments)).expect_err("refused");
        assert_eq!(of(0x1000, &[]), GuestImageError::Empty);
        assert_eq!(of(0, &[(0, &[1; 4], 4)]), GuestImageError::Base(0));
        assert_eq!(of(0x1004, &[(0x1004, &[1; 4], 4)]), GuestImageError::Base(0x1004));
        assert_eq!(of(0x1004, &[(0x1000, &[1; 4], 4)]), GuestImageError::Entry(0x1004));
        assert_eq!(of(0x1002, &[(0x1000, &[1; 4], 4)]), GuestImageError::Entry(0x1002));
        assert_eq!(of(0x1000, &[(0x1000, &[1; 8], 4)]), GuestImageError::Segment(0x1000));
        let far: [(u64, &[u8], u64); 2] = [(0x1000, &[1; 4], 4), (0x1_0000_0000, &[], 4)];
        assert_eq!(of(0x1000, &far), GuestImageError::Span { from: 0x1000, to: 0x1_0000_0004 });
        assert!(matches!(build(b"\x7fELF"), Err(GuestImageError::Elf(_))));
    }
}
