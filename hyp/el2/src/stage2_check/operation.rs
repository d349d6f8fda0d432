//! Random changes to a VM's tables, the impossible among them.

use alloc::vec::Vec;

use stage2::{Geometry, Level, PAGE_SIZE, Pa, PaRange, Permissions, Use};

use super::model::{Model, Piece};
use super::random::Random;
use super::space::{Space, area};
use super::stage_one;

const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;

/// One change.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// Map this.
    Map(Piece),
    /// Unmap what is between these.
    Unmap(u64, u64),
    /// Give these permissions to what is between.
    Protect(u64, u64, Permissions),
}

impl Operation {
    /// The first address, and the one behind the last.
    pub const fn span(&self) -> (u64, u64) {
        match self {
            Self::Map(piece) => (piece.ipa, piece.end()),
            Self::Unmap(from, to) | Self::Protect(from, to, _) => (*from, *to),
        }
    }

    /// Whether the model says that it can be done.
    pub fn is_possible(&self, model: &Model, geometry: Geometry) -> bool {
        let (from, to) = self.span();
        let can = match self {
            Self::Map(piece) => model.is_free(from, to) && allows(piece.usage, piece.permissions),
            Self::Unmap(..) => model.is_all(from, to, |_| true),
            Self::Protect(_, _, permissions) => {
                model.is_all(from, to, |piece| allows(piece.usage, *permissions))
            }
        };
        can && to <= geometry.ipa_end().as_u64()
    }

    /// Does it to the tables.
    ///
    /// # Errors
    /// Theirs.
    pub fn apply(&self, space: &mut Space) -> Result<(), stage2::Error> {
        let (from, to) = self.span();
        match self {
            Self::Map(piece) => {
                let range = PaRange::new(Pa::new(piece.pa), piece.size)?;
                space.map(piece.ipa, (range, piece.usage), piece.permissions)
            }
            Self::Unmap(..) => space.unmap(from, to - from),
            Self::Protect(_, _, permissions) => space.protect(from, to - from, *permissions),
        }
    }

    /// Does it to the model.
    pub fn note(&self, model: &mut Model) {
        match *self {
            Self::Map(piece) => model.map(piece),
            Self::Unmap(from, to) => model.unmap(from, to),
            Self::Protect(from, to, permissions) => model.protect(from, to, permissions),
        }
    }
}

/// What the crate's documentation says of permissions, and the space's shared memory being for loads alone.
fn allows(usage: Use, permissions: Permissions) -> bool {
    let Permissions { read, write, execute } = permissions;
    !(execute && !read || write && usage == Use::Shared || execute && usage == Use::Device)
}

/// Where changes go, so that they meet: a few places, each a GiB.
pub struct Anchors(Vec<u64>);

impl Anchors {
    /// For a VM of this shape. `near`: most of them where `stage_one`'s tables lead.
    pub fn choose(random: &mut Random, geometry: Geometry, near: bool) -> Self {
        let end = geometry.ipa_end().as_u64();
        let reach = if near { end.min(stage_one::END) } else { end };
        let mut all = Vec::from([GIB, (random.below(reach / GIB)) * GIB, reach - GIB]);
        // The last GiB of all, and both sides of a boundary between tables of the start level.
        all.push(end - GIB);
        if end > stage_one::END {
            all.extend([stage_one::END - GIB, stage_one::END]);
        }
        Self(all)
    }

    /// An address in one of the places, a multiple of `unit`; mostly near the place's ends.
    pub fn address(&self, random: &mut Random, unit: u64) -> u64 {
        let base = random.pick(&self.0).copied().unwrap_or(GIB);
        let within = match random.below(4) {
            0 => random.below(GIB),
            1 => GIB - 1 - random.below(4 * MIB2),
            _ => random.below(4 * MIB2),
        };
        (base + within) & !(unit - 1)
    }
}

/// What operations are chosen by.
pub struct Chooser<'a> {
    /// Numbers.
    pub random: &'a mut Random,
    /// What is mapped.
    pub model: &'a Model,
    /// Where.
    pub anchors: &'a Anchors,
    /// Real memory, whose pages are there to be read: 2 MiB, aligned to that.
    pub pool: Pa,
    /// How many mappings in ten are of the pool.
    pub pool_share: u64,
    /// The machine's bits of a physical address.
    pub pa_bits: u8,
}

impl Chooser<'_> {
    /// The next operation.
    pub fn choose(&mut self) -> Operation {
        if self.model.pieces().is_empty() {
            return self.map();
        }
        match self.random.below(10) {
            0..=4 => self.map(),
            5 | 6 => {
                let (from, to) = self.part();
                Operation::Unmap(from, to)
            }
            _ => {
                let (from, to) = self.part();
                Operation::Protect(from, to, self.permissions())
            }
        }
    }

    /// Maps some of the pool.
    pub fn map_pool(&mut self) -> Operation {
        let base = self.pool.as_u64();
        let (unit, pa, size) = match self.random.below(4) {
            0 => (GIB, base & !(GIB - 1), GIB),
            1 => (MIB2, base, MIB2),
            _ => {
                let page = self.random.below(MIB2 / PAGE_SIZE);
                let pages = self.random.between(1, MIB2 / PAGE_SIZE - page).min(20);
                (PAGE_SIZE, base + page * PAGE_SIZE, pages * PAGE_SIZE)
            }
        };
        let ipa = self.anchors.address(self.random, unit);
        let permissions = if self.random.one_in(4) { self.permissions() } else { Permissions::ALL };
        Operation::Map(Piece { ipa, size, pa, permissions, usage: Use::Ram })
    }

    fn map(&mut self) -> Operation {
        if self.random.below(10) < self.pool_share {
            return self.map_pool();
        }
        if self.random.one_in(4)
            && let Some(piece) = self.random.pick(self.model.pieces()).copied()
        {
            return Operation::Map(self.continued(piece));
        }
        let (unit, size) = match self.random.below(8) {
            0 | 1 => (PAGE_SIZE, self.random.between(1, 20) * PAGE_SIZE),
            2 | 3 => (PAGE_SIZE, self.random.between(1, 1100) * PAGE_SIZE),
            4 | 5 => (MIB2, self.random.between(1, 6) * MIB2),
            _ => (GIB, self.random.between(1, 2) * GIB),
        };
        let usage = *self.random.pick(&[Use::Ram, Use::Ram, Use::Shared, Use::Device]).unwrap_or(&Use::Ram);
        let ipa = self.anchors.address(self.random, unit);
        let (start, area_size) = area(usage, self.pa_bits);
        let size = size.min(area_size);
        // A physical address aligned as the other, or to less: 1 GiB goes by blocks of 2 MiB then, 2 MiB by pages.
        let (align, offset) = match (self.random.below(3), unit) {
            (0, GIB) => (MIB2, 0),
            (0, _) => (PAGE_SIZE, 0),
            (_, GIB) => (GIB, 0),
            _ => (MIB2, ipa % MIB2),
        };
        let room = (area_size - size) / align;
        let pa = start + self.random.below(room.max(1)) * align + if room > 0 { offset } else { 0 };
        Operation::Map(Piece { ipa, size, pa, permissions: self.permissions_for(usage), usage })
    }

    /// What would make a larger block of a piece.
    fn continued(&mut self, piece: Piece) -> Piece {
        let span = if self.random.one_in(3) { Level::One.span() } else { Level::Two.span() };
        let size = span - piece.end() % span;
        let (start, area_size) = area(piece.usage, self.pa_bits);
        let pa = piece.pa + piece.size;
        let fits = size <= 2 * MIB2 || pa % MIB2 == piece.end() % MIB2;
        let size = if fits { size } else { PAGE_SIZE };
        // At the end of its area there is nothing to go on with: the same again.
        let pa = if pa + size <= start + area_size { pa } else { piece.pa };
        let size = size.min(start + area_size - pa);
        Piece { ipa: piece.end(), size, pa, ..piece }
    }

    fn permissions(&mut self) -> Permissions {
        let bits = self.random.below(8);
        Permissions { read: bits & 1 != 0, write: bits & 2 != 0, execute: bits & 4 != 0 }
    }

    /// Mostly what can be had.
    fn permissions_for(&mut self, usage: Use) -> Permissions {
        let permissions = self.permissions();
        if allows(usage, permissions) || self.random.one_in(8) { permissions } else { Permissions::READ }
    }

    /// A range of what is mapped, or now and then some other one.
    fn part(&mut self) -> (u64, u64) {
        let piece = self.random.pick(self.model.pieces()).copied();
        let Some(piece) = piece.filter(|_| !self.random.one_in(10)) else {
            let from = self.anchors.address(self.random, PAGE_SIZE);
            return (from, from + self.random.between(1, 20) * PAGE_SIZE);
        };
        let unit = *self.random.pick(&[PAGE_SIZE, MIB2, GIB]).unwrap_or(&PAGE_SIZE);
        // From the unit that holds some address of the piece, as many units as there are in the piece at the most.
        let at = piece.ipa + self.random.below(piece.size);
        let from = (at & !(unit - 1)).max(piece.ipa);
        let most = (piece.end() - from).div_ceil(unit).min(8);
        let to = (from + self.random.between(1, most) * unit) & !(unit - 1);
        match self.random.below(4) {
            0 => (piece.ipa, piece.end()),
            _ => (from, to.min(piece.end()).max(from + PAGE_SIZE)),
        }
    }
}
