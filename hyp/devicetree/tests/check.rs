//! What the check of a blob finds, and what is read of a good one. Trees of boards are in the tests of `platform`.

mod blob;

use blob::*;
use devicetree::{MAX_BLOB, Tree, TreeError, blob_size};

/// What is wrong with a blob.
fn fault(blob: Vec<u8>) -> TreeError {
    Tree::check(&blob).map(|_| ()).expect_err("a bad tree")
}

fn depths(blob: Vec<u8>) -> Vec<usize> {
    Tree::check(&blob).expect("a good tree").nodes().map(|node| node.depth).collect()
}

/// A root with one property (`name`, at 0 of the strings) and one node.
fn small() -> Vec<Vec<u8>> {
    let (end_node, end) = (token(END_NODE), token(END));
    vec![begin(b""), prop(0, b"value"), begin(b"node@1"), end_node.clone(), end_node, end]
}

fn small_blob() -> Vec<u8> {
    blob(&small().concat(), b"name\0")
}

fn patched(index: usize, value: usize) -> Vec<u8> {
    let mut blob = small_blob();
    set_word(&mut blob, index, value as u32);
    blob
}

#[test]
fn a_small_tree() {
    let reservations = [[1; 8], [2; 8], [0; 8], [0; 8]].concat();
    let blob = with_reservations(&reservations, &small().concat(), b"name\0");
    let tree = Tree::check(&blob).unwrap();
    let read =
        |node: devicetree::Node<'_>| (node.name.to_vec(), node.depth, node.value("name").map(<[u8]>::to_vec));
    let nodes: Vec<_> = tree.nodes().map(read).collect();
    assert_eq!(nodes, [(vec![], 0, Some(b"value".to_vec())), (b"node@1".to_vec(), 1, None)]);
    let root = tree.nodes().next().unwrap();
    let properties: Vec<_> = root.properties().map(|property| (property.name, property.value)).collect();
    assert_eq!(properties, [(&b"name"[..], &b"value"[..])]);
    let number = |byte: u8| u64::from_be_bytes([byte; 8]);
    assert_eq!(tree.reservations().collect::<Vec<_>>(), [(number(1), number(2))]);
}

#[test]
fn bytes_behind_the_tree_do_not_matter() {
    let mut blob = small_blob();
    blob.extend([0xff; 100]);
    assert_eq!(depths(blob), [0, 1]);
}

#[test]
fn a_nop_in_a_value_is_none() {
    let value = [0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 9];
    let tokens = [token(NOP), begin(b""), token(NOP), prop(0, &value), token(END_NODE), token(END)];
    let blob = blob(&tokens.concat(), b"name\0");
    let root = Tree::check(&blob).unwrap().nodes().next().unwrap();
    assert_eq!(root.value("name"), Some(&value[..]));
}

#[test]
fn header() {
    assert_eq!(fault(vec![0xd0; 39]), TreeError::NoHeader { have: 39, need: 40 });
    assert_eq!(fault(patched(0, 0xd00d_feee)), TreeError::BadMagic { found: 0xd00d_feee });
    assert_eq!(fault(patched(5, 16)), TreeError::BadVersion { version: 16, compatible: 16 });
    assert_eq!(fault(patched(6, 18)), TreeError::BadVersion { version: 17, compatible: 18 });
    assert_eq!(fault(patched(1, 39)), TreeError::SizeOutOfRange { says: 39 });
    assert_eq!(fault(patched(1, MAX_BLOB + 1)), TreeError::SizeOutOfRange { says: MAX_BLOB + 1 });
    let have = small_blob().len();
    assert_eq!(fault(patched(1, have + 1)), TreeError::BadSize { says: have + 1, have });
    // Later versions that call themselves compatible are read.
    let mut later = patched(5, 18);
    set_word(&mut later, 6, 17);
    assert_eq!(depths(later), [0, 1]);
    assert_eq!(blob_size(&small_blob()[..40]), Ok(have));
}

#[test]
fn blocks() {
    let good = small_blob();
    let (end, strings, size) = (good.len(), word(&good, 3) as usize, word(&good, 9) as usize);
    let bad = |block, offset, size| TreeError::BadBlock { block, offset, size };
    assert_eq!(fault(patched(9, end - STRUCTURE + 1)), bad("structure", STRUCTURE, end - STRUCTURE + 1));
    assert_eq!(fault(patched(9, u32::MAX as usize)), bad("structure", STRUCTURE, u32::MAX as usize));
    assert_eq!(fault(patched(2, 36)), bad("structure", 36, size));
    let odd = with_reservations(&[0; 18], &small().concat(), b"name\0");
    assert_eq!(fault(odd), bad("structure", 58, size));
    assert_eq!(fault(patched(8, 6)), bad("strings", strings, 6));
    assert_eq!(fault(patched(3, end + 1)), bad("strings", end + 1, 5));
    assert_eq!(fault(patched(3, 35)), bad("strings", 35, 5));
    assert_eq!(fault(patched(4, end + 1)), bad("memory reservation", end + 1, 16));
    assert_eq!(fault(patched(4, u32::MAX as usize)), bad("memory reservation", u32::MAX as usize, 16));
    let mut in_header = patched(4, 24);
    in_header[24..40].fill(0);
    assert_eq!(fault(in_header), bad("memory reservation", 24, 16));
}

#[test]
fn blocks_over_the_structure_block() {
    let good = small_blob();
    let size = word(&good, 9) as usize;
    let bad = TreeError::BadBlock { block: "structure", offset: STRUCTURE, size };
    assert_eq!(fault(patched(3, STRUCTURE + size - 1)), bad);
    assert_eq!(fault(patched(3, STRUCTURE - 4)), bad);
    // Sixteen zeros in a value look like the end of a reservation block.
    let structure = [begin(b""), prop(0, &[0; 16]), token(END_NODE), token(END)].concat();
    let mut blob = blob(&structure, b"name\0");
    let size = structure.len();
    set_word(&mut blob, 4, STRUCTURE as u32 + 20);
    assert_eq!(fault(blob), TreeError::BadBlock { block: "structure", offset: STRUCTURE, size });
}

#[test]
fn a_reservation_block_without_end() {
    let blob = with_reservations(&[1; 16], &small().concat(), b"name\0name\0");
    let entries = (blob.len() - 40) / 16;
    assert_eq!(fault(blob), TreeError::Truncated { offset: 40 + entries * 16 });
    assert_eq!(fault(patched(4, small_blob().len())), TreeError::Truncated { offset: small_blob().len() });
    // An entry at address zero is no end, nor is one without a size.
    let entries = [[0; 15].as_slice(), &[1], &[1], &[0; 15], &[0; 16]].concat();
    assert_eq!(depths(with_reservations(&entries, &small().concat(), b"name\0")), [0, 1]);
}

#[test]
fn a_structure_block_that_is_cut_off() {
    let tokens = small();
    let size = tokens.concat().len();
    for cut in (0..size).step_by(4) {
        let mut blob = small_blob();
        set_word(&mut blob, 9, cut as u32);
        let starts = |count: usize| STRUCTURE + tokens[..count].concat().len();
        let begun = (0..tokens.len()).rev().find(|count| starts(*count) <= STRUCTURE + cut).unwrap();
        let (offset, within) = (starts(begun), STRUCTURE + cut - starts(begun));
        let expected = match (begun, within) {
            (_, 0) => TreeError::Truncated { offset },
            // The name's end is looked for, or where the name of a property lies.
            (0 | 2, _) => TreeError::BadName { offset: offset + 4 },
            (1, 4 | 8) => TreeError::Truncated { offset: offset + within },
            _ => TreeError::Truncated { offset },
        };
        assert_eq!(fault(blob), expected, "cut to {cut}");
    }
}

#[test]
fn property_values_stay_within_the_block() {
    for length in [0x100, 0x7fff_ffff, u32::MAX - 3, u32::MAX] {
        let mut structure = small();
        structure[1][4..8].copy_from_slice(&length.to_be_bytes());
        let offset = STRUCTURE + 8;
        assert_eq!(fault(blob(&structure.concat(), b"name\0")), TreeError::Truncated { offset }, "{length}");
    }
}

#[test]
fn tokens_out_of_place() {
    let bad = |tokens: &[Vec<u8>], at: usize, token| {
        let offset = STRUCTURE + tokens[..at].concat().len();
        let error = fault(blob(&tokens.concat(), b"name\0"));
        assert_eq!(error, TreeError::BadToken { token, offset });
    };
    let (root, node) = (begin(b""), begin(b"node"));
    let (property, end_node, end) = (prop(0, b""), token(END_NODE), token(END));
    for unknown in [0, 5, 6, 8, 10, 0x0100_0000, u32::MAX] {
        bad(&[root.clone(), token(unknown)], 1, unknown);
    }
    bad(&[property.clone(), root.clone()], 0, PROP);
    bad(&[end_node.clone(), end.clone()], 0, END_NODE);
    bad(&[end.clone(), root.clone()], 0, END);
    bad(&[root.clone(), end.clone()], 1, END);
    // A second root; a property, a node's end behind the root's end.
    bad(&[root.clone(), end_node.clone(), root.clone(), end_node.clone(), end.clone()], 2, BEGIN_NODE);
    bad(&[root.clone(), end_node.clone(), property.clone(), end], 2, PROP);
    bad(&[root.clone(), end_node.clone(), end_node.clone()], 2, END_NODE);
    // A property behind a node.
    bad(&[root, node, end_node, property], 3, PROP);
}

#[test]
fn names() {
    let tree = |tokens: &[Vec<u8>], strings: &[u8]| fault(blob(&tokens.concat(), strings));
    let (end_node, end) = (token(END_NODE), token(END));
    let not_utf8 = [begin(b""), begin(b"node\xff"), end_node.clone(), end_node.clone(), end.clone()];
    assert_eq!(tree(&not_utf8, b""), TreeError::BadName { offset: STRUCTURE + 12 });
    // It runs to the block's end, and would be ended only by what lies behind.
    let endless = [begin(b""), token(BEGIN_NODE), b"name".to_vec()];
    assert_eq!(tree(&endless, b"name\0"), TreeError::BadName { offset: STRUCTURE + 12 });
    let named = |name_at, strings: &[u8]| {
        let tokens = [begin(b""), prop(name_at, b"value"), end_node.clone(), end.clone()];
        let strings_at = STRUCTURE + tokens.concat().len();
        let mut blob = blob(&tokens.concat(), strings);
        // Behind the strings block lies a zero that is not its own.
        blob.push(0);
        let size = blob.len() as u32;
        set_word(&mut blob, 1, size);
        (Tree::check(&blob).map(|_| ()), strings_at)
    };
    for (name_at, strings) in [
        (0, &b"name"[..]),
        (0, b"na\xffme\0"),
        (5, b"name\0"),
        (6, b"name\0"),
        (u32::MAX, b"name\0"),
        (0, b""),
    ] {
        let (result, strings_at) = named(name_at, strings);
        assert_eq!(result, Err(TreeError::BadName { offset: strings_at + name_at as usize }), "{name_at}");
    }
    // The end of a name may be another's.
    assert_eq!(named(2, b"name\0").0, Ok(()));
    assert_eq!(named(4, b"name\0").0, Ok(()));
}

#[test]
fn nesting() {
    let nested = |levels: usize| {
        let ends = token(END_NODE).repeat(levels);
        let nodes = [begin(b""), begin(b"abc").repeat(levels - 1)].concat();
        blob(&[nodes, ends, token(END)].concat(), b"")
    };
    assert_eq!(depths(nested(16)), (0..16).collect::<Vec<_>>());
    let offset = STRUCTURE + 8 + 15 * 8;
    assert_eq!(fault(nested(17)), TreeError::TooDeep { offset });
    assert_eq!(fault(nested(100)), TreeError::TooDeep { offset });
}

#[test]
fn too_many_nodes() {
    let wide = |nodes: usize| {
        let leaves = [begin(b"abc"), token(END_NODE)].concat().repeat(nodes - 1);
        blob(&[begin(b""), leaves, token(END_NODE), token(END)].concat(), b"")
    };
    assert_eq!(depths(wide(4096)).len(), 4096);
    assert_eq!(fault(wide(4097)), TreeError::TooManyNodes);
}

#[test]
fn cells_of_a_wrong_size() {
    for name in ["#address-cells", "#size-cells"] {
        for length in [0, 3, 5, 8] {
            let structure =
                [begin(b""), begin(b"bus"), prop(0, &vec![0; length]), token(END_NODE), token(END_NODE)];
            let blob = blob(&[structure.concat(), token(END)].concat(), &[name.as_bytes(), &[0]].concat());
            assert_eq!(fault(blob), TreeError::BadCells { offset: STRUCTURE + 16 }, "{name}, {length}");
        }
    }
}

#[test]
fn messages_say_what_was_found() {
    let text = |error: TreeError| error.to_string();
    assert_eq!(
        text(TreeError::BadMagic { found: 0x1f }),
        "no device tree: it starts with 0x0000001f, not with 0xd00dfeed"
    );
    assert_eq!(
        text(TreeError::SizeOutOfRange { says: 9 }),
        "the device tree says that it has 9 bytes; 40 to 2097152 are accepted"
    );
    assert_eq!(
        text(TreeError::TooDeep { offset: 0x40 }),
        "the device tree is nested deeper than 16 levels at 0x40"
    );
}
