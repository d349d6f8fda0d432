//! Trees of boards as they are read: NOP tokens change nothing, and another reader finds the same nodes and properties.

mod trees;

use devicetree::Tree;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};
use platform::tree::Board;
use trees::blob::{tokens, with_nops};
use trees::{pi4, virt_v2, virt_v3};

/// Depth and name of each node, with names and values of its properties.
type Nodes = Vec<(usize, String, Vec<(String, Vec<u8>)>)>;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn read(blob: &[u8]) -> Nodes {
    let nodes = Tree::check(blob).unwrap().nodes();
    let properties = |node: &devicetree::Node<'_>| {
        node.properties().map(|property| (text(property.name), property.value.to_vec())).collect()
    };
    nodes.map(|node| (node.depth, text(node.name), properties(&node))).collect()
}

fn read_by_another(node: &FdtNode<'_>, depth: usize, nodes: &mut Nodes) {
    let properties =
        node.properties().map(|property| (property.name().to_owned(), property.value().to_vec()));
    nodes.push((depth, node.name().to_owned(), properties.collect()));
    node.children().for_each(|child| read_by_another(&child, depth + 1, nodes));
}

#[test]
fn another_reader_finds_the_same() {
    for tree in [virt_v3(), virt_v2(), pi4()] {
        let blob = tree.to_dtb();
        let mut nodes = Nodes::new();
        read_by_another(&Fdt::new(&blob).unwrap().root(), 0, &mut nodes);
        assert_eq!(read(&blob), nodes);
        let first = &nodes[1];
        let values =
            first.2.iter().map(|(name, _)| Tree::check(&blob).unwrap().nodes().nth(1).unwrap().value(name));
        assert!(values.eq(first.2.iter().map(|(_, value)| Some(&value[..]))));
    }
}

#[test]
fn nops_are_passed_over_wherever_they_stand() {
    for tree in [virt_v3(), virt_v2(), pi4()] {
        let blob = tree.to_dtb();
        let board = format!("{:?}", Board::read(&Tree::check(&blob).unwrap()));
        let assert_same = |padded: &[u8]| {
            assert_eq!(read(padded), read(&blob));
            assert_eq!(format!("{:?}", Board::read(&Tree::check(padded).unwrap())), board);
        };
        for place in 0..tokens(&blob).len() {
            assert_same(&with_nops(&blob, |token| usize::from(token == place)));
        }
        assert_same(&with_nops(&blob, |_| 1));
        assert_same(&with_nops(&blob, |token| token * 7 % 4));
    }
}
