//! Scrubbing: the only way in which memory that somebody had becomes free for somebody else.
//!
//! The order is one of types: [`Ledger::begin_scrub`] takes the pages out of everybody's reach and gives a [`Scrub`], its
//! steps name each piece once to whoever zeroes it, and [`Ledger::finish_scrub`] takes only a scrub that has come to its end.

use crate::addr::PaRange;
use crate::error::LedgerError;
use crate::job::Progress;

use super::runs::Holding;
use super::{Ledger, Run, State};

/// Pages that are being scrubbed. Dropped before the end, they are lost: a leak, but no breach.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "pages whose scrub is dropped are lost"]
pub struct Scrub {
    range: PaRange,
    /// The first address that still holds somebody's data.
    next: u64,
}

impl Scrub {
    /// Which pages.
    pub const fn range(&self) -> PaRange {
        self.range
    }

    /// Lets `zero` fill the next part with zeros: `pages` pages (at least 1), or as many as there are left.
    #[inline(never)] // benchmarks tell it apart by its name
    pub fn step(&mut self, pages: u64, zero: impl FnOnce(PaRange)) -> Progress {
        let end = self.range.end().as_u64();
        if self.next < end {
            let bytes = pages.min(self.range.pages()).max(1).saturating_mul(crate::addr::PAGE_SIZE);
            let to = self.next.saturating_add(bytes).min(end);
            zero(PaRange::from_bounds(self.next, to));
            self.next = to;
        }
        if self.next < end { Progress::More } else { Progress::Done }
    }
}

impl<S: AsRef<[Run]> + AsMut<[Run]>> Ledger<S> {
    /// Begins to scrub memory that nobody has.
    ///
    /// # Errors
    /// [`LedgerError::NotUnscrubbed`], [`LedgerError::Full`].
    pub fn begin_scrub(&mut self, range: PaRange) -> Result<Scrub, LedgerError> {
        self.runs.update(range, |pa, Holding { state, mappings }| match state {
            State::Unscrubbed => Ok(Holding { state: State::Scrubbing, mappings }),
            _ => Err(LedgerError::NotUnscrubbed { pa, state }),
        })?;
        Ok(Scrub { range, next: range.start().as_u64() })
    }

    /// Makes memory free that has been scrubbed.
    ///
    /// # Errors
    /// The scrub comes back with [`LedgerError::ScrubNotDone`] before its last step, or with [`LedgerError::Full`] where
    /// pages beside it are being scrubbed too and the list has no room to tell them apart.
    pub fn finish_scrub(&mut self, scrub: Scrub) -> Result<(), (LedgerError, Scrub)> {
        if scrub.next < scrub.range.end().as_u64() {
            let pa = crate::addr::Pa::new(scrub.next);
            return Err((LedgerError::ScrubNotDone { pa }, scrub));
        }
        let freed = self.runs.update(scrub.range, |pa, Holding { state, mappings }| match state {
            State::Scrubbing => Ok(Holding { state: State::Free, mappings }),
            _ => Err(LedgerError::NotUnscrubbed { pa, state }),
        });
        freed.map_err(|error| (error, scrub))
    }
}
