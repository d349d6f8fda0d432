//! Accesses of every kind at addresses that aren't this guest's: other VMs' memory, EL2's, the board's devices, nothing at
//! all. Guest addresses are intermediate ones, so all of these have the same answer: an external abort.

use arrayvec::ArrayVec;
use runtime::exceptions::{Fault, class, status};
use runtime::machine::{GicRegisters, Region};
use runtime::mmu::{self, Kind};
use runtime::probe::{self, Load, Store, Touch, Touched};
use runtime::{features, machine};

use crate::{Report, Strength, ensure, fail};

const PAGE: u64 = 4 << 10;
const BLOCK: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// Where foreign addresses are mapped to be reached as memory, and at all if they lie high: in a gigabyte that has
/// neither RAM nor devices.
const WINDOW: u64 = 500 * GIB;

/// How addresses are mapped.
const KINDS: [Kind; 6] = [
    Kind::Normal,
    Kind::NonCacheable,
    Kind::WriteThrough,
    Kind::Device,
    Kind::StrictDevice,
    Kind::LooseDevice,
];

/// The board's RAM begins and EL2 is where QEMU has them; the scenarios run on boards of 2 GiB.
const BOARD_RAM: Region = Region { base: GIB, size: 2 * GIB };
/// The devices of QEMU's `virt`, GICs included; those of this VM lie among them.
const DEVICES: Region = Region { base: 0x0800_0000, size: 0x0300_0000 };
/// The record of stolen time, where this VM has one: it may be read.
const STOLEN_TIME: Region = Region { base: 0x090a_0000, size: PAGE };

/// What this guest has: RAM and devices.
fn own() -> ArrayVec<Region, 16> {
    let machine = machine();
    let mut own: ArrayVec<Region, 16> = machine.ram.into_iter().collect();
    own.push(machine.uart.registers);
    own.extend(machine.rtc.map(|rtc| rtc.registers));
    match machine.gic {
        // The region of the CPU interface is larger in the tree than what there is.
        GicRegisters::V2 { distributor, cpu_interface } => {
            own.extend([Region { size: PAGE, ..distributor }, Region { size: 2 * PAGE, ..cpu_interface }]);
        }
        GicRegisters::V3 { distributor, redistributors } => {
            own.push(distributor);
            let cpus = machine.cpus().len() as u64;
            own.push(Region { size: cpus << 17, ..redistributors[0] });
        }
    }
    own.push(STOLEN_TIME);
    own.retain(|region| region.size > 0);
    own
}

/// Whether a block of `size` at `base` has anything of this guest's.
fn overlaps(own: &[Region], base: u64, size: u64) -> bool {
    own.iter().any(|region| region.base < base + size && base < region.end())
}

/// What went wrong with an access, for the report.
struct Access<'a> {
    what: &'a dyn core::fmt::Debug,
    kind: Kind,
    /// The address that isn't the guest's.
    foreign: u64,
    /// Where it is mapped.
    address: u64,
}

impl Access<'_> {
    /// Fails unless the access was answered by an external abort.
    fn refused(&self, fault: Option<Fault>, wanted_class: u64) {
        let Self { what, kind, foreign, address } = self;
        let Some(fault) = fault else {
            fail(format_args!("{what:?} at {foreign:#x} went through, mapped as {kind:?} at {address:#x}"));
        };
        // Blocks of cache lines are reported by any address in them, and accesses across pages by the page that faults.
        let near = fault.far >= address & !0x7ff && fault.far < address + 64;
        let aligned = address % 16 == 0;
        let of_own_stage = !aligned && fault.status() == status::ALIGNMENT;
        let right =
            fault.class() == wanted_class && (fault.status() == status::EXTERNAL_ABORT || of_own_stage);
        ensure(
            right && near,
            format_args!("{what:?} at {foreign:#x}, mapped as {kind:?} at {address:#x}: {fault}"),
        );
    }
}

/// Accesses of all kinds at one foreign address, which is mapped at `address` as `kind`. Returns how many.
fn try_all(kind: Kind, foreign: u64, address: u64, value: u64) -> u64 {
    let mut count = try_some(kind, foreign, address, value);
    let access = |what: &dyn core::fmt::Debug, fault, class| {
        Access { what, kind, foreign, address }.refused(fault, class);
    };
    for load in [Load::Byte, Load::SignedHalfX, Load::Double, Load::Acquire, Load::ToZero] {
        access(&load, probe::load(load, address).err(), class::DATA_ABORT);
        count += 1;
    }
    for store in [Store::Half, Store::Double, Store::Release, Store::Zero] {
        access(&store, probe::store(store, address, value).err(), class::DATA_ABORT);
        count += 1;
    }
    let is_memory = [Kind::Normal, Kind::NonCacheable, Kind::WriteThrough].contains(&kind);
    let can = |touch: &&Touch| {
        // To zero a block of a device is an alignment fault of stage 1.
        (is_memory || **touch != Touch::ZeroBlock) && (!touch.needs_lse() || features::has_lse())
    };
    for touch in Touch::ALL.iter().filter(can) {
        match probe::touch(*touch, address) {
            Touched::Done(_) if touch.may_be_ignored() => {}
            Touched::Done(_) => access(touch, None, class::DATA_ABORT),
            Touched::Faulted(fault) => access(touch, Some(fault), class::DATA_ABORT),
        }
        count += 1;
    }
    if is_memory {
        access(&"a fetch", probe::fetch(address), class::INSTRUCTION_ABORT);
        let unaligned = address + 13;
        let loaded = probe::load(Load::Double, unaligned).err();
        Access { what: &"an unaligned load", kind, foreign, address: unaligned }
            .refused(loaded, class::DATA_ABORT);
        let stored = probe::store(Store::Word, unaligned, value).err();
        Access { what: &"an unaligned store", kind, foreign, address: unaligned }
            .refused(stored, class::DATA_ABORT);
        count += 3;
    }
    count
}

/// A load and a store.
fn try_some(kind: Kind, foreign: u64, address: u64, value: u64) -> u64 {
    let access = |what: &dyn core::fmt::Debug, fault| {
        Access { what, kind, foreign, address }.refused(fault, class::DATA_ABORT);
    };
    access(&Load::Word, probe::load(Load::Word, address).err());
    access(&Store::Word, probe::store(Store::Word, address, value).err());
    2
}

/// Maps the block of `foreign` into the window and tries to reach it; and some places in the block.
fn try_through_window(strength: &mut Strength, foreign: u64) -> u64 {
    /// How far they are from each other.
    const STEP: u64 = 256 << 10;
    let kind = strength.random.one_of(&KINDS);
    mmu::map(WINDOW, foreign, kind);
    let address = WINDOW + foreign % BLOCK;
    let value = strength.random.word();
    let mut count = try_all(kind, foreign, address, value);
    for offset in (0..BLOCK).step_by(STEP as usize).map(|step| step + strength.random.below(STEP / 64) * 64) {
        count += try_some(kind, foreign / BLOCK * BLOCK + offset, WINDOW + offset, value);
    }
    // What stage 1 makes of it is the guest's own business, and tells nothing of what is behind.
    let translated = mmu::translate_read(address);
    ensure(
        translated & 1 == 1 || (translated ^ foreign) & 0xffff_ffff_f000 == 0,
        format_args!("AT S1E1R of {foreign:#x} gives {translated:#x}"),
    );
    mmu::map(WINDOW, WINDOW, Kind::Device);
    count
}

/// All of the address space: by blocks where the board has RAM and devices, by gigabytes and powers of two above.
pub fn attack(strength: &mut Strength) -> Report {
    let own = own();
    let mut count = 0;
    let behind_ram = machine().ram_end().next_multiple_of(BLOCK);
    // Blocks below 4 GiB, through the window; each at a place in it that is another one in every round.
    for block in (0..4 * GIB).step_by(BLOCK as usize).filter(|block| !overlaps(&own, *block, BLOCK)) {
        let at = block + strength.random.below(BLOCK / 64) * 64;
        count += try_through_window(strength, at);
    }
    // More of the board's RAM, where the other VMs are, as its addresses are mapped anyway: as devices.
    for _ in 0..strength.times(2000) {
        let address = BOARD_RAM.base + strength.random.below(BOARD_RAM.size / 16) * 16;
        if !overlaps(&own, address, 64) && address >= behind_ram {
            count += try_some(Kind::Device, address, address, strength.random.word());
        }
    }
    // Edges: of own RAM, and of every power of two, up to the highest address that a descriptor holds.
    for address in [machine().ram_end(), machine().ram_end() + PAGE - 64, machine().ram[0].base - 64] {
        count += try_all(Kind::Device, address, address, strength.random.word());
    }
    let powers = (20..48).flat_map(|power| [1 << power, (1u64 << power) - 64]);
    let highest = [(1 << 48) - 64, (1 << 40) - PAGE];
    let all = powers.chain(highest);
    for foreign in all.filter(|edge| !overlaps(&own, edge / BLOCK * BLOCK, BLOCK)) {
        if is_within_own_size(foreign) {
            count += try_through_window(strength, foreign);
        } else {
            count += try_too_high(foreign);
        }
    }
    for _ in 0..strength.times(500) {
        let foreign = strength.random.below(1 << 48) & !63;
        match is_within_own_size(foreign) {
            true if !overlaps(&own, foreign / BLOCK * BLOCK, BLOCK) => {
                count += try_through_window(strength, foreign);
            }
            true => {}
            false => count += try_too_high(foreign),
        }
    }
    count += try_walks(strength);
    (count, "accesses, all refused")
}

/// Whether stage 1 lets this address through: ID_AA64MMFR0_EL1.PARange.
fn is_within_own_size(address: u64) -> bool {
    let mmfr0 = runtime::sysreg::read(runtime::sysreg::SysReg::new(3, 0, 0, 7, 0)).unwrap_or(0);
    let bits = [32, 36, 40, 42, 44, 48][(mmfr0 as usize & 0xf).min(5)];
    address < 1 << bits
}

/// An address beyond the size that the ID registers tell: stage 1 refuses it, or stage 2 does.
fn try_too_high(foreign: u64) -> u64 {
    mmu::map(WINDOW, foreign, Kind::Normal);
    let address = WINDOW + foreign % BLOCK;
    for fault in [probe::load(Load::Word, address).err(), probe::store(Store::Word, address, 1).err()] {
        let address_size = |fault: Fault| fault.status() < 4;
        let refused = fault.is_some_and(|fault| fault.is_external_abort() || address_size(fault));
        ensure(refused, format_args!("an access at {foreign:#x}, which is too high: {fault:x?}"));
    }
    mmu::map(WINDOW, WINDOW, Kind::Device);
    2
}

/// Tables of stage 1 that lie in foreign memory: the walk is refused, and nothing of it shows.
fn try_walks(strength: &mut Strength) -> u64 {
    const WALKED: u64 = 501 * GIB;
    let behind_ram = machine().ram_end().next_multiple_of(BLOCK);
    let count = strength.times(200);
    for _ in 0..count {
        let table = behind_ram + strength.random.below((3 * GIB - behind_ram) / PAGE) * PAGE;
        mmu::map_by_table(WALKED, table);
        let address = WALKED + strength.random.below(GIB / 8) * 8;
        let loaded = probe::load(Load::Word, address);
        let (translated, refused) = runtime::exceptions::catch(|| mmu::translate_read(address));
        mmu::unmap_table(WALKED);
        // An external abort on a walk, of level 0 to 3, or one that doesn't say so.
        let walk = |fault: Fault| (0x14..0x18).contains(&fault.status()) || fault.is_external_abort();
        match loaded {
            Err(fault) if walk(fault) => {}
            other => fail(format_args!("a load through a table at {table:#x}: {other:x?}")),
        }
        ensure(
            refused.is_some() || translated & 1 == 1,
            format_args!("AT S1E1R through a table at {table:#x} gives {translated:#x}"),
        );
    }
    2 * count
}

/// Every page of the board's devices that isn't this guest's, and the one page that it may only read.
pub fn attack_devices(strength: &mut Strength) -> Report {
    let own = own();
    let mut count = 0;
    let pages = (DEVICES.base..DEVICES.end()).step_by(PAGE as usize);
    for page in pages.filter(|page| !overlaps(&own, *page, PAGE)) {
        let address = page + strength.random.below(PAGE / 64) * 64;
        let value = strength.random.word();
        count += match strength.random.below(16) {
            0 => try_all(Kind::Device, address, address, value),
            _ => try_some(Kind::Device, address, address, value),
        };
    }
    for offset in (0..PAGE).step_by(64) {
        let address = STOLEN_TIME.base + offset;
        let stored = probe::store(Store::Double, address, u64::MAX).err();
        Access { what: &Store::Double, kind: Kind::Device, foreign: address, address }
            .refused(stored, class::DATA_ABORT);
        count += 1;
    }
    (count, "accesses, all refused")
}
