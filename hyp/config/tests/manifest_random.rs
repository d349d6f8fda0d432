//! Bundles with random damage: the parser neither panics nor lets anything through that its types rule out.

use std::collections::BTreeSet;

use config::manifest::{
    Bundle, BundleError, DeviceConfig, LayoutKind, MAX_BOOTARGS, MAX_CHANNEL, MAX_CPUS, MAX_NAME, MAX_PERIOD,
    MAX_RESTART_LIMIT, MAX_WEIGHT, MEMORY_UNIT, MIN_BUDGET, MIN_CHANNEL, MIN_PERIOD, ManifestError, Payload,
    Sharing, VmConfig,
};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;
use vmm::life::{LONGEST_DELAY_MS, LONGEST_TIMEOUT, OnCrash};

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

fn is_inside(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

fn check_cpus(config: &VmConfig<'_>) {
    match config.sharing {
        Sharing::Pinned => {}
        Sharing::Weight(weight) => assert!((1..=MAX_WEIGHT).contains(&weight)),
        Sharing::Reserved { budget, period } => {
            assert!((MIN_PERIOD..=MAX_PERIOD).contains(&period));
            assert!((MIN_BUDGET..=period).contains(&budget));
        }
    }
    let Some(list) = &config.cpu_affinity else { return };
    if config.sharing == Sharing::Pinned {
        assert_eq!(list.len(), config.cpus as usize);
    } else {
        assert!(!list.is_empty());
        assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "{list:?}");
    }
}

/// Everything that the documentation of [`VmConfig`] promises.
fn check_config(config: &VmConfig<'_>, blob: &[u8]) {
    let name = config.name;
    assert!((1..=MAX_NAME).contains(&name.len()), "{name:?}");
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",._+-".contains(&byte)), "{name:?}");
    assert!((1..=MAX_CPUS).contains(&config.cpus));
    assert!(config.memory >= MEMORY_UNIT && config.memory.is_multiple_of(MEMORY_UNIT));
    check_cpus(config);
    if let OnCrash::Restart { limit, delay } = config.on_crash {
        assert!((1..=MAX_RESTART_LIMIT).contains(&limit) && (1..=LONGEST_DELAY_MS).contains(&delay));
    }
    assert!(config.watchdog.is_none_or(|timeout| (1..=LONGEST_TIMEOUT).contains(&timeout)));
    check_devices(config);
    let bootargs = config.bootargs.unwrap_or_default();
    assert!(bootargs.len() <= MAX_BOOTARGS && !bootargs.contains('\0'));
    let parts = match config.payload {
        Payload::Linux { image, initrd } => [Some(image), initrd],
        Payload::Elf(bytes) | Payload::Binary { bytes, .. } => [Some(bytes), None],
        Payload::Firmware { image, variables } => {
            assert!(variables.is_none_or(|bytes| bytes.is_empty() || is_inside(bytes, blob)));
            [Some(image), None]
        }
    };
    assert!(parts.into_iter().flatten().all(|part| !part.is_empty() && is_inside(part, blob)));
}

/// The same of [`ChannelConfig`](config::manifest::ChannelConfig), in a bundle with these VMs.
fn check_channels(bundle: &Bundle<'_>, vms: &BTreeSet<&str>) {
    let mut names = vms.clone();
    for channel in bundle.channels.iter().flatten() {
        assert!(names.insert(channel.name));
        assert!(channel.vms[0] != channel.vms[1] && channel.vms.iter().all(|vm| vms.contains(vm)));
        assert!(channel.size.is_power_of_two() && (MIN_CHANNEL..=MAX_CHANNEL).contains(&channel.size));
    }
    bundle.channels.iter().filter_map(|channel| channel.as_ref().err()).for_each(check_message);
}

fn check_devices(config: &VmConfig<'_>) {
    let on_board = config.layout == LayoutKind::Board;
    assert!(!on_board || !matches!(config.payload, Payload::Firmware { .. }));
    assert!(config.memory_address.is_none_or(|address| on_board && address.is_multiple_of(MEMORY_UNIT)));
    let devices = &config.devices;
    assert!(devices.nodes.iter().all(|name| !name.is_empty() && !name.contains('\0')));
    assert!(devices.clock_rates.iter().all(|rate| *rate != 0));
    assert!(on_board || !devices.unprotected_dma);
    assert!(!devices.nodes.is_empty() || *devices == DeviceConfig::default());
}

fn check_message(error: &ManifestError) {
    let text = error.to_string();
    assert!(text.starts_with('/') && text.contains(": "), "{text:?}");
    assert!(text.chars().all(|character| !character.is_control()), "{text:?}");
}

fn check(blob: &[u8]) {
    match Bundle::parse(blob) {
        Ok(bundle) => {
            let mut names = BTreeSet::new();
            for config in bundle.vms.iter().flatten() {
                check_config(config, blob);
                assert!(names.insert(config.name));
            }
            bundle.vms.iter().filter_map(|vm| vm.as_ref().err()).for_each(check_message);
            check_channels(&bundle, &names);
            assert!(!bundle.vms.is_empty());
        }
        Err(BundleError::Root(error)) => check_message(&error),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
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
