//! The monitor: an ordinary guest with a shell on its console, which watches and controls the others by Hanok's calls, as
//! far as its rights in the manifest go. It keeps nothing: when it crashes it starts afresh, and nobody else notices.
//!
//! What the shell does is in the crate `monitor-shell`; here is the machine that it runs on. It turns its watchdog on and
//! feeds it whenever it waits for a key, so that a monitor that hangs has crashed.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod machine;

use machine::Machine;
use monitor_shell::Shell;
use runtime::power;
use spin::Mutex;

runtime::entry!(main);

static SHELL: Mutex<Shell<Machine>> = Mutex::new(Shell::new(Machine::new()));

fn main() -> ! {
    let mut shell = SHELL.lock();
    shell.host().init();
    shell.run();
    // Only a shell whose terminal is gone comes to an end, and this one's never is.
    power::off()
}
