//! What each operation on tables does and refuses, with the numbers, one by one; and every short sequence over a few pages.

use crate::common::machine::{Machine, page};
use crate::common::setup::{GIB, MIB2, OTHER, PAGE, Setup, VM};
use stage2::{
    Environment, Error, Format, Geometry, Grant, Invalidation, Ipa, LedgerError, Pa, PaRange, Permissions,
    Refused, Stage2, State, Transfer, Use, VmId, VmSet,
};

#[test]
fn the_largest_blocks_are_chosen() {
    let mut setup = Setup::new();
    setup.ram(GIB - MIB2 - PAGE, 3 * GIB - MIB2 - PAGE, MIB2 + PAGE + GIB + MIB2 + PAGE).unwrap();
    assert_eq!(setup.sizes(), [PAGE, MIB2, GIB, MIB2, PAGE]);
    // Two start tables; below them two of level 2 and two of level 3.
    assert_eq!(setup.machine.frames_used(), 2 + 4);
}

#[test]
fn alignment_of_the_physical_side_counts_too() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB + PAGE, MIB2).unwrap();
    assert_eq!(setup.sizes(), [PAGE; 512]);
    setup.ram(2 * GIB, 3 * GIB + MIB2, 2 * MIB2).unwrap();
    assert_eq!(setup.sizes()[512..], [MIB2; 2]);
}

#[test]
fn to_map_what_was_free_invalidates_nothing() {
    let mut setup = Setup::new();
    let before = setup.machine.whole_invalidations;
    setup.ram(0, GIB, GIB + MIB2 + PAGE).unwrap();
    assert_eq!(setup.machine.invalidations, []);
    assert_eq!(setup.machine.whole_invalidations, before);
}

#[test]
fn to_unmap_invalidates_just_that() {
    let mut setup = Setup::new();
    setup.ram(0, GIB, 4 * PAGE).unwrap();
    setup.unmap(PAGE, 2 * PAGE).unwrap();
    let leaf = Invalidation { ipa: page(1), size: 2 * PAGE, stride: PAGE, tables: false };
    assert_eq!(setup.machine.invalidations, [(VM, leaf)]);
    assert_eq!(leaf.count(), 2);
    // The last page of a table takes the tables above it with it.
    setup.machine.invalidations.clear();
    setup.unmap(0, PAGE).unwrap();
    setup.unmap(3 * PAGE, PAGE).unwrap();
    assert_eq!(setup.machine.invalidations.len(), 2);
    let (_, last) = setup.machine.invalidations[1];
    assert!(last.tables);
    assert_eq!(setup.machine.frames_used(), 2);
}

#[test]
fn a_split_breaks_the_block_and_a_merge_the_table() {
    let mut setup = Setup::new();
    setup.ram(GIB, GIB, MIB2).unwrap();
    setup.protect(GIB, PAGE, Permissions::READ).unwrap();
    assert_eq!(setup.sizes(), [PAGE; 512]);
    let block = Invalidation { ipa: Ipa::new(GIB), size: MIB2, stride: MIB2, tables: false };
    let part = Invalidation { ipa: Ipa::new(GIB), size: PAGE, stride: PAGE, tables: false };
    assert_eq!(setup.machine.invalidations, [(VM, block), (VM, part)]);
    setup.machine.invalidations.clear();
    setup.protect(GIB, PAGE, Permissions::ALL).unwrap();
    assert_eq!(setup.sizes(), [MIB2]);
    let table = Invalidation { ipa: Ipa::new(GIB), size: MIB2, stride: PAGE, tables: true };
    assert_eq!(setup.machine.invalidations, [(VM, part), (VM, table)]);
    assert_eq!(setup.machine.frames_used(), 2 + 1);
}

#[test]
fn to_protect_what_is_so_already_does_nothing() {
    let mut setup = Setup::new();
    setup.ram(0, GIB, GIB).unwrap();
    setup.machine.frames_left = 0;
    setup.protect(PAGE, PAGE, Permissions::ALL).unwrap();
    assert_eq!(setup.machine.invalidations, []);
    assert_eq!(setup.sizes(), [GIB]);
}

#[test]
fn pieces_that_fit_become_a_block_of_a_gibibyte() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, MIB2 + PAGE).unwrap();
    setup.ram(GIB + 2 * MIB2, 2 * GIB + 2 * MIB2, GIB - 2 * MIB2).unwrap();
    assert_eq!(setup.leaves().len(), 1 + 1 + 510);
    setup.ram(GIB + MIB2 + PAGE, 2 * GIB + MIB2 + PAGE, MIB2 - PAGE).unwrap();
    assert_eq!(setup.sizes(), [GIB]);
    assert_eq!(setup.machine.frames_used(), 2);
}

#[test]
fn ranges_are_refused_with_their_numbers() {
    let mut setup = Setup::new();
    let top = 1 << 40;
    for (ipa, size) in [(0x800, PAGE), (0, 0x800), (0, 0), (u64::MAX - 0x7ff, PAGE)] {
        let error = Error::Misaligned { ipa: Ipa::new(ipa), size };
        assert_eq!(setup.unmap(ipa, size), Err(error));
        assert_eq!(setup.protect(ipa, size, Permissions::READ), Err(error));
    }
    for (ipa, size) in [(top, PAGE), (top - PAGE, 2 * PAGE), (u64::MAX - 0xfff, PAGE), (0, top + PAGE)] {
        let error = Error::IpaOutOfRange { ipa: Ipa::new(ipa), size, bits: 40 };
        assert_eq!(setup.unmap(ipa, size), Err(error));
        assert_eq!(setup.protect(ipa, size, Permissions::READ), Err(error));
    }
    assert_eq!(setup.ram(0x10, GIB, PAGE), Err(Error::Misaligned { ipa: Ipa::new(0x10), size: PAGE }));
    let error = Error::IpaOutOfRange { ipa: Ipa::new(top), size: PAGE, bits: 40 };
    assert_eq!(setup.ram(top, GIB, PAGE), Err(error));
    for (pa, size) in [(1 << 40, PAGE), ((1 << 40) - PAGE, 2 * PAGE)] {
        let error = Error::PaOutOfRange { pa: Pa::new(pa), size, bits: 40 };
        assert_eq!(setup.ram(0, pa, size), Err(error));
    }
    setup.ram(0, (1 << 40) - PAGE, PAGE).unwrap();
    setup.unmap(0, PAGE).unwrap();
    // The last page there is can be mapped.
    setup.ram(top - PAGE, GIB, PAGE).unwrap();
    assert_eq!(setup.tables.translate(&setup.machine, Ipa::new(top - 1)).unwrap().pa, Pa::new(GIB + 0xfff));
    assert_eq!(setup.tables.translate(&setup.machine, Ipa::new(top)), None);
    assert_eq!(setup.tables.next_mapping(&setup.machine, Ipa::new(top)), None);
    assert_eq!(setup.ledger.mapped_pages(VM), 1);
    setup.protect(top - PAGE, PAGE, Permissions::READ).unwrap();
    setup.unmap(top - PAGE, PAGE).unwrap();
    assert_eq!(setup.machine.frames_used(), 2);
}

#[test]
fn overlaps_and_holes_are_refused_with_their_place() {
    let mut setup = Setup::new();
    setup.ram(4 * MIB2, 4 * GIB, MIB2).unwrap();
    let before = setup.leaves();
    let error = Error::AlreadyMapped { ipa: Ipa::new(4 * MIB2), pa: Pa::new(4 * GIB) };
    assert_eq!(setup.ram(3 * MIB2, 2 * GIB, MIB2 + PAGE), Err(error));
    assert_eq!(setup.ram(5 * MIB2 - PAGE, 2 * GIB, PAGE), Err(error));
    assert_eq!(setup.unmap(5 * MIB2 - PAGE, 3 * PAGE), Err(Error::NotMapped { ipa: Ipa::new(5 * MIB2) }));
    assert_eq!(setup.unmap(PAGE, PAGE), Err(Error::NotMapped { ipa: Ipa::new(PAGE) }));
    let refused = setup.protect(3 * MIB2, 2 * MIB2, Permissions::READ);
    assert_eq!(refused, Err(Error::NotMapped { ipa: Ipa::new(3 * MIB2) }));
    assert_eq!(setup.leaves(), before);
    assert_eq!(setup.ledger.mapped_pages(VM), 512);
}

#[test]
fn permissions_go_no_further_than_the_grant() {
    let mut setup = Setup::new();
    let at = Ipa::new(MIB2);
    let write = Error::WriteNotGranted { ipa: at };
    assert_eq!(setup.map(MIB2, 10 * GIB, PAGE, Use::Shared, Permissions::READ_WRITE), Err(write));
    setup.map(MIB2, 10 * GIB, PAGE, Use::Shared, Permissions::READ).unwrap();
    assert_eq!(setup.protect(MIB2, PAGE, Permissions::READ_WRITE), Err(write));
    setup.protect(MIB2, PAGE, Permissions::READ_EXECUTE).unwrap();

    let execute = Error::ExecuteDevice { ipa: Ipa::new(0) };
    assert_eq!(setup.map(0, 0x900_0000, PAGE, Use::Device, Permissions::ALL), Err(execute));
    setup.map(0, 0x900_0000, PAGE, Use::Device, Permissions::READ_WRITE).unwrap();
    assert_eq!(setup.protect(0, PAGE, Permissions::READ_EXECUTE), Err(execute));

    let blind = Permissions { read: false, write: true, execute: true };
    let error = Error::ExecuteWithoutRead { ipa: Ipa::new(GIB) };
    assert_eq!(setup.ram(GIB, GIB, PAGE), Ok(()));
    assert_eq!(setup.protect(GIB, PAGE, blind), Err(error));
    assert_eq!(setup.map(GIB, 2 * GIB, PAGE, Use::Ram, blind), Err(error));
    // A refusal part of the way names the place and changes nothing before it.
    setup.map(GIB + PAGE, 10 * GIB, PAGE, Use::Shared, Permissions::READ).unwrap();
    let before = setup.leaves();
    let further = Error::WriteNotGranted { ipa: Ipa::new(GIB + PAGE) };
    assert_eq!(setup.protect(GIB, 2 * PAGE, Permissions::READ_WRITE), Err(further));
    assert_eq!(setup.leaves(), before);
}

#[test]
fn a_grant_is_good_for_one_vm_and_one_mapping() {
    let mut setup = Setup::new();
    let pages = PaRange::new(Pa::new(9 * GIB), PAGE).unwrap();
    assert_eq!(
        setup.ledger.grant(VM, pages, Use::Ram).unwrap_err().to_string(),
        "PA 0x240000000 is Owned(VmId(4)): VM 3 may not map it so"
    );
    let grant = setup.ledger.grant(OTHER, pages, Use::Ram).unwrap();
    let refused = setup.tables.map(&mut setup.machine, page(0), grant, Permissions::ALL).unwrap_err();
    let Refused { error, grant } = refused;
    assert_eq!(error, Error::ForeignGrant { grant: OTHER, tables: VM });
    assert_eq!((grant.vm(), grant.range(), grant.usage(), grant.may_write()), (OTHER, pages, Use::Ram, true));
    setup.ledger.release(grant).unwrap();
    assert_eq!(setup.ledger.state(Pa::new(9 * GIB)), (State::Owned(OTHER), 0));
}

#[test]
fn what_was_unmapped_comes_back_as_grants_that_can_be_mapped_again() {
    let mut setup = Setup::new();
    setup.ram(0, GIB, MIB2).unwrap();
    setup.ram(MIB2, 4 * GIB, 2 * PAGE).unwrap();
    setup.map(MIB2 + 2 * PAGE, 10 * GIB, PAGE, Use::Shared, Permissions::READ).unwrap();
    let mut grants: Vec<Grant> = Vec::new();
    setup
        .tables
        .unmap(&mut setup.machine, Ipa::new(MIB2 - PAGE), 4 * PAGE, |grant| grants.push(grant))
        .unwrap();
    let seen: Vec<_> =
        grants.iter().map(|g| (g.range().start().as_u64(), g.range().pages(), g.may_write())).collect();
    assert_eq!(seen, [(GIB + MIB2 - PAGE, 1, true), (4 * GIB, 2, true), (10 * GIB, 1, false)]);
    let mut to = 16 * GIB;
    for grant in grants {
        let pages = grant.range().size();
        setup.tables.map(&mut setup.machine, Ipa::new(to), grant, Permissions::READ).unwrap();
        to += pages;
    }
    setup.machine.assert_current();
    assert_eq!(setup.ledger.mapped_pages(VM), 512 + 2 + 1);
    setup.ledger.teardown(setup.tables, &mut setup.machine).unwrap();
    assert_eq!((setup.machine.frames_used(), setup.ledger.mapped_pages(VM)), (0, 0));
}

#[test]
fn a_refusal_within_a_block_names_the_page() {
    let mut setup = Setup::new();
    setup.map(0, 10 * GIB, MIB2, Use::Shared, Permissions::READ).unwrap();
    let refused = Error::WriteNotGranted { ipa: Ipa::new(5 * PAGE) };
    assert_eq!(setup.protect(5 * PAGE, PAGE, Permissions::READ_WRITE), Err(refused));
    assert_eq!(setup.sizes(), [MIB2]);
}

#[test]
fn grants_of_different_rights_do_not_run_together() {
    let mut setup = Setup::new();
    let pages = PaRange::new(Pa::new(9 * GIB - PAGE), PAGE).unwrap();
    let (members, writers) = (VmSet::only(VM), VmSet::only(VM));
    setup.ledger.transfer(pages, Transfer::Share { owner: VM, members, writers }).unwrap();
    let next = PaRange::new(Pa::new(9 * GIB), PAGE).unwrap();
    let share = Transfer::Share { owner: OTHER, members: members.with(OTHER), writers: VmSet::EMPTY };
    setup.ledger.transfer(next, share).unwrap();
    for n in 0..2 {
        setup.map(n * PAGE, 9 * GIB - PAGE + n * PAGE, PAGE, Use::Shared, Permissions::READ).unwrap();
    }
    let mut rights = Vec::new();
    let taken = |grant: Grant| rights.push(grant.may_write());
    setup.tables.unmap(&mut setup.machine, page(0), 2 * PAGE, taken).unwrap();
    assert_eq!(rights, [true, false]);
}

#[test]
fn a_ledger_without_room_keeps_what_is_mapped() {
    let mut setup = Setup::new();
    // Every other page mapped, until one more run would not fit.
    let mut at = 0;
    let full = loop {
        match setup.ram(at, GIB + at, PAGE) {
            Ok(()) => at += 2 * PAGE,
            Err(error) => break error,
        }
    };
    assert_eq!(full, Error::Ledger(LedgerError::Full { capacity: 64 }));
    setup.unmap(at - 2 * PAGE, PAGE).unwrap_err();
    assert!(setup.tables.translate(&setup.machine, Ipa::new(at - 2 * PAGE)).is_some());
    let mapped = setup.ledger.mapped_pages(VM);
    assert_eq!(mapped, at / (2 * PAGE));
    // The end of a VM needs no room.
    setup.ledger.teardown(setup.tables, &mut setup.machine).unwrap();
    assert_eq!(setup.ledger.mapped_pages(VM), 0);
    setup.ledger.reclaim_all(VM).unwrap();
}

#[test]
fn a_lost_grant_is_found_at_the_end_and_its_pages_stay() {
    let mut setup = Setup::new();
    setup.ram(0, GIB, 3 * PAGE).unwrap();
    setup.tables.unmap(&mut setup.machine, page(1), PAGE, drop).unwrap();
    let error = setup.ledger.teardown(setup.tables, &mut setup.machine).unwrap_err();
    assert_eq!(error, LedgerError::Mismatch { vm: VM, unmapped: 2, counted: 3 });
    assert_eq!(setup.machine.frames_used(), 0);
    let still = LedgerError::StillMapped { pa: Pa::new(GIB), mappings: 1 };
    assert_eq!(setup.ledger.reclaim_all(VM), Err(still));
    assert_eq!(setup.ledger.retire(VM), Err(LedgerError::VmStillMaps { vm: VM, pages: 3 }));
}

/// With every number of frames short of enough, the operation is refused and all is as it was; with enough it works.
fn starve(prepare: impl Fn(&mut Setup), operation: impl Fn(&mut Setup) -> Result<(), Error>) -> usize {
    for frames in 0..20 {
        let mut setup = Setup::new();
        prepare(&mut setup);
        setup.machine.frames_left = frames;
        let (leaves, used, pages) =
            (setup.leaves(), setup.machine.frames_used(), setup.ledger.mapped_pages(VM));
        match operation(&mut setup) {
            Ok(()) => return frames,
            Err(error) => assert_eq!(error, Error::OutOfFrames { tables: 1 }),
        }
        assert_eq!(setup.leaves(), leaves, "{frames} frames");
        assert_eq!(setup.machine.frames_used(), used, "{frames} frames");
        assert_eq!(setup.ledger.mapped_pages(VM), pages);
        setup.machine.assert_current();
    }
    panic!("twenty frames are enough for all of these");
}

#[test]
#[cfg_attr(miri, ignore = "dozens of worlds with whole tables of entries: ten minutes and more there")]
fn out_of_frames_leaves_nothing_half_done() {
    let big = |setup: &mut Setup| setup.ram(GIB - PAGE, 3 * GIB - PAGE, GIB + 2 * PAGE);
    assert_eq!(starve(|_| {}, big), 4);
    let scattered = |setup: &mut Setup| setup.ram(GIB, 2 * GIB + PAGE, 4 * MIB2);
    assert_eq!(starve(|_| {}, scattered), 1 + 4);
    let block = |setup: &mut Setup| setup.ram(0, GIB, 2 * GIB).unwrap();
    let across = |setup: &mut Setup| setup.unmap(GIB - PAGE, 2 * PAGE);
    assert_eq!(starve(block, across), 4);
    assert_eq!(starve(block, |setup| setup.protect(GIB - PAGE, 2 * PAGE, Permissions::READ)), 4);
    // A block that is in the way of nothing is not split.
    assert_eq!(starve(block, |setup| setup.unmap(0, GIB)), 0);
}

#[test]
fn tables_need_frames_and_good_ones() {
    let geometry = Geometry::new(41, 48).unwrap();
    let mut machine = Machine::new(3);
    let refused = Stage2::new(&mut machine, VM, geometry, Format::Combined).unwrap_err();
    assert_eq!(refused, Error::OutOfFrames { tables: 4 });
    assert_eq!(machine.frames_used(), 0);

    /// Gives start tables that are not aligned to their size.
    struct Careless(Option<Pa>);
    impl Environment for Careless {
        fn copy(&mut self, _: Pa, _: Pa) {}
        fn allocate(&mut self, _: usize) -> Option<Pa> {
            self.0.take()
        }
        fn free(&mut self, table: Pa, _: usize) {
            self.0 = Some(table);
        }
        fn read(&self, _: Pa, _: usize) -> u64 {
            0
        }
        fn write(&mut self, _: Pa, _: usize, _: u64) {}
        fn order(&mut self) {}
        fn publish(&mut self) {}
        fn invalidate(&mut self, _: VmId, _: Invalidation) {}
        fn invalidate_vm(&mut self, _: VmId) {}
    }
    for bad in [0x4000_2000, 1 << 50] {
        let mut careless = Careless(Some(Pa::new(bad)));
        let refused = Stage2::new(&mut careless, VM, geometry, Format::Combined).unwrap_err();
        assert_eq!((refused, careless.0), (Error::BadFrame { pa: Pa::new(bad) }, Some(Pa::new(bad))));
    }
}

#[test]
fn all_mappings_can_be_gone_through_in_steps() {
    let mut setup = Setup::new();
    setup.ram(GIB, GIB, GIB).unwrap();
    setup.ram(4 * GIB - PAGE, 4 * GIB - PAGE, MIB2 + PAGE).unwrap();
    let mut seen = Vec::new();
    let mut at = Ipa::new(0);
    while let Some(mapping) = setup.tables.next_mapping(&setup.machine, at) {
        seen.push((mapping.ipa.as_u64(), mapping.size()));
        at = mapping.ipa.checked_add(mapping.size()).unwrap();
    }
    assert_eq!(seen, [(GIB, GIB), (4 * GIB - PAGE, PAGE), (4 * GIB, MIB2)]);
}

/// Every sequence of three operations over a block's first and last page, the block, and a page beside it: the model and the
/// walker agree after each step.
#[test]
#[cfg_attr(miri, ignore = "1728 sequences of table changes would take hours there")]
fn every_short_sequence_over_a_block() {
    const BASE: u64 = 0x4000_0000;
    const PLACES: [(u64, u64); 4] = [(0, PAGE), (MIB2 - PAGE, PAGE), (0, MIB2), (MIB2, PAGE)];
    let operations: Vec<(usize, usize)> =
        (0..3).flat_map(|what| (0..PLACES.len()).map(move |place| (what, place))).collect();
    // What the test expects of each of the 513 pages: unmapped, or mapped with or without the right to write.
    let count = operations.len();
    for sequence in 0..count.pow(3) {
        let mut setup = Setup::new();
        let mut pages: [Option<bool>; 513] = [Some(true); 513];
        setup.ram(BASE, 2 * GIB, MIB2 + PAGE).unwrap();
        for step in 0..3u32 {
            let (what, place) = operations[sequence / count.pow(step) % count];
            let (from, size) = PLACES[place];
            let touched = &mut pages[(from / PAGE) as usize..((from + size) / PAGE) as usize];
            let (any, all) = (touched.iter().any(Option::is_some), touched.iter().all(Option::is_some));
            let (done, expected, after) = match what {
                0 => (setup.ram(BASE + from, 2 * GIB + from, size), !any, Some(true)),
                1 => (setup.unmap(BASE + from, size), all, None),
                _ => (setup.protect(BASE + from, size, Permissions::READ), all, Some(false)),
            };
            assert_eq!(done.is_ok(), expected, "{sequence} step {step}: {done:?}");
            if expected {
                touched.fill(after);
            }
        }
        let leaves = setup.leaves();
        let mut at = leaves.iter();
        let mut page = 0;
        while page < pages.len() {
            let Some(write) = pages[page] else {
                page += 1;
                continue;
            };
            let whole = page == 0 && pages[..512].iter().all(|&other| other == Some(write));
            let leaf = at.next().unwrap();
            assert_eq!((leaf.ipa, leaf.write), (BASE + page as u64 * PAGE, write), "{sequence}");
            assert_eq!((leaf.size, leaf.pa - 2 * GIB), (if whole { MIB2 } else { PAGE }, page as u64 * PAGE));
            page += (leaf.size / PAGE) as usize;
        }
        assert_eq!(at.next(), None, "{sequence}");
    }
}
