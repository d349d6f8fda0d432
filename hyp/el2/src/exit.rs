//! Exits: what brought a guest to EL2 is decoded by `vmm`, and done here.
//!
//! Nothing here loops over what a guest can make large, allocates, or can fail: an access that isn't allowed is
//! answered as hardware would answer it.

use aarch64_cpu::registers::*;
use abi::record;
use platform::power::psci;
use tock_registers::interfaces::{Readable, Writeable};
use vgic::{Kicks, VcpuId, Width};
use vmm::devices::Device;
use vmm::esr::{Abort, Access, Esr, Fault, SysregAccess, ec};
use vmm::inject::{Exception, Interrupted};
use vmm::layout::Ipa;
use vmm::smccc::{self, Answer, StolenTime};
use vmm::step;
use vmm::sysreg::{Action, Identity, PhysicalTimer, StageOne};

use crate::gic::with_hardware;
use crate::percpu::own;
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::trace::Reason;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::{calls, cpu, interrupts, run, timer};

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
        match n & 31 {
            31 => 0,
            n => self.x.get(usize::from(n)).copied().unwrap_or(0),
        }
    }

    /// Sets Xn; n = 31 is XZR and has no effect.
    #[inline]
    pub fn set(&mut self, n: u8, value: u64) {
        // The last slot of the frame is nobody's.
        if let Some(register) = self.x.get_mut(usize::from(n & 31)) {
            *register = value;
        }
    }

    /// X0 to X4.
    #[inline]
    fn arguments(&self) -> &[u64; 5] {
        self.x.first_chunk().unwrap_or(&[0; 5])
    }

    /// X0 to X30.
    pub fn registers(&self) -> &[u64] {
        self.x.first_chunk::<31>().map_or(&[], |registers| registers)
    }
}

/// Steps over the trapped instruction, an AArch64 one. HVC needs no step.
#[inline]
fn skip() {
    let before = SPSR_EL2.get();
    let (pc, pstate) = step::over_aarch64(ELR_EL2.get(), before);
    ELR_EL2.set(pc);
    if pstate != before {
        SPSR_EL2.set(pstate);
    }
}

#[unsafe(no_mangle)]
extern "C" fn handle_sync(frame: &mut Frame) {
    let esr = Esr(ESR_EL2.get());
    let Some(vcpu) = own().vcpu.get() else { return };
    vcpu.trace.exit(esr.0, ELR_EL2.get());
    match esr.class() {
        ec::HVC64 => {
            vcpu.trace.count(Reason::Hvc);
            call(vcpu, frame, esr);
        }
        ec::SMC64 => {
            vcpu.trace.count(Reason::Smc);
            skip();
            call(vcpu, frame, esr);
        }
        ec::SYSREG => {
            vcpu.trace.count(Reason::Sysreg);
            system_register(vcpu, frame, esr);
        }
        ec::DATA_ABORT_LOWER => data_abort(vcpu, frame, Abort(esr)),
        ec::INSTRUCTION_ABORT_LOWER => {
            vcpu.trace.count(Reason::Abort);
            instruction_abort(vcpu, Abort(esr));
        }
        ec::WFX => {
            vcpu.trace.count(Reason::Wfx);
            wait(vcpu, frame, esr);
        }
        // Nothing else is set to trap; a feature that is newer than this code may trap by default, and isn't shown.
        _ => {
            vcpu.trace.count(Reason::Other);
            inject(Exception::Undefined);
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn handle_irq(frame: &mut Frame) {
    if let Some(vcpu) = own().vcpu.get() {
        vcpu.trace.exit(0, ELR_EL2.get());
        vcpu.trace.count(Reason::Interrupt);
    }
    interrupts::take();
    run::go_on(frame);
}

#[unsafe(no_mangle)]
extern "C" fn handle_serror(frame: &mut Frame) {
    // Taken while this guest ran; it may have been caused by something earlier, which can't be told without RAS. The VM
    // that ran stops, the others go on.
    if let Some(vcpu) = own().vcpu.get() {
        vcpu.trace.count(Reason::Other);
        vcpu.vm.crash(vcpu, record::crash::SERROR);
    }
    run::leave_if_stopped(frame);
}

/// WFI or WFE of a vCPU that shares its CPU, at EL0 of an AArch32 program too.
fn wait(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr) {
    let (pc, pstate) = step::over(ELR_EL2.get(), SPSR_EL2.get(), esr.is_long());
    ELR_EL2.set(pc);
    SPSR_EL2.set(pstate);
    if esr.is_wfe() { run::pass(vcpu, frame) } else { run::sleep(vcpu, frame) }
}

/// Takes an exception to the guest's EL1.
fn inject(exception: Exception) {
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

#[inline]
fn call(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr) {
    if esr.immediate() != 0 {
        // SMCCC 2.9: the immediate is zero; other values are nobody's here.
        frame.set(0, smccc::UNKNOWN);
        return;
    }
    match smccc::call(frame.arguments(), &own().mitigations.get()) {
        Answer::Return(value) => frame.set(0, value),
        Answer::Return4(values) => {
            for (n, value) in (0..).zip(values) {
                frame.set(n, value);
            }
        }
        Answer::Mitigate(mitigation) => {
            psci::mitigate(mitigation_of(mitigation));
            frame.set(0, 0);
        }
        Answer::Power(request) => run::power(vcpu, frame, request),
        Answer::Own(request) => calls::answer(vcpu, frame, request),
        Answer::StolenTime(question) => {
            let answer = match (vcpu.vm.share, question) {
                (None, _) => smccc::UNKNOWN,
                (Some(_), StolenTime::Feature) => 0,
                (Some(_), StolenTime::Address) => vmm::stolen_time::record(vcpu.vm.layout, vcpu.id).as_u64(),
            };
            frame.set(0, answer);
        }
    }
}

fn mitigation_of(mitigation: smccc::Mitigation) -> psci::Mitigation {
    match mitigation {
        smccc::Mitigation::Workaround1 => psci::Mitigation::Workaround1,
        smccc::Mitigation::Workaround2 { enable } => psci::Mitigation::Workaround2 { enable },
        smccc::Mitigation::Workaround3 => psci::Mitigation::Workaround3,
    }
}

#[inline]
fn system_register(vcpu: &'static Vcpu, frame: &mut Frame, esr: Esr) {
    let access = SysregAccess::decode(esr);
    let value = match vmm::sysreg::action(access.register, access.read) {
        Action::IdRegister(index) => vcpu.vm.ids.get(index),
        Action::Identity(Identity::Revidr) => read_sysreg!("REVIDR_EL1"),
        Action::Identity(Identity::Aidr) => read_sysreg!("AIDR_EL1"),
        Action::Constant(value) => value,
        Action::Ignored => return skip(),
        Action::Sgi(register) => {
            send_sgi(vcpu, frame.get(access.rt), register);
            return skip();
        }
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
        Action::Debug if vcpu.open_breakpoints() => return,
        Action::Debug | Action::Undefined => return inject(Exception::Undefined),
    };
    frame.set(access.rt, value);
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
        PhysicalTimer::Deadline => cpu::set_physical_deadline(value),
        PhysicalTimer::Left => CNTP_TVAL_EL0.set(value),
        PhysicalTimer::Control => CNTP_CTL_EL0.set(value),
    }
}

fn send_sgi(vcpu: &'static Vcpu, value: u64, register: vgic::SgiRegister) {
    let kicks = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        let kicks = vgic.send_sgi_v3(vcpu.id, value, register);
        kicks.without(vcpu.id) | vgic.sync(vcpu.id, &mut hardware)
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

#[inline]
fn data_abort(vcpu: &'static Vcpu, frame: &mut Frame, abort: Abort) {
    if abort.hpfar_is_valid()
        && !abort.on_table_walk()
        && !abort.is_cache_maintenance()
        && let Some(access) = abort.access()
        // What a 32-bit program's access is to be stepped over by isn't said; it has no business with devices.
        && SPSR_EL2.get() & step::PSTATE_AARCH32 == 0
        && let Some(hit) = vcpu.vm.mmio.find(faulting_ipa())
    {
        vcpu.trace.count(Reason::Mmio);
        return mmio(vcpu, frame, hit.device, hit.offset, access);
    }
    vcpu.trace.count(Reason::Abort);
    // WnR is set for cache maintenance too, which needs what a store needs where it may drop what was written.
    let access = if abort.is_write() { stage2::Access::Write } else { stage2::Access::Read };
    if !resolve(vcpu, abort, access) {
        reject_data(abort);
    }
}

/// Whether the guest may try again: stage 2 allows the access, now or again.
fn resolve(vcpu: &'static Vcpu, abort: Abort, access: stage2::Access) -> bool {
    match abort.fault() {
        Fault::Translation | Fault::AccessFlag | Fault::Permission => {}
        Fault::AddressSize | Fault::External | Fault::Other => return false,
    }
    let ipa = if abort.hpfar_is_valid() { Some(faulting_ipa()) } else { guest_ipa(FAR_EL2.get()) };
    // Where stage 1 doesn't lead there any more, another vCPU has changed it: the access will tell.
    ipa.is_none_or(|ipa| vcpu.vm.resolve(ipa, access))
}

/// The IPA of one of the guest's virtual addresses, by its stage 1 as it is now; `None` where that has no translation. For
/// faults that leave HPFAR_EL2 unknown, and for reports.
pub fn guest_ipa(address: u64) -> Option<Ipa> {
    let kept = PAR_EL1.get();
    // SAFETY: the instruction reads the guest's tables through its own stage 2, and writes PAR_EL1 alone.
    unsafe { core::arch::asm!("at s1e1r, {}", in(reg) address, options(nostack)) };
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
    let par = PAR_EL1.get();
    PAR_EL1.set(kept);
    let translated = par & PAR_F == 0;
    translated.then(|| Ipa::new(par & 0xf_ffff_ffff_f000 | address & 0xfff))
}

/// PAR_EL1.F: the translation failed.
const PAR_F: u64 = 1;

/// The IPA that HPFAR_EL2 and FAR_EL2 tell, where the former is valid.
#[inline]
fn faulting_ipa() -> Ipa {
    // HPFAR_EL2.FIPA, bits 43:4, are bits 51:12 of the address.
    Ipa::new((HPFAR_EL2.get() & 0xfff_ffff_fff0) << 8 | FAR_EL2.get() & 0xfff)
}

/// Nothing is there for the guest, or the access doesn't describe itself: an external abort.
fn reject_data(abort: Abort) {
    inject(Exception::DataAbort {
        far: (!abort.far_not_valid()).then(|| FAR_EL2.get()),
        write: abort.is_write(),
        cache_maintenance: abort.is_cache_maintenance(),
        walk_level: abort.on_table_walk().then_some(WALK_LEVEL),
    });
}

/// The level that an abort on a stage-1 walk reports. The syndrome that EL2 gets has the level of stage 2 alone; a walk's
/// last level is the likeliest.
const WALK_LEVEL: u8 = 3;

fn instruction_abort(vcpu: &'static Vcpu, abort: Abort) {
    if resolve(vcpu, abort, stage2::Access::Execute) {
        return;
    }
    inject(Exception::InstructionAbort {
        far: (!abort.far_not_valid()).then(|| FAR_EL2.get()),
        walk_level: abort.on_table_walk().then_some(WALK_LEVEL),
    });
}

/// Bytes of a vCPU's redistributor in the guest's map.
const REDISTRIBUTOR_SHIFT: u32 = 17;

#[inline]
fn mmio(vcpu: &'static Vcpu, frame: &mut Frame, device: Device, offset: u32, access: Access) {
    let value = access.truncate(frame.get(access.register));
    match device {
        Device::Gicd | Device::Gicr => return gic_access(vcpu, frame, device, offset, access, value),
        // The devices behind a 32-bit bus: a doubleword access reaches the one register.
        Device::Uart => {
            if access.write {
                vcpu.vm.uart_write(offset, value as u32);
            } else {
                let value = vcpu.vm.uart_read(offset);
                frame.set(access.register, access.extend(u64::from(value)));
            }
        }
        Device::Rtc => {
            let now = timer::now();
            if access.write {
                vcpu.vm.rtc_write(offset, value as u32, now);
            } else {
                let value = vcpu.vm.rtc_read(offset, now);
                frame.set(access.register, access.extend(u64::from(value)));
            }
        }
    }
    skip();
}

#[inline]
fn gic_access(
    vcpu: &'static Vcpu,
    frame: &mut Frame,
    device: Device,
    offset: u32,
    access: Access,
    value: u64,
) {
    let width = match access.bytes {
        1 => Width::Byte,
        2 => Width::Half,
        4 => Width::Word,
        _ => Width::Double,
    };
    let vm: &Vm = vcpu.vm;
    let (mut read, mut kicks) = (Some(0), Kicks::NONE);
    let redistributor = VcpuId((offset >> REDISTRIBUTOR_SHIFT) as u8);
    let within = u64::from(offset & ((1 << REDISTRIBUTOR_SHIFT) - 1));
    with_hardware!(|hardware| {
        let mut vgic = vm.vgic.lock();
        match (device, access.write) {
            (Device::Gicd, true) => {
                kicks = vgic.distributor_write(vcpu.id, u64::from(offset), width, value, &mut hardware);
            }
            (Device::Gicd, false) => {
                let answer = vgic.distributor_read(vcpu.id, u64::from(offset), width, &mut hardware);
                (read, kicks) = (answer.value, answer.kicks);
            }
            (_, true) => {
                kicks = vgic.redistributor_write(redistributor, vcpu.id, within, width, value, &mut hardware);
            }
            (_, false) => {
                let answer = vgic.redistributor_read(redistributor, vcpu.id, within, width, &mut hardware);
                (read, kicks) = (answer.value, answer.kicks);
            }
        }
        if !kicks.is_empty() {
            kicks = kicks.without(vcpu.id) | vgic.sync(vcpu.id, &mut hardware);
        }
    });
    vm.kick(kicks);
    // `None`: another CPU has to look first, and the guest's load is executed again.
    let Some(read) = read else { return };
    if !access.write {
        frame.set(access.register, access.extend(read));
    }
    skip();
}
