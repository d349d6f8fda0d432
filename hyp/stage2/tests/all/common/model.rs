//! What a VM's mapping ought to be: intervals of addresses, each leading to an interval of physical memory. No tables.

use std::collections::BTreeMap;

use stage2::{Permissions, Use};

/// Where an interval leads, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub pa: u64,
    pub permissions: Permissions,
    pub usage: Use,
    pub may_write: bool,
    /// The first store faults.
    pub armed: bool,
    /// Written, and not writable now, since the log was last collected.
    pub noted: bool,
    /// The access flag.
    pub accessed: bool,
}

impl Target {
    /// What a map makes.
    pub fn new(pa: u64, permissions: Permissions, usage: Use, may_write: bool, logging: bool) -> Self {
        let armed = usage == Use::CopyOnWrite && permissions.write;
        let target = Self { pa, permissions, usage, may_write, armed, noted: false, accessed: true };
        Self { noted: logging && target.is_memory() && !target.is_writable(), ..target }
    }

    pub fn is_memory(&self) -> bool {
        !matches!(self.usage, Use::Device | Use::Banked)
    }

    /// S2AP[1].
    pub fn is_writable(&self) -> bool {
        self.permissions.write && !self.armed
    }

    /// Whether the log has to tell of it.
    pub fn is_told(&self) -> bool {
        self.is_memory() && (self.is_writable() || self.noted)
    }

    pub fn protect(&mut self, permissions: Permissions, logging: bool) {
        let was_writable = self.is_writable();
        self.armed = permissions.write && (self.armed || self.usage == Use::CopyOnWrite);
        self.permissions = permissions;
        self.noted = !self.is_writable() && (self.noted || (logging && was_writable && !permissions.write));
    }

    pub fn log(&mut self) {
        if self.is_memory() {
            self.armed |= self.permissions.write;
            self.noted = false;
        }
    }

    pub fn unlog(&mut self) {
        self.armed &= self.usage == Use::CopyOnWrite;
        self.noted = false;
    }

    /// A store is about to happen to memory that is the VM's.
    pub fn store(&mut self, logging: bool) {
        self.armed = false;
        self.noted = !self.is_writable() && (self.noted || logging);
    }

    pub fn freeze(&mut self, logging: bool) {
        self.noted |= logging && self.is_writable();
        self.armed = self.permissions.write;
        self.usage = Use::CopyOnWrite;
        self.may_write = false;
    }

    pub fn thaw(&mut self) {
        self.usage = Use::Ram;
        self.may_write = true;
        self.unlog();
    }

    fn offset(self, bytes: u64) -> Self {
        Self { pa: self.pa + bytes, ..self }
    }
}

/// Disjoint intervals by their first address: (length in bytes, target of the first byte).
#[derive(Clone, Debug, Default)]
pub struct Model {
    intervals: BTreeMap<u64, (u64, Target)>,
}

impl Model {
    /// Where one address leads.
    pub fn lookup(&self, ipa: u64) -> Option<Target> {
        let (&start, &(size, target)) = self.intervals.range(..=ipa).next_back()?;
        (ipa < start + size).then(|| target.offset(ipa - start))
    }

    /// The first mapped address in the range.
    pub fn first_mapped(&self, ipa: u64, size: u64) -> Option<u64> {
        if self.lookup(ipa).is_some() {
            return Some(ipa);
        }
        self.intervals.range(ipa..ipa + size).next().map(|(&start, _)| start)
    }

    /// The first address in the range that is not mapped.
    pub fn first_hole(&self, ipa: u64, size: u64) -> Option<u64> {
        let mut at = ipa;
        while at < ipa + size {
            match self.intervals.range(..=at).next_back() {
                Some((&start, &(length, _))) if at < start + length => at = start + length,
                _ => return Some(at),
            }
        }
        None
    }

    /// Makes an interval start at `at` if one reaches across it.
    fn cut(&mut self, at: u64) {
        let Some((&start, &(size, target))) = self.intervals.range(..at).next_back() else { return };
        if at < start + size {
            self.intervals.insert(start, (at - start, target));
            self.intervals.insert(at, (start + size - at, target.offset(at - start)));
        }
    }

    pub fn insert(&mut self, ipa: u64, size: u64, target: Target) {
        self.intervals.insert(ipa, (size, target));
    }

    /// Takes a range out and gives back what was there.
    pub fn remove(&mut self, ipa: u64, size: u64) -> Vec<(u64, u64, Target)> {
        self.cut(ipa);
        self.cut(ipa + size);
        let keys: Vec<u64> = self.intervals.range(ipa..ipa + size).map(|(&start, _)| start).collect();
        keys.into_iter()
            .filter_map(|key| self.intervals.remove(&key).map(|(size, target)| (key, size, target)))
            .collect()
    }

    /// Changes all that is mapped in a range.
    pub fn update(&mut self, ipa: u64, size: u64, mut change: impl FnMut(&mut Target)) {
        for (start, length, mut target) in self.remove(ipa, size) {
            change(&mut target);
            self.insert(start, length, target);
        }
    }

    /// The intervals, joined where one goes on where the other ends.
    pub fn joined(&self) -> Vec<(u64, u64, Target)> {
        let mut joined: Vec<(u64, u64, Target)> = Vec::new();
        for (&start, &(size, target)) in &self.intervals {
            match joined.last_mut() {
                Some((ipa, length, first)) if *ipa + *length == start && first.offset(*length) == target => {
                    *length += size
                }
                _ => joined.push((start, size, target)),
            }
        }
        joined
    }

    /// The leaves that the tables ought to have: of each interval, the largest blocks that alignment and size allow, and
    /// whether each has the contiguous hint.
    pub fn leaves(&self) -> Vec<(u64, u64, Target, bool)> {
        let mut leaves = Vec::new();
        for (start, size, target) in self.joined() {
            let mut done = 0;
            while done < size {
                let fits = |&block: &u64| {
                    (start + done) % block == 0 && (target.pa + done) % block == 0 && size - done >= block
                };
                let block = [1 << 30, 2 << 20, 4096].into_iter().find(fits).expect("whole pages");
                let group = 16 * block;
                let first = (start + done) / group * group;
                let contiguous = block != 1 << 30
                    && (start + done).wrapping_sub(target.pa + done) % group == 0
                    && first >= start
                    && first + group <= start + size;
                leaves.push((start + done, block, target.offset(done), contiguous));
                done += block;
            }
        }
        leaves
    }

    /// The leaf that `ipa` is in, with its group: from, length.
    pub fn extent(&self, ipa: u64) -> Option<(u64, u64)> {
        let mut leaves = self.leaves().into_iter();
        let (start, size, _, contiguous) =
            leaves.find(|&(start, size, ..)| start <= ipa && ipa < start + size)?;
        let span = if contiguous { 16 * size } else { size };
        Some((start / span * span, span))
    }

    /// How many tables below the start tables these leaves need.
    pub fn tables_below(&self, start_level: u32) -> usize {
        let mut tables = std::collections::HashSet::new();
        for (ipa, size, ..) in self.leaves() {
            let leaf_level = match size {
                4096 => 3,
                0x20_0000 => 2,
                _ => 1,
            };
            for level in start_level + 1..=leaf_level {
                tables.insert((level, ipa >> (48 - 9 * level)));
            }
        }
        tables.len()
    }

    /// How many mappings of each page of a physical range there are, as (start, end) pairs that overlap it.
    pub fn overlaps(&self, pa: u64, size: u64) -> bool {
        self.intervals.values().any(|&(length, target)| target.pa < pa + size && pa < target.pa + length)
    }

    /// All physical intervals that are mapped.
    pub fn physical(&self) -> impl Iterator<Item = (u64, u64, Target)> {
        self.intervals.iter().map(|(_, &(size, target))| (target.pa, size, target))
    }
}
