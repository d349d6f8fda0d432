//! Stage-1 tables for the check, in a pool of real memory: 512 tables side by side, so that the pool fits a 2 MiB block.
//!
//! They are what makes stage 2's TLB entries visible. `AT` may walk stage 2 afresh every time, and QEMU's does; but stage
//! 1's tables are read through stage 2 as any memory is, from TLB entries where there are some. No two tables of the pool
//! say the same, so the answer tells which of them was read.

use core::ptr;

use stage2::{PAGE_SIZE, Pa};

use super::Outcome;
use super::answer::{Cache, Memory, Shareability, StageOneMemory, reported};
use crate::{cache, memory};

/// Entries in a table, and tables in the pool. A table is one of level 1: an entry is a block of 1 GiB.
const ENTRIES: u64 = 512;
/// The first address that the tables don't translate.
pub const END: u64 = ENTRIES << GIB_SHIFT;
const GIB_SHIFT: u32 = 30;
const GIB_MASK: u64 = (1 << GIB_SHIFT) - 1;

/// The memory types that blocks take in turn, as fields of MAIR_EL1: write-back, non-cacheable, Device-nGnRE, write-through.
const TYPES: [(u64, Memory); 4] = [
    (0xff, Memory::normal(Cache::WriteBack)),
    (0x44, Memory::normal(Cache::None)),
    (0x04, Memory::Device(1)),
    (0xbb, Memory::normal(Cache::WriteThrough)),
];
/// MAIR_EL1 for them.
pub const MAIR: u64 = TYPES[0].0 | TYPES[1].0 << 8 | TYPES[2].0 << 16 | TYPES[3].0 << 24;

/// What shareability blocks of cacheable memory have in turn, and its encoding. The rest is outer shareable by nature, and
/// says so.
const SHARED: [(u64, Shareability); 3] =
    [(0, Shareability::None), (3, Shareability::Inner), (2, Shareability::Outer)];

/// The tables.
pub struct Pool {
    base: u64,
}

/// An output of stage 1: the intermediate physical address and the memory's attributes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// The address.
    pub ipa: u64,
    /// The attributes.
    pub one: StageOneMemory,
}

impl Pool {
    /// Bytes of the pool.
    pub const SIZE: u64 = ENTRIES * PAGE_SIZE;

    /// Takes memory for the tables and writes them. It stays EL2's for good.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Outcome<Self> {
        let base = memory::claim(ENTRIES as usize)?.as_u64();
        for table in 0..ENTRIES {
            for entry in 0..ENTRIES {
                let at = (base + table * PAGE_SIZE + entry * 8) as *mut u64;
                // SAFETY: these frames have just become EL2's, which maps them, and nothing else uses them.
                unsafe { ptr::write(at, block(target(table, entry))) };
            }
        }
        cache::clean(base, base + Self::SIZE);
        cache::sync();
        Ok(Self { base })
    }

    /// Where the pool is.
    pub fn base(&self) -> Pa {
        Pa::new(self.base)
    }

    /// The table that lies at a physical address, if it is one of the pool's.
    pub fn table_at(&self, pa: u64) -> Option<u64> {
        let offset = pa.checked_sub(self.base).filter(|offset| *offset < Self::SIZE)?;
        Some(offset / PAGE_SIZE)
    }
}

/// The GiB that entry `entry` of table `table` leads to.
fn target(table: u64, entry: u64) -> u64 {
    (table + entry) % ENTRIES
}

/// The shareability of a GiB, and its encoding.
fn shared(gib: u64) -> (u64, Shareability) {
    let (_, memory) = TYPES[gib as usize % TYPES.len()];
    match reported(memory, Shareability::None) {
        Shareability::None => SHARED[gib as usize % SHARED.len()],
        outer => (2, outer),
    }
}

/// A block's descriptor: AttrIndx (4:2), AP (7:6) 01 so that EL0 too may read and write, SH (9:8), AF (10).
fn block(gib: u64) -> u64 {
    let (sh, _) = shared(gib);
    gib << GIB_SHIFT | 1 | (gib % TYPES.len() as u64) << 2 | 1 << 6 | sh << 8 | 1 << 10
}

/// The virtual address that `table` translates to `ipa`, which lies below [`END`].
pub fn virtual_address(table: u64, ipa: u64) -> u64 {
    let entry = ((ipa >> GIB_SHIFT) + ENTRIES - table) % ENTRIES;
    entry << GIB_SHIFT | ipa & GIB_MASK
}

/// What `table` makes of a virtual address below [`END`].
pub fn translate(table: u64, virtual_address: u64) -> Output {
    let gib = target(table, virtual_address >> GIB_SHIFT);
    let (_, memory) = TYPES[gib as usize % TYPES.len()];
    let (_, shareability) = shared(gib);
    let ipa = gib << GIB_SHIFT | virtual_address & GIB_MASK;
    Output { ipa, one: StageOneMemory { memory, shareability } }
}

/// The offset in a table of the entry that translates a virtual address.
pub fn entry_offset(virtual_address: u64) -> u64 {
    (virtual_address >> GIB_SHIFT) * 8
}
