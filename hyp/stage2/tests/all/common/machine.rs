//! A machine as the tables see it: frames, walkers that read at the worst moment, and TLBs that never forget by themselves.
//!
//! Every write of a valid descriptor that a walker could reach is taken into the TLB at once, and stays until an invalidation
//! names it. So at any time the TLB holds all that hardware could hold: every leaf by itself, and where the contiguous hint is
//! set, its group as one entry besides. Leaves whose access flag is 0 are not held. What is checked, and when:
//! - a new entry that overlaps a cached one of other size, address or type: break-before-make was left out;
//! - a table that is linked while writes to it are not ordered: a walker could find it half made;
//! - a frame that is freed while a walker or the TLB can still reach it;
//! - after an operation, a cached entry that no longer is in the tables: an invalidation is missing.

use std::collections::{BTreeMap, HashMap};

use stage2::{Environment, Invalidation, Ipa, Pa, VmId};

use super::walker::Memory;

/// Where the frames for tables come from: above the memory that tests map.
pub const POOL: u64 = 0x7f_0000_0000;

/// The contiguous hint, and how many entries it puts together.
const CONTIGUOUS: u64 = 1 << 52;
const GROUP: u64 = 16;

/// What may differ between two live versions of an entry: S2AP, AF, DBM, XN, software's bits.
const MAY_CHANGE: u64 = 0b11 << 6 | 1 << 10 | 1 << 51 | 0b11 << 53 | 0b1111 << 55;

#[derive(Clone, Copy, Debug)]
struct Place {
    vm: VmId,
    level: u32,
    base: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cached {
    raw: u64,
    table: u64,
    index: usize,
}

#[derive(Clone, Default)]
struct Frame {
    /// What it holds, while it is handed out.
    content: Option<Box<[u64; 512]>>,
    /// Where walkers find it, by a link or by a cached one.
    place: Option<Place>,
}

type Tlb = BTreeMap<(u64, u32), Vec<Cached>>;

/// By first address and level, what was found in the first entry of each group, as if the group began there.
type Groups = BTreeMap<(u64, u32), Cached>;

#[derive(Clone, Default)]
pub struct Machine {
    /// By number from the start of the pool.
    frames: Vec<Frame>,
    recycled: Vec<u64>,
    /// Frames that `allocate` may still give.
    pub frames_left: usize,
    roots: HashMap<VmId, Vec<u64>>,
    tlbs: HashMap<VmId, Tlb>,
    groups: HashMap<VmId, Groups>,
    /// Pages that were copied: from, to.
    pub copies: Vec<(u64, u64)>,
    /// Frames with writes that are not ordered before later ones.
    unordered: Vec<u64>,
    unpublished: bool,
    /// Every invalidation by address, for tests of what is asked for.
    pub invalidations: Vec<(VmId, Invalidation)>,
    /// How often everything of a VM was dropped.
    pub whole_invalidations: usize,
}

const fn shift(level: u32) -> u32 {
    39 - 9 * level
}

fn is_table(raw: u64, level: u32) -> bool {
    raw & 3 == 3 && level < 3
}

fn is_leaf(raw: u64, level: u32) -> bool {
    raw & 3 == if level == 3 { 3 } else { 1 }
}

impl Machine {
    pub fn new(frames: usize) -> Self {
        Self { frames_left: frames, ..Self::default() }
    }

    fn frame(&self, address: u64) -> &Frame {
        &self.frames[((address - POOL) / 4096) as usize]
    }

    fn frame_mut(&mut self, address: u64) -> &mut Frame {
        &mut self.frames[((address - POOL) / 4096) as usize]
    }

    fn content(&self, address: u64) -> &[u64; 512] {
        self.frame(address).content.as_ref().expect("a read of a frame that is not allocated")
    }

    /// Frames that have been handed out.
    pub fn frames_used(&self) -> usize {
        self.frames.iter().filter(|frame| frame.content.is_some()).count()
    }

    /// The CPUs may walk these tables from now on.
    pub fn load(&mut self, vm: VmId, root: Pa, tables: usize, level: u32) {
        assert!(!self.roots.contains_key(&vm));
        assert!(
            self.tlbs.get(&vm).is_none_or(BTreeMap::is_empty),
            "a VMID is used again with entries in the TLB"
        );
        let roots: Vec<u64> = (0..tables as u64).map(|n| root.as_u64() + 4096 * n).collect();
        for (n, &table) in roots.iter().enumerate() {
            self.attach(table, Place { vm, level, base: (n as u64) << (shift(level) + 9) });
        }
        self.roots.insert(vm, roots);
    }

    /// After an operation: nothing stale in the TLB, nothing unpublished.
    pub fn assert_current(&self) {
        assert!(!self.unpublished, "an entry was made valid and not published");
        for (vm, tlb) in &self.tlbs {
            for (&(ipa, level), cached) in tlb {
                for entry in cached {
                    assert!(!self.is_stale(entry), "{vm}: stale at IPA {ipa:#x}, level {level}: {entry:x?}");
                }
            }
        }
        for (vm, groups) in &self.groups {
            for (&(ipa, level), first) in groups {
                let stale = self.is_group_stale(first, level);
                assert!(!stale, "{vm}: a stale group at IPA {ipa:#x}, level {level}: {first:x?}");
            }
        }
    }

    fn attach(&mut self, table: u64, place: Place) {
        assert!(!self.unordered.contains(&table), "table {table:#x} is linked before its content is visible");
        let before = self.frame_mut(table).place.replace(place);
        assert!(before.is_none(), "table {table:#x} is linked twice");
        for index in 0..512 {
            self.observe(table, index);
        }
    }

    /// A walker reads an entry that it can reach.
    fn observe(&mut self, table: u64, index: usize) {
        let Some(Place { vm, level, base }) = self.frame(table).place else { return };
        let raw = self.content(table)[index];
        if !is_table(raw, level) && !is_leaf(raw, level) {
            return;
        }
        let ipa = base + ((index as u64) << shift(level));
        if is_leaf(raw, level) && raw & 1 << 10 == 0 {
            return;
        }
        let entry = Cached { raw, table, index };
        self.assert_no_conflict(vm, ipa, level, entry);
        self.observe_group(vm, ipa, level, entry);
        let cached = self.tlbs.entry(vm).or_default().entry((ipa, level)).or_default();
        if cached.contains(&entry) {
            return;
        }
        cached.push(entry);
        if is_table(raw, level) {
            self.attach(raw & 0xffff_ffff_f000, Place { vm, level: level + 1, base: ipa });
        }
    }

    /// The group that a leaf says it is in, as a TLB may hold it from now on; and that a leaf or table fits the group that is
    /// held.
    fn observe_group(&mut self, vm: VmId, ipa: u64, level: u32, entry: Cached) {
        let in_group = entry.index as u64 % GROUP;
        let below = in_group << shift(level);
        let hinted = is_leaf(entry.raw, level) && entry.raw & CONTIGUOUS != 0;
        let first =
            Cached { raw: entry.raw.wrapping_sub(below), index: entry.index - in_group as usize, ..entry };
        let end = ipa - below + (GROUP << shift(level));
        let groups = self.groups.entry(vm).or_default();
        for upper in 0..=level {
            let start = ipa >> (shift(upper) + 4) << (shift(upper) + 4);
            let Some(held) = groups.get(&(start, upper)) else { continue };
            assert!(hinted && *held == first, "IPA {ipa:#x}: {entry:x?} in a group that is held, {held:x?}");
        }
        if !hinted {
            return;
        }
        assert!(matches!(level, 2 | 3), "{entry:x?}: a hint where none is used");
        assert_eq!(
            first.raw & 0xffff_ffff_f000 & ((GROUP << shift(level)) - 1),
            0,
            "{entry:x?}: a group misaligned"
        );
        groups.insert((ipa - below, level), first);
        for (&(at, lower), cached) in self.tlbs.entry(vm).or_default().range((ipa - below, 0)..(end, 0)) {
            for other in cached.iter().filter(|_| lower >= level) {
                let same = lower == level && other.raw == first.raw + (at - (ipa - below));
                assert!(same, "IPA {at:#x}: still held by itself, {other:x?}, under a group, {first:x?}");
            }
        }
    }

    fn is_group_stale(&self, first: &Cached, level: u32) -> bool {
        (0..GROUP).any(|n| {
            let raw = first.raw + (n << shift(level));
            self.is_stale(&Cached { raw, table: first.table, index: first.index + n as usize })
        })
    }

    fn assert_no_conflict(&self, vm: VmId, ipa: u64, level: u32, new: Cached) {
        let Some(tlb) = self.tlbs.get(&vm) else { return };
        for old in tlb.get(&(ipa, level)).into_iter().flatten() {
            let leaves = is_leaf(old.raw, level) && is_leaf(new.raw, level);
            let harmless = *old == new || (leaves && (old.raw ^ new.raw) & !MAY_CHANGE == 0);
            assert!(harmless, "no break-before-make at IPA {ipa:#x}, level {level}: {old:x?} to {new:x?}");
        }
        for upper in 0..level {
            let base = ipa >> shift(upper) << shift(upper);
            for old in tlb.get(&(base, upper)).into_iter().flatten() {
                assert!(
                    !is_leaf(old.raw, upper),
                    "IPA {ipa:#x}: still cached as a block, {old:x?} under {new:x?}"
                );
            }
        }
        if is_leaf(new.raw, level) {
            let end = ipa + (1 << shift(level));
            let below = tlb.range((ipa, 0)..(end, 0)).find(|&(&(_, lower), _)| lower > level);
            assert!(below.is_none(), "IPA {ipa:#x}: a block over smaller entries still cached: {below:x?}");
        }
    }

    fn is_stale(&self, entry: &Cached) -> bool {
        let frame = self.frame(entry.table);
        frame.place.is_none()
            || frame.content.as_ref().is_none_or(|content| content[entry.index] != entry.raw)
    }

    /// What `TLBI IPAS2(L)E1IS` does for one address. What is still valid would come back at once, so it stays.
    fn invalidate_address(&mut self, vm: VmId, address: u64, tables: bool) {
        for level in 0..4 {
            let group = (address >> (shift(level) + 4) << (shift(level) + 4), level);
            let held = self.groups.get(&vm).and_then(|groups| groups.get(&group)).copied();
            if held.is_some_and(|first| self.is_group_stale(&first, level)) {
                self.groups.get_mut(&vm).expect("looked up above").remove(&group);
            }
            let key = (address >> shift(level) << shift(level), level);
            let Some(cached) = self.tlbs.get(&vm).and_then(|tlb| tlb.get(&key)).cloned() else { continue };
            let gone = |machine: &Self, entry: &Cached| {
                machine.is_stale(entry) && (tables || !is_table(entry.raw, level))
            };
            let (dropped, kept): (Vec<_>, Vec<_>) = cached.into_iter().partition(|entry| gone(self, entry));
            for entry in dropped.iter().filter(|entry| is_table(entry.raw, level)) {
                self.frame_mut(entry.raw & 0xffff_ffff_f000).place = None;
            }
            let tlb = self.tlbs.get_mut(&vm).expect("looked up above");
            if kept.is_empty() {
                tlb.remove(&key)
            } else {
                tlb.insert(key, kept)
            };
        }
    }

    fn visible(&mut self) {
        self.unordered.clear();
        self.unpublished = false;
    }
}

impl Environment for Machine {
    fn allocate(&mut self, tables: usize) -> Option<Pa> {
        self.frames_left = self.frames_left.checked_sub(tables)?;
        // What was freed last is given first: a frame that is still referred to is found out soonest so.
        let address = match self.recycled.pop() {
            Some(frame) if tables == 1 => frame,
            other => {
                self.recycled.extend(other);
                let size = 4096 * tables as u64;
                let address = (POOL + 4096 * self.frames.len() as u64).next_multiple_of(size);
                // After tables side by side a frame is left out, so that a step over their end is found out.
                let gap = usize::from(tables > 1);
                self.frames.resize_with(((address + size - POOL) / 4096) as usize + gap, Frame::default);
                address
            }
        };
        for n in 0..tables as u64 {
            let frame = address + 4096 * n;
            assert!(self.frame_mut(frame).content.replace(Box::new([0; 512])).is_none());
            self.unordered.push(frame);
        }
        Some(Pa::new(address))
    }

    fn free(&mut self, table: Pa, tables: usize) {
        for n in 0..tables as u64 {
            let frame = table.as_u64() + 4096 * n;
            if let Some(Place { vm, .. }) = self.frame(frame).place {
                let is_root = self.roots.get(&vm).is_some_and(|roots| roots.contains(&frame));
                assert!(is_root, "table {frame:#x} is freed and {vm} can still reach it");
                assert!(
                    self.tlbs.get(&vm).is_none_or(BTreeMap::is_empty),
                    "the root of {vm} goes before its entries"
                );
                self.frame_mut(frame).place = None;
                if n + 1 == tables as u64 {
                    self.roots.remove(&vm);
                }
            }
            assert!(self.frame_mut(frame).content.take().is_some(), "table {frame:#x} is freed twice");
            if tables == 1 {
                self.recycled.push(frame);
            }
        }
        self.frames_left += tables;
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        self.content(table.as_u64())[index]
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        let table = table.as_u64();
        let frame = self.frame_mut(table);
        frame.content.as_mut().expect("a write to a frame that is not allocated")[index] = descriptor;
        let reachable = frame.place.is_some();
        self.unpublished |= descriptor & 1 != 0 && reachable;
        self.observe(table, index);
        if self.unordered.last() != Some(&table) {
            self.unordered.push(table);
        }
    }

    fn copy(&mut self, from: Pa, to: Pa) {
        self.copies.push((from.as_u64(), to.as_u64()));
    }

    fn order(&mut self) {
        self.unordered.clear();
    }

    fn publish(&mut self) {
        self.visible();
    }

    fn invalidate(&mut self, vm: VmId, what: Invalidation) {
        self.visible();
        self.invalidations.push((vm, what));
        assert!(
            what.count() > 0 && what.size.is_multiple_of(what.stride) && what.ipa.is_aligned(what.stride),
            "{what:x?}"
        );
        if what.count() > 4096 {
            return self.invalidate_vm(vm);
        }
        for n in 0..what.count() {
            self.invalidate_address(vm, what.ipa.as_u64() + n * what.stride, what.tables);
        }
    }

    fn invalidate_vm(&mut self, vm: VmId) {
        self.visible();
        self.whole_invalidations += 1;
        self.tlbs.remove(&vm);
        self.groups.remove(&vm);
        let roots = self.roots.get(&vm).cloned().unwrap_or_default();
        let places: Vec<_> =
            roots.iter().map(|&root| (root, self.frame(root).place.expect("a root"))).collect();
        for frame in &mut self.frames {
            frame.place = frame.place.filter(|place| place.vm != vm);
        }
        for (root, place) in places {
            self.attach(root, place);
        }
    }
}

impl Memory for Machine {
    fn load(&self, address: u64) -> u64 {
        self.content(address & !0xfff)[(address & 0xfff) as usize / 8]
    }
}

/// The address that a test means by page number `n`.
pub const fn page(n: u64) -> Ipa {
    Ipa::new(n << 12)
}
