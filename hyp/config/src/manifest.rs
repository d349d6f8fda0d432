//! The VM bundle: the device-tree blob that configures the machine and holds every payload.
//!
//! Parses the blob into one [`VmConfig`] for each VM and one [`ChannelConfig`] for each channel. What is wrong becomes an error that
//! names node, property and reason; a wrong VM leaves out only itself and its channels. Whether the board can provide what a VM asks for, and what its payload is like inside, is
//! checked later. `docs/manifest.md` describes every property.

mod channel;
mod devices;
mod error;
mod value;
mod vm;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::vec::Vec;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};

pub use error::{BundleError, ManifestError, Reason};

use vmm::layout::{Ipa, VIRT};
use vmm::life::OnCrash;

/// What `compatible` of a bundle's root says.
pub const BUNDLE_COMPATIBLE: &str = "hanok,bundle";
/// What `compatible` of a VM's node says.
pub const VM_COMPATIBLE: &str = "hanok,vm";
/// What `compatible` of a channel's node says.
pub const CHANNEL_COMPATIBLE: &str = "hanok,channel";
/// The most VMs in a bundle.
pub const MAX_VMS: usize = 64;
/// The most vCPUs of a VM.
pub const MAX_CPUS: u32 = 8;
/// A VM's memory when the manifest says nothing, in bytes: as much as QEMU's `virt` has then.
pub const DEFAULT_MEMORY: u64 = 128 << 20;
/// The least memory of a VM, and what its size must be a multiple of, in bytes: a block of stage 2 at level 2.
pub const MEMORY_UNIT: u64 = 2 << 20;
/// The longest `bootargs` in bytes, without the NUL: what fits into Linux's COMMAND_LINE_SIZE on arm64.
pub const MAX_BOOTARGS: usize = 2047;
/// The most that `weight` can be.
pub const MAX_WEIGHT: u32 = 65535;
/// The least that `budget` can be, in µs.
pub const MIN_BUDGET: u32 = 10;
/// The shortest `period`, in µs.
pub const MIN_PERIOD: u32 = 100;
/// The longest `period`, in µs: one second.
pub const MAX_PERIOD: u32 = 1_000_000;
/// How often a VM is restarted when it crashes, if the manifest says nothing.
pub const RESTART_LIMIT: u32 = 5;
/// The most that `restart-limit` can be.
pub const MAX_RESTART_LIMIT: u32 = 1_000_000;
/// How long it waits for that the first time, if the manifest says nothing, in milliseconds.
pub const RESTART_DELAY: u32 = 100;
/// The least memory of a channel in bytes: a page.
pub const MIN_CHANNEL: u64 = 4 << 10;
/// The most memory of a channel in bytes.
pub const MAX_CHANNEL: u64 = VIRT.channels.slot_size;
/// A channel's memory when the manifest says nothing, in bytes.
pub const DEFAULT_CHANNEL: u64 = 64 << 10;
/// The most channels of a VM.
pub const MAX_CHANNELS: usize = VIRT.channels.slots() as usize;
/// The longest name of a VM or a channel in bytes.
pub const MAX_NAME: usize = 31;

/// A whole bundle.
#[derive(Debug, Default)]
pub struct Bundle<'a> {
    /// Each VM in the order of the blob, or why it is left out. What is wrong at the root without concerning any VM stands here too,
    /// as an error whose node is `/`.
    pub vms: Vec<Result<VmConfig<'a>, ManifestError>>,
    /// Each channel in the order of the blob, or why it is left out. The VMs of those that aren't are in [`Bundle::vms`], and have
    /// [`MAX_CHANNELS`] at most.
    pub channels: Vec<Result<ChannelConfig<'a>, ManifestError>>,
    /// What becomes of the board when no VM runs any more.
    pub when_all_off: WhenAllOff,
}

/// What becomes of the board when no VM runs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenAllOff {
    /// It is turned off.
    #[default]
    PowerOff,
    /// It is reset.
    Reset,
    /// It stays as it is.
    Stay,
}

/// What the manifest says of one VM; references point into the blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmConfig<'a> {
    /// The node's name: 1 to [`MAX_NAME`] characters of `A-Z a-z 0-9 , . _ + -`, unique in the bundle.
    pub name: &'a str,
    /// Number of vCPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// RAM in bytes: a multiple of [`MEMORY_UNIT`], at least one.
    pub memory: u64,
    /// Physical CPUs, in the board's order of CPUs, or `None` if the manifest leaves it to the hypervisor. Where `sharing` is
    /// [`Sharing::Pinned`], the one that each vCPU is pinned to, as many as `cpus`; else those that any of the VM's vCPUs
    /// may be on, one or more, none twice.
    pub cpu_affinity: Option<Vec<u32>>,
    /// Whether the vCPUs share CPUs with others, and on which terms.
    pub sharing: Sharing,
    /// The command line for `/chosen`; at most [`MAX_BOOTARGS`] bytes, no NUL.
    pub bootargs: Option<&'a str>,
    /// What runs in it.
    pub payload: Payload<'a>,
    /// It starts with the board; otherwise when somebody starts it.
    pub starts: bool,
    /// What becomes of it when it crashes.
    pub on_crash: OnCrash,
    /// It has a watchdog that must be fed from the start on, every so many seconds, 1 to
    /// [`LONGEST_TIMEOUT`](vmm::life::LONGEST_TIMEOUT).
    pub watchdog: Option<u32>,
    /// What it may ask of other VMs: bits of [`abi::hanok::right`].
    pub rights: u32,
    /// Where things are in it.
    pub layout: LayoutKind,
    /// Where its RAM is, with [`LayoutKind::Board`] alone: a multiple of [`MEMORY_UNIT`]. `None`: Hanok finds a place.
    pub memory_address: Option<u64>,
    /// The board's devices that it is given.
    pub devices: DeviceConfig<'a>,
}

/// Whose addresses a VM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LayoutKind {
    /// Those of QEMU's `virt` machine.
    #[default]
    Virt,
    /// The board's own, and its RAM at the addresses that it really has.
    Board,
}

/// What the manifest says of the board's devices that a VM is given. Whether the board has them is found out later
/// ([`Devices::give`](crate::passthrough::Devices::give)).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct DeviceConfig<'a> {
    /// Their nodes in the board's tree: paths or aliases.
    pub nodes: Vec<&'a str>,
    /// It may have devices that can reach all memory.
    pub unprotected_dma: bool,
    /// It may have devices that control pins.
    pub pin_control: bool,
    /// The rates of the clocks for which the board's tree has none, in Hz, in the order in which the devices name them.
    pub clock_rates: Vec<u32>,
}

/// What the manifest says of a channel: memory that two VMs share, and a doorbell each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelConfig<'a> {
    /// The node's name, as in [`VmConfig::name`]; no VM and no other channel has it.
    pub name: &'a str,
    /// The names of its VMs, which are two different ones; the order says which is side 0 and which side 1.
    pub vms: [&'a str; 2],
    /// Its memory in bytes: a power of two from [`MIN_CHANNEL`] to [`MAX_CHANNEL`].
    pub size: u64,
}

impl ChannelConfig<'_> {
    /// The message that the channel is left out, where one of its VMs is.
    ///
    /// # Errors
    /// That message, for the first VM that `is_there` says isn't.
    pub fn needs(&self, is_there: impl Fn(&str) -> bool) -> Result<(), ManifestError> {
        match self.vms.into_iter().find(|vm| !is_there(vm)) {
            Some(vm) => Err(self.wrong_vm(Reason::VmLeftOut { name: vm.to_owned() })),
            None => Ok(()),
        }
    }

    fn wrong_vm(&self, reason: Reason) -> ManifestError {
        ManifestError { node: format!("/{}", self.name), property: Some("vms".to_owned()), reason }
    }
}

/// How a VM's vCPUs come by their time on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each vCPU has a CPU to itself.
    Pinned,
    /// They share CPUs with others in proportion to their weights, 1 to [`MAX_WEIGHT`], as in Xen's credit scheduler, where
    /// 256 is the usual one.
    Weight(u32),
    /// Each vCPU gets so much of every period, and no more.
    Reserved {
        /// Time on the CPU in every period, in µs: [`MIN_BUDGET`] to `period`.
        budget: u32,
        /// In µs: [`MIN_PERIOD`] to [`MAX_PERIOD`].
        period: u32,
    },
}

/// What is loaded into a VM. Never empty, but for the contents of writable flash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// An arm64 Linux `Image`, or anything with its header.
    Linux {
        /// The plain `Image`.
        image: &'a [u8],
        /// The initial RAM disk.
        initrd: Option<&'a [u8]>,
    },
    /// An AArch64 ELF file.
    Elf(&'a [u8]),
    /// A raw binary.
    Binary {
        /// Its bytes.
        bytes: &'a [u8],
        /// Where they go.
        load_address: Ipa,
        /// Where it starts; `load_address` if the manifest doesn't say.
        entry: Ipa,
    },
    /// What lies in flash.
    Firmware {
        /// The contents of the first bank, which starts at 0.
        image: &'a [u8],
        /// The second bank is one that the VM can write to, with these contents at first, which may be none; otherwise it is empty.
        variables: Option<&'a [u8]>,
    },
}

impl Payload<'_> {
    /// Whether there is flash that the VM can write to.
    pub const fn has_variables(&self) -> bool {
        matches!(self, Self::Firmware { variables: Some(_), .. })
    }

    /// Whether there is an initial RAM disk.
    pub const fn has_initrd(&self) -> bool {
        matches!(self, Self::Linux { initrd: Some(_), .. })
    }
}

/// Size of a blob's header in bytes (Devicetree Specification 0.4, section 5.2).
const HEADER: usize = 40;
/// The first word of every blob.
const MAGIC: u32 = 0xd00d_feed;
/// The properties that a bundle's root may have, for the message about one that it may not.
const KNOWN_AT_ROOT: &str = "compatible, model, when-all-off";

impl<'a> Bundle<'a> {
    /// Reads a bundle. Bytes behind the end of the blob, such as the padding of a RAM disk, are ignored.
    ///
    /// # Errors
    /// Why nothing of it can be used. What is wrong with a VM is not an error here: it stands in [`Bundle::vms`].
    #[inline(never)]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let tree = Fdt::new(blob(bytes)?).map_err(|error| BundleError::Damaged { error })?;
        let root = tree.root();
        let root_error = |property: &str, reason| ManifestError {
            node: "/".to_owned(),
            property: Some(property.to_owned()),
            reason,
        };
        vm::compatible_is(&root, &[BUNDLE_COMPATIBLE])
            .map_err(|reason| BundleError::Root(root_error("compatible", reason)))?;
        let mut vms = Vec::new();
        let mut when_all_off = WhenAllOff::default();
        for property in root.properties() {
            let name = property.name();
            match name {
                "compatible" | "model" => {}
                "when-all-off" => match read_when_all_off(property.value()) {
                    Ok(value) => when_all_off = value,
                    Err(reason) => vms.push(Err(root_error(name, reason))),
                },
                _ if vm::is_structural(name) => {}
                _ => vms.push(Err(root_error(name, Reason::UnknownProperty { known: KNOWN_AT_ROOT }))),
            }
        }
        let (vm_nodes, channel_nodes): (Vec<_>, Vec<_>) = nodes(root).partition(|node| !is_channel(node));
        let count = vm_nodes.len();
        if count == 0 {
            return Err(BundleError::NoVm);
        }
        let mut names: Vec<&str> = Vec::new();
        let mut new_name = |node: &FdtNode<'a>| {
            if names.contains(&node.name()) {
                return Err(wrong_node(node, Reason::DuplicateName));
            }
            names.push(node.name());
            Ok(())
        };
        for (index, node) in vm_nodes.iter().enumerate() {
            if index >= MAX_VMS {
                vms.push(Err(wrong_node(node, Reason::TooManyVms { count, most: MAX_VMS })));
                break;
            }
            vms.push(new_name(node).and_then(|()| vm::parse(node)));
        }
        let mut channels = Channels::new(&vm_nodes, &vms);
        for node in &channel_nodes {
            channels.add(new_name(node).and_then(|()| channel::parse(node)));
        }
        let channels = channels.list;
        Ok(Self { vms, channels, when_all_off })
    }
}

/// The channels of a bundle, as far as they have been read.
struct Channels<'a> {
    list: Vec<Result<ChannelConfig<'a>, ManifestError>>,
    /// The VMs of the bundle, and how many each has; of those that are left out, nothing.
    counts: Vec<(&'a str, Option<usize>)>,
}

impl<'a> Channels<'a> {
    /// None so far, between the VMs of these nodes.
    fn new(nodes: &[FdtNode<'a>], vms: &[Result<VmConfig<'a>, ManifestError>]) -> Self {
        let is_read = |name: &str| vms.iter().flatten().any(|vm| vm.name == name);
        let counts = nodes.iter().map(|node| (node.name(), is_read(node.name()).then_some(0))).collect();
        Self { list: Vec::new(), counts }
    }

    fn add(&mut self, channel: Result<ChannelConfig<'a>, ManifestError>) {
        let checked = channel.and_then(|channel| self.check(channel));
        for vm in checked.iter().flat_map(|channel| channel.vms) {
            if let Some((_, Some(count))) = self.counts.iter_mut().find(|(name, _)| *name == vm) {
                *count = count.saturating_add(1);
            }
        }
        self.list.push(checked);
    }

    fn check(&self, channel: ChannelConfig<'a>) -> Result<ChannelConfig<'a>, ManifestError> {
        for vm in channel.vms {
            if !self.counts.iter().any(|(name, _)| *name == vm) {
                return Err(channel.wrong_vm(Reason::NoSuchVm { name: vm.to_owned() }));
            }
        }
        let count = |vm: &str| self.counts.iter().find(|(name, _)| *name == vm)?.1;
        channel.needs(|vm| count(vm).is_some())?;
        match channel.vms.into_iter().find(|vm| count(vm) >= Some(MAX_CHANNELS)) {
            Some(vm) => {
                let reason = Reason::TooManyChannels { name: vm.to_owned(), most: MAX_CHANNELS };
                Err(channel.wrong_vm(reason))
            }
            None => Ok(channel),
        }
    }
}

/// What is wrong with a child of the root as a whole.
fn wrong_node(node: &FdtNode<'_>, reason: Reason) -> ManifestError {
    ManifestError { node: format!("/{}", node.name()), property: None, reason }
}

/// Checks that a name is one without a unit address; `what` has it, as "a VM".
fn no_unit_address(name: &str, what: &'static str) -> Result<(), Reason> {
    if name.contains('@') { Err(Reason::UnitAddress { what }) } else { Ok(()) }
}

/// What says of itself that it is a channel; anything else is meant to be a VM.
fn is_channel(node: &FdtNode<'_>) -> bool {
    vm::compatible_is(node, &[CHANNEL_COMPATIBLE]).is_ok()
}

fn read_when_all_off(value: &[u8]) -> Result<WhenAllOff, Reason> {
    match value::read_string(value)? {
        "power-off" => Ok(WhenAllOff::PowerOff),
        "reset" => Ok(WhenAllOff::Reset),
        "stay" => Ok(WhenAllOff::Stay),
        found => Err(Reason::NotOneOf { found: found.to_owned(), known: "power-off, reset, stay" }),
    }
}

/// The blob without what follows it, its length checked.
fn blob(bytes: &[u8]) -> Result<&[u8], BundleError> {
    let word = |index: usize| bytes.as_chunks::<4>().0.get(index).map(|&word| u32::from_be_bytes(word));
    let got = bytes.len();
    let no_header = BundleError::NoHeader { got };
    // The first word is looked at first: a short file of another kind is that first of all.
    match word(0) {
        Some(MAGIC) if got >= HEADER => {}
        Some(MAGIC) | None => return Err(no_header),
        Some(found) => return Err(BundleError::NotABlob { found }),
    }
    let says = word(1).ok_or(no_header)?;
    let end = usize::try_from(says).unwrap_or(usize::MAX);
    bytes.get(..end).ok_or(BundleError::Truncated { says, got })
}

/// The root's children, less those that dtc's option `-@` adds.
fn nodes<'a>(root: FdtNode<'a>) -> impl Iterator<Item = FdtNode<'a>> {
    root.children().filter(|node| !matches!(node.name(), "__symbols__" | "__fixups__" | "__local_fixups__"))
}
