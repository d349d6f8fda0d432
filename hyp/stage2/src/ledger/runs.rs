//! The sorted list of runs, in storage of fixed size. Knows nothing of what states mean.
//!
//! The list always covers 0 to 2^48; a run ends where the next one starts; neighbours always differ.

use crate::addr::{ADDRESS_BITS, Pa, PaRange};
use crate::error::LedgerError;

use super::State;

const END: u64 = 1 << ADDRESS_BITS;

/// What each page of a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Holding {
    pub(super) state: State,
    /// How many stage-2 entries, of all VMs, map the page.
    pub(super) mappings: u32,
}

/// An entry of the ledger's storage. Its content is the ledger's own business; `Run::default()` fills new storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Run {
    start: u64,
    holding: Holding,
}

#[derive(Debug)]
pub(super) struct Runs<S> {
    storage: S,
    len: usize,
}

impl<S: AsRef<[Run]> + AsMut<[Run]>> Runs<S> {
    pub(super) fn new(mut storage: S) -> Result<Self, LedgerError> {
        let first = storage.as_mut().first_mut().ok_or(LedgerError::Full { capacity: 0 })?;
        *first = Run::default();
        Ok(Self { storage, len: 1 })
    }

    pub(super) fn capacity(&self) -> usize {
        self.storage.as_ref().len()
    }

    /// Whether `more` runs fit.
    pub(super) fn has_room(&self, more: usize) -> Result<(), LedgerError> {
        let capacity = self.capacity();
        if self.len.saturating_add(more) > capacity { Err(LedgerError::Full { capacity }) } else { Ok(()) }
    }

    fn list(&self) -> &[Run] {
        self.storage.as_ref().get(..self.len).unwrap_or_default()
    }

    fn list_mut(&mut self) -> &mut [Run] {
        self.storage.as_mut().get_mut(..self.len).unwrap_or_default()
    }

    /// The index of the run that holds `address`. The first run starts at 0, so there is one.
    fn index_of(&self, address: u64) -> usize {
        self.list().partition_point(|run| run.start <= address).saturating_sub(1)
    }

    fn starts_at(&self, address: u64) -> bool {
        address >= END || self.list().get(self.index_of(address)).is_some_and(|run| run.start == address)
    }

    pub(super) fn holding(&self, pa: Pa) -> Holding {
        let run = self.list().get(self.index_of(pa.as_u64()));
        run.filter(|_| pa.as_u64() < END).map_or_else(Holding::default, |run| run.holding)
    }

    /// The runs that meet `range`, each with its first address in it.
    pub(super) fn within(&self, range: PaRange) -> impl Iterator<Item = (Pa, Holding)> {
        let (start, end) = (range.start(), range.end().as_u64());
        let runs = self.list().get(self.index_of(start.as_u64())..).unwrap_or_default();
        runs.iter()
            .take_while(move |run| run.start < end)
            .map(move |run| (Pa::new(run.start).max(start), run.holding))
    }

    /// All runs that are not reserved.
    pub(super) fn declared(&self) -> impl Iterator<Item = (PaRange, State, u32)> {
        let ends = self.list().iter().skip(1).map(|run| run.start).chain([END]);
        let all = self.list().iter().zip(ends).map(|(run, end)| {
            (PaRange::from_bounds(run.start, end), run.holding.state, run.holding.mappings)
        });
        all.filter(|&(_, state, _)| state != State::Reserved)
    }

    /// Changes what the pages of `range` are, all or none of them.
    pub(super) fn update<F>(&mut self, range: PaRange, change: F) -> Result<(), LedgerError>
    where
        F: Fn(Pa, Holding) -> Result<Holding, LedgerError>,
    {
        for (pa, holding) in self.within(range) {
            change(pa, holding)?;
        }
        let (start, end) = (range.start().as_u64(), range.end().as_u64());
        let new_runs = usize::from(!self.starts_at(start)).saturating_add(usize::from(!self.starts_at(end)));
        self.has_room(new_runs)?;
        self.split(start);
        self.split(end);
        let (first, last) = (self.index_of(start), self.index_of(end.saturating_sub(1)));
        for run in self.list_mut().get_mut(first..=last).unwrap_or_default() {
            // The same question as above, of the same holding: it was allowed then, so it is now.
            run.holding = change(Pa::new(run.start), run.holding)?;
        }
        self.join(first.saturating_sub(1), last.saturating_add(1));
        Ok(())
    }

    /// Changes what all pages are, by what they are. Never needs room.
    pub(super) fn update_all<F: Fn(Holding) -> Holding>(&mut self, change: F) {
        for run in self.list_mut() {
            run.holding = change(run.holding);
        }
        self.join(0, self.len.saturating_sub(1));
    }

    /// Makes a run start at `address`. The caller has seen to the room.
    fn split(&mut self, address: u64) {
        if self.starts_at(address) {
            return;
        }
        let before = self.index_of(address);
        let at = before.saturating_add(1);
        let Some(&Run { holding, .. }) = self.list().get(before) else { return };
        let Some(tail) = self.storage.as_mut().get_mut(at..=self.len).filter(|tail| !tail.is_empty()) else {
            return;
        };
        tail.rotate_right(1);
        if let Some(run) = tail.first_mut() {
            *run = Run { start: address, holding };
            self.len = self.len.saturating_add(1);
        }
    }

    /// Joins equal neighbours from run `first` to run `last`.
    fn join(&mut self, first: usize, last: usize) {
        let last = last.min(self.len.saturating_sub(1));
        let mut kept = first;
        for index in first.saturating_add(1)..=last {
            let (Some(&left), Some(&right)) = (self.list().get(kept), self.list().get(index)) else { return };
            if left.holding == right.holding {
                continue;
            }
            kept = kept.saturating_add(1);
            if let Some(place) = self.list_mut().get_mut(kept) {
                *place = right;
            }
        }
        // Runs first..=kept are as they shall be; what follows `last` moves up to them.
        let removed = last.saturating_sub(kept);
        let kept_end = kept.saturating_add(1);
        if let Some(tail) = self.list_mut().get_mut(kept_end..)
            && removed <= tail.len()
        {
            tail.rotate_left(removed);
            self.len = self.len.saturating_sub(removed);
        }
    }
}
