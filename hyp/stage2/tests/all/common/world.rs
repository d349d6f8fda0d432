//! Three VMs of different shape, one ledger and a machine, beside what the test knows they ought to be. Each operation is
//! performed on both sides, and its outcome, refusals included, is compared.

use stage2::{
    Access, CopyReserve, Cursor, Error, Format, Geometry, Grant, Inventory, Ipa, Kind, Ledger, LedgerError,
    MapJob, MapStep, Pa, PaRange, Permissions, Progress, Refused, Run, Stage2, State, Transfer, Use, VmId,
    VmSet,
};

use super::machine::Machine;
use super::model::{Model, Target};
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
            (Use::CopyOnWrite, State::CopyOnWrite { members }) => members.contains(vm) && !write,
            (Use::Banked, State::Banked) => true,
            _ => false,
        })
    }
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

    /// Gives back what was copied, and makes fresh pages ready of those that the VM doesn't use.
    pub fn refill(&mut self, slot: u8) {
        self.release_used(slot);
        for n in 0..COPIES {
            let page = copies_of(slot) + n * PAGE;
            let mine = self.owners.at(page) == State::Owned(vm(slot));
            let guest = &self.guests[usize::from(slot)];
            if !mine || self.mappings_of(page) != 0 || guest.fresh.len() as u64 == COPIES / 2 {
                continue;
            }
            let grant = self.ledger.grant(vm(slot), range(page, PAGE), Use::Ram).unwrap();
            let guest = &mut self.guests[usize::from(slot)];
            guest.copies.add(grant).unwrap();
            guest.fresh.push(page);
        }
    }

    fn release_used(&mut self, slot: u8) {
        let guest = &mut self.guests[usize::from(slot)];
        while let Some(grant) = guest.copies.take_used() {
            let page = grant.range().start().as_u64();
            let at = guest.used.iter().position(|&used| used == page).expect("a page that was copied");
            guest.used.remove(at);
            self.ledger.release(grant).unwrap();
        }
        assert!(guest.used.is_empty(), "the right to a copied page is lost");
    }

    /// Ends the reserve: all rights go back to the ledger.
    pub fn drain_reserve(&mut self, slot: u8) {
        self.release_used(slot);
        let guest = &mut self.guests[usize::from(slot)];
        while let Some(grant) = guest.copies.take_fresh() {
            let page = grant.range().start().as_u64();
            guest.fresh.retain(|&fresh| fresh != page);
            self.ledger.release(grant).unwrap();
        }
        assert!(guest.fresh.is_empty());
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

    /// What `Ledger::map` ought to answer when there are frames enough.
    pub fn expect_map(&self, slot: u8, ipa: u64, target: Target, size: u64) -> Result<(), &'static str> {
        let guest = &self.guests[usize::from(slot)];
        let Target { pa, permissions, usage, may_write, .. } = target;
        if !self.owners.allow(vm(slot), pa, size, usage, false) {
            return Err("NotGranted");
        }
        if ipa + size > 1 << guest.geometry.ipa_bits() {
            return Err("IpaOutOfRange");
        }
        if permissions.write && !may_write && usage != Use::CopyOnWrite {
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

    /// Maps in one go, or in steps of so many entries.
    pub fn map(
        &mut self,
        slot: u8,
        (ipa, pa, size): (u64, u64, u64),
        permissions: Permissions,
        usage: Use,
        entries: Option<usize>,
    ) {
        let may_write = self.owners.allow(vm(slot), pa, size, usage, true);
        let logging = self.guests[usize::from(slot)].logging;
        let target = Target::new(pa, permissions, usage, may_write, logging);
        let expected = self.expect_map(slot, ipa, target, size);
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let starved = self.machine.frames_left < FRAMES / 2;
        let (ledger, machine) = (&mut self.ledger, &mut self.machine);
        let got = match entries {
            None => ledger.map(stage2, machine, Ipa::new(ipa), (range(pa, size), usage), permissions),
            Some(entries) => map_in_steps(
                ledger,
                stage2,
                machine,
                (Ipa::new(ipa), range(pa, size)),
                (usage, permissions),
                entries,
            ),
        };
        match (expected, got) {
            (Ok(()), Ok(())) => guest.model.insert(ipa, size, target),
            (Ok(()), Err(Error::OutOfFrames { tables: 1 })) if starved => {}
            (Err(expected), Err(got)) => {
                assert!(format!("{got:?}").contains(expected) || starved, "{expected}, not {got:?}");
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

    /// Unmaps in one go, or in steps of so many entries, of which each that is not refused counts.
    pub fn unmap(&mut self, slot: u8, ipa: u64, size: u64, entries: Option<usize>) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let starved = self.machine.frames_left < FRAMES / 2;
        let beyond = ipa + size > 1 << guest.geometry.ipa_bits();
        let hole = guest.model.first_hole(ipa, size);
        let mut cursor = Cursor::new(Ipa::new(ipa), size);
        let got = match entries {
            None => self.ledger.unmap(stage2, &mut self.machine, Ipa::new(ipa), size),
            Some(entries) => loop {
                match self.ledger.unmap_some(stage2, &mut self.machine, &mut cursor, entries) {
                    Ok(Progress::More) => self.machine.assert_current(),
                    Ok(Progress::Done) => break Ok(()),
                    Err(error) => break Err(error),
                }
            },
        };
        match got {
            Ok(()) if hole.is_none() && !beyond => drop(guest.model.remove(ipa, size)),
            Err(Error::IpaOutOfRange { .. }) if beyond => {}
            Err(Error::NotMapped { ipa: at }) if !beyond => assert_eq!(Some(at.as_u64()), hole),
            Err(Error::OutOfFrames { tables: 1 }) if starved => {}
            got => panic!("{ipa:#x} {size:#x}, hole {hole:x?}: {got:?}"),
        }
        if got.is_err() {
            drop(guest.model.remove(ipa, cursor.next().as_u64() - ipa));
        }
    }

    /// An access by the guest that faults: whether it may be made, and what it changes.
    pub fn access(&mut self, slot: u8, ipa: u64, access: Access) {
        let logging = self.guests[usize::from(slot)].logging;
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let before = self.machine.copies.len();
        let got = stage2.resolve(&mut self.machine, &mut guest.copies, Ipa::new(ipa + 0x123), access);
        let page = ipa & !0xfff;
        let Some(target) = guest.model.lookup(page) else {
            assert!(matches!(got, Err(Error::NotMapped { .. })), "{got:?}");
            return;
        };
        let Permissions { read, write, execute } = target.permissions;
        let allowed = match access {
            Access::Read => read,
            Access::Write => write,
            Access::Execute => execute,
        };
        if !allowed {
            assert_eq!(got, Err(Error::NotPermitted { ipa: Ipa::new(ipa + 0x123), access }));
            return;
        }
        // The access flag is set for whatever is one entry.
        let (from, length) = guest.model.extent(page).unwrap();
        guest.model.update(from, length, |target| target.accessed = true);
        if access == Access::Write && !self.store(slot, page, before, logging) {
            assert!(matches!(got, Err(Error::OutOfCopies { .. })), "{got:?}");
            return;
        }
        let mapping = got.unwrap();
        assert!(mapping.marks.accessed && !(access == Access::Write && mapping.marks.store_faults));
    }

    /// EL2 writes to the page, whatever the guest may do there.
    pub fn load(&mut self, slot: u8, ipa: u64) {
        let guest = &mut self.guests[usize::from(slot)];
        let (stage2, logging) = (guest.stage2.as_mut().unwrap(), guest.logging);
        let before = self.machine.copies.len();
        let at = Ipa::new(ipa + 0x123);
        let got = stage2.memory(&mut self.machine, &mut guest.copies, at, 1 << 40, Access::Write);
        let page = ipa & !0xfff;
        match guest.model.lookup(page) {
            None => assert!(matches!(got, Err(Error::NotMapped { .. })), "{got:?}"),
            Some(target) if !target.is_memory() => assert_eq!(got, Err(Error::NotMemory { ipa: at })),
            Some(target) if target.usage == Use::Shared && !target.may_write => {
                assert_eq!(got, Err(Error::WriteNotGranted { ipa: at }));
            }
            Some(_) if !self.store(slot, page, before, logging) => {
                assert!(matches!(got, Err(Error::OutOfCopies { .. })), "{got:?}");
            }
            Some(_) => {
                let (pa, length) = got.unwrap();
                let model = &self.guests[usize::from(slot)].model;
                for offset in [0, length - 1] {
                    let there = ipa + 0x123 + offset;
                    let target = model.lookup(there & !0xfff).unwrap();
                    assert_eq!(pa.as_u64() + offset, target.pa + (there & 0xfff));
                    assert!(self.owners.allow(vm(slot), target.pa, PAGE, target.usage, true));
                }
            }
        }
    }

    /// What a store to `page` does to the model: a copy, if there is a page for it, or a note. `false` if there is none.
    fn store(&mut self, slot: u8, page: u64, copies_before: usize, logging: bool) -> bool {
        let guest = &mut self.guests[usize::from(slot)];
        let target = guest.model.lookup(page).unwrap();
        let copied = self.machine.copies.get(copies_before..).unwrap().to_vec();
        if target.usage != Use::CopyOnWrite {
            assert!(copied.is_empty());
            guest.model.update(page, PAGE, |target| target.store(logging));
            return true;
        }
        if guest.fresh.is_empty() {
            assert!(copied.is_empty());
            return false;
        }
        let [(from, to)] = copied[..] else { panic!("{copied:x?}") };
        assert_eq!(from, target.pa);
        let at = guest.fresh.iter().position(|&fresh| fresh == to).expect("a page of the VM's reserve");
        guest.fresh.remove(at);
        guest.used.push(from);
        guest.model.update(page, PAGE, |target| {
            *target = Target::new(to, target.permissions, Use::Ram, true, logging);
        });
        true
    }

    /// One round of the log, in steps: what it tells is what the model knows.
    pub fn collect(&mut self, slot: u8, entries: usize) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let mut cursor = stage2.everything();
        let mut told = Vec::new();
        loop {
            let found = |ipa: Ipa, size| told.push((ipa.as_u64(), size));
            match stage2.collect_log(&mut self.machine, &mut cursor, entries, found) {
                Err(Error::NotLogging) if !guest.logging => return,
                Ok(Progress::Done) => break,
                got => assert_eq!(got, Ok(Progress::More)),
            }
            self.machine.assert_current();
        }
        let all = guest.model.joined();
        let wanted = all.iter().filter(|(.., target)| target.is_told()).map(|&(ipa, size, _)| (ipa, size));
        assert_eq!(joined(told), joined(wanted.collect()));
        guest.model.update(0, 1 << 48, Target::log);
    }

    pub fn start_log(&mut self, slot: u8, entries: usize) {
        let guest = &mut self.guests[usize::from(slot)];
        let cursor = guest.stage2.as_mut().unwrap().start_log();
        assert_eq!(cursor.progress(), Progress::More);
        guest.logging = true;
        self.collect(slot, entries);
    }

    pub fn stop_log(&mut self, slot: u8, entries: usize) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let mut cursor = stage2.stop_log();
        while stage2.clear_log(&mut self.machine, &mut cursor, entries) == Ok(Progress::More) {
            self.machine.assert_current();
        }
        guest.logging = false;
        guest.model.update(0, 1 << 48, Target::unlog);
    }

    /// One round of looking for accesses; or the end of it.
    pub fn age(&mut self, slot: u8, entries: usize, end: bool) {
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.as_mut().unwrap();
        let mut cursor = stage2.everything();
        let mut told = Vec::new();
        loop {
            let found = |ipa: Ipa, size| told.push((ipa.as_u64(), size));
            let got = match end {
                false => stage2.collect_accessed(&mut self.machine, &mut cursor, entries, found),
                true => stage2.clear_accessed(&mut self.machine, &mut cursor, entries),
            };
            self.machine.assert_current();
            if got.unwrap() == Progress::Done {
                break;
            }
        }
        let all = guest.model.joined();
        let used = |target: &Target| !end && target.is_memory() && target.accessed;
        let wanted = all.iter().filter(|(.., target)| used(target)).map(|&(ipa, size, _)| (ipa, size));
        assert_eq!(joined(told), joined(wanted.collect()));
        guest.model.update(0, 1 << 48, |target| target.accessed = end || !target.is_memory());
    }

    /// What a VM maps of its own becomes copied on write, or the other way round.
    pub fn convert(&mut self, slot: u8, ipa: u64, size: u64, members: Option<VmSet>) {
        let guest = &self.guests[usize::from(slot)];
        let from = if members.is_some() { Use::Ram } else { Use::CopyOnWrite };
        let mut inside = guest.model.clone();
        let targets = inside.remove(ipa, size);
        let beyond = ipa + size > 1 << guest.geometry.ipa_bits();
        let hole = beyond || guest.model.first_hole(ipa, size).is_some();
        let wrong_use = targets.iter().any(|(.., target)| target.usage != from);
        let twice = targets.iter().any(|&(_, size, target)| !self.is_mapped_once(target.pa, size));
        let not_ours = match members {
            Some(members) => !members.contains(vm(slot)),
            None => targets.iter().any(|&(_, size, target)| {
                let states = self.owners.overlapping(target.pa, size);
                states.iter().any(|&state| state != State::CopyOnWrite { members: VmSet::only(vm(slot)) })
            }),
        };
        let starved = self.machine.frames_left < FRAMES / 2;
        let guest = &mut self.guests[usize::from(slot)];
        let (stage2, logging) = (guest.stage2.as_mut().unwrap(), guest.logging);
        let (ledger, machine) = (&mut self.ledger, &mut self.machine);
        let got = match members {
            Some(members) => ledger.freeze(stage2, machine, Ipa::new(ipa), size, members),
            None => ledger.thaw(stage2, machine, Ipa::new(ipa), size),
        };
        match got {
            Ok(()) => {
                assert!(!hole && !wrong_use && !twice && !not_ours);
                let state = members.map_or(State::Owned(vm(slot)), |members| State::CopyOnWrite { members });
                for (_, size, target) in targets {
                    self.owners.set(target.pa, size, state);
                }
                guest.model.update(ipa, size, |target| match members {
                    Some(_) => target.freeze(logging),
                    None => target.thaw(),
                });
            }
            Err(Error::NotMapped { .. } | Error::IpaOutOfRange { .. }) => assert!(hole),
            Err(Error::WrongUse { .. }) => assert!(wrong_use),
            Err(Error::Ledger(LedgerError::StillMapped { .. })) => assert!(twice),
            Err(Error::Ledger(LedgerError::NotAllowed { .. })) => assert!(not_ours),
            Err(Error::OutOfFrames { tables: 1 }) => assert!(starved),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn is_mapped_once(&self, pa: u64, size: u64) -> bool {
        let intervals = self.guests.iter().flat_map(|guest| guest.model.physical());
        let overlaps =
            intervals.map(|(start, length, _)| (start + length).min(pa + size).saturating_sub(start.max(pa)));
        overlaps.sum::<u64>() == size && self.kept_between(pa, pa + size) == 0
    }

    fn kept_between(&self, from: u64, to: u64) -> usize {
        let kept = self.guests.iter().flat_map(|guest| guest.fresh.iter().chain(&guest.used));
        kept.filter(|&&page| from <= page && page < to).count()
    }

    /// Maps something that a VM has copied on write in another one, which may be one of the members already.
    pub fn clone_to(&mut self, from: u8, to: u8, ipa: u64, size: u64, admit: bool) {
        let target = self.guests[usize::from(from)].model.lookup(ipa);
        let Some(target) = target.filter(|target| target.usage == Use::CopyOnWrite) else { return };
        if admit {
            let states = self.owners.overlapping(target.pa, size);
            let all = states.iter().all(|state| matches!(state, State::CopyOnWrite { .. }));
            let admitted = self.ledger.transfer(range(target.pa, size), Transfer::Admit(vm(to)));
            assert_eq!(admitted.is_ok(), all);
            let mut at = target.pa;
            while all && at < target.pa + size {
                let State::CopyOnWrite { members } = self.owners.at(at) else { panic!() };
                self.owners.set(at, PAGE, State::CopyOnWrite { members: members.with(vm(to)) });
                at += PAGE;
            }
        }
        self.map(to, (ipa, target.pa, size), Permissions::ALL, Use::CopyOnWrite, None);
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
        let refuses = |target: &Target| !target.may_write && target.usage != Use::CopyOnWrite;
        let write_refused = permissions.write && targets.iter().any(refuses);
        let execute_refused = permissions.execute && (!permissions.read || targets.iter().any(device));
        match stage2.protect(&mut self.machine, Ipa::new(ipa), size, permissions) {
            Ok(()) if hole.is_none() && !beyond && !write_refused && !execute_refused => {
                let logging = guest.logging;
                guest.model.update(ipa, size, |target| {
                    // Where nothing of the range changes, nothing does.
                    if targets.iter().any(|target| target.permissions != permissions) {
                        target.protect(permissions, logging);
                    }
                });
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

    /// Tears a VM's tables down, in one go or in steps.
    pub fn teardown(&mut self, slot: u8, entries: Option<usize>) {
        self.drain_reserve(slot);
        let guest = &mut self.guests[usize::from(slot)];
        let stage2 = guest.stage2.take().unwrap();
        match entries {
            None => self.ledger.teardown(stage2, &mut self.machine).unwrap(),
            Some(entries) => {
                let mut teardown = stage2.dismantle();
                while self.ledger.teardown_some(&mut teardown, &mut self.machine, entries).unwrap()
                    == Progress::More
                {}
                let again = self.ledger.teardown_some(&mut teardown, &mut self.machine, entries);
                assert_eq!(again, Ok(Progress::Done), "another step does nothing");
            }
        }
        guest.model = Model::default();
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

/// Intervals that touch put together, the empty ones left out.
fn joined(mut intervals: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    intervals.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (start, size) in intervals {
        match all.last_mut() {
            Some((from, length)) if *from + *length == start => *length += size,
            _ => all.push((start, size)),
        }
    }
    all
}

/// What `Ledger::map` does, by a job. Between its steps all is well formed.
fn map_in_steps(
    ledger: &mut Ledger<Vec<Run>>,
    stage2: &mut Stage2,
    machine: &mut Machine,
    (ipa, pages): (Ipa, PaRange),
    (usage, permissions): (Use, Permissions),
    entries: usize,
) -> Result<(), Error> {
    let grant = ledger.grant(stage2.vm(), pages, usage)?;
    let mut job = match MapJob::new(stage2, ipa, grant, permissions) {
        Ok(job) => job,
        Err(Refused { error, grant }) => {
            ledger.release(grant).unwrap();
            return Err(error);
        }
    };
    loop {
        match job.step(stage2, machine, entries) {
            MapStep::More(more) => job = more,
            MapStep::Done => return Ok(()),
            MapStep::Refused(Refused { error, grant }) => {
                assert_eq!(grant.range(), pages, "not all comes back");
                ledger.release(grant).unwrap();
                return Err(error);
            }
            MapStep::Stuck(more, _) => {
                assert!(machine.frames_left < FRAMES / 2);
                machine.frames_left += 2;
                job = more;
            }
        }
        machine.assert_current();
    }
}
