//! A board's device tree as scenarios look at it, and cut it down. Read apart from how EL2 reads it, by another library and
//! with an address translation of its own, so that what is derived from it says something of EL2.

use std::fs;
use std::ops::Range;
use std::path::Path;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use dtoolkit::{Node, Property};

use crate::{Failure, Outcome};

/// A tree.
pub struct Tree(DeviceTree);

/// A node that has registers, or is memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its path.
    pub path: String,
    /// What it is compatible with.
    pub compatible: Vec<String>,
    /// What `reg` says, as physical addresses, in its order. What a bus above doesn't pass on is left out.
    pub registers: Vec<Range<u64>>,
}

impl Tree {
    /// Reads a tree's blob.
    ///
    /// # Errors
    /// When it can't be read or is none.
    pub fn read(path: &Path) -> Outcome<Self> {
        let blob = fs::read(path).map_err(Failure::io(format!("read {}", path.display())))?;
        let tree = Fdt::new(&blob).map_err(|error| Failure::Wrong(format!("{}: {error}", path.display())))?;
        Ok(Self(DeviceTree::from_fdt(&tree)))
    }

    /// As a blob.
    pub fn to_blob(&self) -> Vec<u8> {
        self.0.to_dtb()
    }

    /// Takes all nodes away but those at these paths, with what is above and below each.
    ///
    /// # Errors
    /// When one of them isn't there.
    pub fn keep(&mut self, paths: &[&str]) -> Outcome {
        if let Some(missing) = paths.iter().find(|path| self.0.find_node(path).is_none()) {
            return Err(Failure::Wrong(format!("the tree has no {missing}")));
        }
        keep_below(&mut self.0.root, "", paths);
        Ok(())
    }

    /// Puts a node into `/chosen`.
    ///
    /// # Errors
    /// When there is no such node.
    pub(crate) fn choose(&mut self, node: DeviceTreeNode) -> Outcome {
        let chosen = self.0.root.child_mut("chosen");
        chosen.ok_or_else(|| Failure::Wrong("the tree has no /chosen".to_owned()))?.add_child(node);
        Ok(())
    }

    /// All nodes that have a physical address.
    pub fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        let root = Bus { cells: Cells::below(&self.0.root), windows: Some(Vec::new()) };
        find_devices(&self.0.root, "", &root, &mut devices);
        devices
    }

    /// The nodes that are compatible with one of these.
    pub fn compatible(&self, with: &[&str]) -> Vec<Device> {
        let is = |device: &Device| device.compatible.iter().any(|one| with.contains(&one.as_str()));
        self.devices().into_iter().filter(is).collect()
    }

    /// The device that `/chosen/stdout-path` names, by its path or an alias.
    pub fn console(&self) -> Option<Device> {
        let text = |path: &str, name: &str| text(self.0.find_node(path)?, name);
        let named = text("/chosen", "stdout-path")?;
        let name = named.split(':').next()?;
        let path = if name.starts_with('/') { name.to_owned() } else { text("/aliases", name)? };
        self.devices().into_iter().find(|device| device.path == path)
    }
}

fn keep_below(node: &mut DeviceTreeNode, path: &str, paths: &[&str]) {
    let names: Vec<String> = node.children().map(|child| child.name().to_owned()).collect();
    for name in names {
        let path = format!("{path}/{name}");
        if paths.contains(&path.as_str()) {
            continue;
        }
        if paths.iter().any(|kept| kept.starts_with(&format!("{path}/"))) {
            if let Some(child) = node.child_mut(&name) {
                keep_below(child, &path, paths);
            }
        } else {
            node.remove_child(&name);
        }
    }
}

fn value(node: &DeviceTreeNode, name: &str) -> Option<Vec<u8>> {
    node.property(name).map(|property| property.value().to_vec())
}

fn text(node: &DeviceTreeNode, name: &str) -> Option<String> {
    let value = String::from_utf8(value(node, name)?).ok()?;
    value.strip_suffix('\0').map(str::to_owned)
}

fn cell(node: &DeviceTreeNode, name: &str) -> Option<usize> {
    Some(u32::from_be_bytes(value(node, name)?.try_into().ok()?) as usize)
}

/// How many cells addresses and sizes have.
#[derive(Clone, Copy)]
struct Cells {
    address: usize,
    size: usize,
}

impl Cells {
    /// For the children of this node (Devicetree Specification, 2.3.5).
    fn below(node: &DeviceTreeNode) -> Self {
        let cells = |name, default| cell(node, name).unwrap_or(default);
        Self { address: cells("#address-cells", 2), size: cells("#size-cells", 1) }
    }
}

/// Takes numbers of so many cells off the front of a property, as long as it has all of them.
fn numbers<const N: usize>(value: &[u8], cells: [usize; N]) -> Vec<[u64; N]> {
    let length = 4 * cells.iter().sum::<usize>();
    if length == 0 {
        return Vec::new();
    }
    let entry = |mut bytes: &[u8]| {
        cells.map(|count| {
            let (number, rest) = bytes.split_at(4 * count);
            bytes = rest;
            number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        })
    };
    value.chunks_exact(length).map(entry).collect()
}

/// What the addresses of a node's children mean.
struct Bus {
    cells: Cells,
    /// Child's address, physical address, size; none: they are the same. `None`: the bus passes nothing on.
    windows: Option<Vec<[u64; 3]>>,
}

impl Bus {
    fn physical(&self, address: u64) -> Option<u64> {
        let windows = self.windows.as_ref()?;
        if windows.is_empty() {
            return Some(address);
        }
        let inside = |[child, _, size]: &&[u64; 3]| address >= *child && address - child < *size;
        windows.iter().find(inside).map(|[child, physical, _]| physical + (address - child))
    }

    /// For the children of `node`, which is on this bus itself.
    fn below(&self, node: &DeviceTreeNode) -> Self {
        let cells = Cells::below(node);
        let windows = value(node, "ranges").and_then(|ranges| {
            if ranges.is_empty() {
                return self.windows.clone();
            }
            let entries = numbers(&ranges, [cells.address, self.cells.address, cells.size]);
            let through = |[child, parent, size]: [u64; 3]| Some([child, self.physical(parent)?, size]);
            let windows: Vec<_> = entries.into_iter().filter_map(through).collect();
            (!windows.is_empty()).then_some(windows)
        });
        Self { cells, windows }
    }
}

fn find_devices(node: &DeviceTreeNode, path: &str, bus: &Bus, devices: &mut Vec<Device>) {
    for child in node.children() {
        let path = format!("{path}/{}", child.name());
        let entries = value(child, "reg").map(|reg| numbers(&reg, [bus.cells.address, bus.cells.size]));
        let registers = entries.into_iter().flatten().filter(|[_, size]| *size != 0);
        let registers: Vec<_> =
            registers.filter_map(|[start, size]| bus.physical(start).map(|at| at..at + size)).collect();
        if !registers.is_empty() {
            let compatible = text(child, "compatible").unwrap_or_default();
            let compatible = compatible.split('\0').map(str::to_owned).collect();
            devices.push(Device { path: path.clone(), compatible, registers });
        }
        find_devices(child, &path, &bus.below(child), devices);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::model::DeviceTreeProperty;

    fn bounds(ranges: &[Range<u64>]) -> Vec<(u64, u64)> {
        ranges.iter().map(|range| (range.start, range.end)).collect()
    }

    fn cells(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_be_bytes()).collect()
    }

    fn node(name: &str, properties: &[(&str, Vec<u8>)], children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
        let mut node = DeviceTreeNode::new_unchecked(name);
        for (name, value) in properties {
            node.add_property(DeviceTreeProperty::new_unchecked(*name, value.clone()));
        }
        children.into_iter().for_each(|child| node.add_child(child));
        node
    }

    /// Two buses, the second one inside the first, and a device that can't be reached by addresses.
    fn tree() -> Tree {
        let size =
            |address, size| vec![("#address-cells", cells(&[address])), ("#size-cells", cells(&[size]))];
        let uart = node("uart@10", &[("compatible", b"a\0b\0".to_vec()), ("reg", cells(&[0x10, 8]))], vec![]);
        let sensor = node("sensor@4", &[("reg", cells(&[4]))], vec![]);
        let i2c = node("i2c@20", &[&size(1, 0)[..], &[("reg", cells(&[0x20, 8]))]].concat(), vec![sensor]);
        let inner = node("inner", &[&size(1, 1)[..], &[("ranges", vec![])]].concat(), vec![uart]);
        let ranges = cells(&[0, 1, 0x8000_0000, 0x1000]);
        let soc = node("soc", &[&size(1, 1)[..], &[("ranges", ranges)]].concat(), vec![inner, i2c]);
        let chosen = node("chosen", &[("stdout-path", b"serial0:115200\0".to_vec())], vec![]);
        let aliases = node("aliases", &[("serial0", b"/soc/inner/uart@10\0".to_vec())], vec![]);
        let mut tree = DeviceTree::new();
        tree.root = node("", &size(2, 2), vec![soc, chosen, aliases]);
        Tree(tree)
    }

    #[test]
    fn registers_are_physical_addresses() {
        let devices = tree().devices();
        let found: Vec<_> =
            devices.iter().map(|device| (device.path.as_str(), bounds(&device.registers))).collect();
        let at = |start: u64| Vec::from_iter([(start, start + 8)]);
        assert_eq!(found, [("/soc/inner/uart@10", at(0x1_8000_0010)), ("/soc/i2c@20", at(0x1_8000_0020))]);
        assert_eq!(tree().compatible(&["b"]), [tree().console().expect("a console")]);
    }

    #[test]
    fn what_is_kept_keeps_what_is_above_and_below() {
        let mut tree = tree();
        tree.keep(&["/soc/inner"]).expect("it is there");
        assert_eq!(tree.devices().len(), 1);
        assert!(tree.0.find_node("/soc/inner/uart@10").is_some());
        assert!(tree.0.find_node("/soc/i2c@20").is_none() && tree.0.find_node("/chosen").is_none());
        assert!(tree.keep(&["/nowhere"]).is_err());
    }
}
