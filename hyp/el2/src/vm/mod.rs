//! Virtual machines: what each one is made of, and its devices' lines.
//!
//! VMs are built at boot ([`build`]) and stay for ever; they are started and stopped as often as one likes ([`life`]), and
//! have memory while they run ([`holdings`]). What several CPUs touch is behind locks of that VM, in the order that
//! docs/architecture.md has. On an exit no lock is waited for that another VM may have, so who waits for one waits for a vCPU of
//! the same VM: for a few hundred instructions, or for as long as a change of stage 2 takes. The locks are not fair: a fair
//! one that hands itself to a CPU that isn't running, as emulated CPUs often aren't, makes all others wait for it.

#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "runs at boot alone, before any guest"
)]
mod build;
mod channel;
mod crash;
mod flash;
mod holdings;
mod life;
mod load;
mod report;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use config::manifest::WhenAllOff;
use config::passthrough::GivenLine;
use platform::gic::Trigger;
use spin::Once;
use stage2::{Access, Ipa, VmId};
use vgic::{IntId, Kicks, VcpuId, Vgic, bounds};
use vmm::devices::{Line, MmioMap, Pl011, Pl031};
use vmm::idregs::IdRegisters;
use vmm::layout::Layout;
use vmm::life::{Clock, Watchdog};
use vmm::psci::PowerStates;
use vmm::random::Generator;
use vmm::sched::Share;
use vmm::stolen_time;
use vmm::trng::Wanted;

use crate::gic::with_hardware;
use crate::guest_memory::{self, Space};
use crate::lock::Mutex;
use crate::logging::Budget;
use crate::percpu::{self, PerCpu, request, this_cpu};
use crate::vcpu::Vcpu;
use crate::{cache, console, gic, interrupts, random, run, timer};

pub use build::{build_all, devices_of};
use crash::Crashed;
use flash::Flash;
pub use flash::{Attempt, Outcome};
use holdings::Holdings;
pub use life::{advance, is_to_advance};
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
    /// Its vCPUs have performance monitors.
    pub has_counters: bool,
    /// VTCR_EL2.
    pub vtcr: u64,
    /// VTTBR_EL2.
    pub vttbr: u64,
    /// The ID registers that it sees.
    pub ids: IdRegisters,
    /// Where it has everything.
    pub layout: &'static Layout,
    /// Its emulated devices by address.
    pub mmio: MmioMap,
    /// Its interrupt controller.
    pub vgic: Mutex<Vgic>,
    /// Which of its vCPUs are on.
    pub power: Mutex<PowerStates>,
    uart: Mutex<Pl011>,
    rtc: Mutex<Pl031>,
    /// Its random numbers, if the board has given any randomness.
    random: Option<Mutex<Generator>>,
    /// Its flash, where it starts from firmware.
    flash: Option<Mutex<Flash>>,
    /// A byte for its console waits because its UART had no room.
    input_waits: AtomicBool,
    /// Which of its vCPUs are loaded on their CPUs, one bit each.
    pub loaded: AtomicU64,
    /// Its ends of channels, once all VMs are there.
    links: Once<Box<[channel::Link]>>,
    /// Which bells of its channels have rung, and were seen to ([`channel`]).
    bells: AtomicU64,
    /// Bytes of RAM that it has while it runs.
    pub ram: u64,
    /// What it may ask of other VMs: bits of [`abi::hanok::right`].
    pub rights: u32,
    /// The lines of the board's devices that it has.
    lines: Vec<GivenLine>,
    /// How often it made a call that it has no right to.
    denied: AtomicU64,
    phase: AtomicU8,
    /// What the manifest says of its life.
    policy: Policy,
    /// Its memory, of which its vCPUs reach what stage 2 maps.
    memory: Mutex<Holdings>,
    /// Its address space: what its vCPUs reach, and EL2 for them.
    pub space: Mutex<Space>,
    /// What is loaded into it, and how far that has come.
    reload: Mutex<Reload>,
    /// How far cleaning what it left in caches has come, when it is loaded afresh: an offset into RAM.
    cleaned: AtomicU64,
    clock: Mutex<Clock>,
    /// What its counters are behind the board's, in ticks, as `clock` has it. Written under that lock, before its vCPUs may be loaded.
    clock_offset: AtomicU64,
    watchdog: Mutex<Watchdog>,
    crashed: Mutex<Crashed>,
    /// When it is to be started afresh after a crash, in ticks.
    due: AtomicU64,
    /// When it was loaded last, in ticks.
    loaded_at: AtomicU64,
    /// When its deadlines are looked at next, in ticks.
    alarm: AtomicU64,
    /// How often it was started.
    starts: AtomicU64,
    /// How many messages it may still provoke.
    messages: Budget,
}

/// What the manifest says of a VM's life.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What becomes of it when it crashes.
    on_crash: vmm::life::OnCrash,
    /// It must feed a watchdog from the start on, every so many seconds.
    watchdog: Option<u32>,
}

static WHEN_ALL_OFF: Once<WhenAllOff> = Once::new();
static VMS: Once<Vec<&'static Vm>> = Once::new();
static STARTED: AtomicBool = AtomicBool::new(false);

/// All VMs that could be built.
pub fn all() -> impl Iterator<Item = &'static Vm> {
    VMS.get().into_iter().flatten().copied()
}

/// The VM of a number that a guest has chosen.
pub fn numbered(number: usize) -> Option<&'static Vm> {
    bounds::get(VMS.get()?, number).copied()
}

/// The number of a VM: its place among [`all`].
pub fn number_of(vm: &Vm) -> Option<u64> {
    all().position(|other| core::ptr::eq(other, vm)).map(|number| number as u64)
}

/// Whether the VMs are there, and CPUs may look for their vCPUs.
pub fn started() -> bool {
    STARTED.load(Ordering::Acquire)
}

/// Lets all CPUs look for their vCPUs. With nothing to run, the board is turned off.
pub fn start_all() {
    // Once they run, it is theirs to see who is the last.
    let nothing_to_run = life::all_are_off();
    STARTED.store(true, Ordering::Release);
    for cpu in percpu::all().skip(1) {
        cpu.request(request::SYNC);
    }
    if nothing_to_run {
        life::end();
    }
}

/// Brings a loaded vCPU's interrupts up to date, on its CPU.
pub fn sync(vcpu: &'static Vcpu) {
    // As in `wake_or_sync`.
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
    let kicks = with_hardware!(|hardware| vcpu.vm.vgic.lock().sync(vcpu.id, &mut hardware));
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE).without(vcpu.id));
}

impl Vm {
    /// Makes the CPUs of these vCPUs see to their interrupts; the one that runs at once.
    #[inline(always)]
    pub fn kick(&self, kicks: Kicks) {
        if !kicks.is_empty() {
            self.kick_all(kicks);
        }
    }

    #[inline(never)]
    fn kick_all(&self, kicks: Kicks) {
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
        percpu::get(self.vcpus().first()?.cpu())
    }

    /// Has the lines of its devices as before its first start: signalled as the board's tree says, whatever it has made of that, and
    /// sent to the CPU of its vCPU 0. They are off.
    fn send_lines(&self) {
        let Some(cpu) = self.first_cpu() else { return };
        for line in &self.lines {
            let trigger = if line.physical.edge { Trigger::Edge } else { Trigger::Level };
            gic::give_spi(line.physical.intid.into(), trigger, cpu);
        }
    }

    /// Whether it has devices of the board, which its stores reach without EL2.
    pub fn has_devices(&self) -> bool {
        self.memory.lock().has_devices()
    }

    /// Sees to an access to memory that faulted in stage 2. Returns whether the guest may try again; else it has no right to
    /// it, or nothing is there.
    pub fn resolve(&self, ipa: Ipa, access: Access) -> bool {
        let mut space = self.space.lock();
        let (stage2, tables, copies) = space.parts();
        stage2.resolve(tables, copies, ipa, access).is_ok()
    }

    /// Reads its memory. Whether all of it could be read.
    pub fn read(&self, ipa: Ipa, bytes: &mut [u8]) -> bool {
        guest_memory::read(&mut self.space.lock(), ipa, bytes).is_ok()
    }

    /// Whether it has random numbers.
    pub fn has_random(&self) -> bool {
        self.random.is_some()
    }

    /// What it asked for, if it has random numbers, with fresh ones of the CPU's mixed in where there are any.
    pub fn random(&self, wanted: Wanted) -> Option<[u64; 4]> {
        let mut generator = self.random.as_ref()?.lock();
        random::mix_in_from_cpu(&mut generator);
        Some(wanted.answer(&generator.bytes()))
    }

    /// Writes down for the guest that `vcpu` has waited for its CPU for so many ticks in all.
    pub fn tell_stolen(&self, vcpu: VcpuId, ticks: u64) {
        let nanoseconds = stolen_time::nanoseconds(ticks, timer::frequency());
        let told = guest_memory::write_word(
            &mut self.space.lock(),
            stolen_time::time(self.layout, vcpu),
            nanoseconds,
        );
        // Its page is mapped as long as the VM lives.
        debug_assert!(told.is_ok());
    }

    /// Cleans a piece of its memory to the point of coherency, from `cursor` (an offset into RAM) on. Returns whether all
    /// is done; the cursor is then back at the start.
    pub fn clean_some(&self, cursor: &AtomicU64) -> bool {
        /// Bytes at a time: with the shortest lines, 4,096 of them.
        const PIECE: u64 = 128 << 10;
        let skip = cursor.load(Ordering::Relaxed);
        let Some((start, end)) = self.memory.lock().ram_at(skip) else {
            cursor.store(0, Ordering::Relaxed);
            aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
            return true;
        };
        let end = end.min(start.wrapping_add(PIECE));
        cache::clean(start, end);
        cursor.store(skip.wrapping_add(end.wrapping_sub(start)), Ordering::Relaxed);
        false
    }

    /// Tells the vGIC what became of a device's line. The device is still locked, so that changes keep their order.
    fn apply(&self, intid: u32, line: Line) {
        if let Some(level) = line.level() {
            let kicks = self.vgic.lock().set_level(VcpuId(0), IntId(intid as u16), level);
            self.kick(kicks);
        }
    }

    /// What [`uart_read`](Self::uart_read) gives, where no other CPU has to do with the console, and it is known at once.
    #[inline(always)]
    pub fn uart_peek(&self, offset: u32) -> Option<u32> {
        self.uart.try_lock_weak()?.peek(offset)
    }

    /// The guest reads a register of its console.
    pub fn uart_read(&self, offset: u32) -> u32 {
        let mut uart = self.uart.lock();
        let (value, line) = uart.read(offset);
        self.apply(self.layout.uart.intid(), line);
        let room = Pl011::takes_input(offset) && uart.can_receive();
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
        self.apply(self.layout.uart.intid(), line);
        let output = uart.pending_output() != 0;
        // FIFOs turned on have more of it, as has a UART that doesn't talk to itself any more.
        let room = uart.can_receive();
        drop(uart);
        if output | (room && self.input_waits.swap(false, Ordering::Relaxed)) {
            console::wake();
        }
    }

    /// The guest writes to its console in a block. Returns how many bytes there was room for.
    pub fn say(&self, bytes: &[u8]) -> usize {
        let mut uart = self.uart.lock();
        let (count, line) = uart.send_block(bytes);
        self.apply(self.layout.uart.intid(), line);
        drop(uart);
        if count > 0 {
            console::wake();
        }
        count
    }

    /// The guest reads from its console in a block. Returns how many bytes came.
    pub fn hear(&self, bytes: &mut [u8]) -> usize {
        let mut uart = self.uart.lock();
        let (count, line) = uart.receive_block(bytes);
        self.apply(self.layout.uart.intid(), line);
        drop(uart);
        if self.input_waits.swap(false, Ordering::Relaxed) {
            console::wake();
        }
        count
    }

    /// Offers a byte to its console. False: there is no room; [`console::wake`] is called when there is.
    pub fn receive(&self, byte: u8) -> bool {
        let mut uart = self.uart.lock();
        let Some(line) = uart.receive(byte) else {
            self.input_waits.store(true, Ordering::Relaxed);
            return false;
        };
        self.apply(self.layout.uart.intid(), line);
        true
    }

    /// Whether there is output of its console.
    pub fn has_output(&self) -> bool {
        self.uart.lock().pending_output() != 0
    }

    /// Fetches output of its console.
    pub fn drain(&self, out: &mut [u8]) -> usize {
        let mut uart = self.uart.lock();
        let (count, line) = uart.drain(out);
        self.apply(self.layout.uart.intid(), line);
        count
    }

    /// The guest reads its clock.
    pub fn rtc_read(&self, offset: u32, now: u64) -> u32 {
        let mut rtc = self.rtc.lock();
        let (value, line) = rtc.read(offset, now);
        self.apply(self.layout.rtc.intid(), line);
        value
    }

    /// The guest writes its clock, whose alarm is seen to by the CPU of vCPU 0.
    pub fn rtc_write(&self, offset: u32, value: u32, now: u64) {
        let mut rtc = self.rtc.lock();
        let line = rtc.write(offset, value, now);
        self.apply(self.layout.rtc.intid(), line);
        let deadline = rtc.next_deadline();
        drop(rtc);
        // A deadline that is gone is noticed when it comes.
        if let Some(deadline) = deadline {
            self.see_to_alarm(deadline);
        }
    }

    /// EL2's timer has come, or a deadline may have changed: sees to the clock's alarm and to what its life waits for.
    /// Returns when the next one is due, in ticks. On the CPU of vCPU 0.
    pub fn tick(&self, now: u64) -> Option<u64> {
        let mut rtc = self.rtc.lock();
        let line = rtc.tick(now);
        self.apply(self.layout.rtc.intid(), line);
        let alarm = rtc.next_deadline();
        drop(rtc);
        let next = alarm.into_iter().chain(self.see_to_life(now)).min();
        self.alarm.store(next.unwrap_or(u64::MAX), Ordering::Relaxed);
        next
    }

    /// Has [`tick`](Self::tick) called when something is due at `deadline`, in ticks, if it won't be before that: a guest can't have
    /// others' CPU look at its deadlines again and again.
    fn see_to_alarm(&self, deadline: u64) {
        if deadline < self.alarm.load(Ordering::Relaxed) {
            self.see_to_deadlines();
        }
    }

    /// Has [`tick`](Self::tick) called soon, on the CPU of vCPU 0.
    fn see_to_deadlines(&self) {
        match self.first_cpu() {
            Some(cpu) if core::ptr::eq(cpu, this_cpu()) => interrupts::see_to_alarms(),
            Some(cpu) => cpu.request(request::TIMER),
            None => {}
        }
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
