//! Three VMs of different shape, one ledger and a machine, beside what the test knows they ought to be. Each operation is
//! performed on both sides, and its outcome, refusals included, is compared.

use stage2::{
    Error, Format, Geometry, Inventory, Ipa, Kind, Ledger, LedgerError, Pa, PaRange, Permissions, Run,
    Stage2, State, Transfer, Use, VmId, VmSet,
};

use super::machine::Machine;
use super::model::{Model, Target};
use super::walker::{Found, Regime, regime};

pub const PAGE: u64 = 4096;
pub const MIB2: u64 = 2 << 20;
pub const GIB: u64 = 1 << 30;
pub const FRAMES: usize = 100_000;

pub fn vm(slot: u8) -> VmId {
    VmId::new(slot).unwrap()
}

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

/// Who has which physical page, kept by the test: intervals (start, end, state) that touch.
pub struct Owners(Vec<(u64, u64, State)>);

impl Owners {
    pub fn at(&self, pa: u64) -> State {
        let found = self.0.iter().find(|&&(start, end, _)| start <= pa && pa < end);
        found.map_or(State::Reserved, |&(_, _, state)| state)
    }

    pub fn overlapping(&self, start: u64, size: u64) -> Vec<State> {
        let mut at = start;
        let mut states = Vec::new();
        while at < start + size {
            states.push(self.at(at));
            let next =
                self.0.iter().flat_map(|&(start, end, _)| [start, end]).filter(|&edge| edge > at).min();
            at = next.unwrap_or(u64::MAX);
        }
        states
    }

    pub fn set(&mut self, start: u64, size: u64, state: State) {
        let end = start + size;
        let mut next = vec![(start, end, state)];
        for &(from, to, old) in &self.0 {
            next.extend((from < start).then_some((from, to.min(start), old)));
            next.extend((to > end).then_some((from.max(end), to, old)));
        }
        self.0 = next;
    }

    /// Whether a VM may have this mapping.
    pub fn allow(&self, vm: VmId, pa: u64, size: u64, usage: Use, write: bool) -> bool {
        self.overlapping(pa, size).into_iter().all(|state| match (usage, state) {
            (Use::Ram, State::Owned(owner)) | (Use::Device, State::DeviceOf(owner)) => owner == vm,
            (Use::Shared, State::Shared { members, writers }) => {
                members.contains(vm) && (!write || writers.contains(vm))
            }
            (Use::Banked, State::Banked) => true,
            _ => false,
        })
    }
}

pub struct Guest {
    pub stage2: Option<Stage2>,
    pub model: Model,
    geometry: Geometry,
    format: Format,
    regime: Regime,
}

pub struct World {
    pub machine: Machine,
    pub ledger: Ledger<Vec<Run>>,
    pub owners: Owners,
    pub guests: Vec<Guest>,
}

impl World {
    pub fn new() -> Self {
        let mut inventory = Inventory::new(vec![Run::default(); 4096]).unwrap();
        let shared = State::Shared { members: VmSet::only(vm(0)).with(vm(1)), writers: VmSet::only(vm(0)) };
        let State::Shared { members, writers } = shared else { panic!() };
        inventory.declare(range(GIB, 8 * GIB), Kind::Free).unwrap();
        inventory.declare(range(0x900_0000, 2 * MIB2), Kind::Device).unwrap();
        inventory.declare(range(0x801_0000, PAGE), Kind::Banked).unwrap();
        let mut ledger = inventory.finish();
        let mut owners = Owners(vec![(0x801_0000, 0x801_1000, State::Banked)]);
        for (start, size, transfer, state) in [
            (GIB, 3 * GIB, Transfer::Donate(vm(0)), State::Owned(vm(0))),
            (4 * GIB, 2 * GIB, Transfer::Donate(vm(1)), State::Owned(vm(1))),
            (6 * GIB, GIB, Transfer::Donate(vm(2)), State::Owned(vm(2))),
            (7 * GIB, GIB, Transfer::Open { members, writers }, shared),
            (0x900_0000, 2 * MIB2, Transfer::Assign(vm(2)), State::DeviceOf(vm(2))),
        ] {
            ledger.transfer(range(start, size), transfer).unwrap();
            owners.set(start, size, state);
        }
        owners.set(8 * GIB, GIB, State::Free);
        let mut world = Self { machine: Machine::new(FRAMES), ledger, owners, guests: Vec::new() };
        for (slot, (ipa_bits, pa_bits, format)) in
            [(32, 40, Format::Combined), (41, 48, Format::ForcedWriteBack), (48, 48, Format::Combined)]
                .into_iter()
                .enumerate()
        {
            let geometry = Geometry::new(ipa_bits, pa_bits).unwrap();
            let regime = regime(geometry.vtcr().bits(), format == Format::ForcedWriteBack);
            world.guests.push(Guest { stage2: None, model: Model::default(), geometry, format, regime });
            world.build(slot as u8);
        }
        world
    }

    pub fn build(&mut self, slot: u8) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = Stage2::new(&mut self.machine, vm(slot), guest.geometry, guest.format).unwrap();
        let level = guest.geometry.start_level().number().into();
        let root = Pa::new(stage2.vttbr() & 0xffff_ffff_fffe);
        assert_eq!(stage2.vttbr() >> 48, u64::from(slot) + 1);
        self.machine.load(vm(slot), root, guest.geometry.start_tables(), level);
        guest.stage2 = Some(stage2);
    }

    /// Tables, model, ledger and TLB say the same.
    pub fn check(&self) {
        self.machine.assert_current();
        let mut frames = 0;
        for (slot, guest) in self.guests.iter().enumerate() {
            let stage2 = guest.stage2.as_ref().unwrap();
            let census = guest.regime.census(&self.machine, stage2.vttbr());
            assert_eq!(stage2.vtcr(), guest.geometry.vtcr().bits());
            frames += census.tables.len();
            let start_tables = guest.geometry.start_tables();
            let start_level = guest.geometry.start_level().number().into();
            assert_eq!(
                census.tables.len(),
                start_tables + guest.model.tables_below(start_level),
                "tables of VM {slot}"
            );
            let expected = guest.model.leaves();
            assert_eq!(census.leaves.len(), expected.len(), "leaves of VM {slot}");
            for (found, (ipa, size, target)) in census.leaves.iter().zip(expected) {
                let Permissions { read, write, execute } = target.permissions;
                let device = matches!(target.usage, Use::Device | Use::Banked);
                let wanted = Found { ipa, pa: target.pa, size, read, write, execute, device };
                assert_eq!(*found, wanted, "VM {slot}");
                let id = vm(slot as u8);
                assert!(
                    self.owners.allow(id, target.pa, size, target.usage, write),
                    "{id} reaches {wanted:x?}"
                );
            }
            let pages: u64 = guest.model.physical().map(|(_, size, _)| size / PAGE).sum();
            assert_eq!(self.ledger.mapped_pages(vm(slot as u8)), pages);
        }
        assert_eq!(frames, self.machine.frames_used(), "a frame is lost");
        self.check_ledger();
    }

    /// Every run of the ledger has the state and the number of mappings that the test knows of.
    pub fn check_ledger(&self) {
        let mut before = None;
        for (range, state, mappings) in self.ledger.runs() {
            assert_ne!(before, Some((range.start(), state, mappings)), "neighbours that could be one run");
            before = Some((range.end(), state, mappings));
            for pa in [range.start().as_u64(), range.end().as_u64() - PAGE] {
                assert_eq!(self.owners.at(pa), state, "PA {pa:#x}");
                assert_eq!(self.mappings_of(pa), mappings, "PA {pa:#x}");
            }
        }
        for (pa, size, _) in self.guests.iter().flat_map(|guest| guest.model.physical()) {
            for pa in [pa, pa + size - PAGE] {
                assert_eq!(
                    self.ledger.state(Pa::new(pa)),
                    (self.owners.at(pa), self.mappings_of(pa)),
                    "PA {pa:#x}"
                );
            }
        }
    }

    pub fn mappings_of(&self, pa: u64) -> u32 {
        let physical = self.guests.iter().flat_map(|guest| guest.model.physical());
        physical.filter(|&(start, size, _)| start <= pa && pa < start + size).count() as u32
    }

    /// What `Ledger::map` ought to answer when there are frames enough.
    pub fn expect_map(&self, slot: u8, ipa: u64, target: Target, size: u64) -> Result<(), &'static str> {
        let guest = &self.guests[usize::from(slot)];
        let Target { pa, permissions, usage, may_write } = target;
        if !self.owners.allow(vm(slot), pa, size, usage, false) {
            return Err("NotGranted");
        }
        if ipa + size > 1 << guest.geometry.ipa_bits() {
            return Err("IpaOutOfRange");
        }
        if permissions.write && !may_write {
            return Err("WriteNotGranted");
        }
        if permissions.execute && matches!(usage, Use::Device | Use::Banked) {
            return Err("ExecuteDevice");
        }
        if permissions.execute && !permissions.read {
            return Err("ExecuteWithoutRead");
        }
        guest.model.first_mapped(ipa, size).map_or(Ok(()), |_| Err("AlreadyMapped"))
    }

    pub fn map(&mut self, slot: u8, ipa: u64, pa: u64, size: u64, permissions: Permissions, usage: Use) {
        let may_write = self.owners.allow(vm(slot), pa, size, usage, true);
        let target = Target { pa, permissions, usage, may_write };
        let expected = self.expect_map(slot, ipa, target, size);
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let starved = self.machine.frames_left < FRAMES / 2;
        let got =
            self.ledger.map(stage2, &mut self.machine, Ipa::new(ipa), (range(pa, size), usage), permissions);
        match (expected, got) {
            (Ok(()), Ok(())) => guest.model.insert(ipa, size, target),
            (Ok(()), Err(Error::OutOfFrames { tables: 1 })) if starved => {}
            (Err(expected), Err(got)) => {
                assert!(format!("{got:?}").contains(expected), "{expected}, not {got:?}");
                if let Error::AlreadyMapped { ipa: at, pa } = got {
                    // The entry that is in the way may start below the range.
                    let first = guest.model.first_mapped(ipa, size).unwrap();
                    assert!(at.as_u64() <= first);
                    assert_eq!(guest.model.lookup(at.as_u64()).unwrap().pa, pa.as_u64());
                }
            }
            (expected, got) => panic!("expected {expected:?}, got {got:?}"),
        }
    }

    pub fn unmap(&mut self, slot: u8, ipa: u64, size: u64) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let starved = self.machine.frames_left < FRAMES / 2;
        let beyond = ipa + size > 1 << guest.geometry.ipa_bits();
        let hole = guest.model.first_hole(ipa, size);
        match self.ledger.unmap(stage2, &mut self.machine, Ipa::new(ipa), size) {
            Ok(()) if hole.is_none() && !beyond => drop(guest.model.remove(ipa, size)),
            Err(Error::IpaOutOfRange { .. }) if beyond => {}
            Err(Error::NotMapped { ipa: at }) if !beyond => assert_eq!(Some(at.as_u64()), hole),
            Err(Error::OutOfFrames { tables: 1 }) if starved && hole.is_none() => {}
            got => panic!("{ipa:#x} {size:#x}, hole {hole:x?}: {got:?}"),
        }
    }

    pub fn protect(&mut self, slot: u8, ipa: u64, size: u64, permissions: Permissions) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let starved = self.machine.frames_left < FRAMES / 2;
        let beyond = ipa + size > 1 << guest.geometry.ipa_bits();
        let hole = guest.model.first_hole(ipa, size);
        let mut inside = guest.model.clone();
        let targets: Vec<Target> =
            inside.remove(ipa, size).into_iter().map(|(_, _, target)| target).collect();
        let device = |target: &Target| matches!(target.usage, Use::Device | Use::Banked);
        let write_refused = permissions.write && targets.iter().any(|target| !target.may_write);
        let execute_refused = permissions.execute && (!permissions.read || targets.iter().any(device));
        match stage2.protect(&mut self.machine, Ipa::new(ipa), size, permissions) {
            Ok(()) if hole.is_none() && !beyond && !write_refused && !execute_refused => {
                guest.model.protect(ipa, size, permissions)
            }
            Err(Error::IpaOutOfRange { .. }) if beyond => {}
            Err(Error::NotMapped { ipa: at }) if !beyond => assert_eq!(Some(at.as_u64()), hole),
            Err(Error::WriteNotGranted { .. }) if write_refused => {}
            Err(Error::ExecuteDevice { .. } | Error::ExecuteWithoutRead { .. }) if execute_refused => {}
            Err(Error::OutOfFrames { tables: 1 }) if starved && hole.is_none() => {}
            got => panic!("{ipa:#x} {size:#x}, hole {hole:x?}: {got:?}"),
        }
    }

    /// One VM's memory goes to another, if nobody maps it.
    pub fn hand_over(&mut self, from: u8, to: u8, pa: u64, size: u64) {
        let states = self.owners.overlapping(pa, size);
        let owned = states.iter().all(|&state| state == State::Owned(vm(from)));
        let mapped = self.guests.iter().any(|guest| guest.model.overlaps(pa, size));
        match self.ledger.transfer(range(pa, size), Transfer::Reclaim(vm(from))) {
            Ok(()) => {
                assert!(owned && !mapped);
                assert!(
                    self.ledger.transfer(range(pa, size), Transfer::Donate(vm(to))).is_err(),
                    "unscrubbed"
                );
                self.ledger.transfer(range(pa, size), Transfer::Scrubbed).unwrap();
                self.ledger.transfer(range(pa, size), Transfer::Donate(vm(to))).unwrap();
                self.owners.set(pa, size, State::Owned(vm(to)));
            }
            Err(LedgerError::StillMapped { .. }) => assert!(mapped),
            Err(LedgerError::NotAllowed { .. }) => assert!(!owned),
            Err(other) => panic!("{other:?}"),
        }
    }

    pub fn rebuild(&mut self, slot: u8) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.take().unwrap();
        self.ledger.teardown(stage2, &mut self.machine).unwrap();
        guest.model = Model::default();
        self.machine.frames_left = FRAMES;
        self.build(slot);
    }

    /// The crate's answers for one address, against model and walker.
    pub fn ask(&self, slot: u8, ipa: u64) {
        let guest = &self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_ref().unwrap();
        let ipa = ipa + 0xabc;
        let walked = guest.regime.translate(&self.machine, stage2.vttbr(), ipa);
        let expected = guest.model.lookup(ipa & !0xfff);
        let got = stage2.translate(&self.machine, Ipa::new(ipa));
        assert_eq!(got.map(|t| t.pa.as_u64()), walked.map(|found| found.pa + (ipa - found.ipa)));
        assert_eq!(got.map(|t| t.pa.as_u64()), expected.map(|target| target.pa + 0xabc));
        assert_eq!(got.map(|t| t.permissions), expected.map(|target| target.permissions));
        let mapping = stage2.query(&self.machine, Ipa::new(ipa));
        assert_eq!(mapping.map(|m| (m.ipa.as_u64(), m.size())), walked.map(|found| (found.ipa, found.size)));
        assert_eq!(mapping.map(|m| m.attributes.usage), expected.map(|target| target.usage));
        assert_eq!(mapping.map(|m| m.attributes.may_write), expected.map(|target| target.may_write));
        let next = stage2.next_mapping(&self.machine, Ipa::new(ipa));
        let wanted = guest.model.leaves().into_iter().find(|&(start, size, _)| start + size > ipa);
        assert_eq!(
            next.map(|m| (m.ipa.as_u64(), m.pa.as_u64())),
            wanted.map(|(start, _, target)| (start, target.pa))
        );
    }
}
