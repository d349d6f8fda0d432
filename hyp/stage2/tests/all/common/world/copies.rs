//! Copy on write: pages for copies, memory that is frozen and thawed, and its clones.

use stage2::{Error, Ipa, LedgerError, Permissions, State, Transfer, Use, VmSet};

use super::{COPIES, FRAMES, PAGE, World, copies_of, range, vm};

impl World {
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

    pub(super) fn kept_between(&self, from: u64, to: u64) -> usize {
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
}
