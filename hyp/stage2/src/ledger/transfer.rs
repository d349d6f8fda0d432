//! The states of a page and the table of who may hand it to whom.

use crate::vm::{VmId, VmSet};

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// Nothing that may be used: not in the board's tree, the firmware's, or a device that EL2 keeps. Never mapped, never
    /// handed on.
    #[default]
    Reserved,
    /// Memory that nobody has and that holds nobody's data.
    Free,
    /// Memory that nobody has, with the data of whoever had it last.
    Unscrubbed,
    /// Memory that is being scrubbed.
    Scrubbing,
    /// EL2's own memory: image, heap, tables.
    Hypervisor,
    /// A VM's memory.
    Owned(VmId),
    /// Memory that several VMs see.
    Shared {
        /// Who may map it.
        members: VmSet,
        /// Who of them may have stores to it.
        writers: VmSet,
    },
    /// Memory that several VMs read, and that is copied for whoever writes to it. How many mappings there are is the count of
    /// references to it.
    CopyOnWrite {
        /// Who may map it.
        members: VmSet,
    },
    /// A device that no VM has been given.
    Device,
    /// A VM's device.
    DeviceOf(VmId),
    /// A device of which each CPU sees its own copy, so that every VM may have it (GICV).
    Banked,
}

/// The first state of a page, as the board's tree gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory known to hold nobody's data.
    Free,
    /// Memory with unknown content.
    Unscrubbed,
    /// Memory that EL2 lies in.
    Hypervisor,
    /// A device that a VM may be given.
    Device,
    /// A device banked per CPU.
    Banked,
}

impl Kind {
    pub(super) const fn state(self) -> State {
        match self {
            Self::Free => State::Free,
            Self::Unscrubbed => State::Unscrubbed,
            Self::Hypervisor => State::Hypervisor,
            Self::Device => State::Device,
            Self::Banked => State::Banked,
        }
    }
}

/// A change of hands. EL2 asks for all of them, for itself or for a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Memory that nobody has becomes EL2's, scrubbed or not: EL2 alone will read it.
    Claim,
    /// EL2 gives memory up; it holds what EL2 had in it.
    Yield,
    /// Free memory becomes a VM's.
    Donate(VmId),
    /// A VM's memory is taken back.
    Reclaim(VmId),
    /// Free memory becomes shared by `members`, of whom `writers` may have stores.
    Open {
        /// Who may map it; at least one.
        members: VmSet,
        /// Who may write; a subset of the members.
        writers: VmSet,
    },
    /// A VM's memory, content and all, becomes shared by `members`, the VM among them.
    Share {
        /// Whose it is.
        owner: VmId,
        /// Who may map it from now on.
        members: VmSet,
        /// Who may write; a subset of the members.
        writers: VmSet,
    },
    /// Shared memory, content and all, becomes the memory of one of its members.
    Unshare(VmId),
    /// Shared memory, or memory that is copied on write, is taken back.
    Close,
    /// A VM's memory, content and all, becomes copied on write. [`Ledger::freeze`](crate::Ledger::freeze) does it while the
    /// VM goes on using it.
    Freeze {
        /// Whose it is.
        owner: VmId,
        /// Who may map it from now on, the owner among them.
        members: VmSet,
    },
    /// One more VM may map memory that is copied on write. The only one that is allowed while it is mapped.
    Admit(VmId),
    /// Memory that is copied on write, and has one member left, becomes that one's own.
    /// [`Ledger::thaw`](crate::Ledger::thaw) does it while the VM goes on using it.
    Thaw(VmId),
    /// A VM is given a device.
    Assign(VmId),
    /// A VM's device is taken back. That it is quiet is the caller's business.
    Return(VmId),
    /// EL2 keeps a device for itself, for ever.
    Keep,
}

impl Transfer {
    /// The state that a page in `state` goes to, or `None` where the transfer is not allowed.
    ///
    /// This is the table: what is not listed does not happen. `Reserved`, and `Banked`, have no way out; from `Unscrubbed`
    /// to `Free` leads a [`Scrub`](crate::Scrub) alone.
    pub fn apply(self, state: State) -> Option<State> {
        use State::{CopyOnWrite, Device, DeviceOf, Free, Hypervisor, Owned, Reserved, Shared, Unscrubbed};
        match (self, state) {
            (Self::Claim, Free | Unscrubbed) => Some(Hypervisor),
            (Self::Yield, Hypervisor) => Some(Unscrubbed),
            (Self::Donate(vm), Free) => Some(Owned(vm)),
            (Self::Reclaim(vm), Owned(owner)) if owner == vm => Some(Unscrubbed),
            (Self::Open { members, writers }, Free) => shared(members, writers),
            (Self::Share { owner, members, writers }, Owned(vm)) if owner == vm && members.contains(vm) => {
                shared(members, writers)
            }
            (Self::Unshare(vm), Shared { members, .. }) if members.contains(vm) => Some(Owned(vm)),
            (Self::Close, Shared { .. } | CopyOnWrite { .. }) => Some(Unscrubbed),
            (Self::Freeze { owner, members }, Owned(vm)) if owner == vm && members.contains(vm) => {
                Some(CopyOnWrite { members })
            }
            (Self::Admit(vm), CopyOnWrite { members }) => Some(CopyOnWrite { members: members.with(vm) }),
            (Self::Thaw(vm), CopyOnWrite { members }) if members == VmSet::only(vm) => Some(Owned(vm)),
            (Self::Assign(vm), Device) => Some(DeviceOf(vm)),
            (Self::Return(vm), DeviceOf(owner)) if owner == vm => Some(Device),
            (Self::Keep, Device) => Some(Reserved),
            _ => None,
        }
    }
}

impl Transfer {
    /// Whether the pages may be mapped meanwhile.
    pub(super) const fn is_allowed_while_mapped(self) -> bool {
        matches!(self, Self::Admit(_))
    }
}

fn shared(members: VmSet, writers: VmSet) -> Option<State> {
    let sound = !members.is_empty() && writers.is_subset_of(members);
    sound.then_some(State::Shared { members, writers })
}
