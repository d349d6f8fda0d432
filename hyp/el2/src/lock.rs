//! The lock that CPUs share data by.

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
        core::hint::spin_loop();
    }
}
