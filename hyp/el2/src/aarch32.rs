//! What 32-bit programs at a guest's EL0 do that traps: emulated devices, registers of coprocessors, and instructions with conditions.

use aarch64_cpu::registers::{ELR_EL2, SPSR_EL2};
use tock_registers::interfaces::{Readable, Writeable};
use vmm::coprocessor::{View, loaded, view, written};
use vmm::debug::Register;
use vmm::devices::Hit;
use vmm::esr::{Abort, CoprocessorAccess, Esr, Sysreg, SysregAccess};
use vmm::inject::Exception;
use vmm::step;

use crate::cpu;
use crate::exit::{Frame, Short, Trapped, inject, other_register, reject_data};
use crate::mmio::{self, stepped};
use crate::vcpu::Vcpu;

/// Whether the instruction that trapped is one of AArch32 whose condition fails: then it does nothing.
pub fn is_nop(esr: Esr) -> bool {
    let pstate = SPSR_EL2.get();
    pstate & step::PSTATE_AARCH32 != 0 && esr.has_condition() && !esr.condition_passes(pstate)
}

/// Steps over the instruction, of whichever state.
pub fn skip(esr: Esr) {
    let (pc, pstate) = step::over(ELR_EL2.get(), SPSR_EL2.get(), esr.is_32bit());
    ELR_EL2.set(pc);
    SPSR_EL2.set(pstate);
}

/// An access to an emulated device. What the syndrome doesn't describe is left.
pub fn device(vcpu: &'static Vcpu, frame: &mut Frame, abort: Abort, hit: Hit) {
    match abort.access() {
        Some(access) if mmio::perform(vcpu, frame, hit, access) => skip(abort.0),
        Some(_) => {}
        None => reject_data(vcpu, abort),
    }
}

/// An access to a register of a coprocessor: as one to the AArch64 register that it is a view of.
pub fn coprocessor(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr, access: CoprocessorAccess) {
    let mut one = Short::default();
    let done = match view(access.register) {
        Some(View::Of(register)) => {
            one.set(0, written(&access, 0, |n| frame.get(n)));
            carried_out(vcpu, &mut one, register, access.read)
        }
        // What a write leaves as it was is read first.
        Some(View::LowerHalf(register)) => {
            let has_before = access.read || carried_out(vcpu, &mut one, register, true);
            one.set(0, written(&access, one.get(0), |n| frame.get(n)));
            has_before && carried_out(vcpu, &mut one, register, access.read)
        }
        Some(View::Zero) if access.read => true,
        Some(View::DebugIdentity) if access.read => match cpu::debug_identity() {
            Some(value) => {
                one.set(0, value.into());
                true
            }
            None => return inject(Exception::Undefined),
        },
        _ => return inject(Exception::Undefined),
    };
    if !done {
        return;
    }
    if access.read {
        for (register, value) in loaded(&access, one.get(0)).into_iter().flatten() {
            frame.set(register, value);
        }
    }
    skip(esr);
}

/// An access of AArch64 to this register, from or to X0 of `one`. Whether it was done; if not, the guest is at an exception's vector.
fn carried_out(vcpu: &'static Vcpu, one: &mut Short, register: Sysreg, read: bool) -> bool {
    stepped(|| other_register(vcpu, one, SysregAccess { register, rt: 0, read }))
}

/// A debug register, which AArch64 has otherwise: it doesn't trap once the guest's own are in the CPU. Behind a closed OS lock they
/// aren't.
pub fn debug(vcpu: &'static Vcpu) {
    if !matches!(vcpu.access_debug(Register::Monitor, None), Trapped::Again) {
        inject(Exception::Undefined);
    }
}
