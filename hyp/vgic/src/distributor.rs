//! The distributor's registers (`GICD`) and the redistributors' (`GICR`).

use crate::Hardware;
use crate::Model;
use crate::access::Read;
use crate::bounds;
use crate::ids::{IntId, Kicks, VcpuId, Width};
use crate::registers::{Access, Class, IIDR, identification};
use crate::state::{Place, RECHECK, Vgic};

/// GICD_CTLR, GICv3: affinity routing is on and there is one security state, and neither can be changed.
const CTLR_ARE_DS: u32 = 1 << 4 | 1 << 6;
/// GICD_CTLR.RWP.
const CTLR_RWP: u32 = 1 << 31;
/// GICR_CTLR.RWP.
const GICR_CTLR_RWP: u32 = 1 << 3;
/// GICR_TYPER.Last.
const TYPER_LAST: u64 = 1 << 4;
/// GICR_WAKER.ProcessorSleep and ChildrenAsleep.
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// Offset of a redistributor's SGI_base frame.
const SGI_BASE: u64 = 0x1_0000;

impl Vgic {
    /// Bytes that the distributor takes in the guest's memory map.
    pub fn distributor_size(&self) -> u64 {
        match self.shared.model {
            Model::V2 => 0x1000,
            Model::V3 => 0x1_0000,
        }
    }

    /// `vcpu` reads the distributor at `offset`.
    pub fn distributor_read(
        &mut self,
        vcpu: VcpuId,
        offset: u64,
        width: Width,
        hw: &mut impl Hardware,
    ) -> Read {
        let v3 = self.shared.model == Model::V3;
        let Some(access) = Access::decode(offset, width) else {
            return Read::of(if v3 { self.read_upper(offset, width) } else { 0 });
        };
        let value = match access.class {
            Class::Control => self.read_control(vcpu, offset),
            Class::Targets if !v3 => match self.existing(access) {
                Some(access) => self.read_targets(vcpu, access.first_of_four()),
                None => 0,
            },
            Class::Sgi if !v3 => self.read_sgi_frame(vcpu, access),
            Class::Identification if !v3 => identification(offset, 2),
            Class::Reserved | Class::Targets | Class::Sgi | Class::Identification => 0,
            _ => match self.existing(access).map(|access| (access, access.place(vcpu))) {
                None => 0,
                // With affinity routing SGIs and PPIs are the redistributors'.
                Some((_, Place { word: 0, .. })) if v3 => 0,
                Some((access, place)) => return self.read_word(place, access, vcpu, hw),
            },
        };
        Read::of(access.of_value(value))
    }

    /// What [`distributor_read`](Self::distributor_read) gives for a word, of registers that are there as they are; `None` for the others.
    #[inline(always)]
    pub fn peek_distributor(&self, offset: u64) -> Option<u32> {
        let access = Access::decode(offset, Width::Word)?;
        Some(match access.class {
            Class::Control if access.index == 1 => self.shared.typer,
            Class::SetEnable | Class::ClearEnable => {
                self.shared.banks.get(access.index.checked_sub(1)?)?.enabled
            }
            _ => return None,
        })
    }

    /// `vcpu` writes the distributor at `offset`.
    pub fn distributor_write(
        &mut self,
        vcpu: VcpuId,
        offset: u64,
        width: Width,
        value: u64,
        hw: &mut impl Hardware,
    ) -> Kicks {
        let v3 = self.shared.model == Model::V3;
        let Some(access) = Access::decode(offset, width) else {
            return match self.router_of(offset, width) {
                Some(intid) if v3 => self.write_router(intid, offset, width, value, hw),
                _ => Kicks::NONE,
            };
        };
        let value = access.to_value(value);
        match access.class {
            Class::Control if offset == 0 => self.write_control(value),
            Class::Targets if !v3 => match self.existing(access) {
                Some(access) => self.write_targets(access.first_of_four(), value, access.mask, hw),
                None => Kicks::NONE,
            },
            Class::Sgi if !v3 => self.write_sgi_frame(vcpu, access, value),
            Class::Control | Class::Reserved | Class::Targets | Class::Sgi | Class::Identification => {
                Kicks::NONE
            }
            _ => match self.existing(access).map(|access| (access, access.place(vcpu))) {
                None => Kicks::NONE,
                Some((_, Place { word: 0, .. })) if v3 => Kicks::NONE,
                Some((access, place)) => self.write_word(place, access, value, vcpu, hw),
            },
        }
    }

    /// An access to a register of interrupts, where there are these. The register's number, which the guest has
    /// chosen, leads to interrupts' states, and these to vCPUs: it is in bounds whatever the CPU guesses.
    #[inline(never)]
    fn existing(&self, access: Access) -> Option<Access> {
        let words = self.shared.banks.len().wrapping_add(1);
        let registers = match access.class {
            Class::Priority | Class::Targets => words << 3,
            Class::Config => words << 1,
            _ => words,
        };
        Some(Access { index: bounds::index(access.index, registers)?, ..access })
    }

    /// The SPI whose `GICD_IROUTER<n>` is at `offset`.
    fn router_of(&self, offset: u64, width: Width) -> Option<IntId> {
        let aligned = match width {
            Width::Double => offset & 7 == 0,
            Width::Word => offset & 3 == 0,
            Width::Byte | Width::Half => false,
        };
        let spi = offset.checked_sub(0x6000 + 32 * 8)? >> 3;
        let spi = bounds::index(spi as usize, self.shared.spis.len())?;
        aligned.then_some(IntId::spi(spi as u16))
    }

    /// The vCPU whose redistributor the guest accesses, as for [`existing`](Self::existing).
    fn frame(&self, frame: VcpuId) -> Option<VcpuId> {
        bounds::index(frame.index(), self.vcpus.len()).map(|frame| VcpuId(frame as u8))
    }

    /// GICD_CTLR, GICD_TYPER, GICD_IIDR.
    fn read_control(&self, vcpu: VcpuId, offset: u64) -> u32 {
        match offset {
            0x0 => {
                let [group0, group1] = self.shared.groups;
                let enables = group0 & 1 | group1 & 2;
                match self.shared.model {
                    Model::V2 => enables,
                    Model::V3 => enables | CTLR_ARE_DS | self.write_pending(vcpu),
                }
            }
            0x4 => self.shared.typer,
            0x8 => IIDR,
            _ => 0,
        }
    }

    /// RWP: a write has yet to reach some other vCPU's list registers.
    fn write_pending(&self, vcpu: VcpuId) -> u32 {
        let pending = |(index, state): (usize, &crate::state::Vcpu)| {
            state.running && state.attention & RECHECK != 0 && index != vcpu.index()
        };
        if self.vcpus.iter().enumerate().any(pending) { CTLR_RWP } else { 0 }
    }

    /// GICD_CTLR: enables of the groups.
    fn write_control(&mut self, value: u32) -> Kicks {
        let groups = [(value & 1).wrapping_neg(), (value >> 1 & 1).wrapping_neg()];
        if groups == self.shared.groups {
            return Kicks::NONE;
        }
        self.shared.groups = groups;
        // The private word and those of SPIs, of which there are at most 31.
        let words = (!0u32).wrapping_shr(31u32.saturating_sub(self.shared.banks.len() as u32));
        let mut kicks = Kicks::NONE;
        for (index, state) in self.vcpus.iter_mut().enumerate() {
            state.waiting |= words;
            state.attention |= RECHECK;
            kicks |= Kicks(VcpuId(index as u8).mask());
        }
        kicks
    }

    /// GICv2: SGIR, CPENDSGIR, SPENDSGIR.
    fn read_sgi_frame(&self, vcpu: VcpuId, access: Access) -> u32 {
        match access.index {
            4..=11 => self.read_sources(vcpu, (access.index as u32 & 3) << 2),
            _ => 0,
        }
    }

    fn write_sgi_frame(&mut self, vcpu: VcpuId, access: Access, value: u32) -> Kicks {
        let first = (access.index as u32 & 3) << 2;
        match access.index {
            0 if access.mask == !0 => self.write_sgir(vcpu, value),
            4..=7 => self.clear_sources(vcpu, first, value),
            8..=11 => self.set_sources(vcpu, first, value),
            _ => Kicks::NONE,
        }
    }

    /// GICv3: IROUTER and identification, above 4 KiB.
    fn read_upper(&self, offset: u64, width: Width) -> u64 {
        if let Some(intid) = self.router_of(offset, width) {
            return self.read_router(intid, offset, width);
        }
        if width == Width::Word && (0xffd0..0x1_0000).contains(&offset) && offset & 3 == 0 {
            return u64::from(identification(offset, 3));
        }
        0
    }

    /// Bytes that one redistributor takes in the guest's memory map: RD_base and SGI_base. They lie one after the
    /// other in the order of the vCPUs.
    pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

    /// `vcpu` reads the redistributor of `frame` (not always its own) at `offset` within its two frames. GICv3.
    pub fn redistributor_read(
        &mut self,
        frame: VcpuId,
        vcpu: VcpuId,
        offset: u64,
        width: Width,
        hw: &mut impl Hardware,
    ) -> Read {
        let Some(frame) = self.frame(frame) else { return Read::of(0) };
        let Some(sgi_offset) = offset.checked_sub(SGI_BASE) else {
            return Read::of(self.read_rd_base(frame, vcpu, offset, width));
        };
        match private_register(sgi_offset, width) {
            Some(access) => self.read_word(Place { vcpu: frame, word: 0 }, access, vcpu, hw),
            None => Read::of(0),
        }
    }

    /// `vcpu` writes the redistributor of `frame` at `offset` within its two frames. GICv3.
    pub fn redistributor_write(
        &mut self,
        frame: VcpuId,
        vcpu: VcpuId,
        offset: u64,
        width: Width,
        value: u64,
        hw: &mut impl Hardware,
    ) -> Kicks {
        let Some(frame) = self.frame(frame) else { return Kicks::NONE };
        if offset == 0x14
            && width == Width::Word
            && let Some(state) = self.vcpus.get_mut(frame.index())
        {
            state.asleep = value as u32 & WAKER_PROCESSOR_SLEEP != 0;
        }
        let Some(sgi_offset) = offset.checked_sub(SGI_BASE) else { return Kicks::NONE };
        match private_register(sgi_offset, width) {
            Some(access) => {
                self.write_word(Place { vcpu: frame, word: 0 }, access, access.to_value(value), vcpu, hw)
            }
            None => Kicks::NONE,
        }
    }

    /// GICR_CTLR, IIDR, TYPER, WAKER, identification. Sleep is shown as it was asked for, but interrupts are
    /// delivered all the same: QEMU does so, and guests made for it don't all wake their redistributor.
    fn read_rd_base(&self, frame: VcpuId, vcpu: VcpuId, offset: u64, width: Width) -> u64 {
        let Some(state) = self.vcpus.get(frame.index()) else { return 0 };
        let last = frame.index().wrapping_add(1) == self.vcpus.len();
        let typer =
            u64::from(state.affinity.0) << 32 | u64::from(frame.0) << 8 | if last { TYPER_LAST } else { 0 };
        let value = match (offset, width) {
            (0x8, Width::Double) => return typer,
            (_, Width::Byte | Width::Half | Width::Double) => 0,
            (0x0, _) if state.running && state.attention & RECHECK != 0 && frame != vcpu => GICR_CTLR_RWP,
            (0x4, _) => IIDR,
            (0x8, _) => typer as u32,
            (0xc, _) => (typer >> 32) as u32,
            (0x14, _) if state.asleep => WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP,
            (0xffd0..0x1_0000, _) if offset & 3 == 0 => identification(offset, 3),
            _ => 0,
        };
        u64::from(value)
    }
}

impl Access {
    /// The word of interrupts that a register of one or two bits each is about, or one of bytes.
    fn place(self, vcpu: VcpuId) -> Place {
        let word = match self.class {
            Class::Priority | Class::Targets => self.index >> 3,
            Class::Config => self.index >> 1,
            _ => self.index,
        };
        Place { vcpu, word }
    }

    /// The first of the four interrupts that a register of bytes is about.
    fn first_of_four(self) -> u16 {
        (self.index as u16) << 2
    }
}

/// The register of SGIs and PPIs at `offset` of an SGI_base frame.
fn private_register(offset: u64, width: Width) -> Option<Access> {
    let access = Access::decode(offset, width)?;
    let registers = match access.class {
        Class::Priority => 8,
        Class::Config => 2,
        Class::Control | Class::Targets | Class::Sgi | Class::Identification | Class::Reserved => 0,
        _ => 1,
    };
    (access.index < registers).then_some(access)
}
