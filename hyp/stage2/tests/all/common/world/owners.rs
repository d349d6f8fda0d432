//! Who has which physical page.

use stage2::{State, Use, VmId};

/// Who has which physical page, kept by the test: intervals (start, end, state) that touch.
pub struct Owners(pub(super) Vec<(u64, u64, State)>);

impl Owners {
    pub fn at(&self, pa: u64) -> State {
        let found = self.0.iter().find(|&&(start, end, _)| start <= pa && pa < end);
        found.map_or(State::Reserved, |&(_, _, state)| state)
    }

    pub fn overlapping(&self, start: u64, size: u64) -> Vec<State> {
        let mut at = start;
        let mut states = Vec::new();
        while at < start + size {
            states.push(self.at(at));
            let next =
                self.0.iter().flat_map(|&(start, end, _)| [start, end]).filter(|&edge| edge > at).min();
            at = next.unwrap_or(u64::MAX);
        }
        states
    }

    pub fn set(&mut self, start: u64, size: u64, state: State) {
        let end = start + size;
        let mut next = vec![(start, end, state)];
        for &(from, to, old) in &self.0 {
            next.extend((from < start).then_some((from, to.min(start), old)));
            next.extend((to > end).then_some((from.max(end), to, old)));
        }
        self.0 = next;
    }

    /// Whether a VM may have this mapping.
    pub fn allow(&self, vm: VmId, pa: u64, size: u64, usage: Use, write: bool) -> bool {
        self.overlapping(pa, size).into_iter().all(|state| match (usage, state) {
            (Use::Ram, State::Owned(owner)) | (Use::Device, State::DeviceOf(owner)) => owner == vm,
            (Use::Shared, State::Shared { members, writers }) => {
                members.contains(vm) && (!write || writers.contains(vm))
            }
            (Use::CopyOnWrite, State::CopyOnWrite { members }) => members.contains(vm) && !write,
            (Use::Banked, State::Banked) => true,
            _ => false,
        })
    }
}
