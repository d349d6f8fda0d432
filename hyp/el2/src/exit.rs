//! Exits: what brought a guest to EL2 is decoded by `vmm`, and done here.
//!
//! Nothing here loops over what a guest can make large, allocates, or can fail: an access that isn't allowed is
//! answered as hardware would answer it.
//!
//! `vectors.s` comes here by exception class. What a handler has to do often is in the handler itself; for the rest it goes
//! to a function of its own as its last step, so that the short way saves no registers for the long one.

use aarch64_cpu::registers::*;
use tock_registers::interfaces::{Readable, Writeable};
use vgic::{Kicks, SgiRegister};
use vmm::esr::{Abort, CoprocessorAccess, Esr, Fault, SysregAccess, ec};
use vmm::inject::{Exception, Interrupted, external_abort};
use vmm::layout::Ipa;
use vmm::smccc::{self, Answer, Call, Offers, StolenTime};
use vmm::sysreg::{Action, Common, Identity, PhysicalTimer, StageOne};
use vmm::{stage_one, step};

use crate::gic::with_hardware;
use crate::percpu::{Own, own};
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::trace::Reason;
use crate::vcpu::Vcpu;
use crate::vm::{Attempt, Outcome};
use crate::{aarch32, calls, cpu, gic, interrupts, mmio, run, serror, smp, timer};

/// A guest's general-purpose registers, as `vectors.s` saves them on EL2's stack.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Frame {
    x: [u64; 32],
}

impl Frame {
    /// Xn; n = 31 is XZR.
    #[inline]
    pub fn get(&self, n: u8) -> u64 {
        // An exit leaves 0 in the last slot.
        self.x.get(usize::from(n & 31)).copied().unwrap_or(0)
    }

    /// Sets Xn; n = 31 is XZR, and no register. No value is asked for behind that.
    #[inline]
    pub fn set(&mut self, n: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(n & 31)) {
            *register = value;
        }
    }

    /// X0 to X4.
    #[inline]
    fn arguments(&self) -> &[u64; 5] {
        self.x.first_chunk().unwrap_or(&[0; 5])
    }

    /// X0 to X3.
    fn set_results(&mut self, values: [u64; 4]) {
        if let Some(results) = self.x.first_chunk_mut() {
            *results = values;
        }
    }

    /// X0 to X30.
    pub fn registers(&self) -> &[u64] {
        self.x.first_chunk::<31>().map_or(&[], |registers| registers)
    }
}

/// Steps over the trapped instruction, an AArch64 one. HVC needs no step.
#[inline]
pub fn skip() {
    let before = SPSR_EL2.get();
    let (pc, pstate) = step::over_aarch64(ELR_EL2.get(), before);
    ELR_EL2.set(pc);
    if pstate != before {
        SPSR_EL2.set(pstate);
    }
}

/// Who exits, noted in its trace by the syndrome, which is 0 for an interrupt. There is always one, as only vCPUs exit.
#[inline(always)]
fn exits(own: &'static Own, esr: Esr) -> Option<&'static Vcpu> {
    let vcpu = own.vcpu.get()?;
    vcpu.trace.exit(esr.0, ELR_EL2.get());
    Some(vcpu)
}

#[unsafe(no_mangle)]
extern "C" fn handle_hvc(frame: &mut Frame, esr: Esr) {
    let Some(vcpu) = exits(own(), esr) else { return };
    vcpu.trace.count(Reason::Hvc);
    call(vcpu, frame, esr);
}

#[unsafe(no_mangle)]
extern "C" fn handle_smc(frame: &mut Frame, esr: Esr) {
    let Some(vcpu) = exits(own(), esr) else { return };
    vcpu.trace.count(Reason::Smc);
    skip();
    call(vcpu, frame, esr);
}

/// All that isn't common enough for a handler of its own.
#[unsafe(no_mangle)]
extern "C" fn handle_other(frame: &mut Frame, esr: Esr) {
    let Some(vcpu) = exits(own(), esr) else { return };
    let class = esr.class();
    let reason = match class {
        ec::INSTRUCTION_ABORT_LOWER => Reason::Abort,
        ec::WFX => Reason::Wfx,
        ec::CP15 | ec::CP15_DOUBLE | ec::CP14 | ec::CP14_DOUBLE => Reason::Sysreg,
        _ => Reason::Other,
    };
    vcpu.trace.count(reason);
    if aarch32::is_nop(esr) {
        return aarch32::skip(esr);
    }
    match class {
        ec::INSTRUCTION_ABORT_LOWER => instruction_abort(vcpu, Abort(esr)),
        ec::WFX => wait(vcpu, frame, esr),
        ec::CP14_MEMORY => aarch32::debug(vcpu),
        // Nothing else is set to trap; a feature that is newer than this code may trap by default, and isn't shown.
        _ => match CoprocessorAccess::decode(esr) {
            Some(access) => aarch32::coprocessor(vcpu, frame, esr, access),
            None => inject(Exception::Undefined),
        },
    }
}

#[unsafe(no_mangle)]
extern "C" fn handle_irq() {
    let own = own();
    let vcpu = exits(own, Esr(0));
    if let Some(vcpu) = vcpu {
        vcpu.trace.count(Reason::Interrupt);
    }
    interrupts::take(own, vcpu);
}

#[unsafe(no_mangle)]
extern "C" fn handle_serror(frame: &mut Frame, esr: Esr) {
    // There is always one, as only vCPUs exit.
    let Some(vcpu) = exits(own(), esr) else { return };
    vcpu.trace.count(Reason::Other);
    if serror::taken(vcpu, esr) {
        run::leave_if_stopped(frame);
    }
}

/// WFI or WFE of a vCPU that shares its CPU, at EL0 of an AArch32 program too.
fn wait(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr) {
    aarch32::skip(esr);
    if esr.is_wfe() { run::pass(vcpu, frame) } else { run::sleep(vcpu, frame) }
}

/// Takes an exception to the guest's EL1.
pub fn inject(exception: Exception) {
    let entry = exception.take(Interrupted {
        pc: ELR_EL2.get(),
        pstate: SPSR_EL2.get(),
        vbar: VBAR_EL1.get(),
        sctlr: SCTLR_EL1.get(),
    });
    ELR_EL1.set(entry.elr);
    SPSR_EL1.set(entry.spsr);
    ESR_EL1.set(entry.esr);
    if let Some(far) = entry.far {
        FAR_EL1.set(far);
    }
    ELR_EL2.set(entry.pc);
    SPSR_EL2.set(entry.pstate);
}

#[inline(always)]
fn call(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr) {
    // SMCCC 2.9: the immediate is zero; other values are nobody's here.
    let call = if esr.immediate() == 0 { Call::named(frame.get(0)) } else { None };
    let Some(call) = call else { return frame.set(0, smccc::UNKNOWN) };
    match call.at_once() {
        Some(Answer::Return(value)) => frame.set(0, value),
        Some(Answer::Yield) => calls::give_way(vcpu, frame),
        _ => answer(vcpu, frame, call),
    }
}

/// A call whose answer has to be found.
#[inline(never)]
fn answer(vcpu: &'static Vcpu, frame: &mut Frame, call: Call) {
    match call.request(frame.arguments()) {
        Ok(Some(request)) => calls::answer(vcpu, frame, request),
        Ok(None) => answer_standard(vcpu, frame, call),
        Err(code) => frame.set(0, code as u64),
    }
}

#[inline(never)]
fn answer_standard(vcpu: &'static Vcpu, frame: &mut Frame, call: Call) {
    let mitigations = own().mitigations.get();
    let offers = Offers { mitigations, soc: smp::soc(), random: vcpu.vm.has_random() };
    match call.answer(frame.arguments(), &offers) {
        Answer::Return(value) => frame.set(0, value),
        Answer::Yield => calls::give_way(vcpu, frame),
        Answer::Return4(values) => frame.set_results(values),
        Answer::Random(wanted) => {
            frame.set_results(vcpu.vm.random(wanted).unwrap_or([smccc::UNKNOWN, 0, 0, 0]))
        }
        Answer::Power(request) => run::power(vcpu, frame, request),
        Answer::StolenTime(question) => {
            let answer = match (vcpu.vm.share, question) {
                (None, _) => smccc::UNKNOWN,
                (Some(_), StolenTime::Feature) => 0,
                (Some(_), StolenTime::Address) => {
                    vcpu.ask_for_stolen_time();
                    vmm::stolen_time::record(vcpu.vm.layout, vcpu.id).as_u64()
                }
            };
            frame.set(0, answer);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn handle_system_register(frame: &mut Frame, esr: Esr) {
    let Some(vcpu) = exits(own(), esr) else { return };
    vcpu.trace.count(Reason::Sysreg);
    let access = SysregAccess::decode(esr);
    match vmm::sysreg::common(access.register, access.read) {
        Some(Common::IdRegister(index)) => {
            frame.set(access.rt, vcpu.vm.ids.get(index));
            skip();
        }
        Some(Common::Sgi(register)) => {
            let value = frame.get(access.rt);
            send_sgi(vcpu, value, register);
        }
        None => other_register(vcpu, frame, access),
    }
}

#[inline(never)]
pub fn other_register(vcpu: &'static Vcpu, frame: &mut Frame, access: SysregAccess) {
    let value = match vmm::sysreg::action(access.register, access.read) {
        Action::Identity(Identity::Revidr) => read_sysreg!("REVIDR_EL1"),
        Action::Identity(Identity::Aidr) => read_sysreg!("AIDR_EL1"),
        Action::Constant(value) => value.into(),
        Action::Ignored => return skip(),
        Action::StageOne(register) => return write_stage_one(vcpu, register, frame.get(access.rt)),
        Action::SetWay => return set_way(vcpu),
        Action::Deactivate => {
            let value = frame.get(access.rt);
            let kicks =
                with_hardware!(|hardware| vcpu.vm.vgic.lock().write_dir(vcpu.id, value, &mut hardware));
            vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE));
            return skip();
        }
        Action::PhysicalTimer(register) => match access.read {
            true => read_timer(register),
            false => {
                write_timer(register, frame.get(access.rt));
                return skip();
            }
        },
        Action::Debug(register) => {
            return finish_trapped(frame, access, |value| vcpu.access_debug(register, value));
        }
        Action::Pmu(register) => {
            let from_el0 = SPSR_EL2.get() & PSTATE_EL == 0;
            return finish_trapped(frame, access, |value| vcpu.access_counters(register, value, from_el0));
        }
        // ID registers and SGIs are seen to already.
        Action::IdRegister(_) | Action::Sgi(_) | Action::Undefined => return inject(Exception::Undefined),
    };
    frame.set(access.rt, value);
    skip();
}

/// PSTATE's exception level.
const PSTATE_EL: u64 = 0b11 << 2;

/// What becomes of a trapped access to a register that belongs into the CPU while the guest uses it.
pub enum Trapped {
    /// It is there now: the guest tries again.
    Again,
    /// It reads this.
    Value(u64),
    /// It has written.
    Done,
    /// There is no such register.
    Undefined,
}

/// `access` is given what is written, or `None` for a read.
fn finish_trapped(frame: &mut Frame, from: SysregAccess, access: impl FnOnce(Option<u64>) -> Trapped) {
    match access((!from.read).then(|| frame.get(from.rt))) {
        Trapped::Again => return,
        Trapped::Value(value) => frame.set(from.rt, value),
        Trapped::Done => {}
        Trapped::Undefined => return inject(Exception::Undefined),
    }
    skip();
}

/// A register of the physical timer, which traps while the VM's time isn't the board's.
fn read_timer(register: PhysicalTimer) -> u64 {
    match register {
        PhysicalTimer::Counter => timer::now().wrapping_sub(cpu::clock_offset()),
        PhysicalTimer::Deadline => cpu::physical_deadline(),
        // The time that is left is the same for all clocks.
        PhysicalTimer::Left => CNTP_TVAL_EL0.get(),
        PhysicalTimer::Control => CNTP_CTL_EL0.get(),
    }
}

fn write_timer(register: PhysicalTimer, value: u64) {
    match register {
        PhysicalTimer::Counter => {}
        PhysicalTimer::Deadline => cpu::set_physical_deadline(value, cpu::clock_offset()),
        PhysicalTimer::Left => CNTP_TVAL_EL0.set(value),
        PhysicalTimer::Control => CNTP_CTL_EL0.set(value),
    }
}

/// A GICv3's SGI; on GICv2 nothing comes of it.
#[inline(never)]
fn send_sgi(vcpu: &'static Vcpu, value: u64, register: SgiRegister) {
    skip();
    if let Some(gic::Hardware::V3(mut hardware)) = gic::hardware()
        && !vcpu.vm.vgic.lock().send_again_v3(vcpu.id, value, register, &mut hardware)
    {
        send_sgis(vcpu, value, register);
    }
}

/// The same, where it isn't the common case.
#[inline(never)]
fn send_sgis(vcpu: &'static Vcpu, value: u64, register: SgiRegister) {
    let kicks = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        let kicks = vgic.send_sgi_v3(vcpu.id, value, register);
        vgic.settle(vcpu.id, kicks, &mut hardware)
    });
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE));
}

/// Cache maintenance by set and way means "all of it": the VM's memory is cleaned once, a piece at each execution of
/// the instruction, which runs again until that is done. From then on stage 1's registers are watched: until the caches
/// are turned on or off, more of it changes nothing (DESIGN.md, Memory).
fn set_way(vcpu: &'static Vcpu) {
    if vcpu.watches_caches() {
        return skip();
    }
    if vcpu.vm.clean_some(&vcpu.cleaned) {
        vcpu.watch_caches(true);
        skip();
    }
}

/// SCTLR_EL1.C and M: the caches are used where both are set.
const CACHES_ON: u64 = 1 << 2 | 1;

/// A write to one of stage 1's registers, trapped since set-and-way maintenance was seen.
fn write_stage_one(vcpu: &'static Vcpu, register: StageOne, value: u64) {
    match register {
        StageOne::Sctlr => {
            let on = |sctlr: u64| sctlr & CACHES_ON == CACHES_ON;
            let toggles = on(SCTLR_EL1.get()) != on(value);
            // What was written with the caches in one state must be seen in the other.
            if toggles && !vcpu.vm.clean_some(&vcpu.cleaned) {
                return;
            }
            SCTLR_EL1.set(value);
            if on(value) {
                vcpu.watch_caches(false);
            }
        }
        StageOne::Ttbr0 => TTBR0_EL1.set(value),
        StageOne::Ttbr1 => TTBR1_EL1.set(value),
        StageOne::Tcr => TCR_EL1.set(value),
        StageOne::Esr => ESR_EL1.set(value),
        StageOne::Far => FAR_EL1.set(value),
        StageOne::Afsr0 => AFSR0_EL1.set(value),
        StageOne::Afsr1 => AFSR1_EL1.set(value),
        StageOne::Mair => MAIR_EL1.set(value),
        StageOne::Amair => AMAIR_EL1.set(value),
        StageOne::Contextidr => write_sysreg!("CONTEXTIDR_EL1", value),
    }
    skip();
}

#[unsafe(no_mangle)]
extern "C" fn handle_data_abort(frame: &mut Frame, esr: Esr) {
    let Some(vcpu) = exits(own(), esr) else { return };
    let abort = Abort(esr);
    if abort.may_be_device()
        && let Some(hit) = vcpu.vm.mmio.find(faulting_ipa())
    {
        vcpu.trace.count(Reason::Mmio);
        return match abort.access() {
            // A 32-bit program's access is stepped over otherwise.
            Some(access) if SPSR_EL2.get() & step::PSTATE_AARCH32 == 0 => {
                mmio::access(vcpu, frame, hit, access);
            }
            _ => mmio::other_access(vcpu, frame, abort, hit),
        };
    }
    memory_fault(vcpu, frame, abort);
}

#[inline(never)]
fn memory_fault(vcpu: &'static Vcpu, frame: &mut Frame, abort: Abort) {
    vcpu.trace.count(Reason::Abort);
    // WnR is set for cache maintenance too, which needs what a store needs where it may drop what was written.
    let access = if abort.is_write() { stage2::Access::Write } else { stage2::Access::Read };
    match resolve(vcpu, abort, access) {
        Resolved::Again => {}
        Resolved::Refused(ipa) if vcpu.vm.has_flash() => flash(vcpu, frame, abort, ipa),
        Resolved::Refused(_) | Resolved::NoFault => reject_data(vcpu, abort),
    }
}

/// What stage 2 says of an access that came here.
enum Resolved {
    /// The guest may try again: stage 2 allows the access, now or again.
    Again,
    /// It doesn't, at this address.
    Refused(Ipa),
    /// It wasn't stage 2 that stopped it.
    NoFault,
}

fn resolve(vcpu: &'static Vcpu, abort: Abort, access: stage2::Access) -> Resolved {
    match abort.fault() {
        Fault::Translation | Fault::AccessFlag | Fault::Permission => {}
        Fault::AddressSize | Fault::External | Fault::Other => return Resolved::NoFault,
    }
    let ipa = if abort.hpfar_is_valid() { Some(faulting_ipa()) } else { guest_ipa(FAR_EL2.get()) };
    match ipa {
        Some(ipa) if !vcpu.vm.resolve(ipa, access) => Resolved::Refused(ipa),
        // Where stage 1 doesn't lead there any more, another vCPU has changed it: the access will tell.
        _ => Resolved::Again,
    }
}

/// Where stage 2 refuses an access, there may be flash whose chips see to it.
#[inline(never)]
fn flash(vcpu: &'static Vcpu, frame: &mut Frame, abort: Abort, ipa: Ipa) {
    let access = abort.access().filter(|_| {
        // As in `handle_data_abort`.
        !abort.on_table_walk() && SPSR_EL2.get() & step::PSTATE_AARCH32 == 0
    });
    let attempt = match access {
        _ if abort.is_cache_maintenance() => Attempt::Maintenance,
        Some(access) if access.is_write() => {
            Attempt::Store { size: access.bytes(), value: mmio::stored(frame, access) }
        }
        Some(access) => Attempt::Load { size: access.bytes() },
        None if abort.is_write() => return reject_data(vcpu, abort),
        None => Attempt::Other,
    };
    match vcpu.vm.access_flash(ipa, attempt) {
        Outcome::Again => {}
        Outcome::Done => skip(),
        Outcome::Value(value) => {
            if let Some(access) = access {
                mmio::give(frame, access, value);
            }
        }
        Outcome::Refused => reject_data(vcpu, abort),
    }
}

/// The IPA of one of the guest's virtual addresses, by its stage 1 as it is now; `None` where that has no translation. For
/// faults that leave HPFAR_EL2 unknown, for instructions, and for reports.
pub fn guest_ipa(address: u64) -> Option<Ipa> {
    translate(address, false, false).ok()
}

/// What stage 1 makes of a guest's virtual address for a load or store at EL0 or EL1: its IPA, or the status of the fault (DFSC).
/// PSTATE.PAN is left out of it: to look by that takes an instruction that not every CPU has.
pub fn translate(address: u64, at_el0: bool, write: bool) -> Result<Ipa, u8> {
    macro_rules! at {
        ($access:literal) => {{
            // SAFETY: the instruction reads the guest's tables through its own stage 2, and writes PAR_EL1 alone.
            unsafe { core::arch::asm!(concat!("at ", $access, ", {}"), in(reg) address, options(nostack)) };
        }};
    }
    let kept = PAR_EL1.get();
    match (at_el0, write) {
        (true, false) => at!("s1e0r"),
        (true, true) => at!("s1e0w"),
        (false, false) => at!("s1e1r"),
        (false, true) => at!("s1e1w"),
    }
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
    let par = PAR_EL1.get();
    PAR_EL1.set(kept);
    stage_one::translated(par, address)
}

/// The IPA that HPFAR_EL2 and FAR_EL2 tell, where the former is valid.
#[inline]
pub fn faulting_ipa() -> Ipa {
    // HPFAR_EL2.FIPA, bits 43:4, are bits 51:12 of the address.
    Ipa::new((HPFAR_EL2.get() & 0xfff_ffff_fff0) << 8 | FAR_EL2.get() & 0xfff)
}

/// Nothing is there for the guest, or the access doesn't describe itself: an external abort.
pub fn reject_data(vcpu: &'static Vcpu, abort: Abort) {
    inject(Exception::DataAbort {
        far: (!abort.far_not_valid()).then(|| FAR_EL2.get()),
        write: abort.is_write(),
        cache_maintenance: abort.is_cache_maintenance(),
        status: external_abort(walk_level(vcpu, abort)),
    });
}

/// The level of stage 1 at which a walk of the guest's came to where nothing is for it. The syndrome has that of stage 2 alone: the
/// guest's tables tell, unless another vCPU has changed them meanwhile. Then it is the last one, which is the likeliest.
fn walk_level(vcpu: &'static Vcpu, abort: Abort) -> Option<u8> {
    if abort.on_table_walk() { Some(level_of_walk(vcpu)) } else { None }
}

#[inline(never)]
fn level_of_walk(vcpu: &'static Vcpu) -> u8 {
    const SCTLR_EE: u64 = 1 << 25;
    let regime = stage_one::StageOne {
        tcr: TCR_EL1.get(),
        ttbr: [TTBR0_EL1.get(), TTBR1_EL1.get()],
        big_endian: SCTLR_EL1.get() & SCTLR_EE != 0,
    };
    let level = regime.level_in_page(FAR_EL2.get(), faulting_ipa(), |ipa| {
        let mut descriptor = [0; 8];
        vcpu.vm.read(ipa, &mut descriptor).then(|| u64::from_le_bytes(descriptor))
    });
    level.unwrap_or(3)
}

fn instruction_abort(vcpu: &'static Vcpu, abort: Abort) {
    match resolve(vcpu, abort, stage2::Access::Execute) {
        Resolved::Again => return,
        Resolved::Refused(ipa) if vcpu.vm.access_flash(ipa, Attempt::Other) == Outcome::Again => return,
        Resolved::Refused(_) | Resolved::NoFault => {}
    }
    inject(Exception::InstructionAbort {
        far: (!abort.far_not_valid()).then(|| FAR_EL2.get()),
        status: external_abort(walk_level(vcpu, abort)),
    });
}
