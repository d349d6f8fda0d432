//! Bundles with random damage: the parser neither panics nor lets anything through that its types rule out.

mod manifest_check;

use config::manifest::Bundle;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use manifest_check::check;
use proptest::prelude::*;

fn property(name: &str, value: impl dtoolkit::ToPropertyValue) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).unwrap()
}

fn vm(name: &str, properties: impl IntoIterator<Item = DeviceTreeProperty>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    node.add_property(property("compatible", "hanok,vm"));
    properties.into_iter().for_each(|property| node.add_property(property));
    node
}

/// A valid bundle with every property.
fn valid() -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root.add_property(property("compatible", "hanok,bundle"));
    let linux = [
        property("cpus", 2_u32),
        property("cpu-affinity", [0_u32, 1]),
        property("memory", 0x8_0000_u64),
        property("bootargs", "console=ttyAMA0"),
        property("kernel", [1_u8; 40]),
        property("initrd", [2_u8; 20]),
        property("start", "manual"),
        property("on-crash", "restart"),
        property("restart-limit", 3_u32),
        property("restart-delay", 20_u32),
        property("watchdog", 60_u32),
        property("rights", ["control", "console"].as_slice()),
    ];
    tree.root.add_child(vm("linux", linux));
    let raw = [
        property("binary", [3_u8; 16]),
        property("load-address", 0x4000_0000_u64),
        property("entry-address", 0x4000_0004_u64),
    ];
    tree.root.add_child(vm("raw", raw));
    let weighted =
        [property("elf", [4_u8; 30]), property("weight", 256_u32), property("cpu-affinity", [2_u32, 3, 0])];
    tree.root.add_child(vm("elf", weighted));
    let reserved = [property("elf", [6_u8; 30]), property("budget", 200_u32), property("period", 1000_u32)];
    tree.root.add_child(vm("rt", reserved));
    tree.root.add_child(vm(
        "u-boot",
        [property("firmware", [5_u8; 30]), property("firmware-variables", [8_u8; 10])],
    ));
    let driver = [
        property("elf", [7_u8; 30]),
        property("layout", "board"),
        property("memory-address", 0x2000_0000_u64),
        property("passthrough", ["serial1", "/soc/aux@7e215000"].as_slice()),
        property("allow-unprotected-dma", [0_u8; 0]),
        property("allow-pin-control", [0_u8; 0]),
        property("clock-rates", [500_000_000_u32, 1]),
    ];
    tree.root.add_child(vm("driver", driver));
    for (name, vms) in [("link", ["linux", "rt"]), ("line", ["u-boot", "linux"])] {
        let mut channel = DeviceTreeNode::new(name).unwrap();
        channel.add_property(property("compatible", "hanok,channel"));
        channel.add_property(property("vms", vms.as_slice()));
        channel.add_property(property("size", 128_u32));
        tree.root.add_child(channel);
    }
    tree.to_dtb()
}

#[test]
fn the_undamaged_bundle_is_good() {
    let blob = valid();
    check(&blob);
    let bundle = Bundle::parse(&blob).unwrap();
    assert!(bundle.vms.iter().all(Result::is_ok) && bundle.channels.iter().all(Result::is_ok));
    assert_eq!((bundle.vms.len(), bundle.channels.len()), (6, 2));
}

/// A byte's new value: any, or one of those that the format gives a meaning to.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(vec![0_u8, 1, 2, 3, 4, 8, 9, 0x7f, 0x80, 0xff, b'@', b'/'])]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 10_000 }))]

    #[test]
    fn changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 1..8)) {
        let mut blob = valid();
        for (index, value) in changes {
            let at = index.index(blob.len());
            blob[at] = value;
        }
        check(&blob);
    }

    #[test]
    fn cut_and_spliced(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        length in 0_usize..64,
        cut in any::<prop::sample::Index>(),
        totalsize in any::<bool>(),
    ) {
        let mut blob = valid();
        let (from, to) = (from.index(blob.len()), to.index(blob.len()));
        let length = length.min(blob.len() - from).min(blob.len() - to);
        blob.copy_within(from..from + length, to);
        blob.truncate(cut.index(blob.len() + 1));
        if totalsize && blob.len() >= 8 {
            let size = u32::try_from(blob.len()).unwrap();
            blob[4..8].copy_from_slice(&size.to_be_bytes());
        }
        check(&blob);
    }

    #[test]
    fn random_values(
        name in prop::sample::select(vec![
            "compatible", "cpus", "cpu-affinity", "memory", "bootargs", "kernel", "initrd", "elf", "binary",
            "load-address", "entry-address", "firmware", "weight", "budget", "period", "phandle", "layout",
            "memory-address", "passthrough", "allow-unprotected-dma", "allow-pin-control", "clock-rates", "x",
        ]),
        value in prop::collection::vec(byte(), 0..20),
        payload in prop::sample::select(vec!["kernel", "elf", "binary", "firmware"]),
    ) {
        let mut tree = DeviceTree::new();
        tree.root.add_property(property("compatible", "hanok,bundle"));
        tree.root.add_child(vm("a", [property(payload, [1_u8]), property(name, value)]));
        check(&tree.to_dtb());
    }
}
