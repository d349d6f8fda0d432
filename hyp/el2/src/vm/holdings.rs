//! What a VM has of the board's memory: taking it, mapping it, and giving it back scrubbed, a piece at a time.
//!
//! At boot the pieces follow each other at once; while others run they are steps of a job (`life`), of which none allocates,
//! waits for another VM, or takes long. What a step can't have at once, the ledger or the free frames, it leaves for
//! the next one. A VM that stops keeps the frames of its tables, with which it can be started again, what flash that it can write
//! to holds, and nothing else.

use alloc::vec::Vec;
use config::manifest::MEMORY_UNIT;
use config::payload::{FLASH_UNIT, FlashBank};
use stage2::{
    Cursor, Error, Ipa, LedgerError, MapJob, MapStep, PaRange, Permissions, Progress, Refused, STEP, Scrub,
    State, Transfer, Use, VmId,
};
use vmm::layout::Layout;

use crate::cache;
use crate::guest_memory::{self, NoMemory, Source, Space};
use crate::memory::{self, FrameError};

/// Pages that are scrubbed at a time: zeroed and cleaned, some 8,000 instructions.
const SCRUBBED: u64 = 16;
/// Bytes of flash that are erased at a time.
const ERASED: u64 = 32 << 10;
/// The most pieces that a VM's RAM may consist of.
const RAM_PIECES: usize = 64;

/// Read, write, execute: a VM's RAM.
const RAM: Permissions = Permissions { read: true, write: true, execute: true };
/// A flash bank that shows what it holds.
pub const FLASH: Permissions = Permissions { read: true, write: false, execute: true };
const RECORDS: Permissions = Permissions { read: true, write: false, execute: false };
const SHARED: Permissions = Permissions { read: true, write: true, execute: false };
const DEVICE: Permissions = Permissions { read: true, write: true, execute: false };

/// Why a VM can't have its memory.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// There isn't enough, or it is broken up.
    #[error("memory: {0}")]
    Memory(#[from] FrameError),
    /// It can't be mapped.
    #[error("stage 2: {0}")]
    Stage2(#[from] stage2::Error),
    /// It is mapped, and can't be written.
    #[error(transparent)]
    Write(#[from] NoMemory),
    /// What it had could not be taken back when it last stopped.
    #[error("memory: what it had is lost, and nothing can take its place")]
    Lost,
}

/// What a VM wants.
#[derive(Clone, Debug)]
pub struct Wants {
    /// Where it all goes.
    pub layout: &'static Layout,
    /// Bytes of RAM, a multiple of [`MEMORY_UNIT`].
    pub ram: u64,
    /// The memory that was set aside for its RAM. While it has stopped, nobody else gets that.
    pub set_aside: Option<PaRange>,
    /// A page for records of stolen time.
    pub stolen_time: bool,
    /// Its flash banks.
    pub flash: Vec<WantedBank>,
    /// GICv2's virtual CPU interface.
    pub gicv: Option<PaRange>,
    /// Memory that it shares with others, and where that goes. It isn't taken or given back, but mapped and unmapped.
    pub channels: Vec<(Ipa, PaRange)>,
    /// Registers of the board's devices that it has for ever, and where those go.
    pub devices: Vec<(Ipa, PaRange)>,
}

/// A flash bank.
#[derive(Clone, Copy, Debug)]
pub struct WantedBank {
    base: Ipa,
    /// Bytes with frames of their own.
    held: u64,
    /// Bytes behind those that read as ones.
    erased: u64,
    /// What it holds stays when the VM stops.
    kept: bool,
}

impl Wants {
    /// The banks as the payload's plan has them.
    pub fn flash_of(banks: &[FlashBank<'_>]) -> Vec<WantedBank> {
        let wanted = |bank: &FlashBank<'_>| WantedBank {
            base: bank.base,
            held: bank.backed,
            erased: bank.erased,
            kept: bank.kept,
        };
        banks.iter().map(wanted).collect()
    }

    /// How often flash is mapped, at the most.
    fn flash_mappings(&self) -> usize {
        let units = |bank: &WantedBank| (bank.held.saturating_add(bank.erased) / FLASH_UNIT) as usize;
        self.flash.iter().map(units).fold(0, usize::saturating_add)
    }

    /// Frames for the tables that map all of it: some for the levels above, one for each GiB of RAM, one for each channel, at most
    /// three for each piece of devices: one for pages at either end, and one for the level above. RAM
    /// and flash come in pieces of whole blocks of 2 MiB, so they need no other tables.
    pub fn frames_for_tables(&self) -> usize {
        let devices = self.devices.len().saturating_mul(3);
        ((self.ram >> 30) as usize)
            .saturating_add(self.channels.len())
            .saturating_add(devices)
            .saturating_add(16)
    }
}

/// What a piece of memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Ram,
    StolenTime,
    /// What a flash bank holds.
    Held(usize),
    /// Ones, for the rest of a flash bank.
    Erased(usize),
}

/// Memory that lies together.
#[derive(Clone, Copy, Debug)]
struct Piece {
    part: Part,
    run: PaRange,
    /// The ledger says that it is the VM's. Until then it is nobody's, taken from the free frames.
    owned: bool,
}

/// A part of the VM's address space.
#[derive(Clone, Copy, Debug)]
struct Place {
    at: Ipa,
    run: PaRange,
    usage: Use,
    permissions: Permissions,
}

/// Where the job is.
#[derive(Debug)]
enum Stage {
    /// The VM has nothing.
    Nothing,
    /// Of this thing that it wants, it has so many bytes.
    Taking(usize, u64),
    /// This piece is becoming its own.
    Owning(usize),
    /// This place is to be mapped next.
    Placing(usize),
    /// This flash bank is being erased, from this byte of its unit on.
    Erasing(usize, u64),
    /// It has everything.
    Everything,
    /// Of the places, so many are still mapped; the last one of these is being unmapped.
    Unmapping(usize, Option<Cursor>),
    /// The last piece is being given back.
    Returning,
    /// Something that can't be: what the VM has is lost, and it never gets anything again.
    Lost,
}

/// A VM's memory. Nothing is allocated after [`new`](Self::new).
pub struct Holdings {
    vm: VmId,
    wants: Wants,
    pieces: Vec<Piece>,
    /// While it has stopped, those that it keeps, the last first.
    kept: Vec<Piece>,
    places: Vec<Place>,
    stage: Stage,
    /// What is being scrubbed, which must come to its end.
    scrub: Option<Scrub>,
    /// What is being mapped, which must come to its end.
    job: Option<MapJob>,
    /// Bytes that the VM has, or that are set aside for it.
    held: u64,
}

/// Adds a piece to a list, where there is room: this never allocates.
fn write_down(list: &mut Vec<Piece>, piece: Piece) {
    if list.len() < list.capacity() {
        list.push(piece);
    }
}

impl Holdings {
    /// Nothing yet.
    pub fn new(vm: VmId, wants: Wants) -> Self {
        let pieces =
            RAM_PIECES.saturating_add(1).saturating_add(wants.flash.len().saturating_mul(2 * RAM_PIECES));
        let kept = if wants.flash.iter().any(|bank| bank.kept) { RAM_PIECES } else { 0 };
        let held = wants.set_aside.map_or(0, |run| run.size());
        let places = RAM_PIECES
            .saturating_add(2)
            .saturating_add(wants.channels.len())
            .saturating_add(wants.devices.len())
            .saturating_add(wants.flash_mappings());
        Self {
            vm,
            wants,
            pieces: Vec::with_capacity(pieces),
            kept: Vec::with_capacity(kept),
            places: Vec::with_capacity(places),
            stage: Stage::Nothing,
            scrub: None,
            job: None,
            held,
        }
    }

    /// Bytes that the VM has, or that are set aside for it.
    pub const fn held(&self) -> u64 {
        self.held
    }

    /// Its RAM, in the order of guest addresses.
    pub fn ram(&self) -> impl Iterator<Item = PaRange> {
        self.pieces.iter().filter(|piece| piece.part == Part::Ram).map(|piece| piece.run)
    }

    /// Whether it has devices of the board.
    pub fn has_devices(&self) -> bool {
        !self.wants.devices.is_empty()
    }

    /// The physical address of the byte of RAM at this offset, and where the RAM that lies together with it ends. `None`
    /// behind the end.
    pub fn ram_at(&self, offset: u64) -> Option<(u64, u64)> {
        let mut skip = offset;
        for run in self.ram() {
            if skip < run.size() {
                return Some((run.start().as_u64().wrapping_add(skip), run.end().as_u64()));
            }
            skip = skip.saturating_sub(run.size());
        }
        None
    }

    /// What it wants, one thing after another: what for, how many bytes, in pieces of at least how many.
    fn want(&self, number: usize) -> Option<(Part, u64, u64)> {
        let bank = |n: usize| self.wants.flash.get(n / 2).map(|bank| (n / 2, bank.held, bank.erased));
        let page = if self.wants.stolen_time { self.wants.layout.stolen_time.size } else { 0 };
        match number {
            0 => Some((Part::Ram, self.wants.ram, MEMORY_UNIT)),
            1 => Some((Part::StolenTime, page, stage2::PAGE_SIZE)),
            _ => bank(number.wrapping_sub(2)).map(|(bank, held, erased)| match number % 2 {
                0 => (Part::Held(bank), held, FLASH_UNIT),
                _ => (Part::Erased(bank), erased.min(FLASH_UNIT), FLASH_UNIT),
            }),
        }
    }

    /// The next step of getting all that it wants.
    ///
    /// # Errors
    /// It can't have it. What it has by then must be given back.
    pub fn take_some(&mut self, space: &mut Space) -> Result<Progress, TakeError> {
        match self.stage {
            Stage::Nothing => self.stage = Stage::Taking(0, 0),
            Stage::Taking(want, taken) => self.take_one(want, taken)?,
            Stage::Owning(number) => self.own_some(number)?,
            Stage::Placing(number) => self.place_some(space, number)?,
            Stage::Erasing(bank, done) => self.erase_some(space, bank, done)?,
            Stage::Everything => return Ok(Progress::Done),
            Stage::Unmapping(..) | Stage::Returning | Stage::Lost => return Err(TakeError::Lost),
        }
        Ok(Progress::More)
    }

    /// Takes one more piece out of the free frames.
    fn take_one(&mut self, number: usize, taken: u64) -> Result<(), TakeError> {
        let Some((part, bytes, unit)) = self.want(number) else {
            self.stage = Stage::Owning(0);
            return Ok(());
        };
        if taken >= bytes {
            self.stage = Stage::Taking(number.saturating_add(1), 0);
            return Ok(());
        }
        let mut kept = 0u64;
        while let Some(piece) = self.kept.pop_if(|piece| piece.part == part) {
            kept = kept.saturating_add(piece.run.size());
            write_down(&mut self.pieces, piece);
        }
        if kept > 0 {
            self.stage = Stage::Taking(number, kept);
            return Ok(());
        }
        if let (Part::Ram, Some(run)) = (part, self.wants.set_aside) {
            self.add(part, run);
            self.stage = Stage::Taking(number, bytes);
            return Ok(());
        }
        let Some(mut frames) = memory::try_frames() else { return Ok(()) };
        let left = bytes.saturating_sub(taken);
        let has_room = self.pieces.len() < self.pieces.capacity();
        let Some(run) = has_room.then(|| frames.take_run(left, unit)).flatten() else {
            return Err(frames.refusal(bytes, taken, unit).into());
        };
        self.add(part, run);
        self.held = self.held.saturating_add(run.size());
        self.stage = Stage::Taking(number, taken.saturating_add(run.size()));
        Ok(())
    }

    fn add(&mut self, part: Part, run: PaRange) {
        write_down(&mut self.pieces, Piece { part, run, owned: false });
    }

    /// Makes a piece the VM's, which has to be scrubbed before, if that has not been done.
    fn own_some(&mut self, number: usize) -> Result<(), TakeError> {
        if self.scrub.is_some() {
            return self.scrub_some().map_err(TakeError::from);
        }
        let Some(piece) = self.pieces.get_mut(number) else {
            self.place_all();
            self.stage = Stage::Placing(0);
            return Ok(());
        };
        if piece.owned {
            self.stage = Stage::Owning(number.saturating_add(1));
            return Ok(());
        }
        let Some(mut ledger) = memory::try_ledger() else { return Ok(()) };
        match ledger.transfer(piece.run, Transfer::Donate(self.vm)) {
            Ok(()) => {
                piece.owned = true;
                self.stage = Stage::Owning(number.saturating_add(1));
            }
            Err(LedgerError::NotAllowed { state: State::Free | State::Unscrubbed, .. }) => {
                // Some of it may have been scrubbed already. Passing through EL2's hands makes it one.
                ledger.transfer(piece.run, Transfer::Claim).map_err(FrameError::from)?;
                ledger.transfer(piece.run, Transfer::Yield).map_err(FrameError::from)?;
                self.scrub = Some(ledger.begin_scrub(piece.run).map_err(FrameError::from)?);
            }
            Err(error) => return Err(FrameError::from(error).into()),
        }
        Ok(())
    }

    /// Goes on scrubbing what is being scrubbed.
    fn scrub_some(&mut self) -> Result<(), FrameError> {
        let Some(mut scrub) = self.scrub.take() else { return Ok(()) };
        if scrub.step(SCRUBBED, cache::scrub) == Progress::More {
            self.scrub = Some(scrub);
            return Ok(());
        }
        match memory::try_ledger() {
            Some(mut ledger) => Ok(ledger.finish_scrub(scrub).map_err(|(error, _)| error)?),
            // Another step finds nothing left to zero.
            None => {
                self.scrub = Some(scrub);
                Ok(())
            }
        }
    }

    /// Where everything goes.
    fn place_all(&mut self) {
        let Self { pieces, places, wants, .. } = self;
        places.clear();
        let mut add = |place: Place| {
            if places.len() < places.capacity() {
                places.push(place);
            }
        };
        let of = |part: Part| pieces.iter().filter(move |piece| piece.part == part).map(|piece| piece.run);
        let layout = wants.layout;
        let mut at = layout.ram.base;
        for run in of(Part::Ram) {
            add(Place { at, run, usage: Use::Ram, permissions: RAM });
            at = behind(at, run);
        }
        for run in of(Part::StolenTime) {
            add(Place { at: layout.stolen_time.base, run, usage: Use::Ram, permissions: RECORDS });
        }
        if let Some(run) = wants.gicv {
            add(Place { at: layout.gicc.base, run, usage: Use::Banked, permissions: DEVICE });
        }
        for (at, run) in wants.channels.iter().copied() {
            add(Place { at, run, usage: Use::Shared, permissions: SHARED });
        }
        for (at, run) in wants.devices.iter().copied() {
            add(Place { at, run, usage: Use::Device, permissions: DEVICE });
        }
        for (bank, WantedBank { base, held, erased, .. }) in wants.flash.iter().copied().enumerate() {
            let end = base.as_u64().saturating_add(held).saturating_add(erased);
            let mut at = base;
            for run in of(Part::Held(bank)) {
                add(Place { at, run, usage: Use::Ram, permissions: FLASH });
                at = behind(at, run);
            }
            // The same ones again and again.
            while let Some(run) = of(Part::Erased(bank)).next()
                && at.as_u64() < end
            {
                add(Place { at, run, usage: Use::Ram, permissions: FLASH });
                at = behind(at, run);
            }
        }
    }

    /// Maps a part of what goes to a place.
    fn place_some(&mut self, space: &mut Space, number: usize) -> Result<(), TakeError> {
        if self.job.is_some() {
            return Ok(self.map_some(space)?);
        }
        let Some(Place { at, run, usage, permissions }) = self.places.get(number).copied() else {
            self.stage = Stage::Erasing(0, 0);
            return Ok(());
        };
        let Some(mut ledger) = memory::try_ledger() else { return Ok(()) };
        let grant = ledger.grant(self.vm, run, usage).map_err(Error::from)?;
        match MapJob::new(space.stage2(), at, grant, permissions) {
            Ok(job) => self.job = Some(job),
            Err(refused) => return Err(give_grant_back(&mut ledger, refused).into()),
        }
        Ok(())
    }

    fn map_some(&mut self, space: &mut Space) -> Result<(), stage2::Error> {
        let Some(job) = self.job.take() else { return Ok(()) };
        let (stage2, tables, _) = space.parts();
        match job.step(stage2, tables, STEP) {
            MapStep::More(job) => self.job = Some(job),
            MapStep::Done => {
                // Whoever goes on, with mapping or with unmapping, has one place more to see to.
                if let Stage::Placing(number) = &mut self.stage {
                    *number = number.saturating_add(1);
                }
            }
            MapStep::Refused(refused) => {
                // This happens where tables run out alone, so here it may be waited for the ledger.
                let error = refused.error;
                return Err(memory::with_ledger(|ledger| give_grant_back(ledger, refused)).unwrap_or(error));
            }
            MapStep::Stuck(_, error) => {
                self.stage = Stage::Lost;
                return Err(error);
            }
        }
        Ok(())
    }

    fn erase_some(&mut self, space: &mut Space, bank: usize, done: u64) -> Result<(), NoMemory> {
        let Some(WantedBank { base, held, erased, .. }) = self.wants.flash.get(bank).copied() else {
            self.stage = Stage::Everything;
            return Ok(());
        };
        let size = erased.min(FLASH_UNIT);
        self.stage = if done < size {
            let at = Ipa::new(base.as_u64().saturating_add(held));
            let written = guest_memory::write(space, at, Source::Fill(0xff, size), done, ERASED)?;
            Stage::Erasing(bank, done.saturating_add(written))
        } else {
            Stage::Erasing(bank.saturating_add(1), 0)
        };
        Ok(())
    }

    /// It is never started again, so that nothing is kept for that.
    pub fn keep_nothing(&mut self) {
        self.wants.flash.iter_mut().for_each(|bank| bank.kept = false);
    }

    /// The next step of giving back all that the VM has, wherever taking it has come to, but for what is kept. None of its vCPUs
    /// runs. What can't be given back is lost, with a message.
    pub fn give_back_some(&mut self, space: &mut Space, name: &str) -> Progress {
        // What has been begun comes to its end first.
        if self.scrub.is_some() {
            if let Err(error) = self.scrub_some() {
                log::error!("{name}: its memory is lost, as it can't be scrubbed: {error}");
                self.stage = Stage::Lost;
            }
            return Progress::More;
        }
        if self.job.is_some() {
            // Where it is refused, nothing of it is mapped.
            let _ = self.map_some(space);
            return Progress::More;
        }
        match &mut self.stage {
            Stage::Nothing | Stage::Lost => return Progress::Done,
            Stage::Taking(..) | Stage::Owning(_) => self.stage = Stage::Returning,
            Stage::Placing(placed) => self.stage = Stage::Unmapping(*placed, None),
            Stage::Erasing(..) | Stage::Everything => self.stage = Stage::Unmapping(self.places.len(), None),
            Stage::Unmapping(placed, cursor) => {
                let (placed, cursor) = (*placed, cursor.take());
                self.stage = self.unmap_some(space, placed, cursor).unwrap_or_else(|error| {
                    log::error!("{name}: its memory is lost, as it can't be unmapped: {error}");
                    Stage::Lost
                });
            }
            Stage::Returning => return self.return_some(name),
        }
        Progress::More
    }

    /// Unmaps a part of the last place that is still mapped.
    fn unmap_some(&self, space: &mut Space, placed: usize, cursor: Option<Cursor>) -> Result<Stage, Error> {
        let Some(Place { at, run, .. }) = placed.checked_sub(1).and_then(|last| self.places.get(last)) else {
            return Ok(Stage::Returning);
        };
        let mut cursor = cursor.unwrap_or_else(|| Cursor::new(*at, run.size()));
        let Some(mut ledger) = memory::try_ledger() else {
            return Ok(Stage::Unmapping(placed, Some(cursor)));
        };
        let (stage2, tables, _) = space.parts();
        match ledger.unmap_some(stage2, tables, &mut cursor, STEP)? {
            Progress::More => Ok(Stage::Unmapping(placed, Some(cursor))),
            Progress::Done => Ok(Stage::Unmapping(placed.saturating_sub(1), None)),
        }
    }

    /// Gives the last piece back, or a part of that.
    fn return_some(&mut self, name: &str) -> Progress {
        let Some(piece) = self.pieces.last_mut() else {
            self.places.clear();
            self.stage = Stage::Nothing;
            return Progress::Done;
        };
        let run = piece.run;
        if piece.owned
            && let Part::Held(bank) = piece.part
            && self.wants.flash.get(bank).is_some_and(|bank| bank.kept)
        {
            // It has been in `kept` before, or that has room for all that a bank consists of.
            if let Some(piece) = self.pieces.pop() {
                write_down(&mut self.kept, piece);
            }
        } else if piece.owned {
            let Some(mut ledger) = memory::try_ledger() else { return Progress::More };
            let reclaimed = ledger.transfer(run, Transfer::Reclaim(self.vm));
            match reclaimed.and_then(|()| ledger.begin_scrub(run)) {
                Ok(scrub) => {
                    piece.owned = false;
                    self.scrub = Some(scrub);
                }
                Err(error) => {
                    drop(ledger);
                    self.lose_last(name, &error.into());
                }
            }
        } else if piece.part == Part::Ram && self.wants.set_aside.is_some() {
            // It stays set aside.
            self.pieces.pop();
        } else if let Some(mut frames) = memory::try_frames() {
            frames.give_back(run);
            self.drop_last();
        }
        Progress::More
    }

    fn lose_last(&mut self, name: &str, error: &FrameError) {
        if let Some(piece) = self.pieces.last() {
            log::error!("{name}: {} KiB of its memory are lost: {error}", piece.run.size() >> 10);
        }
        self.drop_last();
    }

    fn drop_last(&mut self) {
        if let Some(piece) = self.pieces.pop() {
            self.held = self.held.saturating_sub(piece.run.size());
        }
    }
}

/// A grant that could not be used goes back. Returns why.
fn give_grant_back(ledger: &mut memory::Ledger, Refused { error, grant }: Refused<Error>) -> Error {
    match ledger.release(grant) {
        Ok(()) => error,
        Err(refused) => refused.error.into(),
    }
}

fn behind(at: Ipa, run: PaRange) -> Ipa {
    Ipa::new(at.as_u64().saturating_add(run.size()))
}
