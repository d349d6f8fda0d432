//! What a virtual interrupt controller is built from, and how building it can fail.

use crate::ids::{Affinity, IntId, PhysicalIntId};

/// The architecture version that the guest sees. It is that of the board, whose virtual CPU interface the guest
/// uses directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// GICv2: distributor with banked registers, at most 8 vCPUs, SGIs that carry their source.
    V2,
    /// GICv3 with affinity routing always on, one security state, no LPIs.
    V3,
}

/// The shape of a virtual interrupt controller.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Architecture version.
    pub model: Model,
    /// One entry per vCPU, in the order of [`crate::VcpuId`]: its affinity (`MPIDR_EL1`). GICv2 takes only
    /// their number.
    pub affinities: &'a [Affinity],
    /// The number of SPIs: a multiple of 32 up to 960, or 988. See [`Config::DEFAULT_SPIS`].
    pub spis: u16,
}

impl Config<'_> {
    /// As many SPIs as QEMU's `virt` machine has.
    pub const DEFAULT_SPIS: u16 = 256;
    /// The most that the architecture has room for (interrupts 32..=1019).
    pub const MAX_SPIS: u16 = 988;
}

/// Why a [`crate::Vgic`] could not be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No vCPU, or more than the model can have.
    #[error("{count} vCPUs, but this GIC serves 1 to {most}")]
    Vcpus {
        /// How many were asked for.
        count: usize,
        /// How many the model can have.
        most: usize,
    },
    /// Neither a multiple of 32 nor 988, or too many.
    #[error("{0} SPIs, which is neither a multiple of 32 up to 960 nor 988")]
    Spis(u16),
    /// Two vCPUs with one affinity: SGIs and routing could not tell them apart.
    #[error("two vCPUs have affinity {:#010x}", .0.0)]
    SameAffinity(Affinity),
}

/// Why an interrupt could not be mapped to a physical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// SGIs have no line, and interrupts that the VM doesn't have can't be mapped.
    #[error("the VM has no line for interrupt {}", .0.0)]
    NoSuchLine(IntId),
    /// Another physical interrupt is mapped there already.
    #[error("interrupt {} is mapped already", .0.0)]
    Taken(IntId),
    /// Private lines map private ones, shared lines shared ones, and SGIs and special numbers aren't lines.
    #[error("physical interrupt {} can't drive interrupt {}", .physical.0, .virt.0)]
    BadPhysical {
        /// The VM's interrupt.
        virt: IntId,
        /// The physical one.
        physical: PhysicalIntId,
    },
}
