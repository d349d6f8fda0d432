//! The lock that CPUs share data by.

use core::arch::asm;

use spin::relax::RelaxStrategy;

use crate::crash;

/// A spin lock, which isn't fair (`vm` says why). The short ways of exits try it by `try_lock_weak`, which may fail where nobody has it
/// (ARM DDI 0487, B2.12: a store-exclusive may), and go the long way then.
pub type Mutex<T> = spin::mutex::SpinMutex<T, Wait>;

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
