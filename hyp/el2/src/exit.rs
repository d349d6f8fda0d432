//! Exits: what brought a guest to EL2 is decoded by `vmm`, and done here.
//!
//! Nothing here loops over what a guest can make large, allocates, or can fail: an access that isn't allowed is
//! answered as hardware would answer it.
//!
//! `vectors.s` comes here by exception class. What a handler has to do often is in the handler itself; for the rest it goes
//! to a function of its own as its last step, so that the short way saves no registers for the long one.

use core::ops::{Deref, DerefMut};

use aarch64_cpu::registers::*;
use abi::smccc::SUCCESS;
use tock_registers::interfaces::{Readable, Writeable};
use vgic::{Kicks, SgiRegister};
use vmm::devices::Hit;
use vmm::esr::{Abort, Access, CoprocessorAccess, Esr, Fault, SysregAccess, ec};
use vmm::inject::{Exception, Interrupted, external_abort};
use vmm::layout::Ipa;
use vmm::sched::Change;
use vmm::smccc::{self, Answer, Call, Offers, StolenTime};
use vmm::sysreg::{Action, Common, Identity, PhysicalTimer, StageOne};
use vmm::{stage_one, step};

use crate::gic::{CpuGic, with_hardware};
use crate::percpu::{Own, own};
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::trace::Reason;
use crate::vcpu::Vcpu;
use crate::vm::{Attempt, Outcome};
use crate::{aarch32, calls, cpu, crash, gic, interrupts, mmio, run, serror, smp, timer};

/// A guest's general-purpose registers on EL2's stack, as `vectors.s` saves them for an exit that goes back to where it came from: those
/// that it may ask for. X20 to X27 aren't there; the syndrome names one of them only in an exit that has a [`Frame`].
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Short {
    x: [u64; 32],
}

/// All of them: who has this may ask for any, and may change to another vCPU.
#[derive(Clone, Debug, Default)]
#[repr(transparent)]
pub struct Frame(Short);

impl Deref for Frame {
    type Target = Short;

    #[inline]
    fn deref(&self) -> &Short {
        &self.0
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut Short {
        &mut self.0
    }
}

impl Frame {
    /// X0 to X30.
    pub fn registers(&self) -> &[u64] {
        self.x.first_chunk::<31>().map_or(&[], |registers| registers)
    }
}

impl Short {
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
}

/// Steps over the trapped instruction, an AArch64 one. HVC needs no step.
#[inline]
pub fn skip() {
    let pstate = SPSR_EL2.get();
    let (pc, next) = step::over_aarch64(ELR_EL2.get(), pstate);
    ELR_EL2.set(pc);
    if step::changes(pstate) {
        SPSR_EL2.set(next);
    }
}

/// Who exits, noted in its trace by the syndrome, which is 0 for an interrupt.
#[inline(always)]
fn exits(own: &'static Own, esr: Esr) -> &'static Vcpu {
    let Some(vcpu) = own.vcpu.get() else { crash::of_nobody(esr) };
    vcpu.trace.exit(esr.0, ELR_EL2.get());
    vcpu
}

/// Returns what [`call`] does.
#[unsafe(no_mangle)]
extern "C" fn handle_hvc(esr: Esr, frame: &mut Short) -> u64 {
    let vcpu = exits(own(), esr);
    vcpu.trace.count(Reason::Hvc);
    call(frame, esr)
}

/// As [`handle_hvc`].
#[unsafe(no_mangle)]
extern "C" fn handle_smc(esr: Esr, frame: &mut Short) -> u64 {
    let vcpu = exits(own(), esr);
    vcpu.trace.count(Reason::Smc);
    skip();
    call(frame, esr)
}

/// All of AArch64 that isn't common enough for a handler of its own.
#[unsafe(no_mangle)]
extern "C" fn handle_other(esr: Esr, frame: &mut Frame) {
    let vcpu = exits(own(), esr);
    match esr.class() {
        ec::INSTRUCTION_ABORT_LOWER => instruction_abort(vcpu, Abort(esr)),
        ec::WFX => wait(vcpu, frame, esr),
        _ => undefined(vcpu),
    }
}

/// What a 32-bit program at a guest's EL0 does.
#[unsafe(no_mangle)]
extern "C" fn handle_aarch32(esr: Esr, frame: &mut Frame) {
    let vcpu = exits(own(), esr);
    if aarch32::is_nop(esr) {
        vcpu.trace.count(Reason::Other);
        return aarch32::skip(esr);
    }
    match esr.class() {
        ec::DATA_ABORT_LOWER => {
            let abort = Abort(esr);
            match device(vcpu, abort) {
                Some(hit) => aarch32::device(vcpu, frame, abort, hit),
                None => memory_fault(vcpu, frame, abort),
            }
        }
        ec::INSTRUCTION_ABORT_LOWER => instruction_abort(vcpu, Abort(esr)),
        ec::WFX => wait(vcpu, frame, esr),
        ec::CP14_MEMORY => {
            vcpu.trace.count(Reason::Sysreg);
            aarch32::debug(vcpu);
        }
        _ => match CoprocessorAccess::decode(esr) {
            Some(access) => {
                vcpu.trace.count(Reason::Sysreg);
                aarch32::coprocessor(vcpu, frame, esr, access);
            }
            None => undefined(vcpu),
        },
    }
}

/// Nothing else is set to trap; a feature that is newer than this code may trap by default, and isn't shown.
fn undefined(vcpu: &'static Vcpu) {
    vcpu.trace.count(Reason::Other);
    inject(Exception::Undefined);
}

#[unsafe(no_mangle)]
extern "C" fn handle_irq() {
    let own = own();
    let vcpu = exits(own, Esr(0));
    vcpu.trace.count(Reason::Interrupt);
    interrupts::take(own, Some(vcpu));
}

#[unsafe(no_mangle)]
extern "C" fn handle_serror(esr: Esr, frame: &mut Frame) {
    let vcpu = exits(own(), esr);
    vcpu.trace.count(Reason::Other);
    if serror::taken(vcpu, esr) {
        run::leave_if_stopped(frame);
    }
}

/// WFI or WFE of a vCPU that shares its CPU, at EL0 of an AArch32 program too.
fn wait(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr) {
    vcpu.trace.count(Reason::Wfx);
    aarch32::skip(esr);
    if esr.is_wfe() { run::schedule(frame, Change::Passes) } else { run::sleep(vcpu, frame) }
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

/// What [`call`] returns of a call that is answered; of one that gives way, for which `vectors.s` goes to [`run::schedule`]; and from here
/// on of others, by their [number](Call::number).
const ANSWERED: u64 = 0;
const GIVES_WAY: u64 = u64::MAX;
const FIRST_LEFT: u64 = 1;

/// Answers a call, if that takes no more than a moment, or leaves it to [`answer_call`].
#[inline(always)]
fn call(frame: &mut Short, esr: Esr) -> u64 {
    // SMCCC 2.9: the immediate is zero; other values are nobody's here.
    let call = if esr.immediate() == 0 { Call::named(frame.get(0)) } else { None };
    let Some(call) = call else {
        frame.set(0, smccc::UNKNOWN);
        return ANSWERED;
    };
    match call.at_once() {
        Some(Answer::Return(value)) => {
            frame.set(0, value);
            ANSWERED
        }
        Some(Answer::Yield) => {
            frame.set(0, SUCCESS as u64);
            GIVES_WAY
        }
        _ => FIRST_LEFT.wrapping_add(call.number().into()),
    }
}

/// A call whose answer takes longer: what [`call`] has left.
#[unsafe(no_mangle)]
extern "C" fn answer_call(left: u64, frame: &mut Frame) {
    let call = Call::numbered(left.wrapping_sub(FIRST_LEFT));
    if let (Some(vcpu), Some(call)) = (own().vcpu.get(), call) {
        answer(vcpu, frame, call);
    }
}

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
        // It has been seen to.
        Answer::Yield => {}
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
extern "C" fn handle_system_register(esr: Esr, frame: &mut Short) {
    let own = own();
    let vcpu = exits(own, esr);
    vcpu.trace.count(Reason::Sysreg);
    let access = SysregAccess::decode(esr);
    match vmm::sysreg::common(access.register, access.read) {
        Some(Common::IdRegister(index)) => {
            frame.set(access.rt, vcpu.vm.ids.get(index));
            skip();
        }
        Some(Common::Sgi1) => send_sgi(own, vcpu, frame.get(access.rt)),
        None => other_register(vcpu, frame, access),
    }
}

#[inline(never)]
pub fn other_register(vcpu: &'static Vcpu, frame: &mut Short, access: SysregAccess) {
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
        Action::Sgi(register) => {
            skip();
            return send_sgis(vcpu, frame.get(access.rt), register);
        }
        // ID registers are seen to already.
        Action::IdRegister(_) | Action::Undefined => return inject(Exception::Undefined),
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
fn finish_trapped(frame: &mut Short, from: SysregAccess, access: impl FnOnce(Option<u64>) -> Trapped) {
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

/// A GICv3's SGI of group 1; on GICv2 nothing comes of it.
#[inline(always)]
fn send_sgi(own: &'static Own, vcpu: &'static Vcpu, value: u64) {
    skip();
    if let Some(gic::Hardware::V3(mut hardware)) = own.gic.get().map(CpuGic::hardware)
        && let Some(mut vgic) = vcpu.vm.vgic.try_lock_weak()
        && vgic.send_again_v3(vcpu.id, value, &mut hardware)
    {
        return;
    }
    send_sgis(vcpu, value, SgiRegister::Sgi1r);
}

/// An SGI of either group, where it isn't the common case, or another CPU has to do with the VM's interrupts.
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

/// A data abort that the syndrome describes.
#[unsafe(no_mangle)]
extern "C" fn handle_data_abort(esr: Esr, frame: &mut Short) {
    let vcpu = exits(own(), esr);
    let abort = Abort(esr);
    match device(vcpu, abort) {
        Some(hit) => mmio::access(vcpu, frame, hit, Access::described_by(abort)),
        None => memory_fault(vcpu, frame, abort),
    }
}

/// Any data abort.
#[unsafe(no_mangle)]
extern "C" fn handle_any_data_abort(esr: Esr, frame: &mut Frame) {
    let vcpu = exits(own(), esr);
    let abort = Abort(esr);
    match (device(vcpu, abort), abort.access()) {
        (Some(hit), Some(access)) => mmio::any_access(vcpu, frame, hit, access),
        (Some(hit), None) => mmio::by_instruction(vcpu, frame, abort, hit),
        (None, _) => memory_fault(vcpu, frame, abort),
    }
}

/// The emulated device that the access was meant for; then it counts as such.
#[inline(always)]
fn device(vcpu: &'static Vcpu, abort: Abort) -> Option<Hit> {
    let hit = if abort.may_be_device() { vcpu.vm.mmio.find(faulting_ipa()) } else { None }?;
    vcpu.trace.count(Reason::Mmio);
    Some(hit)
}

#[inline(never)]
fn memory_fault(vcpu: &'static Vcpu, frame: &mut Short, abort: Abort) {
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
fn flash(vcpu: &'static Vcpu, frame: &mut Short, abort: Abort, ipa: Ipa) {
    let access = abort.access().filter(|_| {
        // A 32-bit program's access would be stepped over otherwise.
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
    vcpu.trace.count(Reason::Abort);
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
