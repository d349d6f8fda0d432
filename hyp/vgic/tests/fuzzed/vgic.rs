//! Guests made of bytes. The first byte says what machine it is and how its guest behaves: as one that knows the architecture, whose
//! every register and acknowledge is compared with a model of that; as one that hears late; or as one that accesses whatever there is,
//! for which there is no model, but what must hold of any interrupt controller.

use proptest::test_runner::TestCaseError;
use vgic::{CpuInterface, IntId, Model, SgiRegister, Width};

use crate::machine::Machine;
use crate::world::{Op, PPIS, SPI_LINES, What, lazy, strict};

/// Bytes of a step.
const STEP: usize = 6;

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let model = if first & 1 == 0 { Model::V2 } else { Model::V3 };
    let (vcpus, lrs, split) =
        (usize::from(first >> 1 & 3) + 1, usize::from(first >> 3 & 3) + 1, first & 1 << 5 != 0);
    let steps = rest.chunks_exact(STEP).map(|step| [step[0], step[1], step[2], step[3], step[4], step[5]]);
    let outcome = match first >> 6 {
        0 => {
            let steps: Vec<_> = steps.map(|step| (op(step), usize::from(step[0] >> 6))).collect();
            strict(model, vcpus, lrs, split, &steps)
        }
        1 => {
            let steps: Vec<_> = steps.map(|step| (op(step), step[0] & 0xc0 == 0)).collect();
            lazy(model, vcpus, lrs, split, &steps)
        }
        _ => {
            wild(model, vcpus, lrs, steps);
            Ok(())
        }
    };
    if let Err(TestCaseError::Fail(why) | TestCaseError::Reject(why)) = outcome {
        panic!("{why}");
    }
}

/// A step of a guest that knows what it does.
fn op([kind, cpus, which, a, b, c]: [u8; STEP]) -> Op {
    let (vcpu, frame) = (usize::from(cpus & 3), usize::from(cpus >> 2 & 3));
    let lines = [&PPIS[..], &SPI_LINES[..]].concat();
    let line = lines[usize::from(which) % lines.len()];
    let intid = if cpus & 0x10 == 0 { line } else { u16::from(which & 3) };
    let word = u16::from(which) % 3;
    let mask = match cpus >> 6 {
        0 | 1 => 1 << (a & 31) | 1 << (b & 31),
        _ => u32::from_le_bytes([which, a, b, c]),
    };
    let what = [
        What::SetEnable,
        What::ClearEnable,
        What::SetPending,
        What::ClearPending,
        What::SetActive,
        What::ClearActive,
        What::SetEnable,
        What::SetPending,
    ];
    let bit = cpus & 0x20 != 0;
    match kind % 32 {
        0..=3 => Op::Line { vcpu, intid: line, level: bit },
        4 | 5 => Op::Pulse { vcpu, intid: line },
        6..=9 => Op::Sgi { from: vcpu, intid: u16::from(which & 3), targets: a },
        10..=14 => Op::Bits { vcpu, frame, what: what[usize::from(c & 7)], word, mask },
        15 => Op::Group { vcpu, frame, word, value: !mask },
        16 | 17 => Op::Priority { vcpu, frame, intid, value: a },
        18 => Op::Config { vcpu, frame, intid: line, edge: bit },
        19 => Op::Target { vcpu, intid: SPI_LINES[usize::from(which & 7)], target: usize::from(a) % 5 },
        20 => Op::Enable { vcpu, groups: if bit { 3 } else { a & 3 } },
        21 => {
            let pmr = if bit { 0xf8 } else { a & 0xf8 };
            Op::Interface { vcpu, pmr, group0: b & 1 != 0, group1: b & 2 == 0 }
        }
        22..=26 => Op::Acknowledge { vcpu },
        27..=29 => Op::End { vcpu },
        30 => Op::Deactivate { vcpu, which: usize::from(a & 3) },
        _ => Op::Switch { vcpu },
    }
}

const MAPPED: [(u16, u16, bool); 4] = [(27, 27, false), (30, 30, false), (40, 72, false), (41, 73, true)];
const SGI_BASE: u64 = 0x1_0000;
const WIDTHS: [Width; 4] = [Width::Byte, Width::Half, Width::Word, Width::Double];

/// A guest that accesses whatever there is.
fn wild(model: Model, vcpus: usize, lrs: usize, steps: impl Iterator<Item = [u8; STEP]>) {
    let mut m = Machine::new(model, vcpus, lrs, &MAPPED);
    for [kind, cpus, low, high, a, b] in steps {
        let (vcpu, frame) = (usize::from(cpus & 3) % vcpus, usize::from(cpus >> 2 & 3) % vcpus);
        let offset = u64::from(low) | u64::from(high) << 8;
        let value = u64::from(a).wrapping_mul(0x0101_0101_0101_0101) ^ u64::from(b) << (a & 63);
        let width = if kind & 0x80 == 0 { Width::Word } else { WIDTHS[usize::from(cpus >> 4 & 3)] };
        let is_loaded = m.loaded[vcpu];
        match kind & 0x1f {
            0..=7 if is_loaded => m.write(vcpu, offset & registers(kind), width, value),
            8..=11 if is_loaded && model == Model::V3 => {
                let base = if kind & 0x40 == 0 { SGI_BASE } else { 0 };
                m.write_private(frame, vcpu, base + (offset & registers(kind)), width, value);
            }
            12 if is_loaded => drop(m.read(vcpu, offset, width)),
            13 if is_loaded && model == Model::V3 => drop(m.read_private(frame, vcpu, offset, width)),
            14 | 15 if is_loaded && model == Model::V3 => {
                let register = [SgiRegister::Sgi1r, SgiRegister::Sgi0r, SgiRegister::Asgi1r];
                m.send_sgi_v3(vcpu, value ^ offset << 16, register[usize::from(b) % 3]);
            }
            16 if is_loaded && model == Model::V3 => {
                m.with(vcpu, |vgic, id, hw| vgic.write_dir(id, offset, hw));
            }
            17 => m.with(vcpu, |vgic, id, _| vgic.set_level(id, IntId(offset as u16 & 0x7f), a & 1 != 0)),
            18 => m.with(vcpu, |vgic, id, _| vgic.pulse(id, IntId(offset as u16 & 0x7f))),
            19 | 20 => {
                let (virt, physical, _) = MAPPED[usize::from(a & 3)];
                m.set_physical(if virt < 32 { vcpu } else { 0 }, physical, b & 1 != 0);
            }
            21..=23 if is_loaded => drop(m.acknowledge(vcpu)),
            24 | 25 if is_loaded => {
                m.cpus[vcpu].drop_priority();
                m.end(vcpu, IntId(offset as u16 & 0x7f), b & 7);
            }
            26 if is_loaded => {
                let interface = CpuInterface { pmr: a & 0xf8, group0: b & 1 != 0, group1: b & 2 != 0 };
                m.cpus[vcpu].vmcr = interface;
            }
            27 if is_loaded => m.save(vcpu),
            27 => m.load(vcpu),
            _ => {}
        }
        if kind & 0x20 == 0 {
            m.settle();
            check_registers(&mut m);
        }
    }
    m.settle();
    check_registers(&mut m);
    check_reset(m, model, vcpus, lrs);
}

/// Mostly those that something comes of.
fn registers(kind: u8) -> u64 {
    if kind & 0x40 == 0 { 0xf8f } else { 0xffff }
}

/// What holds of the registers that are there in pairs, and of what is in list registers.
fn check_registers(m: &mut Machine) {
    let v3 = m.vgic.model() == Model::V3;
    let Some(reader) = m.loaded.iter().position(|loaded| *loaded) else { return };
    for word in 0..4u64 {
        let offset = |bank: u64| bank + 4 * word;
        let mut read = |bank: u64| match word {
            0 if v3 => m.read_private(reader, reader, SGI_BASE + bank, Width::Word),
            _ => m.read(reader, offset(bank), Width::Word),
        };
        for (set, clear) in [(0x100, 0x180), (0x200, 0x280), (0x300, 0x380)] {
            assert_eq!(read(set), read(clear), "{set:#x} of word {word}");
            // What isn't there has no state.
            assert!(word < 3 || read(set) == 0);
        }
    }
    for (n, cpu) in m.cpus.iter().enumerate() {
        for lr in cpu.lrs.iter().filter(|lr| lr.pending() || lr.active()) {
            let intid = lr.intid();
            assert!(m.loaded[n] && intid.0 < 96, "{lr:?} on {n}");
            let shared = !intid.is_private();
            let has_it = |(other, cpu): (usize, &crate::machine::Interface)| {
                let is_it = |lr: &vgic::ListRegister| lr.intid() == intid && (lr.pending() || lr.active());
                other != n && cpu.lrs.iter().any(is_it)
            };
            assert!(!(shared && m.cpus.iter().enumerate().any(has_it)), "{intid:?} on two vCPUs");
        }
    }
}

/// After a reset nothing is left of what the guest did.
fn check_reset(mut m: Machine, model: Model, vcpus: usize, lrs: usize) {
    for vcpu in 0..vcpus {
        if m.loaded[vcpu] {
            m.save(vcpu);
        }
    }
    let mut hw = crate::machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
    m.vgic.reset(&mut hw);
    m.kicks = vgic::Kicks::NONE;
    for line in m.dist.values_mut() {
        assert!(!line.enabled && !line.active, "{line:?}");
        // The devices' own.
        (line.line, line.latch) = (false, false);
    }
    m.cpus = (0..vcpus).map(|_| crate::machine::Interface::new(lrs)).collect();
    let mut fresh = Machine::new(model, vcpus, lrs, &MAPPED);
    for machine in [&mut m, &mut fresh] {
        for vcpu in 0..vcpus {
            if !machine.loaded[vcpu] {
                machine.load(vcpu);
            }
        }
        machine.settle();
    }
    for offset in (0..0x1000).step_by(4).filter(|offset| !is_line_state(*offset)) {
        let (before, now) = (fresh.read(0, offset, Width::Word), m.read(0, offset, Width::Word));
        assert_eq!(now, before, "{offset:#x} after a reset");
        if model == Model::V3 {
            let read = |m: &mut Machine| m.read_private(0, 0, SGI_BASE + offset, Width::Word);
            assert_eq!(read(&mut m), read(&mut fresh), "{offset:#x} of vCPU 0 after a reset");
        }
    }
}

/// Pending states, which devices' lines hold up over a reset.
fn is_line_state(offset: u64) -> bool {
    (0x200..0x300).contains(&offset)
}
