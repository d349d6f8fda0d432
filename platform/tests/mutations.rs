//! Trees that firmware or memory has damaged: they are refused or read, and never make the reader panic.

mod board_check;
mod trees;

use std::sync::LazyLock;

use board_check::check;
use proptest::prelude::*;
use proptest::sample::Index;
use trees::blob::with_nops;
use trees::{pi4, reserve, virt_v2, virt_v3};

static BLOBS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut reserving = virt_v3();
    (1..10).for_each(|index| reserve(&mut reserving, index << 32, 0x1000));
    let plain = [virt_v3(), virt_v2(), pi4(), reserving].map(|tree| tree.to_dtb());
    let padded = plain.iter().map(|blob| with_nops(blob, |token| token % 3));
    plain.iter().cloned().chain(padded).collect()
});

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Words that offsets, sizes and tokens go wrong with.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0..0x40u32, 0..0x2000u32, (0..0x10u32).prop_map(|word| word.wrapping_neg()), any::<u32>()]
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn a_few_bytes_changed_or_the_end_cut_off(
        tree in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..=3),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut blob = tree.get(&BLOBS).clone();
        for (at, value) in changes {
            *at.get_mut(&mut blob) = value;
        }
        if let Some(cut) = cut {
            blob.truncate(cut.index(blob.len()));
        }
        check(&blob);
    }

    #[test]
    fn words_changed_and_the_size_made_to_fit(
        tree in any::<Index>(),
        changes in prop::collection::vec((any::<Index>(), word()), 1..=3),
        cut in prop::option::weighted(0.2, any::<Index>()),
    ) {
        let mut blob = tree.get(&BLOBS).clone();
        if let Some(cut) = cut {
            blob.truncate(cut.index(blob.len()).max(40));
            let size = blob.len() as u32;
            trees::blob::set_word(&mut blob, 1, size);
        }
        for (at, value) in changes {
            let index = at.index(blob.len() / 4);
            trees::blob::set_word(&mut blob, index, value);
        }
        check(&blob);
    }

    #[test]
    fn header_words_changed(
        tree in any::<Index>(),
        changes in prop::collection::vec((2..10usize, word()), 1..=2),
    ) {
        let mut blob = tree.get(&BLOBS).clone();
        for (index, value) in changes {
            trees::blob::set_word(&mut blob, index, value);
        }
        check(&blob);
    }
}

#[test]
fn every_truncation() {
    for blob in BLOBS.iter() {
        for size in 0..blob.len() {
            check(&blob[..size]);
            if size >= 40 {
                let mut blob = blob[..size].to_vec();
                trees::blob::set_word(&mut blob, 1, size as u32);
                check(&blob);
            }
        }
    }
}
