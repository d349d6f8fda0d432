//! Crashes of VMs: what is noted when one happens, what is told of it, and what becomes of the VM.

use core::sync::atomic::Ordering;

use aarch64_cpu::registers::{ESR_EL2, FAR_EL2, HPFAR_EL2};
use abi::record::{CrashRecord, crash};
use tock_registers::interfaces::Readable;
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
    /// What was decided then.
    verdict: Verdict,
    /// Lines of it that were told.
    told: usize,
}

impl Crashed {
    /// None yet.
    pub fn new() -> Self {
        Self {
            crashes: Crashes::default(),
            report: CrashRecord::from_words(&[]),
            verdict: Verdict::Stop,
            told: 0,
        }
    }
}

impl Vm {
    /// It crashes by what this vCPU, which is loaded here, is at.
    pub fn crash(&self, vcpu: &Vcpu, why: u64) {
        let (esr, far, hpfar) = (ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get());
        self.crash_with(CrashRecord::from_words(&[
            why,
            vcpu.id.0.into(),
            timer::now(),
            esr,
            0,
            0,
            far,
            hpfar,
        ]));
    }

    /// It crashes by an SError of this vCPU's, which is or was loaded here.
    pub fn crash_by_serror(&self, vcpu: &Vcpu, esr: Esr) {
        self.crash_with(CrashRecord::from_words(&[crash::SERROR, vcpu.id.0.into(), timer::now(), esr.0]));
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

    /// All vCPUs have left: tells what they were at, a line at each call, and then decides what becomes of the VM.
    pub fn judge(&self) {
        let mut crashed = self.crashed.lock();
        let Crashed { crashes, report, verdict, told } = &mut *crashed;
        if *told == 0 {
            if let Some(vcpu) = self.vcpus().get(report.vcpu as usize) {
                vcpu.describe(report);
            }
            let ticks = report.at.saturating_sub(self.loaded_at.load(Ordering::Relaxed));
            let ran_ms = ticks.saturating_mul(1000).checked_div(timer::frequency()).unwrap_or(0);
            *verdict = crashes.crashed(self.policy.on_crash, ran_ms);
        }
        if self.tell(report, *told) {
            *told = told.saturating_add(1);
            return;
        }
        *told = 0;
        match *verdict {
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

    /// A line of the report, for people. False: there is none with this number.
    fn tell(&self, report: &CrashRecord, line: usize) -> bool {
        const REGISTERS: usize = 4;
        const EL1: usize = REGISTERS + ROWS;
        const EXITS: usize = EL1 + 2;
        const OTHERS: usize = EXITS + TOLD;
        let name = &self.name;
        let CrashRecord { vcpu, pc, x, sp, .. } = report;
        match line {
            0 => log::error!("{name} crashed: {}", crash::name(report.why)),
            1 if report.esr != 0 => {
                let CrashRecord { esr, far, hpfar, .. } = report;
                log::error!("{name}:   esr {:?} far {far:#x} hpfar {hpfar:#x}", Esr(*esr));
            }
            2 => {
                let [sp0, sp1] = sp;
                let pstate = report.pstate;
                log::error!(
                    "{name}:   vCPU {vcpu}: pc {pc:#x} pstate {pstate:#x} sp_el0 {sp0:#x} sp_el1 {sp1:#x}"
                );
            }
            3 if report.instruction >> 32 & 1 != 0 => {
                log::error!("{name}:   the instruction at pc is {:08x}", report.instruction as u32);
            }
            1 | 3 => {}
            REGISTERS..EL1 => {
                let first = line.saturating_sub(REGISTERS).wrapping_mul(IN_A_ROW);
                let row = x.get(first..).unwrap_or(&[]);
                let row = row.get(..IN_A_ROW).unwrap_or(row);
                log::error!("{name}:   x{first}.. {row:016x?}");
            }
            EL1 => {
                let [elr, spsr, esr, far] = report.el1;
                log::error!(
                    "{name}:   elr_el1 {elr:#x} spsr_el1 {spsr:#x} esr_el1 {:?} far_el1 {far:#x}",
                    Esr(esr)
                );
            }
            line if line == EL1 + 1 => {
                let [sctlr, vbar, ttbr0, ttbr1] = report.system;
                log::error!(
                    "{name}:   sctlr_el1 {sctlr:#x} vbar_el1 {vbar:#x} ttbr0_el1 {ttbr0:#x} ttbr1_el1 {ttbr1:#x}"
                );
            }
            EXITS..OTHERS => self.tell_exit(report, line.saturating_sub(EXITS)),
            _ => return self.tell_of_vcpu(*vcpu, line.saturating_sub(OTHERS)),
        }
        true
    }

    /// One of the last exits, the latest being number 0.
    fn tell_exit(&self, report: &CrashRecord, number: usize) {
        let mut exits = report.exit.chunks_exact(2).take(report.exits as usize);
        let Some(&[esr, pc]) = exits.nth(number) else { return };
        let (name, before) = (&self.name, number.saturating_add(1));
        match esr {
            0 => log::error!("{name}:   exit -{before}: interrupt, pc {pc:#x}"),
            _ => log::error!("{name}:   exit -{before}: {:?}, pc {pc:#x}", Esr(esr)),
        }
    }

    /// Where a vCPU is other than the one that was told of, if it is on. False: there is none with this number.
    fn tell_of_vcpu(&self, told: u64, number: usize) -> bool {
        let Some(vcpu) = self.vcpus().get(number) else { return false };
        if u64::from(vcpu.id.0) != told && self.power.lock().state(vcpu.id) == PowerState::On {
            let mut report = CrashRecord::from_words(&[]);
            vcpu.describe(&mut report);
            log::error!("{}:   vCPU {number}: pc {:#x} pstate {:#x}", self.name, report.pc, report.pstate);
        }
        true
    }
}

/// General-purpose registers in a line of the report, and lines that they take.
const IN_A_ROW: usize = 4;
const ROWS: usize = 8;
/// Exits that are told to people; the record has them all.
const TOLD: usize = 8;
