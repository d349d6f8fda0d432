//! The numbers of the format, for readers and writers (Devicetree Specification v0.4, sections 5.2 and 5.4).

/// What a blob begins with.
pub const MAGIC: u32 = 0xd00d_feed;
/// The version of the format since 2005: the header tells the sizes of both blocks.
pub const VERSION: u32 = 17;
/// Bytes of the header: ten cells.
pub const HEADER_BYTES: usize = 40;

/// A node begins; its name follows.
pub const BEGIN_NODE: u32 = 1;
/// The node ends that has begun last.
pub const END_NODE: u32 = 2;
/// A property; its length, the place of its name and its value follow.
pub const PROP: u32 = 3;
/// Nothing.
pub const NOP: u32 = 4;
/// The tree ends.
pub const END: u32 = 9;
