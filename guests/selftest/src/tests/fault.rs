//! Accesses outside the machine's map: each gets an external abort with the right syndrome, and nothing else happens.

use arrayvec::ArrayVec;
use runtime::exceptions::{Fault, class, status};
use runtime::mmu::{self, Kind};
use runtime::probe::{self, Load, Store};
use runtime::{machine, sysreg};

use crate::framework::{Outcome, Stop, check, check_eq, needs_hanok, on_every_cpu, tests};

tests! {
    "fault.read" => read,
    "fault.read-on-every-cpu" => read_on_every_cpu,
    "fault.write" => write,
    "fault.exclusive" => exclusive,
    "fault.cacheable" => cacheable,
    "fault.execute" => execute,
    "fault.table-walk" => table_walk,
    "fault.table-walk-at-each-level" => table_walk_at_each_level,
    "fault.table-walk-into-a-device" => table_walk_into_a_device,
    "fault.table-walk-of-64k-pages" => table_walk_of_64k,
    "fault.cache-maintenance" => cache_maintenance,
    "fault.misaligned" => misaligned,
    "fault.storm" => storm,
    "fault.brk" => brk,
}

/// Addresses where nothing is: behind RAM, between the devices, and as high as addresses go.
fn nowhere() -> ArrayVec<u64, 6> {
    let top = 1u64 << physical_address_bits().min(39);
    [spare(), 0x0b00_0000, 0x0b00_0ffc, 0x0bff_f004, 60 << 30, top - 0x1000]
        .into_iter()
        .filter(|address| *address < top)
        .collect()
}

/// ID_AA64MMFR0_EL1.PARange, in bits.
fn physical_address_bits() -> u32 {
    let mmfr0 = sysreg::read(sysreg::SysReg::new(3, 0, 0, 7, 0)).unwrap_or(0);
    [32, 36, 40, 42, 44, 48, 52].get(mmfr0 as usize & 0xf).copied().unwrap_or(32)
}

/// The syndrome of an external abort of EL1's own access, at `address`.
fn check_abort(fault: Option<Fault>, address: u64, write: bool, what: &str) -> Outcome {
    let Some(fault) = fault else {
        check!(false, "{what} at {address:#x}: an external abort, got none");
        return Ok(());
    };
    check_eq!(fault.class(), class::DATA_ABORT, "{what} at {address:#x}: exception class");
    check_eq!(fault.status(), status::EXTERNAL_ABORT, "{what} at {address:#x}: DFSC");
    check_eq!(fault.syndrome() >> 6 & 1, u64::from(write), "{what} at {address:#x}: WnR");
    check_eq!(fault.syndrome() >> 10 & 1, 0, "{what} at {address:#x}: FnV");
    check_eq!(fault.far, address, "{what}: FAR");
    check_eq!(fault.esr >> 25 & 1, 1, "{what} at {address:#x}: IL, a 32-bit instruction");
    Ok(())
}

fn read() -> Outcome {
    for address in nowhere() {
        for kind in [Load::Word, Load::Byte, Load::SignedHalfX, Load::ToZero, Load::Acquire] {
            check_abort(probe::load(kind, address).err(), address, false, "a load")?;
        }
        check_abort(probe::load(Load::Double, address & !7).err(), address & !7, false, "a load of 8 bytes")?;
    }
    Ok(())
}

fn read_on_every_cpu() -> Outcome {
    on_every_cpu(read)
}

fn write() -> Outcome {
    for address in nowhere() {
        for kind in [Store::Word, Store::Byte, Store::Half, Store::Zero, Store::Release] {
            check_abort(probe::store(kind, address, 0xdead).err(), address, true, "a store")?;
        }
        check_abort(
            probe::store(Store::Double, address & !7, 1).err(),
            address & !7,
            true,
            "a store of 8 bytes",
        )?;
    }
    Ok(())
}

fn exclusive() -> Outcome {
    // Exclusives carry no syndrome for the hypervisor.
    for address in nowhere() {
        check_abort(probe::exclusive(address), address, false, "a load-exclusive")?;
    }
    Ok(())
}

/// Where nothing is, in a block of its own that can be mapped at will.
fn spare() -> u64 {
    machine().ram_end().next_multiple_of(2 << 20)
}

fn cacheable() -> Outcome {
    let address = spare();
    mmu::map(address, address, Kind::NonCacheable);
    let outcome =
        check_abort(probe::load(Load::Word, address).err(), address, false, "a load from Normal memory")
            .and_then(|()| {
                let fault = probe::store(Store::Word, address + 8, 1).err();
                check_abort(fault, address + 8, true, "a store to Normal memory")
            });
    mmu::map(address, address, Kind::Device);
    outcome
}

fn execute() -> Outcome {
    let address = spare();
    mmu::map(address, address, Kind::NonCacheable);
    let faults = [address, address + 0x1000].map(|target| (target, probe::fetch(target)));
    mmu::map(address, address, Kind::Device);
    for (target, fault) in faults {
        let Some(fault) = fault else {
            check!(false, "a call to {target:#x}: an abort, got none");
            continue;
        };
        check_eq!(fault.class(), class::INSTRUCTION_ABORT, "a call to {target:#x}: exception class");
        check_eq!(fault.status(), status::EXTERNAL_ABORT, "a call to {target:#x}: IFSC");
        check_eq!((fault.far, fault.elr), (target, target), "a call: FAR and ELR");
    }
    Ok(())
}

/// The syndrome of an access to a table of stage 1 that nothing answers, at this level.
fn check_walk(fault: Option<Fault>, expected: u64, level: usize, address: u64, what: &str) -> Outcome {
    let Some(fault) = fault else {
        check!(false, "{what} through a table of level {level} that isn't there: an abort, got none");
        return Ok(());
    };
    check_eq!(fault.class(), expected, "{what}, level {level}: exception class");
    let on_walk = status::EXTERNAL_ABORT_ON_WALK + level as u64;
    check_eq!(fault.status(), on_walk, "{what}, level {level}: status of an external abort on a walk");
    check_eq!(fault.far, address, "{what}, level {level}: FAR");
    check_eq!(fault.syndrome() >> 7 & 1, 0, "{what}, level {level}: S1PTW, which is EL2's business");
    Ok(())
}

fn table_walk() -> Outcome {
    // A gigabyte whose level 2 table is nowhere.
    let address = 61 << 30;
    mmu::map_by_table(address, NO_TABLE);
    let fault = probe::load(Load::Word, address).err();
    mmu::unmap_table(address);
    check_walk(fault, class::DATA_ABORT, 2, address, "a load")?;
    check_abort(probe::load(Load::Word, address).err(), address, false, "a load with the table gone")
}

/// Where tables are that aren't there.
const NO_TABLE: u64 = 0x0b00_0000;

/// Walks that leave RAM at each level, for loads, stores and fetches.
fn table_walk_at_each_level() -> Outcome {
    walks(NO_TABLE)
}

/// The same to an emulated device. A real one answers a walk as any load: what it says is no table.
fn table_walk_into_a_device() -> Outcome {
    needs_hanok()?;
    walks(machine().uart.registers.base)
}

fn walks(table: u64) -> Outcome {
    (0..4).try_for_each(|level| {
        mmu::with_upper_table(level, table, |address| {
            let load = probe::load(Load::Byte, address + 3).err();
            check_walk(load, class::DATA_ABORT, level, address + 3, "a load")?;
            let store = probe::store(Store::Word, address, 1).err();
            check_walk(store, class::DATA_ABORT, level, address, "a store")?;
            check_eq!(store.map(|fault| fault.syndrome() >> 6 & 1), Some(1), "WnR of a store, level {level}");
            check_walk(probe::fetch(address), class::INSTRUCTION_ABORT, level, address, "a fetch")
        })
    })
}

fn table_walk_of_64k() -> Outcome {
    /// ID_AA64MMFR0_EL1.TGran64: 0xf where there are no such pages.
    const TGRAN64: u32 = 24;
    let mmfr0 = sysreg::read(sysreg::SysReg::new(3, 0, 0, 7, 0)).unwrap_or(0);
    if mmfr0 >> TGRAN64 & 0xf == 0xf {
        return Err(Stop::Skipped("this CPU has no pages of 64 KiB"));
    }
    mmu::with_upper_table_of_64k(NO_TABLE, |address| {
        check_walk(probe::load(Load::Word, address).err(), class::DATA_ABORT, 2, address, "a load")
    })
}

fn cache_maintenance() -> Outcome {
    // Nothing to clean there: an abort with CM, or no effect.
    for address in nowhere().into_iter().chain([machine().uart.registers.base]) {
        if let Some(fault) = probe::clean_invalidate(address) {
            check_eq!(fault.class(), class::DATA_ABORT, "DC CIVAC at {address:#x}: exception class");
            check_eq!(fault.syndrome() >> 8 & 1, 1, "DC CIVAC at {address:#x}: CM");
            check_eq!(fault.far & !63, address & !63, "DC CIVAC: FAR");
        }
    }
    Ok(())
}

fn misaligned() -> Outcome {
    // Devices are never accessed unaligned: stage 1 of the guest answers this by itself. An emulated CPU may not check;
    // then the device answers as it likes, and the machine goes on.
    let address = machine().uart.registers.base + 0x19;
    let Err(fault) = probe::load(Load::Word, address) else {
        return Err(Stop::Skipped("this CPU doesn't check alignment"));
    };
    check_eq!(fault.class(), class::DATA_ABORT, "exception class");
    let expected = [status::ALIGNMENT, status::EXTERNAL_ABORT].contains(&fault.status());
    check!(expected, "DFSC of an alignment fault or an external abort, got {:#x}", fault.status());
    check_eq!(fault.far, address, "FAR");
    Ok(())
}

fn storm() -> Outcome {
    for round in 0..5000 {
        let address = 0x0b00_0000 + 4 * round;
        let aborted = match round % 2 {
            0 => probe::load(Load::Word, address).err(),
            _ => probe::store(Store::Word, address, round).err(),
        };
        check!(aborted.is_some_and(|fault| fault.is_external_abort()), "round {round}: an external abort");
    }
    Ok(())
}

fn brk() -> Outcome {
    // A debug exception of the guest's own goes to the guest.
    let fault = sysreg::probe(sysreg::Probe::Brk).err();
    check_eq!(fault.map(|fault| fault.class()), Some(class::BREAKPOINT), "exception class of BRK");
    Ok(())
}
