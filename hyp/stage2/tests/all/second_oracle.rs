//! A second opinion on the tables, by the crate `aarch64-paging`, which shares nothing with ours. Random sequences run on
//! the world of the property tests; after every step
//! - that crate's walker reads *our* tables and finds, descriptor by descriptor and bit by bit, what that crate builds when
//!   it is told in one go what ought to be mapped: same levels, addresses, permissions and memory attributes, and as many
//!   tables;
//! - tables that it has kept through the same maps, unmaps and changes of permissions say the same of every page;
//! - and of two descriptors it thinks as we do whether one may follow the other without break-before-make.
//!
//! What can't be compared, because it has no words for it:
//! - start tables side by side (IPA sizes of 40 to 43 bits): its root is one table. The second of the world's three VMs is
//!   left to the walker of our own, in `common/walker.rs`. So are the bounds of IPA sizes between 32 and 48: its root
//!   takes all that its level spans.
//! - VMIDs, the ledger and refusals: it maps over what is mapped and unmaps what isn't. It is told only of what succeeded.
//! - the memory attributes with FEAT_S2FWB: it names those without.
//! - the contiguous hint, which its stage 2 never sets, DBM, which it doesn't know there, and what we keep in software's
//!   bits: all are masked. What logging, ageing and sharing on write do to S2AP and the access flag is compared.
//! - the levels in tables with a history: it splits blocks and never merges them. There, stretches are compared.
//! - running out of frames: its allocator must not fail. TLB maintenance: it does none on a host.

use std::collections::HashMap;
use std::ptr::NonNull;

use crate::common::machine::Machine;
use crate::common::model::{Model, Target};
use crate::common::steps::{Draw, Step, finish, perform};
use crate::common::walker::Memory;
use crate::common::world::{GIB, World};
use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{PagingAttributes, PhysicalAddress, Stage2Attributes};
use aarch64_paging::paging::{Constraints, MemoryRegion, PageTable, Stage2, Translation};
use aarch64_paging::target::TargetAllocator;
use proptest::prelude::*;
use stage2::{Attributes, Format, Leaf, Level, Marks, MemoryType, Pa, Permissions, Use, needs_break};

/// Bits 58:55, software's, 52, the contiguous hint, and 51, DBM.
const NOT_COMPARED: usize = 0b1111 << 55 | 1 << 52 | 1 << 51;

const CASES: u32 = if cfg!(miri) { 1 } else { 48 };
const STEPS: usize = if cfg!(miri) { 2 } else { 30 };

/// Tables built by the other crate, in memory of its own.
type Theirs = Mapping<TargetAllocator<Stage2Attributes>, Stage2>;

/// A leaf as the other crate's walker finds it: address, level, descriptor without what is not compared.
type Found = (u64, usize, usize);

/// A copy of a table, as it lies in memory.
#[repr(C, align(4096))]
struct Frame([u64; 512]);

/// Our tables, for the other crate to read: a copy of every frame that is reachable.
struct Snapshot {
    root: PhysicalAddress,
    frames: HashMap<usize, NonNull<PageTable<Stage2Attributes>>>,
    // What the pointers lead to.
    _memory: Vec<Frame>,
}

impl Snapshot {
    fn new(machine: &Machine, root: u64, tables: &[u64]) -> Self {
        let copy = |&table: &u64| Frame(std::array::from_fn(|index| machine.load(table + 8 * index as u64)));
        let mut memory: Vec<Frame> = tables.iter().map(copy).collect();
        let pointers = memory.iter_mut().map(|frame| NonNull::from(frame).cast());
        let frames = tables.iter().map(|&table| table as usize).zip(pointers).collect();
        Self { root: PhysicalAddress(root as usize), frames, _memory: memory }
    }
}

impl Translation<Stage2Attributes> for Snapshot {
    /// Asked for once, for the root.
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        (self.physical_to_virtual(self.root), self.root)
    }

    /// The copies go with the snapshot.
    unsafe fn deallocate_table(&mut self, _: NonNull<PageTable<Stage2Attributes>>) {}

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        self.frames[&pa.0]
    }
}

/// What a leaf ought to say, in the other crate's words.
fn flags(target: Target) -> Stage2Attributes {
    type Flags = Stage2Attributes;
    let Permissions { read, execute, .. } = target.permissions;
    let access = match (read, target.is_writable()) {
        (false, false) => Flags::S2AP_ACCESS_NONE,
        (true, false) => Flags::S2AP_ACCESS_RO,
        (false, true) => Flags::S2AP_ACCESS_WO,
        (true, true) => Flags::S2AP_ACCESS_RW,
    };
    let memory = match target.usage.memory_type() {
        MemoryType::Normal => {
            Flags::MEMATTR_NORMAL_INNER_WB | Flags::MEMATTR_NORMAL_OUTER_WB | Flags::SH_INNER
        }
        MemoryType::Device => Flags::MEMATTR_DEVICE_nGnRE | Flags::SH_OUTER,
    };
    let never = if execute { Flags::empty() } else { Flags::XN };
    let accessed = if target.accessed { Flags::ACCESS_FLAG } else { Flags::empty() };
    Flags::VALID | accessed | access | memory | never
}

fn region(ipa: u64, size: u64) -> MemoryRegion {
    MemoryRegion::new(ipa as usize, (ipa + size) as usize)
}

fn map(theirs: &mut Theirs, ipa: u64, size: u64, target: Target) {
    let pa = PhysicalAddress(target.pa as usize);
    theirs.map_range(&region(ipa, size), pa, flags(target), Constraints::empty()).unwrap();
}

fn empty(level: usize) -> Theirs {
    Mapping::new(TargetAllocator::new(GIB), level, Stage2)
}

fn start_level(world: &World, slot: u8) -> usize {
    let geometry = world.guests[usize::from(slot)].stage2.as_ref().unwrap().geometry();
    assert_eq!(geometry.start_tables(), 1);
    geometry.start_level().number().into()
}

/// All that a VM ought to have mapped, told in one go.
fn mapped(world: &World, slot: u8) -> Theirs {
    let mut theirs = empty(start_level(world, slot));
    for (ipa, size, target) in world.guests[usize::from(slot)].model.joined() {
        map(&mut theirs, ipa, size, target);
    }
    theirs
}

/// Whether all of a range is writable, or nothing of it is: what is logged or copied on write is not.
fn is_writable_alike(model: &Model, ipa: u64, size: u64) -> bool {
    let targets = model.clone().remove(ipa, size);
    let first = targets.first().map(|(.., target)| target.is_writable());
    targets.iter().all(|(.., target)| Some(target.is_writable()) == first)
}

/// Every leaf, by the other crate's walker.
fn leaves<T: Translation<Stage2Attributes>>(tables: &Mapping<T, Stage2>) -> Vec<Found> {
    let mut leaves = Vec::new();
    let all = MemoryRegion::new(0, tables.size());
    let visited = tables.walk_range(&all, &mut |range, descriptor, level| {
        if descriptor.is_valid() {
            let bits = descriptor.output_address().0 | descriptor.flags().bits() & !NOT_COMPARED;
            leaves.push((range.start().0 as u64, level, bits));
        }
        Ok(())
    });
    visited.unwrap();
    leaves
}

/// The same as stretches: first address, size, and the first page's descriptor.
fn stretches(leaves: &[Found]) -> Vec<(u64, u64, usize)> {
    const TABLE_OR_PAGE: usize = 1 << 1;
    let mut stretches: Vec<(u64, u64, usize)> = Vec::new();
    for &(ipa, level, bits) in leaves {
        let size = 4096 << (9 * (3 - level));
        let bits = bits & !TABLE_OR_PAGE;
        match stretches.last_mut() {
            Some((start, length, first)) if *start + *length == ipa && *first + *length as usize == bits => {
                *length += size
            }
            _ => stretches.push((ipa, size, bits)),
        }
    }
    stretches
}

/// The VMs whose tables the other crate can express, each with what it has kept of them.
struct Witnesses([(u8, Theirs); 2]);

impl Witnesses {
    fn new(world: &World) -> Self {
        Self([0, 2].map(|slot| (slot, empty(start_level(world, slot)))))
    }

    /// Does what was done, where it was.
    fn follow(&mut self, step: Step, before: &[Model], world: &World) {
        for (slot, theirs) in &mut self.0 {
            let model = &world.guests[usize::from(*slot)].model;
            if before[usize::from(*slot)].joined() == model.joined() {
                continue;
            }
            match step {
                Step::Map { ipa, size, entries: None, .. } => {
                    map(theirs, ipa, size, model.lookup(ipa).unwrap())
                }
                Step::Unmap { ipa, size, entries: None, .. } => {
                    // The physical address is ignored, but it must not make its arithmetic wrap.
                    let nowhere = PhysicalAddress(ipa as usize);
                    let unmapped = Stage2Attributes::empty();
                    theirs.map_range(&region(ipa, size), nowhere, unmapped, Constraints::empty()).unwrap();
                }
                Step::Protect { ipa, size, .. } if is_writable_alike(model, ipa, size) => {
                    // Only what permissions are made of, which is the same for all of the range.
                    let which = Stage2Attributes::S2AP_ACCESS_RW | Stage2Attributes::XN;
                    let set = flags(model.lookup(ipa).unwrap()) & which;
                    theirs
                        .modify_range(&region(ipa, size), &|_, entry| entry.modify_flags(set, which & !set))
                        .unwrap();
                }
                Step::Rebuild { .. } => *theirs = empty(start_level(world, *slot)),
                Step::HandOver { .. } => panic!("nothing that is mapped changes hands"),
                // A few bits of many leaves, or an address, and what of it is refused halfway: told in one go.
                _ => *theirs = mapped(world, *slot),
            }
        }
    }

    fn compare(&self, world: &World) {
        for (slot, theirs) in &self.0 {
            let guest = &world.guests[usize::from(*slot)];
            let stage2 = guest.stage2.as_ref().unwrap();
            let level = start_level(world, *slot);
            let fresh = mapped(world, *slot);
            let census =
                crate::common::walker::regime(stage2.vtcr(), false).census(&world.machine, stage2.vttbr());
            let root = stage2.vttbr() & 0xffff_ffff_f000;
            let ours = Mapping::new(Snapshot::new(&world.machine, root, &census.tables), level, Stage2);
            let found = leaves(&ours);
            assert_eq!(found, leaves(&fresh), "VM {slot}: not as if mapped in one go");
            assert_eq!(stretches(&found), stretches(&leaves(theirs)), "VM {slot}: not the same history");
            let tables = fresh.translation().as_bytes().len() / 4096;
            assert_eq!(census.tables.len(), tables, "VM {slot}: tables");
        }
    }
}

fn draw() -> impl Strategy<Value = Draw> {
    any::<((u8, u8, u8, u8), (u8, u8), (u16, u16, u16))>().prop_map(|(bytes, more, (a, b, c))| {
        let (kind, slot, place, rights) = bytes;
        let (starve, shape) = more;
        Draw { kind, slot, place, rights, starve, shape, a, b, c }
    })
}

/// Leaves of every kind, with the level that they are for.
fn sample() -> Vec<(u64, Level)> {
    let mut sample = Vec::new();
    for usage in [Use::Ram, Use::Shared, Use::Device, Use::Banked, Use::CopyOnWrite] {
        for permissions in [Permissions::ALL, Permissions::READ_WRITE, Permissions::READ] {
            for level in [Level::One, Level::Two, Level::Three] {
                let attributes = Attributes { permissions, usage, may_write: true };
                let leaf = Leaf { pa: Pa::new(GIB), attributes, marks: Marks::NEW };
                sample.push((leaf.encode(Format::Combined, level), level));
            }
        }
    }
    sample
}

/// Every pair of leaves that differ in one bit or two of those that the other crate has names for, and of the address.
/// Bits 1:0 say what kind of entry it is, and stay.
#[test]
#[cfg_attr(miri, ignore = "100,000 pairs of numbers, without a pointer among them")]
fn another_crate_breaks_the_same_entries() {
    const ADDRESS: u64 = 0xffff_ffff_f000;
    let named = Stage2Attributes::all().bits() as u64 | ADDRESS;
    let bits: Vec<u64> = (2..64).map(|bit| 1 << bit).filter(|bit| named & bit != 0).collect();
    let flags = |raw: u64| Stage2Attributes::from_bits_retain((raw & !ADDRESS) as usize);
    let mut breaks = [0, 0];
    for (old, level) in sample() {
        for (&one, &other) in bits.iter().flat_map(|one| bits.iter().map(move |other| (one, other))) {
            let new = old ^ (one | other);
            let safe = (old ^ new) & ADDRESS == 0 && Stage2Attributes::is_bbm_safe(flags(old), flags(new));
            assert_eq!(needs_break(old, new, level), !safe, "{old:#x} to {new:#x} at {level:?}");
            breaks[usize::from(safe)] += 1;
        }
    }
    assert!(breaks.iter().all(|&count| count > 1000), "both answers are asked for: {breaks:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn another_crate_reads_and_builds_the_same_tables(draws in prop::collection::vec(draw(), 1..STEPS)) {
        let mut world = World::new();
        let mut witnesses = Witnesses::new(&world);
        for draw in draws {
            let before: Vec<Model> = world.guests.iter().map(|guest| guest.model.clone()).collect();
            let step = perform(&mut world, draw);
            witnesses.follow(step, &before, &world);
            witnesses.compare(&world);
        }
        finish(world);
    }
}
