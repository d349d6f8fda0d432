//! What a guest can do to its interrupt controller, as any bytes at all: the checks of the fuzz target `vgic`, in their short form.

#[path = "../machine/mod.rs"]
mod machine;
#[path = "../model/mod.rs"]
mod model;
#[path = "../../../../fuzz/replay.rs"]
mod replay;
mod vgic;
#[path = "../world/mod.rs"]
mod world;

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn guests_of_any_kind() {
    replay::replay("vgic", 5, 1500, 480, vgic::check);
}
