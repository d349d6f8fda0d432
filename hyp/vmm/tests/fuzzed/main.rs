//! What a guest can bring to EL2, as any numbers at all: the checks of the fuzz targets of the same names, in their short form.

#[path = "../../../../fuzz/replay.rs"]
mod replay;

mod calls;
mod exit;
mod psci;
mod sysreg;
mod words;

/// Random inputs of each.
const RANDOM: usize = if cfg!(debug_assertions) { 20_000 } else { 200_000 };

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn exits() {
    replay::replay("exit", 1, RANDOM, 64, exit::check);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn system_registers() {
    replay::replay("sysreg", 1, RANDOM, 64, sysreg::check);
}

/// There are few enough to look at each.
#[test]
#[cfg_attr(miri, ignore = "takes too long there")]
fn every_system_register() {
    for iss in 0..1u32 << 22 {
        sysreg::check_access(iss);
    }
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn power_calls() {
    replay::replay("psci", 1, RANDOM / 4, 400, psci::check);
}

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn calls() {
    replay::replay("calls", 1, RANDOM, 64, calls::check);
}
