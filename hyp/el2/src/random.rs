//! Random numbers for guests: a generator for each VM, made from one that is keyed once from the board's own.
//!
//! A VM's gives the seeds of its device tree, and what it asks for by TRNG. It is the VM's alone, so that no CPU waits for
//! another VM, and what one VM gets tells nothing of what another one does.

use platform::tree::Board;
use vmm::random::{Generator, KEY_BYTES, KEY_WORDS};

use crate::cpu;
use crate::lock::Mutex;

static GENERATOR: Mutex<Option<Generator>> = Mutex::new(None);

/// Keys the generator from the tree's `rng-seed` and the CPU's RNDR, as far as there are any.
pub fn init(board: &Board<'_>) {
    let mut key = [0; KEY_BYTES];
    let seeded = board.rng_seed.len() >= key.len();
    for chunk in board.rng_seed.chunks(key.len()) {
        for (byte, random) in key.iter_mut().zip(chunk) {
            *byte ^= random;
        }
    }
    let mut generator = Generator::new(key);
    let from_cpu = mix_in_from_cpu(&mut generator);
    if !seeded && !from_cpu {
        log::warn!(
            "neither the device tree (/chosen/rng-seed of 32 bytes) nor the CPU (RNDR) gives random numbers: guests get \
             no seeds and no TRNG"
        );
        return;
    }
    *GENERATOR.lock() = Some(generator);
}

/// Adds random numbers of the CPU's; false where it gives none.
pub fn mix_in_from_cpu(generator: &mut Generator) -> bool {
    if !cpu::has_random() {
        return false;
    }
    let mut fresh = [0; KEY_WORDS];
    let all = fresh.iter_mut().all(|word| {
        let flags: u64;
        // SAFETY: RNDR is there, as ID_AA64ISAR0_EL1 says; it sets NZCV, which is read behind it, and nothing else.
        unsafe {
            core::arch::asm!("mrs {}, S3_3_C2_C4_0", "mrs {}, nzcv", out(reg) *word, out(reg) flags, options(nostack));
        }
        // Z is set where no number came in time.
        flags & 1 << 30 == 0
    });
    generator.mix(fresh);
    all
}

/// A generator of a VM's own, if the board has given any randomness.
pub fn fork() -> Option<Generator> {
    Some(GENERATOR.lock().as_mut()?.fork())
}
