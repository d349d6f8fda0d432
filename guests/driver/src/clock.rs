//! The board's clock: its alarm, three times.

use core::sync::atomic::{AtomicU32, Ordering};

use runtime::gic::{self, Interrupt};
use runtime::interrupts;
use runtime::mmio::Mmio;
use runtime::rtc::{CR, DR, ICR, IMSC, MR, RIS};
use runtime::{power, println};
use spin::Once;

/// How often the alarm is set.
const ALARMS: u32 = 3;

static CLOCK: Once<Mmio> = Once::new();
static CAME: AtomicU32 = AtomicU32::new(0);

pub fn run() -> ! {
    let device = crate::device("arm,pl031");
    let Some(intid) = device.intid(0) else {
        println!("driver: the clock has no interrupt");
        power::off()
    };
    let clock = *CLOCK.call_once(|| device.registers);
    println!("driver: a clock at {:#x} with interrupt {intid}", clock.base());
    interrupts::set_handler(rang);
    clock.write32(CR, 1);
    clock.write32(ICR, 1);
    clock.write32(IMSC, 1);
    gic::enable(intid);
    for alarm in 1..=ALARMS {
        clock.write32(MR, clock.read32(DR) + 1);
        interrupts::sleep_until(|| CAME.load(Ordering::Relaxed) == alarm);
        println!("driver: alarm {alarm} of {ALARMS}");
    }
    println!("driver: done");
    power::off()
}

fn rang(_: Interrupt) {
    let Some(clock) = CLOCK.get() else { return };
    if clock.read32(RIS) & 1 != 0 {
        clock.write32(ICR, 1);
        CAME.fetch_add(1, Ordering::Relaxed);
    } else {
        println!("driver: an interrupt without an alarm");
    }
}
