//! What callers of Hanok's own calls ([`hanok`](crate::hanok)) say and are told, as types.

use core::fmt;

use crate::{FunctionId, hanok};

/// Who calls ([`hanok::IDENTITY`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The VM's number.
    pub vm: u32,
    /// The vCPU's number.
    pub vcpu: u32,
    /// What the VM may ask of others: bits of [`hanok::right`].
    pub rights: u32,
}

/// What can be done to a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It isn't running, and starts.
    Start,
    /// Its power is cut.
    Stop,
    /// It stands still.
    Pause,
    /// It goes on.
    Resume,
    /// It starts afresh.
    Restart,
}

impl Control {
    /// The call that does it.
    pub const fn function(self) -> FunctionId {
        match self {
            Self::Start => hanok::VM_START,
            Self::Stop => hanok::VM_STOP,
            Self::Pause => hanok::VM_PAUSE,
            Self::Resume => hanok::VM_RESUME,
            Self::Restart => hanok::VM_RESTART,
        }
    }
}

/// Whose words [`hanok::HISTORY`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Hanok itself.
    Hanok,
    /// The VM with this number.
    Vm(u32),
}

impl Speaker {
    /// The call's argument for it.
    pub const fn argument(self) -> u64 {
        match self {
            Self::Hanok => hanok::LOG as u64,
            Self::Vm(vm) => vm as u64,
        }
    }
}

/// Why a call was refused: a status other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// [`hanok::NOT_SUPPORTED`]: the call isn't offered, or the hypervisor isn't Hanok.
    NotSupported,
    /// [`hanok::INVALID_PARAMETERS`]: no such VM, vCPU or channel, or a buffer that isn't in RAM.
    InvalidParameters,
    /// [`hanok::DENIED`]: the caller has no right to it.
    Denied,
    /// [`hanok::WRONG_STATE`]: the VM's state doesn't allow it.
    WrongState,
    /// [`hanok::BUSY`]: not now.
    Busy,
    /// A status that this list doesn't have.
    Other(i64),
}

impl Error {
    /// What X0 says: a result, which is never negative, or why there is none.
    pub const fn check(x0: i64) -> Result<u64, Self> {
        match x0 {
            0.. => Ok(x0 as u64),
            hanok::NOT_SUPPORTED => Err(Self::NotSupported),
            hanok::INVALID_PARAMETERS => Err(Self::InvalidParameters),
            hanok::DENIED => Err(Self::Denied),
            hanok::WRONG_STATE => Err(Self::WrongState),
            hanok::BUSY => Err(Self::Busy),
            other => Err(Self::Other(other)),
        }
    }
}

/// The name of the status, as its specification has it.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("NOT_SUPPORTED"),
            Self::InvalidParameters => f.write_str("INVALID_PARAMETERS"),
            Self::Denied => f.write_str("DENIED"),
            Self::WrongState => f.write_str("WRONG_STATE"),
            Self::Busy => f.write_str("BUSY"),
            Self::Other(status) => write!(f, "status {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_told_from_errors() {
        assert_eq!(Error::check(hanok::SUCCESS), Ok(0));
        assert_eq!(Error::check(4096), Ok(4096));
        assert_eq!(Error::check(-1), Err(Error::NotSupported));
        assert_eq!(Error::check(hanok::BUSY), Err(Error::Busy));
        assert_eq!(Error::check(-77), Err(Error::Other(-77)));
    }
}
