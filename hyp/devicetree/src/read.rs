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
        let Self { structure, strings, .. } = *self;
        let (mut cursor, mut depth) = (structure, 0_usize);
        core::iter::from_fn(move || {
            loop {
                match cursor.take().ok()?.1 {
                    Token::Begin(name) => {
                        let node = Node { name, depth, body: cursor, strings };
                        depth = depth.saturating_add(1);
                        return Some(node);
                    }
                    Token::End => depth = depth.saturating_sub(1),
                    Token::Property { .. } => {}
                    Token::Last => return None,
                }
            }
        })
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

impl<'a> Node<'a> {
    /// Its properties, in the order of the blob.
    pub fn properties(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        let (mut cursor, strings) = (self.body, self.strings);
        core::iter::from_fn(move || match cursor.take() {
            Ok((offset, Token::Property { name, value })) => {
                let offset = offset.saturating_add(PROPERTY_HEADER);
                Some(Property { name: terminated(strings, name)?, value, offset })
            }
            _ => None,
        })
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
