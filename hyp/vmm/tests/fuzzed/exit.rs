//! Any syndrome and any state of a guest: how it is decoded, stepped over, and given back as an exception. What must hold is
//! from the descriptions of ESR_EL2, SPSR_EL2 and exception entry in the Arm ARM.

use vmm::esr::{Abort, Esr, Fault, ec};
use vmm::inject::{Exception, Interrupted, external_abort};
use vmm::step;

use crate::words::Words;

const AARCH32: u64 = 1 << 4;
const NZCV: u64 = 0xf << 28;
const SS: u64 = 1 << 21;
const IL: u64 = 1 << 20;
const PAN: u64 = 1 << 22;

/// Six words are an input.
pub fn check(bytes: &[u8]) {
    let mut words = Words::new(bytes);
    let (esr, pstate, pc) = (Esr(words.word()), words.word(), words.word());
    let (vbar, sctlr, far) = (words.word(), words.word(), words.word());
    check_syndrome(esr, far);
    check_step(pc, pstate, esr.is_32bit());
    let abort = Abort(esr);
    let state = Interrupted { pc, pstate, vbar, sctlr };
    let far = Some(far).filter(|_| !abort.far_not_valid());
    let status = external_abort(abort.on_table_walk().then_some(abort.status() & 3));
    let cache_maintenance = abort.is_cache_maintenance();
    let write = abort.is_write();
    for exception in [
        Exception::Undefined,
        Exception::DataAbort { far, write, cache_maintenance, status },
        Exception::InstructionAbort { far, status },
    ] {
        check_entry(exception, state);
    }
}

fn check_syndrome(esr: Esr, value: u64) {
    assert_eq!(u64::from(esr.class()), esr.0 >> 26 & 0x3f);
    assert!(!format!("{esr:?}").is_empty());
    let abort = Abort(esr);
    // HPFAR_EL2 is looked at for nothing but stage 2's faults.
    assert!(!abort.hpfar_is_valid() || !matches!(abort.fault(), Fault::External | Fault::Other));
    if abort.may_be_device() {
        assert!(abort.hpfar_is_valid());
        assert_eq!(abort.fault(), Fault::Translation);
        assert!(!abort.on_table_walk() && !abort.is_cache_maintenance());
    }
    let Some(access) = abort.access() else { return };
    assert_ne!(esr.iss() >> 24 & 1, 0, "ISV");
    let bits = 8 << access.size();
    let mask = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    assert!(access.register() < 32 && bits <= 64);
    assert_eq!(access.truncate(value), value & mask);
    // What is loaded: the device's bits, and above them zeros, or copies of the highest one up to the register's size.
    let (signed, wide) = (esr.iss() >> 21 & 1 != 0, esr.iss() >> 15 & 1 != 0);
    let negative = signed && value >> (bits - 1) & 1 != 0;
    let register = if wide { u64::MAX } else { u32::MAX.into() };
    let above = if negative { register & !mask } else { 0 };
    // No instruction loads a doubleword into a 32-bit register.
    if wide || bits < 64 {
        assert_eq!(access.extend(value), value & mask | above);
    }
}

fn check_step(pc: u64, pstate: u64, long: bool) {
    let (next, after) = step::over(pc, pstate, long);
    // Mode, masks and flags are the instruction's to leave alone.
    const KEPT: u64 = NZCV | 0x3ff & !(1 << 9);
    assert_eq!(after & KEPT, pstate & KEPT);
    assert_eq!(after & SS, 0, "a step is taken");
    if pstate & AARCH32 == 0 {
        assert_eq!(next, pc.wrapping_add(4));
        assert_eq!(after, pstate & !(SS | 0b11 << 10), "BTYPE");
        assert_eq!((next, after), step::over_aarch64(pc, pstate));
    } else {
        assert_eq!(next, u64::from((pc as u32).wrapping_add(if long { 4 } else { 2 })));
        check_it(pstate, after);
    }
}

/// ITSTATE, bit by bit: the condition's upper three bits stay while instructions follow; the lower five move up.
fn check_it(before: u64, after: u64) {
    let bits =
        |pstate: u64| -> [bool; 8] { [25, 26, 10, 11, 12, 13, 14, 15].map(|bit| pstate >> bit & 1 != 0) };
    let (before, after) = (bits(before), bits(after));
    if before[..3].iter().any(|bit| *bit) {
        assert!(!after[0]);
        assert_eq!((&after[1..5], &after[5..]), (&before[..4], &before[5..]));
    } else {
        assert_eq!(after, [false; 8], "the last one");
    }
}

fn check_entry(exception: Exception, state: Interrupted) {
    let entry = exception.take(state);
    assert_eq!(entry, exception.take(state));
    assert_eq!((entry.elr, entry.spsr), (state.pc, state.pstate));
    let from_aarch32 = state.pstate & AARCH32 != 0;
    let from_el0 = from_aarch32 || state.pstate & 0b1100 == 0;
    let vector = match (from_aarch32, from_el0, state.pstate & 1 != 0) {
        (true, ..) => 0x600,
        (_, true, _) => 0x400,
        (_, _, true) => 0x200,
        _ => 0,
    };
    assert_eq!(entry.pc.wrapping_sub(state.vbar), vector);
    // EL1h in AArch64, all masked, nothing illegal, no step under way.
    assert_eq!(entry.pstate & (0x1f | 0xf << 6 | IL | SS), 0b00101 | 0xf << 6);
    assert_eq!(entry.pstate & NZCV, state.pstate & NZCV);
    let span = state.sctlr >> 23 & 1 != 0;
    assert_eq!(entry.pstate & PAN, if span { state.pstate & PAN } else { PAN });
    assert_eq!(entry.pstate >> 32, 0, "what newer architectures have there isn't given to guests");

    let esr = Esr(entry.esr);
    let (class, same) = match exception {
        Exception::DataAbort { .. } => (ec::DATA_ABORT_LOWER, ec::DATA_ABORT_SAME),
        Exception::InstructionAbort { .. } => (ec::INSTRUCTION_ABORT_LOWER, ec::INSTRUCTION_ABORT_SAME),
        _ => (ec::UNKNOWN, ec::UNKNOWN),
    };
    assert_eq!(esr.class(), if from_el0 { class } else { same });
    assert!(esr.is_32bit() && entry.esr >> 32 == 0);
    let abort = Abort(esr);
    if class == ec::UNKNOWN {
        assert_eq!((esr.iss(), entry.far), (0, None));
    } else {
        assert_eq!(abort.fault(), Fault::External);
        assert_eq!(abort.far_not_valid(), entry.far.is_none());
        // A guest has no stage 2, and what is said of a device's access isn't its business.
        assert!(!abort.on_table_walk() && abort.access().is_none());
    }
}
