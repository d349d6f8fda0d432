//! Who gets what: all of it or nothing, each device once, and by whichever name.

use config::passthrough::Span;

use crate::board::{
    PI_GICD, VIRT_GICD, add, disabled, find, give_of, give_pi, loud, node, pi, pi_own, quiet, refusal, spis,
    strings, trusted, virt, vm, with_rates,
};

const AUX: &str = "/soc/aux@7e215000";
const RNG: &str = "/soc/rng@7e104000";

#[test]
fn an_alias_is_as_good_as_a_path() {
    let by_alias = give_pi(&pi(), &with_rates(vm("a", &["serial1", AUX]), &[1000])).unwrap();
    let by_path = give_pi(&pi(), &with_rates(vm("a", &["/soc/serial@7e215040", AUX]), &[1000])).unwrap();
    assert_eq!(by_alias.nodes, by_path.nodes);
    assert_eq!((by_alias.registers, by_alias.lines), (by_path.registers, by_path.lines));
}

#[test]
fn two_vms_get_two_devices() {
    let blob = pi().to_dtb();
    let mut devices = find(&blob, PI_GICD).unwrap();
    let uart = give_of(&mut devices, &pi_own(), &with_rates(vm("a", &["serial1", AUX]), &[1000])).unwrap();
    let i2c =
        give_of(&mut devices, &pi_own(), &with_rates(vm("b", &["/soc/i2c@7e804000", RNG]), &[1000])).unwrap();
    // Each has places and interrupts of its own.
    assert_eq!((uart.lines[0].spi, i2c.lines[0].spi), (112, 112));
    assert_eq!(uart.registers[0].0, i2c.registers[0].0);
    assert_ne!(uart.lines[0].physical, i2c.lines[0].physical);
    // What went along with the UART is the first VM's, and nobody else's.
    for spi in ["/soc/spi@7e215080", "/soc/spi@7e2150c0"] {
        let text = refusal(give_of(&mut devices, &pi_own(), &trusted("c", &[spi])));
        assert_eq!(text, format!("passthrough: {spi} belongs to a"));
    }
}

#[test]
fn what_is_taken_back_another_vm_may_have() {
    let blob = pi().to_dtb();
    let mut devices = find(&blob, PI_GICD).unwrap();
    let uart = |name| with_rates(vm(name, &["serial1", AUX]), &[1000]);
    let first = give_of(&mut devices, &pi_own(), &uart("a")).unwrap();
    give_of(&mut devices, &pi_own(), &vm("b", &[RNG])).unwrap();
    devices.take_back("a");
    // What went along with them is nobody's again either, and what another VM has stays that one's.
    let second = give_of(&mut devices, &pi_own(), &uart("c")).unwrap();
    assert_eq!((first.registers, first.lines, first.nodes), (second.registers, second.lines, second.nodes));
    let text = refusal(give_of(&mut devices, &pi_own(), &vm("a", &[RNG])));
    assert_eq!(text, "passthrough: /soc/rng@7e104000 belongs to b");
}

#[test]
fn what_is_below_a_device_is_its_vms_too() {
    let tree = virt([node(
        "outer@a000000",
        &[("compatible", strings(&["arm,pl061"])), ("reg", crate::board::cells(&[0, 0xa00_0000, 0, 4]))],
        [node("inner", &[("compatible", strings(&["some,lamps"]))], [])],
    )]);
    let blob = tree.to_dtb();
    let mut devices = find(&blob, VIRT_GICD).unwrap();
    give_of(&mut devices, &[], &vm("a", &["/outer@a000000"])).unwrap();
    let text = refusal(give_of(&mut devices, &[], &vm("b", &["/outer@a000000/inner"])));
    assert_eq!(text, "passthrough: /outer@a000000/inner belongs to a");
}

#[test]
fn who_is_refused_gets_nothing_and_the_next_one_may_have_it() {
    let blob = pi().to_dtb();
    let mut devices = find(&blob, PI_GICD).unwrap();
    let pages = devices.pages();
    let wrong = [
        // Each for another reason, from first to last check, and the good device both before and behind the bad one.
        vm("a", &[RNG, "serial7"]),
        vm("a", &["/soc", RNG]),
        vm("a", &[RNG, "serial1"]),
        trusted("a", &[RNG, "serial0"]),
        vm("a", &[RNG, "/soc/gpio@7e200000"]),
        vm("a", &[RNG, "/emmc2bus/mmc@7e340000"]),
        vm("a", &[RNG, "/soc/i2c@7e804000"]),
        with_rates(vm("a", &[RNG]), &[1]),
    ];
    for config in &wrong {
        refusal(give_of(&mut devices, &pi_own(), config));
    }
    assert_eq!(devices.pages(), pages);
    let given = give_of(&mut devices, &pi_own(), &vm("b", &[RNG])).unwrap();
    assert_eq!(given.registers.len(), 1);
    let text = refusal(give_of(&mut devices, &pi_own(), &vm("a", &[RNG])));
    assert_eq!(text, "passthrough: /soc/rng@7e104000 belongs to b");
}

#[test]
fn who_has_no_room_leaves_it_to_the_next_one() {
    let tree = virt([quiet("a@10000000", 0x1000_0000, 0x200_1000, &[spis(&[3])])]);
    let blob = tree.to_dtb();
    let mut devices = find(&blob, VIRT_GICD).unwrap();
    assert!(refusal(give_of(&mut devices, &[], &vm("a", &["/a@10000000"]))).contains("32 MiB"));
    give_of(&mut devices, &[], &trusted("b", &["/a@10000000"])).unwrap();
}

#[test]
fn neighbours_below_a_disabled_bus_are_disabled() {
    let mut tree = virt([quiet("a@a000000", 0xa00_0000, 4, &[])]);
    let bus = [("ranges", vec![]), ("#address-cells", crate::board::cells(&[2])), disabled()];
    let bus = [&bus[..], &[("#size-cells", crate::board::cells(&[2]))]].concat();
    add(&mut tree, "/", node("bus", &bus, [quiet("b@a000800", 0xa00_0800, 4, &[])]));
    let given = crate::board::give_virt(&tree, &vm("a", &["/a@a000000"])).unwrap();
    assert_eq!(given.nodes.len(), 1);
    // Any other word than these means that it isn't to be used (Devicetree Specification, 2.3.4).
    for (status, is_used) in
        [("okay", true), ("ok", true), ("reserved", false), ("fail", false), ("fail-sss", false)]
    {
        let neighbour = quiet("b@a000800", 0xa00_0800, 4, &[("status", strings(&[status]))]);
        let tree = virt([quiet("a@a000000", 0xa00_0000, 4, &[]), neighbour]);
        assert_eq!(crate::board::give_virt(&tree, &vm("a", &["/a@a000000"])).is_err(), is_used, "{status}");
    }
}

#[test]
fn all_pages_of_devices_are_known() {
    let tree = virt([
        quiet("a@a000ff0", 0xa00_0ff0, 0x20, &[]),
        loud("b@a003000", 0xa00_3000, 1, &[disabled()]),
        quiet("c@a002000", 0xa00_2fff, 1, &[]),
        quiet("d@a001800", 0xa00_1800, 4, &[]),
    ]);
    let blob = tree.to_dtb();
    let devices = find(&blob, VIRT_GICD).unwrap();
    assert_eq!(devices.pages(), [Span::new(0x800_0000, 0x1_0000), Span::new(0xa00_0000, 0x4000)]);
    // On the Pi too, whichever bus they are behind; RAM isn't among them.
    let blob = pi().to_dtb();
    let devices = find(&blob, PI_GICD).unwrap();
    let pages = devices.pages();
    for address in [0xfe20_0000, 0xfe21_5000, 0xfe34_0000, 0xfd50_9000, 0xff84_7000, 0xfe00_a000] {
        assert!(pages.iter().any(|span| span.start <= address && address < span.end), "{address:#x}");
    }
    assert!(pages.windows(2).all(|pair| pair[0].end < pair[1].start), "{pages:x?}");
    assert!(!pages.iter().any(|span| span.meets(Span::new(0, 0xfc00_0000))), "{pages:x?}");
}

#[test]
fn what_a_manifest_wants_is_found_by_path() {
    let blob = pi().to_dtb();
    let devices = find(&blob, PI_GICD).unwrap();
    let console = "/soc/serial@7e201000";
    let is_wanted = |path: &str, names: &[&'static str]| {
        devices.is_wanted(path, [vm("a", &[RNG, "no such"]), vm("b", names)].iter())
    };
    assert!(is_wanted(console, &["serial0"]));
    assert!(is_wanted(console, &[AUX, console]));
    assert!(!is_wanted(console, &["serial1", AUX, "/soc/serial@7e201400"]));
    // Nobody gets a bus, nor what lies on it by naming that.
    assert!(!is_wanted(console, &["/soc"]));
    assert!(!is_wanted("/nothing", &["serial0", "/nothing"]));
    assert!(!devices.is_wanted(console, [].iter()));
}

#[test]
fn what_was_given_is_told_device_by_device() {
    let blob = pi().to_dtb();
    let mut devices = find(&blob, PI_GICD).unwrap();
    let mut config = with_rates(vm("a", &["serial1", "/soc/gpio@7e200000", AUX, "/sd_vcc"]), &[1000]);
    config.devices.pin_control = true;
    let given = give_of(&mut devices, &pi_own(), &config).unwrap();
    let said: Vec<String> = devices.describe(&config, &given).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "/soc/serial@7e215040: 0xfe215040 to 0xfe21507f at 0xc010040, SPI 93 as 114",
            "/soc/gpio@7e200000: 0xfe200000 to 0xfe2000b3 at 0xc000000, SPI 113 as 112, SPI 114 as 113",
            "/soc/aux@7e215000: 0xfe215000 to 0xfe215007 at 0xc010000",
            "/sd_vcc: neither registers nor interrupts",
        ]
    );
    assert_eq!(devices.gone_along(&config), ["/soc/spi@7e215080", "/soc/spi@7e2150c0"]);
    assert!(devices.gone_along(&vm("b", &[RNG])).is_empty());
}

/// A tree with so many more nodes, each with so many ranges of registers.
fn large(nodes: u32, ranges: u32) -> Vec<u8> {
    let reg = |number: u32| {
        (0..ranges).flat_map(|range| [1, (number * ranges + range) << 12, 0, 4]).collect::<Vec<_>>()
    };
    virt(
        (0..nodes)
            .map(|number| crate::board::device(&format!("node-{number}"), "arm,pl061", &reg(number), &[])),
    )
    .to_dtb()
}

#[test]
fn in_a_tree_that_is_too_large_no_device_is_found() {
    let found = |blob: &[u8]| find(blob, VIRT_GICD).is_some();
    // Some nodes are there already.
    assert!(found(&large(4000, 1)));
    assert!(!found(&large(4096, 1)));
    assert!(found(&large(8, 1000)));
    assert!(!found(&large(9, 1000)));
    // A list of interrupts that is longer than there are interrupts, and a bus with more windows than anything has.
    let many = |count| {
        virt([crate::board::device("many", "arm,pl061", &[0, 0xa00_0000, 0, 4], &[spis(&vec![7; count])])])
    };
    assert!(found(&many(1000).to_dtb()) && !found(&many(1100).to_dtb()));
    let windows = |count: usize| virt([node("bus", &[("ranges", crate::board::cells(&vec![0; count]))], [])]);
    assert!(found(&windows(6000).to_dtb()) && !found(&windows(12_000).to_dtb()));
}
