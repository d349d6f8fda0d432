//! Memory that several VMs share until one writes to it: how it becomes so, who may map it, what a store does, and how the
//! pages go round between reserve and ledger.

use crate::common::machine::Machine;
use crate::common::setup::{GIB, MIB2, OTHER, PAGE, Setup, VM};
use stage2::{
    Access, CopyReserve, Error, Format, Geometry, Grant, Ipa, LedgerError, Mapping, Pa, PaRange, Permissions,
    Stage2, State, Transfer, Use, VmSet,
};

const BOTH: VmSet = VmSet::only(VM).with(OTHER);
/// Where the pages for copies are.
const SPARE: u64 = 8 * GIB;

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

type Reserve = CopyReserve<[Option<Grant>; 2]>;

/// `VM` and `OTHER` with 4 MiB at 1 GiB in common, in one entry each way, and two pages for copies for `VM`.
struct Pair {
    setup: Setup,
    other: Stage2,
    reserve: Reserve,
}

impl Pair {
    fn new() -> Self {
        let mut setup = Setup::new();
        setup.ram(GIB, 2 * GIB, 2 * MIB2).unwrap();
        setup.ledger.freeze(&mut setup.tables, &mut setup.machine, Ipa::new(GIB), 2 * MIB2, BOTH).unwrap();
        let geometry = Geometry::new(36, 40).unwrap();
        let mut other = Stage2::new(&mut setup.machine, OTHER, geometry, Format::Combined).unwrap();
        setup.machine.load(OTHER, Pa::new(other.vttbr() & 0xffff_ffff_f000), 1, 1);
        let pages = (range(2 * GIB, 2 * MIB2), Use::CopyOnWrite);
        let (ledger, machine) = (&mut setup.ledger, &mut setup.machine);
        ledger.map(&mut other, machine, Ipa::new(GIB), pages, Permissions::ALL).unwrap();
        let mut reserve = Reserve::new(VM, [None, None]);
        for page in 0..2 {
            let grant = ledger.grant(VM, range(SPARE + page * PAGE, PAGE), Use::Ram).unwrap();
            reserve.add(grant).unwrap();
        }
        setup.machine.assert_current();
        Self { setup, other, reserve }
    }

    fn write(&mut self, ipa: u64) -> Result<Mapping, Error> {
        let Setup { tables, machine, .. } = &mut self.setup;
        let got = tables.resolve(machine, &mut self.reserve, Ipa::new(ipa), Access::Write);
        machine.assert_current();
        got
    }

    fn pa(&self, stage2: &Stage2, ipa: u64) -> u64 {
        stage2.translate(&self.setup.machine, Ipa::new(ipa)).unwrap().pa.as_u64()
    }

    fn state(&self, pa: u64) -> (State, u32) {
        self.setup.ledger.state(Pa::new(pa))
    }
}

#[test]
fn a_store_makes_a_copy_for_one_vm_alone() {
    let mut pair = Pair::new();
    assert_eq!(pair.state(2 * GIB), (State::CopyOnWrite { members: BOTH }, 2), "two references");
    let page = GIB + MIB2 + 3 * PAGE;
    let mapping = pair.write(page + 0x10).unwrap();
    assert_eq!((mapping.ipa, mapping.size()), (Ipa::new(page), PAGE));
    assert_eq!((mapping.attributes.usage, mapping.attributes.may_write), (Use::Ram, true));
    assert_eq!(mapping.attributes.permissions, Permissions::ALL);
    let copy = mapping.pa.as_u64();
    assert!([SPARE, SPARE + PAGE].contains(&copy));
    assert_eq!(pair.setup.machine.copies, [(2 * GIB + MIB2 + 3 * PAGE, copy)]);
    assert_eq!(pair.pa(&pair.other, page), 2 * GIB + MIB2 + 3 * PAGE);
    assert_eq!(pair.pa(&pair.setup.tables, page - PAGE), 2 * GIB + MIB2 + 2 * PAGE);
    // Nobody can write to what is still shared.
    let writable: Vec<_> = pair.setup.leaves().iter().filter(|leaf| leaf.write).map(|leaf| leaf.pa).collect();
    assert_eq!(writable, [copy]);
    // A second store changes nothing.
    assert_eq!(pair.write(page), Ok(mapping));
    assert_eq!(pair.setup.machine.copies.len(), 1);
}

#[test]
fn the_right_to_the_old_page_waits_in_the_reserve() {
    let mut pair = Pair::new();
    assert_eq!((pair.reserve.left(), pair.reserve.take_used()), (2, None));
    pair.write(GIB).unwrap();
    assert_eq!(pair.reserve.left(), 1);
    assert_eq!(pair.state(2 * GIB).1, 2, "still counted");
    let used = pair.reserve.take_used().unwrap();
    assert_eq!((used.range(), used.usage(), used.vm()), (range(2 * GIB, PAGE), Use::CopyOnWrite, VM));
    pair.setup.ledger.release(used).unwrap();
    assert_eq!(pair.state(2 * GIB).1, 1);
    // The place is empty and can be filled again.
    let grant = pair.setup.ledger.grant(VM, range(SPARE + 2 * PAGE, PAGE), Use::Ram).unwrap();
    pair.reserve.add(grant).unwrap();
    assert_eq!((pair.reserve.left(), pair.reserve.take_used()), (2, None));
}

#[test]
fn without_pages_for_copies_the_store_is_refused_and_nothing_changes() {
    let mut pair = Pair::new();
    pair.write(GIB).unwrap();
    pair.write(GIB + PAGE).unwrap();
    let before = pair.setup.leaves();
    let out = Error::OutOfCopies { ipa: Ipa::new(GIB + 5 * PAGE + 1) };
    assert_eq!(pair.write(GIB + 5 * PAGE + 1), Err(out));
    assert_eq!((pair.setup.leaves(), pair.setup.machine.copies.len()), (before, 2));
    // A block that can't be split, likewise; the reserve keeps its pages.
    let mut pair = Pair::new();
    pair.setup.machine.frames_left = 0;
    assert_eq!(pair.write(GIB), Err(Error::OutOfFrames { tables: 1 }));
    assert_eq!((pair.reserve.left(), pair.setup.sizes()), (2, vec![MIB2; 2]));
}

#[test]
fn the_reserve_takes_single_pages_of_its_vm_only() {
    let mut pair = Pair::new();
    let ledger = &mut pair.setup.ledger;
    let mut reserve = Reserve::new(VM, [None, None]);
    for (vm, pages, usage) in [
        (OTHER, range(9 * GIB, PAGE), Use::Ram),
        (VM, range(SPARE + 8 * PAGE, 2 * PAGE), Use::Ram),
        (VM, range(10 * GIB, PAGE), Use::Shared),
    ] {
        let grant = ledger.grant(vm, pages, usage).unwrap();
        let back = reserve.add(grant).unwrap_err();
        assert_eq!((back.range(), reserve.left()), (pages, 0));
        ledger.release(back).unwrap();
    }
    // Full.
    let grant = ledger.grant(VM, range(SPARE + 8 * PAGE, PAGE), Use::Ram).unwrap();
    let back = pair.reserve.add(grant).unwrap_err();
    ledger.release(back).unwrap();
    for left in [1, 0] {
        let fresh = pair.reserve.take_fresh().unwrap();
        assert_eq!((fresh.usage(), pair.reserve.left()), (Use::Ram, left));
        ledger.release(fresh).unwrap();
    }
    assert_eq!(pair.reserve.take_fresh(), None);
    // Another VM's reserve is none of this one's.
    let mut foreign = CopyReserve::none(OTHER);
    assert_eq!(foreign.vm(), OTHER);
    let Setup { tables, machine, .. } = &mut pair.setup;
    let got = tables.resolve(machine, &mut foreign, Ipa::new(GIB), Access::Write);
    assert_eq!(got, Err(Error::ForeignGrant { grant: OTHER, tables: VM }));
}

#[test]
fn el2_writes_to_a_copy_too_and_reads_what_is_shared() {
    let mut pair = Pair::new();
    pair.setup.protect(GIB, PAGE, Permissions::READ).unwrap();
    let Setup { tables, machine, .. } = &mut pair.setup;
    let read = tables.memory(machine, &mut pair.reserve, Ipa::new(GIB + 4), 8, Access::Read);
    assert_eq!(read, Ok((Pa::new(2 * GIB + 4), 8)));
    assert_eq!(machine.copies, []);
    let (pa, size) = tables.memory(machine, &mut pair.reserve, Ipa::new(GIB + 4), 8, Access::Write).unwrap();
    machine.assert_current();
    assert!(pa.as_u64() >= SPARE && size == 8);
    assert_eq!(machine.copies.len(), 1);
    // The guest may do no more than before.
    let mapping = tables.query(machine, Ipa::new(GIB)).unwrap();
    assert_eq!((mapping.attributes.permissions, mapping.attributes.usage), (Permissions::READ, Use::Ram));
}

#[test]
fn a_copy_is_told_by_the_log() {
    let mut pair = Pair::new();
    pair.setup.tables.start_log();
    let mut told = Vec::new();
    for _ in 0..2 {
        let Setup { tables, machine, .. } = &mut pair.setup;
        let mut cursor = tables.everything();
        let found = |ipa: Ipa, size| told.push((ipa.as_u64(), size));
        let _ = tables.collect_log(machine, &mut cursor, usize::MAX, found).unwrap();
        pair.write(GIB + PAGE).unwrap();
    }
    let Setup { tables, machine, .. } = &mut pair.setup;
    let mut cursor = tables.everything();
    let found = |ipa: Ipa, size| told.push((ipa.as_u64(), size));
    let _ = tables.collect_log(machine, &mut cursor, usize::MAX, found).unwrap();
    assert_eq!(told, [(GIB + PAGE, PAGE), (GIB + PAGE, PAGE)]);
}

/// Written, then frozen, then given other rights: still told. The same for what is read-only when it is frozen.
#[test]
fn what_was_written_before_it_was_frozen_is_told() {
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, 4 * PAGE).unwrap();
    setup.tables.start_log();
    setup.protect(GIB + PAGE, PAGE, Permissions::READ).unwrap();
    let Setup { tables, machine, ledger } = &mut setup;
    ledger.freeze(tables, machine, Ipa::new(GIB), 2 * PAGE, BOTH).unwrap();
    tables.protect(machine, Ipa::new(GIB), PAGE, Permissions::READ_WRITE).unwrap();
    for told in
        [vec![(GIB, PAGE), (GIB + PAGE, PAGE), (GIB + 2 * PAGE, PAGE), (GIB + 3 * PAGE, PAGE)], vec![]]
    {
        let mut found = Vec::new();
        let mut cursor = tables.everything();
        let _ = tables
            .collect_log(machine, &mut cursor, usize::MAX, |ipa: Ipa, size| found.push((ipa.as_u64(), size)))
            .unwrap();
        machine.assert_current();
        assert_eq!(found, told);
    }
}

#[test]
fn what_can_be_frozen() {
    let freeze = |setup: &mut Setup, ipa, size, members| {
        setup.ledger.freeze(&mut setup.tables, &mut setup.machine, Ipa::new(ipa), size, members)
    };
    let mut setup = Setup::new();
    setup.ram(GIB, 2 * GIB, 4 * PAGE).unwrap();
    setup.ram(GIB + 4 * PAGE, 3 * GIB, PAGE).unwrap();
    setup.ram(2 * GIB, 3 * GIB, PAGE).unwrap();
    setup.map(GIB + 5 * PAGE, 10 * GIB, PAGE, Use::Shared, Permissions::READ).unwrap();
    let before = setup.leaves();
    let twice = LedgerError::StillMapped { pa: Pa::new(3 * GIB), mappings: 2 };
    assert_eq!(freeze(&mut setup, GIB, 5 * PAGE, BOTH), Err(twice.into()));
    let shared = Error::WrongUse { ipa: Ipa::new(GIB + 5 * PAGE), found: Use::Shared };
    assert_eq!(freeze(&mut setup, GIB + 5 * PAGE, PAGE, BOTH), Err(shared));
    let hole = Error::NotMapped { ipa: Ipa::new(GIB + 6 * PAGE) };
    assert_eq!(freeze(&mut setup, GIB + 5 * PAGE, 2 * PAGE, BOTH), Err(hole));
    let members = VmSet::only(OTHER);
    let transfer = Transfer::Freeze { owner: VM, members };
    let refused = LedgerError::NotAllowed { pa: Pa::new(2 * GIB), state: State::Owned(VM), transfer };
    assert_eq!(freeze(&mut setup, GIB, PAGE, members), Err(refused.into()));
    assert_eq!((setup.leaves(), setup.ledger.mapped_pages(VM)), (before, 7));
    freeze(&mut setup, GIB + PAGE, 2 * PAGE, BOTH).unwrap();
    setup.machine.assert_current();
    let frozen: Vec<_> =
        setup.leaves().iter().filter(|leaf| leaf.dbm && !leaf.write).map(|leaf| leaf.ipa).collect();
    assert_eq!(frozen, [GIB + PAGE, GIB + 2 * PAGE]);
    assert_eq!(setup.ledger.state(Pa::new(2 * GIB)).0, State::Owned(VM));
    assert_eq!(setup.ledger.state(Pa::new(2 * GIB + PAGE)).0, State::CopyOnWrite { members: BOTH });
}

#[test]
fn what_one_vm_is_left_with_becomes_its_own_again() {
    let mut pair = Pair::new();
    let thaw = |pair: &mut Pair, ipa, size| {
        let Setup { ledger, tables, machine } = &mut pair.setup;
        ledger.thaw(tables, machine, Ipa::new(ipa), size)
    };
    let two = LedgerError::StillMapped { pa: Pa::new(2 * GIB), mappings: 2 };
    assert_eq!(thaw(&mut pair, GIB, MIB2), Err(two.into()));
    let Pair { mut setup, other, reserve } = pair;
    setup.ledger.teardown(other, &mut setup.machine).unwrap();
    let mut pair = Pair { other: rebuilt(&mut setup.machine), setup, reserve };
    // It is still a member, and could map it again.
    let transfer = Transfer::Thaw(VM);
    let state = State::CopyOnWrite { members: BOTH };
    let member = LedgerError::NotAllowed { pa: Pa::new(2 * GIB), state, transfer };
    assert_eq!(thaw(&mut pair, GIB, MIB2), Err(member.into()));
    pair.setup.ledger.reclaim_all(OTHER).unwrap();
    pair.setup.ledger.retire(OTHER).unwrap();
    thaw(&mut pair, GIB, MIB2).unwrap();
    pair.setup.machine.assert_current();
    assert_eq!(pair.state(2 * GIB), (State::Owned(VM), 1));
    assert_eq!(pair.state(2 * GIB + MIB2), (State::CopyOnWrite { members: VmSet::only(VM) }, 1));
    let writable: Vec<_> = pair.setup.leaves().iter().map(|leaf| (leaf.write, leaf.dbm)).collect();
    assert_eq!(writable, [(true, false), (false, true)]);
    pair.write(GIB).unwrap();
    assert_eq!(pair.setup.machine.copies, []);
}

fn rebuilt(machine: &mut Machine) -> Stage2 {
    let geometry = Geometry::new(36, 40).unwrap();
    Stage2::new(machine, OTHER, geometry, Format::Combined).unwrap()
}

#[test]
fn a_vm_is_admitted_while_others_use_it_and_maps_no_more_than_that() {
    let mut pair = Pair::new();
    let third = stage2::VmId::new(9).unwrap();
    let pages = range(2 * GIB, PAGE);
    let refused = pair.setup.ledger.grant(third, pages, Use::CopyOnWrite).unwrap_err();
    assert_eq!(
        refused,
        LedgerError::NotGranted {
            pa: Pa::new(2 * GIB),
            state: State::CopyOnWrite { members: BOTH },
            vm: third
        }
    );
    pair.setup.ledger.transfer(pages, Transfer::Admit(third)).unwrap();
    assert_eq!(pair.state(2 * GIB), (State::CopyOnWrite { members: BOTH.with(third) }, 2));
    for usage in [Use::Ram, Use::Shared, Use::Device, Use::Banked] {
        assert!(pair.setup.ledger.grant(third, pages, usage).is_err());
    }
    let grant = pair.setup.ledger.grant(third, pages, Use::CopyOnWrite).unwrap();
    assert!(!grant.may_write());
    assert_eq!(pair.state(2 * GIB).1, 3);
}
