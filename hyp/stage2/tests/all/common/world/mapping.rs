//! Mappings made, changed and unmade, in one go or in steps.

use stage2::{
    Cursor, Error, Ipa, Ledger, MapJob, MapStep, PaRange, Permissions, Progress, Refused, Run, Stage2, Use,
};

use super::{FRAMES, World, range, vm};
use crate::common::machine::Machine;
use crate::common::model::{Model, Target};

impl World {
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
