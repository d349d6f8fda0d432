//! Long operations in steps: to map, unmap or tear down gigabytes without keeping EL2 from anything else (DESIGN.md, rule
//! 5). A step handles a bounded number of entries and leaves the tables whole; between steps vCPUs run, and other
//! operations may come in.
//!
//! Steps end where leaves end, so that no block is split only to be unmapped in parts.

use core::ops::ControlFlow;

use crate::addr::{Ipa, PAGE_SIZE, PaRange};
use crate::descriptor::{CONTIGUOUS, Entry, Permissions, VALID, decode_leaf, fits_block};
use crate::environment::Environment;
use crate::error::{Error, LedgerError, Refused};
use crate::geometry::Level;
use crate::grant::{Collector, Grant};
use crate::table::Stage2;
use crate::vm::VmId;
use crate::walk::{Node, Slot, Span, visit};

/// Entries for a step that is taken on an exit or between two: with these, the longest one stays below 20,000 instructions
/// (docs/stage2.md has the figures; a test holds them to it).
pub const STEP: usize = 48;

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "where there is more, the operation has not ended"]
pub enum Progress {
    /// There is: another step has to follow.
    More,
    /// All is done.
    Done,
}

/// The part of a range that a long operation has not come to yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    next: u64,
    end: u64,
}

impl Cursor {
    /// All of the range of `size` bytes from `ipa` on. That it is one of whole pages within the VM's tables is checked by the
    /// operation.
    pub const fn new(ipa: Ipa, size: u64) -> Self {
        Self { next: ipa.as_u64(), end: ipa.as_u64().saturating_add(size) }
    }

    /// Where the next step begins.
    pub const fn next(&self) -> Ipa {
        Ipa::new(self.next)
    }

    /// How much there is still to do.
    pub const fn progress(&self) -> Progress {
        if self.next < self.end { Progress::More } else { Progress::Done }
    }

    /// Takes the next `bytes` as done.
    pub(crate) const fn advance(&mut self, bytes: u64) {
        self.next = self.next.saturating_add(bytes);
    }

    const fn left(&self) -> u64 {
        self.end.saturating_sub(self.next)
    }
}

impl Stage2 {
    /// All that these tables can translate, for operations that go through a whole VM.
    pub const fn everything(&self) -> Cursor {
        Cursor::new(Ipa::new(0), self.geometry().ipa_end().as_u64())
    }

    /// The part of `span` that the first `entries` leaves and holes (at least 1) make up, some more where that keeps a group
    /// with the contiguous hint together.
    fn piece<E: Environment>(&self, env: &E, span: Span, entries: usize) -> Span {
        let mut left = entries.max(1);
        let found = visit(env, self.node(), span, &mut |slot: Slot, leaf| {
            left = left.saturating_sub(1);
            let in_group = leaf.is_some_and(|raw| raw & CONTIGUOUS != 0);
            let last = !in_group || slot.group().last().is_none_or(|last| last.ipa == slot.ipa);
            if left == 0 && last { ControlFlow::Break(slot.end()) } else { ControlFlow::Continue(()) }
        });
        Span { from: span.from, to: found.break_value().unwrap_or(span.to).min(span.to) }
    }

    /// The next step of [`unmap`](Self::unmap): what `cursor` starts with, of about `entries` leaves.
    ///
    /// # Errors
    /// Those of `unmap`, for this step's part. Then the cursor stays, and what earlier steps unmapped is unmapped.
    pub fn unmap_some<E, F>(
        &mut self,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
        taken: F,
    ) -> Result<Progress, Error>
    where
        E: Environment,
        F: FnMut(Grant),
    {
        if cursor.progress() == Progress::Done {
            return Ok(Progress::Done);
        }
        let piece = self.piece(env, self.span(cursor.next(), cursor.left())?, entries);
        self.unmap(env, cursor.next(), piece.to.wrapping_sub(piece.from), taken)?;
        cursor.next = piece.to;
        Ok(cursor.progress())
    }

    /// How many bytes the next step of an unmap would be about, for the ledger to see to its room first.
    pub(crate) fn next_step<E: Environment>(
        &self,
        env: &E,
        cursor: &Cursor,
        entries: usize,
    ) -> Result<u64, Error> {
        if cursor.progress() == Progress::Done {
            return Ok(0);
        }
        let piece = self.piece(env, self.span(cursor.next(), cursor.left())?, entries);
        Ok(piece.to.wrapping_sub(piece.from))
    }

    /// The next step of a change of leaves: see [`change`](Self::change).
    pub(crate) fn change_some<E, F, C>(
        &mut self,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
        f: F,
        changed: C,
    ) -> Result<Progress, Error>
    where
        E: Environment,
        F: Fn(u64) -> u64,
        C: FnMut(Span, u64),
    {
        if cursor.progress() == Progress::More {
            let piece = self.piece(env, self.span(cursor.next(), cursor.left())?, entries);
            self.change(env, piece, f, changed);
            cursor.next = piece.to;
        }
        Ok(cursor.progress())
    }

    /// Takes everything out, in steps. No vCPU of the VM runs or will run again on these tables.
    pub const fn dismantle(self) -> Teardown {
        Teardown { stage2: self, next: 0, cut: false, own_pages: 0, failed: None }
    }
}

/// The right to map a range, used up step by step.
#[derive(Debug)]
#[must_use = "a mapping that is begun has to be ended, or its pages stay counted as mapped"]
pub struct MapJob {
    /// The first address.
    ipa: Ipa,
    /// Bytes that are mapped, from there on.
    done: u64,
    /// The right to what follows.
    left: Grant,
    permissions: Permissions,
    /// Why it could not go on: what was mapped is being taken out.
    failed: Option<Error>,
}

/// How a step of a [`MapJob`] ended.
#[derive(Debug)]
#[must_use]
pub enum MapStep {
    /// Another step has to follow.
    More(MapJob),
    /// All is mapped.
    Done,
    /// Something was refused, and nothing is mapped any more.
    Refused(Refused<Error>),
    /// Something was refused, and what was mapped before can't be taken out: that needs a frame to split a block that it
    /// has become part of since. Nothing has changed in this step; it can be tried again when there are frames.
    Stuck(MapJob, Error),
}

impl MapJob {
    /// To map the granted pages from `ipa` on in `stage2`. Nothing is mapped yet.
    ///
    /// # Errors
    /// Those of [`Stage2::map`] that need no look at the tables. The others, [`Error::AlreadyMapped`] and
    /// [`Error::OutOfFrames`], come with the step that meets them.
    pub fn new(
        stage2: &Stage2,
        ipa: Ipa,
        grant: Grant,
        permissions: Permissions,
    ) -> Result<Self, Refused<Error>> {
        match stage2.check_map(ipa, &grant, permissions) {
            Ok(_) => Ok(Self { ipa, done: 0, left: grant, permissions, failed: None }),
            Err(error) => Err(Refused { error, grant }),
        }
    }

    /// Where the part ends that is mapped.
    const fn reached(&self) -> Ipa {
        Ipa::new(self.ipa.as_u64().wrapping_add(self.done))
    }

    /// Maps the next part, of about `entries` leaves; or, after a refusal, takes as much out again, the last first.
    pub fn step<E: Environment>(self, stage2: &mut Stage2, env: &mut E, entries: usize) -> MapStep {
        if let Some(error) = self.failed {
            return self.undo(stage2, env, entries, error);
        }
        let at = self.reached();
        let Self { ipa, done, left, permissions, .. } = self;
        let size = leaves_size(at, left.range(), entries);
        let (part, rest) = left.split(size);
        match (stage2.map(env, at, part, permissions), rest) {
            (Ok(()), None) => MapStep::Done,
            (Ok(()), Some(left)) => {
                MapStep::More(Self { ipa, done: done.wrapping_add(size), left, permissions, failed: None })
            }
            (Err(Refused { error, grant }), rest) => {
                let left = match rest {
                    Some(rest) => joined(grant, rest),
                    None => grant,
                };
                if done == 0 {
                    return MapStep::Refused(Refused { error, grant: left });
                }
                MapStep::More(Self { ipa, done, left, permissions, failed: Some(error) })
            }
        }
    }

    fn undo<E: Environment>(self, stage2: &mut Stage2, env: &mut E, entries: usize, error: Error) -> MapStep {
        let end = self.reached();
        let mut from = end;
        for _ in 0..entries.max(1) {
            let last = from.checked_sub(PAGE_SIZE).filter(|&last| last >= self.ipa);
            let Some(leaf) = last.and_then(|last| stage2.query(env, last)) else { break };
            from = leaf.ipa.max(self.ipa);
        }
        let mut part = None;
        let size = end.as_u64().wrapping_sub(from.as_u64());
        // What lies together in memory comes back as one.
        if let Err(stuck) = stage2.unmap(env, from, size, |grant| part = Some(grant)) {
            return MapStep::Stuck(self, stuck);
        }
        let Self { ipa, done, left, permissions, failed } = self;
        let left = match part {
            Some(part) => joined(part, left),
            None => left,
        };
        let done = done.wrapping_sub(size);
        if done == 0 {
            return MapStep::Refused(Refused { error, grant: left });
        }
        MapStep::More(Self { ipa, done, left, permissions, failed })
    }
}

/// One grant of two that were split from one. Were they not to fit, the first would stay counted as mapped: a leak, but no
/// breach.
fn joined(first: Grant, next: Grant) -> Grant {
    first.join(next).unwrap_or_else(|(_, next)| next)
}

/// How many bytes `entries` leaves (at least 1) make up at the most, when `range` is mapped from `ipa` on.
fn leaves_size(ipa: Ipa, range: PaRange, entries: usize) -> u64 {
    let mut size = 0u64;
    for _ in 0..entries.max(1) {
        let left = range.size().saturating_sub(size);
        let (ipa, pa) = (ipa.checked_add(size), range.start().checked_add(size));
        let (Some(ipa), Some(pa)) = (ipa, pa) else { break };
        let fits = |level: &Level| fits_block(ipa, pa, *level) && level.span() <= left;
        let Some(level) = [Level::One, Level::Two, Level::Three].into_iter().find(fits) else { break };
        size = size.saturating_add(level.span());
    }
    // What is not whole pages is refused as a whole.
    if size == 0 { range.size() } else { size }
}

/// A VM's tables while they are torn down. Dropped before the end, the frames that are left are lost.
#[derive(Debug)]
#[must_use = "tables that are not torn down to the end lose their frames"]
pub struct Teardown {
    stage2: Stage2,
    /// The first address that is still to be done.
    next: u64,
    /// Whether no walker reaches what lies below the start tables any more.
    cut: bool,
    /// Pages handed out that only this VM could map: for the ledger, which settles them at the end.
    pub(crate) own_pages: u64,
    /// What the ledger could not take back.
    pub(crate) failed: Option<LedgerError>,
}

impl Teardown {
    /// Whose tables these were.
    pub const fn vm(&self) -> VmId {
        self.stage2.vm()
    }

    /// Looks at about `entries` entries (at least 1): cuts them off the start tables, or hands out what they map and frees
    /// what was below. The VMID is free of translations when the first frame is given back. After [`Progress::Done`] there is
    /// nothing left to do, and another step does nothing.
    pub fn step<E, F>(&mut self, env: &mut E, entries: usize, taken: F) -> Progress
    where
        E: Environment,
        F: FnMut(Grant),
    {
        let end = self.stage2.node().span().to;
        if self.next >= end {
            return Progress::Done;
        }
        let mut budget = entries.max(1);
        if !self.cut {
            self.cut_some(env, &mut budget);
            return Progress::More;
        }
        let mut collector = Collector::new(self.stage2.vm(), taken);
        let span = Span { from: self.next, to: end };
        let stopped = drain(env, self.stage2.node(), span, &mut budget, &mut collector);
        collector.finish();
        self.next = stopped.unwrap_or(end);
        if stopped.is_some() {
            return Progress::More;
        }
        env.free(self.stage2.root(), self.stage2.geometry().start_tables());
        Progress::Done
    }

    /// Makes start entries invalid; after the last one, drops what the TLBs have.
    fn cut_some<E: Environment>(&mut self, env: &mut E, budget: &mut usize) {
        let all = self.stage2.node().span();
        for slot in self.stage2.node().slots(Span { from: self.next, to: all.to }) {
            if *budget == 0 {
                self.next = slot.ipa.as_u64();
                return;
            }
            *budget = budget.saturating_sub(1);
            let raw = slot.read(env);
            if raw & VALID != 0 {
                slot.write(env, raw & !VALID);
            }
        }
        env.invalidate_vm(self.stage2.vm());
        self.next = 0;
        self.cut = true;
    }
}

/// Hands out the leaves of `span` and frees the tables that end in it, all of which no walker reaches any more. Returns where
/// it stopped because the budget was used up, if it did.
fn drain<E, F>(
    env: &mut E,
    node: Node,
    span: Span,
    budget: &mut usize,
    taken: &mut Collector<F>,
) -> Option<u64>
where
    E: Environment,
    F: FnMut(Grant),
{
    for slot in node.slots(span) {
        if *budget == 0 {
            return Some(slot.ipa.as_u64().max(span.from));
        }
        let raw = slot.read(env);
        // The start tables' entries have lost their valid bit; an entry that never was valid is 0.
        let raw = if raw == 0 { 0 } else { raw | VALID };
        match Entry::of(raw, slot.level) {
            Entry::Invalid => {}
            Entry::Leaf => taken.add(decode_leaf(raw, slot.level), slot.level.span()),
            Entry::Table(table) => {
                let Some(child) = slot.child(table) else { continue };
                let stopped = drain(env, child, span, budget, taken);
                if stopped.is_some() {
                    return stopped;
                }
                env.free(table, 1);
                // Its entries have been counted. On the way down nothing is, so that every step gets somewhere.
                continue;
            }
        }
        *budget = budget.saturating_sub(1);
    }
    None
}
