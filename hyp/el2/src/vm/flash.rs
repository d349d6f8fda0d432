//! A VM's flash, where it starts from firmware: the chips of `vmm`, and the memory that holds what they hold.
//!
//! Stage 2 lets the VM read a bank, but never write to it. Stores to the first one have no effect, as if nobody had connected its
//! write enable: firmware that runs from it does store there by mistake (EDK2 does). The second one is the same, or has chips that take
//! commands. As long as these show what they hold, the VM reads that by itself; otherwise stage 2 lets it read nothing there, so that
//! every access comes here. A bank is whole blocks, whose permissions are changed without frames for tables.

use stage2::{Ipa, Permissions, Progress};
use vmm::devices::flash::{Bank, Cells};
use vmm::layout::Region;

use super::Vm;
use super::holdings::FLASH;
use crate::guest_memory::{self, Space};

/// Bytes that are erased at a time.
const ERASED: u64 = 8 << 10;

const HIDDEN: Permissions = Permissions { read: false, write: false, execute: false };

/// What a VM wants of flash where stage 2 has stopped it.
#[derive(Clone, Copy, Debug)]
pub enum Attempt {
    /// To load so many bytes.
    Load {
        /// 1, 2, 4 or 8.
        size: u32,
    },
    /// To store so many bytes.
    Store {
        /// 1, 2, 4 or 8.
        size: u32,
        /// What they are.
        value: u64,
    },
    /// Cache maintenance.
    Maintenance,
    /// To fetch an instruction or a descriptor, or a load that doesn't describe itself.
    Other,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is to be tried again.
    Again,
    /// It is done.
    Done,
    /// This is what the load gives.
    Value(u64),
    /// It can't be had.
    Refused,
}

/// A VM's flash.
pub struct Flash {
    banks: [Region; 2],
    /// The chips of the second bank, if it takes commands.
    chips: Option<Bank>,
    /// Stage 2 lets the VM read that one, where it is mapped.
    readable: bool,
}

impl Flash {
    /// As after power-up, of which the first `writable` bytes of the second bank can be written, if any.
    pub fn new(banks: [Region; 2], writable: Option<u64>) -> Self {
        Self { banks, chips: writable.map(|bytes| Bank::new(bytes as u32)), readable: true }
    }

    /// An access at `ipa` that stage 2 stopped.
    fn access(&mut self, space: &mut Space, ipa: Ipa, attempt: Attempt) -> Outcome {
        let [_, second] = self.banks;
        if !self.banks.iter().any(|bank| bank.contains(ipa)) {
            return Outcome::Refused;
        }
        let Some(chips) = self.chips.as_mut().filter(|_| second.contains(ipa)) else {
            return match attempt {
                Attempt::Store { .. } | Attempt::Maintenance => Outcome::Done,
                Attempt::Load { .. } | Attempt::Other => Outcome::Refused,
            };
        };
        let offset = ipa.as_u64().wrapping_sub(second.base.as_u64()) as u32;
        if erase_some(chips, space, second) {
            return Outcome::Again;
        }
        match attempt {
            Attempt::Store { size, value } => {
                if !chips.write(offset, size, value, &mut Held { space, bank: second }) {
                    return Outcome::Refused;
                }
                if self.readable && !chips.shows_cells() {
                    self.readable = !protect(space, second, HIDDEN);
                }
                Outcome::Done
            }
            _ if chips.shows_cells() && !self.readable => {
                self.readable = protect(space, second, FLASH);
                if self.readable { Outcome::Again } else { Outcome::Refused }
            }
            // There is nothing in caches that the chips would have to see, or the other way round.
            Attempt::Maintenance => Outcome::Done,
            // Another vCPU has seen to it meanwhile.
            Attempt::Load { .. } | Attempt::Other if chips.shows_cells() => Outcome::Again,
            Attempt::Load { size } => {
                let answer = chips.read(offset, size);
                answer
                    .and_then(|answer| {
                        let held = if answer.held == 0 { 0 } else { read(space, ipa, size)? };
                        Some(Outcome::Value(answer.said | held & answer.held))
                    })
                    .unwrap_or(Outcome::Refused)
            }
            Attempt::Other => Outcome::Refused,
        }
    }

    /// A step of making it as after power-up, but for what it holds. None of the VM's vCPUs runs.
    fn reset_some(&mut self, space: &mut Space) -> Progress {
        let [_, second] = self.banks;
        let Some(chips) = &mut self.chips else { return Progress::Done };
        if erase_some(chips, space, second) {
            return Progress::More;
        }
        chips.reset();
        if !self.readable {
            self.readable = protect(space, second, FLASH);
        }
        Progress::Done
    }
}

impl Vm {
    /// Whether it has flash.
    #[inline]
    pub const fn has_flash(&self) -> bool {
        self.flash.is_some()
    }

    /// An access to flash, or to what isn't, that stage 2 stopped.
    pub fn access_flash(&self, ipa: Ipa, attempt: Attempt) -> Outcome {
        match &self.flash {
            Some(flash) => {
                let mut space = self.space.lock();
                flash.lock().access(&mut space, ipa, attempt)
            }
            None => Outcome::Refused,
        }
    }

    /// A step of making its flash as after power-up, but for what it holds.
    pub(super) fn reset_flash_some(&self, space: &mut Space) -> Progress {
        self.flash.as_ref().map_or(Progress::Done, |flash| flash.lock().reset_some(space))
    }
}

/// What the chips hold: memory of the VM's.
struct Held<'a> {
    space: &'a mut Space,
    bank: Region,
}

impl Cells for Held<'_> {
    fn program(&mut self, offset: u32, kept: &[u32]) -> bool {
        let size = kept.len().saturating_mul(4) as u64;
        let at = Ipa::new(self.bank.base.as_u64().saturating_add(offset.into()));
        let keep = |number: usize, word: u32| word & kept.get(number).copied().unwrap_or(u32::MAX);
        // A sector lies together.
        guest_memory::change_words(self.space, at, size, keep) == Ok(size)
    }
}

/// Erases a piece of what is to be erased. Whether there was something.
fn erase_some(chips: &mut Bank, space: &mut Space, bank: Region) -> bool {
    let Some(erase) = chips.erase() else { return false };
    let at = Ipa::new(bank.base.as_u64().saturating_add(erase.offset.into()));
    let size = ERASED.min(erase.left.into());
    let done = guest_memory::change_words(space, at, size, |_, word| word | erase.lanes);
    // It is the VM's memory as long as it has any; without, nothing is left to erase.
    debug_assert!(done.is_ok());
    chips.erased(done.map_or(erase.left, |bytes| bytes as u32));
    true
}

/// Gives the VM these permissions to a bank. Whether it could be done, which it can: no block reaches out of a bank.
fn protect(space: &mut Space, bank: Region, permissions: Permissions) -> bool {
    let (stage2, tables, _) = space.parts();
    let done = stage2.protect(tables, bank.base, bank.size, permissions);
    debug_assert!(done.is_ok());
    done.is_ok()
}

/// What a bank holds.
fn read(space: &mut Space, ipa: Ipa, size: u32) -> Option<u64> {
    let mut bytes = [0; 8];
    guest_memory::read(space, ipa, bytes.get_mut(..size as usize)?).ok()?;
    Some(u64::from_le_bytes(bytes))
}
