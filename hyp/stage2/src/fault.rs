//! What a stage-2 fault may ask for besides an answer to the guest: that a store be logged, a page be copied, an access be
//! noticed. And EL2's own way into a guest's memory, which asks for the same.

use crate::addr::{Ipa, PAGE_SIZE, Pa};
use crate::copy::CopyReserve;
use crate::descriptor::{self, Descriptor, Leaf, Marks};
use crate::edit;
use crate::environment::Environment;
use crate::error::Error;
use crate::grant::{Grant, Use};
use crate::table::{Mapping, Stage2};
use crate::walk::{Slot, Span, find};

/// What somebody wants to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A load.
    Read,
    /// A store, or anything that may store.
    Write,
    /// An instruction fetch.
    Execute,
}

impl Access {
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
        }
    }
}

impl Stage2 {
    /// Sees to a guest's access that faulted: where it is one that the guest may make, it is made possible, and the entry
    /// that serves it now comes back. The vCPU then tries again. Also where nothing stood in the way: another CPU was changing
    /// the entry, or has seen to it already.
    ///
    /// Takes one to three frames at the most to split what is larger than a page; where they are wanted for the log only and
    /// there are none, the whole block counts as written.
    ///
    /// # Errors
    /// [`Error::NotMapped`] and [`Error::NotPermitted`] are the guest's own fault, and the caller's to answer as the
    /// architecture has it. [`Error::OutOfCopies`] and [`Error::OutOfFrames`]: the page can't be copied now.
    pub fn resolve<E, S>(
        &mut self,
        env: &mut E,
        copies: &mut CopyReserve<S>,
        ipa: Ipa,
        access: Access,
    ) -> Result<Mapping, Error>
    where
        E: Environment,
        S: AsMut<[Option<Grant>]>,
    {
        let (slot, leaf) = self.leaf_at(env, ipa)?;
        let permissions = leaf.attributes.permissions;
        let allowed = match access {
            Access::Read => permissions.read,
            Access::Write => permissions.write,
            Access::Execute => permissions.execute,
        };
        if !allowed {
            return Err(Error::NotPermitted { ipa, access });
        }
        if !leaf.marks.accessed {
            self.change(env, slot_span(slot), descriptor::accessed, |_, _| {});
        }
        if access == Access::Write {
            self.store(env, copies, ipa)?;
        }
        self.leaf_at(env, ipa).map(|(slot, leaf)| Mapping::new(slot, leaf))
    }

    /// The physical address of `ipa` and how many bytes lie together from there on, at most `wanted`, for EL2 to read or write
    /// them by copying. What is written is no guest's but this one's from then on, and is told by the log. What the guest may
    /// do counts for nothing here: EL2 loads read-only memory too; what the ledger granted does.
    ///
    /// The answer holds while the caller keeps these tables locked.
    ///
    /// # Errors
    /// [`Error::NotMapped`]; [`Error::NotMemory`] for devices; [`Error::WriteNotGranted`] for stores to shared memory that the
    /// VM only reads; [`Error::OutOfCopies`], [`Error::OutOfFrames`] as for [`resolve`](Self::resolve).
    pub fn memory<E, S>(
        &mut self,
        env: &mut E,
        copies: &mut CopyReserve<S>,
        ipa: Ipa,
        wanted: u64,
        access: Access,
    ) -> Result<(Pa, u64), Error>
    where
        E: Environment,
        S: AsMut<[Option<Grant>]>,
    {
        let (_, leaf) = self.leaf_at(env, ipa)?;
        let write = access == Access::Write;
        match leaf.attributes.usage {
            Use::Device | Use::Banked => return Err(Error::NotMemory { ipa }),
            Use::Shared if write && !leaf.attributes.may_write => return Err(Error::WriteNotGranted { ipa }),
            Use::Ram | Use::Shared | Use::CopyOnWrite => {}
        }
        if write {
            self.store(env, copies, ipa)?;
        }
        let (slot, leaf) = self.leaf_at(env, ipa)?;
        let offset = ipa.as_u64().wrapping_sub(slot.ipa.as_u64());
        let left = slot.level.span().saturating_sub(offset);
        Ok((Pa::new(leaf.pa.as_u64().wrapping_add(offset)), wanted.min(left)))
    }

    fn leaf_at<E: Environment>(&self, env: &E, ipa: Ipa) -> Result<(Slot, Leaf), Error> {
        let nothing = Error::NotMapped { ipa };
        if ipa >= self.geometry().ipa_end() {
            return Err(nothing);
        }
        let (slot, raw) = find(env, self.node(), ipa.as_u64());
        match Descriptor::decode(raw, slot.level) {
            Descriptor::Leaf(leaf) => Ok((slot, leaf)),
            Descriptor::Invalid | Descriptor::Table(_) => Err(nothing),
        }
    }

    /// Makes ready for a store to `ipa`: a copy if the page is several VMs', a note if stores are logged.
    fn store<E, S>(&mut self, env: &mut E, copies: &mut CopyReserve<S>, ipa: Ipa) -> Result<(), Error>
    where
        E: Environment,
        S: AsMut<[Option<Grant>]>,
    {
        let (slot, leaf) = self.leaf_at(env, ipa)?;
        if leaf.attributes.usage == Use::CopyOnWrite {
            return self.copy_page(env, copies, ipa);
        }
        let logging = self.is_logging();
        let stored = |raw| descriptor::stored(raw, logging);
        if stored(slot.read(env)) == slot.read(env) {
            return Ok(());
        }
        let page = page_span(ipa);
        let span = match self.isolate(env, page) {
            Ok(()) => page,
            // Without a frame the block stays whole, and all of it counts.
            Err(_) => slot_span(slot),
        };
        self.change(env, span, stored, |_, _| {});
        Ok(())
    }

    /// Puts a copy in the place of the page at `ipa`. Nobody can write to the page while it is copied: it is several VMs', so
    /// none has the right to, and the caller holds the lock of this one.
    fn copy_page<E, S>(&mut self, env: &mut E, copies: &mut CopyReserve<S>, ipa: Ipa) -> Result<(), Error>
    where
        E: Environment,
        S: AsMut<[Option<Grant>]>,
    {
        let out = Error::OutOfCopies { ipa };
        if copies.vm() != self.vm() {
            return Err(Error::ForeignGrant { grant: copies.vm(), tables: self.vm() });
        }
        if copies.left() == 0 {
            return Err(out);
        }
        let page = page_span(ipa);
        self.isolate(env, page)?;
        let (slot, old) = self.leaf_at(env, ipa)?;
        let copy = copies.exchange(old.pa).ok_or(out)?;
        env.copy(old.pa, copy);
        let permissions = old.attributes.permissions;
        let attributes = descriptor::Attributes { permissions, usage: Use::Ram, may_write: true };
        let new = Leaf { pa: copy, attributes, marks: Marks::NEW }.encode(self.format(), slot.level);
        let new = descriptor::stored(new, self.is_logging());
        edit::replace(env, self.vm(), slot, new, PAGE_SIZE, false);
        edit::merge(env, self.vm(), self.node(), page);
        Ok(())
    }
}

const fn page_span(ipa: Ipa) -> Span {
    let from = ipa.page().as_u64();
    Span { from, to: from.saturating_add(PAGE_SIZE) }
}

const fn slot_span(slot: Slot) -> Span {
    Span { from: slot.ipa.as_u64(), to: slot.end() }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn refusals_say_what_was_wanted() {
        for (access, verb) in [(Access::Read, "read"), (Access::Write, "write"), (Access::Execute, "execute")]
        {
            let refused = Error::NotPermitted { ipa: Ipa::new(0x1000), access };
            assert_eq!(refused.to_string(), std::format!("IPA 0x1000: the VM may not {verb}"));
        }
    }
}
