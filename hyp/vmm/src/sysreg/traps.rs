//! The table as it is looked up on a trap: of its rows, those that answer one, and where those of each CRn start. Made when this is
//! compiled; names and reasons stay out of the image.

use super::Action;
use super::table::{REGISTERS, Register};
use crate::esr::Sysreg;

/// A row of those that answer.
#[derive(Clone, Copy)]
struct Trap {
    /// The first one's CRm and op2, as a number.
    first: u8,
    /// How many there are.
    count: u8,
    /// What their numbers are apart: 1, or 8 where they differ by CRm.
    step: u8,
    read: Option<Action>,
    write: Option<Action>,
}

/// Rows that answer.
const COUNT: usize = {
    let mut count = 0;
    let mut rows = REGISTERS;
    while let [row, rest @ ..] = rows {
        count += answers(row) as usize;
        rows = rest;
    }
    count
};

/// Groups of registers with one op0 (2 or 3), op1 (0 to 3) and CRn.
const GROUPS: usize = 2 << 2 << 4;

static TRAPS: [Trap; COUNT] = TABLE.0;
static STARTS: [u8; GROUPS + 1] = TABLE.1;

const fn answers(row: &Register) -> bool {
    row.read.is_some() || row.write.is_some()
}

/// The group of a register with op0 above 1 and op1 below 4.
const fn group(register: Sysreg) -> usize {
    let (op0, op1, crn, _, _) = register.fields();
    (op0 as usize & 1) << 6 | (op1 as usize & 3) << 4 | crn as usize
}

const fn number(register: Sysreg) -> u8 {
    let (_, _, _, crm, op2) = register.fields();
    crm << 3 | op2
}

/// The rows, and where those of each group start: at compile time, where what is wrong with them is an error.
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "compile time alone"
)]
const TABLE: ([Trap; COUNT], [u8; GROUPS + 1]) = {
    let mut traps = [Trap { first: 0, count: 0, step: 1, read: None, write: None }; COUNT];
    let mut starts = [0; GROUPS + 1];
    let (mut made, mut at, mut next_group) = (0, 0, 0);
    while at < REGISTERS.len() {
        let row = &REGISTERS[at];
        at += 1;
        if !answers(row) {
            continue;
        }
        let group = group(row.first);
        let step = match row.step {
            super::Step::Op2 => 1,
            super::Step::Crm => 8,
        };
        assert!(group + 1 >= next_group, "rows are in the order of op0, op1 and CRn");
        assert!(number(row.first) as usize + (row.count as usize - 1) * step <= 0x7f, "a family has one CRn");
        while next_group <= group {
            starts[next_group] = made as u8;
            next_group += 1;
        }
        traps[made] = Trap {
            first: number(row.first),
            count: row.count as u8,
            step: step as u8,
            read: row.read,
            write: row.write,
        };
        made += 1;
    }
    assert!(made <= u8::MAX as usize);
    while next_group <= GROUPS {
        starts[next_group] = made as u8;
        next_group += 1;
    }
    (traps, starts)
};

/// What a trapped access does to a register with op0 above 1 and op1 below 4; `None`: nothing is known of it.
pub(super) fn find(register: Sysreg, read: bool) -> Option<Action> {
    let starts = STARTS.get(group(register)..)?;
    let rows = TRAPS.get(usize::from(*starts.first()?)..usize::from(*starts.get(1)?))?;
    let number = number(register);
    rows.iter().find_map(|row| {
        let away = number.checked_sub(row.first)?;
        let (place, between) = if row.step == 1 { (away, 0) } else { (away >> 3, away & 7) };
        let action = if read { row.read } else { row.write };
        if between == 0 && place < row.count { action.map(|action| action.numbered(place)) } else { None }
    })
}
