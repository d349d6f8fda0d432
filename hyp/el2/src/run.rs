//! Which vCPU runs on this CPU, and whether: starting it, letting it go, and what a CPU does without one.
//!
//! vCPUs are pinned, so a CPU has one vCPU or none. It waits here, in EL2, whenever that vCPU is off; work that takes
//! long (a VM that starts afresh) is done here in steps, with interrupts taken in between.

use aarch64_cpu::asm;
use vgic::Kicks;
use vmm::psci::{Outcome, PowerRequest, X0_SUCCESS};

use crate::exit::Frame;
use crate::gic::with_hardware;
use crate::interrupts;
use crate::percpu::{own, this_cpu};
use crate::vcpu::Vcpu;
use crate::vm::{self, Phase};

unsafe extern "C" {
    fn enter_guest(frame: *mut Frame) -> !;
}

/// Runs the vCPU that is assigned to this CPU, now or as soon as it starts. Never returns: from the first entry on EL2
/// is entered by exceptions alone.
pub fn enter() -> ! {
    own().vcpu.set(this_cpu().assigned.get().copied());
    let mut frame = Frame::default();
    wait(&mut frame);
    // SAFETY: the frame is at the end of this CPU's stack, whose rest lies above it; nothing of this function is used
    // again, and exits put their frames where this one is.
    unsafe { enter_guest(&mut frame) }
}

/// Waits until the vCPU here is to start, and makes the CPU ready for it: when this returns, going back to the guest
/// runs it from its start.
fn wait(frame: &mut Frame) {
    loop {
        interrupts::take();
        interrupts::serve_requests();
        let Some(vcpu) = own().vcpu.get() else {
            asm::wfi();
            continue;
        };
        if start(vcpu, frame) {
            return;
        }
        if !vm::advance(vcpu) && !this_cpu().has_requests() {
            // A request that another CPU makes now is pending as an interrupt, and ends the wait at once.
            asm::wfi();
        }
    }
}

/// Starts the vCPU if it is to.
fn start(vcpu: &'static Vcpu, frame: &mut Frame) -> bool {
    if !vcpu.enter() {
        return false;
    }
    let start = vcpu.vm.power.lock().take_start(vcpu.id);
    let Some(start) = start else {
        vcpu.leave();
        return false;
    };
    vcpu.reset(start, frame);
    if let Some(mut gic) = own().gic.get() {
        gic.reset_virtual();
    }
    let kicks = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        vgic.reset_vcpu(vcpu.id);
        vgic.load(vcpu.id, &mut hardware)
    });
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE).without(vcpu.id));
    // What was asked meanwhile has had its kick, and would get no other.
    interrupts::serve_requests();
    true
}

/// Takes the vCPU off this CPU, and waits until it starts again.
fn stop(vcpu: &'static Vcpu, frame: &mut Frame) {
    let kicks = with_hardware!(|hardware| vcpu.vm.vgic.lock().save(vcpu.id, &mut hardware));
    if let Some(mut gic) = own().gic.get() {
        gic.stop_virtual();
    }
    vcpu.leave();
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE).without(vcpu.id));
    wait(frame);
}

/// Doesn't return to a guest whose VM has stopped.
#[inline]
pub fn leave_if_stopped(frame: &mut Frame) {
    if let Some(vcpu) = own().vcpu.get()
        && vcpu.vm.phase() != Phase::Running
    {
        stop(vcpu, frame);
    }
}

/// Carries out a guest's PSCI call.
pub fn power(vcpu: &'static Vcpu, frame: &mut Frame, request: PowerRequest) {
    let outcome = vcpu.vm.power.lock().call(vcpu.id, request);
    match outcome {
        Outcome::Return(value) => frame.set(0, value),
        Outcome::StartVcpu(target) => {
            frame.set(0, X0_SUCCESS);
            vcpu.vm.wake(target);
        }
        Outcome::StopVcpu => {
            if vcpu.vm.power.lock().all_off() {
                // Nothing in the VM can turn a vCPU on any more.
                vcpu.vm.stop(Phase::TurningOff);
            }
            stop(vcpu, frame);
        }
        Outcome::Suspend => {
            frame.set(0, X0_SUCCESS);
            suspend(vcpu);
        }
        Outcome::SystemOff => {
            vcpu.vm.stop(Phase::TurningOff);
            leave_if_stopped(frame);
        }
        Outcome::SystemReset => {
            vcpu.vm.stop(Phase::Restarting);
            leave_if_stopped(frame);
        }
    }
}

/// As WFI: sleeps until an interrupt comes, unless one waits for the guest. It may end early, as a WFI may.
fn suspend(vcpu: &'static Vcpu) {
    let waits = with_hardware!(|hardware| vcpu.vm.vgic.lock().has_deliverable(vcpu.id, &mut hardware));
    let Some((deliverable, kicks)) = waits else { return };
    vcpu.vm.kick(kicks.without(vcpu.id));
    if !deliverable {
        asm::wfi();
    }
}
