//! What a bare-metal Rust guest needs under it: entry, MMU, vectors, console, interrupt controller, timers, PSCI and
//! further CPUs. A guest is a static ELF, entered at EL1 with the device tree in x0 (or, as QEMU does with an ELF,
//! with the tree at the base of RAM); it runs the same under Hanok and natively on QEMU's `virt`.
//!
//! Further, channels to other VMs, where there are any.
//!
//! It has no heap, no tasks and no drivers beyond the machine's own devices. All `unsafe` of the guests is in here.
#![no_std]

pub mod board;
pub mod boot;
pub mod cache;
pub mod call;
pub mod channel;
pub mod console;
pub mod cpu;
pub mod debug;
pub mod encodings;
pub mod exceptions;
pub mod features;
pub mod gic;
pub mod hanok;
pub mod hypervisor;
pub mod interrupts;
pub mod machine;
pub mod memory;
pub mod mmio;
pub mod mmu;
pub mod pmu;
pub mod power;
pub mod probe;
pub mod progress;
pub mod queue;
pub mod random;
pub mod registers;
pub mod rtc;
pub mod smp;
pub mod stolen_time;
pub mod sysreg;
pub mod timed;
pub mod timer;
pub mod trial;
pub mod user;

pub use machine::machine;
pub use ring;

/// Makes `fn main() -> !` the guest's program: `runtime::entry!(main);`. It runs on the boot CPU with MMU, console
/// and interrupt controller ready and IRQs masked.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[allow(unsafe_code)]
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main() -> ! {
            let main: fn() -> ! = $main;
            main()
        }
    };
}
