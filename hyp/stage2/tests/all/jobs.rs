//! Long operations in steps: how far a step goes, what stands between steps, and what becomes of a refusal halfway.

use crate::common::setup::{GIB, MIB2, OTHER, PAGE, Setup, VM};
use stage2::{
    Cursor, Error, Ipa, LedgerError, MapJob, MapStep, Pa, PaRange, Permissions, Progress, Refused, Use,
};

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

fn begin(setup: &mut Setup, ipa: u64, pa: u64, size: u64) -> MapJob {
    let grant = setup.ledger.grant(VM, range(pa, size), Use::Ram).unwrap();
    MapJob::new(&setup.tables, Ipa::new(ipa), grant, Permissions::ALL).unwrap()
}

#[test]
fn a_map_goes_on_where_it_stopped() {
    let mut setup = Setup::new();
    // A page, a block, a page: three leaves.
    let mut job = begin(&mut setup, GIB - PAGE, 3 * GIB - PAGE, MIB2 + 2 * PAGE);
    for sizes in [vec![PAGE], vec![PAGE, MIB2]] {
        let MapStep::More(more) = job.step(&mut setup.tables, &mut setup.machine, 1) else { panic!() };
        setup.machine.assert_current();
        assert_eq!(setup.sizes(), sizes);
        job = more;
    }
    assert!(matches!(job.step(&mut setup.tables, &mut setup.machine, 1), MapStep::Done));
    assert_eq!(setup.sizes(), [PAGE, MIB2, PAGE]);
    assert_eq!(setup.ledger.mapped_pages(VM), 514);
}

#[test]
fn a_step_maps_as_many_leaves_as_it_is_told() {
    let mut setup = Setup::new();
    let job = begin(&mut setup, PAGE, GIB + PAGE, 40 * PAGE);
    let MapStep::More(job) = job.step(&mut setup.tables, &mut setup.machine, 30) else { panic!() };
    assert_eq!(setup.sizes(), [PAGE; 30]);
    assert!(matches!(job.step(&mut setup.tables, &mut setup.machine, 10), MapStep::Done));
}

#[test]
fn what_can_be_told_at_once_is_told_before_anything_is_mapped() {
    let mut setup = Setup::new();
    let permissions = Permissions { read: false, write: false, execute: true };
    for (ipa, permissions, error) in [
        (PAGE / 2, Permissions::ALL, Error::Misaligned { ipa: Ipa::new(PAGE / 2), size: GIB }),
        (1 << 40, Permissions::ALL, Error::IpaOutOfRange { ipa: Ipa::new(1 << 40), size: GIB, bits: 40 }),
        (0, permissions, Error::ExecuteWithoutRead { ipa: Ipa::new(0) }),
    ] {
        let grant = setup.ledger.grant(VM, range(GIB, GIB), Use::Ram).unwrap();
        let refused = MapJob::new(&setup.tables, Ipa::new(ipa), grant, permissions).unwrap_err();
        assert_eq!(refused.error, error);
        setup.ledger.release(refused.grant).unwrap();
    }
    let grant = setup.ledger.grant(OTHER, range(9 * GIB, GIB), Use::Ram).unwrap();
    let refused = MapJob::new(&setup.tables, Ipa::new(0), grant, Permissions::ALL).unwrap_err();
    assert_eq!(refused.error, Error::ForeignGrant { grant: OTHER, tables: VM });
}

/// Steps that take out what earlier ones have mapped, until the grant is whole again.
#[test]
fn a_map_that_meets_something_takes_all_of_itself_out_again() {
    for entries in [1, 3, 1000] {
        let mut setup = Setup::new();
        setup.ram(GIB + 2 * MIB2, 5 * GIB, PAGE).unwrap();
        let before = setup.leaves();
        let mut job = begin(&mut setup, GIB - 3 * PAGE, 3 * GIB - 3 * PAGE, 3 * MIB2 + 3 * PAGE);
        let mut most = 0;
        let Refused { error, grant } = loop {
            match job.step(&mut setup.tables, &mut setup.machine, entries) {
                MapStep::More(more) => job = more,
                MapStep::Refused(refused) => break refused,
                other => panic!("{other:?}"),
            }
            setup.machine.assert_current();
            most = most.max(setup.leaves().len());
        };
        assert_eq!(error, Error::AlreadyMapped { ipa: Ipa::new(GIB + 2 * MIB2), pa: Pa::new(5 * GIB) });
        assert_eq!(most > before.len(), entries < 1000, "something was mapped before");
        assert_eq!(setup.leaves(), before);
        assert_eq!(grant.range(), range(3 * GIB - 3 * PAGE, 3 * MIB2 + 3 * PAGE));
        setup.ledger.release(grant).unwrap();
        assert_eq!(setup.ledger.mapped_pages(VM), 1);
    }
}

/// The first block of the job has become part of 1 GiB, for the rest was there; when the job fails later and there are no
/// frames to split that, it says so and can go on when there are.
#[test]
fn a_map_that_cannot_be_undone_now_can_be_later() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, GIB - MIB2).unwrap();
    setup.ram(2 * GIB + PAGE, 5 * GIB, PAGE).unwrap();
    let before = setup.leaves();
    let job = begin(&mut setup, 2 * GIB - MIB2, 3 * GIB - MIB2, 2 * MIB2);
    let MapStep::More(job) = job.step(&mut setup.tables, &mut setup.machine, 1) else { panic!() };
    assert_eq!(setup.sizes(), [GIB, PAGE]);
    let error = Error::AlreadyMapped { ipa: Ipa::new(2 * GIB + PAGE), pa: Pa::new(5 * GIB) };
    let MapStep::More(job) = job.step(&mut setup.tables, &mut setup.machine, 1) else { panic!() };
    setup.machine.frames_left = 0;
    let stuck = job.step(&mut setup.tables, &mut setup.machine, 1);
    let MapStep::Stuck(job, Error::OutOfFrames { tables: 1 }) = stuck else { panic!("{stuck:?}") };
    assert_eq!(setup.sizes(), [GIB, PAGE]);
    setup.machine.frames_left = 10;
    let done = job.step(&mut setup.tables, &mut setup.machine, 1);
    let MapStep::Refused(Refused { error: told, grant }) = done else { panic!("{done:?}") };
    assert_eq!((told, grant.range()), (error, range(3 * GIB - MIB2, 2 * MIB2)));
    assert_eq!(setup.leaves(), before);
    setup.ledger.release(grant).unwrap();
}

#[test]
fn an_unmap_goes_on_where_it_stopped_and_splits_nothing() {
    let mut setup = Setup::new();
    setup.ram(GIB - PAGE, 3 * GIB - PAGE, 2 * GIB + 2 * PAGE).unwrap();
    assert_eq!(setup.sizes(), [PAGE, GIB, GIB, PAGE]);
    setup.machine.frames_left = 0;
    let mut cursor = Cursor::new(Ipa::new(GIB - PAGE), 2 * GIB + 2 * PAGE);
    for (next, sizes) in [(GIB, vec![GIB, GIB, PAGE]), (2 * GIB, vec![GIB, PAGE]), (3 * GIB, vec![PAGE])] {
        let got = setup.ledger.unmap_some(&mut setup.tables, &mut setup.machine, &mut cursor, 1);
        assert_eq!((got, cursor.next()), (Ok(Progress::More), Ipa::new(next)));
        assert_eq!(setup.sizes(), sizes);
    }
    let (tables, machine) = (&mut setup.tables, &mut setup.machine);
    assert_eq!(setup.ledger.unmap_some(tables, machine, &mut cursor, 1), Ok(Progress::Done));
    assert_eq!(setup.ledger.unmap_some(tables, machine, &mut cursor, 1), Ok(Progress::Done));
    assert_eq!((setup.sizes(), setup.ledger.mapped_pages(VM)), (vec![], 0));
}

/// 16 pages with the contiguous hint are taken together, so that the hint need not be taken away first.
#[test]
fn a_step_keeps_groups_together() {
    let mut setup = Setup::new();
    setup.ram(GIB - 8 * PAGE, 2 * GIB - 8 * PAGE, 40 * PAGE).unwrap();
    let mut cursor = Cursor::new(Ipa::new(GIB - 8 * PAGE), 40 * PAGE);
    let mut ends = Vec::new();
    loop {
        let before = setup.machine.invalidations.len();
        let got = setup.ledger.unmap_some(&mut setup.tables, &mut setup.machine, &mut cursor, 10).unwrap();
        assert_eq!(setup.machine.invalidations.len(), before + 1);
        ends.push(cursor.next().as_u64());
        if got == Progress::Done {
            break;
        }
    }
    assert_eq!(ends, [GIB + 16 * PAGE, GIB + 32 * PAGE]);
}

#[test]
fn a_step_that_is_refused_stays() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, PAGE).unwrap();
    setup.ram(GIB + 2 * PAGE, 2 * GIB, PAGE).unwrap();
    let mut cursor = Cursor::new(Ipa::new(GIB), 3 * PAGE);
    let (tables, machine) = (&mut setup.tables, &mut setup.machine);
    assert_eq!(setup.ledger.unmap_some(tables, machine, &mut cursor, 1), Ok(Progress::More));
    let hole = Error::NotMapped { ipa: Ipa::new(GIB + PAGE) };
    for _ in 0..2 {
        assert_eq!(setup.ledger.unmap_some(tables, machine, &mut cursor, 1), Err(hole));
        assert_eq!(cursor.next(), Ipa::new(GIB + PAGE));
    }
    for bad in [Cursor::new(Ipa::new(1), PAGE), Cursor::new(Ipa::new(0), 1 << 41)] {
        assert!(setup.ledger.unmap_some(tables, machine, &mut bad.clone(), 1).is_err());
        assert!(tables.unmap_some(machine, &mut bad.clone(), 1, |_| panic!()).is_err());
        assert!(tables.clear_log(machine, &mut bad.clone(), 1).is_err());
    }
}

#[test]
fn the_steps_of_the_tables_alone_hand_out_the_grants() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, 2 * PAGE).unwrap();
    let mut cursor = Cursor::new(Ipa::new(GIB), 2 * PAGE);
    let mut taken = Vec::new();
    for progress in [Progress::More, Progress::Done, Progress::Done] {
        let got = setup.tables.unmap_some(&mut setup.machine, &mut cursor, 1, |grant| taken.push(grant));
        assert_eq!(got, Ok(progress));
    }
    let ranges: Vec<_> = taken.iter().map(|grant| grant.range()).collect();
    assert_eq!(ranges, [range(2 * GIB, PAGE), range(2 * GIB + PAGE, PAGE)]);
}

/// Start tables are 1,024 entries here; then come 3 leaves in 3 tables of 512.
#[test]
fn a_teardown_takes_bounded_steps() {
    for entries in [1, 100, 5000] {
        let mut setup = Setup::new();
        setup.ram(GIB, 2 * GIB, PAGE).unwrap();
        setup.ram(5 * GIB, 5 * GIB, GIB).unwrap();
        setup.map(6 * GIB, 10 * GIB, PAGE, Use::Shared, Permissions::READ).unwrap();
        let frames = setup.machine.frames_used();
        let Setup { mut machine, mut ledger, tables } = setup;
        let mut teardown = tables.dismantle();
        assert_eq!(teardown.vm(), VM);
        let (mut steps, mut freed) = (0usize, 0);
        while ledger.teardown_some(&mut teardown, &mut machine, entries).unwrap() == Progress::More {
            steps += 1;
            let used = machine.frames_used();
            // What one step frees is bounded by what it looks at.
            assert!(frames - used - freed <= entries, "{} in a step of {entries}", frames - used - freed);
            freed = frames - used;
        }
        // Both start tables are gone through to cut, then again with four tables below, whose own entries are not counted.
        let (cut, drained) = (1024usize, 1024 + 4 * 512 - 4usize);
        let expected = cut.div_ceil(entries) + drained.div_ceil(entries) - 1;
        assert_eq!(steps, expected, "steps of {entries}, the last one aside");
        assert_eq!((machine.frames_used(), ledger.mapped_pages(VM)), (0, 0));
        assert_eq!(ledger.state(Pa::new(10 * GIB)).1, 0);
        ledger.reclaim_all(VM).unwrap();
    }
}

#[test]
fn a_teardown_in_steps_tells_of_a_lost_grant_at_its_end() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, PAGE).unwrap();
    let lost = setup.ledger.grant(VM, range(GIB, 2 * PAGE), Use::Ram).unwrap();
    let Setup { mut machine, mut ledger, tables } = setup;
    let mut teardown = tables.dismantle();
    let told = loop {
        match ledger.teardown_some(&mut teardown, &mut machine, 700) {
            Ok(Progress::More) => {}
            other => break other,
        }
    };
    assert_eq!(told, Err(LedgerError::Mismatch { vm: VM, unmapped: 1, counted: 3 }));
    assert_eq!(machine.frames_used(), 0);
    drop(lost);
}
