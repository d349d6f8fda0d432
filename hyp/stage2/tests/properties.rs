//! Long random sequences of operations on three VMs of different shape, one ledger, and a machine with TLBs. After every
//! step the tables (read by the independent walker), the model and the ledger agree, and nothing stale is left.

mod common;

use common::model::Model;
use common::world::{FRAMES, GIB, MIB2, PAGE, World, vm};
use proptest::prelude::*;
use stage2::{Pa, Permissions, State, Use};

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
    },
    /// What is mapped already, taken by number, and a part of it: from and length in 4 KiB, 2 MiB or 1 GiB.
    Unmap {
        slot: u8,
        what: Part,
        starve: Option<usize>,
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
    (0u8..3, home, ipa, offset(), size(), permissions(), starve(), any::<bool>()).prop_map(
        |(slot, home, (ipa, ipa_offset), pa_offset, size, permissions, starve, same)| {
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
            Step::Map { slot, ipa, pa, size, permissions, usage, starve }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => map(),
        6 => (0u8..3, part(), starve()).prop_map(|(slot, what, starve)| Step::Unmap { slot, what, starve }),
        6 => (0u8..3, part(), permissions(), starve())
            .prop_map(|(slot, what, permissions, starve)| Step::Protect { slot, what, permissions, starve }),
        2 => (0u8..3, 0u8..3, offset(), size()).prop_map(|(from, to, offset, size)| {
            Step::HandOver { from, to, pa: [GIB, 4 * GIB, 6 * GIB][usize::from(from)] + offset, size: size.min(GIB) }
        }),
        1 => (0u8..3).prop_map(|slot| Step::Rebuild { slot }),
    ]
}

fn run(steps: Vec<Step>) {
    let mut world = World::new();
    world.check();
    for step in steps {
        let mut probe = None;
        match step {
            Step::Map { slot, ipa, pa, size, permissions, usage, starve } => {
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.map(slot, ipa, pa, size, permissions, usage);
                probe = Some((slot, ipa, size));
            }
            Step::Unmap { slot, what, starve } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.unmap(slot, ipa, size);
                probe = Some((slot, ipa, size));
            }
            Step::Protect { slot, what, permissions, starve } => {
                let (ipa, size) = what.of(&world.guests[usize::from(slot)].model);
                world.machine.frames_left = starve.unwrap_or(FRAMES);
                world.protect(slot, ipa, size, permissions);
                probe = Some((slot, ipa, size));
            }
            Step::HandOver { from, to, pa, size } => world.hand_over(from, to, pa, size),
            Step::Rebuild { slot } => world.rebuild(slot),
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
        let guest = &mut world.guests[usize::from(slot)];
        world.ledger.teardown(guest.stage2.take().unwrap(), &mut world.machine).unwrap();
        world.ledger.reclaim_all(vm(slot)).unwrap();
        world.ledger.retire(vm(slot)).unwrap();
    }
    assert_eq!(world.machine.frames_used(), 0, "frames are left after all VMs are gone");
    assert!(world.ledger.runs().all(|(_, _, mappings)| mappings == 0));
    assert_eq!(world.ledger.state(Pa::new(7 * GIB)).0, State::Unscrubbed);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tables_model_ledger_and_tlb_agree(steps in prop::collection::vec(step(), 1..40)) {
        run(steps);
    }
}
