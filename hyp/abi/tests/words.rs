//! What guests and people are told: names and numbers, each once more as their references have them.

use abi::esr::{Esr, Sysreg, ec};
use abi::hanok;
use abi::record::{crash, state};
use abi::{Control, Error, Speaker};

#[test]
fn each_thing_that_can_be_done_to_a_vm_has_its_call() {
    let wanted = [
        (Control::Start, hanok::VM_START),
        (Control::Stop, hanok::VM_STOP),
        (Control::Pause, hanok::VM_PAUSE),
        (Control::Resume, hanok::VM_RESUME),
        (Control::Restart, hanok::VM_RESTART),
    ];
    for (control, function) in wanted {
        assert_eq!(control.function(), function, "{control:?}");
    }
    assert_eq!((Speaker::Hanok.argument(), Speaker::Vm(7).argument()), (0xffff_ffff, 7));
}

#[test]
fn errors_have_the_names_of_their_specification() {
    let wanted = [
        (hanok::NOT_SUPPORTED, "NOT_SUPPORTED"),
        (hanok::INVALID_PARAMETERS, "INVALID_PARAMETERS"),
        (hanok::DENIED, "DENIED"),
        (hanok::WRONG_STATE, "WRONG_STATE"),
        (hanok::BUSY, "BUSY"),
        (-99, "status -99"),
    ];
    for (status, name) in wanted {
        assert_eq!(Error::check(status).map_err(|error| error.to_string()), Err(name.to_owned()));
    }
}

#[test]
fn states_and_reasons_have_names() {
    let states =
        ["created", "starting", "running", "paused", "stopping", "stopped", "crashed", "pausing", "?"];
    assert!(states.iter().zip(0..).all(|(name, number)| state::name(number) == *name));
    let reasons = ["none", "SError", "its watchdog was not fed", "it says so itself", "?"];
    assert!(reasons.iter().zip(0..).all(|(name, number)| crash::name(number) == *name));
    assert_eq!((state::PAUSING, crash::SAID_SO), (7, 3));
}

#[test]
fn a_syndrome_tells_how_long_the_instruction_is_and_which_wait_it_is() {
    let wait = |iss: u64, long: bool| Esr(u64::from(ec::WFX) << 26 | u64::from(long) << 25 | iss);
    assert_eq!((wait(0, true).instruction_bytes(), wait(0, false).instruction_bytes()), (4, 2));
    // TI: WFI, WFE, WFIT, WFET.
    assert_eq!([0, 1, 2, 3].map(|ti| wait(ti, true).is_wfe()), [false, true, false, true]);
    // As the syndrome has it: op0, op2, op1, CRn, CRm.
    assert_eq!(Sysreg::new(3, 0, 1, 0, 1).bits(), 3 << 20 | 1 << 17 | 1 << 10);
}
