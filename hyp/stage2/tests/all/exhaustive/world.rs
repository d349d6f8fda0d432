//! A small world: the crate's tables and ledger on a machine, and what they ought to be. It can be copied.

use std::cell::Cell;
use std::rc::Rc;

use stage2::{
    Environment, Error, Geometry, Invalidation, Inventory, Ipa, Kind, Ledger, Pa, PaRange, Progress, Run,
    Stage2, State, Transfer, VmId,
};

use super::plan::{Operation, Plan};
use super::{BOTH, FORMATS, FRAMES, MEMORY, VMS};
use crate::common::machine::Machine;
use crate::common::model::{Model, Target};

/// Gives out one frame, to tables that are there already.
struct Adopt(Pa);

impl Environment for Adopt {
    fn allocate(&mut self, _: usize) -> Option<Pa> {
        Some(self.0)
    }
    fn free(&mut self, _: Pa, _: usize) {}
    fn read(&self, _: Pa, _: usize) -> u64 {
        0
    }
    fn write(&mut self, _: Pa, _: usize, _: u64) {}
    fn copy(&mut self, _: Pa, _: Pa) {}
    fn order(&mut self) {}
    fn publish(&mut self) {}
    fn invalidate(&mut self, _: VmId, _: Invalidation) {}
    fn invalidate_vm(&mut self, _: VmId) {}
}

/// The ledger's storage, which is made smaller when the ledger is filled: on the way there it may take more runs.
pub struct Room {
    runs: [Run; 16],
    limit: Rc<Cell<usize>>,
}

impl AsRef<[Run]> for Room {
    fn as_ref(&self) -> &[Run] {
        &self.runs[..self.limit.get()]
    }
}

impl AsMut<[Run]> for Room {
    fn as_mut(&mut self) -> &mut [Run] {
        &mut self.runs[..self.limit.get()]
    }
}

pub struct World<'a> {
    pub plan: &'a Plan,
    pub machine: Machine,
    pub ledger: Ledger<Room>,
    pub tables: [Option<Stage2>; 2],
    /// What the test knows: the state of each cell, and each VM's mapping.
    pub cells: Vec<State>,
    pub models: [Model; 2],
}

/// What tells states apart.
pub type Key = (String, [bool; 2]);

fn geometry() -> Geometry {
    Geometry::new(32, 40).unwrap()
}

fn root_of(tables: &Stage2) -> Pa {
    Pa::new(tables.vttbr() & 0xffff_ffff_f000)
}

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let cells = vec![State::Free; plan.cells.len()];
        let models = [Model::default(), Model::default()];
        let ledger = ledger_of(plan, &cells, &models);
        Self { plan, machine: Machine::new(FRAMES), ledger, tables: [None, None], cells, models }
    }

    pub fn copy(&self) -> Self {
        let adopt = |vm: usize| {
            let tables = self.tables[vm].as_ref()?;
            Some(Stage2::new(&mut Adopt(root_of(tables)), VMS[vm], geometry(), FORMATS[vm]).unwrap())
        };
        let mut machine = self.machine.clone();
        machine.invalidations.clear();
        Self {
            plan: self.plan,
            machine,
            ledger: ledger_of(self.plan, &self.cells, &self.models),
            tables: [adopt(0), adopt(1)],
            cells: self.cells.clone(),
            models: self.models.clone(),
        }
    }

    pub fn key(&self) -> Key {
        let mappings = self.models.each_ref().map(Model::joined);
        (format!("{:?} {mappings:?}", self.cells), self.tables.each_ref().map(Option::is_some))
    }

    /// How often a cell is mapped, by all VMs.
    pub fn mappings(&self, cell: usize) -> u32 {
        let pa = MEMORY + self.plan.place((cell, 1)).0;
        let holds = |&(from, size, _): &(u64, u64, Target)| from <= pa && pa < from + size;
        self.models.iter().map(|model| model.physical().filter(holds).count() as u32).sum()
    }

    /// Asks the crate.
    pub fn perform(&mut self, operation: Operation) -> Result<(), Error> {
        let plan = self.plan;
        match operation {
            Operation::Transfer { cells, transfer } => self.ledger.transfer(plan.range(cells), transfer)?,
            Operation::Scrub { cells } => {
                let mut scrub = self.ledger.begin_scrub(plan.range(cells))?;
                while scrub.step(1, |_| {}) == Progress::More {}
                self.ledger.finish_scrub(scrub).map_err(|(error, _)| error)?;
            }
            Operation::Freeze { vm, part } => {
                let (ipa, size) = plan.place(part);
                let tables = self.tables[vm].as_mut().unwrap();
                self.ledger.freeze(tables, &mut self.machine, Ipa::new(ipa), size, BOTH)?;
            }
            Operation::Thaw { vm, part } => {
                let (ipa, size) = plan.place(part);
                let tables = self.tables[vm].as_mut().unwrap();
                self.ledger.thaw(tables, &mut self.machine, Ipa::new(ipa), size)?;
            }
            Operation::Map { vm, map: (ipa, pa, count), usage, permissions } => {
                let ipa = Ipa::new(plan.place((ipa, 0)).0);
                let what = (plan.range((pa, count)), usage);
                let tables = self.tables[vm].as_mut().unwrap();
                self.ledger.map(tables, &mut self.machine, ipa, what, permissions)?;
            }
            Operation::Unmap { vm, part } => {
                let (ipa, size) = plan.place(part);
                let tables = self.tables[vm].as_mut().unwrap();
                self.ledger.unmap(tables, &mut self.machine, Ipa::new(ipa), size)?;
            }
            Operation::Protect { vm, part, permissions } => {
                let (ipa, size) = plan.place(part);
                let tables = self.tables[vm].as_mut().unwrap();
                tables.protect(&mut self.machine, Ipa::new(ipa), size, permissions)?;
            }
            Operation::Teardown { vm } => {
                let tables = self.tables[vm].take().unwrap();
                self.ledger.teardown(tables, &mut self.machine)?;
            }
            Operation::Build { vm } => {
                let tables = Stage2::new(&mut self.machine, VMS[vm], geometry(), FORMATS[vm])?;
                self.machine.load(VMS[vm], root_of(&tables), 1, 1);
                self.tables[vm] = Some(tables);
            }
            Operation::ReclaimAll { vm } => self.ledger.reclaim_all(VMS[vm])?,
            Operation::Retire { vm } => self.ledger.retire(VMS[vm])?,
        }
        Ok(())
    }

    /// Whether the operation needs tables that are not there, or the other way round: nobody can ask for that.
    pub fn makes_no_sense(&self, operation: Operation) -> bool {
        match operation {
            Operation::Map { vm, .. }
            | Operation::Unmap { vm, .. }
            | Operation::Protect { vm, .. }
            | Operation::Freeze { vm, .. }
            | Operation::Thaw { vm, .. }
            | Operation::Teardown { vm } => self.tables[vm].is_none(),
            Operation::Build { vm } => self.tables[vm].is_some(),
            _ => false,
        }
    }
}

fn ledger_of(plan: &Plan, cells: &[State], models: &[Model; 2]) -> Ledger<Room> {
    let limit = Rc::new(Cell::new(16));
    let mut inventory = Inventory::new(Room { runs: [Run::default(); 16], limit: limit.clone() }).unwrap();
    let kind = |state: &State| if *state == State::Unscrubbed { Kind::Unscrubbed } else { Kind::Free };
    for (cell, state) in cells.iter().enumerate() {
        inventory.declare(plan.range((cell, 1)), kind(state)).unwrap();
    }
    let mut ledger = inventory.finish();
    for (cell, &state) in cells.iter().enumerate() {
        let transfer = match state {
            State::Owned(vm) => Transfer::Donate(vm),
            State::Shared { members, writers } => Transfer::Open { members, writers },
            State::CopyOnWrite { members } => {
                let owner = VMS.into_iter().find(|vm| members.contains(*vm)).unwrap();
                ledger.transfer(plan.range((cell, 1)), Transfer::Donate(owner)).unwrap();
                Transfer::Freeze { owner, members }
            }
            _ => continue,
        };
        ledger.transfer(plan.range((cell, 1)), transfer).unwrap();
    }
    for (vm, model) in VMS.iter().zip(models) {
        for (pa, size, target) in model.physical() {
            // Counted, and used up: the mapping is in the tables.
            drop(ledger.grant(*vm, PaRange::new(Pa::new(pa), size).unwrap(), target.usage).unwrap());
        }
    }
    limit.set(plan.runs);
    ledger
}
