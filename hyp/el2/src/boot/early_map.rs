//! EL2's first translation tables: the image and the device tree, and nothing else.
//!
//! Runs with the MMU off, so it keeps to plain loads and stores: no atomics, no locks, no log. The full map replaces
//! this one as soon as the board is known (`mmu`). Stage 1 of EL2, 4 KiB granule, 48 bits (Arm ARM D8.3).

use core::cell::UnsafeCell;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::ID_AA64MMFR0_EL1;
use tock_registers::interfaces::Readable;

use crate::image;

/// What the three registers of EL2's translation regime hold, on every CPU; `head.s` loads them.
#[repr(C)]
struct Translation {
    mair: u64,
    tcr: u64,
    sctlr: u64,
}

#[repr(transparent)]
struct BootCell<T>(UnsafeCell<T>);

// SAFETY: written by the boot CPU alone, with the MMU off and before any other CPU runs; read-only from then on.
unsafe impl<T> Sync for BootCell<T> {}

#[unsafe(no_mangle)]
static EL2_TRANSLATION: BootCell<Translation> =
    BootCell(UnsafeCell::new(Translation { mair: 0, tcr: 0, sctlr: 0 }));

/// MAIR_EL2: attribute 0 is Device-nGnRE, attribute 1 Normal write-back, both caches allocating.
const MAIR: u64 = 0xff04;
/// The index of Normal memory in [`MAIR`].
const NORMAL: u64 = 1 << 2;

/// TCR_EL2 but for PS: T0SZ 16, table walks write-back and inner shareable, 4 KiB granule, RES1 bits 31 and 23.
const TCR: u64 = 1 << 31 | 1 << 23 | 0b11 << 12 | 0b01 << 10 | 0b01 << 8 | 16;
/// Physical addresses of 48 bits, the most that the 4 KiB granule without LPA2 can express.
const PS_48_BITS: u64 = 5;

/// SCTLR_EL2: the bits that are RES1 with E2H 0 (EIS and EOS among them: exceptions synchronise), and
/// M, C, I (MMU and caches), SA (SP alignment checked), WXN (nothing writable is executable).
const SCTLR: u64 = 0x30c5_0830 | 1 << 19 | 1 << 12 | 1 << 3 | 1 << 2 | 1;

const ENTRIES: usize = 512;
const TABLES: usize = 16;
/// The level whose entries are pages.
const LAST_LEVEL: u32 = 3;
/// Bytes that an entry of the level above it maps.
pub const BLOCK: u64 = 2 << 20;

#[repr(C, align(4096))]
struct Pool([[u64; ENTRIES]; TABLES]);

/// Tables of the pool that are in use, once there is a map.
static USED: BootCell<usize> = BootCell(UnsafeCell::new(0));

static POOL: BootCell<Pool> = BootCell(UnsafeCell::new(Pool([[0; ENTRIES]; TABLES])));

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const READ_ONLY: u64 = 1 << 7;
/// AP\[1\] is RES1 in a regime with one privilege level.
const AP1: u64 = 1 << 6;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 1 << 54;
const DEVICE: u64 = VALID | TABLE_OR_PAGE | AP1 | ACCESSED | EXECUTE_NEVER;
const PAGE: u64 = VALID | TABLE_OR_PAGE | AP1 | INNER_SHAREABLE | ACCESSED | NORMAL;

struct EarlyMap<'a> {
    tables: &'a mut [[u64; ENTRIES]; TABLES],
    used: usize,
}

impl EarlyMap<'_> {
    /// Maps pages to themselves. `None` when the tables don't suffice.
    fn map(&mut self, start: u64, end: u64, attributes: u64) -> Option<()> {
        let mut page = start & !0xfff;
        while page < end {
            let table = self.table(page, LAST_LEVEL)?;
            let entries = self.tables.get_mut(table)?.get_mut(index(page, LAST_LEVEL)..)?;
            let pages = (page..end).step_by(4096);
            for (entry, page) in entries.iter_mut().zip(pages) {
                // A page of the image stays what it is, even if the tree claims to lie there.
                if *entry == 0 {
                    *entry = page | attributes;
                }
            }
            page = (page | (BLOCK - 1)) + 1;
        }
        Some(())
    }

    /// Maps a block to itself. `None` when the tables don't suffice, or something of it is mapped.
    fn map_block(&mut self, start: u64, attributes: u64) -> Option<()> {
        let table = self.table(start, LAST_LEVEL - 1)?;
        let entry = self.tables.get_mut(table)?.get_mut(index(start, LAST_LEVEL - 1))?;
        (*entry == 0).then_some(())?;
        *entry = start | attributes & !TABLE_OR_PAGE;
        Some(())
    }

    /// Which of the tables has the entry for `address` at this level. Those that aren't there yet are made.
    fn table(&mut self, address: u64, level: u32) -> Option<usize> {
        let pool = self.tables.as_ptr() as u64;
        let mut table = 0;
        for level in 0..level {
            let entry = self.tables.get_mut(table)?.get_mut(index(address, level))?;
            table = if *entry & VALID != 0 {
                ((*entry & !0xfff).checked_sub(pool)? >> 12) as usize
            } else {
                let new = self.used;
                (new < TABLES).then_some(())?;
                self.used += 1;
                *entry = (pool + (new as u64) * 4096) | VALID | TABLE_OR_PAGE;
                new
            };
        }
        Some(table)
    }
}

/// Which entry of its table at this level is the one for `address`.
fn index(address: u64, level: u32) -> usize {
    (address >> (39 - 9 * level)) as usize & (ENTRIES - 1)
}

/// Makes the first map and sets [`EL2_TRANSLATION`]. Returns the root table's address, or 0 where `tree` isn't the
/// address of a device tree.
#[unsafe(no_mangle)]
extern "C" fn make_early_map(tree: u64) -> u64 {
    let Some(size) = super::tree_size(tree) else { return 0 };
    // SAFETY: only the boot CPU runs, once, and nothing else refers to these cells yet.
    let (translation, pool) = unsafe { (&mut *EL2_TRANSLATION.0.get(), &mut *POOL.0.get()) };
    let ps = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange).min(PS_48_BITS);
    *translation = Translation { mair: MAIR, tcr: TCR | ps << 16, sctlr: SCTLR };
    let mut map = EarlyMap { tables: &mut pool.0, used: 1 };
    let mapped = image_pages(&mut map).and_then(|()| map.map(tree, tree + size, PAGE | EXECUTE_NEVER));
    if mapped.is_none() {
        return 0;
    }
    // SAFETY: as above.
    unsafe { *USED.0.get() = map.used };
    map.tables.as_ptr() as u64
}

/// Adds the page that a device register is in to the map that is in use: the console's. `None` when the tables don't
/// suffice.
pub fn add_device_page(address: u64) -> Option<()> {
    let page = address & !0xfff;
    add(|map| map.map(page, page + 1, DEVICE))
}

/// Adds [`BLOCK`] bytes of RAM to the map that is in use: for the heap. `None` when the tables don't suffice, or something of it is mapped.
pub fn add_memory(start: u64) -> Option<()> {
    add(|map| map.map_block(start, PAGE | EXECUTE_NEVER))
}

fn add(work: impl FnOnce(&mut EarlyMap<'_>) -> Option<()>) -> Option<()> {
    // SAFETY: still only the boot CPU runs. The walkers read the tables too: an entry that wasn't valid becomes so by one
    // write, a table before the entry that names it.
    let (pool, used) = unsafe { (&mut *POOL.0.get(), &mut *USED.0.get()) };
    let mut map = EarlyMap { tables: &mut pool.0, used: *used };
    let mapped = work(&mut map);
    *used = map.used;
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
    mapped
}

fn image_pages(map: &mut EarlyMap<'_>) -> Option<()> {
    let image = image::layout();
    map.map(image.start, image.text_end, PAGE | READ_ONLY)?;
    map.map(image.text_end, image.data_start, PAGE | READ_ONLY | EXECUTE_NEVER)?;
    for (start, end) in image.writable() {
        map.map(start, end, PAGE | EXECUTE_NEVER)?;
    }
    Some(())
}
