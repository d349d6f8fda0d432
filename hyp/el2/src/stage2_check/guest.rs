//! Real accesses: a guest of a few instructions, which are entered at EL1 with stage 1 off, and come back by an HVC or by
//! the abort that stage 2 raises. They see what `AT` does not show: execution, and the TLBs' entries of both stages.
//!
//! The instructions are at the start of every page of a pool, and the rest of each page says which page it is.

use core::arch::global_asm;
use core::ptr;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ESR_EL2, HPFAR_EL2, VBAR_EL2};
use stage2::{PAGE_SIZE, Pa};
use tock_registers::interfaces::{Readable, Writeable};

use super::Outcome;
use super::answer::{Answer, Fault};
use crate::{cache, memory};

global_asm!(include_str!("guest.s"));

const PAGES: u64 = 512;
/// `ldr x1, [x0]; hvc #0`, where a load's instructions are, and `str x1, [x0]; hvc #0`.
const LOAD: u64 = 0xd400_0002_f940_0001;
const STORE: u64 = 0xd400_0002_f900_0001;
/// Offset of the store's in a page.
const STORE_OFFSET: u64 = 8;
/// Words behind the instructions start here.
const WORDS_OFFSET: u64 = 16;

/// The pages.
pub struct Code {
    base: u64,
}

/// What the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// Loads a word.
    Load,
    /// Stores a word.
    Store,
}

/// How it came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// By its HVC, with this in x1.
    Done(u64),
    /// Its instructions could not be fetched.
    NoFetch(Answer),
    /// Its access was refused.
    Refused(Answer),
    /// Something else: ESR_EL2.
    Other(u64),
}

/// What each word of a page is.
fn word(page: u64) -> u64 {
    0x7061_6765_0000_0000 | page
}

impl Code {
    /// Bytes of the pool.
    pub const SIZE: u64 = PAGES * PAGE_SIZE;

    /// Takes memory for the pages and writes them. It stays EL2's for good.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Outcome<Self> {
        let code = Self { base: memory::claim(PAGES as usize)?.as_u64() };
        for page in 0..PAGES {
            let start = code.base + page * PAGE_SIZE;
            code.write(start, LOAD);
            code.write(start + STORE_OFFSET, STORE);
            for offset in (WORDS_OFFSET..PAGE_SIZE).step_by(8) {
                code.write(start + offset, word(page));
            }
        }
        cache::clean(code.base, code.base + Self::SIZE);
        cache::sync();
        Ok(code)
    }

    /// Where the pool is.
    pub fn base(&self) -> Pa {
        Pa::new(self.base)
    }

    /// The page that lies at a physical address, if it is one of the pool's.
    pub fn page_at(&self, pa: u64) -> Option<u64> {
        let offset = pa.checked_sub(self.base).filter(|offset| *offset < Self::SIZE)?;
        Some(offset / PAGE_SIZE)
    }

    /// A word of the pool, whoever wrote it.
    fn read(&self, pa: u64) -> u64 {
        cache::clean(pa, pa + 8);
        cache::sync();
        // SAFETY: all callers pass addresses of the pool, which is EL2's and mapped.
        unsafe { ptr::read_volatile(pa as *const u64) }
    }

    fn write(&self, pa: u64, value: u64) {
        // SAFETY: all callers pass addresses of the pool, which is EL2's and mapped.
        unsafe { ptr::write_volatile(pa as *mut u64, value) };
    }

    /// Whether the word at `pa`, an address of the pool, is as a store of `value` leaves it; and makes it what it was.
    pub fn took(&self, pa: u64, value: u64) -> bool {
        let found = self.read(pa);
        self.write(pa, word(pa.wrapping_sub(self.base) / PAGE_SIZE));
        cache::clean(pa, pa + 8);
        cache::sync();
        found == value
    }

    /// What a load from `pa`, an address of the pool, gives.
    pub fn word_at(&self, pa: u64) -> u64 {
        word(pa.wrapping_sub(self.base) / PAGE_SIZE)
    }
}

/// The nearest word to an address that is none of the instructions.
pub fn word_near(address: u64) -> u64 {
    (address & !7).max((address & !(PAGE_SIZE - 1)) + WORDS_OFFSET)
}

/// Runs a guest whose instructions are in the page at `code`: it loads from, or stores `value` to, `address`. All are
/// intermediate physical addresses. `load` has been called, with stage 1 off.
pub fn run(code: u64, does: Does, address: u64, value: u64) -> Return {
    unsafe extern "C" {
        static stage2_check_vectors: u8;
        fn stage2_check_enter(address: u64, value: u64, entry: u64) -> u64;
    }
    let entry = match does {
        Does::Load => code,
        Does::Store => code + STORE_OFFSET,
    };
    let vectors = VBAR_EL2.get();
    VBAR_EL2.set(ptr::addr_of!(stage2_check_vectors) as u64);
    // SAFETY: EL1 has stage 2 between itself and everything, and the space maps nothing but the pools where there is
    // memory; interrupts are masked there as they are here. Every synchronous exception from it ends the call.
    let value = unsafe { stage2_check_enter(address, value, entry) };
    VBAR_EL2.set(vectors);
    barrier::isb(barrier::SY);
    let esr = ESR_EL2.get();
    match esr >> 26 & 0x3f {
        0x16 => Return::Done(value),
        0x20 if is_about(esr, entry) => Return::NoFetch(abort(esr)),
        // WnR (bit 6) says whether it was a store.
        0x24 if is_about(esr, address) && (esr & 1 << 6 != 0) == (does == Does::Store) => {
            Return::Refused(abort(esr))
        }
        _ => Return::Other(esr),
    }
}

/// Whether HPFAR_EL2 names the address, where it must: for translation faults.
fn is_about(esr: u64, ipa: u64) -> bool {
    esr >> 2 & 0xf != 1 || HPFAR_EL2.get() >> 4 & 0xff_ffff_ffff == ipa >> 12
}

/// The fault that an abort's syndrome names. They come from stage 2 alone.
fn abort(esr: u64) -> Answer {
    Answer::Fault { fault: Fault::from_status(esr & 0x3f), stage2: true, on_walk: esr & 1 << 7 != 0 }
}
