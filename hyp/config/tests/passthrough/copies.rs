//! What a VM's tree has of its devices, and what of them differs from the board's.

use config::passthrough::{Given, PassthroughError};
use dtoolkit::model::DeviceTree;

use crate::board::{
    PI_GICD, add, cells, device, disabled, give, give_pi, give_virt, node, phandle, pi, pi_own, quiet, set,
    spis, strings, trusted, unset, virt, vm, with_rates,
};
use crate::reader::{self, child, copy, has, names, registers, root_node};

const AUX: &str = "/soc/aux@7e215000";
const GPIO: &str = "/soc/gpio@7e200000";
const I2C: &str = "/soc/i2c@7e804000";
const RNG: &str = "/soc/rng@7e104000";
const SPI: &str = "/soc/spi@7e204000";
const DMA: &str = "/soc/dma@7e007000";
const POWER: &str = "/soc/power@7e00b000";
const CPRMAN: &str = "/soc/cprman@7e101000";

/// What a VM that may do anything, with the Pi's addresses, gets of a tree.
fn given_of(tree: &DeviceTree, devices: &[&str], rates: &[u32]) -> Given {
    give_pi(tree, &with_rates(trusted("a", devices), rates)).unwrap()
}

fn given(devices: &[&str], rates: &[u32]) -> Given {
    given_of(&pi(), devices, rates)
}

/// The phandle of a copy.
fn handle(node: &config::blob::Node) -> u32 {
    reader::cells(node, "phandle")[0]
}

#[test]
fn the_mini_uart_of_a_pi_with_qemus_addresses() {
    let mut config = with_rates(vm("rt", &["serial1", AUX, GPIO]), &[500_000_000]);
    config.devices.pin_control = true;
    let given = give_pi(&pi(), &config).unwrap();
    let places: Vec<_> = given
        .registers
        .iter()
        .map(|(at, pages)| (at.as_u64(), pages.start().as_u64(), pages.size()))
        .collect();
    assert_eq!(places, [(0x0c00_0000, 0xfe20_0000, 0x1000), (0x0c01_0000, 0xfe21_5000, 0x1000)]);
    let lines: Vec<_> = given.lines.iter().map(|line| (line.physical.intid, line.spi)).collect();
    assert_eq!(lines, [(32 + 113, 112), (32 + 114, 113), (32 + 93, 114)]);
    assert_eq!(given.reach, None);

    let [bus, clock] = &given.nodes[..] else { panic!("{:?}", given.nodes) };
    assert_eq!((bus.name(), clock.name()), ("board", "clock-500000000"));
    assert_eq!(reader::strings(clock, "compatible"), ["fixed-clock"]);
    assert_eq!(reader::cells(clock, "clock-frequency"), [500_000_000]);
    assert_eq!(reader::cells(clock, "#clock-cells"), [0]);
    // In the order in which the manifest names them.
    assert_eq!(names(bus), ["serial@c010040", "aux@c010000", "gpio@c000000"]);

    let uart = copy(&given, "serial@c010040");
    assert_eq!(reader::strings(uart, "compatible"), ["brcm,bcm2835-aux-uart"]);
    assert_eq!(registers(uart), [(0x0c01_0040, 0x40)]);
    assert_eq!(reader::cells(uart, "interrupts"), [0, 114, 4]);
    let aux = copy(&given, "aux@c010000");
    assert_eq!(reader::cells(uart, "clocks"), [handle(aux), 0]);
    assert_eq!(reader::cells(aux, "clocks"), [handle(clock)]);
    assert_eq!(registers(aux), [(0x0c01_0000, 8)]);

    let gpio = copy(&given, "gpio@c000000");
    assert_eq!(reader::cells(gpio, "interrupts"), [0, 112, 4, 0, 113, 4]);
    assert_eq!(reader::cells(gpio, "gpio-ranges"), [handle(gpio), 0, 0, 58]);
    assert_eq!(names(gpio), ["uart0_gpio32", "uart1_gpio14", "i2c1_gpio2", "hog"]);
    let pins = child(gpio, "uart1_gpio14");
    assert_eq!(reader::cells(uart, "pinctrl-0"), [handle(pins)]);
    assert_eq!(reader::strings(uart, "pinctrl-names"), ["default"]);
    assert_eq!(reader::cells(pins, "brcm,pins"), [14, 15]);
    assert!(has(gpio, "gpio-controller") && has(gpio, "interrupt-controller"));
    assert_eq!(reader::cells(child(gpio, "hog"), "gpios"), [42, 0]);
}

#[test]
fn the_same_with_the_boards_addresses() {
    let given = given(&["serial1", AUX, GPIO], &[500_000_000]);
    assert!(given.registers.iter().all(|(at, pages)| at.as_u64() == pages.start().as_u64()));
    assert!(given.lines.iter().all(|line| line.spi + 32 == line.physical.intid.into()));
    assert_eq!(names(root_node(&given, "board")), ["serial@fe215040", "aux@fe215000", "gpio@fe200000"]);
    let uart = copy(&given, "serial@fe215040");
    assert_eq!(registers(uart), [(0xfe21_5040, 0x40)]);
    assert_eq!(reader::cells(uart, "interrupts"), [0, 93, 4]);
}

#[test]
fn the_same_tree_and_manifest_give_the_same_copies() {
    let config = with_rates(trusted("a", &["serial1", AUX, GPIO, I2C, DMA]), &[500_000_000]);
    let [one, other] = [0; 2].map(|_| give_pi(&pi(), &config).unwrap());
    assert_eq!(one.nodes, other.nodes);
}

#[test]
fn properties_that_mean_nothing_here_stay_as_they_are() {
    let mut tree = pi();
    for (name, value) in [
        ("reg-names", strings(&["regs"])),
        ("vendor,bytes", vec![1, 2, 3]),
        ("fifo-depth", cells(&[16])),
        ("no-value", vec![]),
        ("snps,nr-gpios", cells(&[phandle::AUX])),
        ("big-endian", vec![]),
    ] {
        set(&mut tree, RNG, name, value);
    }
    add(
        &mut tree,
        RNG,
        node("below", &[disabled(), ("reg", cells(&[7]))], [node("deeper", &[("x", vec![9])], [])]),
    );
    let given = given_of(&tree, &[RNG], &[]);
    let rng = copy(&given, "rng@fe104000");
    assert_eq!(reader::strings(rng, "reg-names"), ["regs"]);
    assert_eq!(reader::value(rng, "vendor,bytes"), Some(vec![1, 2, 3]));
    assert_eq!(reader::cells(rng, "fifo-depth"), [16]);
    assert_eq!(reader::value(rng, "no-value"), Some(vec![]));
    assert_eq!(reader::cells(rng, "snps,nr-gpios"), [phandle::AUX]);
    // What is below is no device of the board: it has its own address, and may be disabled.
    let below = child(rng, "below");
    assert_eq!(
        (reader::cells(below, "reg"), reader::strings(below, "status")),
        (vec![7], vec!["disabled".to_owned()])
    );
    assert_eq!(reader::value(child(below, "deeper"), "x"), Some(vec![9]));
}

#[test]
fn a_disabled_device_may_be_used_by_its_vm() {
    let given = given(&["/soc/spi@7e2150c0", "serial1", AUX], &[1000]);
    assert!(!has(copy(&given, "spi@fe2150c0"), "status"));
    // The other one goes along, and isn't described.
    assert_eq!(names(root_node(&given, "board")), ["spi@fe2150c0", "serial@fe215040", "aux@fe215000"]);
}

#[test]
fn what_is_behind_a_controller_goes_with_it() {
    let given = given(&[I2C], &[250_000_000]);
    let i2c = copy(&given, "i2c@fe804000");
    assert_eq!(names(i2c), ["rtc@68", "eeprom@50"]);
    let rtc = child(i2c, "rtc@68");
    assert_eq!(
        (reader::cells(rtc, "reg"), reader::strings(rtc, "compatible")),
        (vec![0x68], vec!["dallas,ds3231".into()])
    );
    assert_eq!((reader::cells(i2c, "#address-cells"), reader::cells(i2c, "#size-cells")), (vec![1], vec![0]));
    // Its interrupt, pin and supply are of nodes that the VM doesn't have.
    for name in ["interrupt-parent", "interrupts", "reset-gpios", "vcc-supply"] {
        assert!(!has(rtc, name), "{name}");
    }
    assert!(!has(i2c, "pinctrl-0") && !has(i2c, "pinctrl-names"));
    assert_eq!(reader::strings(child(i2c, "eeprom@50"), "status"), ["disabled"]);
}

#[test]
fn references_are_kept_if_the_vm_has_what_they_refer_to() {
    let given = given(&[I2C, GPIO, "/sd_vcc"], &[250_000_000]);
    let (i2c, gpio) = (copy(&given, "i2c@fe804000"), copy(&given, "gpio@fe200000"));
    let rtc = child(i2c, "rtc@68");
    assert_eq!(reader::cells(rtc, "interrupt-parent"), [handle(gpio)]);
    assert_eq!(reader::cells(rtc, "interrupts"), [4, 8]);
    assert_eq!(reader::cells(rtc, "reset-gpios"), [handle(gpio), 5, 1]);
    assert_eq!(reader::cells(rtc, "vcc-supply"), [handle(copy(&given, "sd_vcc"))]);
    assert_eq!(reader::cells(i2c, "pinctrl-0"), [handle(child(gpio, "i2c1_gpio2"))]);
    assert_eq!(reader::strings(i2c, "pinctrl-names"), ["default"]);
}

#[test]
fn a_list_of_references_is_kept_as_a_whole_or_not_at_all() {
    let alone = given(&[SPI], &[1000]);
    let spi = copy(&alone, "spi@fe204000");
    for name in ["dmas", "dma-names", "power-domains", "power-domain-names", "cs-gpios"] {
        assert!(!has(spi, name), "{name}");
    }
    let all = given(&[SPI, DMA, GPIO, POWER], &[1000]);
    let spi = copy(&all, "spi@fe204000");
    let dma = child(root_node(&all, "board-1"), "dma@fe007000");
    assert_eq!(reader::cells(spi, "dmas"), [handle(dma), 6, handle(dma), 7]);
    assert_eq!(reader::strings(spi, "dma-names"), ["tx", "rx"]);
    // The first chip select has no pin, and that is no reference.
    assert_eq!(reader::cells(spi, "cs-gpios"), [0, handle(copy(&all, "gpio@fe200000")), 7, 1]);
    let power = child(root_node(&all, "board-1"), "power@fe00b000");
    assert_eq!(reader::cells(spi, "power-domains"), [handle(power), 3]);
    assert_eq!(reader::strings(spi, "power-domain-names"), ["core"]);

    let mut tree = pi();
    set(&mut tree, SPI, "dmas", cells(&[phandle::DMA, 6, phandle::AUX, phandle::AUX]));
    let mixed = given_of(&tree, &[SPI, DMA], &[1000]);
    let spi = copy(&mixed, "spi@fe204000");
    assert!(!has(spi, "dmas") && !has(spi, "dma-names"));
}

#[test]
fn an_old_phandle_becomes_a_new_one() {
    let mut tree = pi();
    unset(&mut tree, AUX, "phandle");
    set(&mut tree, AUX, "linux,phandle", cells(&[phandle::AUX]));
    let given = given_of(&tree, &["serial1", AUX], &[1000]);
    let aux = copy(&given, "aux@fe215000");
    assert_eq!(reader::cells(copy(&given, "serial@fe215040"), "clocks"), [handle(aux), 0]);
}

#[test]
fn clocks_that_the_boards_tree_knows_need_no_rate() {
    let mut tree = pi();
    set(&mut tree, RNG, "clocks", cells(&[phandle::CRYSTAL, phandle::HALF, phandle::CRYSTAL, 0]));
    set(&mut tree, RNG, "clock-names", strings(&["a", "b", "c", "none"]));
    set(&mut tree, RNG, "assigned-clocks", cells(&[phandle::CRYSTAL]));
    set(&mut tree, RNG, "assigned-clock-rates", cells(&[1]));
    let given = given_of(&tree, &[RNG], &[]);
    let rng = copy(&given, "rng@fe104000");
    let [crystal, half] = ["clock-54000000", "clock-27000000"].map(|name| handle(root_node(&given, name)));
    assert_eq!(reader::cells(rng, "clocks"), [crystal, half, crystal, 0]);
    assert_eq!(reader::strings(rng, "clock-names"), ["a", "b", "c", "none"]);
    assert!(!has(rng, "assigned-clocks") && !has(rng, "assigned-clock-rates"));
    assert_eq!(given.nodes.len(), 3);
}

#[test]
fn fixed_factors_of_all_kinds() {
    let rate = |mult: u32, div: u32| {
        let mut tree = pi();
        set(&mut tree, "/clk-half", "clock-mult", cells(&[mult]));
        set(&mut tree, "/clk-half", "clock-div", cells(&[div]));
        set(&mut tree, RNG, "clocks", cells(&[phandle::HALF]));
        let given = give_pi(&tree, &vm("a", &[RNG]));
        given.map(|given| reader::cells(&given.nodes[1], "clock-frequency")[0])
    };
    assert_eq!(rate(2, 3), Ok(36_000_000));
    assert_eq!(rate(79, 1), Ok(4_266_000_000));
    // A rate that no cell can have, one that is none, and a clock that is made of itself are as good as none.
    for (mult, div) in [(80, 1), (1, 0)] {
        assert!(rate(mult, div).unwrap_err().contains("clock 0 of /soc/rng@7e104000"));
    }
    let mut tree = pi();
    set(&mut tree, "/clk-half", "clocks", cells(&[phandle::HALF]));
    set(&mut tree, RNG, "clocks", cells(&[phandle::HALF]));
    assert!(give_pi(&tree, &vm("a", &[RNG])).unwrap_err().starts_with("clock-rates: 0 rates"));
}

#[test]
fn a_clock_whose_provider_is_the_vms_is_no_fixed_one() {
    // A fixed one too.
    let mut tree = pi();
    set(&mut tree, RNG, "clocks", cells(&[phandle::CRYSTAL, phandle::HALF]));
    let given = given_of(&tree, &[RNG, "/clk-osc", "/clk-half"], &[]);
    let [crystal, half] = ["clk-osc", "clk-half"].map(|name| copy(&given, name));
    assert_eq!(reader::cells(copy(&given, "rng@fe104000"), "clocks"), [handle(crystal), handle(half)]);
    assert_eq!(reader::cells(half, "clocks"), [handle(crystal)]);
    assert_eq!(given.nodes.len(), 1);
    // And the board's manager of clocks needs none but its crystal.
    let given = give(&pi(), PI_GICD, &pi_own(), &trusted("a", &[CPRMAN, I2C])).unwrap();
    assert_eq!(
        given.nodes.iter().map(|node| node.name().to_owned()).collect::<Vec<_>>(),
        ["board", "board-1", "clock-54000000"]
    );
    let cprman = copy(&given, "cprman@fe101000");
    let i2c = child(root_node(&given, "board-1"), "i2c@fe804000");
    assert_eq!(reader::cells(i2c, "clocks"), [handle(cprman), 20]);
}

#[test]
fn rates_are_for_the_devices_in_the_order_of_the_tree() {
    // Named in another order; the I2C controller's clock is the second one of the UARTs, and of the AUX block.
    let devices = [I2C, AUX, "serial1", "/soc/serial@7e201600", "/soc/serial@7e201400", "serial0"];
    let config = with_rates(trusted("a", &devices), &[48_000_000, 500_000_000]);
    let given = give(&pi(), PI_GICD, &[], &config).unwrap();
    let [slow, fast] = ["clock-48000000", "clock-500000000"].map(|name| handle(root_node(&given, name)));
    for uart in ["serial@fe201000", "serial@fe201400", "serial@fe201600"] {
        assert_eq!(reader::cells(copy(&given, uart), "clocks"), [slow, fast]);
        assert_eq!(reader::strings(copy(&given, uart), "clock-names"), ["uartclk", "apb_pclk"]);
    }
    assert_eq!(reader::cells(copy(&given, "i2c@fe804000"), "clocks"), [fast]);
    assert_eq!(reader::cells(copy(&given, "aux@fe215000"), "clocks"), [fast]);
    // Two clocks may have one rate.
    let config = with_rates(trusted("a", &devices), &[1000, 1000]);
    let given = give(&pi(), PI_GICD, &[], &config).unwrap();
    let clock = handle(root_node(&given, "clock-1000"));
    assert_eq!(reader::cells(copy(&given, "serial@fe201000"), "clocks"), [clock, clock]);
}

#[test]
fn a_clock_of_which_the_tree_has_no_provider_goes_with_its_name() {
    let mut tree = pi();
    set(&mut tree, RNG, "clocks", cells(&[phandle::CRYSTAL, 0x7777]));
    set(&mut tree, RNG, "clock-names", strings(&["a", "b"]));
    let given = given_of(&tree, &[RNG], &[]);
    let rng = copy(&given, "rng@fe104000");
    assert!(!has(rng, "clocks") && !has(rng, "clock-names"));
}

#[test]
fn lines_may_be_levels_or_edges() {
    let lines = cells(&[0, 1, 1, 0, 2, 2, 0, 3, 4, 0, 4, 8, 0, 987, 0xf04]);
    let tree = virt([quiet("a@a000000", 0xa00_0000, 4, &[("interrupts", lines)])]);
    let given = give_virt(&tree, &vm("a", &["/a@a000000"])).unwrap();
    let lines: Vec<_> = given.lines.iter().map(|line| (line.physical.intid, line.physical.edge)).collect();
    assert_eq!(lines, [(33, true), (34, true), (35, false), (36, false), (1019, false)]);
    let edges = reader::cells(copy(&given, "a@c000000"), "interrupts");
    assert_eq!(edges, [0, 112, 1, 0, 113, 1, 0, 114, 4, 0, 115, 4, 0, 116, 4]);
}

#[test]
fn a_line_beyond_the_last_is_none_that_can_be_given() {
    let tree = virt([quiet("a@a000000", 0xa00_0000, 4, &[spis(&[988])])]);
    let error = give_virt(&tree, &vm("a", &["/a@a000000"])).unwrap_err();
    assert_eq!(error, PassthroughError::PrivateLine { node: "/a@a000000".into() }.to_string());
}

#[test]
fn interrupts_of_four_cells() {
    let mut tree =
        virt([quiet("a@a000000", 0xa00_0000, 4, &[("interrupts", cells(&[0, 5, 4, 0, 0, 6, 1, 0]))])]);
    set(&mut tree, "/intc@8000000", "#interrupt-cells", cells(&[4]));
    let given = give_virt(&tree, &vm("a", &["/a@a000000"])).unwrap();
    let lines: Vec<_> = given.lines.iter().map(|line| (line.physical.intid, line.physical.edge)).collect();
    assert_eq!(lines, [(37, false), (38, true)]);
    // The VM's own controller has three.
    assert_eq!(reader::cells(copy(&given, "a@c000000"), "interrupts"), [0, 112, 4, 0, 113, 1]);
}

#[test]
fn the_controller_may_be_named_in_any_way() {
    let inner = [("interrupts", cells(&[0, 5, 4])), ("interrupt-parent", cells(&[0x8001]))];
    let outer = [("interrupts-extended", cells(&[0x8001, 0, 6, 1])), ("interrupts", cells(&[0, 9, 4]))];
    let mut tree =
        virt([quiet("a@a000000", 0xa00_0000, 4, &inner), quiet("b@a001000", 0xa00_1000, 4, &outer)]);
    tree.root.remove_property("interrupt-parent");
    let given = give_virt(&tree, &vm("a", &["/a@a000000", "/b@a001000"])).unwrap();
    let lines: Vec<_> = given.lines.iter().map(|line| (line.physical.intid, line.physical.edge)).collect();
    // Where both forms are there, the extended one holds (Devicetree Specification, 2.4.1.4).
    assert_eq!(lines, [(37, false), (38, true)]);
    let [a, b] = ["a@c000000", "b@c001000"].map(|name| copy(&given, name));
    assert_eq!(reader::cells(a, "interrupts"), [0, 112, 4]);
    assert_eq!((reader::cells(b, "interrupts-extended"), has(b, "interrupts")), (vec![1, 0, 113, 1], false));
}

#[test]
fn interrupts_to_several_controllers() {
    let mut tree = pi();
    let both = cells(&[phandle::GPIO, 7, 2, phandle::GIC, 0, 125, 4, phandle::GPIO, 8, 2]);
    set(&mut tree, RNG, "interrupts-extended", both);
    set(&mut tree, RNG, "interrupt-names", strings(&["one", "two", "three"]));
    // Only the line of the board's controller is left without the others'.
    let given = given_of(&tree, &[RNG], &[]);
    let rng = copy(&given, "rng@fe104000");
    assert_eq!(given.lines.iter().map(|line| line.physical.intid).collect::<Vec<_>>(), [32 + 125]);
    assert_eq!(reader::cells(rng, "interrupts-extended"), [1, 0, 125, 4]);
    assert_eq!(reader::strings(rng, "interrupt-names"), ["two"]);
    let given = given_of(&tree, &[RNG, GPIO], &[]);
    let (rng, gpio) = (copy(&given, "rng@fe104000"), handle(copy(&given, "gpio@fe200000")));
    assert_eq!(reader::cells(rng, "interrupts-extended"), [gpio, 7, 2, 1, 0, 125, 4, gpio, 8, 2]);
    assert_eq!(reader::strings(rng, "interrupt-names"), ["one", "two", "three"]);
}

#[test]
fn interrupts_to_a_controller_that_somebody_else_has() {
    let mut tree = pi();
    set(&mut tree, RNG, "interrupt-parent", cells(&[phandle::GPIO]));
    // As long as one of the board's controller: that must not be mistaken for it.
    set(&mut tree, RNG, "interrupts", cells(&[0, 40, 4, 1, 2, 3]));
    set(&mut tree, RNG, "interrupt-names", strings(&["a", "b", "c"]));
    let given = given_of(&tree, &[RNG], &[]);
    let rng = copy(&given, "rng@fe104000");
    assert!(given.lines.is_empty());
    assert!(["interrupts", "interrupt-parent", "interrupt-names"].iter().all(|name| !has(rng, name)));
    let given = given_of(&tree, &[RNG, GPIO], &[]);
    let rng = copy(&given, "rng@fe104000");
    assert_eq!(reader::cells(rng, "interrupts"), [0, 40, 4, 1, 2, 3]);
    assert_eq!(reader::cells(rng, "interrupt-parent"), [handle(copy(&given, "gpio@fe200000"))]);
}

#[test]
fn a_controllers_children_are_its_own() {
    // Without `interrupt-parent`, an interrupt is that of the nearest controller above.
    let pmic = [
        ("compatible", strings(&["arm,pl061"])),
        ("reg", cells(&[0, 0xa00_0000, 0, 4])),
        ("interrupt-controller", vec![]),
        ("#interrupt-cells", cells(&[3])),
        ("phandle", cells(&[0x8002])),
        spis(&[20]),
    ];
    let inner = |name: &str, more: &[crate::board::Property<'_>]| {
        node(name, &[&[("interrupts", cells(&[0, 30, 4]))], more].concat(), [])
    };
    let to_gic = inner("to-gic", &[("interrupt-parent", cells(&[0x8001]))]);
    let tree = virt([node("pmic@a000000", &pmic, [inner("key", &[]), to_gic])]);
    let given = give_virt(&tree, &vm("a", &["/pmic@a000000"])).unwrap();
    assert_eq!(given.lines.iter().map(|line| line.physical.intid).collect::<Vec<_>>(), [52, 62]);
    let pmic = copy(&given, "pmic@c000000");
    assert_eq!(reader::cells(child(pmic, "key"), "interrupts"), [0, 30, 4]);
    let to_gic = child(pmic, "to-gic");
    assert_eq!(
        (reader::cells(to_gic, "interrupts"), reader::cells(to_gic, "interrupt-parent")),
        (vec![0, 113, 4], vec![1])
    );
}

#[test]
fn a_controller_that_a_bus_names_is_named_by_the_copy() {
    let mut tree = pi();
    let bus = [("#address-cells", cells(&[1])), ("#size-cells", cells(&[1])), ("ranges", vec![])];
    let below = [("interrupts", cells(&[3, 2]))];
    let outside = [&bus[..], &[("interrupt-parent", cells(&[phandle::GPIO]))]].concat();
    add(
        &mut tree,
        "/soc",
        node("outside", &outside, [device("d@7e300000", "arm,pl061", &[0x7e30_0000, 4], &below)]),
    );
    let given = given_of(&tree, &["/soc/outside/d@7e300000", GPIO], &[]);
    let device = copy(&given, "d@fe300000");
    assert_eq!(reader::cells(device, "interrupt-parent"), [handle(copy(&given, "gpio@fe200000"))]);
    assert_eq!(reader::cells(device, "interrupts"), [3, 2]);
}

#[test]
fn devices_of_one_name_are_on_buses_of_their_own() {
    let supply = |kind: &str| node(kind, &[], [node("supply", &[("compatible", strings(&[kind]))], [])]);
    let tree = virt([supply("one"), supply("two")]);
    let given = give_virt(&tree, &vm("a", &["/one/supply", "/two/supply"])).unwrap();
    let kinds = ["board", "board-1"]
        .map(|bus| reader::strings(child(root_node(&given, bus), "supply"), "compatible"));
    assert_eq!(kinds, [["one"], ["two"]]);
}

#[test]
fn a_vm_that_names_nothing_is_given_nothing() {
    let given = give_pi(&pi(), &trusted("a", &[])).unwrap();
    assert!(
        given.nodes.is_empty()
            && given.registers.is_empty()
            && given.lines.is_empty()
            && given.reach.is_none()
    );
}

/// References, what says in the node that they lead to how many cells they have, and the names that belong to them.
const KINDS: &[(&str, Option<&str>, Option<&str>)] = &[
    ("dmas", Some("#dma-cells"), Some("dma-names")),
    ("hwlocks", Some("#hwlock-cells"), None),
    ("interconnects", Some("#interconnect-cells"), Some("interconnect-names")),
    ("io-channels", Some("#io-channel-cells"), Some("io-channel-names")),
    ("iommus", Some("#iommu-cells"), None),
    ("mboxes", Some("#mbox-cells"), Some("mbox-names")),
    ("phys", Some("#phy-cells"), Some("phy-names")),
    ("power-domains", Some("#power-domain-cells"), Some("power-domain-names")),
    ("pwms", Some("#pwm-cells"), Some("pwm-names")),
    ("resets", Some("#reset-cells"), Some("reset-names")),
    ("sound-dai", Some("#sound-dai-cells"), None),
    ("thermal-sensors", Some("#thermal-sensor-cells"), None),
    ("msi-parent", Some("#msi-cells"), None),
    ("gpios", Some("#gpio-cells"), None),
    ("enable-gpio", Some("#gpio-cells"), None),
    ("reset-gpios", Some("#gpio-cells"), None),
    ("memory-region", None, Some("memory-region-names")),
    ("nvmem-cells", None, Some("nvmem-cell-names")),
    ("phy-handle", None, None),
    ("mmc-pwrseq", None, None),
    ("operating-points-v2", None, None),
    ("interrupt-affinity", None, None),
    ("remote-endpoint", None, None),
    ("usb-phy", None, None),
    ("vdd-io-supply", None, None),
    ("pinctrl-0", None, Some("pinctrl-names")),
    ("pinctrl-17", None, None),
];

#[test]
fn every_kind_of_reference_is_known_with_its_names() {
    for &(name, count, names) in KINDS {
        let mut tree = pi();
        // One of two cells behind it, one of none, and the first one again.
        let behind: &[u32] = if count.is_some() { &[phandle::AUX, phandle::GPIO] } else { &[] };
        let mine = [&[phandle::AUX], behind, &[phandle::DMA, phandle::AUX], behind].concat();
        set(&mut tree, RNG, name, cells(&mine));
        if let Some(names) = names {
            set(&mut tree, RNG, names, strings(&["one", "two", "three"]));
        }
        if let Some(count) = count {
            set(&mut tree, AUX, count, cells(&[2]));
            set(&mut tree, DMA, count, cells(&[0]));
        }
        let alone = given_of(&tree, &[RNG, AUX, "serial1"], &[1000]);
        let rng = copy(&alone, "rng@fe104000");
        assert!(!has(rng, name) && !names.is_some_and(|names| has(rng, names)), "{name}");
        let all = given_of(&tree, &[RNG, AUX, DMA, "serial1"], &[1000]);
        let aux = handle(copy(&all, "aux@fe215000"));
        let dma = handle(child(root_node(&all, "board-1"), "dma@fe007000"));
        let rng = copy(&all, "rng@fe104000");
        let expected = [&[aux], behind, &[dma, aux], behind].concat();
        assert_eq!(reader::cells(rng, name), expected, "{name}");
        if let Some(names) = names {
            assert_eq!(reader::strings(rng, names), ["one", "two", "three"], "{name}");
        }
    }
}
