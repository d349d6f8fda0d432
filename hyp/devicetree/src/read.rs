//! Nodes and properties of a tree that has been checked.

use crate::token::{Cursor, PROPERTY_HEADER, Token, terminated};

/// A tree that has been checked.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// Where the structure block begins.
    pub(crate) structure: Cursor<'a>,
    pub(crate) strings: &'a [u8],
    /// The entries of the memory reservation block, without the one that ends it.
    pub(crate) reservations: &'a [[u8; 16]],
}

/// A node.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// Its name with its unit address, without a zero; the root's is empty. It is UTF-8.
    pub name: &'a [u8],
    /// How many nodes it is in, up to [`MAX_DEPTH`](crate::MAX_DEPTH) less one.
    pub depth: usize,
    /// Behind the name.
    body: Cursor<'a>,
    strings: &'a [u8],
}

/// A way through a tree: from node to node, with those properties that are asked for between them.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    cursor: Cursor<'a>,
    /// How many nodes the cursor is in.
    depth: usize,
    strings: &'a [u8],
}

/// A property.
#[derive(Clone, Copy, Debug)]
pub struct Property<'a> {
    /// Its name, without a zero. It is UTF-8.
    pub name: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// Where the value is in the blob, in bytes.
    pub offset: usize,
}

impl<'a> Tree<'a> {
    /// All nodes, in the order of the blob: what is in a node follows it.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let mut walk = self.walk();
        core::iter::from_fn(move || walk.node())
    }

    /// All nodes and properties in one pass, in the order of the blob.
    pub fn walk(&self) -> Walk<'a> {
        Walk { cursor: self.structure, depth: 0, strings: self.strings }
    }

    /// Address and size of each entry of the memory reservation block.
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        self.reservations.iter().map(|entry| {
            let entry = u128::from_be_bytes(*entry);
            // Truncation takes the low half.
            ((entry >> 64) as u64, entry as u64)
        })
    }
}

impl<'a> Walk<'a> {
    /// The next node.
    pub fn node(&mut self) -> Option<Node<'a>> {
        loop {
            match self.cursor.take().ok()?.1 {
                Token::Begin(name) => {
                    let node = Node { name, depth: self.depth, body: self.cursor, strings: self.strings };
                    self.depth = self.depth.saturating_add(1);
                    return Some(node);
                }
                Token::End => self.depth = self.depth.saturating_sub(1),
                Token::Property { .. } => {}
                Token::Last => return None,
            }
        }
    }

    /// The next property of the node that came last. The walk stays before what is none.
    pub fn property(&mut self) -> Option<Property<'a>> {
        let mut cursor = self.cursor;
        let Ok((offset, Token::Property { name, value })) = cursor.take() else { return None };
        self.cursor = cursor;
        let offset = offset.saturating_add(PROPERTY_HEADER);
        Some(Property { name: terminated(self.strings, name)?, value, offset })
    }
}

impl<'a> Node<'a> {
    /// Its properties, in the order of the blob.
    pub fn properties(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let mut walk = Walk { cursor: self.body, depth: self.depth, strings: self.strings };
        core::iter::from_fn(move || walk.property())
    }

    /// The value of the first property of this name.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        self.properties().find(|property| property.name == name.as_bytes()).map(|property| property.value)
    }
}

/// The cell at `index` of a value.
pub fn cell(value: &[u8], index: usize) -> Option<u32> {
    let (cells, _) = value.as_chunks();
    cells.get(index).map(|cell| u32::from_be_bytes(*cell))
}
