//! The log of stores and the access flag, one by one: what is told, once, at which grain, and what is left when it ends.

use crate::common::setup::{GIB, MIB2, PAGE, Setup, VM};
use stage2::{Access, CopyReserve, Cursor, Error, Invalidation, Ipa, Permissions, Progress, Use};

/// One round, in one step: what is told.
fn collect(setup: &mut Setup) -> Vec<(u64, u64)> {
    let mut told = Vec::new();
    let mut cursor = setup.tables.everything();
    let found = |ipa: Ipa, size| told.push((ipa.as_u64(), size));
    assert_eq!(
        setup.tables.collect_log(&mut setup.machine, &mut cursor, usize::MAX, found),
        Ok(Progress::Done)
    );
    setup.machine.assert_current();
    told
}

fn used(setup: &mut Setup) -> Vec<(u64, u64)> {
    let mut told = Vec::new();
    let mut cursor = setup.tables.everything();
    let found = |ipa: Ipa, size| told.push((ipa.as_u64(), size));
    let got = setup.tables.collect_accessed(&mut setup.machine, &mut cursor, usize::MAX, found);
    assert_eq!(got, Ok(Progress::Done));
    setup.machine.assert_current();
    told
}

fn access(setup: &mut Setup, ipa: u64, access: Access) -> Result<u64, Error> {
    let mut none = CopyReserve::none(VM);
    let got = setup.tables.resolve(&mut setup.machine, &mut none, Ipa::new(ipa), access);
    setup.machine.assert_current();
    got.map(|mapping| mapping.size())
}

/// 16 MiB as blocks, logged and collected once.
fn logged() -> Setup {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB + MIB2, 8 * MIB2).unwrap();
    assert_eq!(setup.tables.start_log(), Cursor::new(Ipa::new(0), 1 << 40));
    let all: Vec<_> = (0..8).map(|n| (GIB + n * MIB2, MIB2)).collect();
    assert_eq!(collect(&mut setup), all);
    setup
}

#[test]
fn the_log_has_to_be_started() {
    let mut setup = Setup::new();
    let mut cursor = setup.tables.everything();
    let got = setup.tables.collect_log(&mut setup.machine, &mut cursor, 1, |_, _| panic!());
    assert_eq!(got, Err(Error::NotLogging));
}

#[test]
fn a_store_is_told_once_and_by_the_page() {
    let mut setup = logged();
    assert_eq!(collect(&mut setup), []);
    assert!(setup.leaves().iter().all(|leaf| !leaf.write && leaf.dbm));
    let page = GIB + 3 * MIB2 + 7 * PAGE;
    assert_eq!(access(&mut setup, page + 5, Access::Write), Ok(PAGE));
    let writable: Vec<_> = setup.leaves().iter().filter(|leaf| leaf.write).map(|leaf| leaf.ipa).collect();
    assert_eq!(writable, [page]);
    assert_eq!(collect(&mut setup), [(page, PAGE)]);
    assert_eq!(collect(&mut setup), []);
    // The block is whole again, and its table free.
    assert_eq!(setup.sizes(), [MIB2; 8]);
    assert_eq!(setup.machine.frames_used(), 2 + 1);
}

#[test]
fn loads_and_fetches_are_not_told() {
    let mut setup = logged();
    assert_eq!(access(&mut setup, GIB, Access::Read), Ok(MIB2));
    assert_eq!(access(&mut setup, GIB, Access::Execute), Ok(MIB2));
    assert_eq!(collect(&mut setup), []);
}

#[test]
fn without_a_frame_the_whole_block_counts() {
    let mut setup = logged();
    setup.machine.frames_left = 0;
    assert_eq!(access(&mut setup, GIB + MIB2 + PAGE, Access::Write), Ok(MIB2));
    assert_eq!(collect(&mut setup), [(GIB + MIB2, MIB2)]);
}

#[test]
fn a_second_store_finds_the_way_free() {
    let mut setup = logged();
    access(&mut setup, GIB, Access::Write).unwrap();
    setup.machine.invalidations.clear();
    assert_eq!(access(&mut setup, GIB, Access::Write), Ok(PAGE));
    assert_eq!(setup.machine.invalidations, []);
}

#[test]
fn what_becomes_read_only_is_still_told() {
    let mut setup = logged();
    access(&mut setup, GIB, Access::Write).unwrap();
    setup.protect(GIB, 2 * PAGE, Permissions::READ).unwrap();
    assert_eq!(access(&mut setup, GIB, Access::Write), Err(not_permitted(GIB)));
    assert_eq!(collect(&mut setup), [(GIB, PAGE)]);
    assert_eq!(collect(&mut setup), []);
}

/// What was written and can't be any more keeps the note through further changes of its rights, and drops it when it says
/// writable, which tells the same.
#[test]
fn the_note_of_a_store_survives_other_changes_of_rights() {
    let mut setup = logged();
    access(&mut setup, GIB, Access::Write).unwrap();
    setup.protect(GIB, PAGE, Permissions::READ).unwrap();
    setup.protect(GIB, PAGE, Permissions::READ_EXECUTE).unwrap();
    assert_eq!(collect(&mut setup), [(GIB, PAGE)]);
    // Without a frame all of the block counts as written.
    let frames = std::mem::take(&mut setup.machine.frames_left);
    access(&mut setup, GIB + MIB2, Access::Write).unwrap();
    setup.machine.frames_left = frames;
    setup.protect(GIB + MIB2, PAGE, Permissions::READ).unwrap();
    setup.protect(GIB + MIB2, PAGE, Permissions::ALL).unwrap();
    let block = setup.leaves().into_iter().find(|leaf| leaf.ipa == GIB + MIB2).unwrap();
    assert_eq!((block.size, block.write), (MIB2, true), "alike again, so one block");
}

#[test]
fn hints_are_given_at_once_where_all_is_mapped_at_once() {
    let mut setup = Setup::new();
    for (ipa, pa, size, hinted) in [
        (GIB, 2 * GIB, 40 * PAGE, 32),
        (2 * GIB + 8 * PAGE, 3 * GIB + 8 * PAGE, 44 * PAGE, 32),
        (3 * GIB + 16 * PAGE, 4 * GIB + PAGE, 16 * PAGE, 0),
        (5 * GIB + 8 * MIB2, 5 * GIB, 48 * MIB2, 0),
        (6 * GIB + 15 * MIB2, 6 * GIB + 15 * MIB2, 40 * MIB2, 32),
    ] {
        setup.ram(ipa, pa, size).unwrap();
        assert_eq!(setup.machine.invalidations, [], "{ipa:#x}: what was hinted at later was broken for it");
        let count = setup.leaves().iter().filter(|leaf| leaf.contiguous).count();
        assert_eq!(count, hinted, "{ipa:#x}");
        setup.unmap(ipa, size).unwrap();
        setup.machine.invalidations.clear();
    }
}

/// Groups that become whole by their first entry alone: at address 0, and by a range that ends with it.
#[test]
fn a_group_is_seen_to_be_whole_from_any_of_its_entries() {
    let mut setup = Setup::new();
    let hinted = |setup: &Setup| setup.leaves().iter().filter(|leaf| leaf.contiguous).count();
    setup.ram(PAGE, GIB + PAGE, 14 * PAGE).unwrap();
    setup.ram(17 * PAGE, GIB + 17 * PAGE, 15 * PAGE).unwrap();
    setup.ram(15 * PAGE, GIB + 15 * PAGE, 2 * PAGE).unwrap();
    assert_eq!(hinted(&setup), 16);
    setup.ram(0, GIB, PAGE).unwrap();
    assert_eq!(hinted(&setup), 32);
}

fn not_permitted(ipa: u64) -> Error {
    Error::NotPermitted { ipa: Ipa::new(ipa), access: Access::Write }
}

#[test]
fn what_is_mapped_anew_is_told_writable_or_not() {
    let mut setup = logged();
    setup.unmap(GIB, PAGE).unwrap();
    setup.map(GIB, 3 * GIB, PAGE, Use::Ram, Permissions::READ).unwrap();
    setup.ram(5 * GIB, 3 * GIB, PAGE).unwrap();
    setup.map(0x900_0000, 0x900_0000, PAGE, Use::Device, Permissions::READ_WRITE).unwrap();
    assert_eq!(collect(&mut setup), [(GIB, PAGE), (5 * GIB, PAGE)]);
    assert_eq!(collect(&mut setup), []);
}

#[test]
fn what_el2_writes_is_told_too() {
    let mut setup = logged();
    setup.protect(GIB, PAGE, Permissions::READ).unwrap();
    let mut none = CopyReserve::none(VM);
    for (ipa, wanted, size) in [(GIB + 8, 1 << 40, PAGE - 8), (GIB + MIB2 + 1, 3, 3)] {
        let at = Ipa::new(ipa);
        let got = setup.tables.memory(&mut setup.machine, &mut none, at, wanted, Access::Write);
        assert_eq!(got.map(|(pa, size)| (pa.as_u64(), size)), Ok((ipa + GIB + MIB2, size)));
    }
    // To read tells nothing.
    setup.tables.memory(&mut setup.machine, &mut none, Ipa::new(GIB + 2 * MIB2), 1, Access::Read).unwrap();
    setup.machine.assert_current();
    assert_eq!(collect(&mut setup), [(GIB, PAGE), (GIB + MIB2, PAGE)]);
}

#[test]
fn memory_is_reached_only_where_the_ledger_granted_it() {
    let mut setup = Setup::new();
    let mut none = CopyReserve::none(VM);
    setup.ram(GIB, 2 * GIB, MIB2).unwrap();
    setup.map(0x900_0000, 0x900_0000, PAGE, Use::Device, Permissions::READ_WRITE).unwrap();
    setup.map(3 * GIB, 10 * GIB, PAGE, Use::Shared, Permissions::READ).unwrap();
    let mut memory = |ipa: u64, wanted, access| {
        let got = setup.tables.memory(&mut setup.machine, &mut none, Ipa::new(ipa), wanted, access);
        got.map(|(pa, size)| (pa.as_u64(), size))
    };
    for access in [Access::Read, Access::Write] {
        assert_eq!(memory(GIB + MIB2 - 3, 10, access), Ok((2 * GIB + MIB2 - 3, 3)), "across the end");
        assert_eq!(memory(GIB + MIB2, 10, access), Err(Error::NotMapped { ipa: Ipa::new(GIB + MIB2) }));
        assert_eq!(memory(1 << 40, 10, access), Err(Error::NotMapped { ipa: Ipa::new(1 << 40) }));
        assert_eq!(memory(u64::MAX, 10, access), Err(Error::NotMapped { ipa: Ipa::new(u64::MAX) }));
        assert_eq!(memory(0x900_0004, 4, access), Err(Error::NotMemory { ipa: Ipa::new(0x900_0004) }));
    }
    assert_eq!(memory(3 * GIB, 10, Access::Read), Ok((10 * GIB, 10)));
    let read_only = Error::WriteNotGranted { ipa: Ipa::new(3 * GIB) };
    assert_eq!(memory(3 * GIB, 10, Access::Write), Err(read_only));
}

#[test]
fn the_end_of_the_log_lets_everything_through() {
    let mut setup = logged();
    setup.protect(GIB, PAGE, Permissions::READ).unwrap();
    let mut cursor = setup.tables.stop_log();
    assert_eq!(cursor, setup.tables.everything());
    // Not cleared yet: a store still faults, and is let through.
    assert_eq!(access(&mut setup, GIB + PAGE, Access::Write), Ok(PAGE));
    let mut steps = 1;
    while setup.tables.clear_log(&mut setup.machine, &mut cursor, 100) == Ok(Progress::More) {
        setup.machine.assert_current();
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
    let wrong: Vec<_> =
        setup.leaves().into_iter().filter(|leaf| leaf.dbm || leaf.write != (leaf.ipa != GIB)).collect();
    assert_eq!(wrong, []);
    // Over is over: a further step looks at nothing, and there is nothing to invalidate.
    let invalidations = setup.machine.invalidations.len();
    assert_eq!(setup.tables.clear_log(&mut setup.machine, &mut cursor, 100), Ok(Progress::Done));
    assert_eq!(setup.machine.invalidations.len(), invalidations);
}

#[test]
fn accesses_are_told_by_the_entry() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB + MIB2, 2 * MIB2).unwrap();
    setup.map(0x900_0000, 0x900_0000, PAGE, Use::Device, Permissions::READ_WRITE).unwrap();
    let all = [(GIB, MIB2), (GIB + MIB2, MIB2)];
    assert_eq!(used(&mut setup), all);
    assert_eq!(used(&mut setup), []);
    let flags: Vec<_> = setup.leaves().iter().map(|leaf| leaf.accessed).collect();
    assert_eq!(flags, [true, false, false], "the device is not watched");
    setup.machine.invalidations.clear();
    assert_eq!(access(&mut setup, GIB + MIB2 + PAGE, Access::Read), Ok(MIB2));
    // No TLB holds an entry whose access flag is 0.
    assert_eq!(setup.machine.invalidations, []);
    assert_eq!(used(&mut setup), all[1..]);
    // A load that may not be made is no access.
    setup.protect(GIB, MIB2, Permissions { read: false, write: false, execute: false }).unwrap();
    let refused = Error::NotPermitted { ipa: Ipa::new(GIB), access: Access::Read };
    assert_eq!(access(&mut setup, GIB, Access::Read), Err(refused));
    assert_eq!(used(&mut setup), []);
    let mut cursor = setup.tables.everything();
    let got = setup.tables.clear_accessed(&mut setup.machine, &mut cursor, usize::MAX);
    assert_eq!(got, Ok(Progress::Done));
    assert!(setup.leaves().iter().all(|leaf| leaf.accessed));
}

/// 16 pages with the hint are one entry to the access flag, and are never seen half changed.
#[test]
fn a_group_is_used_as_a_whole() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, 32 * PAGE).unwrap();
    assert!(setup.leaves().iter().all(|leaf| leaf.contiguous));
    assert_eq!(used(&mut setup), [(GIB, 16 * PAGE), (GIB + 16 * PAGE, 16 * PAGE)]);
    setup.machine.invalidations.clear();
    access(&mut setup, GIB + 20 * PAGE, Access::Read).unwrap();
    let group = Invalidation { ipa: Ipa::new(GIB + 16 * PAGE), size: 16 * PAGE, stride: PAGE, tables: false };
    assert_eq!(setup.machine.invalidations, [(VM, group)]);
    assert_eq!(used(&mut setup), [(GIB + 16 * PAGE, 16 * PAGE)]);
    assert!(setup.leaves().iter().all(|leaf| leaf.contiguous && !leaf.accessed));
}

#[test]
fn hints_follow_what_is_mapped() {
    let mut setup = Setup::new();
    let hinted = |setup: &Setup| setup.leaves().iter().filter(|leaf| leaf.contiguous).count();
    // Fifteen pages, then the one that makes the group whole.
    setup.ram(GIB, 2 * GIB, 15 * PAGE).unwrap();
    assert_eq!(hinted(&setup), 0);
    setup.ram(GIB + 15 * PAGE, 2 * GIB + 15 * PAGE, PAGE).unwrap();
    assert_eq!(hinted(&setup), 16);
    setup.protect(GIB + 3 * PAGE, PAGE, Permissions::READ).unwrap();
    assert_eq!(hinted(&setup), 0);
    setup.protect(GIB + 3 * PAGE, PAGE, Permissions::ALL).unwrap();
    assert_eq!(hinted(&setup), 16);
    setup.unmap(GIB + 15 * PAGE, PAGE).unwrap();
    assert_eq!((hinted(&setup), setup.leaves().len()), (0, 15));
    // Physical memory that is not aligned to the group has none; 2 MiB blocks have theirs of 32 MiB; 1 GiB blocks none.
    setup.ram(2 * GIB, 3 * GIB + PAGE, 16 * PAGE).unwrap();
    assert_eq!(hinted(&setup), 0);
    setup.ram(4 * GIB, 5 * GIB + 16 * MIB2, 40 * MIB2).unwrap();
    assert_eq!(hinted(&setup), 32);
    setup.unmap(4 * GIB, 40 * MIB2).unwrap();
    setup.ram(0x40_0000_0000, GIB, GIB).unwrap();
    assert_eq!(hinted(&setup), 0);
    // A group that is cut out of a block takes no other's hint with it.
    setup.ram(8 * GIB, 6 * GIB, MIB2).unwrap();
    setup.protect(8 * GIB, 16 * PAGE, Permissions::READ).unwrap();
    assert_eq!(hinted(&setup), 512);
    setup.unmap(8 * GIB, MIB2).unwrap();
    // A page that is cut out of a GiB leaves all groups but two their hint.
    setup.protect(0x40_0000_0000 + 33 * MIB2 + PAGE, PAGE, Permissions::READ).unwrap();
    assert_eq!(hinted(&setup), 512 - 16 + 512 - 16);
}
