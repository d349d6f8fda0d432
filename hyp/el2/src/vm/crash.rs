//! Crashes of VMs: what is noted when one happens, what is told of it, and what becomes of the VM.

use core::sync::atomic::Ordering;

use aarch64_cpu::registers::{ESR_EL2, FAR_EL2, HPFAR_EL2};
use abi::record::{CrashRecord, crash};
use tock_registers::interfaces::Readable;
use vgic::VcpuId;
use vmm::esr::Esr;
use vmm::life::{Crashes, Event, Verdict};
use vmm::psci::PowerState;

use super::Vm;
use crate::vcpu::Vcpu;
use crate::{interrupts, timer};

/// A VM's crashes.
pub struct Crashed {
    /// What is decided by.
    pub crashes: Crashes,
    /// Of the last one: why, which vCPU, when, and what brought it to EL2. The rest is added when all vCPUs have left.
    pub report: CrashRecord,
}

impl Crashed {
    /// None yet.
    pub fn new() -> Self {
        Self { crashes: Crashes::default(), report: CrashRecord::from_words(&[]) }
    }
}

impl Vm {
    /// It crashes by what this vCPU, which is loaded here, is at.
    pub fn crash(&self, vcpu: &Vcpu, why: u64) {
        let (esr, far, hpfar) = (ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get());
        let noted = CrashRecord::from_words(&[why, vcpu.id.0.into(), timer::now(), esr, 0, 0, far, hpfar]);
        self.crash_with(noted);
    }

    /// It has not fed its watchdog. Which vCPU is to blame can't be told; vCPU 0 is reported in full.
    pub fn crash_by_watchdog(&self, now: u64) {
        self.crash_with(CrashRecord::from_words(&[crash::WATCHDOG, 0, now]));
    }

    fn crash_with(&self, noted: CrashRecord) {
        // Whoever goes on with it waits for this lock, and then finds all of it.
        let mut crashed = self.crashed.lock();
        if self.change(Event::Crash) {
            crashed.report = noted;
        }
    }

    /// All vCPUs have left: tells what they were at, and decides what becomes of the VM.
    pub fn judge(&self) {
        let mut crashed = self.crashed.lock();
        let Crashed { crashes, report } = &mut *crashed;
        if let Some(vcpu) = self.vcpus().get(report.vcpu as usize) {
            vcpu.describe(report);
        }
        log::error!("{} crashed: {}", self.name, crash::name(report.why));
        self.tell(report);
        let ticks = report.at.saturating_sub(self.loaded_at.load(Ordering::Relaxed));
        let ran_ms = ticks.saturating_mul(1000).checked_div(timer::frequency()).unwrap_or(0);
        match crashes.crashed(self.policy.on_crash, ran_ms) {
            Verdict::Stop => self.change(Event::Discard),
            Verdict::GiveUp(times) => {
                log::error!("{} has been restarted {times} times in a row: it stays off", self.name);
                self.change(Event::Discard)
            }
            Verdict::Preserve => {
                log::info!("{} keeps its memory as it was", self.name);
                self.change(Event::Preserve)
            }
            Verdict::Restart(ms) => {
                log::info!("{} starts afresh in {ms} ms", self.name);
                let wait = timer::ticks(u64::from(ms).saturating_mul(1000));
                self.due.store(timer::now().saturating_add(wait), Ordering::Relaxed);
                self.change(Event::BackOff)
            }
        };
        drop(crashed);
        interrupts::see_to_alarms();
    }

    /// The report, for people.
    fn tell(&self, report: &CrashRecord) {
        let name = &self.name;
        let CrashRecord { vcpu, esr, pc, pstate, far, hpfar, instruction, x, sp, el1, system, .. } = report;
        if *esr != 0 {
            log::error!("{name}:   esr {:?} far {far:#x} hpfar {hpfar:#x}", Esr(*esr));
        }
        log::error!(
            "{name}:   vCPU {vcpu}: pc {pc:#x} pstate {pstate:#x} sp_el0 {:#x} sp_el1 {:#x}",
            sp[0],
            sp[1]
        );
        if instruction >> 32 & 1 != 0 {
            log::error!("{name}:   the instruction at pc is {:08x}", *instruction as u32);
        }
        for (row, values) in x.chunks(4).enumerate() {
            log::error!("{name}:   x{}.. {values:016x?}", row.wrapping_mul(4));
        }
        let [elr, spsr, esr, far] = el1;
        log::error!("{name}:   elr_el1 {elr:#x} spsr_el1 {spsr:#x} esr_el1 {:?} far_el1 {far:#x}", Esr(*esr));
        let [sctlr, vbar, ttbr0, ttbr1] = system;
        log::error!(
            "{name}:   sctlr_el1 {sctlr:#x} vbar_el1 {vbar:#x} ttbr0_el1 {ttbr0:#x} ttbr1_el1 {ttbr1:#x}"
        );
        let exits = report.exit.chunks_exact(2).take(report.exits as usize);
        for (number, exit) in exits.enumerate().take(TOLD) {
            let &[esr, pc] = exit else { continue };
            let before = number.saturating_add(1);
            match esr {
                0 => log::error!("{name}:   exit -{before}: interrupt, pc {pc:#x}"),
                _ => log::error!("{name}:   exit -{before}: {:?}, pc {pc:#x}", Esr(esr)),
            }
        }
        let others = self.vcpus().iter().filter(|other| u64::from(other.id.0) != *vcpu);
        for other in others {
            self.tell_of(other.id, other);
        }
    }

    fn tell_of(&self, id: VcpuId, vcpu: &Vcpu) {
        let name = &self.name;
        if self.power.lock().state(id) == PowerState::Off {
            return;
        }
        let mut report = CrashRecord::from_words(&[]);
        vcpu.describe(&mut report);
        log::error!("{name}:   vCPU {}: pc {:#x} pstate {:#x}", id.0, report.pc, report.pstate);
    }
}

/// Exits that are told to people; the record has them all.
const TOLD: usize = 8;
