//! A machine and the architecture's own state machine side by side: a guest, its devices and the scheduler do things to both,
//! and what the guest can see must be the same.

use proptest::prelude::*;
use vgic::*;

use crate::machine::Machine;
use crate::model::{self, Architecture};

const SGI_BASE: u64 = 0x1_0000;
const W: Width = Width::Word;
const SPIS: u16 = 64;

/// Lines that are mapped: number, physical number, edge-triggered.
const MAPPED: [(u16, u16, bool); 4] = [(27, 27, false), (30, 30, false), (40, 72, false), (41, 73, true)];

/// Interrupts that things are done to; all registers are compared.
pub const PPIS: [u16; 4] = [20, 21, 27, 30];
pub const SPI_LINES: [u16; 8] = [32, 33, 34, 40, 41, 63, 64, 95];

fn mapped(intid: u16) -> Option<(u16, bool)> {
    MAPPED.iter().find(|(virt, _, _)| *virt == intid).map(|&(_, physical, edge)| (physical, edge))
}

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Op {
    Line { vcpu: usize, intid: u16, level: bool },
    Pulse { vcpu: usize, intid: u16 },
    Sgi { from: usize, intid: u16, targets: u8 },
    Bits { vcpu: usize, frame: usize, what: What, word: u16, mask: u32 },
    Group { vcpu: usize, frame: usize, word: u16, value: u32 },
    Priority { vcpu: usize, frame: usize, intid: u16, value: u8 },
    Config { vcpu: usize, frame: usize, intid: u16, edge: bool },
    Target { vcpu: usize, intid: u16, target: usize },
    Enable { vcpu: usize, groups: u8 },
    Interface { vcpu: usize, pmr: u8, group0: bool, group1: bool },
    Acknowledge { vcpu: usize },
    End { vcpu: usize },
    Deactivate { vcpu: usize, which: usize },
    Switch { vcpu: usize },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
}

struct World {
    m: Machine,
    a: Architecture,
    /// EOImode 1: the end of an interrupt drops its priority, and it is deactivated later.
    split: bool,
    /// Acknowledged and not yet ended, by vCPU, the last one last.
    handlers: Vec<Vec<(u16, u8)>>,
    /// Ended and not yet deactivated.
    deferred: Vec<Vec<(u16, u8)>>,
    /// Made active by register: no handler will end them.
    forced: bool,
}

impl World {
    fn new(model: Model, vcpus: usize, lrs: usize, split: bool) -> World {
        let mut world = World {
            m: Machine::new(model, vcpus, lrs, &MAPPED),
            a: Architecture::new(model, vcpus, SPIS),
            split,
            handlers: vec![Vec::new(); vcpus],
            deferred: vec![Vec::new(); vcpus],
            forced: false,
        };
        world.a.irq(0, 41).edge = true;
        world.m.write(0, 0xc08, W, 2 << 18);
        world.apply(&Op::Enable { vcpu: 0, groups: 3 });
        for vcpu in 0..vcpus {
            for word in 0..3 {
                if word == 0 || vcpu == 0 {
                    world.apply(&Op::Group { vcpu, frame: vcpu, word, value: 0xffff_fff0 });
                    world.apply(&Op::Bits { vcpu, frame: vcpu, what: What::SetEnable, word, mask: !0 });
                }
            }
            for intid in 0..4 {
                world.apply(&Op::Priority { vcpu, frame: vcpu, intid, value: 0x40 });
            }
        }
        for (n, intid) in SPI_LINES.into_iter().enumerate() {
            let vcpu = n % vcpus;
            world.apply(&Op::Target { vcpu: 0, intid, target: vcpu });
            world.apply(&Op::Priority { vcpu: 0, frame: 0, intid, value: 0x50 + 8 * n as u8 });
        }
        world.m.settle();
        world
    }

    fn v2(&self) -> bool {
        self.a.model == Model::V2
    }

    /// Write a register for the interrupts of `word`, at `offset` of word 0.
    fn write(&mut self, vcpu: usize, frame: usize, word: u16, offset: u64, width: Width, value: u64) {
        if word == 0 && !self.v2() {
            self.m.write_private(frame, vcpu, SGI_BASE + offset, width, value);
        } else {
            self.m.write(vcpu, offset, width, value);
        }
    }

    fn read(&mut self, vcpu: usize, frame: usize, word: u16, offset: u64) -> u32 {
        if word == 0 && !self.v2() {
            return self.m.read_private(frame, vcpu, SGI_BASE + offset, W) as u32;
        }
        self.m.read(vcpu, offset, W) as u32
    }

    fn apply(&mut self, op: &Op) {
        let vcpus = self.a.vcpus;
        let fit = |vcpu: usize| vcpu % vcpus;
        // A guest's instructions are executed by vCPUs that are loaded.
        let vcpu = match *op {
            Op::Line { vcpu, .. } | Op::Pulse { vcpu, .. } | Op::Switch { vcpu } => fit(vcpu),
            Op::Sgi { from: vcpu, .. }
            | Op::Bits { vcpu, .. }
            | Op::Group { vcpu, .. }
            | Op::Priority { vcpu, .. }
            | Op::Config { vcpu, .. }
            | Op::Target { vcpu, .. }
            | Op::Enable { vcpu, .. }
            | Op::Interface { vcpu, .. }
            | Op::Acknowledge { vcpu }
            | Op::End { vcpu }
            | Op::Deactivate { vcpu, .. } => {
                if !self.m.loaded[fit(vcpu)] {
                    return;
                }
                fit(vcpu)
            }
        };
        // GICv2 has no access to another CPU's banked registers.
        let frame_of = |frame: usize| if self.v2() { vcpu } else { fit(frame) };
        match *op {
            Op::Line { intid, level, .. } => self.line(vcpu, intid, level),
            Op::Pulse { intid, .. } => self.pulse(vcpu, intid),
            Op::Sgi { intid, targets, .. } => self.sgi(vcpu, intid, targets),
            Op::Bits { frame, what, word, mask, .. } => self.bits(vcpu, frame_of(frame), what, word, mask),
            Op::Group { frame, word, value, .. } => {
                let frame = frame_of(frame);
                self.write(vcpu, frame, word, 0x80 + 4 * u64::from(word), W, value.into());
                for n in 0..32 {
                    self.a.irq(frame, word * 32 + n).group1 = value >> n & 1 != 0;
                }
            }
            Op::Priority { frame, intid, value, .. } => {
                let frame = frame_of(frame);
                if self.a.irq(frame, intid).active.is_some() {
                    // The deactivation of what is in no list register goes by priority.
                    return;
                }
                let offset = 0x400 + u64::from(intid);
                self.write(vcpu, frame, intid / 32, offset, Width::Byte, value.into());
                self.a.irq(frame, intid).priority = value & 0xf8;
            }
            Op::Config { frame, intid, edge, .. } => {
                let frame = frame_of(frame);
                if mapped(intid).is_some() {
                    return;
                }
                let offset = 0xc00 + u64::from(intid / 16) * 4;
                let before = self.read(vcpu, frame, intid / 32, offset);
                let bit = 2 << (intid % 16 * 2);
                let value = if edge { before | bit } else { before & !bit };
                self.write(vcpu, frame, intid / 32, offset, W, value.into());
                self.a.irq(frame, intid).edge = edge;
            }
            Op::Target { intid, target, .. } => self.target(vcpu, intid, target),
            Op::Enable { groups, .. } => {
                self.m.write(vcpu, 0, W, groups.into());
                self.a.groups = [groups & 1 != 0, groups & 2 != 0];
            }
            Op::Interface { pmr, group0, group1, .. } => {
                self.m.cpus[vcpu].vmcr = CpuInterface { pmr, group0, group1 };
            }
            Op::Acknowledge { .. } => {}
            Op::End { .. } => self.end(vcpu),
            Op::Deactivate { which, .. } => self.deactivate(vcpu, which),
            Op::Switch { .. } => {
                if self.m.loaded[vcpu] {
                    self.m.save(vcpu);
                } else {
                    self.m.load(vcpu);
                }
            }
        }
    }

    fn line(&mut self, vcpu: usize, intid: u16, level: bool) {
        let irq = self.a.irq(vcpu, intid).clone();
        match mapped(intid) {
            Some((physical, edge)) => {
                // A mapped level stays up until its handler runs, or while it is disabled: what EL2 has taken
                // from the physical distributor is delivered even if its line is down by then.
                if !level && !edge && irq.active.is_none() && irq.enabled {
                    return;
                }
                // A second edge finds the first waiting in the physical distributor or taken from there, which
                // is the difference between coming once and coming twice.
                if level && edge && irq.pending() {
                    return;
                }
                self.m.set_physical(if intid < 32 { vcpu } else { 0 }, physical, level);
            }
            None => self.m.with(vcpu, |vgic, id, _| vgic.set_level(id, IntId(intid), level)),
        }
        self.a.irq(vcpu, intid).set_line(level);
    }

    fn pulse(&mut self, vcpu: usize, intid: u16) {
        if mapped(intid).is_some() {
            return;
        }
        self.m.with(vcpu, |vgic, id, _| vgic.pulse(id, IntId(intid)));
        let irq = self.a.irq(vcpu, intid);
        if irq.edge {
            irq.latch();
        }
    }

    fn sgi(&mut self, from: usize, intid: u16, targets: u8) {
        if self.v2() {
            let filter = u32::from(targets >> 6).min(2);
            let list = u32::from(targets);
            self.m.write(from, 0xf00, W, (filter << 24 | list << 16 | u32::from(intid)).into());
            for vcpu in 0..self.a.vcpus {
                let chosen = match filter {
                    0 => list >> vcpu & 1 != 0,
                    1 => vcpu != from,
                    _ => vcpu == from,
                };
                if chosen {
                    self.a.irq(vcpu, intid).send(from);
                }
            }
            return;
        }
        // Affinities are 0.0, 0.1, 1.0, 1.1.
        let (others, cluster, list) = (targets >> 7 != 0, targets >> 6 & 1, targets & 3);
        let value =
            u64::from(others) << 40 | u64::from(cluster) << 16 | u64::from(list) | u64::from(intid) << 24;
        self.m.send_sgi_v3(from, value, SgiRegister::Sgi1r);
        for vcpu in 0..self.a.vcpus {
            let named = vcpu / 2 == usize::from(cluster) && list >> (vcpu % 2) & 1 != 0;
            if if others { vcpu != from } else { named } {
                self.a.irq(vcpu, intid).latch();
            }
        }
    }

    fn bits(&mut self, vcpu: usize, frame: usize, what: What, word: u16, mask: u32) {
        let mut mask = mask;
        if what == What::SetActive {
            // Only interrupts of no handler, so few that they stay in list registers (they are in no order), and
            // not mapped ones: the guest would have to keep the physical state in step by itself.
            mask &= mask.wrapping_neg();
            let intid = word * 32 + mask.trailing_zeros() as u16 % 32;
            let home = self.a.irq(frame, intid).target.unwrap_or(0);
            let busy = self.a.active_on(home) + 1 >= self.m.cpus[home].lrs.len();
            if mask == 0 || mapped(intid).is_some() || self.a.irq(frame, intid).active.is_some() || busy {
                return;
            }
            self.forced = true;
        }
        if what == What::SetPending {
            // Nor is it known of a mapped one whether it has been taken already.
            for (intid, _, edge) in MAPPED.into_iter().filter(|(intid, _, _)| intid / 32 == word) {
                if !edge || self.a.irq(frame, intid).pending() {
                    mask &= !(1 << (intid % 32));
                }
            }
        }
        let offset = match what {
            What::SetEnable => 0x100,
            What::ClearEnable => 0x180,
            What::SetPending => 0x200,
            What::ClearPending => 0x280,
            What::SetActive => 0x300,
            What::ClearActive => 0x380,
        };
        self.write(vcpu, frame, word, offset + 4 * u64::from(word), W, mask.into());
        for n in (0..32).filter(|n| mask >> n & 1 != 0) {
            let intid = word * 32 + n;
            let by_source = self.v2() && intid < 16;
            let irq = self.a.irq(frame, intid);
            match what {
                What::SetEnable => irq.enabled = true,
                What::ClearEnable => irq.enabled = false,
                What::SetPending if !by_source => irq.latch(),
                What::ClearPending if !by_source => irq.latch = false,
                What::SetPending | What::ClearPending => {}
                What::SetActive => irq.active = Some((irq.target.unwrap_or(0), 0)),
                What::ClearActive => irq.active = None,
            }
        }
    }

    fn target(&mut self, vcpu: usize, intid: u16, target: usize) {
        // One more than there are means nobody.
        let target = target % (self.a.vcpus + 1);
        let target = (target < self.a.vcpus).then_some(target);
        if self.v2() {
            if self.a.vcpus == 1 {
                return;
            }
            let value = target.map_or(0, |target| 0xff << target & 0xff);
            self.m.write(vcpu, 0x800 + u64::from(intid), Width::Byte, value);
        } else {
            let value = target.map_or(0x55, |target| target as u64 / 2 * 0x100 + target as u64 % 2);
            self.m.write(vcpu, 0x6000 + 8 * u64::from(intid), Width::Double, value);
        }
        self.a.irq(0, intid).target = target;
    }

    /// The guest acknowledges; what it gets must be pending, and (`strict`) the most important.
    fn acknowledge(&mut self, vcpu: usize, strict: bool) -> Result<bool, TestCaseError> {
        if self.forced && self.a.active_on(vcpu) + 1 >= self.m.cpus[vcpu].lrs.len() {
            return Ok(false);
        }
        let cpu = &self.m.cpus[vcpu];
        let best = self.a.best(vcpu, |priority, group1| cpu.passes(priority, group1));
        let Some((intid, source)) = self.m.acknowledge(vcpu) else {
            prop_assert!(!strict || best.is_none(), "lost on vCPU {}: priority {:?}", vcpu, best);
            return Ok(false);
        };
        let key = self.a.key(vcpu, intid.0);
        let irq = self.a.irqs[&key].clone();
        let by_source = self.v2() && intid.is_sgi();
        let bit = if by_source { 1 << source } else { 1 };
        let pending = if by_source { irq.sources & bit != 0 } else { irq.pending() };
        let again = !strict && irq.again & bit != 0;
        prop_assert!(irq.active.is_none(), "twice at once on vCPU {}: {:?} {:?}", vcpu, intid, irq);
        prop_assert!(pending || again, "invented on vCPU {}: {:?} from {} {:?}", vcpu, intid, source, irq);
        if !pending {
            self.a.irq(vcpu, intid.0).again &= !bit;
        }
        if strict {
            prop_assert!(self.a.forwards(key, vcpu), "not forwarded to vCPU {}: {:?} {:?}", vcpu, intid, irq);
            prop_assert_eq!(Some(irq.priority), best, "out of turn: {:?}", intid);
        }
        self.a.acknowledge(vcpu, intid.0, source);
        self.handlers[vcpu].push((intid.0, source));
        Ok(true)
    }

    /// EOIR for the last acknowledged.
    fn end(&mut self, vcpu: usize) {
        let Some((intid, source)) = self.handlers[vcpu].pop() else { return };
        self.m.cpus[vcpu].drop_priority();
        if self.split {
            self.deferred[vcpu].push((intid, source));
            return;
        }
        // Deactivated by register already: then a guest that ends it all the same may hit another.
        if self.a.irq(vcpu, intid).active == Some((vcpu, source)) {
            self.m.end(vcpu, IntId(intid), source);
            self.a.irq(vcpu, intid).active = None;
        }
    }

    /// DIR for any that was ended.
    fn deactivate(&mut self, vcpu: usize, which: usize) {
        if self.deferred[vcpu].is_empty() {
            return;
        }
        let which = which % self.deferred[vcpu].len();
        let (intid, source) = self.deferred[vcpu].remove(which);
        if self.a.irq(vcpu, intid).active == Some((vcpu, source)) {
            self.m.deactivate(vcpu, IntId(intid), source);
            self.a.irq(vcpu, intid).active = None;
        }
    }

    /// Every register reads as the architecture says.
    fn compare(&mut self, reader: usize) -> Result<(), TestCaseError> {
        if !self.m.loaded[reader] {
            return Ok(());
        }
        for word in 0..3u16 {
            for frame in 0..self.a.vcpus {
                if word != 0 && frame != 0 || word == 0 && self.v2() && frame != reader {
                    continue;
                }
                // Mapped private lines of a vCPU that isn't loaded can't be seen.
                let away = word == 0 && !self.m.loaded[frame];
                let seen = if away { !(1 << 27 | 1 << 30) } else { !0 };
                let mut same = |offset: u64, mask: u32, bit: &dyn Fn(&model::Irq) -> bool| {
                    let read = self.read(reader, frame, word, offset + 4 * u64::from(word)) & mask;
                    let expected = self.a.word(frame, word, bit) & mask;
                    prop_assert_eq!(
                        read,
                        expected,
                        "{:#x} of word {} of vCPU {}: {:#x}",
                        offset,
                        word,
                        frame,
                        read ^ expected
                    );
                    Ok(())
                };
                same(0x80, !0, &|irq| irq.group1)?;
                same(0x100, !0, &|irq| irq.enabled)?;
                same(0x200, seen, &|irq| irq.pending())?;
                same(0x300, !0, &|irq| irq.active.is_some())?;
            }
        }
        Ok(())
    }

    /// The registers that nothing but a write changes: priorities, triggers, and where SPIs go.
    fn compare_settings(&mut self, reader: usize) -> Result<(), TestCaseError> {
        if !self.m.loaded[reader] {
            return Ok(());
        }
        for word in 0..3 {
            let frames = if word != 0 || self.v2() { reader..reader + 1 } else { 0..self.a.vcpus };
            for frame in frames {
                self.compare_settings_of(reader, frame, word)?;
            }
        }
        Ok(())
    }

    fn compare_settings_of(&mut self, reader: usize, frame: usize, word: u16) -> Result<(), TestCaseError> {
        let first = word * 32;
        for intid in (first..first + 32).step_by(4) {
            let read = self.read(reader, frame, word, 0x400 + u64::from(intid)).to_le_bytes();
            let expected = [0, 1, 2, 3].map(|n| self.a.irq(frame, intid + n).priority);
            prop_assert_eq!(read, expected, "priorities of {} for vCPU {}", intid, frame);
        }
        for intid in (first..first + 32).step_by(16) {
            let read = self.read(reader, frame, word, 0xc00 + u64::from(intid / 4));
            let bit = |n: u16| u32::from(self.a.irqs[&self.a.key(frame, intid + n)].edge) << (2 * n + 1);
            let expected = (0..16).map(bit).sum::<u32>();
            prop_assert_eq!(read, expected, "triggers of {} for vCPU {}", intid, frame);
        }
        for intid in SPI_LINES.into_iter().filter(|intid| intid / 32 == word) {
            let target = self.a.irq(0, intid).target;
            let (read, expected) = if self.v2() {
                let known = if self.a.vcpus == 1 { 0 } else { 0xff >> (8 - self.a.vcpus) };
                let targets = target.map_or(0, |target| 0xff << target & known);
                (self.m.read(reader, 0x800 + u64::from(intid), Width::Byte), targets)
            } else {
                let route = target.map_or(0x55, |target| target as u64 / 2 * 0x100 + target as u64 % 2);
                (self.m.read(reader, 0x6000 + 8 * u64::from(intid), Width::Double), route)
            };
            prop_assert_eq!(read, expected, "where {} goes", intid);
        }
        Ok(())
    }

    /// Let all vCPUs handle all that there is, with everything enabled.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        for vcpu in 0..self.a.vcpus {
            if !self.m.loaded[vcpu] {
                self.m.load(vcpu);
            }
            self.m.cpus[vcpu].vmcr = CpuInterface { pmr: 0xff, group0: true, group1: true };
        }
        self.apply(&Op::Enable { vcpu: 0, groups: 3 });
        for intid in 32..32 + SPIS {
            let target = self.a.irq(0, intid).target.unwrap_or(0);
            self.apply(&Op::Target { vcpu: 0, intid, target });
        }
        self.m.settle();
        for round in 0..1000 {
            let mut busy = false;
            for vcpu in 0..self.a.vcpus {
                let acknowledged = self.acknowledge(vcpu, false)?;
                if let Some(&(intid, _)) = self.handlers[vcpu].last().filter(|_| acknowledged) {
                    self.line(vcpu, intid, false);
                    self.m.settle();
                }
                busy |= acknowledged || !self.handlers[vcpu].is_empty() || !self.deferred[vcpu].is_empty();
                self.end(vcpu);
                self.deactivate(vcpu, round);
                self.m.settle();
            }
            if !busy {
                break;
            }
        }
        for (key, irq) in &self.a.irqs {
            prop_assert!(!irq.pending(), "lost: {:?} {:?}", key, irq);
            prop_assert!(irq.active.is_none(), "never ended: {:?} {:?}", key, irq);
        }
        for vcpu in 0..self.a.vcpus {
            self.compare(vcpu)?;
            self.m.save(vcpu);
        }
        for (key, line) in &self.m.dist {
            prop_assert!(!line.active, "physical line left active: {:?}", key);
        }
        Ok(())
    }
}

pub fn strict(
    model: Model,
    vcpus: usize,
    lrs: usize,
    split: bool,
    ops: &[(Op, usize)],
) -> Result<(), TestCaseError> {
    let mut world = World::new(model, vcpus, lrs, split && model == Model::V3);
    for (op, reader) in ops {
        world.apply(op);
        world.m.settle();
        if let Op::Acknowledge { vcpu } = *op {
            let vcpu = vcpu % vcpus;
            if world.m.loaded[vcpu] {
                world.acknowledge(vcpu, true)?;
                world.m.settle();
            }
        }
        world.compare(reader % vcpus)?;
        if matches!(op, Op::Priority { .. } | Op::Config { .. } | Op::Target { .. }) {
            world.compare_settings(reader % vcpus)?;
        }
    }
    (0..vcpus).try_for_each(|reader| world.compare_settings(reader))
}

/// Nothing is disabled or cleared here, for a vCPU that hasn't heard of it yet may rightly take it.
pub fn lazy(
    model: Model,
    vcpus: usize,
    lrs: usize,
    split: bool,
    ops: &[(Op, bool)],
) -> Result<(), TestCaseError> {
    let mut world = World::new(model, vcpus, lrs, split && model == Model::V3);
    for (op, settle) in ops {
        match op {
            Op::Line { vcpu, intid, level: false } => {
                // Devices lower their lines when they are handled.
                let vcpu = vcpu % vcpus;
                if world.a.irq(vcpu, *intid).active.is_some_and(|(holder, _)| holder == vcpu) {
                    world.apply(op);
                }
            }
            Op::Acknowledge { vcpu } => {
                let vcpu = vcpu % vcpus;
                if world.m.loaded[vcpu] {
                    world.acknowledge(vcpu, false)?;
                }
            }
            Op::Bits { what: What::SetEnable | What::SetPending, .. }
            | Op::Line { .. }
            | Op::Pulse { .. }
            | Op::Sgi { .. }
            | Op::Priority { .. }
            | Op::Target { .. }
            | Op::Interface { .. }
            | Op::End { .. }
            | Op::Deactivate { .. }
            | Op::Switch { .. } => world.apply(op),
            Op::Bits { .. } | Op::Group { .. } | Op::Config { .. } | Op::Enable { .. } => {}
        }
        // Which interrupt was deactivated outside of list registers goes by priority: one that is acknowledged
        // before its change is heard of would be taken for another.
        if *settle || matches!(op, Op::Priority { .. }) {
            world.m.settle();
        }
        // The vCPU that executes a trapped instruction syncs before it goes on.
        for vcpu in 0..vcpus {
            if world.m.loaded[vcpu] && world.m.cpus[vcpu].maintenance() {
                world.m.with(vcpu, |vgic, id, hw| vgic.maintenance(id, hw));
            }
        }
    }
    world.m.settle();
    world.drain()
}
