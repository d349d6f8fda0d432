//! What the check of a blob finds, and what it does to a good one.

mod trees;

use platform::tree::{Board, MAX_BLOB, Shape, TreeError, blob_size, check};
use trees::blob::*;
use trees::{checked, pi4, virt_v2, virt_v3};

/// What is wrong with a blob.
fn fault(mut blob: Vec<u8>) -> TreeError {
    checked(&mut blob).map(|_| ()).expect_err("a bad tree")
}

fn depths(mut blob: Vec<u8>) -> Vec<usize> {
    checked(&mut blob).expect("a good tree").depths().collect()
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
fn good_trees_stay_as_they_are() {
    assert_eq!(depths(small_blob()), [0, 1]);
    for tree in [virt_v3(), virt_v2(), pi4()] {
        let blob = tree.to_dtb();
        let mut after = blob.clone();
        let shape = checked(&mut after).expect("a good tree");
        assert_eq!(after, blob);
        let nodes = fdt::Fdt::new(&after).unwrap().all_nodes().count();
        assert_eq!(shape.depths().count(), nodes);
    }
}

#[test]
fn bytes_behind_the_tree_do_not_matter() {
    let mut blob = small_blob();
    blob.extend([0xff; 100]);
    assert_eq!(depths(blob), [0, 1]);
}

#[test]
fn a_shape_can_be_used_again() {
    let mut shape = Shape::default();
    let mut blob = small_blob();
    for _ in 0..2 {
        assert_eq!(check(&mut blob, &mut shape), Ok(()));
        assert_eq!(shape.depths().collect::<Vec<_>>(), [0, 1]);
    }
    assert_eq!(check(&mut [], &mut shape), Err(TreeError::NoHeader { have: 0, need: 40 }));
    assert_eq!(shape.depths().count(), 0);
}

/// Checks both, and compares the blocks and what is read.
fn assert_squeezed(plain: &[u8], mut with_nops: Vec<u8>) {
    let (mut plain, before) = (plain.to_vec(), with_nops.clone());
    let plain_shape = checked(&mut plain).unwrap();
    let shape = checked(&mut with_nops).unwrap();
    assert_eq!(tokens(&with_nops), tokens(&plain));
    assert_eq!(with_nops[..36], before[..36]);
    let strings = word(&before, 3) as usize;
    assert_eq!(with_nops[strings..], before[strings..]);
    let reading = format!("{:?}", Board::read(&with_nops, &shape));
    assert_eq!(reading, format!("{:?}", Board::read(&plain, &plain_shape)));
    let squeezed = with_nops.clone();
    checked(&mut with_nops).unwrap();
    assert_eq!(with_nops, squeezed);
}

#[test]
fn nops_are_squeezed_out_wherever_they_stand() {
    for tree in [virt_v3(), virt_v2(), pi4()] {
        let blob = tree.to_dtb();
        for place in 0..tokens(&blob).len() {
            assert_squeezed(&blob, with_nops(&blob, |token| usize::from(token == place)));
        }
        assert_squeezed(&blob, with_nops(&blob, |_| 1));
        assert_squeezed(&blob, with_nops(&blob, |token| token * 7 % 4));
    }
}

#[test]
fn a_nop_in_a_value_is_none() {
    let value = [0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 9];
    let tokens = [token(NOP), begin(b""), token(NOP), prop(0, &value), token(END_NODE), token(END)];
    let mut blob = blob(&tokens.concat(), b"name\0");
    checked(&mut blob).unwrap();
    let root = fdt::Fdt::new(&blob).unwrap();
    assert_eq!(root.all_nodes().next().unwrap().property("name").unwrap().value, value);
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
    // Names in the header would change under the reader when the structure block's size does.
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
        (checked(&mut blob).map(|_| ()), strings_at)
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
    // The deepest node that is followed still stands on its buses.
    let mut deepest = nested(16);
    let shape = checked(&mut deepest).unwrap();
    assert!(Board::console_of(&deepest, &shape).is_none());
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
            let blob = blob(&[structure.concat(), token(END)].concat(), &trees::strings(&[name]));
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
