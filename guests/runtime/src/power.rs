//! The end: power off and reset by PSCI, and what becomes of a guest that can't go on.

use core::sync::atomic::{AtomicBool, Ordering};

use smccc::{Hvc, Smc, psci};

use crate::machine::Conduit;
use crate::{cpu, hanok, machine};

/// Turns the machine off (PSCI SYSTEM_OFF).
pub fn off() -> ! {
    let _never_returns = match machine().conduit {
        Conduit::Hvc => psci::system_off::<Hvc>(),
        Conduit::Smc => psci::system_off::<Smc>(),
    };
    stop()
}

/// Restarts the machine (PSCI SYSTEM_RESET).
pub fn reset() -> ! {
    let _never_returns = match machine().conduit {
        Conduit::Hvc => psci::system_reset::<Hvc>(),
        Conduit::Smc => psci::system_reset::<Smc>(),
    };
    stop()
}

/// The end of a guest that can't go on, and has said why: under Hanok it has crashed, with all that follows by its
/// manifest; elsewhere the machine is turned off.
pub(crate) fn give_up() -> ! {
    static GIVEN_UP: AtomicBool = AtomicBool::new(false);
    // It only returns where nobody hears it. Without an EL2 that call is one more thing that can't be done, and leads here again.
    if !GIVEN_UP.swap(true, Ordering::Relaxed) {
        let _ = hanok::crash();
    }
    off()
}

/// For a machine that refuses both.
fn stop() -> ! {
    crate::println!("guest: the machine did not turn off");
    loop {
        cpu::mask_irqs();
        cpu::wait_for_interrupt();
    }
}
