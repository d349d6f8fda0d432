//! What the virtual distributor asks of the physical one, for the lines that are mapped to it.

use crate::ids::{IntId, PhysicalIntId, VcpuId};
use crate::lr::ListRegisters;

/// A mapped line, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// For a private line the vCPU that it belongs to, which is loaded on some physical CPU now: the banked
    /// register of that CPU is meant. For an SPI it has a meaning in [`Physical::set_target`] alone.
    pub vcpu: VcpuId,
    /// The interrupt as the guest knows it.
    pub virt: IntId,
    /// The interrupt as the physical distributor knows it.
    pub physical: PhysicalIntId,
}

/// The physical distributor, as far as mapped lines go.
///
/// On GICv2 calls for private lines are only made on the CPU where `line.vcpu` is loaded. On GICv3 a guest may
/// write another vCPU's redistributor, so a private line may be another CPU's: its redistributor frame can be
/// written from any CPU.
pub trait Physical {
    /// The guest enabled or disabled the interrupt (`ISENABLER`/`ICENABLER`).
    fn set_enabled(&mut self, line: Line, enabled: bool);
    /// Make the physical interrupt active or inactive (`ISACTIVER`/`ICACTIVER`). Inactive, a level-sensitive
    /// line that is still asserted is pending again.
    fn set_active(&mut self, line: Line, active: bool);
    /// The guest made the interrupt pending, or not, by register write (`ISPENDR`/`ICPENDR`).
    fn set_pending(&mut self, line: Line, pending: bool);
    /// Whether the physical interrupt is pending (`ISPENDR`): the guest reads it.
    fn is_pending(&mut self, line: Line) -> bool;
    /// The guest chose edge-triggered or level-sensitive (`ICFGR`). SPIs only.
    fn set_edge(&mut self, line: Line, edge: bool);
    /// The guest routed the interrupt to `line.vcpu`. SPIs only.
    fn set_target(&mut self, line: Line);
}

/// What a call that may touch hardware is given: the list registers of the current physical CPU and the physical
/// distributor.
pub trait Hardware: ListRegisters + Physical {}

impl<T: ListRegisters + Physical> Hardware for T {}
