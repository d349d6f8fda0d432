//! Building a virtual interrupt controller, and bringing it back to its state at power-up.

use crate::bank::Bank;
use crate::ids::{Affinity, IntId, PhysicalIntId, VcpuId};
use crate::state::{MAX_LIST_REGISTERS, NOBODY, Place, Shared, Spi, Vcpu, Vgic, WORDS};
use crate::{BuildError, Config, ListRegister, Maintenance, MapError, Model, Physical};
use alloc::vec::Vec;

/// SGIs are edge-triggered, always.
pub(crate) const SGIS: u32 = 0x0000_ffff;

impl Bank {
    /// At power-up all is disabled, inactive and of group 0, and level-sensitive but for SGIs, which are
    /// `edge`. What is wired stays wired: lines keep their level, and mapped ones their mapping.
    fn at_reset(self, edge: u32) -> Bank {
        Bank { edge, line: self.line, mapped: self.mapped, valid: self.valid, ..Bank::default() }
    }
}

impl Vcpu {
    fn new(affinity: Affinity) -> Vcpu {
        let mut first = [0; WORDS];
        if let Some(word) = first.first_mut() {
            *word = !0;
        }
        Vcpu {
            affinity,
            sgi_to_itself: affinity.to_sgi1r(),
            bank: Bank { valid: !0, ..Bank::default() }.at_reset(SGIS),
            waiting: 0,
            again: 0,
            spilled: 0,
            attention: 0,
            running: false,
            used: 0,
            eoi: 0,
            pure: 0,
            set_active: 0,
            clear_active: 0,
            slots: [ListRegister::EMPTY; MAX_LIST_REGISTERS],
            private_slots: [0; 32],
            physical: [PhysicalIntId(0); 32],
            maintenance: Maintenance::NONE,
            targets: first,
            held: first,
            sgi_sources: [0; 16],
            sgi_active: [0; 16],
            asked_by: 0,
            presented: 0,
            fresh: 0,
            asleep: true,
        }
    }

    fn map(&mut self, virt: IntId, physical: PhysicalIntId) {
        if let Some(place) = self.physical.get_mut(usize::from(virt.0)) {
            *place = physical;
            self.bank.mapped |= virt.bit();
        }
    }
}

/// GICD_TYPER. GICv2: number of CPUs. GICv3: ten bits of interrupt number, Aff3 valid (A3V), no 1-of-N (No1N), and the
/// range selector (RSS) where some vCPU's Aff0 needs it.
fn typer(config: &Config) -> u32 {
    let lines = u32::from(config.spis.div_ceil(32));
    match config.model {
        Model::V2 => lines | (config.affinities.len() as u32).wrapping_sub(1) << 5,
        Model::V3 => {
            let wide = config.affinities.iter().any(|affinity| affinity.0 & 0xf0 != 0);
            lines | 9 << 19 | 1 << 24 | 1 << 25 | u32::from(wide) << 26
        }
    }
}

/// Whether vCPU 16i + n has Aff1 = i and Aff0 = n, and no other field.
fn are_numbered(affinities: &[Affinity]) -> bool {
    affinities.iter().zip(0..).all(|(affinity, n)| affinity.0 == n & 0xf | n >> 4 << 8)
}

impl Vgic {
    /// A controller as after power-up, with no line mapped and no vCPU loaded. Nothing is allocated later.
    pub fn new(config: &Config) -> Result<Vgic, BuildError> {
        let most = match config.model {
            Model::V2 => 8,
            Model::V3 => 64,
        };
        let count = config.affinities.len();
        if count == 0 || count > most {
            return Err(BuildError::Vcpus { count, most });
        }
        let spis = config.spis;
        if spis > Config::MAX_SPIS || !spis.is_multiple_of(32) && spis != Config::MAX_SPIS {
            return Err(BuildError::Spis(spis));
        }
        if config.model == Model::V3 {
            let same = config
                .affinities
                .iter()
                .enumerate()
                .find(|(i, affinity)| config.affinities.iter().take(*i).any(|other| other == *affinity));
            if let Some((_, affinity)) = same {
                return Err(BuildError::SameAffinity(*affinity));
            }
        }
        let mut banks = Vec::new();
        banks.resize(usize::from(spis.div_ceil(32)), Bank { valid: !0, ..Bank::default() });
        if spis == Config::MAX_SPIS
            && let Some(last) = banks.last_mut()
        {
            // 1020 to 1023 are special numbers.
            last.valid = 0x0fff_ffff;
        }
        let unrouted = Spi {
            target: NOBODY,
            holder: NOBODY,
            targets: 0,
            route: Affinity(0),
            physical: PhysicalIntId(0),
        };
        let mut routes = Vec::new();
        routes.resize(usize::from(spis), unrouted);
        let mut vgic = Vgic {
            shared: Shared {
                model: config.model,
                groups: [0, 0],
                banks: banks.into_boxed_slice(),
                spis: routes.into_boxed_slice(),
                typer: typer(config),
                numbered: config.model == Model::V3 && are_numbered(config.affinities),
            },
            vcpus: config.affinities.iter().map(|&affinity| Vcpu::new(affinity)).collect(),
        };
        vgic.reset_routes();
        Ok(vgic)
    }

    /// Map an interrupt to a physical one, which this VM owns from now on: a PPI of every vCPU to the PPI of the
    /// physical CPU where it is loaded, or an SPI to an SPI. The physical interrupt must be disabled and
    /// inactive; it is enabled when the guest enables it. To be called before a vCPU is loaded.
    pub fn map_line(&mut self, virt: IntId, physical: PhysicalIntId) -> Result<(), MapError> {
        let right_kind = if virt.is_private() { 16..32 } else { 32..1020 };
        let (place, mask) = (Place::of(VcpuId(0), virt), virt.bit());
        let Some(bank) = self.bank(place).filter(|bank| bank.valid & mask != 0 && !virt.is_sgi()) else {
            return Err(MapError::NoSuchLine(virt));
        };
        if bank.mapped & mask != 0 {
            return Err(MapError::Taken(virt));
        }
        if !right_kind.contains(&physical.0) {
            return Err(MapError::BadPhysical { virt, physical });
        }
        if virt.is_private() {
            self.vcpus.iter_mut().for_each(|vcpu| vcpu.map(virt, physical));
        } else if let Some(spi) = self.shared.spi_mut(virt) {
            spi.physical = physical;
            if let Some(bank) = self.bank_mut(place) {
                bank.mapped |= mask;
            }
        }
        Ok(())
    }

    /// Map a private interrupt of one vCPU to what drives it on the physical CPU where that is loaded next: for what is a PPI on
    /// most boards, others have an SPI for each CPU. As [`Vgic::map_line`] else, but to be called again whenever
    /// the vCPU goes to another CPU. Nothing happens while it is loaded, or where one of the two isn't a line.
    pub fn map_private_line(&mut self, vcpu: VcpuId, virt: IntId, physical: PhysicalIntId) {
        let are_lines = virt.is_private() && !virt.is_sgi() && (16..1020).contains(&physical.0);
        let state = self.vcpus.get_mut(vcpu.index()).filter(|state| are_lines && !state.running);
        if let Some(state) = state {
            state.map(virt, physical);
        }
    }

    /// How many vCPUs there are.
    pub fn vcpus(&self) -> u8 {
        self.vcpus.len() as u8
    }

    /// The architecture version that the guest sees.
    pub fn model(&self) -> Model {
        self.shared.model
    }

    /// Bring one vCPU's SGIs, PPIs and (GICv3) redistributor to their state at power-up, for PSCI `CPU_ON`: a
    /// CPU that was powered down has lost them. SPIs are the distributor's and stay as they are, one that was
    /// active on this vCPU included. Levels of lines stay. Does nothing while the vCPU is loaded.
    pub fn reset_vcpu(&mut self, vcpu: VcpuId) {
        let Some(state) = self.vcpus.get_mut(vcpu.index()).filter(|state| !state.running) else { return };
        state.bank = state.bank.at_reset(SGIS);
        state.sgi_sources = [0; 16];
        state.sgi_active = [0; 16];
        state.asked_by = 0;
        state.fresh = 0;
        state.asleep = true;
    }

    /// Bring the whole controller to its state at power-up, for a restart of the VM. Mapped SPIs are disabled
    /// and made inactive in the physical distributor, and an edge that waits there is forgotten; mapped private lines
    /// were disabled and made inactive when their vCPUs were saved. Levels of lines stay: the devices behind them say
    /// when they change. Does nothing while any vCPU is loaded.
    pub fn reset(&mut self, physical: &mut impl Physical) {
        if self.vcpus.iter().any(|vcpu| vcpu.running) {
            return;
        }
        self.release_spis(physical);
        self.shared.groups = [0, 0];
        for bank in &mut self.shared.banks {
            *bank = bank.at_reset(0);
        }
        for vcpu in &mut self.vcpus {
            let (bank, physical) = (vcpu.bank.at_reset(SGIS), vcpu.physical);
            *vcpu = Vcpu { bank, physical, ..Vcpu::new(vcpu.affinity) };
        }
        self.reset_routes();
    }

    /// Disable every mapped SPI in the physical distributor and make it inactive and, but for its line, not pending.
    fn release_spis(&self, physical: &mut impl Physical) {
        for (index, bank) in self.shared.banks.iter().enumerate() {
            let place = Place { vcpu: VcpuId(0), word: index.wrapping_add(1) };
            for n in crate::bank::Bits(bank.mapped) {
                let Some(line) = self.line(place, n) else { continue };
                physical.set_enabled(line, false);
                physical.set_pending(line, false);
                if (bank.latch | bank.taken | bank.active) & 1u32.wrapping_shl(n) != 0 {
                    physical.set_active(line, false);
                }
            }
        }
    }

    /// SPIs after power-up: affinity 0.0.0.0 on GICv3, and on GICv2 nowhere, but with one CPU, which has no
    /// `ITARGETSR`, there.
    fn reset_routes(&mut self) {
        for spi in &mut self.shared.spis {
            spi.targets = 0;
            spi.route = Affinity(0);
        }
        // They are all routed alike, so this needs no look at each one, of which there may be a thousand.
        let target = self.routed_to(IntId::spi(0));
        for spi in &mut self.shared.spis {
            spi.target = target;
        }
        for (index, vcpu) in self.vcpus.iter_mut().enumerate() {
            let all = index == usize::from(target);
            for (word, bank) in vcpu.targets.iter_mut().skip(1).zip(&self.shared.banks) {
                *word = if all { bank.valid } else { 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(model: Model, vcpus: usize, spis: u16) -> Result<Vgic, BuildError> {
        let affinities: Vec<_> = (0..vcpus as u32).map(Affinity).collect();
        Vgic::new(&Config { model, affinities: &affinities, spis })
    }

    #[test]
    fn shapes_that_cannot_be() {
        assert!(config(Model::V2, 8, 256).is_ok());
        assert_eq!(config(Model::V2, 9, 256).err(), Some(BuildError::Vcpus { count: 9, most: 8 }));
        assert_eq!(config(Model::V3, 0, 256).err(), Some(BuildError::Vcpus { count: 0, most: 64 }));
        assert!(config(Model::V3, 64, 988).is_ok());
        assert!(config(Model::V3, 1, 0).is_ok());
        assert_eq!(config(Model::V3, 1, 40).err(), Some(BuildError::Spis(40)));
        assert_eq!(config(Model::V3, 1, 992).err(), Some(BuildError::Spis(992)));
        let same =
            Config { model: Model::V3, affinities: &[Affinity(1), Affinity(2), Affinity(1)], spis: 32 };
        assert_eq!(Vgic::new(&same).err(), Some(BuildError::SameAffinity(Affinity(1))));
    }

    #[test]
    fn lines_that_cannot_be_mapped() {
        let mut vgic = config(Model::V3, 2, 64).unwrap();
        let mut map = |virt, physical| vgic.map_line(IntId(virt), PhysicalIntId(physical));
        assert_eq!(map(27, 27), Ok(()));
        assert_eq!(map(27, 28), Err(MapError::Taken(IntId(27))));
        assert_eq!(map(5, 27), Err(MapError::NoSuchLine(IntId(5))));
        assert_eq!(map(96, 96), Err(MapError::NoSuchLine(IntId(96))));
        let bad = |virt, physical| {
            Err(MapError::BadPhysical { virt: IntId(virt), physical: PhysicalIntId(physical) })
        };
        assert_eq!(map(95, 27), bad(95, 27));
        assert_eq!(map(30, 33), bad(30, 33));
        assert_eq!(map(30, 3), bad(30, 3));
        assert_eq!(map(95, 1020), bad(95, 1020));
    }
}
