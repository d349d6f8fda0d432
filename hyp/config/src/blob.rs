//! Makes device tree blobs: nodes with properties, and what becomes of them (Devicetree Specification, version 0.4, chapter 5).
//!
//! Equal nodes give equal bytes. Names are taken as they are, for they are Hanok's own or from a blob that has been read; nothing is
//! reserved, since a VM's memory is all its own. It is written here because the image is to be small: `vm-fdt` in place of [`build`] made it
//! 7 KiB larger, `dtoolkit`'s writer 16 KiB.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

use devicetree::format::{BEGIN_NODE, END, END_NODE, HEADER_BYTES, MAGIC, PROP, VERSION};

/// The oldest version whose readers can read this one.
const COMPATIBLE_VERSION: u32 = 16;
/// The list of reservations, which has nothing but its end.
const RESERVATIONS: [u8; 16] = [0; 16];

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    name: String,
    properties: Vec<(Cow<'static, str>, Vec<u8>)>,
    children: Vec<Node>,
}

impl Node {
    /// One with nothing in it. The root's name is empty.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), properties: Vec::new(), children: Vec::new() }
    }

    /// Its name, address included.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its children, in their order.
    pub fn children(&self) -> impl Iterator<Item = &Node> {
        self.children.iter()
    }

    /// The names of its properties and their values, in their order.
    pub fn properties(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.properties.iter().map(|(name, value)| (name.as_ref(), value.as_slice()))
    }

    /// Appends a child.
    pub fn add(&mut self, child: Node) {
        self.children.push(child);
    }

    /// Gives it a property, in place of one of the same name.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: Vec<u8>) {
        let name = name.into();
        match self.properties.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.properties.push((name, value)),
        }
    }

    /// A property that says something by being there.
    pub fn set_flag(&mut self, name: &'static str) {
        self.set(name, Vec::new());
    }

    /// A list of cells.
    pub fn set_cells(&mut self, name: &'static str, cells: &[u32]) {
        self.set(name, bytes(cells));
    }

    /// A list of texts.
    pub fn set_texts(&mut self, name: &'static str, texts: &[&str]) {
        let mut value = texts.join("\0").into_bytes();
        value.push(0);
        self.set(name, value);
    }

    /// One text.
    pub fn set_text(&mut self, name: &'static str, text: &str) {
        self.set_texts(name, &[text]);
    }
}

/// Cells as they are in a blob.
pub(crate) fn bytes(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

/// The blob whose root this is.
pub fn build(root: &Node) -> Vec<u8> {
    let mut parts = Parts { structure: Vec::new(), names: Vec::new(), names_size: 0 };
    parts.add(root);
    parts.add_cell(END);
    let structure = HEADER_BYTES.saturating_add(RESERVATIONS.len());
    let names = structure.saturating_add(parts.structure.len());
    let header = [
        MAGIC,
        names.saturating_add(parts.names_size) as u32,
        structure as u32,
        names as u32,
        HEADER_BYTES as u32,
        VERSION,
        COMPATIBLE_VERSION,
        0, // the boot CPU, which nobody reads
        parts.names_size as u32,
        parts.structure.len() as u32,
    ];
    let mut blob = [bytes(&header).as_slice(), &RESERVATIONS, &parts.structure].concat();
    blob.reserve(parts.names_size);
    for (name, _) in parts.names {
        blob.extend_from_slice(name.as_bytes());
        blob.push(0);
    }
    blob
}

/// The blocks of a blob under construction.
struct Parts<'n> {
    structure: Vec<u8>,
    /// Names of properties, each once, and where each is in the strings block: one behind the other, with a zero behind each.
    names: Vec<(&'n str, usize)>,
    names_size: usize,
}

impl<'n> Parts<'n> {
    fn add(&mut self, node: &'n Node) {
        self.add_cell(BEGIN_NODE);
        self.structure.extend_from_slice(node.name.as_bytes());
        self.structure.push(0);
        self.align();
        for (name, value) in &node.properties {
            let name = self.place(name);
            [PROP, value.len() as u32, name as u32].into_iter().for_each(|cell| self.add_cell(cell));
            self.structure.extend_from_slice(value);
            self.align();
        }
        node.children.iter().for_each(|child| self.add(child));
        self.add_cell(END_NODE);
    }

    fn add_cell(&mut self, cell: u32) {
        self.structure.extend_from_slice(&cell.to_be_bytes());
    }

    fn align(&mut self) {
        while !self.structure.len().is_multiple_of(4) {
            self.structure.push(0);
        }
    }

    /// Where a name is among the names.
    fn place(&mut self, name: &'n str) -> usize {
        if let Some((_, place)) = self.names.iter().find(|(known, _)| *known == name) {
            return *place;
        }
        let place = self.names_size;
        self.names.push((name, place));
        self.names_size = place.saturating_add(name.len()).saturating_add(1);
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::fdt::{Fdt, FdtNode};
    use dtoolkit::{Node as _, Property as _};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::string::ToString;

    /// What another reader finds in a node.
    fn read(node: &FdtNode<'_>) -> Node {
        let mut found = Node::new(node.name());
        for property in node.properties() {
            found.set(property.name().to_string(), property.value().to_vec());
        }
        found.children = node.children().map(|child| read(&child)).collect();
        found
    }

    fn named(properties: BTreeMap<String, Vec<u8>>) -> Vec<(Cow<'static, str>, Vec<u8>)> {
        properties.into_iter().map(|(name, value)| (name.into(), value)).collect()
    }

    fn nodes() -> impl Strategy<Value = Node> {
        let properties = proptest::collection::btree_map("[a-z#,-]{1,9}", any::<Vec<u8>>(), 0..5);
        let leaf = ("[a-z]{1,5}", properties.clone()).prop_map(|(name, properties)| Node {
            name,
            properties: named(properties),
            children: Vec::new(),
        });
        leaf.prop_recursive(4, 24, 4, move |below| {
            (proptest::collection::vec(below, 0..4), properties.clone()).prop_map(|(children, properties)| {
                Node { name: "inner".to_string(), properties: named(properties), children }
            })
        })
    }

    proptest! {
        #[test]
        fn another_reader_finds_what_was_put_in(node in nodes()) {
            let root = Node { name: String::new(), ..node };
            let blob = build(&root);
            let tree = Fdt::new(&blob).unwrap();
            prop_assert_eq!(read(&tree.root()), root);
            prop_assert_eq!(tree.memory_reservations().count(), 0);
        }
    }

    #[test]
    fn values_are_as_the_specification_has_them() {
        let mut node = Node::new("n");
        node.set_cells("cells", &[1, 0x1234_5678]);
        node.set_texts("texts", &["a", "bc"]);
        node.set_flag("flag");
        node.set_text("cells", "again");
        let expected: [(&str, &[u8]); 3] = [("cells", b"again\0"), ("texts", b"a\0bc\0"), ("flag", b"")];
        assert!(node.properties().eq(expected));
        assert_eq!(bytes(&[1, 0x1234_5678]), [0, 0, 0, 1, 0x12, 0x34, 0x56, 0x78]);
    }

    #[test]
    fn a_name_is_written_once() {
        let mut root = Node::new("");
        let mut child = Node::new("child");
        for node in [&mut root, &mut child] {
            node.set_flag("reg");
            node.set_flag("re");
        }
        root.add(child);
        let blob = build(&root);
        assert!(blob.ends_with(b"\0\0\0\x09reg\0re\0"));
    }
}
