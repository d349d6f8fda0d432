//! PSCI, from every vCPU and in any order.

use abi::{FunctionId, hanok, psci};
use runtime::random::Random;
use runtime::trial::{self, EL1H, Trial};
use runtime::{cpu, machine};

use crate::words::{hvc, smc};
use crate::{Operation, places};

/// What doesn't end the VM.
const USUAL: [FunctionId; 12] = [
    psci::VERSION,
    psci::FEATURES,
    psci::MIGRATE_INFO_TYPE,
    psci::AFFINITY_INFO_32,
    psci::AFFINITY_INFO_64,
    psci::CPU_ON_32,
    psci::CPU_ON_64,
    psci::CPU_ON_64,
    psci::CPU_ON_64,
    psci::CPU_SUSPEND_32,
    psci::CPU_SUSPEND_64,
    psci::SYSTEM_SUSPEND_64,
];

/// What ends it, or starts it afresh.
const ENDS: [FunctionId; 6] = [
    psci::SYSTEM_RESET,
    psci::SYSTEM_RESET,
    psci::SYSTEM_RESET2_64,
    psci::SYSTEM_OFF,
    hanok::CRASH,
    hanok::VM_RESTART,
];

/// A CPU of this VM, or none.
fn target(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => places::extreme(random),
        1 => random.below(256),
        _ => random.one_of(machine().cpus()),
    }
}

/// Where a CPU is to start: with the others, or anywhere.
fn start(random: &mut Random) -> u64 {
    match random.below(32) {
        0 => places::value(random),
        1 => machine().ram_end() - 4 * random.below(1024),
        2 => trial::code_address() + random.below(0x1000),
        _ => trial::entry(),
    }
}

/// One call.
pub fn run(operation: &mut Operation, trial: &mut Trial) {
    let random = &mut operation.random;
    let alone = machine().cpus().len() == 1;
    let mut x = places::registers(random);
    (x[1], x[2]) = (target(random), start(random));
    let function = match random.below(512) {
        0 | 1 => random.one_of(&ENDS),
        // The last one that is on ends with that as well.
        2..20 if !alone => psci::CPU_OFF,
        2 | 3 => psci::CPU_OFF,
        _ => random.one_of(&USUAL),
    };
    if [psci::CPU_SUSPEND_32, psci::CPU_SUSPEND_64].contains(&function) {
        x[1] = random.one_of(&[0, 1, 1 << 16, 1 << 24, x[3]]);
        operation.alarm = random.below(30) + 1;
    } else if function == psci::FEATURES {
        x[1] = u64::from(random.one_of(&USUAL).as_u32());
    }
    x[0] = u64::from(function.as_u32());
    let instruction = if operation.random.below(2) == 0 { hvc(0) } else { smc(0) };
    trial.prepare(&[instruction], x, EL1H);
}

/// Starts the other CPUs of this VM, those that are off.
pub fn wake_others() {
    for (n, affinity) in machine().cpus().iter().enumerate() {
        if n != cpu::index() {
            // One that is on says so.
            trial::start(machine().conduit, *affinity);
        }
    }
}
