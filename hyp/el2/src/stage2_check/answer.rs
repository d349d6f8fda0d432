//! What a translation comes to, said so that the expectation and PAR_EL1 can be compared; and how the attributes of two
//! stages combine (Arm ARM D8.6). Independent of `stage2`'s own encodings.

use stage2::{Format, MemoryType};

/// What `AT` should say, or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A physical address.
    Address {
        /// Its page.
        page: u64,
        /// What the memory is, both stages combined.
        memory: Memory,
        /// The same for shareability.
        shareability: Shareability,
    },
    /// None.
    Fault {
        /// Why.
        fault: Fault,
        /// Stage 2 is the reason.
        stage2: bool,
        /// It was a read of stage 1's table.
        on_walk: bool,
    },
}

/// A fault status code, with the level that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The address has more bits than there are.
    AddressSize(u8),
    /// An entry isn't valid; level 0 too where the address is beyond the tables.
    Translation(u8),
    /// An entry doesn't allow it.
    Permission(u8),
    /// Anything else, by its number.
    Other(u8),
}

impl Fault {
    /// From a fault status code of six bits, as PAR_EL1 and ESR_EL2 have it.
    pub const fn from_status(status: u64) -> Self {
        let level = (status & 3) as u8;
        match status >> 2 & 0xf {
            0 => Self::AddressSize(level),
            1 => Self::Translation(level),
            3 => Self::Permission(level),
            _ => Self::Other((status & 0x3f) as u8),
        }
    }
}

/// A memory type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// 0 nGnRnE, 1 nGnRE, 2 nGRE, 3 GRE: a lower number is the stronger type.
    Device(u8),
    /// Normal memory.
    Normal {
        /// For the outer caches.
        outer: Cache,
        /// For the inner ones.
        inner: Cache,
    },
    /// An encoding that is none of these.
    Unknown(u8),
}

impl Memory {
    /// Normal memory, the same for all caches.
    pub const fn normal(cache: Cache) -> Self {
        Self::Normal { outer: cache, inner: cache }
    }
}

/// What caches may do, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cache {
    /// Non-cacheable.
    None,
    /// Write-through.
    WriteThrough,
    /// Write-back.
    WriteBack,
}

/// Whom memory is coherent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shareability {
    /// Nobody.
    None,
    /// The inner domain.
    Inner,
    /// The outer domain too.
    Outer,
    /// No such encoding.
    Reserved,
}

/// What stage 1 says of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageOneMemory {
    /// The type.
    pub memory: Memory,
    /// As its descriptor has it.
    pub shareability: Shareability,
}

/// What comes of stage 1's attributes and of a leaf of stage 2, whose Normal memory is inner shareable write-back and
/// whose devices are nGnRE.
pub fn combine(format: Format, one: StageOneMemory, two: MemoryType) -> (Memory, Shareability) {
    const DEVICE_NGNRE: u8 = 1;
    let memory = match (format, two, one.memory) {
        // The weaker of the two, and write-back is the strongest of all.
        (Format::Combined, MemoryType::Normal, memory) => memory,
        (Format::Combined, MemoryType::Device, Memory::Device(kind)) => {
            Memory::Device(kind.min(DEVICE_NGNRE))
        }
        // Stage 2 decides.
        (Format::ForcedWriteBack, MemoryType::Normal, _) => Memory::normal(Cache::WriteBack),
        (_, MemoryType::Device, _) => Memory::Device(DEVICE_NGNRE),
    };
    let shareability = match one.shareability {
        Shareability::Outer => Shareability::Outer,
        _ => Shareability::Inner,
    };
    (memory, reported(memory, shareability))
}

/// Devices, and memory that no cache holds, are outer shareable, whatever descriptors say.
pub fn reported(memory: Memory, shareability: Shareability) -> Shareability {
    const UNCACHED: Memory = Memory::normal(Cache::None);
    if memory == UNCACHED || matches!(memory, Memory::Device(_)) { Shareability::Outer } else { shareability }
}
