//! What is wrong with a blob: where its blocks lie, tokens, nesting, names. Of properties, the two are looked at that the nesting of
//! addresses rests on.

use core::ops::Range;

use thiserror::Error;

use crate::format::{HEADER_BYTES, MAGIC, VERSION};
use crate::read::Tree;
use crate::token::{Cursor, Token, terminated};

/// Largest blob that is accepted, in bytes: the limit of the arm64 Linux boot protocol.
pub const MAX_BLOB: usize = 2 << 20;

/// Most nodes that a tree may have. A Raspberry Pi 4's has about 700.
const MAX_NODES: usize = 4096;

/// Deepest nesting that is followed, the root being the first level; real trees stay below ten.
pub const MAX_DEPTH: usize = 16;

/// Why a blob is no device tree that can be used. Offsets are in bytes from the blob's start.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum TreeError {
    #[error("the device tree ends after {have} bytes, before its {need}-byte header does")]
    NoHeader { have: usize, need: usize },
    #[error("no device tree: it starts with {found:#010x}, not with {MAGIC:#010x}")]
    BadMagic { found: u32 },
    #[error("device tree version {version} (compatible with {compatible}): version {VERSION} is needed")]
    BadVersion { version: u32, compatible: u32 },
    #[error("the device tree says that it has {says} bytes; {HEADER_BYTES} to {MAX_BLOB} are accepted")]
    SizeOutOfRange { says: usize },
    #[error("the device tree says that it has {says} bytes; {have} are there")]
    BadSize { says: usize, have: usize },
    #[error(
        "the device tree's {block} block, {size} bytes at {offset:#x}, lies outside the blob or over another block"
    )]
    BadBlock { block: &'static str, offset: usize, size: usize },
    #[error("the device tree is cut off at {offset:#x}")]
    Truncated { offset: usize },
    #[error("unexpected token {token:#x} at {offset:#x} of the device tree")]
    BadToken { token: u32, offset: usize },
    #[error("a name at {offset:#x} of the device tree is no terminated UTF-8 string")]
    BadName { offset: usize },
    #[error("the device tree is nested deeper than {MAX_DEPTH} levels at {offset:#x}")]
    TooDeep { offset: usize },
    #[error("the device tree has more than {MAX_NODES} nodes")]
    TooManyNodes,
    #[error("node at {offset:#x} of the device tree: #address-cells or #size-cells is no 32-bit number")]
    BadCells { offset: usize },
}

/// The blob's size in bytes as its header has it, from the blob's first bytes (40 are enough).
///
/// # Errors
/// Anything but a header of a size up to [`MAX_BLOB`].
pub fn blob_size(start: &[u8]) -> Result<usize, TreeError> {
    let header =
        start.get(..HEADER_BYTES).ok_or(TreeError::NoHeader { have: start.len(), need: HEADER_BYTES })?;
    let word = |index: usize| read_u32(header, index).unwrap_or(0);
    if word(0) != MAGIC {
        return Err(TreeError::BadMagic { found: word(0) });
    }
    let (version, compatible) = (word(5), word(6));
    if version < VERSION || compatible > VERSION {
        return Err(TreeError::BadVersion { version, compatible });
    }
    let says = word(1) as usize;
    if !(HEADER_BYTES..=MAX_BLOB).contains(&says) {
        return Err(TreeError::SizeOutOfRange { says });
    }
    Ok(says)
}

impl<'a> Tree<'a> {
    /// Checks a blob, behind which other bytes may follow.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(blob: &'a [u8]) -> Result<Self, TreeError> {
        let size = blob_size(blob)?;
        let have = blob.len();
        let blob = blob.get(..size).ok_or(TreeError::BadSize { says: size, have })?;
        let word = |index: usize| read_u32(blob, index).unwrap_or(0) as usize;
        let structure = block("structure", word(2), word(9), size)?;
        let strings = block("strings", word(3), word(8), size)?;
        let reservations = reservations(blob, word(4))?;
        if !structure.start.is_multiple_of(4) || meet(&structure, &strings) || meet(&structure, &reservations)
        {
            let (offset, size) = (structure.start, structure.len());
            return Err(TreeError::BadBlock { block: "structure", offset, size });
        }
        let bytes = |block: &Range<usize>| blob.get(block.clone()).unwrap_or_default();
        let tree = Self {
            structure: Cursor::new(bytes(&structure), structure.start),
            strings: bytes(&strings),
            // The last entry only ends the block.
            reservations: bytes(&reservations).as_chunks().0.split_last().map_or(&[], |(_, entries)| entries),
        };
        tree.check_structure(strings.start)?;
        Ok(tree)
    }

    fn check_structure(&self, strings_at: usize) -> Result<(), TreeError> {
        let names = Names::new(self.strings, strings_at);
        let (mut nodes, mut depth) = (0_usize, 0_usize);
        // Properties come before subnodes; the reader relies on it.
        let mut properties_may_follow = false;
        let mut cursor = self.structure;
        loop {
            let (offset, token) = cursor.take()?;
            match token {
                Token::Begin(name) if depth > 0 || nodes == 0 => {
                    if depth == MAX_DEPTH {
                        return Err(TreeError::TooDeep { offset });
                    }
                    if nodes == MAX_NODES {
                        return Err(TreeError::TooManyNodes);
                    }
                    let bad_name = TreeError::BadName { offset: offset.saturating_add(4) };
                    core::str::from_utf8(name).map_err(|_| bad_name)?;
                    (nodes, depth) = (nodes.saturating_add(1), depth.saturating_add(1));
                    properties_may_follow = true;
                }
                Token::Property { name, value } if properties_may_follow => {
                    names.check(name)?;
                    if value.len() != 4 && names.is_of_cells(name) {
                        return Err(TreeError::BadCells { offset });
                    }
                }
                Token::End if depth > 0 => {
                    depth = depth.saturating_sub(1);
                    properties_may_follow = false;
                }
                Token::Last if depth == 0 && nodes != 0 => return Ok(()),
                _ => return Err(TreeError::BadToken { token: token.number(), offset }),
            }
        }
    }
}

/// The strings block, in which the names of properties are.
struct Names<'a> {
    block: &'a [u8],
    offset: usize,
    /// A name may begin anywhere in it: it is ASCII, and ends with a zero. So it is in any tree that was made by a tool.
    is_plain: bool,
}

impl<'a> Names<'a> {
    fn new(block: &'a [u8], offset: usize) -> Self {
        Self { block, offset, is_plain: block.is_ascii() && block.ends_with(&[0]) }
    }

    fn check(&self, name: usize) -> Result<(), TreeError> {
        if self.is_plain && name < self.block.len() {
            return Ok(());
        }
        let bad_name = TreeError::BadName { offset: self.offset.saturating_add(name) };
        let name = terminated(self.block, name).ok_or(bad_name)?;
        core::str::from_utf8(name).map(|_| ()).map_err(|_| bad_name)
    }

    /// Whether it is one of the two that tell how many cells addresses and sizes have.
    fn is_of_cells(&self, name: usize) -> bool {
        let begins = |with: &[u8]| self.block.get(name..).is_some_and(|name| name.starts_with(with));
        begins(b"#address-cells\0") || begins(b"#size-cells\0")
    }
}

/// Where a block lies, if it lies behind the header and within the blob's `end`.
fn block(block: &'static str, offset: usize, size: usize, end: usize) -> Result<Range<usize>, TreeError> {
    let behind = offset.checked_add(size).filter(|behind| offset >= HEADER_BYTES && *behind <= end);
    behind.map(|behind| offset..behind).ok_or(TreeError::BadBlock { block, offset, size })
}

/// Where the memory reservation block lies: it ends with the first entry of zeros (section 5.3).
fn reservations(blob: &[u8], offset: usize) -> Result<Range<usize>, TreeError> {
    let name = "memory reservation";
    let bytes = blob.get(offset..).ok_or(TreeError::BadBlock { block: name, offset, size: 16 })?;
    let (entries, _) = bytes.as_chunks::<16>();
    let count = entries.iter().take_while(|entry| **entry != [0; 16]).count();
    if count == entries.len() {
        return Err(TreeError::Truncated { offset: offset.saturating_add(count.saturating_mul(16)) });
    }
    block(name, offset, count.saturating_add(1).saturating_mul(16), blob.len())
}

fn meet(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The cell of this number.
fn read_u32(bytes: &[u8], index: usize) -> Option<u32> {
    bytes.as_chunks().0.get(index).map(|cell| u32::from_be_bytes(*cell))
}
