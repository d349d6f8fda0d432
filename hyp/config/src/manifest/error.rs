//! What can be wrong with a bundle, in words for the person who wrote it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dtoolkit::error::{FdtErrorKind, FdtParseError};
use thiserror::Error;

/// Why nothing of a bundle can be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BundleError {
    /// Not even the blob's header is there.
    #[error("the bundle is truncated: a device-tree blob starts with 40 bytes of header, there are {got}")]
    NoHeader {
        /// Bytes given.
        got: usize,
    },
    /// Something else than a blob.
    #[error("the bundle is no device-tree blob: it starts with {found:#010x} instead of 0xd00dfeed{}", hint(*.found))]
    NotABlob {
        /// The first four bytes, big-endian.
        found: u32,
    },
    /// Fewer bytes than the header says.
    #[error("the bundle is truncated: its header says {says} bytes, there are {got}")]
    Truncated {
        /// `totalsize` of the header.
        says: u32,
        /// Bytes given.
        got: usize,
    },
    /// The blob's structure is broken, at the offset that the inner error names.
    #[error("the bundle can't be read: {error}{}", name_rule(&.error.kind))]
    Damaged {
        /// What and where.
        error: FdtParseError,
    },
    /// `compatible` of the root is missing or wrong.
    #[error("{0}")]
    Root(ManifestError),
    /// There is not a single VM, good or bad.
    #[error("the bundle has no VM: give the root a child node with compatible = \"hanok,vm\"")]
    NoVm,
}

/// What people hand over by mistake, by its first bytes.
fn hint(found: u32) -> &'static str {
    match found {
        0x2f64_7473 => " (it is device-tree source: compile it with dtc)",
        0x3037_3037 => " (it is a cpio archive: give that as `initrd` of a VM)",
        _ if found >> 16 == 0x1f8b => " (it is gzip-compressed)",
        _ => "",
    }
}

/// dtc lets names pass that the specification doesn't; who wrote one needs to know the rule.
fn name_rule(kind: &FdtErrorKind) -> &'static str {
    match kind {
        FdtErrorKind::InvalidNodeName => " (1 to 31 of A-Z a-z 0-9 , . _ + -)",
        FdtErrorKind::InvalidPropertyName => " (1 to 31 of A-Z a-z 0-9 , . _ + - ? #)",
        _ => "",
    }
}

/// What may be, in quotes.
fn or(wanted: &[&str]) -> String {
    wanted.iter().map(|wanted| format!("{wanted:?}")).collect::<Vec<_>>().join(" or ")
}

/// What is wrong in a manifest, and where. Prints as `/linux: memory: 0 KiB is less than 2048 KiB`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// The node's path.
    pub node: String,
    /// The property; none if it is about the node itself.
    pub property: Option<String>,
    /// What is wrong with it.
    pub reason: Reason,
}

impl core::error::Error for ManifestError {}

impl core::fmt::Display for ManifestError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match &self.property {
            Some(property) => write!(f, "{}: {property}: {}", self.node, self.reason),
            None => write!(f, "{}: {}", self.node, self.reason),
        }
    }
}

/// What is wrong with a node or a property.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// `compatible` is not there.
    #[error("missing, must be {}", or(.wanted))]
    NotCompatible {
        /// What it could say.
        wanted: &'static [&'static str],
    },
    /// `compatible` says something else.
    #[error("is {found:?}, must be {}", or(.wanted))]
    Incompatible {
        /// What it says first.
        found: String,
        /// What it could say.
        wanted: &'static [&'static str],
    },
    /// No property of that name exists here.
    #[error("unknown property; known here: {known}")]
    UnknownProperty {
        /// The names that would do.
        known: &'static str,
    },
    /// Neither a VM nor a channel has child nodes.
    #[error("unknown node: {parent} has no child nodes")]
    UnknownNode {
        /// What it is the child of: "a VM", "a channel".
        parent: &'static str,
    },
    /// The blob has the property more than once.
    #[error("given twice")]
    Twice,
    /// Two VMs or channels of the same name.
    #[error("an earlier node has the same name")]
    DuplicateName,
    /// The node's name has a unit address.
    #[error("{what}'s name has no unit address (@...)")]
    UnitAddress {
        /// "a VM", "a channel".
        what: &'static str,
    },
    /// More VMs than there can be.
    #[error("the bundle has {count} VMs, {most} at most: this one and those after it are left out")]
    TooManyVms {
        /// VM nodes in the bundle.
        count: usize,
        /// [`MAX_VMS`](super::MAX_VMS).
        most: usize,
    },
    /// A value of the wrong length.
    #[error("has {bytes} bytes, must be {wanted}")]
    Length {
        /// Its length.
        bytes: usize,
        /// What it should be.
        wanted: &'static str,
    },
    /// A value that should be a string.
    #[error("must be one string")]
    NotAString,
    /// A value that should be a list of strings.
    #[error("must be one or more strings")]
    NotStrings,
    /// A string that is none of those that mean something here.
    #[error("is {found:?}, must be one of: {known}")]
    NotOneOf {
        /// What it says.
        found: String,
        /// Those that would do.
        known: &'static str,
    },
    /// A string that is too long.
    #[error("has {bytes} characters, {most} at most")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The most there may be.
        most: usize,
    },
    /// A number below its range.
    #[error("{value}{unit} is less than {least}{unit}")]
    Below {
        /// The value.
        value: u64,
        /// The least there may be.
        least: u64,
        /// What is counted, with a space before it, or nothing.
        unit: &'static str,
    },
    /// A number above its range.
    #[error("{value}{unit} is more than {most}{unit}")]
    Above {
        /// The value.
        value: u64,
        /// The most there may be.
        most: u64,
        /// What is counted, with a space before it, or nothing.
        unit: &'static str,
    },
    /// A number that must be a multiple of another.
    #[error("{value}{unit} is not a multiple of {of}{unit}")]
    NotMultiple {
        /// The value.
        value: u64,
        /// What it should be a multiple of.
        of: u64,
        /// What is counted, with a space before it, or nothing.
        unit: &'static str,
    },
    /// A number that must be a power of two.
    #[error("{value}{unit} is not a power of two")]
    NotPowerOfTwo {
        /// The value.
        value: u64,
        /// What is counted, with a space before it.
        unit: &'static str,
    },
    /// A channel with more or fewer VMs than two.
    #[error("names {count} VM{}: a channel is between two", if *.count == 1 { "" } else { "s" })]
    VmCount {
        /// How many it names.
        count: usize,
    },
    /// A channel with the same VM at both ends.
    #[error("names {name:?} twice: a channel is between two VMs")]
    SameVm {
        /// The VM.
        name: String,
    },
    /// A channel with a VM that isn't in the bundle.
    #[error("there is no VM {name:?}")]
    NoSuchVm {
        /// What it names.
        name: String,
    },
    /// A channel with a VM that is left out.
    #[error("the VM {name:?} is left out")]
    VmLeftOut {
        /// The VM.
        name: String,
    },
    /// One channel more than a VM can have.
    #[error("the VM {name:?} has {most} channels already, and can have no more")]
    TooManyChannels {
        /// The VM.
        name: String,
        /// [`MAX_CHANNELS`](super::MAX_CHANNELS).
        most: usize,
    },
    /// A value that can't be had together with another property.
    #[error("can't be had with `{other}`: {why}")]
    NotWith {
        /// The other property.
        other: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Not one physical CPU for each vCPU.
    #[error("lists {listed} CPUs for {cpus} vCPUs: one for each is needed")]
    AffinityCount {
        /// Entries in the list.
        listed: usize,
        /// The VM's vCPUs.
        cpus: u32,
    },
    /// A CPU twice among those that a VM shares.
    #[error("lists CPU {cpu} twice")]
    CpuTwice {
        /// Its number.
        cpu: u32,
    },
    /// Both ways to share CPUs.
    #[error("there is {first} already: a VM shares CPUs by weight, or by budget and period")]
    SecondSharing {
        /// The other way's property.
        first: &'static str,
    },
    /// More time in each period than it has.
    #[error("{budget} us is more than the period, {period} us")]
    OverPeriod {
        /// `budget` in µs.
        budget: u32,
        /// `period` in µs.
        period: u32,
    },
    /// A payload or a list without bytes.
    #[error("is empty")]
    Empty,
    /// No payload at all.
    #[error("nothing to run: give one of kernel, elf, binary, firmware")]
    NoPayload,
    /// A second payload.
    #[error("there is {first} already: a VM runs one of kernel, elf, binary, firmware")]
    SecondPayload {
        /// The other payload's property.
        first: &'static str,
    },
    /// A property that means nothing without another one.
    #[error("only goes with {other}")]
    Without {
        /// The property that is missing.
        other: &'static str,
    },
    /// A property that another one asks for.
    #[error("missing: {by} needs it")]
    Needed {
        /// The property that asks.
        by: &'static str,
    },
}
