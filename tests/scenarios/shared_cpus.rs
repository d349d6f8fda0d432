//! vCPUs that share CPUs: what each keeps for itself, and what it gets of the time.

use std::collections::HashMap;
use std::time::Duration;

use tests::{Board, Machine, Outcome, Scenario, Shell, Vm, ensure, ensure_equal};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let with_linux: [Named; 3] =
        [("manifest", manifest), ("linux", linux), ("pulse-beside-linux", pulse_beside_linux)];
    let all: [Named; 10] = [
        ("stolen-time", stolen_time),
        ("many", many),
        ("state", state),
        ("sleepers", sleepers),
        ("movers", movers),
        ("counters-on-spis", counters_on_spis),
        ("weights", weights),
        ("selftest", selftest),
        ("restarts", restarts),
        ("pulse", pulse),
    ];
    let with_linux = on_both_gics("shared/", &with_linux).map(Case::needs_linux);
    with_linux.chain(on_both_gics("shared/", &all)).collect()
}

/// Time is what instructions take: with one CPU, who gets how much of it doesn't depend on the host.
pub fn one_cpu(gic: u8) -> Machine {
    Machine::new(gic, 1).option("-icount", "shift=0,sleep=off")
}

fn busy(n: u32, vcpus: u8, arguments: &str) -> Vm {
    Vm::busy(vcpus, &format!("seed={n} {arguments}")).named(&format!("busy{n}"))
}

/// One CPU, three VMs, four vCPUs: every register of each is what it was when its turn comes again. Two of them wait for
/// each other without sleep, so that a round of theirs takes turns of all.
fn state(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [(1, 2, 200), (2, 1, 10_000), (3, 1, 10_000)]
        .map(|(n, vcpus, rounds)| busy(n, vcpus, &format!("rounds={rounds}")).weight(256));
    all_keep_their_registers(scenario, Machine::new(gic, 1).cpu("max"), &vms)
}

/// A vCPU is told how long it was ready while another one ran, and nothing else.
fn stolen_time(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [Vm::selftest(2, "selftest=pv-time neighbour=busy"), busy(1, 1, "rounds=100000000")];
    let bundle = scenario.bundle(&vms.map(|vm| vm.weight(256)))?;
    let mut board = scenario.boot(&one_cpu(gic).bundle(bundle))?;
    board.expect_within(r"(?m)^6 passed, 0 failed\n", Duration::from_secs(100))?;
    board.expect_log("selftest turned itself off")?;
    Ok(())
}

/// Some sleep until their timers wake them, and send each other interrupts.
fn sleepers(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [(1, 4), (2, 1), (3, 3)].map(|(n, vcpus)| busy(n, vcpus, "rounds=1000 sleep=1").weight(256));
    all_keep_their_registers(scenario, Machine::new(gic, 2).cpu("max"), &vms)
}

/// The same, with vCPUs that go to whatever CPU has nothing to do.
fn movers(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [(1, 4), (2, 1), (3, 3)].map(|(n, vcpus)| {
        busy(n, vcpus, "rounds=1000 sleep=1").weight(256).property("cpu-affinity", "<0 1 2>")
    });
    all_keep_their_registers(scenario, Machine::new(gic, 3).cpu("max"), &vms)
}

/// A board on which performance counters raise an SPI for each CPU: a vCPU has that of the CPU where it is, as its PPI. QEMU's counters
/// raise a PPI all the same, so it is by register that theirs are pending.
fn counters_on_spis(scenario: &Scenario, gic: u8) -> Outcome {
    let machine = scenario.with_tree(Machine::new(gic, 3).cpu("max"), |fdtput, tree| {
        fdtput
            .args(["-t", "i"])
            .arg(tree)
            .args(["/pmu", "interrupts"])
            .args("0 200 4 0 201 4 0 202 4".split(' '));
    })?;
    let vms = [(1, 4), (2, 1), (3, 3)].map(|(n, vcpus)| {
        busy(n, vcpus, "rounds=400 sleep=1 line=1").weight(256).property("cpu-affinity", "<0 1 2>")
    });
    all_keep_their_registers(scenario, machine, &vms)
}

fn all_keep_their_registers(scenario: &Scenario, machine: Machine, vms: &[Vm]) -> Outcome {
    let board = scenario.boot(&machine.bundle(scenario.bundle(vms)?))?;
    let text = board.expect_off()?;
    let done = text.lines().filter(|line| line.ends_with(" rounds, all registers kept")).count();
    ensure(done == vms.len(), || format!("{done} of {} VMs came to their end", vms.len()))
}

/// What each has computed is in proportion to the weights.
fn weights(scenario: &Scenario, gic: u8) -> Outcome {
    let weights = HashMap::from([(1, 64), (2, 128), (3, 256), (4, 512)]);
    let mut board = boot_with_weights(scenario, &one_cpu(gic), &weights, "every=5")?;
    board.expect_ever(r"(?m)^\[busy1\] busy: vCPU 0: round 2000\n")?;
    let rounds = rounds(&board)?;
    let rounds_of = |n: &u32| rounds.get(n).copied().unwrap_or(0);
    let (all, whole) = (weights.keys().map(rounds_of).sum::<u64>(), weights.values().sum::<u64>());
    weights.iter().try_for_each(|(n, weight)| has_its_share(*n, (rounds_of(n), all), (*weight, whole)))
}

/// 63 VMs that are always busy, and one that has the console, on four CPUs: they all get their shares of their CPUs. It is
/// the time that counts, not what they compute in it: QEMU runs its CPUs in turns, in which the clocks of all go on.
fn many(scenario: &Scenario, gic: u8) -> Outcome {
    let weights: HashMap<u32, u64> = (1..64).map(|n| (n, if n % 2 == 0 { 256 } else { 384 })).collect();
    let machine = Machine::new(gic, 4).option("-icount", "shift=0,sleep=off");
    let mut board = boot_with_weights(scenario, &machine, &weights, "every=100 times=1")?;
    let mut cpus: HashMap<u64, HashMap<u32, u64>> = HashMap::new();
    for (n, weight) in weights {
        let placed = board
            .expect_ever(&format!(r"hanok: busy{n}: 1 vCPU on CPU (\d) \(weight {weight}\), 4 MiB\n"))?;
        cpus.entry(placed.number(1)?).or_default().insert(n, weight);
    }
    ensure_equal("CPUs", cpus.len(), 4)?;
    for weights in cpus.values() {
        let whole = weights.values().sum();
        for (n, weight) in weights {
            // Ten seconds or more, by the board's counter.
            let pattern = format!(r"(?m)^\[busy{n}\] busy: vCPU 0: round \d+, ran (\d+) of (\d{{8,}}) us\n");
            let told = board.expect_ever_within(&pattern, Duration::from_secs(200))?;
            has_its_share(*n, (told.number(1)?, told.number(2)?), (*weight, whole))?;
        }
    }
    Ok(())
}

/// A VM that has the console and sleeps, and those that are named in `weights`.
fn boot_with_weights(
    scenario: &Scenario,
    machine: &Machine,
    weights: &HashMap<u32, u64>,
    arguments: &str,
) -> Outcome<Board> {
    let mut vms = vec![Vm::selftest(1, "selftest=echo").weight(256).memory(4)];
    vms.extend(weights.iter().map(|(n, weight)| busy(*n, 1, arguments).weight(*weight as u32).memory(4)));
    scenario.boot(&machine.clone().bundle(scenario.bundle(&vms)?))
}

/// The last round that each VM has told of.
fn rounds(board: &Board) -> Outcome<HashMap<u32, u64>> {
    let mut rounds = HashMap::new();
    for line in board.text().lines() {
        let said = line.strip_prefix("[busy").and_then(|line| line.split_once("] busy: vCPU 0: round "));
        let counted: Option<(u32, u64)> =
            said.and_then(|(n, round)| Some((n.parse().ok()?, round.parse().ok()?)));
        rounds.extend(counted);
    }
    Ok(rounds)
}

/// It got the part of all that its weight is of all weights, within 5 %.
fn has_its_share(n: u32, (part, all): (u64, u64), (weight, weights): (u64, u64)) -> Outcome {
    let (got, wanted) = (part * weights, all * weight);
    ensure(got.abs_diff(wanted) * 20 <= wanted, || {
        let percent = got as f64 * 100.0 / wanted as f64;
        format!("busy{n} has {percent:.1} % of its share")
    })
}

/// A VM's vCPUs, two on each CPU, do all that the self-test does; a neighbour computes.
fn selftest(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [Vm::selftest(4, "").weight(256), busy(1, 1, "").weight(64)];
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&vms)?))?;
    let end = board.expect_within(r"(?m)^(\d+) passed, (\d+) failed\n", Duration::from_secs(200))?;
    ensure_equal("failed cases", end.number(2)?, 0)
}

/// A VM restarts over and over beside one that computes on the same CPU, and has wrong registers if anything is mixed up.
fn restarts(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [busy(1, 1, "rounds=6000").weight(256), Vm::selftest(2, "selftest=reboot").weight(256)];
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(scenario.bundle(&vms)?))?;
    for _ in 0..10 {
        board.expect_log("selftest starts afresh")?;
    }
    board.expect_ever(r"(?m)^busy: done, 6000 rounds, all registers kept\n")?;
    Ok(())
}

/// A guest with a budget keeps its period on a CPU that others want whole.
fn pulse(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::pulse("ticks=1000 reports=2 work=100").reserved(200, 1000),
        busy(1, 1, "").weight(256),
        busy(2, 1, "sleep=1").weight(256),
    ];
    let mut board = scenario.boot(&one_cpu(gic).bundle(scenario.bundle(&vms)?))?;
    keeps_its_period(&mut board, 1000)
}

/// The same beside two Linux that compute.
fn pulse_beside_linux(scenario: &Scenario, gic: u8) -> Outcome {
    let script = "while :; do seq 2000 | sha256sum; done";
    let linux = |name| Vm::linux_running(1, script).named(name).weight(256);
    let pulse = Vm::pulse("ticks=2000 work=100").reserved(200, 1000);
    let bundle = scenario.bundle(&[pulse, linux("linux1"), linux("linux2")])?;
    let mut board = scenario.boot(&one_cpu(gic).bundle(bundle))?;
    for name in ["linux1", "linux2"] {
        board.expect_within(&format!(r"(?m)^\[{name}\] [0-9a-f]{{64}}  -\n"), Duration::from_secs(200))?;
    }
    keeps_its_period(&mut board, 2000)
}

/// How late a tick may be: a change of vCPUs, and what of EL2's work it may have to wait for, at one instruction in a
/// nanosecond.
pub const LATEST_US: u64 = 20;

/// The next two reports tell of no tick missed, and of none later than that.
fn keeps_its_period(board: &mut Board, ticks: u64) -> Outcome {
    for _ in 0..2 {
        board.expect(&format!(r"(?m)^pulse: report \d+: {ticks} ticks, 0 missed\n"))?;
        let latest = board.expect(r"(?m)^pulse: max \d+ ticks of the counter, (\d+)\.\d us\n")?.number(1)?;
        ensure(latest < LATEST_US, || format!("a tick was {latest} us late, {LATEST_US} at most"))?;
    }
    Ok(())
}

/// As `guests/shared.dts` has it, on one CPU.
fn manifest(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(scenario.built_bundle("shared")?))?;
    board.expect_log("linux: 2 vCPUs on CPU 0, 0 (weight 256), 512 MiB")?;
    board.expect_log("pulse: 1 vCPU on CPU 0 (200 of 1000 us), 16 MiB")?;
    board.expect_log("busy: 1 vCPU on CPU 0 (weight 64), 16 MiB")?;
    board.expect_ever(r"Hanok's Linux guest: \S+, 2 CPUs, \d+ MiB\.\n")?;
    board.expect_ever(r"(?m)^\[pulse\] pulse: report 1: 5000 ticks, ")?;
    board.expect_ever(r"(?m)^\[busy\] busy: vCPU 0: round 10000\n")?;
    Ok(())
}

/// Linux with two vCPUs on one CPU, and a neighbour that wants it too, which says little, so that its lines don't come
/// between those of the shell. Linux knows how much of its time is stolen.
fn linux(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [Vm::linux(2).weight(256), busy(1, 1, "every=1000000").weight(128)];
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(scenario.bundle(&vms)?))?;
    let mut shell = Shell::login(&mut board)?;
    shell.check("nproc", "2")?;
    shell.check("echo hanok | md5sum", "58bb721193dd2abf3b515b4c260d17a2  -")?;
    shell.run("dmesg | grep -q 'arm-pv: using stolen time PV'")?;
    // In hundredths of a second. What its two CPUs compute, they compute in turns.
    let stolen = "awk '$1 == \"cpu\" { print $9 }' /proc/stat";
    let before = shell.number(stolen)?;
    shell.run("seq 50000 | sha256sum")?;
    let after = shell.number(stolen)?;
    ensure(after >= before + 10, || format!("stolen time went from {before} to {after} only"))?;
    shell.type_line("poweroff")?;
    board.expect(r"reboot: Power down\n")?;
    board.expect_log("linux turned itself off")?;
    Ok(())
}
