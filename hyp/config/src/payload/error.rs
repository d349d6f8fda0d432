//! What can be wrong with a payload, in words for the person who chose it.

use thiserror::Error;

/// What is wrong with a VM's payload. Prints as `kernel: is gzip-compressed: give the plain arm64 Image`; the
/// caller puts the VM's name before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{property}: {reason}")]
pub struct PayloadError {
    /// The manifest's property.
    pub property: &'static str,
    /// What is wrong.
    pub reason: PayloadReason,
}

/// What is wrong with the bytes, or where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PayloadReason {
    /// A compressed kernel.
    #[error("is {0}-compressed: give the plain arm64 Image")]
    Compressed(Compression),
    /// A kernel that unpacks itself, but only under UEFI.
    #[error(
        "is an EFI zboot image with a compressed kernel inside ({compression}): give the plain arm64 Image"
    )]
    Zboot {
        /// How the kernel inside is compressed.
        compression: Compression,
    },
    /// Not an arm64 `Image`.
    #[error("is no arm64 Image (no \"ARM\\x64\" at byte 56){}", .looks_like.hint())]
    NotAnImage {
        /// What it is instead.
        looks_like: FileKind,
    },
    /// Less than the header of an `Image`.
    #[error("has {bytes} bytes: an arm64 Image has at least 64")]
    ShortImage {
        /// Its length.
        bytes: usize,
    },
    /// A kernel that would switch to big-endian.
    #[error("is a big-endian kernel, for which there are no devices here: give a little-endian one")]
    BigEndian,
    /// A kernel built for a granule that the CPU hasn't.
    #[error("needs pages of {kib} KiB, which this CPU doesn't have")]
    Granule {
        /// The granule in KiB.
        kib: u32,
    },
    /// Not an ELF file.
    #[error("is no ELF file{}", .looks_like.hint())]
    NotElf {
        /// What it is instead.
        looks_like: FileKind,
    },
    /// An ELF file among the raw payloads.
    #[error("is an ELF file: give it as elf")]
    IsElf,
    /// An ELF file of another class or byte order.
    #[error("is not a 64-bit little-endian ELF file (class {class}, data {data}; must be 2 and 1)")]
    ElfClass {
        /// `EI_CLASS`.
        class: u8,
        /// `EI_DATA`.
        data: u8,
    },
    /// An ELF file for another machine.
    #[error("is an ELF file for machine {machine}, not for AArch64 (183)")]
    ElfMachine {
        /// `e_machine`.
        machine: u16,
    },
    /// An ELF file that can't be run.
    #[error(
        "is an ELF file of type {kind}: only executables (2, or 3 if linked statically at its address) can run"
    )]
    ElfType {
        /// `e_type`.
        kind: u16,
    },
    /// An ELF file that needs a dynamic linker.
    #[error("needs a dynamic linker: link it statically")]
    ElfDynamic,
    /// Program headers of a size that isn't ELF's.
    #[error("has program headers of {size} bytes, must be 56")]
    ElfHeaderSize {
        /// `e_phentsize`.
        size: u16,
    },
    /// A part of the ELF file that isn't there.
    #[error("is truncated: its {what} end at byte {end:#x}, the file at {got:#x}")]
    ElfTruncated {
        /// Which part.
        what: &'static str,
        /// Where that part would end; `u64::MAX` if beyond any number.
        end: u64,
        /// The file's length.
        got: u64,
    },
    /// Nothing to load.
    #[error("has nothing to load (no PT_LOAD segment)")]
    ElfNothingToLoad,
    /// A segment with more bytes in the file than in memory.
    #[error("has {file:#x} bytes in the file for {memory:#x} in memory in segment {segment}")]
    ElfSegmentSize {
        /// Index of the program header.
        segment: usize,
        /// `p_filesz`.
        file: u64,
        /// `p_memsz`.
        memory: u64,
    },
    /// Two segments at the same place.
    #[error("has overlapping segments: {second} starts inside {first}, at {at:#x}")]
    ElfOverlap {
        /// Index of the one that starts first.
        first: usize,
        /// Index of the other.
        second: usize,
        /// Where the other starts.
        at: u64,
    },
    /// Something that would lie below RAM, or start above it.
    #[error("{what} at {start:#x}, outside of RAM ({ram_start:#x} to {ram_end:#x})")]
    OutsideRam {
        /// What it is, with its verb.
        what: What,
        /// Where it would start.
        start: u64,
        /// RAM's first address.
        ram_start: u64,
        /// The first address behind RAM.
        ram_end: u64,
    },
    /// Something that starts in RAM but doesn't fit.
    #[error("{what} at {start:#x} and is {size:#x} bytes long, but RAM ends at {ram_end:#x}: memory of {} KiB would do",
        .enough / 1024)]
    BeyondRam {
        /// What it is, with its verb.
        what: What,
        /// Where it would start.
        start: u64,
        /// Its size.
        size: u64,
        /// The first address behind RAM.
        ram_end: u64,
        /// The memory that would be enough for it, in bytes.
        enough: u64,
    },
    /// More than the layout's largest RAM.
    #[error("{what} at {start:#x} and is {size:#x} bytes long: no VM has that much memory")]
    TooLarge {
        /// What it is, with its verb.
        what: What,
        /// Where it would start.
        start: u64,
        /// Its size.
        size: u64,
    },
    /// An entry point with nothing there.
    #[error("has its entry point at {entry:#x}, outside of what is loaded")]
    EntryOutside {
        /// The entry point.
        entry: u64,
    },
    /// An entry point between instructions.
    #[error("has its entry point at {entry:#x}, not a multiple of 4")]
    EntryAlignment {
        /// The entry point.
        entry: u64,
    },
    /// Firmware, or what its variables start with, larger than its bank.
    #[error("has {bytes:#x} bytes, the flash bank {bank:#x}")]
    FlashSize {
        /// Its length.
        bytes: u64,
        /// The bank's size.
        bank: u64,
    },
    /// No room for the device tree beside the payload.
    #[error("leaves no room in RAM for the device tree of {size:#x} bytes: give the VM more memory")]
    NoRoomForTree {
        /// The tree's size.
        size: u64,
    },
    /// More memory than the layout has room for.
    #[error("{memory:#x} bytes are more than the layout's {most:#x}")]
    Memory {
        /// The VM's memory.
        memory: u64,
        /// The layout's.
        most: u64,
    },
}

/// The thing that doesn't fit, as the beginning of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum What {
    /// The payload as a whole.
    #[error("starts")]
    Payload,
    /// A segment of an ELF file, by the index of its program header.
    #[error("has segment {0}, which starts")]
    Segment(usize),
}

/// How a kernel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Compression {
    /// gzip.
    #[error("gzip")]
    Gzip,
    /// Zstandard.
    #[error("zstd")]
    Zstd,
    /// LZ4, either format.
    #[error("lz4")]
    Lz4,
    /// xz.
    #[error("xz")]
    Xz,
    /// bzip2.
    #[error("bzip2")]
    Bzip2,
    /// LZMA alone.
    #[error("lzma")]
    Lzma,
    /// LZO.
    #[error("lzo")]
    Lzo,
    /// A name that isn't known here.
    #[error("unknown compression")]
    Unknown,
}

/// What a file is, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// ELF.
    Elf,
    /// An arm64 `Image`.
    Image,
    /// A program for UEFI.
    Efi,
    /// U-Boot's `uImage`.
    UImage,
    /// A device-tree blob or U-Boot's FIT image.
    DeviceTree,
    /// A 32-bit Arm kernel.
    ZImage,
    /// An x86 kernel.
    BzImage,
    /// A compressed file.
    Compressed(Compression),
    /// Anything else.
    Unknown,
}

impl FileKind {
    /// What to do about it.
    const fn hint(self) -> &'static str {
        match self {
            Self::Elf => ": it is an ELF file, give it as elf",
            Self::Image => ": it is an arm64 Image, give it as kernel",
            Self::Efi => ": it is an EFI program",
            Self::UImage => ": it is a U-Boot uImage, give the Image inside",
            Self::DeviceTree => ": it is a device-tree blob or FIT image, give the Image inside",
            Self::ZImage => ": it is a 32-bit Arm kernel",
            Self::BzImage => ": it is an x86 kernel",
            Self::Compressed(_) => ": it is compressed",
            Self::Unknown => "",
        }
    }
}
