//! What a VM writes and uses: the log of stores, and the access flag.
//!
//! The log has no memory of its own: the tables are the log. While it runs, a leaf that says writable has been written since
//! the log was last collected; to collect is to tell of these and to make their next store fault. That store faults once and
//! is then let through, at the grain of a page ([`Stage2::resolve`]). What is written and then made read-only, or mapped
//! anew, keeps a mark of it. What EL2 writes counts like the guest's own stores ([`Stage2::memory`]).
//!
//! The access flag works alike, at the grain of whatever leaf there is: blocks are not split for it.
//!
//! Devices are left out of both: what is written to them is no content to be kept.

use crate::addr::Ipa;
use crate::descriptor::{accessed, aged, is_written, logged, unlogged};
use crate::environment::Environment;
use crate::error::Error;
use crate::job::{Cursor, Progress};
use crate::table::Stage2;
use crate::walk::Span;

impl Stage2 {
    /// Begins to log stores. All that is writable counts as written until it is first collected: the cursor is for that,
    /// with [`collect_log`](Self::collect_log).
    pub const fn start_log(&mut self) -> Cursor {
        self.set_logging(true);
        self.everything()
    }

    /// The next step of collecting, over about `entries` leaves: tells `found` of each address and length that was
    /// written since it was last collected, and makes the next store there fault. Content that is read after this step, and not
    /// earlier, is what the log's next round begins with.
    ///
    /// # Errors
    /// [`Error::NotLogging`]; [`Error::Misaligned`] and [`Error::IpaOutOfRange`] for a cursor that is not of this VM's space.
    pub fn collect_log<E: Environment>(
        &mut self,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
        found: impl FnMut(Ipa, u64),
    ) -> Result<Progress, Error> {
        if !self.is_logging() {
            return Err(Error::NotLogging);
        }
        self.change_some(env, cursor, entries, logged, telling(is_written, found))
    }

    /// Ends the log. Until [`clear_log`](Self::clear_log) has gone over the cursor, some stores still fault once.
    pub const fn stop_log(&mut self) -> Cursor {
        self.set_logging(false);
        self.everything()
    }

    /// The next step of letting all stores through again that are allowed, over about `entries` leaves.
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::IpaOutOfRange`] for a cursor that is not of this VM's space.
    pub fn clear_log<E: Environment>(
        &mut self,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
    ) -> Result<Progress, Error> {
        self.change_some(env, cursor, entries, unlogged, |_, _| {})
    }

    /// The next step, over about `entries` leaves, of telling `found` what was used since its access flag was last cleared,
    /// and of clearing it.
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::IpaOutOfRange`] for a cursor that is not of this VM's space.
    pub fn collect_accessed<E: Environment>(
        &mut self,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
        found: impl FnMut(Ipa, u64),
    ) -> Result<Progress, Error> {
        self.change_some(env, cursor, entries, aged, telling(|_| true, found))
    }

    /// The next step, over about `entries` leaves, of setting all access flags: the end of looking for accesses.
    ///
    /// # Errors
    /// [`Error::Misaligned`] and [`Error::IpaOutOfRange`] for a cursor that is not of this VM's space.
    pub fn clear_accessed<E: Environment>(
        &mut self,
        env: &mut E,
        cursor: &mut Cursor,
        entries: usize,
    ) -> Result<Progress, Error> {
        self.change_some(env, cursor, entries, accessed, |_, _| {})
    }
}

/// Tells `found` the address and length of each changed entry that was so before.
fn telling(was_so: impl Fn(u64) -> bool, mut found: impl FnMut(Ipa, u64)) -> impl FnMut(Span, u64) {
    move |Span { from, to }, was| {
        if was_so(was) {
            found(Ipa::new(from), to.wrapping_sub(from));
        }
    }
}
