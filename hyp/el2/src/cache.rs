//! Cache maintenance by address, and zeroing: what must happen to memory before somebody reads it with caches off.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use stage2::PaRange;

use crate::sysreg::read_sysreg;

/// Bytes of the smallest data cache line (CTR_EL0.DminLine).
pub fn line_bytes() -> u64 {
    4 << (read_sysreg!("CTR_EL0") >> 16 & 0xf)
}

/// Cleans and invalidates the lines of a range of EL2's map to the point of coherency, so that whoever reads memory
/// with caches off sees what was written, and nobody finds a stale line later. The caller completes it by [`sync`].
pub fn clean(start: u64, end: u64) {
    let line = line_bytes();
    let mut at = start & !line.wrapping_sub(1);
    while at < end {
        // SAFETY: cleaning and invalidating a line loses nothing; all callers pass addresses that EL2 maps.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack)) };
        at = at.wrapping_add(line);
    }
}

/// Completes cache maintenance, and drops what the instruction caches of all CPUs hold: what was written may be code.
pub fn sync() {
    barrier::dsb(barrier::SY);
    // SAFETY: invalidating instruction caches changes nothing but speed.
    unsafe { asm!("ic ialluis", options(nostack)) };
    barrier::dsb(barrier::SY);
    barrier::isb(barrier::SY);
}

/// Fills whole pages, which nobody else has, with zeros.
pub fn zero(range: PaRange) {
    let (mut at, end) = (range.start().as_u64(), range.end().as_u64());
    // DCZID_EL0: log2 of the words that DC ZVA zeroes; bit 4 forbids it.
    let dczid = read_sysreg!("DCZID_EL0");
    let block = if dczid & 1 << 4 != 0 { 0 } else { 4u64 << (dczid & 0xf) };
    while at < end {
        if block != 0 && block <= stage2::PAGE_SIZE {
            // SAFETY: the ledger's caller has just taken these pages, which EL2 maps as Normal memory and nothing refers
            // to; blocks divide pages.
            unsafe { asm!("dc zva, {}", in(reg) at, options(nostack)) };
            at = at.wrapping_add(block);
        } else {
            // SAFETY: as above.
            unsafe { core::ptr::write_bytes(at as *mut u8, 0, stage2::PAGE_SIZE as usize) };
            at = at.wrapping_add(stage2::PAGE_SIZE);
        }
    }
}

/// Fills whole pages, which nobody else has, with zeros that whoever has caches off sees too.
pub fn scrub(range: PaRange) {
    zero(range);
    clean(range.start().as_u64(), range.end().as_u64());
    // Complete before the ledger says so: whoever gets the pages next may be on another CPU, whose barriers say nothing of this.
    barrier::dsb(barrier::SY);
}
