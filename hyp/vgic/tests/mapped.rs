//! Interrupts that stand for physical ones: the timers', and the lines of devices that a VM has.

mod machine;

use machine::Machine;
use machine::ready::{SGI_BASE, W, finish, v3};
use vgic::*;

#[test]
fn timer_interrupt_is_mapped() {
    let mut m = v3(2, 4);
    m.set_physical(1, 27, true);
    m.settle();
    assert_eq!(m.acknowledge(0), None);
    assert_eq!(m.acknowledge(1), Some((IntId(27), 0)));
    assert!(m.dist[&(1, 27)].active);
    m.set_physical(1, 27, false);
    let accesses = m.cpus[1].accesses;
    finish(&mut m, 1, IntId(27), 0);
    assert!(!m.dist[&(1, 27)].active, "deactivated by the guest");
    assert_eq!(m.cpus[1].accesses, accesses, "with no exit");
    // Injected again, it finds the list register that it has left.
    m.set_physical(1, 27, true);
    m.settle();
    assert_eq!(m.cpus[1].accesses, accesses + 2, "read what is empty, write one");
    assert_eq!(m.acknowledge(1), Some((IntId(27), 0)));
}

#[test]
fn disabling_a_mapped_level_returns_it() {
    let mut m = v3(1, 4);
    m.set_physical(0, 27, true);
    m.settle();
    assert!(m.cpus[0].lrs[0].pending());
    m.write_private(0, 0, SGI_BASE + 0x180, W, 1 << 27);
    m.settle();
    assert!(!m.cpus[0].lrs[0].pending(), "taken out of its list register");
    let line = m.dist[&(0, 27)];
    assert!(!line.enabled && !line.active && line.pending());
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0x200, W), 1 << 27, "the physical line is seen");
    m.set_physical(0, 27, false);
    m.write_private(0, 0, SGI_BASE + 0x100, W, 1 << 27);
    m.settle();
    assert_eq!(m.acknowledge(0), None, "not a remembered level");
    // Acknowledged by EL2 just as another CPU disables it.
    m.write_private(0, 0, SGI_BASE + 0x180, W, 1 << 27);
    m.dist.get_mut(&(0, 27)).unwrap().active = true;
    m.with(0, |vgic, id, hw| vgic.inject_mapped(id, IntId(27), hw));
    assert!(!m.dist[&(0, 27)].active);
}

/// EL2 may have taken one that is no VM's line, or not this one's.
#[test]
fn what_is_not_mapped_is_not_injected() {
    let mut m = v3(2, 4);
    for intid in [3, 20, 33, 95, 96, 1019] {
        m.with(0, |vgic, id, hw| vgic.inject_mapped(id, IntId(intid), hw));
    }
    assert_eq!(m.kicks, Kicks::NONE);
    m.settle();
    assert_eq!((m.acknowledge(0), m.acknowledge(1)), (None, None));
    assert_eq!((m.read_private(0, 0, SGI_BASE + 0x200, W), m.read(0, 0x204, W)), (0, 0));
}

/// One that has been taken from the physical distributor, and waits in no list register.
#[test]
fn disabling_a_mapped_level_that_waits_returns_it_too() {
    let mut m = v3(1, 4);
    m.write(0, 0, W, 0);
    m.set_physical(0, 27, true);
    m.settle();
    assert!(m.dist[&(0, 27)].active && m.cpus[0].lrs.iter().all(|lr| !lr.pending()), "no group is on");
    m.write_private(0, 0, SGI_BASE + 0x180, W, 1 << 27);
    m.settle();
    assert!(!m.dist[&(0, 27)].active);
    m.set_physical(0, 27, false);
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0x200, W), 0, "its line is down");
    m.write_private(0, 0, SGI_BASE + 0x100, W, 1 << 27);
    m.write(0, 0, W, 3);
    m.settle();
    assert_eq!(m.acknowledge(0), None);
}

#[test]
fn mapped_spis() {
    let mut m = v3(2, 4);
    m.write(0, 0x6000 + 8 * 41, Width::Double, 1);
    m.set_physical(0, 73, true);
    m.settle();
    // Level-sensitive until the guest says otherwise, which goes to the board.
    m.write(0, 0xc08, W, 0);
    assert!(m.dist[&(0, 73)].edge, "unchanged, so not written");
    m.write(0, 0xc08, W, 0x0008_0000);
    assert!(m.dist[&(0, 73)].edge);
    assert_eq!(m.acknowledge(1), Some((IntId(41), 0)));
    m.set_physical(0, 73, false);
    m.set_physical(0, 73, true);
    m.settle();
    finish(&mut m, 1, IntId(41), 0);
    assert_eq!(m.acknowledge(1), Some((IntId(41), 0)), "an edge while active is the board's to remember");
    // Pending by register goes to the board and comes back.
    m.write(0, 0x204, W, 1 << 8);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(40), 0)));
    assert!(m.dist[&(0, 72)].active);
    m.write(1, 0x384, W, 1 << 8);
    m.settle();
    assert!(!m.dist[&(0, 72)].active);
    assert_eq!(m.read(1, 0x304, W), 1 << 9);
}

/// A device's interrupt that has been there before takes the short way, but where something else is to be seen to.
#[test]
fn a_mapped_spi_that_comes_again() {
    let mut m = v3(2, 4);
    let again = |m: &mut Machine, vcpu| {
        let mut done = false;
        m.with(vcpu, |vgic, id, hw| {
            done = vgic.inject_shared_again(id, IntId(41), hw);
            Kicks::NONE
        });
        done
    };
    let route = |m: &mut Machine, to| m.write(0, 0x6000 + 8 * 41, Width::Double, to);
    route(&mut m, 1);
    assert!(!again(&mut m, 1), "it was in no list register");
    m.set_physical(0, 73, true);
    m.settle();
    assert!(!again(&mut m, 1), "it is pending there");
    assert_eq!(m.acknowledge(1), Some((IntId(41), 0)));
    assert!(!again(&mut m, 1), "it is active there");
    m.with(1, |vgic, id, hw| vgic.has_deliverable(id, hw).1);
    finish(&mut m, 1, IntId(41), 0);
    assert!(!again(&mut m, 0), "it goes to the other one");
    let accesses = m.cpus[1].accesses;
    assert!(again(&mut m, 1));
    assert_eq!(m.cpus[1].accesses, accesses + 2, "read what is empty, write one");
    assert_eq!(m.read(1, 0x204, W), 1 << 9, "it is pending");
    assert_eq!(m.acknowledge(1), Some((IntId(41), 0)));
    finish(&mut m, 1, IntId(41), 0);
    // Something happens while it is active, and counts when it has ended.
    let meanwhile = |m: &mut Machine, what: &dyn Fn(&mut Machine)| {
        m.set_physical(0, 73, false);
        m.set_physical(0, 73, true);
        m.settle();
        assert_eq!(m.acknowledge(1), Some((IntId(41), 0)));
        what(m);
        m.settle();
        finish(m, 1, IntId(41), 0);
    };
    meanwhile(&mut m, &|_| ());
    m.send_sgi_v3(0, 0x0300_0002, SgiRegister::Sgi1r);
    assert!(!again(&mut m, 1), "another one waits");
    m.settle();
    assert_eq!(m.acknowledge(1), Some((IntId(3), 0)));
    finish(&mut m, 1, IntId(3), 0);
    meanwhile(&mut m, &|m| m.write(0, 0x184, W, 1 << 9));
    assert!(!again(&mut m, 1), "it is disabled");
    m.write(0, 0x104, W, 1 << 9);
    meanwhile(&mut m, &|m| route(m, 0));
    assert!(!again(&mut m, 1), "it goes to the other one now");
}

#[test]
fn mapped_spis_follow_their_vcpu() {
    let mut m = v3(2, 4);
    m.write(0, 0x6000 + 8 * 41, Width::Double, 1);
    let sent = |m: &Machine| (m.dist[&(0, 72)].sent, m.dist[&(0, 73)].sent);
    let ((first, _), second) = sent(&m);
    assert_eq!(second, (1, 1), "by the guest");
    let follow = |m: &mut Machine, vcpu| {
        m.with(0, |vgic, _, hw| {
            vgic.follow(VcpuId(vcpu), hw);
            Kicks::NONE
        });
    };
    follow(&mut m, 1);
    assert_eq!(sent(&m), ((first, 0), (2, 1)));
    follow(&mut m, 0);
    assert_eq!(sent(&m), ((first + 1, 0), (2, 1)));
    // Routed to nobody, it goes nowhere.
    m.write(0, 0x6000 + 8 * 41, Width::Double, 0x77);
    follow(&mut m, 0);
    follow(&mut m, 1);
    assert_eq!(sent(&m), ((first + 2, 0), (2, 1)));
}

#[test]
fn a_mapped_spi_ends_where_another_cpu_took_it() {
    for interfaces in [1, 4] {
        let mut m = v3(2, interfaces);
        // Taken for vCPU 1, which is saved, with the interrupt once pending and once active, and goes on later.
        m.write(0, 0x6000 + 8 * 41, Width::Double, 1);
        m.set_physical(0, 73, true);
        m.settle();
        m.save(1);
        assert!(m.dist[&(0, 73)].active, "it waits");
        m.load(1);
        m.settle();
        assert_eq!(m.acknowledge(1), Some((IntId(41), 0)));
        m.save(1);
        assert!(m.dist[&(0, 73)].active, "and is being handled");
        assert_eq!(m.read(0, 0x304, W), 1 << 9);
        m.load(1);
        m.settle();
        finish(&mut m, 1, IntId(41), 0);
        assert!(!m.dist[&(0, 73)].active);
        assert_eq!(m.acknowledge(1), None);
        // One that comes while it isn't loaded is there when it is.
        m.save(1);
        m.set_physical(0, 73, false);
        m.set_physical(0, 73, true);
        m.settle();
        m.load(1);
        m.settle();
        assert_eq!(m.acknowledge(1), Some((IntId(41), 0)));
        finish(&mut m, 1, IntId(41), 0);
    }
}

#[test]
fn an_edge_of_the_life_before_is_gone() {
    let mut m = v3(1, 4);
    // Once in the VM's hands and once more in the board's.
    m.set_physical(0, 73, true);
    m.settle();
    m.set_physical(0, 73, false);
    m.set_physical(0, 73, true);
    m.save(0);
    assert!(m.dist[&(0, 73)].active && m.dist[&(0, 73)].latch);
    let mut hw = machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
    m.vgic.reset(&mut hw);
    let line = m.dist[&(0, 73)];
    assert!(!line.enabled && !line.active && !line.latch);
}

/// What a guest makes pending by register is its vCPU's alone: whoever is loaded next doesn't see it, and it comes when that vCPU is
/// loaded again.
#[test]
fn pending_by_register_goes_with_its_vcpu() {
    let mut m = v3(1, 4);
    m.write_private(0, 0, SGI_BASE + 0x180, W, 1 << 27);
    m.write_private(0, 0, SGI_BASE + 0x200, W, 1 << 27);
    assert!(m.dist[&(0, 27)].pending());
    m.save(0);
    assert!(!m.dist[&(0, 27)].pending(), "left behind for the next one");
    m.load(0);
    assert!(m.dist[&(0, 27)].pending());
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0x200, W), 1 << 27);
    // Taken back by register, it is gone for good.
    m.write_private(0, 0, SGI_BASE + 0x280, W, 1 << 27);
    m.save(0);
    m.load(0);
    assert!(!m.dist[&(0, 27)].pending());
    // So is what has been taken.
    m.write_private(0, 0, SGI_BASE + 0x200, W, 1 << 27);
    m.write_private(0, 0, SGI_BASE + 0x100, W, 1 << 27);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(27), 0)));
    finish(&mut m, 0, IntId(27), 0);
    m.save(0);
    m.load(0);
    m.settle();
    assert_eq!(m.acknowledge(0), None);
}

/// What is a PPI for guests may be another SPI on each of the board's CPUs.
#[test]
fn a_private_line_that_is_another_spi_on_each_cpu() {
    let mut m = v3(2, 4);
    m.save(1);
    m.map_private(1, 23, 112);
    m.load(1);
    assert!(m.dist[&(1, 112)].enabled);
    m.set_physical(1, 112, true);
    m.settle();
    assert_eq!((m.acknowledge(0), m.acknowledge(1)), (None, Some((IntId(23), 0))));
    m.set_physical(1, 112, false);
    // In its handler, it goes to another CPU.
    m.save(1);
    let left = m.dist[&(1, 112)];
    assert!(!left.enabled && !left.active, "left to the next one there");
    m.map_private(1, 23, 113);
    m.load(1);
    let line = m.dist[&(1, 113)];
    assert!(line.enabled && line.active && !m.dist[&(1, 112)].enabled);
    finish(&mut m, 1, IntId(23), 0);
    assert!(!m.dist[&(1, 113)].active);
    m.set_physical(1, 113, true);
    m.settle();
    assert_eq!(m.acknowledge(1), Some((IntId(23), 0)));
    m.set_physical(1, 113, false);
    finish(&mut m, 1, IntId(23), 0);
    // A restart changes nothing about it, and a CPU isn't changed under a vCPU.
    m.save(0);
    m.save(1);
    let mut hw = machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
    m.vgic.reset(&mut hw);
    m.load(1);
    m.map_private(1, 23, 114);
    m.write_private(1, 1, SGI_BASE + 0x100, W, 1 << 23);
    assert!(m.dist[&(1, 113)].enabled && !m.dist[&(1, 114)].enabled);
}
