//! What is tried in a small world: the parts of memory, and every operation that there is on them.

use stage2::{Pa, PaRange, Permissions, Transfer, Use};

use super::{BOTH, MEMORY, VMS, WRITERS};

/// What is tried: which parts of memory change hands, and what is mapped where.
pub struct Plan {
    pub name: &'static str,
    /// The cells side by side from `MEMORY` on, each as large as this. IPAs from 0 on are parted in the same way.
    pub cells: &'static [u64],
    /// Cells that change hands together: first and count.
    pub hands: &'static [(usize, usize)],
    /// From which cell of IPAs to which cell of memory, and how many.
    pub maps: &'static [(usize, usize, usize)],
    /// Cells that are unmapped, or given other permissions, together.
    pub parts: &'static [(usize, usize)],
    /// Cells that are frozen and thawed together. Each multiplies the states.
    pub freezes: &'static [(usize, usize)],
    /// Room in the ledger, in runs.
    pub runs: usize,
}

#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Transfer {
        cells: (usize, usize),
        transfer: Transfer,
    },
    Scrub {
        cells: (usize, usize),
    },
    Map {
        vm: usize,
        map: (usize, usize, usize),
        usage: Use,
        permissions: Permissions,
    },
    Unmap {
        vm: usize,
        part: (usize, usize),
    },
    Protect {
        vm: usize,
        part: (usize, usize),
        permissions: Permissions,
    },
    /// For both.
    Freeze {
        vm: usize,
        part: (usize, usize),
    },
    Thaw {
        vm: usize,
        part: (usize, usize),
    },
    Teardown {
        vm: usize,
    },
    Build {
        vm: usize,
    },
    ReclaimAll {
        vm: usize,
    },
    Retire {
        vm: usize,
    },
}

impl Plan {
    /// Where cells lie, from 0 on.
    pub fn place(&self, (first, count): (usize, usize)) -> (u64, u64) {
        (self.cells[..first].iter().sum(), self.cells[first..first + count].iter().sum())
    }

    pub fn range(&self, cells: (usize, usize)) -> PaRange {
        let (offset, size) = self.place(cells);
        PaRange::new(Pa::new(MEMORY + offset), size).unwrap()
    }

    pub fn operations(&self) -> Vec<Operation> {
        let mut all = Vec::new();
        let shares = VMS.map(|owner| Transfer::Share { owner, members: BOTH, writers: WRITERS });
        for &cells in self.hands {
            let open = Transfer::Open { members: BOTH, writers: WRITERS };
            all.push(Operation::Scrub { cells });
            let mut transfers = vec![open, Transfer::Close];
            transfers.extend(VMS.map(Transfer::Donate));
            transfers.extend(VMS.map(Transfer::Reclaim));
            transfers.extend(VMS.map(Transfer::Unshare));
            transfers.extend(shares);
            transfers.extend(VMS.map(Transfer::Thaw));
            all.extend(transfers.into_iter().map(|transfer| Operation::Transfer { cells, transfer }));
        }
        for vm in 0..VMS.len() {
            for &map in self.maps {
                for (usage, permissions) in [
                    (Use::Ram, Permissions::ALL),
                    (Use::Shared, Permissions::READ_WRITE),
                    (Use::Shared, Permissions::READ),
                    (Use::CopyOnWrite, Permissions::ALL),
                ] {
                    all.push(Operation::Map { vm, map, usage, permissions });
                }
            }
            for &part in self.parts {
                all.push(Operation::Unmap { vm, part });
                for permissions in [Permissions::ALL, Permissions::READ] {
                    all.push(Operation::Protect { vm, part, permissions });
                }
            }
            for &part in self.freezes {
                all.extend([Operation::Freeze { vm, part }, Operation::Thaw { vm, part }]);
            }
            all.extend([Operation::Teardown { vm }, Operation::Build { vm }]);
            all.extend([Operation::ReclaimAll { vm }, Operation::Retire { vm }]);
        }
        all
    }
}
