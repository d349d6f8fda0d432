//! The guest's device tree: what QEMU's `virt` says at the same places, and that equal input gives equal bytes.

use config::channel::ends;
use config::guest_tree::{GicVersion, GuestTree, Places, Seeds, build};
use config::manifest::ChannelConfig;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use vmm::layout::{Ipa, VIRT};

fn tree(gic: GicVersion) -> GuestTree<'static> {
    GuestTree {
        layout: &VIRT,
        memory: 512 << 20,
        affinities: &[0, 1],
        gic,
        bootargs: None,
        has_initrd: false,
        channels: &[],
        has_seeds: false,
        watchdog: None,
        counters: None,
        has_flash: false,
        devices: &[],
    }
}

fn seeds() -> Seeds {
    Seeds { rng: core::array::from_fn(|index| index as u8), kaslr: 0x0123_4567_89ab_cdef }
}

/// A tree as text: node paths, and properties with their values.
fn text(blob: &[u8]) -> Vec<String> {
    fn walk(node: FdtNode<'_>, path: &str, lines: &mut Vec<String>) {
        for property in node.properties() {
            let value = match property.value().as_chunks::<4>() {
                _ if is_text(property.value()) => {
                    String::from_utf8_lossy(property.value()).replace('\0', "|")
                }
                (cells, []) => {
                    format!("{:x?}", cells.iter().map(|&cell| u32::from_be_bytes(cell)).collect::<Vec<_>>())
                }
                _ => format!("{:?}", property.value()),
            };
            lines.push(format!("{path}:{}={value}", property.name()));
        }
        for child in node.children() {
            let path = format!("{path}/{}", child.name());
            lines.push(path.clone());
            walk(child, &path, lines);
        }
    }
    fn is_text(value: &[u8]) -> bool {
        let printable = |&byte: &u8| byte == 0 || byte.is_ascii_graphic() || byte == b' ';
        value.len() > 1 && value[0] != 0 && value.ends_with(&[0]) && value.iter().all(printable)
    }
    let mut lines = Vec::new();
    walk(Fdt::new(blob).unwrap().root(), "", &mut lines);
    lines
}

/// The properties below a path, in order.
fn properties_of(blob: &[u8], path: &str) -> Vec<String> {
    let prefix = format!("{path}:");
    text(blob).into_iter().filter_map(|line| line.strip_prefix(&prefix).map(String::from)).collect()
}

#[test]
fn gicv3_tree_as_a_whole() {
    let expected = "\
:interrupt-parent=[1]
:dma-coherent=[]
:model=linux,dummy-virt|
:#size-cells=[2]
:#address-cells=[2]
:compatible=linux,dummy-virt|
/psci
/psci:cpu_on=[c4000003]
/psci:cpu_off=[84000002]
/psci:cpu_suspend=[c4000001]
/psci:method=hvc|
/psci:compatible=arm,psci-1.0|arm,psci-0.2|arm,psci|
/memory@40000000
/memory@40000000:reg=[0, 40000000, 0, 20000000]
/memory@40000000:device_type=memory|
/pl031@9010000
/pl031@9010000:clock-names=apb_pclk|
/pl031@9010000:clocks=[2]
/pl031@9010000:interrupts=[0, 2, 4]
/pl031@9010000:reg=[0, 9010000, 0, 1000]
/pl031@9010000:compatible=arm,pl031|arm,primecell|
/pl011@9000000
/pl011@9000000:clock-names=uartclk|apb_pclk|
/pl011@9000000:clocks=[2, 2]
/pl011@9000000:interrupts=[0, 1, 4]
/pl011@9000000:reg=[0, 9000000, 0, 1000]
/pl011@9000000:compatible=arm,pl011|arm,primecell|
/intc@8000000
/intc@8000000:phandle=[1]
/intc@8000000:reg=[0, 8000000, 0, 10000, 0, 80a0000, 0, f60000]
/intc@8000000:#redistributor-regions=[1]
/intc@8000000:compatible=arm,gic-v3|
/intc@8000000:#address-cells=[0]
/intc@8000000:interrupt-controller=[]
/intc@8000000:#interrupt-cells=[3]
/cpus
/cpus:#size-cells=[0]
/cpus:#address-cells=[1]
/cpus/cpu@0
/cpus/cpu@0:reg=[0]
/cpus/cpu@0:enable-method=psci|
/cpus/cpu@0:compatible=arm,armv8|
/cpus/cpu@0:device_type=cpu|
/cpus/cpu@1
/cpus/cpu@1:reg=[1]
/cpus/cpu@1:enable-method=psci|
/cpus/cpu@1:compatible=arm,armv8|
/cpus/cpu@1:device_type=cpu|
/timer
/timer:interrupts=[1, d, 4, 1, e, 4, 1, b, 4, 1, a, 4]
/timer:always-on=[]
/timer:compatible=arm,armv8-timer|arm,armv7-timer|
/apb-pclk
/apb-pclk:phandle=[2]
/apb-pclk:clock-output-names=clk24mhz|
/apb-pclk:clock-frequency=[16e3600]
/apb-pclk:#clock-cells=[0]
/apb-pclk:compatible=fixed-clock|
/aliases
/aliases:serial0=/pl011@9000000|
/chosen
/chosen:stdout-path=/pl011@9000000|";
    assert_eq!(text(&build(&tree(GicVersion::V3))).join("\n"), expected);
}

#[test]
fn gicv2_differs_in_controller_and_timer_flags() {
    let blob = build(&tree(GicVersion::V2));
    let expected = [
        "phandle=[1]",
        "reg=[0, 8000000, 0, 10000, 0, 8010000, 0, 10000]",
        "compatible=arm,cortex-a15-gic|",
        "#address-cells=[0]",
        "interrupt-controller=[]",
        "#interrupt-cells=[3]",
    ];
    assert_eq!(properties_of(&blob, "/intc@8000000"), expected);
    let flags = |cpus: &[u64]| {
        let blob = build(&GuestTree { affinities: cpus, ..tree(GicVersion::V2) });
        properties_of(&blob, "/timer")[0].clone()
    };
    assert_eq!(flags(&[0, 1]), "interrupts=[1, d, 304, 1, e, 304, 1, b, 304, 1, a, 304]");
    assert_eq!(flags(&[0]), "interrupts=[1, d, 104, 1, e, 104, 1, b, 104, 1, a, 104]");
    let eight = [0, 1, 2, 3, 4, 5, 6, 7];
    assert_eq!(flags(&eight), "interrupts=[1, d, ff04, 1, e, ff04, 1, b, ff04, 1, a, ff04]");
}

#[test]
fn chosen_says_what_is_given() {
    let given = GuestTree {
        bootargs: Some("console=ttyAMA0 quiet"),
        has_initrd: true,
        has_seeds: true,
        ..tree(GicVersion::V3)
    };
    let mut blob = build(&given);
    let places = Places::find(&blob);
    places.set_initrd(&mut blob, &(Ipa::new(0x1_4800_0000)..Ipa::new(0x1_4900_0001)));
    places.set_seeds(&mut blob, &seeds());
    let expected = [
        "linux,initrd-end=[1, 49000001]",
        "linux,initrd-start=[1, 48000000]",
        "bootargs=console=ttyAMA0 quiet|",
        "stdout-path=/pl011@9000000|",
        "rng-seed=[10203, 4050607, 8090a0b, c0d0e0f, 10111213, 14151617, 18191a1b, 1c1d1e1f, 20212223, 24252627, \
         28292a2b, 2c2d2e2f, 30313233, 34353637, 38393a3b, 3c3d3e3f]",
        "kaslr-seed=[1234567, 89abcdef]",
    ];
    assert_eq!(properties_of(&blob, "/chosen"), expected);
}

#[test]
fn cpus_have_their_affinities() {
    let nodes = |affinities: &[u64]| {
        let blob = build(&GuestTree { affinities, ..tree(GicVersion::V3) });
        let lines = text(&blob).into_iter().filter(|line| line.starts_with("/cpus") && line.contains("reg="));
        (properties_of(&blob, "/cpus")[1].clone(), lines.collect::<Vec<_>>())
    };
    let (cells, regs) = nodes(&[0x8000_0000, 0x8001_0203]);
    assert_eq!(cells, "#address-cells=[1]");
    assert_eq!(regs, ["/cpus/cpu@0:reg=[0]", "/cpus/cpu@10203:reg=[10203]"]);
    let (cells, regs) = nodes(&[1, 0x2a_0000_0000]);
    assert_eq!(cells, "#address-cells=[2]");
    assert_eq!(regs, ["/cpus/cpu@1:reg=[0, 1]", "/cpus/cpu@2a00000000:reg=[2a, 0]"]);
}

#[test]
fn more_memory_than_a_cell_holds() {
    let blob = build(&GuestTree { memory: 255 << 30, ..tree(GicVersion::V3) });
    assert_eq!(properties_of(&blob, "/memory@40000000")[0], "reg=[0, 40000000, 3f, c0000000]");
}

#[test]
fn channels_have_their_memory_and_a_node() {
    let channels = [
        ChannelConfig { name: "link", vms: ["linux", "control"], size: 64 << 10 },
        ChannelConfig { name: "elsewhere", vms: ["control", "third"], size: 4 << 10 },
        ChannelConfig { name: "line", vms: ["third", "linux"], size: 16 << 20 },
    ];
    let ends = ends(&channels, "linux");
    for gic in [GicVersion::V2, GicVersion::V3] {
        let given = GuestTree { channels: &ends, ..tree(gic) };
        let blob = build(&given);
        let without = text(&build(&tree(gic)));
        let added: Vec<String> = text(&blob).into_iter().filter(|line| !without.contains(line)).collect();
        let expected = "\
/reserved-memory
/reserved-memory:ranges=[]
/reserved-memory:#size-cells=[2]
/reserved-memory:#address-cells=[2]
/reserved-memory/channel@5000000000
/reserved-memory/channel@5000000000:phandle=[3]
/reserved-memory/channel@5000000000:reg=[50, 0, 0, 10000]
/reserved-memory/channel@5001000000
/reserved-memory/channel@5001000000:phandle=[4]
/reserved-memory/channel@5001000000:reg=[50, 1000000, 0, 1000000]
/channel-0
/channel-0:hanok,number=[0]
/channel-0:hanok,side=[0]
/channel-0:hanok,peer=control|
/channel-0:label=link|
/channel-0:interrupts=[0, c0, 1]
/channel-0:memory-region=[3]
/channel-0:compatible=hanok,channel|
/channel-1
/channel-1:hanok,number=[1]
/channel-1:hanok,side=[1]
/channel-1:hanok,peer=third|
/channel-1:label=line|
/channel-1:interrupts=[0, c1, 1]
/channel-1:memory-region=[4]
/channel-1:compatible=hanok,channel|";
        assert_eq!(added.join("\n"), expected);
        assert_eq!(text(&blob).len(), without.len() + added.len(), "nothing else changes");
    }
}

#[test]
fn equal_input_gives_equal_bytes() {
    let given = || build(&GuestTree { has_seeds: true, ..tree(GicVersion::V3) });
    assert_eq!(given(), given());
}

#[test]
fn nothing_but_the_values_changes_when_they_become_known() {
    let blob = build(&GuestTree { has_initrd: true, has_seeds: true, ..tree(GicVersion::V3) });
    let places = Places::find(&blob);
    let mut complete = blob.clone();
    places.set_initrd(&mut complete, &(Ipa::new(u64::MAX)..Ipa::new(u64::MAX)));
    places.set_seeds(&mut complete, &Seeds { rng: [0xff; 64], kaslr: u64::MAX });
    let changed = blob.iter().zip(&complete).filter(|(before, after)| before != after).count();
    assert_eq!((blob.len(), changed), (complete.len(), 8 + 8 + 64 + 8));
    // Where there is no room for them, nothing is done.
    let mut without = build(&tree(GicVersion::V3));
    let before = without.clone();
    let places = Places::find(&without);
    places.set_initrd(&mut without, &(Ipa::new(1)..Ipa::new(2)));
    places.set_seeds(&mut without, &seeds());
    assert_eq!(without, before);
}

#[test]
fn no_log_shows_the_seeds() {
    assert_eq!(format!("{:?}", seeds()), "Seeds(..)");
}

#[test]
fn a_watchdog_is_shown_to_those_that_have_one() {
    let blob = build(&GuestTree { watchdog: Some(30), ..tree(GicVersion::V3) });
    assert_eq!(
        properties_of(&blob, "/watchdog"),
        ["timeout-sec=[1e]", "arm,smc-id=[86000020]", "compatible=arm,smc-wdt|"]
    );
    assert!(properties_of(&build(&tree(GicVersion::V3)), "/watchdog").is_empty());
}

#[test]
fn flash_is_shown_to_those_that_can_write_to_it() {
    let blob = build(&GuestTree { has_flash: true, ..tree(GicVersion::V3) });
    assert_eq!(
        properties_of(&blob, "/flash@4000000"),
        ["bank-width=[4]", "reg=[0, 4000000, 0, 4000000]", "compatible=cfi-flash|"]
    );
    assert!(properties_of(&build(&tree(GicVersion::V3)), "/flash@4000000").is_empty());
}
