//! Devices that read and write memory by themselves.
//!
//! A tree doesn't say which do. Those that are known not to are listed here; any other one may.

use super::tree::Entry;

/// `compatible` strings of devices that have no way to memory. Those that other devices do DMA for (a DMA controller that they have
/// request lines to) are among them: the controller is a device of its own.
const KNOWN_TO_DO_NONE: &[&str] = &[
    "arm,pl011",
    "arm,pl022",
    "arm,pl031",
    "arm,pl061",
    "arm,sp804",
    "arm,sp805",
    "brcm,bcm2711-avs-monitor",
    "brcm,bcm2711-gpio",
    "brcm,bcm2711-rng200",
    "brcm,bcm2711-thermal",
    "brcm,bcm2835-aux",
    "brcm,bcm2835-aux-spi",
    "brcm,bcm2835-aux-uart",
    "brcm,bcm2835-gpio",
    "brcm,bcm2835-i2c",
    "brcm,bcm2835-pwm",
    "brcm,bcm2835-rng",
    "brcm,bcm2835-spi",
    "brcm,bcm2835-system-timer",
    "ns16550a",
    "snps,dw-apb-uart",
];

/// What a bus makes of a device's addresses when it does DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first address as the device has it.
    pub bus: u64,
    /// The same one as CPUs have it.
    pub physical: u64,
    /// In bytes.
    pub size: u64,
}

impl Window {
    /// The window as those of the bus above let it through: what of it lies in each of them.
    pub(super) fn through(self, above: &[Self]) -> impl Iterator<Item = Self> {
        above.iter().filter_map(move |bus| {
            let start = self.physical.max(bus.bus);
            let end = self.physical.saturating_add(self.size).min(bus.bus.saturating_add(bus.size));
            let size = end.checked_sub(start).filter(|size| *size != 0)?;
            let within = start.checked_sub(self.physical)?;
            let physical = bus.physical.checked_add(start.checked_sub(bus.bus)?)?;
            Some(Self { bus: self.bus.checked_add(within)?, physical, size })
        })
    }
}

/// Whether a device may do DMA. What has no registers can't be told to.
pub(super) fn may_do_dma(entry: &Entry<'_>) -> bool {
    !entry.registers.is_empty() && !entry.compatible().any(|name| KNOWN_TO_DO_NONE.contains(&name))
}
