//! The page ledger: one owner for every physical page, and the only source of grants to map one.
//!
//! The ledger is a sorted list of runs that covers all of 48 bits. A run is a stretch of pages in the same state with the
//! same number of mappings, so a VM's RAM is one entry whatever its size. Pages change hands only while no stage 2 maps
//! them, and only as `transfer` allows. The storage is the caller's; nothing is allocated. Not for the exit path.

mod runs;
mod scrub;
mod transfer;

use crate::addr::{Ipa, PAGE_SIZE, Pa, PaRange};
use crate::descriptor::{self, Permissions};
use crate::environment::Environment;
use crate::error::{Error, LedgerError, Refused};
use crate::grant::{Grant, Use};
use crate::job::{Cursor, Progress, Teardown};
use crate::table::Stage2;
use crate::vm::{VmId, VmSet};

pub use runs::Run;
use runs::{Holding, Runs};
pub use scrub::Scrub;
pub use transfer::{Kind, State, Transfer};

/// The ledger while the board is being looked over: pages get their first state. Ends in [`finish`](Self::finish), after
/// which no page enters that the board's tree did not name.
#[derive(Debug)]
pub struct Inventory<S> {
    runs: Runs<S>,
}

impl<S: AsRef<[Run]> + AsMut<[Run]>> Inventory<S> {
    /// An inventory in which all pages are [`State::Reserved`]. `storage` bounds how many runs there can be; what it holds
    /// does not matter ([`Run::default`] will do).
    ///
    /// # Errors
    /// [`LedgerError::Full`] for storage without any room.
    pub fn new(storage: S) -> Result<Self, LedgerError> {
        Ok(Self { runs: Runs::new(storage)? })
    }

    /// Gives pages that nothing is known of their first state.
    ///
    /// # Errors
    /// [`LedgerError::AlreadyDeclared`], [`LedgerError::Full`].
    pub fn declare(&mut self, range: PaRange, kind: Kind) -> Result<(), LedgerError> {
        self.runs.update(range, |pa, Holding { state, mappings }| match state {
            State::Reserved => Ok(Holding { state: kind.state(), mappings }),
            _ => Err(LedgerError::AlreadyDeclared { pa, state }),
        })
    }

    /// Takes pages out of use, whether they were declared or not: the firmware's, `no-map`, EL2's own devices.
    ///
    /// # Errors
    /// [`LedgerError::InUse`] where a page is the hypervisor's or banked; [`LedgerError::Full`].
    pub fn withhold(&mut self, range: PaRange) -> Result<(), LedgerError> {
        self.runs.update(range, |pa, Holding { state, mappings }| match state {
            State::Reserved | State::Free | State::Unscrubbed | State::Device => {
                Ok(Holding { state: State::Reserved, mappings })
            }
            _ => Err(LedgerError::InUse { pa, state }),
        })
    }

    /// Makes memory the hypervisor's: [`Transfer::Claim`], for what is needed before the inventory is finished.
    ///
    /// # Errors
    /// [`LedgerError::NotAllowed`], [`LedgerError::Full`].
    pub fn claim(&mut self, range: PaRange) -> Result<(), LedgerError> {
        hand_over(&mut self.runs, range, Transfer::Claim)
    }

    /// All stretches that are not reserved, lowest first.
    pub fn runs(&self) -> impl Iterator<Item = (PaRange, State, u32)> {
        self.runs.declared()
    }

    /// The ledger.
    pub fn finish(self) -> Ledger<S> {
        Ledger { runs: self.runs, mapped_pages: [0; VmId::COUNT] }
    }
}

/// Lets pages change hands, as [`Transfer`] says.
fn hand_over<S: AsRef<[Run]> + AsMut<[Run]>>(
    runs: &mut Runs<S>,
    range: PaRange,
    transfer: Transfer,
) -> Result<(), LedgerError> {
    runs.update(range, |pa, Holding { state, mappings }| {
        if mappings != 0 && !transfer.is_allowed_while_mapped() {
            return Err(LedgerError::StillMapped { pa, mappings });
        }
        let refused = LedgerError::NotAllowed { pa, state, transfer };
        Ok(Holding { state: transfer.apply(state).ok_or(refused)?, mappings })
    })
}

/// Who has which page.
#[derive(Debug)]
pub struct Ledger<S> {
    runs: Runs<S>,
    /// For each VM, its mapped pages, each counted once for every mapping.
    mapped_pages: [u64; VmId::COUNT],
}

impl<S: AsRef<[Run]> + AsMut<[Run]>> Ledger<S> {
    /// The state of the page at `pa`, and how many stage-2 mappings of it there are.
    pub fn state(&self, pa: Pa) -> (State, u32) {
        let Holding { state, mappings } = self.runs.holding(pa);
        (state, mappings)
    }

    /// All stretches that are not reserved, lowest first, with state and mappings of each page.
    pub fn runs(&self) -> impl Iterator<Item = (PaRange, State, u32)> {
        self.runs.declared()
    }

    /// How many pages `vm` has mapped, each counted once for every mapping.
    pub fn mapped_pages(&self, vm: VmId) -> u64 {
        self.mapped_pages.get(usize::from(vm.slot())).copied().unwrap_or(0)
    }

    /// Lets pages change hands, as [`Transfer`] says.
    ///
    /// # Errors
    /// [`LedgerError::NotAllowed`], [`LedgerError::StillMapped`], [`LedgerError::Full`].
    pub fn transfer(&mut self, range: PaRange, transfer: Transfer) -> Result<(), LedgerError> {
        hand_over(&mut self.runs, range, transfer)
    }

    /// Whether `vm` may map all of `range` as `usage`, and if so, whether it may have stores to it.
    ///
    /// # Errors
    /// [`LedgerError::NotGranted`] with the first page that it may not.
    pub fn check_mapping(&self, vm: VmId, range: PaRange, usage: Use) -> Result<bool, LedgerError> {
        let mut may_write = true;
        for (pa, Holding { state, .. }) in self.runs.within(range) {
            may_write &= state.allows(vm, usage).ok_or(LedgerError::NotGranted { pa, state, vm })?;
        }
        Ok(may_write)
    }

    /// The right for `vm` to map `range` once as `usage`. The pages count as mapped from here on, until the grant comes
    /// back by [`release`](Self::release).
    ///
    /// # Errors
    /// [`LedgerError::NotGranted`], [`LedgerError::Count`], [`LedgerError::Full`].
    pub fn grant(&mut self, vm: VmId, range: PaRange, usage: Use) -> Result<Grant, LedgerError> {
        let may_write = self.check_mapping(vm, range, usage)?;
        self.runs.update(range, |pa, Holding { state, mappings }| {
            let mappings = mappings.checked_add(1).ok_or(LedgerError::Count { pa, mappings })?;
            Ok(Holding { state, mappings })
        })?;
        if let Some(pages) = self.mapped_pages.get_mut(usize::from(vm.slot())) {
            *pages = pages.saturating_add(range.pages());
        }
        Ok(Grant::new(vm, range, usage, may_write))
    }

    /// Takes back a grant whose pages are not mapped (any more).
    ///
    /// # Errors
    /// The grant comes back with [`LedgerError::Count`] where the ledger never gave it, or with [`LedgerError::Full`].
    pub fn release(&mut self, grant: Grant) -> Result<(), Refused<LedgerError>> {
        let range = grant.range();
        let updated = self.runs.update(range, |pa, Holding { state, mappings }| {
            let mappings = mappings.checked_sub(1).ok_or(LedgerError::Count { pa, mappings })?;
            Ok(Holding { state, mappings })
        });
        if let Err(error) = updated {
            return Err(Refused { error, grant });
        }
        self.uncount(grant.vm(), range.pages());
        Ok(())
    }

    /// Asks for a grant and maps it: see [`grant`](Self::grant) and [`Stage2::map`].
    ///
    /// # Errors
    /// Those of both; then nothing is mapped and nothing counted.
    pub fn map<E: Environment>(
        &mut self,
        stage2: &mut Stage2,
        env: &mut E,
        ipa: Ipa,
        pages: (PaRange, Use),
        permissions: Permissions,
    ) -> Result<(), Error> {
        let (range, usage) = pages;
        let grant = self.grant(stage2.vm(), range, usage)?;
        let Err(Refused { error, grant }) = stage2.map(env, ipa, grant, permissions) else { return Ok(()) };
        // The runs were split at the ends of the grant, so taking it back needs no room.
        self.release(grant).map_err(|refused| refused.error)?;
        Err(error)
    }

    /// Unmaps and takes back what comes of it: see [`Stage2::unmap`].
    ///
    /// # Errors
    /// Those of [`Stage2::unmap`]; [`LedgerError::Full`] where the runs that may be needed would not fit. Then nothing is
    /// unmapped.
    pub fn unmap<E: Environment>(
        &mut self,
        stage2: &mut Stage2,
        env: &mut E,
        ipa: Ipa,
        size: u64,
    ) -> Result<(), Error> {
        // No more pieces than pages; only where there is no room for so many they have to be counted.
        if self.has_room_for(usize::try_from(size / PAGE_SIZE).unwrap_or(usize::MAX)).is_err() {
            self.has_room_for(stage2.count_pieces(env, ipa, size, self.runs.capacity())?)?;
        }
        let mut outcome = Ok(());
        stage2.unmap(env, ipa, size, |grant| {
            if let Err(refused) = self.release(grant) {
                outcome = Err(refused.error);
            }
        })?;
        Ok(outcome?)
    }

    /// The next step of an unmap, of about `entries` leaves: see [`Stage2::unmap_some`].
    ///
    /// # Errors
    /// Those of [`unmap`](Self::unmap), for this step's part. Then the cursor stays, and what earlier steps unmapped is
    /// unmapped.
    pub fn unmap_some<E: Environment>(
        &mut self,
        stage2: &mut Stage2,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
    ) -> Result<Progress, Error> {
        let size = stage2.next_step(env, cursor, entries)?;
        if size != 0 {
            self.unmap(stage2, env, cursor.next(), size)?;
            cursor.advance(size);
        }
        Ok(cursor.progress())
    }

    /// Tears a VM's tables down and takes back all that they mapped: see [`Stage2::dismantle`].
    ///
    /// # Errors
    /// The tables are gone in any case. [`LedgerError::Mismatch`] where grants of the VM were lost, or are still out:
    /// its own pages stay counted as mapped then. [`LedgerError::Full`] where shared pages could not be taken back piece by
    /// piece: those stay counted.
    pub fn teardown<E: Environment>(&mut self, stage2: Stage2, env: &mut E) -> Result<(), LedgerError> {
        let mut teardown = stage2.dismantle();
        while self.teardown_some(&mut teardown, env, usize::MAX)? == Progress::More {}
        Ok(())
    }

    /// The next step of tearing a VM's tables down, over about `entries` entries: see [`Teardown::step`].
    ///
    /// # Errors
    /// Those of [`teardown`](Self::teardown), told by the last step: the tables are gone then.
    pub fn teardown_some<E: Environment>(
        &mut self,
        teardown: &mut Teardown,
        env: &mut E,
        entries: usize,
    ) -> Result<Progress, LedgerError> {
        let (mut own, mut failed) = (0u64, None);
        let progress = teardown.step(env, entries, |grant| match grant.usage() {
            // Pages that only this VM can map are settled below, all at once and without splitting a run.
            Use::Ram | Use::Device => own = own.saturating_add(grant.range().pages()),
            Use::Shared | Use::Banked | Use::CopyOnWrite => {
                if let Err(refused) = self.release(grant) {
                    failed = Some(refused.error);
                }
            }
        });
        teardown.own_pages = teardown.own_pages.saturating_add(own);
        teardown.failed = failed.or(teardown.failed);
        if progress == Progress::Done {
            self.settle(teardown.vm(), core::mem::take(&mut teardown.own_pages))?;
            teardown.failed.take().map_or(Ok(()), Err)?;
        }
        Ok(progress)
    }

    /// Makes what `stage2` maps of its VM's own memory in `size` bytes from `ipa` on copied on write, for the VMs `members`,
    /// of which it is one. The VM goes on using it and gets a copy of each page that it writes to.
    ///
    /// # Errors
    /// Those of [`Stage2::protect`]; [`Error::WrongUse`] for anything but its own memory; [`LedgerError::NotAllowed`] where it
    /// is none of the members; [`LedgerError::StillMapped`] where a page is mapped elsewhere too, or its grant is out;
    /// [`LedgerError::Full`]. Nothing has changed then.
    pub fn freeze<E: Environment>(
        &mut self,
        stage2: &mut Stage2,
        env: &mut E,
        ipa: Ipa,
        size: u64,
        members: VmSet,
    ) -> Result<(), Error> {
        let transfer = Transfer::Freeze { owner: stage2.vm(), members };
        self.convert(stage2, env, (ipa, size), transfer, (Use::Ram, Use::CopyOnWrite))
    }

    /// Makes what `stage2` maps copied on write in `size` bytes from `ipa` on its VM's own again: where no other VM is a
    /// member and there is one reference.
    ///
    /// # Errors
    /// Those of [`freeze`](Self::freeze).
    pub fn thaw<E: Environment>(
        &mut self,
        stage2: &mut Stage2,
        env: &mut E,
        ipa: Ipa,
        size: u64,
    ) -> Result<(), Error> {
        let transfer = Transfer::Thaw(stage2.vm());
        self.convert(stage2, env, (ipa, size), transfer, (Use::CopyOnWrite, Use::Ram))
    }

    /// A transfer of pages that are mapped once, by the tables of the VM that is concerned, and stay mapped.
    fn convert<E: Environment>(
        &mut self,
        stage2: &mut Stage2,
        env: &mut E,
        (ipa, size): (Ipa, u64),
        transfer: Transfer,
        (from, to): (Use, Use),
    ) -> Result<(), Error> {
        let span = stage2.span(ipa, size)?;
        self.has_room_for(stage2.count_pieces(env, ipa, size, self.runs.capacity())?)?;
        let apply = |pa, Holding { state, mappings }| {
            if mappings != 1 {
                return Err(LedgerError::StillMapped { pa, mappings });
            }
            let refused = LedgerError::NotAllowed { pa, state, transfer };
            Ok(Holding { state: transfer.apply(state).ok_or(refused)?, mappings })
        };
        stage2.for_each_leaf(env, span, |slot, leaf| {
            let found = leaf.attributes.usage;
            if found != from {
                return Err(Error::WrongUse { ipa: slot.ipa.max(ipa), found });
            }
            for (pa, holding) in self.runs.within(slot.part_within(leaf.pa, span)) {
                apply(pa, holding)?;
            }
            Ok(())
        })?;
        stage2.isolate(env, span)?;
        // All has been asked for above, and the room is there.
        stage2.for_each_leaf(env, span, |slot, leaf| {
            Ok(self.runs.update(slot.part_within(leaf.pa, span), apply)?)
        })?;
        let logging = stage2.is_logging();
        stage2.change(env, span, |raw| descriptor::with_usage(raw, to, logging), |_, _| {});
        Ok(())
    }

    /// Whether the runs fit that so many pieces of memory may need: each is cut out of others at both ends.
    fn has_room_for(&self, pieces: usize) -> Result<(), LedgerError> {
        self.runs.has_room(pieces.saturating_mul(2))
    }

    /// Takes back all mappings of the pages that are `vm`'s alone, if there were `unmapped` of them.
    fn settle(&mut self, vm: VmId, unmapped: u64) -> Result<(), LedgerError> {
        let mut counted = 0u64;
        for (range, state, mappings) in self.runs.declared() {
            if state.belongs_to(vm) {
                counted = counted.saturating_add(range.pages().saturating_mul(u64::from(mappings)));
            }
        }
        if counted != unmapped {
            return Err(LedgerError::Mismatch { vm, unmapped, counted });
        }
        self.runs.update_all(|Holding { state, mappings }| {
            let mappings = if state.belongs_to(vm) { 0 } else { mappings };
            Holding { state, mappings }
        });
        self.uncount(vm, unmapped);
        Ok(())
    }

    /// Ends a VM's part in the ledger, so that its slot can be used again: takes it out of all shares. What nobody shares any
    /// more is left to be scrubbed.
    ///
    /// # Errors
    /// [`LedgerError::VmStillMaps`] before its tables are torn down; [`LedgerError::VmStillOwns`] before its pages are
    /// reclaimed and its devices returned.
    pub fn retire(&mut self, vm: VmId) -> Result<(), LedgerError> {
        let pages = self.mapped_pages(vm);
        if pages != 0 {
            return Err(LedgerError::VmStillMaps { vm, pages });
        }
        for (range, state, _) in self.runs.declared() {
            if state.belongs_to(vm) {
                return Err(LedgerError::VmStillOwns { vm, pa: range.start(), state });
            }
        }
        self.runs.update_all(|Holding { state, mappings }| Holding { state: state.without(vm), mappings });
        Ok(())
    }

    /// All that `vm` owns as memory or as a device becomes unscrubbed memory or an idle device: the end of a VM in one call.
    ///
    /// # Errors
    /// [`LedgerError::StillMapped`].
    pub fn reclaim_all(&mut self, vm: VmId) -> Result<(), LedgerError> {
        for (range, state, mappings) in self.runs.declared() {
            if state.belongs_to(vm) && mappings != 0 {
                return Err(LedgerError::StillMapped { pa: range.start(), mappings });
            }
        }
        self.runs.update_all(|Holding { state, mappings }| {
            let taken = Transfer::Reclaim(vm).apply(state).or(Transfer::Return(vm).apply(state));
            Holding { state: taken.unwrap_or(state), mappings }
        });
        Ok(())
    }

    fn uncount(&mut self, vm: VmId, pages: u64) {
        if let Some(mapped) = self.mapped_pages.get_mut(usize::from(vm.slot())) {
            *mapped = mapped.saturating_sub(pages);
        }
    }
}

impl State {
    /// Whether `vm` may map a page of this state as `usage`: `None` if not, else whether it may have stores to it.
    fn allows(self, vm: VmId, usage: Use) -> Option<bool> {
        let (granted, may_write) = match (usage, self) {
            (Use::Ram, Self::Owned(owner)) | (Use::Device, Self::DeviceOf(owner)) => (owner == vm, true),
            (Use::Shared, Self::Shared { members, writers }) => (members.contains(vm), writers.contains(vm)),
            (Use::CopyOnWrite, Self::CopyOnWrite { members }) => (members.contains(vm), false),
            (Use::Banked, Self::Banked) => (true, true),
            _ => (false, false),
        };
        granted.then_some(may_write)
    }

    /// Whether only `vm` can map a page of this state.
    fn belongs_to(self, vm: VmId) -> bool {
        matches!(self, Self::Owned(owner) | Self::DeviceOf(owner) if owner == vm)
    }

    /// The state after `vm` is gone. Only for a VM that maps nothing.
    fn without(self, vm: VmId) -> Self {
        match self {
            Self::Shared { members, writers } => {
                let (members, writers) = (members.without(vm), writers.without(vm));
                if members.is_empty() { Self::Unscrubbed } else { Self::Shared { members, writers } }
            }
            Self::CopyOnWrite { members } => {
                let members = members.without(vm);
                if members.is_empty() { Self::Unscrubbed } else { Self::CopyOnWrite { members } }
            }
            other => other,
        }
    }
}
