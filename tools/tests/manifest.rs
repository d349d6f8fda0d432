//! `check-manifest`: what it says of a bundle in order, and of one that isn't.

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use tools::manifest::{Report, check};

fn vm(name: &str) -> DeviceTreeNode {
    with(DeviceTreeNode::new(name).unwrap(), "compatible", "hanok,vm")
}

fn with(mut node: DeviceTreeNode, name: &str, value: impl ToPropertyValue) -> DeviceTreeNode {
    node.add_property(DeviceTreeProperty::new(name, value).unwrap());
    node
}

fn bundle(vms: impl IntoIterator<Item = DeviceTreeNode>) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root = with(tree.root, "compatible", "hanok,bundle");
    for vm in vms {
        tree.root.add_child(vm);
    }
    tree.to_dtb()
}

/// A raw binary, which has no format to be wrong.
fn binary(name: &str) -> DeviceTreeNode {
    let node = with(vm(name), "binary", [0x14_u8, 0, 0, 0]);
    with(node, "load-address", [0_u32, 0x4020_0000].map(u32::to_be_bytes).concat())
}

#[test]
fn what_is_in_order_is_told_in_a_line() {
    let two = with(binary("two"), "cpus", 2_u32);
    let two = with(two, "cpu-affinity", [3_u32, 1].map(u32::to_be_bytes).concat());
    let cells = |cells: &[u32]| cells.iter().flat_map(|cell| cell.to_be_bytes()).collect::<Vec<u8>>();
    let weighted = with(with(binary("a"), "cpus", 2_u32), "weight", 256_u32);
    let some = with(with(binary("some"), "weight", 64_u32), "cpu-affinity", cells(&[2, 3]));
    let reserved = with(with(binary("rt"), "budget", 200_u32), "period", 1000_u32);
    let Report { sound, wrong } = check(&bundle([binary("one"), two, weighted, some, reserved]));
    assert_eq!(wrong, [""; 0]);
    assert_eq!(
        sound,
        [
            "/one: 1 vCPU, 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
            "/two: 2 vCPUs on CPU 3, 1, 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
            "/a: 2 vCPUs (weight 256), 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
            "/some: 1 vCPU (weight 64) on CPU 2, 3, 128 MiB, binary of 1 KiB, starts at 0x40200000, \
             tree at 0x40000000",
            "/rt: 1 vCPU (200 of 1000 us), 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
        ]
    );
}

#[test]
fn each_mistake_is_told_with_its_node_and_property_and_the_others_are_checked_all_the_same() {
    let Report { sound, wrong } = check(&bundle([
        with(binary("many"), "cpus", 9_u32),
        binary("fine"),
        with(vm("kernel"), "kernel", [0x1f_u8, 0x8b, 8, 0]),
        vm("nothing"),
    ]));
    assert_eq!(sound.len(), 1);
    let starts: Vec<&str> = wrong.iter().map(|line| line.split_inclusive(": ").next().unwrap()).collect();
    assert_eq!(starts, ["/many: ", "/kernel: ", "/nothing: "]);
    assert!(wrong[0].contains("cpus") && wrong[1].contains("kernel: is gzip-compressed"), "{wrong:?}");
}

#[test]
fn channels_are_told_behind_the_vms() {
    let channel = |name, vms: &[&str]| {
        let node = with(DeviceTreeNode::new(name).unwrap(), "compatible", "hanok,channel");
        with(node, "vms", vms)
    };
    let nodes =
        [channel("link", &["one", "two"]), binary("one"), binary("two"), channel("lost", &["one", "three"])];
    let Report { sound, wrong } = check(&bundle(nodes));
    assert_eq!(sound.len(), 3);
    assert_eq!(sound[2], "/link: channel between one and two, 64 KiB");
    assert_eq!(wrong, ["/lost: vms: there is no VM \"three\""]);
}

#[test]
fn what_is_no_bundle_is_said_to_be_none() {
    for bytes in
        [&b"\x7fELF, this is, and quite long enough for a header"[..], b"", &bundle([binary("one")])[..60]]
    {
        let Report { sound, wrong } = check(bytes);
        assert_eq!((sound.len(), wrong.len()), (0, 1), "{wrong:?}");
    }
}
