//! The lock that CPUs share data by.

use core::arch::asm;

use spin::relax::RelaxStrategy;

use crate::crash;

/// A spin lock, which isn't fair (`vm` says why).
pub type Mutex<T> = spin::mutex::Mutex<T, Wait>;

/// What a CPU does while another one has the lock. If EL2 crashes, that may be the one that has crashed, and this one
/// stops here, for it won't come to the interrupt that would stop it.
pub struct Wait;

impl RelaxStrategy for Wait {
    #[inline]
    fn relax() {
        if crash::has_begun() {
            crash::halt();
        }
        // An emulator that runs its CPUs in turn goes on with the next one here. `spin_loop` is an ISB, which tells it nothing: it would first
        // let this CPU wait for all of its turn, while the one with the lock can't go on.
        // SAFETY: it changes nothing.
        unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
        core::hint::spin_loop();
    }
}
