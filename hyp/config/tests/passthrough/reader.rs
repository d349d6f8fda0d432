//! Reads what a VM's tree has of its devices, by the bindings alone, and sees that it makes sense.

use std::collections::{BTreeMap, BTreeSet};

use config::blob::Node;
use config::passthrough::Given;

/// The phandle of a VM's interrupt controller, and the cells of an interrupt there.
const VM_GIC: (u32, usize) = (1, 3);

pub fn value(node: &Node, name: &str) -> Option<Vec<u8>> {
    node.properties().find(|(known, _)| *known == name).map(|(_, value)| value.to_vec())
}

/// The cells of a property; none if it isn't there.
pub fn cells(node: &Node, name: &str) -> Vec<u32> {
    let value = value(node, name).unwrap_or_default();
    assert!(value.len().is_multiple_of(4), "{name} of {} has {} bytes", node.name(), value.len());
    value.chunks(4).map(|cell| u32::from_be_bytes(cell.try_into().unwrap())).collect()
}

pub fn strings(node: &Node, name: &str) -> Vec<String> {
    let text = String::from_utf8(value(node, name).unwrap_or_default()).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

pub fn has(node: &Node, name: &str) -> bool {
    value(node, name).is_some()
}

pub fn child<'a>(node: &'a Node, name: &str) -> &'a Node {
    let names: Vec<_> = node.children().map(|child| child.name().to_owned()).collect();
    node.children().find(|child| child.name() == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
}

/// A device on the first bus.
pub fn copy<'a>(given: &'a Given, name: &str) -> &'a Node {
    child(root_node(given, "board"), name)
}

/// What the VM's root is given.
pub fn root_node<'a>(given: &'a Given, name: &str) -> &'a Node {
    let names: Vec<_> = given.nodes.iter().map(|node| node.name().to_owned()).collect();
    given.nodes.iter().find(|node| node.name() == name).unwrap_or_else(|| panic!("no {name} in {names:?}"))
}

pub fn names(node: &Node) -> Vec<String> {
    node.children().map(|child| child.name().to_owned()).collect()
}

/// Registers of a device as its copy has them: address and size.
pub fn registers(node: &Node) -> Vec<(u64, u64)> {
    let number = |cells: &[u32]| u64::from(cells[0]) << 32 | u64::from(cells[1]);
    cells(node, "reg").chunks(4).map(|entry| (number(&entry[..2]), number(&entry[2..]))).collect()
}

/// The number of cells behind a reference in a property, as the node that is referred to says: the name of what says it. `None` for a
/// property that refers to nothing.
fn reference(name: &str) -> Option<Option<&'static str>> {
    Some(match name {
        "clocks" => Some("#clock-cells"),
        "dmas" => Some("#dma-cells"),
        "resets" => Some("#reset-cells"),
        "phys" => Some("#phy-cells"),
        "power-domains" => Some("#power-domain-cells"),
        "interrupts-extended" => Some("#interrupt-cells"),
        "gpios" => Some("#gpio-cells"),
        _ if name.ends_with("nr-gpios") => return None,
        _ if name.ends_with("-gpios") || name.ends_with("-gpio") => Some("#gpio-cells"),
        "gpio-ranges" => Some("3"),
        "interrupt-parent" | "interrupt-affinity" | "mmc-pwrseq" => None,
        _ if name.ends_with("-supply") || (name.starts_with("pinctrl-") && name != "pinctrl-names") => None,
        _ => return None,
    })
}

/// Finds each node's phandle; no two have the same, and none that of the VM's own nodes.
fn phandles<'a>(node: &'a Node, found: &mut BTreeMap<u32, &'a Node>) {
    if let [phandle] = cells(node, "phandle")[..] {
        assert!(phandle >= 0x1_0000, "{phandle:#x} may be that of a node of the VM's own");
        assert!(found.insert(phandle, node).is_none(), "{phandle:#x} is there twice");
    }
    assert!(!has(node, "linux,phandle"));
    node.children().for_each(|child| phandles(child, found));
}

/// Every reference leads somewhere, and has all of its cells.
fn check_references(node: &Node, known: &BTreeMap<u32, &Node>) {
    for (name, _) in node.properties() {
        let is_hog = name == "gpios" && has(node, "gpio-hog");
        let Some(count) = reference(name).filter(|_| !is_hog) else { continue };
        let list = cells(node, name);
        assert!(!list.is_empty(), "{name} of {} is empty", node.name());
        let mut rest = &list[..];
        while let [phandle, behind @ ..] = rest {
            let count = match count {
                _ if *phandle == 0 => 0,
                None => 0,
                Some("3") => 3,
                Some(_) if *phandle == VM_GIC.0 => VM_GIC.1,
                Some(count) => {
                    let target = known.get(phandle);
                    let target = target.unwrap_or_else(|| panic!("{name} of {}: {phandle:#x}", node.name()));
                    cells(target, count)[0] as usize
                }
            };
            assert!(*phandle <= VM_GIC.0 || known.contains_key(phandle), "{name} of {}", node.name());
            rest = behind.get(count..).unwrap_or_else(|| panic!("{name} of {} is cut off", node.name()));
        }
    }
    node.children().for_each(|child| check_references(child, known));
}

/// What holds for all that any VM is given.
pub fn check(given: &Given) {
    let mut known = BTreeMap::new();
    given.nodes.iter().for_each(|node| phandles(node, &mut known));
    given.nodes.iter().for_each(|node| check_references(node, &known));
    let roots: BTreeSet<_> = given.nodes.iter().map(|node| node.name().to_owned()).collect();
    assert_eq!(roots.len(), given.nodes.len(), "{roots:?}");
    for (at, pages) in &given.registers {
        assert!(at.as_u64().is_multiple_of(0x1000) && pages.size() != 0);
    }
    let mut places: Vec<_> =
        given.registers.iter().map(|(at, pages)| (at.as_u64(), at.as_u64() + pages.size())).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{places:x?}");
    for bus in given.nodes.iter().filter(|node| node.name().starts_with("board")) {
        assert_eq!(strings(bus, "compatible"), ["simple-bus"]);
        assert_eq!((cells(bus, "#address-cells"), cells(bus, "#size-cells")), (vec![2], vec![2]));
        assert!(value(bus, "ranges") == Some(Vec::new()) && has(bus, "dma-noncoherent"));
        for device in bus.children() {
            assert!(!has(device, "status"), "{}", device.name());
            let registers = registers(device);
            for (start, size) in &registers {
                let end = start + size;
                assert!(places.iter().any(|place| place.0 <= *start && end <= place.1), "{start:#x}");
            }
            if let Some((start, _)) = registers.first() {
                assert!(device.name().ends_with(&format!("@{start:x}")), "{} {start:#x}", device.name());
            }
            let spis = given.lines.iter().map(|line| line.spi);
            let spis: BTreeSet<u32> = spis.collect();
            let to_gic = !has(device, "interrupt-parent");
            for interrupt in cells(device, "interrupts").chunks(3).filter(|_| to_gic) {
                assert!(interrupt[0] == 0 && spis.contains(&interrupt[1]), "{interrupt:?} {spis:?}");
            }
        }
    }
    let spis: BTreeSet<_> = given.lines.iter().map(|line| line.spi).collect();
    let intids: BTreeSet<_> = given.lines.iter().map(|line| line.physical.intid).collect();
    assert_eq!((spis.len(), intids.len()), (given.lines.len(), given.lines.len()));
}
