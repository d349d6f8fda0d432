//! Long random sequences of operations on three VMs of different shape, one ledger, and a machine with TLBs. After every
//! step the tables (read by the independent walker), the model and the ledger agree, and nothing stale is left.
//! What the steps are: `common/steps.rs`, which the fuzzer shares.

use crate::common::steps::{Draw, finish, perform};
use crate::common::world::World;
use proptest::prelude::*;

fn draw() -> impl Strategy<Value = Draw> {
    any::<[u8; Draw::BYTES]>().prop_map(|bytes| Draw::read_all(&bytes).next().expect("bytes for one"))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        max_shrink_iters: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    #[cfg_attr(miri, ignore = "a case takes minutes there; the second oracle's few steps stand for it")]
    fn tables_model_ledger_and_tlb_agree(draws in prop::collection::vec(draw(), 1..40)) {
        let mut world = World::new();
        world.check();
        let mut done = Vec::new();
        for draw in draws {
            // What the draws came to is what one wants to read of a failure.
            let step = draw.step(&world);
            println!("{}: {step:x?}", done.len());
            perform(&mut world, draw);
            done.push(step);
        }
        finish(world);
    }
}
