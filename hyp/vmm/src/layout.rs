//! A VM's layout as data: where its RAM, interrupt controller and devices lie, and on which interrupts.
//!
//! Only addresses and numbers; what stands behind them is built elsewhere from these.

pub use stage2::Ipa;

const MIB: u64 = 1 << 20;

/// A range of guest addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub base: Ipa,
    /// Length in bytes; `base + size` never passes 2^48.
    pub size: u64,
}

impl Region {
    const fn new(base: u64, size: u64) -> Self {
        Self { base: Ipa::new(base), size }
    }

    /// The first address behind the region.
    pub const fn end(&self) -> Ipa {
        Ipa::new(self.base.as_u64().saturating_add(self.size))
    }

    /// Whether `address` lies in the region.
    pub const fn contains(&self, address: Ipa) -> bool {
        address.as_u64() >= self.base.as_u64() && address.as_u64() < self.end().as_u64()
    }
}

/// A memory-mapped device with one interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSlot {
    /// Its registers.
    pub registers: Region,
    /// Its interrupt: the number of a shared peripheral interrupt (INTID minus 32), level-sensitive.
    pub spi: u32,
}

impl DeviceSlot {
    /// The interrupt's number as the GIC counts it (32 and up).
    pub const fn intid(&self) -> u32 {
        self.spi.saturating_add(32)
    }
}

/// A row of equal device slots with consecutive interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceWindow {
    /// The whole window.
    pub registers: Region,
    /// Bytes per slot.
    pub slot_size: u64,
    /// The first slot's interrupt, as in [`DeviceSlot::spi`].
    pub first_spi: u32,
}

/// A row of equal places for memory that VMs share, each with an interrupt, which are consecutive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelWindow {
    /// The whole window.
    pub memory: Region,
    /// Bytes from one place to the next, the most that the memory of one can have; a power of two, and the window is aligned to it.
    pub slot_size: u64,
    /// The first place's interrupt: the number of a shared peripheral interrupt, edge-triggered.
    pub first_spi: u32,
}

impl ChannelWindow {
    /// How many places there are.
    pub const fn slots(&self) -> u32 {
        // A window of more than 2^32 places makes no sense.
        match self.memory.size.checked_div(self.slot_size) {
            Some(slots) => slots as u32,
            None => 0,
        }
    }

    /// How many address bits it takes to reach all of it.
    pub const fn address_bits(&self) -> u8 {
        // At most 64.
        64_u32.saturating_sub(self.memory.end().as_u64().saturating_sub(1).leading_zeros()) as u8
    }

    /// Where memory of `size` bytes, a slot's at most, lies in the place `number`, which is below [`slots`](Self::slots).
    pub const fn region(&self, number: u32, size: u64) -> Region {
        Region::new(
            self.memory.base.as_u64().saturating_add((number as u64).saturating_mul(self.slot_size)),
            size,
        )
    }

    /// The interrupt of the place `number`, as in [`DeviceSlot::spi`].
    pub const fn spi(&self, number: u32) -> u32 {
        self.first_spi.saturating_add(number)
    }
}

/// Room for devices of the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRoom {
    /// Their registers are where the board has them, and their interrupts have the board's numbers; `registers` is of no account.
    pub one_to_one: bool,
    /// Where their registers go.
    pub registers: Region,
    /// Their first interrupt: the number of a shared peripheral interrupt.
    pub first_spi: u32,
    /// How many interrupts there are.
    pub spis: u32,
}

/// Where everything is in a VM's intermediate physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The room for RAM: its base, and the most that a VM can have.
    pub ram: Region,
    /// GIC distributor.
    pub gicd: Region,
    /// GICv2 CPU interface; of the region, GICv2 uses the first 8 KiB.
    pub gicc: Region,
    /// GICv3 redistributors, 128 KiB for each vCPU.
    pub gicr: Region,
    /// Console, a PL011.
    pub uart: DeviceSlot,
    /// Clock, a PL031.
    pub rtc: DeviceSlot,
    /// Memory that the VM can only read, with records of stolen time.
    pub stolen_time: Region,
    /// Kept free for virtio-mmio transports.
    pub virtio: DeviceWindow,
    /// The two flash banks.
    pub flash: [Region; 2],
    /// The VM's ends of channels: the one with number n has the place n.
    pub channels: ChannelWindow,
    /// The board's devices that the VM is given.
    pub devices: DeviceRoom,
    /// How many shared peripheral interrupts the VM has: a multiple of 32.
    pub spis: u16,
}

/// Room for devices in a layout that has the board's addresses.
pub const BOARD_DEVICES: DeviceRoom =
    DeviceRoom { one_to_one: true, registers: Region::new(0, 0), first_spi: 0, spis: 988 };

/// Where a layout that has the board's addresses has what the board doesn't: no board is known to have anything there.
pub const ADDED: Region = Region::new(0x50_0000_0000, 8 << 30);

/// So many bytes of [`ADDED`], from an offset on.
const fn added(offset: u64, size: u64) -> Region {
    Region::new(ADDED.base.as_u64().saturating_add(offset), size)
}

impl Layout {
    /// The board's addresses: RAM at `ram`; the interrupt controller's registers where the board has them, those that it hasn't being
    /// of no account; `spis` shared peripheral interrupts of the board's. `None` where there aren't enough of these for all that the VM
    /// has besides.
    pub const fn board(ram: Region, gicd: Ipa, gicc: Ipa, gicr: Ipa, spis: u32) -> Option<Self> {
        /// What the VM's own devices take.
        const OWN: u32 = 64;
        const MOST: u32 = 960;
        let first = spis.next_multiple_of(32);
        if first > MOST.saturating_sub(OWN) {
            return None;
        }
        Some(Self {
            ram,
            gicd: Region { base: gicd, ..VIRT.gicd },
            gicc: Region { base: gicc, ..VIRT.gicc },
            gicr: Region { base: gicr, ..VIRT.gicr },
            uart: DeviceSlot { registers: added(4 << 30, 0x1000), spi: first },
            rtc: DeviceSlot { registers: added((4 << 30) + 0x1_0000, 0x1000), spi: first.saturating_add(1) },
            stolen_time: added((4 << 30) + 0x2_0000, 0x1000),
            virtio: DeviceWindow {
                registers: added((4 << 30) + 0x10_0000, 0x4000),
                first_spi: first.saturating_add(32),
                ..VIRT.virtio
            },
            flash: [Region::new(0, 0); 2],
            channels: ChannelWindow {
                memory: added(0, VIRT.channels.memory.size),
                first_spi: first.saturating_add(16),
                ..VIRT.channels
            },
            devices: BOARD_DEVICES,
            spis: first.saturating_add(OWN) as u16,
        })
    }
}

/// The memory map of QEMU's `virt` machine. The board's devices are where it has its platform bus, which is for such devices. What Hanok adds to it lies where that machine has nothing, whatever it is given: channels
/// between the end of its high PCIe configuration space (0x40_2000_0000) and its high PCIe window (0x80_0000_0000), their SPIs behind those of
/// its platform bus (112 to 175).
pub const VIRT: Layout = Layout {
    ram: Region::new(0x4000_0000, 255 << 30),
    gicd: Region::new(0x0800_0000, 0x1_0000),
    gicc: Region::new(0x0801_0000, 0x1_0000),
    gicr: Region::new(0x080a_0000, 0xf6_0000),
    uart: DeviceSlot { registers: Region::new(0x0900_0000, 0x1000), spi: 1 },
    rtc: DeviceSlot { registers: Region::new(0x0901_0000, 0x1000), spi: 2 },
    stolen_time: Region::new(0x090a_0000, 0x1000),
    virtio: DeviceWindow { registers: Region::new(0x0a00_0000, 0x4000), slot_size: 0x200, first_spi: 16 },
    flash: [Region::new(0, 64 * MIB), Region::new(64 * MIB, 64 * MIB)],
    channels: ChannelWindow {
        memory: Region::new(0x50_0000_0000, 256 * MIB),
        slot_size: 16 * MIB,
        first_spi: 192,
    },
    devices: DeviceRoom {
        one_to_one: false,
        registers: Region::new(0x0c00_0000, 32 * MIB),
        first_spi: 112,
        spis: 64,
    },
    spis: 256,
};
