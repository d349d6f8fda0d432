//! What an operation ought to come to, by the test's own rules.

use stage2::{State, Transfer, Use, VmId, VmSet};

use super::plan::Operation;
use super::world::World;
use super::{BOTH, COPIED, MEMORY, VMS, WRITERS};
use crate::common::model::{Model, Target};

impl World<'_> {
    fn states(&self, (first, count): (usize, usize)) -> &[State] {
        &self.cells[first..first + count]
    }

    /// What the operation ought to come to: the new cells and models, or a refusal. The refusals of frames and of room in
    /// the ledger come on top.
    pub fn expected(&self, operation: Operation) -> Option<(Vec<State>, [Model; 2])> {
        let (mut cells, mut models) = (self.cells.clone(), self.models.clone());
        match operation {
            Operation::Transfer { cells: (first, count), transfer } => {
                for (cell, state) in cells.iter_mut().enumerate().skip(first).take(count) {
                    *state = after(transfer, *state).filter(|_| self.mappings(cell) == 0)?;
                }
            }
            Operation::Scrub { cells: (first, count) } => {
                for state in cells.iter_mut().skip(first).take(count) {
                    *state = Some(State::Free).filter(|_| *state == State::Unscrubbed)?;
                }
            }
            Operation::Freeze { vm, part } => {
                let (ipa, size) = self.mapped(vm, part)?;
                self.convert(&mut cells, &models[vm], (ipa, size), State::Owned(VMS[vm]), COPIED)?;
                models[vm].update(ipa, size, |target| target.freeze(false));
            }
            Operation::Thaw { vm, part } => {
                let (ipa, size) = self.mapped(vm, part)?;
                let alone = State::CopyOnWrite { members: VmSet::only(VMS[vm]) };
                self.convert(&mut cells, &models[vm], (ipa, size), alone, State::Owned(VMS[vm]))?;
                models[vm].update(ipa, size, Target::thaw);
            }
            Operation::Map { vm, map: (ipa, pa, count), usage, permissions } => {
                self.tables[vm].as_ref()?;
                let may_write = self
                    .states((pa, count))
                    .iter()
                    .try_fold(true, |may_write, &state| Some(may_write & allows(state, VMS[vm], usage)?))?;
                let (ipa, size) = self.plan.place((ipa, count));
                let pa = MEMORY + self.plan.place((pa, count)).0;
                let refused = permissions.write && !may_write && usage != Use::CopyOnWrite;
                if refused || models[vm].first_mapped(ipa, size).is_some() {
                    return None;
                }
                models[vm].insert(ipa, size, Target::new(pa, permissions, usage, may_write, false));
            }
            Operation::Unmap { vm, part } => {
                let (ipa, size) = self.mapped(vm, part)?;
                models[vm].remove(ipa, size);
            }
            Operation::Protect { vm, part, permissions } => {
                let (ipa, size) = self.mapped(vm, part)?;
                let targets = self.models[vm].clone().remove(ipa, size);
                let refuses = |target: &Target| !target.may_write && target.usage != Use::CopyOnWrite;
                if permissions.write && targets.iter().any(|(.., target)| refuses(target)) {
                    return None;
                }
                models[vm].update(ipa, size, |target| target.protect(permissions, false));
            }
            Operation::Teardown { vm } => {
                self.tables[vm].as_ref()?;
                models[vm] = Model::default();
            }
            Operation::Build { vm } => {
                if self.tables[vm].is_some() {
                    return None;
                }
            }
            Operation::ReclaimAll { vm } => {
                for (cell, state) in cells.iter_mut().enumerate() {
                    if *state == State::Owned(VMS[vm]) {
                        if self.mappings(cell) != 0 {
                            return None;
                        }
                        *state = State::Unscrubbed;
                    }
                }
            }
            Operation::Retire { vm } => {
                let owns = cells.contains(&State::Owned(VMS[vm]));
                if owns || self.models[vm].physical().next().is_some() {
                    return None;
                }
                for state in &mut cells {
                    *state = without(*state, VMS[vm]);
                }
            }
        }
        Some((cells, models))
    }

    /// Every cell that lies behind a range goes from one state to another, if each is in that state and mapped once.
    fn convert(
        &self,
        cells: &mut [State],
        model: &Model,
        (ipa, size): (u64, u64),
        from: State,
        to: State,
    ) -> Option<()> {
        for (_, size, target) in model.clone().remove(ipa, size) {
            for (cell, state) in cells.iter_mut().enumerate() {
                let (offset, length) = self.plan.place((cell, 1));
                let start = MEMORY + offset;
                if target.pa < start + length && start < target.pa + size {
                    *state = Some(to).filter(|_| *state == from && self.mappings(cell) == 1)?;
                }
            }
        }
        Some(())
    }

    fn mapped(&self, vm: usize, part: (usize, usize)) -> Option<(u64, u64)> {
        self.tables[vm].as_ref()?;
        let (ipa, size) = self.plan.place(part);
        self.models[vm].first_hole(ipa, size).is_none().then_some((ipa, size))
    }
}

/// Who may hand what to whom, as far as it is tried here.
fn after(transfer: Transfer, state: State) -> Option<State> {
    let shared = State::Shared { members: BOTH, writers: WRITERS };
    let is_member = |vm| matches!(state, State::Shared { members, .. } if members.contains(vm));
    let (allowed, next) = match transfer {
        Transfer::Donate(vm) => (state == State::Free, State::Owned(vm)),
        Transfer::Reclaim(vm) => (state == State::Owned(vm), State::Unscrubbed),
        Transfer::Open { .. } => (state == State::Free, shared),
        Transfer::Share { owner, .. } => (state == State::Owned(owner), shared),
        Transfer::Unshare(vm) => (is_member(vm), State::Owned(vm)),
        Transfer::Close => {
            (matches!(state, State::Shared { .. } | State::CopyOnWrite { .. }), State::Unscrubbed)
        }
        Transfer::Thaw(vm) => (state == State::CopyOnWrite { members: VmSet::only(vm) }, State::Owned(vm)),
        other => panic!("{other:?} is not tried"),
    };
    allowed.then_some(next)
}

/// Whether a VM may map a cell so, and if it may, whether with stores.
fn allows(state: State, vm: VmId, usage: Use) -> Option<bool> {
    match (usage, state) {
        (Use::Ram, State::Owned(owner)) if owner == vm => Some(true),
        (Use::Shared, State::Shared { members, writers }) if members.contains(vm) => {
            Some(writers.contains(vm))
        }
        (Use::CopyOnWrite, State::CopyOnWrite { members }) if members.contains(vm) => Some(false),
        _ => None,
    }
}

fn without(state: State, vm: VmId) -> State {
    match state {
        State::Shared { members, .. } | State::CopyOnWrite { members } if members.without(vm).is_empty() => {
            State::Unscrubbed
        }
        State::CopyOnWrite { members } => State::CopyOnWrite { members: members.without(vm) },
        State::Shared { members, writers } => {
            State::Shared { members: members.without(vm), writers: writers.without(vm) }
        }
        other => other,
    }
}
