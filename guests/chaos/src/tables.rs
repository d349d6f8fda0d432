//! Stage-1 tables that point at themselves, at devices, at nothing, and that are chance altogether. The code is in the upper half, which
//! has tables of its own.

use core::sync::atomic::Ordering;

use runtime::random::Random;
use runtime::trial::{self, DATA_PAGES, EL0, EL1H, TCR, Trial};
use runtime::{cpu, machine};

use crate::words::{encoding, memory, plain, system};
use crate::{Operation, places};

/// A descriptor.
fn descriptor(random: &mut Random) -> u64 {
    let page = |address: u64| address & 0xffff_ffff_f000;
    let own = trial::data_address() + random.below(DATA_PAGES as u64) * 0x1000;
    // AF mostly, any access, any kind of memory, DBM and the rest.
    let attributes = random.word() & 0xfff0_0000_0000_0bfc | if random.below(4) == 0 { 0 } else { 1 << 10 };
    match random.below(16) {
        // A table at these very tables.
        0..5 => own | 0b11,
        // A block or a page of theirs: what walks them may write to them.
        5 | 6 => own & !0xfff | attributes | 0b11,
        7 => trial::code_address() | attributes | 0b11,
        // Tables and pages in devices, in nothing, in others' memory.
        8 => page(places::device(random)) | 0b11,
        9 => page(places::device(random)) | attributes | 0b11,
        10 => page(places::nowhere(random)) | 0b11,
        11 => page(places::nowhere(random)) | attributes | 0b11,
        12 => page(places::device(random)) & !0x1f_ffff | attributes | 0b01,
        13 => page(machine().ram_end()) | attributes | 0b11,
        14 => 0,
        _ => random.word(),
    }
}

/// TTBR0_EL1 and the lower half of TCR_EL1 with it.
fn translation(random: &mut Random) -> (u64, u64) {
    let asid = random.below(1 << 16) << 48;
    let root = match random.below(8) {
        0 => places::device(random) & !0xfff,
        1 => places::nowhere(random) & 0xffff_ffff_ffff,
        2 => random.word() & 0xffff_ffff_ffff,
        _ => trial::data_address() + random.below(DATA_PAGES as u64) * 0x1000,
    };
    let tcr = match random.below(4) {
        // T0SZ, EPD0, IRGN0, ORGN0, SH0, TG0; TBI0, HA, HD.
        0 => TCR & !0xffff | random.below(1 << 16) | random.below(2) << 37 | random.below(4) << 39,
        1 => TCR & !0x3f | (16 + random.below(24)),
        2 => TCR | random.below(4) << 39,
        _ => TCR,
    };
    (root | asid, tcr)
}

/// A few accesses, of the MMU's and of the program's, by tables of chance.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let random = &mut operation.random;
    // Those of the last time stay for some times, and TLB entries with them.
    if random.below(4) == 0 {
        let words = trial::data_words();
        let first = random.below(words.len() as u64 - 64) as usize;
        for word in &words[first..first + 64] {
            word.store(descriptor(random), Ordering::Relaxed);
        }
        // What the first addresses go through.
        for page in words.chunks(512) {
            for word in &page[..4] {
                word.store(descriptor(random), Ordering::Relaxed);
            }
        }
        cpu::synchronize();
    }
    let mut x = places::registers(random);
    let mut address = || match random.below(4) {
        0 => random.below(1 << 14) << 12 | random.below(0x1000) & !7,
        1 => random.below(1 << 39),
        2 => random.below(4) << 39 | random.below(4) << 30 | random.below(4) << 21 | random.below(4) << 12,
        _ => random.word() & 0xffff_ffff_ffff,
    };
    (x[10], x[11], x[12]) = (address(), address(), address());
    // AT S1E1R, S1E1W, S1E0R, S1E0W; TLBI VMALLE1, VAE1IS.
    const WALKS: [u32; 6] = [
        encoding(1, 0, 7, 8, 0),
        encoding(1, 0, 7, 8, 1),
        encoding(1, 0, 7, 8, 2),
        encoding(1, 0, 7, 8, 3),
        encoding(1, 0, 8, 7, 0),
        encoding(1, 0, 8, 3, 1),
    ];
    let walk = system(false, random.one_of(&WALKS), 12);
    let first = match random.below(3) {
        0 => memory(random, 10),
        1 => plain(random, 0, 10),
        _ => system(false, random.one_of(&WALKS), 10),
    };
    let code = [walk, first, plain(random, 1, 11)];
    let pstate = if random.below(2) == 0 { EL0 } else { EL1H };
    let (ttbr0, tcr) = translation(random);
    let jump = random.below(4) == 0;
    trial.prepare(&code[usize::from(pstate == EL0)..], x, pstate);
    trial.in_upper_half();
    (trial.ttbr0, trial.tcr) = (ttbr0, tcr);
    if jump {
        trial.pc = x[10];
    }
}
