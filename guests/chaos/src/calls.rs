//! HVC and SMC, and SVC beside them: every owner, class and convention of function numbers, any immediate, any arguments.

use abi::{FunctionId, Owner, hanok, psci, pv_time, smccc, trng};
use runtime::trial::{EL0, EL1H, Trial};
use runtime::{machine, trial};

use crate::words::{hvc, smc};
use crate::{Operation, places};

/// Those that there are, or might be. What ends the VM is rare, and `power`'s.
const KNOWN: [FunctionId; 32] = [
    smccc::VERSION,
    smccc::ARCH_FEATURES,
    smccc::ARCH_SOC_ID,
    smccc::ARCH_WORKAROUND_1,
    smccc::ARCH_WORKAROUND_2,
    smccc::ARCH_WORKAROUND_3,
    psci::FEATURES,
    psci::AFFINITY_INFO_32,
    psci::AFFINITY_INFO_64,
    pv_time::FEATURES,
    pv_time::STOLEN_TIME,
    trng::VERSION,
    trng::FEATURES,
    trng::RND_32,
    trng::RND_64,
    hanok::FEATURES,
    hanok::IDENTITY,
    hanok::YIELD,
    hanok::CONSOLE_WRITE,
    hanok::CONSOLE_READ,
    hanok::DOORBELL,
    hanok::VM_START,
    hanok::VM_STOP,
    hanok::VM_PAUSE,
    hanok::VM_RESTART,
    hanok::VM_INFO,
    hanok::VCPU_INFO,
    hanok::VM_CRASH,
    hanok::HISTORY,
    hanok::FOCUS,
    hanok::BOARD_INFO,
    hanok::WATCHDOG,
];

/// An argument: an address of a buffer that may be one, or none; a number; a size.
fn argument(operation: &mut Operation) -> u64 {
    let random = &mut operation.random;
    match random.below(8) {
        0 => trial::data_address() + random.below(0x2000) / 8 * 8,
        1 => trial::data_address() + random.below(0x2000),
        // Across the end of RAM, or behind it.
        2 => machine().ram_end() - random.below(512) / 8 * 8,
        3 => machine().ram_end() + random.below(512),
        4 => random.below(520),
        5 => u64::MAX - random.below(512),
        _ => places::value(random),
    }
}

/// One call.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let mut x = places::registers(&mut operation.random);
    x[1..6].fill_with(|| argument(operation));
    let random = &mut operation.random;
    let word = random.word() as u32;
    let number = match random.below(4) {
        0 => word & 0x3f,
        1 => word & 0x1ff,
        2 => [0x3ff0, 0x7ff0, 0x8000, 0xff00][word as usize >> 16 & 3] + (word & 0xf),
        _ => word & 0xffff,
    };
    let owner = if random.below(2) == 0 { random.below(8) as u32 } else { random.below(64) as u32 };
    let function = match random.below(8) {
        0..4 => random.one_of(&KNOWN).as_u32(),
        // With bits that must be zero.
        4 => random.one_of(&KNOWN).as_u32() | 1 << random.below(32),
        5 => word,
        _ => word & 3 << 30 | owner << 24 | number,
    };
    // Not the end at each call of chance: `power` has that.
    let id = FunctionId::from_u32(function);
    let is_end = id.owner() == Owner::STANDARD_SECURE && (1..=0x1f).contains(&id.number());
    let asks_only = [psci::FEATURES, psci::AFFINITY_INFO_32, psci::AFFINITY_INFO_64].contains(&id);
    let function = if is_end && !asks_only || id == hanok::CRASH { function | 1 << 29 } else { function };
    x[0] = u64::from(function) | if random.below(4) == 0 { random.word() << 32 } else { 0 };
    let immediate = if random.below(8) == 0 { random.word() as u32 } else { 0 };
    let instruction = match random.below(16) {
        0 => 0xd400_0001 | (immediate & 0xffff) << 5,
        1..9 => hvc(immediate),
        _ => smc(immediate),
    };
    let pstate = if random.below(16) == 0 { EL0 } else { EL1H };
    trial.prepare(&[instruction], x, pstate);
}
