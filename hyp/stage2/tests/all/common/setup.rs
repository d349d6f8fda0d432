//! One VM with empty tables, and a ledger in which it has memory, a device and a share of something: for tests of single
//! operations.

use stage2::{
    Error, Format, Geometry, Inventory, Ipa, Kind, Ledger, Pa, PaRange, Permissions, Run, Stage2, Transfer,
    Use, VmId, VmSet,
};

use super::machine::Machine;
use super::walker::{Found, regime};

pub const PAGE: u64 = 4096;
pub const MIB2: u64 = 2 << 20;
pub const GIB: u64 = 1 << 30;

pub const VM: VmId = VmId::new(3).unwrap();
pub const OTHER: VmId = VmId::new(4).unwrap();

/// RAM of `VM` from 1 to 9 GiB, of `OTHER` from 9 to 10; a device at 0x900_0000; shared from 10 to 11, written by `OTHER`.
pub fn ledger() -> Ledger<Vec<Run>> {
    let mut inventory = Inventory::new(vec![Run::default(); 64]).unwrap();
    let range = |start, size| PaRange::new(Pa::new(start), size).unwrap();
    inventory.declare(range(GIB, 10 * GIB), Kind::Free).unwrap();
    inventory.declare(range(0x900_0000, PAGE), Kind::Device).unwrap();
    inventory.declare(range((1 << 40) - PAGE, GIB), Kind::Free).unwrap();
    let mut ledger = inventory.finish();
    let (members, writers) = (VmSet::only(VM).with(OTHER), VmSet::only(OTHER));
    for (start, size, transfer) in [
        (GIB, 8 * GIB, Transfer::Donate(VM)),
        (9 * GIB, GIB, Transfer::Donate(OTHER)),
        (10 * GIB, GIB, Transfer::Open { members, writers }),
        (0x900_0000, PAGE, Transfer::Assign(VM)),
        ((1 << 40) - PAGE, GIB, Transfer::Donate(VM)),
    ] {
        ledger.transfer(range(start, size), transfer).unwrap();
    }
    ledger
}

pub struct Setup {
    pub machine: Machine,
    pub ledger: Ledger<Vec<Run>>,
    pub tables: Stage2,
}

impl Setup {
    pub fn new() -> Self {
        let mut machine = Machine::new(1000);
        let geometry = Geometry::new(40, 40).unwrap();
        let tables = Stage2::new(&mut machine, VM, geometry, Format::Combined).unwrap();
        machine.load(VM, Pa::new(tables.vttbr() & 0xffff_ffff_f000), 2, 1);
        Self { machine, ledger: ledger(), tables }
    }

    pub fn map(
        &mut self,
        ipa: u64,
        pa: u64,
        size: u64,
        usage: Use,
        permissions: Permissions,
    ) -> Result<(), Error> {
        let range = PaRange::new(Pa::new(pa), size).unwrap();
        let got =
            self.ledger.map(&mut self.tables, &mut self.machine, Ipa::new(ipa), (range, usage), permissions);
        self.machine.assert_current();
        got
    }

    pub fn ram(&mut self, ipa: u64, pa: u64, size: u64) -> Result<(), Error> {
        self.map(ipa, pa, size, Use::Ram, Permissions::ALL)
    }

    pub fn unmap(&mut self, ipa: u64, size: u64) -> Result<(), Error> {
        let got = self.ledger.unmap(&mut self.tables, &mut self.machine, Ipa::new(ipa), size);
        self.machine.assert_current();
        got
    }

    pub fn protect(&mut self, ipa: u64, size: u64, permissions: Permissions) -> Result<(), Error> {
        let got = self.tables.protect(&mut self.machine, Ipa::new(ipa), size, permissions);
        self.machine.assert_current();
        got
    }

    pub fn leaves(&self) -> Vec<Found> {
        regime(self.tables.vtcr(), false).census(&self.machine, self.tables.vttbr()).leaves
    }

    pub fn sizes(&self) -> Vec<u64> {
        self.leaves().iter().map(|leaf| leaf.size).collect()
    }
}
