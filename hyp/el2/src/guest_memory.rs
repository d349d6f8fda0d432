//! The only way in which EL2 reads or writes a guest's memory: by copying, through the VM's stage 2.
//!
//! A guest address is an allegation: every piece is translated by the tables that the guest itself runs on, and only what
//! is the VM's own memory is touched. EL2 never holds a reference into it, and never faults on it.

use core::ptr;

use stage2::{Environment, Ipa, Stage2, Use};

use crate::cache;

/// A guest address that leads to no memory of the VM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the VM has no memory of its own at {0}")]
pub struct NoMemory(pub Ipa);

/// Physical address and length of the piece at `ipa` that lies together, at most `wanted` bytes.
fn piece(stage2: &Stage2, tables: &impl Environment, ipa: Ipa, wanted: u64) -> Result<(u64, u64), NoMemory> {
    let mapping = stage2.query(tables, ipa).ok_or(NoMemory(ipa))?;
    if mapping.attributes.usage != Use::Ram {
        return Err(NoMemory(ipa));
    }
    let offset = ipa.as_u64().wrapping_sub(mapping.ipa.as_u64());
    let left = mapping.size().saturating_sub(offset);
    Ok((mapping.pa.as_u64().wrapping_add(offset), wanted.min(left)))
}

/// What to put into a guest's memory.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// One byte, so many times.
    Fill(u8, u64),
}

impl Source<'_> {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Fill(_, count) => *count,
        }
    }
}

/// Writes up to `limit` bytes of `source`, from `from` on, to the guest's memory, where `source` starts at `ipa`; and cleans
/// them to the point of coherency, for guests start with caches off. Returns how many were written.
///
/// # Errors
/// The address isn't the VM's memory.
pub fn write(
    stage2: &Stage2,
    tables: &impl Environment,
    ipa: Ipa,
    source: Source<'_>,
    from: u64,
    limit: u64,
) -> Result<u64, NoMemory> {
    let at = Ipa::new(ipa.as_u64().wrapping_add(from));
    let (pa, length) = piece(stage2, tables, at, limit.min(source.size().saturating_sub(from)))?;
    let target = pa as *mut u8;
    match source {
        Source::Bytes(bytes) => {
            let bytes =
                bytes.get(from as usize..).and_then(|bytes| bytes.get(..length as usize)).unwrap_or(&[]);
            // SAFETY: stage 2 says that these addresses are the VM's memory, which is no object of EL2's, and which EL2 maps
            // as Normal memory; the bundle, where the bytes lie, is kept out of what VMs are given.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
        }
        Source::Fill(byte, _) => {
            // SAFETY: as above.
            unsafe { ptr::write_bytes(target, byte, length as usize) };
        }
    }
    cache::clean(pa, pa.wrapping_add(length));
    Ok(length)
}
