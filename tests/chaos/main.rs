//! `make chaos`: the guest `chaos` for so many operations in all, on every machine and from several seeds, beside good neighbours. Prints
//! a table of what ran. Fails, at the end, if a run has.
//!
//! Time is the host's, with one vCPU too: where instructions are what counts it, a guest that takes exceptions without end, for its vectors
//! aren't mapped any more, stops it for all, and in some ten thousand operations one does.

use std::env;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tests::bench::program;
use tests::{Chaos, Done, Failure, Inputs, Outcome, Scenario};

/// The most that one run is for: a failure is looked into the sooner.
const PER_RUN: u64 = 200_000;

fn main() -> ExitCode {
    program::run("chaos", "OPERATIONS FIRST-SEED", chaos)
}

fn number(text: &str) -> Outcome<u64> {
    text.replace('_', "").parse().map_err(|_| Failure::Wrong(format!("{text} is no number")))
}

fn chaos([operations, seed]: [String; 2]) -> Outcome {
    let (operations, first_seed) = (number(&operations)?, number(&seed)?);
    let inputs = Inputs::from_environment();
    let machines = [2, 3].into_iter().flat_map(|gic| {
        let models = ["cortex-a53", "cortex-a72", "max"];
        models.into_iter().flat_map(move |cpu| [1, 4].map(|vcpus| (gic, cpu, vcpus)))
    });
    let machines: Vec<_> = machines.collect();
    let per_machine = operations.div_ceil(machines.len() as u64);
    let runs_each = per_machine.div_ceil(PER_RUN).max(1);
    let per_run = per_machine.div_ceil(runs_each);
    // Each machine's first run comes before any machine's second one.
    let runs: Vec<Chaos> = (0..runs_each)
        .flat_map(|_| machines.iter())
        .zip(first_seed..)
        .map(|(&(gic, cpu, vcpus), seed)| Chaos { gic, cpu, vcpus, seed, operations: per_run, at_once: true })
        .collect();
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    println!("{} runs of {per_run} operations", runs.len());
    println!(
        "{:40} {:>10} {:>7}  restarts, stops, off, crashed; vCPUs began",
        "run", "operations", "seconds"
    );
    thread::scope(|scope| {
        // QEMU has a thread for each of its CPUs.
        let workers = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let result = one(&inputs, run);
                    print(run, &result);
                    if let Ok(mut results) = results.lock() {
                        results.push(result);
                    }
                }
            });
        }
    });
    let results = results.into_inner().map_err(|_| Failure::Wrong("a run has panicked".to_owned()))?;
    summary(&results);
    match results.iter().flat_map(|result| result.as_ref().err()).filter(|why| !is_qemu_s_own(why)).count() {
        0 => Ok(()),
        failed => Err(Failure::Wrong(format!("{failed} of {} runs failed", results.len()))),
    }
}

fn one(inputs: &Inputs, run: &Chaos) -> Outcome<Done> {
    let name = format!("hanok-chaos-{}-{run}", std::process::id());
    let scenario = Scenario::new(inputs, &env::temp_dir(), &name)?;
    let done = run.run(&scenario).map_err(|failure| Failure::Wrong(scenario.report(&failure)))?;
    scenario.clean();
    Ok(done)
}

fn print(run: &Chaos, result: &Outcome<Done>) {
    let name = run.to_string();
    match result {
        Ok(done) => println!(
            "{name:40} {:>10} {:>7}  {:?}; {}",
            done.operations,
            done.took.as_secs(),
            done.helped,
            done.beginnings
        ),
        Err(failure) if is_qemu_s_own(failure) => {
            println!("{name:40} an assertion of QEMU's own translator failed: the run doesn't count");
        }
        Err(failure) => println!("{name:40} FAILED: {failure}"),
    }
}

/// Whether it is QEMU that has failed, at translating what the guest executes. QEMU 10.0.2 does so at some words of AArch32.
fn is_qemu_s_own(failure: &Failure) -> bool {
    let text = failure.to_string();
    text.lines()
        .any(|line| line.starts_with("qemu-system-aarch64: target/arm/tcg/") && line.contains("Assertion"))
}

/// All runs together, by kinds and by ends.
fn summary(results: &[Outcome<Done>]) {
    let done = || results.iter().flatten();
    println!("{:40} {:>10}", "in all", done().map(|done| done.operations).sum::<u64>());
    let add = |all: &mut Vec<(String, u64)>, (name, count): &(String, u64)| match all
        .iter_mut()
        .find(|(n, _)| n == name)
    {
        Some((_, sum)) => *sum += count,
        None => all.push((name.clone(), *count)),
    };
    let (mut kinds, mut ends) = (Vec::new(), Vec::new());
    for done in done() {
        done.kinds.iter().for_each(|kind| add(&mut kinds, kind));
        done.ends.iter().for_each(|end| add(&mut ends, end));
    }
    for (kind, count) in kinds {
        println!("    {kind:36} {count:>10}");
    }
    for (end, count) in ends {
        println!("    ended by {end:27} {count:>10}");
    }
}
