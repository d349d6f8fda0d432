//! Virtual machines: what each one is made of, its life from start to end, and its devices' lines.
//!
//! VMs are built at boot ([`build`]) and live for ever; a VM that has stopped keeps its memory. What several CPUs touch is
//! behind locks of that VM, in the order that docs/architecture.md has. No lock is shared between VMs, so who waits for one
//! waits for a vCPU of the same VM: for a few hundred instructions, or for as long as a change of stage 2 takes. The locks are not fair: a fair one that hands
//! itself to a CPU that isn't running, as emulated CPUs often aren't, makes all others wait for it.

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs at boot alone, before any guest"
)]
mod build;
mod load;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use aarch64_cpu::registers::{ELR_EL2, FAR_EL2, HPFAR_EL2, SPSR_EL2};
use spin::Once;
use stage2::{Access, Ipa, PaRange, VmId};
use tock_registers::interfaces::Readable;
use vgic::{IntId, Kicks, VcpuId, Vgic};
use vmm::devices::{Line, MmioMap, Pl011, Pl031};
use vmm::esr::Esr;
use vmm::idregs::IdRegisters;
use vmm::layout::VIRT;
use vmm::psci::PowerStates;
use vmm::sched::Share;
use vmm::stolen_time;

use crate::exit::Frame;
use crate::gic::with_hardware;
use crate::guest_memory::{self, Space};
use crate::lock::Mutex;
use crate::logging::Budget;
use crate::percpu::{self, PerCpu, request, this_cpu};
use crate::vcpu::Vcpu;
use crate::{cache, console, exit, interrupts, run, timer};

pub use build::build_all;
use load::Reload;

/// A virtual machine.
pub struct Vm {
    /// Its slot, which its VMID follows from.
    pub id: VmId,
    /// Its node's name in the bundle.
    pub name: String,
    vcpus: Once<Box<[&'static Vcpu]>>,
    /// What its vCPUs get of CPUs that they share; `None`: they are pinned.
    pub share: Option<Share>,
    /// HCR_EL2 of its vCPUs at their start.
    pub hcr: u64,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// The ID registers that it sees.
    pub ids: IdRegisters,
    /// Its emulated devices by address.
    pub mmio: MmioMap,
    /// Its interrupt controller.
    pub vgic: Mutex<Vgic>,
    /// Which of its vCPUs are on.
    pub power: Mutex<PowerStates>,
    uart: Mutex<Pl011>,
    rtc: Mutex<Pl031>,
    /// A byte for its console waits because its UART had no room.
    input_waits: AtomicBool,
    /// Which of its vCPUs are loaded on their CPUs, one bit each.
    pub loaded: AtomicU64,
    phase: AtomicU8,
    /// Its RAM, in the order of guest addresses.
    ram: Vec<PaRange>,
    space: Mutex<Space>,
    /// What is loaded into it, and how far that has come.
    reload: Mutex<Reload>,
    /// How many messages it may still provoke.
    messages: Budget,
}

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its vCPUs run, as far as they are on.
    Running,
    /// It asked for a reset; its vCPUs are leaving, or it is being loaded again.
    Restarting,
    /// It turned itself off; its vCPUs are leaving.
    TurningOff,
    /// It crashed; its vCPUs are leaving.
    Crashing,
    /// No vCPU runs, and none will.
    Stopped,
}

impl Phase {
    /// For people.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Restarting => "starting afresh",
            Self::TurningOff | Self::Crashing => "stopping",
            Self::Stopped => "off",
        }
    }
}

/// Why EL2 stops a VM.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// In words.
    pub what: &'static str,
    /// The syndrome.
    pub esr: Esr,
}

static VMS: Once<Vec<&'static Vm>> = Once::new();
static STARTED: AtomicBool = AtomicBool::new(false);

/// All VMs that could be built.
pub fn all() -> impl Iterator<Item = &'static Vm> {
    VMS.get().into_iter().flatten().copied()
}

/// Whether the VMs are there, and CPUs may look for their vCPUs.
pub fn started() -> bool {
    STARTED.load(Ordering::Acquire)
}

/// Lets all CPUs look for their vCPUs. With nothing to run, the board is turned off.
pub fn start_all() {
    STARTED.store(true, Ordering::Release);
    for cpu in percpu::all().skip(1) {
        cpu.request(request::SYNC);
    }
    if all().next().is_none() {
        board_off("there is no VM to run");
    }
}

/// Brings a loaded vCPU's interrupts up to date, on its CPU.
pub fn sync(vcpu: &'static Vcpu) {
    // As in `wake_or_sync`.
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
    let kicks = with_hardware!(|hardware| vcpu.vm.vgic.lock().sync(vcpu.id, &mut hardware));
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE).without(vcpu.id));
}

/// Whether it is in this vCPU's turns that what its VM stops for is done, and all vCPUs have left.
pub fn is_to_advance(vcpu: &Vcpu) -> bool {
    vcpu.id == VcpuId(0) && vcpu.vm.loaded.load(Ordering::SeqCst) == 0
}

/// Does the next step of what the VM of this CPU's vCPU is stopping for, if that is this CPU's to do: that of vCPU 0.
/// Returns whether there may be more to do at once.
pub fn advance(vcpu: &'static Vcpu) -> bool {
    let vm = vcpu.vm;
    if !is_to_advance(vcpu) {
        return false;
    }
    match vm.phase() {
        Phase::Running | Phase::Stopped => false,
        Phase::Restarting => {
            vm.restart_some();
            true
        }
        Phase::TurningOff | Phase::Crashing => {
            vm.finish();
            true
        }
    }
}

/// Turns the board off, once everything that was said is out.
fn board_off(why: &str) {
    log::info!("{why}: turning the board off");
    console::request_power_off();
}

impl Vm {
    /// Where it is in its life.
    #[inline]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Restarting,
            2 => Phase::TurningOff,
            3 => Phase::Crashing,
            _ => Phase::Stopped,
        }
    }

    /// Makes the CPUs of these vCPUs see to their interrupts; the one that runs at once.
    pub fn kick(&self, kicks: Kicks) {
        if kicks.is_empty() {
            return;
        }
        for vcpu in kicks {
            self.wake_or_sync(vcpu);
        }
    }

    fn wake_or_sync(&self, vcpu: VcpuId) {
        match run::loaded().filter(|own| own.id == vcpu && core::ptr::eq(own.vm, self)) {
            Some(own) => {
                // This may be the second sync of one exit: what the first wrote to list registers must have reached
                // the register that tells which are empty.
                aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
                // What a vCPU's own sync asks of itself has been done by it; so this ends.
                let kicks = with_hardware!(|hardware| self.vgic.lock().sync(own.id, &mut hardware));
                let others = kicks.unwrap_or(Kicks::NONE).without(vcpu);
                for other in others {
                    self.wake(other);
                }
            }
            None => self.wake(vcpu),
        }
    }

    /// Makes the CPU of a vCPU look what it has to do.
    pub fn wake(&self, vcpu: VcpuId) {
        if let Some(vcpu) = self.vcpus().get(usize::from(vcpu.0)) {
            vcpu.call();
        }
    }

    /// Its vCPUs, once they have their CPUs.
    pub fn vcpus(&self) -> &[&'static Vcpu] {
        self.vcpus.get().map_or(&[], |vcpus| vcpus)
    }

    /// The CPU of its vCPU 0.
    fn first_cpu(&self) -> Option<&'static PerCpu> {
        percpu::get(self.vcpus().first()?.cpu)
    }

    /// Starts stopping it: its vCPUs leave, and then `phase` tells what becomes of it. Only of a running VM.
    pub fn stop(&self, phase: Phase) {
        let swapped = self.phase.compare_exchange(
            Phase::Running as u8,
            phase as u8,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if swapped.is_ok() {
            for vcpu in self.vcpus() {
                vcpu.call();
            }
        }
    }

    /// Sees to an access to memory that faulted in stage 2. Returns whether the guest may try again; else it has no right to
    /// it, or nothing is there.
    pub fn resolve(&self, ipa: Ipa, access: Access) -> bool {
        let mut space = self.space.lock();
        let Space { stage2, tables, copies } = &mut *space;
        stage2.resolve(tables, copies, ipa, access).is_ok()
    }

    /// Writes down for the guest that `vcpu` has waited for its CPU for so many ticks in all.
    pub fn tell_stolen(&self, vcpu: VcpuId, ticks: u64) {
        if self.share.is_none() {
            return;
        }
        let nanoseconds = stolen_time::nanoseconds(ticks, timer::frequency());
        let told =
            guest_memory::write_word(&mut self.space.lock(), stolen_time::time(&VIRT, vcpu), nanoseconds);
        // Its page is mapped as long as the VM lives.
        debug_assert!(told.is_ok());
    }

    /// Stops it with a report of what its vCPU was at.
    pub fn crash(&self, vcpu: &Vcpu, frame: &Frame, crash: Crash) {
        self.stop(Phase::Crashing);
        log::error!("{}: vCPU {}: {}: {:?}", self.name, vcpu.id.0, crash.what, crash.esr);
        log::error!(
            "{}:   pc {:#x} pstate {:#x} far {:#x} hpfar {:#x}",
            self.name,
            ELR_EL2.get(),
            SPSR_EL2.get(),
            FAR_EL2.get(),
            HPFAR_EL2.get()
        );
        let mut code = [0; 4];
        let pc = exit::guest_ipa(ELR_EL2.get());
        if pc.is_some_and(|pc| guest_memory::read(&mut self.space.lock(), pc, &mut code).is_ok()) {
            log::error!("{}:   the instruction at pc is {:08x}", self.name, u32::from_le_bytes(code));
        }
        for (row, values) in frame.registers().chunks(4).enumerate() {
            log::error!("{}:   x{}.. {values:016x?}", self.name, row.wrapping_mul(4));
        }
    }

    /// All vCPUs have left: it stays off.
    fn finish(&self) {
        let how = if self.phase() == Phase::Crashing { "crashed" } else { "turned itself off" };
        self.power.lock().stop();
        self.phase.store(Phase::Stopped as u8, Ordering::SeqCst);
        log::info!("{} {how}", self.name);
        if all().all(|vm| vm.phase() == Phase::Stopped) {
            board_off("no VM is left");
        }
    }

    /// All vCPUs have left: loads it afresh, a piece at each call, and lets vCPU 0 start when that is done.
    fn restart_some(&self) {
        let mut space = self.space.lock();
        let mut reload = self.reload.lock();
        if !reload.step(self, &mut space) {
            return;
        }
        with_hardware!(|hardware| self.vgic.lock().reset(&mut hardware));
        let uart = self.uart.lock().reset();
        self.apply(VIRT.uart.intid(), uart);
        let rtc = self.rtc.lock().reset(timer::now());
        self.apply(VIRT.rtc.intid(), rtc);
        self.power.lock().boot(reload.start());
        if self.may_log() {
            log::info!("{} starts afresh", self.name);
        }
        self.phase.store(Phase::Running as u8, Ordering::SeqCst);
    }

    /// Cleans a piece of its memory to the point of coherency, from `cursor` (an offset into RAM) on. Returns whether all
    /// is done; the cursor is then back at the start.
    pub fn clean_some(&self, cursor: &AtomicU64) -> bool {
        /// Bytes at a time: with the shortest lines, 4,096 of them.
        const PIECE: u64 = 128 << 10;
        let mut skip = cursor.load(Ordering::Relaxed);
        for run in &self.ram {
            if skip < run.size() {
                let start = run.start().as_u64().wrapping_add(skip);
                let end = run.end().as_u64().min(start.wrapping_add(PIECE));
                cache::clean(start, end);
                cursor.store(
                    cursor.load(Ordering::Relaxed).wrapping_add(end.wrapping_sub(start)),
                    Ordering::Relaxed,
                );
                return false;
            }
            skip = skip.saturating_sub(run.size());
        }
        cursor.store(0, Ordering::Relaxed);
        aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
        true
    }

    /// Tells the vGIC what became of a device's line. The device is still locked, so that changes keep their order.
    fn apply(&self, intid: u32, line: Line) {
        if let Some(level) = line.level() {
            let kicks = self.vgic.lock().set_level(VcpuId(0), IntId(intid as u16), level);
            self.kick(kicks);
        }
    }

    /// The guest reads a register of its console.
    pub fn uart_read(&self, offset: u32) -> u32 {
        let mut uart = self.uart.lock();
        let (value, line) = uart.read(offset);
        self.apply(VIRT.uart.intid(), line);
        let room = uart.can_receive();
        drop(uart);
        if room && self.input_waits.swap(false, Ordering::Relaxed) {
            console::wake();
        }
        value
    }

    /// The guest writes a register of its console.
    pub fn uart_write(&self, offset: u32, value: u32) {
        let mut uart = self.uart.lock();
        let line = uart.write(offset, value);
        self.apply(VIRT.uart.intid(), line);
        let output = uart.pending_output() != 0;
        drop(uart);
        if output {
            console::wake();
        }
    }

    /// Offers a byte to its console. False: there is no room; [`console::wake`] is called when there is.
    pub fn receive(&self, byte: u8) -> bool {
        let mut uart = self.uart.lock();
        let Some(line) = uart.receive(byte) else {
            self.input_waits.store(true, Ordering::Relaxed);
            return false;
        };
        self.apply(VIRT.uart.intid(), line);
        true
    }

    /// Fetches output of its console.
    pub fn drain(&self, out: &mut [u8]) -> usize {
        let mut uart = self.uart.lock();
        if uart.pending_output() == 0 {
            return 0;
        }
        let (count, line) = uart.drain(out);
        self.apply(VIRT.uart.intid(), line);
        count
    }

    /// The guest reads its clock.
    pub fn rtc_read(&self, offset: u32, now: u64) -> u32 {
        let mut rtc = self.rtc.lock();
        let (value, line) = rtc.read(offset, now);
        self.apply(VIRT.rtc.intid(), line);
        value
    }

    /// The guest writes its clock, whose alarm is seen to by the CPU of vCPU 0.
    pub fn rtc_write(&self, offset: u32, value: u32, now: u64) {
        let mut rtc = self.rtc.lock();
        let line = rtc.write(offset, value, now);
        self.apply(VIRT.rtc.intid(), line);
        let has_deadline = rtc.next_deadline().is_some();
        drop(rtc);
        match self.first_cpu() {
            Some(cpu) if core::ptr::eq(cpu, this_cpu()) => interrupts::see_to_alarms(),
            Some(cpu) if has_deadline => cpu.request(request::TIMER),
            _ => {}
        }
    }

    /// EL2's timer has come, or a deadline may have changed: sees to the alarm. Returns when the next one is due, in
    /// ticks. On the CPU of vCPU 0.
    pub fn tick(&self, now: u64) -> Option<u64> {
        let mut rtc = self.rtc.lock();
        let line = rtc.tick(now);
        self.apply(VIRT.rtc.intid(), line);
        rtc.next_deadline()
    }

    /// Whether a message that this VM provokes may be made now.
    pub fn may_log(&self) -> bool {
        match self.messages.take() {
            Some(0) => true,
            Some(suppressed) => {
                log::warn!("{}: {suppressed} messages were suppressed", self.name);
                true
            }
            None => false,
        }
    }
}
