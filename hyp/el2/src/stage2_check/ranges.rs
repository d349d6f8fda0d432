//! Exactly what was unmapped is gone from the TLBs, first page to last, of this CPU and of another: the operands of
//! invalidations by range, and their reach.
//!
//! An emulated TLB drops everything where a range is long for its size. So this one is made to grow first: QEMU doubles it
//! at a flush that finds it in use.

use stage2::{PAGE_SIZE, PaRange, Permissions, Use, VmId};

use super::answer::{Answer, Fault, reported};
use super::hardware::{self, Access, Regime};
use super::neighbour::{Neighbour, Order};
use super::random::Random;
use super::space::Space;
use super::stage_one::{self, Pool};
use super::tally::{Kind, Tally};
use super::{Failure, Outcome};

/// Pages that are mapped: the pool, this many times.
const TIMES: u64 = 32;
const PAGES: u64 = TIMES * Pool::SIZE / PAGE_SIZE;
/// Where: never aligned as the pool is, so that all of it is pages.
const IPA: u64 = (8 << 30) + PAGE_SIZE;
/// Flushes until a TLB of 256 entries has grown to as many as there are pages.
const FLUSHES: usize = 6;
/// Ranges that are unmapped, and the most pages in one. A TLB of 16,384 entries takes this many one by one.
const RANGES: usize = 24;
const MOST: u64 = 120;
/// Pages on both sides of a range that are looked at too.
const AROUND: u64 = 70;

/// Unmaps ranges of pages that TLBs hold, and looks at each page of them and around.
///
/// # Errors
/// The first page that isn't as it should be.
pub fn run(random: &mut Random, tally: &mut Tally, pool: &Pool) -> Outcome {
    // 40 bits: where the start tables are does not matter here.
    let mut space = Space::new(VmId::new(1).ok_or(Failure::Setup)?, 40, TIMES as usize + 8)?;
    for time in 0..TIMES {
        let pages = PaRange::new(pool.base(), Pool::SIZE)?;
        space.map(IPA + time * Pool::SIZE, (pages, Use::Ram), Permissions::ALL)?;
    }
    let (vtcr, vttbr) = (space.stage2().vtcr(), space.stage2().vttbr());
    let both = Both(Neighbour::find());
    hardware::load(vtcr, vttbr, Regime::On);
    let done = both
        .order(Order::Load { vtcr, vttbr })
        .and_then(|()| unmap_some(random, tally, &mut space, pool, &both));
    hardware::unload();
    done?;
    both.order(Order::Unload)?;
    space.end()
}

/// This CPU and another, if there is one.
struct Both(Option<Neighbour>);

impl Both {
    /// Has the other one do something.
    fn order(&self, order: Order) -> Outcome {
        let Some(neighbour) = &self.0 else { return Ok(()) };
        let answer = neighbour.order(order).ok_or(Failure::NoNeighbour)?;
        answer.map_err(|wrong| Failure::Range { wrong, cpu: "the other CPU" })
    }

    /// Looks from both.
    fn look(&self, stretch: Stretch) -> Outcome {
        self.order(Order::Look(stretch))?;
        look(stretch).map_err(|wrong| Failure::Range { wrong, cpu: "this CPU" })
    }

    /// Every page is in both TLBs then, if they are large enough.
    fn touch(&self) -> Outcome {
        touch_all();
        self.order(Order::Touch)
    }
}

/// Pages to look at, and which of them are gone.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    from: u64,
    to: u64,
    gone_from: u64,
    gone_to: u64,
}

/// A page that is not as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    /// Its number.
    pub page: u64,
    /// What it should be.
    pub expected: Answer,
    /// What it is.
    pub par: u64,
}

fn unmap_some(
    random: &mut Random,
    tally: &mut Tally,
    space: &mut Space,
    pool: &Pool,
    both: &Both,
) -> Outcome {
    for _ in 0..FLUSHES {
        both.touch()?;
        remap(space, pool, 0, Pool::SIZE / PAGE_SIZE)?;
    }
    for _ in 0..RANGES {
        let pages = random.between(1, MOST);
        let first = random.below(PAGES - pages);
        let (from, to) = (first.saturating_sub(AROUND), (first + pages + AROUND).min(PAGES));
        both.touch()?;
        // Last of all those that matter, so that the smallest TLB has them.
        both.look(Stretch { from, to, gone_from: 0, gone_to: 0 })?;
        space.unmap(IPA + first * PAGE_SIZE, pages * PAGE_SIZE)?;
        both.look(Stretch { from, to, gone_from: first, gone_to: first + pages })?;
        let cpus = if both.0.is_some() { 2 } else { 1 };
        for _ in 0..cpus {
            tally.note_many(Kind::NoStageOne, pages);
            tally.note_many(Kind::StageOne, to - from - pages);
        }
        map_back(space, pool, first, pages)?;
    }
    Ok(())
}

/// Has every page in the TLB of the CPU that runs.
pub fn touch_all() {
    for page in 0..PAGES {
        hardware::set_stage_one(IPA + page * PAGE_SIZE);
        hardware::ask(Access::StageOne, 0);
    }
}

/// Looks at pages from the CPU that runs: each is a stage-1 table, or there is none.
///
/// # Errors
/// The first page that isn't as it should be.
pub fn look(stretch: Stretch) -> Result<(), Wrong> {
    for page in stretch.from..stretch.to {
        let expected = if (stretch.gone_from..stretch.gone_to).contains(&page) {
            Answer::Fault { fault: Fault::Translation(3), stage2: true, on_walk: true }
        } else {
            let stage_one::Output { ipa, one } = stage_one::translate(page % (Pool::SIZE / PAGE_SIZE), 0);
            let shareability = reported(one.memory, one.shareability);
            Answer::Address { page: ipa, memory: one.memory, shareability }
        };
        hardware::set_stage_one(IPA + page * PAGE_SIZE);
        let par = hardware::ask(Access::StageOne, 0);
        if par.answer() != expected {
            return Err(Wrong { page, expected, par: par.0 });
        }
    }
    Ok(())
}

fn remap(space: &mut Space, pool: &Pool, first: u64, pages: u64) -> Outcome {
    space.unmap(IPA + first * PAGE_SIZE, pages * PAGE_SIZE)?;
    map_back(space, pool, first, pages)
}

/// Maps pages that were unmapped, up to each end of the pool.
fn map_back(space: &mut Space, pool: &Pool, first: u64, pages: u64) -> Outcome {
    let (mut at, end) = (first * PAGE_SIZE, (first + pages) * PAGE_SIZE);
    while at < end {
        let offset = at % Pool::SIZE;
        let size = (Pool::SIZE - offset).min(end - at);
        let start = stage2::Pa::new(pool.base().as_u64() + offset);
        space.map(IPA + at, (PaRange::new(start, size)?, Use::Ram), Permissions::ALL)?;
        at += size;
    }
    Ok(())
}
