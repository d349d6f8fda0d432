//! Which vCPU runs on this CPU: asking the queue, changing vCPUs, and what a CPU does without one.
//!
//! A CPU's members are the vCPUs that it runs, and those that may move to it: one that waits for its turn is given to a CPU that has
//! nothing to do, where its manifest lets it go there. One at a time is *loaded*: its registers are in the CPU, and they stay there
//! while it sleeps, until another one is to run. A vCPU that is pinned is the only member, so that it is loaded once.
//! Work on a VM that takes long (one that starts afresh) is done here in steps, as its vCPU 0's turn.

use aarch64_cpu::asm;
use aarch64_cpu::registers::ELR_EL2;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use tock_registers::interfaces::{Readable, Writeable};
use vmm::life::{Event, Phase};
use vmm::psci::{Outcome, PowerRequest, PowerState, X0_SUCCESS};
use vmm::sched::{Change, Decision, Pinned, Queue, Scheduler, Shared, Times};

use crate::exit::Frame;
use crate::percpu::{self, IDLE, Own, own, this_cpu};
use crate::vcpu::Vcpu;
use crate::vm;
use crate::{interrupts, timer};

unsafe extern "C" {
    fn enter_guest(registers: *const Frame, frame: *mut Frame) -> !;
}

/// Microseconds that a vCPU runs at most before another one of weight has its turn.
const SLICE_US: u64 = 2000;

/// Runs the vCPUs of this CPU. Never returns: from the first entry on EL2 is entered by exceptions alone.
pub fn enter() -> ! {
    let members = this_cpu().members();
    let shares: Vec<_> = members.iter().filter_map(|vcpu| vcpu.vm.share).collect();
    let queue = match shares.is_empty() {
        true => Queue::Pinned(Pinned::default()),
        false => Queue::Shared(Shared::new(&shares, timer::ticks(SLICE_US))),
    };
    own().queue.set(Some(Box::leak(Box::new(queue))));
    own().members.set(members);
    for vcpu in here() {
        consider(vcpu);
    }
    interrupts::see_to_alarms();
    let mut frame = Frame::default();
    // Exits put their frames where this one is: it is at the end of this CPU's stack, and nothing of this function is used again.
    schedule(&mut frame, Change::Nothing)
}

/// The vCPU that is loaded here.
pub fn loaded() -> Option<&'static Vcpu> {
    own().vcpu.get()
}

/// The members whose CPU this is now.
fn here() -> impl Iterator<Item = &'static Vcpu> {
    this_cpu().members().iter().copied().filter(|vcpu| vcpu.is_here())
}

/// Which of this CPU's members the vCPU is, whose CPU this is.
fn member(vcpu: &Vcpu) -> usize {
    // One that isn't is no member of the queue's, which knows none with this number.
    vcpu.member_of(this_cpu().index).unwrap_or(usize::MAX)
}

/// Chooses who runs from now on, and goes there. With nobody to run, waits. `frame` is on this CPU's stack, and has the registers of the
/// vCPU that is loaded. `change` is what that one has just done: one that `Blocks` sleeps until an interrupt comes, of which there is
/// none yet.
///
/// `vectors.s` comes here for one that [`Passes`](Change::Passes), having nothing to do but to wait for another one; and behind an exit, where
/// [`Own::look`] is set.
#[unsafe(no_mangle)]
pub extern "C" fn schedule(frame: &mut Frame, mut change: Change) -> ! {
    let mut now = timer::now();
    let (cpu, own) = percpu::this();
    let mut has_news = false;
    loop {
        if interrupts::is_pending() || cpu.has_requests() {
            take_news(own);
            has_news = true;
            // Whom that has woken has been so until now.
            now = timer::now();
        }
        let mut last = own.vcpu.get();
        if let Some(vcpu) = last
            && vcpu.vm.phase() != Phase::Running
        {
            if change == Change::Blocks {
                block(vcpu, now);
            }
            put_off(vcpu, frame);
            (last, change) = (None, Change::Nothing);
        }
        if own.wakes_at.get() <= now {
            wake_those_due(now);
        }
        if has_news {
            change = wake_by_news(last, change, now);
        }
        own.look.set(false);
        let decision = own
            .with_queue(|queue| queue.decide(Some(own.member.get()), change, now))
            .unwrap_or(Decision::NONE);
        change = Change::Nothing;
        let next = own.members.get().get(decision.next).copied();
        let registers = match (last, next) {
            (Some(last), Some(next)) if core::ptr::eq(last, next) => {
                next.trace.times(now, true, decision.times);
                Some(&raw const *frame)
            }
            (_, Some(next)) => {
                next.trace.times(now, true, decision.times);
                if let Some(last) = last {
                    take_off(own, last, decision.last, now, frame);
                }
                take_on(own, next, decision.next)
            }
            (Some(last), None) => {
                last.trace.times(now, false, decision.last.1);
                None
            }
            (None, None) => None,
        };
        let idle_cpus = IDLE.load(Ordering::Relaxed);
        if idle_cpus != 0 {
            give_away(decision.next, idle_cpus);
        }
        own.timer.set_turn(decision.until.min(own.wakes_at.get()));
        // What was just done may have led to more, which is seen to first. Others that ask have sent an interrupt: it is taken from the guest, so
        // that who asks again and again doesn't keep this CPU here.
        let is_done = !cpu.has_requests() || {
            own.look.set(true);
            interrupts::is_pending()
        };
        match registers {
            // SAFETY: these are the registers of the vCPU that is loaded: this frame, or those in its context, which nobody else touches
            // as long as it is. The frame is at the end of this CPU's stack, whose rest lies above it, and nothing of what uses the
            // stack now is used again: whoever calls this function does so as its last step, and holds nothing.
            Some(registers) if is_done => unsafe { enter_guest(registers, frame) },
            Some(registers) => keep(registers, frame),
            None if next.is_none() && is_done => {
                idle();
                has_news = true;
            }
            None => {}
        }
        // Its ISB makes what was written to list registers known to who looks for empty ones.
        now = timer::now();
    }
}

/// Puts the registers of the vCPU that is loaded into the frame, where [`schedule`] expects them.
#[cold]
#[inline(never)]
fn keep(registers: *const Frame, frame: &mut Frame) {
    if !core::ptr::eq(registers, frame) {
        // SAFETY: they are in the context of the vCPU that is loaded, which nobody else touches as long as it is.
        frame.clone_from(unsafe { &*registers });
    }
}

/// Takes what has come to this CPU meanwhile.
#[inline(never)]
fn take_news(own: &'static Own) {
    if interrupts::is_pending() {
        interrupts::take(own, own.vcpu.get());
    }
    if this_cpu().has_requests() {
        interrupts::serve_requests();
    }
}

/// Takes the vCPU, which is loaded, off this CPU, for it is another one's turn. Whether it is ready, and its times.
#[inline(always)]
fn take_off(own: &Own, vcpu: &'static Vcpu, (is_ready, times): (bool, Times), now: u64, frame: &Frame) {
    vcpu.trace.times(now, false, times);
    vcpu.save(own, frame);
    if is_ready {
        vcpu.set_waits(true);
    } else {
        // Whatever comes for it from now on, or came since it was looked for, is followed by a call.
        vcpu.note_timers();
    }
}

/// Waits until something comes.
#[inline(never)]
fn idle() {
    let bit = 1u64.wrapping_shl(this_cpu().index as u32);
    IDLE.fetch_or(bit, Ordering::Relaxed);
    // What was written to timers and to the interrupt controller counts.
    asm::barrier::isb(asm::barrier::SY);
    // What comes now is pending as an interrupt, and ends the wait at once.
    asm::wfi();
    IDLE.fetch_and(!bit, Ordering::Relaxed);
}

/// Gives a vCPU that waits here, while another one or nobody has its turn, to one of these CPUs, which have nothing to do.
#[inline(never)]
fn give_away(turn: usize, idle: u64) {
    let waits = |vcpu: &&Vcpu| turn != member(vcpu) && is_ready(vcpu) && !vcpu.is_loaded();
    let given = here().filter(waits).find_map(|vcpu| Some((vcpu, vcpu.other_cpu(idle)?)));
    let Some((vcpu, cpu)) = given else { return };
    let bit = 1u64.wrapping_shl(cpu as u32);
    // One at a time: others may have the same in mind.
    if IDLE.fetch_and(!bit, Ordering::Relaxed) & bit != 0 {
        vcpu.interrupt();
        block(vcpu, timer::now());
        vcpu.move_to(cpu);
    }
}

/// Lets other CPUs see where the time of a vCPU went that doesn't run.
fn publish_times(vcpu: &Vcpu, now: u64) {
    let times = own().with_queue(|queue| queue.times(member(vcpu))).unwrap_or_default();
    vcpu.trace.times(now, false, times);
}

/// Makes those ready that sleep, and whose timer is due.
#[inline(never)]
fn wake_those_due(now: u64) {
    let mut next = u64::MAX;
    for vcpu in here() {
        if vcpu.wakes_at() <= now {
            wake(vcpu, now);
        }
        next = next.min(vcpu.wakes_at());
    }
    own().wakes_at.set(next);
}

/// Something has come. If it is an interrupt for the vCPU that is loaded, that sleeps no longer, or not at all.
#[inline(never)]
fn wake_by_news(vcpu: Option<&Vcpu>, change: Change, now: u64) -> Change {
    let Some(vcpu) = vcpu else { return change };
    let sleeps = change == Change::Blocks;
    if !sleeps && is_ready(vcpu) || !vcpu.has_interrupt() {
        return change;
    }
    if sleeps {
        return Change::Nothing;
    }
    wake(vcpu, now);
    change
}

fn is_ready(vcpu: &Vcpu) -> bool {
    own().with_queue(|queue| queue.is_ready(member(vcpu))).unwrap_or(false)
}

fn wake(vcpu: &Vcpu, now: u64) {
    let before = vcpu.trace.arrive(this_cpu().index, now);
    own().with_queue(|queue| {
        if let Some(times) = before {
            queue.set_times(member(vcpu), times);
        }
        queue.wake(member(vcpu), now);
    });
    if !vcpu.is_loaded() {
        vcpu.forget_timers();
        vcpu.set_waits(true);
    }
    own().look.set(true);
}

fn block(vcpu: &Vcpu, now: u64) {
    own().with_queue(|queue| queue.block(member(vcpu), now));
    publish_times(vcpu, now);
    vcpu.set_waits(false);
}

/// Looks whether a vCPU of this CPU, which isn't loaded, has a reason to run: a start, an interrupt, or work on its VM.
pub fn consider(vcpu: &'static Vcpu) {
    if is_ready(vcpu) {
        return;
    }
    let vm = vcpu.vm;
    let state = vm.power.lock().state(vcpu.id);
    let runs = vm.phase() == Phase::Running;
    let has_reason = match state {
        _ if !runs => vm::is_to_advance(vcpu),
        PowerState::Off => false,
        PowerState::OnPending => true,
        PowerState::On => vcpu.was_interrupted() || vcpu.has_interrupt(),
    };
    if has_reason {
        wake(vcpu, timer::now());
    } else if runs && state == PowerState::On {
        vcpu.note_timers();
        // EL2's timer is set for it when the queue is asked next.
        own().look.set(own().look.get() | (vcpu.wakes_at() != u64::MAX));
    }
}

/// It is this vCPU's turn, the `member`th here. No vCPU is loaded. Returns its general-purpose registers, if it runs; if not, its turn went
/// to its VM's affairs, or is over.
#[inline(always)]
fn take_on(own: &Own, vcpu: &'static Vcpu, member: usize) -> Option<*const Frame> {
    // If its VM stops behind this, there is a request that says so.
    if !vcpu.enter() {
        attend(vcpu);
        return None;
    }
    if !vcpu.is_on() {
        vcpu.leave();
        block(vcpu, timer::now());
        consider(vcpu);
        return None;
    }
    own.member.set(member);
    let registers = vcpu.load(own);
    if vcpu.hears_of_stolen_time() {
        vcpu.vm.tell_stolen(vcpu.id, vcpu.trace.waited());
    }
    Some(registers)
}

/// The turn of a vCPU whose VM doesn't run goes to that VM's affairs.
#[inline(never)]
fn attend(vcpu: &'static Vcpu) {
    let more = vm::advance(vcpu);
    publish_times(vcpu, timer::now());
    if !more {
        vcpu.interrupt();
        block(vcpu, timer::now());
        consider(vcpu);
    }
}

/// Takes the vCPU, which is loaded, off this CPU, for it is off or its VM stops. In what follows it may go on where it was.
#[inline(never)]
fn put_off(vcpu: &'static Vcpu, frame: &Frame) {
    let is_off = vcpu.vm.power.lock().state(vcpu.id) == PowerState::Off;
    if is_ready(vcpu) {
        vcpu.interrupt();
    }
    block(vcpu, timer::now());
    if is_off {
        vcpu.discard();
    } else {
        if vcpu.vm.phase() == Phase::Crashing {
            vcpu.note_instruction();
        }
        vcpu.save(own(), frame);
    }
    consider(vcpu);
}

/// Doesn't return to a guest whose VM has stopped.
#[inline]
pub fn leave_if_stopped(frame: &mut Frame) {
    if let Some(vcpu) = own().vcpu.get()
        && vcpu.vm.phase() != Phase::Running
    {
        schedule(frame, Change::Nothing);
    }
}

/// The vCPU, which is loaded, sleeps until an interrupt comes for it; others have the CPU meanwhile.
pub fn sleep(vcpu: &'static Vcpu, frame: &mut Frame) {
    if !vcpu.has_interrupt() {
        schedule(frame, Change::Blocks);
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
                if vcpu.vm.change(Event::Stop) {
                    log::info!("{} turned itself off", vcpu.vm.name);
                }
            }
            put_off(vcpu, frame);
            schedule(frame, Change::Nothing);
        }
        Outcome::Suspend => {
            frame.set(0, X0_SUCCESS);
            sleep(vcpu, frame);
        }
        Outcome::SystemOff => {
            turn_off(vcpu);
            leave_if_stopped(frame);
        }
        Outcome::SystemReset => {
            if !vcpu.vm.change_itself(Event::Restart) {
                call_again();
            }
            leave_if_stopped(frame);
        }
    }
}

/// The vCPU's VM turns itself off.
fn turn_off(vcpu: &'static Vcpu) {
    if vcpu.vm.change_itself(Event::Stop) {
        log::info!("{} turned itself off", vcpu.vm.name);
    } else {
        call_again();
    }
}

/// Somebody has paused or stopped the VM before its own call could do something to it: if it goes on, the call is made again.
fn call_again() {
    // Of HVC this is the address behind the instruction, and SMC has been stepped over.
    ELR_EL2.set(ELR_EL2.get().wrapping_sub(4));
}
