//! Interrupts of all kinds by the thousand, with their priorities, targets and groups changed meanwhile; and what is done with
//! those that come.

use core::sync::atomic::{AtomicBool, Ordering};

use runtime::gic::{self, SgiRegister, SgiTarget, Version, register};
use runtime::mmio::Mmio;
use runtime::timer::{self, Timer};
use runtime::trial::{EL0, EL1H, Ended, Trial};
use runtime::{machine, registers};

use crate::words::{NOP, SEV};
use crate::{Operation, places};

/// Takes what has come, and mostly ends it. Timers stop.
pub fn clear_up(ended: &Ended, operation: &mut Operation, disturbed: &AtomicBool) {
    Timer::ALL.iter().for_each(|timer| timer.stop());
    if ended.interrupt() == 0 {
        return;
    }
    let random = &mut operation.random;
    for _ in 0..=random.below(4) {
        let Some(interrupt) = gic::acknowledge() else { return };
        match random.below(16) {
            // It stays active.
            0 => disturbed.store(true, Ordering::Relaxed),
            // It is ended twice.
            1 => {
                gic::end(interrupt);
                gic::end(interrupt);
                disturbed.store(true, Ordering::Relaxed);
            }
            _ => gic::end(interrupt),
        }
    }
}

/// Puts this CPU's part of the controller into its starting state; with `all`, the distributor too.
pub fn put_right(all: bool) {
    registers::release();
    gic::drop_priorities();
    if all {
        gic::init_distributor();
    }
    gic::init_cpu();
    let_the_timer_through();
}

/// Sees to it that the timer's interrupt comes to this CPU, whatever else may not.
pub fn let_the_timer_through() {
    let timer = Timer::Virtual.intid();
    gic::drop_priorities();
    gic::enable_distributor(true);
    gic::clear_active(timer);
    gic::set_priority(timer, gic::DEFAULT_PRIORITY);
    gic::init_interface();
    gic::set_default_groups(timer);
    gic::enable(timer);
}

/// Where the registers of the interrupts from 32 on are, or of the private ones.
fn bank(operation: &mut Operation) -> (Mmio, usize) {
    let words = gic::interrupt_count() as usize / 32;
    let word = operation.random.below(words as u64) as usize;
    (gic::bank(32 * word as u32), word)
}

/// One thing done to the controller.
fn disturb(operation: &mut Operation) {
    let (bank, word) = bank(operation);
    let random = &mut operation.random;
    let bits = match random.below(4) {
        0 => u32::MAX,
        1 => 1 << random.below(32),
        _ => random.word() as u32,
    };
    let intid = 32 * word + random.below(32) as usize;
    match random.below(16) {
        0..3 => bank.write32(register::ISPENDR + 4 * word, bits),
        3 | 4 => bank.write32(register::ISENABLER + 4 * word, bits),
        5 => bank.write32(register::ICENABLER + 4 * word, bits),
        6 => bank.write32(register::ISACTIVER + 4 * word, bits),
        7 => bank.write32(register::ICACTIVER + 4 * word, bits),
        8 => bank.write32(register::IGROUPR + 4 * word, bits),
        9 => bank.write32(register::ICPENDR + 4 * word, bits),
        10 => bank.write8(register::IPRIORITYR + intid, bits as u8),
        11 => bank.write32(register::ICFGR + 8 * word, bits),
        12 if gic::version() == Version::V2 => {
            gic::distributor().write8(register::ITARGETSR + intid, bits as u8);
        }
        12 => {
            let (own, any) = (random.one_of(machine().cpus()), places::extreme(random));
            let route = random.one_of(&[own, own, 1 << 31, any]);
            gic::distributor().write64(register::IROUTER + 8 * intid.max(32), route);
        }
        13 => gic::send_sgi(random.below(16) as u32, SgiTarget::Others),
        14 => {
            let which = [SgiRegister::Own, SgiRegister::OtherState, SgiRegister::Group0];
            gic::send_raw_sgi(random.one_of(&which), random.word() & places::extreme(random));
        }
        _ => gic::send_sgi(
            random.below(16) as u32,
            SgiTarget::Cpu(random.below(machine().cpus().len() as u64) as usize),
        ),
    }
}

/// Some changes at once, with timers whose time has passed, and interrupts let in.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    for _ in 0..=operation.random.below(6) {
        disturb(operation);
    }
    let random = &mut operation.random;
    match random.below(8) {
        0 => gic::set_priority_mask(random.word() as u8),
        1 => Timer::Physical.start(random.below(timer::now())),
        2 => Timer::Physical.start(places::extreme(random)),
        3 => {
            Timer::Virtual.start(0);
            operation.alarm = 0;
        }
        _ => {}
    }
    let x = places::registers(random);
    let pstate = random.one_of(&[EL1H, EL0]);
    trial.prepare(&[NOP, SEV, NOP, NOP], x, pstate);
}
