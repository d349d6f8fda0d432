//! Moving through tables: nodes, the slots in them, and visits to every leaf and hole of a range. Reads only.

use core::ops::ControlFlow;

use crate::addr::{Ipa, PAGE_SHIFT, Pa, PaRange};
use crate::descriptor::{CONTIGUOUS, Entry, GROUP, group_span};
use crate::environment::Environment;
use crate::geometry::{ENTRIES, Geometry, INDEX_BITS, Level};

/// A range of intermediate physical addresses from `from` up to `to`, both multiples of a page. Operations are about ranges that
/// are not empty.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Span {
    pub(crate) const EMPTY: Self = Self { from: 0, to: 0 };

    #[inline]
    pub(crate) const fn contains(self, ipa: u64) -> bool {
        self.from <= ipa && ipa < self.to
    }
}

/// A table, or the start tables side by side, with the address that its first entry translates.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    pub(crate) table: Pa,
    pub(crate) level: Level,
    base: u64,
    entries: u64,
}

/// One entry: where it lies and what it spans.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    table: Pa,
    index: usize,
    pub(crate) level: Level,
    pub(crate) ipa: Ipa,
}

impl Node {
    pub(crate) const fn root(table: Pa, geometry: Geometry) -> Self {
        let entries = ENTRIES.wrapping_mul(geometry.start_tables() as u64);
        Self { table, level: geometry.start_level(), base: 0, entries }
    }

    /// All that the node translates.
    pub(crate) const fn span(self) -> Span {
        Span { from: self.base, to: self.base.wrapping_add(self.entries.wrapping_shl(self.level.shift())) }
    }

    /// Entry `number`, counted over tables that lie side by side.
    #[inline]
    pub(crate) const fn slot(self, number: u64) -> Slot {
        let table = self.table.as_u64().wrapping_add((number >> INDEX_BITS).wrapping_shl(PAGE_SHIFT));
        Slot {
            table: Pa::new(table),
            index: (number & (ENTRIES - 1)) as usize,
            level: self.level,
            ipa: Ipa::new(self.base.wrapping_add(number.wrapping_shl(self.level.shift()))),
        }
    }

    /// The entry that translates `ipa`, which lies within the node.
    pub(crate) const fn slot_of(self, ipa: u64) -> Slot {
        self.slot(ipa.wrapping_sub(self.base).wrapping_shr(self.level.shift()))
    }

    /// The entries that translate any of `span`.
    #[inline]
    pub(crate) fn slots(self, span: Span) -> impl Iterator<Item = Slot> {
        let own = self.span();
        let (from, to) = (span.from.max(own.from), span.to.min(own.to));
        let shift = self.level.shift();
        let first = from.wrapping_sub(self.base).wrapping_shr(shift);
        let end =
            to.wrapping_sub(self.base).wrapping_add(self.level.span().wrapping_sub(1)).wrapping_shr(shift);
        (first..end).map(move |number| self.slot(number))
    }

    /// All entries.
    #[inline]
    pub(crate) fn all_slots(self) -> impl Iterator<Item = Slot> {
        (0..self.entries).map(move |number| self.slot(number))
    }
}

impl Slot {
    #[inline]
    pub(crate) fn read<E: Environment>(self, env: &E) -> u64 {
        env.read(self.table, self.index)
    }

    #[inline]
    pub(crate) fn write<E: Environment>(self, env: &mut E, descriptor: u64) {
        env.write(self.table, self.index, descriptor);
    }

    /// The memory that this entry, leading to `pa`, maps of `span`, which it meets.
    pub(crate) fn part_within(self, pa: Pa, span: Span) -> PaRange {
        let (from, to) = (self.ipa.as_u64().max(span.from), self.end().min(span.to));
        let at = |ipa: u64| pa.as_u64().wrapping_add(ipa.wrapping_sub(self.ipa.as_u64()));
        PaRange::from_bounds(at(from), at(to))
    }

    /// The first of the entries that the contiguous hint would put together with this one.
    pub(crate) fn group_start(self) -> Self {
        let skipped = self.index as u64 % GROUP;
        let below = skipped.wrapping_mul(self.level.span());
        Self {
            index: self.index.saturating_sub(skipped as usize),
            ipa: Ipa::new(self.ipa.as_u64().wrapping_sub(below)),
            ..self
        }
    }

    /// All the entries that the contiguous hint would put together with this one.
    pub(crate) fn group(self) -> impl Iterator<Item = Self> {
        let first = self.group_start();
        (0..GROUP).map(move |n| Self {
            index: first.index.saturating_add(n as usize),
            ipa: Ipa::new(first.ipa.as_u64().wrapping_add(n.wrapping_mul(first.level.span()))),
            ..first
        })
    }

    /// What the leaf `raw` that is here translates together with those it is hinted to be contiguous with.
    pub(crate) fn extent(self, raw: u64) -> Span {
        match group_span(self.level) {
            Some(size) if raw & CONTIGUOUS != 0 => {
                let from = self.group_start().ipa.as_u64();
                Span { from, to: from.wrapping_add(size) }
            }
            _ => Span { from: self.ipa.as_u64(), to: self.end() },
        }
    }

    /// The first address after what the entry spans.
    pub(crate) const fn end(self) -> u64 {
        self.ipa.as_u64().wrapping_add(self.level.span())
    }

    /// Whether all that the entry spans lies in `span`.
    #[inline]
    pub(crate) const fn is_within(self, span: Span) -> bool {
        span.from <= self.ipa.as_u64() && self.end() <= span.to
    }

    /// The node that the entry leads to when it points to `table`. Level 3 leads nowhere.
    pub(crate) fn child(self, table: Pa) -> Option<Node> {
        let level = self.level.next()?;
        Some(Node { table, level, base: self.ipa.as_u64(), entries: ENTRIES })
    }
}

/// Where a walk for one address ends: the leaf's slot, or the slot that has nothing.
pub(crate) fn find<E: Environment>(env: &E, root: Node, ipa: u64) -> (Slot, u64) {
    let mut slot = root.slot_of(ipa);
    let mut raw = slot.read(env);
    while let Entry::Table(table) = Entry::of(raw, slot.level)
        && let Some(child) = slot.child(table)
    {
        slot = child.slot_of(ipa);
        raw = slot.read(env);
    }
    (slot, raw)
}

/// Calls `f` for each leaf, which it is told the descriptor of, and each hole that meets `span`, in order of addresses, until
/// it breaks.
pub(crate) fn visit<E, B, F>(env: &E, node: Node, span: Span, f: &mut F) -> ControlFlow<B>
where
    E: Environment,
    F: FnMut(Slot, Option<u64>) -> ControlFlow<B>,
{
    for slot in node.slots(span) {
        let raw = slot.read(env);
        match Entry::of(raw, slot.level) {
            Entry::Invalid => f(slot, None)?,
            Entry::Leaf => f(slot, Some(raw))?,
            Entry::Table(table) => {
                let Some(child) = slot.child(table) else { continue };
                visit(env, child, span, f)?;
            }
        }
    }
    ControlFlow::Continue(())
}
