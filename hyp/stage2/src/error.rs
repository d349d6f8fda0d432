//! What can be refused, each with the numbers that were wrong.

use thiserror::Error as ThisError;

use crate::addr::{Ipa, Pa};
use crate::fault::Access;
use crate::grant::{Grant, Use};
use crate::ledger::{State, Transfer};
use crate::vm::VmId;

/// Why an operation on tables was refused. Nothing has changed when one is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The machine's physical address size is none that VTCR_EL2 can express.
    #[error("a physical address size of {bits} bits is not one of 32, 36, 40, 42, 44, 48")]
    PaSize {
        /// The size asked for.
        bits: u8,
    },
    /// The VM's intermediate physical address size is out of range.
    #[error("an IPA size of {bits} bits is not between 32 and the machine's {pa_bits}, or above 48")]
    IpaSize {
        /// The size asked for.
        bits: u8,
        /// The machine's physical address size.
        pa_bits: u8,
    },
    /// An intermediate physical address or a size is no multiple of a page, or the size is zero.
    #[error("IPA {ipa} with size {size:#x} is not a range of whole pages")]
    Misaligned {
        /// The first address.
        ipa: Ipa,
        /// The size in bytes.
        size: u64,
    },
    /// An intermediate physical range ends beyond what the VM's tables translate.
    #[error("IPA {ipa} with size {size:#x} ends above {bits} bits")]
    IpaOutOfRange {
        /// The first address.
        ipa: Ipa,
        /// The size in bytes.
        size: u64,
        /// The VM's intermediate physical address size.
        bits: u8,
    },
    /// A physical range ends beyond what the machine addresses.
    #[error("PA {pa} with size {size:#x} ends above {bits} bits")]
    PaOutOfRange {
        /// The first address.
        pa: Pa,
        /// The size in bytes.
        size: u64,
        /// The machine's physical address size.
        bits: u8,
    },
    /// Something is mapped in the range already.
    #[error("IPA {ipa} is mapped already, to PA {pa}")]
    AlreadyMapped {
        /// The first address of the range that is mapped.
        ipa: Ipa,
        /// Where it leads.
        pa: Pa,
    },
    /// Something in the range is not mapped.
    #[error("IPA {ipa} is not mapped")]
    NotMapped {
        /// The first address of the range that is not mapped.
        ipa: Ipa,
    },
    /// No frames are left for tables.
    #[error("no frame left for a table ({tables} wanted side by side)")]
    OutOfFrames {
        /// How many frames were wanted side by side.
        tables: usize,
    },
    /// The frames given for start tables are misaligned or out of reach; they have been given back.
    #[error("start tables at PA {pa} are not aligned to their size or not within reach")]
    BadFrame {
        /// Where they are.
        pa: Pa,
    },
    /// The grant is another VM's.
    #[error("a grant to {grant} cannot be mapped in the tables of {tables}")]
    ForeignGrant {
        /// Whom the ledger granted the pages.
        grant: VmId,
        /// Whose tables these are.
        tables: VmId,
    },
    /// Execution without the right to read, which the architecture cannot express.
    #[error("IPA {ipa}: execution needs the right to read")]
    ExecuteWithoutRead {
        /// The first address of the range.
        ipa: Ipa,
    },
    /// Execution from a device.
    #[error("IPA {ipa} is a device's: it cannot be executed")]
    ExecuteDevice {
        /// The first address with a device.
        ipa: Ipa,
    },
    /// Stores to pages that were granted for loads only.
    #[error("IPA {ipa} was granted without the right to write")]
    WriteNotGranted {
        /// The first address so granted.
        ipa: Ipa,
    },
    /// An access that the guest has no right to.
    #[error("IPA {ipa}: the VM may not {}", access.verb())]
    NotPermitted {
        /// The address.
        ipa: Ipa,
        /// What was wanted.
        access: Access,
    },
    /// What EL2 is to read or write is a device's.
    #[error("IPA {ipa} is a device's, not memory")]
    NotMemory {
        /// The address.
        ipa: Ipa,
    },
    /// The VM has no page left to copy one to that it shares on write.
    #[error("no page left for a copy of IPA {ipa}")]
    OutOfCopies {
        /// The address that is written to.
        ipa: Ipa,
    },
    /// The log is collected and was not started.
    #[error("the log of stores is not running")]
    NotLogging,
    /// What is mapped is not what the conversion is about.
    #[error("IPA {ipa} is mapped as {found:?}")]
    WrongUse {
        /// The first such address.
        ipa: Ipa,
        /// What it is mapped as.
        found: Use,
    },
    /// The ledger refused.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why the ledger refused. Nothing has changed when one is returned, unless the operation says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum LedgerError {
    /// Not a range of whole pages below 2^48, or empty.
    #[error("PA {pa} with size {size:#x} is not a range of whole pages below 48 bits")]
    BadRange {
        /// The first address.
        pa: Pa,
        /// The size in bytes.
        size: u64,
    },
    /// A page is not in a state from which the transfer is allowed.
    #[error("PA {pa} is {state:?}: {transfer:?} is not allowed")]
    NotAllowed {
        /// The first page that is not.
        pa: Pa,
        /// Its state.
        state: State,
        /// What was asked for.
        transfer: Transfer,
    },
    /// A page is not one that holds old data and belongs to nobody.
    #[error("PA {pa} is {state:?}: there is nothing to scrub")]
    NotUnscrubbed {
        /// The first page that is not.
        pa: Pa,
        /// Its state.
        state: State,
    },
    /// A scrub that has not come to its end.
    #[error("PA {pa} has not been scrubbed yet")]
    ScrubNotDone {
        /// The first page that has not.
        pa: Pa,
    },
    /// A page has a state already.
    #[error("PA {pa} has been declared already, as {state:?}")]
    AlreadyDeclared {
        /// The first such page.
        pa: Pa,
        /// Its state.
        state: State,
    },
    /// A page is in use and cannot be withheld.
    #[error("PA {pa} is {state:?}: it cannot be withheld")]
    InUse {
        /// The first such page.
        pa: Pa,
        /// Its state.
        state: State,
    },
    /// A page is not the VM's to map in this way.
    #[error("PA {pa} is {state:?}: {vm} may not map it so")]
    NotGranted {
        /// The first such page.
        pa: Pa,
        /// Its state.
        state: State,
        /// The VM that wanted it.
        vm: VmId,
    },
    /// A page is mapped and cannot change hands.
    #[error("PA {pa} is mapped {mappings} times and cannot change hands")]
    StillMapped {
        /// The first such page.
        pa: Pa,
        /// How many mappings of it there are.
        mappings: u32,
    },
    /// A VM that is to be retired still has pages mapped.
    #[error("{vm} still has {pages} pages mapped")]
    VmStillMaps {
        /// The VM.
        vm: VmId,
        /// How many pages, each counted once for every mapping.
        pages: u64,
    },
    /// A VM that is to be retired still has pages of its own.
    #[error("{vm} still has PA {pa}, {state:?}")]
    VmStillOwns {
        /// The VM.
        vm: VmId,
        /// The first page that it has.
        pa: Pa,
        /// The page's state.
        state: State,
    },
    /// The count of a page's mappings would pass its limits: a grant from elsewhere, or 2^32 mappings.
    #[error("PA {pa} cannot have one mapping more or less than {mappings}")]
    Count {
        /// The page.
        pa: Pa,
        /// How many mappings of it are counted.
        mappings: u32,
    },
    /// Tables were torn down and what they mapped is not what the ledger has counted for the VM.
    #[error("{vm} had {unmapped} pages mapped, the ledger counts {counted}")]
    Mismatch {
        /// The VM.
        vm: VmId,
        /// Pages that its tables mapped.
        unmapped: u64,
        /// Pages that the ledger counts as mapped.
        counted: u64,
    },
    /// The list of runs is full.
    #[error("the ledger has no room for more than {capacity} runs")]
    Full {
        /// How many runs the storage holds.
        capacity: usize,
    },
}

/// A refusal that gives back the grant it was asked to use.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the grant in it is still counted"]
pub struct Refused<E> {
    /// Why.
    pub error: E,
    /// The grant, unused.
    pub grant: Grant,
}
