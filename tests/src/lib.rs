//! Boots the real image in QEMU, types at its console and reads what it says.
//!
//! This library is what scenarios are written with; they are in `scenarios/`. A scenario describes a machine
//! ([`Machine`]) and the virtual machines on it ([`Vm`]), boots it ([`Scenario::boot`]) and converses with it
//! ([`Board`]). Nothing here sleeps: every wait is for a condition, and has a limit.

pub mod bench;
mod board;
mod call_graph;
mod chaos;
mod code;
mod console;
mod el2_map;
mod failure;
mod gdb;
mod machine;
mod manifest;
mod panics;
mod port;
mod qmp;
mod scenario;
mod sequences;
mod shell;
mod source;
mod tree;

pub use board::Board;
pub use chaos::{Chaos, Done};
pub use code::Code;
pub use console::Found;
pub use el2_map::{Mapping, Rights, el2_map};
pub use failure::{Failure, Outcome, ensure, ensure_equal};
pub use gdb::{Gdb, Register, Registers, Stop};
pub use machine::{IMAGE, Machine};
pub use manifest::Vm;
pub use panics::{Panic, PanicList, panics_from_traps};
pub use port::{Port, Socket};
pub use qmp::Qmp;
pub use scenario::{Inputs, Scenario, run_tool};
pub use sequences::find_843419;
pub use shell::Shell;
pub use tree::{Device, Tree};
