//! Tells kinds of files by their first bytes, so that a wrong one can be called by its name.

use super::bytes::{array, le32};
use super::error::{Compression, FileKind};

/// The word at byte 56 of an arm64 `Image`: "ARM\x64".
pub(super) const IMAGE_MAGIC: [u8; 4] = *b"ARM\x64";
/// The first word of an ELF file.
pub(super) const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// First bytes of compressed files. LZ4 has two formats, of which kernels use the older one.
const COMPRESSED: [(&[u8], Compression); 8] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"\x02\x21\x4c\x18", Compression::Lz4),
    (b"\x04\x22\x4d\x18", Compression::Lz4),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"BZh", Compression::Bzip2),
    (b"\x5d\0\0", Compression::Lzma),
    (b"\x89LZO", Compression::Lzo),
];

/// What `file` is.
pub(super) fn of(file: &[u8]) -> FileKind {
    if let Some(&(_, compression)) = COMPRESSED.iter().find(|(magic, _)| file.starts_with(magic)) {
        return FileKind::Compressed(compression);
    }
    if array(file, 56) == Some(IMAGE_MAGIC) {
        return FileKind::Image;
    }
    if file.starts_with(&ELF_MAGIC) {
        return FileKind::Elf;
    }
    if file.starts_with(b"\xd0\x0d\xfe\xed") {
        return FileKind::DeviceTree;
    }
    if file.starts_with(b"\x27\x05\x19\x56") {
        return FileKind::UImage;
    }
    if le32(file, 0x24) == Some(0x016f_2818) {
        return FileKind::ZImage;
    }
    if array(file, 0x202) == Some(*b"HdrS") {
        return FileKind::BzImage;
    }
    if file.starts_with(b"MZ") {
        return FileKind::Efi;
    }
    FileKind::Unknown
}

/// The compression of the kernel inside an EFI zboot image, if `file` is one: "zimg" at byte 4, the method's name at byte 24.
pub(super) fn zboot(file: &[u8]) -> Option<Compression> {
    if array(file, 4) != Some(*b"zimg") || !file.starts_with(b"MZ") {
        return None;
    }
    let name: [u8; 32] = array(file, 24)?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    Some(match name {
        b"gzip" => Compression::Gzip,
        b"zstd" | b"zstd22" => Compression::Zstd,
        b"lz4" => Compression::Lz4,
        b"xzkern" | b"xz" => Compression::Xz,
        b"lzma" => Compression::Lzma,
        b"lzo" => Compression::Lzo,
        _ => Compression::Unknown,
    })
}
