//! Operations drawn from plain numbers: the same steps for random tests, for the fuzzer and for the corpus that it leaves
//! behind. Every number means something, so no input is thrown away.

use stage2::{Access, Pa, Permissions, State, Use, VmSet};

use super::model::Model;
use super::world::{FRAMES, GIB, MIB2, PAGE, World, vm};

/// What one step is made of. Which operation it is, and what each number means to it, is decided by [`Draw::step`].
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    pub kind: u8,
    pub slot: u8,
    pub place: u8,
    pub rights: u8,
    pub starve: u8,
    pub shape: u8,
    pub a: u16,
    pub b: u16,
    pub c: u16,
}

/// One operation, with the addresses that it came to.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    Map {
        slot: u8,
        ipa: u64,
        pa: u64,
        size: u64,
        permissions: Permissions,
        usage: Use,
        /// In steps of so many entries; in one go without.
        entries: Option<usize>,
    },
    Unmap {
        slot: u8,
        ipa: u64,
        size: u64,
        entries: Option<usize>,
    },
    Protect {
        slot: u8,
        ipa: u64,
        size: u64,
        permissions: Permissions,
    },
    HandOver {
        from: u8,
        to: u8,
        pa: u64,
        size: u64,
    },
    Rebuild {
        slot: u8,
        entries: Option<usize>,
    },
    /// A guest's access that faults, or a write by EL2.
    Access {
        slot: u8,
        ipa: u64,
        access: Option<Access>,
    },
    StartLog {
        slot: u8,
        entries: usize,
    },
    Collect {
        slot: u8,
        entries: usize,
    },
    StopLog {
        slot: u8,
        entries: usize,
    },
    Age {
        slot: u8,
        entries: usize,
        end: bool,
    },
    Freeze {
        slot: u8,
        ipa: u64,
        size: u64,
        members: VmSet,
    },
    Thaw {
        slot: u8,
        ipa: u64,
        size: u64,
    },
    Clone {
        from: u8,
        to: u8,
        ipa: u64,
        size: u64,
        admit: bool,
    },
    Refill {
        slot: u8,
    },
}

/// Where each VM's own memory starts; see `World::new`.
const OWN: [u64; 3] = [GIB, 4 * GIB, 6 * GIB];

impl Draw {
    /// Bytes that [`read_all`](Self::read_all) takes for one.
    pub const BYTES: usize = 12;

    /// All that `bytes` hold; what is left at the end and is no whole step counts for nothing.
    pub fn read_all(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.chunks_exact(Self::BYTES).map(|bytes| {
            let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            Self {
                kind: bytes[0],
                slot: bytes[1],
                place: bytes[2],
                rights: bytes[3],
                starve: bytes[4],
                shape: bytes[5],
                a: word(6),
                b: word(8),
                c: word(10),
            }
        })
    }

    /// How many frames the operation may have: mostly as many as it wants, sometimes fewer than it needs.
    fn frames(self) -> usize {
        if self.starve % 8 < 6 { FRAMES } else { usize::from(self.starve >> 3) % 6 }
    }

    fn permissions(self) -> Permissions {
        let bit = |n: u8| self.rights >> n & 1 != 0;
        match self.rights % 16 {
            0..8 => Permissions::ALL,
            8..11 => Permissions::READ_WRITE,
            11..13 => Permissions::READ,
            _ => Permissions { read: bit(4), write: bit(5), execute: bit(6) },
        }
    }

    /// What the draw means in this world.
    pub fn step(self, world: &World) -> Step {
        let slot = self.slot % 3;
        let permissions = self.permissions();
        let part = || self.part(&world.guests[usize::from(slot)].model);
        let steps = 1 + usize::from(self.b) % 700;
        let entries = (self.shape & 0x60 == 0).then_some(steps);
        match self.kind % 56 {
            0..10 => self.map(slot, entries),
            10..16 => {
                let (ipa, size) = part();
                Step::Unmap { slot, ipa, size, entries }
            }
            16..20 => {
                let (ipa, size) = part();
                Step::Protect { slot, ipa, size, permissions }
            }
            20..23 => {
                let (ipa, size) = self.stretch(&world.guests[usize::from(slot)].model);
                Step::Protect { slot, ipa, size, permissions }
            }
            23..25 => {
                let pa = OWN[usize::from(slot)] + offset(self.a);
                Step::HandOver { from: slot, to: self.place % 3, pa, size: size(self.c).min(GIB) }
            }
            25 => Step::Rebuild { slot, entries },
            26..36 => {
                let access = match self.place % 8 {
                    0..4 => Some(Access::Write),
                    4 => Some(Access::Read),
                    5 => Some(Access::Execute),
                    _ => None,
                };
                Step::Access { slot, ipa: part().0, access }
            }
            36..38 => Step::StartLog { slot, entries: steps },
            38..42 => Step::Collect { slot, entries: steps },
            42 => Step::StopLog { slot, entries: steps },
            43..45 => Step::Age { slot, entries: steps, end: self.place.is_multiple_of(3) },
            45..49 => {
                let (ipa, size) = part();
                Step::Freeze { slot, ipa, size, members: VmSet::from_bits(u64::from(self.place % 8)) }
            }
            49..51 => {
                let (ipa, size) = part();
                Step::Thaw { slot, ipa, size }
            }
            51..55 => {
                let (ipa, size) = part();
                // The pages are gone through one by one; a few MiB do.
                let (to, size) = (self.place % 3, size.min(4 * MIB2));
                Step::Clone { from: slot, to, ipa, size, admit: self.rights & 1 != 0 }
            }
            _ => Step::Refill { slot },
        }
    }

    fn map(self, slot: u8, entries: Option<usize>) -> Step {
        let (base, usage) = match self.place % 13 {
            0 => (0x900_0000, Use::Device),
            1 => (0x801_0000, Use::Banked),
            2 | 3 => (7 * GIB, Use::Shared),
            // Another VM's memory, unless it is the second one that asks.
            4 => (OWN[1], Use::Ram),
            _ => (OWN[usize::from(slot)], Use::Ram),
        };
        let ipa_offset = offset(self.a);
        let ipa =
            [0, GIB, 2 * GIB, 3 * GIB, 4 * GIB - 2 * MIB2][usize::from(self.place / 13) % 5] + ipa_offset;
        let pa = base + if self.shape & 1 == 0 { ipa_offset } else { offset(self.b) };
        let size = match usage {
            Use::Banked => PAGE,
            // Thousands of pages make it slow and nothing else.
            _ if !(ipa ^ pa).is_multiple_of(MIB2) => size(self.c).min(8 * MIB2),
            _ => size(self.c),
        };
        Step::Map { slot, ipa, pa, size, permissions: self.permissions(), usage, entries }
    }

    /// A part of what is mapped, or some range where nothing is.
    fn part(self, model: &Model) -> (u64, u64) {
        let unit = [PAGE, MIB2, PAGE, MIB2, GIB][usize::from(self.shape) % 5];
        // Some of them end where a group of 16 does, as far as that goes.
        let (grain, most) = if self.rights & 0x80 == 0 { (1, 7) } else { (16, 4) };
        let count = u64::from(self.b % most + 1) * grain * unit;
        let skip = u64::from(self.a % 600) / grain * grain * unit;
        let all = model.joined();
        let Some(&(start, size, _)) = all.get(usize::from(self.c) % all.len().max(1)) else {
            return (skip, count);
        };
        if self.starve.is_multiple_of(5) {
            return (start, size);
        }
        let from = start + skip % size;
        // One time in a few this reaches beyond the mapping's end, and finds a hole.
        (from, count.min((start + size - from).max(unit)))
    }

    /// All that is mapped side by side, whatever its rights: one change to all of it makes whole again what was split.
    fn stretch(self, model: &Model) -> (u64, u64) {
        let all = model.joined();
        let Some(&(any, ..)) = all.get(usize::from(self.c) % all.len().max(1)) else { return (0, PAGE) };
        let (mut first, mut end) = (any, any);
        for &(start, size, _) in all.iter().filter(|&&(start, ..)| start >= any) {
            if start == end {
                end = start + size;
            }
        }
        for &(start, size, _) in all.iter().rev() {
            if start + size == first {
                first = start;
            }
        }
        (first, end - first)
    }
}

/// Distances at which blocks begin, end and don't fit.
fn offset(number: u16) -> u64 {
    let rest = u64::from(number >> 4);
    match number % 16 {
        0..8 => rest % 4 * MIB2,
        8..11 => 0,
        11..14 => rest % 1024 * PAGE,
        _ => (505 + rest % 8) * MIB2,
    }
}

/// Sizes below, at and above those of blocks.
fn size(number: u16) -> u64 {
    let rest = u64::from(number >> 4);
    match number % 16 {
        0..5 => (1 + rest % 19) * PAGE,
        5..7 => (500 + rest % 20) * PAGE,
        7..12 => (1 + rest % 4) * MIB2,
        12..14 => (510 + rest % 4) * MIB2,
        _ => (1 + rest % 2) * GIB,
    }
}

/// Performs one step on both sides, with all comparisons that the world makes.
pub fn perform(world: &mut World, draw: Draw) -> Step {
    let step = draw.step(world);
    world.machine.frames_left = draw.frames();
    let probe = match step {
        Step::Map { slot, ipa, pa, size, permissions, usage, entries } => {
            world.map(slot, (ipa, pa, size), permissions, usage, entries);
            Some((slot, ipa, size))
        }
        Step::Unmap { slot, ipa, size, entries } => {
            world.unmap(slot, ipa, size, entries);
            Some((slot, ipa, size))
        }
        Step::Protect { slot, ipa, size, permissions } => {
            world.protect(slot, ipa, size, permissions);
            Some((slot, ipa, size))
        }
        Step::Freeze { slot, ipa, size, members } => {
            world.convert(slot, ipa, size, Some(members));
            Some((slot, ipa, size))
        }
        Step::Thaw { slot, ipa, size } => {
            world.convert(slot, ipa, size, None);
            Some((slot, ipa, size))
        }
        other => {
            // These work without frames for tables, or differently, which tests of their own look at.
            world.machine.frames_left = FRAMES;
            perform_with_frames(world, other)
        }
    };
    world.check();
    if let Some((slot, ipa, size)) = probe {
        for at in [ipa, (ipa + size / 2) & !0xfff, ipa + size - PAGE, ipa + size, ipa.saturating_sub(PAGE)] {
            world.ask(slot, at);
        }
    }
    step
}

fn perform_with_frames(world: &mut World, step: Step) -> Option<(u8, u64, u64)> {
    match step {
        Step::HandOver { from, to, pa, size } => world.hand_over(from, to, pa, size),
        Step::Rebuild { slot, entries } => world.rebuild(slot, entries),
        Step::Access { slot, ipa, access } => {
            match access {
                Some(access) => world.access(slot, ipa, access),
                None => world.load(slot, ipa),
            }
            return Some((slot, ipa, MIB2));
        }
        Step::StartLog { slot, entries } => world.start_log(slot, entries),
        Step::Collect { slot, entries } => world.collect(slot, entries),
        Step::StopLog { slot, entries } => world.stop_log(slot, entries),
        Step::Age { slot, entries, end } => world.age(slot, entries, end),
        Step::Clone { from, to, ipa, size, admit } => {
            world.clone_to(from, to, ipa, size, admit);
            return Some((to, ipa, size));
        }
        Step::Refill { slot } => world.refill(slot),
        other => panic!("{other:?} is performed with the frames it is given"),
    }
    None
}

/// All VMs end; nothing is left.
pub fn finish(mut world: World) {
    for slot in 0..3 {
        world.teardown(slot, None);
        world.ledger.reclaim_all(vm(slot)).unwrap();
        world.ledger.retire(vm(slot)).unwrap();
    }
    assert_eq!(world.machine.frames_used(), 0, "frames are left after all VMs are gone");
    assert!(world.ledger.runs().all(|(_, _, mappings)| mappings == 0));
    assert_eq!(world.ledger.state(Pa::new(7 * GIB)).0, State::Unscrubbed);
}
