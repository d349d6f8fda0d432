//! What is mapped, as a plain list: the check's own account of it, beside `stage2`'s tables.

use alloc::vec::Vec;

use stage2::{Geometry, Ipa, Level, Permissions, Use};

/// A stretch of addresses that leads to a stretch of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first address.
    pub ipa: u64,
    /// Bytes.
    pub size: u64,
    /// Where the first address leads.
    pub pa: u64,
    /// What the guest may do there.
    pub permissions: Permissions,
    /// What it is.
    pub usage: Use,
}

impl Piece {
    /// The address behind it.
    pub const fn end(&self) -> u64 {
        self.ipa + self.size
    }

    /// Where an address of it leads.
    const fn pa_of(&self, ipa: u64) -> u64 {
        self.pa + (ipa - self.ipa)
    }

    /// The part from `from` to `to`, which lie within.
    fn part(&self, from: u64, to: u64) -> Self {
        Self { ipa: from, size: to - from, pa: self.pa_of(from), ..*self }
    }

    fn goes_on_as(&self, next: &Self) -> bool {
        (self.end(), self.pa_of(self.end())) == (next.ipa, next.pa)
            && (self.permissions, self.usage) == (next.permissions, next.usage)
    }
}

/// What should be found at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Beyond what the tables translate.
    Beyond,
    /// Nothing, and this is the level at which the walk ends.
    Hole(Level),
    /// Memory.
    Leaf {
        /// The level of the entry.
        level: Level,
        /// Where the very byte is.
        pa: u64,
        /// What the guest may do.
        permissions: Permissions,
        /// What it is.
        usage: Use,
    },
}

/// All that is mapped, sorted, pieces that continue each other joined.
pub struct Model {
    geometry: Geometry,
    pieces: Vec<Piece>,
}

const LEVELS: [Level; 4] = [Level::Zero, Level::One, Level::Two, Level::Three];

impl Model {
    /// Nothing.
    pub const fn new(geometry: Geometry) -> Self {
        Self { geometry, pieces: Vec::new() }
    }

    /// The stretches.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn within(&self, from: u64, to: u64) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.ipa < to && from < piece.end())
    }

    /// Whether nothing is mapped there.
    pub fn is_free(&self, from: u64, to: u64) -> bool {
        self.within(from, to).next().is_none()
    }

    /// Whether all of it is mapped, as what pieces of `allowed` are.
    pub fn is_all(&self, from: u64, to: u64, allowed: impl Fn(&Piece) -> bool) -> bool {
        let inside = |piece: &Piece| piece.end().min(to) - piece.ipa.max(from);
        let mapped: u64 = self.within(from, to).map(inside).sum();
        mapped == to - from && self.within(from, to).all(allowed)
    }

    /// Adds a piece where nothing is.
    pub fn map(&mut self, piece: Piece) {
        self.pieces.push(piece);
        self.tidy();
    }

    /// Takes out whatever is there.
    pub fn unmap(&mut self, from: u64, to: u64) {
        self.replace(from, to, |_| None);
    }

    /// Gives other permissions to whatever is there.
    pub fn protect(&mut self, from: u64, to: u64, permissions: Permissions) {
        self.replace(from, to, |piece| Some(Piece { permissions, ..piece }));
    }

    fn replace(&mut self, from: u64, to: u64, change: impl Fn(Piece) -> Option<Piece>) {
        let mut pieces = Vec::with_capacity(self.pieces.len() + 2);
        for piece in &self.pieces {
            if piece.end() <= from || to <= piece.ipa {
                pieces.push(*piece);
                continue;
            }
            if piece.ipa < from {
                pieces.push(piece.part(piece.ipa, from));
            }
            pieces.extend(change(piece.part(piece.ipa.max(from), piece.end().min(to))));
            if to < piece.end() {
                pieces.push(piece.part(to, piece.end()));
            }
        }
        self.pieces = pieces;
        self.tidy();
    }

    fn tidy(&mut self) {
        self.pieces.sort_unstable_by_key(|piece| piece.ipa);
        self.pieces.dedup_by(|next, piece| {
            let joins = piece.goes_on_as(next);
            if joins {
                piece.size += next.size;
            }
            joins
        });
    }

    /// What should be found at an address.
    pub fn look(&self, ipa: u64) -> View {
        if Ipa::new(ipa) >= self.geometry.ipa_end() {
            return View::Beyond;
        }
        let piece = self.within(ipa, ipa + 1).next();
        let start = self.geometry.start_level();
        let levels = LEVELS.into_iter().filter(|level| *level >= start);
        let around = |level: Level| (ipa & !(level.span() - 1), (ipa | (level.span() - 1)) + 1);
        match piece {
            Some(piece) => {
                // The largest block that the piece holds, aligned on both sides.
                let fits = |level: &Level| {
                    let (from, to) = around(*level);
                    let inside = level.has_leaves() && piece.ipa <= from && to <= piece.end();
                    inside && piece.pa_of(from) % level.span() == 0
                };
                let level = levels.into_iter().find(fits).unwrap_or(Level::Three);
                let Piece { permissions, usage, .. } = *piece;
                View::Leaf { level, pa: piece.pa_of(ipa), permissions, usage }
            }
            None => {
                // The walk goes on as long as something near is mapped.
                let empty = |level: &Level| {
                    let (from, to) = around(*level);
                    self.is_free(from, to)
                };
                View::Hole(levels.into_iter().find(empty).unwrap_or(Level::Three))
            }
        }
    }
}
