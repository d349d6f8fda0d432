//! The firmware's device tree, read in one pass into a [`Board`].

mod board;
mod reader;
mod value;

pub use board::{
    Board, BoardError, Cpu, EnableMethod, Gic, MAX_CPUS, MAX_UARTS, MINI_UART_IN_PAGE, Psci, Range, Reserved,
    Timer, Uart, UartKind, Used,
};
pub use value::FIRST_SPI;
