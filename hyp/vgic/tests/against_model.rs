//! Random guests, devices and schedulers against the architecture's own state machine.
//!
//! `strict`: every kick is acted on at once; then each acknowledge must give an interrupt of the highest priority
//! there is, and every register must read as the architecture says. `lazy`: vCPUs react to kicks only now and
//! then; then nothing may be lost, invented, or told with a wrong source.

mod machine;
mod model;
mod world;

use proptest::prelude::*;
use vgic::Model;
use world::{Op, PPIS, SPI_LINES, What, lazy, strict};

fn any_intid() -> impl Strategy<Value = u16> {
    prop_oneof![
        2 => 0u16..4,
        2 => proptest::sample::select(&PPIS[..]),
        3 => proptest::sample::select(&SPI_LINES[..]),
    ]
}

fn line() -> impl Strategy<Value = u16> {
    prop_oneof![proptest::sample::select(&PPIS[..]), proptest::sample::select(&SPI_LINES[..])]
}

/// Mostly a bit or two of the interrupts that matter, sometimes many.
fn mask() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (0u32..32, 0u32..32).prop_map(|(a, b)| 1 << a | 1 << b),
        4 => proptest::sample::select(vec![1u32, 2, 1 << 20, 1 << 27, 1 << 8, 1 << 9, 1 << 31, 3]),
        1 => any::<u32>(),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0usize..4;
    let what = proptest::sample::select(vec![
        What::SetEnable,
        What::SetEnable,
        What::ClearEnable,
        What::SetPending,
        What::SetPending,
        What::ClearPending,
        What::SetActive,
        What::ClearActive,
    ]);
    prop_oneof![
        6 => (cpu.clone(), line(), any::<bool>()).prop_map(|(vcpu, intid, level)| Op::Line { vcpu, intid, level }),
        3 => (cpu.clone(), line()).prop_map(|(vcpu, intid)| Op::Pulse { vcpu, intid }),
        6 => (cpu.clone(), 0u16..4, any::<u8>()).prop_map(|(from, intid, targets)| Op::Sgi { from, intid, targets }),
        8 => (cpu.clone(), cpu.clone(), what, 0u16..3, mask())
            .prop_map(|(vcpu, frame, what, word, mask)| Op::Bits { vcpu, frame, what, word, mask }),
        1 => (cpu.clone(), cpu.clone(), 0u16..3, mask())
            .prop_map(|(vcpu, frame, word, value)| Op::Group { vcpu, frame, word, value: !value }),
        4 => (cpu.clone(), cpu.clone(), any_intid(), any::<u8>())
            .prop_map(|(vcpu, frame, intid, value)| Op::Priority { vcpu, frame, intid, value }),
        2 => (cpu.clone(), cpu.clone(), line(), any::<bool>())
            .prop_map(|(vcpu, frame, intid, edge)| Op::Config { vcpu, frame, intid, edge }),
        2 => (cpu.clone(), proptest::sample::select(&SPI_LINES[..]), 0usize..5)
            .prop_map(|(vcpu, intid, target)| Op::Target { vcpu, intid, target }),
        1 => (cpu.clone(), prop_oneof![1 => Just(2u8), 4 => Just(3u8), 1 => 0u8..4])
            .prop_map(|(vcpu, groups)| Op::Enable { vcpu, groups }),
        2 => (cpu.clone(), prop_oneof![3 => Just(0xf8u8), 1 => (0u8..32).prop_map(|p| p << 3)], any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(vcpu, pmr, group0, group1)| Op::Interface { vcpu, pmr, group0, group1 }),
        14 => cpu.clone().prop_map(|vcpu| Op::Acknowledge { vcpu }),
        10 => cpu.clone().prop_map(|vcpu| Op::End { vcpu }),
        3 => (cpu.clone(), 0usize..4).prop_map(|(vcpu, which)| Op::Deactivate { vcpu, which }),
        2 => cpu.prop_map(|vcpu| Op::Switch { vcpu }),
    ]
}

fn any_model() -> impl Strategy<Value = Model> {
    proptest::sample::select(vec![Model::V2, Model::V3])
}

/// More cases by `PROPTEST_CASES`.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1000);
    ProptestConfig {
        cases,
        max_shrink_iters: 100_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_register_and_every_acknowledge(
        model in any_model(),
        vcpus in 1usize..5,
        lrs in 1usize..5,
        split in any::<bool>(),
        ops in proptest::collection::vec((op(), 0usize..4), 1..80),
    ) {
        strict(model, vcpus, lrs, split, &ops)?;
    }

    #[test]
    fn late_kicks_lose_nothing(
        model in any_model(),
        vcpus in 1usize..5,
        lrs in 1usize..5,
        split in any::<bool>(),
        ops in proptest::collection::vec((op(), prop::bool::weighted(0.3)), 1..120),
    ) {
        lazy(model, vcpus, lrs, split, &ops)?;
    }
}
