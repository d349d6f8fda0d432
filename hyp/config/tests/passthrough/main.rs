//! Devices of the board for VMs, as docs/passthrough.md has them.

mod any_tree;
mod apart;
mod board;
mod copies;
mod dma;
mod handing_out;
mod places;
mod random;
mod reader;
mod refused;
#[path = "../../../../fuzz/replay.rs"]
mod replay;
#[path = "../vm/mod.rs"]
mod vm;

/// The check of the fuzz target `devices`, in its short form.
#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn any_tree_of_a_board() {
    replay::replay("devices", 1, 2000, 600, any_tree::check);
}
