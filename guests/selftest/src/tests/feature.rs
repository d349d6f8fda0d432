//! What the ID registers show works, on every CPU.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::psci;
use runtime::call::call3;
use runtime::probe::{self, Load};
use runtime::timer::{Timer, milliseconds};
use runtime::{cpu, features, gic, machine};

use crate::framework::{Outcome, Stop, check, check_eq, on_every_cpu, tests};

tests! {
    "feature.lse" => lse,
    "feature.crc32" => crc32,
    "feature.lrcpc" => lrcpc,
    "feature.rndr" => rndr,
    "feature.pointer-authentication" => pointer_authentication,
    "feature.simd-registers-kept" => simd_registers_kept,
    "feature.same-on-every-cpu" => same_on_every_cpu,
}

fn shown(feature: bool) -> Outcome {
    if feature { Ok(()) } else { Err(Stop::Skipped("not shown by this CPU")) }
}

fn lse() -> Outcome {
    shown(features::has_lse())?;
    on_every_cpu(|| {
        let cell = AtomicU64::new(40);
        check_eq!(features::fetch_add(&cell, 2), 40, "old value from LDADDAL");
        check_eq!(features::compare_and_swap(&cell, 42, 7), 42, "old value from CASAL");
        check_eq!(features::compare_and_swap(&cell, 42, 8), 7, "old value from a CASAL that fails");
        check_eq!(cell.load(Ordering::Relaxed), 7, "the word at last");
        Ok(())
    })
}

fn crc32() -> Outcome {
    shown(features::has_crc32())?;
    on_every_cpu(|| {
        // By bits: the reflected polynomial of CRC-32C, 0x82f63b78.
        let (accumulator, data) = (0x1234_5678u32, 0x0123_4567_89ab_cdefu64);
        let by_bits = (0..64).fold(u64::from(accumulator) ^ data, |rest, _| {
            rest >> 1 ^ if rest & 1 != 0 { 0x82f6_3b78 } else { 0 }
        });
        check_eq!(u64::from(features::crc32c(accumulator, data)), by_bits, "CRC32CX");
        Ok(())
    })
}

fn lrcpc() -> Outcome {
    shown(features::has_lrcpc())?;
    let cell = AtomicU64::new(0x1dab_7001);
    check_eq!(features::load_acquire_pc(&cell), 0x1dab_7001, "LDAPR");
    Ok(())
}

fn rndr() -> Outcome {
    shown(features::has_rndr())?;
    on_every_cpu(|| {
        let numbers = [(); 4].map(|()| (0..1000).find_map(|_| features::random()));
        check!(numbers.iter().all(Option::is_some), "RNDR should have numbers");
        check!(
            numbers.windows(2).all(|pair| pair[0] != pair[1]),
            "RNDR should not repeat itself: {numbers:x?}"
        );
        Ok(())
    })
}

fn pointer_authentication() -> Outcome {
    shown(features::has_pointer_authentication())?;
    on_every_cpu(|| {
        const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
        let pointer = 0x4020_0000;
        let (signed, back) = features::sign_and_authenticate(pointer, 77, KEY, 0);
        check!(signed != pointer, "a signed pointer should differ");
        check_eq!(back, pointer, "an authenticated pointer");
        check_eq!(features::instruction_key_a(), KEY, "the key, read back");
        let (other, _) = features::sign_and_authenticate(pointer, 77, [KEY[0], !KEY[1]], 0);
        check!(other != signed, "another key should give another signature");
        Ok(())
    })
}

fn simd_registers_kept() -> Outcome {
    shown(features::has_simd())?;
    on_every_cpu(|| {
        features::enable_simd(true);
        let values = core::array::from_fn(|n| {
            ((n as u128 + 1) * 0x0123_4567_89ab_cdef_1122_3344_5566_7788) ^ cpu::index() as u128
        });
        features::load_simd(&values);
        // Every kind of exit: calls, device accesses, aborts, an ID register, sleep, interrupts.
        for _ in 0..100 {
            call3(machine().conduit, psci::VERSION, [0; 3]);
            runtime::console::uart().read32(runtime::console::register::FR);
            let _ = probe::load(Load::Word, 0x0b00_0000);
            gic::send_sgi(1, gic::SgiTarget::Cpu(cpu::index()));
            gic::acknowledge().into_iter().for_each(gic::end);
        }
        let timer = Timer::Virtual;
        gic::enable(timer.intid());
        timer.start(timer.count() + milliseconds(5));
        while !cpu::irq_waits() {
            cpu::wait_for_interrupt();
        }
        timer.stop();
        gic::disable(timer.intid());
        let now = features::store_simd();
        features::enable_simd(false);
        let lost = values.iter().zip(&now).position(|(value, now)| value != now);
        check!(lost.is_none(), "q{} should keep its value", lost.unwrap_or(0));
        Ok(())
    })
}

fn same_on_every_cpu() -> Outcome {
    static FIRST: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];
    on_every_cpu(|| {
        // ID_AA64PFR0, PFR1, ISAR0, ISAR1, MMFR0.
        for (n, (crm, op2)) in [(4, 0), (4, 1), (6, 0), (6, 1), (7, 0)].into_iter().enumerate() {
            let register = runtime::sysreg::SysReg::new(3, 0, 0, crm, op2);
            let value = runtime::sysreg::read(register).unwrap_or(u64::MAX);
            if cpu::index() == 0 {
                FIRST[n].store(value, Ordering::Relaxed);
            }
            check_eq!(value, FIRST[n].load(Ordering::Relaxed), "{register} on CPU {}", cpu::index());
        }
        Ok(())
    })
}
