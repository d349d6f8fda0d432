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
    let Report { sound, wrong } = check(&bundle([binary("one"), two, weighted, some, reserved]), None);
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
    let Report { sound, wrong } = check(
        &bundle([
            with(binary("many"), "cpus", 9_u32),
            binary("fine"),
            with(vm("kernel"), "kernel", [0x1f_u8, 0x8b, 8, 0]),
            vm("nothing"),
        ]),
        None,
    );
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
    let Report { sound, wrong } = check(&bundle(nodes), None);
    assert_eq!(sound.len(), 3);
    assert_eq!(sound[2], "/link: channel between one and two, 64 KiB");
    assert_eq!(wrong, ["/lost: vms: there is no VM \"three\""]);
}

#[test]
fn what_is_no_bundle_is_said_to_be_none() {
    for bytes in
        [&b"\x7fELF, this is, and quite long enough for a header"[..], b"", &bundle([binary("one")])[..60]]
    {
        let Report { sound, wrong } = check(bytes, None);
        assert_eq!((sound.len(), wrong.len()), (0, 1), "{wrong:?}");
    }
}

fn cells(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn node(name: &str, properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let node = DeviceTreeNode::new(name).unwrap();
    properties.iter().fold(node, |node, (name, value)| with(node, name, &value[..]))
}

/// A device with a page of registers and an interrupt.
fn device(name: &str, compatible: &str, address: u32, spi: u32) -> DeviceTreeNode {
    let text = [compatible.as_bytes(), b"\0"].concat();
    let reg = cells(&[0, address, 0, 0x40]);
    node(name, &[("compatible", text), ("reg", reg), ("interrupts", cells(&[0, spi, 4]))])
}

/// A board with two UARTs, the first being the console, and a third one that is disabled and shares the second's page.
fn board() -> Vec<u8> {
    board_tree().to_dtb()
}

fn board_tree() -> DeviceTree {
    let mut tree = DeviceTree::new();
    for (name, value) in [("#address-cells", 2), ("#size-cells", 2), ("interrupt-parent", 1)] {
        tree.root = with(tree.root, name, value as u32);
    }
    let gic = device("intc@8000000", "arm,gic-v3", 0x800_0000, 0);
    let gic = with(gic, "reg", &cells(&[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x10_0000])[..]);
    let gic = with(with(gic, "phandle", 1_u32), "interrupt-controller", [0_u8; 0]);
    let gic = with(with(gic, "#interrupt-cells", 3_u32), "interrupts", &cells(&[1, 9, 4])[..]);
    let mut cpus = node("cpus", &[("#address-cells", cells(&[1])), ("#size-cells", cells(&[0]))]);
    cpus.add_child(node("cpu@0", &[("device_type", b"cpu\0".to_vec()), ("reg", cells(&[0]))]));
    let ppis = cells(&[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    let timer = node("timer", &[("compatible", b"arm,armv8-timer\0".to_vec()), ("interrupts", ppis)]);
    let bank = cells(&[0, 0x4000_0000, 0, 0x4000_0000]);
    let memory = node("memory@40000000", &[("device_type", b"memory\0".to_vec()), ("reg", bank)]);
    let aliases = [("serial0", "/pl011@9000000"), ("serial1", "/pl011@9040000")];
    let aliases = aliases.map(|(name, path)| (name, [path.as_bytes(), b"\0"].concat()));
    let mut bus =
        node("bus", &[("ranges", vec![]), ("#address-cells", cells(&[2])), ("#size-cells", cells(&[2]))]);
    bus = with(bus, "dma-ranges", &cells(&[0, 0, 0, 0x4000_0000, 0, 0x1000_0000])[..]);
    bus.add_child(device("disk@a000000", "some,disk", 0xa00_0000, 20));
    for node in [
        gic,
        cpus,
        timer,
        memory,
        node("aliases", &aliases),
        device("pl011@9000000", "arm,pl011", 0x900_0000, 1),
        device("pl011@9040000", "arm,pl011", 0x904_0000, 8),
        with(device("pl011@9040800", "arm,pl011", 0x904_0800, 8), "status", "disabled"),
        bus,
    ] {
        tree.root.add_child(node);
    }
    tree
}

#[test]
fn a_boards_file_may_have_no_memory_yet() {
    let mut tree = board_tree();
    tree.root.remove_child("memory@40000000").unwrap();
    let wants = bundle([with(binary("a"), "passthrough", "serial1")]);
    assert_eq!(check(&wants, Some(&tree.to_dtb())), check(&wants, Some(&board())));
}

#[test]
fn what_each_vm_gets_of_the_board_is_told_behind_it() {
    let driver = with(binary("rt"), "passthrough", "serial1");
    let disk = with(binary("disk"), "passthrough", "/bus/disk@a000000");
    let disk = with(with(disk, "layout", "board"), "allow-unprotected-dma", [0_u8; 0]);
    let placed = with(with(binary("placed"), "layout", "board"), "memory-address", 0x4000_0000_u32);
    let Report { sound, wrong } = check(&bundle([driver, disk, placed, binary("last")]), Some(&board()));
    assert_eq!(wrong, [""; 0]);
    assert_eq!(
        sound,
        [
            "/rt: 1 vCPU, 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
            "/rt: /pl011@9040000: 0x9040000 to 0x904003f at 0xc000000, SPI 8 as 112",
            "/rt: along with these, and not in its tree: /pl011@9040800",
            "/disk: 1 vCPU, 128 MiB, binary of 1 KiB, starts where the board has room for its RAM",
            "/disk: /bus/disk@a000000: 0xa000000 to 0xa00003f at 0xa000000, SPI 20 as 20",
            "/disk: its RAM will be from 0x40000000 to 0x4fffffff, for DMA",
            "/placed: 1 vCPU, 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
            "/last: 1 vCPU, 128 MiB, binary of 1 KiB, starts at 0x40200000, tree at 0x40000000",
        ]
    );
}

#[test]
fn what_a_vm_cant_have_of_the_board_is_a_mistake_of_its_own() {
    let wants = |name: &str, device: &str| with(binary(name), "passthrough", device);
    let far =
        with(with(wants("far", "/bus/disk@a000000"), "layout", "board"), "allow-unprotected-dma", [0_u8; 0]);
    let far = with(far, "memory-address", 0x4800_0000_u32);
    let far = with(far, "memory", 256_u32 << 10);
    let vms = [
        wants("first", "serial1"),
        wants("second", "serial1"),
        wants("third", "/pl011@9040800"),
        wants("gic", "/intc@8000000"),
        wants("disk", "/bus/disk@a000000"),
        wants("none", "serial7"),
        far,
    ];
    let Report { sound, wrong } = check(&bundle(vms), Some(&board()));
    assert_eq!(sound.len(), 3, "{sound:?}");
    let starts = wrong.iter().map(|line| line.split(" isn't").next().unwrap());
    assert_eq!(
        starts.collect::<Vec<_>>(),
        [
            "/second: passthrough: /pl011@9040000 belongs to first",
            "/third: passthrough: /pl011@9040800 belongs to first",
            "/gic: passthrough: /intc@8000000 is Hanok's own, or shares a page or a line with it: the interrupt \
             controller",
            "/disk: passthrough: /bus/disk@a000000",
            "/none: passthrough: the board's device tree has no node or alias \"serial7\"",
            "/far: memory-address: the VM's RAM would be from 0x48000000 to 0x57ffffff, and its devices reach 0x40000000 \
             to 0x4fffffff by DMA",
        ]
    );
}

#[test]
fn the_console_is_left_to_a_vm_that_names_it_and_is_the_next_uart_then() {
    let wants = |device: &str| check(&bundle([with(binary("a"), "passthrough", device)]), Some(&board()));
    assert_eq!(wants("serial0").wrong, [""; 0]);
    assert_eq!(wants("serial1").wrong, [""; 0]);
    // Of two UARTs, a VM that gets one leaves the other to Hanok; with both, nothing is left.
    let both = with(binary("a"), "passthrough", &["serial0", "serial1"][..]);
    assert_eq!(check(&bundle([both]), Some(&board())).wrong, [""; 0]);
    let other =
        [with(binary("a"), "passthrough", "serial0"), with(binary("b"), "passthrough", "/pl011@9040800")];
    let Report { wrong, .. } = check(&bundle(other), Some(&board()));
    let text =
        "/b: passthrough: /pl011@9040800 is Hanok's own, or shares a page or a line with it: the console";
    assert_eq!(wrong, [text]);
}

#[test]
fn without_the_boards_tree_it_is_said_that_devices_were_not_looked_at() {
    let one = with(binary("one"), "passthrough", "no such device");
    let two = with(binary("two"), "passthrough", &["a", "b"][..]);
    let Report { sound, wrong } = check(&bundle([one, two]), None);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(
        [&sound[1], &sound[3]],
        [
            "/one: passthrough: 1 device was not looked at, for want of the board's tree (BOARD=)",
            "/two: passthrough: 2 devices were not looked at, for want of the board's tree (BOARD=)",
        ]
    );
}

#[test]
fn a_board_whose_tree_is_none_is_a_mistake() {
    let wants = bundle([with(binary("a"), "passthrough", "serial1"), binary("b")]);
    let Report { sound, wrong } = check(&wants, Some(b"/dts-v1/; is no blob, however long the text is"));
    assert_eq!(wrong, ["the board: no device tree: it starts with 0x2f647473, not with 0xd00dfeed"]);
    assert_eq!(sound.len(), 3);
    let Report { wrong, .. } = check(&wants, Some(&DeviceTree::new().to_dtb()));
    assert_eq!(
        wrong,
        ["the board: its device tree has no interrupt controller that is known (GICv2 or GICv3)"]
    );
}

#[test]
fn linux_is_looked_at_wherever_its_ram_is() {
    let linux = |bytes: &[u8]| {
        let node = with(with(vm("a"), "kernel", bytes), "layout", "board");
        check(&bundle([node]), None).wrong
    };
    assert!(linux(&[0x1f, 0x8b, 8, 0])[0].contains("kernel: is gzip-compressed"));
}
