//! Changes to tables, each correct for running walkers by itself: filling, splitting, merging, clearing. Which of them
//! an operation is made of, and what may be refused, is decided in `table` and beside it.
//!
//! A table is linked only when its content is in memory, unlinked before it is emptied, and freed only after the
//! invalidation. While a block is split or merged its addresses fault for a moment (break-before-make); the same holds for
//! leaves that are put together by the contiguous hint, which are changed all at once or not at all.

use crate::addr::{Ipa, Pa};
use crate::bbm::{needs_break, needs_invalidation};
use crate::descriptor::{self, Attributes, CONTIGUOUS, Entry, Format, Leaf, Marks, VALID, group_span};
use crate::environment::{Environment, Invalidation};
use crate::error::Error;
use crate::geometry::Level;
use crate::grant::{Collector, Grant};
use crate::vm::VmId;
use crate::walk::{Node, Slot, Span, find};

/// The stale translations that an operation gathers, to be dropped at once.
pub(crate) struct Stale {
    from: u64,
    to: u64,
    stride: u64,
    tables: bool,
}

impl Stale {
    pub(crate) const NONE: Self = Self { from: u64::MAX, to: 0, stride: u64::MAX, tables: false };

    /// One more entry that changed.
    pub(crate) fn add(&mut self, slot: Slot) {
        self.from = self.from.min(slot.ipa.as_u64());
        self.to = self.to.max(slot.end());
        self.stride = self.stride.min(slot.level.span());
    }

    /// Drops them from the TLBs, if there are any. `from` and `to` are multiples of `stride`, for every entry that was
    /// added is at least that large and aligned to itself.
    pub(crate) fn invalidate<E: Environment>(self, env: &mut E, vm: VmId) {
        let Self { from, to, stride, tables } = self;
        if from < to {
            let ipa = Ipa::new(from);
            env.invalidate(vm, Invalidation { ipa, size: to.wrapping_sub(from), stride, tables });
        }
    }
}

/// Writes one entry that has no contiguous hint, with break-before-make where the change needs it. `stride` and `tables`
/// say what the old entry may have left in the TLBs.
pub(crate) fn replace<E: Environment>(
    env: &mut E,
    vm: VmId,
    slot: Slot,
    new: u64,
    stride: u64,
    tables: bool,
) {
    let old = slot.read(env);
    let stale = Invalidation { ipa: slot.ipa, size: slot.level.span(), stride, tables };
    if needs_break(old, new, slot.level) {
        slot.write(env, 0);
        env.invalidate(vm, stale);
        slot.write(env, new);
    } else {
        slot.write(env, new);
        if needs_invalidation(old, new, slot.level) {
            env.invalidate(vm, stale);
        }
    }
    env.publish();
}

/// Changes all leaves of the group that `slot` is in, by `f`, with a break: of entries that are hinted to be contiguous,
/// or will be, none may differ from the others while a walker can find it.
fn replace_group<E: Environment, F: Fn(u64) -> u64>(env: &mut E, vm: VmId, slot: Slot, f: F) {
    let mut stale = Stale::NONE;
    for entry in slot.group() {
        let raw = entry.read(env);
        entry.write(env, raw & !VALID);
        stale.add(entry);
    }
    stale.invalidate(env, vm);
    for entry in slot.group() {
        let new = f(entry.read(env) | VALID);
        entry.write(env, new);
    }
    env.publish();
}

/// What to map: `span` to physical memory that lies together, all with the same attributes.
pub(crate) struct Fill {
    pub(crate) span: Span,
    /// Where the first address leads.
    pa: u64,
    /// A leaf without address, as block and as page.
    block: u64,
    page: u64,
    /// The part of `span` that whole groups of blocks of 2 MiB, and of pages, make up.
    grouped_blocks: Span,
    grouped_pages: Span,
}

impl Fill {
    /// With `logging`, what is mapped now counts as written.
    pub(crate) fn new(span: Span, pa: Pa, attributes: Attributes, format: Format, logging: bool) -> Self {
        let leaf = Leaf { pa: Pa::new(0), attributes, marks: Marks::NEW };
        let told = |raw| if logging { descriptor::new_while_logging(raw) } else { raw };
        Self {
            span,
            pa: pa.as_u64(),
            block: told(leaf.encode(format, Level::Two)),
            page: told(leaf.encode(format, Level::Three)),
            grouped_blocks: grouped(span, pa, Level::Two),
            grouped_pages: grouped(span, pa, Level::Three),
        }
    }

    /// The leaf for `slot`, if one of its size fits there.
    #[inline]
    fn leaf(&self, slot: Slot) -> Option<u64> {
        let ipa = slot.ipa.as_u64();
        let pa = Pa::new(self.pa.wrapping_add(ipa.wrapping_sub(self.span.from)));
        if !slot.is_within(self.span) || !descriptor::fits_block(slot.ipa, pa, slot.level) {
            return None;
        }
        let (leaf, grouped) = match slot.level {
            Level::Three => (self.page, self.grouped_pages),
            Level::Two => (self.block, self.grouped_blocks),
            Level::One | Level::Zero => (self.block, Span::EMPTY),
        };
        let hint = if grouped.contains(ipa) { CONTIGUOUS } else { 0 };
        Some(leaf | pa.as_u64() | hint)
    }
}

/// The part of `span`, mapped to memory from `pa` on, that whole groups of leaves of `level` make up.
fn grouped(span: Span, pa: Pa, level: Level) -> Span {
    let Some(size) = group_span(level) else { return Span::EMPTY };
    let mask = size.wrapping_sub(1);
    if (span.from ^ pa.as_u64()) & mask != 0 {
        return Span::EMPTY;
    }
    Span { from: span.from.saturating_add(mask) & !mask, to: span.to & !mask }
}

/// Makes the entries for `fill`, which meets nothing that is mapped, by the largest blocks that fit. Stops where frames
/// end, with what is made left for `clear`. The caller publishes.
pub(crate) fn fill<E: Environment>(env: &mut E, node: Node, fill_with: &Fill) -> Result<(), Error> {
    for slot in node.slots(fill_with.span) {
        if let Some(child) = child_of(env, slot) {
            fill(env, child, fill_with)?;
        } else if let Some(leaf) = fill_with.leaf(slot) {
            slot.write(env, leaf);
        } else {
            let child = link_empty(env, slot)?;
            fill(env, child, fill_with)?;
        }
    }
    Ok(())
}

/// The node that `slot` leads to, if it does.
fn child_of<E: Environment>(env: &E, slot: Slot) -> Option<Node> {
    match Entry::of(slot.read(env), slot.level) {
        Entry::Table(table) => slot.child(table),
        Entry::Invalid | Entry::Leaf => None,
    }
}

/// A new empty table in an entry that has nothing.
fn link_empty<E: Environment>(env: &mut E, slot: Slot) -> Result<Node, Error> {
    let (child, table) = allocate_below(env, slot)?;
    env.order();
    slot.write(env, descriptor::table_entry(table));
    Ok(child)
}

/// A frame for the table below `slot`.
fn allocate_below<E: Environment>(env: &mut E, slot: Slot) -> Result<(Node, Pa), Error> {
    let refused = Error::OutOfFrames { tables: 1 };
    // A page has nothing below it; asking is as hopeless as having no frame.
    if slot.level.next().is_none() {
        return Err(refused);
    }
    let table = env.allocate(1).ok_or(refused)?;
    let child = slot.child(table).ok_or(refused)?;
    Ok((child, table))
}

/// Splits blocks, and takes hints from groups, until none reaches across `ipa`.
///
/// On error some are split: the same addresses translate the same way, and `merge` makes the blocks whole again.
pub(crate) fn split_at<E: Environment>(env: &mut E, vm: VmId, root: Node, ipa: u64) -> Result<(), Error> {
    if ipa >= root.span().to {
        return Ok(());
    }
    loop {
        let (slot, raw) = find(env, root, ipa);
        // Each turn goes one level down, or takes a hint away; and a page starts at its own address.
        if raw & VALID == 0 || slot.extent(raw).from == ipa {
            return Ok(());
        }
        if raw & CONTIGUOUS != 0 {
            replace_group(env, vm, slot, |raw| raw & !CONTIGUOUS);
        } else {
            split(env, vm, slot, raw, ipa)?;
        }
    }
}

/// Puts a table of 512 equal parts in the place of a block that has no hint. Parts whose group will be cut at `ipa` get
/// none either.
fn split<E: Environment>(env: &mut E, vm: VmId, slot: Slot, raw: u64, ipa: u64) -> Result<(), Error> {
    let (child, table) = allocate_below(env, slot)?;
    let (hint, cut) = match group_span(child.level) {
        Some(size) if ipa & size.wrapping_sub(1) == 0 => (CONTIGUOUS, Span::EMPTY),
        Some(size) => {
            let from = ipa & !size.wrapping_sub(1);
            (CONTIGUOUS, Span { from, to: from.wrapping_add(size) })
        }
        None => (0, Span::EMPTY),
    };
    let mut part = descriptor::first_part(raw, child.level) | hint;
    for entry in child.all_slots() {
        let hinted = !cut.contains(entry.ipa.as_u64());
        entry.write(env, if hinted { part } else { part & !CONTIGUOUS });
        part = part.wrapping_add(child.level.span());
    }
    // No `order` here: a block never becomes a table without a break, and its invalidation orders the parts too.
    replace(env, vm, slot, descriptor::table_entry(table), slot.level.span(), false);
    Ok(())
}

/// Puts a block in the place of every table that meets `span` and says no more than a block would, lowest level first, and
/// hints at every group there that is contiguous.
pub(crate) fn merge<E: Environment>(env: &mut E, vm: VmId, node: Node, span: Span) {
    for slot in node.slots(span) {
        let Some(child) = child_of(env, slot) else { continue };
        merge(env, vm, child, span);
        if let Some(block) = as_block(env, slot, child) {
            replace(env, vm, slot, block, child.level.span(), true);
            env.free(child.table, 1);
        } else {
            hint(env, vm, child, span);
        }
    }
}

/// The block that says the same as all of `child`, the table below `slot`, if there is one.
fn as_block<E: Environment>(env: &E, slot: Slot, child: Node) -> Option<u64> {
    let first = child.slot(0).read(env) & !CONTIGUOUS;
    let Entry::Leaf = Entry::of(first, child.level) else { return None };
    if !descriptor::fits_block(slot.ipa, descriptor::address(first, child.level), slot.level) {
        return None;
    }
    let mut expected = first;
    for entry in child.all_slots() {
        if entry.read(env) & !CONTIGUOUS != expected {
            return None;
        }
        expected = expected.wrapping_add(child.level.span());
    }
    Some(descriptor::whole(first))
}

/// Hints at the groups of `node` that meet `span` and are contiguous.
fn hint<E: Environment>(env: &mut E, vm: VmId, node: Node, span: Span) {
    let Some(size) = group_span(node.level) else { return };
    let mut done = 0;
    for slot in node.slots(span) {
        if slot.ipa.as_u64() < done {
            continue;
        }
        let first = slot.group_start();
        done = first.ipa.as_u64().wrapping_add(size);
        if is_contiguous(env, first, size) {
            replace_group(env, vm, first, |raw| raw | CONTIGUOUS);
        }
    }
}

/// Whether the group that starts at `first` could be hinted at and isn't.
fn is_contiguous<E: Environment>(env: &E, first: Slot, size: u64) -> bool {
    let mut expected = first.read(env);
    let Entry::Leaf = Entry::of(expected, first.level) else { return false };
    if expected & CONTIGUOUS != 0 || !descriptor::address(expected, first.level).is_aligned(size) {
        return false;
    }
    first.group().all(|entry| {
        let follows = entry.read(env) == expected;
        expected = expected.wrapping_add(first.level.span());
        follows
    })
}

/// Makes every leaf in `span` invalid, and every table there that is empty then. None of the leaves reaches out of `span`,
/// nor does a group of them.
///
/// What was there stays readable behind the cleared valid bit, for `sweep` to collect once the TLBs are free of it.
pub(crate) fn hide<E: Environment>(env: &mut E, node: Node, span: Span, stale: &mut Stale) {
    for slot in node.slots(span) {
        let raw = slot.read(env);
        match Entry::of(raw, slot.level) {
            Entry::Invalid => continue,
            Entry::Leaf => {}
            Entry::Table(table) => {
                let Some(child) = slot.child(table) else { continue };
                hide(env, child, span, stale);
                if !slot.is_within(span) && !is_empty(env, child) {
                    continue;
                }
                stale.tables = true;
            }
        }
        slot.write(env, raw & !VALID);
        stale.add(slot);
    }
}

fn is_empty<E: Environment>(env: &E, node: Node) -> bool {
    node.all_slots().all(|slot| slot.read(env) & VALID == 0)
}

/// After `hide` and the invalidation: wipes the hidden entries, frees the hidden tables, and hands out the leaves.
pub(crate) fn sweep<E, F>(env: &mut E, node: Node, span: Span, taken: &mut Collector<F>)
where
    E: Environment,
    F: FnMut(Grant),
{
    for slot in node.slots(span) {
        let raw = slot.read(env);
        if raw == 0 {
            continue;
        }
        let hidden = raw & VALID == 0;
        match Entry::of(raw | VALID, slot.level) {
            Entry::Leaf if hidden => taken.add(descriptor::decode_leaf(raw, slot.level), slot.level.span()),
            Entry::Table(table) => {
                let Some(child) = slot.child(table) else { continue };
                sweep(env, child, span, taken);
                if !hidden {
                    continue;
                }
                env.free(table, 1);
            }
            Entry::Invalid | Entry::Leaf => continue,
        }
        slot.write(env, 0);
    }
}

/// Takes out whatever is mapped in `span` and hands it out; no leaf and no group reaches out of `span`.
pub(crate) fn clear<E, F>(env: &mut E, vm: VmId, root: Node, span: Span, taken: F)
where
    E: Environment,
    F: FnMut(Grant),
{
    let mut stale = Stale::NONE;
    hide(env, root, span, &mut stale);
    stale.invalidate(env, vm);
    let mut collector = Collector::new(vm, taken);
    sweep(env, root, span, &mut collector);
    collector.finish();
}

/// Changes every leaf that meets `span`, all of it and of its group, by `f`, which leaves address, size and memory type as
/// they are and changes nothing the second time. Tells of each that changed: its extent, and what it was.
pub(crate) fn change<E, F, C>(
    env: &mut E,
    vm: VmId,
    node: Node,
    span: Span,
    f: &F,
    changed: &mut C,
    stale: &mut Stale,
) where
    E: Environment,
    F: Fn(u64) -> u64,
    C: FnMut(Span, u64),
{
    for slot in node.slots(span) {
        let raw = slot.read(env);
        match Entry::of(raw, slot.level) {
            Entry::Invalid => {}
            Entry::Table(table) => {
                let Some(child) = slot.child(table) else { continue };
                change(env, vm, child, span, f, changed, stale);
            }
            Entry::Leaf => {
                let new = f(raw);
                if new == raw {
                    continue;
                }
                if raw & CONTIGUOUS != 0 {
                    replace_group(env, vm, slot, f);
                } else {
                    slot.write(env, new);
                    if needs_invalidation(raw, new, slot.level) {
                        stale.add(slot);
                    }
                }
                changed(slot.extent(raw), raw);
            }
        }
    }
}
