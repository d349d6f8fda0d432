//! `top`: what each vCPU did in the last second, drawn anew every second.

use core::cmp::Reverse;
use core::fmt::Write;

use abi::record::{VcpuRecord, VmRecord, state};
use arrayvec::{ArrayString, ArrayVec};

use crate::host::{Host, Stop, VCPUS, VMS, for_each_vcpu, for_each_vm};
use crate::text::{Name, Rate, Share, Size, name, short};

/// vCPUs that have room on a terminal of 24 rows.
const ROWS: usize = 19;
/// The whole of a [`Share`].
const WHOLE: u64 = 1000;
/// Exits by their reason, each a few letters of [`EXITS`](abi::record::EXITS), so that a row has 79 columns at most.
const REASONS: [&str; 8] = ["irq", "hvc", "smc", "sys", "mmio", "abrt", "wfx", "oth"];

/// What a vCPU had done when it was looked at last.
#[derive(Clone, Copy)]
struct Sample {
    ran: u64,
    waited: u64,
    exits: [u64; 8],
    interrupts: u64,
    /// The board's counter then; 0: it has never been looked at.
    now: u64,
}

impl Sample {
    const NEVER: Self = Self { ran: 0, waited: 0, exits: [0; 8], interrupts: 0, now: 0 };

    fn of(record: &VcpuRecord) -> Self {
        let VcpuRecord { ran, waited, exits, interrupts, now, .. } = *record;
        Self { ran, waited, exits, interrupts, now }
    }
}

/// What a vCPU did between two looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    vm: Name,
    vcpu: u32,
    cpu: u64,
    /// In thousandths.
    ran: u64,
    /// In thousandths.
    waited: u64,
    /// Bytes that its VM holds.
    memory: u64,
    /// In a second.
    interrupts: u64,
    /// In a second, by reason.
    exits: [u64; 8],
}

impl Row {
    /// What it is sorted by: a pinned vCPU has its CPU always, so that exits tell how busy it is.
    fn busy(&self) -> (u64, u64) {
        (self.ran, self.exits.iter().fold(0, |sum, exits| sum.saturating_add(*exits)))
    }
}

/// All VMs together.
#[derive(Default)]
struct Totals {
    vms: u32,
    running: u32,
    vcpus: u32,
    held: u64,
    free: u64,
}

/// The last look at every vCPU.
pub(crate) struct Top {
    samples: [[Sample; VCPUS as usize]; VMS as usize],
}

impl Top {
    pub const fn new() -> Self {
        Self { samples: [[Sample::NEVER; VCPUS as usize]; VMS as usize] }
    }

    /// Draws a picture every second until a key is typed, or so many times.
    pub fn run(&mut self, host: &mut impl Host, pictures: Option<u32>) -> Result<(), Stop> {
        self.samples = [[Sample::NEVER; VCPUS as usize]; VMS as usize];
        self.look(host)?;
        let second = host.frequency();
        let mut due = host.now();
        let mut drawn = 0;
        while pictures.is_none_or(|pictures| drawn < pictures) {
            // The next second on the grid that isn't over: whoever was kept from the CPU doesn't draw twice at once.
            due = due.saturating_add(second).max(host.now());
            if host.key(Some(due)).is_some() {
                break;
            }
            let (rows, totals) = self.look(host)?;
            host.write_str(if drawn == 0 { "\x1b[H\x1b[2J" } else { "\x1b[H" })?;
            draw(host, &rows, &totals)?;
            host.write_str("\x1b[J")?;
            drawn += 1;
        }
        Ok(())
    }

    /// Looks at all vCPUs: what they did since the last time.
    fn look(&mut self, host: &mut impl Host) -> Result<(ArrayVec<Row, ROWS>, Totals), Stop> {
        let mut rows = ArrayVec::new();
        let mut totals = Totals { free: host.board()?.free, ..Totals::default() };
        for_each_vm(host, |host, vm, record| {
            totals.vms += 1;
            totals.running += u32::from(record.state == state::RUNNING);
            totals.held = totals.held.saturating_add(record.held);
            for_each_vcpu(host, vm, record, |_, vcpu, now| {
                if now.power != ON {
                    return;
                }
                totals.vcpus += 1;
                let last = core::mem::replace(&mut self.samples[vm as usize][vcpu as usize], Sample::of(now));
                if last.now != 0 {
                    keep(&mut rows, row(record, vcpu, now, &last));
                }
            })
        })?;
        if totals.vcpus as usize > ROWS {
            rows.sort_unstable_by_key(|row: &Row| (Reverse(row.busy()), row.vm, row.vcpu));
        }
        Ok((rows, totals))
    }
}

/// [`VcpuRecord::power`]: it is on.
const ON: u64 = 2;

fn row(vm: &VmRecord, vcpu: u32, now: &VcpuRecord, last: &Sample) -> Row {
    let time = now.now.saturating_sub(last.now).max(1);
    let share = |now: u64, last| (now.saturating_sub(last).saturating_mul(WHOLE) / time).min(WHOLE);
    let rate = |now: u64, last| now.saturating_sub(last).saturating_mul(vm.frequency) / time;
    Row {
        vm: name(vm),
        vcpu,
        cpu: now.cpu,
        ran: share(now.ran, last.ran),
        waited: share(now.waited, last.waited),
        memory: vm.held,
        interrupts: rate(now.interrupts, last.interrupts),
        exits: core::array::from_fn(|reason| rate(now.exits[reason], last.exits[reason])),
    }
}

/// Adds a row, in place of the least busy one if there is no room.
fn keep(rows: &mut ArrayVec<Row, ROWS>, row: Row) {
    if let Err(full) = rows.try_push(row) {
        let row = full.element();
        if let Some(least) =
            rows.iter_mut().min_by_key(|row| row.busy()).filter(|least| least.busy() < row.busy())
        {
            *least = row;
        }
    }
}

/// Every line replaces what was there.
fn draw(out: &mut impl Write, rows: &[Row], totals: &Totals) -> Result<(), Stop> {
    const END: &str = "\x1b[K\n";
    let Totals { vms, running, vcpus, held, free } = totals;
    write!(
        out,
        "{running} of {vms} VMs run, {vcpus} vCPUs on; memory: {} held, {} free; a key ends this{END}",
        Size(*held),
        Size(*free)
    )?;
    write!(out, "{END}{:12} {:>3} {:>5} {:>5} {:>5} {:>4}", "vm.vcpu", "cpu", "run%", "wait%", "mem", "int")?;
    for reason in REASONS {
        write!(out, " {reason:>4}")?;
    }
    out.write_str(END)?;
    for row in rows {
        let (run, wait, memory) = (Share(row.ran), Share(row.waited), Size(row.memory));
        let name = label(row);
        write!(out, "{name:12} {:>3} {run:>5} {wait:>5} {memory:>5} {:>4}", row.cpu, Rate(row.interrupts))?;
        for rate in row.exits {
            write!(out, " {:>4}", Rate(rate))?;
        }
        out.write_str(END)?;
    }
    match (*vcpus as usize).saturating_sub(rows.len()) {
        0 => {}
        more => write!(out, "and {more} more{END}")?,
    }
    Ok(())
}

/// VM and vCPU; a long name is cut.
fn label(row: &Row) -> ArrayString<16> {
    const ROOM: usize = 10;
    match row.vm.get(..ROOM - 1).filter(|_| row.vm.len() > ROOM) {
        Some(beginning) => short(format_args!("{beginning}~.{}", row.vcpu)),
        None => short(format_args!("{}.{}", row.vm, row.vcpu)),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use abi::record::EXITS;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn vm(name: &str) -> VmRecord {
        let words = VmRecord::words_of_name(name);
        VmRecord { name: words, held: 3 << 20, frequency: 1000, ..VmRecord::from_words(&[]) }
    }

    #[test]
    fn a_row_is_the_difference_of_two_looks() {
        let at = |now, scale: u64| VcpuRecord {
            cpu: 3,
            power: ON,
            ran: 500 * scale,
            waited: 250 * scale,
            exits: core::array::from_fn(|n| n as u64 * 10 * scale),
            interrupts: 7 * scale,
            now,
        };
        // Two seconds, in which a half, a quarter, and so on.
        let row = row(&vm("one"), 1, &at(5000, 6), &Sample::of(&at(3000, 4)));
        assert_eq!((row.ran, row.waited, row.interrupts, row.cpu), (500, 250, 7, 3));
        assert_eq!(row.exits, [0, 10, 20, 30, 40, 50, 60, 70]);
    }

    #[test]
    fn reasons_are_letters_of_their_names_in_order() {
        for (short, name) in REASONS.into_iter().zip(EXITS) {
            let mut letters = name.chars();
            assert!(short.chars().all(|letter| letters.any(|other| other == letter)), "{short} {name}");
        }
    }

    #[test]
    fn the_busiest_stay_where_there_is_no_room() {
        let mut rows = ArrayVec::new();
        let idle = row(&vm("a"), 0, &VcpuRecord::from_words(&[]), &Sample::NEVER);
        for n in 0..100 {
            keep(&mut rows, Row { ran: (n * 37) % 100, ..idle.clone() });
        }
        let mut ran: Vec<u64> = rows.iter().map(|row| row.ran).collect();
        ran.sort_unstable();
        assert_eq!(ran, (100 - ROWS as u64..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_picture_fits_into_a_terminal() {
        let widest = Row {
            vm: short("a-name-of-thirty-one-characters"),
            vcpu: 7,
            cpu: 255,
            ran: 1000,
            waited: 1000,
            memory: 255 << 30,
            interrupts: 999_999,
            exits: [999_999_999; 8],
        };
        let rows = [const { None::<Row> }; ROWS].map(|_| widest.clone());
        let totals = Totals { vms: 64, running: 64, vcpus: 512, held: 255 << 30, free: 255 << 30 };
        let mut out = String::new();
        draw(&mut out, &rows, &totals).expect("strings have room");
        let lines: Vec<String> = out.lines().map(|line| line.replace("\x1b[K", "").to_string()).collect();
        assert!(lines.iter().all(|line| line.len() < 80), "{lines:#?}");
        assert!(lines.len() < 24, "{} lines", lines.len());
        assert!(lines[3].starts_with("a-name-of~.7 "), "{}", lines[3]);
        assert_eq!(lines.last().map(String::as_str), Some("and 493 more"));
    }
}
