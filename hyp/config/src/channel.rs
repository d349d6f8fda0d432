//! A VM's ends of channels: the number, place, interrupt and peer of each.
//!
//! Decided here for everybody: the guest's tree tells it, EL2 maps the memory by it and finds by it whom a doorbell is for.
//! Sharing the memory and raising the interrupt are EL2's.

use alloc::vec::Vec;

use vmm::layout::{Layout, Region};

use crate::manifest::ChannelConfig;

/// One VM's end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelEnd<'a> {
    /// Which channel: its place among those that were given to [`ends`]. Its memory is one for both ends.
    pub channel: usize,
    /// The channel's name.
    pub name: &'a str,
    /// By what the VM names it when it calls [`DOORBELL`](abi::hanok::DOORBELL): its ends are counted from 0, in the manifest's order.
    pub number: u32,
    /// 0 at the VM that the manifest names first, 1 at the other.
    pub side: u32,
    /// The VM at the other end.
    pub peer: &'a str,
    /// The number that the channel has there.
    pub peer_number: u32,
    /// The memory in bytes.
    pub size: u64,
}

impl ChannelEnd<'_> {
    /// Where the memory lies in this VM.
    pub const fn region(&self, layout: &Layout) -> Region {
        layout.channels.region(self.number, self.size)
    }

    /// The interrupt in this VM when the peer rings: the number of a shared peripheral interrupt, edge-triggered.
    pub const fn spi(&self, layout: &Layout) -> u32 {
        layout.channels.spi(self.number)
    }

    /// The interrupt in the peer when this VM rings.
    pub const fn peer_spi(&self, layout: &Layout) -> u32 {
        layout.channels.spi(self.peer_number)
    }
}

/// The ends that a VM has of these channels, in order of their numbers.
#[inline(never)]
pub fn ends<'a>(channels: &[ChannelConfig<'a>], vm: &str) -> Vec<ChannelEnd<'a>> {
    let mut ends: Vec<ChannelEnd<'a>> = Vec::new();
    for (channel, config) in channels.iter().enumerate() {
        let [first, second] = config.vms;
        let (side, peer) = if first == vm {
            (0, second)
        } else if second == vm {
            (1, first)
        } else {
            continue;
        };
        let before = channels.iter().take(channel);
        ends.push(ChannelEnd {
            channel,
            name: config.name,
            number: count(ends.iter()),
            side,
            peer,
            peer_number: count(before.filter(|earlier| earlier.vms.contains(&peer))),
            size: config.size,
        });
    }
    ends
}

/// How many there are; of a VM's channels there are few.
fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}
