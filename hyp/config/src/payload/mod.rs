//! Loading plans: what of a payload goes where in a VM, worked out and checked before anything is copied.
//!
//! Pure: the plan says what to copy, clear and map; the caller does it. Relocations aren't applied and nothing is decompressed.

mod bytes;
mod elf;
mod error;
mod kind;
mod linux;
mod place;

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

pub use error::{Compression, FileKind, PayloadError, PayloadReason, What};

use vmm::layout::{Ipa, Layout, Region};
use vmm::order;

use self::bytes::length;
use self::place::Ram;
use crate::manifest::{Payload, VmConfig};

/// A kernel lies at a multiple of this plus its `text_offset`.
const KERNEL_ALIGNMENT: u64 = 2 << 20;
/// The largest page that a guest can have, so that it can free the RAM disk's pages whole.
const INITRD_ALIGNMENT: u64 = 64 << 10;
/// How far from RAM's base a RAM disk may end. Linux asks for it to be within 32 GiB of the kernel; half of that is safe wherever the
/// kernel lies.
const INITRD_WINDOW: u64 = 16 << 30;

/// Everything that is needed to load a VM, or to load it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan<'a> {
    /// What goes into RAM, in ascending order and without overlap. All RAM outside of it (but the tree) is to read as zero.
    pub segments: Vec<Segment<'a>>,
    /// Where vCPU 0 starts.
    pub entry: Ipa,
    /// Where the device tree goes, 8-byte aligned; also x0 of vCPU 0.
    pub dtb: Ipa,
    /// Where the initial RAM disk lies (it is among the segments); `/chosen` tells the guest.
    pub initrd: Option<Range<Ipa>>,
    /// The flash banks, for firmware.
    pub flash: Option<Flash<'a>>,
    /// The translation granule that the kernel needs, in bytes, if its header says: see [`LoadPlan::check_granule`].
    pub granule: Option<Granule>,
}

/// A piece of RAM to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Where it starts.
    pub ipa: Ipa,
    /// What is copied there.
    pub bytes: &'a [u8],
    /// How many bytes behind those are to be zero.
    pub zero_after: u64,
}

/// The two flash banks of a VM that starts from firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flash<'a> {
    /// The code bank (entry at its start) and the one for variables, which alone may be one that the VM can write to.
    pub banks: [FlashBank<'a>; 2],
}

/// One flash bank: mapped read-only and executable, Normal memory, as long as it shows what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlashBank<'a> {
    /// Its first address.
    pub base: Ipa,
    /// What it holds at its start.
    pub bytes: &'a [u8],
    /// How many bytes from `base` need frames of their own: `bytes` rounded up to [`FLASH_UNIT`], of which a bank that is `kept`
    /// has one at least; what `bytes` doesn't fill of them is set to 0xff.
    pub backed: u64,
    /// The VM can write to what has frames of its own, by the commands of flash; so it is loaded once, and never again.
    pub kept: bool,
    /// How many bytes behind those read as 0xff. One frame of [`FLASH_UNIT`] bytes, all 0xff, is mapped here as often as it takes;
    /// as nobody can write it, all banks of all VMs may have the same.
    pub erased: u64,
}

/// The unit of flash mappings in bytes: a block of stage 2 at level 2.
pub const FLASH_UNIT: u64 = 2 << 20;

/// A translation granule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granule {
    /// 4 KiB.
    Kib4,
    /// 16 KiB.
    Kib16,
    /// 64 KiB.
    Kib64,
}

impl Granule {
    /// Its size in KiB.
    pub const fn kib(self) -> u32 {
        match self {
            Self::Kib4 => 4,
            Self::Kib16 => 16,
            Self::Kib64 => 64,
        }
    }

    /// Whether a CPU has it for stage 1, by its ID_AA64MMFR0_EL1 (Arm ARM, D24.2.79): TGran4 and TGran64 say 0xf where it doesn't,
    /// TGran16 says 0.
    pub const fn is_in(self, id_aa64mmfr0: u64) -> bool {
        match self {
            Self::Kib4 => id_aa64mmfr0 >> 28 & 0xf != 0xf,
            Self::Kib16 => id_aa64mmfr0 >> 20 & 0xf != 0,
            Self::Kib64 => id_aa64mmfr0 >> 24 & 0xf != 0xf,
        }
    }
}

impl LoadPlan<'_> {
    /// Checks that the CPU has the granule that the kernel was built for; a kernel that misses it stops without a word.
    ///
    /// # Errors
    /// Names the page size.
    #[inline(never)]
    pub fn check_granule(&self, id_aa64mmfr0: u64) -> Result<(), PayloadError> {
        match self.granule {
            Some(granule) if !granule.is_in(id_aa64mmfr0) => {
                Err(of("kernel")(PayloadReason::Granule { kib: granule.kib() }))
            }
            _ => Ok(()),
        }
    }
}

/// Works out how to load a VM.
///
/// `dtb_size` is how many bytes its device tree has ([`guest_tree::build`](crate::guest_tree::build)).
///
/// # Errors
/// What is wrong with the payload, or which part of it doesn't fit.
#[inline(never)]
pub fn plan<'a>(config: &VmConfig<'a>, layout: &Layout, dtb_size: u64) -> Result<LoadPlan<'a>, PayloadError> {
    let ram = Ram::new(layout, config.memory)?;
    match config.payload {
        Payload::Linux { image, initrd } => plan_linux(image, initrd, &ram, dtb_size),
        Payload::Elf(file) => plan_elf(file, &ram, dtb_size).map_err(of("elf")),
        Payload::Binary { bytes, load_address, entry } => {
            plan_binary(bytes, load_address, entry, &ram, dtb_size)
        }
        Payload::Firmware { image, variables } => plan_firmware(image, variables, layout, &ram, dtb_size),
    }
}

/// Marks an error as being about a property.
fn of(property: &'static str) -> impl Fn(PayloadReason) -> PayloadError {
    move |reason| PayloadError { property, reason }
}

/// The tree at RAM's base, the kernel at the next 2 MiB boundary plus its offset, the RAM disk behind the kernel.
fn plan_linux<'a>(
    image: &'a [u8],
    initrd: Option<&'a [u8]>,
    ram: &Ram,
    dtb_size: u64,
) -> Result<LoadPlan<'a>, PayloadError> {
    let header = linux::parse(image).map_err(of("kernel"))?;
    let kernel = kernel_range(&header, ram, dtb_size).map_err(of("kernel"))?;
    let mut segments = vec![segment(&kernel, image)];
    let initrd = match initrd {
        Some(bytes) => {
            let range = initrd_range(&header, &kernel, length(bytes), ram).map_err(of("initrd"))?;
            segments.push(segment(&range, bytes));
            Some(Ipa::new(range.start)..Ipa::new(range.end))
        }
        None => None,
    };
    let dtb = Ipa::new(ram.start);
    let entry = Ipa::new(kernel.start);
    Ok(LoadPlan { segments, entry, dtb, initrd, flash: None, granule: header.granule })
}

fn kernel_range(header: &linux::Header, ram: &Ram, dtb_size: u64) -> Result<Range<u64>, PayloadReason> {
    let base = place::align_up(ram.start.saturating_add(dtb_size), KERNEL_ALIGNMENT);
    let start = base.saturating_add(header.text_offset);
    let range = ram.range(What::Payload, start, header.size)?;
    aligned_entry(start)?;
    Ok(range)
}

/// Right behind the kernel; at the end of RAM if the kernel doesn't say how much it needs.
fn initrd_range(
    header: &linux::Header,
    kernel: &Range<u64>,
    size: u64,
    ram: &Ram,
) -> Result<Range<u64>, PayloadReason> {
    let lowest = place::align_up(kernel.end, INITRD_ALIGNMENT);
    if header.size_known {
        return ram.range(What::Payload, lowest, size);
    }
    let limit = ram.end.min(ram.start.saturating_add(INITRD_WINDOW));
    let highest = place::align_down(limit.saturating_sub(size), INITRD_ALIGNMENT);
    ram.range(What::Payload, highest.max(lowest), size)
}

fn segment<'a>(range: &Range<u64>, bytes: &'a [u8]) -> Segment<'a> {
    let zero_after = range.end.saturating_sub(range.start).saturating_sub(length(bytes));
    Segment { ipa: Ipa::new(range.start), bytes, zero_after }
}

fn plan_elf<'a>(file: &'a [u8], ram: &Ram, dtb_size: u64) -> Result<LoadPlan<'a>, PayloadReason> {
    let elf::File { mut loads, entry } = elf::parse(file)?;
    order::sort_by_key(&mut loads, |load| load.physical_address);
    let mut segments: Vec<Segment<'a>> = Vec::with_capacity(loads.len());
    let mut before: Option<(usize, u64)> = None;
    for load in loads {
        let range = ram.range(What::Segment(load.index), load.physical_address, load.memory_size)?;
        match before {
            Some((first, end)) if end > range.start => {
                return Err(PayloadReason::ElfOverlap { first, second: load.index, at: range.start });
            }
            _ => before = Some((load.index, range.end)),
        }
        segments.push(segment(&range, load.bytes));
    }
    in_ram(segments, entry, ram, dtb_size)
}

fn plan_binary<'a>(
    bytes: &'a [u8],
    load_address: Ipa,
    entry: Ipa,
    ram: &Ram,
    dtb_size: u64,
) -> Result<LoadPlan<'a>, PayloadError> {
    not_elf(bytes).map_err(of("binary"))?;
    let range = ram.range(What::Payload, load_address.as_u64(), length(bytes)).map_err(of("load-address"))?;
    let entry = entry.as_u64();
    if !range.contains(&entry) {
        return Err(of("entry-address")(PayloadReason::EntryOutside { entry }));
    }
    aligned_entry(entry).map_err(of("entry-address"))?;
    in_ram(vec![segment(&range, bytes)], entry, ram, dtb_size).map_err(of("binary"))
}

/// Instructions are words at multiples of four.
fn aligned_entry(entry: u64) -> Result<(), PayloadReason> {
    if entry.is_multiple_of(4) { Ok(()) } else { Err(PayloadReason::EntryAlignment { entry }) }
}

/// The plan for segments in RAM, with the tree beside them.
fn in_ram<'a>(
    segments: Vec<Segment<'a>>,
    entry: u64,
    ram: &Ram,
    dtb_size: u64,
) -> Result<LoadPlan<'a>, PayloadReason> {
    let dtb = Ipa::new(place::tree(ram, dtb_size, &segments)?);
    Ok(LoadPlan { segments, entry: Ipa::new(entry), dtb, initrd: None, flash: None, granule: None })
}

fn plan_firmware<'a>(
    image: &'a [u8],
    variables: Option<&'a [u8]>,
    layout: &Layout,
    ram: &Ram,
    dtb_size: u64,
) -> Result<LoadPlan<'a>, PayloadError> {
    not_elf(image).map_err(of("firmware"))?;
    let [code, second] = layout.flash;
    let code = flash_bank(code, image).map_err(of("firmware"))?;
    let mut second = flash_bank(second, variables.unwrap_or(&[])).map_err(of("firmware-variables"))?;
    if variables.is_some() {
        second = second.kept();
    }
    let banks = [code, second];
    let dtb = Ipa::new(place::tree(ram, dtb_size, &[]).map_err(of("firmware"))?);
    Ok(LoadPlan {
        segments: Vec::new(),
        entry: code.base,
        dtb,
        initrd: None,
        flash: Some(Flash { banks }),
        granule: None,
    })
}

fn flash_bank<'a>(bank: Region, bytes: &'a [u8]) -> Result<FlashBank<'a>, PayloadReason> {
    if length(bytes) > bank.size {
        return Err(PayloadReason::FlashSize { bytes: length(bytes), bank: bank.size });
    }
    let backed = place::align_up(length(bytes), FLASH_UNIT);
    Ok(FlashBank { base: bank.base, bytes, backed, kept: false, erased: bank.size.saturating_sub(backed) })
}

impl FlashBank<'_> {
    /// The same, but that the VM can write to it.
    fn kept(self) -> Self {
        let backed = self.backed.max(FLASH_UNIT);
        let more = backed.saturating_sub(self.backed);
        Self { backed, kept: true, erased: self.erased.saturating_sub(more), ..self }
    }
}

/// An ELF file runs nowhere as a raw binary, but is easily given as one.
fn not_elf(bytes: &[u8]) -> Result<(), PayloadReason> {
    if bytes.starts_with(&kind::ELF_MAGIC) { Err(PayloadReason::IsElf) } else { Ok(()) }
}
