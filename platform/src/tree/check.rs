//! Walks a flattened device tree from its first token to its last, so that the reader may trust every offset and the
//! nesting (Devicetree Specification v0.4, chapter 5).
//!
//! FDT_NOP tokens are squeezed out in place: they carry nothing, and readers differ in where they expect them.
//!
//! What the properties mean is not looked at here, but for the two that the nesting of addresses rests on.

use core::ops::Range;

use arrayvec::ArrayVec;
use thiserror::Error;

/// Largest blob that is accepted, in bytes: the limit of the arm64 Linux boot protocol.
pub const MAX_BLOB: usize = 2 << 20;

/// Most nodes that a tree may have. A Raspberry Pi 4's has about 700.
const MAX_NODES: usize = 4096;

/// Deepest nesting that is followed, the root being the first level; real trees stay below ten.
pub(super) const MAX_DEPTH: usize = 16;

const HEADER_BYTES: usize = 40;
const MAGIC: u32 = 0xd00d_feed;
/// The version of the format since 2005: the header tells the sizes of both blocks.
const VERSION: u32 = 17;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

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

/// How the nodes of a checked tree nest, in the order in which they stand in the blob.
#[derive(Debug, Default)]
pub struct Shape {
    depths: ArrayVec<u8, MAX_NODES>,
}

impl Shape {
    /// The depth of each node, the root's being 0.
    pub fn depths(&self) -> impl Iterator<Item = usize> + '_ {
        self.depths.iter().map(|depth| usize::from(*depth))
    }
}

/// The blob's size in bytes as its header has it, from the blob's first bytes (40 are enough).
///
/// # Errors
/// Anything but a header of a size up to [`MAX_BLOB`].
pub fn blob_size(start: &[u8]) -> Result<usize, TreeError> {
    let header =
        start.get(..HEADER_BYTES).ok_or(TreeError::NoHeader { have: start.len(), need: HEADER_BYTES })?;
    let word = |index: usize| read_u32(header, index * 4).unwrap_or(0);
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

/// Checks the blob and squeezes its FDT_NOP tokens out, and notes in `shape` how its nodes nest.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(blob: &mut [u8], shape: &mut Shape) -> Result<(), TreeError> {
    shape.depths.clear();
    let size = blob_size(blob)?;
    let have = blob.len();
    let blob = blob.get_mut(..size).ok_or(TreeError::BadSize { says: size, have })?;
    let word = |index: usize| read_u32(blob, index * 4).unwrap_or(0) as usize;
    let structure = block("structure", word(2), word(9), size)?;
    let strings = block("strings", word(3), word(8), size)?;
    let reservations = reservations(blob, word(4))?;
    // What follows changes the structure block and its size in the header; it must change nothing else.
    if !structure.start.is_multiple_of(4) || meet(&structure, &strings) || meet(&structure, &reservations) {
        let (offset, size) = (structure.start, structure.len());
        return Err(TreeError::BadBlock { block: "structure", offset, size });
    }
    let mut walk = Walk { blob, at: structure.start, end: structure.end, to: structure.start };
    let new_end = walk.run(strings, shape)?;
    let new_size = (new_end - structure.start) as u32;
    if let Some(field) = blob.get_mut(36..40) {
        field.copy_from_slice(&new_size.to_be_bytes());
    }
    Ok(())
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
        return Err(TreeError::Truncated { offset: offset + count * 16 });
    }
    block(name, offset, (count + 1) * 16, blob.len())
}

fn meet(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A walk over the structure block: tokens are read at `at` and, where a NOP stood before, moved down to `to`.
struct Walk<'a> {
    blob: &'a mut [u8],
    at: usize,
    end: usize,
    to: usize,
}

impl Walk<'_> {
    /// Returns where the squeezed block ends.
    fn run(&mut self, strings: Range<usize>, shape: &mut Shape) -> Result<usize, TreeError> {
        let mut depth = 0usize;
        // Properties come before subnodes; the reader relies on it.
        let mut properties_may_follow = false;
        loop {
            let offset = self.at;
            let token = self.peek(offset)?;
            match token {
                NOP => self.at += 4,
                BEGIN_NODE if depth > 0 || shape.depths.is_empty() => {
                    if depth == MAX_DEPTH {
                        return Err(TreeError::TooDeep { offset });
                    }
                    let name = self.name_end(offset + 4, self.end)?;
                    shape.depths.try_push(depth as u8).map_err(|_| TreeError::TooManyNodes)?;
                    self.keep((name - offset).next_multiple_of(4))?;
                    depth += 1;
                    properties_may_follow = true;
                }
                PROP if properties_may_follow => self.property(strings.clone())?,
                END_NODE if depth > 0 => {
                    self.keep(4)?;
                    depth -= 1;
                    properties_may_follow = false;
                }
                END if depth == 0 && !shape.depths.is_empty() => {
                    self.keep(4)?;
                    return Ok(self.to);
                }
                _ => return Err(TreeError::BadToken { token, offset }),
            }
        }
    }

    fn property(&mut self, strings: Range<usize>) -> Result<(), TreeError> {
        let offset = self.at;
        let length = self.peek(offset + 4)? as usize;
        let name = strings.start.saturating_add(self.peek(offset + 8)? as usize);
        let name_end = self.name_end(name, strings.end)?;
        let cells = matches!(self.blob.get(name..name_end - 1), Some(b"#address-cells" | b"#size-cells"));
        if cells && length != 4 {
            return Err(TreeError::BadCells { offset });
        }
        let bytes = length.checked_next_multiple_of(4).and_then(|bytes| bytes.checked_add(12));
        self.keep(bytes.ok_or(TreeError::Truncated { offset })?)
    }

    fn peek(&self, offset: usize) -> Result<u32, TreeError> {
        if offset + 4 > self.end {
            return Err(TreeError::Truncated { offset });
        }
        read_u32(self.blob, offset).ok_or(TreeError::Truncated { offset })
    }

    /// The offset behind the terminating zero of the string at `offset`.
    fn name_end(&self, offset: usize, limit: usize) -> Result<usize, TreeError> {
        let bad = TreeError::BadName { offset };
        let bytes = self.blob.get(offset..limit).ok_or(bad)?;
        let length = bytes.iter().position(|byte| *byte == 0).ok_or(bad)?;
        core::str::from_utf8(bytes.get(..length).ok_or(bad)?).map_err(|_| bad)?;
        Ok(offset + length + 1)
    }

    /// Takes `bytes` bytes over into the squeezed block.
    fn keep(&mut self, bytes: usize) -> Result<(), TreeError> {
        let behind = self.at.checked_add(bytes).filter(|behind| *behind <= self.end);
        let behind = behind.ok_or(TreeError::Truncated { offset: self.at })?;
        if self.at != self.to {
            self.blob.copy_within(self.at..behind, self.to);
        }
        self.to += bytes;
        self.at = behind;
        Ok(())
    }
}
