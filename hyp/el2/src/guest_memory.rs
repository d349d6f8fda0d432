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

/// Copies bytes to `target`, 32 at a time wherever either lies: the library's copying takes ten times as long where the
/// two are not aligned alike, and payloads in a bundle are aligned to four bytes.
///
/// # Safety
/// `target` has room for them; both are Normal memory of EL2's map, where unaligned accesses are allowed (SCTLR_EL2.A is 0).
unsafe fn copy(bytes: &[u8], target: *mut u8) {
    let (blocks, rest) = bytes.as_chunks::<32>();
    if !blocks.is_empty() {
        // SAFETY: as many blocks are read and written as there are; the caller vouches for both places.
        unsafe {
            core::arch::asm!(
                "2: ldp {a}, {b}, [{from}], #16",
                "ldp {c}, {d}, [{from}], #16",
                "stp {a}, {b}, [{to}], #16",
                "stp {c}, {d}, [{to}], #16",
                "subs {count}, {count}, #1",
                "b.ne 2b",
                from = inout(reg) blocks.as_ptr() => _,
                to = inout(reg) target => _,
                count = inout(reg) blocks.len() => _,
                a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
                options(nostack)
            );
        }
    }
    let done = blocks.len().wrapping_mul(32);
    // SAFETY: the rest follows the blocks in both places.
    unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), target.wrapping_add(done), rest.len()) };
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
            unsafe { copy(bytes, target) };
        }
        Source::Fill(byte, _) => {
            // SAFETY: as above.
            unsafe { ptr::write_bytes(target, byte, length as usize) };
        }
    }
    cache::clean(pa, pa.wrapping_add(length));
    Ok(length)
}
