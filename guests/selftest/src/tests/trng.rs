//! Random numbers by call (Arm DEN0098): there are some where the device tree has seeds, and no such call where it has none.

use abi::{FunctionId, smccc, trng};
use runtime::call::{Immediate, call};
use runtime::machine;
use runtime::machine::Conduit;

use crate::framework::{Outcome, Stop, check, check_eq, needs_hanok, on_every_cpu, tests};

tests! {
    "trng.there-with-seeds-alone" => there_with_seeds_alone,
    "trng.features" => features,
    "trng.uuid" => uuid,
    "trng.numbers-are-new" => numbers_are_new,
    "trng.bits-wanted" => bits_wanted,
    "trng.invalid" => invalid,
    "trng.registers" => registers,
}

const CALLS: [FunctionId; 5] = [trng::VERSION, trng::FEATURES, trng::GET_UUID, trng::RND_32, trng::RND_64];

/// What is in a register that isn't for the call.
const GARBAGE: u64 = 0x5a5a_0000_a5a5_0000;

fn ask(conduit: Conduit, function: FunctionId, x1: u64) -> [u64; 31] {
    let mut registers = [GARBAGE; 31];
    registers[0] = u64::from(function.as_u32());
    registers[1] = x1;
    call(conduit, Immediate::Zero, registers)
}

/// X0 to X3.
fn results(function: FunctionId, x1: u64) -> [i64; 4] {
    let registers = ask(machine().conduit, function, x1);
    core::array::from_fn(|n| registers[n] as i64)
}

fn needs_random() -> Outcome {
    needs_hanok()?;
    if machine().has_seed { Ok(()) } else { Err(Stop::Skipped("the board gives no random numbers")) }
}

fn there_with_seeds_alone() -> Outcome {
    needs_hanok()?;
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        let version = ask(conduit, trng::VERSION, GARBAGE)[0] as i64;
        if machine().has_seed {
            check_eq!(version, i64::from(trng::VERSION_1_0), "TRNG_VERSION by {conduit:?}");
            continue;
        }
        for function in CALLS {
            let x0 = ask(conduit, function, 64)[0] as i64;
            check_eq!(x0, trng::NOT_SUPPORTED, "{:#x} by {conduit:?}, without seeds", function.as_u32());
        }
    }
    Ok(())
}

fn features() -> Outcome {
    needs_random()?;
    for function in CALLS {
        check_eq!(results(trng::FEATURES, function.as_u32().into())[0], 0, "{:#x}", function.as_u32());
    }
    for function in [smccc::VERSION.as_u32(), 0x8400_0054, 0xc400_0050, 0] {
        let status = results(trng::FEATURES, function.into())[0];
        check_eq!(status, trng::NOT_SUPPORTED, "TRNG_FEATURES of {function:#x}");
    }
    Ok(())
}

fn uuid() -> Outcome {
    needs_random()?;
    check_eq!(results(trng::GET_UUID, GARBAGE), trng::UUID.map(i64::from), "TRNG_GET_UUID");
    Ok(())
}

/// Of 192 random bits each, no register is one that came before, on whichever CPU, and each bit is set now and then.
fn numbers_are_new() -> Outcome {
    needs_random()?;
    on_every_cpu(|| {
        const ROUNDS: usize = 16;
        let mut numbers = [[0; 3]; ROUNDS];
        for (round, place) in numbers.iter_mut().enumerate() {
            let conduit = if round % 2 == 0 { Conduit::Hvc } else { Conduit::Smc };
            let registers = ask(conduit, trng::RND_64, 192);
            check_eq!(registers[0] as i64, trng::SUCCESS, "TRNG_RND64 of 192 bits by {conduit:?}");
            place.copy_from_slice(&registers[1..4]);
        }
        let numbers = numbers.as_flattened();
        for (n, number) in numbers.iter().enumerate() {
            check!(!numbers[..n].contains(number), "{number:#x} came twice");
        }
        check_eq!(numbers.iter().fold(0, |all, number| all | number), u64::MAX, "bits that were ever set");
        check_eq!(numbers.iter().fold(u64::MAX, |all, number| all & number), 0, "bits that were always set");
        Ok(())
    })
}

/// Of as many bits as are wanted, from the lowest bit of the third register up, each is random, and above them are zeros.
fn bits_wanted() -> Outcome {
    needs_random()?;
    for (function, width) in [(trng::RND_32, 32), (trng::RND_64, 64)] {
        for wanted in [1, 2, 31, 32, 33, 63, 64, 65, 95, 96, 97, 128, 191, 192] {
            if wanted > 3 * width {
                continue;
            }
            let mut seen = [0; 3];
            for _ in 0..48 {
                let registers = ask(machine().conduit, function, wanted.into());
                check_eq!(registers[0] as i64, trng::SUCCESS, "{:#x} of {wanted} bits", function.as_u32());
                seen.iter_mut()
                    .zip([registers[3], registers[2], registers[1]])
                    .for_each(|(all, x)| *all |= x);
            }
            for (n, seen) in (0..).zip(seen) {
                let bits = u32::saturating_sub(wanted, n * width).min(width);
                let expected = if bits == 0 { 0 } else { u64::MAX >> (64 - bits) };
                check_eq!(
                    seen,
                    expected,
                    "{:#x} of {wanted} bits: those set in X{}",
                    function.as_u32(),
                    3 - n
                );
            }
        }
    }
    Ok(())
}

fn invalid() -> Outcome {
    needs_random()?;
    for (function, bits) in [
        (trng::RND_32, 0),
        (trng::RND_32, 97),
        (trng::RND_32, 0xffff_ffff),
        (trng::RND_64, 0),
        (trng::RND_64, 193),
        (trng::RND_64, 1 << 32 | 64),
        (trng::RND_64, u64::MAX),
    ] {
        let results = results(function, bits);
        check_eq!(results, [trng::INVALID_PARAMETERS, 0, 0, 0], "{:#x} of {bits:#x} bits", function.as_u32());
    }
    // Above a W register is nothing.
    check_eq!(
        results(trng::RND_32, 1 << 32 | 8)[0],
        trng::SUCCESS,
        "TRNG_RND32 of 8 bits, with bits above W1"
    );
    Ok(())
}

/// All but the results stay as they are.
fn registers() -> Outcome {
    needs_random()?;
    for (function, first) in [(trng::VERSION, 1), (trng::FEATURES, 1), (trng::GET_UUID, 4), (trng::RND_64, 4)]
    {
        let registers = ask(machine().conduit, function, GARBAGE);
        for (n, x) in registers.iter().enumerate().skip(first) {
            check_eq!(*x, GARBAGE, "X{n} after {:#x}", function.as_u32());
        }
    }
    Ok(())
}
