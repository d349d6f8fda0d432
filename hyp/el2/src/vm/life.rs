//! A VM's life: carrying out what [`vmm::life`] decides.
//!
//! Whoever starts, stops, pauses or restarts a VM changes its phase, and no more. What follows is done in turns of the VM's
//! own vCPU 0, in short steps, once all of its vCPUs have left their CPUs: so it is charged to that VM, nobody else waits for
//! it, and two CPUs never do it at once.

use core::sync::atomic::Ordering;

use platform::power::End;
use stage2::Progress;
use vgic::VcpuId;

use config::manifest::WhenAllOff;
use vmm::life::{Clock, Event, Phase, Watchdog};
use vmm::psci::Start;

use super::{Vm, WHEN_ALL_OFF, all};
use crate::gic::with_hardware;
use crate::guest_memory::Space;
use crate::lock::Mutex;
use crate::vcpu::Vcpu;
use crate::{console, interrupts, timer};

/// Seconds between two feedings of a watchdog for which nobody has said anything else.
const WATCHDOG_S: u32 = 60;

/// Whether it is in this vCPU's turns that there is something to do for its VM: it is vCPU 0, and all have left.
pub fn is_to_advance(vcpu: &Vcpu) -> bool {
    vcpu.id == VcpuId(0) && vcpu.vm.phase().has_work() && vcpu.vm.loaded.load(Ordering::SeqCst) == 0
}

/// Does the next step of what there is to do for the VM of this CPU's vCPU, if that is this vCPU's to do. Returns whether
/// there may be more to do at once.
pub fn advance(vcpu: &'static Vcpu) -> bool {
    if !is_to_advance(vcpu) {
        return false;
    }
    let vm = vcpu.vm;
    match vm.phase() {
        Phase::Starting => vm.start_some(),
        Phase::Restarting => vm.restart_some(),
        Phase::Stopping | Phase::Discarding => vm.release_some(),
        Phase::Crashing => vm.judge(),
        Phase::Created
        | Phase::Running
        | Phase::Paused
        | Phase::BackingOff
        | Phase::Preserved
        | Phase::Stopped
        | Phase::Crashed => return false,
    }
    true
}

/// Held by a VM that goes off until it has looked whether it was the last: of those that go off at once, one is.
static GOES_OFF: Mutex<()> = Mutex::new(());

/// Whether there is no VM left that runs or may run again by itself.
pub fn all_are_off() -> bool {
    all().all(|vm| vm.phase().is_off())
}

/// Where [all are off](all_are_off), the board is turned off or over, if the manifest lets it.
pub fn end() {
    let why = if all().next().is_some() { "no VM is left" } else { "there is no VM to run" };
    match WHEN_ALL_OFF.get().copied().unwrap_or_default() {
        WhenAllOff::PowerOff => {
            log::info!("{why}: turning the board off");
            console::request_end(End::Off);
        }
        // The board would reset itself again and again.
        WhenAllOff::Reset if !all().any(Vm::was_started) => {
            log::info!("{why}, nor would there be after a reset: turning the board off");
            console::request_end(End::Off);
        }
        WhenAllOff::Reset => {
            log::info!("{why}: resetting the board");
            console::request_end(End::Reset);
        }
        WhenAllOff::Stay => log::info!("{why}"),
    }
}

impl Vm {
    /// Where it is in its life.
    #[inline]
    pub fn phase(&self) -> Phase {
        Phase::from_u8(self.phase.load(Ordering::SeqCst))
    }

    /// Which of its lives this is, from 1 on: how often it was started.
    #[inline]
    pub fn life(&self) -> u64 {
        self.starts.load(Ordering::Relaxed)
    }

    /// Whether it has run since the board started.
    fn was_started(&self) -> bool {
        self.life() != 0
    }

    /// This happens to it. `false`: it can't happen now, and nothing has changed.
    pub fn change(&self, event: Event) -> bool {
        let next = |phase| Phase::from_u8(phase).after(event).map(|phase| phase as u8);
        let changed = self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok();
        if changed {
            self.call_all();
        }
        changed
    }

    /// It does this to itself, by a vCPU that runs. `false`: somebody else has done something to it first.
    pub fn change_itself(&self, event: Event) -> bool {
        let next = |phase| match Phase::from_u8(phase) {
            Phase::Running => Phase::Running.after(event).map(|phase| phase as u8),
            _ => None,
        };
        let changed = self.phase.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_ok();
        if changed {
            self.call_all();
        }
        changed
    }

    fn call_all(&self) {
        for vcpu in self.vcpus() {
            vcpu.call();
        }
    }

    /// Its vCPUs leave, to go on later where they were. Its counters stand still once they have.
    pub fn pause(&self) -> bool {
        let paused = self.change(Event::Pause);
        self.settle();
        paused
    }

    /// Whoever is the last to leave a VM that is paused, or pauses it when all have left, stops its time.
    pub fn settle(&self) {
        let is_still = || self.phase() == Phase::Paused && self.loaded.load(Ordering::SeqCst) == 0;
        if is_still() {
            let mut clock = self.clock.lock();
            // It may have gone on meanwhile, which is under this lock too.
            if is_still() {
                clock.stop(timer::now());
            }
        }
    }

    /// Its vCPUs and its counters go on.
    pub fn resume(&self) -> bool {
        let mut clock = self.clock.lock();
        if self.phase() != Phase::Paused {
            return false;
        }
        // Before any vCPU can be loaded, which needs the time.
        clock.go_on(timer::now());
        self.clock_offset.store(clock.offset(), Ordering::Relaxed);
        let resumed = self.change(Event::Resume);
        drop(clock);
        if resumed {
            self.see_to_deadlines();
        }
        resumed
    }

    /// What its counters are behind the board's, in ticks, as long as one of its vCPUs is loaded.
    #[inline]
    pub fn clock_offset(&self) -> u64 {
        self.clock_offset.load(Ordering::Relaxed)
    }

    /// Another timeout for its watchdog, in seconds. Whether that is a possible one.
    pub fn set_watchdog(&self, seconds: u32) -> bool {
        let now = self.time();
        let mut watchdog = self.watchdog.lock();
        let possible = watchdog.set_timeout(seconds, now);
        let deadline = watchdog.deadline();
        drop(watchdog);
        self.see_to_deadline(deadline);
        possible
    }

    /// Turns its watchdog on, fed, or off.
    pub fn turn_watchdog(&self, on: bool) {
        let now = self.time();
        let mut watchdog = self.watchdog.lock();
        if on {
            watchdog.feed(now)
        } else {
            watchdog.turn_off()
        }
        let deadline = watchdog.deadline();
        drop(watchdog);
        self.see_to_deadline(deadline);
    }

    /// Feeds its watchdog, if it is on. When the time comes that was waited for before, it is seen that there is more.
    pub fn feed_watchdog(&self) {
        let now = self.time();
        let mut watchdog = self.watchdog.lock();
        if watchdog.deadline().is_some() {
            watchdog.feed(now);
        }
    }

    /// Seconds until its watchdog has to be fed; 0 where it is off.
    pub fn watchdog_left(&self) -> u64 {
        let now = self.time();
        self.watchdog.lock().left(now)
    }

    /// Its watchdog is due at this time of its own, if it is on.
    fn see_to_deadline(&self, deadline: Option<u64>) {
        if let Some(deadline) = deadline {
            self.see_to_alarm(deadline.saturating_add(self.clock_offset()));
        }
    }

    /// What its counters show now.
    fn time(&self) -> u64 {
        self.clock.lock().at(timer::now())
    }

    /// It gets its memory, and is loaded: a step of that.
    fn start_some(&self) {
        let mut space = self.space.lock();
        let taken = self.memory.lock().take_some(&mut space);
        match taken {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => self.load_some(&mut space),
            Err(error) => {
                log::error!("{} can't be started: {error}", self.name);
                self.change(Event::Refused);
            }
        }
    }

    /// It is loaded afresh into the memory that it has: a step of that.
    fn restart_some(&self) {
        // What the guest has in its caches must not come down on what is loaded now.
        if !self.reload.lock().is_begun()
            && (self.reset_flash_some(&mut self.space.lock()) == Progress::More
                || !self.clean_some(&self.cleaned))
        {
            return;
        }
        self.load_some(&mut self.space.lock());
    }

    fn load_some(&self, space: &mut Space) {
        let mut reload = self.reload.lock();
        match reload.step(space, self.random.as_ref()) {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => {
                let start = reload.start();
                drop(reload);
                self.begin(start);
            }
            Err(error) => {
                log::error!("{} can't be loaded: {error}", self.name);
                self.change(Event::Stop);
            }
        }
    }

    /// It was loaded when it was built: it runs as soon as the CPUs look for vCPUs.
    pub fn start_at_boot(&self) {
        let start = self.reload.lock().start();
        self.set_out(start);
        self.phase.store(Phase::Running as u8, Ordering::SeqCst);
    }

    /// It is loaded: everything else is as after power-up, and vCPU 0 starts.
    fn begin(&self, start: Start) {
        self.reset_devices();
        self.set_out(start);
        if self.change(Event::Loaded) && self.may_log() {
            let again = self.life() > 1;
            log::info!("{} starts{}", self.name, if again { " afresh" } else { "" });
        }
        interrupts::see_to_alarms();
    }

    /// Its vCPU 0 is to start, and its time begins.
    fn set_out(&self, start: Start) {
        self.power.lock().boot(start);
        let now = timer::now();
        let mut clock = self.clock.lock();
        *clock = Clock::default();
        self.clock_offset.store(clock.offset(), Ordering::Relaxed);
        drop(clock);
        let mut watchdog = Watchdog::new(timer::frequency(), self.policy.watchdog.unwrap_or(WATCHDOG_S));
        if self.policy.watchdog.is_some() {
            watchdog.feed(now);
        }
        *self.watchdog.lock() = watchdog;
        self.loaded_at.store(now, Ordering::Relaxed);
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Everything that the last life has left in its interrupt controller and its devices is gone.
    fn reset_devices(&self) {
        with_hardware!(|hardware| self.vgic.lock().reset(&mut hardware));
        self.send_lines();
        let mut uart = self.uart.lock();
        let line = uart.reset();
        self.apply(self.layout.uart.intid(), line);
        drop(uart);
        let mut rtc = self.rtc.lock();
        let line = rtc.reset(timer::now());
        self.apply(self.layout.rtc.intid(), line);
    }

    /// Its memory is scrubbed and given back: a step of that.
    fn release_some(&self) {
        let mut space = self.space.lock();
        if self.reset_flash_some(&mut space) == Progress::More {
            return;
        }
        let released = self.memory.lock().give_back_some(&mut space, &self.name);
        drop(space);
        if released == Progress::More {
            return;
        }
        self.reload.lock().abandon();
        self.cleaned.store(0, Ordering::Relaxed);
        self.power.lock().stop();
        self.reset_devices();
        let one_by_one = GOES_OFF.lock();
        self.change(Event::Released);
        let is_last = all_are_off();
        // Not behind what the last one says.
        log::info!("{} is off", self.name);
        drop(one_by_one);
        if is_last {
            end();
        }
    }

    /// When something is due in its life, in ticks. What is due by `now` happens.
    pub fn see_to_life(&self, now: u64) -> Option<u64> {
        match self.phase() {
            Phase::BackingOff => {
                let due = self.due.load(Ordering::Relaxed);
                (due > now || !self.change(Event::Due)).then_some(due)
            }
            Phase::Running => {
                let clock = *self.clock.lock();
                let watchdog = self.watchdog.lock();
                if watchdog.has_expired(clock.at(now)) {
                    drop(watchdog);
                    self.crash_by_watchdog(now);
                    return None;
                }
                watchdog.deadline().map(|deadline| deadline.saturating_add(clock.offset()))
            }
            _ => None,
        }
    }
}
