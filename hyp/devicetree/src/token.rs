//! The structure block's tokens (section 5.4).

use crate::check::TreeError;
use crate::format::{BEGIN_NODE, END, END_NODE, NOP, PROP};

/// Bytes of a property before its value.
pub const PROPERTY_HEADER: usize = 12;

/// A token with what belongs to it.
pub enum Token<'a> {
    /// A node begins, with this name.
    Begin(&'a [u8]),
    /// A property of the node that has begun last.
    Property {
        /// Where its name is in the strings block.
        name: usize,
        value: &'a [u8],
    },
    /// The node ends that has begun last.
    End,
    /// The tree ends.
    Last,
}

impl Token<'_> {
    /// The token's own number.
    pub fn number(&self) -> u32 {
        match self {
            Self::Begin(_) => BEGIN_NODE,
            Self::Property { .. } => PROP,
            Self::End => END_NODE,
            Self::Last => END,
        }
    }
}

/// A place in the structure block.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    rest: &'a [[u8; 4]],
    /// Where in the blob the block ends, in bytes; what doesn't fill a cell is left out.
    end: usize,
}

impl<'a> Cursor<'a> {
    /// The start of a block, which is at `offset` in its blob.
    pub fn new(block: &'a [u8], offset: usize) -> Self {
        let rest = block.as_chunks().0;
        Self { rest, end: offset.saturating_add(rest.as_flattened().len()) }
    }

    /// Takes the next token, and says where it is in the blob. FDT_NOP is passed over.
    ///
    /// # Errors
    /// It is cut off, or there is none of this number.
    pub fn take(&mut self) -> Result<(usize, Token<'a>), TreeError> {
        loop {
            let offset = self.offset();
            let cut_off = TreeError::Truncated { offset: self.end };
            let [number, rest @ ..] = self.rest else { return Err(cut_off) };
            let (token, rest) = match u32::from_be_bytes(*number) {
                NOP => {
                    self.rest = rest;
                    continue;
                }
                BEGIN_NODE => {
                    let bad_name = TreeError::BadName { offset: offset.saturating_add(4) };
                    let name = terminated(rest.as_flattened(), 0).ok_or(bad_name)?;
                    // A zero is behind it, in the last of its cells.
                    let behind = rest.get((name.len() / 4).saturating_add(1)..).unwrap_or_default();
                    (Token::Begin(name), behind)
                }
                PROP => {
                    let [length, name, rest @ ..] = rest else { return Err(cut_off) };
                    let length = u32::from_be_bytes(*length) as usize;
                    let halves = rest.split_at_checked(length.div_ceil(4));
                    let (value, behind) = halves.ok_or(TreeError::Truncated { offset })?;
                    let value = value.as_flattened().get(..length).unwrap_or_default();
                    (Token::Property { name: u32::from_be_bytes(*name) as usize, value }, behind)
                }
                END_NODE => (Token::End, rest),
                END => (Token::Last, rest),
                token => return Err(TreeError::BadToken { token, offset }),
            };
            self.rest = rest;
            return Ok((offset, token));
        }
    }

    fn offset(&self) -> usize {
        self.end.saturating_sub(self.rest.as_flattened().len())
    }
}

/// The bytes from `offset` to the next zero; `None` if there is none.
pub fn terminated(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let bytes = bytes.get(offset..)?;
    bytes.get(..bytes.iter().position(|byte| *byte == 0)?)
}
