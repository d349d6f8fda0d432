//! Stage-2 tables as the `stage2` crate reaches them: frames of a reserve that is set aside when the VM is built, EL2's
//! map of them, and the TLB instructions.

use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::VTTBR_EL2;
use stage2::tlbi::{self, TlbiRange};
use stage2::{Environment, Invalidation, Ipa, PAGE_SIZE, Pa, PaRange, VmId};
use tock_registers::interfaces::{Readable, Writeable};

use crate::memory::{FrameError, claim, yield_back};
use crate::{cache, context, cpu};

/// A VM's frames for tables.
pub struct Tables {
    /// For start tables side by side.
    start: Option<(Pa, usize)>,
    /// One by one.
    reserve: Vec<Pa>,
    /// How often TLB entries have been invalidated: on hardware it costs more than its instructions.
    #[cfg(feature = "stage2-check")]
    pub invalidations: u32,
}

impl Tables {
    /// Sets aside `start` frames side by side and `single` more.
    ///
    /// # Errors
    /// There aren't that many.
    pub fn new(start: usize, single: usize) -> Result<Self, FrameError> {
        let mut tables = Self {
            start: Some((claim(start)?, start)),
            // The first table comes back as one of these where it is one frame.
            reserve: Vec::with_capacity(single.saturating_add(1)),
            #[cfg(feature = "stage2-check")]
            invalidations: 0,
        };
        // In as few pieces as there can be: each is written down by itself.
        for bit in 0..usize::BITS {
            let frames = single & 1 << bit;
            if frames == 0 {
                continue;
            }
            match claim(frames) {
                Ok(start) => tables.reserve.extend(pages(start, frames)),
                Err(error) => {
                    tables.give_back();
                    return Err(error);
                }
            }
        }
        Ok(tables)
    }

    /// Gives all frames back. No tables are made of any of them any more.
    pub fn give_back(self) {
        if let Some((start, frames)) = self.start {
            yield_back(start, frames);
        }
        for frame in self.reserve {
            yield_back(frame, 1);
        }
    }

    /// For the check, which says how many there are. Nothing in the ordinary image.
    fn count_invalidation(&mut self) {
        #[cfg(feature = "stage2-check")]
        {
            self.invalidations = self.invalidations.wrapping_add(1);
        }
    }

    /// Frames that are left.
    pub fn left(&self) -> usize {
        self.reserve.len()
    }
}

/// Each of `count` pages from `start` on.
fn pages(start: Pa, count: usize) -> impl Iterator<Item = Pa> {
    (0..count as u64).map(move |page| Pa::new(start.as_u64().wrapping_add(page.wrapping_mul(PAGE_SIZE))))
}

/// A descriptor, as the walkers see it: naturally aligned and written at once.
fn descriptor(table: Pa, index: usize) -> *const AtomicU64 {
    (table.as_u64() as *const AtomicU64).wrapping_add(index & 511)
}

fn zero(pa: Pa, frames: usize) {
    if let Ok(range) = PaRange::new(pa, PAGE_SIZE.saturating_mul(frames as u64)) {
        cache::zero(range);
    }
}

impl Environment for Tables {
    fn allocate(&mut self, tables: usize) -> Option<Pa> {
        let pa = match self.start {
            Some((pa, frames)) if frames == tables => {
                self.start = None;
                pa
            }
            _ if tables == 1 => self.reserve.pop()?,
            _ => return None,
        };
        zero(pa, tables);
        Some(pa)
    }

    fn free(&mut self, table: Pa, tables: usize) {
        if tables == 1 {
            // There is room for all that it gave out: this never allocates.
            if self.reserve.len() < self.reserve.capacity() {
                self.reserve.push(table);
            }
        } else {
            self.start = Some((table, tables));
        }
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        // SAFETY: tables are frames that this reserve gave out, which EL2 maps; an index is below 512.
        unsafe { (*descriptor(table, index)).load(Ordering::Relaxed) }
    }

    fn write(&mut self, table: Pa, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { (*descriptor(table, index)).store(value, Ordering::Relaxed) }
    }

    fn copy(&mut self, from: Pa, to: Pa) {
        let (from, to) = (from.as_u64(), to.as_u64());
        // What the guest has written with its caches off is in no cache; what EL2 may have of it there is older.
        cache::clean(from, from.wrapping_add(PAGE_SIZE));
        barrier::dsb(barrier::SY);
        // SAFETY: both pages are the VM's memory, which EL2 maps as Normal memory and has no reference to. No guest may write
        // to the one, and none has the other yet (`Stage2::resolve`).
        unsafe { core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, PAGE_SIZE as usize) };
        cache::clean(to, to.wrapping_add(PAGE_SIZE));
        // It may be code.
        cache::sync();
    }

    fn order(&mut self) {
        barrier::dmb(barrier::ISHST);
    }

    fn publish(&mut self) {
        barrier::dsb(barrier::ISHST);
        barrier::isb(barrier::SY);
    }

    fn invalidate(&mut self, vm: VmId, what: Invalidation) {
        self.count_invalidation();
        // One entry is named by its address: that takes the level hint.
        if what.count() > 1 && cpu::has_range_invalidation() {
            let Some(ranges) = tlbi::ranges(what) else { return invalidate_all(vm) };
            by_address(vm, ranges, |range| tlbi_range(range, what.tables));
        } else if what.count() <= Invalidation::MANY {
            let level = tlbi::leaf_level(what).filter(|_| cpu::has_level_hint());
            let entry = |number: u64| what.ipa.as_u64().wrapping_add(number.wrapping_mul(what.stride));
            let entries = (0..what.count()).map(|number| tlbi::operand(Ipa::new(entry(number)), level));
            by_address(vm, entries, |operand| tlbi_entry(operand, what.tables));
        } else {
            invalidate_all(vm);
        }
    }

    fn invalidate_vm(&mut self, vm: VmId) {
        self.count_invalidation();
        invalidate_all(vm);
    }
}

/// Drops all that `vm` has in the TLBs.
fn invalidate_all(vm: VmId) {
    with_vmid(vm, || {
        // SAFETY: TLB invalidation loses nothing but time.
        unsafe { asm!("tlbi vmalls12e1is", options(nostack)) };
    });
}

/// Drops what `vm` has in the TLBs for each of `named`, by `invalidate`.
fn by_address<T>(vm: VmId, named: impl Iterator<Item = T>, invalidate: impl FnMut(T)) {
    with_vmid(vm, || {
        named.for_each(invalidate);
        barrier::dsb(barrier::ISH);
        // Stage-1 entries hold combined translations, which can't be named by IPA.
        // SAFETY: TLB invalidation loses nothing but time.
        unsafe { asm!("tlbi vmalle1is", options(nostack)) };
    });
}

/// One address, of a leaf or, if `tables`, of whatever is cached of the levels above too.
fn tlbi_entry(operand: u64, tables: bool) {
    // SAFETY: TLB invalidation loses nothing but time.
    unsafe {
        if tables {
            asm!("tlbi ipas2e1is, {}", in(reg) operand, options(nostack));
        } else {
            asm!("tlbi ipas2le1is, {}", in(reg) operand, options(nostack));
        }
    }
}

/// The same for a range. By number: the assembler knows the names only with the extension.
fn tlbi_range(range: TlbiRange, tables: bool) {
    let operand = range.operand();
    // SAFETY: TLB invalidation loses nothing but time; the CPU has FEAT_TLBIRANGE.
    unsafe {
        if tables {
            // RIPAS2E1IS
            asm!("sys #4, c8, c0, #2, {}", in(reg) operand, options(nostack));
        } else {
            // RIPAS2LE1IS
            asm!("sys #4, c8, c0, #6, {}", in(reg) operand, options(nostack));
        }
    }
}

/// TLB maintenance by VMID is about the VMID in VTTBR_EL2. What else is loaded here may be another VM's.
fn with_vmid(vm: VmId, invalidate: impl FnOnce()) {
    barrier::dsb(barrier::ISHST);
    let before = VTTBR_EL2.get();
    if before >> VMID_SHIFT == u64::from(vm.vmid()) {
        invalidate();
        barrier::dsb(barrier::ISH);
        barrier::isb(barrier::SY);
        return;
    }
    // A walk that ran ahead meanwhile would file one VM's translation under the other's VMID, and behind the invalidation.
    let stage_one = context::forbid_walks();
    VTTBR_EL2.set(u64::from(vm.vmid()) << VMID_SHIFT | before & !(u64::MAX << VMID_SHIFT));
    barrier::isb(barrier::SY);
    invalidate();
    barrier::dsb(barrier::ISH);
    VTTBR_EL2.set(before);
    barrier::isb(barrier::SY);
    stage_one.restore();
    barrier::isb(barrier::SY);
}

/// The position of VTTBR_EL2.VMID, of 8 bits (VTCR_EL2.VS is 0) or 16: what is above is RES0.
const VMID_SHIFT: u32 = 48;
