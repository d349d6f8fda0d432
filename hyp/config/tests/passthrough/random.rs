//! Damaged and random trees: nothing panics, and whatever is handed out keeps VMs apart.

use std::collections::BTreeSet;

use config::manifest::{LayoutKind, VmConfig};
use config::passthrough::{Given, Own, Span};
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use proptest::prelude::*;
use vmm::layout::VIRT;

use crate::board::{
    ONE_TO_ONE, PI_GICD, Property, VIRT_GICD, cells, device, disabled, find, node, phandle, pi, pi_own, set,
    spis, strings, trusted, vm, with_rates,
};
use crate::reader;

/// What all VMs together have.
#[derive(Default)]
struct Owned {
    pages: Vec<Span>,
    lines: BTreeSet<u16>,
    names: BTreeSet<String>,
}

fn span(given: &(vmm::layout::Ipa, stage2::PaRange)) -> Span {
    Span::new(given.1.start().as_u64(), given.1.size())
}

/// Sees that a VM got nothing that is another one's, Hanok's, or memory.
fn check_apart(owned: &mut Owned, given: &Given, config: &VmConfig<'_>, own: &[Own], memory: &[Span]) {
    let spans: Vec<Span> = given.registers.iter().map(span).collect();
    for (number, pages) in spans.iter().enumerate() {
        assert!(pages.start < pages.end && *pages == pages.pages(), "{pages:x?}");
        let others = owned.pages.iter().chain(&spans[..number]).chain(memory);
        let hanoks = own.iter().map(|own| own.registers.pages());
        assert!(
            !others.copied().chain(hanoks).any(|other| other.meets(*pages)),
            "{pages:x?} of {}",
            config.name
        );
    }
    for line in &given.lines {
        let intid = line.physical.intid;
        assert!((32..1020).contains(&intid) && own.iter().all(|own| own.line != Some(intid)));
        assert!(owned.lines.insert(intid), "interrupt {intid} of {}", config.name);
    }
    for (at, pages) in &given.registers {
        if config.layout == LayoutKind::Board {
            assert_eq!(at.as_u64(), pages.start().as_u64());
        } else {
            let end = at.as_u64() + pages.size();
            let room = VIRT.devices.registers;
            assert!(
                at.as_u64() >= room.base.as_u64()
                    && end <= room.end().as_u64()
                    && at.as_u64() % 0x1_0000 == 0
            );
        }
    }
    let mut places: Vec<(u64, u64)> =
        given.registers.iter().map(|(at, pages)| (at.as_u64(), at.as_u64() + pages.size())).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{places:x?}");
    let spis: BTreeSet<u32> = given.lines.iter().map(|line| line.spi).collect();
    assert_eq!(spis.len(), given.lines.len());
    owned.pages.extend(spans);
    owned.names.insert(config.name.to_owned());
}

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

/// Hands out to each VM in turn.
fn hand_out(
    blob: &[u8],
    gicd: u64,
    configs: &[VmConfig<'_>],
    own: &[Own],
    memory: &[Span],
) -> (usize, Vec<Given>) {
    let Some(mut devices) = find(blob, gicd) else { return (0, Vec::new()) };
    let pages = devices.pages();
    assert!(pages.windows(2).all(|pair| pair[0].end < pair[1].start), "{pages:x?}");
    let _ = devices.is_wanted("/soc/serial@7e201000", configs.iter());
    let mut owned = Owned::default();
    let mut all = Vec::new();
    for config in configs {
        let room = if config.layout == LayoutKind::Board { ONE_TO_ONE } else { VIRT.devices };
        match devices.give(config, &room, own) {
            Ok(given) => {
                check_apart(&mut owned, &given, config, own, memory);
                // EL2 takes the pages out of those that it knows to be devices'.
                for run in given.registers.iter().map(span) {
                    assert!(
                        pages.iter().any(|known| known.start <= run.start && run.end <= known.end),
                        "{run:x?}"
                    );
                }
                all.push(given);
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(": ") && !text.contains('\n'), "{text:?}");
            }
        }
    }
    assert_eq!(devices.pages(), pages);
    (owned.names.len(), all)
}

/// VMs that want most of the Pi, some the same as others.
fn configs() -> Vec<VmConfig<'static>> {
    let mut pins = with_rates(vm("pins", &["/soc/gpio@7e200000", "/soc/rng@7e104000"]), &[]);
    pins.devices.pin_control = true;
    vec![
        with_rates(vm("uart", &["serial1", "/soc/aux@7e215000"]), &[500_000_000]),
        pins,
        with_rates(trusted("mmc", &["/emmc2bus/mmc@7e340000", "/soc/dma@7e007000"]), &[200_000_000]),
        with_rates(vm("i2c", &["/soc/i2c@7e804000"]), &[1000]),
        trusted("again", &["/soc/rng@7e104000", "/soc/spi@7e215080"]),
        with_rates(trusted("console", &["serial0", "/soc/serial@7e201400", "/soc/serial@7e201600"]), &[1, 2]),
        with_rates(trusted("spi", &["/soc/spi@7e204000", "/soc/power@7e00b000"]), &[1; 5]),
        trusted("odd", &["/cpus", "/memory@0", "/timer", "/soc", "/scb/pcie@7d500000"]),
    ]
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
