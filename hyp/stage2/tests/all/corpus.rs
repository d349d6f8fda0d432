//! What the fuzzer has found worth keeping (`fuzz/corpus/stage2`), once more, with any compiler: nothing that failed once, and
//! no path that took luck to find, is left to luck.

use crate::common::steps::{Draw, finish, perform};
use crate::common::world::World;

#[test]
#[cfg_attr(
    miri,
    ignore = "reads files, and takes too long there; the second oracle's few steps stand for it"
)]
fn the_corpus_passes() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/stage2");
    let (mut files, mut steps) = (0, 0);
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        println!("{}", path.display());
        let mut world = World::new();
        for draw in Draw::read_all(&std::fs::read(&path).unwrap()) {
            perform(&mut world, draw);
            steps += 1;
        }
        finish(world);
        files += 1;
    }
    assert!(files >= 20 && steps >= 200, "{files} files, {steps} steps: is this the corpus?");
}
