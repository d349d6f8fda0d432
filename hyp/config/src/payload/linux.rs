//! The header of an arm64 Linux `Image` (Linux, Documentation/arch/arm64/booting.rst, section 4).

use super::bytes::{array, le64, length};
use super::error::{FileKind, PayloadReason};
use super::{Granule, kind};

/// Size of the header in bytes.
const HEADER: usize = 64;
/// Bit 0 of `flags`: the kernel is big-endian.
const BIG_ENDIAN: u64 = 1;
/// What `text_offset` is where `image_size` is 0 (kernels before 3.17).
const OLD_TEXT_OFFSET: u64 = 0x8_0000;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Distance of the image from a 2 MiB boundary, in bytes.
    pub(super) text_offset: u64,
    /// Bytes that the kernel needs from its start on, its zeroed data included; never less than the file has.
    pub(super) size: u64,
    /// Whether the header gave that size. If not, the kernel is to have as much room behind it as possible.
    pub(super) size_known: bool,
    /// The granule that it was built for.
    pub(super) granule: Option<Granule>,
}

/// Reads the header of `image`.
pub(super) fn parse(image: &[u8]) -> Result<Header, PayloadReason> {
    if let Some(compression) = kind::zboot(image) {
        return Err(PayloadReason::Zboot { compression });
    }
    match kind::of(image) {
        FileKind::Image => {}
        FileKind::Compressed(compression) => return Err(PayloadReason::Compressed(compression)),
        FileKind::Unknown if image.len() < HEADER => {
            return Err(PayloadReason::ShortImage { bytes: image.len() });
        }
        looks_like => return Err(PayloadReason::NotAnImage { looks_like }),
    }
    let short = PayloadReason::ShortImage { bytes: image.len() };
    // Nothing in the first 64 bytes is beyond what `HEADER` asks for.
    array::<HEADER>(image, 0).ok_or(short)?;
    let text_offset = le64(image, 8).ok_or(short)?;
    let image_size = le64(image, 16).ok_or(short)?;
    let flags = le64(image, 24).ok_or(short)?;
    if flags & BIG_ENDIAN != 0 {
        return Err(PayloadReason::BigEndian);
    }
    let size_known = image_size != 0;
    Ok(Header {
        text_offset: if size_known { text_offset } else { OLD_TEXT_OFFSET },
        size: image_size.max(length(image)),
        size_known,
        granule: granule(flags),
    })
}

/// Bits 1 and 2 of `flags`.
fn granule(flags: u64) -> Option<Granule> {
    match flags >> 1 & 3 {
        1 => Some(Granule::Kib4),
        2 => Some(Granule::Kib16),
        3 => Some(Granule::Kib64),
        _ => None,
    }
}
