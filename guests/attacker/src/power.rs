//! Calls to whoever is above, by HVC and SMC: CPUs that aren't this guest's, functions that nobody has, and immediates
//! that mean nothing.

use abi::{FunctionId, Owner, hanok, psci};
use runtime::call::{self, Immediate};
use runtime::machine::Conduit;
use runtime::{machine, smp};

use crate::{Report, Strength, ensure};

const CONDUITS: [Conduit; 2] = [Conduit::Hvc, Conduit::Smc];

/// CPU_ON and AFFINITY_INFO of CPUs that this VM doesn't have, and CPU_ON of its own with entry points outside its RAM.
pub fn attack(strength: &mut Strength) -> Report {
    let mut count = 0;
    let low =
        (0..256).flat_map(|aff0| [0, 0x100, 0xff00, 0x1_0000, 0xff_0000, 1 << 32].map(|more| aff0 | more));
    let bits = (0..64).map(|bit| 1 << bit);
    let random: arrayvec::ArrayVec<u64, 64> = (0..64).map(|_| strength.random.word()).collect();
    for affinity in low.chain(bits).chain(random).filter(|affinity| !machine().cpus().contains(affinity)) {
        count += try_foreign(affinity);
    }
    for entry in foreign_entries() {
        for affinity in machine().cpus() {
            let answer = call::call3(Conduit::Hvc, psci::CPU_ON_64, [*affinity, entry, 0]);
            let refused = [psci::ALREADY_ON, psci::INVALID_ADDRESS].contains(&answer);
            ensure(refused, format_args!("CPU_ON of {affinity:#x} at {entry:#x} says {answer}"));
            count += 1;
        }
    }
    let own = machine().cpus()[0];
    ensure(smp::affinity_info(0) == psci::AFFINITY_ON, "AFFINITY_INFO says that this CPU is off");
    for level in 4..64 {
        let answer = call::call3(Conduit::Hvc, psci::AFFINITY_INFO_64, [own, level, 0]);
        ensure(
            answer == psci::INVALID_PARAMETERS,
            format_args!("AFFINITY_INFO at level {level} says {answer}"),
        );
        count += 1;
    }
    (count, "calls about CPUs, all refused")
}

/// Entry points where this guest has no memory: EL2's and others' physical addresses, devices, and no addresses at all.
fn foreign_entries() -> impl Iterator<Item = u64> {
    let behind = machine().ram_end();
    let all = [
        0,
        4,
        0x0800_0000,
        0x0900_0000,
        0x3fff_fffc,
        behind,
        behind + 2,
        0x7fff_f000,
        0xbfff_0000,
        1 << 39,
        1 << 47,
        u64::MAX - 3,
    ];
    all.into_iter().filter(move |entry| !machine().ram.iter().any(|bank| bank.contains(*entry)))
}

fn try_foreign(affinity: u64) -> u64 {
    for conduit in CONDUITS {
        let answer = smp::try_power_on(conduit, affinity);
        ensure(answer == psci::INVALID_PARAMETERS, format_args!("CPU_ON of {affinity:#x} says {answer}"));
        let answer = call::call3(conduit, psci::AFFINITY_INFO_64, [affinity, 0, 0]);
        ensure(
            answer == psci::INVALID_PARAMETERS,
            format_args!("AFFINITY_INFO of {affinity:#x} says {answer}"),
        );
    }
    let entries = [0, 0x0800_0000, machine().ram_end()];
    for entry in entries {
        let answer = call::call3(Conduit::Hvc, psci::CPU_ON_64, [affinity, entry, affinity]);
        let refused = [psci::INVALID_PARAMETERS, psci::INVALID_ADDRESS].contains(&answer);
        ensure(refused, format_args!("CPU_ON of {affinity:#x} at {entry:#x} says {answer}"));
    }
    2 * CONDUITS.len() as u64 + entries.len() as u64
}

/// What does as it says when it is called: sleep, and the end.
const EFFECTIVE: [FunctionId; 7] = [
    psci::CPU_SUSPEND_32,
    psci::CPU_SUSPEND_64,
    psci::CPU_OFF,
    psci::SYSTEM_OFF,
    psci::SYSTEM_RESET,
    psci::SYSTEM_SUSPEND_64,
    psci::SYSTEM_RESET2_64,
];

/// Function identifiers by the thousand. None may change a register that it has no result in, and with an immediate that
/// isn't zero, or with the convention's reserved bits, none may do anything at all.
pub fn attack_calls(strength: &mut Strength) -> Report {
    let mut count = 0;
    let numbers = || (0..0x140).chain(0x3ff0..0x4010).chain(0x7ff0..0x8010).chain(0xff00..0x1_0000);
    for owner in 0..64u32 {
        for number in numbers() {
            for convention in [0b00, 0b01, 0b10, 0b11] {
                // Yielding calls, of which there are none, and owners without functions are sampled.
                let sampled = convention & 0b10 == 0 || owner > 6;
                if sampled && strength.random.below(16) != 0 {
                    continue;
                }
                let function = FunctionId::from_u32(convention << 30 | owner << 24 | number);
                count += try_function(strength, function, Immediate::Zero);
            }
        }
    }
    for _ in 0..strength.times(2000) {
        let function = FunctionId::from_u32(strength.random.word() as u32);
        count += try_function(strength, function, Immediate::Zero);
    }
    for function in EFFECTIVE.into_iter().chain([psci::CPU_ON_64, psci::VERSION]) {
        for immediate in [Immediate::One, Immediate::Largest] {
            count += try_function(strength, function, immediate);
        }
        let reserved =
            FunctionId::from_u32(function.as_u32() | 1 << 16 | strength.random.below(256) as u32 >> 1 << 17);
        count += try_function(strength, reserved, Immediate::Zero);
    }
    (count, "calls, no register lost by them")
}

/// Whether the call may be made: it neither ends anything nor starts code in this guest's memory.
fn is_harmless(function: FunctionId) -> bool {
    if function == hanok::CRASH {
        return false;
    }
    let power = function.owner() == Owner::STANDARD_SECURE && (1..=0x1f).contains(&function.number());
    let asks_only = [psci::AFFINITY_INFO_32, psci::AFFINITY_INFO_64, psci::FEATURES, psci::MIGRATE_INFO_TYPE];
    !power || asks_only.contains(&function)
}

/// Calls with random arguments. Returns how many calls that were.
fn try_function(strength: &mut Strength, function: FunctionId, immediate: Immediate) -> u64 {
    let is_call = immediate == Immediate::Zero && function.reserved_bits() == 0;
    if is_call && function.is_fast() && !is_harmless(function) {
        return 0;
    }
    let mut registers = [0; 31].map(|_: u64| strength.random.word() | 1 << 63);
    // The upper half isn't the function's.
    registers[0] = strength.random.word() << 32 | u64::from(function.as_u32());
    for conduit in CONDUITS {
        let after = call::call(conduit, immediate, registers);
        let refused = after[0] == u64::MAX;
        ensure(refused || is_call, format_args!("{function:x?} with {immediate:?} says {:#x}", after[0]));
        let first = if refused { 1 } else { 4 };
        ensure(
            after[first..] == registers[first..],
            format_args!("{function:x?} by {conduit:?} changed a register that is no result"),
        );
    }
    CONDUITS.len() as u64
}
