//! Translation: address translation instructions, TLB maintenance, and MMU and caches off and on again.

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::machine;
use runtime::mmu::{self, Kind};
use runtime::probe::{self, Load};
use runtime::sysreg::{self, Probe};

use crate::framework::{
    Outcome, check, check_eq, expect_soon, finish, needs_cpus, on_every_cpu, start, tests, wait,
};

tests! {
    "mmu.address-translation" => address_translation,
    "mmu.address-translation-of-el2" => address_translation_of_el2,
    "mmu.remap" => remap,
    "mmu.remap-on-another-cpu" => remap_on_another_cpu,
    "mmu.invalidate-all" => invalidate_all,
}

const MIB2: u64 = 2 << 20;

/// Addresses that are free to be mapped to anything.
const WINDOW: u64 = 62 << 30;

/// Words in RAM, 2 MiB apart, seen through a window at one address: this program's own image holds their values.
fn blocks() -> [u64; 2] {
    // The block of the image, and the one behind it.
    let image = core::ptr::from_ref(&MARK) as u64 / MIB2 * MIB2;
    [image, image + MIB2]
}

static MARK: AtomicU64 = AtomicU64::new(0x4d41_524b);

fn address_translation() -> Outcome {
    on_every_cpu(|| {
        const PA: u64 = 0xffff_ffff_f000;
        let address = core::ptr::from_ref(&MARK) as u64;
        for par in [mmu::translate_read(address), mmu::translate_write(address)] {
            check_eq!(par & 1, 0, "PAR_EL1.F for RAM, PAR_EL1 is {par:#x}");
            check_eq!(par & PA, address & PA, "address in PAR_EL1: the guest's own, not the board's");
            check_eq!(par >> 56, 0xff, "attributes in PAR_EL1");
        }
        let par = mmu::translate_read(machine().uart.registers.base);
        check_eq!((par & 1, par & PA), (0, machine().uart.registers.base), "translation of the UART");
        // Stage 2 has no part in it: what is mapped to nothing is translated all the same.
        let par = mmu::translate_read(0x0b00_0000);
        check_eq!((par & 1, par & PA), (0, 0x0b00_0000), "translation of an address where nothing is");
        let par = mmu::translate_read(mmu::ADDRESS_LIMIT);
        check_eq!(
            (par & 1, par >> 1 & 0x3c),
            (1, 0x04),
            "translation fault behind the tables, PAR_EL1 {par:#x}"
        );
        Ok(())
    })
}

fn address_translation_of_el2() -> Outcome {
    for instruction in [Probe::AtS12e1r, Probe::TlbiVmalls12e1is] {
        let fault = sysreg::probe(instruction).err();
        check!(fault.is_some_and(|fault| fault.is_undefined()), "{instruction:?} should be UNDEFINED at EL1");
    }
    Ok(())
}

/// The word of [`MARK`] through the window, which maps the image's block.
fn mark_in_window() -> u64 {
    WINDOW + core::ptr::from_ref(&MARK) as u64 % MIB2
}

/// Maps the window to the image and elsewhere by turns; the view follows at once.
fn remap() -> Outcome {
    let [image, behind] = blocks();
    MARK.store(0x1111, Ordering::Relaxed);
    for round in 0..50 {
        mmu::map(WINDOW, image, Kind::Normal);
        check_eq!(
            probe::load(Load::Double, mark_in_window()),
            Ok(0x1111),
            "round {round}: the word in the image"
        );
        mmu::map(WINDOW, behind, Kind::Normal);
        let other = probe::load(Load::Double, mark_in_window());
        check!(other.is_ok_and(|word| word != 0x1111), "round {round}: another word, behind the image");
        mmu::map(WINDOW, 0, Kind::Unmapped);
        let fault = probe::load(Load::Double, mark_in_window()).err();
        let status = fault.map(|fault| fault.status());
        check_eq!(status, Some(0x06), "round {round}: DFSC, a translation fault at level 2");
    }
    Ok(())
}

static STEP: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
const STEPS: u64 = 50;

/// Looks through the window as often as asked.
fn look(_: u64) {
    for step in 1..=STEPS {
        if !wait(|| STEP.load(Ordering::Acquire) == step) {
            return;
        }
        SEEN.store(probe::load(Load::Double, mark_in_window()).unwrap_or(u64::MAX), Ordering::Relaxed);
        STEP.store(0, Ordering::Release);
    }
}

fn remap_on_another_cpu() -> Outcome {
    // Invalidation on this CPU reaches the others.
    needs_cpus(2)?;
    let [image, behind] = blocks();
    MARK.store(0x2222, Ordering::Relaxed);
    STEP.store(0, Ordering::Release);
    start(1, look, 0)?;
    let mut outcome = Ok(());
    for step in 1..=STEPS {
        let block = if step % 2 == 1 { image } else { behind };
        mmu::map(WINDOW, block, Kind::Normal);
        STEP.store(step, Ordering::Release);
        expect_soon(|| STEP.load(Ordering::Acquire) == 0, format_args!("CPU 1 should look"))?;
        let right = (SEEN.load(Ordering::Relaxed) == 0x2222) == (block == image);
        outcome =
            outcome.and(crate::framework::expect(right, format_args!("step {step}: a stale view on CPU 1")));
    }
    finish(1)?;
    mmu::map(WINDOW, 0, Kind::Unmapped);
    outcome
}

fn invalidate_all() -> Outcome {
    on_every_cpu(|| {
        for round in 0..20 {
            MARK.store(round, Ordering::Relaxed);
            mmu::invalidate_all();
            check_eq!(MARK.load(Ordering::Relaxed), round, "memory after an invalidation");
        }
        Ok(())
    })
}
