//! The layout: nothing lies on anything else, and what is Hanok's own lies on nothing of QEMU's `virt`.

use vmm::layout::{ADDED, BOARD_DEVICES, Ipa, Layout, Region, VIRT};

const MIB: u64 = 1 << 20;

fn region(base: u64, size: u64) -> Region {
    Region { base: Ipa::new(base), size }
}

fn is_apart(one: &Region, other: &Region) -> bool {
    one.end() <= other.base || other.end() <= one.base
}

/// What that machine can have (QEMU, `hw/arm/virt.c`, `base_memmap` and `extended_memmap`), less what a VM has at the same
/// place. Behind RAM at its largest.
fn of_qemu() -> Vec<Region> {
    vec![
        region(0x0802_0000, 0x1000),   // GICv2m
        region(0x0808_0000, 0x2_0000), // ITS
        region(0x0902_0000, 0x18),     // fw_cfg
        region(0x0903_0000, 0x1000),   // GPIO
        region(0x0904_0000, 0x1000),   // second UART
        region(0x0905_0000, 0x2_0000), // SMMU
        region(0x0907_0000, 0x1000),   // ACPI: memory hotplug, events, NVDIMM
        region(0x0908_0000, 0x1000),
        region(0x0909_0000, 0x1000),
        region(0x090b_0000, 0x1000),       // secure GPIO
        region(0x0c00_0000, 32 * MIB),     // platform bus
        region(0x0e00_0000, 16 * MIB),     // secure memory
        region(0x1000_0000, 0x3000_0000),  // PCIe
        region(0x40_0000_0000, 64 * MIB),  // further redistributors
        region(0x40_1000_0000, 256 * MIB), // PCIe, high configuration space
        region(0x80_0000_0000, 512 << 30), // PCIe, high window
    ]
}

/// SPIs of that machine: UART to events, virtio, GICv2m, SMMU, platform bus.
const SPIS_OF_QEMU: core::ops::Range<u32> = 0..176;

#[test]
fn nothing_lies_on_anything_else() {
    let mut regions = of_qemu();
    let channels = VIRT.channels;
    assert!(regions.iter().all(|other| is_apart(&channels.memory, other)));
    regions.extend([VIRT.ram, VIRT.gicd, VIRT.gicc, VIRT.gicr, VIRT.uart.registers, VIRT.rtc.registers]);
    regions.extend([VIRT.stolen_time, VIRT.virtio.registers, channels.memory]);
    regions.extend(VIRT.flash);
    for (index, one) in regions.iter().enumerate() {
        for other in regions.iter().skip(index + 1) {
            assert!(is_apart(one, other), "{one:x?} and {other:x?}");
        }
    }
}

#[test]
fn channels_have_places_and_interrupts_of_their_own() {
    let channels = VIRT.channels;
    assert_eq!((channels.slots(), channels.slot_size), (16, 16 * MIB));
    assert!(channels.slot_size.is_power_of_two());
    assert!(channels.memory.base.as_u64().is_multiple_of(channels.slot_size));
    let last = channels.region(15, channels.slot_size);
    assert_eq!((last.base, last.end()), (Ipa::new(0x50_0f00_0000), channels.memory.end()));
    assert_eq!(channels.region(0, 4096), region(0x50_0000_0000, 4096));
    assert_eq!(channels.address_bits(), 39);
    assert_eq!([channels.spi(0), channels.spi(15)], [192, 207]);
    assert!((0..16).all(|number| !SPIS_OF_QEMU.contains(&channels.spi(number))));
    assert!(channels.spi(15) < u32::from(vgic::Config::DEFAULT_SPIS));
}

/// With the board's addresses, what is Hanok's own lies where no board has anything, and its interrupts are behind the board's.
#[test]
fn the_board_s_addresses_are_kept_and_what_is_added_is_apart() {
    let ram = region(0x2000_0000, 256 * MIB);
    let [gicd, gicc, gicr] = [0xff84_1000, 0xff84_2000, 0].map(Ipa::new);
    let layout = Layout::board(ram, gicd, gicc, gicr, 250).unwrap();
    assert_eq!((layout.ram, layout.gicd.base, layout.gicc.base), (ram, gicd, gicc));
    assert_eq!(layout.devices, BOARD_DEVICES);
    assert!(layout.flash.iter().all(|bank| bank.size == 0));
    let added = [
        layout.channels.memory,
        layout.uart.registers,
        layout.rtc.registers,
        layout.stolen_time,
        layout.virtio.registers,
    ];
    for (index, one) in added.iter().enumerate() {
        assert!(one.base >= ADDED.base && one.end() <= ADDED.end(), "{one:x?}");
        assert!(added[index + 1..].iter().all(|other| is_apart(one, other)), "{one:x?}");
    }
    // 250 are the board's; the next multiple of 32 is the first of the VM's own.
    let slots = layout.virtio.registers.size / layout.virtio.slot_size;
    let channels = (0..layout.channels.slots()).map(|number| layout.channels.spi(number));
    let virtio = (0..slots as u32).map(|number| layout.virtio.first_spi + number);
    let mut spis: Vec<u32> =
        [layout.uart.spi, layout.rtc.spi].into_iter().chain(channels).chain(virtio).collect();
    spis.sort_unstable();
    assert!(spis.windows(2).all(|pair| pair[0] < pair[1]), "{spis:?}");
    assert!(spis[0] >= 250 && spis.last() < Some(&u32::from(layout.spis)), "{spis:?}");
    assert_eq!((layout.uart.intid(), layout.spis % 32), (256 + 32, 0));
    // As many as there can be, and one more.
    assert!(Layout::board(ram, gicd, gicc, gicr, 896).is_some());
    assert!(Layout::board(ram, gicd, gicc, gicr, 897).is_none());
}

/// With 39 bits of address a guest needs no table of level 0, and any CPU with 40 bits of physical address has them.
#[test]
fn channels_are_within_39_bits() {
    assert!(VIRT.channels.memory.end().as_u64() <= 1 << 39);
}
