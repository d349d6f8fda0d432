//! Checks from inside a virtual machine that it behaves as the hardware would: power control, interrupts, timers,
//! emulated devices, faults and identification registers. Each case prints one line; the last line counts them.
//!
//! It also runs natively on QEMU's `virt`, which tells a wrong expectation from a wrong hypervisor; cases that hold
//! under Hanok alone are skipped there. `selftest=<prefix>` in the command line chooses cases by name, and
//! `without=<name>` leaves one out; `selftest=echo` and `selftest=reboot` are other programs, for tests from outside.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod framework;
mod modes;
mod recorder;
mod tests;

use runtime::{machine, power, println};

runtime::entry!(main);

fn main() -> ! {
    banner();
    match machine().argument("selftest") {
        Some("echo") => modes::echo(),
        Some("echo-in-blocks") => modes::echo_in_blocks(),
        Some("reboot") => modes::reboot(),
        Some("spin") => modes::spin(),
        Some("watchdog") => modes::watchdog(),
        Some("crash") => modes::crash(),
        prefix => {
            framework::run_all(prefix.unwrap_or(""), machine().argument("without").unwrap_or(""));
        }
    }
    power::off()
}

/// Says where it runs. The harness knows a (re)start by the first words.
fn banner() {
    let machine = machine();
    let above = if framework::is_hanok() { "under Hanok" } else { "natively" };
    println!(
        "selftest: {} CPUs, {} MiB, {}, {above}",
        machine.cpus().len(),
        machine.ram_size() >> 20,
        match runtime::gic::version() {
            runtime::gic::Version::V2 => "GICv2",
            runtime::gic::Version::V3 => "GICv3",
        }
    );
}
