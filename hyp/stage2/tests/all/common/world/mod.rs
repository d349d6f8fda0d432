//! Three VMs of different shape, one ledger and a machine, beside what the test knows they ought to be. Each operation is
//! performed on both sides, and its outcome, refusals included, is compared.

mod accesses;
mod copies;
mod mapping;
mod owners;

use owners::Owners;
use stage2::{
    CopyReserve, Format, Geometry, Grant, Inventory, Ipa, Kind, Ledger, LedgerError, Pa, PaRange,
    Permissions, Progress, Run, Stage2, State, Transfer, VmId, VmSet,
};

use super::machine::Machine;
use super::model::Model;
use super::walker::{Found, Regime, regime};

pub const PAGE: u64 = 4096;
pub const MIB2: u64 = 2 << 20;
pub const GIB: u64 = 1 << 30;
pub const FRAMES: usize = 100_000;
/// Pages that each VM has for copies; half of them ready at a time.
pub const COPIES: u64 = 16;

/// Where the pages for a VM's copies are.
pub const fn copies_of(slot: u8) -> u64 {
    8 * GIB + slot as u64 * COPIES * PAGE
}

/// Zeroes memory that nobody has: in this world, by saying so.
pub fn scrub(ledger: &mut Ledger<Vec<Run>>, range: PaRange) -> Result<(), LedgerError> {
    let mut scrub = ledger.begin_scrub(range)?;
    while scrub.step(0x1000, |_| {}) == Progress::More {}
    ledger.finish_scrub(scrub).map_err(|(error, _)| error)
}

pub fn vm(slot: u8) -> VmId {
    VmId::new(slot).unwrap()
}

fn range(start: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(start), size).unwrap()
}

pub struct Guest {
    pub stage2: Option<Stage2>,
    pub model: Model,
    pub logging: bool,
    pub copies: CopyReserve<Vec<Option<Grant>>>,
    /// The pages that the reserve holds the right to: fresh ones, and those that were copied.
    fresh: Vec<u64>,
    used: Vec<u64>,
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
        for slot in 0..3 {
            let pages = range(copies_of(slot), COPIES * PAGE);
            ledger.transfer(pages, Transfer::Donate(vm(slot))).unwrap();
            owners.set(copies_of(slot), COPIES * PAGE, State::Owned(vm(slot)));
        }
        let mut world = Self { machine: Machine::new(FRAMES), ledger, owners, guests: Vec::new() };
        for (slot, (ipa_bits, pa_bits, format)) in
            [(32, 40, Format::Combined), (41, 48, Format::ForcedWriteBack), (48, 48, Format::Combined)]
                .into_iter()
                .enumerate()
        {
            let geometry = Geometry::new(ipa_bits, pa_bits).unwrap();
            let regime = regime(geometry.vtcr().bits(), format == Format::ForcedWriteBack);
            let copies = CopyReserve::new(vm(slot as u8), (0..COPIES / 2).map(|_| None).collect());
            world.guests.push(Guest {
                stage2: None,
                model: Model::default(),
                logging: false,
                copies,
                fresh: Vec::new(),
                used: Vec::new(),
                geometry,
                format,
                regime,
            });
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
        guest.logging = false;
        self.refill(slot);
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
            for (found, (ipa, size, target, contiguous)) in census.leaves.iter().zip(expected) {
                let Permissions { read, execute, .. } = target.permissions;
                let (write, dbm) = (target.is_writable(), target.armed);
                let (device, accessed) = (!target.is_memory(), target.accessed);
                let pa = target.pa;
                let wanted = Found { ipa, pa, size, read, write, execute, device, dbm, accessed, contiguous };
                assert_eq!(*found, wanted, "VM {slot}");
                let id = vm(slot as u8);
                assert!(
                    self.owners.allow(id, target.pa, size, target.usage, write),
                    "{id} reaches {wanted:x?}"
                );
            }
            let pages: u64 = guest.model.physical().map(|(_, size, _)| size / PAGE).sum();
            let kept = guest.fresh.len() + guest.used.len();
            assert_eq!(self.ledger.mapped_pages(vm(slot as u8)), pages + kept as u64);
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
        let kept = self.guests.iter().flat_map(|guest| guest.fresh.iter().chain(&guest.used));
        let mapped = physical.filter(|&(start, size, _)| start <= pa && pa < start + size).count();
        (mapped + kept.filter(|&&page| page == pa).count()) as u32
    }

    /// One VM's memory goes to another, if nobody maps it.
    pub fn hand_over(&mut self, from: u8, to: u8, pa: u64, size: u64) {
        let states = self.owners.overlapping(pa, size);
        let owned = states.iter().all(|&state| state == State::Owned(vm(from)));
        let mapped = self.guests.iter().any(|guest| guest.model.overlaps(pa, size))
            || self.kept_between(pa, pa + size) != 0;
        match self.ledger.transfer(range(pa, size), Transfer::Reclaim(vm(from))) {
            Ok(()) => {
                assert!(owned && !mapped);
                assert!(
                    self.ledger.transfer(range(pa, size), Transfer::Donate(vm(to))).is_err(),
                    "unscrubbed"
                );
                scrub(&mut self.ledger, range(pa, size)).unwrap();
                self.ledger.transfer(range(pa, size), Transfer::Donate(vm(to))).unwrap();
                self.owners.set(pa, size, State::Owned(vm(to)));
            }
            Err(LedgerError::StillMapped { .. }) => assert!(mapped),
            Err(LedgerError::NotAllowed { .. }) => assert!(!owned),
            Err(other) => panic!("{other:?}"),
        }
    }

    pub fn rebuild(&mut self, slot: u8, entries: Option<usize>) {
        self.teardown(slot, entries);
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
        let wanted = guest.model.leaves().into_iter().find(|&(start, size, ..)| start + size > ipa);
        assert_eq!(
            next.map(|m| (m.ipa.as_u64(), m.pa.as_u64())),
            wanted.map(|(start, _, target, _)| (start, target.pa))
        );
    }
}
