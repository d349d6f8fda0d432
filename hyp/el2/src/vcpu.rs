//! A vCPU: whose it is, where it runs, and how it gets onto its CPU and off it.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ELR_EL2, HCR_EL2};
use abi::record::{CrashRecord, VcpuRecord};
use tock_registers::interfaces::{Readable, Writeable};
use vgic::{IntId, Kicks, VcpuId};
use vmm::life::Phase;
use vmm::psci::PowerState;

use crate::context::{Context, World};
use crate::exit::{self, Frame, Trapped};
use crate::gic::with_hardware;
use crate::percpu::{self, Before, Own, own, request, this_cpu};
use crate::trace::Trace;
use crate::vm::Vm;
use crate::{cpu, gic, timer};

/// A vCPU's registers while it isn't loaded. They need no lock: who may come here follows from where the vCPU is.
struct Kept(UnsafeCell<Context>);

// SAFETY: as the two methods say, only a CPU that the vCPU is entered on changes it, which is its own, and another CPU reads it only as
// long as the vCPU can't be entered.
unsafe impl Sync for Kept {}

impl Kept {
    /// To look at it.
    ///
    /// # Safety
    /// On the vCPU's own CPU, outside of the use of what [`get_mut`](Self::get_mut) gives; or on that of its VM's vCPU 0 when the VM has
    /// crashed and all have left, which then is the only one to let the VM start afresh.
    unsafe fn get(&self) -> &Context {
        // SAFETY: nobody changes it meanwhile, as required.
        unsafe { &*self.0.get() }
    }

    /// To change it.
    ///
    /// # Safety
    /// On the vCPU's own CPU, when it has been entered there ([`Vcpu::enter`]) and hasn't left; outside of the use of what this or
    /// [`get`](Self::get) gives. EL2 isn't interrupted.
    #[expect(clippy::mut_from_ref, reason = "of which there is one at a time, as required")]
    unsafe fn get_mut(&self) -> &mut Context {
        // SAFETY: nobody else has it meanwhile, as required.
        unsafe { &mut *self.0.get() }
    }
}

/// A vCPU. What it has in its CPU's registers stays there until another vCPU of that CPU is to run. Its CPU is one for ever, or one
/// of several, between which it moves while it isn't loaded ([`move_to`](Self::move_to)).
pub struct Vcpu {
    /// Whose it is.
    pub vm: &'static Vm,
    /// Which of the VM's.
    pub id: VcpuId,
    /// The number of its CPU now. Only that CPU changes it.
    home: AtomicUsize,
    /// In which of its VM's lives ([`Vm::life`]) it was found to be on, where it is; 0: not since it was off, was
    /// [interrupted](Self::interrupt), or moved. For its own CPU.
    settled_in: AtomicU64,
    /// By the number of a CPU, which of that CPU's vCPUs it is, for those that it may be on.
    places: Box<[Option<u8>]>,
    /// Its bit in [`Vm::loaded`].
    bit: u64,
    /// VMPIDR_EL2 while it runs.
    vmpidr: u64,
    /// HCR_EL2 while it runs.
    hcr: AtomicU64,
    /// Its registers while it isn't loaded.
    context: Kept,
    /// When one of its timers or counters has to be seen to while it sleeps and isn't loaded; `u64::MAX`: never. For its own CPU.
    wakes_at: AtomicU64,
    /// It isn't loaded, and waits for its turn: it will then see whatever there is to see, and needs no call.
    waits: AtomicBool,
    /// It was taken off its CPU, or kept from it, when it was ready: it is to go on as soon as its VM does.
    interrupted: AtomicBool,
    /// It has asked where its stolen time is told. For its own CPU.
    hears_of_stolen_time: AtomicBool,
    /// The instruction at its PC when its VM crashed, and bit 32 if that could be read.
    instruction: AtomicU64,
    /// What it was at.
    pub trace: Trace,
    /// How far cleaning the VM's memory for this vCPU's set-and-way maintenance has come.
    pub cleaned: AtomicU64,
}

impl Vcpu {
    /// A vCPU that has not started.
    pub fn new(vm: &'static Vm, id: VcpuId, cpu: usize, places: Box<[Option<u8>]>) -> Self {
        Self {
            vm,
            id,
            home: AtomicUsize::new(cpu),
            settled_in: AtomicU64::new(0),
            places,
            bit: 1u64.wrapping_shl(u32::from(id.0)),
            // Bit 31 is RES1.
            vmpidr: 1 << 31 | vmm::affinity::vcpu_mpidr(id),
            hcr: AtomicU64::new(vm.hcr),
            context: Kept(UnsafeCell::new(Context::default())),
            wakes_at: AtomicU64::new(u64::MAX),
            waits: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            hears_of_stolen_time: AtomicBool::new(false),
            instruction: AtomicU64::new(0),
            trace: Trace::new(),
            cleaned: AtomicU64::new(0),
        }
    }

    /// Makes its CPU look at it: something about it has been changed.
    pub fn call(&self) {
        // This reads `waits` behind the change; `set_waits` is before the look at it. So either the change is seen there, or
        // it is told here. Without this, one VM could keep another one's CPU busy with calls for its own vCPU.
        fence(Ordering::SeqCst);
        if self.waits.load(Ordering::Relaxed) {
            return;
        }
        let cpu = self.cpu();
        if let (Some(member), Some(cpu)) = (self.member_of(cpu), percpu::get(cpu)) {
            // Where it moves meanwhile, that CPU passes the call on.
            cpu.call(member);
        }
    }

    /// The number of its CPU now.
    pub fn cpu(&self) -> usize {
        // What the CPU that it comes from has written of it is seen.
        self.home.load(Ordering::Acquire)
    }

    /// Whether its CPU is the one that runs.
    pub fn is_here(&self) -> bool {
        self.cpu() == this_cpu().index
    }

    /// Which of this CPU's vCPUs it is, if it may be there.
    pub fn member_of(&self, cpu: usize) -> Option<usize> {
        self.places.get(cpu).copied().flatten().map(usize::from)
    }

    /// Another CPU of those that are set in `cpus`, a bit for each, that it may be on.
    pub fn other_cpu(&self, cpus: u64) -> Option<usize> {
        let mut cpus = cpus;
        while cpus != 0 {
            let cpu = cpus.trailing_zeros() as usize;
            cpus &= cpus.wrapping_sub(1);
            if cpu != self.cpu() && self.member_of(cpu).is_some() {
                return Some(cpu);
            }
        }
        None
    }

    /// The interrupt of its performance counters is that of the CPU where it is loaded next.
    pub fn map_counters(&self, cpu: usize) {
        if let Some(line) = gic::counters(cpu) {
            self.vm.vgic.lock().map_private_line(self.id, IntId::COUNTERS, line);
        }
    }

    /// It is another CPU's from now on. On the CPU that it was on, where it is neither loaded nor ready.
    pub fn move_to(&self, cpu: usize) {
        self.settled_in.store(0, Ordering::Relaxed);
        self.map_counters(cpu);
        self.home.store(cpu, Ordering::Release);
        if self.id == VcpuId(0)
            && let Some(cpu) = percpu::get(cpu)
        {
            // The alarms of its VM go with it.
            cpu.request(request::TIMER);
        }
        self.call();
    }

    /// Claims that the vCPU is loaded, if its VM runs. From then on whoever has something for it calls ([`call`](Self::call)).
    #[inline]
    pub fn enter(&self) -> bool {
        self.set_waits(false);
        let vm = self.vm;
        // This and `Vm::change` each write one word and read the other, so all four are in one order (SeqCst): either
        // whoever stops the VM sees this vCPU loaded and waits for it, or this vCPU sees that the VM stops.
        vm.loaded.fetch_or(self.bit, Ordering::SeqCst);
        if vm.phase() == Phase::Running {
            return true;
        }
        self.set_waits(true);
        self.leave();
        false
    }

    /// The vCPU is off its CPU.
    #[inline]
    pub fn leave(&self) {
        let (vm, bit) = (self.vm, self.bit);
        let before = vm.loaded.fetch_and(!bit, Ordering::SeqCst);
        if before != bit || vm.phase() == Phase::Running {
            return;
        }
        self.leave_last();
    }

    /// It was the last one of a VM that doesn't run.
    #[inline(never)]
    fn leave_last(&self) {
        self.vm.settle();
        if self.id != VcpuId(0) {
            // vCPU 0's CPU goes on with what the VM stops for. If this is that CPU, it looks next.
            self.vm.wake(VcpuId(0));
        }
    }

    /// It is ready, and can't run now: it is to go on as soon as its VM does. On its own CPU.
    pub fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
        self.settled_in.store(0, Ordering::Relaxed);
    }

    /// Whether it was ready when it was taken off its CPU, or kept from it.
    pub fn was_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    /// Whether the vCPU is loaded.
    pub fn is_loaded(&self) -> bool {
        self.vm.loaded.load(Ordering::Relaxed) & self.bit != 0
    }

    /// Whether writes to stage 1's control registers trap now.
    pub fn watches_caches(&self) -> bool {
        self.hcr.load(Ordering::Relaxed) & cpu::hcr::TVM != 0
    }

    /// Makes writes to stage 1's control registers trap, or not, from the next entry on. On the vCPU's own CPU.
    pub fn watch_caches(&self, watch: bool) {
        let hcr = self.hcr.load(Ordering::Relaxed);
        let hcr = if watch { hcr | cpu::hcr::TVM } else { hcr & !cpu::hcr::TVM };
        self.hcr.store(hcr, Ordering::Relaxed);
        HCR_EL2.set(hcr);
    }

    /// Looks whether it is on, where that isn't known. It has been entered ([`enter`](Self::enter)).
    #[inline]
    pub fn is_on(&'static self) -> bool {
        self.settled_in.load(Ordering::Relaxed) == self.vm.life() || self.settle()
    }

    /// It hasn't been loaded since it was off, or moved here: if it is on, or is to start, everything that depends on that is done.
    #[inline(never)]
    fn settle(&'static self) -> bool {
        let (start, state) = {
            let mut power = self.vm.power.lock();
            (power.take_start(self.id), power.state(self.id))
        };
        if state == PowerState::Off {
            return false;
        }
        if let Some(start) = start {
            // SAFETY: it is entered here.
            unsafe { self.context.get_mut() }.reset(start);
            self.hcr.store(self.vm.hcr, Ordering::Relaxed);
            self.cleaned.store(0, Ordering::Relaxed);
            self.hears_of_stolen_time.store(false, Ordering::Relaxed);
            self.instruction.store(0, Ordering::Relaxed);
            self.trace.begin();
            own().last_loaded.forget(self.vm.id);
        }
        own().vcpu.set(Some(self));
        with_hardware!(|hardware| {
            let mut vgic = self.vm.vgic.lock();
            if start.is_some() {
                vgic.reset_vcpu(self.id);
            }
            // Lines of devices come where it is.
            vgic.follow(self.id, &mut hardware);
        });
        self.interrupted.store(false, Ordering::Relaxed);
        self.settled_in.store(self.vm.life(), Ordering::Relaxed);
        true
    }

    /// Loads it onto this CPU, which no vCPU is loaded on and which is its own. It has been entered ([`enter`](Self::enter)), and [is
    /// on](Self::is_on). Returns its general-purpose registers, which are for going to the guest.
    #[inline(always)]
    pub fn load(&'static self, own: &Own) -> *const Frame {
        let (vm, id) = (self.vm, self.id);
        // SAFETY: it is entered here.
        let context = unsafe { self.context.get_mut() };
        own.vcpu.set(Some(self));
        let world = World {
            hcr: self.hcr.load(Ordering::Relaxed),
            vtcr: vm.vtcr,
            vttbr: vm.vttbr,
            vmpidr: self.vmpidr,
            clock_offset: vm.clock_offset(),
            has_ras: own.has_ras.get(),
        };
        let registers = context.load(&world);
        match own.last_loaded.change(vm.id, id) {
            None => {}
            Some(Before::Other) => forget_stage_one(),
            Some(Before::None) => forget_translations(),
        }
        vm.take_bells(id);
        let kicks = with_hardware!(own, |hardware| {
            hardware.load_virtual(&context.interface);
            vm.vgic.lock().load(id, &mut hardware)
        });
        context.load_rest();
        let kicks = kicks.unwrap_or(Kicks::NONE);
        if !kicks.is_empty() {
            vm.kick(kicks.without(id));
        }
        registers
    }

    /// Takes it off this CPU; its registers are kept.
    #[inline(always)]
    pub fn save(&self, own: &Own, frame: &Frame) {
        let kicks = self.take_off(own, Some(frame));
        self.vm.kick(kicks);
    }

    /// Takes it off this CPU for good: it is off, and begins anew.
    pub fn discard(&self) {
        self.settled_in.store(0, Ordering::Relaxed);
        let kicks = self.take_off(own(), None);
        self.vm.kick(kicks.without(self.id));
    }

    /// Its registers are kept if they are to be used again, of which the general-purpose ones are in `frame`; its timers are off from
    /// then on.
    #[inline(always)]
    fn take_off(&self, own: &Own, frame: Option<&Frame>) -> Kicks {
        // SAFETY: it is entered here.
        let context = unsafe { self.context.get_mut() };
        match frame {
            Some(frame) => context.save(frame, self.has_keys(), own.has_ras.get()),
            None => context.discard(own.has_ras.get()),
        }
        // The timers are off from here on. And this may be the second look at list registers since the exit: see `Vm::wake_or_sync`.
        barrier::isb(barrier::SY);
        let kicks = with_hardware!(own, |hardware| {
            let kicks = self.vm.vgic.lock().save(self.id, &mut hardware);
            hardware.save_virtual(&mut context.interface);
            kicks
        });
        own.vcpu.set(None);
        self.leave();
        kicks.unwrap_or(Kicks::NONE)
    }

    /// When one of its timers has to be seen to while it sleeps and isn't loaded, in ticks.
    pub fn wakes_at(&self) -> u64 {
        self.wakes_at.load(Ordering::Relaxed)
    }

    /// It sleeps, and isn't loaded: notes when one of its timers has to be seen to.
    pub fn note_timers(&self) {
        // SAFETY: this is its own CPU.
        let due = unsafe { self.context.get() }.interrupts_due();
        let offset = self.vm.clock_offset();
        let vgic = self.vm.vgic.lock();
        let heard = due.into_iter().filter(|(intid, _)| vgic.is_enabled(self.id, *intid));
        let next = heard.filter_map(|(_, at)| Some(at?.saturating_add(offset))).min();
        let wakes_at = next.unwrap_or(u64::MAX);
        self.wakes_at.store(wakes_at, Ordering::Relaxed);
        own().wakes_at.set(own().wakes_at.get().min(wakes_at));
    }

    /// It sleeps no more, so that none of its timers has to be seen to. On its own CPU.
    pub fn forget_timers(&self) {
        if self.wakes_at() != u64::MAX {
            self.wakes_at.store(u64::MAX, Ordering::Relaxed);
            // It may have been the first one: `run` finds the next.
            own().wakes_at.set(0);
        }
    }

    /// Whether it isn't loaded and waits for its turn, from now on. On its own CPU.
    #[inline]
    pub fn set_waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        if !waits {
            // As `call` says. Whoever sees that it waits too late makes a call that was not needed.
            fence(Ordering::SeqCst);
        }
    }

    /// It asks where its stolen time is told: there it is, and will be told whenever it goes on behind others. On its own CPU.
    pub fn ask_for_stolen_time(&self) {
        self.hears_of_stolen_time.store(true, Ordering::Relaxed);
        self.vm.tell_stolen(self.id, self.trace.waited());
    }

    /// Whether it has asked ([`ask_for_stolen_time`](Self::ask_for_stolen_time)).
    #[inline]
    pub fn hears_of_stolen_time(&self) -> bool {
        self.hears_of_stolen_time.load(Ordering::Relaxed)
    }

    /// Whether an interrupt waits for it that ends a WFI. On its own CPU.
    pub fn has_interrupt(&self) -> bool {
        if !self.is_loaded() {
            // SAFETY: this is its own CPU.
            let interface = unsafe { self.context.get() }.interface.filter();
            return self.vm.vgic.lock().has_deliverable_saved(self.id, interface);
        }
        let waits = with_hardware!(|hardware| self.vm.vgic.lock().has_deliverable(self.id, &mut hardware));
        let (deliverable, kicks) = waits.unwrap_or((false, Kicks::NONE));
        self.vm.kick(kicks.without(self.id));
        deliverable
    }

    /// The guest's access to a debug register has trapped: a write of `value`, or a read.
    pub fn access_debug(&self, register: vmm::debug::Register, value: Option<u64>) -> Trapped {
        // SAFETY: it is entered here.
        unsafe { self.context.get_mut() }.debug().access(register, value)
    }

    /// The same of a register of the performance monitors.
    pub fn access_counters(
        &self,
        register: vmm::pmu::Register,
        value: Option<u64>,
        from_el0: bool,
    ) -> Trapped {
        if !self.vm.has_counters {
            return Trapped::Undefined;
        }
        // SAFETY: it is entered here.
        unsafe { self.context.get_mut() }.counters().access(register, value, from_el0)
    }

    /// Its VM crashes: notes the instruction at its PC, while the guest's translation is still loaded.
    pub fn note_instruction(&self) {
        let mut code = [0; 4];
        let pc = exit::guest_ipa(ELR_EL2.get());
        let read = pc.is_some_and(|pc| self.vm.read(pc, &mut code));
        let noted = u64::from(u32::from_le_bytes(code)) | u64::from(read) << 32;
        self.instruction.store(noted, Ordering::Relaxed);
    }

    /// Puts what it was at into a report. Its VM has crashed, and it has left.
    pub fn describe(&self, report: &mut CrashRecord) {
        // SAFETY: its VM has crashed, and all have left.
        unsafe { self.context.get() }.describe(report);
        report.instruction = self.instruction.load(Ordering::Relaxed);
        self.trace.put_last(report);
    }

    /// What it does, for statistics. `None`: its VM's state is in use just now.
    pub fn info(&self) -> Option<VcpuRecord> {
        let power = match self.vm.power.try_lock()?.state(self.id) {
            PowerState::Off => 0,
            PowerState::OnPending => 1,
            PowerState::On => 2,
        };
        let now = timer::now();
        let mut record = VcpuRecord { cpu: self.cpu() as u64, power, now, ..VcpuRecord::from_words(&[]) };
        record.interrupts = self.vm.vgic.try_lock()?.presented(self.id);
        self.trace.put(&mut record, now);
        Some(record)
    }

    fn has_keys(&self) -> bool {
        self.hcr.load(Ordering::Relaxed) & cpu::hcr::POINTER_AUTHENTICATION != 0
    }
}

/// Drops what this CPU has cached of the VM's translations and instructions, as a reset does.
fn forget_translations() {
    // SAFETY: invalidation loses nothing but time; VTTBR_EL2 names the VM that it is about.
    unsafe {
        core::arch::asm!("tlbi vmalls12e1", "ic iallu", options(nostack));
    }
    barrier::dsb(barrier::NSH);
    barrier::isb(barrier::SY);
}

/// Drops what another vCPU of the VM has left here of its stage 1: the two may use one ASID for different things.
fn forget_stage_one() {
    // SAFETY: as above.
    unsafe { core::arch::asm!("tlbi vmalle1", options(nostack)) };
    // Complete before the guest runs, and going there is a barrier for instructions.
    barrier::dsb(barrier::NSH);
}
