//! Which CPU each vCPU gets: the rules one by one, every message, and random demands against the rules.

use config::manifest::Sharing::{self, Pinned};
use config::placement::{Demand, MAX_PER_CPU, MAX_RESERVED, PlacementError, place};
use proptest::prelude::*;

const fn weight(vcpus: usize, weight: u32) -> Demand<'static> {
    Demand { vcpus, affinity: None, sharing: Sharing::Weight(weight) }
}

const fn reserved(vcpus: usize, budget: u32, period: u32) -> Demand<'static> {
    Demand { vcpus, affinity: None, sharing: Sharing::Reserved { budget, period } }
}

const fn pinned(vcpus: usize) -> Demand<'static> {
    Demand { vcpus, affinity: None, sharing: Pinned }
}

const fn pinned_to(cpus: &[u32]) -> Demand<'_> {
    Demand { vcpus: cpus.len(), affinity: Some(cpus), sharing: Pinned }
}

const fn on<'a>(demand: Demand<'static>, cpus: &'a [u32]) -> Demand<'a> {
    Demand { affinity: Some(cpus), ..demand }
}

/// Where all of these go on a board of so many CPUs.
#[track_caller]
fn placed(cpus: usize, demands: &[Demand<'_>]) -> Vec<Vec<usize>> {
    place(&vec![true; cpus], demands).into_iter().collect::<Result<_, _>>().unwrap()
}

/// What is said about the last of these.
fn message(online: &[bool], demands: &[Demand<'_>]) -> String {
    let mut results = place(online, demands);
    results.pop().unwrap().unwrap_err().to_string()
}

#[test]
fn pinned_vcpus_have_a_cpu_each_and_the_boot_cpu_goes_last() {
    assert_eq!(placed(4, &[pinned(1), pinned(2)]), [vec![1], vec![2, 3]]);
    assert_eq!(placed(4, &[pinned(4)]), [[0, 1, 2, 3]]);
    assert_eq!(placed(4, &[pinned(2), pinned(2)]), [[1, 2], [0, 3]]);
    assert_eq!(placed(4, &[pinned_to(&[3, 0])]), [[3, 0]]);
    let online = [true, false, true];
    assert_eq!(place(&online, &[pinned(2)]), [Ok(vec![0, 2])]);
}

#[test]
fn who_names_cpus_comes_before_who_does_not() {
    assert_eq!(placed(4, &[pinned(1), pinned_to(&[1])]), [[2], [1]]);
    assert_eq!(placed(2, &[weight(1, 256), pinned(1)]), [[0], [1]]);
    // Not so among those that share: time that was promised comes first, wherever it may be.
    assert_eq!(placed(2, &[on(weight(1, 256), &[1]), reserved(1, 10, 100)]), [[1], [1]]);
}

#[test]
fn nobody_shares_a_cpu_with_a_pinned_vcpu() {
    assert_eq!(
        placed(3, &[weight(2, 256), pinned_to(&[2]), reserved(1, 10, 100)]),
        [vec![0, 1], vec![2], vec![1]]
    );
}

#[test]
fn the_least_weight_is_looked_for() {
    assert_eq!(placed(3, &[weight(1, 256); 4]), [[1], [2], [0], [1]]);
    // 512 on CPU 1; 256 on CPU 2 and then 0; the next fits best beside one of those, not the boot CPU's.
    assert_eq!(
        placed(3, &[weight(1, 512), weight(1, 256), weight(1, 256), weight(1, 256)]),
        [[1], [2], [0], [2]]
    );
}

#[test]
fn a_weight_goes_where_it_gets_the_most() {
    // A tenth of CPU 1 is reserved: the first goes to CPU 2, which is whole, the next finds more on CPU 1 than in half of 2.
    let ten = on(reserved(1, 10, 100), &[1]);
    let to = [1, 2];
    let weighted = on(weight(1, 256), &to);
    assert_eq!(placed(3, &[ten, weighted, weighted]), [[1], [2], [1]]);
    // Of 60 % reserved 40 % are left: less than half of a whole one.
    let sixty = on(reserved(1, 60, 100), &[1]);
    assert_eq!(placed(3, &[sixty, weighted, weighted, weighted]), [[1], [2], [2], [1]]);
}

#[test]
fn vcpus_of_one_vm_are_kept_apart_while_there_are_cpus() {
    // CPU 1 has the least, but one vCPU of the VM is enough for it while CPU 0 has none.
    let heavy = [on(weight(1, 1000), &[0]), on(weight(1, 1000), &[2])];
    assert_eq!(placed(3, &[heavy[0], heavy[1], weight(3, 1)]), [vec![0], vec![2], vec![1, 2, 0]]);
    assert_eq!(placed(2, &[weight(5, 256)]), [[1, 0, 1, 0, 1]]);
    assert_eq!(placed(2, &[reserved(3, 30, 100)]), [[1, 0, 1]]);
    // Only CPUs with room count.
    let sixty = on(reserved(1, 60, 100), &[0]);
    assert_eq!(placed(2, &[sixty, reserved(2, 40, 100)]), [vec![0], vec![1, 1]]);
}

#[test]
fn reservations_go_where_the_least_is_reserved_and_before_weights() {
    let demands = [weight(1, 256), reserved(1, 50, 100), reserved(1, 20, 100), reserved(1, 20, 100)];
    // 50 % on CPU 1, 40 % on CPU 0: that is where the weight gets more.
    assert_eq!(placed(2, &demands), [[0], [1], [0], [0]]);
}

#[test]
fn nine_tenths_can_be_reserved_and_no_more() {
    assert_eq!(MAX_RESERVED, 90);
    assert_eq!(placed(1, &[reserved(1, 900, 1000)]), [[0]]);
    assert_eq!(placed(1, &[reserved(7, 90, 700)]), [[0; 7]]);
    assert_eq!(placed(1, &[reserved(3, 300, 1000), weight(1, 1)]), [vec![0; 3], vec![0]]);
    let text =
        "budget: vCPU 0 wants 901 of every 1000 us, and no CPU that it may be on has more than 900 left";
    assert_eq!(message(&[true; 4], &[reserved(1, 901, 1000)]), text);
    let text =
        "budget: vCPU 2 wants 400 of every 1000 us, and no CPU that it may be on has more than 100 left";
    assert_eq!(message(&[true], &[reserved(4, 400, 1000)]), text);
    let text =
        "budget: vCPU 0 wants 600 of every 1000 us, and no CPU that it may be on has more than 500 left";
    assert_eq!(
        message(&[true; 2], &[on(reserved(1, 40, 100), &[1]), on(reserved(1, 600, 1000), &[1])]),
        text
    );
    // Numbers that no manifest lets through.
    for (budget, period) in [(1, 0), (u32::MAX, 1), (u32::MAX, 0)] {
        let error = place(&[true], &[reserved(1, budget, period)])[0].clone().unwrap_err();
        assert!(matches!(error, PlacementError::NoRoom { .. }), "{error}");
    }
}

/// Half of every 1000 us and a third of every 1500: five sixths, but the second needs 500 of the first 1500, of which the
/// first takes 1000, so it is just in time. 600 are too many, though that would be nine tenths.
#[test]
fn time_enough_in_another_rhythm() {
    let first = reserved(1, 500, 1000);
    assert_eq!(placed(1, &[first, reserved(1, 500, 1500)]), [vec![0], vec![0]]);
    assert_eq!(placed(2, &[first, reserved(1, 600, 1500)]), [vec![1], vec![0]]);
    assert_eq!(placed(1, &[first, reserved(1, 800, 2000)]), [vec![0], vec![0]]);
    assert_eq!(
        message(&[true], &[first, reserved(1, 600, 1500)]),
        "budget: with vCPU 0's 600 of every 1500 us, some vCPU would miss its period on each CPU that has the time: give it one that the others' are multiples of, or a multiple of theirs"
    );
}

#[test]
fn affinity_of_a_vm_that_shares_names_where_its_vcpus_may_be() {
    assert_eq!(placed(4, &[on(weight(3, 256), &[3, 2])]), [[2, 3, 2]]);
    assert_eq!(placed(4, &[on(reserved(1, 10, 100), &[0])]), [[0]]);
}

#[test]
fn too_few_cpus_for_pinned_vcpus() {
    let text = "cpus: 3 CPUs are wanted and 2 of the board's 2 are free";
    assert_eq!(message(&[true; 2], &[pinned(3)]), text);
    let text = "cpus: 2 CPUs are wanted and 1 of the board's 3 are free";
    assert_eq!(message(&[true, false, true], &[pinned(1), pinned(2)]), text);
    let text = "cpu-affinity: lists 1 CPUs for 2 vCPUs: one for each is needed";
    assert_eq!(message(&[true; 4], &[on(pinned(2), &[1])]), text);
}

#[test]
fn a_named_cpu_that_cannot_be_had() {
    for demand in [pinned(2), weight(2, 256), reserved(2, 10, 100)] {
        let say = |cpus: &[u32]| message(&[true, false, true], &[pinned_to(&[2]), on(demand, cpus)]);
        assert_eq!(say(&[0, 7]), "cpu-affinity: CPU 7 is not there");
        assert_eq!(say(&[0, u32::MAX]), "cpu-affinity: CPU 4294967295 is not there");
        assert_eq!(say(&[0, 1]), "cpu-affinity: CPU 1 is not running");
        assert_eq!(say(&[0, 0]), "cpu-affinity: CPU 0 is named twice");
        assert_eq!(say(&[0, 2]), "cpu-affinity: CPU 2 is another VM's");
    }
}

#[test]
fn no_cpu_left_to_share() {
    let text = "cpus: no CPU is left to share: vCPUs are pinned to all 2 that run; give one of their VMs fewer \
                vCPUs, or a weight";
    for demand in [weight(1, 256), reserved(1, 10, 100)] {
        assert_eq!(message(&[true, false, true], &[pinned(2), demand]), text);
    }
}

#[test]
fn sixty_four_vcpus_on_a_cpu_and_no_more() {
    assert_eq!(placed(1, &[weight(8, 256); 8]), [[0; 8]; 8]);
    let text = "cpus: each CPU that vCPU 2 may be on has 64 vCPUs already";
    let mut demands = vec![weight(31, 256); 2];
    demands.push(weight(3, 256));
    assert_eq!(message(&[true], &demands), text);
    // Beside a full CPU there may be another, however much there is to do.
    let mut demands = vec![on(weight(8, 1), &[1]); 8];
    demands.extend([on(weight(1, 60_000), &[2]), on(weight(1, 1), &[1, 2])]);
    assert_eq!(placed(3, &demands).pop(), Some(vec![2]));
}

#[test]
fn who_finds_no_place_takes_none() {
    // The second of its vCPUs has no room: the first must not stay.
    let results = place(&[true; 2], &[on(reserved(2, 50, 100), &[1]), on(reserved(1, 80, 100), &[1])]);
    assert!(results[0].is_err());
    assert_eq!(results[1], Ok(vec![1]));
    let results = place(&[true; 3], &[pinned_to(&[1, 1]), pinned(1)]);
    assert_eq!(results[1], Ok(vec![1]));
}

#[test]
fn nothing_to_place() {
    assert_eq!(place(&[], &[]), []);
    assert_eq!(place(&[], &[pinned(0)]), [Ok(vec![])]);
    assert!(place(&[], &[weight(1, 1)])[0].is_err());
}

/// A demand that owns its list.
#[derive(Clone, Debug)]
struct Owned {
    vcpus: usize,
    affinity: Option<Vec<u32>>,
    sharing: Sharing,
}

impl Owned {
    fn demand(&self) -> Demand<'_> {
        Demand { vcpus: self.vcpus, affinity: self.affinity.as_deref(), sharing: self.sharing }
    }
}

fn sharing() -> impl Strategy<Value = Sharing> {
    let reserved = (1_u32..=100, prop::sample::select(vec![100_u32, 700, 1000, 1_000_000]))
        .prop_map(|(percent, period)| Sharing::Reserved { budget: period * percent / 100, period });
    prop_oneof![
        Just(Pinned),
        reserved,
        prop::sample::select(vec![1, 128, 256, 65535]).prop_map(Sharing::Weight)
    ]
}

prop_compose! {
    fn owned()(
        vcpus in 1_usize..=8,
        few in 1_usize..=3,
        is_large in prop::bool::weighted(0.2),
        list in prop::option::of(prop::collection::vec(0_u32..8, 1..5)),
        sharing in sharing(),
    ) -> Owned {
        let vcpus = if is_large { vcpus } else { few };
        let cut = |mut list: Vec<u32>| {
            if sharing == Pinned {
                list.truncate(vcpus);
            }
            list
        };
        let fits = list.as_ref().is_some_and(|list| sharing != Pinned || list.len() >= vcpus);
        Owned { vcpus, affinity: list.filter(|_| fits).map(cut), sharing }
    }
}

/// What the rules say of the result as a whole.
fn check(online: &[bool], demands: &[Demand<'_>], results: &[Result<Vec<usize>, PlacementError>]) {
    assert_eq!(results.len(), demands.len());
    let mut on_cpu: Vec<Vec<Sharing>> = vec![Vec::new(); online.len()];
    for (demand, cpus) in
        demands.iter().zip(results).filter_map(|(demand, cpus)| Some((demand, cpus.as_ref().ok()?)))
    {
        assert_eq!(cpus.len(), demand.vcpus);
        for (vcpu, &cpu) in cpus.iter().enumerate() {
            assert!(online[cpu]);
            on_cpu[cpu].push(demand.sharing);
            let Some(list) = demand.affinity else { continue };
            if demand.sharing == Pinned {
                assert_eq!(list[vcpu] as usize, cpu);
            } else {
                assert!(list.contains(&(cpu as u32)));
            }
        }
    }
    for all in &on_cpu {
        assert!(!all.contains(&Pinned) || all.len() == 1, "{all:?}");
        assert!(all.len() <= MAX_PER_CPU);
        let parts = all.iter().map(|sharing| match *sharing {
            Sharing::Reserved { budget, period } => f64::from(budget) / f64::from(period),
            _ => 0.0,
        });
        assert!(parts.sum::<f64>() < 0.900_000_1, "{all:?}");
    }
}

/// The board's CPUs: some don't run.
fn online() -> impl Strategy<Value = Vec<bool>> {
    prop::collection::vec(prop::bool::weighted(0.8), 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2000 }))]

    #[test]
    fn every_rule_holds(online in online(), owned in prop::collection::vec(owned(), 0..12)) {
        let demands: Vec<_> = owned.iter().map(Owned::demand).collect();
        check(&online, &demands, &place(&online, &demands));
    }

    /// Nobody is refused or placed differently on account of a VM that isn't placed.
    #[test]
    fn who_is_left_out_might_as_well_not_be_there(
        online in online(),
        owned in prop::collection::vec(owned(), 1..12),
    ) {
        let mut demands: Vec<_> = owned.iter().map(Owned::demand).collect();
        let mut results = place(&online, &demands);
        let Some(failed) = results.iter().position(Result::is_err) else { return Ok(()) };
        demands.remove(failed);
        drop(results.remove(failed));
        prop_assert_eq!(place(&online, &demands), results);
    }

    /// Without affinity and reservations no CPU has more than the heaviest vCPU above another.
    #[test]
    fn weights_are_balanced(
        cpus in 1_usize..8,
        vms in prop::collection::vec((1_usize..8, 1_u32..=1000), 1..9),
    ) {
        let demands: Vec<_> = vms.iter().map(|&(vcpus, of)| weight(vcpus, of)).collect();
        let mut load = vec![0; cpus];
        for (demand, chosen) in vms.iter().zip(placed(cpus, &demands)) {
            chosen.into_iter().for_each(|cpu| load[cpu] += demand.1);
        }
        let heaviest = vms.iter().map(|vm| vm.1).max().unwrap();
        prop_assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= heaviest, "{:?}", load);
    }

    /// A VM has two vCPUs on a CPU only where each CPU has one.
    #[test]
    fn vcpus_are_kept_apart(
        cpus in 1_usize..8,
        vms in prop::collection::vec((1_usize..=8, 1_u32..=1000), 1..9),
    ) {
        let demands: Vec<_> = vms.iter().map(|&(vcpus, of)| weight(vcpus, of)).collect();
        for (demand, mut chosen) in vms.iter().zip(placed(cpus, &demands)) {
            chosen.sort_unstable();
            chosen.dedup();
            prop_assert_eq!(chosen.len(), cpus.min(demand.0));
        }
    }
}

#[test]
fn what_others_take_may_pass() {
    let passes = |online: &[bool], demands: &[Demand<'_>]| {
        place(online, demands).pop().unwrap().map_err(|error| error.may_pass()).unwrap_err()
    };
    let pinned = |vcpus, affinity| Demand { vcpus, affinity, sharing: Sharing::Pinned };
    let weight = Demand { vcpus: 1, affinity: None, sharing: Sharing::Weight(256) };
    assert!(passes(&[true; 2], &[pinned(2, None), pinned(1, None)]));
    assert!(passes(&[true; 2], &[pinned(2, None), weight]));
    assert!(passes(&[true; 2], &[pinned(1, Some(&[1])), pinned(1, Some(&[1]))]));
    // Nobody else's doing.
    assert!(!passes(&[true; 2], &[pinned(3, None)]));
    assert!(!passes(&[true; 2], &[pinned(1, Some(&[7]))]));
    assert!(!passes(&[true; 2], &[pinned(2, Some(&[1]))]));
    assert!(!passes(&[true, false], &[pinned(1, Some(&[1]))]));
}
