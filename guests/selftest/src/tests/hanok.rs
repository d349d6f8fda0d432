//! Hanok's own calls, as a VM without rights may make them.

use abi::{Control, Error, FunctionId, Speaker, hanok as abi_hanok};
use runtime::call::call3;
use runtime::hanok::{self, watchdog};
use runtime::{console, machine};

use crate::framework::{Outcome, check, check_eq, needs_hanok, tests};

tests! {
    "hanok.features" => features,
    "hanok.identity" => identity,
    "hanok.yield" => yields,
    "hanok.rights" => rights,
    "hanok.console" => console_blocks,
    "hanok.buffers" => buffers,
    "hanok.doorbell" => doorbell,
    "hanok.watchdog" => own_watchdog,
}

fn features() -> Outcome {
    needs_hanok()?;
    for function in [abi_hanok::IDENTITY, abi_hanok::VM_INFO, abi_hanok::WATCHDOG, abi_hanok::CALL_UID] {
        check!(hanok::offers(function), "{function:x?} is there");
    }
    for number in [0x8600_0007, 0xc600_0001, 0x8600_ffff, 0x8400_0000, 0] {
        check!(!hanok::offers(FunctionId::from_u32(number)), "{number:#x} is not there");
    }
    Ok(())
}

fn identity() -> Outcome {
    needs_hanok()?;
    let identity = hanok::identity();
    let known = identity.map(|identity| (identity.vcpu, identity.rights));
    check_eq!(known, Ok((0, 0)), "vCPU and rights");
    check!(identity.is_ok_and(|identity| identity.vm < 64), "the VM's number: {identity:?}");
    Ok(())
}

fn yields() -> Outcome {
    needs_hanok()?;
    for _ in 0..10 {
        check_eq!(hanok::yield_cpu(), Ok(()), "yield");
    }
    Ok(())
}

/// What concerns VMs, its own included, is denied; whether there is such a VM isn't told.
fn rights() -> Outcome {
    needs_hanok()?;
    let denied = Err(Error::Denied);
    for vm in [0, 1, 63, u32::MAX] {
        for what in [Control::Start, Control::Stop, Control::Pause, Control::Resume, Control::Restart] {
            check_eq!(hanok::control(what, vm), denied, "{what:?} of VM {vm}");
        }
        check_eq!(hanok::vm_info(vm).map(drop), denied, "info of VM {vm}");
        check_eq!(hanok::vcpu_info(vm, 0).map(drop), denied, "info of VM {vm}'s vCPU");
        check_eq!(hanok::vm_crash(vm).map(drop), denied, "crash report of VM {vm}");
        check_eq!(hanok::focus(vm), denied, "focus of VM {vm}");
    }
    for by in [Speaker::Hanok, Speaker::Vm(0)] {
        check_eq!(hanok::history(by, 0, &mut [0; 8]).map(drop), denied, "history of {by:?}");
    }
    check_eq!(hanok::board_info().map(drop), denied, "board info");
    Ok(())
}

/// Blocks go to the console; how many bytes were taken is told, where there are more than fit too.
fn console_blocks() -> Outcome {
    needs_hanok()?;
    check_eq!(hanok::console_write(b""), Ok(0), "an empty block");
    check_eq!(hanok::console_write(b"(a block)\n"), Ok(10), "a block");
    check_eq!(hanok::console_read(&mut [0; 16]), Ok(0), "nothing was typed");
    // What is there is the same for the registers.
    check!(console::read_byte().is_none(), "nothing was typed");
    Ok(())
}

/// A buffer has to be in RAM, all of it, and at a multiple of 8.
fn buffers() -> Outcome {
    needs_hanok()?;
    let end = machine().ram_end();
    for (at, size) in [
        (end - 8, 9),
        (end, 1),
        (end - 16, u64::MAX),
        (end - 4, 4),
        (0x0900_0000, 8),
        (0x090a_0000, 8),
        (0, 8),
        (u64::MAX - 7, 8),
    ] {
        for function in [abi_hanok::CONSOLE_WRITE, abi_hanok::CONSOLE_READ] {
            let answer = call3(machine().conduit, function, [at, size, 0]);
            check_eq!(answer, abi_hanok::INVALID_PARAMETERS, "{function:x?} of {size} bytes at {at:#x}");
        }
    }
    let answer = call3(machine().conduit, abi_hanok::CONSOLE_READ, [end - 8, 8, 0]);
    check_eq!(answer, 0, "the last bytes of RAM");
    Ok(())
}

fn doorbell() -> Outcome {
    needs_hanok()?;
    for channel in [0, 1, u32::MAX] {
        check_eq!(hanok::doorbell(channel), Err(Error::InvalidParameters), "channel {channel}");
    }
    Ok(())
}

/// Off until it is turned on; then it counts down, and starts again when it is fed.
fn own_watchdog() -> Outcome {
    needs_hanok()?;
    check_eq!(watchdog::limits(), Ok((1, 3600)), "limits");
    check_eq!(watchdog::time_left(), Ok(0), "time left while it is off");
    for seconds in [0, 3601, u32::MAX] {
        check_eq!(watchdog::set_timeout(seconds), Err(Error::InvalidParameters), "a timeout of {seconds} s");
    }
    check_eq!(watchdog::set_timeout(1000), Ok(()), "a timeout of 1000 s");
    check_eq!(watchdog::feed(), Ok(()), "feeding it while it is off");
    check_eq!(watchdog::time_left(), Ok(0), "that doesn't turn it on");
    check_eq!(watchdog::enable(true), Ok(()), "turning it on");
    let left = watchdog::time_left();
    check!(left.is_ok_and(|left| (900..=1000).contains(&left)), "time left: {left:?}");
    check_eq!(watchdog::set_timeout(2000), Ok(()), "a timeout of 2000 s");
    let left = watchdog::time_left();
    check!(left.is_ok_and(|left| (1900..=2000).contains(&left)), "time left: {left:?}");
    check_eq!(watchdog::feed(), Ok(()), "feeding it");
    check_eq!(watchdog::enable(false), Ok(()), "turning it off");
    check_eq!(watchdog::time_left(), Ok(0), "time left while it is off again");
    Ok(())
}
