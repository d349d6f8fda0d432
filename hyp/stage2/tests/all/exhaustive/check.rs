//! What must hold after every step: tables, ledger, TLBs and frames are what the world says.

use stage2::{Format, Permissions, State, VmId};

use super::world::World;
use super::{FORMATS, MEMORY, PAGE, VMS};
use crate::common::model::Target;
use crate::common::walker::{Found, regime};

impl World<'_> {
    /// Everything agrees.
    pub fn check(&self) {
        self.machine.assert_current();
        let mut frames = 0;
        for (vm, tables) in self.tables.iter().enumerate() {
            let Some(tables) = tables else { continue };
            let regime = regime(tables.vtcr(), FORMATS[vm] == Format::ForcedWriteBack);
            let census = regime.census(&self.machine, tables.vttbr());
            let leaves: Vec<Found> = self.models[vm].leaves().into_iter().map(found).collect();
            assert_eq!(census.leaves, leaves);
            assert_eq!(census.tables.len(), 1 + tables_below(&leaves));
            frames += census.tables.len();
            for leaf in census.leaves {
                self.check_reach(VMS[vm], leaf);
            }
        }
        assert_eq!(self.machine.frames_used(), frames, "frames are lost");
        self.check_ledger();
    }

    /// A VM reaches what is its own or shared with it, for what it may do there, and nothing else. As this is asked of
    /// every leaf of every VM, what two of them reach is shared by both.
    fn check_reach(&self, vm: VmId, leaf: Found) {
        for (cell, &state) in self.cells.iter().enumerate() {
            let (start, size) = self.plan.place((cell, 1));
            if leaf.pa < MEMORY + start + size && MEMORY + start < leaf.pa + leaf.size {
                let fine = match state {
                    State::Owned(owner) => owner == vm,
                    State::CopyOnWrite { members } => members.contains(vm) && !leaf.write,
                    State::Shared { members, writers } => {
                        members.contains(vm) && (!leaf.write || writers.contains(vm))
                    }
                    _ => false,
                };
                assert!(fine, "{vm} reaches cell {cell}, {state:?}: {leaf:x?}");
            }
        }
    }

    fn check_ledger(&self) {
        let mut runs: Vec<(u64, u64, State, u32)> = Vec::new();
        for (cell, &state) in self.cells.iter().enumerate() {
            let (offset, size) = self.plan.place((cell, 1));
            let (start, mappings) = (MEMORY + offset, self.mappings(cell));
            match runs.last_mut() {
                Some((_, end, before, count)) if (*before, *count) == (state, mappings) => *end += size,
                _ => runs.push((start, start + size, state, mappings)),
            }
        }
        let ledger: Vec<_> = self
            .ledger
            .runs()
            .map(|(range, state, mappings)| (range.start().as_u64(), range.end().as_u64(), state, mappings))
            .collect();
        assert_eq!(ledger, runs);
        for (vm, model) in VMS.iter().zip(&self.models) {
            let pages: u64 = model.physical().map(|(_, size, _)| size / PAGE).sum();
            assert_eq!(self.ledger.mapped_pages(*vm), pages, "{vm}");
        }
    }
}

fn found((ipa, size, target, contiguous): (u64, u64, Target, bool)) -> Found {
    let Permissions { read, execute, .. } = target.permissions;
    let (write, dbm, accessed) = (target.is_writable(), target.armed, target.accessed);
    Found { ipa, pa: target.pa, size, read, write, execute, device: false, dbm, accessed, contiguous }
}

/// How many tables of levels 2 and 3 these leaves need, in order of addresses.
fn tables_below(leaves: &[Found]) -> usize {
    let mut tables = 0;
    let mut last = (None, None);
    for leaf in leaves {
        let (second, third) = (Some(leaf.ipa >> 30), Some(leaf.ipa >> 21).filter(|_| leaf.size == PAGE));
        tables += usize::from(second != last.0) + usize::from(third.is_some() && third != last.1);
        last = (second, third.or(last.1));
    }
    tables
}
