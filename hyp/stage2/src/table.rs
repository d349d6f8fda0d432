//! A VM's stage-2 tables: the operations, what each refuses, and that a refusal leaves nothing half done.
//!
//! The tables are kept in one form: the largest blocks that the mapping allows, the contiguous hint on every group of 16
//! that allows it, no empty table. So the frames that a VM's tables take follow from what is mapped, and not from how it
//! came about.
//!
//! vCPUs of the VM may run on other CPUs during any operation but teardown. While a block is split or merged its
//! addresses have no translation for a moment; a vCPU that faults there waits for the VM's lock, finds by `translate`
//! that its access is allowed, and retries ([`resolve`](Stage2::resolve)).
//!
//! The operations here take as long as the range is large. `job` has those that can stop and go on; `fault` what a guest's
//! fault may ask for, `log` how stores and accesses are noticed.

use core::ops::ControlFlow;

use crate::addr::{Ipa, PAGE_SIZE, Pa};
use crate::descriptor::{self, Attributes, Descriptor, Format, Leaf, Marks, MemoryType, Permissions};
use crate::edit::{self, Fill, Stale};
use crate::environment::Environment;
use crate::error::{Error, Refused};
use crate::geometry::{Geometry, Level, vttbr};
use crate::grant::{Grant, Use};
use crate::vm::VmId;
use crate::walk::{Node, Slot, Span, find, visit};

/// The stage-2 tables of one VM. Dropped without [`dismantle`](Self::dismantle), its frames are lost.
#[derive(Debug)]
#[must_use = "tables that are dropped without teardown lose their frames"]
pub struct Stage2 {
    vm: VmId,
    geometry: Geometry,
    format: Format,
    root: Pa,
    /// Whether stores are logged: what is mapped or loses its right to be written has to remember that it was written.
    logging: bool,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address of the very byte.
    pub pa: Pa,
    /// What the guest may do there.
    pub permissions: Permissions,
    /// What stage 2 says the memory is.
    pub memory: MemoryType,
}

/// One entry that maps memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address that it translates.
    pub ipa: Ipa,
    /// Where that leads.
    pub pa: Pa,
    /// The level of the entry, whose span is the mapping's size.
    pub level: Level,
    /// What it says beside that.
    pub attributes: Attributes,
    /// What it remembers.
    pub marks: Marks,
}

impl Stage2 {
    /// Empty tables for `vm`, whose VMID is free of old translations when this returns.
    ///
    /// # Errors
    /// [`Error::OutOfFrames`]; [`Error::BadFrame`] where the frames are not as [`Environment::allocate`] promises.
    pub fn new<E: Environment>(
        env: &mut E,
        vm: VmId,
        geometry: Geometry,
        format: Format,
    ) -> Result<Self, Error> {
        let tables = geometry.start_tables();
        let root = env.allocate(tables).ok_or(Error::OutOfFrames { tables })?;
        let size = PAGE_SIZE.wrapping_mul(tables as u64);
        if !root.is_aligned(size) || root.as_u64() >= geometry.pa_end().as_u64() {
            env.free(root, tables);
            return Err(Error::BadFrame { pa: root });
        }
        env.invalidate_vm(vm);
        Ok(Self { vm, geometry, format, root, logging: false })
    }

    /// Whose tables these are.
    pub const fn vm(&self) -> VmId {
        self.vm
    }

    /// Their shape.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// VTCR_EL2 for this VM.
    pub const fn vtcr(&self) -> u64 {
        self.geometry.vtcr().bits()
    }

    /// VTTBR_EL2 for this VM.
    pub const fn vttbr(&self) -> u64 {
        vttbr(self.root, self.vm)
    }

    /// Maps the granted pages from `ipa` on, by the largest blocks that alignment and size allow.
    ///
    /// # Errors
    /// The grant comes back with [`Error::ForeignGrant`], [`Error::Misaligned`], [`Error::IpaOutOfRange`],
    /// [`Error::PaOutOfRange`], [`Error::ExecuteWithoutRead`], [`Error::ExecuteDevice`], [`Error::WriteNotGranted`],
    /// [`Error::AlreadyMapped`] or [`Error::OutOfFrames`].
    pub fn map<E: Environment>(
        &mut self,
        env: &mut E,
        ipa: Ipa,
        grant: Grant,
        permissions: Permissions,
    ) -> Result<(), Refused<Error>> {
        match self.map_granted(env, ipa, &grant, permissions) {
            Ok(()) => Ok(()),
            Err(error) => Err(Refused { error, grant }),
        }
    }

    /// What can be said of a map without a look at the tables: what it is to be, or why it can't.
    pub(crate) fn check_map(&self, ipa: Ipa, grant: &Grant, permissions: Permissions) -> Result<Fill, Error> {
        if grant.vm() != self.vm {
            return Err(Error::ForeignGrant { grant: grant.vm(), tables: self.vm });
        }
        let range = grant.range();
        let span = self.span(ipa, range.size())?;
        if range.end() > self.geometry.pa_end() {
            return Err(Error::PaOutOfRange {
                pa: range.start(),
                size: range.size(),
                bits: self.geometry.pa_bits(),
            });
        }
        let attributes = grant.attributes(permissions);
        allowed(ipa, attributes)?;
        Ok(Fill::new(span, range.start(), attributes, self.format, self.logging))
    }

    fn map_granted<E: Environment>(
        &mut self,
        env: &mut E,
        ipa: Ipa,
        grant: &Grant,
        permissions: Permissions,
    ) -> Result<(), Error> {
        let fill = self.check_map(ipa, grant, permissions)?;
        let span = fill.span;
        if let Some(Mapping { ipa, pa, .. }) = self.first_mapping(env, span) {
            return Err(Error::AlreadyMapped { ipa, pa });
        }
        if let Err(error) = edit::fill(env, self.node(), &fill) {
            edit::clear(env, self.vm, self.node(), span, drop_copy);
            return Err(error);
        }
        env.publish();
        edit::merge(env, self.vm, self.node(), span);
        Ok(())
    }

    /// Takes out the mapping of `size` bytes from `ipa` on, splitting blocks that reach beyond, and hands the grants it
    /// was made of to `taken`, put together where they follow each other. By then no CPU can reach the pages through
    /// this VM any more.
    ///
    /// # Errors
    /// [`Error::Misaligned`], [`Error::IpaOutOfRange`]; [`Error::NotMapped`] where any of the range is not mapped;
    /// [`Error::OutOfFrames`] where a block cannot be split. Then `taken` has not been called.
    pub fn unmap<E, F>(&mut self, env: &mut E, ipa: Ipa, size: u64, taken: F) -> Result<(), Error>
    where
        E: Environment,
        F: FnMut(Grant),
    {
        let span = self.span(ipa, size)?;
        self.for_each_leaf(env, span, |_, _| Ok(()))?;
        self.isolate(env, span)?;
        edit::clear(env, self.vm, self.node(), span, taken);
        Ok(())
    }

    /// Gives other permissions to what is mapped in `size` bytes from `ipa` on, splitting and merging blocks as that needs.
    ///
    /// # Errors
    /// [`Error::Misaligned`], [`Error::IpaOutOfRange`], [`Error::NotMapped`], [`Error::ExecuteWithoutRead`],
    /// [`Error::ExecuteDevice`]; [`Error::WriteNotGranted`] for stores to what was granted for loads;
    /// [`Error::OutOfFrames`] where a block cannot be split.
    pub fn protect<E: Environment>(
        &mut self,
        env: &mut E,
        ipa: Ipa,
        size: u64,
        permissions: Permissions,
    ) -> Result<(), Error> {
        let span = self.span(ipa, size)?;
        let mut changes = false;
        self.for_each_leaf(env, span, |slot, leaf| {
            changes |= leaf.attributes.permissions != permissions;
            allowed(slot.ipa.max(ipa), Attributes { permissions, ..leaf.attributes })
        })?;
        if !changes {
            return Ok(());
        }
        self.isolate(env, span)?;
        let logging = self.logging;
        let with_permissions = |raw| descriptor::with_permissions(raw, permissions, logging);
        self.change(env, span, with_permissions, |_, _| {});
        Ok(())
    }

    /// Where `ipa` leads, or `None` where nothing is mapped.
    pub fn translate<E: Environment>(&self, env: &E, ipa: Ipa) -> Option<Translation> {
        let Mapping { ipa: base, pa, attributes, .. } = self.query(env, ipa)?;
        let offset = ipa.as_u64().wrapping_sub(base.as_u64());
        let memory = attributes.usage.memory_type();
        Some(Translation { pa: pa.checked_add(offset)?, permissions: attributes.permissions, memory })
    }

    /// The entry that maps `ipa`, or `None`.
    pub fn query<E: Environment>(&self, env: &E, ipa: Ipa) -> Option<Mapping> {
        if ipa >= self.geometry.ipa_end() {
            return None;
        }
        let (slot, raw) = find(env, self.node(), ipa.as_u64());
        match Descriptor::decode(raw, slot.level) {
            Descriptor::Leaf(leaf) => Some(Mapping::new(slot, leaf)),
            Descriptor::Invalid | Descriptor::Table(_) => None,
        }
    }

    /// The first entry that maps `from` or anything above it: the way to go through all of a VM's mappings in steps.
    pub fn next_mapping<E: Environment>(&self, env: &E, from: Ipa) -> Option<Mapping> {
        let end = self.geometry.ipa_end();
        let span = Span { from: from.page().as_u64(), to: end.as_u64() };
        if from < end { self.first_mapping(env, span) } else { None }
    }

    /// How many stretches of physical memory an unmap of this range would hand out, counting no more than `limit`.
    pub(crate) fn count_pieces<E: Environment>(
        &self,
        env: &E,
        ipa: Ipa,
        size: u64,
        limit: usize,
    ) -> Result<usize, Error> {
        let span = self.span(ipa, size)?;
        let mut pieces = 0usize;
        let mut next = None;
        self.for_each_leaf(env, span, |slot, leaf| {
            if next != Some(leaf.pa) {
                pieces = pieces.saturating_add(1).min(limit);
            }
            next = leaf.pa.checked_add(slot.level.span());
            Ok(())
        })?;
        Ok(pieces)
    }

    pub(crate) const fn node(&self) -> Node {
        Node::root(self.root, self.geometry)
    }

    pub(crate) const fn root(&self) -> Pa {
        self.root
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    pub(crate) const fn is_logging(&self) -> bool {
        self.logging
    }

    pub(crate) const fn set_logging(&mut self, logging: bool) {
        self.logging = logging;
    }

    /// Changes every leaf that meets `span` by `f` and merges what is alike then: see [`edit::change`].
    pub(crate) fn change<E, F, C>(&mut self, env: &mut E, span: Span, f: F, mut changed: C)
    where
        E: Environment,
        F: Fn(u64) -> u64,
        C: FnMut(Span, u64),
    {
        let mut stale = Stale::NONE;
        edit::change(env, self.vm, self.node(), span, &f, &mut changed, &mut stale);
        stale.invalidate(env, self.vm);
        // Where the entries were in no TLB, nothing has made them visible yet.
        env.publish();
        edit::merge(env, self.vm, self.node(), span);
    }

    /// The range as a span, if it is one that the tables can translate.
    pub(crate) fn span(&self, ipa: Ipa, size: u64) -> Result<Span, Error> {
        if size == 0 || !ipa.is_aligned(PAGE_SIZE) || size & (PAGE_SIZE - 1) != 0 {
            return Err(Error::Misaligned { ipa, size });
        }
        let end = ipa.checked_add(size).filter(|&end| end <= self.geometry.ipa_end());
        let refused = Error::IpaOutOfRange { ipa, size, bits: self.geometry.ipa_bits() };
        Ok(Span { from: ipa.as_u64(), to: end.ok_or(refused)?.as_u64() })
    }

    fn first_mapping<E: Environment>(&self, env: &E, span: Span) -> Option<Mapping> {
        let found = visit(env, self.node(), span, &mut |slot, leaf| match leaf {
            Some(raw) => ControlFlow::Break(Mapping::new(slot, descriptor::decode_leaf(raw, slot.level))),
            None => ControlFlow::Continue(()),
        });
        found.break_value()
    }

    /// Calls `f` for every leaf that meets `span`; a hole is an error.
    pub(crate) fn for_each_leaf<E, F>(&self, env: &E, span: Span, mut f: F) -> Result<(), Error>
    where
        E: Environment,
        F: FnMut(Slot, Leaf) -> Result<(), Error>,
    {
        let seen = visit(env, self.node(), span, &mut |slot, leaf| {
            let hole = Error::NotMapped { ipa: slot.ipa.max(Ipa::new(span.from)) };
            match leaf.ok_or(hole).and_then(|raw| f(slot, descriptor::decode_leaf(raw, slot.level))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            }
        });
        seen.break_value().map_or(Ok(()), Err)
    }

    /// Splits what reaches across either end of `span`; where frames end, all is as it was.
    pub(crate) fn isolate<E: Environment>(&mut self, env: &mut E, span: Span) -> Result<(), Error> {
        let split = edit::split_at(env, self.vm, self.node(), span.from)
            .and_then(|()| edit::split_at(env, self.vm, self.node(), span.to));
        if split.is_err() {
            edit::merge(env, self.vm, self.node(), span);
        }
        split
    }
}

impl Mapping {
    pub(crate) const fn new(slot: Slot, leaf: Leaf) -> Self {
        Self { ipa: slot.ipa, pa: leaf.pa, level: slot.level, attributes: leaf.attributes, marks: leaf.marks }
    }

    /// Bytes that it maps.
    pub const fn size(self) -> u64 {
        self.level.span()
    }
}

/// Whether a grant allows the permissions, and the architecture too. `ipa` is for the error alone.
const fn allowed(ipa: Ipa, attributes: Attributes) -> Result<(), Error> {
    let Attributes { permissions, usage, may_write } = attributes;
    // Of what is copied on write, the copy is written.
    if permissions.write && !may_write && !matches!(usage, Use::CopyOnWrite) {
        return Err(Error::WriteNotGranted { ipa });
    }
    if permissions.execute && matches!(usage, Use::Device | Use::Banked) {
        return Err(Error::ExecuteDevice { ipa });
    }
    if permissions.execute && !permissions.read {
        return Err(Error::ExecuteWithoutRead { ipa });
    }
    Ok(())
}

/// For the leaves of a map that is undone: the grant that they were made of is still in the caller's hand, so what the
/// clearing hands out says the same a second time and counts for nothing.
fn drop_copy(_: Grant) {}
