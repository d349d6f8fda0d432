//! Random numbers for guests' seeds: ChaCha20, keyed once from the board's own.

use config::guest_tree::{RNG_BYTES, Seeds};
use platform::tree::Board;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::cpu;
use crate::lock::Mutex;

static GENERATOR: Mutex<Option<ChaCha20Rng>> = Mutex::new(None);

/// Keys the generator from the tree's `rng-seed` and the CPU's RNDR, as far as there are any.
pub fn init(board: &Board<'_>) {
    let mut key = [0; 32];
    let seeded = board.rng_seed.len() >= key.len();
    for chunk in board.rng_seed.chunks(key.len()) {
        for (byte, random) in key.iter_mut().zip(chunk) {
            *byte ^= random;
        }
    }
    let from_cpu = cpu::Features::read().random && mix_random(&mut key);
    if !seeded && !from_cpu {
        log::warn!(
            "neither the device tree (/chosen/rng-seed of 32 bytes) nor the CPU (RNDR) gives random numbers: guests get \
             no seeds"
        );
        return;
    }
    *GENERATOR.lock() = Some(ChaCha20Rng::from_seed(key));
}

/// Adds four random numbers of the CPU's; false where it didn't give them.
fn mix_random(key: &mut [u8; 32]) -> bool {
    key.chunks_exact_mut(8).all(|chunk| {
        let (value, flags): (u64, u64);
        // SAFETY: RNDR is there, as ID_AA64ISAR0_EL1 says; it sets NZCV, which is read behind it, and nothing else.
        unsafe {
            core::arch::asm!("mrs {}, S3_3_C2_C4_0", "mrs {}, nzcv", out(reg) value, out(reg) flags, options(nostack));
        }
        for (byte, random) in chunk.iter_mut().zip(value.to_le_bytes()) {
            *byte ^= random;
        }
        // Z is set where no number came in time.
        flags & 1 << 30 == 0
    })
}

/// Whether there are seeds.
pub fn is_seeded() -> bool {
    GENERATOR.lock().is_some()
}

/// Fresh seeds for a VM that starts, if the board has given any randomness.
pub fn seeds() -> Option<Seeds> {
    let mut generator = GENERATOR.lock();
    let generator = generator.as_mut()?;
    let mut seeds = Seeds { rng: [0; RNG_BYTES], kaslr: generator.next_u64() };
    generator.fill_bytes(&mut seeds.rng);
    Some(seeds)
}
