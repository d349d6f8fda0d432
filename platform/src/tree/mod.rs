//! The firmware's device tree: checked as a blob first ([`check`]), then read in one pass into a [`Board`].
//!
//! The `fdt` crate trusts what it parses, so nothing here hands it a blob that [`check`] has not walked to its end.

mod board;
mod check;
mod reader;
mod value;

pub use board::{
    Board, BoardError, Cpu, EnableMethod, Gic, MAX_CPUS, MAX_UARTS, MINI_UART_IN_PAGE, Psci, Range, Reserved,
    Timer, Uart, UartKind, Used,
};
pub use check::{MAX_BLOB, Shape, TreeError, blob_size, check};
