//! Channels between two VMs: whom a doorbell is for, and how it gets there without waiting for that VM.
//!
//! [`config::channel`] says where an end's memory and interrupt are; docs/channels.md is what guests know. The memory is shared at
//! boot and stays shared, whatever becomes of the two.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use config::channel::ChannelEnd;
use config::manifest::ChannelConfig;
use stage2::{PaRange, VmId, VmSet};
use vgic::{IntId, VcpuId, bounds};
use vmm::layout::VIRT;

use super::Vm;
use crate::memory;

/// A VM's end of a channel, when it rings.
pub struct Link {
    /// Who hears it, if that VM could be built.
    peer: Option<&'static Vm>,
    /// By which number the channel is known there.
    peer_number: u32,
}

/// The channels whose memory could be had, and the memory of each. Of the others it is said why not. `slot` tells the slot of
/// a VM by its name, if it is there; guests have `pa_bits` address bits at most, as the CPUs do.
pub fn share<'a>(
    configs: impl Iterator<Item = ChannelConfig<'a>>,
    slot: impl Fn(&str) -> Option<VmId>,
    pa_bits: u8,
) -> (Vec<ChannelConfig<'a>>, Vec<PaRange>) {
    let needed = VIRT.channels.address_bits();
    let share = |config: ChannelConfig<'a>| {
        if let Err(error) = config.needs(|vm| slot(vm).is_some()) {
            log::error!("left out: {error}");
            return None;
        }
        if pa_bits < needed {
            // Its two VMs can do without; they could not be built with memory that no table of theirs reaches.
            log::error!(
                "left out: /{}: the CPUs have {pa_bits} address bits, a channel's memory needs {needed}",
                config.name
            );
            return None;
        }
        let members = config.vms.iter().filter_map(|vm| slot(vm)).fold(VmSet::from_bits(0), VmSet::with);
        match memory::share(config.size, members) {
            Ok(memory) => Some((config, memory)),
            Err(error) => {
                log::error!("left out: /{}: memory: {error}", config.name);
                None
            }
        }
    };
    configs.filter_map(share).unzip()
}

impl Vm {
    /// Tells it who is at the other ends of its channels.
    pub fn link(&self, ends: &[ChannelEnd<'_>], find: impl Fn(&str) -> Option<&'static Self>) {
        let link = |end: &ChannelEnd<'_>| {
            let peer = find(end.peer);
            if peer.is_none() {
                log::warn!("{}: nobody is at the other end of channel {}", self.name, end.name);
            }
            Link { peer, peer_number: end.peer_number }
        };
        let links: Box<[Link]> = ends.iter().map(link).collect();
        self.links.call_once(|| links);
    }

    /// Rings the bell at the other end of its channel of this number. Whether there is such a channel.
    pub fn ring(&self, number: u32) -> bool {
        let link = self.links.get().and_then(|links| bounds::get(links, number as usize));
        let Some(link) = link else { return false };
        if let Some(peer) = link.peer {
            peer.hear_bell(link.peer_number);
        }
        true
    }

    /// The bell of its channel of this number rings. Called for another VM: nothing is waited for, and as long as nobody has
    /// seen to the first ring ([`take_bells`](Self::take_bells)), or it was seen to and no vCPU has been loaded since, further ones cost nobody
    /// anything.
    fn hear_bell(&self, number: u32) {
        let bell = 1u64.wrapping_shl(number);
        if self.bells.fetch_or(bell, Ordering::SeqCst) & (bell | bell << SEEN) != 0 {
            return;
        }
        // One of its vCPUs that has a CPU anyway; so that others' CPUs are disturbed only where all sleep.
        let loaded = self.loaded.load(Ordering::SeqCst);
        let vcpu = if loaded == 0 { 0 } else { loaded.trailing_zeros() as u8 };
        self.wake(VcpuId(vcpu));
    }

    /// Makes the interrupts of the bells that have rung pending. On a CPU of its own; the caller sees to the interrupts of the vCPU `by` next.
    ///
    /// Where none of its vCPUs is loaded, a bell that was seen to waits until one is before it is heard again: so a VM that doesn't listen can't
    /// have its CPU disturbed again and again.
    #[inline]
    pub fn take_bells(&self, by: VcpuId) {
        if self.bells.load(Ordering::SeqCst) != 0 {
            self.take_rung_bells(by);
        }
    }

    #[inline(never)]
    fn take_rung_bells(&self, by: VcpuId) {
        let is_loaded = || self.loaded.load(Ordering::SeqCst) != 0;
        let mut bells = 0;
        if !is_loaded() {
            let fresh = |bells: u64| bells & !(bells >> SEEN) & RUNG;
            let seen = |bells| Some(bells & !fresh(bells) | fresh(bells) << SEEN);
            let before = self.bells.fetch_update(Ordering::SeqCst, Ordering::SeqCst, seen).unwrap_or(0);
            bells = fresh(before);
        }
        // A vCPU that is being loaded meanwhile is seen here, or it comes here itself (`Vcpu::load`, behind `Vcpu::enter`).
        if is_loaded() {
            bells |= self.bells.swap(0, Ordering::SeqCst) & RUNG;
        }
        if bells == 0 {
            return;
        }
        let mut vgic = self.vgic.lock();
        let mut kicks = vgic::Kicks::NONE;
        while bells != 0 {
            let spi = self.layout.channels.spi(bells.trailing_zeros());
            bells &= bells.wrapping_sub(1);
            kicks |= vgic.pulse(VcpuId(0), IntId::spi(spi as u16));
        }
        drop(vgic);
        self.kick(kicks.without(by));
    }
}

/// In [`Vm::bells`], the bells that have rung and weren't seen to yet, one bit each.
const RUNG: u64 = 0xffff_ffff;
/// How far above its bit it is noted that a bell was seen to, and no vCPU has been loaded since.
const SEEN: u32 = 32;
