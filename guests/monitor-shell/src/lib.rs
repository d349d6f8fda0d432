//! The monitor's shell: commands that watch and control virtual machines, and what they print. Whom it asks and what it
//! prints on is behind one trait, [`Host`]: Hanok and a console in the guest, a made-up machine in the tests.
#![no_std]
#![forbid(unsafe_code)]

mod command;
mod complete;
mod crash;
mod history;
mod host;
mod refusal;
mod shell;
mod text;
mod top;
mod vms;

pub use host::Host;
pub use shell::{PROMPT, Shell};
