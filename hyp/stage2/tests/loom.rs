//! Tables that change while other CPUs walk them, and the ledger between two CPUs, in every interleaving and with every
//! reordering of stores that loom finds. Built with `--cfg loom` alone: `make loom`.
//!
//! The crate has no atomics; it reaches tables through `Environment`, so the model of memory lives here:
//! - Entries that walkers read are loom's atomics. The crate's writes are relaxed stores, `order` and `publish` are
//!   release fences (DMB, DSB ISHST). A walker's load is an acquire load: on hardware the next load depends on its
//!   address, which orders the two just as well. Entries that no walker reads are plain.
//! - A frame that is free holds valid entries that lead to nowhere, so that a walker which finds a table half made, or a
//!   frame that was given back, runs into them.
//! - Each CPU caches every valid entry that it reads, of tables and leaves, and never forgets one by itself. It may walk
//!   again at any time, so two entries for one address that differ in more than they may are a TLB conflict. CPU 0 goes by
//!   the tables that it has cached, CPU 1 reads them again.
//! - A CPU translates and accesses under its lock, and an invalidation takes that lock: as DVM completion waits for
//!   the accesses in flight, and no longer. The walk itself races with the stores to the tables.
//!
//! Not modelled: a walk's result that is used after a later one (out-of-order accesses within a CPU), and stage 1.
//!
//! Each of the tests has a twin that leaves out one thing that `Environment` promises, and must fail.
#![cfg(loom)]

use std::sync::Mutex as PlainMutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed as Plain};

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use stage2::{
    Environment, Format, Geometry, Invalidation, Inventory, Ipa, Kind, Ledger, Pa, PaRange, Permissions,
    Progress, Run, Stage2, State, Transfer, Use, VmId,
};

const PAGE: u64 = 4096;
const MIB2: u64 = 2 << 20;
const MEMORY: u64 = 0x8000_0000;
const VM: VmId = VmId::new(0).unwrap();

/// Where the frames for tables are.
const POOL: u64 = 0x4000_0000;
/// The entries that walkers read: with addresses below 8 KiB, the first one or two of each table.
const WATCHED: usize = 2;
/// What a free frame holds: at level 3 a page, above a table, of which there is neither.
const POISON: u64 = 0xdead_d000 | 3;
const ADDRESS: u64 = 0xffff_ffff_f000;
/// What may differ between two cached leaves for one address: S2AP, AF, DBM, XN, software's bits.
const MAY_CHANGE: u64 = 3 << 6 | 1 << 10 | 1 << 51 | 3 << 53 | 15 << 55;

const fn shift(level: u32) -> u32 {
    39 - 9 * level
}

/// What an environment forgets to do.
#[derive(Clone, Copy, Default, PartialEq)]
struct Forgets {
    order: bool,
    publish: bool,
    invalidate: bool,
    /// To make an entry invalid before it changes its kind.
    the_break: bool,
}

struct Frame {
    watched: [AtomicU64; WATCHED],
    /// Read and written by the one CPU that changes tables.
    rest: PlainMutex<[u64; 512]>,
    allocated: AtomicBool,
}

#[derive(Clone, Copy, PartialEq)]
struct Cached {
    level: u32,
    base: u64,
    raw: u64,
}

impl Cached {
    fn is_table(self) -> bool {
        self.level < 3 && self.raw & 3 == 3
    }

    /// A leaf for some of what `other`, a leaf too, translates.
    fn overlaps(self, other: Self) -> bool {
        let end = |entry: Self| entry.base + (1 << shift(entry.level));
        self.base < end(other) && other.base < end(self)
    }
}

/// What a guest's access found.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Leads {
    pa: u64,
    write: bool,
}

struct Board {
    frames: Vec<Frame>,
    free: PlainMutex<Vec<usize>>,
    root: AtomicUsize,
    /// What each walking CPU has cached.
    cpus: Vec<Mutex<Vec<Cached>>>,
    forgets: Forgets,
}

impl Board {
    fn new(frames: usize, cpus: usize, forgets: Forgets) -> Arc<Self> {
        let frame = |_| Frame {
            watched: [AtomicU64::new(POISON), AtomicU64::new(POISON)],
            rest: PlainMutex::new([POISON; 512]),
            allocated: AtomicBool::new(false),
        };
        Arc::new(Self {
            frames: (0..frames).map(frame).collect(),
            free: PlainMutex::new((0..frames).collect()),
            root: AtomicUsize::new(0),
            cpus: (0..cpus).map(|_| Mutex::new(Vec::new())).collect(),
            forgets,
        })
    }

    fn frame(&self, table: u64) -> &Frame {
        let frame = table.checked_sub(POOL).and_then(|offset| self.frames.get((offset / PAGE) as usize));
        let frame = frame.unwrap_or_else(|| panic!("there is no table at {table:#x}"));
        assert!(frame.allocated.load(Plain), "table {table:#x} has been given back");
        frame
    }

    /// All that CPU `cpu` may get to see when its guest accesses `ipa`: by a walk, and by what it has cached. None of it is
    /// a fault. `check` looks at each while the access is under way.
    fn access(&self, cpu: usize, ipa: u64, check: impl Fn(Leads)) -> usize {
        let mut cached = self.cpus[cpu].lock().unwrap();
        self.walk(cpu, &mut cached, ipa);
        let mut ways = 0;
        for entry in cached.iter().filter(|entry| !entry.is_table()) {
            let span = 1u64 << shift(entry.level);
            if entry.base <= ipa && ipa < entry.base + span {
                let pa = entry.raw & ADDRESS & !(span - 1) | ipa & (span - 1);
                check(Leads { pa, write: entry.raw & 1 << 7 != 0 });
                ways += 1;
            }
        }
        ways
    }

    fn walk(&self, cpu: usize, cached: &mut Vec<Cached>, ipa: u64) {
        let mut table = self.root.load(Plain) as u64;
        for level in 1..=3 {
            let base = ipa >> shift(level) << shift(level);
            let known = |entry: &&Cached| entry.is_table() && (entry.level, entry.base) == (level, base);
            let raw = match cached.iter().find(known).filter(|_| cpu == 0) {
                Some(entry) => entry.raw,
                None => {
                    let index = (ipa >> shift(level)) as usize & 511;
                    self.frame(table).watched[index].load(Ordering::Acquire)
                }
            };
            assert_ne!(raw, POISON, "a walk through a frame that is nobody's");
            let entry = Cached { level, base, raw };
            if raw & 1 != 0 {
                cache(cached, entry);
            }
            if !entry.is_table() {
                return;
            }
            table = raw & ADDRESS;
        }
    }
}

/// One more valid entry, which what is cached already must allow.
fn cache(cached: &mut Vec<Cached>, entry: Cached) {
    let Cached { level, base, raw } = entry;
    for other in cached.iter() {
        let fine = if other.is_table() || entry.is_table() {
            (other.level, other.base) != (level, base) || other.raw == raw
        } else {
            !other.overlaps(entry) || other.level == level && (other.raw ^ raw) & !MAY_CHANGE == 0
        };
        assert!(fine, "TLB conflict: {:#x} and {raw:#x} at level {level}", other.raw);
    }
    if !cached.contains(&entry) {
        cached.push(entry);
    }
}

/// The CPU that changes the tables.
struct Editor(Arc<Board>);

impl Environment for Editor {
    fn allocate(&mut self, tables: usize) -> Option<Pa> {
        assert_eq!(tables, 1);
        let number = self.0.free.lock().unwrap().pop()?;
        let frame = &self.0.frames[number];
        assert!(!frame.allocated.swap(true, Plain));
        for entry in &frame.watched {
            entry.store(0, Ordering::Relaxed);
        }
        frame.rest.lock().unwrap().fill(0);
        Some(Pa::new(POOL + number as u64 * PAGE))
    }

    fn free(&mut self, table: Pa, _: usize) {
        let frame = self.0.frame(table.as_u64());
        frame.allocated.store(false, Plain);
        for entry in &frame.watched {
            entry.store(POISON, Ordering::Relaxed);
        }
        self.0.free.lock().unwrap().push(((table.as_u64() - POOL) / PAGE) as usize);
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        let frame = self.0.frame(table.as_u64());
        match frame.watched.get(index) {
            Some(entry) => entry.load(Ordering::Relaxed),
            None => frame.rest.lock().unwrap()[index],
        }
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        let frame = self.0.frame(table.as_u64());
        match frame.watched.get(index) {
            Some(entry) => {
                if descriptor != 0 || !self.0.forgets.the_break {
                    entry.store(descriptor, Ordering::Relaxed);
                }
            }
            None => frame.rest.lock().unwrap()[index] = descriptor,
        }
    }

    fn copy(&mut self, _: Pa, _: Pa) {
        panic!("nothing is shared on write here");
    }

    fn order(&mut self) {
        if !self.0.forgets.order {
            fence(Ordering::Release);
        }
    }

    fn publish(&mut self) {
        if !self.0.forgets.publish {
            fence(Ordering::Release);
        }
    }

    fn invalidate(&mut self, _: VmId, what: Invalidation) {
        if self.0.forgets.invalidate {
            return;
        }
        fence(Ordering::Release);
        let named = |entry: &Cached| {
            let first = what.ipa.as_u64();
            let mut addresses = (0..what.count()).map(|n| first + n * what.stride);
            addresses.any(|address| address >> shift(entry.level) << shift(entry.level) == entry.base)
        };
        for cpu in &self.0.cpus {
            cpu.lock().unwrap().retain(|entry| !named(entry) || entry.is_table() && !what.tables);
        }
    }

    fn invalidate_vm(&mut self, _: VmId) {
        fence(Ordering::Release);
        for cpu in &self.0.cpus {
            cpu.lock().unwrap().clear();
        }
    }
}

struct Setup {
    board: Arc<Board>,
    editor: Editor,
    ledger: Ledger<Vec<Run>>,
    tables: Stage2,
}

fn pages(pa: u64, size: u64) -> PaRange {
    PaRange::new(Pa::new(pa), size).unwrap()
}

fn ledger(size: u64) -> Ledger<Vec<Run>> {
    let mut inventory = Inventory::new(vec![Run::default(); 16]).unwrap();
    inventory.declare(pages(MEMORY, size), Kind::Free).unwrap();
    inventory.finish()
}

impl Setup {
    /// Empty tables of a VM that has 4 MiB of memory, as the walking CPUs are given them before they start.
    fn new(cpus: usize, forgets: Forgets) -> Self {
        let board = Board::new(4, cpus, forgets);
        let mut editor = Editor(board.clone());
        let mut ledger = ledger(2 * MIB2);
        ledger.transfer(pages(MEMORY, 2 * MIB2), Transfer::Donate(VM)).unwrap();
        let geometry = Geometry::new(32, 40).unwrap();
        let tables = Stage2::new(&mut editor, VM, geometry, Format::Combined).unwrap();
        board.root.store((tables.vttbr() & ADDRESS) as usize, Plain);
        Self { board, editor, ledger, tables }
    }

    fn map(&mut self, ipa: u64, pa: u64, size: u64, permissions: Permissions) {
        let what = (pages(pa, size), Use::Ram);
        self.ledger.map(&mut self.tables, &mut self.editor, Ipa::new(ipa), what, permissions).unwrap();
    }

    fn unmap(&mut self, ipa: u64, size: u64) {
        self.ledger.unmap(&mut self.tables, &mut self.editor, Ipa::new(ipa), size).unwrap();
    }

    fn protect(&mut self, ipa: u64, size: u64, permissions: Permissions) {
        self.tables.protect(&mut self.editor, Ipa::new(ipa), size, permissions).unwrap();
    }

    /// A CPU that makes accesses, one after the other.
    fn walker(
        &self,
        cpu: usize,
        accesses: &'static [u64],
        check: impl Fn(u64, Leads) + 'static,
        seen: &'static Seen,
    ) -> thread::JoinHandle<()> {
        let board = self.board.clone();
        thread::spawn(move || {
            for &ipa in accesses {
                let ways = board.access(cpu, ipa, |leads| {
                    check(ipa, leads);
                    if leads.write { &seen.writable } else { &seen.read_only }.fetch_add(1, Plain);
                });
                if ways == 0 {
                    seen.faults.fetch_add(1, Plain);
                }
            }
        })
    }
}

fn join(walkers: [thread::JoinHandle<()>; 2]) {
    for walker in walkers {
        walker.join().unwrap();
    }
}

/// What walkers have met, over all executions of a test: a test in which nothing happens must not pass.
struct Seen {
    executions: AtomicUsize,
    faults: AtomicUsize,
    writable: AtomicUsize,
    read_only: AtomicUsize,
}

impl Seen {
    const fn new() -> Self {
        Self {
            executions: AtomicUsize::new(0),
            faults: AtomicUsize::new(0),
            writable: AtomicUsize::new(0),
            read_only: AtomicUsize::new(0),
        }
    }

    fn report(&self, test: &str) {
        println!(
            "{test}: {:?} executions; accesses: {:?} faults, {:?} with and {:?} without the right to write",
            self.executions, self.faults, self.writable, self.read_only
        );
    }

    /// All kinds of accesses were met.
    fn assert_all(&self) {
        let counts = [&self.faults, &self.writable, &self.read_only];
        assert!(counts.iter().all(|count| count.load(Plain) > 0));
    }
}

fn explore(seen: &'static Seen, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.max_branches = 20_000;
    builder.check(move || {
        seen.executions.fetch_add(1, Plain);
        body();
    });
}

/// A page is mapped, with two new tables above it.
fn map_a_page(forgets: Forgets, seen: &'static Seen) {
    explore(seen, move || {
        let mut setup = Setup::new(2, forgets);
        let check = |ipa, leads: Leads| assert_eq!(leads, Leads { pa: MEMORY + ipa, write: true });
        let walkers = [setup.walker(0, &[0, 0], check, seen), setup.walker(1, &[0], check, seen)];
        setup.map(0, MEMORY, PAGE, Permissions::ALL);
        join(walkers);
    });
}

#[test]
fn a_walker_finds_no_table_half_made() {
    static SEEN: Seen = Seen::new();
    map_a_page(Forgets::default(), &SEEN);
    SEEN.report("map");
    assert!(SEEN.faults.load(Plain) > 0 && SEEN.writable.load(Plain) > 0);
}

#[test]
#[should_panic = "a walk through a frame that is nobody's"]
fn a_walker_finds_a_table_half_made_without_order() {
    static SEEN: Seen = Seen::new();
    map_a_page(Forgets { order: true, ..Forgets::default() }, &SEEN);
}

/// A page is mapped, and another CPU is told.
fn tell_of_a_page(forgets: Forgets, seen: &'static Seen) {
    explore(seen, move || {
        let mut setup = Setup::new(1, forgets);
        // The tables are there already; only the page is new.
        setup.map(PAGE, MEMORY + PAGE, PAGE, Permissions::ALL);
        let told = Arc::new(AtomicU64::new(0));
        let walker = thread::spawn({
            let (told, board) = (told.clone(), setup.board.clone());
            move || {
                if told.load(Ordering::Acquire) == 1 {
                    seen.writable.fetch_add(1, Plain);
                    assert_eq!(board.access(0, 0, |_| ()), 1, "a fault on what is mapped");
                }
            }
        });
        setup.map(0, MEMORY, PAGE, Permissions::ALL);
        told.store(1, Ordering::Relaxed);
        walker.join().unwrap();
    });
}

#[test]
fn what_is_mapped_can_be_used_by_whoever_is_told() {
    static SEEN: Seen = Seen::new();
    tell_of_a_page(Forgets::default(), &SEEN);
    SEEN.report("publish");
    assert!(SEEN.writable.load(Plain) > 0);
}

#[test]
#[should_panic = "a fault on what is mapped"]
fn what_is_mapped_faults_without_publish() {
    static SEEN: Seen = Seen::new();
    tell_of_a_page(Forgets { publish: true, ..Forgets::default() }, &SEEN);
}

/// The only page is unmapped, its tables with it; then its frames serve for another map.
fn unmap_a_page(forgets: Forgets, seen: &'static Seen) {
    explore(seen, move || {
        let mut setup = Setup::new(2, forgets);
        setup.map(0, MEMORY, PAGE, Permissions::ALL);
        let gone = std::sync::Arc::new(AtomicBool::new(false));
        let check = |gone: std::sync::Arc<AtomicBool>| {
            move |_, leads: Leads| match leads.pa - MEMORY {
                0 => assert!(!gone.load(Plain), "a page is used after its unmap"),
                PAGE => {}
                other => panic!("nothing was ever mapped to {other:#x}"),
            }
        };
        let walkers = [
            setup.walker(0, &[0, 0], check(gone.clone()), seen),
            setup.walker(1, &[PAGE], check(gone.clone()), seen),
        ];
        setup.unmap(0, PAGE);
        gone.store(true, Plain);
        setup.map(PAGE, MEMORY + PAGE, PAGE, Permissions::READ);
        join(walkers);
    });
}

#[test]
fn nobody_uses_a_page_after_its_unmap() {
    static SEEN: Seen = Seen::new();
    unmap_a_page(Forgets::default(), &SEEN);
    SEEN.report("unmap");
    SEEN.assert_all();
}

#[test]
#[should_panic = "a walk through a frame that is nobody's"]
fn somebody_uses_a_page_after_its_unmap_without_invalidation() {
    static SEEN: Seen = Seen::new();
    unmap_a_page(Forgets { invalidate: true, ..Forgets::default() }, &SEEN);
}

/// A page in a block loses the right to write, which splits the block.
fn split_a_block(forgets: Forgets, seen: &'static Seen) {
    explore(seen, move || {
        let mut setup = Setup::new(2, forgets);
        setup.map(0, MEMORY, MIB2, Permissions::ALL);
        let read_only = std::sync::Arc::new(AtomicBool::new(false));
        let check = |read_only: std::sync::Arc<AtomicBool>| {
            move |ipa, leads: Leads| {
                assert_eq!(leads.pa, MEMORY + ipa);
                match ipa {
                    0 => assert!(!leads.write || !read_only.load(Plain), "a right outlives its end"),
                    _ => assert!(leads.write, "a right that was not taken is gone"),
                }
            }
        };
        let walkers = [
            setup.walker(0, &[0, 0], check(read_only.clone()), seen),
            setup.walker(1, &[PAGE, 0], check(read_only.clone()), seen),
        ];
        setup.protect(0, PAGE, Permissions::READ_EXECUTE);
        read_only.store(true, Plain);
        join(walkers);
    });
}

#[test]
fn a_block_is_split_under_walkers() {
    static SEEN: Seen = Seen::new();
    split_a_block(Forgets::default(), &SEEN);
    SEEN.report("split");
    SEEN.assert_all();
}

#[test]
#[should_panic = "TLB conflict"]
fn a_block_cannot_be_split_without_a_break() {
    static SEEN: Seen = Seen::new();
    split_a_block(Forgets { the_break: true, ..Forgets::default() }, &SEEN);
}

#[test]
#[should_panic = "a right outlives its end"]
fn a_right_outlives_its_end_without_invalidation() {
    static SEEN: Seen = Seen::new();
    split_a_block(Forgets { invalidate: true, ..Forgets::default() }, &SEEN);
}

/// The page gets the right back, which makes the block whole and frees the table.
fn merge_a_block(forgets: Forgets, seen: &'static Seen) {
    explore(seen, move || {
        let mut setup = Setup::new(2, forgets);
        setup.map(0, MEMORY, MIB2, Permissions::ALL);
        setup.protect(0, PAGE, Permissions::READ_EXECUTE);
        let check = |ipa, leads: Leads| {
            assert_eq!(leads.pa, MEMORY + ipa);
            assert!(leads.write || ipa == 0, "a right that was not taken is gone");
        };
        let walkers = [setup.walker(0, &[0, PAGE], check, seen), setup.walker(1, &[PAGE, 0], check, seen)];
        setup.protect(0, PAGE, Permissions::ALL);
        join(walkers);
    });
}

#[test]
fn a_block_is_merged_under_walkers() {
    static SEEN: Seen = Seen::new();
    merge_a_block(Forgets::default(), &SEEN);
    SEEN.report("merge");
    SEEN.assert_all();
}

#[test]
#[should_panic = "has been given back"]
fn a_block_cannot_be_merged_without_a_break() {
    static SEEN: Seen = Seen::new();
    merge_a_block(Forgets { the_break: true, ..Forgets::default() }, &SEEN);
}

/// Two CPUs build a VM each from the same memory, and end it again. `ledgers` says which ledger each uses: it must be one.
fn build_two(ledgers: usize, seen: &'static Seen) {
    const PAGES: u64 = 2;
    explore(seen, move || {
        let ledgers: Vec<_> = (0..ledgers).map(|_| Arc::new(Mutex::new(ledger(PAGES * PAGE)))).collect();
        // Who has which page, by the VMs' own word.
        let claims: [AtomicU64; PAGES as usize] = std::array::from_fn(|_| AtomicU64::new(0));
        let claims = Arc::new(claims);
        let builder = |slot: u8| {
            let ledger = ledgers[usize::from(slot) % ledgers.len()].clone();
            let claims = claims.clone();
            move || build_and_end(VmId::new(slot).unwrap(), &ledger, &claims[..], seen)
        };
        let other = thread::spawn(builder(1));
        builder(0)();
        other.join().unwrap();
        for ledger in ledgers {
            let ledger = ledger.lock().unwrap();
            let runs: Vec<_> = ledger.runs().collect();
            assert_eq!(runs, [(pages(MEMORY, PAGES * PAGE), State::Free, 0)], "something is left");
        }
    });
}

/// The ledger's lock is taken for one call each, so that the other CPU comes in between wherever it can.
fn build_and_end(vm: VmId, ledger: &Mutex<Ledger<Vec<Run>>>, claims: &[AtomicU64], seen: &'static Seen) {
    let own = u64::from(vm.vmid());
    let mut grants = Vec::new();
    for (claim, page) in claims.iter().zip((MEMORY..).step_by(PAGE as usize)) {
        let range = pages(page, PAGE);
        if ledger.lock().unwrap().transfer(range, Transfer::Donate(vm)).is_err() {
            seen.faults.fetch_add(1, Plain);
            continue;
        }
        let grant = ledger.lock().unwrap().grant(vm, range, Use::Ram).expect("donated a moment ago");
        assert_eq!(claim.swap(own, Ordering::Relaxed), 0, "a page is granted twice");
        seen.writable.fetch_add(1, Plain);
        grants.push((claim, grant));
    }
    for (claim, grant) in grants {
        assert_eq!(claim.swap(0, Ordering::Relaxed), own, "somebody else had the page too");
        let range = grant.range();
        let mut locked = ledger.lock().unwrap();
        locked.release(grant).unwrap();
        locked.transfer(range, Transfer::Reclaim(vm)).unwrap();
        // Nobody else has it until that is done, so the lock need not be held for it.
        let mut scrub = locked.begin_scrub(range).unwrap();
        drop(locked);
        while scrub.step(1, |_| assert_eq!(claim.load(Ordering::Relaxed), 0, "a page is granted twice"))
            == Progress::More
        {}
        ledger.lock().unwrap().finish_scrub(scrub).map_err(|(error, _)| error).unwrap();
    }
    ledger.lock().unwrap().retire(vm).unwrap();
}

#[test]
fn two_cpus_never_get_the_same_page() {
    static SEEN: Seen = Seen::new();
    build_two(1, &SEEN);
    SEEN.report("ledger");
    assert!(SEEN.faults.load(Plain) > 0 && SEEN.writable.load(Plain) > 0);
}

#[test]
#[should_panic = "a page is granted twice"]
fn two_cpus_get_the_same_page_from_two_ledgers() {
    static SEEN: Seen = Seen::new();
    build_two(2, &SEEN);
}
