//! Guests that do as real-time and computing systems do: one whose timer ticks a thousand times a second, and one that
//! is always busy and knows what its registers held.

use std::collections::HashSet;

use tests::{Machine, Outcome, Scenario, Vm, ensure, ensure_equal};

use crate::case::{Case, Named, on_both_gics};

pub fn cases() -> Vec<Case> {
    let all: [Named; 6] = [
        ("pulse", pulse),
        ("busy/two-vms", two_vms),
        ("busy/manifest", manifest),
        ("busy/4-vcpus", four_vcpus),
        ("busy/notices", notices),
        ("busy/notices-others", notices_others),
    ];
    on_both_gics("", &all).collect()
}

/// With a CPU of its own a guest misses no tick of its timer. Time is what instructions take, so the host's other work
/// doesn't count.
fn pulse(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::pulse("ticks=2000 reports=2 work=100")])?;
    let machine = Machine::new(gic, 2).bundle(bundle).option("-icount", "shift=0,sleep=off");
    let mut board = scenario.boot(&machine)?;
    board.expect(r"(?m)^pulse: a timer of 1000 Hz; every 2000 ticks, how late they were \(work=100, ")?;
    for report in 1..=2 {
        board.expect(&format!(r"(?m)^pulse: report {report}: 2000 ticks, 0 missed\n"))?;
        let mut least = 0;
        for name in ["min", "median", "99%", "max"] {
            let found =
                board.expect(&format!(r"(?m)^pulse: {name} (\d+) ticks of the counter, \d+\.\d us\n"))?;
            let late = found.number(1)?;
            ensure(late >= least, || format!("{name} is {late} ticks, less than what came before"))?;
            least = late;
        }
    }
    let text = board.expect_off()?;
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("pulse: <")?.split_once(" us ")?.1.parse::<u64>().ok());
    ensure_equal("ticks in the histograms", rows.sum::<u64>(), 4000u64)
}

/// Two of them side by side, to their end.
fn two_vms(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [1, 2].map(|n| Vm::busy(1, &format!("seed={n} rounds=1500")).named(&format!("busy{n}")));
    let board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&vms)?))?;
    let text = board.expect_off()?;
    for line in
        ["busy: done, 1500 rounds, all registers kept", "[busy2] busy: done, 1500 rounds, all registers kept"]
    {
        ensure(text.lines().any(|said| said == line), || format!("nobody said: {line}"))?;
    }
    Ok(())
}

/// As `guests/busy.dts` has them: without an end.
fn manifest(scenario: &Scenario, gic: u8) -> Outcome {
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.built_bundle("busy")?))?;
    for vm in ["", r"\[busy2\] "] {
        board.expect_ever(&format!(r"(?m)^{vm}busy: vCPU 0: round 20000\n"))?;
    }
    let stopped = board.text().contains("turned itself off");
    ensure(!stopped, || "one of them has turned itself off".to_owned())
}

/// On all features that the hypervisor shows, with sleep between rounds, and SGIs from each CPU to the next.
fn four_vcpus(scenario: &Scenario, gic: u8) -> Outcome {
    let bundle = scenario.bundle(&[Vm::busy(4, "rounds=400 every=100 sleep=1")])?;
    let mut board = scenario.boot(&Machine::new(gic, 4).cpu("max").bundle(bundle))?;
    board
        .expect(r"(?m)^busy: 4 vCPU\(s\) compute and keep their registers, seed 0, rounds 400, sleep 1\n")?;
    for cpu in 0..4 {
        board.expect_ever(&format!(r"(?m)^busy: vCPU {cpu}: round 400\n"))?;
        let next = (cpu + 1) % 4;
        board
            .expect_ever(&format!(r"(?m)^busy: vCPU {cpu}: 400 SGIs sent, 400 received by vCPU {next}\n"))?;
    }
    board.expect_ever(r"(?m)^busy: done, 400 rounds, all registers kept\n")?;
    board.expect_off()?;
    Ok(())
}

/// It notices a register of any kind that has changed.
fn notices(scenario: &Scenario, gic: u8) -> Outcome {
    let names = ["V3", "X7", "NZCV", "TPIDR_EL0", "DBGWVR1_EL1", "CNTV_CVAL_EL0", "PMR", "checksum"];
    let vms = names.map(|name| Vm::busy(1, &format!("spoil={name}")).named(&format!("busy-{name}")));
    let board = scenario.boot(&Machine::new(gic, names.len() as u8).bundle(scenario.bundle(&vms)?))?;
    let text = board.expect_off()?;
    let noticed: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.split_once("busy: vCPU 0: ")?.1.split_once(" is 0x"))
        .map(|(name, _)| name.trim_start_matches("the "))
        .collect();
    ensure_equal("what was noticed", noticed, HashSet::from(names))
}

/// It notices memory that has changed, and an interrupt that isn't its own; without either it notices nothing.
fn notices_others(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = ["memory", "interrupts", "nothing"].map(|name| {
        Vm::busy(1, &format!("memory=1 interrupts=1 rounds=100 spoil={name}")).named(&format!("busy-{name}"))
    });
    let mut board = scenario.boot(&Machine::new(gic, vms.len() as u8).bundle(scenario.bundle(&vms)?))?;
    for noticed in [
        r"(?m)^busy: vCPU 0: memory at 0x4[0-9a-f]{7} is 0x[0-9a-f]+, was 0x[0-9a-f]+\n",
        r"(?m)^\[busy-interrupts\] busy: vCPU 0: interrupt 32 came, which nobody has asked for\n",
        r"(?m)^\[busy-nothing\] busy: done, 100 rounds, all registers kept\n",
    ] {
        board.expect_ever(noticed)?;
    }
    board.expect_off()?;
    Ok(())
}
