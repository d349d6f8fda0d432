//! The ledger alone: the table of transfers, counts of mappings, the end of a VM, room, and a model with one cell per page.

use proptest::prelude::*;
use stage2::{
    Grant, Inventory, Kind, Ledger, LedgerError, Pa, PaRange, Progress, Refused, Run, Scrub, State, Transfer,
    Use, VmId, VmSet,
};

const PAGE: u64 = 4096;
const A: VmId = VmId::new(0).unwrap();
const B: VmId = VmId::new(1).unwrap();
const C: VmId = VmId::new(63).unwrap();
const BOTH: VmSet = VmSet::only(A).with(B);

fn pages(first: u64, count: u64) -> PaRange {
    PaRange::new(Pa::new(first * PAGE), count * PAGE).unwrap()
}

fn inventory(runs: usize) -> Inventory<Vec<Run>> {
    Inventory::new(vec![Run::default(); runs]).unwrap()
}

/// Pages 0 to 63 of memory.
fn memory(runs: usize) -> Ledger<Vec<Run>> {
    let mut inventory = inventory(runs);
    inventory.declare(pages(0, 64), Kind::Free).unwrap();
    inventory.finish()
}

/// Scrubs pages to the end, in pieces of `step` pages, and tells which pieces.
fn scrub(ledger: &mut Ledger<Vec<Run>>, range: PaRange, step: u64) -> Result<Vec<PaRange>, LedgerError> {
    let mut scrub = ledger.begin_scrub(range)?;
    let mut pieces = Vec::new();
    while scrub.step(step, |piece| pieces.push(piece)) == Progress::More {}
    ledger.finish_scrub(scrub).map_err(|(error, _)| error)?;
    Ok(pieces)
}

#[test]
fn memory_is_free_only_when_all_of_it_was_scrubbed() {
    let mut inventory = inventory(16);
    inventory.declare(pages(0, 64), Kind::Unscrubbed).unwrap();
    let mut ledger = inventory.finish();
    let state = State::Unscrubbed;
    let transfer = Transfer::Donate(A);
    let refused = LedgerError::NotAllowed { pa: Pa::new(0), state, transfer };
    assert_eq!(ledger.transfer(pages(0, 10), transfer), Err(refused));
    let mut begun = ledger.begin_scrub(pages(0, 10)).unwrap();
    assert_eq!(begun.range(), pages(0, 10));
    // While it is being scrubbed nobody has it, and nobody else scrubs it.
    let state = State::Scrubbing;
    let pa = Pa::new(9 * PAGE);
    assert_eq!(ledger.begin_scrub(pages(9, 10)), Err(LedgerError::NotUnscrubbed { pa, state }));
    for transfer in [Transfer::Donate(A), Transfer::Claim, Transfer::Reclaim(A)] {
        assert!(ledger.transfer(pages(5, 1), transfer).is_err());
    }
    let mut pieces = Vec::new();
    for progress in [Progress::More, Progress::More, Progress::Done, Progress::Done] {
        let early = ledger.finish_scrub(begun);
        let Err((LedgerError::ScrubNotDone { pa }, back)) = early else { panic!("{early:?}") };
        assert_eq!(pa, Pa::new(4 * PAGE * pieces.len() as u64));
        begun = back;
        assert_eq!(begun.step(4, |piece| pieces.push(piece)), progress);
        if progress == Progress::Done {
            break;
        }
    }
    assert_eq!(pieces, [pages(0, 4), pages(4, 4), pages(8, 2)]);
    assert_eq!(begun.step(4, |piece| panic!("{piece:?} once more")), Progress::Done);
    ledger.finish_scrub(begun).unwrap();
    assert_eq!(ledger.runs().next(), Some((pages(0, 10), State::Free, 0)));
    ledger.transfer(pages(0, 10), Transfer::Donate(A)).unwrap();
}

#[test]
fn a_scrub_takes_at_least_a_page_at_a_time_and_no_more_than_there_is() {
    let mut inventory = inventory(16);
    inventory.declare(pages(0, 3), Kind::Unscrubbed).unwrap();
    inventory.declare(pages(8, 3), Kind::Unscrubbed).unwrap();
    let mut ledger = inventory.finish();
    assert_eq!(scrub(&mut ledger, pages(0, 3), 0).unwrap(), [pages(0, 1), pages(1, 1), pages(2, 1)]);
    assert_eq!(scrub(&mut ledger, pages(8, 3), u64::MAX).unwrap(), [pages(8, 3)]);
}

/// Two scrubs side by side are one run while both last; to end one of them takes an entry.
#[test]
fn a_scrub_that_cannot_be_told_apart_can_be_ended_later() {
    let mut inventory = inventory(3);
    inventory.declare(pages(0, 8), Kind::Unscrubbed).unwrap();
    let mut ledger = inventory.finish();
    let mut first = ledger.begin_scrub(pages(0, 4)).unwrap();
    let mut second = ledger.begin_scrub(pages(4, 4)).unwrap();
    for scrub in [&mut first, &mut second] {
        assert_eq!(scrub.step(4, |_| {}), Progress::Done);
    }
    ledger.finish_scrub(first).unwrap();
    ledger.finish_scrub(second).unwrap();
    assert_eq!(ledger.runs().collect::<Vec<_>>(), [(pages(0, 8), State::Free, 0)]);
}

/// What boot takes before all devices are known is the hypervisor's, as if the ledger had been asked, and no device is found there.
#[test]
fn memory_that_is_claimed_early_is_no_device() {
    let mut inventory = inventory(16);
    inventory.declare(pages(0, 8), Kind::Unscrubbed).unwrap();
    inventory.declare(pages(8, 2), Kind::Device).unwrap();
    inventory.claim(pages(2, 2)).unwrap();
    for (claimed, at, state) in [
        (pages(3, 2), 3, State::Hypervisor),
        (pages(7, 2), 8, State::Device),
        (pages(10, 1), 10, State::Reserved),
    ] {
        let refused = LedgerError::NotAllowed { pa: Pa::new(at * PAGE), state, transfer: Transfer::Claim };
        assert_eq!(inventory.claim(claimed), Err(refused));
    }
    let known = LedgerError::AlreadyDeclared { pa: Pa::new(2 * PAGE), state: State::Hypervisor };
    assert_eq!(inventory.declare(pages(2, 1), Kind::Device), Err(known));
    let ledger = inventory.finish();
    let expected = [
        (pages(0, 2), State::Unscrubbed, 0),
        (pages(2, 2), State::Hypervisor, 0),
        (pages(4, 4), State::Unscrubbed, 0),
        (pages(8, 2), State::Device, 0),
    ];
    assert_eq!(ledger.runs().collect::<Vec<_>>(), expected);
}

/// Written by hand, as the crate's table is: who may hand what to whom.
#[test]
fn every_transfer_from_every_state() {
    use State::{
        Banked, CopyOnWrite, Device, DeviceOf, Free, Hypervisor, Owned, Reserved, Scrubbing, Shared,
        Unscrubbed,
    };
    let shared = Shared { members: BOTH, writers: VmSet::only(B) };
    let copied = CopyOnWrite { members: BOTH };
    let copied_by_all = CopyOnWrite { members: BOTH.with(C) };
    let copied_by_one = CopyOnWrite { members: VmSet::only(C) };
    let states = [
        Reserved,
        Free,
        Unscrubbed,
        Scrubbing,
        copied,
        copied_by_one,
        Hypervisor,
        Owned(A),
        Owned(C),
        shared,
        Device,
        DeviceOf(A),
        DeviceOf(C),
        Banked,
    ];
    let open = Transfer::Open { members: BOTH, writers: VmSet::only(B) };
    let share = Transfer::Share { owner: A, members: BOTH, writers: VmSet::only(B) };
    let allowed: [(Transfer, &[(State, State)]); 19] = [
        (Transfer::Claim, &[(Free, Hypervisor), (Unscrubbed, Hypervisor)]),
        (Transfer::Yield, &[(Hypervisor, Unscrubbed)]),
        (Transfer::Donate(B), &[(Free, Owned(B))]),
        (Transfer::Reclaim(A), &[(Owned(A), Unscrubbed)]),
        (Transfer::Reclaim(B), &[]),
        (open, &[(Free, shared)]),
        (share, &[(Owned(A), shared)]),
        (Transfer::Unshare(A), &[(shared, Owned(A))]),
        (Transfer::Unshare(C), &[]),
        (Transfer::Close, &[(shared, Unscrubbed), (copied, Unscrubbed), (copied_by_one, Unscrubbed)]),
        (Transfer::Freeze { owner: A, members: BOTH }, &[(Owned(A), copied)]),
        (Transfer::Freeze { owner: C, members: BOTH }, &[]),
        (Transfer::Admit(C), &[(copied, copied_by_all), (copied_by_one, copied_by_one)]),
        (Transfer::Thaw(C), &[(copied_by_one, Owned(C))]),
        (Transfer::Thaw(A), &[]),
        (Transfer::Assign(B), &[(Device, DeviceOf(B))]),
        (Transfer::Return(C), &[(DeviceOf(C), Device)]),
        (Transfer::Return(B), &[]),
        (Transfer::Keep, &[(Device, Reserved)]),
    ];
    for (transfer, from_to) in allowed {
        for state in states {
            let expected = from_to.iter().find(|&&(from, _)| from == state).map(|&(_, to)| to);
            assert_eq!(transfer.apply(state), expected, "{transfer:?} of {state:?}");
        }
    }
    // Shares that make no sense.
    for (members, writers) in [(VmSet::EMPTY, VmSet::EMPTY), (VmSet::only(A), BOTH)] {
        assert_eq!(Transfer::Open { members, writers }.apply(Free), None);
    }
    let without_owner = Transfer::Share { owner: A, members: VmSet::only(B), writers: VmSet::EMPTY };
    assert_eq!(without_owner.apply(Owned(A)), None);
}

#[test]
fn every_use_of_every_state() {
    let mut inventory = inventory(32);
    inventory.declare(pages(0, 4), Kind::Free).unwrap();
    inventory.declare(pages(4, 2), Kind::Device).unwrap();
    inventory.declare(pages(6, 1), Kind::Banked).unwrap();
    inventory.declare(pages(7, 1), Kind::Unscrubbed).unwrap();
    inventory.declare(pages(8, 1), Kind::Hypervisor).unwrap();
    let mut ledger = inventory.finish();
    ledger.transfer(pages(1, 1), Transfer::Donate(A)).unwrap();
    ledger.transfer(pages(2, 1), Transfer::Open { members: BOTH, writers: VmSet::only(B) }).unwrap();
    ledger.transfer(pages(5, 1), Transfer::Assign(B)).unwrap();
    let allowed = [
        (A, 1, Use::Ram, true),
        (A, 2, Use::Shared, false),
        (B, 2, Use::Shared, true),
        (B, 5, Use::Device, true),
        (A, 6, Use::Banked, true),
        (B, 6, Use::Banked, true),
        (C, 6, Use::Banked, true),
    ];
    for vm in [A, B, C] {
        for page in 0..10 {
            for usage in [Use::Ram, Use::Shared, Use::Device, Use::Banked] {
                let expected = allowed.iter().find(|&&(v, p, u, _)| (v, p, u) == (vm, page, usage));
                let pa = Pa::new(page * PAGE);
                let refused = LedgerError::NotGranted { pa, state: ledger.state(pa).0, vm };
                let expected = expected.map_or(Err(refused), |&(.., may_write)| Ok(may_write));
                assert_eq!(
                    ledger.check_mapping(vm, pages(page, 1), usage),
                    expected,
                    "{vm} {page} {usage:?}"
                );
                match ledger.grant(vm, pages(page, 1), usage) {
                    Ok(grant) => {
                        assert_eq!(Ok(grant.may_write()), expected);
                        ledger.release(grant).unwrap();
                    }
                    Err(error) => assert_eq!(Err(error), expected),
                }
            }
        }
    }
    // One page in a range that isn't right spoils it, wherever it is.
    let refused =
        LedgerError::NotGranted { pa: Pa::new(2 * PAGE), state: ledger.state(Pa::new(2 * PAGE)).0, vm: A };
    assert_eq!(ledger.grant(A, pages(1, 2), Use::Ram).unwrap_err(), refused);
    assert_eq!(ledger.mapped_pages(A), 0);
}

#[test]
fn a_mapped_page_does_not_change_hands() {
    let mut ledger = memory(16);
    ledger.transfer(pages(0, 64), Transfer::Donate(A)).unwrap();
    let grant = ledger.grant(A, pages(10, 5), Use::Ram).unwrap();
    let refused = LedgerError::StillMapped { pa: Pa::new(10 * PAGE), mappings: 1 };
    assert_eq!(ledger.transfer(pages(0, 64), Transfer::Reclaim(A)), Err(refused));
    assert_eq!(ledger.reclaim_all(A), Err(refused));
    ledger.transfer(pages(0, 10), Transfer::Reclaim(A)).unwrap();
    ledger.release(grant).unwrap();
    ledger.transfer(pages(10, 54), Transfer::Reclaim(A)).unwrap();
    scrub(&mut ledger, pages(0, 64), 7).unwrap();
    let all: Vec<_> = ledger.runs().collect();
    assert_eq!(all, [(pages(0, 64), State::Free, 0)]);
}

#[test]
fn a_terabyte_is_one_run() {
    let mut inventory = inventory(3);
    inventory.declare(pages(1 << 18, 1 << 28), Kind::Free).unwrap();
    let mut ledger = inventory.finish();
    ledger.transfer(pages(1 << 18, 1 << 28), Transfer::Donate(C)).unwrap();
    let grant = ledger.grant(C, pages(1 << 18, 1 << 28), Use::Ram).unwrap();
    assert_eq!(ledger.mapped_pages(C), 1 << 28);
    assert_eq!(ledger.runs().count(), 1);
    assert_eq!(ledger.state(Pa::new((1 << 30) - 1)), (State::Reserved, 0));
    assert_eq!(ledger.state(Pa::new(1 << 50)), (State::Reserved, 0));
    ledger.release(grant).unwrap();
}

#[test]
fn a_full_ledger_refuses_and_changes_nothing() {
    assert_eq!(Inventory::new(Vec::new()).unwrap_err(), LedgerError::Full { capacity: 0 });
    let mut ledger = memory(3);
    let full = LedgerError::Full { capacity: 3 };
    // Two runs: the memory and the rest. One more fits, two more don't.
    assert_eq!(ledger.transfer(pages(5, 5), Transfer::Donate(A)), Err(full));
    assert_eq!(ledger.runs().collect::<Vec<_>>(), [(pages(0, 64), State::Free, 0)]);
    ledger.transfer(pages(0, 5), Transfer::Donate(A)).unwrap();
    assert_eq!(ledger.grant(A, pages(0, 4), Use::Ram).unwrap_err(), full);
    assert_eq!(ledger.mapped_pages(A), 0);
    let grant = ledger.grant(A, pages(0, 5), Use::Ram).unwrap();
    ledger.release(grant).unwrap();
    ledger.transfer(pages(0, 5), Transfer::Reclaim(A)).unwrap();
    scrub(&mut ledger, pages(0, 5), 5).unwrap();
    assert_eq!(ledger.runs().count(), 1);
}

#[test]
fn the_right_to_write_is_that_of_the_weakest_page() {
    let mut ledger = memory(16);
    for (page, writers) in [(0, BOTH), (1, VmSet::only(B)), (2, BOTH)] {
        ledger.transfer(pages(page, 1), Transfer::Open { members: BOTH, writers }).unwrap();
    }
    assert_eq!(ledger.check_mapping(A, pages(0, 3), Use::Shared), Ok(false));
    assert_eq!(ledger.check_mapping(B, pages(0, 3), Use::Shared), Ok(true));
    assert_eq!(ledger.check_mapping(A, pages(2, 1), Use::Shared), Ok(true));
}

#[test]
fn the_top_of_the_address_space_is_an_end_like_any_other() {
    let mut inventory = inventory(2);
    inventory.declare(pages((1 << 36) - 4, 4), Kind::Device).unwrap();
    let ledger = inventory.finish();
    assert_eq!(ledger.runs().collect::<Vec<_>>(), [(pages((1 << 36) - 4, 4), State::Device, 0)]);
    assert_eq!(ledger.state(Pa::new((1 << 48) - 1)).0, State::Device);
    assert_eq!(ledger.state(Pa::new(1 << 48)).0, State::Reserved);
}

#[test]
fn a_grant_of_another_ledger_is_not_taken() {
    let mut ledger = memory(8);
    let mut other = memory(8);
    for ledger in [&mut ledger, &mut other] {
        ledger.transfer(pages(0, 64), Transfer::Donate(A)).unwrap();
    }
    let grant = ledger.grant(A, pages(3, 1), Use::Ram).unwrap();
    let Refused { error, grant } = other.release(grant).unwrap_err();
    assert_eq!(error, LedgerError::Count { pa: Pa::new(3 * PAGE), mappings: 0 });
    ledger.release(grant).unwrap();
}

#[test]
fn the_inventory_names_each_page_once() {
    let mut inventory = inventory(16);
    inventory.declare(pages(0, 8), Kind::Free).unwrap();
    inventory.declare(pages(8, 1), Kind::Hypervisor).unwrap();
    let again = LedgerError::AlreadyDeclared { pa: Pa::new(7 * PAGE), state: State::Free };
    assert_eq!(inventory.declare(pages(7, 3), Kind::Device), Err(again));
    inventory.withhold(pages(2, 2)).unwrap();
    inventory.withhold(pages(20, 2)).unwrap();
    let in_use = LedgerError::InUse { pa: Pa::new(8 * PAGE), state: State::Hypervisor };
    assert_eq!(inventory.withhold(pages(6, 4)), Err(in_use));
    let expected =
        [(pages(0, 2), State::Free, 0), (pages(4, 4), State::Free, 0), (pages(8, 1), State::Hypervisor, 0)];
    assert_eq!(inventory.runs().collect::<Vec<_>>(), expected);
    let mut ledger = inventory.finish();
    let refused = LedgerError::NotAllowed {
        pa: Pa::new(2 * PAGE),
        state: State::Reserved,
        transfer: Transfer::Donate(A),
    };
    assert_eq!(ledger.transfer(pages(0, 8), Transfer::Donate(A)), Err(refused));
}

#[test]
fn a_vm_leaves_nothing_behind_for_the_next_in_its_slot() {
    let mut inventory = inventory(16);
    inventory.declare(pages(0, 8), Kind::Free).unwrap();
    inventory.declare(pages(8, 1), Kind::Device).unwrap();
    let mut ledger = inventory.finish();
    ledger.transfer(pages(0, 2), Transfer::Donate(A)).unwrap();
    ledger.transfer(pages(2, 2), Transfer::Open { members: BOTH, writers: BOTH }).unwrap();
    ledger.transfer(pages(8, 1), Transfer::Assign(A)).unwrap();
    let grant = ledger.grant(A, pages(2, 2), Use::Shared).unwrap();
    let of_b = ledger.grant(B, pages(2, 1), Use::Shared).unwrap();
    assert_eq!(ledger.retire(A), Err(LedgerError::VmStillMaps { vm: A, pages: 2 }));
    ledger.release(grant).unwrap();
    let owns = LedgerError::VmStillOwns { vm: A, pa: Pa::new(0), state: State::Owned(A) };
    assert_eq!(ledger.retire(A), Err(owns));
    ledger.transfer(pages(0, 2), Transfer::Reclaim(A)).unwrap();
    let device = LedgerError::VmStillOwns { vm: A, pa: Pa::new(8 * PAGE), state: State::DeviceOf(A) };
    assert_eq!(ledger.retire(A), Err(device));
    ledger.reclaim_all(A).unwrap();
    ledger.retire(A).unwrap();
    assert_eq!(ledger.state(Pa::new(8 * PAGE)).0, State::Device);
    let left = State::Shared { members: VmSet::only(B), writers: VmSet::only(B) };
    assert_eq!(ledger.state(Pa::new(2 * PAGE)), (left, 1));
    assert!(ledger.grant(A, pages(2, 1), Use::Shared).is_err());
    ledger.release(of_b).unwrap();
    ledger.retire(B).unwrap();
    assert_eq!(ledger.state(Pa::new(3 * PAGE)).0, State::Unscrubbed);
}

#[derive(Clone, Debug)]
enum Step {
    Transfer(u64, u64, Transfer),
    Grant(VmId, u64, u64, Use),
    Release(usize),
    BeginScrub(u64, u64),
    /// Of those that have begun, by number.
    FinishScrub(usize),
    Retire(VmId),
    ReclaimAll(VmId),
}

fn vm() -> impl Strategy<Value = VmId> {
    prop_oneof![Just(A), Just(B), Just(C)]
}

fn set() -> impl Strategy<Value = VmSet> {
    (0u8..8).prop_map(|bits| {
        let members = [A, B, C].into_iter().enumerate().filter(|(n, _)| (bits >> n) & 1 != 0);
        members.fold(VmSet::EMPTY, |set, (_, vm)| set.with(vm))
    })
}

fn transfer() -> impl Strategy<Value = Transfer> {
    prop_oneof![
        1 => Just(Transfer::Claim),
        1 => Just(Transfer::Yield),
        2 => vm().prop_map(Transfer::Donate),
        1 => vm().prop_map(Transfer::Reclaim),
        1 => (set(), set()).prop_map(|(members, writers)| Transfer::Open { members, writers }),
        1 => (vm(), set(), set()).prop_map(|(owner, members, writers)| Transfer::Share { owner, members, writers }),
        1 => vm().prop_map(Transfer::Unshare),
        1 => Just(Transfer::Close),
        2 => (vm(), set()).prop_map(|(owner, members)| Transfer::Freeze { owner, members }),
        1 => vm().prop_map(Transfer::Admit),
        1 => vm().prop_map(Transfer::Thaw),
        1 => vm().prop_map(Transfer::Assign),
        1 => vm().prop_map(Transfer::Return),
        1 => Just(Transfer::Keep),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let usage = prop_oneof![
        3 => Just(Use::Ram),
        2 => Just(Use::Shared),
        2 => Just(Use::CopyOnWrite),
        1 => Just(Use::Device),
        1 => Just(Use::Banked),
    ];
    let place = || (0u64..70, 1u64..12);
    prop_oneof![
        8 => (place(), transfer()).prop_map(|((first, count), transfer)| Step::Transfer(first, count, transfer)),
        4 => (vm(), place(), usage).prop_map(|(vm, (first, count), usage)| Step::Grant(vm, first, count, usage)),
        4 => any::<usize>().prop_map(Step::Release),
        2 => place().prop_map(|(first, count)| Step::BeginScrub(first, count)),
        2 => any::<usize>().prop_map(Step::FinishScrub),
        1 => vm().prop_map(Step::Retire),
        1 => vm().prop_map(Step::ReclaimAll),
    ]
}

/// One cell per page: state and mappings. Nothing clever.
struct Cells([(State, u32); 90]);

impl Cells {
    fn of_vm(&self, vm: VmId) -> impl Iterator<Item = &(State, u32)> {
        self.0.iter().filter(move |&&(state, _)| state == State::Owned(vm) || state == State::DeviceOf(vm))
    }

    fn runs(&self) -> Vec<(u64, u64, State, u32)> {
        let mut runs: Vec<(u64, u64, State, u32)> = Vec::new();
        for (page, &(state, mappings)) in self.0.iter().enumerate() {
            match runs.last_mut() {
                Some((_, end, s, m)) if (*end, *s, *m) == (page as u64, state, mappings) => *end += 1,
                _ => runs.push((page as u64, page as u64 + 1, state, mappings)),
            }
        }
        runs.retain(|&(_, _, state, _)| state != State::Reserved);
        runs
    }
}

fn allowed(state: State, vm: VmId, usage: Use) -> bool {
    match usage {
        Use::Ram => state == State::Owned(vm),
        Use::Shared => matches!(state, State::Shared { members, .. } if members.contains(vm)),
        Use::Device => state == State::DeviceOf(vm),
        Use::Banked => state == State::Banked,
        Use::CopyOnWrite => matches!(state, State::CopyOnWrite { members } if members.contains(vm)),
    }
}

fn perform(
    step: Step,
    ledger: &mut Ledger<Vec<Run>>,
    cells: &mut Cells,
    (grants, scrubs): (&mut Vec<Grant>, &mut Vec<Scrub>),
) {
    match step {
        Step::BeginScrub(first, count) => {
            let touched = &mut cells.0[first as usize..(first + count) as usize];
            let fine = touched.iter().all(|&(state, _)| state == State::Unscrubbed);
            let scrub = ledger.begin_scrub(pages(first, count));
            assert_eq!(scrub.is_ok(), fine);
            scrubs.extend(scrub);
            touched.iter_mut().filter(|_| fine).for_each(|cell| cell.0 = State::Scrubbing);
        }
        Step::FinishScrub(_) if scrubs.is_empty() => {}
        Step::FinishScrub(number) => {
            let mut scrub = scrubs.swap_remove(number % scrubs.len());
            let (first, count) = (scrub.range().start().page_number(), scrub.range().pages());
            while scrub.step(3, |_| {}) == Progress::More {}
            ledger.finish_scrub(scrub).unwrap();
            cells.0[first as usize..(first + count) as usize]
                .iter_mut()
                .for_each(|cell| cell.0 = State::Free);
        }
        Step::Transfer(first, count, transfer) => {
            let touched = &mut cells.0[first as usize..(first + count) as usize];
            let mapped = |mappings| mappings != 0 && !matches!(transfer, Transfer::Admit(_));
            let fine =
                touched.iter().all(|&(state, mappings)| !mapped(mappings) && transfer.apply(state).is_some());
            assert_eq!(ledger.transfer(pages(first, count), transfer).is_ok(), fine);
            for cell in touched.iter_mut().filter(|_| fine) {
                cell.0 = transfer.apply(cell.0).unwrap();
            }
        }
        Step::Grant(vm, first, count, usage) => {
            let touched = &mut cells.0[first as usize..(first + count) as usize];
            let fine = touched.iter().all(|&(state, _)| allowed(state, vm, usage));
            let grant = ledger.grant(vm, pages(first, count), usage);
            assert_eq!(grant.is_ok(), fine);
            grants.extend(grant);
            touched.iter_mut().filter(|_| fine).for_each(|cell| cell.1 += 1);
        }
        Step::Release(_) if grants.is_empty() => {}
        Step::Release(number) => {
            let grant = grants.swap_remove(number % grants.len());
            let (first, count) =
                (grant.range().start().page_number() as usize, grant.range().pages() as usize);
            ledger.release(grant).unwrap();
            cells.0[first..first + count].iter_mut().for_each(|cell| cell.1 -= 1);
        }
        Step::Retire(vm) => {
            let fine = cells.of_vm(vm).count() == 0 && grants.iter().all(|grant| grant.vm() != vm);
            assert_eq!(ledger.retire(vm).is_ok(), fine);
            for cell in cells.0.iter_mut().filter(|_| fine) {
                cell.0 = match cell.0 {
                    State::Shared { members, .. } | State::CopyOnWrite { members }
                        if members.without(vm).is_empty() =>
                    {
                        State::Unscrubbed
                    }
                    State::Shared { members, writers } => {
                        State::Shared { members: members.without(vm), writers: writers.without(vm) }
                    }
                    State::CopyOnWrite { members } => State::CopyOnWrite { members: members.without(vm) },
                    other => other,
                };
            }
        }
        Step::ReclaimAll(vm) => {
            let fine = cells.of_vm(vm).all(|&(_, mappings)| mappings == 0);
            assert_eq!(ledger.reclaim_all(vm).is_ok(), fine);
            for cell in cells.0.iter_mut().filter(|_| fine) {
                match cell.0 {
                    State::Owned(owner) if owner == vm => cell.0 = State::Unscrubbed,
                    State::DeviceOf(owner) if owner == vm => cell.0 = State::Device,
                    _ => {}
                }
            }
        }
    }
}

const CASES: u32 = if cfg!(miri) { 4 } else { 400 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_what_one_cell_per_page_would_be(steps in prop::collection::vec(step(), 1..80)) {
        let mut inventory = inventory(200);
        let mut cells = Cells([(State::Reserved, 0); 90]);
        for (first, count, kind, state) in [
            (0, 30, Kind::Free, State::Free),
            (30, 10, Kind::Unscrubbed, State::Unscrubbed),
            (42, 20, Kind::Free, State::Free),
            (62, 6, Kind::Device, State::Device),
            (70, 1, Kind::Banked, State::Banked),
        ] {
            inventory.declare(pages(first, count), kind).unwrap();
            cells.0[first as usize..(first + count) as usize].fill((state, 0));
        }
        let mut ledger = inventory.finish();
        let (mut grants, mut scrubs) = (Vec::new(), Vec::new());
        for step in steps {
            perform(step, &mut ledger, &mut cells, (&mut grants, &mut scrubs));
            let runs: Vec<_> = ledger.runs().map(|(range, state, mappings)| {
                (range.start().page_number(), range.end().page_number(), state, mappings)
            }).collect();
            prop_assert_eq!(runs, cells.runs());
            for vm in [A, B, C] {
                let counted: u64 = grants.iter().filter(|grant| grant.vm() == vm).map(|grant| grant.range().pages()).sum();
                prop_assert_eq!(ledger.mapped_pages(vm), counted);
            }
        }
    }
}
