//! Frames that a VM keeps ready for copies of what it shares on write, so that a fault takes none from anybody else.
//!
//! A place holds the right to a fresh page, or the right to a page that was copied and is no longer mapped: each copy
//! exchanges the one for the other, so there is always room. To fetch fresh ones from the ledger, and to give it back the
//! others, is work for a time between exits.

use crate::addr::{PAGE_SIZE, Pa, PaRange};
use crate::grant::{Grant, Use};
use crate::vm::VmId;

/// A VM's pages for copies.
#[derive(Debug)]
pub struct CopyReserve<S> {
    vm: VmId,
    places: S,
    /// How many places, from the first on, hold fresh pages; those behind hold used ones or nothing.
    fresh: usize,
}

impl CopyReserve<[Option<Grant>; 0]> {
    /// For a VM that shares nothing on write.
    pub const fn none(vm: VmId) -> Self {
        Self::new(vm, [])
    }
}

impl<S> CopyReserve<S> {
    /// An empty reserve of as many places as `places` has. Grants that are in them count as used.
    pub const fn new(vm: VmId, places: S) -> Self {
        Self { vm, places, fresh: 0 }
    }

    /// Whose it is.
    pub const fn vm(&self) -> VmId {
        self.vm
    }

    /// Fresh pages that are left.
    pub const fn left(&self) -> usize {
        self.fresh
    }
}

impl<S: AsMut<[Option<Grant>]>> CopyReserve<S> {
    /// Adds a fresh page: the VM's right to one page of its own memory.
    ///
    /// # Errors
    /// The grant comes back where it is something else, or no place is empty.
    pub fn add(&mut self, grant: Grant) -> Result<(), Grant> {
        let fits = grant.vm() == self.vm && grant.usage() == Use::Ram && grant.range().size() == PAGE_SIZE;
        let places = self.places.as_mut();
        let Some(empty) = places.iter().position(Option::is_none).filter(|_| fits) else { return Err(grant) };
        let Some(place) = places.get_mut(empty) else { return Err(grant) };
        *place = Some(grant);
        places.swap(empty, self.fresh);
        self.fresh = self.fresh.saturating_add(1);
        Ok(())
    }

    /// Takes out the right to a page that was copied, for [`Ledger::release`](crate::Ledger::release).
    pub fn take_used(&mut self) -> Option<Grant> {
        self.places.as_mut().get_mut(self.fresh..)?.iter_mut().find_map(Option::take)
    }

    /// Takes out a fresh page: the end of the reserve.
    pub fn take_fresh(&mut self) -> Option<Grant> {
        let last = self.fresh.checked_sub(1)?;
        let grant = self.places.as_mut().get_mut(last)?.take();
        self.fresh = last;
        grant
    }

    /// The page that takes the place of `old`, the right to which is left here.
    pub(crate) fn exchange(&mut self, old: Pa) -> Option<Pa> {
        let last = self.fresh.checked_sub(1)?;
        let place = self.places.as_mut().get_mut(last)?;
        let start = old.as_u64();
        let used = PaRange::from_bounds(start, start.wrapping_add(PAGE_SIZE));
        let copy = place.replace(Grant::new(self.vm, used, Use::CopyOnWrite, false))?;
        self.fresh = last;
        Some(copy.range().start())
    }
}
