//! A line that is edited at a terminal. Bytes that were typed go in; what is to be printed comes out, and what the line came
//! to. No device and no memory allocation: it runs in a guest, and in tests on the host.
//!
//! Lines are printable ASCII and never longer than the room that they are given, so that a line fits into a row of the
//! terminal: what doesn't fit is refused with a bell. Nothing here waits, so an escape sequence may come in any number of
//! pieces.
#![no_std]
#![forbid(unsafe_code)]

mod editor;
mod history;
mod keys;
mod line;

pub use editor::{Editor, Event};
pub use keys::{Decoder, Key};
pub use line::Line;
