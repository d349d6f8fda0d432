//! A machine to try the vGIC on: physical CPUs with a virtual CPU interface that does what the architecture says
//! a guest's acknowledge, end of interrupt and deactivation do to list registers, and a physical distributor.
//! vCPU n is pinned to physical CPU n.
#![allow(dead_code)]

pub mod ready;

use std::collections::BTreeMap;
use vgic::*;

/// One physical CPU's virtual CPU interface.
pub struct Interface {
    pub lrs: Vec<ListRegister>,
    pub reasons: Maintenance,
    pub eoi_count: u32,
    pub vmcr: CpuInterface,
    /// Priorities of what was acknowledged and not yet dropped.
    pub running: Vec<u8>,
    /// Reads and writes of list registers, and other device accesses, so far.
    pub accesses: usize,
}

/// A line of the physical distributor.
#[derive(Clone, Copy, Default, Debug)]
pub struct Physical {
    pub enabled: bool,
    pub active: bool,
    pub latch: bool,
    pub line: bool,
    pub edge: bool,
    /// How often it was sent somewhere, and the vCPU to whose CPU it was sent last.
    pub sent: (usize, u8),
}

impl Physical {
    pub fn pending(&self) -> bool {
        self.latch || self.line && !self.edge
    }
}

/// The physical distributor: private lines by CPU, SPIs under CPU 0.
pub type Distributor = BTreeMap<(u8, u16), Physical>;

pub struct Hw<'a> {
    pub cpu: &'a mut Interface,
    pub dist: &'a mut Distributor,
}

impl Hw<'_> {
    fn line(&mut self, line: Line) -> &mut Physical {
        let cpu = if line.virt.is_private() { line.vcpu.0 } else { 0 };
        self.dist.get_mut(&(cpu, line.physical.0)).expect("not a mapped line")
    }
}

impl vgic::Physical for Hw<'_> {
    fn set_enabled(&mut self, line: Line, enabled: bool) {
        self.line(line).enabled = enabled;
    }
    fn set_active(&mut self, line: Line, active: bool) {
        self.line(line).active = active;
    }
    fn set_pending(&mut self, line: Line, pending: bool) {
        self.line(line).latch = pending;
    }
    fn is_pending(&mut self, line: Line) -> bool {
        self.line(line).pending()
    }
    fn set_edge(&mut self, line: Line, edge: bool) {
        self.line(line).edge = edge;
    }
    fn set_target(&mut self, line: Line) {
        let vcpu = line.vcpu.0;
        let (times, to) = &mut self.line(line).sent;
        (*times, *to) = (*times + 1, vcpu);
    }
}

impl ListRegisters for Hw<'_> {
    fn count(&self) -> usize {
        self.cpu.lrs.len()
    }
    fn read(&mut self, n: usize) -> ListRegister {
        self.cpu.accesses += 1;
        self.cpu.lrs[n]
    }
    fn write(&mut self, n: usize, value: ListRegister) {
        self.cpu.accesses += 1;
        let both = value.pending() && value.active();
        assert!(value.hw().is_none() || !(both || value.eoi()), "{value:?}");
        assert_eq!(value.priority() & 7, 0);
        if value.pending() || value.active() {
            let twice = self
                .cpu
                .lrs
                .iter()
                .enumerate()
                .any(|(i, lr)| i != n && (lr.pending() || lr.active()) && lr.intid() == value.intid());
            assert!(!twice, "interrupt {:?} in two list registers", value.intid());
        }
        self.cpu.lrs[n] = value;
    }
    fn empty(&mut self) -> u32 {
        self.cpu.accesses += 1;
        self.cpu.mask(|lr| !lr.pending() && !lr.active() && !lr.eoi())
    }
    fn ended(&mut self) -> u32 {
        self.cpu.accesses += 1;
        self.cpu.mask(|lr| !lr.pending() && !lr.active() && lr.eoi())
    }
    fn take_eoi_count(&mut self) -> u32 {
        self.cpu.accesses += 1;
        std::mem::take(&mut self.cpu.eoi_count)
    }
    fn set_maintenance(&mut self, reasons: Maintenance) {
        self.cpu.accesses += 1;
        self.cpu.reasons = reasons;
    }
    fn interface(&mut self) -> CpuInterface {
        self.cpu.accesses += 1;
        self.cpu.vmcr
    }
}

impl Interface {
    pub fn new(lrs: usize) -> Interface {
        Interface {
            lrs: vec![ListRegister::EMPTY; lrs],
            reasons: Maintenance::NONE,
            eoi_count: 0,
            vmcr: CpuInterface { pmr: 0xff, group0: true, group1: true },
            running: Vec::new(),
            accesses: 0,
        }
    }

    fn mask(&self, f: impl Fn(&ListRegister) -> bool) -> u32 {
        self.lrs.iter().enumerate().map(|(n, lr)| u32::from(f(lr)) << n).sum()
    }

    /// What the maintenance interrupt's line says.
    pub fn maintenance(&self) -> bool {
        let on = |reason| self.reasons.contains(reason);
        self.mask(|lr| !lr.pending() && !lr.active() && lr.eoi()) != 0
            || on(Maintenance::NONE_PENDING) && self.mask(|lr| lr.pending() && !lr.active()) == 0
            || on(Maintenance::EOI_COUNT) && self.eoi_count != 0
            || on(Maintenance::GROUP0_ENABLED) && self.vmcr.group0
            || on(Maintenance::GROUP0_DISABLED) && !self.vmcr.group0
            || on(Maintenance::GROUP1_ENABLED) && self.vmcr.group1
            || on(Maintenance::GROUP1_DISABLED) && !self.vmcr.group1
    }

    /// True where the interface lets an interrupt of this priority and group through.
    pub fn passes(&self, priority: u8, group1: bool) -> bool {
        let enabled = if group1 { self.vmcr.group1 } else { self.vmcr.group0 };
        enabled && priority < self.vmcr.pmr && self.running.last().is_none_or(|&running| priority < running)
    }

    /// The guest reads IAR: the interrupt and, for a GICv2 SGI, its source.
    pub fn acknowledge(&mut self) -> Option<(IntId, u8)> {
        let best = (0..self.lrs.len())
            .filter(|&n| {
                let lr = self.lrs[n];
                lr.pending() && !lr.active() && self.passes(lr.priority(), lr.group1())
            })
            .min_by_key(|&n| self.lrs[n].priority())?;
        let lr = &mut self.lrs[best];
        *lr = lr.with_state(false, true);
        let (intid, source, priority) = (lr.intid(), lr.source(), lr.priority());
        self.running.push(priority);
        Some((intid, source))
    }

    /// The guest drops the running priority: the first half of EOIR.
    pub fn drop_priority(&mut self) {
        self.running.pop();
    }

    /// The guest deactivates an interrupt: the second half of EOIR, or DIR. Returns the physical interrupt that
    /// is deactivated with it.
    pub fn deactivate(&mut self, intid: IntId, source: u8) -> Option<PhysicalIntId> {
        let found =
            self.lrs.iter_mut().find(|lr| lr.active() && lr.intid() == intid && lr.source() == source);
        let Some(lr) = found else {
            self.eoi_count += 1;
            return None;
        };
        *lr = lr.with_state(lr.pending(), false);
        lr.hw()
    }
}

pub struct Machine {
    pub vgic: Vgic,
    pub cpus: Vec<Interface>,
    pub dist: Distributor,
    pub kicks: Kicks,
    pub loaded: Vec<bool>,
    /// Guest's view of mapped lines: physical private interrupt (CPU, number) to the VM's.
    pub mapped: BTreeMap<u16, IntId>,
}

impl Machine {
    /// `mapped` lists interrupts that are mapped to physical ones, and which are edge-triggered.
    pub fn new(model: Model, vcpus: usize, lrs: usize, mapped: &[(u16, u16, bool)]) -> Machine {
        let affinities: Vec<_> = (0..vcpus as u32).map(|n| Affinity(n / 2 * 0x100 + n % 2)).collect();
        let mut vgic = Vgic::new(&Config { model, affinities: &affinities, spis: 64 }).unwrap();
        let mut dist = Distributor::new();
        let mut names = BTreeMap::new();
        for &(virt, physical, edge) in mapped {
            vgic.map_line(IntId(virt), PhysicalIntId(physical)).unwrap();
            names.insert(physical, IntId(virt));
            for cpu in 0..if virt < 32 { vcpus as u8 } else { 1 } {
                dist.insert((cpu, physical), Physical { edge, ..Physical::default() });
            }
        }
        let cpus = (0..vcpus).map(|_| Interface::new(lrs)).collect();
        let mut machine =
            Machine { vgic, cpus, dist, kicks: Kicks::NONE, loaded: vec![false; vcpus], mapped: names };
        for vcpu in 0..vcpus {
            machine.load(vcpu);
        }
        machine
    }

    /// A private interrupt of a vCPU, which isn't loaded, is driven by this level-sensitive SPI from now on.
    pub fn map_private(&mut self, vcpu: usize, virt: u16, physical: u16) {
        self.vgic.map_private_line(VcpuId(vcpu as u8), IntId(virt), PhysicalIntId(physical));
        self.mapped.insert(physical, IntId(virt));
        self.dist.insert((vcpu as u8, physical), Physical::default());
    }

    pub fn load(&mut self, vcpu: usize) {
        self.loaded[vcpu] = true;
        self.with(vcpu, |vgic, id, hw| vgic.load(id, hw));
    }

    pub fn save(&mut self, vcpu: usize) {
        self.with(vcpu, |vgic, id, hw| vgic.save(id, hw));
        self.loaded[vcpu] = false;
        let cpu = &self.cpus[vcpu];
        assert!(cpu.lrs.iter().all(|lr| !lr.pending() && !lr.active()), "list registers left in use");
        assert!(!cpu.maintenance());
        for ((_, number), line) in self.dist.iter().filter(|((cpu, _), _)| usize::from(*cpu) == vcpu) {
            assert!(*number >= 32 || !(line.active || line.enabled), "private line left to the next vCPU");
        }
    }

    /// A call of the vGIC on the physical CPU of `vcpu`.
    pub fn with(&mut self, vcpu: usize, f: impl FnOnce(&mut Vgic, VcpuId, &mut Hw) -> Kicks) {
        let mut hw = Hw { cpu: &mut self.cpus[vcpu], dist: &mut self.dist };
        self.kicks |= f(&mut self.vgic, VcpuId(vcpu as u8), &mut hw);
    }

    pub fn sync(&mut self, vcpu: usize) {
        self.kicks = self.kicks.without(VcpuId(vcpu as u8));
        self.with(vcpu, |vgic, id, hw| vgic.sync(id, hw));
    }

    pub fn write(&mut self, vcpu: usize, offset: u64, width: Width, value: u64) {
        self.with(vcpu, |vgic, id, hw| vgic.distributor_write(id, offset, width, value, hw));
    }

    pub fn read(&mut self, vcpu: usize, offset: u64, width: Width) -> u64 {
        let peeked = if width == Width::Word { self.vgic.peek_distributor(offset) } else { None };
        let value = self.read_with(vcpu, |vgic, id, hw| vgic.distributor_read(id, offset, width, hw));
        assert!(
            peeked.is_none_or(|peeked| u64::from(peeked) == value),
            "{offset:#x}: {peeked:x?}, not {value:#x}"
        );
        value
    }

    /// A loaded vCPU writes an SGI register.
    pub fn send_sgi_v3(&mut self, from: usize, value: u64, register: SgiRegister) {
        assert!(self.loaded[from]);
        self.with(from, |vgic, id, hw| {
            match register == SgiRegister::Sgi1r && vgic.send_again_v3(id, value, hw) {
                true => Kicks::NONE,
                false => vgic.send_sgi_v3(id, value, register),
            }
        });
    }

    pub fn write_private(&mut self, frame: usize, vcpu: usize, offset: u64, width: Width, value: u64) {
        let frame = VcpuId(frame as u8);
        self.with(vcpu, |vgic, id, hw| vgic.redistributor_write(frame, id, offset, width, value, hw));
    }

    pub fn read_private(&mut self, frame: usize, vcpu: usize, offset: u64, width: Width) -> u64 {
        let frame = VcpuId(frame as u8);
        self.read_with(vcpu, |vgic, id, hw| vgic.redistributor_read(frame, id, offset, width, hw))
    }

    fn read_with(&mut self, vcpu: usize, f: impl Fn(&mut Vgic, VcpuId, &mut Hw) -> Read) -> u64 {
        for _ in 0..3 {
            let mut hw = Hw { cpu: &mut self.cpus[vcpu], dist: &mut self.dist };
            let read = f(&mut self.vgic, VcpuId(vcpu as u8), &mut hw);
            self.kicks |= read.kicks;
            if let Some(value) = read.value {
                return value;
            }
            assert!(
                !read.kicks.without(VcpuId(vcpu as u8)).is_empty(),
                "told to ask again, but nobody kicked"
            );
            self.settle();
        }
        panic!("told to read again for ever");
    }

    /// Let everything that is due happen, apart from guests' own actions.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            if !self.step() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn step(&mut self) -> bool {
        let mut busy = false;
        for id in self.kicks {
            let vcpu = usize::from(id.0);
            self.kicks = self.kicks.without(id);
            if self.loaded[vcpu] {
                self.sync(vcpu);
                busy = true;
            }
        }
        for vcpu in 0..self.cpus.len() {
            if self.loaded[vcpu] && self.cpus[vcpu].maintenance() {
                self.with(vcpu, |vgic, id, hw| vgic.maintenance(id, hw));
                busy = true;
            }
        }
        busy | self.take_physical()
    }

    /// EL2 acknowledges physical interrupts.
    fn take_physical(&mut self) -> bool {
        let due: Vec<_> =
            self.dist.iter().filter(|(_, line)| line.enabled && line.pending() && !line.active).collect();
        let due: Vec<_> = due.into_iter().map(|(key, _)| *key).collect();
        for key in &due {
            let line = self.dist.get_mut(key).unwrap();
            line.active = true;
            line.latch = false;
            let intid = self.mapped[&key.1];
            // A shared one is taken where it was sent.
            let cpu = if intid.is_private() { key.0 } else { line.sent.1 };
            self.with(usize::from(cpu), |vgic, id, hw| {
                let is_done = vgic.inject_again(id, intid, hw) || vgic.inject_shared_again(id, intid, hw);
                if is_done { Kicks::NONE } else { vgic.inject_mapped(id, intid, hw) }
            });
        }
        !due.is_empty()
    }

    /// A physical line goes up or down.
    pub fn set_physical(&mut self, cpu: usize, number: u16, level: bool) {
        let line = self.dist.get_mut(&(cpu as u8, number)).unwrap();
        if level && !line.line && line.edge {
            line.latch = true;
        }
        line.line = level;
    }

    pub fn acknowledge(&mut self, vcpu: usize) -> Option<(IntId, u8)> {
        self.cpus[vcpu].acknowledge()
    }

    pub fn deactivate(&mut self, vcpu: usize, intid: IntId, source: u8) {
        if self.cpus[vcpu].reasons.contains(Maintenance::TRAP_DIR) && self.vgic.model() == Model::V3 {
            self.with(vcpu, |vgic, id, hw| vgic.write_dir(id, u64::from(intid.0), hw));
            return;
        }
        self.end(vcpu, intid, source);
    }

    /// The deactivating half of EOIR, which never traps.
    pub fn end(&mut self, vcpu: usize, intid: IntId, source: u8) {
        if let Some(physical) = self.cpus[vcpu].deactivate(intid, source) {
            let cpu = if intid.is_private() { vcpu as u8 } else { 0 };
            self.dist.get_mut(&(cpu, physical.0)).unwrap().active = false;
        }
    }
}
