//! EL2's own map: everything at its physical address, nothing writable and executable at once, a hole below every
//! stack. Guest RAM is Normal write-back and never executable; `no-map` regions are left out.
//!
//! The tables are built by `aarch64-paging` while the first map is in use. Once they are in use, they change at boot alone, where the
//! console goes to another UART.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use aarch64_paging::descriptor::El23Attributes;
use aarch64_paging::idmap::IdMap;
use aarch64_paging::paging::{El2, MemoryRegion};
use alloc::vec::Vec;
use platform::tree::{Board, Gic, Range};
use spin::Once;
use stage2::PAGE_SIZE;
use vmm::order;

use crate::lock::Mutex;
use crate::{image, percpu};

/// The map, kept for ever; its root is what every CPU's TTBR0_EL2 holds.
static MAP: Once<Mutex<IdMap<El2>>> = Once::new();

/// Read-only, whatever else. AP\[1\] is RES1 in a regime with one privilege level.
const NORMAL: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_1)
    .union(El23Attributes::INNER_SHAREABLE)
    .union(El23Attributes::ACCESSED)
    .union(El23Attributes::USER_RES1);
const TEXT: El23Attributes = NORMAL.union(El23Attributes::READ_ONLY);
const RODATA: El23Attributes = TEXT.union(El23Attributes::XN);
const DATA: El23Attributes = NORMAL.union(El23Attributes::XN);
const DEVICE: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_0)
    .union(El23Attributes::ACCESSED)
    .union(El23Attributes::USER_RES1)
    .union(El23Attributes::XN);

/// Level of the root table: 48 bits.
const ROOT_LEVEL: usize = 0;

/// Why EL2 can't be mapped.
#[derive(Debug, thiserror::Error)]
#[error("mapping {start:#x} to {end:#x} for EL2: {reason}")]
pub struct MmuError {
    start: u64,
    end: u64,
    reason: aarch64_paging::MapError,
}

fn map(map: &mut IdMap<El2>, start: u64, end: u64, flags: El23Attributes) -> Result<(), MmuError> {
    if start >= end {
        return Ok(());
    }
    map.map_range(&MemoryRegion::new(start as usize, end as usize), flags).map_err(|reason| MmuError {
        start,
        end,
        reason,
    })
}

/// Builds the full map and makes the boot CPU use it.
///
/// # Errors
/// The tree describes memory or devices beyond 48 bits.
pub fn init(board: &Board<'_>) -> Result<(), MmuError> {
    let image = image::layout();
    // Holes in what would else be data, lowest first: the image, which has rights of its own, no-map regions, guards.
    let mut holes: Vec<(u64, u64)> = Vec::new();
    holes.push((image.start, image.end));
    let reserved = board.reserved.iter().filter(|reserved| reserved.no_map);
    holes.extend(reserved.map(|reserved| reserved.range.pages()));
    holes.extend(percpu::guards().map(|guard| (guard, guard + PAGE_SIZE)));
    order::sort(&mut holes);

    let mut tables = IdMap::new(ROOT_LEVEL, El2);
    for bank in &board.memory {
        // A bank's broken first and last page are no memory of EL2's.
        let (mut at, end) = (bank.start.as_u64().next_multiple_of(PAGE_SIZE), bank.end() & !(PAGE_SIZE - 1));
        for (from, to) in holes.iter().copied().filter(|(from, _)| *from < end) {
            map(&mut tables, at, from.min(end), DATA)?;
            at = at.max(to);
        }
        map(&mut tables, at, end, DATA)?;
    }
    map(&mut tables, image.start, image.text_end, TEXT)?;
    map(&mut tables, image.text_end, image.data_start, RODATA)?;
    for (start, end) in image.writable() {
        map(&mut tables, start, end, DATA)?;
    }
    for device in devices(board) {
        let (start, end) = device.pages();
        map(&mut tables, start, end, DEVICE)?;
    }
    let root = tables.root_address().0 as u64;
    MAP.call_once(|| Mutex::new(tables));
    crate::cache::sync();
    unsafe extern "C" {
        fn enable_mmu(root: u64);
    }
    // SAFETY: the new map translates everything that the first one did, to the same place and with the same rights, and
    // the whole of RAM and EL2's devices besides; it lives for ever. enable_mmu changes no register that Rust relies on.
    unsafe { enable_mmu(root) };
    Ok(())
}

/// The root table, for other CPUs.
pub fn root() -> u64 {
    MAP.get().map_or(0, |map| map.lock().root_address().0 as u64)
}

/// Adds a device to the map that is in use. At boot.
///
/// # Errors
/// It can't be mapped.
pub fn add_device(device: &Range) -> Result<(), MmuError> {
    let Some(tables) = MAP.get() else { return Ok(()) };
    let (start, end) = device.pages();
    map(&mut tables.lock(), start, end, DEVICE)?;
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
    Ok(())
}

/// Takes a device out of the map that is in use: EL2 never uses it again. At boot.
pub fn remove_device(device: &Range) {
    let Some(tables) = MAP.get() else { return };
    let (start, end) = device.pages();
    // What is there can be taken away.
    let _ = map(&mut tables.lock(), start, end, El23Attributes::empty());
    barrier::dsb(barrier::ISHST);
    // SAFETY: forgotten translations are read again.
    unsafe { asm!("tlbi alle2is", options(nostack)) };
    barrier::dsb(barrier::ISH);
    barrier::isb(barrier::SY);
}

/// Whether one page has registers of both devices.
pub fn share_a_page(one: &Range, other: &Range) -> bool {
    let ((start, end), (from, to)) = (one.pages(), other.pages());
    start < to && from < end
}

/// The registers that EL2 itself uses.
fn devices(board: &Board<'_>) -> Vec<Range> {
    let mut devices: Vec<Range> = Vec::new();
    devices.extend(board.console().map(|uart| uart.registers));
    devices.extend(board.rtc);
    devices.extend(board.bcm2835_pm);
    devices.extend(board.gic.iter().flat_map(Gic::registers));
    devices
}
