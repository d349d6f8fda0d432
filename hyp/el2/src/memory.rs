//! EL2's memory: its heap, the frames of the board's RAM, and the ledger of who owns which page.
//!
//! Frames come from a buddy allocator. They are handed out at boot, when a VM is built, and in steps of a job when one is
//! started or has stopped; never on an exit. Steps of different VMs don't wait for each other: what is in use is tried again.

use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::DerefMut;

use buddy_system_allocator::{FrameAllocator, LockedHeap};
use config::manifest::MEMORY_UNIT;
use config::passthrough::{Devices, Span};
use platform::tree::{Board, Range};
use spin::Once;
use stage2::{
    ADDRESS_BITS, Inventory, Kind, LedgerError, PAGE_SIZE, Pa, PaRange, Progress, Run, Transfer, VmSet,
};
use vmm::order;

use crate::boot::early_map;
use crate::image;
use crate::lock::Mutex;

/// What EL2 has until it can use the board's memory: for the boot CPU and the ledger. Each of its pages is mapped by itself.
const HEAP_BYTES: usize = 512 << 10;

#[repr(C, align(4096))]
struct HeapSpace(UnsafeCell<MaybeUninit<[u8; HEAP_BYTES]>>);

// SAFETY: only the allocator refers to it, and that has a lock.
unsafe impl Sync for HeapSpace {}

// Apart from what is zeroed at boot, which takes a while.
#[unsafe(link_section = ".heap")]
static HEAP_SPACE: HeapSpace = HeapSpace(UnsafeCell::new(MaybeUninit::uninit()));

#[global_allocator]
static HEAP: LockedHeap<32> = LockedHeap::empty();

/// The free frames, by number.
pub struct Frames {
    allocator: FrameAllocator<33>,
    /// How many are free.
    free: u64,
    /// How many are EL2's own.
    own: u64,
    /// How many there are.
    all: u64,
}

static FRAMES: Mutex<Frames> =
    Mutex::new(Frames { allocator: FrameAllocator::new(), free: 0, own: 0, all: 0 });

impl Frames {
    fn take(&mut self, pages: u64) -> Option<Pa> {
        let frame = self.allocator.alloc(pages as usize)?;
        self.free = self.free.saturating_sub(pages);
        Some(Pa::new((frame as u64).saturating_mul(PAGE_SIZE)))
    }

    /// One run for a VM, of `bytes` at the most: a power of two, aligned to its size, and at least `unit`, which divides
    /// `bytes`. The largest that there is.
    pub fn take_run(&mut self, bytes: u64, unit: u64) -> Option<PaRange> {
        let (mut pages, least) = (1 << (bytes / PAGE_SIZE).max(1).ilog2(), (unit / PAGE_SIZE).max(1));
        while pages >= least {
            if let Some(start) = self.take(pages) {
                return PaRange::new(start, pages.saturating_mul(PAGE_SIZE)).ok();
            }
            pages /= 2;
        }
        None
    }

    /// Why somebody who wants `bytes` in runs of `unit` at least, and has `taken` of them, can't have the rest.
    pub fn refusal(&self, bytes: u64, taken: u64, unit: u64) -> FrameError {
        let free = self.free.saturating_mul(PAGE_SIZE).saturating_add(taken);
        match free < bytes {
            true => FrameError::Short { wanted: bytes >> 10, free: free >> 10 },
            false => FrameError::BrokenUp { wanted: bytes >> 10, free: free >> 10, unit: unit >> 10 },
        }
    }

    /// Takes back a run that was free before.
    pub fn give_back(&mut self, run: PaRange) {
        let (mut frame, end) = (run.start().as_u64() / PAGE_SIZE, run.end().as_u64() / PAGE_SIZE);
        self.free = self.free.saturating_add(end.saturating_sub(frame));
        // The allocator's pieces are powers of two, aligned to their size.
        while frame < end {
            let largest = 1 << (end - frame).ilog2();
            let pages = if frame == 0 { largest } else { largest.min(1 << frame.trailing_zeros()) };
            self.allocator.dealloc(frame as usize, pages as usize);
            frame += pages;
        }
    }

    /// Takes one piece of `bytes` whose start is a multiple of `unit`, within `span`: the highest that there is. At boot.
    fn carve(&mut self, bytes: u64, unit: u64, span: Span) -> Option<PaRange> {
        // All of it, so that what lies together is found together.
        let mut runs: Vec<Span> = Vec::new();
        while let Some(run) = self.take_run(u64::MAX, PAGE_SIZE) {
            runs.push(Span { start: run.start().as_u64(), end: run.end().as_u64() });
        }
        order::sort(&mut runs);
        runs.dedup_by(|next, last| {
            let touches = next.start == last.end;
            if touches {
                last.end = next.end;
            }
            touches
        });
        let place = |run: &Span| {
            let room = run.common(span)?;
            let start = room.end.checked_sub(bytes)? & !(unit - 1);
            (start >= room.start).then_some(Span::new(start, bytes))
        };
        let found = runs.iter().rev().find_map(place);
        for run in runs {
            let taken =
                found.and_then(|found| found.common(run)).unwrap_or(Span { start: run.end, end: run.end });
            for (start, end) in [(run.start, taken.start), (taken.end, run.end)] {
                if let Ok(rest) = PaRange::new(Pa::new(start), end.saturating_sub(start)) {
                    self.give_back(rest);
                }
            }
        }
        PaRange::new(Pa::new(found?.start), bytes).ok()
    }

    fn short(&self, pages: u64) -> FrameError {
        let kib = PAGE_SIZE >> 10;
        FrameError::Short { wanted: pages * kib, free: self.free * kib }
    }
}

/// The ledger of all physical pages; its storage bounds the runs that it can tell apart.
pub type Ledger = stage2::Ledger<Vec<Run>>;

/// Room for the board's own runs and some for each VM: RAM in power-of-two pieces, tables, devices.
const LEDGER_RUNS: usize = 4096;
/// So many places of devices are written down: each takes up to two runs, and half of them are left for the rest.
const DEVICE_RUNS: usize = LEDGER_RUNS / 4;

static LEDGER: Once<Mutex<Ledger>> = Once::new();

/// Gives the heap its space. Once, by the boot CPU.
pub fn init_heap() {
    // SAFETY: the space is static, and nothing but the allocator uses it.
    unsafe { HEAP.lock().init(HEAP_SPACE.0.get() as usize, HEAP_BYTES) };
}

/// What the board's devices take that VMs may be given, in pages: those of the largest tree that they are looked for in
/// (`config::passthrough::Devices::find`).
const PAGES_FOR_DEVICES: usize = 1024;
/// What a CPU takes of the heap, its log above all, in pages.
const PAGES_PER_CPU: usize = 8;
/// What a VM takes: its console, the list of its memory, and what the frames that are given back are remembered by.
const PAGES_PER_VM: usize = 8;

/// Gives the heap space for EL2's own map and for the VMs' manifests, while the first map is in use.
///
/// # Errors
/// No memory for it.
pub fn grow_heap_for_boot(survey: &mut Survey) -> Result<(), FrameError> {
    grow_heap_by((early_map::BLOCK / PAGE_SIZE) as usize, |pages| {
        let start = survey.claim(pages)?;
        early_map::add_memory(start.as_u64()).ok_or(FrameError::NotMapped { start })?;
        Ok(start)
    })
}

/// Gives the heap space for the board's devices.
///
/// # Errors
/// No memory for it.
pub fn grow_heap_for_devices(survey: &mut Survey) -> Result<(), FrameError> {
    grow_heap_by(PAGES_FOR_DEVICES, |pages| survey.claim(pages))
}

/// Gives the heap space for `cpus` CPUs, when there are frames.
///
/// # Errors
/// No memory for it.
pub fn grow_heap_for_cpus(cpus: usize) -> Result<(), FrameError> {
    grow_heap(cpus.saturating_mul(PAGES_PER_CPU))
}

/// Gives the heap space for a VM with `vcpus` vCPUs.
///
/// # Errors
/// No memory for it.
pub fn grow_heap_for_vm(vcpus: usize) -> Result<(), FrameError> {
    // A vCPU's registers and interrupts take less than a page.
    grow_heap(PAGES_PER_VM.saturating_add(vcpus))
}

fn grow_heap(pages: usize) -> Result<(), FrameError> {
    grow_heap_by(pages.next_power_of_two(), claim)
}

/// `claim` makes frames EL2's, of which there is a map.
fn grow_heap_by(pages: usize, claim: impl FnOnce(usize) -> Result<Pa, FrameError>) -> Result<(), FrameError> {
    let start = claim(pages)?.as_u64() as usize;
    // SAFETY: these frames have just become EL2's, which maps them, and nothing else uses them.
    unsafe { HEAP.lock().add_to_heap(start, start + pages * PAGE_SIZE as usize) };
    Ok(())
}

/// Bytes of the heap that are in use.
pub fn heap_used() -> usize {
    HEAP.lock().stats_alloc_actual()
}

/// Why memory can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The tree's memory doesn't hold what has been loaded.
    #[error("the image at {image:#x} is not in the memory that the device tree describes")]
    ImageOutside {
        /// Where the image starts.
        image: u64,
    },
    /// The tree isn't in the memory that it describes.
    #[error("the device tree at {tree:#x} is not in the memory that it describes")]
    TreeOutside {
        /// Where it starts.
        tree: u64,
    },
    /// The tree describes memory that the ledger can't hold, or twice.
    #[error("the device tree's memory: {0}")]
    Ledger(#[from] LedgerError),
}

/// Why a VM can't have memory.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Not enough is left.
    #[error("{wanted} KiB of memory are wanted and {free} KiB are free")]
    Short {
        /// KiB that were asked for.
        wanted: u64,
        /// KiB that were left.
        free: u64,
    },
    /// Enough is left, but in pieces that are too small.
    #[error(
        "{wanted} KiB of memory are wanted; of the {free} KiB that are free, too much is in pieces of less than {unit} KiB"
    )]
    BrokenUp {
        /// KiB that are wanted.
        wanted: u64,
        /// KiB that are free.
        free: u64,
        /// KiB of the smallest piece that would do.
        unit: u64,
    },
    /// No piece of memory is there that is large enough and in the right place.
    #[error("no {kib} KiB of free memory lie together from {:#x} to {:#x}", .span.start, .span.end)]
    NoPiece {
        /// KiB that are wanted.
        kib: u64,
        /// Where.
        span: Span,
    },
    /// The first map has something there, or no room.
    #[error("the memory at {:#x} can't be mapped: the device tree may have something else there", .start.as_u64())]
    NotMapped {
        /// Where it starts.
        start: Pa,
    },
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The ledger while pages still get their first state: RAM has, devices haven't. Whoever boots takes memory through it.
pub struct Survey(Inventory<Vec<Run>>);

impl Survey {
    /// As [`claim`] does once there is a ledger.
    ///
    /// # Errors
    /// None are left.
    pub fn claim(&mut self, pages: usize) -> Result<Pa, FrameError> {
        claim_by(pages, |range| self.0.claim(range))
    }

    /// Writes down the devices that VMs may be given, if any, and closes the ledger: no other pages become known.
    ///
    /// # Errors
    /// When the ledger can't hold them.
    pub fn finish(mut self, board: &Board<'_>, devices: Option<&Devices<'_>>) -> Result<(), MemoryError> {
        let pages = devices.map(Devices::pages).unwrap_or_default();
        if let Some(first) = pages.get(DEVICE_RUNS) {
            log::warn!(
                "the board has devices at more than {DEVICE_RUNS} places: no VM is given one from {:#x} on",
                first.start
            );
        }
        for pages in pages.into_iter().take(DEVICE_RUNS) {
            declare_devices(&mut self.0, board, pages)?;
        }
        LEDGER.call_once(|| Mutex::new(self.0.finish()));
        Ok(())
    }
}

/// Takes what is in use out of the board's RAM and puts the rest at the frame allocator's disposal.
///
/// # Errors
/// When the tree and what was loaded contradict each other.
pub fn init(board: &Board<'_>, tree: &[u8]) -> Result<Survey, MemoryError> {
    let image = image::layout();
    let image_range = Range { start: Pa::new(image.start), size: image.end - image.start };
    if !is_ram(board, image_range) {
        return Err(MemoryError::ImageOutside { image: image.start });
    }
    let tree = Range { start: Pa::new(tree.as_ptr().addr() as u64), size: tree.len() as u64 };
    if !is_ram(board, tree) {
        return Err(MemoryError::TreeOutside { tree: tree.start.as_u64() });
    }
    let mut taken: Vec<(u64, u64)> =
        [tree, image_range].iter().chain(&board.initrd).map(Range::pages).collect();
    taken.extend(board.reserved.iter().map(|reserved| reserved.range.pages()));
    order::sort(&mut taken);

    let mut frames = FRAMES.lock();
    // Written 16 at a time, which takes half as long as one by one.
    let mut inventory = Inventory::new(alloc::vec![[Run::default(); 16]; LEDGER_RUNS / 16].into_flattened())?;
    let mut total = 0;
    for bank in &board.memory {
        // A bank's broken first and last page are of no use.
        let mut free = bank.start.as_u64().next_multiple_of(PAGE_SIZE);
        let end = bank.end() & !(PAGE_SIZE - 1);
        for (from, to) in taken.iter().copied().filter(|(from, _)| *from < end) {
            total += add_free(&mut frames, &mut inventory, free, from.min(end))?;
            free = free.max(to);
        }
        total += add_free(&mut frames, &mut inventory, free, end)?;
    }
    if let Some(platform::tree::Gic::V2 { gicv, .. }) = &board.gic {
        // The guest's CPU interface: 8 KiB, whatever the tree says of what lies behind.
        inventory.declare(PaRange::new(gicv.start, GICV_BYTES)?, Kind::Banked)?;
    }
    let image_pages = PaRange::new(Pa::new(image.start), image.end - image.start)?;
    inventory.declare(image_pages, Kind::Hypervisor)?;
    log::info!("{} MiB of RAM free", total >> 20);
    Ok(Survey(inventory))
}

/// Writes pages down as a device's that a VM may be given, but for those that EL2 uses or that are memory.
fn declare_devices(
    inventory: &mut Inventory<Vec<Run>>,
    board: &Board<'_>,
    span: Span,
) -> Result<(), LedgerError> {
    let reserved = board.reserved.iter().map(|reserved| reserved.range);
    let memory = board.memory.iter().copied().chain(reserved);
    let own = board.used_for_ever().map(|used| used.registers);
    let mut taken: Vec<(u64, u64)> = own.chain(memory).map(|range| range.pages()).collect();
    taken.push((1 << ADDRESS_BITS, u64::MAX));
    order::sort(&mut taken);
    let mut start = span.start;
    for (from, to) in taken {
        let end = from.min(span.end);
        if start < end {
            inventory.declare(PaRange::new(Pa::new(start), end - start)?, Kind::Device)?;
        }
        start = start.max(to);
    }
    Ok(())
}

/// Size of a GICv2's virtual CPU interface.
pub const GICV_BYTES: u64 = 0x2000;

fn add_free(
    frames: &mut Frames,
    inventory: &mut Inventory<Vec<Run>>,
    start: u64,
    end: u64,
) -> Result<u64, LedgerError> {
    if end <= start {
        return Ok(0);
    }
    inventory.declare(PaRange::new(Pa::new(start), end - start)?, Kind::Unscrubbed)?;
    frames.allocator.add_frame((start / PAGE_SIZE) as usize, (end / PAGE_SIZE) as usize);
    frames.free += (end - start) / PAGE_SIZE;
    frames.all += (end - start) / PAGE_SIZE;
    Ok(end - start)
}

/// The free frames, unless another CPU has them just now. Not on an exit.
pub fn try_frames() -> Option<impl DerefMut<Target = Frames>> {
    FRAMES.try_lock()
}

/// Bytes of memory that VMs have or could have, and bytes of these that are free, unless another CPU works on it.
pub fn try_count() -> Option<(u64, u64)> {
    let frames = FRAMES.try_lock()?;
    let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
    Some((bytes(frames.all.saturating_sub(frames.own)), bytes(frames.free)))
}

/// The ledger, unless another CPU has it just now. Not on an exit.
pub fn try_ledger() -> Option<impl DerefMut<Target = Ledger>> {
    LEDGER.get()?.try_lock()
}

/// Works on the ledger, once there is one. Not on an exit: those don't change who owns what.
pub fn with_ledger<T>(work: impl FnOnce(&mut Ledger) -> T) -> Option<T> {
    LEDGER.get().map(|ledger| work(&mut ledger.lock()))
}

/// Frames for EL2's own use: `pages` of them side by side, a power of two, aligned to their size, written down as the
/// hypervisor's. They hold whatever they held; nobody but EL2 will read it.
///
/// # Errors
/// None are left.
pub fn claim(pages: usize) -> Result<Pa, FrameError> {
    claim_by(pages, |range| with_ledger(|ledger| ledger.transfer(range, Transfer::Claim)).unwrap_or(Ok(())))
}

fn claim_by(
    pages: usize,
    write_down: impl FnOnce(PaRange) -> Result<(), LedgerError>,
) -> Result<Pa, FrameError> {
    let mut frames = FRAMES.lock();
    let pa = frames.take(pages as u64).ok_or(frames.short(pages as u64))?;
    frames.own += pages as u64;
    drop(frames);
    write_down(PaRange::new(pa, pages as u64 * PAGE_SIZE)?)?;
    Ok(pa)
}

/// Memory that these VMs share and may all write to, zeroed: `bytes`, a power of two, in one run. At boot, and for ever.
///
/// # Errors
/// There isn't so much in one piece.
pub fn share(bytes: u64, members: VmSet) -> Result<PaRange, FrameError> {
    let mut frames = FRAMES.lock();
    let run = frames.take_run(bytes, bytes).ok_or_else(|| frames.refusal(bytes, 0, bytes))?;
    drop(frames);
    let shared = with_ledger(|ledger| {
        ledger.transfer(run, Transfer::Claim)?;
        ledger.transfer(run, Transfer::Yield)?;
        let mut scrub = ledger.begin_scrub(run)?;
        // Nobody runs yet who would wait for it.
        while scrub.step(run.pages(), crate::cache::scrub) == Progress::More {}
        ledger.finish_scrub(scrub).map_err(|(error, _)| error)?;
        ledger.transfer(run, Transfer::Open { members, writers: members })
    });
    shared.unwrap_or(Ok(()))?;
    Ok(run)
}

/// Sets memory aside for a VM whose RAM has its physical addresses: `bytes` in one piece, at `address`, or else wherever there is
/// room within `reach`. At boot, and for ever.
///
/// # Errors
/// There is no such piece.
pub fn set_aside(bytes: u64, address: Option<u64>, reach: Option<Span>) -> Result<PaRange, FrameError> {
    let all = Span { start: 0, end: 1 << ADDRESS_BITS };
    let span = address.map_or(reach.unwrap_or(all), |start| Span::new(start, bytes));
    let mut frames = FRAMES.lock();
    frames.carve(bytes, MEMORY_UNIT, span).ok_or(FrameError::NoPiece { kib: bytes >> 10, span })
}

/// Gives back what was set aside for a VM that can't be built.
pub fn take_back(run: PaRange) {
    FRAMES.lock().give_back(run);
}

/// Makes a device EL2's own, so that no VM can be given it.
///
/// # Errors
/// Somebody has it.
pub fn keep(device: &Range) -> Result<(), LedgerError> {
    let (start, end) = device.pages();
    let range = PaRange::new(Pa::new(start), end.saturating_sub(start))?;
    with_ledger(|ledger| ledger.transfer(range, Transfer::Keep)).unwrap_or(Ok(()))
}

/// Gives back frames that `claim` gave.
pub fn yield_back(pa: Pa, pages: usize) {
    let Ok(range) = PaRange::new(pa, pages as u64 * PAGE_SIZE) else { return };
    if with_ledger(|ledger| ledger.transfer(range, Transfer::Yield)) == Some(Ok(())) {
        let mut frames = FRAMES.lock();
        frames.own -= pages as u64;
        frames.give_back(range);
    }
}

/// Whether a range lies in the board's RAM, so that EL2 maps it.
pub fn is_ram(board: &Board<'_>, range: Range) -> bool {
    let within = |bank: &Range| bank.start.as_u64() <= range.start.as_u64() && range.end() <= bank.end();
    let barred = |reserved: &platform::tree::Reserved| {
        reserved.no_map
            && reserved.range.start.as_u64() < range.end()
            && range.start.as_u64() < reserved.range.end()
    };
    board.memory.iter().any(within) && !board.reserved.iter().any(barred)
}
