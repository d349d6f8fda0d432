//! Loads and stores of devices' registers: by all of a CPU's, and by instructions of which a hypervisor is told no more than the
//! address, that is pairs, write-back, FP and SIMD registers. They do what they do on hardware, or are aborts that change nothing.

use aarch64_cpu::registers::ID_AA64ISAR0_EL1;
use runtime::call::{self, Single};
use runtime::gic::{self, Version};
use runtime::mmu::{self, Kind};
use runtime::probe::{self, Form, Left, Load, UNTOUCHED};
use runtime::registers::REGISTERS;
use runtime::{console, features, machine, rtc};
use tock_registers::interfaces::Readable;

use crate::framework::{Outcome, Stop, check, check_eq, is_hanok, needs_hanok, tests};

tests! {
    "access.every-register" => every_register,
    "access.uart-loads" => uart_loads,
    "access.uart-stores" => uart_stores,
    "access.rtc" => rtc_registers,
    "access.distributor" => distributor,
    "access.vectors" => vectors,
    "access.across-the-end" => across_the_end,
    "access.from-memory-into-a-device" => from_memory_into_a_device,
    "access.misaligned" => misaligned,
    "access.refused" => refused,
    "access.translation-kept" => translation_kept,
}

fn uart(register: u64) -> u64 {
    machine().uart.registers.base + register
}

/// The PrimeCell id 0 to 3, the same of every PrimeCell: four words of a byte each.
const PCELL_ID: u64 = 0xff0;
const ID: [u64; 4] = [0x0d, 0xf0, 0x05, 0xb1];

/// The registers behind a load of `form` at `base`.
#[track_caller]
fn check_load(form: Form, base: u64, first: u64, second: u64, moved: i64) -> Outcome {
    let left = probe::access(form, base, UNTOUCHED, UNTOUCHED);
    let expected = Left { first, second, base: base.wrapping_add_signed(moved), fault: None };
    check_eq!(left, expected, "{form:?} at {base:#x}");
    Ok(())
}

/// What `form` stores leaves its registers, and moves its base.
#[track_caller]
fn check_store(form: Form, base: u64, first: u64, second: u64, moved: i64) -> Outcome {
    let left = probe::access(form, base, first, second);
    let expected = Left { first, second, base: base.wrapping_add_signed(moved), fault: None };
    check_eq!(left, expected, "{form:?} at {base:#x}");
    Ok(())
}

/// Loads, stores and reads of an ID register that a hypervisor is told of in full, by each register: that one changes, or is stored, and no
/// other. The distributor's TYPER and the UART's FR are what guests read most, IBRD and an ID register of the UART the contrary.
fn every_register() -> Outcome {
    let ibrd = uart(console::register::IBRD as u64);
    let registers = core::array::from_fn(|n| (0x0101_0101_0101_0101 * n as u64) ^ 0xa5a5_0000_5a5a_0000);
    let before = console::uart().read32(console::register::IBRD);
    let outcome = (0..31).try_for_each(|n| {
        let typer = gic::bank(40).base() as u64 + gic::register::TYPER as u64;
        for at in [uart(PCELL_ID), uart(console::register::FR as u64), typer] {
            let value = probe::load(Load::Word, at).unwrap_or(UNTOUCHED);
            check_single(Single::Load, n, at, registers, Some(value))?;
        }
        let isar0 = ID_AA64ISAR0_EL1.get();
        check_single(Single::ReadIsar0, n, 0, registers, Some(isar0))?;
        check_single(Single::Store, n, ibrd, registers, None)?;
        let stored = u64::from(console::uart().read32(console::register::IBRD));
        check_eq!(stored, registers[n] & 0xffff, "IBRD behind a store of x{n}");
        Ok(())
    });
    console::uart().write32(console::register::IBRD, before);
    outcome
}

/// That `what` gives its register this value, where it is a load, and changes no other one.
#[track_caller]
fn check_single(what: Single, n: usize, at: u64, registers: [u64; 31], value: Option<u64>) -> Outcome {
    let [mut expected, after] = call::single(what, n, at, registers);
    if let Some(value) = value {
        expected[n] = value;
    }
    let wrong = (0..31).find(|of| after[*of] != expected[*of]);
    let of = wrong.unwrap_or(0);
    check!(
        wrong.is_none(),
        "{what:?} at {at:#x} by x{n}: x{of} should be {:#x}, is {:#x}",
        expected[of],
        after[of]
    );
    Ok(())
}

fn uart_loads() -> Outcome {
    let at = uart(PCELL_ID);
    let [first, second, third, fourth] = ID;
    check_load(Form::Pair, at, first, second, 0)?;
    check_load(Form::PairOffset, at, third, fourth, 0)?;
    check_load(Form::PairPre, at, third, fourth, 8)?;
    check_load(Form::PairPost, at + 8, third, fourth, -8)?;
    check_load(Form::PairSigned, at, first, second, 0)?;
    check_load(Form::PairNonTemporal, at + 4, second, third, 0)?;
    check_load(Form::PairToZero, at, UNTOUCHED, second, 0)?;
    check_load(Form::Pre, at, second, UNTOUCHED, 4)?;
    check_load(Form::Post, at, first, UNTOUCHED, 4)?;
    check_load(Form::PreByte, at + 8, fourth, UNTOUCHED, 4)?;
    check_load(Form::PostSignedByte, at + 12, 0xffff_ffff_ffff_ffb1, UNTOUCHED, -4)?;
    check_load(Form::PostSignedByteW, at + 12, 0xffff_ffb1, UNTOUCHED, 4)?;
    check_load(Form::PostHalf, at + 4, second, UNTOUCHED, 4)?;
    check_load(Form::PostSignedWord, at + 12, fourth, UNTOUCHED, 4)?;
    check_load(Form::PostToZero, at, UNTOUCHED, UNTOUCHED, 4)?;
    check_load(Form::Unscaled, at, second, UNTOUCHED, 0)?;
    check_load(Form::Indexed, at, third, UNTOUCHED, 0)?;
    check_load(Form::OtherStackPost, at, first, UNTOUCHED, 16)?;
    check_load(Form::StackPost, at, first, UNTOUCHED, 16)
}

/// IBRD and FBRD, whose values nothing looks at while the UART talks by its FIFO alone.
fn uart_stores() -> Outcome {
    use console::register::{FBRD, IBRD};
    let uart_registers = console::uart();
    let before = [IBRD, FBRD].map(|register| uart_registers.read32(register));
    let at = uart(IBRD as u64);
    let stores = [
        (Form::StorePair, at, 0x1234, 0x15, 0, [0x1234, 0x15]),
        (Form::StorePairPre, at - 4, 0xffff_ffff_0000_2345, 0x16, 4, [0x2345, 0x16]),
        (Form::StorePairPost, at, 0x3456, 0xffff_ffff_0000_0017, 8, [0x3456, 0x17]),
        (Form::StorePairNonTemporal, at, 0x4567, 0x18, 0, [0x4567, 0x18]),
        (Form::StorePairZero, at, 0x9999, 0x19, 0, [0, 0x19]),
        (Form::StorePre, at - 4, 0x5678, 0, 4, [0x5678, 0x19]),
        (Form::StorePost, at + 4, 0x1a, 0, 4, [0x5678, 0x1a]),
        (Form::StorePostZero, at, 0x9999, 0, 4, [0, 0x1a]),
    ];
    let outcome = stores.into_iter().try_for_each(|(form, base, first, second, moved, expected)| {
        check_store(form, base, first, second, moved)?;
        let now = [IBRD, FBRD].map(|register| uart_registers.read32(register));
        check_eq!(now, expected, "IBRD and FBRD behind {form:?}");
        Ok(())
    });
    uart_registers.write32(IBRD, before[0]);
    uart_registers.write32(FBRD, before[1]);
    outcome
}

fn rtc_registers() -> Outcome {
    let Some(device) = machine().rtc else { return Err(Stop::Skipped("there is no PL031")) };
    let registers = device.registers.base;
    check_load(Form::PairPre, registers + PCELL_ID, ID[2], ID[3], 8)?;
    let at = registers + rtc::MR as u64;
    check_store(Form::StorePost, at, 0xffff_0001, 0, 4)?;
    check_load(Form::Pre, at - 4, 0xffff_0001, UNTOUCHED, 4)?;
    check_load(Form::PostSignedWord, at, 0xffff_ffff_ffff_0001, UNTOUCHED, 4)
}

/// Priorities of SPIs that nothing has.
const PRIORITIES: u64 = gic::register::IPRIORITYR as u64 + 40;

fn distributor() -> Outcome {
    if gic::version() == Version::V3 && !is_hanok() {
        return Err(Stop::Skipped(
            "QEMU takes a pair of words for a doubleword, which its GICv3 doesn't know",
        ));
    }
    let bank = gic::bank(40).base() as u64;
    let word = |at: u64| probe::load(Load::Word, bank + at).unwrap_or(UNTOUCHED);
    // TYPER and IIDR, and CTLR and TYPER.
    check_load(Form::Pair, bank + 4, word(4), word(8), 0)?;
    check_load(Form::Post, bank + 4, word(4), UNTOUCHED, 4)?;
    check_load(Form::PairPost, bank + 8, word(8), word(12), -8)?;
    // The private interrupts' priorities, which the redistributor has on GICv3.
    let own = gic::bank(0).base() as u64 + gic::register::IPRIORITYR as u64 + 16;
    check_store(Form::StorePairPost, own, 0x8080_8080, 0x9090_9090, 8)?;
    check_load(Form::PairNonTemporal, own, 0x8080_8080, 0x9090_9090, 0)?;
    let at = bank + PRIORITIES;
    check_store(Form::StorePair, at, 0x8090_a0b0, 0xc0d0_e0f0, 0)?;
    check_eq!(
        [word(PRIORITIES), word(PRIORITIES + 4)],
        [0x8090_a0b0, 0xc0d0_e0f0],
        "IPRIORITYR behind `stp`"
    );
    check_load(Form::PairSigned, at, 0xffff_ffff_8090_a0b0, 0xffff_ffff_c0d0_e0f0, 0)?;
    check_load(Form::PreByte, at - 4, 0xb0, UNTOUCHED, 4)?;
    check_load(Form::PostSignedByte, at + 5, 0xffff_ffff_ffff_ffe0, UNTOUCHED, -4)?;
    check_store(Form::StorePostByte, at + 1, 0x40, 0, 1)?;
    check_eq!(word(PRIORITIES), 0x8090_40b0, "IPRIORITYR behind `strb` with write-back");
    check_store(Form::StorePairZero, at, 0x9999, 0x1020_3040, 0)?;
    check_eq!([word(PRIORITIES), word(PRIORITIES + 4)], [0, 0x1020_3040], "IPRIORITYR behind `stp` with WZR");
    Ok(())
}

fn vectors() -> Outcome {
    if !features::has_simd() {
        return Err(Stop::Skipped("this CPU has no SIMD"));
    }
    features::enable_simd(true);
    // What a load has to clear.
    features::load_simd(&[u128::MAX; 32]);
    let outcome = vector_accesses();
    let others = features::store_simd();
    features::enable_simd(false);
    outcome?;
    let kept = others.iter().enumerate().all(|(n, value)| [9, 11].contains(&n) || *value == u128::MAX);
    check!(kept, "V registers that nothing was loaded into keep their values");
    check!(others[9] >> 32 == 0 && others[11] >> 32 == 0, "a load of a word clears what is above it");
    Ok(())
}

fn vector_accesses() -> Outcome {
    let at = uart(PCELL_ID);
    let [first, second, third, _] = ID;
    check_load(Form::Vector, at, first, UNTOUCHED, 0)?;
    check_load(Form::VectorPost, at + 4, second, UNTOUCHED, 4)?;
    check_load(Form::VectorPair, at + 4, second, third, 0)?;
    let bank = gic::bank(40).base() as u64;
    let word = |at: u64| probe::load(Load::Word, bank + at).unwrap_or(UNTOUCHED);
    if gic::version() == Version::V3 && !is_hanok() {
        return Ok(());
    }
    // Words, for an access of 64 bits is the distributor's business.
    let at = bank + PRIORITIES;
    check_store(Form::VectorStorePair, at, 0x1122_3344_8090_a0b0, 0xc0d0_e0f0, 0)?;
    check_eq!(
        [word(PRIORITIES), word(PRIORITIES + 4)],
        [0x8090_a0b0, 0xc0d0_e0f0],
        "IPRIORITYR behind `stp s, s`"
    );
    check_store(Form::VectorStore, at, 0x1020_3040, 0, 4)?;
    check_eq!(word(PRIORITIES + 4), 0x1020_3040, "IPRIORITYR behind `str s` with write-back");
    check_load(Form::VectorPair, at, 0x8090_a0b0, 0x1020_3040, 0)
}

/// A pair whose second word is behind the device: an abort for that word, and nothing is changed.
fn across_the_end() -> Outcome {
    needs_hanok()?;
    for form in [Form::Pair, Form::StorePair] {
        let last = uart(0xffc);
        let left = probe::access(form, last, UNTOUCHED, UNTOUCHED);
        let Some(fault) = left.fault else {
            check!(false, "{form:?} across the end of the UART: an abort, got none");
            return Ok(());
        };
        check!(
            fault.is_external_abort(),
            "{form:?} across the end of the UART: an external abort, got {fault}"
        );
        check_eq!(fault.far, last + 4, "{form:?} across the end of the UART: FAR");
        check_eq!(fault.syndrome() >> 6 & 1, u64::from(form == Form::StorePair), "{form:?}: WnR");
        check_eq!((left.first, left.second), (UNTOUCHED, UNTOUCHED), "{form:?}: registers behind an abort");
    }
    Ok(())
}

/// A block where nothing is, and the next one.
const SPARE: u64 = 48 << 30;
const NEXT: u64 = SPARE + (2 << 20);

/// A pair whose first word is in memory, and its second one in a device: what faults isn't where it starts.
fn from_memory_into_a_device() -> Outcome {
    needs_hanok()?;
    let (ram, device) = (machine().ram[0].base, machine().uart.registers.base);
    mmu::map(SPARE, ram.next_multiple_of(2 << 20), Kind::Normal);
    mmu::map(NEXT, device, Kind::Device);
    let start = NEXT + device % (2 << 20) - 4;
    let left = probe::access(Form::Pair, start, UNTOUCHED, UNTOUCHED);
    mmu::map(NEXT, NEXT, Kind::Device);
    mmu::map(SPARE, SPARE, Kind::Device);
    check_untouched(left, start, start + 4, "a pair from memory into the UART")
}

/// Accesses that Device memory wouldn't let through, to a device that the guest has mapped as Normal.
fn misaligned() -> Outcome {
    needs_hanok()?;
    let device = machine().uart.registers.base;
    mmu::map(SPARE, device, Kind::NonCacheable);
    let outcome = [Form::Pair, Form::Post, Form::PostHalf].into_iter().try_for_each(|form| {
        let at = SPARE + device % (2 << 20) + PCELL_ID + 1;
        let left = probe::access(form, at, UNTOUCHED, UNTOUCHED);
        check_untouched(left, at, at, "an access to the UART that isn't aligned")
    });
    mmu::map(SPARE, SPARE, Kind::Device);
    outcome
}

/// An external abort at `far` has changed nothing.
fn check_untouched(left: Left, base: u64, far: u64, what: &str) -> Outcome {
    let fault = left.fault;
    check!(
        fault.is_some_and(|fault| fault.is_external_abort() && fault.far == far),
        "{what}: an external abort, got {fault:?}"
    );
    check_eq!(
        left,
        Left { first: UNTOUCHED, second: UNTOUCHED, base, fault },
        "{what}: registers behind an abort"
    );
    Ok(())
}

/// A hypervisor that looks the instruction up translates addresses: what the guest has asked for is still in PAR_EL1.
fn translation_kept() -> Outcome {
    let asked = mmu::translate_read(machine().ram[0].base);
    check_load(Form::Pair, uart(PCELL_ID), ID[0], ID[1], 0)?;
    let par = REGISTERS.iter().find(|register| register.name == "PAR_EL1").map(|register| register.read());
    check_eq!(par, Some(asked), "PAR_EL1 behind a pair");
    Ok(())
}

/// What no device answers.
fn refused() -> Outcome {
    needs_hanok()?;
    if features::has_simd() {
        features::enable_simd(true);
    }
    let at = uart(PCELL_ID);
    let outcome = [Form::Exclusive, Form::ExclusivePair, Form::Structure].into_iter().try_for_each(|form| {
        let left = probe::access(form, at, UNTOUCHED, UNTOUCHED);
        let fault = left.fault;
        check!(
            fault.is_some_and(|f| f.is_external_abort() && f.far == at),
            "{form:?}: an external abort, got {fault:?}"
        );
        let kept = Left { first: UNTOUCHED, second: UNTOUCHED, base: at, fault };
        check_eq!(left, kept, "{form:?}: registers behind an abort");
        Ok(())
    });
    features::enable_simd(false);
    outcome
}
