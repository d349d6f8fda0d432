//! A stage-2 walk written from the architecture's description (Arm ARM DDI 0487, D8.2, D8.3 and the descriptor figures),
//! sharing no code and no constant with the crate. It takes what the hardware takes: VTTBR_EL2, VTCR_EL2 and memory.
//! It is stricter than hardware: anything that the architecture reserves, or that the project never sets, is a panic.

/// Memory access as the allocator-agnostic walker needs it: the 64 bits at a physical address.
pub trait Memory {
    fn load(&self, address: u64) -> u64;
}

/// A leaf as the walk found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub ipa: u64,
    pub pa: u64,
    pub size: u64,
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    pub device: bool,
    /// DBM, which the hardware ignores while VTCR_EL2.HD is 0.
    pub dbm: bool,
    pub accessed: bool,
    pub contiguous: bool,
}

/// What VTCR_EL2 says.
#[derive(Clone, Copy, Debug)]
pub struct Regime {
    pub input_bits: u32,
    pub output_bits: u32,
    pub start: u32,
    pub forced_write_back: bool,
}

/// That 16 leaves with the contiguous hint lie together on both sides and say the same, and none of them without the others.
fn check_groups(leaves: &[Found]) {
    let mut at = 0;
    while at < leaves.len() {
        let first = leaves[at];
        if !first.contiguous {
            at += 1;
            continue;
        }
        let group = &leaves[at..leaves.len().min(at + 16)];
        assert_eq!(
            (first.ipa % (16 * first.size), first.pa % (16 * first.size)),
            (0, 0),
            "{first:x?}: group"
        );
        assert_eq!(group.len(), 16, "{first:x?}: a group of {}", group.len());
        for (n, leaf) in (0..).zip(group) {
            let wanted = Found { ipa: first.ipa + n * first.size, pa: first.pa + n * first.size, ..first };
            assert_eq!(*leaf, wanted, "a group that differs");
        }
        at += 16;
    }
}

/// Every leaf and every table that is reachable.
#[derive(Debug, Default)]
pub struct Census {
    pub leaves: Vec<Found>,
    /// Addresses of tables, each start table on its own.
    pub tables: Vec<u64>,
}

pub fn regime(vtcr: u64, forced_write_back: bool) -> Regime {
    let field = |high: u32, low: u32| (vtcr >> low) & ((1 << (high - low + 1)) - 1);
    assert_eq!(field(63, 32), 0, "DS, SL2 and what follows");
    assert_eq!(field(31, 31), 1, "RES1");
    assert_eq!(field(30, 21), 0, "NSA, NSW, HWU, HD, HA");
    assert_eq!(field(19, 19), 0, "VS: 8-bit VMIDs");
    assert_eq!(field(15, 14), 0, "TG0: 4 KiB");
    assert_eq!((field(13, 12), field(11, 10), field(9, 8)), (3, 1, 1), "SH0, ORGN0, IRGN0");
    let output_bits = [32, 36, 40, 42, 44, 48][field(18, 16) as usize];
    let start = match field(7, 6) {
        0 => 2,
        1 => 1,
        2 => 0,
        _ => panic!("SL0 is reserved"),
    };
    // Start at level 0 needs a physical address size of at least 44 bits.
    assert!(start != 0 || output_bits >= 44);
    let input_bits = 64 - field(5, 0) as u32;
    assert!(input_bits <= output_bits, "an IPA is no larger than a PA");
    // Bits resolved by whole tables below the start level, then at least 1 and at most 9 + 4 by the start tables.
    let below = 12 + 9 * (3 - start);
    assert!(input_bits > below && input_bits <= below + 9 + 4, "T0SZ and SL0 do not fit together");
    Regime { input_bits, output_bits, start, forced_write_back }
}

impl Regime {
    fn shift(level: u32) -> u32 {
        12 + 9 * (3 - level)
    }

    fn start_entries(self) -> u64 {
        1 << (self.input_bits - Self::shift(self.start))
    }

    /// Start tables are at least one frame, and aligned to their size.
    pub fn start_base(self, vttbr: u64) -> u64 {
        assert_eq!(vttbr & 1, 0, "CnP");
        let base = vttbr & ((1 << 48) - 1);
        let size = (self.start_entries() * 8).max(4096);
        assert_eq!(base % size, 0, "start tables are misaligned");
        base
    }

    pub fn start_frames(self) -> u64 {
        (self.start_entries() * 8).div_ceil(4096)
    }

    fn leaf(self, raw: u64, ipa: u64, level: u32) -> Found {
        let size = 1u64 << Self::shift(level);
        let bits = |high: u32, low: u32| (raw >> low) & ((1 << (high - low + 1)) - 1);
        assert_eq!(bits(63, 59), 0, "{raw:#x}: reserved, PBHA");
        assert_eq!(bits(50, 48), 0, "{raw:#x}: address above 48 bits");
        assert_eq!(bits(11, 11), 0, "{raw:#x}: FnXS");
        let pa = bits(47, 12) << 12;
        assert_eq!(pa % size, 0, "{raw:#x}: address below the block's size (and nT)");
        assert!(pa + size <= 1 << self.output_bits, "{raw:#x}: address size fault");
        let execute = match bits(54, 53) {
            0 => true,
            2 => false,
            _ => panic!("{raw:#x}: XN[0] needs FEAT_XNX"),
        };
        let device = match (self.forced_write_back, bits(5, 2)) {
            (false, 0b1111) | (true, 0b0110) => false,
            (_, 0b0001) => true,
            _ => panic!("{raw:#x}: memory attributes that the project never gives"),
        };
        assert_eq!(bits(9, 8), if device { 2 } else { 3 }, "{raw:#x}: shareability");
        assert!(!(device && execute), "{raw:#x}: an executable device");
        let (accessed, dbm, contiguous) = (bits(10, 10) == 1, bits(51, 51) == 1, bits(52, 52) == 1);
        assert!(!(device && (dbm || !accessed)), "{raw:#x}: a device that is watched");
        Found {
            ipa,
            pa,
            size,
            read: bits(6, 6) == 1,
            write: bits(7, 7) == 1,
            execute,
            device,
            dbm,
            accessed,
            contiguous,
        }
    }

    /// The next table's address, for a table descriptor.
    fn next(self, raw: u64) -> u64 {
        assert_eq!(raw >> 48, 0, "{raw:#x}: bits above the address in a table descriptor");
        assert_eq!((raw >> 2) & 0x3ff, 0, "{raw:#x}: ignored bits in a table descriptor");
        let table = raw & 0xffff_ffff_f000;
        assert!(table < 1 << self.output_bits);
        table
    }

    /// One address, as hardware walks it.
    pub fn translate(self, memory: &impl Memory, vttbr: u64, ipa: u64) -> Option<Found> {
        if ipa >> self.input_bits != 0 {
            return None;
        }
        let mut table = self.start_base(vttbr);
        let mut index = ipa >> Self::shift(self.start);
        for level in self.start..=3 {
            let raw = memory.load(table + 8 * index);
            match (raw & 3, level) {
                (3, 0..=2) => {
                    table = self.next(raw);
                    index = (ipa >> Self::shift(level + 1)) & 0x1ff;
                }
                (3, 3) | (1, 1 | 2) => {
                    let base = ipa >> Self::shift(level) << Self::shift(level);
                    return Some(self.leaf(raw, base, level));
                }
                (1, _) => panic!("{raw:#x}: reserved at level {level}"),
                _ => return None,
            }
        }
        None
    }

    /// Everything that is reachable.
    pub fn census(self, memory: &impl Memory, vttbr: u64) -> Census {
        let mut census = Census::default();
        let base = self.start_base(vttbr);
        census.tables.extend((0..self.start_frames()).map(|n| base + 4096 * n));
        self.gather(memory, (base, self.start_entries()), 0, self.start, &mut census);
        check_groups(&census.leaves);
        census
    }

    fn gather(self, memory: &impl Memory, table: (u64, u64), base: u64, level: u32, census: &mut Census) {
        let (address, entries) = table;
        for index in 0..entries {
            let raw = memory.load(address + 8 * index);
            let ipa = base + (index << Self::shift(level));
            match (raw & 3, level) {
                (3, 0..=2) => {
                    let next = self.next(raw);
                    census.tables.push(next);
                    self.gather(memory, (next, 512), ipa, level + 1, census);
                }
                (3, 3) | (1, 1 | 2) => census.leaves.push(self.leaf(raw, ipa, level)),
                (1, _) => panic!("{raw:#x}: reserved at level {level}"),
                _ => assert_eq!(raw, 0, "an invalid entry that is not zero is left behind"),
            }
        }
    }
}
