//! Little-endian fields of untrusted files: nothing is there until its bytes are.

/// The `N` bytes at `at`.
pub(super) fn array<const N: usize>(file: &[u8], at: u64) -> Option<[u8; N]> {
    let start = usize::try_from(at).ok()?;
    file.get(start..)?.first_chunk().copied()
}

/// A 16-bit field.
pub(super) fn le16(file: &[u8], at: u64) -> Option<u16> {
    array(file, at).map(u16::from_le_bytes)
}

/// A 32-bit field.
pub(super) fn le32(file: &[u8], at: u64) -> Option<u32> {
    array(file, at).map(u32::from_le_bytes)
}

/// A 64-bit field.
pub(super) fn le64(file: &[u8], at: u64) -> Option<u64> {
    array(file, at).map(u64::from_le_bytes)
}

/// A file's length.
pub(super) fn length(file: &[u8]) -> u64 {
    // usize has 64 bits at most wherever this is built.
    u64::try_from(file.len()).unwrap_or(u64::MAX)
}
