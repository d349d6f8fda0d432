//! Caches: what the identification registers say, maintenance by set and way and by address, MMU and caches off.

use core::sync::atomic::{AtomicU64, Ordering};

use runtime::cache;

use crate::framework::{Outcome, check, check_eq, failed, on_every_cpu, tests};

tests! {
    "cache.identification" => identification,
    "cache.set-and-way" => set_and_way,
    "cache.off-and-on" => off_and_on,
    "cache.off-and-on-on-every-cpu" => off_and_on_on_every_cpu,
    "cache.by-address" => by_address,
    "cache.zero-block" => zero_block,
}

fn identification() -> Outcome {
    let ctr = cache::type_register();
    check_eq!(ctr >> 31 & 1, 1, "CTR_EL0 bit 31, RES1");
    let line = cache::line_size();
    check!((16..=2048).contains(&line), "smallest line of 16 to 2048 bytes, got {line}");
    for level in 1..=cache::levels() {
        let Some(geometry) = cache::geometry(level) else { continue };
        check!(
            geometry.line >= line as u64,
            "level {level}: a line of {line} bytes at least, got {geometry:?}"
        );
        check_eq!(cache::geometry(level), Some(geometry), "CCSIDR_EL1 of level {level}, read again");
    }
    Ok(())
}

static WORDS: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

/// Fills the words, and returns what each should hold.
fn fill(seed: u64) -> impl Fn(usize) -> u64 {
    let value = move |n: usize| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n as u64);
    for (n, word) in WORDS.iter().enumerate() {
        word.store(value(n), Ordering::Relaxed);
    }
    value
}

fn check_words(expected: impl Fn(usize) -> u64, when: &str) -> Outcome {
    for (n, word) in WORDS.iter().enumerate() {
        check_eq!(word.load(Ordering::Relaxed), expected(n), "word {n} {when}");
    }
    Ok(())
}

fn set_and_way() -> Outcome {
    let expected = fill(1);
    let lines = cache::clean_invalidate_all();
    check!(lines > 0, "lines of the caches, got {lines}");
    check_words(expected, "after maintenance by set and way")
}

/// A word in a line of its own.
#[repr(align(2048))]
struct Line(AtomicU64);

static OFF: Line = Line(AtomicU64::new(0));

fn off_and_on() -> Outcome {
    turn_off_and_on(10)
}

fn turn_off_and_on(rounds: u64) -> Outcome {
    let expected = fill(2);
    for round in 1..=rounds {
        let address = core::ptr::from_ref(&OFF) as usize;
        OFF.0.store(round, Ordering::Relaxed);
        cache::clean_invalidate_all();
        cache::clean_invalidate(address, 8);
        let seen = cache::exchange_uncached(&OFF.0, !round);
        check_eq!(seen, round, "round {round}: the word as memory has it, with caches off");
        check_eq!(OFF.0.load(Ordering::Relaxed), !round, "round {round}: the word written with caches off");
    }
    check_words(expected, "after caches were off and on")
}

fn off_and_on_on_every_cpu() -> Outcome {
    // Each set and way traps: where every exit costs a call of firmware's, ten rounds would take an emulator too long.
    on_every_cpu(|| turn_off_and_on(2))
}

fn by_address() -> Outcome {
    let expected = fill(3);
    cache::clean_invalidate(core::ptr::from_ref(&WORDS) as usize, size_of_val(&WORDS));
    cache::publish_code(core::ptr::from_ref(&WORDS) as usize, size_of_val(&WORDS));
    check_words(expected, "after DC CIVAC, DC CVAU and IC IVAU")
}

/// Two of the largest blocks that DC ZVA may have, aligned to one.
#[repr(align(2048))]
struct Blocks([AtomicU64; 512]);

static BLOCKS: Blocks = Blocks([const { AtomicU64::new(0) }; 512]);

fn zero_block() -> Outcome {
    on_every_cpu(|| {
        let Some(size) = cache::zero_size() else {
            return Err(failed(format_args!("DCZID_EL0.DZP should be clear at EL1")));
        };
        let (words, at) = (size / 8, 300);
        BLOCKS.0.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        cache::zero_block(&BLOCKS.0, at);
        for (n, word) in BLOCKS.0.iter().enumerate() {
            let expected = if n / words == at / words { 0 } else { u64::MAX };
            check_eq!(
                word.load(Ordering::Relaxed),
                expected,
                "word {n}, of {words} in a block, behind DC ZVA"
            );
        }
        Ok(())
    })
}
