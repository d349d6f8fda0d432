//! The check: VMs of random shape, random changes to their tables while the hardware has them loaded, and after each
//! change random questions, which `stage2`, the model and the hardware must answer alike.

use alloc::vec::Vec;

use stage2::{Ipa, PAGE_SIZE, Pa, VmId};

use super::answer::{Answer, Cache, Fault, Memory, Shareability, StageOneMemory, combine, reported};
use super::guest::{self, Code, Does, Return};
use super::hardware::{self, Access, Regime};
use super::model::{Model, View};
use super::operation::{Anchors, Chooser, Operation};
use super::random::Random;
use super::ranges;
use super::space::{self, Space};
use super::stage_one::{self, Pool};
use super::tally::{Kind, Tally};
use super::{Failure, Outcome};
use crate::cpu::Features;

/// VMs.
const ROUNDS: usize = 240;
/// Changes to each one's tables.
const CHANGES: usize = 24;
/// Random questions after each change.
const QUESTIONS: usize = 10;
/// Places of stage-1 tables that are looked at after each change.
const PLACES: usize = 12;
/// Frames for tables, from too few for most changes to enough for all.
const FRAMES: [usize; 4] = [8, 20, 50, 150];

/// Runs all rounds.
///
/// # Errors
/// The first thing that isn't as it should be.
pub fn run(seed: u64, ask_denied: bool) -> Outcome<Tally> {
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let pools = Pools { tables: Pool::new()?, code: Code::new()? };
    for number in 0..ROUNDS {
        // With stage 1 on there is the most to see.
        let regime = [Regime::Off, Regime::On, Regime::DefaultCacheable, Regime::On][number % 4];
        let mut round = Round::new(&mut random, &mut tally, &pools, regime)?;
        round.ask_denied = ask_denied;
        let done = round.run();
        if done.is_err() {
            round.describe(number);
        }
        hardware::unload();
        done?;
        round.space.end()?;
    }
    ranges::run(&mut random, &mut tally, &pools.tables)?;
    Ok(tally)
}

/// Real memory that the VMs map, for what the regime needs.
struct Pools {
    /// With stage 1 on: its tables.
    tables: Pool,
    /// With stage 1 off: a guest's instructions.
    code: Code,
}

/// What the hardware should say, and of which kind that is.
type Expected = (Answer, Kind);

/// One VM.
struct Round<'a> {
    random: &'a mut Random,
    tally: &'a mut Tally,
    pools: &'a Pools,
    regime: Regime,
    /// Whether `AT` is asked about accesses that stage 2 denies: QEMU 10.0 fails an assertion there.
    ask_denied: bool,
    space: Space,
    model: Model,
    anchors: Anchors,
    /// Where pages of the pool are, or have been, as intermediate physical addresses.
    places: Vec<u64>,
    last: Option<Operation>,
}

impl<'a> Round<'a> {
    fn new(random: &'a mut Random, tally: &'a mut Tally, pools: &'a Pools, regime: Regime) -> Outcome<Self> {
        let vm = VmId::new(random.below(VmId::COUNT as u64) as u8).ok_or(Failure::Setup)?;
        let ipa_bits = random.between(32, u64::from(Features::read().pa_bits)) as u8;
        let frames = *random.pick(&FRAMES).unwrap_or(&0);
        let space = Space::new(vm, ipa_bits, frames)?;
        let geometry = space.stage2().geometry();
        hardware::load(space.stage2().vtcr(), space.stage2().vttbr(), regime);
        let anchors = Anchors::choose(random, geometry, regime == Regime::On);
        let model = Model::new(geometry);
        Ok(Self {
            random,
            tally,
            pools,
            regime,
            ask_denied: false,
            space,
            model,
            anchors,
            places: Vec::new(),
            last: None,
        })
    }

    fn run(&mut self) -> Outcome {
        for _ in 0..CHANGES {
            self.change()?;
            self.look_at_places()?;
            for _ in 0..QUESTIONS {
                let address = self.address();
                self.question(address)?;
            }
        }
        Ok(())
    }

    /// What a person needs to see why.
    fn describe(&self, number: usize) {
        let geometry = self.space.stage2().geometry();
        log::info!(
            "stage2-check: round {number}: {}, IPAs of {} bits, stage 1 {:?}, {:?}",
            self.space.stage2().vm(),
            geometry.ipa_bits(),
            self.regime,
            space::format()
        );
        log::info!("stage2-check: last change: {:?}", self.last);
        for piece in self.model.pieces() {
            log::info!("stage2-check: mapped: {piece:x?}");
        }
    }

    fn pool(&self) -> Pa {
        if self.regime == Regime::On { self.pools.tables.base() } else { self.pools.code.base() }
    }

    /// One change, live.
    fn change(&mut self) -> Outcome {
        let geometry = self.space.stage2().geometry();
        let pool = self.pool();
        let mut chooser = Chooser {
            random: self.random,
            model: &self.model,
            anchors: &self.anchors,
            pool,
            pool_share: 5,
            pa_bits: geometry.pa_bits(),
        };
        let operation = if self.places.is_empty() { chooser.map_pool() } else { chooser.choose() };
        self.last = Some(operation);
        let possible = operation.is_possible(&self.model, geometry);
        let found = operation.apply(&mut self.space);
        match found {
            // A refusal has changed nothing, as the questions that follow will see.
            Err(stage2::Error::OutOfFrames { .. }) if possible => self.tally.out_of_frames += 1,
            Err(_) if !possible => self.tally.refused += 1,
            Ok(()) if possible => {
                self.tally.changes += 1;
                operation.note(&mut self.model);
                self.remember(operation);
            }
            _ => return Err(Failure::Operation { operation, possible, found }),
        }
        Ok(())
    }

    /// Notes where pages of the pool are now.
    fn remember(&mut self, operation: Operation) {
        let Operation::Map(piece) = operation else { return };
        let pool = self.pool().as_u64();
        let from = piece.pa.max(pool);
        let to = (piece.pa + piece.size).min(pool + Pool::SIZE);
        if from >= to {
            return;
        }
        for _ in 0..3 {
            let page = self.random.below((to - from) / PAGE_SIZE);
            let place = piece.ipa + (from + page * PAGE_SIZE - piece.pa);
            if self.places.len() == PLACES {
                self.places.swap_remove(self.random.below(PLACES as u64) as usize);
            }
            self.places.push(place);
        }
    }

    /// An address to ask about, where there is something to see.
    fn address(&mut self) -> u64 {
        let end = self.space.stage2().geometry().ipa_end().as_u64();
        let (from, to) = match self.random.below(8) {
            0..=2 => self.last.map_or((0, end), |operation| operation.span()),
            3..=5 => self.random.pick(self.model.pieces()).map_or((0, end), |piece| (piece.ipa, piece.end())),
            6 => {
                let near = self.anchors.address(self.random, PAGE_SIZE);
                (near, near + PAGE_SIZE)
            }
            _ => return self.anywhere(),
        };
        match self.random.below(8) {
            0 => from,
            1 => from.saturating_sub(1),
            2 => to - 1,
            3 => to,
            _ => from + self.random.below(to - from),
        }
    }

    /// Any address of up to 56 bits, of any magnitude.
    fn anywhere(&mut self) -> u64 {
        let bits = self.random.between(12, 56);
        self.random.below(1 << bits) | 1 << (bits - 1)
    }

    /// What `stage2` says and what the model says, if that is the same.
    fn look(&self, ipa: u64) -> Outcome<View> {
        let model = self.model.look(ipa);
        let (stage2, tables) = (self.space.stage2(), self.space.tables());
        let mapping = stage2.query(tables, Ipa::new(ipa));
        let translation = stage2.translate(tables, Ipa::new(ipa));
        let agree = match (model, mapping, translation) {
            (View::Leaf { level, pa, permissions, usage }, Some(mapping), Some(translation)) => {
                let page = mapping.pa.as_u64() + (ipa - mapping.ipa.as_u64());
                level == mapping.level
                    && (pa, pa) == (page, translation.pa.as_u64())
                    && permissions == mapping.attributes.permissions
                    && permissions == translation.permissions
                    && usage == mapping.attributes.usage
                    && usage.memory_type() == translation.memory
            }
            (View::Hole(_) | View::Beyond, None, None) => true,
            _ => false,
        };
        if agree { Ok(model) } else { Err(Failure::Tables { ipa, model, mapping }) }
    }

    /// Asks about an intermediate physical address by one of the instructions that go through both stages.
    fn question(&mut self, ipa: u64) -> Outcome {
        let access = *self.random.pick(&Access::BOTH_STAGES).unwrap_or(&Access::Read);
        if self.regime != Regime::On {
            let expected = self.without_stage_one(access, ipa)?;
            return self.compare(access, ipa, expected);
        }
        let Some(place) = self.random.pick(&self.places).copied() else { return Ok(()) };
        let ipa = ipa % stage_one::END;
        // By whichever address leads there through the table at `place`, if there is one.
        let table = match self.look(place)? {
            View::Leaf { pa, .. } => self.pools.tables.table_at(pa),
            _ => None,
        };
        let address = table.map_or(ipa, |table| stage_one::virtual_address(table, ipa));
        self.through(place, access, address)
    }

    /// Looks whether each page of the pool is where the tables say, and none where they say that there is none. This is
    /// what a stale TLB entry shows in.
    fn look_at_places(&mut self) -> Outcome {
        for number in 0..self.places.len() {
            let place = self.places[number];
            if self.regime == Regime::On {
                let address = self.random.below(stage_one::END);
                self.through(place, Access::StageOne, address)?;
                continue;
            }
            let near = self.random.pick(&self.places).map_or(0, |place| place + self.random.below(PAGE_SIZE));
            let address = if self.random.one_in(2) { near } else { self.address() };
            let does = if self.random.one_in(2) { Does::Load } else { Does::Store };
            self.access(place, does, guest::word_near(address))?;
        }
        Ok(())
    }

    /// A guest whose instructions should be at `code` makes an access.
    fn access(&mut self, code: u64, does: Does, address: u64) -> Outcome {
        if address >> hardware::physical_bits() != 0 {
            return Ok(());
        }
        let value = self.random.below(u64::MAX);
        let memory = &self.pools.code;
        // What is mapped and allowed must be the pool's, for there is no memory behind the rest.
        let fault = |fault| Answer::Fault { fault, stage2: true, on_walk: false };
        let fetch = match self.look(code)? {
            View::Leaf { pa, permissions, .. } if permissions.execute => {
                if memory.page_at(pa).is_none() {
                    return Ok(());
                }
                Ok(())
            }
            View::Leaf { level, .. } => Err(Return::NoFetch(fault(Fault::Permission(level.number())))),
            View::Hole(level) => Err(Return::NoFetch(fault(Fault::Translation(level.number())))),
            View::Beyond => Err(Return::NoFetch(fault(Fault::Translation(0)))),
        };
        let mut stored = None;
        let data = match (self.look(address)?, does) {
            (View::Leaf { pa, permissions, .. }, Does::Load) if permissions.read => {
                if memory.page_at(pa).is_none() {
                    return Ok(());
                }
                Return::Done(memory.word_at(pa))
            }
            (View::Leaf { pa, permissions, .. }, Does::Store) if permissions.write => {
                if memory.page_at(pa).is_none() {
                    return Ok(());
                }
                stored = Some(pa);
                Return::Done(value)
            }
            (View::Leaf { level, .. }, _) => Return::Refused(fault(Fault::Permission(level.number()))),
            (View::Hole(level), _) => Return::Refused(fault(Fault::Translation(level.number()))),
            (View::Beyond, _) => Return::Refused(fault(Fault::Translation(0))),
        };
        let expected = fetch.err().unwrap_or(data);
        let found = guest::run(code, does, address, value);
        if found != expected {
            return Err(Failure::Access { does, address, code, expected, found });
        }
        if let (Return::Done(_), Some(pa)) = (found, stored)
            && !memory.took(pa, value)
        {
            return Err(Failure::Store { address, pa, value });
        }
        match found {
            Return::NoFetch(answer) => self.tally.note(Kind::NoFetch, Some(answer)),
            Return::Refused(answer) => self.tally.note(Kind::Refused, Some(answer)),
            Return::Done(_) | Return::Other(_) => self.tally.note(Kind::Done, None),
        }
        Ok(())
    }

    /// Asks with the stage-1 table that should be at `place`.
    fn through(&mut self, place: u64, access: Access, address: u64) -> Outcome {
        let on_walk = |fault| (Answer::Fault { fault, stage2: true, on_walk: true }, Kind::NoStageOne);
        let expected = match self.look(place + stage_one::entry_offset(address))? {
            View::Leaf { pa, permissions, .. } if permissions.read => {
                // Something else than the pool has come there: that isn't to be read.
                let Some(table) = self.pools.tables.table_at(pa) else { return Ok(()) };
                let stage_one::Output { ipa, one } = stage_one::translate(table, address);
                if access == Access::StageOne {
                    let StageOneMemory { memory, shareability } = one;
                    let page = ipa & !(PAGE_SIZE - 1);
                    let shareability = reported(memory, shareability);
                    (Answer::Address { page, memory, shareability }, Kind::StageOne)
                } else {
                    self.second_stage(access, ipa, one)?
                }
            }
            View::Leaf { level, .. } => on_walk(Fault::Permission(level.number())),
            View::Hole(level) => on_walk(Fault::Translation(level.number())),
            View::Beyond => on_walk(Fault::Translation(0)),
        };
        hardware::set_stage_one(place);
        self.compare(access, address, expected)
    }

    /// With stage 1 off, an address is an intermediate physical one, unless it has too many bits to be any.
    fn without_stage_one(&self, access: Access, address: u64) -> Outcome<Expected> {
        if address >> hardware::physical_bits() != 0 {
            let fault = Fault::AddressSize(0);
            return Ok((Answer::Fault { fault, stage2: false, on_walk: false }, Kind::AddressSize));
        }
        let one = match self.regime {
            Regime::DefaultCacheable => {
                let memory = Memory::normal(Cache::WriteBack);
                StageOneMemory { memory, shareability: Shareability::None }
            }
            Regime::Off | Regime::On => {
                StageOneMemory { memory: Memory::Device(0), shareability: Shareability::Outer }
            }
        };
        self.second_stage(access, address, one)
    }

    fn second_stage(&self, access: Access, ipa: u64, one: StageOneMemory) -> Outcome<Expected> {
        let fault = |fault, kind| (Answer::Fault { fault, stage2: true, on_walk: false }, kind);
        Ok(match self.look(ipa)? {
            View::Leaf { level, pa, permissions, usage } => {
                let allowed = if access.is_write() { permissions.write } else { permissions.read };
                if allowed {
                    let (memory, shareability) = combine(space::format(), one, usage.memory_type());
                    (Answer::Address { page: pa & !(PAGE_SIZE - 1), memory, shareability }, Kind::Hit)
                } else {
                    fault(Fault::Permission(level.number()), Kind::Permission)
                }
            }
            View::Hole(level) => fault(Fault::Translation(level.number()), Kind::Hole),
            View::Beyond => fault(Fault::Translation(0), Kind::Beyond),
        })
    }

    fn compare(&mut self, access: Access, address: u64, (expected, kind): Expected) -> Outcome {
        if kind == Kind::Permission && !self.ask_denied {
            return Ok(());
        }
        let par = hardware::ask(access, address);
        let found = par.answer();
        if found != expected {
            return Err(Failure::Answer { access, address, expected, found, par: par.0 });
        }
        self.tally.note(kind, Some(found));
        Ok(())
    }
}
