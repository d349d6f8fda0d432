//! Ends of channels: each VM counts its own, and both ends of one know of each other.

use config::channel::{ChannelEnd, ends};
use config::manifest::ChannelConfig;
use proptest::prelude::*;
use vmm::layout::VIRT;

#[test]
fn each_vm_counts_its_own() {
    let channel = |name, vms, size| ChannelConfig { name, vms, size };
    let channels = [
        channel("x", ["a", "b"], 4096),
        channel("y", ["c", "a"], 8192),
        channel("z", ["b", "c"], 16384),
        channel("w", ["b", "a"], 32768),
    ];
    let end = |channel, name, number, side, peer, peer_number, size| ChannelEnd {
        channel,
        name,
        number,
        side,
        peer,
        peer_number,
        size,
    };
    let of_a =
        [end(0, "x", 0, 0, "b", 0, 4096), end(1, "y", 1, 1, "c", 0, 8192), end(3, "w", 2, 1, "b", 2, 32768)];
    assert_eq!(ends(&channels, "a"), of_a);
    let of_b =
        [end(0, "x", 0, 1, "a", 0, 4096), end(2, "z", 1, 0, "c", 1, 16384), end(3, "w", 2, 0, "a", 2, 32768)];
    assert_eq!(ends(&channels, "b"), of_b);
    assert_eq!(ends(&channels, "d"), []);
    let [.., last] = of_b;
    assert_eq!((last.spi(&VIRT), last.peer_spi(&VIRT)), (194, 194));
    assert_eq!((of_b[1].spi(&VIRT), of_a[1].peer_spi(&VIRT)), (193, 192));
    assert_eq!(last.region(&VIRT), VIRT.channels.region(2, 32768));
}

const VMS: [&str; 4] = ["a", "b", "c", "d"];

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 500 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_ends_know_of_each_other(pairs in prop::collection::vec((0_usize..4, 1_usize..4), 0..30)) {
        let of = |(first, step)| ChannelConfig {
            name: "link",
            vms: [VMS[first], VMS[(first + step) % 4]],
            size: 4096,
        };
        let channels: Vec<ChannelConfig<'_>> = pairs.into_iter().map(of).collect();
        let mut seen = 0;
        for vm in VMS {
            for (number, end) in ends(&channels, vm).into_iter().enumerate() {
                let other = ends(&channels, end.peer)[end.peer_number as usize];
                prop_assert_eq!((other.channel, other.peer, other.peer_number), (end.channel, vm, number as u32));
                prop_assert_eq!(other.side, 1 - end.side);
                prop_assert_eq!(channels[end.channel].vms[end.side as usize], vm);
                seen += 1;
            }
        }
        prop_assert_eq!(seen, 2 * channels.len());
    }
}
