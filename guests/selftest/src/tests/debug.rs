//! Self-hosted debug: what a debugger inside the guest uses, on every CPU.

use arrayvec::ArrayVec;
use runtime::machine::Conduit;
use runtime::{debug, machine};

use crate::framework::{Outcome, check, check_eq, needs_hanok, on_every_cpu, tests};

tests! {
    "debug.os-lock" => os_lock,
    "debug.double-lock" => double_lock,
    "debug.locked-after-start" => locked_after_start,
    "debug.breakpoint" => breakpoint,
    "debug.watchpoint" => watchpoint,
    "debug.no-events-behind-the-lock" => no_events_behind_the_lock,
    "debug.step" => step,
    "debug.step-over-a-call" => step_over_a_call,
}

/// Exception classes from the same level.
const BREAKPOINT: u64 = 0x31;
const WATCHPOINT: u64 = 0x35;
/// OSLSR_EL1.OSLM: there is an OS lock.
const LOCK_IS_THERE: u64 = 1 << 3;

fn os_lock() -> Outcome {
    on_every_cpu(|| {
        for closed in [false, true, true, false] {
            debug::lock(closed);
            check_eq!(debug::is_locked(), closed, "OSLSR_EL1.OSLK");
            check_eq!(debug::lock_status() & 0b1001, LOCK_IS_THERE, "OSLSR_EL1.OSLM");
        }
        Ok(())
    })
}

/// Guests have no double lock (ID_AA64DFR0_EL1.DoubleLock): its register reads as zero, and a write does nothing (Arm ARM,
/// OSDLR_EL1).
fn double_lock() -> Outcome {
    needs_hanok()?;
    on_every_cpu(|| {
        check_eq!(debug::double_lock_field(), 0xf, "ID_AA64DFR0_EL1.DoubleLock: there is none");
        debug::lock(false);
        debug::lock_twice(true);
        let (read, (fault, _)) = (debug::double_lock(), debug::call_with_breakpoint());
        debug::lock_twice(false);
        check_eq!(read, 0, "OSDLR_EL1, written");
        check_eq!(
            fault.map(|fault| fault.class()),
            Some(BREAKPOINT),
            "the breakpoint's exception behind that"
        );
        Ok(())
    })
}

/// A CPU that starts has its lock closed, however often it has been opened before.
fn locked_after_start() -> Outcome {
    for _ in 0..2 {
        crate::framework::secondaries().try_for_each(|cpu| {
            crate::framework::on_cpu(cpu, || {
                check!(debug::is_locked(), "the OS lock should be closed after CPU_ON");
                debug::lock(false);
                Ok(())
            })
        })?;
    }
    Ok(())
}

fn breakpoint() -> Outcome {
    on_every_cpu(|| {
        debug::lock(false);
        for round in 0..3 {
            let (fault, target) = debug::call_with_breakpoint();
            let found = fault.map(|fault| (fault.class(), fault.elr));
            check_eq!(found, Some((BREAKPOINT, target)), "the breakpoint's exception in round {round}");
        }
        Ok(())
    })
}

fn watchpoint() -> Outcome {
    on_every_cpu(|| {
        debug::lock(false);
        let (fault, address) = debug::read_watched();
        let found = fault.map(|fault| (fault.class(), fault.far));
        check_eq!(found, Some((WATCHPOINT, address)), "the watchpoint's exception");
        Ok(())
    })
}

/// QEMU's own CPUs make debug exceptions behind a closed lock too, which the architecture has not (Arm ARM H6.3).
fn no_events_behind_the_lock() -> Outcome {
    needs_hanok()?;
    on_every_cpu(|| {
        debug::lock(true);
        let faults = [debug::call_with_breakpoint().0, debug::read_watched().0];
        debug::lock(false);
        check_eq!(faults, [None; 2], "debug exceptions while the OS lock is closed");
        // And they are there again behind it.
        check!(debug::call_with_breakpoint().0.is_some(), "the breakpoint should work again");
        Ok(())
    })
}

fn steps(call: bool) -> ArrayVec<usize, 16> {
    debug::steps(call).collect()
}

/// The instructions of `debug.S` that are stepped to: behind the plain one, behind the ID register's read, …, and over the branch.
fn step() -> Outcome {
    on_every_cpu(|| {
        debug::lock(false);
        check_eq!(steps(false).as_slice(), [2, 3, 4, 5, 7, 8].as_slice(), "where steps end");
        Ok(())
    })
}

fn step_over_a_call() -> Outcome {
    if machine().conduit != Conduit::Hvc {
        return Err(crate::framework::Stop::Skipped("needs PSCI by HVC"));
    }
    on_every_cpu(|| {
        debug::lock(false);
        check_eq!(steps(true).as_slice(), [2, 3, 4, 6, 7, 8].as_slice(), "where steps end");
        Ok(())
    })
}
