//! Machines whose guests have set their interrupt controllers up.

use vgic::*;

use super::Machine;

pub const SGI_BASE: u64 = 0x1_0000;
pub const W: Width = Width::Word;

/// GICv3 with both groups on, everything of vCPU 0 and 1 in group 1 and enabled.
pub fn v3(vcpus: usize, lrs: usize) -> Machine {
    let mut m = Machine::new(Model::V3, vcpus, lrs, &[(27, 27, false), (40, 72, false), (41, 73, true)]);
    m.write(0, 0, W, 3);
    for frame in 0..vcpus {
        for (offset, value) in [(0x80, !0u32), (0x100, !0)] {
            m.write_private(frame, 0, SGI_BASE + offset, W, value.into());
        }
    }
    for offset in [0x84, 0x104] {
        m.write(0, offset, W, 0xffff_ffff);
    }
    m.settle();
    m
}

pub fn v2(vcpus: usize, lrs: usize) -> Machine {
    let mut m = Machine::new(Model::V2, vcpus, lrs, &[(27, 27, false), (40, 72, false)]);
    m.write(0, 0, W, 3);
    for vcpu in 0..vcpus {
        m.write(vcpu, 0x100, W, 0xffff_ffff);
    }
    m.write(0, 0x104, W, 0xffff_ffff);
    for n in 0..8 {
        m.write(0, 0x820 + n * 4, W, 0x0101_0101);
    }
    m.settle();
    m
}

pub fn finish(m: &mut Machine, vcpu: usize, intid: IntId, source: u8) {
    m.cpus[vcpu].drop_priority();
    m.end(vcpu, intid, source);
    m.settle();
}

/// A loaded vCPU sends an SGI of group 1, and all that is due happens.
pub fn sgi(m: &mut Machine, from: usize, value: u64) {
    m.send_sgi_v3(from, value, SgiRegister::Sgi1r);
    m.settle();
}
