//! What Hanok costs, as `guests/bench` measures it, in instructions: the counter goes at 1 GHz, and QEMU counts an instruction as
//! a nanosecond. The same image gives the same figures whatever the host is at.
//!
//! [`measure`] boots what is needed for all rows; [`trace`] tells what is on the way of their rounds through EL2, and [`boot`] what is on
//! the way to the first guest; [`Budget`] has what rows may come to. [`Sizes`] are the image's and the sources', [`Memory`] is what Hanok takes
//! when it runs. All of it together are [`Figures`]. [`peers`] measures what
//! others cost, by the same guest.

mod accesses;
mod boot;
mod budget;
mod instruction;
pub mod linux;
mod memory;
pub mod peers;
pub mod plot;
pub mod program;
mod report;
mod sizes;

use std::fs;
use std::path::PathBuf;

use regex_lite::Regex;
use serde::Serialize;

pub use accesses::Accesses;
use accesses::Programs;
pub use boot::Boot;
pub use budget::{Budget, Limits};
pub use memory::Memory;
pub use report::{Figures, side_by_side};
pub use sizes::{CrateSize, Sizes};

use crate::{Failure, Machine, Outcome, Scenario, Vm};

/// What the guest ran on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    /// Hanok.
    Hanok,
    /// Xen, with no domain but the guest's.
    Xen,
    /// Linux's KVM, with a VMM that does nothing else.
    Kvm,
    /// Nothing: at EL1 of a board that has no EL2.
    Native,
}

/// What was measured of one thing, in instructions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Whose figures these are.
    pub system: System,
    /// What was measured, by the name that the guest gives it.
    pub row: String,
    /// The GIC's version.
    pub gic: u8,
    /// How often.
    pub rounds: u64,
    /// The least.
    pub min: u64,
    /// No more in half of the rounds.
    pub median: u64,
    /// No more in 99 of 100 rounds.
    pub p99: u64,
    /// The most.
    pub max: u64,
    /// How often it took how long, of rows whose guest tells that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub histogram: Vec<Bucket>,
}

/// A part of a row's rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// Those which took so many instructions or more,
    pub from: u64,
    /// and fewer than so many.
    pub below: u64,
    /// How many rounds that are.
    pub count: u64,
}

/// What is on the way of a row's rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Path {
    /// The row.
    pub row: String,
    /// The GIC's version.
    pub gic: u8,
    /// Of the round that has the median of instructions.
    #[serde(flatten)]
    pub accesses: Accesses,
}

/// A board that is booted for some of the rows.
struct Setup {
    cpus: u8,
    vms: Vec<Vm>,
    arguments: &'static str,
    /// Whether its rounds are short enough for a trace.
    traced: bool,
}

impl Setup {
    fn new(cpus: u8, vms: Vec<Vm>) -> Self {
        Self { cpus, vms, arguments: "hanok.log=debug hanok.color=off", traced: true }
    }

    /// Its rounds are of many millions of instructions.
    fn not_traced(self) -> Self {
        Self { traced: false, ..self }
    }

    fn machine(&self, gic: u8, scenario: &Scenario) -> Outcome<Machine> {
        let bundle = scenario.bundle(&self.vms)?;
        Ok(Machine::new(gic, self.cpus).counted().arguments(self.arguments).bundle(bundle))
    }
}

/// The board's clock, by its path.
const CLOCK: &str = "\"/pl031@9010000\"";
/// MiB that a VM has of which the start is measured: little, since most of the time is taken by clearing it.
const SMALL: u32 = 4;

/// A board with one small VM, whose log is off.
fn boot_setup() -> Setup {
    let setup = Setup::new(1, vec![Vm::bench(1, "bench=boot").memory(SMALL)]);
    Setup { arguments: "hanok.log=off", ..setup.not_traced() }
}

/// One board for each thing that the guest can be told to do.
fn setups(rounds: u32) -> [Setup; 8] {
    let guest = |cpus, what: &str| Vm::bench(cpus, &format!("bench={what} rounds={rounds}"));
    let pair = |what: &str, shared: bool| {
        let end = |name: &str| {
            let vm = guest(1, what).named(name);
            if shared { vm.weight(256) } else { vm }
        };
        vec![end("first"), end("second"), Vm::channel("link", ["first", "second"], 4)]
    };
    let life = vec![
        guest(1, "life").property("rights", "\"control\", \"statistics\""),
        guest(1, "victim").named("victim").memory(SMALL).property("start", "\"manual\""),
        Vm::channel("link", ["bench", "victim"], 4),
    ];
    [
        boot_setup(),
        Setup::new(1, vec![guest(1, "exits")]),
        Setup::new(1, vec![guest(1, "devices").property("passthrough", CLOCK)]),
        Setup::new(1, vec![guest(2, "switch").weight(256)]),
        Setup::new(1, pair("switch-vms", true)),
        Setup::new(2, vec![guest(2, "ipi")]),
        Setup::new(2, pair("doorbell", false)),
        Setup::new(2, life).not_traced(),
    ]
}

/// All rows that the guest measures, with the GIC of this version.
///
/// # Errors
/// When a guest doesn't come to its end, or says nothing of use.
pub fn measure(scenario: &Scenario, gic: u8, rounds: u32) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    for setup in setups(rounds) {
        let said = scenario.boot(&setup.machine(gic, scenario)?)?.expect_off()?;
        rows.extend(read(&said, System::Hanok, gic)?);
    }
    Ok(rows)
}

/// Models of CPUs whose branch predictors take different things on an exit, where firmware has no workaround.
const MODELS: [&str; 4] = ["max", "cortex-a72", "neoverse-n1", "neoverse-v1"];

/// Exits on a CPU of one model.
#[derive(Clone, Debug, Serialize)]
pub struct OnModel {
    /// QEMU's name of it.
    pub model: &'static str,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl OnModel {
    /// On each of the models that differ, with a GICv3.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn measure(scenario: &Scenario, rounds: u32) -> Outcome<Vec<Self>> {
        let setup = Setup::new(1, vec![Vm::bench(1, &format!("bench=exits rounds={rounds}"))]);
        let on = |model| {
            let machine = setup.machine(3, scenario)?.cpu(&format!("{model},cntfrq=1000000000"));
            let said = scenario.boot(&machine)?.expect_off()?;
            Ok(Self { model, rows: read(&said, System::Hanok, 3)? })
        };
        MODELS.into_iter().map(on).collect()
    }
}

/// How many rounds are traced.
const TRACED_ROUNDS: u32 = 20;
/// Where QEMU puts an image, by the field `text_offset` of its header: the base of RAM and this.
const RAM: u64 = 0x4000_0000;
/// The image lies further up than else, so that no guest has code at its addresses.
const TEXT_OFFSET: u64 = 64 << 20;

/// A machine whose instructions QEMU logs, for those who ask for it.
struct Traced {
    programs: Programs,
    image: PathBuf,
    log: PathBuf,
}

impl Traced {
    fn new(scenario: &Scenario) -> Outcome<Self> {
        let inputs = scenario.inputs();
        let programs = Programs::read(&inputs.elf, RAM + TEXT_OFFSET, &inputs.guests.join("bench.elf"))?;
        Ok(Self { programs, image: moved_image(scenario)?, log: scenario.file("trace.log") })
    }

    /// Boots it and logs from `from`, or from reset, until it comes to `to`. Returns what the guests have said.
    fn run(
        &self,
        scenario: &Scenario,
        gic: u8,
        setup: &Setup,
        from: Option<u64>,
        to: u64,
    ) -> Outcome<String> {
        let machine = setup
            .machine(gic, scenario)?
            .image(self.image.clone())
            .with_gdb()
            .option("-accel", "tcg,one-insn-per-tb=on")
            .option("-dfilter", self.programs.filter())
            .option("-D", self.log.display().to_string());
        let board = scenario.boot(&machine)?;
        let mut gdb = board.gdb()?;
        // Nothing else is logged: to give memory to a VM and to take it back is many millions of instructions.
        if let Some(from) = from {
            gdb.run_to_address(from)?;
        }
        gdb.monitor("log exec,nochain,trace:memory_region_ops_read,trace:memory_region_ops_write")?;
        gdb.run_to_address(to)?;
        gdb.monitor("log none")?;
        gdb.run()?;
        board.expect_off()
    }

    fn log(&self) -> Outcome<String> {
        fs::read_to_string(&self.log).map_err(Failure::io(format!("read {}", self.log.display())))
    }
}

/// What the rounds of all rows have on their way through EL2, with the GIC of this version.
///
/// # Errors
/// As [`measure`], and when the trace isn't of these rows.
pub fn trace(scenario: &Scenario, gic: u8) -> Outcome<Vec<Path>> {
    let traced = Traced::new(scenario)?;
    let (first, end) = traced.programs.bounds()?;
    let mut paths = Vec::new();
    for setup in setups(TRACED_ROUNDS).iter().filter(|setup| setup.traced) {
        let said = traced.run(scenario, gic, setup, Some(first), end)?;
        let rows: Vec<String> =
            read(&said, System::Hanok, gic)?.into_iter().map(|Row { row, .. }| row).collect();
        let found = accesses::rows(&traced.programs, &traced.log()?, &rows)?;
        paths.extend(rows.into_iter().zip(found).map(|(row, accesses)| Path { row, gic, accesses }));
    }
    Ok(paths)
}

/// Where the instructions go from reset to the first one of a guest, with the GIC of this version.
///
/// # Errors
/// As [`measure`], and when the trace has nothing of what takes longest.
pub fn boot(scenario: &Scenario, gic: u8) -> Outcome<Boot> {
    let traced = Traced::new(scenario)?;
    traced.run(scenario, gic, &boot_setup(), None, traced.programs.entry)?;
    let (el2, base) = traced.programs.el2();
    Boot::read(el2, base, &traced.log()?)
}

/// The image, with [`TEXT_OFFSET`] in its header. It runs wherever it is loaded.
fn moved_image(scenario: &Scenario) -> Outcome<PathBuf> {
    let path = &scenario.inputs().image;
    let mut image = fs::read(path).map_err(Failure::io(format!("read {}", path.display())))?;
    let field = image.get_mut(8..16).ok_or_else(|| Failure::Wrong("the image has no header".to_owned()))?;
    field.copy_from_slice(&TEXT_OFFSET.to_le_bytes());
    scenario.write("moved.img", image)
}

/// The rows in what the consoles of guests have said, by themselves or with a name before each line, as Hanok and Xen put it there.
/// There is one at least.
fn read(said: &str, system: System, gic: u8) -> Outcome<Vec<Row>> {
    let line = |rest: &str| {
        let line = format!(r"(?m)^(?:\[[a-z]+\] |\(XEN\) (?:DOM\d+: )?)?bench: (\S+) {rest}$");
        Regex::new(&line).map_err(|error| Failure::Wrong(error.to_string()))
    };
    let buckets = line(r"from=(\d+) below=(\d+) count=(\d+)")?;
    let buckets: Vec<_> = buckets.captures_iter(said).map(|found| found.extract::<4>().1).collect();
    let rows = line(r"rounds=(\d+) min=(\d+) median=(\d+) p99=(\d+) max=(\d+)")?;
    let rows = rows.captures_iter(said).map(|found| {
        let (_, [row, numbers @ ..]) = found.extract::<6>();
        let numbers = numbers.map(|text| text.parse().map_err(|_| Failure::Wrong(format!("{row}: {text}?"))));
        let [rounds, min, median, p99, max] = numbers;
        let own = buckets.iter().filter(|[name, ..]| *name == row);
        let histogram = own.map(|[_, numbers @ ..]| {
            let [from, below, count] =
                numbers.map(|text| text.parse().map_err(|_| Failure::Wrong(format!("{row}: {text}?"))));
            Ok(Bucket { from: from?, below: below?, count: count? })
        });
        let histogram = histogram.collect::<Outcome<_>>()?;
        Ok(Row {
            system,
            row: row.to_owned(),
            gic,
            rounds: rounds?,
            min: min?,
            median: median?,
            p99: p99?,
            max: max?,
            histogram,
        })
    });
    let rows = rows.collect::<Outcome<Vec<_>>>()?;
    if rows.is_empty() {
        return Err(Failure::Wrong("the guest has measured nothing".to_owned()));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_among_other_lines() {
        let said = "[    0.1] hanok: bench is off\n\
                    bench: empty rounds=100 min=2 median=3 p99=4 max=5\n\
                    [second] bench: doorbell rounds=1 min=6 median=7 p99=8 max=9\n\
                    (XEN) DOM1: bench: a rounds=1 min=1 median=1 p99=1 max=1\n\
                    (XEN) bench: b rounds=1 min=2 median=2 p99=2 max=2\n\
                    bench: a from=0 below=1 count=5\n\
                    (XEN) bench: a from=8 below=9 count=1\n\
                    bench: done\n";
        let rows = read(said, System::Xen, 3).expect("all are sound");
        let row = |row: &str, [rounds, min, median, p99, max]: [u64; 5]| Row {
            system: System::Xen,
            row: row.to_owned(),
            gic: 3,
            rounds,
            min,
            median,
            p99,
            max,
            histogram: Vec::new(),
        };
        let buckets = [(0, 1, 5), (8, 9, 1)].map(|(from, below, count)| Bucket { from, below, count });
        let wanted = [
            row("empty", [100, 2, 3, 4, 5]),
            row("doorbell", [1, 6, 7, 8, 9]),
            Row { histogram: buckets.into(), ..row("a", [1, 1, 1, 1, 1]) },
            row("b", [1, 2, 2, 2, 2]),
        ];
        assert_eq!(rows, wanted);
    }

    #[test]
    fn a_guest_that_measured_nothing_is_told() {
        let failure = read("bench: done\n", System::Kvm, 3).expect_err("there is no row");
        assert_eq!(failure.to_string(), "the guest has measured nothing");
    }
}
