//! Exactly what was unmapped is gone from the TLBs, first page to last: the operands of invalidations by range.
//!
//! An emulated TLB drops everything where a range is long for its size. So this one is made to grow first: QEMU doubles it
//! at a flush that finds it in use.

use stage2::{PAGE_SIZE, PaRange, Permissions, Use, VmId};

use super::answer::{Answer, Fault, reported};
use super::hardware::{self, Access, Regime};
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
    hardware::load(space.stage2(), Regime::On);
    let done = unmap_some(random, tally, &mut space, pool);
    hardware::unload();
    done?;
    space.end()
}

fn unmap_some(random: &mut Random, tally: &mut Tally, space: &mut Space, pool: &Pool) -> Outcome {
    for _ in 0..FLUSHES {
        touch_all();
        remap(space, pool, 0, Pool::SIZE / PAGE_SIZE)?;
    }
    for _ in 0..RANGES {
        let pages = random.between(1, MOST);
        let first = random.below(PAGES - pages);
        touch_all();
        space.unmap(IPA + first * PAGE_SIZE, pages * PAGE_SIZE)?;
        for page in first.saturating_sub(AROUND)..(first + pages + AROUND).min(PAGES) {
            let gone = (first..first + pages).contains(&page);
            look(page, gone)?;
            tally.note(if gone { Kind::NoStageOne } else { Kind::StageOne }, None);
        }
        map_back(space, pool, first, pages)?;
    }
    Ok(())
}

/// Has every page in the TLB.
fn touch_all() {
    for page in 0..PAGES {
        hardware::set_stage_one(IPA + page * PAGE_SIZE);
        hardware::ask(Access::StageOne, 0);
    }
}

/// The page is a stage-1 table, or there is none.
fn look(page: u64, gone: bool) -> Outcome {
    let expected = if gone {
        Answer::Fault { fault: Fault::Translation(3), stage2: true, on_walk: true }
    } else {
        let stage_one::Output { ipa, one } = stage_one::translate(page % (Pool::SIZE / PAGE_SIZE), 0);
        let shareability = reported(one.memory, one.shareability);
        Answer::Address { page: ipa, memory: one.memory, shareability }
    };
    let place = IPA + page * PAGE_SIZE;
    hardware::set_stage_one(place);
    let par = hardware::ask(Access::StageOne, 0);
    let found = par.answer();
    if found == expected {
        return Ok(());
    }
    Err(Failure::Answer { access: Access::StageOne, address: place, expected, found, par: par.0 })
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
