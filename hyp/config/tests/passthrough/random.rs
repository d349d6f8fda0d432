//! Damaged and random trees: nothing panics, and whatever is handed out keeps VMs apart.

use std::collections::BTreeSet;

use config::manifest::VmConfig;
use config::passthrough::{Given, Own, Span};
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use proptest::prelude::*;

use crate::apart::{configs, hand_out};
use crate::board::{
    PI_GICD, Property, VIRT_GICD, cells, device, disabled, node, phandle, pi, pi_own, set, spis, strings,
    trusted, vm, with_rates,
};
use crate::reader;

/// RAM as a tree has it, if it can be read.
fn memory_of(tree: &DeviceTree) -> Vec<Span> {
    let banks = dtoolkit::Node::children(&&tree.root).filter(|node| node.name_starts_with("memory@"));
    let registers = |bank: &DeviceTreeNode| {
        let reg = dtoolkit::Node::property(&bank, "reg").unwrap();
        dtoolkit::Property::value(&reg).chunks_exact(16).map(bank_of).collect::<Vec<_>>()
    };
    banks.flat_map(registers).collect()
}

fn bank_of(reg: &[u8]) -> Span {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    Span::new(number(&reg[..8]), number(&reg[8..]))
}

trait Named {
    fn name_starts_with(&self, start: &str) -> bool;
}

impl Named for &DeviceTreeNode {
    fn name_starts_with(&self, start: &str) -> bool {
        dtoolkit::Node::name(self).starts_with(start)
    }
}

/// A byte's new value: any, or one of those that the format gives a meaning to.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(vec![0_u8, 1, 2, 3, 4, 8, 9, 0x7f, 0x80, 0xff, b'@', b'/'])]
}

#[test]
fn the_undamaged_tree_serves_most() {
    let (served, given) =
        hand_out(&pi().to_dtb(), PI_GICD, &configs(), &pi_own(), &[Span::new(0, 0xfc00_0000)]);
    assert_eq!(served, 4);
    given.iter().for_each(reader::check);
}

const CASES: u32 = if cfg!(miri) { 2 } else { 2_000 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn changed_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 1..8)) {
        let mut blob = pi().to_dtb();
        for (index, value) in changes {
            let at = index.index(blob.len());
            blob[at] = value;
        }
        hand_out(&blob, PI_GICD, &configs(), &pi_own(), &[]);
    }

    #[test]
    fn cut_and_spliced(
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        words in 0_usize..64,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut blob = pi().to_dtb();
        let (from, to) = (from.index(blob.len()) & !3, to.index(blob.len()) & !3);
        let length = (words * 4).min(blob.len() - from).min(blob.len() - to);
        blob.copy_within(from..from + length, to);
        if let Some(cut) = cut {
            blob.truncate(cut.index(blob.len() + 1));
        }
        hand_out(&blob, PI_GICD, &configs(), &pi_own(), &[]);
    }

    /// A property of some device has another value: of odd length, of the largest numbers, or of another property.
    #[test]
    fn changed_properties(
        place in prop::sample::select(PLACES.to_vec()),
        name in prop::sample::select(NAMES.to_vec()),
        value in prop_oneof![
            prop::collection::vec(prop::sample::select(CELLS.to_vec()), 0..10).prop_map(|values| cells(&values)),
            prop::collection::vec(byte(), 0..24),
        ],
    ) {
        let mut tree = pi();
        set(&mut tree, place, name, value);
        let (_, given) = hand_out(&tree.to_dtb(), PI_GICD, &configs(), &pi_own(), &[]);
        for given in &given {
            phandles_are_unique(given);
        }
    }

    /// Trees of devices that are close together, share lines, and name each other in any way.
    #[test]
    fn random_boards(devices in prop::collection::vec(random_device(), 4..12), wishes in wishes()) {
        let mut tree = crate::board::virt([]);
        for (number, device) in devices.iter().enumerate() {
            tree.root.add_child(device.node(number));
        }
        let names: Vec<String> = (0..devices.len()).map(|number| format!("/d{number}")).collect();
        let configs: Vec<VmConfig<'_>> = wishes.iter().enumerate().map(|(number, wish)| {
            let nodes: Vec<&str> = names
                .iter()
                .enumerate()
                .filter(|(number, _)| wish.mask >> number & 1 != 0)
                .map(|(_, name)| name.as_str())
                .collect();
            let name = ["a", "b", "c", "d"][number];
            let config = if wish.trusted { trusted(name, &nodes) } else { vm(name, &nodes) };
            with_rates(config, &wish.rates)
        }).collect();
        let own = [
            Own { registers: Span::new(VIRT_GICD, 0x1_0000), line: None, what: "the interrupt controller" },
            Own { registers: Span::new(0xa00_2000, 4), line: Some(35), what: "the console" },
        ];
        let memory = memory_of(&tree);
        assert_eq!(memory, [Span::new(0x4000_0000, 0x8000_0000)]);
        let (_, given) = hand_out(&tree.to_dtb(), VIRT_GICD, &configs, &own, &memory);
        given.iter().for_each(reader::check);
    }
}

fn phandles_are_unique(given: &Given) {
    fn collect(node: &config::blob::Node, found: &mut Vec<u32>) {
        if reader::has(node, "phandle") {
            found.extend(reader::cells(node, "phandle"));
        }
        node.children().for_each(|child| collect(child, found));
    }
    let mut found = Vec::new();
    given.nodes.iter().for_each(|node| collect(node, &mut found));
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
}

const PLACES: &[&str] = &[
    "/",
    "/soc",
    "/emmc2bus",
    "/aliases",
    "/cpus",
    "/memory@0",
    "/clk-half",
    "/soc/gpio@7e200000",
    "/soc/aux@7e215000",
    "/soc/serial@7e215040",
    "/soc/i2c@7e804000",
    "/soc/i2c@7e804000/rtc@68",
    "/soc/spi@7e204000",
    "/soc/rng@7e104000",
    "/soc/dma@7e007000",
    "/soc/interrupt-controller@40041000",
    "/emmc2bus/mmc@7e340000",
];

const NAMES: &[&str] = &[
    "reg",
    "ranges",
    "dma-ranges",
    "#address-cells",
    "#size-cells",
    "#interrupt-cells",
    "#clock-cells",
    "#gpio-cells",
    "interrupts",
    "interrupts-extended",
    "interrupt-parent",
    "interrupt-names",
    "clocks",
    "clock-names",
    "clock-mult",
    "dmas",
    "cs-gpios",
    "pinctrl-0",
    "phandle",
    "linux,phandle",
    "status",
    "compatible",
    "device_type",
    "gpio-ranges",
    "serial1",
];

const CELLS: &[u32] = &[
    0,
    1,
    2,
    3,
    4,
    phandle::GPIO,
    phandle::CRYSTAL,
    phandle::HALF,
    93,
    987,
    0x1000,
    0x7e20_0000,
    0x7e21_5000,
    0xfe00_0000,
    0xffff_f000,
    0xffff_ffff,
    0x8000_0000,
];

/// A device at some place between 0x0a00_0000 and 0x0a01_0000, or next to RAM.
#[derive(Clone, Debug)]
struct RandomDevice {
    pieces: Vec<(u32, u32)>,
    lines: Vec<u32>,
    is_disabled: bool,
    is_loud: bool,
    controls_pins: bool,
    refers_to: Vec<u32>,
    is_extended: bool,
}

impl RandomDevice {
    fn node(&self, number: usize) -> DeviceTreeNode {
        let reg: Vec<u32> = self.pieces.iter().flat_map(|(start, size)| [0, *start, 0, *size]).collect();
        let phandle_of = |number: u32| 0x100 + number;
        let references: Vec<u32> = self.refers_to.iter().map(|to| phandle_of(*to)).collect();
        let clocks: Vec<u32> = references.iter().flat_map(|to| [*to, 5]).collect();
        let mut properties: Vec<Property<'_>> = vec![
            ("phandle", cells(&[phandle_of(number as u32)])),
            ("#clock-cells", cells(&[1])),
            ("#interrupt-cells", cells(&[2])),
            ("#gpio-cells", cells(&[1])),
        ];
        if !references.is_empty() {
            properties.push(("clocks", cells(&clocks)));
            properties.push(("reset-gpios", cells(&clocks)));
            properties.push(("some-supply", cells(&references[..1])));
        }
        if self.is_extended {
            let ours = self.lines.iter().flat_map(|line| [0x8001, 0, *line, 4]);
            let theirs = references.iter().flat_map(|to| [*to, 1, 2]);
            let all: Vec<u32> = ours.chain(theirs).collect();
            properties.push(("interrupts-extended", cells(&all)));
        } else {
            properties.push(spis(&self.lines));
        }
        properties.extend(self.is_disabled.then(disabled));
        properties.extend(self.controls_pins.then(|| ("gpio-controller", vec![])));
        let kind = if self.is_loud { "some,dma" } else { "arm,pl061" };
        let below = node("below", &[("compatible", strings(&["below"]))], []);
        let mut node = device(&format!("d{number}"), kind, &reg, &properties);
        node.add_child(below);
        node
    }
}

fn random_device() -> impl Strategy<Value = RandomDevice> {
    let near = (0xa00_0000_u32..0xa01_0000, prop_oneof![3 => 1_u32..0x100, 1 => 1_u32..0x2800]);
    let piece = prop_oneof![20 => near, 1 => (0x3fff_e000_u32..0x4000_1000, 1_u32..0x1000), 1 => Just((0x7ff_f000, 0x1001))];
    (
        prop::collection::vec(piece, 1..3),
        prop::collection::vec(0_u32..40, 0..3),
        any::<bool>(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
        prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(0_u32..12, 1..3)],
        any::<bool>(),
    )
        .prop_map(|(pieces, lines, is_disabled, is_loud, controls_pins, refers_to, is_extended)| {
            RandomDevice { pieces, lines, is_disabled, is_loud, controls_pins, refers_to, is_extended }
        })
}

/// Which devices a VM names, and what it says of them.
#[derive(Clone, Debug)]
struct Wish {
    mask: u32,
    trusted: bool,
    rates: Vec<u32>,
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let mask =
        prop_oneof![1 => 1_u32..0x1000, 6 => (0_u32..12).prop_map(|number| 1 << number), 1 => Just(0xfff)];
    let wish = (
        mask,
        prop::bool::weighted(0.7),
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(1_u32..4, 1..3)],
    )
        .prop_map(|(mask, trusted, rates)| Wish { mask, trusted, rates });
    prop::collection::vec(wish, 1..5)
}
