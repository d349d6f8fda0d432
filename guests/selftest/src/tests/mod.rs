//! The cases, by area.

mod access;
mod cache;
mod debug;
mod fault;
mod feature;
mod gic;
mod gic_delivery;
mod hanok;
mod mmu;
mod pmu;
mod psci;
mod psci_calls;
mod pv_time;
mod rtc;
mod sgi;
mod sgi_cpus;
mod smccc;
mod sysreg;
mod timer;
mod trng;
mod uart;
mod user;
