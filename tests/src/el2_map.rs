//! EL2's own map as the CPU walks it: tables read out of the machine's memory, by the architecture's description (stage 1 of
//! EL2 with 4 KiB granule, Arm ARM D8.3) and not by how EL2 makes them.

use std::ops::Range;

use crate::{Failure, Gdb, Outcome, ensure, ensure_equal};

/// Addresses that are mapped alike, to the same physical ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where.
    pub range: Range<u64>,
    /// How.
    pub rights: Rights,
}

/// How something is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// As Device memory.
    pub device: bool,
    /// It can be written to.
    pub writable: bool,
    /// It can be executed, by the tables alone.
    pub executable: bool,
}

const ENTRIES: u64 = 512;
const TABLE_BYTES: usize = 4096;
/// The address that a descriptor has.
const ADDRESS: u64 = 0xffff_ffff_f000;

/// Reads the map that all of the board's CPUs use; the machine stands still. The mappings are in the order of their addresses, and
/// those that lie side by side and are alike are one.
///
/// # Errors
/// When there is none, CPUs have different ones, or something isn't mapped to its own address.
pub fn el2_map(gdb: &mut Gdb, cpus: usize) -> Outcome<Vec<Mapping>> {
    const NAMES: [&str; 4] = ["TTBR0_EL2", "TCR_EL2", "MAIR_EL2", "SCTLR_EL2"];
    let registers = gdb.system_registers(0, NAMES)?;
    for cpu in 1..cpus {
        ensure_equal("registers of another CPU", gdb.system_registers(cpu, NAMES)?, registers)?;
    }
    let [ttbr0, tcr, mair, sctlr] = registers;
    ensure(sctlr & 1 == 1, || "EL2's MMU is off".to_owned())?;
    ensure(sctlr & 1 << 19 != 0, || "SCTLR_EL2.WXN is off".to_owned())?;
    // T0SZ 16: 48 bits, which begin at level 0; TG0 0: 4 KiB.
    ensure(tcr & 0xc03f == 16, || format!("TCR_EL2 is {tcr:#x}"))?;
    let mut map = Vec::new();
    let mut walk = Walk { gdb, mair, map: &mut map };
    walk.table(ttbr0 & ADDRESS, 0, 0, Limits { read_only: false, execute_never: false })?;
    Ok(map)
}

/// What tables above have taken from those below.
#[derive(Clone, Copy)]
struct Limits {
    read_only: bool,
    execute_never: bool,
}

struct Walk<'a> {
    gdb: &'a mut Gdb,
    mair: u64,
    map: &'a mut Vec<Mapping>,
}

impl Walk<'_> {
    fn table(&mut self, table: u64, level: u32, base: u64, limits: Limits) -> Outcome {
        let bytes: [u8; TABLE_BYTES] = self.gdb.read_physical(table)?;
        let (words, _) = bytes.as_chunks();
        let size = 4096 * ENTRIES.pow(3 - level);
        for (index, word) in (0..).zip(words) {
            let descriptor = u64::from_le_bytes(*word);
            let start = base + index * size;
            match (descriptor & 0b11, level) {
                (0b11, 0..=2) => {
                    // APTable[1], XNTable.
                    let limits = Limits {
                        read_only: limits.read_only || descriptor & 1 << 62 != 0,
                        execute_never: limits.execute_never || descriptor & 1 << 60 != 0,
                    };
                    self.table(descriptor & ADDRESS, level + 1, start, limits)?;
                }
                (0b11, 3) | (0b01, 1 | 2) => self.leaf(descriptor, start..start + size, limits)?,
                (0b01, _) => {
                    return Err(Failure::Wrong(format!("{start:#x}: no block can be at level {level}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn leaf(&mut self, descriptor: u64, range: Range<u64>, limits: Limits) -> Outcome {
        let target = descriptor & ADDRESS & !(range.end - range.start - 1);
        ensure_equal("what an address is mapped to", target, range.start)?;
        // The access flag: without it the first access faults.
        ensure(descriptor & 1 << 10 != 0, || format!("{:#x} is mapped and can't be accessed", range.start))?;
        let attribute = self.mair >> (8 * (descriptor >> 2 & 0b111)) & 0xff;
        let rights = Rights {
            device: attribute & 0xf0 == 0,
            writable: !limits.read_only && descriptor & 1 << 7 == 0,
            executable: !limits.execute_never && descriptor & 1 << 54 == 0,
        };
        match self.map.last_mut() {
            Some(last) if last.range.end == range.start && last.rights == rights => {
                last.range.end = range.end
            }
            _ => self.map.push(Mapping { range, rights }),
        }
        Ok(())
    }
}
