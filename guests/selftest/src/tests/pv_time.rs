//! Stolen time (Arm DEN0057): a VM whose vCPUs share CPUs finds a record for each, which it can only read, and which tells how long it
//! was ready and another one ran; one whose vCPUs are pinned has none.

use abi::{FunctionId, pv_time, smccc};
use runtime::call::call3;
use runtime::probe::{self, Load, Store};
use runtime::timer::{self, Timer};
use runtime::{cpu, gic, machine};

use crate::framework::{Outcome, Stop, check, check_eq, failed, needs_hanok, on_every_cpu, tests};

tests! {
    "pv-time.features" => features,
    "pv-time.record" => record,
    "pv-time.records-are-apart" => records_are_apart,
    "pv-time.read-only" => read_only,
    "pv-time.tells-what-others-ran" => tells_what_others_ran,
    "pv-time.sleep-is-not-stolen" => sleep_is_not_stolen,
}

/// Bytes of a record, by which it is aligned.
const SIZE: u64 = 64;
/// Offset of the stolen time, in nanoseconds.
const STOLEN: u64 = 8;

fn call(function: FunctionId, argument: u32) -> i64 {
    call3(machine().conduit, function, [argument.into(), 0, 0])
}

/// Where the record of the vCPU that asks is; skips the case where there is none.
fn address() -> Result<u64, Stop> {
    needs_hanok()?;
    match call(pv_time::FEATURES, pv_time::STOLEN_TIME.as_u32()) {
        pv_time::SUCCESS => {}
        pv_time::NOT_SUPPORTED => return Err(Stop::Skipped("the vCPUs are pinned")),
        other => return Err(failed(format_args!("PV_TIME_FEATURES of PV_TIME_ST: 0 or -1, got {other}"))),
    }
    let address = call(pv_time::STOLEN_TIME, 0);
    check!(address > 0 && (address as u64).is_multiple_of(SIZE), "the record's address, got {address:#x}");
    Ok(address as u64)
}

fn load(kind: Load, address: u64) -> Result<u64, Stop> {
    probe::load(kind, address)
        .map_err(|fault| failed(format_args!("{kind:?} at {address:#x}: a fault, {fault}")))
}

fn stolen(record: u64) -> Result<u64, Stop> {
    load(Load::Double, record + STOLEN)
}

fn features() -> Outcome {
    needs_hanok()?;
    // By this it is found out whether PV_TIME_FEATURES may be called.
    let feature = call(smccc::ARCH_FEATURES, pv_time::FEATURES.as_u32());
    check_eq!(feature, smccc::SUCCESS, "ARCH_FEATURES of PV_TIME_FEATURES");
    check_eq!(call(pv_time::FEATURES, pv_time::FEATURES.as_u32()), 0, "PV_TIME_FEATURES of itself");
    for other in [0x8500_0021, 0xc500_0022, 0x8400_0000, 0] {
        check_eq!(call(pv_time::FEATURES, other), pv_time::NOT_SUPPORTED, "PV_TIME_FEATURES of {other:#x}");
    }
    let there = call(pv_time::FEATURES, pv_time::STOLEN_TIME.as_u32()) == pv_time::SUCCESS;
    check_eq!(call(pv_time::STOLEN_TIME, 0) != pv_time::NOT_SUPPORTED, there, "PV_TIME_ST, as announced");
    Ok(())
}

fn record() -> Outcome {
    on_every_cpu(|| {
        let record = address()?;
        check_eq!(load(Load::Word, record)?, 0, "revision");
        check_eq!(load(Load::Word, record + 4)?, 0, "attributes");
        check_eq!(address()?, record, "the address of the same vCPU's record");
        let mut before = stolen(record)?;
        for _ in 0..1000 {
            let now = stolen(record)?;
            check!(now >= before, "stolen time goes back from {before} to {now}");
            before = now;
        }
        Ok(())
    })
}

fn records_are_apart() -> Outcome {
    address()?;
    // In the order of the vCPUs, so that none is told another one's.
    on_every_cpu(|| {
        let record = address()?;
        check_eq!(record / SIZE % 64, cpu::index() as u64, "whose record that is");
        Ok(())
    })
}

fn read_only() -> Outcome {
    let record = address()?;
    for offset in [0, 4, STOLEN, 4088] {
        let stored = probe::store(Store::Word, record + offset, 1);
        check!(stored.is_err(), "a store at {offset} of the record should fault");
    }
    check_eq!(load(Load::Double, record)?, 0, "revision and attributes");
    Ok(())
}

/// Milliseconds for which it is measured.
const SPAN: u64 = 400;
/// Of a millisecond.
const NANOSECONDS: u64 = 1_000_000;

/// Beside a neighbour that always computes, a good part of the time is stolen from a vCPU that always computes as well.
fn tells_what_others_ran() -> Outcome {
    let record = address()?;
    needs_neighbour()?;
    let before = stolen(record)?;
    let begun = timer::now();
    timer::wait_until(SPAN, || false);
    let passed = (timer::now() - begun) * NANOSECONDS / (timer::frequency() / 1000);
    let stolen = stolen(record)? - before;
    check!(stolen < passed, "{stolen} ns were stolen in {passed} ns");
    check!(stolen > passed / 4, "of {passed} ns some half should be stolen, got {stolen} ns");
    Ok(())
}

/// What a vCPU sleeps isn't stolen, though another one runs meanwhile: only what it waits when it has been woken.
fn sleep_is_not_stolen() -> Outcome {
    let record = address()?;
    needs_neighbour()?;
    let before = stolen(record)?;
    gic::enable(Timer::Virtual.intid());
    Timer::Virtual.start(timer::now() + timer::milliseconds(SPAN));
    while !Timer::Virtual.expired() {
        cpu::wait_for_interrupt();
    }
    let stolen = stolen(record)? - before;
    check!(stolen < SPAN * NANOSECONDS / 4, "{stolen} ns were stolen in {SPAN} ms of sleep");
    Ok(())
}

fn needs_neighbour() -> Outcome {
    match machine().argument("neighbour") {
        Some("busy") => Ok(()),
        _ => Err(Stop::Skipped("needs a neighbour that computes")),
    }
}
