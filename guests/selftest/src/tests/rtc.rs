//! The PL031: identification, the clock, and its alarm.

use runtime::mmio::Mmio;
use runtime::timer::{milliseconds, now, wait_until};
use runtime::{cpu, gic, machine, rtc};

use crate::framework::{
    GRACE_MS, Outcome, Stop, check, check_eq, expect_soon, finish, is_hanok, needs_cpus, start, tests, wait,
};
use crate::recorder;

tests! {
    "rtc.identification" => identification,
    "rtc.advances" => advances,
    "rtc.alarm" => alarm,
    "rtc.alarm-set-by-another-cpu" => alarm_set_by_another_cpu,
    "rtc.set" => set,
}

fn registers() -> Result<Mmio, Stop> {
    rtc::rtc().ok_or(Stop::Skipped("there is no PL031"))
}

fn identification() -> Outcome {
    let rtc = registers()?;
    let ids = |from: usize| [0, 4, 8, 12].map(|n| rtc.read32(from + n));
    let [part0, part1, revision, _] = ids(0xfe0);
    check_eq!((part0, part1), (0x31, 0x10), "peripheral id 0 and 1: part 0x031 of designer 0x41");
    check_eq!(revision & 0xf, 4, "peripheral id 2: designer");
    check_eq!(ids(0xff0), [0x0d, 0xf0, 0x05, 0xb1], "PrimeCell id");
    check_eq!(rtc.read32(rtc::CR) & 1, 1, "CR: the clock runs");
    Ok(())
}

fn advances() -> Outcome {
    let rtc = registers()?;
    let first = rtc.read32(rtc::DR);
    expect_soon(|| rtc.read32(rtc::DR) != first, format_args!("DR should change"))?;
    // From one change to another, by the generic timer's measure.
    let (second, start) = (rtc.read32(rtc::DR), now());
    check_eq!(second.wrapping_sub(first), 1, "seconds at the change");
    expect_soon(|| rtc.read32(rtc::DR) != second, format_args!("DR should change again"))?;
    let passed = now() - start;
    // Wide, for a busy machine may see either change late; natively the clock is the host's, besides.
    let range = milliseconds(300)..milliseconds(3000);
    check!(range.contains(&passed) || !is_hanok(), "a second should be {range:?} ticks, was {passed}");
    Ok(())
}

fn alarm() -> Outcome {
    let rtc = registers()?;
    let Some(device) = machine().rtc else { return Err(Stop::Skipped("there is no PL031")) };
    rtc.write32(rtc::ICR, 1);
    gic::enable(device.intid);
    let due = rtc.read32(rtc::DR) + 1;
    rtc.write32(rtc::MR, due);
    check_eq!(rtc.read32(rtc::MR), due, "MR as written");
    rtc.write32(rtc::IMSC, 1);
    cpu::unmask_irqs();
    let came = wait(|| recorder::count(0) > 0);
    cpu::mask_irqs();
    check!(came, "INTID {} should come", device.intid);
    check!(rtc.read32(rtc::DR) >= due, "the alarm should not come early");
    check_eq!(rtc.read32(rtc::RIS), 1, "RIS after the alarm");
    check_eq!(rtc.read32(rtc::MIS), 0, "MIS, masked by the handler");
    rtc.write32(rtc::ICR, 1);
    check_eq!(rtc.read32(rtc::RIS), 0, "RIS after ICR");
    rtc.write32(rtc::IMSC, 1);
    check!(!wait_until(GRACE_MS, cpu::irq_waits), "no interrupt after ICR");
    rtc.write32(rtc::IMSC, 0);
    Ok(())
}

/// Sets the alarm a second ahead.
fn arm(_: u64) {
    if let Some(rtc) = rtc::rtc() {
        rtc.write32(rtc::MR, rtc.read32(rtc::DR) + 1);
        rtc.write32(rtc::IMSC, 1);
    }
}

fn alarm_set_by_another_cpu() -> Outcome {
    needs_cpus(2)?;
    let rtc = registers()?;
    let Some(device) = machine().rtc else { return Err(Stop::Skipped("there is no PL031")) };
    rtc.write32(rtc::ICR, 1);
    gic::enable(device.intid);
    start(1, arm, 0)?;
    finish(1)?;
    cpu::unmask_irqs();
    let came = wait(|| recorder::count(0) > 0);
    cpu::mask_irqs();
    check!(came, "INTID {} should come", device.intid);
    rtc.write32(rtc::ICR, 1);
    Ok(())
}

fn set() -> Outcome {
    let rtc = registers()?;
    let before = rtc.read32(rtc::DR);
    rtc.write32(rtc::LR, before + 1000);
    let after = rtc.read32(rtc::DR);
    rtc.write32(rtc::LR, before);
    check!(
        (before + 1000..before + 1003).contains(&after),
        "DR after LR: about {}, got {after}",
        before + 1000
    );
    let back = rtc.read32(rtc::DR);
    check!((before..before + 3).contains(&back), "DR after setting it back: about {before}, got {back}");
    Ok(())
}
