//! How much has been checked, and of which kind.

use core::fmt;

use super::answer::{Answer, Fault};

/// What kind of question it was, by its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory, and the access is allowed.
    Hit,
    /// Nothing is mapped.
    Hole,
    /// The entry doesn't allow the access.
    Permission,
    /// Beyond what the tables translate.
    Beyond,
    /// More bits than an address has.
    AddressSize,
    /// Stage 1 alone, its table being found through stage 2.
    StageOne,
    /// Stage 1's table isn't there, or may not be read.
    NoStageOne,
    /// A guest's load or store that was done.
    Done,
    /// One that was refused.
    Refused,
    /// A guest's instructions could not be fetched.
    NoFetch,
}

/// Counts.
#[derive(Default)]
pub struct Tally {
    kinds: [u64; 10],
    /// How many of them, of whatever kind, had a permission fault as their answer.
    permission_faults: u64,
    /// Changes that were made.
    pub changes: u64,
    /// Impossible ones, that were refused.
    pub refused: u64,
    /// Refused because frames had run out.
    pub out_of_frames: u64,
}

impl Tally {
    /// One more.
    pub fn note(&mut self, kind: Kind, answer: Option<Answer>) {
        self.kinds[kind as usize] += 1;
        if let Some(Answer::Fault { fault: Fault::Permission(_), .. }) = answer {
            self.permission_faults += 1;
        }
    }

    /// More of a kind, whose answers were as expected and no permission faults.
    pub fn note_many(&mut self, kind: Kind, count: u64) {
        self.kinds[kind as usize] += count;
    }

    const fn count(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
    }

    /// All translations by `AT` that were compared.
    pub fn translations(&self) -> u64 {
        self.kinds.iter().sum::<u64>() - self.accesses()
    }

    /// All accesses by a guest.
    pub const fn accesses(&self) -> u64 {
        self.count(Kind::Done) + self.count(Kind::Refused) + self.count(Kind::NoFetch)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |kind| self.count(kind);
        write!(
            f,
            "{} translations agree (hits {}, holes {}, permission {}, beyond {}, address size {}, stage 1 {}, no stage 1 \
             {}), {} accesses (done {}, refused {}, no fetch {}), {} changes ({} refused, {} without frames), {} \
             permission faults",
            self.translations(),
            count(Kind::Hit),
            count(Kind::Hole),
            count(Kind::Permission),
            count(Kind::Beyond),
            count(Kind::AddressSize),
            count(Kind::StageOne),
            count(Kind::NoStageOne),
            self.accesses(),
            count(Kind::Done),
            count(Kind::Refused),
            count(Kind::NoFetch),
            self.changes,
            self.refused,
            self.out_of_frames,
            self.permission_faults
        )
    }
}
