//! Hanok's own calls ([`abi::hanok`]), decoded: what is asked, and which right that takes.
//!
//! [`smccc`](crate::smccc) has them in its table. What they do is done by the caller, which knows the VMs.

use crate::layout::Ipa;
use crate::life::Event;
use abi::hanok::{INVALID_PARAMETERS, right, watchdog};

/// Memory of the caller's that a call reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// Its guest physical address.
    pub at: Ipa,
    /// Bytes.
    pub size: u64,
}

impl Buffer {
    /// The buffer that two arguments name.
    ///
    /// # Errors
    /// [`INVALID_PARAMETERS`]: the address isn't a multiple of 8.
    pub const fn new(at: u64, size: u64) -> Result<Self, i64> {
        if at.is_multiple_of(8) { Ok(Self { at: Ipa::new(at), size }) } else { Err(INVALID_PARAMETERS) }
    }
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Who calls.
    Identity,
    /// Bytes for the own console.
    ConsoleWrite(Buffer),
    /// Bytes from the own console.
    ConsoleRead(Buffer),
    /// Ring the bell of this channel.
    Doorbell(u32),
    /// The caller's own VM has crashed: it says so.
    Crash,
    /// Something is to happen to this VM.
    Control(u32, Event),
    /// What the board has.
    BoardInfo(Buffer),
    /// What this VM is.
    VmInfo(u32, Buffer),
    /// What this VM's vCPU, by its number, does.
    VcpuInfo(u32, u32, Buffer),
    /// The report of this VM's last crash.
    CrashReport(u32, Buffer),
    /// What was said last.
    History {
        /// By this VM, or Hanok itself.
        by: Option<u32>,
        /// From here on.
        position: u64,
        /// To be put there.
        buffer: Buffer,
    },
    /// This VM gets the board's console.
    Focus(u32),
    /// About the caller's watchdog.
    Watchdog(WatchdogRequest),
}

/// What is asked of a watchdog.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchdogRequest {
    /// The least and the most that a timeout can be.
    Limits,
    /// Another timeout, in seconds.
    SetTimeout(u32),
    /// Turn it on, or off.
    Enable(bool),
    /// Feed it.
    Feed,
    /// How many seconds are left.
    TimeLeft,
}

impl WatchdogRequest {
    /// By the protocol of Linux's `arm,smc-wdt`.
    ///
    /// # Errors
    /// [`INVALID_PARAMETERS`]: there is no such thing.
    pub const fn decode(what: u32, argument: u32) -> Result<Self, i64> {
        Ok(match (what, argument) {
            (watchdog::INIT, _) => Self::Limits,
            (watchdog::SET_TIMEOUT, seconds) => Self::SetTimeout(seconds),
            (watchdog::ENABLE, 0) => Self::Enable(false),
            (watchdog::ENABLE, 1) => Self::Enable(true),
            (watchdog::PET, _) => Self::Feed,
            (watchdog::GET_TIMELEFT, _) => Self::TimeLeft,
            _ => return Err(INVALID_PARAMETERS),
        })
    }
}

impl Request {
    /// The right that it takes, a bit of [`right`]; 0: none.
    pub const fn right(&self) -> u32 {
        match self {
            Self::Identity
            | Self::ConsoleWrite(_)
            | Self::ConsoleRead(_)
            | Self::Doorbell(_)
            | Self::Crash
            | Self::Watchdog(_) => 0,
            Self::Control(..) => right::CONTROL,
            Self::BoardInfo(_) | Self::VmInfo(..) | Self::VcpuInfo(..) | Self::CrashReport(..) => {
                right::STATISTICS
            }
            Self::History { by: None, .. } => right::STATISTICS,
            Self::History { by: Some(_), .. } | Self::Focus(_) => right::CONSOLE,
        }
    }
}
