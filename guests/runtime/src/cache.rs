//! Caches: maintenance by address and by set and way, and a short time without them.

use core::arch::{asm, global_asm};
use core::sync::atomic::AtomicU64;

use aarch64_cpu::registers::{CCSIDR_EL1, CLIDR_EL1, CSSELR_EL1, ID_AA64MMFR2_EL1};
use tock_registers::interfaces::{Readable, Writeable};

use crate::cpu;

global_asm!(include_str!("cache.S"));

unsafe extern "C" {
    fn runtime_exchange_uncached(address: *mut u64, value: u64) -> u64;
}

/// CTR_EL0, the cache type register.
pub fn type_register() -> u64 {
    let ctr: u64;
    // SAFETY: reads an identification register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack)) };
    ctr
}

/// The smallest data-cache line of all caches, in bytes (CTR_EL0.DminLine).
pub fn line_size() -> usize {
    4 << (type_register() >> 16 & 0xf)
}

/// Cleans `size` bytes from `address` on to the point of coherency and invalidates them.
pub fn clean_invalidate(address: usize, size: usize) {
    let line = line_size();
    let mut at = address & !(line - 1);
    while at < address + size {
        // SAFETY: clean and invalidate keeps what memory holds; at worst it faults, which is then seen.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack)) };
        at += line;
    }
    cpu::synchronize();
}

/// DCZID_EL0: the bytes that DC ZVA zeroes at once; `None`: it is forbidden.
pub fn zero_size() -> Option<usize> {
    const DZP: u64 = 1 << 4;
    let dczid: u64;
    // SAFETY: reads an identification register.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(nomem, nostack)) };
    (dczid & DZP == 0).then_some(4 << (dczid & 0xf))
}

/// Zeroes the block of [`zero_size`] bytes that the `n`-th word is in.
pub fn zero_block(words: &[AtomicU64], n: usize) {
    let (address, size) = (words[n].as_ptr() as usize, zero_size().unwrap_or(1));
    let (start, all) = (address & !(size - 1), words.as_ptr_range());
    assert!(
        start >= all.start as usize && start + size <= all.end as usize,
        "the block has more in it than these words"
    );
    // SAFETY: it writes these words alone, which may change at any time.
    unsafe { asm!("dc zva, {}", in(reg) address, options(nostack)) };
}

/// Makes `size` bytes that were written from `address` on visible to instruction fetches of all CPUs.
pub fn publish_code(address: usize, size: usize) {
    // CTR_EL0 gives both line sizes; the smaller serves for both loops.
    let line = line_size().min(4 << (type_register() & 0xf));
    let lines = || (address & !(line - 1)..address + size).step_by(line);
    for at in lines() {
        // SAFETY: cleaning a line doesn't change what memory holds.
        unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack)) };
    for at in lines() {
        // SAFETY: invalidated instructions are fetched again.
        unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack)) };
    }
    // SAFETY: barriers.
    unsafe { asm!("dsb ish", "isb", options(nostack)) };
}

/// The shape of one cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Level, from 1.
    pub level: u64,
    /// Bytes in a line.
    pub line: u64,
    /// Ways.
    pub ways: u64,
    /// Sets.
    pub sets: u64,
}

/// The data or unified cache of `level` (1 to 7), where there is one.
pub fn geometry(level: u64) -> Option<Geometry> {
    let kind = CLIDR_EL1.get() >> (3 * (level - 1)) & 7;
    if kind < 2 {
        return None;
    }
    let ccsidr = cpu::without_irqs(|| {
        CSSELR_EL1.set((level - 1) << 1);
        cpu::synchronize();
        CCSIDR_EL1.get()
    });
    // With FEAT_CCIDX the fields are wider.
    let (ways, sets) = match ID_AA64MMFR2_EL1.get() >> 20 & 0xf {
        0 => (ccsidr >> 3 & 0x3ff, ccsidr >> 13 & 0x7fff),
        _ => (ccsidr >> 3 & 0x1f_ffff, ccsidr >> 32 & 0xff_ffff),
    };
    Some(Geometry { level, line: 16 << (ccsidr & 7), ways: ways + 1, sets: sets + 1 })
}

/// The levels up to the point of coherency (CLIDR_EL1.LoC).
pub fn levels() -> u64 {
    CLIDR_EL1.get() >> 24 & 7
}

/// Cleans and invalidates this CPU's caches by set and way. Returns the number of lines. Only what runs without
/// caches before and after may rely on it.
pub fn clean_invalidate_all() -> u64 {
    cpu::synchronize();
    let lines = (1..=levels()).filter_map(geometry).map(clean_invalidate_level).sum();
    cpu::synchronize();
    lines
}

fn clean_invalidate_level(cache: Geometry) -> u64 {
    // Arm ARM C5.3.13: the way is left-aligned, the set lies above the line's offset.
    let way_shift = u64::from((cache.ways as u32 - 1).leading_zeros());
    let set_shift = u64::from(cache.line.trailing_zeros());
    for way in 0..cache.ways {
        for set in 0..cache.sets {
            let way = if cache.ways > 1 { way << way_shift } else { 0 };
            let operand = way | set << set_shift | (cache.level - 1) << 1;
            // SAFETY: clean and invalidate loses nothing.
            unsafe { asm!("dc cisw, {}", in(reg) operand, options(nostack)) };
        }
    }
    cache.ways * cache.sets
}

/// With MMU and data cache off, takes the old value of `word` from memory and puts `value` there. The caller has
/// cleaned and invalidated the word's line before.
pub fn exchange_uncached(word: &AtomicU64, value: u64) -> u64 {
    // SAFETY: the word is aligned and lives; while the MMU is off, this CPU touches nothing else, IRQs included.
    cpu::without_irqs(|| unsafe { runtime_exchange_uncached(word.as_ptr(), value) })
}
