//! Any bytes as a board's tree: the checks of the fuzz target `board`, in their short form.

mod board_check;
#[path = "../../fuzz/replay.rs"]
mod replay;
mod trees;

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn boards() {
    replay::replay("board", 3, 20_000, 600, board_check::check);
}
