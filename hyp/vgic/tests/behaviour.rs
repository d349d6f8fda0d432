//! What guests see of the virtual interrupt controller, one behaviour at a time.

mod machine;

use machine::Machine;
use machine::ready::{SGI_BASE, W, finish, sgi, v2, v3};
use vgic::*;

/// An SGI to oneself that has been there before takes the short way, but where something else is to be seen to.
#[test]
fn an_sgi_that_comes_again() {
    // SGI 3 to 0.0.0.0.
    const VALUE: u64 = 0x0300_0001;
    let mut m = v3(2, 4);
    let again = |m: &mut Machine, value| {
        let mut done = false;
        m.with(0, |vgic, id, hw| {
            done = vgic.send_again_v3(id, value, hw);
            Kicks::NONE
        });
        done
    };
    assert!(!again(&mut m, VALUE), "it was in no list register");
    sgi(&mut m, 0, VALUE);
    assert!(!again(&mut m, VALUE), "it is pending there");
    assert_eq!(m.acknowledge(0), Some((IntId(3), 0)));
    assert!(!again(&mut m, VALUE), "it is active there");
    finish(&mut m, 0, IntId(3), 0);
    let to_others =
        [0x0300_0002, 0x0300_0003, 1 << 40 | VALUE, 1 << 16 | VALUE, 1 << 44 | VALUE, 0x0400_0001];
    for value in to_others {
        assert!(!again(&mut m, value), "{value:#x}");
    }
    let accesses = m.cpus[0].accesses;
    assert!(again(&mut m, VALUE));
    assert_eq!(m.cpus[0].accesses, accesses + 2, "read what is empty, write one");
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(3), 0)));
    finish(&mut m, 0, IntId(3), 0);
    // Disabled, it waits in the distributor.
    m.write_private(0, 0, SGI_BASE + 0x180, W, 1 << 3);
    assert!(!again(&mut m, VALUE));
    sgi(&mut m, 0, VALUE);
    assert_eq!(m.acknowledge(0), None);
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0x200, W), 1 << 3);
}

/// ICC_SGI1R_EL1 (IHI 0069, 12.2.14) for one of each field that an affinity has.
#[test]
fn an_affinity_is_named_by_its_sgi_register() {
    assert_eq!(Affinity(0x0000_0003).to_sgi1r(), 1 << 3);
    assert_eq!(Affinity(0x0000_0025).to_sgi1r(), 2 << 44 | 1 << 5);
    assert_eq!(Affinity(0x0a0b_0c0f).to_sgi1r(), 0x0a << 48 | 0x0b << 32 | 0x0c << 16 | 1 << 15);
    // Whoever it names gets it, and nobody else.
    let mut m = v3(3, 4);
    sgi(&mut m, 0, 0x0300_0000 | Affinity(0x100).to_sgi1r());
    assert_eq!([0, 1, 2].map(|vcpu| m.acknowledge(vcpu)), [None, None, Some((IntId(3), 0))]);
}

#[test]
fn identification_registers() {
    let mut m = v3(3, 4);
    assert_eq!(m.read(0, 0x4, W), 2 | 9 << 19 | 1 << 24 | 1 << 25);
    assert_eq!(m.read(0, 0x0, W), 0x53);
    assert_eq!(m.read(0, 0x8, W), 0x4800_043b);
    assert_eq!(m.read(0, 0xffe8, W), 0x3b);
    assert_eq!(m.read_private(1, 0, 0xffe8, W), 0x3b);
    assert_eq!(m.read_private(0, 0, 0x8, Width::Double), 0);
    assert_eq!(m.read_private(1, 0, 0x8, Width::Double), 1 << 32 | 1 << 8);
    assert_eq!(m.read_private(2, 0, 0x8, Width::Double), 0x100 << 32 | 2 << 8 | 1 << 4);
    assert_eq!(m.read_private(2, 0, 0xc, W), 0x100);
    assert_eq!(m.read_private(2, 0, 0x8, W), 2 << 8 | 1 << 4);
    assert_eq!(m.read_private(1, 0, 0x4, W), 0x4800_043b);
    assert_eq!(m.read(0, 0xffe0, W), 0x92);
    assert_eq!((m.vgic.distributor_size(), m.vgic.vcpus()), (0x1_0000, 3));
    let mut m = v2(4, 4);
    assert_eq!((m.vgic.distributor_size(), m.vgic.vcpus()), (0x1000, 4));
    assert_eq!(m.read(0, 0xfe0, W), 0x90);
    assert_eq!(m.read(0, 0x4, W), 2 | 3 << 5);
    assert_eq!(m.read(0, 0xfe8, W), 0x2b);
    assert_eq!(m.read(0, 0xffe8, W), 0);
}

#[test]
fn what_is_not_there_reads_zero() {
    let mut m = v3(1, 4);
    m.settle();
    for offset in [0x100, 0x10c, 0x400, 0x800, 0xc00, 0xd04, 0xf00, 0xf10, 0x2000, 0x6000, 0x6300, 0x1_0000] {
        m.write(0, offset, W, 0xffff_ffff);
        assert_eq!(m.read(0, offset, W), 0, "{offset:#x}");
    }
    assert_eq!(m.read(0, 0x104, Width::Byte), 0);
    assert_eq!(m.read(0, 0x104, Width::Half), 0);
    assert_eq!(m.read(0, 0x104, Width::Double), 0);
    assert_eq!(m.read(0, 0x106, W), 0);
    m.write(0, 0x184, Width::Byte, 0xff);
    assert_eq!(m.read(0, 0x104, W), 0xffff_ffff);
    for offset in [0x10104, 0x10c08, 0x10420, 0x10800, 0x20, 0x70] {
        m.write_private(0, 0, offset, W, 0xffff_ffff);
        assert_eq!(m.read_private(0, 0, offset, W), 0, "{offset:#x}");
    }
    // Nor for a vCPU that isn't there.
    assert_eq!(m.vgic.set_level(VcpuId(200), IntId(20), true), Kicks::NONE);
    assert_eq!(m.vgic.set_level(VcpuId(0), IntId(2000), true), Kicks::NONE);
    assert_eq!(m.vgic.pulse(VcpuId(0), IntId(1023)), Kicks::NONE);
}

#[test]
fn registers_keep_what_is_written() {
    let mut m = v3(2, 4);
    m.write(0, 0x420, W, 0x1122_33ff);
    assert_eq!(m.read(0, 0x420, W), 0x1020_30f8);
    m.write(0, 0x422, Width::Byte, 0xa7);
    assert_eq!(m.read(0, 0x420, W), 0x10a0_30f8);
    assert_eq!(m.read(0, 0x423, Width::Byte), 0x10);
    m.write(0, 0xc08, W, 0xffff_ffff);
    assert_eq!(m.read(0, 0xc08, W), 0xaaaa_aaaa);
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0xc00, W), 0xaaaa_aaaa);
    m.write_private(0, 0, SGI_BASE + 0xc00, W, 0);
    assert_eq!(m.read_private(0, 0, SGI_BASE + 0xc00, W), 0xaaaa_aaaa, "SGIs are edge-triggered");
    m.write_private(0, 0, SGI_BASE + 0xc04, W, 0xffff_ffff);
    assert_eq!(
        m.read_private(0, 0, SGI_BASE + 0xc04, W),
        0xaa2a_aaaa,
        "27 is mapped: what it is on the board"
    );
    m.write(0, 0x6000 + 8 * 40, Width::Double, 0x12_8034_5678);
    assert_eq!(m.read(0, 0x6000 + 8 * 40, Width::Double), 0x12_0034_5678, "no 1-of-N");
    m.write(0, 0x6004 + 8 * 40, W, 0x34);
    assert_eq!(m.read(0, 0x6004 + 8 * 40, W), 0x34);
    assert_eq!(m.read(0, 0x6000 + 8 * 40, W), 0x34_5678);
    m.write(0, 0x6000 + 8 * 40, W, 0x8070_0001);
    assert_eq!(m.read(0, 0x6000 + 8 * 40, Width::Double), 0x34_0070_0001, "each half by itself");
    assert_eq!(m.read_private(1, 1, 0x14, W), 6);
    m.write_private(1, 1, 0x14, W, 0);
    assert_eq!(m.read_private(1, 1, 0x14, W), 0);
    assert_eq!(m.read_private(0, 1, 0x14, W), 6);
    m.write(0, 0x184, W, 0x10);
    assert_eq!(m.read(0, 0x104, W), 0xffff_ffef);
    assert_eq!(m.read(0, 0x184, W), 0xffff_ffef);
}

#[test]
fn gicv2_targets() {
    let mut m = v2(3, 4);
    for vcpu in 0..3 {
        assert_eq!(m.read(vcpu, 0x800, W), 0x0101_0101 << vcpu);
        m.write(vcpu, 0x800, W, 0);
        assert_eq!(m.read(vcpu, 0x81f, Width::Byte), 1 << vcpu);
    }
    m.write(0, 0x822, Width::Byte, 0xfe);
    assert_eq!(m.read(0, 0x820, W), 0x0106_0101, "CPUs that aren't there are no targets");
    m.with(0, |vgic, id, _| vgic.set_level(id, IntId(34), true));
    m.settle();
    assert_eq!(m.acknowledge(0), None);
    assert_eq!(m.acknowledge(2), None);
    assert_eq!(m.acknowledge(1), Some((IntId(34), 0)));
    let mut m = v2(1, 4);
    m.write(0, 0x820, W, 0xffff_ffff);
    assert_eq!(m.read(0, 0x820, W), 0);
    m.with(0, |vgic, id, _| vgic.set_level(id, IntId(34), true));
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(34), 0)), "the only CPU is the target of all");
}

#[test]
fn gicv2_sgis_keep_their_sources() {
    let mut m = v2(3, 4);
    // From 1 by list, from 2 to all others, from 0 to itself.
    m.write(1, 0xf00, W, 0x0001_0005);
    m.write(2, 0xf00, W, 0x0100_0005);
    m.write(0, 0xf00, W, 0x0200_8005);
    m.settle();
    assert_eq!(m.read(0, 0xf24, W), 0x0000_0700);
    assert_eq!(m.read(1, 0xf14, W), 0x0000_0400);
    assert_eq!(m.read(2, 0xf14, W), 0);
    assert_eq!(m.read(0, 0x200, W), 0x20);
    let mut sources = Vec::new();
    while let Some((intid, source)) = m.acknowledge(0) {
        assert_eq!(intid, IntId(5));
        sources.push(source);
        finish(&mut m, 0, intid, source);
    }
    sources.sort();
    assert_eq!(sources, [0, 1, 2]);
    assert_eq!(m.acknowledge(1), Some((IntId(5), 2)));
    // Set and cleared by register, bytes too; sources that don't exist don't send.
    m.write(2, 0xf22, Width::Byte, 0xff);
    m.settle();
    assert_eq!(m.read(2, 0xf22, Width::Byte), 7);
    m.write(2, 0xf12, Width::Byte, 0x03);
    m.settle();
    assert_eq!(m.acknowledge(2), Some((IntId(2), 2)));
    // ISPENDR and ICPENDR don't touch SGIs.
    m.write(2, 0x200, W, 0xffff);
    m.settle();
    finish(&mut m, 2, IntId(2), 2);
    assert_eq!(m.acknowledge(2), None);
}

#[test]
fn gicv3_sgis_go_by_affinity() {
    // Affinities 0.0, 0.1, 1.0, 1.1.
    let mut m = v3(4, 4);
    let mut got = |value| {
        sgi(&mut m, 1, value);
        let mut got = Vec::new();
        for vcpu in 0..4 {
            if let Some((intid, source)) = m.acknowledge(vcpu) {
                finish(&mut m, vcpu, intid, source);
                got.push((vcpu, intid.0));
            }
        }
        got
    };
    assert_eq!(got(0x0300_0001), [(0, 3)]);
    assert_eq!(got(0x0401_0003), [(2, 4), (3, 4)]);
    assert_eq!(got(1 << 40 | 0x0f00_0000), [(0, 15), (2, 15), (3, 15)]);
    assert_eq!(got(1 << 44 | 0x0300_0001), [], "affinity 0 from 16 up");
    assert_eq!(got(1 << 32 | 0x0300_0001), []);
    assert_eq!(got(1 << 48 | 0x0300_0001), []);
}

#[test]
fn sgi_registers_respect_groups() {
    let mut m = v3(2, 4);
    m.write_private(1, 1, SGI_BASE + 0x80, W, 0xffff_fffe);
    let mut send = |intid: u64, register| {
        m.with(0, |vgic, id, _| vgic.send_sgi_v3(id, intid << 24 | 2, register));
        m.settle();
        let got = m.acknowledge(1);
        if let Some((intid, source)) = got {
            finish(&mut m, 1, intid, source);
        }
        got.is_some()
    };
    assert!(send(0, SgiRegister::Sgi0r) && send(0, SgiRegister::Asgi1r) && send(0, SgiRegister::Sgi1r));
    assert!(!send(1, SgiRegister::Sgi0r) && !send(1, SgiRegister::Asgi1r) && send(1, SgiRegister::Sgi1r));
    let mut m = v2(1, 4);
    m.with(0, |vgic, id, _| vgic.send_sgi_v3(id, 0x0300_0001, SgiRegister::Sgi1r));
    m.settle();
    assert_eq!(m.acknowledge(0), None, "GICv2 has no such register");
}

#[test]
fn a_level_is_delivered_until_it_is_lowered() {
    let mut m = v3(1, 4);
    let uart = IntId::spi(1);
    m.with(0, |vgic, id, _| vgic.set_level(id, uart, true));
    m.settle();
    for _ in 0..3 {
        assert_eq!(m.acknowledge(0), Some((uart, 0)));
        finish(&mut m, 0, uart, 0);
    }
    // Lowered before it is taken: gone.
    m.with(0, |vgic, id, _| vgic.set_level(id, uart, false));
    m.settle();
    assert_eq!(m.acknowledge(0), None);
    // Lowered by the handler: no maintenance interrupt at the end.
    m.with(0, |vgic, id, _| vgic.set_level(id, uart, true));
    m.settle();
    assert!(m.acknowledge(0).is_some());
    m.with(0, |vgic, id, _| vgic.set_level(id, uart, false));
    m.settle();
    m.cpus[0].drop_priority();
    m.end(0, uart, 0);
    assert!(!m.cpus[0].maintenance());
    assert_eq!(m.acknowledge(0), None);
}

#[test]
fn an_edge_during_its_own_handler_comes_again() {
    let mut m = v3(1, 2);
    m.write(0, 0xc08, W, 0xaaaa_aaaa);
    let line = IntId(34);
    m.with(0, |vgic, id, _| vgic.pulse(id, line));
    m.settle();
    assert_eq!(m.acknowledge(0), Some((line, 0)));
    m.with(0, |vgic, id, _| vgic.pulse(id, line));
    m.with(0, |vgic, id, _| vgic.pulse(id, line));
    m.settle();
    assert_eq!(m.read(0, 0x204, W), 4);
    assert_eq!(m.read(0, 0x304, W), 4);
    m.cpus[0].drop_priority();
    m.end(0, line, 0);
    assert_eq!(m.acknowledge(0), Some((line, 0)), "without EL2's help");
    finish(&mut m, 0, line, 0);
    assert_eq!(m.acknowledge(0), None, "twice pending is once pending");
    // A level-sensitive line has no edges.
    m.write(0, 0xc08, W, 0);
    m.with(0, |vgic, id, _| vgic.pulse(id, line));
    m.settle();
    assert_eq!(m.acknowledge(0), None);
}

#[test]
fn the_highest_priority_gets_the_list_register() {
    let mut m = v3(1, 2);
    m.write(0, 0xc08, W, 0xaaaa_aaaa);
    for n in 0..8 {
        m.write(0, 0x420 + n, Width::Byte, 0x80 - 8 * n);
        m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32 + n as u16)));
        m.sync(0);
    }
    for n in (0..8u16).rev() {
        let accesses = m.cpus[0].accesses;
        assert_eq!(m.acknowledge(0), Some((IntId(32 + n), 0)));
        finish(&mut m, 0, IntId(32 + n), 0);
        assert!(m.cpus[0].accesses - accesses <= 8);
    }
    assert_eq!(m.acknowledge(0), None);
    assert_eq!(m.cpus[0].reasons, Maintenance::NONE);
}

#[test]
fn nested_handlers_deeper_than_list_registers() {
    for lrs in 1..=4 {
        let mut m = v3(1, lrs);
        m.write(0, 0xc08, W, 0xaaaa_aaaa);
        for n in 0..8u16 {
            m.write(0, 0x420 + u64::from(n), Width::Byte, 0x80 - 8 * u64::from(n));
            m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32 + n)));
            m.settle();
            assert_eq!(m.acknowledge(0), Some((IntId(32 + n), 0)));
            m.settle();
        }
        assert_eq!(m.read(0, 0x304, W), 0xff);
        for n in (0..8u16).rev() {
            finish(&mut m, 0, IntId(32 + n), 0);
            assert_eq!(m.read(0, 0x304, W), (1 << n) - 1, "{lrs} list registers");
        }
    }
}

/// What is active in no list register is made inactive where it is remembered.
#[test]
fn nested_handlers_are_ended_by_register() {
    let mut m = v3(1, 1);
    m.write(0, 0xc08, W, 0xaaaa_aaaa);
    for n in 0..4u16 {
        m.write(0, 0x420 + u64::from(n), Width::Byte, 0x80 - 8 * u64::from(n));
        m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32 + n)));
        m.settle();
        assert_eq!(m.acknowledge(0), Some((IntId(32 + n), 0)));
        m.settle();
    }
    m.write(0, 0x384, W, 0b0011);
    m.settle();
    assert_eq!(m.read(0, 0x304, W), 0b1100);
    for n in [3, 2] {
        finish(&mut m, 0, IntId(32 + n), 0);
    }
    assert_eq!(m.read(0, 0x304, W), 0);
    // Nothing is left of them: they come again, and are ended without EL2.
    m.cpus[0].running.clear();
    for n in 0..4u16 {
        m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32 + n)));
        m.settle();
        assert_eq!(m.acknowledge(0), Some((IntId(32 + n), 0)));
        finish(&mut m, 0, IntId(32 + n), 0);
    }
    assert_eq!(m.read(0, 0x304, W), 0);
}

/// Made active by another CPU's register write, which its own CPU hears of only when it has taken and ended it.
#[test]
fn an_interrupt_that_ended_is_active_by_a_write_that_came_behind() {
    let mut m = v3(2, 4);
    m.write(0, 0xc08, W, 0xaaaa_aaaa);
    m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32)));
    m.settle();
    m.write(1, 0x304, W, 1);
    assert_eq!(m.acknowledge(0), Some((IntId(32), 0)));
    m.cpus[0].drop_priority();
    m.end(0, IntId(32), 0);
    m.settle();
    assert_eq!(m.read(0, 0x304, W), 1, "in no list register");
    m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32)));
    m.settle();
    assert_eq!(m.acknowledge(0), None, "not while it is active");
    m.write(1, 0x384, W, 1);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(32), 0)));
    finish(&mut m, 0, IntId(32), 0);
    assert_eq!(m.read(0, 0x304, W), 0);
}

#[test]
fn a_stray_end_of_interrupt_ends_nothing() {
    let mut m = v3(1, 1);
    m.write(0, 0xc08, W, 0xaaaa_aaaa);
    m.write(0, 0x420, W, 0x7080);
    m.end(0, IntId(95), 0);
    for n in 0..2u16 {
        m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32 + n)));
        m.settle();
        assert_eq!(m.acknowledge(0), Some((IntId(32 + n), 0)));
    }
    m.settle();
    assert_eq!(m.read(0, 0x304, W), 3, "counted before either was without a list register");
}

#[test]
fn a_masked_group_does_not_fill_the_list_registers() {
    let mut m = v3(1, 2);
    m.write(0, 0x84, W, 0xffff_ff00);
    m.write(0, 0xc08, W, 0xaaaa_aaaa);
    m.write(0, 0x428, W, 0x8080_8080);
    for n in 0..3 {
        m.with(0, |vgic, id, _| vgic.pulse(id, IntId(32 + n)));
    }
    m.settle();
    m.cpus[0].vmcr.group0 = false;
    m.with(0, |vgic, id, _| vgic.pulse(id, IntId(40)));
    m.settle();
    let pulse = |m: &mut Machine, n| {
        m.with(0, |vgic, id, _| vgic.pulse(id, IntId(n)));
        m.settle();
    };
    pulse(&mut m, 42);
    assert_eq!(m.acknowledge(0), Some((IntId(42), 0)));
    finish(&mut m, 0, IntId(42), 0);
    assert_eq!(m.acknowledge(0), None);
    m.cpus[0].vmcr.group0 = true;
    m.settle();
    for n in 0..3 {
        assert_eq!(m.acknowledge(0), Some((IntId(32 + n), 0)));
        finish(&mut m, 0, IntId(32 + n), 0);
    }
}

#[test]
fn states_in_another_cpus_list_register() {
    let mut m = v3(2, 4);
    sgi(&mut m, 0, 0x0200_0002);
    // Pending there, then active, with no exit in between.
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0x200, W), 4);
    m.acknowledge(1);
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0x300, W), 4);
    assert_eq!(m.read_private(1, 0, SGI_BASE + 0x200, W), 0);
    // The first answer is that the other CPU must be asked; asked once, it is kicked once.
    let ask = |m: &mut Machine| {
        let mut hw = machine::Hw { cpu: &mut m.cpus[0], dist: &mut m.dist };
        m.vgic.redistributor_read(VcpuId(1), VcpuId(0), SGI_BASE + 0x300, W, &mut hw)
    };
    assert_eq!(ask(&mut m), Read { value: None, kicks: Kicks(2) });
    assert_eq!(ask(&mut m), Read { value: None, kicks: Kicks::NONE });
    assert_eq!(m.read_private(1, 0, 0, W), 8, "RWP of that redistributor");
    assert_eq!(m.read_private(1, 1, 0, W), 0, "not for itself");
    assert_eq!(m.read(0, 0, W), 0x8000_0053);
    m.sync(1);
    assert_eq!(ask(&mut m).value, Some(4));
    assert_eq!(m.read(0, 0, W), 0x53);
    // A write in between makes the answer old.
    assert_eq!(ask(&mut m).value, None);
    m.sync(1);
    m.write_private(1, 0, SGI_BASE + 0x380, W, 4);
    assert_eq!(ask(&mut m).value, None);
    m.settle();
    assert_eq!(ask(&mut m).value, Some(0));
    assert!(!m.cpus[1].lrs.iter().any(|lr| lr.active()), "deactivated there");
    m.cpus[1].drop_priority();
    // Pending there and disabled from here: withdrawn.
    sgi(&mut m, 0, 0x0200_0002);
    m.write_private(1, 0, SGI_BASE + 0x180, W, 4);
    assert_eq!(m.read_private(1, 0, 0, W), 8);
    m.settle();
    assert_eq!(m.acknowledge(1), None);
    m.write_private(1, 0, SGI_BASE + 0x100, W, 4);
    m.settle();
    assert_eq!(m.acknowledge(1), Some((IntId(2), 0)));
}

#[test]
fn rerouting_moves_what_is_pending() {
    let mut m = v3(2, 4);
    m.with(0, |vgic, id, _| vgic.set_level(id, IntId(33), true));
    m.settle();
    m.write(1, 0x6000 + 8 * 33, Width::Double, 1);
    m.settle();
    assert_eq!(m.acknowledge(0), None);
    assert_eq!(m.acknowledge(1), Some((IntId(33), 0)));
    // What is active stays where it is; pending again, it comes where it is routed to now.
    m.write(1, 0x6000 + 8 * 33, Width::Double, 0);
    m.settle();
    assert_eq!(m.acknowledge(0), None);
    finish(&mut m, 1, IntId(33), 0);
    assert_eq!(m.acknowledge(1), None);
    assert_eq!(m.acknowledge(0), Some((IntId(33), 0)));
    finish(&mut m, 0, IntId(33), 0);
    m.write(1, 0x6000 + 8 * 33, Width::Double, 0x77);
    m.settle();
    assert_eq!((m.acknowledge(0), m.acknowledge(1)), (None, None), "routed to nobody");
    assert_eq!(m.read(0, 0x204, W), 2);
}

#[test]
fn distributor_enable_holds_everything() {
    let mut m = v3(2, 4);
    sgi(&mut m, 0, 0x0300_0003);
    m.write(0, 0, W, 0);
    m.settle();
    assert_eq!((m.acknowledge(0), m.acknowledge(1)), (None, None));
    m.write(0, 0, W, 1);
    m.settle();
    assert_eq!(m.acknowledge(0), None, "group 1");
    m.write(0, 0, W, 2);
    m.settle();
    assert_eq!(m.acknowledge(0), Some((IntId(3), 0)));
    assert_eq!(m.acknowledge(1), Some((IntId(3), 0)));
}
