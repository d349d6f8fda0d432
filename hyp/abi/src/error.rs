//! Why a call of Hanok's own was refused, as a type: the status codes of [`hanok`](crate::hanok).

use core::fmt;

use crate::hanok;

/// A status other than success.
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
