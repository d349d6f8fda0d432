//! Any trapped access to a system register, and any values of the CPU's ID registers.

use vgic::SgiRegister;
use vmm::esr::{Esr, Sysreg, SysregAccess, ec};
use vmm::idregs::{GicInterface, IdRegisters};
use vmm::sysreg::{Action, Common, Identity, PhysicalTimer, action, common};

use crate::words::Words;

/// The first word is an access, the second one a CPU's MIDR_EL1, all others are its ID registers.
pub fn check(bytes: &[u8]) {
    let mut words = Words::new(bytes);
    check_access(words.word() as u32 & 0x1ff_ffff);
    let (midr, mut values) = (words.word(), [0u64; 64]);
    values.iter_mut().for_each(|value| *value = words.word());
    for gic in [GicInterface::Memory, GicInterface::SystemRegisters] {
        for counters in [false, true] {
            check_id_registers(&values, gic, midr, counters);
        }
    }
}

/// An access with this syndrome.
pub fn check_access(iss: u32) {
    let access = SysregAccess::decode(Esr(u64::from(ec::SYSREG) << 26 | u64::from(iss)));
    let (op0, op1, crn, crm, op2) = access.register.fields();
    let [o0, o1, n, m, o2] = [op0, op1, crn, crm, op2].map(u32::from);
    assert_eq!(Sysreg::new(o0, o1, n, m, o2), access.register);
    assert!(access.rt < 32);
    assert_eq!(
        (o0, o2, o1, n, m),
        (iss >> 20 & 3, iss >> 17 & 7, iss >> 14 & 7, iss >> 10 & 15, iss >> 1 & 15)
    );

    let what = action(access.register, access.read);
    assert_eq!(what, action(access.register, access.read));
    match common(access.register, access.read) {
        Some(Common::IdRegister(index)) => assert_eq!(what, Action::IdRegister(index)),
        Some(Common::Sgi1) => assert_eq!(what, Action::Sgi(SgiRegister::Sgi1r)),
        None => {}
    }
    let name = access.register;
    // EL2's, EL3's and the secure state's: to a guest there are no such levels.
    if op1 >= 4 {
        assert_eq!(what, Action::Undefined, "{name}");
    }
    // IMPLEMENTATION DEFINED ones.
    if op0 == 3 && matches!(crn, 11 | 15) || op0 == 1 && matches!(crn, 11 | 15) {
        assert_eq!(what, Action::Undefined, "{name}");
    }
    // Each kind of answer fits the direction, and belongs where the architecture has such registers.
    match what {
        Action::IdRegister(index) => {
            assert!(access.read && (op0, op1, crn) == (3, 0, 0), "{name}");
            assert_eq!(index, crm << 3 | op2, "{name}");
        }
        Action::Identity(Identity::Revidr | Identity::Aidr) | Action::Constant(_) => {
            assert!(access.read, "{name}");
        }
        Action::Ignored => assert!(!access.read, "{name}"),
        Action::Sgi(register) => {
            let wanted = match op2 {
                5 => SgiRegister::Sgi1r,
                6 => SgiRegister::Asgi1r,
                _ => SgiRegister::Sgi0r,
            };
            assert!(!access.read && register == wanted, "{name}");
            assert_eq!((op0, op1, crn, crm), (3, 0, 12, 11), "{name}");
        }
        Action::Deactivate | Action::StageOne(_) => assert!(!access.read && op0 == 3 && op1 == 0, "{name}"),
        Action::SetWay => assert!(!access.read && op0 == 1 && crn == 7, "{name}"),
        Action::PhysicalTimer(timer) => {
            assert_eq!((op0, op1, crn), (3, 3, 14), "{name}");
            assert!(access.read || timer != PhysicalTimer::Counter, "{name}");
        }
        Action::Debug(_) => assert_eq!(op0, 2, "{name}"),
        Action::Pmu(_) => assert_eq!((op0, op1 & !3), (3, 0), "{name}"),
        _ => {}
    }
    // Nothing is given by instruction but maintenance, which has no value to read.
    if op0 == 1 && access.read {
        assert_eq!(what, Action::Undefined, "{name}");
    }
}

/// Of ID_AA64PFR0_EL1: EL2, EL3, RAS, SVE, SEL2, MPAM, AMU, RME. A guest has none, whatever the CPU says.
const PFR0: u8 = 4 << 3;
const HIDDEN_IN_PFR0: [u32; 8] = [8, 12, 28, 32, 36, 40, 44, 52];

fn check_id_registers(values: &[u64; 64], gic: GicInterface, midr: u64, counters: bool) {
    let host = IdRegisters::read(|index| values[usize::from(index)]);
    let guest = host.for_guests(gic, midr, counters);
    for field in HIDDEN_IN_PFR0 {
        assert_eq!(guest.get(PFR0) >> field & 0xf, 0, "field {field}");
    }
    // EL1 in AArch64 alone.
    assert_eq!(guest.get(PFR0) >> 4 & 0xf, 1);
    // What a guest is shown is a CPU that can be shown as it is.
    let again = IdRegisters::read(|index| guest.get(index)).for_guests(gic, midr, counters);
    for index in 0..64 {
        assert_eq!(again.get(index), guest.get(index), "{index:#x}");
    }
}
