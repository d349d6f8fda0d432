//! PSCI 1.1 for one VM (Arm DEN0022): which of its vCPUs are on, and what a power call does to them.
//!
//! [`PowerStates`] decides and remembers; the caller stops, starts and wakes CPUs as the [`Outcome`] says. Identifiers
//! are decoded, and calls that need no state are answered, in [`crate::smccc`].

use crate::affinity::{MAX_VCPUS, affinity_instance};
use crate::layout::{Ipa, Region};
use abi::psci::{
    AFFINITY_OFF, AFFINITY_ON, AFFINITY_ON_PENDING, ALREADY_ON, INVALID_ADDRESS, INVALID_PARAMETERS,
    ON_PENDING, POWER_STATE_DOWN, POWER_STATE_RESERVED, SUCCESS,
};
use alloc::boxed::Box;
use alloc::vec;
use thiserror::Error;
use vgic::VcpuId;

/// A power call with its arguments, already narrowed to 32 bits where the call was of the 32-bit convention.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerRequest {
    /// `CPU_SUSPEND`.
    CpuSuspend {
        /// Power state in the original format.
        power_state: u32,
        /// Where a power-down would come back to.
        entry: Ipa,
    },
    /// `CPU_OFF`.
    CpuOff,
    /// `CPU_ON`.
    CpuOn {
        /// Target affinity, laid out as MPIDR_EL1.
        target: u64,
        /// First instruction.
        entry: Ipa,
        /// X0 at entry.
        context: u64,
    },
    /// `AFFINITY_INFO`.
    AffinityInfo {
        /// Target affinity, laid out as MPIDR_EL1.
        target: u64,
        /// Lowest affinity level: 0 for one CPU.
        level: u32,
    },
    /// `SYSTEM_OFF`.
    SystemOff,
    /// `SYSTEM_RESET`.
    SystemReset,
}

/// X0 after a call that started or suspended a vCPU.
pub const X0_SUCCESS: u64 = SUCCESS as u64;

/// What the caller has to do for a power call. No call changes any register of the guest but X0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Put this into X0 and go on: a result or an error code, sign-extended.
    Return(u64),
    /// Put [`X0_SUCCESS`] into X0 and go on; let the target's CPU call [`PowerStates::take_start`].
    StartVcpu(VcpuId),
    /// The calling vCPU is off: don't return to it before [`PowerStates::take_start`] gives it a start.
    StopVcpu,
    /// Put [`X0_SUCCESS`] into X0 and wait, as for a WFI, before going on behind the call.
    Suspend,
    /// Stop the VM.
    SystemOff,
    /// Stop the VM and start it afresh.
    SystemReset,
}

/// How a vCPU begins: at EL1h, DAIF masked, MMU and caches off, general-purpose registers other than X0 zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// First instruction.
    pub entry: Ipa,
    /// X0: the context identifier of `CPU_ON`, or the device tree's address for the VM's first vCPU.
    pub context: u64,
}

/// Whether a vCPU runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerState {
    /// Off, or not there.
    Off,
    /// To be started, and not yet taken by its CPU.
    OnPending,
    /// On; it may be waiting in WFI or CPU_SUSPEND.
    On,
}

/// A number of vCPUs that no VM can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{0} vCPUs: a VM has 1 to {MAX_VCPUS}")]
pub struct VcpuCountError(pub u8);

/// The power states of a VM's vCPUs. To be kept under a lock of that VM.
///
/// Sets of vCPUs are words, bit n for vCPU n. `on` and `pending` never meet and hold only vCPUs that are `present`.
#[derive(Debug)]
pub struct PowerStates {
    present: u64,
    on: u64,
    pending: u64,
    starts: Box<[Start]>,
    executable: Box<[Region]>,
}

impl PowerStates {
    /// A VM with `vcpus` vCPUs, 1 to [`MAX_VCPUS`], all off. Guests may name an entry point within `executable`, the
    /// VM's RAM and nothing else as a rule. Allocates; no other method does.
    pub fn new(vcpus: u8, executable: &[Region]) -> Result<Self, VcpuCountError> {
        if !(1..=MAX_VCPUS).contains(&vcpus) {
            return Err(VcpuCountError(vcpus));
        }
        let never = Start { entry: Ipa::new(0), context: 0 };
        Ok(Self {
            present: u64::MAX >> MAX_VCPUS.saturating_sub(vcpus),
            on: 0,
            pending: 0,
            starts: vec![never; usize::from(vcpus)].into_boxed_slice(),
            executable: executable.into(),
        })
    }

    /// The VM starts, or starts afresh: vCPU 0 is to begin as `first` says, all others are off. Their CPUs must have
    /// left the guest before.
    pub fn boot(&mut self, first: Start) {
        self.on = 0;
        self.pending = 0;
        if let Some(start) = self.starts.first_mut() {
            *start = first;
            self.pending = 1;
        }
    }

    /// The VM has stopped: all vCPUs are off and none is to start.
    pub fn stop(&mut self) {
        self.on = 0;
        self.pending = 0;
    }

    /// How `vcpu` is to start, if it is; it is on from now on. For that vCPU's own CPU, before it waits and whenever
    /// it has been woken: a start can be pending for a vCPU whose CPU is still on its way out of the guest.
    pub fn take_start(&mut self, vcpu: VcpuId) -> Option<Start> {
        let bit = bit(vcpu);
        if self.pending & bit == 0 {
            return None;
        }
        self.pending &= !bit;
        self.on |= bit;
        self.starts.get(usize::from(vcpu.0)).copied()
    }

    /// The state of one vCPU.
    pub fn state(&self, vcpu: VcpuId) -> PowerState {
        let bit = bit(vcpu);
        match (self.on & bit != 0, self.pending & bit != 0) {
            (true, _) => PowerState::On,
            (false, true) => PowerState::OnPending,
            (false, false) => PowerState::Off,
        }
    }

    /// Whether no vCPU is on or to start: nothing in the VM can turn one on any more.
    pub fn all_off(&self) -> bool {
        self.on | self.pending == 0
    }

    /// Does what vCPU `caller` asks for, as far as the VM's own state goes.
    pub fn call(&mut self, caller: VcpuId, request: PowerRequest) -> Outcome {
        match request {
            PowerRequest::CpuSuspend { power_state, entry } => self.cpu_suspend(power_state, entry),
            PowerRequest::CpuOff => {
                self.on &= !bit(caller);
                Outcome::StopVcpu
            }
            PowerRequest::CpuOn { target, entry, context } => {
                match self.cpu_on(target, Start { entry, context }) {
                    Ok(vcpu) => Outcome::StartVcpu(vcpu),
                    Err(code) => Outcome::Return(code as u64),
                }
            }
            PowerRequest::AffinityInfo { target, level } => {
                Outcome::Return(self.affinity_info(target, level) as u64)
            }
            PowerRequest::SystemOff => Outcome::SystemOff,
            PowerRequest::SystemReset => Outcome::SystemReset,
        }
    }

    /// DEN0022, CPU_SUSPEND. Every state is entered as a standby: PSCI lets an implementation take a power-down for a
    /// request and come back behind the call instead of at the entry point. The entry point is checked all the same.
    fn cpu_suspend(&self, power_state: u32, entry: Ipa) -> Outcome {
        if power_state & POWER_STATE_RESERVED != 0 {
            return Outcome::Return(INVALID_PARAMETERS as u64);
        }
        if power_state & POWER_STATE_DOWN != 0 && !self.is_executable(entry) {
            return Outcome::Return(INVALID_ADDRESS as u64);
        }
        Outcome::Suspend
    }

    /// DEN0022, CPU_ON. Where several errors apply, the specification leaves open which is reported; here it is the
    /// target's identity, then its state, then the entry point.
    fn cpu_on(&mut self, target: u64, start: Start) -> Result<VcpuId, i64> {
        let bit = affinity_instance(target, 0) & self.present;
        if bit == 0 {
            return Err(INVALID_PARAMETERS);
        }
        if self.on & bit != 0 {
            return Err(ALREADY_ON);
        }
        if self.pending & bit != 0 {
            return Err(ON_PENDING);
        }
        if !self.is_executable(start.entry) {
            return Err(INVALID_ADDRESS);
        }
        let number = bit.trailing_zeros() as u8;
        let slot = self.starts.get_mut(usize::from(number)).ok_or(INVALID_PARAMETERS)?;
        *slot = start;
        self.pending |= bit;
        Ok(VcpuId(number))
    }

    /// DEN0022, AFFINITY_INFO, for levels 0 to 3.
    fn affinity_info(&self, target: u64, level: u32) -> i64 {
        let instance = affinity_instance(target, level) & self.present;
        if instance == 0 {
            INVALID_PARAMETERS
        } else if self.on & instance != 0 {
            AFFINITY_ON
        } else if self.pending & instance != 0 {
            AFFINITY_ON_PENDING
        } else {
            AFFINITY_OFF
        }
    }

    /// Whether a vCPU may begin at `entry`: an instruction's address in the VM's executable memory.
    fn is_executable(&self, entry: Ipa) -> bool {
        entry.is_aligned(4) && self.executable.iter().any(|region| region.contains(entry))
    }
}

/// The set of this vCPU alone. Identifiers are below [`MAX_VCPUS`].
const fn bit(vcpu: VcpuId) -> u64 {
    1_u64.wrapping_shl(vcpu.0 as u32)
}
