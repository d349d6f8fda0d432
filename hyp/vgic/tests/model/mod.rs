//! The architecture's state machine, interrupt by interrupt, with no list registers: what the guest should see.
#![allow(dead_code)]

use std::collections::BTreeMap;
use vgic::Model;

/// The state of one interrupt of one vCPU, or of one SPI.
#[derive(Clone, Debug, Default)]
pub struct Irq {
    pub enabled: bool,
    pub group1: bool,
    pub priority: u8,
    pub edge: bool,
    pub latch: bool,
    pub line: bool,
    /// The vCPU where it is active, and the source of a GICv2 SGI.
    pub active: Option<(usize, u8)>,
    /// GICv2 SGI: pending sources.
    pub sources: u8,
    /// Made pending again while it was: if the CPU that takes it hears late of the second time, it may take it
    /// twice. (For a GICv2 SGI, the sources.)
    pub again: u8,
    /// SPI: where it goes.
    pub target: Option<usize>,
}

impl Irq {
    pub fn pending(&self) -> bool {
        self.latch || self.line && !self.edge || self.sources != 0
    }

    /// Pending by an edge or by register write.
    pub fn latch(&mut self) {
        self.again |= u8::from(self.pending());
        self.latch = true;
    }

    /// Pending by a GICv2 SGI.
    pub fn send(&mut self, source: usize) {
        self.again |= self.sources & 1 << source;
        self.sources |= 1 << source;
    }

    pub fn set_line(&mut self, level: bool) {
        if level && !self.line && self.edge {
            self.latch();
        }
        self.line = level;
    }
}

/// An interrupt: private ones by vCPU, SPIs under vCPU 0.
pub type Key = (usize, u16);

pub struct Architecture {
    pub model: Model,
    pub irqs: BTreeMap<Key, Irq>,
    pub groups: [bool; 2],
    pub vcpus: usize,
}

impl Architecture {
    pub fn new(model: Model, vcpus: usize, spis: u16) -> Architecture {
        let mut irqs = BTreeMap::new();
        for vcpu in 0..vcpus {
            for intid in 0..32 {
                irqs.insert((vcpu, intid), Irq { edge: intid < 16, target: Some(vcpu), ..Irq::default() });
            }
        }
        let target = (model == Model::V3 || vcpus == 1).then_some(0);
        for intid in 32..32 + spis {
            irqs.insert((0, intid), Irq { target, ..Irq::default() });
        }
        Architecture { model, irqs, groups: [false; 2], vcpus }
    }

    pub fn key(&self, vcpu: usize, intid: u16) -> Key {
        (if intid < 32 { vcpu } else { 0 }, intid)
    }

    pub fn irq(&mut self, vcpu: usize, intid: u16) -> &mut Irq {
        let key = self.key(vcpu, intid);
        self.irqs.get_mut(&key).unwrap()
    }

    /// The distributor forwards it to `vcpu`.
    pub fn forwards(&self, key: Key, vcpu: usize) -> bool {
        let irq = &self.irqs[&key];
        irq.pending()
            && irq.enabled
            && irq.active.is_none()
            && self.groups[usize::from(irq.group1)]
            && irq.target == Some(vcpu)
    }

    /// The most important that the distributor forwards to `vcpu` and its CPU interface lets through.
    pub fn best(&self, vcpu: usize, passes: impl Fn(u8, bool) -> bool) -> Option<u8> {
        self.irqs
            .iter()
            .filter(|(key, irq)| self.forwards(**key, vcpu) && passes(irq.priority, irq.group1))
            .map(|(_, irq)| irq.priority)
            .min()
    }

    /// `vcpu` acknowledges an interrupt.
    pub fn acknowledge(&mut self, vcpu: usize, intid: u16, source: u8) {
        let banked = self.model == Model::V2 && intid < 16;
        let irq = self.irq(vcpu, intid);
        if banked {
            irq.sources &= !(1 << source);
        }
        irq.latch = false;
        irq.active = Some((vcpu, source));
    }

    /// How many interrupts are active on `vcpu`.
    pub fn active_on(&self, vcpu: usize) -> usize {
        self.irqs.values().filter(|irq| irq.active.is_some_and(|(holder, _)| holder == vcpu)).count()
    }

    /// A register of one bit per interrupt, as `vcpu` sees it of word `word`.
    pub fn word(&self, vcpu: usize, word: u16, bit: impl Fn(&Irq) -> bool) -> u32 {
        (0..32).fold(0, |value, n| {
            let key = self.key(vcpu, word * 32 + n);
            value | u32::from(self.irqs.get(&key).is_some_and(&bit)) << n
        })
    }
}
