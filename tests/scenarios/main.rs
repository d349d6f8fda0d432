//! What the image does on a machine, from its first message to power off. `cargo test -p tests <part of a name>` runs
//! the scenarios whose names have that part; `make test` brings the image and the guests first.

mod bad_board;
mod bad_bundle;
mod bench;
mod board_memory;
mod board_u_boot;
mod case;
mod channels;
mod chaos;
mod conditions;
mod console;
mod edk2;
mod el2_crash;
mod el2_map;
mod errata;
mod firmware;
mod handed_over;
mod isolation;
mod life;
mod linux;
mod linux_tools;
mod monitor;
mod neighbours;
mod panics;
mod passthrough;
mod raspberry_pi_4;
mod raspberry_pi_4_devices;
mod sdcard;
mod serror;
mod shared_cpus;
mod small_guests;
mod stage2_hardware;
mod u_boot;
mod workloads;

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use libtest_mimic::Arguments;
use tests::Inputs;

/// Scenarios' files.
const FOLDER: &str = env!("CARGO_TARGET_TMPDIR");

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // QEMU has a thread for each of its CPUs, which mostly sleep.
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cpus.div_ceil(2).max(2));
    let inputs = Inputs::from_environment();
    // The longest first, so that no long one is left for the end.
    let cases = [
        linux::cases(),
        linux_tools::cases(),
        neighbours::cases(),
        small_guests::cases(),
        shared_cpus::cases(),
        life::cases(),
        channels::cases(),
        isolation::cases(),
        chaos::cases(),
        workloads::cases(),
        stage2_hardware::cases(),
        u_boot::cases(),
        edk2::cases(),
        board_u_boot::cases(),
        firmware::cases(),
        sdcard::cases(),
        raspberry_pi_4::cases(),
        raspberry_pi_4_devices::cases(),
        board_memory::cases(),
        monitor::cases(),
        passthrough::cases(),
        console::cases(),
        bench::cases(),
        el2_crash::cases(),
        el2_map::cases(),
        serror::cases(),
        conditions::cases(),
        errata::cases(),
        panics::cases(),
        bad_board::cases(),
        bad_bundle::cases(),
    ];
    let trials =
        cases.into_iter().flatten().map(|case| case.into_trial(&inputs, Path::new(FOLDER))).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if conclusion.num_passed + conclusion.num_failed > 0 {
        case::print_longest();
    }
    conclusion.exit_code()
}
