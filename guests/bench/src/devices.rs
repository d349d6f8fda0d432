//! Interrupts of devices, and what a load from nowhere takes.
//!
//! The devices are two PL031s, one of the board's, that the VM was given, and the one that the hypervisor makes. In both the alarm has gone off
//! and is masked: a store to the mask raises the line at once.

use runtime::gic;
use runtime::mmio::Mmio;
use runtime::rtc::{CR, DR, IMSC, MR, RIS};
use runtime::timed::{self, Delivery};
use runtime::{board, machine, power, println, rtc, timer};

use crate::samples::{Row, SAMPLES, Samples};

/// Where the layout `virt` has nothing: QEMU's board has nothing there either.
const NOWHERE: usize = 0x0b00_0000;
/// The class and the fault status of a synchronous external abort from the level that takes it.
const EXTERNAL_ABORT: (u64, u64) = (0x25, 0x10);
/// How long an alarm that is due may take, in milliseconds.
const PATIENCE: u64 = 2000;

pub fn measure(rounds: usize) {
    let mut samples = SAMPLES.lock();
    let less = (0..100).map(|_| timed::nothing()).min().unwrap_or(0) as u32;
    let fault = samples.take("fault", rounds, 0, fault);
    let mut both = |names, clock: Option<(Mmio, u32)>| {
        let Some((clock, intid)) = clock else {
            println!("bench: the VM has a clock too few");
            power::off()
        };
        device(&mut samples, names, rounds, less, clock, intid)
    };
    let boards = board::find("arm,pl031").and_then(|clock| Some((clock.registers, clock.intid(0)?)));
    let mapped = both(["device-mapped", "device-mapped-eoi"], boards);
    let own = rtc::rtc().zip(machine().rtc.map(|clock| clock.intid));
    let injected = both(["device-injected", "device-injected-eoi"], own);
    fault.print();
    mapped.iter().chain(&injected).for_each(Row::print);
}

/// From the load to the handler's first instruction.
fn fault() -> u64 {
    let fault = timed::faulting_load(NOWHERE);
    let (class, status) = (fault.esr >> 26 & 0x3f, fault.esr & 0x3f);
    assert!(fault.entered != 0 && (class, status) == EXTERNAL_ABORT, "a load from nowhere: {fault:x?}");
    fault.entered - fault.caused
}

/// From the store that raises the line to the handler's first instruction, and the end of interrupt alone.
fn device(
    samples: &mut Samples,
    names: [&'static str; 2],
    rounds: usize,
    less: u32,
    clock: Mmio,
    intid: u32,
) -> [Row; 2] {
    clock.write32(IMSC, 0);
    clock.write32(CR, 1);
    let goes_off = || {
        clock.write32(MR, clock.read32(DR));
        clock.read32(RIS) & 1 != 0
    };
    assert!(timer::wait_until(PATIENCE, goes_off), "an alarm that is due doesn't go off");
    gic::enable(intid);
    let [raised, ended] = names;
    let raise = || {
        let delivery = timed::device(clock, IMSC, 1);
        assert!(delivery.intid == intid, "interrupt {} in place of {intid}", delivery.intid);
        delivery
    };
    let rows = [
        samples.take(raised, rounds, 0, || {
            let Delivery { caused, entered, .. } = raise();
            entered - caused
        }),
        samples.take(ended, rounds, less, || {
            let Delivery { acknowledged, ended, .. } = raise();
            ended - acknowledged
        }),
    ];
    gic::disable(intid);
    rows
}
