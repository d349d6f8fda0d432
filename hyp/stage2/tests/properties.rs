//! Long random sequences of operations on three VMs of different shape, one ledger, and a machine with TLBs. After every
//! step the tables (read by the independent walker), the model and the ledger agree, and nothing stale is left.

mod common;

use common::model::Model;
use common::world::{FRAMES, GIB, MIB2, PAGE, World, vm};
use proptest::prelude::*;
use stage2::{Access, Pa, Permissions, State, Use, VmSet};

#[derive(Clone, Debug)]
enum Step {
    Map {
        slot: u8,
        ipa: u64,
        pa: u64,
        size: u64,
        permissions: Permissions,
        usage: Use,
        starve: Option<usize>,
        entries: Option<usize>,
    },
    /// What is mapped already, taken by number, and a part of it: from and length in 4 KiB, 2 MiB or 1 GiB.
    Unmap {
        slot: u8,
        what: Part,
        starve: Option<usize>,
        entries: Option<usize>,
    },
    Protect {
        slot: u8,
        what: Part,
        permissions: Permissions,
        starve: Option<usize>,
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
    /// The guest's access that faults, or one by EL2.
    Access {
        slot: u8,
        what: Part,
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
        what: Part,
        members: u64,
        starve: Option<usize>,
    },
    Thaw {
        slot: u8,
        what: Part,
    },
    Clone {
        from: u8,
        to: u8,
        what: Part,
        admit: bool,
    },
    Refill {
        slot: u8,
    },
}

#[derive(Clone, Debug)]
struct Part {
    number: usize,
    unit: u64,
    skip: u64,
    count: u64,
    whole: bool,
}

impl Part {
    /// The part in this model, or some range where nothing is mapped.
    fn of(&self, model: &Model) -> (u64, u64) {
        let all = model.joined();
        let Some(&(start, size, _)) = all.get(self.number % all.len().max(1)) else {
            return (self.skip * self.unit, self.count * self.unit);
        };
        if self.whole {
            return (start, size);
        }
        let from = start + (self.skip * self.unit) % size;
        // One time in a few this reaches beyond the mapping's end, and finds a hole.
        let length = (self.count * self.unit).min((start + size - from).max(self.unit));
        (from, length)
    }
}

fn permissions() -> impl Strategy<Value = Permissions> {
    prop_oneof![
        6 => Just(Permissions::ALL),
        3 => Just(Permissions::READ_WRITE),
        2 => Just(Permissions::READ),
        1 => (any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(read, write, execute)| Permissions { read, write, execute }),
    ]
}

fn starve() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![5 => Just(None), 1 => (0usize..6).prop_map(Some)]
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        5 => (0u64..4).prop_map(|n| n * MIB2),
        3 => Just(0),
        2 => (0u64..1024).prop_map(|n| n * PAGE),
        1 => (505u64..=512).prop_map(|n| n * MIB2),
    ]
}

fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (1u64..20).prop_map(|n| n * PAGE),
        2 => (500u64..520).prop_map(|n| n * PAGE),
        4 => (1u64..5).prop_map(|n| n * MIB2),
        2 => (510u64..514).prop_map(|n| n * MIB2),
        2 => (1u64..3).prop_map(|n| n * GIB),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let unit = prop_oneof![3 => Just(PAGE), 3 => Just(MIB2), 1 => Just(GIB)];
    (any::<usize>(), unit, 0u64..600, 1u64..8, prop::bool::weighted(0.2))
        .prop_map(|(number, unit, skip, count, whole)| Part { number, unit, skip, count, whole })
}

fn map() -> impl Strategy<Value = Step> {
    let home = prop_oneof![
        8 => Just(None),
        1 => Just(Some((0x900_0000, Use::Device))),
        1 => Just(Some((0x801_0000, Use::Banked))),
        2 => Just(Some((7 * GIB, Use::Shared))),
        1 => Just(Some((4 * GIB, Use::Ram))),
    ];
    let ipa =
        (prop_oneof![Just(0), Just(GIB), Just(2 * GIB), Just(3 * GIB), Just(4 * GIB - 2 * MIB2)], offset());
    (0u8..3, home, ipa, offset(), size(), permissions(), (starve(), entries()), any::<bool>()).prop_map(
        |(slot, home, (ipa, ipa_offset), pa_offset, size, permissions, (starve, entries), same)| {
            let own = [GIB, 4 * GIB, 6 * GIB][usize::from(slot)];
            let (base, usage) = home.unwrap_or((own, Use::Ram));
            let pa = base + if same { ipa_offset } else { pa_offset };
            let ipa = ipa + ipa_offset;
            let size = match usage {
                Use::Banked => PAGE,
                // Thousands of pages make the test slow and nothing else.
                _ if (ipa ^ pa) % MIB2 != 0 => size.min(8 * MIB2),
                _ => size,
            };
            Step::Map { slot, ipa, pa, size, permissions, usage, starve, entries }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => map(),
        6 => (0u8..3, part(), starve(), entries())
            .prop_map(|(slot, what, starve, entries)| Step::Unmap { slot, what, starve, entries }),
        6 => (0u8..3, part(), permissions(), starve())
            .prop_map(|(slot, what, permissions, starve)| Step::Protect { slot, what, permissions, starve }),
        2 => (0u8..3, 0u8..3, offset(), size()).prop_map(|(from, to, offset, size)| {
            Step::HandOver { from, to, pa: [GIB, 4 * GIB, 6 * GIB][usize::from(from)] + offset, size: size.min(GIB) }
        }),
        1 => (0u8..3, entries()).prop_map(|(slot, entries)| Step::Rebuild { slot, entries }),
        8 => (0u8..3, part(), access()).prop_map(|(slot, what, access)| Step::Access { slot, what, access }),
        2 => (0u8..3, 1usize..700).prop_map(|(slot, entries)| Step::StartLog { slot, entries }),
        3 => (0u8..3, 1usize..700).prop_map(|(slot, entries)| Step::Collect { slot, entries }),
        1 => (0u8..3, 1usize..700).prop_map(|(slot, entries)| Step::StopLog { slot, entries }),
        2 => (0u8..3, 1usize..700, any::<bool>())
            .prop_map(|(slot, entries, end)| Step::Age { slot, entries, end }),
        4 => (0u8..3, part(), 0u64..8, starve())
            .prop_map(|(slot, what, members, starve)| Step::Freeze { slot, what, members, starve }),
        2 => (0u8..3, part()).prop_map(|(slot, what)| Step::Thaw { slot, what }),
        4 => (0u8..3, 0u8..3, part(), any::<bool>())
            .prop_map(|(from, to, what, admit)| Step::Clone { from, to, what, admit }),
        1 => (0u8..3).prop_map(|slot| Step::Refill { slot }),
    ]
}

fn access() -> impl Strategy<Value = Option<Access>> {
    prop_oneof![
        4 => Just(Some(Access::Write)),
        1 => Just(Some(Access::Read)),
        1 => Just(Some(Access::Execute)),
        2 => Just(None),
    ]
}

/// Whether in one go or in steps of so many entries.
fn entries() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![2 => Just(None), 1 => (1usize..700).prop_map(Some)]
}

fn run(steps: Vec<Step>) {
    let mut world = World::new();
    world.check();
    for step in steps {
        let mut probe = None;
        match step {
            Step::Map { slot, ipa, pa, size, permissions, usage, starve, entries } => {
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.map(slot, (ipa, pa, size), permissions, usage, entries);
                probe = Some((slot, ipa, size));
            }
            Step::Unmap { slot, what, starve, entries } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.unmap(slot, ipa, size, entries);
                probe = Some((slot, ipa, size));
            }
            Step::Protect { slot, what, permissions, starve } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.protect(slot, ipa, size, permissions);
                probe = Some((slot, ipa, size));
            }
            Step::HandOver { from, to, pa, size } => world.hand_over(from, to, pa, size),
            Step::Rebuild { slot, entries } => world.rebuild(slot, entries),
            Step::Access { slot, what, access } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = FRAMES;
                match access {
                    Some(access) => world.access(slot, ipa, access),
                    None => world.load(slot, ipa),
                }
                probe = Some((slot, ipa, size));
            }
            Step::StartLog { slot, entries } => world.start_log(slot, entries),
            Step::Collect { slot, entries } => world.collect(slot, entries),
            Step::StopLog { slot, entries } => world.stop_log(slot, entries),
            Step::Age { slot, entries, end } => world.age(slot, entries, end),
            Step::Freeze { slot, what, members, starve } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.convert(slot, ipa, size, Some(VmSet::from_bits(members)));
                probe = Some((slot, ipa, size));
            }
            Step::Thaw { slot, what } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = FRAMES;
                world.convert(slot, ipa, size, None);
                probe = Some((slot, ipa, size));
            }
            Step::Clone { from, to, what, admit } => {
                let (ipa, size) = what.of(&world.guests[usize::from(from)].model);
                world.machine.frames_left = FRAMES;
                // The pages are gone through one by one; a few MiB do.
                world.clone_to(from, to, ipa, size.min(4 * MIB2), admit);
                probe = Some((to, ipa, size));
            }
            Step::Refill { slot } => world.refill(slot),
        }
        world.check();
        if let Some((slot, ipa, size)) = probe {
            for at in
                [ipa, (ipa + size / 2) & !0xfff, ipa + size - PAGE, ipa + size, ipa.saturating_sub(PAGE)]
            {
                world.ask(slot, at);
            }
        }
    }
    for slot in 0..3 {
        world.teardown(slot, None);
        world.ledger.reclaim_all(vm(slot)).unwrap();
        world.ledger.retire(vm(slot)).unwrap();
    }
    assert_eq!(world.machine.frames_used(), 0, "frames are left after all VMs are gone");
    assert!(world.ledger.runs().all(|(_, _, mappings)| mappings == 0));
    assert_eq!(world.ledger.state(Pa::new(7 * GIB)).0, State::Unscrubbed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "a case takes minutes there; the second oracle's few steps stand for it")]
    fn tables_model_ledger_and_tlb_agree(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
