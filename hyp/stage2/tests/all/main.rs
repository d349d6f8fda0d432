//! The crate's tests, as one program: what they share is built once. (`loom.rs` beside this folder is built otherwise.)

mod common;

mod copy;
mod corpus;
mod exhaustive;
mod jobs;
mod ledger;
mod log;
mod properties;
mod second_oracle;
mod tables;
