//! What devices reach by DMA, and how the VM's tree says so.

use config::blob::Node;
use config::passthrough::{Given, Span};
use dtoolkit::model::{DeviceTree, DeviceTreeNode};

use crate::board::{
    Property, cells, device, give_pi, give_virt, loud, node, pi, quiet, trusted, virt, vm, with_rates,
};
use crate::reader::{self, child, has, names, root_node};

/// A bus of one cell each, without windows to registers, and with these to memory: bus, physical (two cells below the root), size.
fn bus(
    name: &str,
    windows: Option<&[u32]>,
    children: impl IntoIterator<Item = DeviceTreeNode>,
) -> DeviceTreeNode {
    let mut properties: Vec<Property<'_>> =
        vec![("#address-cells", cells(&[1])), ("#size-cells", cells(&[1])), ("ranges", vec![])];
    properties.extend(windows.map(|windows| ("dma-ranges", cells(windows))));
    node(name, &properties, children)
}

fn dev(name: &str) -> DeviceTreeNode {
    let address = u32::from_str_radix(name.split_once('@').unwrap().1, 16).unwrap();
    device(name, "some,dma", &[address, 4], &[])
}

fn given(tree: &DeviceTree, devices: &[&str]) -> Given {
    give_virt(tree, &trusted("a", devices)).unwrap()
}

fn reach(tree: &DeviceTree, devices: &[&str]) -> Option<Span> {
    given(tree, devices).reach
}

/// The windows of a bus: on it, in memory, and the size.
fn windows(bus: &Node) -> Vec<[u64; 3]> {
    let cells = reader::cells(bus, "dma-ranges");
    let number = |cells: &[u32]| u64::from(cells[0]) << 32 | u64::from(cells[1]);
    cells.chunks(6).map(|window| [number(window), number(&window[2..]), number(&window[4..])]).collect()
}

#[test]
fn the_pis_emmc_reaches_the_first_gib() {
    let given =
        give_pi(&pi(), &with_rates(trusted("a", &["/emmc2bus/mmc@7e340000"]), &[200_000_000])).unwrap();
    assert_eq!(given.reach, Some(Span::new(0, 1 << 30)));
    let bus = root_node(&given, "board");
    assert_eq!(windows(bus), [[0xc000_0000, 0, 1 << 30]]);
    assert_eq!(names(bus), ["mmc@fe340000"]);
}

#[test]
fn what_does_no_dma_reaches_nothing_and_is_on_a_bus_without_windows() {
    let given = give_pi(&pi(), &trusted("a", &["/soc/rng@7e104000", "/soc/dma@7e007000"])).unwrap();
    assert_eq!(given.reach, Some(Span::new(0, 1 << 30)));
    assert_eq!(names(root_node(&given, "board")), ["rng@fe104000"]);
    assert!(!has(root_node(&given, "board"), "dma-ranges"));
    assert_eq!(names(root_node(&given, "board-1")), ["dma@fe007000"]);
    assert_eq!(windows(root_node(&given, "board-1")), [[0xc000_0000, 0, 1 << 30]]);
    let alone = give_pi(&pi(), &vm("a", &["/soc/rng@7e104000"])).unwrap();
    assert_eq!(alone.reach, None);
}

#[test]
fn without_windows_everything_is_within_reach() {
    let tree = virt([loud("a@a000000", 0xa00_0000, 4, &[]), bus("b", Some(&[]), [dev("c@b000000")])]);
    let given = given(&tree, &["/a@a000000", "/b/c@b000000"]);
    assert_eq!(given.reach, None);
    assert_eq!(names(root_node(&given, "board")), ["a@a000000", "c@b000000"]);
    assert!(!has(root_node(&given, "board"), "dma-ranges"));
}

#[test]
fn the_nearest_bus_with_windows_counts_and_those_above_it_move_them() {
    // The board's bus lets 1 GiB through at 0x4000_0000, seen at 0x8000_0000; the inner one half of it, seen at 0.
    let inner = bus("inner", Some(&[0, 0x9000_0000, 0x2000_0000]), [dev("a@a000000")]);
    let silent = bus("silent", None, [dev("b@b000000")]);
    let empty = bus("empty", Some(&[]), [dev("c@c000000")]);
    let outer = bus("outer", Some(&[0x8000_0000, 0, 0x4000_0000, 0x4000_0000]), [inner, silent, empty]);
    let tree = virt([outer]);
    assert_eq!(reach(&tree, &["/outer/inner/a@a000000"]), Some(Span::new(0x5000_0000, 0x2000_0000)));
    for device in ["/outer/silent/b@b000000", "/outer/empty/c@c000000"] {
        assert_eq!(reach(&tree, &[device]), Some(Span::new(0x4000_0000, 0x4000_0000)));
    }
    let given =
        given(&tree, &["/outer/inner/a@a000000", "/outer/silent/b@b000000", "/outer/empty/c@c000000"]);
    assert_eq!(given.reach, Some(Span::new(0x5000_0000, 0x2000_0000)));
    assert_eq!(windows(root_node(&given, "board")), [[0, 0x5000_0000, 0x2000_0000]]);
    assert_eq!(windows(root_node(&given, "board-1")), [[0x8000_0000, 0x4000_0000, 0x4000_0000]]);
    assert_eq!(names(root_node(&given, "board-1")), ["b@b000000", "c@c000000"]);
}

#[test]
fn a_window_may_go_through_several_of_the_bus_above() {
    let inner = bus("inner", Some(&[0x1000_0000, 0, 0x8000_0000]), [dev("a@a000000")]);
    let above =
        [0, 0, 0x4000_0000, 0x1000_0000, 0x2000_0000, 0, 0x6000_0000, 0x2000_0000, 0x9000_0000, 0, 0, 0x1000];
    let tree = virt([bus("outer", Some(&above), [inner])]);
    let given = given(&tree, &["/outer/inner/a@a000000"]);
    assert_eq!(
        windows(root_node(&given, "board")),
        [[0x1000_0000, 0x4000_0000, 0x1000_0000], [0x3000_0000, 0x6000_0000, 0x2000_0000]]
    );
    // RAM is in one piece, so that it's the larger one.
    assert_eq!(given.reach, Some(Span::new(0x6000_0000, 0x2000_0000)));
}

#[test]
fn several_devices_reach_what_each_of_them_does() {
    let large_and_small = [0, 0, 0x8000_0000, 0x4000_0000, 0x5000_0000, 0, 0x4000_0000, 0x1000_0000];
    let tree = virt([
        bus("both", Some(&large_and_small), [dev("a@a000000")]),
        bus("low", Some(&[0, 0, 0x4800_0000, 0x1000_0000]), [dev("b@b000000")]),
        bus("wide", None, [dev("c@c000000")]),
    ]);
    assert_eq!(reach(&tree, &["/both/a@a000000"]), Some(Span::new(0x8000_0000, 0x4000_0000)));
    let common = Some(Span::new(0x4800_0000, 0x800_0000));
    let all = ["/both/a@a000000", "/low/b@b000000", "/wide/c@c000000"];
    assert_eq!(reach(&tree, &all), common);
    let mut backwards = all;
    backwards.reverse();
    assert_eq!(reach(&tree, &backwards), common);
}

#[test]
fn the_boards_word_on_coherence_is_kept() {
    // The root of this board says that DMA is coherent, a bus that it isn't, and a device there that it is all the same.
    let mut silent = bus("bus", None, [dev("b@b000000")]);
    silent.add_property(dtoolkit::model::DeviceTreeProperty::new("dma-noncoherent", vec![0_u8; 0]).unwrap());
    silent.add_child(device("c@c000000", "some,dma", &[0xc00_0000, 4], &[("dma-coherent", vec![])]));
    let tree = virt([loud("a@a000000", 0xa00_0000, 4, &[]), quiet("d@d000000", 0xd00_0000, 4, &[]), silent]);
    let given = given(&tree, &["/a@a000000", "/bus/b@b000000", "/bus/c@c000000", "/d@d000000"]);
    let bus = root_node(&given, "board");
    let coherent: Vec<_> = ["a@a000000", "b@b000000", "c@c000000", "d@d000000"]
        .map(|name| has(child(bus, name), "dma-coherent"))
        .into();
    assert_eq!(coherent, [true, false, true, false]);
}

#[test]
fn each_bus_says_what_no_vm_of_qemus_board_would() {
    let tree = virt([loud("a@a000000", 0xa00_0000, 4, &[])]);
    let given = given(&tree, &["/a@a000000"]);
    let bus = root_node(&given, "board");
    assert!(has(bus, "dma-noncoherent"));
    assert_eq!(bus.children().count(), 1);
}

#[test]
fn an_address_that_the_manifest_names_has_to_be_within_reach() {
    let both = [0, 0, 0x8000_0000, 0x4000_0000, 0x5000_0000, 0, 0x4000_0000, 0x1000_0000];
    let tree = virt([bus("both", Some(&both), [dev("a@a000000")])]);
    let with = |address: u64, mib: u64| {
        let mut config = trusted("a", &["/both/a@a000000"]);
        config.memory_address = Some(address);
        config.memory = mib << 20;
        give_virt(&tree, &config).map(|given| given.reach)
    };
    let (wide, narrow) = (Span::new(0x8000_0000, 0x4000_0000), Span::new(0x4000_0000, 0x1000_0000));
    assert_eq!(with(0x8000_0000, 1024), Ok(Some(wide)));
    assert_eq!(with(0x4000_0000, 256), Ok(Some(narrow)));
    assert_eq!(with(0x4ff0_0000, 1), Ok(Some(narrow)));
    let text = "memory-address: the VM's RAM would be from 0x4ff00000 to 0x500fffff, and its devices reach 0x80000000 to \
                0xbfffffff by DMA";
    assert_eq!(with(0x4ff0_0000, 2), Err(text.to_owned()));
    for (address, mib) in [(0x8000_0000, 1025), (0, 2), (u64::MAX - 0xf_ffff, 2), (0xc000_0000, 2)] {
        assert!(
            with(address, mib).unwrap_err().starts_with("memory-address: the VM's RAM would be"),
            "{address:#x}"
        );
    }
    // Devices that do no DMA, or reach everything, have no say.
    let tree = virt([quiet("a@a000000", 0xa00_0000, 4, &[]), loud("b@b000000", 0xb00_0000, 4, &[])]);
    let mut config = trusted("a", &["/a@a000000", "/b@b000000"]);
    config.memory_address = Some(0x5000_0000);
    assert_eq!(give_virt(&tree, &config).unwrap().reach, None);
}
