//! `what=guard`: a VM that does harm to itself, as `chaos` does, goes on until it has done enough, and whatever it has done, all
//! memory is there.
//!
//! The victim counts what it does in a channel. Where it hasn't got on for a while, it is restarted, or stopped and started
//! again, in turn; where it has turned itself off or crashed, it is started. Whenever it is off, nobody may have any of its memory: as much
//! is free as there was at the first time, but for what others have given back or taken since. In the end, it is told what was done.
//!
//! - `operations=N`: how much is enough (10000).
//! - `patience=M`: how long it may stand still, in microseconds (50000); twice as long whenever it did nothing since it was helped.
//! - `most=M`: it is restarted after this time at the latest, however well it gets on (0: it is not).
//! - `every=N`: a line about where it is, each time it has done so much more (100000).

use core::fmt;

use abi::record::state;
use abi::{Control, Error};
use runtime::channel;
use runtime::machine::MAX_CPUS;
use runtime::progress::{CHANNEL, MAX_KINDS, Progress, WAYS};
use runtime::timer;
use runtime::{hanok, power, println};

use crate::{Keeper, argument, fail, patiently, sleep};

/// What was done to the victim, and why.
#[derive(Default)]
struct Help {
    restarts: u64,
    stops: u64,
    ends: u64,
    crashes: u64,
}

pub fn run(keeper: &Keeper) -> ! {
    let operations: u64 = argument("operations", 10_000);
    let shortest = timer::microseconds(argument("patience", 50_000));
    let most = timer::microseconds(argument("most", 0));
    let every: u64 = argument("every", 100_000).max(1);
    let Some(channel) = channel::find(CHANNEL) else { fail(format_args!("there is no channel {CHANNEL:?}")) };
    let progress = Progress::new(&channel);
    let all = everything(keeper);
    let mut help = Help::default();
    let (mut seen, mut changed, mut begun) = (progress.total(), timer::now(), timer::now());
    // What it had done when it was helped last: whoever has little time is to come to something all the same.
    let (mut patience, mut helped_at) = (shortest, 0);
    let mut told = 0;
    println!("keeper: guards a VM of {} vCPU(s) for {operations} operations", keeper.info().vcpus);
    loop {
        sleep(1000);
        let total = progress.total();
        if total >= told + every {
            told = total / every * every;
            tell(&progress, total);
        }
        if total >= operations {
            break;
        }
        let now = timer::now();
        if total != seen {
            (seen, changed) = (total, now);
        }
        let off = match keeper.info().state {
            state::STOPPED => {
                help.ends += 1;
                true
            }
            state::CRASHED => {
                help.crashes += 1;
                true
            }
            _ => false,
        };
        let stands_still = now.saturating_sub(changed) > patience;
        let hangs = stands_still || most > 0 && now - begun > most;
        if stands_still && !off {
            println!("keeper: it stands still");
            tell(&progress, total);
            patience = if total == helped_at { 2 * patience } else { shortest };
            helped_at = total;
        }
        if off {
            is_gone(keeper, all);
            begin(keeper, Control::Start);
        } else if hangs && help.restarts % 4 == 3 {
            help.restarts += 1;
            help.stops += 1;
            stop(keeper, all);
            begin(keeper, Control::Start);
        } else if hangs {
            help.restarts += 1;
            begin(keeper, Control::Restart);
        } else {
            continue;
        }
        // It has to be loaded first.
        (changed, begun) = (timer::now() + 2 * patience, timer::now());
    }
    stop(keeper, all);
    tell_all(&progress, &help);
    power::off()
}

/// All memory of the board: what is free, and what each VM has. `None`: it changes just now.
fn count(keeper: &Keeper) -> Option<u64> {
    let board = patiently(hanok::board_info);
    let held: u64 = (0..keeper.board.vms as u32).map(|vm| patiently(|| hanok::vm_info(vm)).held).sum();
    let again = patiently(hanok::board_info);
    (board.free == again.free).then_some(board.free + held)
}

/// The same, when nothing changes.
fn everything(keeper: &Keeper) -> u64 {
    for _ in 0..1000 {
        if let Some(all) = count(keeper) {
            return all;
        }
        sleep(1000);
    }
    fail(format_args!("the free memory never stays the same"))
}

/// Waits until the victim, which is off, has given all of its memory back, and sees that it is there.
fn is_gone(keeper: &Keeper, all: u64) {
    keeper.wait("off, without any memory", |info| {
        [state::STOPPED, state::CRASHED].contains(&info.state) && info.held == 0
    });
    // Another VM may be about to give back its own.
    let mut now = 0;
    for _ in 0..100 {
        now = everything(keeper);
        if now == all {
            return;
        }
        sleep(1000);
    }
    fail(format_args!("there were {all} bytes of memory, and there are {now}"));
}

/// Stops the victim, whatever it is at.
fn stop(keeper: &Keeper, all: u64) {
    begin(keeper, Control::Stop);
    is_gone(keeper, all);
}

/// Begins something. That it is off already, or starting, is the victim's own doing, and seen at the next look.
fn begin(keeper: &Keeper, what: Control) {
    loop {
        match hanok::control(what, keeper.victim) {
            Ok(()) => return,
            Err(Error::Busy) => {}
            Err(Error::WrongState) if what != Control::Stop => return,
            // It is stopping, or about to start: it has to be off in the end.
            Err(Error::WrongState) => {
                if [state::STOPPED, state::CRASHED].contains(&keeper.info().state) {
                    return;
                }
                sleep(1000);
            }
            Err(error) => fail(format_args!("{what:?}: Hanok says {error}")),
        }
    }
}

/// Where each vCPU is, to begin there.
fn tell(progress: &Progress, total: u64) {
    println!("keeper: seed {}: {total} operations", progress.seed());
    for cpu in (0..MAX_CPUS).filter(|cpu| progress.of(*cpu).beginnings > 0) {
        let count = progress.of(cpu);
        println!(
            "keeper: vCPU {cpu} is at {}, {}, has begun {} times",
            count.begun,
            name(&progress.name(count.kind)),
            count.beginnings
        );
    }
}

/// What was done, of each kind.
fn tell_all(progress: &Progress, help: &Help) {
    for kind in 0..MAX_KINDS {
        let name = progress.name(kind);
        if name[0] != 0 {
            println!("keeper: {}: {}", self::name(&name), progress.of_kind(kind));
        }
    }
    for way in (0..WAYS).filter(|way| progress.ends(*way) > 0) {
        println!("keeper: {} ended by {}", progress.ends(way), Way(way));
    }
    let faults: u64 = (0..MAX_CPUS).map(|cpu| progress.of(cpu).own_faults).sum();
    let beginnings: u64 = (0..MAX_CPUS).map(|cpu| progress.of(cpu).beginnings).sum();
    println!(
        "keeper: {} operations; {} restarts and {} stops, as it stood still; {} times off, {} crashes",
        progress.total(),
        help.restarts - help.stops,
        help.stops,
        help.ends,
        help.crashes
    );
    println!("keeper: vCPUs began {beginnings} times, {faults} faults of the program itself");
    println!("keeper: all memory is there");
}

/// How operations end, for people.
struct Way(usize);

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            0x3c => f.write_str("their last instruction"),
            65 => f.write_str("IRQs"),
            66 => f.write_str("FIQs"),
            67 => f.write_str("SErrors"),
            class => write!(f, "exceptions of class {class:#x}"),
        }
    }
}

fn name(bytes: &[u8; 16]) -> &str {
    core::str::from_utf8(bytes).map_or("?", |name| name.trim_end_matches('\0'))
}
