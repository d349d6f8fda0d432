//! What the rounds of a row have on their way through EL2: its instructions, and of these the ones that take longer on hardware than
//! others do. From a trace of each instruction of EL2's and of the guest's readings of the counter, between which a round lies.
//!
//! The trace is QEMU's log. An access to a device is what QEMU says of one behind an instruction of EL2's; all else is told by the
//! instruction's word, from the ELF file.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use super::instruction::{self, Kind};
use crate::code::{self, Code};
use crate::{Failure, Outcome};

/// What marks where rows are: `timed::Mark` of the guests' runtime.
const BEGIN: u16 = 0xbe61;
const END: u16 = 0xe4d5;
const TOLD: u16 = 0x701d;

/// What is on the way of a round, at EL2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Accesses {
    /// Instructions, all of them.
    pub instructions: u64,
    /// MRS and MSR, those of the interrupt controller's registers left out.
    pub system_registers: u64,
    /// MRS and MSR of the interrupt controller's registers.
    pub interrupt_registers: u64,
    /// DSB, DMB, ISB.
    pub barriers: u64,
    /// Maintenance of caches and TLBs, and address translation.
    pub maintenance: u64,
    /// Exclusives, two to a pair, and atomics.
    pub atomics: u64,
    /// Loads-acquire and stores-release.
    pub ordered: u64,
    /// Accesses to devices.
    pub devices: u64,
}

impl Accesses {
    fn add(&mut self, word: u32) {
        self.instructions += 1;
        match Kind::of(word) {
            Kind::SystemRegister => self.system_registers += 1,
            Kind::InterruptRegister => self.interrupt_registers += 1,
            Kind::Barrier => self.barriers += 1,
            Kind::Maintenance => self.maintenance += 1,
            Kind::Atomic => self.atomics += 1,
            Kind::Ordered => self.ordered += 1,
            Kind::ExceptionReturn | Kind::Other => {}
        }
    }
}

/// Between which readings of the counter a round of a row lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// From one into the first register to the next one into the second register.
    Registers(u8, u8),
    /// From each one to the next one, which is the last of the round.
    ByTurns,
    /// From one on another CPU than the row's to the next one on the row's.
    Across,
}

impl Round {
    /// As `guests/bench` and the runtime's `timed` have it.
    fn of(row: &str) -> Self {
        match row {
            "sgi-self" => Self::Registers(8, 12),
            "timer-spinning" | "timer-wfi" | "fault" | "device-mapped" | "device-injected" => {
                Self::Registers(8, 10)
            }
            "doorbell" => Self::Across,
            _ if row.ends_with("-eoi") => Self::Registers(11, 12),
            _ if row.starts_with("switch-") || row.starts_with("ping-pong-") || row == "ipi-round-trip" => {
                Self::ByTurns
            }
            _ => Self::Registers(20, 21),
        }
    }
}

/// What a guest has in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Reading(u8),
    Begin,
    End,
    Told,
}

/// The programs of a traced machine: what their addresses mean.
pub struct Programs {
    el2: Code,
    /// Where EL2's code begins.
    base: u64,
    events: HashMap<u64, Event>,
    /// Where the guest is entered.
    pub entry: u64,
}

impl Programs {
    /// EL2's ELF file, which lies at `base` in the machine, and a guest's.
    ///
    /// # Errors
    /// When one can't be read, the guest's has no marks, or both have code at the same address.
    pub fn read(el2: &Path, base: u64, guest: &Path) -> Outcome<Self> {
        let el2 = Code::read(el2)?;
        let mut events = HashMap::new();
        let code = code::executable(guest)?;
        // The linker script has the entry first.
        let entry = code.iter().map(|(start, _)| *start).min().unwrap_or_default();
        let words = code.iter().flat_map(|(start, code)| (*start..).step_by(4).zip(code.iter().copied()));
        for (address, word) in words {
            let event = match (instruction::counter_reading(word), instruction::mark(word)) {
                (Some(register), _) => Event::Reading(register),
                (_, Some(BEGIN)) => Event::Begin,
                (_, Some(END)) => Event::End,
                (_, Some(TOLD)) => Event::Told,
                _ => continue,
            };
            events.insert(address, event);
        }
        let programs = Self { el2, base, events, entry };
        programs.bounds()?;
        if programs.events.keys().any(|address| programs.word(*address).is_some()) {
            return Err(Failure::Wrong("EL2 and the guest have code at the same address".to_owned()));
        }
        Ok(programs)
    }

    /// Where the guest says that a row begins, and that all have ended.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn bounds(&self) -> Outcome<(u64, u64)> {
        let place = |wanted| {
            let mark = self.events.iter().find(|(_, event)| **event == wanted);
            mark.map(|(address, _)| *address)
                .ok_or_else(|| Failure::Wrong(format!("the guest has no mark {wanted:?}")))
        };
        Ok((place(Event::Begin)?, place(Event::Told)?))
    }

    /// QEMU's option for the addresses that are of use.
    pub fn filter(&self) -> String {
        let size = 4 * self.el2.instructions().count();
        let guest = self.events.keys().map(|address| format!(",{address:#x}+4"));
        format!("{:#x}+{size:#x}{}", self.base, guest.collect::<String>())
    }

    /// EL2's code, and where it begins.
    pub fn el2(&self) -> (&Code, u64) {
        (&self.el2, self.base)
    }

    fn word(&self, address: u64) -> Option<u32> {
        self.el2.instruction(address.checked_sub(self.base)?)
    }
}

/// What each row has on its way: of all of its rounds the one that has the median of instructions. `rows` are the names of the
/// rows in the log, in order.
///
/// # Errors
/// When the log has other rows than these, or one without rounds.
pub fn rows(programs: &Programs, log: &str, rows: &[String]) -> Outcome<Vec<Accesses>> {
    let mut reader = Reader { programs, rows, done: Vec::new(), row: None, last: HashMap::new() };
    for line in log.lines() {
        reader.line(line)?;
    }
    if reader.done.len() != rows.len() {
        return Err(Failure::Wrong(format!("the trace has {} rows, not {rows:?}", reader.done.len())));
    }
    Ok(reader.done)
}

struct Reader<'a> {
    programs: &'a Programs,
    rows: &'a [String],
    done: Vec<Accesses>,
    row: Option<OpenRow>,
    /// Whether what a CPU executed last is of EL2, and can access a device.
    last: HashMap<u32, bool>,
}

/// A row whose rounds go on.
struct OpenRow {
    round: Round,
    cpu: u32,
    rounds: Vec<Accesses>,
    open: Option<Accesses>,
}

impl Reader<'_> {
    fn line(&mut self, line: &str) -> Outcome {
        if let Some((cpu, address)) = executed(line) {
            let event = self.programs.events.get(&address).copied();
            if let Some(word) = self.programs.word(address) {
                self.last.insert(cpu, Kind::of(word) != Kind::ExceptionReturn);
                if let Some(round) = self.round() {
                    round.add(word);
                }
            } else if let Some(event) = event {
                self.last.insert(cpu, false);
                self.event(cpu, event)?;
            }
        } else if let Some(cpu) = accessed(line)
            && self.last.get(&cpu) == Some(&true)
            && let Some(round) = self.round()
        {
            round.devices += 1;
        }
        Ok(())
    }

    fn round(&mut self) -> Option<&mut Accesses> {
        self.row.as_mut()?.open.as_mut()
    }

    fn event(&mut self, cpu: u32, event: Event) -> Outcome {
        match event {
            Event::Begin => {
                let name = self.rows.get(self.done.len());
                let name = name.ok_or_else(|| Failure::Wrong("the trace has a row too much".to_owned()))?;
                self.row = Some(OpenRow { round: Round::of(name), cpu, rounds: Vec::new(), open: None });
            }
            Event::Reading(register) => {
                if let Some(row) = &mut self.row {
                    row.reading(cpu, register);
                }
            }
            Event::Told => {}
            Event::End => {
                let rounds = self.row.take().map(|row| row.rounds);
                let median = rounds.and_then(median);
                let name = self.rows.get(self.done.len());
                let median =
                    median.ok_or_else(|| Failure::Wrong(format!("the trace has no round of {name:?}")))?;
                self.done.push(median);
            }
        }
        Ok(())
    }
}

impl OpenRow {
    fn reading(&mut self, cpu: u32, register: u8) {
        let (begins, ends) = match self.round {
            Round::Registers(begin, end) => (register == begin, register == end),
            Round::ByTurns => (self.open.is_none(), self.open.is_some()),
            Round::Across => (cpu != self.cpu, cpu == self.cpu),
        };
        if ends {
            self.rounds.extend(self.open.take());
        }
        if begins {
            self.open = Some(Accesses::default());
        }
    }
}

fn median(mut rounds: Vec<Accesses>) -> Option<Accesses> {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied()
}

/// The CPU and the address in a line for an executed instruction: `Trace 0: 0x7f… [cs/pc/flags/cflags] name`.
fn executed(line: &str) -> Option<(u32, u64)> {
    let (cpu, rest) = line.strip_prefix("Trace ")?.split_once(':')?;
    let address = rest.split_once('[')?.1.split('/').nth(1)?;
    Some((cpu.parse().ok()?, u64::from_str_radix(address, 16).ok()?))
}

/// The CPUs and addresses of all executed instructions in a log. Where QEMU stops right before one, it says so behind that one's line, and logs it
/// again when it goes on.
pub(super) fn all_executed(log: &str) -> impl Iterator<Item = (u32, u64)> {
    let behind = log.lines().skip(1).chain([""]);
    log.lines()
        .zip(behind)
        .filter(|(_, next)| !next.starts_with("Stopped execution "))
        .filter_map(|(line, _)| executed(line))
}

/// The CPU in a line for an access to a device: `memory_region_ops_read cpu 0 mr …`.
fn accessed(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("memory_region_ops_")?;
    rest.split_once("cpu ")?.1.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4400_0000;
    const ISB: u64 = BASE;
    const MRS: u64 = BASE + 4;
    const LDR: u64 = BASE + 8;
    const ERET: u64 = BASE + 12;
    const GUEST: u64 = 0x4020_0000;

    fn programs() -> Programs {
        let el2 = Code::with_functions(Vec::new(), &[0xd503_3fdf, 0xd53c_cb00, 0xb940_0020, 0xd69f_03e0]);
        let events = [Event::Begin, Event::Reading(20), Event::Reading(21), Event::Reading(8), Event::End];
        Programs { el2, base: BASE, events: (GUEST..).step_by(4).zip(events).collect(), entry: GUEST }
    }

    fn log(executed: &[(u32, u64)]) -> String {
        let line = |(cpu, address): &(u32, u64)| match address {
            0 => {
                format!(
                    "memory_region_ops_read cpu {cpu} mr 0x1 addr 0x9000018 value 0x90 size 4 name 'pl011'\n"
                )
            }
            address => format!("Trace {cpu}: 0x7f00 [00800400/{address:016x}/1e00/ff000201] name\n"),
        };
        executed.iter().map(line).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn on_cpu_0(addresses: &[u64]) -> Vec<(u32, u64)> {
        addresses.iter().map(|address| (0, *address)).collect()
    }

    const BEGIN: u64 = GUEST;
    const X20: u64 = GUEST + 4;
    const X21: u64 = GUEST + 8;
    const X8: u64 = GUEST + 12;
    const END: u64 = GUEST + 16;

    #[test]
    fn a_round_is_what_lies_between_its_readings() {
        // Before the row and between the readings' rounds is nothing that counts; an access behind ERET is the guest's.
        let log = log(&on_cpu_0(&[
            X20, ISB, X21, BEGIN, ISB, X20, ISB, LDR, 0, MRS, 0, ERET, 0, X21, ISB, X20, ISB, X21, X20, X21,
            END,
        ]));
        let found = rows(&programs(), &log, &names(&["hvc-psci-version"])).expect("it is sound");
        // Of the rounds with 4, 1 and 0 instructions it is the one with 1.
        assert_eq!(found, [Accesses { instructions: 1, barriers: 1, ..Accesses::default() }]);

        let log = super::tests::log(&on_cpu_0(&[BEGIN, X20, ISB, LDR, 0, MRS, 0, ERET, 0, X21, END]));
        let found = rows(&programs(), &log, &names(&["hvc-psci-version"])).expect("it is sound");
        let wanted = Accesses {
            instructions: 4,
            barriers: 1,
            interrupt_registers: 1,
            devices: 2,
            ..Accesses::default()
        };
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn rounds_go_by_turns_or_across_cpus() {
        let turns = log(&on_cpu_0(&[BEGIN, X8, ISB, X8, ISB, ISB, X8, ISB, X8, END]));
        // The row's CPU is 1: what CPU 0 reads begins a round, and nothing else.
        let across = log(&[(1, BEGIN), (1, X8), (1, ISB), (0, X8), (0, ISB), (1, ISB), (1, X20), (1, END)]);
        let found = rows(&programs(), &(turns + &across), &names(&["switch-in-vm", "doorbell"]));
        let instructions: Vec<u64> = found.expect("it is sound").iter().map(|row| row.instructions).collect();
        assert_eq!(instructions, [1, 2]);
    }

    #[test]
    fn an_instruction_that_qemu_stops_before_counts_once() {
        let stop = "Stopped execution of TB chain before 0x7f00 [0000000044000004] name\n";
        let log = [log(&[(0, ISB), (0, MRS)]), stop.to_owned(), log(&[(0, MRS), (1, ERET)])].concat();
        assert_eq!(all_executed(&log).collect::<Vec<_>>(), [(0, ISB), (0, MRS), (1, ERET)]);
    }

    #[test]
    fn a_trace_that_lacks_something_is_refused() {
        let one = log(&on_cpu_0(&[BEGIN, X20, ISB, X21, END]));
        assert!(rows(&programs(), &one, &names(&["a", "b"])).is_err(), "a row is missing");
        assert!(rows(&programs(), &(one.clone() + &one), &names(&["a"])).is_err(), "a row too much");
        let none = log(&on_cpu_0(&[BEGIN, X20, ISB, END]));
        assert!(rows(&programs(), &none, &names(&["a"])).is_err(), "no round has ended");
    }
}
