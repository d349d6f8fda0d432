//! The flat boot image: what QEMU's `-kernel`, U-Boot's `booti` and the Raspberry Pi firmware load.
//!
//! The ELF's PT_LOAD segments are laid out from the lowest address on, and what would fail on a board without a
//! word is refused here: a wrong `Image` header, a relocation that EL2's start code doesn't apply, a segment that
//! is writable and executable. It changes no byte; the header is the linker script's and the entry code's.

use object::LittleEndian as Le;
use object::elf::{self, FileHeader64, ProgramHeader64, SectionHeader64};
use object::read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader};

/// Size in bytes of the arm64 `Image` header (Linux, Documentation/arch/arm64/booting.rst).
const HEADER_LEN: u64 = 64;
/// "ARM\x64" at byte 56 of the header.
const MAGIC: u32 = 0x644d_5241;
/// The image is placed at a 2 MiB boundary plus `text_offset`.
const PLACEMENT: u64 = 2 << 20;
/// Largest image, in bytes, that makes sense: a wrong address in the linker script shows here.
const MAX_SPAN: u64 = 256 << 20;

/// Why an ELF can't become a boot image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ImageError {
    /// Not an ELF file that can be read, with the reader's reason.
    #[error("not a readable 64-bit little-endian ELF: {0}")]
    Elf(String),
    /// Another machine than AArch64 (`e_machine`).
    #[error("the ELF is for machine {0}, not AArch64 (183)")]
    Machine(u16),
    /// Not linked as position-independent executable (`e_type`).
    #[error("the ELF's type is {0}, not ET_DYN (3): it wasn't linked with -pie")]
    NotPie(u16),
    /// No PT_LOAD segment with content.
    #[error("the ELF has no PT_LOAD segment")]
    Empty,
    /// The segments reach too far apart.
    #[error("the segments span {from:#x}..{to:#x}, more than {MAX_SPAN} bytes")]
    Span {
        /// Lowest address.
        from: u64,
        /// Address after the last byte.
        to: u64,
    },
    /// A segment's file part lies outside of the file or is larger than its memory.
    #[error("the segment at {0:#x} has more bytes than the file or its memory size holds")]
    Segment(u64),
    /// Two segments share an address.
    #[error("two segments overlap at {0:#x}")]
    Overlap(u64),
    /// A segment that is writable and executable.
    #[error("the segment at {0:#x} is writable and executable")]
    WritableText(u64),
    /// The entry point isn't the image's first byte, where boot loaders jump to.
    #[error("the entry point is {entry:#x}, the image starts at {base:#x}")]
    Entry {
        /// `e_entry`.
        entry: u64,
        /// Lowest address.
        base: u64,
    },
    /// The first 64 bytes aren't an arm64 `Image` header.
    #[error("no arm64 Image header: {0:#010x} at byte 56, not {MAGIC:#010x} (\"ARM\\x64\")")]
    Magic(u32),
    /// `image_size` in the header isn't what the image takes up in memory.
    #[error("the header says image_size {header:#x}, the segments take {span:#x} bytes of memory")]
    Size {
        /// What the header says, in bytes.
        header: u64,
        /// From the lowest address to the end of bss, in bytes.
        span: u64,
    },
    /// `text_offset` is 2 MiB or more.
    #[error("the header says text_offset {0:#x}: it must be less than 2 MiB")]
    TextOffset(u64),
    /// Big-endian flag, or another page size than 4 KiB or unspecified.
    #[error("the header's flags are {0:#x}: little-endian and 4 KiB pages expected")]
    Flags(u64),
    /// A dynamic relocation that the start code doesn't apply.
    #[error(
        "relocation type {kind} at {offset:#x} in {section}: only packed relative ones (RELR) are applied at boot"
    )]
    Relocation {
        /// Relocation type, or the section type where it is REL.
        kind: u32,
        /// Where it applies.
        offset: u64,
        /// The section that holds it.
        section: String,
    },
    /// A relative relocation outside of the bytes that are loaded, or one that isn't aligned to 8.
    #[error("relocation at {0:#x}: not an aligned word inside the image's loaded bytes")]
    RelocationPlace(u64),
    /// No relative relocation at all: an image with a panic handler and formatting always has some.
    #[error("no relative relocation in the image: the linker script drops .relr.dyn")]
    NoRelocation,
}

/// Sizes of the image's parts, in bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Executable sections.
    pub text: u64,
    /// Sections that are neither writable nor executable, relocations included.
    pub rodata: u64,
    /// Writable sections with content in the file.
    pub data: u64,
    /// Writable sections without content in the file: bss, heap, stacks.
    pub bss: u64,
    /// What the image takes up in memory, from its first byte to its end.
    pub memory: u64,
}

/// A boot image, ready to be written to a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    /// The bytes from the lowest address to the last one that has content.
    pub bytes: Vec<u8>,
    /// Sizes of the parts.
    pub sizes: Sizes,
    /// How many relative relocations the start code applies.
    pub relocations: usize,
}

type Header = FileHeader64<Le>;

fn unreadable(error: object::read::Error) -> ImageError {
    ImageError::Elf(error.to_string())
}

/// Lays `elf` out flat and checks it.
pub fn flatten(elf: &[u8]) -> Result<Image, ImageError> {
    let header = Header::parse(elf).map_err(unreadable)?;
    let endian = header.endian().map_err(unreadable)?;
    if header.e_machine(endian) != elf::EM_AARCH64 {
        return Err(ImageError::Machine(header.e_machine(endian).0));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(ImageError::NotPie(header.e_type(endian).0));
    }
    let segments = loads(header.program_headers(endian, elf).map_err(unreadable)?)?;
    let layout = Layout::of(&segments)?;
    let bytes = layout.copy(elf, &segments)?;
    if header.e_entry(endian) != layout.base {
        return Err(ImageError::Entry { entry: header.e_entry(endian), base: layout.base });
    }
    check_header(&bytes, layout.memory)?;

    let sections = header.sections(endian, elf).map_err(unreadable)?;
    let mut sizes = Sizes { memory: layout.memory, ..Sizes::default() };
    let mut relocations = 0;
    for section in sections.iter().filter(|s| s.sh_flags(Le) & elf::SHF_ALLOC != elf::SectionFlags(0)) {
        sizes.add(section);
        let name = sections.section_name(endian, section).map_err(unreadable)?;
        relocations += check_relocations(elf, section, name, layout.base, bytes.len() as u64)?;
    }
    if relocations == 0 {
        return Err(ImageError::NoRelocation);
    }
    Ok(Image { bytes, sizes, relocations })
}

/// The PT_LOAD segments that take up memory, by ascending address, none writable and executable.
fn loads(headers: &[ProgramHeader64<Le>]) -> Result<Vec<&ProgramHeader64<Le>>, ImageError> {
    let mut loads: Vec<_> =
        headers.iter().filter(|h| h.p_type(Le) == elf::PT_LOAD && h.p_memsz(Le) != 0).collect();
    loads.sort_by_key(|h| h.p_vaddr(Le));
    let both = elf::PF_W.0 | elf::PF_X.0;
    match loads.iter().find(|h| h.p_flags(Le).0 & both == both) {
        Some(bad) => Err(ImageError::WritableText(bad.p_vaddr(Le))),
        None => Ok(loads),
    }
}

/// Where the image lies, by the ELF's addresses.
struct Layout {
    base: u64,
    memory: u64,
}

impl Layout {
    fn of(segments: &[&ProgramHeader64<Le>]) -> Result<Self, ImageError> {
        let base = segments.first().ok_or(ImageError::Empty)?.p_vaddr(Le);
        let mut end = base;
        for segment in segments {
            let from = segment.p_vaddr(Le);
            if from < end {
                return Err(ImageError::Overlap(from));
            }
            end = from.checked_add(segment.p_memsz(Le)).ok_or(ImageError::Segment(from))?;
        }
        if end - base > MAX_SPAN {
            return Err(ImageError::Span { from: base, to: end });
        }
        Ok(Self { base, memory: end - base })
    }

    /// The bytes up to the last one with content; gaps are zero, bss isn't part of the file.
    fn copy(&self, elf: &[u8], segments: &[&ProgramHeader64<Le>]) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        for segment in segments {
            let at = segment.p_vaddr(Le);
            let content = segment.data(Le, elf).map_err(|()| ImageError::Segment(at))?;
            if content.len() as u64 > segment.p_memsz(Le) {
                return Err(ImageError::Segment(at));
            }
            if !content.is_empty() {
                bytes.resize((at - self.base) as usize, 0);
                bytes.extend_from_slice(content);
            }
        }
        Ok(bytes)
    }
}

/// Checks the arm64 `Image` header against the image that it heads, which takes `memory` bytes.
fn check_header(bytes: &[u8], memory: u64) -> Result<(), ImageError> {
    let word =
        |at: usize| bytes.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
    let magic = word(HEADER_LEN as usize - 8) as u32;
    if magic != MAGIC {
        return Err(ImageError::Magic(magic));
    }
    let (text_offset, image_size, flags) = (word(8), word(16), word(24));
    if text_offset >= PLACEMENT {
        return Err(ImageError::TextOffset(text_offset));
    }
    // Less, and the boot loader may put the tree or the bundle into our bss; much more, and it is a mistake.
    if image_size < memory || image_size - memory >= PLACEMENT {
        return Err(ImageError::Size { header: image_size, span: memory });
    }
    // Bit 0: big-endian; bits 1 and 2: page size, 0 unspecified, 1 for 4 KiB; bit 3: anywhere in memory.
    let page_size = flags >> 1 & 3;
    if flags & !0xf != 0 || flags & 1 != 0 || page_size > 1 {
        return Err(ImageError::Flags(flags));
    }
    Ok(())
}

/// Checks the dynamic relocations that `section` holds, and counts them.
fn check_relocations(
    elf: &[u8],
    section: &SectionHeader64<Le>,
    name: &[u8],
    base: u64,
    loaded: u64,
) -> Result<usize, ImageError> {
    let name = || String::from_utf8_lossy(name).into_owned();
    if section.sh_type(Le) == elf::SHT_REL && section.sh_size(Le) != 0 {
        let kind = elf::SHT_REL.0;
        return Err(ImageError::Relocation { kind, offset: section.sh_addr(Le), section: name() });
    }
    if let Some((&[relocation, ..], _)) = section.rela(Le, elf).map_err(unreadable)? {
        let (kind, offset) = (relocation.r_type(Le, false).0, relocation.r_offset(Le));
        return Err(ImageError::Relocation { kind, offset, section: name() });
    }
    let mut count = 0;
    for offset in section.relr(Le, elf).map_err(unreadable)?.into_iter().flatten() {
        let inside = offset.checked_sub(base).is_some_and(|at| at <= loaded.saturating_sub(8));
        if !inside || offset % 8 != 0 {
            return Err(ImageError::RelocationPlace(offset));
        }
        count += 1;
    }
    Ok(count)
}

impl Sizes {
    fn add(&mut self, section: &SectionHeader64<Le>) {
        let flags = section.sh_flags(Le).0;
        let part = if flags & elf::SHF_EXECINSTR.0 != 0 {
            &mut self.text
        } else if flags & elf::SHF_WRITE.0 == 0 {
            &mut self.rodata
        } else if section.sh_type(Le) == elf::SHT_NOBITS {
            &mut self.bss
        } else {
            &mut self.data
        };
        *part += section.sh_size(Le);
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sizes { text, rodata, data, bss, memory } = self.sizes;
        write!(
            f,
            "text {text}, rodata {rodata}, data {data}, bss {bss} bytes; file {}, memory {memory} bytes; \
             {} relocations",
            self.bytes.len(),
            self.relocations
        )
    }
}
