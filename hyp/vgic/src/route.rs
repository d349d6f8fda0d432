//! Where interrupts go: SPI routing, and software-generated interrupts.

use crate::bank::Bits;
use crate::ids::{Affinity, IntId, Kicks, VcpuId, Width};
use crate::state::{NOBODY, Place, Vgic};
use crate::{Hardware, Model, Physical};

/// Which register a GICv3 guest sends an SGI by. With one security state `ICC_ASGI1R_EL1` has no other state to
/// send to and does what `ICC_SGI0R_EL1` does (IHI 0069, 12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiRegister {
    /// `ICC_SGI1R_EL1`: interrupts of either group.
    Sgi1r,
    /// `ICC_SGI0R_EL1`: those that the target has in group 0.
    Sgi0r,
    /// `ICC_ASGI1R_EL1`: as `ICC_SGI0R_EL1`.
    Asgi1r,
}

/// ICC_SGI1R_EL1.IRM: to all but the sender.
const IRM: u64 = 1 << 40;

impl Vgic {
    /// The common case of [`Vgic::send_sgi_v3`] for ICC_SGI1R_EL1, and [`Vgic::sync`]: `vcpu`, which is loaded here, sends itself an SGI that it had
    /// before. Returns false where it isn't so, having done nothing.
    #[inline(always)]
    pub fn send_again_v3(&mut self, vcpu: VcpuId, value: u64, hw: &mut impl Hardware) -> bool {
        const INTID: u64 = 0xf << 24;
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return false };
        let intid = IntId(((value & INTID) >> 24) as u16);
        value & !INTID == state.sgi_to_itself && state.arrive_again(intid, !0, &self.shared, hw)
    }

    /// A GICv3 guest's write of an SGI register: `value` names the targets by affinity, or all vCPUs but `vcpu`
    /// itself. Affinities that no vCPU has are ignored.
    pub fn send_sgi_v3(&mut self, vcpu: VcpuId, value: u64, register: SgiRegister) -> Kicks {
        if self.shared.model != Model::V3 {
            return Kicks::NONE;
        }
        let mask = 1u32.wrapping_shl((value >> 24 & 0xf) as u32);
        let group0_only = register != SgiRegister::Sgi1r;
        let mut kicks = Kicks::NONE;
        // The set is cut to vCPUs that there are by arithmetic, not by a look at each (`bounds`).
        let everybody = u64::MAX.wrapping_shr(64u32.saturating_sub(self.vcpus.len() as u32));
        for id in Kicks(self.targets_of(vcpu, value).0 & everybody) {
            let Some(state) = self.vcpus.get_mut(id.index()) else { break };
            if group0_only && state.bank.group & mask != 0 {
                continue;
            }
            kicks |= state.pend_private(&self.shared, id, mask);
        }
        kicks
    }

    /// The vCPUs that a GICv3 SGI register's value names.
    fn targets_of(&self, vcpu: VcpuId, value: u64) -> Kicks {
        if value & IRM != 0 {
            Kicks(!vcpu.mask())
        } else {
            self.listed(value).unwrap_or_else(|| self.named(value))
        }
    }

    /// The same, where the list of targets is a set of vCPUs.
    fn listed(&self, value: u64) -> Option<Kicks> {
        /// Aff3, Aff2, RS, IRM, and of Aff1 what is above 3.
        const UNUSUAL: u64 = 0xff << 48 | 0xff << 32 | 0xf << 44 | IRM | 0xfc << 16;
        let is_usual = self.shared.numbered && value & UNUSUAL == 0;
        is_usual.then_some(Kicks((value & 0xffff) << ((value >> 12) & 0x30)))
    }

    /// The same by affinity, whatever vCPUs have.
    fn named(&self, value: u64) -> Kicks {
        // Aff3, Aff2 and Aff1 as in `Affinity`, and RS: which sixteen of Aff0 the list means.
        let cluster = (value >> 24 & 0xff00_0000) as u32
            | (value >> 16 & 0x00ff_0000) as u32
            | (value >> 8 & 0x0000_ff00) as u32
            | (value >> 40 & 0x0000_00f0) as u32;
        let mut named = Kicks::NONE;
        for (index, state) in self.vcpus.iter().enumerate() {
            let Affinity(affinity) = state.affinity;
            if affinity & !0xf == cluster && value & 1u64.wrapping_shl(affinity & 0xf) != 0 {
                named |= Kicks(VcpuId(index as u8).mask());
            }
        }
        named
    }

    /// `GICD_SGIR` (IHI 0048, 4.3.15). NSATT matters to a secure state only, which there isn't.
    pub(crate) fn write_sgir(&mut self, vcpu: VcpuId, value: u32) -> Kicks {
        let everybody = 0xffu32;
        let own = vcpu.mask() as u32;
        let targets = match value >> 24 & 3 {
            0 => value >> 16 & 0xff,
            1 => everybody & !own,
            2 => own,
            _ => 0,
        };
        self.add_sources(
            value & 0xf,
            targets & u32::from(self.known_sources()),
            1u8.wrapping_shl(u32::from(vcpu.0)),
        )
    }

    /// Make SGI `n` pending at `targets` as sent by each CPU of `sources`.
    fn add_sources(&mut self, n: u32, targets: u32, sources: u8) -> Kicks {
        let mask = 1u32.wrapping_shl(n);
        let mut kicks = Kicks::NONE;
        for index in Bits(targets) {
            let Some(state) = self.vcpus.get_mut(index as usize) else { break };
            let Some(pending) = state.sgi_sources.get_mut(n as usize) else { break };
            *pending |= sources;
            if sources != 0 {
                kicks |= state.pend_private(&self.shared, VcpuId(index as u8), mask);
            }
        }
        kicks
    }

    /// `GICD_SPENDSGIR<n>`/`GICD_CPENDSGIR<n>` of `vcpu`: a byte per SGI, a bit per source.
    pub(crate) fn read_sources(&self, vcpu: VcpuId, first: u32) -> u32 {
        let Some(state) = self.vcpus.get(vcpu.index()) else { return 0 };
        let mut value = 0;
        for n in (first..first.saturating_add(4)).rev() {
            let intid = IntId(n as u16);
            let waiting = state.sgi_sources.get(n as usize).copied().unwrap_or(0);
            let loaded = state.find(intid).and_then(|slot| state.slots.get(slot as usize));
            let taken = loaded.filter(|_| state.bank.taken & intid.bit() != 0);
            let source = taken.map_or(0, |slot| 1u8.wrapping_shl(u32::from(slot.source())));
            value = value << 8 | u32::from(waiting | source);
        }
        value
    }

    /// Write `GICD_SPENDSGIR<n>`.
    #[inline(never)]
    pub(crate) fn set_sources(&mut self, vcpu: VcpuId, first: u32, value: u32) -> Kicks {
        let mut kicks = Kicks::NONE;
        let known = self.known_sources();
        for (n, sources) in (first..16).zip(value.to_le_bytes()) {
            kicks |= self.add_sources(n, vcpu.mask() as u32, sources & known);
        }
        kicks
    }

    /// Write `GICD_CPENDSGIR<n>`.
    #[inline(never)]
    pub(crate) fn clear_sources(&mut self, vcpu: VcpuId, first: u32, value: u32) -> Kicks {
        let Some(state) = self.vcpus.get_mut(vcpu.index()) else { return Kicks::NONE };
        let mut changed = 0;
        for (n, sources) in (first..16).zip(value.to_le_bytes()) {
            let intid = IntId(n as u16);
            let Some(pending) = state.sgi_sources.get_mut(n as usize) else { break };
            *pending &= !sources;
            if *pending == 0 {
                state.bank.latch &= !intid.bit();
            }
            let slot = state.find(intid).and_then(|slot| state.slots.get(slot as usize));
            if slot.is_some_and(|slot| sources & 1u8.wrapping_shl(u32::from(slot.source())) != 0) {
                state.bank.taken &= !intid.bit();
            }
            changed |= intid.bit();
        }
        self.touch(Place { vcpu, word: 0 }, changed)
    }

    /// A bit per vCPU: what `ITARGETSR` and SGI sources may name.
    fn known_sources(&self) -> u8 {
        0xffu8.wrapping_shr(8u32.saturating_sub(self.vcpus.len() as u32) & 7)
    }

    /// `GICD_ITARGETSR<n>` for the four interrupts from `first`. RAZ with one CPU (IHI 0048, 4.3.12).
    pub(crate) fn read_targets(&self, vcpu: VcpuId, first: u16) -> u32 {
        if self.vcpus.len() == 1 {
            return 0;
        }
        if IntId(first).is_private() {
            return (vcpu.mask() as u32 & 0xff).wrapping_mul(0x0101_0101);
        }
        let byte = |n: u16| self.shared.spi(IntId(first.saturating_add(n))).map_or(0, |spi| spi.targets);
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)])
    }

    /// Write `GICD_ITARGETSR<n>`, of which only the bytes that are not zero in `bytes`.
    #[inline(never)]
    pub(crate) fn write_targets(
        &mut self,
        first: u16,
        value: u32,
        bytes: u32,
        hw: &mut impl Physical,
    ) -> Kicks {
        let mut kicks = Kicks::NONE;
        if self.vcpus.len() == 1 {
            return kicks;
        }
        let known = self.known_sources();
        let bytes = value.to_le_bytes().into_iter().zip(bytes.to_le_bytes());
        for (n, (targets, chosen)) in (first..first.saturating_add(4)).zip(bytes) {
            let Some(spi) = self.shared.spi_mut(IntId(n)).filter(|_| chosen != 0) else { continue };
            spi.targets = targets & known;
            kicks |= self.reroute(IntId(n), hw);
        }
        kicks
    }

    /// `GICD_IROUTER<n>`, the half of it that `offset` (in bytes) and `width` say.
    pub(crate) fn read_router(&self, intid: IntId, offset: u64, width: Width) -> u64 {
        let value = self.shared.spi(intid).map_or(0, |spi| spi.route.to_mpidr());
        match (width, offset & 4) {
            (Width::Double, _) => value,
            (_, 0) => value & 0xffff_ffff,
            _ => value >> 32,
        }
    }

    /// Write `GICD_IROUTER<n>`. Interrupt_Routing_Mode is RAZ/WI: `GICD_TYPER.No1N` is set.
    #[inline(never)]
    pub(crate) fn write_router(
        &mut self,
        intid: IntId,
        offset: u64,
        width: Width,
        value: u64,
        hw: &mut impl Physical,
    ) -> Kicks {
        let before = self.read_router(intid, 0, Width::Double);
        let whole = match (width, offset & 4) {
            (Width::Double, _) => value,
            (_, 0) => before & 0xffff_ffff_0000_0000 | value & 0xffff_ffff,
            _ => before & 0xffff_ffff | value << 32,
        };
        let Some(spi) = self.shared.spi_mut(intid) else { return Kicks::NONE };
        spi.route = Affinity::from_mpidr(whole);
        self.reroute(intid, hw)
    }

    /// The vCPU that an SPI's registers route it to, or [`NOBODY`]. Of a GICv2 SPI's targets, which are to share
    /// it, the first takes all.
    pub(crate) fn routed_to(&self, intid: IntId) -> u8 {
        let Some(spi) = self.shared.spi(intid) else { return NOBODY };
        match self.shared.model {
            Model::V2 if self.vcpus.len() == 1 => 0,
            Model::V2 if spi.targets == 0 => NOBODY,
            Model::V2 => spi.targets.trailing_zeros() as u8,
            Model::V3 => self
                .vcpus
                .iter()
                .position(|vcpu| vcpu.affinity == spi.route)
                .map_or(NOBODY, |index| index as u8),
        }
    }

    /// An SPI's routing register was written.
    fn reroute(&mut self, intid: IntId, hw: &mut impl Physical) -> Kicks {
        let target = self.routed_to(intid);
        if self.shared.spi(intid).is_none_or(|spi| spi.target == target) {
            return Kicks::NONE;
        }
        let kicks = self.set_target(intid, target);
        let place = Place::of(VcpuId(0), intid);
        let mapped = self.bank(place).is_some_and(|bank| bank.mapped & intid.bit() != 0);
        if mapped
            && target != NOBODY
            && let Some(line) = self.line(place, intid.bit().trailing_zeros())
        {
            hw.set_target(line);
        }
        kicks
    }

    /// `vcpu` is on another physical CPU from now on: the mapped SPIs that go to it follow it there.
    pub fn follow(&self, vcpu: VcpuId, hw: &mut impl Physical) {
        let Some(state) = self.vcpus.get(vcpu.index()) else { return };
        for (index, bank) in self.shared.banks.iter().enumerate() {
            let word = index.wrapping_add(1);
            for n in Bits(bank.mapped & state.word(&state.targets, word)) {
                if let Some(line) = self.line(Place { vcpu, word }, n) {
                    hw.set_target(line);
                }
            }
        }
    }

    /// Route an SPI to `target`. Where it is pending in a list register, it is taken out of there.
    pub(crate) fn set_target(&mut self, intid: IntId, target: u8) -> Kicks {
        let (word, mask) = (intid.word(), intid.bit());
        let Some(spi) = self.shared.spi_mut(intid) else { return Kicks::NONE };
        let before = core::mem::replace(&mut spi.target, target);
        let old = self.vcpus.get_mut(usize::from(before)).and_then(|vcpu| vcpu.targets.get_mut(word));
        if let Some(word) = old {
            *word &= !mask;
        }
        let new = self.vcpus.get_mut(usize::from(target)).and_then(|vcpu| vcpu.targets.get_mut(word));
        if let Some(word) = new {
            *word |= mask;
        }
        self.touch(Place::of(VcpuId(0), intid), mask)
    }
}
