//! A VM's stage 2 for the check: the real tables in real frames, under a ledger of its own.
//!
//! That ledger has all of the machine's physical addresses, whether there is memory behind them or not: nothing ever
//! reads or writes what is mapped, so blocks of any size and any bit of an address can be tried. The board's own ledger,
//! from which the tables' frames come, stays as it is.

use stage2::{
    Format, Geometry, Inventory, Ipa, Kind, Pa, PaRange, Permissions, Run, Stage2, Transfer, Use, VmId, VmSet,
};

use super::{Failure, Outcome};
use crate::cpu::Features;
use crate::memory::Ledger;
use crate::tables::Tables;

/// Runs that the ledger can tell apart.
const RUNS: usize = 2048;

/// A VM's tables and what they may map.
pub struct Space {
    ledger: Ledger,
    tables: Tables,
    stage2: Stage2,
    frames: usize,
}

/// Where in the physical address space what kind of memory is, as (first address, size).
pub fn area(usage: Use, pa_bits: u8) -> (u64, u64) {
    let eighth = 1u64 << (pa_bits - 3);
    match usage {
        Use::Ram | Use::CopyOnWrite => (0, 5 * eighth),
        Use::Shared => (5 * eighth, eighth),
        Use::Device | Use::Banked => (6 * eighth, 2 * eighth),
    }
}

fn area_range(usage: Use, pa_bits: u8) -> Outcome<PaRange> {
    let (start, size) = area(usage, pa_bits);
    Ok(PaRange::new(Pa::new(start), size)?)
}

/// The format of this CPU's stage 2.
pub fn format() -> Format {
    if Features::read().forced_write_back { Format::ForcedWriteBack } else { Format::Combined }
}

impl Space {
    /// Empty tables, with `frames` of them in reserve beside the start tables.
    ///
    /// # Errors
    /// No memory.
    pub fn new(vm: VmId, ipa_bits: u8, frames: usize) -> Outcome<Self> {
        let pa_bits = Features::read().pa_bits;
        let geometry = Geometry::new(ipa_bits, pa_bits)?;
        let mut inventory = Inventory::new(alloc::vec![Run::default(); RUNS])?;
        for (usage, kind) in [(Use::Ram, Kind::Free), (Use::Shared, Kind::Free), (Use::Device, Kind::Device)]
        {
            inventory.declare(area_range(usage, pa_bits)?, kind)?;
        }
        let mut ledger = inventory.finish();
        ledger.transfer(area_range(Use::Ram, pa_bits)?, Transfer::Donate(vm))?;
        // Shared for loads only: no writer.
        let open = Transfer::Open { members: VmSet::only(vm), writers: VmSet::EMPTY };
        ledger.transfer(area_range(Use::Shared, pa_bits)?, open)?;
        ledger.transfer(area_range(Use::Device, pa_bits)?, Transfer::Assign(vm))?;
        let mut tables = Tables::new(geometry.start_tables(), frames)?;
        let stage2 = Stage2::new(&mut tables, vm, geometry, format())?;
        Ok(Self { ledger, tables, stage2, frames })
    }

    /// The tables.
    pub fn stage2(&self) -> &Stage2 {
        &self.stage2
    }

    /// Their memory.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// All three at once.
    pub const fn parts(&mut self) -> (&mut Ledger, &mut Stage2, &mut Tables) {
        (&mut self.ledger, &mut self.stage2, &mut self.tables)
    }

    /// Ledger, tables and their frames, for who tears them down.
    pub fn into_parts(self) -> (Ledger, Stage2, Tables) {
        (self.ledger, self.stage2, self.tables)
    }

    /// Frames that tables take, those at the start included.
    pub fn frames_taken(&self) -> usize {
        self.stage2.geometry().start_tables() + self.frames - self.tables.left()
    }

    /// How often TLB entries have been invalidated.
    pub const fn invalidations(&self) -> u32 {
        self.tables.invalidations
    }

    /// Maps by way of the ledger.
    ///
    /// # Errors
    /// As `Ledger::map`.
    pub fn map(
        &mut self,
        ipa: u64,
        pages: (PaRange, Use),
        permissions: Permissions,
    ) -> Result<(), stage2::Error> {
        self.ledger.map(&mut self.stage2, &mut self.tables, Ipa::new(ipa), pages, permissions)
    }

    /// Unmaps by way of the ledger.
    ///
    /// # Errors
    /// As `Ledger::unmap`.
    pub fn unmap(&mut self, ipa: u64, size: u64) -> Result<(), stage2::Error> {
        self.ledger.unmap(&mut self.stage2, &mut self.tables, Ipa::new(ipa), size)
    }

    /// Changes permissions.
    ///
    /// # Errors
    /// As `Stage2::protect`.
    pub fn protect(&mut self, ipa: u64, size: u64, permissions: Permissions) -> Result<(), stage2::Error> {
        self.stage2.protect(&mut self.tables, Ipa::new(ipa), size, permissions)
    }

    /// Tears everything down. The frames are still set aside, for [`Self::end`].
    ///
    /// # Errors
    /// The ledger counts otherwise.
    pub fn tear_down(self) -> Outcome<Remains> {
        let Self { mut ledger, mut tables, stage2, frames } = self;
        // A single start table goes back to the others.
        let single = usize::from(stage2.geometry().start_tables() == 1);
        ledger.teardown(stage2, &mut tables)?;
        Ok(Remains { tables, frames: frames + single })
    }

    /// The whole end of it.
    ///
    /// # Errors
    /// The ledger counts otherwise, or a frame is lost.
    pub fn end(self) -> Outcome {
        self.tear_down()?.give_back()
    }
}

/// The frames of a VM that is gone.
pub struct Remains {
    tables: Tables,
    frames: usize,
}

impl Remains {
    /// How often TLB entries have been invalidated.
    pub const fn invalidations(&self) -> u32 {
        self.tables.invalidations
    }

    /// Gives them back.
    ///
    /// # Errors
    /// There are fewer than there were.
    pub fn give_back(self) -> Outcome {
        let left = self.tables.left();
        self.tables.give_back();
        if left == self.frames { Ok(()) } else { Err(Failure::LostFrames { left, of: self.frames }) }
    }
}
