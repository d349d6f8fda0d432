//! Any bytes as a bundle: the checks of the fuzz target `manifest`, in their short form.

mod manifest;
#[path = "../manifest_check/mod.rs"]
mod manifest_check;
#[path = "../payload_check/mod.rs"]
mod payload_check;
#[path = "../../../../fuzz/replay.rs"]
mod replay;

#[test]
#[cfg_attr(miri, ignore = "reads files")]
fn bundles() {
    replay::replay("manifest", 2, 4000, 600, manifest::check);
}
