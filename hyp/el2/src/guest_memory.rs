//! The only way in which EL2 reads or writes a guest's memory: by copying, through the VM's stage 2.
//!
//! A guest address is an allegation: every piece is translated by the tables that the guest itself runs on, under their
//! lock, and only what the ledger granted to the VM is touched. EL2 never holds a reference into it, and never faults on it.
//! What is written counts in the VM's log of stores, and is copied first where other VMs read it too ([`Stage2::memory`]).

use core::ptr;

use stage2::{Access, CopyReserve, Grant, Ipa, PAGE_SIZE, Pa, Stage2};

use crate::cache;
use crate::tables::Tables;

/// What a VM's memory is reached through.
pub struct Space {
    /// Its stage 2.
    stage2: Stage2,
    /// The frames that its tables are made of.
    tables: Tables,
    /// Pages for copies: none, as long as nothing that VMs can ask for shares memory on write.
    copies: NoCopies,
    /// A page that [`write_word`] has written to, and where it is. Gone as soon as anybody may change stage 2.
    written: Option<(Ipa, Pa)>,
}

type NoCopies = CopyReserve<[Option<Grant>; 0]>;

impl Space {
    /// Of these tables.
    pub const fn new(stage2: Stage2, tables: Tables, copies: NoCopies) -> Self {
        Self { stage2, tables, copies, written: None }
    }

    /// Its stage 2, to look at.
    pub const fn stage2(&self) -> &Stage2 {
        &self.stage2
    }

    /// Its stage 2, to change or to walk. There is no other way to change it, so nothing that EL2 remembers of it outlives a change.
    pub const fn parts(&mut self) -> (&mut Stage2, &mut Tables, &mut NoCopies) {
        self.written = None;
        (&mut self.stage2, &mut self.tables, &mut self.copies)
    }

    /// What it was made of.
    pub fn into_parts(self) -> (Stage2, Tables) {
        (self.stage2, self.tables)
    }
}

/// A guest address that leads to no memory of the VM's, or to none that can be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {ipa}: {error}")]
pub struct NoMemory {
    /// The address.
    ipa: Ipa,
    /// What stage 2 says of it.
    error: stage2::Error,
}

/// Physical address and length of the piece at `ipa` that lies together, at most `wanted` bytes.
fn piece(space: &mut Space, ipa: Ipa, wanted: u64, access: Access) -> Result<(u64, u64), NoMemory> {
    let (stage2, tables, copies) = space.parts();
    let found = stage2.memory(tables, copies, ipa, wanted, access);
    let (pa, length) = found.map_err(|error| NoMemory { ipa, error })?;
    Ok((pa.as_u64(), length))
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
    space: &mut Space,
    ipa: Ipa,
    source: Source<'_>,
    from: u64,
    limit: u64,
) -> Result<u64, NoMemory> {
    let at = Ipa::new(ipa.as_u64().wrapping_add(from));
    let limit = limit.min(source.size().saturating_sub(from));
    let (pa, length) = piece(space, at, limit, Access::Write)?;
    let target = pa as *mut u8;
    // Lines that are written in part must not be older than what the guest wrote beside them with its caches off.
    let end = pa.wrapping_add(length);
    cache::clean(pa, pa.wrapping_add(1));
    cache::clean(end.wrapping_sub(1), end);
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
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
    cache::clean(pa, end);
    Ok(length)
}

/// Changes memory that no vCPU can write to, word by word of 32 bits: `change` is given each word's number from `ipa` on and what it
/// holds. Cleans it to the point of coherency, since the guest may read it uncached. `ipa` is a multiple of 4, or nothing is done.
/// Returns how many bytes were changed: fewer than `size` where these don't lie together, or are no whole number of words.
///
/// # Errors
/// The address isn't the VM's memory.
pub fn change_words(
    space: &mut Space,
    ipa: Ipa,
    size: u64,
    change: impl Fn(usize, u32) -> u32,
) -> Result<u64, NoMemory> {
    let (pa, length) = piece(space, ipa, size, Access::Write)?;
    let words = if pa.is_multiple_of(4) { length / 4 } else { 0 };
    let target = pa as *mut u32;
    for number in 0..words as usize {
        let word = target.wrapping_add(number);
        // SAFETY: stage 2 says that these addresses are the VM's memory, which is no object of EL2's, and which EL2 maps as Normal
        // memory. They are aligned.
        unsafe { ptr::write_volatile(word, change(number, ptr::read_volatile(word))) };
    }
    let done = words.wrapping_mul(4);
    cache::clean(pa, pa.wrapping_add(done));
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
    Ok(done)
}

/// Writes one word of 64 bits, whole, at an address that is a multiple of 8, while vCPUs may read it. They see it through their
/// caches: it isn't cleaned. Where it goes is looked up once for each page, as long as nobody touches stage 2.
///
/// # Errors
/// The address isn't the VM's memory.
pub fn write_word(space: &mut Space, ipa: Ipa, value: u64) -> Result<(), NoMemory> {
    let offset = ipa.as_u64() % PAGE_SIZE;
    let page = Ipa::new(ipa.as_u64().wrapping_sub(offset));
    let pa = match space.written {
        Some((known, pa)) if known == page => pa,
        _ => {
            let (pa, _) = piece(space, page, PAGE_SIZE, Access::Write)?;
            // A store that is logged is logged by this one; who begins the log anew, or asks for it, has stage 2 in hand.
            space.written = Some((page, Pa::new(pa)));
            Pa::new(pa)
        }
    };
    if offset.is_multiple_of(8) {
        let at = pa.as_u64().wrapping_add(offset);
        // SAFETY: stage 2, as it is, says that this page is the VM's memory, which is no object of EL2's, and which EL2 maps as
        // Normal memory: whatever changes stage 2 makes `written` forgotten, and the caller holds its lock.
        unsafe { ptr::write_volatile(at as *mut u64, value) };
    }
    Ok(())
}

/// Reads the guest's memory at `ipa` into all of `bytes`, across as many pages as they reach over. What the guest has written
/// with its caches off is seen too: the lines that EL2 may have are dropped first, and written back where they are newer.
///
/// # Errors
/// Some of it isn't the VM's memory. `bytes` then holds what came before.
pub fn read(space: &mut Space, ipa: Ipa, bytes: &mut [u8]) -> Result<(), NoMemory> {
    let mut at = ipa;
    let mut left = bytes;
    while !left.is_empty() {
        let (pa, length) = piece(space, at, left.len() as u64, Access::Read)?;
        let (now, later) = left.split_at_mut_checked(length as usize).unwrap_or_default();
        cache::clean(pa, pa.wrapping_add(length));
        aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
        // SAFETY: stage 2 says that these addresses are memory of the VM's, which EL2 maps as Normal memory and has no
        // reference to; a vCPU that writes to them meanwhile changes what is read, and nothing else.
        unsafe { ptr::copy_nonoverlapping(pa as *const u8, now.as_mut_ptr(), now.len()) };
        at = Ipa::new(at.as_u64().wrapping_add(length));
        left = later;
    }
    Ok(())
}
