//! A channel's node: memory and a doorbell between two VMs.

use alloc::borrow::ToOwned;

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};

use super::value::{read_strings, read_u32};
use super::vm::{Wrong, in_range, is_structural, of, parse_node};
use super::{
    ChannelConfig, DEFAULT_CHANNEL, MAX_CHANNEL, MIN_CHANNEL, ManifestError, Reason, no_unit_address,
};

/// The properties that a channel's node may have, for the message about one that it may not.
const KNOWN: &str = "compatible, vms, size";

/// Bytes in the unit in which `size` counts.
const KIB: u64 = 1024;

/// What a node is called in messages.
pub(super) const WHAT: &str = "a channel";

/// Reads a channel's node, but for whether its VMs are there.
pub(super) fn parse<'a>(node: &FdtNode<'a>) -> Result<ChannelConfig<'a>, ManifestError> {
    parse_node(node, WHAT, read)
}

fn read<'a>(name: &'a str, node: &FdtNode<'a>) -> Result<ChannelConfig<'a>, Wrong> {
    no_unit_address(name, WHAT).map_err(|reason| (None, reason))?;
    let (mut vms, mut size): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    for property in node.properties() {
        let name = property.name();
        let wrong = |reason| (Some(name.to_owned()), reason);
        let slot = match name {
            "compatible" => continue,
            "vms" => &mut vms,
            "size" => &mut size,
            _ if is_structural(name) => continue,
            _ => return Err(wrong(Reason::UnknownProperty { known: KNOWN })),
        };
        // The conversion of a value to bytes can't fail.
        let value = property.value_as::<&'a [u8]>().map_err(|_| wrong(Reason::Empty))?;
        if slot.replace(value).is_some() {
            return Err(wrong(Reason::Twice));
        }
    }
    let vms = vms.ok_or_else(|| of("vms")(Reason::Needed { by: WHAT }))?;
    Ok(ChannelConfig {
        name,
        vms: two_vms(vms).map_err(of("vms"))?,
        size: size.map_or(Ok(DEFAULT_CHANNEL), channel_size).map_err(of("size"))?,
    })
}

fn two_vms(value: &[u8]) -> Result<[&str; 2], Reason> {
    let names = read_strings(value)?;
    match names[..] {
        [first, second] if first == second => Err(Reason::SameVm { name: first.to_owned() }),
        [first, second] => Ok([first, second]),
        _ => Err(Reason::VmCount { count: names.len() }),
    }
}

fn channel_size(value: &[u8]) -> Result<u64, Reason> {
    let kib = u64::from(read_u32(value)?);
    in_range(kib, MIN_CHANNEL / KIB, MAX_CHANNEL / KIB, " KiB")?;
    if !kib.is_power_of_two() {
        return Err(Reason::NotPowerOfTwo { value: kib, unit: " KiB" });
    }
    // Can't saturate: the range was checked.
    Ok(kib.saturating_mul(KIB))
}
