//! What the tests check the crate against: a walker of their own, a machine with TLBs, and a plain model of mappings.
#![allow(dead_code)]

pub mod machine;
pub mod model;
pub mod setup;
pub mod steps;
pub mod walker;
pub mod world;
