//! What no VM is given, and the message that says why.

use config::manifest::LayoutKind;
use config::passthrough::PassthroughError;
use vmm::layout::{DeviceRoom, Ipa, Region};

use crate::board::{
    PI_GICD, add, cells, device, disabled, find, give, give_of, give_pi, give_virt, loud, node, phandle, pi,
    pi_own, quiet, refusal, set, spis, strings, trusted, unset, virt, vm, with_rates,
};

/// What a VM that may do anything hears of the Pi.
fn say(devices: &[&str]) -> String {
    refusal(give_pi(&pi(), &trusted("a", devices)))
}

#[test]
fn a_board_without_a_readable_tree() {
    let text = "passthrough: the board's device tree is too large to find devices in, or damaged";
    assert_eq!(PassthroughError::NoTree.to_string(), text);
    assert!(find(b"no blob at all", PI_GICD).is_none());
}

#[test]
fn names_that_name_nothing() {
    for name in [
        "serial7",
        "/soc/serial@7e215041",
        "/soc/serial",
        "/serial@7e215040",
        "/soc/serial@7e215040/",
        "//soc/serial@7e215040",
        "soc/serial@7e215040",
        "/",
        "lost",
        "around",
    ] {
        let text = format!("passthrough: the board's device tree has no node or alias {name:?}");
        assert_eq!(say(&[name]), text);
    }
}

#[test]
fn a_node_that_is_named_twice() {
    let text = "passthrough: /soc/serial@7e215040 is named twice";
    assert_eq!(say(&["serial1", "/soc/aux@7e215000", "/soc/serial@7e215040"]), text);
    assert_eq!(say(&["serial1", "serial1"]), text);
}

#[test]
fn a_node_inside_of_another_one_that_is_named() {
    let text = "passthrough: /soc/gpio@7e200000/hog is inside of another node that is named: the outer one is enough";
    let mut tree = pi();
    set(&mut tree, "/soc/gpio@7e200000/hog", "compatible", strings(&["a"]));
    for devices in
        [["/soc/gpio@7e200000", "/soc/gpio@7e200000/hog"], ["/soc/gpio@7e200000/hog", "/soc/gpio@7e200000"]]
    {
        assert_eq!(refusal(give_pi(&tree, &trusted("a", &devices))), text);
    }
}

#[test]
fn what_another_vm_has() {
    let blob = pi().to_dtb();
    let mut devices = find(&blob, PI_GICD).unwrap();
    give_of(&mut devices, &pi_own(), &vm("first", &["/soc/rng@7e104000"])).unwrap();
    let again = refusal(give_of(&mut devices, &pi_own(), &trusted("second", &["/soc/rng@7e104000"])));
    assert_eq!(again, "passthrough: /soc/rng@7e104000 belongs to first");
}

#[test]
fn buses() {
    for bus in ["/soc", "/emmc2bus", "/scb/pcie@7d500000"] {
        assert_eq!(say(&[bus]), format!("passthrough: {bus} is a bus: name the devices behind it"));
    }
    // What is behind a device has an address there, and may be a bus.
    let mut tree = pi();
    let bus = node("bus", &[("ranges", vec![]), ("#address-cells", cells(&[1]))], []);
    add(&mut tree, "/soc/rng@7e104000", bus);
    give_pi(&tree, &trusted("a", &["/soc/rng@7e104000"])).unwrap();
}

#[test]
fn what_has_no_registers_in_memory() {
    let says = |node: &str| {
        format!("passthrough: {node} has no registers in physical memory, or in a form that can't be read")
    };
    for node in ["/soc/i2c@7e804000/rtc@68", "/cpus/cpu@1"] {
        assert_eq!(say(&[node]), says(node));
    }
    let mut tree = pi();
    for (name, reg) in [
        ("outside@1000", vec![0x1000, 0x100]),
        // Past the end of the bus's window.
        ("across@7f7ff000", vec![0x7f7f_f000, 0x2000]),
        ("one-of-two@7e300000", vec![0x7e30_0000, 0x10, 0x9000_0000, 0x10]),
        ("half@7e300000", vec![0x7e30_0000, 0x10, 0x7e31_0000]),
        ("none@7e300000", vec![]),
        ("of-no-size@7e300000", vec![0x7e30_0000, 0]),
    ] {
        add(&mut tree, "/soc", device(name, "arm,pl031", &reg, &[]));
        let path = format!("/soc/{name}");
        assert_eq!(refusal(give_pi(&tree, &trusted("a", &[&path]))), says(&path));
    }
    // A bus that passes nothing on, one whose windows are those of PCI, and one whose only window is cut off.
    let bus = |name: &str, ranges: Option<&[u32]>| {
        let mut bus = vec![("#address-cells", cells(&[1])), ("#size-cells", cells(&[1]))];
        bus.extend(ranges.map(|ranges| ("ranges", cells(ranges))));
        node(name, &bus, [device("d@0", "arm,pl031", &[0, 0x100], &[])])
    };
    for (name, ranges) in [("opaque", None), ("cut-off", Some(&[0, 0, 0xfe00_0000][..]))] {
        add(&mut tree, "/", bus(name, ranges));
        let path = format!("/{name}/d@0");
        assert_eq!(refusal(give_pi(&tree, &trusted("a", &[&path]))), says(&path));
    }
    let wide = device("wide@0", "arm,pl031", &[0, 0, 0, 0, 0x100], &[]);
    add(&mut tree, "/scb/pcie@7d500000", wide);
    let path = "/scb/pcie@7d500000/wide@0";
    assert_eq!(refusal(give_pi(&tree, &trusted("a", &[path]))), says(path));
}

#[test]
fn what_is_no_device() {
    for node in ["/cpus", "/chosen", "/aliases", "/reserved-memory", "/soc/gpio@7e200000/hog"] {
        assert_eq!(say(&[node]), format!("passthrough: {node} has no `compatible`: it is no device"));
    }
}

#[test]
fn lines_of_each_cpu() {
    assert_eq!(
        say(&["/timer"]),
        "passthrough: /timer has a line to each CPU (a PPI), which can't be handed out"
    );
    // One of several is enough, in whichever form.
    let mut tree = pi();
    let mixed = cells(&[phandle::GIC, 0, 40, 4, phandle::GIC, 1, 7, 4]);
    add(
        &mut tree,
        "/soc",
        device("mixed@7e300000", "arm,pl031", &[0x7e30_0000, 4], &[("interrupts-extended", mixed)]),
    );
    let text = "passthrough: /soc/mixed@7e300000 has a line to each CPU (a PPI), which can't be handed out";
    assert_eq!(refusal(give_pi(&tree, &vm("a", &["/soc/mixed@7e300000"]))), text);
}

#[test]
fn what_is_hanoks_own() {
    let own = |node: &str, what: &str| {
        format!("passthrough: {node} is Hanok's own, or shares a page or a line with it: {what}")
    };
    assert_eq!(say(&["serial0"]), own("/soc/serial@7e201000", "the console"));
    // A page, by another device, and a line from another page.
    assert_eq!(say(&["/soc/serial@7e201600"]), own("/soc/serial@7e201600", "the console"));
    let mut tree = pi();
    add(&mut tree, "/soc", device("uart@7e300000", "arm,pl011", &[0x7e30_0000, 4], &[spis(&[121])]));
    let text = refusal(give_pi(&tree, &vm("a", &["/soc/uart@7e300000"])));
    assert_eq!(text, own("/soc/uart@7e300000", "the console"));
    for (name, address) in [("d@40041800", 0x4004_1800), ("v@40047000", 0x4004_7000)] {
        add(&mut tree, "/soc", device(name, "arm,pl011", &[address, 4], &[]));
        let path = format!("/soc/{name}");
        let text = refusal(give_pi(&tree, &vm("a", &[&path])));
        assert_eq!(text, own(&path, "the interrupt controller"));
    }
    let power = "the board's power manager";
    assert_eq!(say(&["/soc/watchdog@7e100000"]), own("/soc/watchdog@7e100000", power));
    add(&mut tree, "/soc", device("d@7e100800", "arm,pl011", &[0x7e10_0800, 4], &[]));
    let text = refusal(give_pi(&tree, &vm("a", &["/soc/d@7e100800"])));
    assert_eq!(text, own("/soc/d@7e100800", power));
}

#[test]
fn memory() {
    let mut tree = virt([quiet("inside@40001010", 0x4000_1010, 0x10, &[])]);
    let text = refusal(give_virt(&tree, &vm("a", &["/inside@40001010"])));
    assert_eq!(text, "passthrough: /inside@40001010 lies in RAM, at 0x40001010");
    // Also if only the rest of its page does.
    add(&mut tree, "/", quiet("edge@3ffff000", 0x3fff_f000, 0x1001, &[]));
    let text = refusal(give_virt(&tree, &vm("a", &["/edge@3ffff000"])));
    assert_eq!(text, "passthrough: /edge@3ffff000 lies in RAM, at 0x3ffff000");
    // And if RAM ends within the page.
    set(&mut tree, "/memory@40000000", "reg", cells(&[0, 0x4000_0000, 0, 0x1800]));
    add(&mut tree, "/", quiet("behind@40001900", 0x4000_1900, 4, &[]));
    let text = refusal(give_virt(&tree, &vm("a", &["/behind@40001900"])));
    assert_eq!(text, "passthrough: /behind@40001900 lies in RAM, at 0x40001900");
    for node in ["/memory@0", "/reserved-memory/linux,cma", "/reserved-memory/nvram@3f000000"] {
        assert_eq!(say(&[node]), format!("passthrough: {node} is RAM, and no device"));
    }
    // Firmware's memory that no bank has isn't a device by that.
    let blob = pi().to_dtb();
    let devices = find(&blob, PI_GICD).unwrap();
    assert!(devices.pages().iter().all(|span| span.start > 0x4000_0000));
}

#[test]
fn pins() {
    let mut only_dma = trusted("a", &["/soc/gpio@7e200000"]);
    only_dma.devices.pin_control = false;
    let text = "passthrough: /soc/gpio@7e200000 controls pins, and could take any of them from another device, from \
                Hanok's console too: it needs `allow-pin-control`";
    assert_eq!(refusal(give_pi(&pi(), &only_dma)), text);
    let mut only_pins = vm("a", &["/soc/gpio@7e200000"]);
    only_pins.devices.pin_control = true;
    give_pi(&pi(), &only_pins).unwrap();
}

#[test]
fn dma() {
    let node = "/emmc2bus/mmc@7e340000";
    let mut config = with_rates(trusted("a", &[node]), &[200_000_000]);
    give_pi(&pi(), &config).unwrap();
    config.devices.unprotected_dma = false;
    let text = "passthrough: /emmc2bus/mmc@7e340000 isn't known to do no DMA, and the board has no IOMMU: with it, the VM \
                can reach all memory. It needs `allow-unprotected-dma`";
    assert_eq!(refusal(give_pi(&pi(), &config)), text);
    config.layout = LayoutKind::Virt;
    let text = "passthrough: /emmc2bus/mmc@7e340000 isn't known to do no DMA, and the board has no IOMMU: it needs \
                `layout = \"board\"`, where the VM's memory has its physical addresses, and `allow-unprotected-dma`";
    assert_eq!(refusal(give_pi(&pi(), &config)), text);
    config.devices.unprotected_dma = true;
    assert_eq!(refusal(give_pi(&pi(), &config)), text);
}

#[test]
fn a_device_that_isnt_known_may_do_dma_whatever_it_is_called() {
    let unknown = [
        node("a@a000000", &[("reg", cells(&[0, 0xa00_0000, 0, 4]))], []),
        device("b@a001000", "arm,pl0110", &[0, 0xa00_1000, 0, 4], &[]),
        device("c@a002000", "xarm,pl011", &[0, 0xa00_2000, 0, 4], &[]),
    ];
    let tree = virt(unknown);
    for path in ["/a@a000000", "/b@a001000", "/c@a002000"] {
        let text = refusal(give_virt(&tree, &vm("a", &[path])));
        assert!(text.starts_with(&format!("passthrough: {path} isn't known to do no DMA")), "{text}");
    }
}

#[test]
fn half_of_a_page() {
    let text = "passthrough: /soc/serial@7e215040 shares the page 0xfe215000 with /soc/aux@7e215000: they can only go \
                together";
    assert_eq!(say(&["serial1"]), text);
    // From either side, and whether or not the other one is a device of its own.
    let text = "passthrough: /soc/aux@7e215000 shares the page 0xfe215000 with /soc/serial@7e215040: they can only go \
                together";
    assert_eq!(say(&["/soc/aux@7e215000"]), text);
}

#[test]
fn half_of_a_page_of_another_vms() {
    let tree = virt([
        quiet("a@a000000", 0xa00_0000, 0x100, &[]),
        quiet("b@a000100", 0xa00_0100, 0x100, &[disabled()]),
        quiet("c@a000200", 0xa00_0200, 0x100, &[disabled()]),
    ]);
    let blob = tree.to_dtb();
    let mut devices = find(&blob, 0x800_0000).unwrap();
    give_of(&mut devices, &[], &vm("first", &["/a@a000000", "/b@a000100"])).unwrap();
    let text = refusal(give_of(&mut devices, &[], &vm("second", &["/c@a000200"])));
    assert_eq!(text, "passthrough: /c@a000200 belongs to first");
    // A device that nobody asked for goes along only where it shares something itself.
    let tree = virt([
        quiet("a@a000000", 0xa00_0000, 0x100, &[disabled()]),
        quiet("b@a000100", 0xa00_0100, 0x1000, &[disabled()]),
        quiet("c@a001200", 0xa00_1200, 0x100, &[]),
    ]);
    let blob = tree.to_dtb();
    let mut devices = find(&blob, 0x800_0000).unwrap();
    give_of(&mut devices, &[], &vm("first", &["/a@a000000"])).unwrap();
    let text = refusal(give_of(&mut devices, &[], &vm("second", &["/c@a001200"])));
    let expected = "passthrough: /c@a001200 shares the page 0xa001000 with /b@a000100 of first: they can only go together";
    assert_eq!(text, expected);
}

#[test]
fn one_of_two_on_a_line() {
    let pair = [
        quiet("a@a000000", 0xa00_0000, 4, &[spis(&[9, 7])]),
        quiet("b@a001000", 0xa00_1000, 4, &[spis(&[7])]),
    ];
    let mut tree = virt(pair);
    let text = "passthrough: /a@a000000 shares interrupt 39 with /b@a001000: they can only go together";
    assert_eq!(refusal(give_virt(&tree, &vm("a", &["/a@a000000"]))), text);
    give_virt(&tree, &vm("a", &["/a@a000000", "/b@a001000"])).unwrap();
    set(&mut tree, "/b@a001000", "status", strings(&["disabled"]));
    add(&mut tree, "/", quiet("c@a001800", 0xa00_1800, 4, &[]));
    let blob = tree.to_dtb();
    let mut devices = find(&blob, 0x800_0000).unwrap();
    give_of(&mut devices, &[], &vm("first", &["/a@a000000"])).unwrap();
    let text = refusal(give_of(&mut devices, &[], &vm("second", &["/c@a001800"])));
    let expected = "passthrough: /c@a001800 shares the page 0xa001000 with /b@a001000 of first: they can only go together";
    assert_eq!(text, expected);
    let other = quiet("d@a002000", 0xa00_2000, 4, &[spis(&[9])]);
    add(&mut tree, "/", other);
    unset(&mut tree, "/b@a001000", "status");
    let text = "passthrough: /d@a002000 shares interrupt 41 with /a@a000000: they can only go together";
    assert_eq!(refusal(give_virt(&tree, &vm("a", &["/d@a002000"]))), text);
    set(&mut tree, "/a@a000000", "status", strings(&["disabled"]));
    set(&mut tree, "/d@a002000", "status", strings(&["disabled"]));
    let blob = tree.to_dtb();
    let mut devices = find(&blob, 0x800_0000).unwrap();
    give_of(&mut devices, &[], &vm("first", &["/a@a000000", "/b@a001000", "/c@a001800"])).unwrap();
    let text = refusal(give_of(&mut devices, &[], &vm("second", &["/d@a002000"])));
    assert_eq!(text, "passthrough: /d@a002000 belongs to first");
}

#[test]
fn a_line_of_another_vms() {
    // The second VM's device and the one that went along with the first VM's share a line that the first VM doesn't have.
    let tree = virt([
        quiet("a@a000000", 0xa00_0000, 4, &[]),
        quiet("along@a000800", 0xa00_0800, 4, &[spis(&[5]), disabled()]),
        quiet("b@a001000", 0xa00_1000, 4, &[spis(&[5])]),
    ]);
    let blob = tree.to_dtb();
    let mut devices = find(&blob, 0x800_0000).unwrap();
    give_of(&mut devices, &[], &vm("first", &["/a@a000000"])).unwrap();
    let text = refusal(give_of(&mut devices, &[], &vm("second", &["/b@a001000"])));
    let expected =
        "passthrough: /b@a001000 shares interrupt 37 with /along@a000800 of first: they can only go together";
    assert_eq!(text, expected);
}

#[test]
fn what_a_disabled_neighbour_could_do_is_asked_for_as_well() {
    let named = quiet("a@a000000", 0xa00_0000, 4, &[]);
    let tree = virt([named.clone(), loud("dma@a000800", 0xa00_0800, 4, &[disabled()])]);
    let text = refusal(give_virt(&tree, &vm("a", &["/a@a000000"])));
    assert!(text.starts_with("passthrough: /dma@a000800 isn't known to do no DMA"), "{text}");
    give_virt(&tree, &trusted("a", &["/a@a000000"])).unwrap();
    let tree =
        virt([named, quiet("pins@a000800", 0xa00_0800, 4, &[("gpio-controller", vec![]), disabled()])]);
    let text = refusal(give_virt(&tree, &vm("a", &["/a@a000000"])));
    assert!(text.starts_with("passthrough: /pins@a000800 controls pins"), "{text}");
}

#[test]
fn registers_beyond_the_address_space() {
    let far = device("far@1000000000000", "arm,pl031", &[0x1_0000, 0, 0, 4], &[]);
    let text = refusal(give_virt(&virt([far]), &vm("a", &["/far@1000000000000"])));
    assert_eq!(text, "passthrough: registers at 0x1000000000000 are beyond what stage 2 can map");
    let last = device("last@0", "arm,pl031", &[0xffff_ffff, 0xffff_f800, 0, 0x10], &[]);
    let text = refusal(give_virt(&virt([last]), &vm("a", &["/last@0"])));
    assert_eq!(text, "passthrough: registers at 0xfffffffffffff000 are beyond what stage 2 can map");
}

#[test]
fn more_registers_than_there_is_room() {
    let text = "passthrough: the devices' registers take more than the 32 MiB that the layout has for them";
    let tree =
        virt([quiet("a@10000000", 0x1000_0000, 0x200_0000, &[]), quiet("b@14000000", 0x1400_0000, 4, &[])]);
    give_virt(&tree, &vm("a", &["/a@10000000"])).unwrap();
    assert_eq!(refusal(give_virt(&tree, &vm("a", &["/a@10000000", "/b@14000000"]))), text);
    let tree = virt([quiet("a@10000000", 0x1000_0000, 0x200_0001, &[])]);
    assert_eq!(refusal(give_virt(&tree, &vm("a", &["/a@10000000"]))), text);
    // With the board's own addresses there is always room.
    give_virt(&tree, &trusted("a", &["/a@10000000"])).unwrap();
}

#[test]
fn more_lines_than_there_are_interrupts() {
    let lines: Vec<u32> = (200..264).collect();
    let tree = virt([
        quiet("a@a000000", 0xa00_0000, 4, &[spis(&lines)]),
        quiet("b@a001000", 0xa00_1000, 4, &[spis(&[264])]),
    ]);
    let given = give_virt(&tree, &vm("a", &["/a@a000000"])).unwrap();
    assert_eq!(given.lines.last().map(|line| (line.physical.intid, line.spi)), Some((32 + 263, 175)));
    let text = "passthrough: the devices have more interrupts than the 64 that the layout has for them";
    assert_eq!(refusal(give_virt(&tree, &vm("a", &["/a@a000000", "/b@a001000"]))), text);
    let room = DeviceRoom {
        one_to_one: true,
        registers: Region { base: Ipa::new(0), size: 0 },
        first_spi: 0,
        spis: 264,
    };
    let blob = tree.to_dtb();
    let mut devices = find(&blob, 0x800_0000).unwrap();
    devices.give(&trusted("a", &["/a@a000000"]), &room, &[]).unwrap();
    let error = devices.give(&trusted("b", &["/b@a001000"]), &room, &[]).unwrap_err();
    assert_eq!(error, PassthroughError::TooManyLines { room: 264 });
}

#[test]
fn rates_that_are_missing_or_too_many() {
    let say =
        |devices: &[&str], rates: &[u32]| refusal(give_pi(&pi(), &with_rates(trusted("a", devices), rates)));
    let text = "clock-rates: 0 rates are given, and 1 clock without a fixed rate in the board's tree: \
                clock 0 of /soc/i2c@7e804000";
    assert_eq!(say(&["/soc/i2c@7e804000"], &[]), text);
    let text = "clock-rates: 2 rates are given, and 1 clock without a fixed rate in the board's tree: \
                clock 0 of /soc/i2c@7e804000";
    assert_eq!(say(&["/soc/i2c@7e804000"], &[1, 2]), text);
    let text = "clock-rates: 1 rate is given, and 0 clocks without a fixed rate in the board's tree";
    assert_eq!(say(&["/soc/rng@7e104000"], &[1]), text);
    let config = with_rates(trusted("a", &["serial0", "/soc/serial@7e201400", "/soc/serial@7e201600"]), &[1]);
    let text = "clock-rates: 1 rate is given, and 2 clocks without a fixed rate in the board's tree: \
                uartclk of /soc/serial@7e201000, apb_pclk of /soc/serial@7e201000";
    assert_eq!(refusal(give(&pi(), PI_GICD, &[], &config)), text);
}

#[test]
fn devices_that_reach_no_memory_together() {
    let bus = |name: &str, windows: &[u32], device: &str| {
        let bus = [
            ("#address-cells", cells(&[1])),
            ("#size-cells", cells(&[1])),
            ("ranges", vec![]),
            ("dma-ranges", cells(windows)),
        ];
        let address = u32::from_str_radix(device.split_once('@').unwrap().1, 16).unwrap();
        node(name, &bus, [crate::board::device(device, "some,dma", &[address, 4], &[])])
    };
    let tree = virt([
        bus("low", &[0, 0, 0x4000_0000, 0x1000_0000], "a@a000000"),
        bus("high", &[0, 0, 0x5000_0000, 0x1000_0000], "b@b000000"),
    ]);
    let text = "passthrough: /high/b@b000000 reaches no memory by DMA, as its bus has it";
    let both = trusted("a", &["/low/a@a000000", "/high/b@b000000"]);
    assert_eq!(refusal(give_virt(&tree, &both)), text);
    // A bus within a bus that lets nothing of it through.
    let mut tree = virt([bus("low", &[0, 0, 0x4000_0000, 0x1000_0000], "a@a000000")]);
    add(&mut tree, "/low", {
        let inner = [
            ("#address-cells", cells(&[1])),
            ("#size-cells", cells(&[1])),
            ("ranges", vec![]),
            ("dma-ranges", cells(&[0, 0x1000_0000, 0x1000_0000])),
        ];
        node("inner", &inner, [device("c@c000000", "some,dma", &[0xc00_0000, 4], &[])])
    });
    let text = "passthrough: /low/inner/c@c000000 reaches no memory by DMA, as its bus has it";
    assert_eq!(refusal(give_virt(&tree, &trusted("a", &["/low/inner/c@c000000"]))), text);
}
