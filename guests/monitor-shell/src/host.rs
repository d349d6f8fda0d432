//! What the shell needs of the machine that it runs on.

use core::fmt;

use abi::record::{BoardRecord, CrashRecord, VcpuRecord, VmRecord};
use abi::{Control, Error, Identity, Speaker};

/// The machine: Hanok's calls (`abi::hanok`), a clock and a terminal, which is written to as UTF-8, `\n` being the start of
/// the next row.
pub trait Host: fmt::Write {
    /// The revision of Hanok's calls. [`Error::NotSupported`] where the hypervisor isn't Hanok.
    fn revision(&mut self) -> Result<(u32, u32), Error>;
    /// Who this is.
    fn identity(&mut self) -> Result<Identity, Error>;
    /// What the board has.
    fn board(&mut self) -> Result<BoardRecord, Error>;
    /// What a VM is and does.
    fn vm(&mut self, vm: u32) -> Result<VmRecord, Error>;
    /// What a VM's vCPU does.
    fn vcpu(&mut self, vm: u32, vcpu: u32) -> Result<VcpuRecord, Error>;
    /// The report of a VM's last crash, if it has crashed.
    fn crash(&mut self, vm: u32) -> Result<Option<CrashRecord>, Error>;
    /// What was said last, from a position on: how many bytes, 0 at the end, and the position to go on at.
    fn history(&mut self, whose: Speaker, position: u64, buffer: &mut [u8]) -> Result<(usize, u64), Error>;
    /// Does something to a VM.
    fn control(&mut self, what: Control, vm: u32) -> Result<(), Error>;
    /// Gives a VM the board's console. All that was written before is out by then.
    fn focus(&mut self, vm: u32) -> Result<(), Error>;
    /// The counter.
    fn now(&mut self) -> u64;
    /// Its ticks in a second.
    fn frequency(&mut self) -> u64;
    /// The next byte that is typed; until the counter is at `until`, if that is given. None without that: nobody is there
    /// any more. All that was written is shown meanwhile.
    fn key(&mut self, until: Option<u64>) -> Option<u8>;
}

/// The most VMs and vCPUs of each that there are (docs/manifest.md).
pub(crate) const VMS: u32 = 64;
pub(crate) const VCPUS: u32 = 8;

/// Every VM with its number, from 0 up to the first one that no VM has, as long as nothing is refused.
pub(crate) fn for_each_vm<H: Host>(
    host: &mut H,
    mut body: impl FnMut(&mut H, u32, &VmRecord) -> Result<(), Stop>,
) -> Result<(), Stop> {
    for vm in 0..VMS {
        match host.vm(vm) {
            Ok(record) => body(host, vm, &record)?,
            Err(Error::InvalidParameters) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Every vCPU of a VM with its number. One that is gone meanwhile, as its VM may be, is passed over.
pub(crate) fn for_each_vcpu<H: Host>(
    host: &mut H,
    vm: u32,
    record: &VmRecord,
    mut body: impl FnMut(&mut H, u32, &VcpuRecord),
) -> Result<(), Stop> {
    for vcpu in 0..VCPUS.min(record.vcpus as u32) {
        match host.vcpu(vm, vcpu) {
            Ok(record) => body(host, vcpu, &record),
            Err(Error::InvalidParameters) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Why a command ends early.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// Hanok refused a call.
    Refused(Error),
    /// The terminal takes nothing any more.
    Terminal,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<fmt::Error> for Stop {
    fn from(_: fmt::Error) -> Self {
        Self::Terminal
    }
}
