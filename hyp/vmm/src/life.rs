//! A VM's life: its phases and what may follow what, what becomes of it when it crashes, its watchdog, and its time.
//!
//! All of it is decided here and carried out by the caller, which keeps a [`Phase`] where all CPUs see it and changes it
//! by [`Phase::after`] alone. Times are ticks of a counter.

use abi::record::state;

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    /// It has never been started. It has no memory.
    Created,
    /// It is being given memory, and loaded.
    Starting,
    /// Its vCPUs run, as far as they are on.
    Running,
    /// Its vCPUs have left their CPUs, or are about to, and will go on where they were.
    Paused,
    /// Its vCPUs leave; then it is loaded afresh into the memory that it has.
    Restarting,
    /// Its vCPUs leave; then its memory is given back.
    Stopping,
    /// It crashed; its vCPUs leave, and then what becomes of it is decided.
    Crashing,
    /// It crashed, and will be loaded afresh when it has waited for long enough.
    BackingOff,
    /// It crashed, and keeps its memory as it was, for whoever wants to look at it.
    Preserved,
    /// It crashed, and its memory is given back.
    Discarding,
    /// It was stopped, or turned itself off. It has no memory.
    Stopped,
    /// It crashed. It has no memory.
    Crashed,
}

/// What happens to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Somebody starts it.
    Start,
    /// It turns itself off, or somebody stops it.
    Stop,
    /// It resets itself, or somebody restarts it.
    Restart,
    /// Somebody pauses it.
    Pause,
    /// Somebody lets it go on.
    Resume,
    /// It crashes.
    Crash,
    /// It is loaded.
    Loaded,
    /// It can't be started, for there is no memory.
    Refused,
    /// It crashed, and is to be started afresh later.
    BackOff,
    /// It crashed, and is to be kept as it is.
    Preserve,
    /// It crashed, and its memory is to be given back.
    Discard,
    /// It has waited for long enough.
    Due,
    /// It has no memory any more.
    Released,
}

impl Phase {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Created,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Stopping,
        Self::Crashing,
        Self::BackingOff,
        Self::Preserved,
        Self::Discarding,
        Self::Stopped,
        Self::Crashed,
    ];

    /// The phase with this number; there are no others.
    #[inline]
    pub const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::Created,
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Paused,
            4 => Self::Restarting,
            5 => Self::Stopping,
            6 => Self::Crashing,
            7 => Self::BackingOff,
            8 => Self::Preserved,
            9 => Self::Discarding,
            10 => Self::Stopped,
            _ => Self::Crashed,
        }
    }

    /// What follows when this happens; `None`: it can't happen now, and whoever asked for it is told so.
    pub const fn after(self, event: Event) -> Option<Self> {
        use Phase::{
            BackingOff, Crashed, Crashing, Created, Discarding, Paused, Preserved, Restarting, Running,
            Starting, Stopped, Stopping,
        };
        Some(match (self, event) {
            (Created | Stopped | Crashed, Event::Start | Event::Restart) => Starting,
            (BackingOff | Preserved, Event::Start | Event::Restart) => Restarting,
            (Running | Paused, Event::Restart) => Restarting,
            (Starting | Running | Paused | Restarting | BackingOff | Preserved, Event::Stop) => Stopping,
            (Running, Event::Pause) => Paused,
            (Paused, Event::Resume) => Running,
            (Running | Paused, Event::Crash) => Crashing,
            (Starting | Restarting, Event::Loaded) => Running,
            (Starting, Event::Refused) => Stopping,
            (Crashing, Event::BackOff) => BackingOff,
            (Crashing, Event::Preserve) => Preserved,
            (Crashing, Event::Discard) => Discarding,
            (BackingOff, Event::Due) => Restarting,
            (Stopping, Event::Released) => Stopped,
            (Discarding, Event::Released) => Crashed,
            _ => return None,
        })
    }

    /// Whether there is something to be done for the VM before anything else happens to it: in turns of its vCPU 0, once
    /// all of its vCPUs have left.
    pub const fn has_work(self) -> bool {
        matches!(self, Self::Starting | Self::Restarting | Self::Stopping | Self::Crashing | Self::Discarding)
    }

    /// Whether it has no memory, and will never run again unless somebody starts it.
    pub const fn is_off(self) -> bool {
        matches!(self, Self::Created | Self::Stopped | Self::Crashed)
    }

    /// Whether what is typed for it can wait until it takes it: it runs, or may before long.
    pub const fn may_listen(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Restarting)
    }

    /// For guests: a number of [`abi::record::state`].
    pub const fn state(self) -> u64 {
        match self {
            Self::Created => state::CREATED,
            Self::Starting | Self::Restarting => state::STARTING,
            Self::Running => state::RUNNING,
            Self::Paused => state::PAUSED,
            Self::Stopping => state::STOPPING,
            Self::Stopped => state::STOPPED,
            Self::Crashing | Self::BackingOff | Self::Preserved | Self::Discarding | Self::Crashed => {
                state::CRASHED
            }
        }
    }
}

/// What becomes of a VM that crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnCrash {
    /// It stops, and its memory is given back.
    #[default]
    Stop,
    /// It stops, and keeps its memory as it was.
    Preserve,
    /// It starts afresh, unless it has done so too often.
    Restart {
        /// How often in a row: 1 at least.
        limit: u32,
        /// How long it waits the first time, in milliseconds; twice as long each time after that.
        delay: u32,
    },
}

/// The longest that a VM waits to start afresh, in milliseconds.
pub const LONGEST_DELAY_MS: u32 = 60_000;
/// A VM that has run for so long, in milliseconds, is taken to be well again: its crashes are counted from the start.
pub const WELL_AFTER_MS: u32 = 60_000;

/// A VM's crashes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crashes {
    /// All of them.
    pub count: u64,
    /// Restarts for crashes that followed each other.
    in_a_row: u32,
}

/// What is decided for a VM that has crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its memory is given back.
    Stop,
    /// The same, for it has been restarted too often: so many times.
    GiveUp(u32),
    /// Its memory stays as it was.
    Preserve,
    /// It starts afresh after so many milliseconds.
    Restart(u32),
}

impl Crashes {
    /// It crashed, having run for `ran_ms` milliseconds since it was loaded.
    pub const fn crashed(&mut self, policy: OnCrash, ran_ms: u64) -> Verdict {
        self.count = self.count.saturating_add(1);
        let (limit, delay) = match policy {
            OnCrash::Stop => return Verdict::Stop,
            OnCrash::Preserve => return Verdict::Preserve,
            OnCrash::Restart { limit, delay } => (limit, delay),
        };
        if ran_ms >= WELL_AFTER_MS as u64 {
            self.in_a_row = 0;
        }
        if self.in_a_row >= limit {
            let times = self.in_a_row;
            self.in_a_row = 0;
            return Verdict::GiveUp(times);
        }
        let doubled = if self.in_a_row < 32 { (delay as u64) << self.in_a_row } else { u64::MAX };
        self.in_a_row = self.in_a_row.saturating_add(1);
        let capped = if doubled < LONGEST_DELAY_MS as u64 { doubled as u32 } else { LONGEST_DELAY_MS };
        Verdict::Restart(capped)
    }
}

/// A VM's time: the board's counter, less what it was paused for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Ticks for which it stood still, in all.
    offset: u64,
    /// Since when it stands still, by the board's counter.
    stopped: Option<u64>,
}

impl Clock {
    /// What the VM's counters are behind the board's, while the VM runs: for CNTVOFF_EL2.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The VM's time at this time of the board.
    pub const fn at(&self, now: u64) -> u64 {
        let now = match self.stopped {
            Some(stopped) => stopped,
            None => now,
        };
        now.wrapping_sub(self.offset)
    }

    /// Stands still from `now` on. No vCPU of the VM runs.
    pub const fn stop(&mut self, now: u64) {
        if self.stopped.is_none() {
            self.stopped = Some(now);
        }
    }

    /// Goes on where it stopped, if it did.
    pub const fn go_on(&mut self, now: u64) {
        if let Some(stopped) = self.stopped.take() {
            self.offset = self.offset.wrapping_add(now.saturating_sub(stopped));
        }
    }
}

/// The longest timeout of a watchdog, in seconds: an hour.
pub const LONGEST_TIMEOUT: u32 = 3600;

/// A VM's watchdog, in the VM's own time.
#[derive(Clone, Copy, Debug)]
pub struct Watchdog {
    /// Ticks in a second.
    frequency: u64,
    /// Seconds that may pass between two feedings, 1 to [`LONGEST_TIMEOUT`].
    timeout: u32,
    /// When it has to be fed at the latest; `None`: it is off.
    deadline: Option<u64>,
}

impl Watchdog {
    /// It is off. `timeout` in seconds, 1 to [`LONGEST_TIMEOUT`].
    pub const fn new(frequency: u64, timeout: u32) -> Self {
        Self { frequency, timeout, deadline: None }
    }

    const fn is_possible(timeout: u32) -> bool {
        timeout >= 1 && timeout <= LONGEST_TIMEOUT
    }

    /// Turns it on, or feeds it.
    pub const fn feed(&mut self, now: u64) {
        self.deadline = Some(now.saturating_add((self.timeout as u64).saturating_mul(self.frequency)));
    }

    /// Turns it off.
    pub const fn turn_off(&mut self) {
        self.deadline = None;
    }

    /// Another timeout, in seconds, from `now` on. Whether it is a possible one; if not, nothing changes.
    pub const fn set_timeout(&mut self, timeout: u32, now: u64) -> bool {
        let possible = Self::is_possible(timeout);
        if possible {
            self.timeout = timeout;
            if self.deadline.is_some() {
                self.feed(now);
            }
        }
        possible
    }

    /// Seconds until it has to be fed, rounded down; 0 where it is off.
    pub const fn left(&self, now: u64) -> u64 {
        let Some(deadline) = self.deadline else { return 0 };
        match deadline.saturating_sub(now).checked_div(self.frequency) {
            Some(seconds) => seconds,
            None => 0,
        }
    }

    /// When it has to be fed at the latest, in the VM's time, if it is on.
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Whether it should have been fed by `now`, and was not.
    pub const fn has_expired(&self, now: u64) -> bool {
        matches!(self.deadline, Some(deadline) if deadline <= now)
    }

    /// Its timeout, in seconds.
    pub const fn timeout(&self) -> u32 {
        self.timeout
    }
}
