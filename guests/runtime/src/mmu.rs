//! Stage 1 of the guest: addresses are mapped one to one, RAM as Normal write-back memory and all else as devices,
//! in blocks of 1 GiB and 2 MiB. A guest that tests may change single 2 MiB blocks outside its own image.
//!
//! RAM is readable, writable and executable alike: these guests test the machine, they defend nothing.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use aarch64_cpu::registers::{TCR_EL1, TTBR0_EL1, TTBR1_EL1};
use tock_registers::interfaces::{Readable, Writeable};

use crate::cpu;
use crate::machine::{Machine, Region, machine};

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;
const ENTRIES: usize = 512;

/// The first address behind what the tables can map: 39 bits, so that the walk starts at level 1.
pub const ADDRESS_LIMIT: u64 = 1 << 39;

/// MAIR_EL1: attribute 0 is Normal write-back, 1 Device-nGnRE, 2 Normal non-cacheable, 3 Device-nGnRnE, 4 Device-GRE, 5
/// Normal write-through.
pub(crate) const MAIR: u64 = 0xff | 0x04 << 8 | 0x44 << 16 | 0x0c << 32 | 0xbb << 40;

/// TCR_EL1 without IPS: T0SZ 25, write-back inner-shareable walks, 4 KiB granule, no TTBR1.
pub(crate) const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 30;

/// SCTLR_EL1: M, C, SA, I and the bits that are RES1 in ARMv8.0.
pub(crate) const SCTLR: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 11 | 1 << 20 | 1 << 22 | 1 << 23 | 3 << 28;

/// How an address is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Normal write-back memory, executable.
    Normal,
    /// Normal non-cacheable memory, executable.
    NonCacheable,
    /// Normal write-through memory, executable.
    WriteThrough,
    /// Device-nGnRE, never executable.
    Device,
    /// Device-nGnRnE, never executable.
    StrictDevice,
    /// Device-GRE, never executable.
    LooseDevice,
    /// Not at all.
    Unmapped,
}

const TABLE: u64 = 0b11;
const BLOCK: u64 = 0b01;
const READ_ONLY: u64 = 1 << 7;
/// AP\[1\]: EL0 may do what EL1 may.
const FOR_EL0: u64 = 1 << 6;

impl Kind {
    /// The low and high attributes of a block. All are nG: the boot table has an ASID of its own, so that the
    /// change to the real one, with other block sizes, can't meet an old TLB entry.
    const fn attributes(self) -> u64 {
        const AF: u64 = 1 << 10;
        const NG: u64 = 1 << 11;
        const INNER_SHAREABLE: u64 = 3 << 8;
        const NEVER_EXECUTE: u64 = 3 << 53;
        match self {
            Self::Normal => BLOCK | AF | NG | INNER_SHAREABLE,
            Self::Device => BLOCK | AF | NG | 1 << 2 | NEVER_EXECUTE,
            Self::NonCacheable => BLOCK | AF | NG | INNER_SHAREABLE | 2 << 2,
            Self::StrictDevice => BLOCK | AF | NG | 3 << 2 | NEVER_EXECUTE,
            Self::LooseDevice => BLOCK | AF | NG | 4 << 2 | NEVER_EXECUTE,
            Self::WriteThrough => BLOCK | AF | NG | INNER_SHAREABLE | 5 << 2,
            Self::Unmapped => 0,
        }
    }

    fn block(self, physical: u64) -> u64 {
        if self == Self::Unmapped { 0 } else { physical | self.attributes() }
    }
}

/// A translation table.
#[repr(C, align(4096))]
pub(crate) struct Table([AtomicU64; ENTRIES]);

impl Table {
    pub(crate) const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }

    pub(crate) fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }

    /// Its descriptors.
    pub(crate) fn entries(&self) -> &[AtomicU64; ENTRIES] {
        &self.0
    }
}

/// What the entry code turns the MMU on with: the first gigabyte as devices, the second, where this program is
/// linked, as RAM.
pub(crate) static BOOT_TABLE: Table = {
    let mut entries = [const { AtomicU64::new(0) }; ENTRIES];
    entries[0] = AtomicU64::new(Kind::Device.attributes());
    entries[1] = AtomicU64::new(GIB | Kind::Normal.attributes());
    Table(entries)
};

/// The table in use, level 1.
static ROOT: Table = Table::empty();

/// Level 2 tables, handed out once and for good.
static POOL: [Table; 12] = [const { Table::empty() }; 12];
static POOL_USED: AtomicUsize = AtomicUsize::new(0);

/// ASID of the table in use.
const ASID: u64 = 1;

/// Maps the gigabyte that holds the device tree before it is known where RAM is.
pub(crate) fn boot_map_gigabyte(address: usize) {
    let index = address as u64 / GIB;
    let Some(entry) = BOOT_TABLE.0.get(index as usize) else { return };
    if entry.load(Ordering::Relaxed) == 0 {
        entry.store(Kind::Normal.block(index * GIB), Ordering::Relaxed);
        cpu::synchronize();
    }
}

/// Builds the table from the tree and changes over to it.
pub(crate) fn init(machine: &Machine) {
    for (index, entry) in ROOT.0.iter().enumerate() {
        let base = index as u64 * GIB;
        let descriptor = match coverage(machine, base, GIB) {
            Coverage::Full => Kind::Normal.block(base),
            Coverage::None => Kind::Device.block(base),
            Coverage::Partial => split(base, |block| match coverage(machine, block, MIB2) {
                Coverage::None => Kind::Device,
                Coverage::Partial | Coverage::Full => Kind::Normal,
            }),
        };
        entry.store(descriptor, Ordering::Relaxed);
    }
    cpu::synchronize();
    TTBR0_EL1.set(root());
    cpu::synchronize();
}

/// TTBR0_EL1 for every CPU.
pub(crate) fn root() -> u64 {
    ROOT.address() | ASID << 48
}

/// The descriptors of the table in use, for one that is to map the same.
pub(crate) fn runtimes_table() -> impl Iterator<Item = u64> {
    ROOT.0.iter().map(|entry| entry.load(Ordering::Relaxed))
}

#[derive(PartialEq)]
enum Coverage {
    None,
    Partial,
    Full,
}

fn coverage(machine: &Machine, base: u64, size: u64) -> Coverage {
    let covered = |bank: &Region| bank.end().min(base + size).saturating_sub(bank.base.max(base));
    match machine.ram.iter().map(covered).sum::<u64>() {
        0 => Coverage::None,
        bytes if bytes >= size => Coverage::Full,
        _ => Coverage::Partial,
    }
}

/// A table descriptor for a gigabyte whose 2 MiB blocks are each of the kind that `kind` says.
fn split(base: u64, kind: impl Fn(u64) -> Kind) -> u64 {
    let table = &POOL[POOL_USED.fetch_add(1, Ordering::Relaxed)];
    for (index, entry) in table.0.iter().enumerate() {
        let block = base + index as u64 * MIB2;
        entry.store(kind(block).block(block), Ordering::Relaxed);
    }
    table.address() | TABLE
}

/// Maps the 2 MiB around `address` to the 2 MiB around `physical`; RAM, if it is that, read-only, for Rust knows
/// it by another address. Panics for addresses in RAM or behind [`ADDRESS_LIMIT`].
pub fn map(address: u64, physical: u64, kind: Kind) {
    map_with(address, physical, kind, 0);
}

/// The same for EL0 too.
pub fn map_for_el0(address: u64, physical: u64, kind: Kind) {
    map_with(address, physical, kind, FOR_EL0);
}

fn map_with(address: u64, physical: u64, kind: Kind, more: u64) {
    let is_ram = coverage(machine(), address / MIB2 * MIB2, MIB2) != Coverage::None;
    assert!(address < ADDRESS_LIMIT && !is_ram, "the mapping of {address:#x} can't be changed");
    let entry = &ROOT.0[(address / GIB) as usize];
    let old = entry.load(Ordering::Relaxed);
    if old & TABLE != TABLE {
        let base = address / GIB * GIB;
        let kind = if old == 0 { Kind::Unmapped } else { Kind::Device };
        assert!(old == kind.block(base), "the gigabyte of {address:#x} is in use");
        replace(entry, base, split(base, |_| kind));
    }
    let table = entry.load(Ordering::Relaxed) & 0xffff_ffff_f000;
    let table = POOL.iter().find(|pool| pool.address() == table).expect("a table of the pool");
    let physical = physical / MIB2 * MIB2;
    let alias_of_ram = coverage(machine(), physical, MIB2) != Coverage::None;
    assert!(!alias_of_ram || kind == Kind::Normal, "RAM has one set of attributes");
    let descriptor = kind.block(physical) | more | if alias_of_ram { READ_ONLY } else { 0 };
    replace(&table.0[(address % GIB / MIB2) as usize], address, descriptor);
}

/// Makes the walk for the gigabyte around `address` go on in a table at `table`, outside RAM, where there is none.
/// Panics if that gigabyte has been split, or is RAM.
pub fn map_by_table(address: u64, table: u64) {
    assert!(!machine().ram.iter().any(|bank| bank.contains(table)), "{table:#x} is RAM");
    let base = address / GIB * GIB;
    let entry = &ROOT.0[(address / GIB) as usize];
    let old = entry.load(Ordering::Relaxed);
    assert!(old == Kind::Device.block(base), "the gigabyte of {address:#x} is in use");
    replace(entry, address, table | TABLE);
}

/// Undoes [`map_by_table`].
pub fn unmap_table(address: u64) {
    let base = address / GIB * GIB;
    assert!(coverage(machine(), base, GIB) == Coverage::None, "{address:#x} is RAM");
    replace(&ROOT.0[(address / GIB) as usize], address, Kind::Device.block(base));
}

/// Tables for addresses of the upper half, which nothing else uses: one for each level above the last.
static UPPER: [Table; 3] = [const { Table::empty() }; 3];

/// Runs `body` with a map of the upper half whose walks go on, at this level, 0 to 3, in a table outside RAM, where there may be
/// nothing: with an address whose walk comes there.
pub fn with_upper_table<R>(level: usize, table: u64, body: impl FnOnce(u64) -> R) -> R {
    assert!(!machine().ram.iter().any(|bank| bank.contains(table)), "{table:#x} is RAM");
    // With an index of its own in each table: those of level 0, 1, 2 and 3, and an offset.
    const ADDRESS: u64 = 0xffff << 48 | 0x101 << 39 | 0x42 << 30 | 0x83 << 21 | 0x104 << 12 | 0x568;
    let mut next = table;
    for (n, upper) in UPPER.iter().enumerate().take(level).rev() {
        let index = ADDRESS >> (39 - 9 * n) & 0x1ff;
        upper.0[index as usize].store(next | TABLE, Ordering::Relaxed);
        next = upper.address();
    }
    // T1SZ: 48 bits, so that walks start at level 0.
    with_upper_half(16, UPPER_4K, next, || body(ADDRESS))
}

/// Runs `body` with a map of the upper half that starts in a table outside RAM, by pages of 64 KiB: of 42 bits, so at level 2.
pub fn with_upper_table_of_64k<R>(table: u64, body: impl FnOnce(u64) -> R) -> R {
    assert!(!machine().ram.iter().any(|bank| bank.contains(table)), "{table:#x} is RAM");
    const ADDRESS: u64 = 0x1234_5678 | !0 << 42;
    with_upper_half(22, UPPER_64K, table, || body(ADDRESS))
}

/// TCR_EL1.TG1 for pages of 4 and 64 KiB.
const UPPER_4K: u64 = 0b10 << 30;
const UPPER_64K: u64 = 0b11 << 30;

/// With walks of the upper half, from a table on.
fn with_upper_half<R>(size: u64, granule: u64, table: u64, body: impl FnOnce() -> R) -> R {
    /// EPD1: no walks of the upper half; T1SZ, TG1.
    const UPPER_HALF: u64 = 1 << 23 | 0x3f << 16 | 0b11 << 30;
    let tcr = TCR_EL1.get();
    TTBR1_EL1.set(table);
    // Walks as the lower half's are: IRGN1, ORGN1, SH1.
    TCR_EL1.set(tcr & !UPPER_HALF | size << 16 | 1 << 24 | 1 << 26 | 3 << 28 | granule);
    cpu::synchronize();
    invalidate_all();
    let result = body();
    TCR_EL1.set(tcr);
    TTBR1_EL1.set(0);
    cpu::synchronize();
    invalidate_all();
    result
}

/// Break-before-make: invalid, out of every TLB, then the new value.
fn replace(entry: &AtomicU64, address: u64, descriptor: u64) {
    entry.store(0, Ordering::Relaxed);
    invalidate(address);
    entry.store(descriptor, Ordering::Relaxed);
    cpu::synchronize();
}

/// Invalidates what any TLB holds of the tables for `address`, on all CPUs.
pub fn invalidate(address: u64) {
    // SAFETY: invalidation only makes the CPU walk the tables again.
    unsafe {
        asm!("dsb ishst", "tlbi vaae1is, {}", "dsb ish", "isb", in(reg) address >> 12, options(nostack));
    }
}

/// Invalidates all TLB entries of this VM, on all CPUs.
pub fn invalidate_all() {
    // SAFETY: as above.
    unsafe { asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack)) };
}

/// PAR_EL1 after `AT S1E1R` of `address` (Arm ARM D24.2.133): bit 0 is set if the translation failed.
pub fn translate_read(address: u64) -> u64 {
    // SAFETY: an address translation instruction reads tables and writes PAR_EL1 alone.
    unsafe { asm!("at s1e1r, {}", "isb", in(reg) address, options(nostack)) };
    aarch64_cpu::registers::PAR_EL1.get()
}

/// As [`translate_read`], for `AT S1E1W`.
pub fn translate_write(address: u64) -> u64 {
    // SAFETY: as above.
    unsafe { asm!("at s1e1w, {}", "isb", in(reg) address, options(nostack)) };
    aarch64_cpu::registers::PAR_EL1.get()
}
