//! Reads flattened device trees (Devicetree Specification v0.4, chapter 5): the firmware's, on the way to the first guest.
//!
//! [`Tree::check`] walks a blob from its first token to its last. What reads it then goes from node to node and from property to
//! property in the blob's order, without looking at anything again that the check has seen: a whole tree is read in one pass, and names
//! are compared as bytes. FDT_NOP tokens are passed over.
//!
//! What the properties mean is not known here.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod check;
pub mod format;
mod read;
mod token;

pub use check::{MAX_BLOB, MAX_DEPTH, TreeError, blob_size};
pub use read::{Node, Property, Tree, Walk, cell};
