//! What operations on tables cost, in ticks of the counter: instructions, where a tick is one (docs/stage2.md says how).
//!
//! A row of [`ROWS`] is one cost: what there is before, and what is counted.

use stage2::{
    Access, CopyReserve, Cursor, Ipa, MapJob, MapStep, PAGE_SIZE, Pa, PaRange, Permissions, Progress, STEP,
    Use, VmId, VmSet,
};

use super::space::Space;
use super::{Failure, Outcome};
use crate::{memory, timer};

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;
/// Where the guest's memory is to it, and physically, both aligned to 1 GiB.
const IPA: u64 = 4 * GIB;
const PA: u64 = 8 * GIB;
/// The shape of most VMs: tables start at level 1, two of them side by side.
const IPA_BITS: u8 = 40;
/// Enough for 1 GiB in pages.
const FRAMES: usize = 520;

type Work = fn(&mut Space) -> Outcome;

struct Row {
    name: &'static str,
    before: Work,
    counted: Work,
}

const fn row(name: &'static str, before: Work, counted: Work) -> Row {
    Row { name, before, counted }
}

/// Maps `size` bytes of RAM to `PA` + `skew`: the skew decides how large blocks can be.
fn map(space: &mut Space, size: u64, skew: u64) -> Outcome {
    let pages = PaRange::new(Pa::new(PA + skew), size)?;
    space.map(IPA, (pages, Use::Ram), Permissions::ALL)?;
    Ok(())
}

fn nothing(_: &mut Space) -> Outcome {
    Ok(())
}

fn gib_block(space: &mut Space) -> Outcome {
    map(space, GIB, 0)
}

fn gib_in_blocks(space: &mut Space) -> Outcome {
    map(space, GIB, MIB2)
}

fn gib_in_pages(space: &mut Space) -> Outcome {
    map(space, GIB, PAGE_SIZE)
}

fn block(space: &mut Space) -> Outcome {
    map(space, MIB2, 0)
}

fn pages(space: &mut Space) -> Outcome {
    map(space, MIB2, PAGE_SIZE)
}

fn page(space: &mut Space) -> Outcome {
    map(space, PAGE_SIZE, 0)
}

fn unmap(space: &mut Space, size: u64) -> Outcome {
    Ok(space.unmap(IPA, size)?)
}

fn read_only(space: &mut Space, size: u64) -> Outcome {
    Ok(space.protect(IPA, size, Permissions::READ_EXECUTE)?)
}

fn translate(space: &mut Space) -> Outcome {
    let found = space.stage2().translate(space.tables(), stage2::Ipa::new(IPA + 0x123));
    core::hint::black_box(found).map(|_| ()).ok_or(Failure::Setup)
}

const ROWS: &[Row] = &[
    row("map 1 GiB: 1 block of 1 GiB", nothing, gib_block),
    row("map 1 GiB: 512 blocks of 2 MiB", nothing, gib_in_blocks),
    row("map 1 GiB: 262144 pages", nothing, gib_in_pages),
    row("map 2 MiB: 1 block", nothing, block),
    row("map 2 MiB: 512 pages", nothing, pages),
    row("map a page", nothing, page),
    row("split 1 GiB: protect 2 MiB of a block of 1 GiB", gib_block, |space| read_only(space, MIB2)),
    row("split 1 GiB twice: protect a page of a block of 1 GiB", gib_block, |space| {
        read_only(space, PAGE_SIZE)
    }),
    row("split 2 MiB: protect a page of a block of 2 MiB", block, |space| read_only(space, PAGE_SIZE)),
    row(
        "merge 2 MiB: give the page its rights back",
        |space| {
            block(space)?;
            read_only(space, PAGE_SIZE)
        },
        |space| Ok(space.protect(IPA, PAGE_SIZE, Permissions::ALL)?),
    ),
    row("protect a page of 512", pages, |space| read_only(space, PAGE_SIZE)),
    row("protect 512 pages", pages, |space| read_only(space, MIB2)),
    row("protect a block of 1 GiB", gib_block, |space| read_only(space, GIB)),
    row("unmap a page of 512", pages, |space| unmap(space, PAGE_SIZE)),
    row("unmap a page of a block of 2 MiB", block, |space| unmap(space, PAGE_SIZE)),
    row("unmap 2 MiB: 1 block", block, |space| unmap(space, MIB2)),
    row("unmap 2 MiB: 512 pages", pages, |space| unmap(space, MIB2)),
    row("unmap 1 GiB: 1 block of 1 GiB", gib_block, |space| unmap(space, GIB)),
    row("unmap 1 GiB: 512 blocks of 2 MiB", gib_in_blocks, |space| unmap(space, GIB)),
    row("unmap 1 GiB: 262144 pages", gib_in_pages, |space| unmap(space, GIB)),
    row("translate, block of 1 GiB", gib_block, translate),
    row("translate, block of 2 MiB", block, translate),
    row("translate, page", pages, translate),
];

/// How much a VM has when it is torn down.
const TEARDOWNS: [(&str, Work); 3] = [
    ("tear down a VM of 1 GiB: 1 block of 1 GiB", gib_block),
    ("tear down a VM of 1 GiB: 512 blocks of 2 MiB", gib_in_blocks),
    ("tear down a VM of 1 GiB: 262144 pages", gib_in_pages),
];

/// Counts them all and says what came of it.
///
/// # Errors
/// An operation is refused.
pub fn run() -> Outcome {
    // What it costs to count nothing.
    let Cost { ticks: overhead, .. } = count(&row("", nothing, nothing))?;
    for row in ROWS {
        count(row)?.print(row.name, overhead);
    }
    for (name, before) in TEARDOWNS {
        count_teardown(before)?.print(name, overhead);
    }
    for (name, before, step) in STEPS {
        longest(before, step)?.print(name, overhead);
    }
    longest_of_map()?.print("map 1 GiB in steps: 262144 pages", overhead);
    longest_of_teardown()?.print("tear down a VM of 1 GiB in steps: 262144 pages", overhead);
    count_store_to_log()?.print("log a store: a page of a block of 2 MiB", overhead);
    count_copy()?.print("copy on write: a page of a block of 2 MiB", overhead);
    Ok(())
}

type Step = fn(&mut Space, &mut Cursor) -> Outcome<Progress>;

/// Long operations: what there is before, and a step over all of it.
const STEPS: [(&str, Work, Step); 5] = [
    ("unmap 1 GiB in steps: 262144 pages", gib_in_pages, unmap_some),
    ("unmap 1 GiB in steps: 512 blocks of 2 MiB", gib_in_blocks, unmap_some),
    ("collect the log of 1 GiB in steps: 262144 pages", logged_pages, collect_some),
    ("collect the log of 1 GiB in steps: 512 blocks of 2 MiB", logged_blocks, collect_some),
    ("clear access flags of 1 GiB in steps: 262144 pages", gib_in_pages, age_some),
];

fn unmap_some(space: &mut Space, cursor: &mut Cursor) -> Outcome<Progress> {
    let (ledger, stage2, tables) = space.parts();
    Ok(ledger.unmap_some(stage2, tables, cursor, STEP)?)
}

fn logged_pages(space: &mut Space) -> Outcome {
    gib_in_pages(space)?;
    let _ = space.parts().1.start_log();
    Ok(())
}

fn logged_blocks(space: &mut Space) -> Outcome {
    gib_in_blocks(space)?;
    let _ = space.parts().1.start_log();
    Ok(())
}

fn collect_some(space: &mut Space, cursor: &mut Cursor) -> Outcome<Progress> {
    let (_, stage2, tables) = space.parts();
    Ok(stage2.collect_log(tables, cursor, STEP, |ipa, size| {
        core::hint::black_box((ipa, size));
    })?)
}

fn age_some(space: &mut Space, cursor: &mut Cursor) -> Outcome<Progress> {
    let (_, stage2, tables) = space.parts();
    Ok(stage2.collect_accessed(tables, cursor, STEP, |ipa, size| {
        core::hint::black_box((ipa, size));
    })?)
}

/// What the longest step of an operation took, and how many there were.
#[derive(Default)]
struct Longest {
    ticks: u64,
    steps: u32,
}

impl Longest {
    fn time<T>(&mut self, step: impl FnOnce() -> T) -> T {
        let start = timer::now();
        let result = step();
        self.ticks = self.ticks.max(timer::now() - start);
        self.steps += 1;
        result
    }

    fn print(&self, name: &str, overhead: u64) {
        let Self { ticks, steps } = self;
        let instructions = ticks.saturating_sub(overhead);
        log::info!(
            "cost: {name}: {instructions} instructions in the longest of {steps} steps of {STEP} entries"
        );
    }
}

fn longest(before: Work, step: Step) -> Outcome<Longest> {
    let mut space = space()?;
    before(&mut space)?;
    let mut cursor = Cursor::new(Ipa::new(IPA), GIB);
    let mut longest = Longest::default();
    while longest.time(|| step(&mut space, &mut cursor))? == Progress::More {}
    space.end()?;
    Ok(longest)
}

fn longest_of_map() -> Outcome<Longest> {
    let mut space = space()?;
    let mut longest = Longest::default();
    let (ledger, stage2, tables) = space.parts();
    let pages = PaRange::new(Pa::new(PA + PAGE_SIZE), GIB)?;
    let grant = ledger.grant(stage2.vm(), pages, Use::Ram)?;
    let mut job =
        MapJob::new(stage2, Ipa::new(IPA), grant, Permissions::ALL).map_err(|refused| refused.error)?;
    loop {
        match longest.time(|| job.step(stage2, tables, STEP)) {
            MapStep::More(more) => job = more,
            MapStep::Done => break,
            MapStep::Refused(refused) => return Err(refused.error.into()),
            MapStep::Stuck(_, error) => return Err(error.into()),
        }
    }
    space.end()?;
    Ok(longest)
}

fn longest_of_teardown() -> Outcome<Longest> {
    let mut space = space()?;
    gib_in_pages(&mut space)?;
    let mut longest = Longest::default();
    let (mut ledger, stage2, mut tables) = space.into_parts();
    let mut teardown = stage2.dismantle();
    while longest.time(|| ledger.teardown_some(&mut teardown, &mut tables, STEP))? == Progress::More {}
    tables.give_back();
    Ok(longest)
}

/// A guest's store to a block of 2 MiB whose stores are logged, from the fault to where it can be tried again.
fn count_store_to_log() -> Outcome<Cost> {
    let mut space = space()?;
    block(&mut space)?;
    let (_, stage2, tables) = space.parts();
    let mut cursor = stage2.start_log();
    while stage2.collect_log(tables, &mut cursor, STEP, |_, _| {})? == Progress::More {}
    let mut none = CopyReserve::none(stage2.vm());
    let before = tables.invalidations;
    let start = timer::now();
    stage2.resolve(tables, &mut none, Ipa::new(IPA + 0x5123), Access::Write)?;
    let ticks = timer::now() - start;
    let invalidations = tables.invalidations - before;
    let frames = space.frames_taken();
    space.end()?;
    Ok(Cost { ticks, invalidations, frames })
}

/// The same for a block that is copied on write, the copy of the page included. There is memory behind it.
fn count_copy() -> Outcome<Cost> {
    const PAGES: usize = 1024;
    let real = memory::claim(PAGES)?;
    let mut space = space()?;
    let spare = PaRange::new(Pa::new(real.as_u64() + MIB2), PAGE_SIZE)?;
    space.map(IPA, (PaRange::new(real, MIB2)?, Use::Ram), Permissions::ALL)?;
    let (ledger, stage2, tables) = space.parts();
    let vm = stage2.vm();
    ledger.freeze(stage2, tables, Ipa::new(IPA), MIB2, VmSet::only(vm))?;
    let mut copies = CopyReserve::new(vm, [None]);
    copies.add(ledger.grant(vm, spare, Use::Ram)?).map_err(|_| Failure::Setup)?;
    let before = tables.invalidations;
    let start = timer::now();
    stage2.resolve(tables, &mut copies, Ipa::new(IPA + 0x5123), Access::Write)?;
    let ticks = timer::now() - start;
    let invalidations = tables.invalidations - before;
    let used = copies.take_used().ok_or(Failure::Setup)?;
    ledger.release(used).map_err(|refused| refused.error)?;
    let frames = space.frames_taken();
    space.end()?;
    memory::yield_back(real, PAGES);
    Ok(Cost { ticks, invalidations, frames })
}

struct Cost {
    ticks: u64,
    invalidations: u32,
    /// Frames that tables take afterwards.
    frames: usize,
}

impl Cost {
    fn print(&self, name: &str, overhead: u64) {
        let Self { ticks, invalidations, frames } = self;
        let instructions = ticks.saturating_sub(overhead);
        log::info!(
            "cost: {name}: {instructions} instructions; TLB invalidations {invalidations}; frames for tables {frames}"
        );
    }
}

fn space() -> Outcome<Space> {
    Space::new(VmId::new(0).ok_or(Failure::Setup)?, IPA_BITS, FRAMES)
}

fn count(row: &Row) -> Outcome<Cost> {
    let mut space = space()?;
    (row.before)(&mut space)?;
    let invalidations = space.invalidations();
    let start = timer::now();
    (row.counted)(&mut space)?;
    let ticks = timer::now() - start;
    let invalidations = space.invalidations() - invalidations;
    let frames = space.frames_taken();
    space.end()?;
    Ok(Cost { ticks, invalidations, frames })
}

fn count_teardown(before: Work) -> Outcome<Cost> {
    let mut space = space()?;
    before(&mut space)?;
    let invalidations = space.invalidations();
    let start = timer::now();
    let remains = space.tear_down()?;
    let ticks = timer::now() - start;
    let invalidations = remains.invalidations() - invalidations;
    remains.give_back()?;
    Ok(Cost { ticks, invalidations, frames: 0 })
}
