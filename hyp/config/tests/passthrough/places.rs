//! Where a VM has the registers of its devices, and through which buses they are found.

use config::passthrough::{Given, Span};
use dtoolkit::model::DeviceTreeNode;
use vmm::layout::VIRT;

use crate::board::{
    Property, VIRT_GICD, add, cells, device, find, give_virt, node, quiet, spis, trusted, virt, vm,
};
use crate::reader::{self, copy, registers};

/// Guest address, physical address, size.
fn places(given: &Given) -> Vec<(u64, u64, u64)> {
    given.registers.iter().map(|(at, pages)| (at.as_u64(), pages.start().as_u64(), pages.size())).collect()
}

#[test]
fn registers_are_given_in_whole_pages() {
    let tree = virt([quiet("a@a000ff8", 0xa00_0ff8, 0x10, &[])]);
    let given = give_virt(&tree, &vm("a", &["/a@a000ff8"])).unwrap();
    assert_eq!(places(&given), [(0x0c00_0000, 0xa00_0000, 0x2000)]);
    // At the place within the page that they have on the board, and of the same size.
    assert_eq!(registers(copy(&given, "a@c000ff8")), [(0x0c00_0ff8, 0x10)]);
}

#[test]
fn pieces_are_64_kib_apart_and_in_the_order_of_their_addresses() {
    let tree = virt([
        quiet("high@b000000", 0xb00_0000, 0x1_1000, &[]),
        device("two@a000000", "arm,pl031", &[0, 0xa00_9000, 0, 4, 0, 0xa00_0000, 0, 0x1_0000], &[]),
        quiet("last@c000000", 0xc00_0000, 0x1000, &[]),
    ]);
    let given = give_virt(&tree, &vm("a", &["/high@b000000", "/two@a000000", "/last@c000000"])).unwrap();
    assert_eq!(
        places(&given),
        [
            (0x0c00_0000, 0xa00_0000, 0x1_0000),
            (0x0c01_0000, 0xb00_0000, 0x1_1000),
            (0x0c03_0000, 0xc00_0000, 0x1000)
        ]
    );
    // The name has the first of the registers, as the node's own had.
    assert_eq!(registers(copy(&given, "two@c009000")), [(0x0c00_9000, 4), (0x0c00_0000, 0x1_0000)]);
    assert_eq!(registers(copy(&given, "high@c010000")), [(0x0c01_0000, 0x1_1000)]);
    assert_eq!(registers(copy(&given, "last@c030000")), [(0x0c03_0000, 0x1000)]);
}

#[test]
fn pages_that_touch_are_one_piece() {
    let tree = virt([
        quiet("a@a000000", 0xa00_0000, 0x800, &[]),
        quiet("b@a000800", 0xa00_0800, 0x800, &[]),
        quiet("c@a001000", 0xa00_1000, 0x1001, &[]),
        quiet("d@a004000", 0xa00_4000, 0x1000, &[]),
    ]);
    let all = ["/a@a000000", "/b@a000800", "/c@a001000", "/d@a004000"];
    let given = give_virt(&tree, &vm("a", &all)).unwrap();
    assert_eq!(places(&given), [(0x0c00_0000, 0xa00_0000, 0x3000), (0x0c01_0000, 0xa00_4000, 0x1000)]);
    assert_eq!(registers(copy(&given, "c@c001000")), [(0x0c00_1000, 0x1001)]);
    let given = give_virt(&tree, &trusted("a", &all)).unwrap();
    assert_eq!(places(&given), [(0xa00_0000, 0xa00_0000, 0x3000), (0xa00_4000, 0xa00_4000, 0x1000)]);
}

#[test]
fn the_places_are_those_of_qemus_platform_bus() {
    let room = VIRT.devices;
    assert_eq!(
        (room.registers.base.as_u64(), room.registers.size, room.first_spi, room.spis),
        (0xc00_0000, 32 << 20, 112, 64)
    );
    let devices = (0..5).map(|number| {
        quiet(&format!("d@a00{number}000"), 0xa00_0000 + number * 0x2000, 4, &[spis(&[number, number + 10])])
    });
    let given = give_virt(&virt(devices), &vm("a", &["/d@a003000", "/d@a001000"])).unwrap();
    // Interrupts too are in the order of the board's tree.
    let lines: Vec<_> = given.lines.iter().map(|line| (line.physical.intid, line.spi)).collect();
    assert_eq!(lines, [(33, 112), (43, 113), (35, 114), (45, 115)]);
    assert_eq!(places(&given), [(0x0c00_0000, 0xa00_2000, 0x1000), (0x0c01_0000, 0xa00_6000, 0x1000)]);
}

#[test]
fn a_line_that_two_of_its_devices_share_is_one() {
    let pair = [
        quiet("a@a000000", 0xa00_0000, 4, &[spis(&[7])]),
        quiet("b@a001000", 0xa00_1000, 4, &[spis(&[7, 8])]),
    ];
    let given = give_virt(&virt(pair), &vm("a", &["/a@a000000", "/b@a001000"])).unwrap();
    assert_eq!(given.lines.len(), 2);
    assert_eq!(reader::cells(copy(&given, "a@c000000"), "interrupts"), [0, 112, 4]);
    assert_eq!(reader::cells(copy(&given, "b@c001000"), "interrupts"), [0, 112, 4, 0, 113, 4]);
}

fn bus(
    name: &str,
    of: [u32; 2],
    ranges: &[u32],
    children: impl IntoIterator<Item = DeviceTreeNode>,
) -> DeviceTreeNode {
    let properties: [Property<'_>; 3] =
        [("#address-cells", cells(&of[..1])), ("#size-cells", cells(&of[1..])), ("ranges", cells(ranges))];
    node(name, &properties, children)
}

/// Where a device of a tree is, and how large.
fn physical(tree: &dtoolkit::model::DeviceTree, path: &str) -> Result<Vec<(u64, u64)>, String> {
    give_virt(tree, &trusted("a", &[path]))
        .map(|given| given.nodes.iter().flat_map(config::blob::Node::children).flat_map(registers).collect())
}

#[test]
fn addresses_go_through_every_bus() {
    // 1 cell within 2, within 1, with windows that move them; the last one is one to one.
    let inner = bus(
        "inner",
        [2, 1],
        &[1, 0, 0x100_0000, 0x1_0000, 2, 0x8000, 0x200_0000, 0x1_0000],
        [
            device("first@0", "arm,pl031", &[1, 0x10, 4, 2, 0x9000, 8], &[]),
            device("between@0", "arm,pl031", &[2, 0x7fff, 1], &[]),
            device("across@0", "arm,pl031", &[1, 0xffff, 2], &[]),
            device("last@0", "arm,pl031", &[1, 0xffff, 1], &[]),
        ],
    );
    let outer = bus(
        "outer",
        [1, 1],
        &[0x100_0000, 0, 0xa00_0000, 0x1000_0000],
        [inner, bus("same", [1, 1], &[], [device("d@1030000", "arm,pl031", &[0x103_0000, 0x20], &[])])],
    );
    let tree = virt([outer]);
    assert_eq!(physical(&tree, "/outer/inner/first@0"), Ok(vec![(0xa00_0010, 4), (0xb00_1000, 8)]));
    assert_eq!(physical(&tree, "/outer/inner/last@0"), Ok(vec![(0xa00_ffff, 1)]));
    assert_eq!(physical(&tree, "/outer/same/d@1030000"), Ok(vec![(0xa03_0000, 0x20)]));
    for path in ["/outer/inner/between@0", "/outer/inner/across@0"] {
        assert!(physical(&tree, path).unwrap_err().contains("has no registers in physical memory"));
    }
}

#[test]
fn the_specifications_defaults_of_cells_are_two_and_one() {
    let mut tree = virt([]);
    add(
        &mut tree,
        "/",
        node("bus", &[("ranges", vec![])], [device("d@a000000", "arm,pl031", &[0, 0xa00_0000, 0x30], &[])]),
    );
    assert_eq!(physical(&tree, "/bus/d@a000000"), Ok(vec![(0xa00_0000, 0x30)]));
}

#[test]
fn registers_in_reserved_memory_of_the_board_are_no_pages_of_devices() {
    let mut tree = virt([]);
    let reserved =
        bus("reserved-memory", [1, 1], &[], [device("fw@20000000", "fw", &[0x2000_0000, 0x1000], &[])]);
    add(&mut tree, "/", reserved);
    let blob = tree.to_dtb();
    let devices = find(&blob, VIRT_GICD).unwrap();
    assert_eq!(devices.pages(), [Span::new(0x800_0000, 0x1_0000)]);
    // What lies there is refused, however it is named.
    add(&mut tree, "/", quiet("alias@20000800", 0x2000_0800, 4, &[]));
    let text = give_virt(&tree, &trusted("a", &["/alias@20000800"])).unwrap_err();
    assert_eq!(text, "passthrough: /alias@20000800 lies in RAM, at 0x20000800");
}
