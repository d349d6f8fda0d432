//! Reading property values: cells are big-endian 32-bit words, strings end with NUL (Devicetree Specification 0.4, section 2.2.4).

use alloc::vec::Vec;

use super::error::Reason;

/// One cell.
pub(super) fn read_u32(value: &[u8]) -> Result<u32, Reason> {
    let cell =
        value.try_into().map_err(|_| Reason::Length { bytes: value.len(), wanted: "one cell (4 bytes)" })?;
    Ok(u32::from_be_bytes(cell))
}

/// A number of 64 bits: two cells, or one where that is enough.
pub(super) fn read_u64(value: &[u8]) -> Result<u64, Reason> {
    if let Ok(cells) = value.try_into() {
        return Ok(u64::from_be_bytes(cells));
    }
    match value.try_into() {
        Ok(cell) => Ok(u64::from(u32::from_be_bytes(cell))),
        Err(_) => Err(Reason::Length { bytes: value.len(), wanted: "one or two cells (4 or 8 bytes)" }),
    }
}

/// Any number of cells.
pub(super) fn read_cells(value: &[u8]) -> Result<Vec<u32>, Reason> {
    match value.as_chunks::<4>() {
        (cells, []) => Ok(cells.iter().map(|&cell| u32::from_be_bytes(cell)).collect()),
        _ => Err(Reason::Length { bytes: value.len(), wanted: "a list of cells (4 bytes each)" }),
    }
}

/// One string.
pub(super) fn read_string(value: &[u8]) -> Result<&str, Reason> {
    let (0, text) = value.split_last().map(|(&last, text)| (last, text)).ok_or(Reason::NotAString)? else {
        return Err(Reason::NotAString);
    };
    match core::str::from_utf8(text) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Reason::NotAString),
    }
}

/// One string or more.
pub(super) fn read_strings(value: &[u8]) -> Result<Vec<&str>, Reason> {
    let text = value.strip_suffix(&[0]).ok_or(Reason::NotStrings)?;
    let text = core::str::from_utf8(text).map_err(|_| Reason::NotStrings)?;
    Ok(text.split('\0').collect())
}

/// Whether one of the strings in `value`, which ends with NUL, is `wanted`.
pub(super) fn has_string(value: &[u8], wanted: &str) -> bool {
    value.split(|&byte| byte == 0).any(|string| string == wanted.as_bytes())
}

/// The first string in `value`, for a message; unprintable bytes replaced.
pub(super) fn first_string(value: &[u8]) -> alloc::string::String {
    let first = value.split(|&byte| byte == 0).next().unwrap_or_default();
    // A message needs no more than the beginning.
    alloc::string::String::from_utf8_lossy(first.get(..64).unwrap_or(first)).into_owned()
}
