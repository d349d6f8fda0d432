//! vCPUs that sleep, come to physical CPUs and leave them, and start again: what goes with each.

mod machine;

use machine::Machine;
use machine::ready::{SGI_BASE, W, finish, sgi, v2, v3};
use vgic::*;

#[test]
fn what_keeps_a_vcpu_awake() {
    let mut m = v3(1, 1);
    let awake = |m: &mut Machine| {
        let mut result = false;
        m.with(0, |vgic, id, hw| {
            let (deliverable, kicks) = vgic.has_deliverable(id, hw);
            result = deliverable;
            kicks
        });
        m.settle();
        result
    };
    assert!(!awake(&mut m));
    sgi(&mut m, 0, 0x0300_0001);
    assert!(awake(&mut m));
    m.cpus[0].vmcr.group1 = false;
    assert!(!awake(&mut m));
    m.cpus[0].vmcr = CpuInterface { pmr: 0, group0: true, group1: true };
    assert!(!awake(&mut m), "priority 0 isn't above mask 0");
    m.cpus[0].vmcr.pmr = 8;
    assert!(awake(&mut m));
    m.acknowledge(0);
    assert!(!awake(&mut m), "active");
    m.save(0);
    let open = m.cpus[0].vmcr;
    assert!(!m.vgic.has_deliverable_saved(VcpuId(0), open));
    m.with(0, |vgic, id, _| vgic.set_level(id, IntId(20), true));
    assert_eq!(m.kicks, Kicks(1));
    assert!(m.vgic.has_deliverable_saved(VcpuId(0), open));
    assert!(!m.vgic.has_deliverable_saved(VcpuId(0), CpuInterface { group1: false, ..open }));
    m.load(0);
    assert!(!m.vgic.has_deliverable_saved(VcpuId(0), open), "its list registers know");
}

/// Loaded again while it is loaded, a vCPU would give its line once more what it has made pending there, and forget deactivations
/// that are counted and not yet seen to.
#[test]
fn what_is_loaded_is_not_loaded_again() {
    let mut m = v3(1, 1);
    m.write_private(0, 0, SGI_BASE + 0x200, W, 1 << 27);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(27), 0)));
    m.load(0);
    m.settle();
    finish(&mut m, 0, IntId(27), 0);
    assert_eq!(m.acknowledge(0), None, "it came once");
    // A second handler interrupts the first, and takes the only list register.
    m.write_private(0, 0, SGI_BASE + 0x400, Width::Byte, 0x80);
    sgi(&mut m, 0, 1);
    assert_eq!(m.acknowledge(0), Some((IntId(0), 0)));
    sgi(&mut m, 0, 1 << 24 | 1);
    assert_eq!(m.acknowledge(0), Some((IntId(1), 0)));
    for intid in [1, 0] {
        m.cpus[0].drop_priority();
        m.end(0, IntId(intid), 0);
    }
    m.load(0);
    m.settle();
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0x300, W), 0);
}

#[test]
fn nothing_to_do_touches_nothing() {
    let mut m = v3(1, 4);
    sgi(&mut m, 0, 0x0300_0001);
    let accesses = m.cpus[0].accesses;
    for _ in 0..3 {
        m.sync(0);
    }
    m.read(0, 0x104, W);
    m.read(0, 4, W);
    assert_eq!(m.cpus[0].accesses, accesses);
    m.acknowledge(0);
    finish(&mut m, 0, IntId(3), 0);
    sgi(&mut m, 0, 0x0300_0001);
    assert_eq!(m.cpus[0].accesses, accesses + 2, "an SGI to itself: read what is empty, write one");
}

#[test]
fn switching_vcpus_keeps_everything() {
    let mut m = v2(2, 2);
    for from in [0, 1] {
        m.write(from, 0xf00, W, 0x0001_0004);
    }
    m.set_physical(0, 27, true);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(4), 0)));
    m.settle();
    m.save(0);
    assert_eq!(m.read(1, 0xf24, W), 0, "the other's");
    // While it is away, another vCPU may run there: its timer isn't seen.
    assert!(!m.dist[&(0, 27)].enabled);
    m.load(0);
    m.settle();
    assert!(m.dist[&(0, 27)].active);
    assert_eq!(m.read(0, 0x300, W), 0x10);
    finish(&mut m, 0, IntId(4), 0);
    let mut got: Vec<_> = std::iter::from_fn(|| {
        let (intid, source) = m.acknowledge(0)?;
        finish(&mut m, 0, intid, source);
        if intid.0 == 27 {
            m.set_physical(0, 27, false);
        }
        Some((intid.0, source))
    })
    .take(4)
    .collect();
    got.sort();
    got.dedup();
    assert_eq!(got, [(4, 1), (27, 0)]);
}

#[test]
fn resets() {
    let mut m = v3(2, 4);
    sgi(&mut m, 0, 0x0300_0003);
    m.set_physical(0, 72, true);
    m.with(0, |vgic, id, _| vgic.set_level(id, IntId(50), true));
    m.settle();
    assert!(m.dist[&(0, 72)].active && m.dist[&(0, 72)].enabled);
    m.vgic.reset_vcpu(VcpuId(1));
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0x200, W), 8, "not while it is loaded");
    m.save(1);
    m.vgic.reset_vcpu(VcpuId(1));
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0x200, W), 0);
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0x100, W), 0);
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0xc00, W), 0xaaaa_aaaa);
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0x200, W), 8, "the other's SGI is still there");
    let mut hw = machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
    m.vgic.reset(&mut hw);
    assert_eq!(m.read(0, 0, W) & 3, 3, "not while a vCPU is loaded");
    m.save(0);
    let mut hw = machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
    m.vgic.reset(&mut hw);
    let line = m.dist[&(0, 72)];
    assert!(!line.active && !line.enabled);
    for (vcpu, frame) in [(0, 0), (0, 1), (1, 1)] {
        for offset in [0x80, 0x100, 0x200, 0x300, 0x400] {
            assert_eq!(m.read_private(frame, vcpu, SGI_BASE + offset, W), 0);
        }
    }
    assert_eq!(m.read(0, 0, W), 0x50);
    assert_eq!(m.read(0, 0x104, W), 0);
    assert_eq!(m.read(0, 0x204, W), 1 << 18 | 1 << 8, "levels stay");
    m.load(0);
    m.load(1);
    m.settle();
    assert_eq!((m.acknowledge(0), m.acknowledge(1)), (None, None));
    m.write(0, 0, W, 3);
    m.write(0, 0x104, W, 1 << 18);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(50), 0)), "routed to affinity 0.0.0.0 again");
}

/// What EL2 asks: has a vCPU anything to do, was anything put before it, and would it be told of its timer.
#[test]
fn what_el2_asks() {
    let mut m = v3(2, 4);
    let (one, line) = (VcpuId(1), IntId(27));
    assert!(!m.vgic.needs_sync(one) && m.vgic.presented(one) == 0);
    assert!(m.vgic.is_enabled(one, line) && !m.vgic.is_enabled(one, IntId(40)), "of private ones alone");
    m.write_private(1, 0, SGI_BASE + 0x180, W, 1 << 27);
    m.settle();
    assert!(!m.vgic.is_enabled(one, line));
    // vCPU 0 sends to both: its own part is done at once, and the other one is to be called.
    let mut hw = machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
    let kicks = m.vgic.send_sgi_v3(VcpuId(0), 0x0100_0003, SgiRegister::Sgi1r);
    assert!(m.vgic.needs_sync(one));
    let kicks = m.vgic.settle(VcpuId(0), kicks, &mut hw);
    assert!(
        kicks.contains(one)
            && !kicks.contains(VcpuId(0))
            && m.vgic.settle(VcpuId(0), Kicks::NONE, &mut hw).is_empty()
    );
    assert!(m.cpus[0].lrs[0].pending() && !m.cpus[1].lrs[0].pending());
    m.kicks |= kicks;
    m.settle();
    assert!(!m.vgic.needs_sync(one) && m.vgic.presented(one) == 1);
    let shown = format!("{:?}", m.cpus[1].lrs[0]);
    assert!(shown.contains("intid: 1") && shown.contains("pending: true"), "{shown}");
}

#[test]
fn list_registers_are_cleared_at_start() {
    let mut m = v3(1, 4);
    m.cpus[0].lrs[2] = ListRegister::new(IntId(3), 0, true).with_state(true, false);
    m.cpus[0].eoi_count = 3;
    clear_list_registers(&mut machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist });
    assert!(m.cpus[0].lrs.iter().all(|lr| *lr == ListRegister::EMPTY));
    assert_eq!(m.cpus[0].eoi_count, 0);
}
