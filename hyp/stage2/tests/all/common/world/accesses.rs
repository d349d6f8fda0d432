//! What a VM uses: accesses that fault, stores by EL2, the log and the access flag.

use stage2::{Access, Error, Ipa, Permissions, Progress, Use};

use super::{PAGE, World, vm};
use crate::common::model::{Model, Target};

impl World {
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
        assert_told(told, &guest.model, Target::is_told);
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
        assert_told(told, &guest.model, |target| !end && target.is_memory() && target.accessed);
        guest.model.update(0, 1 << 48, |target| target.accessed = end || !target.is_memory());
    }
}

/// What was told is what the model has of the kind that `is_wanted`.
fn assert_told(told: Vec<(u64, u64)>, model: &Model, is_wanted: impl Fn(&Target) -> bool) {
    let all = model.joined();
    let wanted = all.iter().filter(|(.., target)| is_wanted(target)).map(|&(ipa, size, _)| (ipa, size));
    assert_eq!(joined(told), joined(wanted.collect()));
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
