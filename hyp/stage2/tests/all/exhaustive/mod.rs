//! Small worlds in which everything is tried: from every state that can be reached, however many operations it takes, every
//! operation there is; those that must be refused too, and each with every number of frames short of what it needs.
//!
//! Two VMs, one ledger, the machine with TLBs, and a few cells of memory: pages, or a block of which two pages can be
//! taken alone. After every step
//! - the tables, read by the independent walker, are those of the model, with no table too many;
//! - no cell is reachable from a VM that it isn't the memory of, or from two VMs unless both are named in its share;
//! - the ledger's states and counts are those of the model, and so of what is mapped;
//! - no TLB holds anything stale, and no frame is lost;
//! - and after a refusal all of this is as it was before.
//!
//! States are told apart by what the model says. That leaves out which frame holds which table: the tables' form follows
//! from the mapping, and that it does is among what is checked. A state is copied by making its parts again, for the
//! crate lets neither tables nor a ledger be copied: the tables by their root, the ledger by declaring what it holds; that
//! the copy is right shows in the checks after the next step.

mod check;
mod expected;
mod plan;
mod world;

use std::collections::HashSet;

use plan::{Operation, Plan};
use stage2::{Error, Format, LedgerError, State, VmId, VmSet};
use world::World;

const PAGE: u64 = 4096;
const MIB2: u64 = 2 << 20;
const MEMORY: u64 = 0x8000_0000;
const VMS: [VmId; 2] = [VmId::new(0).unwrap(), VmId::new(1).unwrap()];
const BOTH: VmSet = VmSet::only(VMS[0]).with(VMS[1]);
const WRITERS: VmSet = VmSet::only(VMS[0]);
/// What both may map, and neither may write to.
const COPIED: State = State::CopyOnWrite { members: BOTH };
const FORMATS: [Format; 2] = [Format::Combined, Format::ForcedWriteBack];
const FRAMES: usize = 100;

fn is_full(error: Error) -> bool {
    matches!(error, Error::Ledger(LedgerError::Full { .. }))
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// Operations from the first state to the farthest, and one more that finds nothing new.
    depth: usize,
    states: usize,
    done: usize,
    refused: usize,
    /// Refused for want of a frame, or of room in the ledger.
    starved: usize,
}

/// Performs what ought to work, with frames for nothing, then one more each time. Whether it worked in the end.
fn insist(world: &mut World, operation: Operation, counts: &mut Counts) -> bool {
    for frames in 0.. {
        world.machine.frames_left = frames;
        match world.perform(operation) {
            Ok(()) => break,
            Err(Error::OutOfFrames { tables: 1 }) if frames < 5 => {}
            Err(error) if is_full(error) => {
                counts.starved += 1;
                world.check();
                return false;
            }
            Err(error) => panic!("{operation:?} with {frames} frames: {error:?}"),
        }
        counts.starved += 1;
        world.check();
    }
    world.machine.frames_left = FRAMES;
    true
}

fn explore(plan: &Plan) -> Counts {
    let operations = plan.operations();
    let first = World::new(plan);
    let mut seen = HashSet::from([first.key()]);
    let mut counts = Counts { states: 1, ..Counts::default() };
    let mut layer = vec![first];
    while !layer.is_empty() {
        counts.depth += 1;
        let mut next_layer = Vec::new();
        for mut world in layer {
            for &operation in &operations {
                if world.makes_no_sense(operation) {
                    continue;
                }
                let Some((cells, models)) = world.expected(operation) else {
                    counts.refused += 1;
                    world.perform(operation).expect_err("an operation that must be refused");
                    continue;
                };
                let mut next = world.copy();
                if !insist(&mut next, operation, &mut counts) {
                    continue;
                }
                (next.cells, next.models) = (cells, models);
                next.check();
                counts.done += 1;
                if seen.insert(next.key()) {
                    counts.states += 1;
                    next_layer.push(next);
                }
            }
            // All that was refused has changed nothing.
            world.check();
        }
        layer = next_layer;
    }
    println!("{}: {counts:?}", plan.name);
    counts
}

const PAGES: Plan = Plan {
    name: "two pages",
    cells: &[PAGE, PAGE],
    hands: &[(0, 1), (1, 1), (0, 2)],
    maps: &[(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 0, 2)],
    parts: &[(0, 1), (1, 1), (0, 2)],
    freezes: &[(0, 1), (1, 1), (0, 2)],
    runs: 16,
};

const BLOCK: Plan = Plan {
    name: "a block",
    cells: &[PAGE, PAGE, MIB2 - 2 * PAGE],
    hands: &[(0, 3), (0, 1)],
    maps: &[(0, 0, 3), (0, 0, 1), (1, 1, 2)],
    parts: &[(0, 3), (0, 1), (1, 1), (1, 2)],
    freezes: &[(0, 1)],
    runs: 16,
};

/// What takes two splits, of which the second may want for a frame.
const TWO_BLOCKS: Plan = Plan {
    name: "two blocks",
    cells: &[MIB2 - PAGE, PAGE, PAGE, MIB2 - PAGE],
    hands: &[(0, 4)],
    maps: &[(0, 0, 4), (1, 1, 2)],
    parts: &[(0, 4), (1, 2)],
    freezes: &[(0, 4), (1, 2)],
    runs: 16,
};

// How many states there are follows from the plan and the model alone. With another number, something else was tried.

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps would take a day there")]
fn everything_with_two_pages() {
    let counts = explore(&PAGES);
    assert!(counts.refused > 100_000 && counts.starved > 1000);
    assert_eq!((counts.states, counts.depth), (5261, 14));
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps would take a day there")]
fn everything_with_a_block() {
    let counts = explore(&BLOCK);
    assert!(counts.refused > 50_000 && counts.starved > 1000);
    assert_eq!((counts.states, counts.depth), (2665, 15));
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps would take a day there")]
fn everything_with_two_blocks() {
    let counts = explore(&TWO_BLOCKS);
    assert!(counts.refused > 1000 && counts.starved > 100);
    assert_eq!((counts.states, counts.depth), (621, 14));
}

/// Two runs are the memory and what lies above it; with one more, little can be told apart.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of steps would take a day there")]
fn everything_with_a_ledger_without_room() {
    let counts = explore(&Plan { name: "two pages, three runs", runs: 3, ..PAGES });
    assert!(counts.refused > 1000 && counts.starved > 100);
    assert_eq!((counts.states, counts.depth), (93, 7));
}
