//! What fits where in a VM's RAM.

use core::ops::Range;

use vmm::layout::Layout;

use super::Segment;
use super::bytes::length;
use super::error::{PayloadError, PayloadReason, What};
use crate::manifest::MEMORY_UNIT;

/// Where a tree that can't be at RAM's base is put: Linux maps it by blocks of this size.
const TREE_ALIGNMENT: u64 = 2 << 20;
/// The least alignment of a tree: a page, so that it shares none with the payload.
const PAGE: u64 = 4 << 10;

/// A VM's RAM.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ram {
    /// First address.
    pub(super) start: u64,
    /// First address behind it.
    pub(super) end: u64,
    /// Where RAM would end if the VM had as much as the layout has room for.
    limit: u64,
}

impl Ram {
    /// The RAM of a VM with `memory` bytes.
    pub(super) fn new(layout: &Layout, memory: u64) -> Result<Self, PayloadError> {
        if memory > layout.ram.size {
            let reason = PayloadReason::Memory { memory, most: layout.ram.size };
            return Err(PayloadError { property: "memory", reason });
        }
        let start = layout.ram.base.as_u64();
        Ok(Self { start, end: start.saturating_add(memory), limit: layout.ram.end().as_u64() })
    }

    /// The range of `size` bytes at `start`, if all of it is RAM.
    pub(super) fn range(&self, what: What, start: u64, size: u64) -> Result<Range<u64>, PayloadReason> {
        if start < self.start || start >= self.limit {
            return Err(PayloadReason::OutsideRam { what, start, ram_start: self.start, ram_end: self.end });
        }
        match start.checked_add(size) {
            Some(end) if end <= self.end => Ok(start..end),
            Some(end) if end <= self.limit => {
                let enough = align_up(end.saturating_sub(self.start), MEMORY_UNIT);
                Err(PayloadReason::BeyondRam { what, start, size, ram_end: self.end, enough })
            }
            _ => Err(PayloadReason::TooLarge { what, start, size }),
        }
    }
}

/// Where a tree of up to `size` bytes goes beside `segments`, which are in ascending order: RAM's base, where firmware looks for it;
/// else the end of RAM,
/// far from what the payload may take behind itself.
pub(super) fn tree(ram: &Ram, size: u64, segments: &[Segment<'_>]) -> Result<u64, PayloadReason> {
    let no_room = PayloadReason::NoRoomForTree { size };
    let first = segments.first().map_or(ram.end, |segment| segment.ipa.as_u64());
    if first.saturating_sub(ram.start) >= size {
        return Ok(ram.start);
    }
    let behind = segments.last().map_or(ram.start, end);
    let last = ram.end.checked_sub(size).ok_or(no_room)?;
    let candidates = [align_down(last, TREE_ALIGNMENT), align_down(last, PAGE)];
    candidates.into_iter().find(|&start| start >= behind).ok_or(no_room)
}

/// The first address behind a segment, which is known to lie in RAM.
fn end(segment: &Segment<'_>) -> u64 {
    segment.ipa.as_u64().saturating_add(length(segment.bytes)).saturating_add(segment.zero_after)
}

/// The next multiple of `alignment`, a power of two; the last one there is where none follows.
pub(super) const fn align_up(value: u64, alignment: u64) -> u64 {
    align_down(value.saturating_add(alignment.wrapping_sub(1)), alignment)
}

/// The multiple of `alignment`, a power of two, at or before `value`.
pub(super) const fn align_down(value: u64, alignment: u64) -> u64 {
    value & !alignment.wrapping_sub(1)
}
