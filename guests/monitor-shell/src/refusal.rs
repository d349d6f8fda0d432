//! Why something wasn't done, in words.

use core::fmt::{self, Display};

use abi::{Error, hanok};

/// A call that was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub error: Error,
    /// The right that the call needs: a bit of [`hanok::right`].
    pub right: u32,
    /// Whether the hypervisor is Hanok.
    pub is_hanok: bool,
}

/// A right: its bit, its name in the manifest, and what who hasn't got it has no right to do.
const RIGHTS: [(u32, &str, &str); 3] = [
    (hanok::right::CONTROL, "control", "control others"),
    (hanok::right::STATISTICS, "statistics", "see what others do"),
    (hanok::right::CONSOLE, "console", "read what others say, or give them the console"),
];

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.error {
            Error::NotSupported if !self.is_hanok => {
                f.write_str("the hypervisor isn't Hanok, and can't be asked (NOT_SUPPORTED)")
            }
            Error::NotSupported => f.write_str("this Hanok doesn't offer that (NOT_SUPPORTED)"),
            Error::InvalidParameters => f.write_str("there is no such VM (INVALID_PARAMETERS)"),
            Error::Denied => {
                let (_, name, what) =
                    RIGHTS.iter().find(|(bit, ..)| *bit == self.right).unwrap_or(&RIGHTS[0]);
                write!(
                    f,
                    "this VM has no right to {what}; give it rights = \"{name}\" in the manifest (DENIED)"
                )
            }
            Error::WrongState => f.write_str("its state doesn't allow that (WRONG_STATE)"),
            Error::Busy => f.write_str("Hanok is still busy with it; try again (BUSY)"),
            Error::Other(status) => write!(f, "the call failed with status {status}, which isn't known here"),
        }
    }
}

/// The names of the rights that `rights` lacks, each behind a comma and a space but for the first.
pub(crate) fn lacking(rights: u32) -> impl Display {
    fmt::from_fn(move |f| {
        let missing = RIGHTS.iter().filter(|(bit, ..)| rights & bit == 0);
        for (n, (_, name, _)) in missing.enumerate() {
            write!(f, "{}{name}", if n == 0 { "" } else { ", " })?;
        }
        Ok(())
    })
}

/// Whether there is a right that `rights` lacks.
pub(crate) fn lacks_any(rights: u32) -> bool {
    RIGHTS.iter().any(|(bit, ..)| rights & bit == 0)
}
