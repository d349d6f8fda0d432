//! How the tables' memory and the TLBs are reached: the one trait that the EL2 image implements for this crate.

use crate::addr::{Ipa, Pa};
use crate::vm::VmId;

/// Stale translations of one VM: the entries that translate the addresses `ipa`, `ipa + stride`, ... below `ipa + size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// The first address, aligned to `stride`.
    pub ipa: Ipa,
    /// Bytes from the first address to the end of the last entry; a multiple of `stride`.
    pub size: u64,
    /// The span of the smallest entry that changed: 4 KiB, 2 MiB, 1 GiB or 512 GiB. One invalidation for each address at
    /// this distance reaches every entry that changed.
    pub stride: u64,
    /// Whether entries that pointed to tables went too, so that what walkers cache of the upper levels is stale as well
    /// (`IPAS2E1IS` and not `IPAS2LE1IS`).
    pub tables: bool,
}

impl Invalidation {
    /// Above this [`count`](Self::count), where the CPU has no range invalidation, to drop all of the VM's entries
    /// (`VMALLS12E1IS`) is cheaper than to name them, and takes a bounded time.
    pub const MANY: u64 = 64;

    /// How many invalidations by address it takes.
    pub const fn count(self) -> u64 {
        match self.size.checked_div(self.stride) {
            Some(count) => count,
            None => 0,
        }
    }
}

/// Memory for tables, and the TLBs.
///
/// Accesses to tables are single 64-bit accesses that cannot tear, to memory that the walkers of all CPUs see coherently
/// (Normal, write-back, inner shareable, as VTCR_EL2 says). The crate calls `order`, `publish` and the invalidations
/// wherever the architecture wants one; the implementation adds none elsewhere.
pub trait Environment {
    /// `tables` frames of 4 KiB side by side (1, 2, 4, 8 or 16), zeroed, aligned to their common size; `None` when there
    /// are none left.
    fn allocate(&mut self, tables: usize) -> Option<Pa>;

    /// Takes back what `allocate` gave, whatever it holds now. No walker and no TLB refers to it any more.
    fn free(&mut self, table: Pa, tables: usize);

    /// Descriptor `index` (0 to 511) of the table at `table`.
    fn read(&self, table: Pa, index: usize) -> u64;

    /// Writes descriptor `index` (0 to 511) of the table at `table`.
    fn write(&mut self, table: Pa, index: usize, descriptor: u64);

    /// Copies the page at `from` to the one at `to`, both the VM's memory, so that the guest finds it there however it looks:
    /// by instruction fetches, and with its caches off.
    fn copy(&mut self, from: Pa, to: Pa);

    /// Makes every earlier write to tables, the zeroing by `allocate` included, visible to walkers before any later one:
    /// `dmb ishst`. Called before a table is linked, so that no walker finds it half made.
    fn order(&mut self);

    /// Makes every earlier write to tables visible to walkers before anything that follows: `dsb ishst; isb`. Called when
    /// an operation has made entries valid, so that an access after it does not fault on an entry of before.
    fn publish(&mut self);

    /// Makes earlier writes to tables visible, then drops the named translations of `vm` on all CPUs and waits for it:
    /// `dsb ishst`; the invalidations by IPA under the VM's VMID; `dsb ish`; `tlbi vmalle1is`, for stage 1 entries hold
    /// combined translations and cannot be named by IPA; `dsb ish; isb` (D8.16.4). May drop more.
    fn invalidate(&mut self, vm: VmId, what: Invalidation);

    /// The same for everything that is cached under the VM's VMID: `dsb ishst; tlbi vmalls12e1is; dsb ish; isb`.
    fn invalidate_vm(&mut self, vm: VmId);
}
