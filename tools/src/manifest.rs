//! Checks a VM bundle on the host, by the very code that reads it in the firmware: what is in it, or which node and property
//! is wrong, and why. With the board's tree also which of its devices each VM gets. What only the board itself can tell (is there
//! so much memory, where is it free) it can't.

use std::fmt::Write;

use config::channel::{ChannelEnd, ends};
use config::guest_tree::{self, GicVersion, GuestTree};
use config::manifest::{Bundle, ChannelConfig, LayoutKind, Payload, Sharing, VmConfig};
use config::passthrough::{Devices, Given, Own};
use config::payload;
use devicetree::Tree;
use platform::tree::{Board, Gic};
use vmm::affinity::vcpu_mpidr;
use vmm::layout::{BOARD_DEVICES, Ipa, Layout, Region, VIRT};

/// What was found in a bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A line for each VM that is in order, and behind it one for each of its devices; then a line for each channel.
    pub sound: Vec<String>,
    /// A line for each mistake.
    pub wrong: Vec<String>,
}

/// Looks at a whole bundle, `board` being the tree that the board's firmware has, if it is at hand.
pub fn check(bundle: &[u8], board: Option<&[u8]>) -> Report {
    let mut report = Report::default();
    let bundle = match Bundle::parse(bundle) {
        Ok(bundle) => bundle,
        Err(error) => {
            report.wrong.push(error.to_string());
            return report;
        }
    };
    let mut hardware = None;
    if let Some(blob) = board {
        match Hardware::read(blob, &bundle) {
            Ok(read) => hardware = Some(read),
            Err(error) => report.wrong.push(format!("the board: {error}")),
        }
    }
    let channels: Vec<_> = bundle.channels.iter().flatten().copied().collect();
    for config in bundle.vms {
        let describe = |config: VmConfig<'_>| {
            let said = describe_all(&config, &ends(&channels, config.name), hardware.as_mut());
            said.map_err(|error| format!("/{}: {error}", config.name))
        };
        match config.map_err(|error| error.to_string()).and_then(describe) {
            Ok(lines) => report.sound.extend(lines),
            Err(line) => report.wrong.push(line),
        }
    }
    for channel in bundle.channels {
        match channel {
            Ok(ChannelConfig { name, vms: [a, b], size }) => {
                report.sound.push(format!("/{name}: channel between {a} and {b}, {} KiB", size >> 10));
            }
            Err(error) => report.wrong.push(error.to_string()),
        }
    }
    report
}

/// The board, as far as its tree tells.
struct Hardware<'a> {
    devices: Devices<'a>,
    own: Vec<Own>,
}

impl<'a> Hardware<'a> {
    /// Reads the board's tree as the hypervisor does at boot, which leaves the UARTs to the VMs that name them. A file that firmware
    /// hasn't completed yet has no memory.
    fn read(blob: &'a [u8], bundle: &Bundle<'_>) -> Result<Self, String> {
        let tree = Tree::check(blob).map_err(|error| error.to_string())?;
        let (mut board, outcome) = Board::read_any(&tree);
        outcome.map_err(|error| error.to_string())?;
        let (Some(Gic::V2 { gicd, .. }) | Some(Gic::V3 { gicd, .. })) = &board.gic else {
            return Err(
                "its device tree has no interrupt controller that is known (GICv2 or GICv3)".to_owned()
            );
        };
        let devices = Devices::find(&tree, gicd.start).ok_or("its device tree is too large")?;
        board.uarts.retain(|uart| !devices.is_wanted(&uart.path, bundle.vms.iter().flatten()));
        let own = board.used();
        let own =
            own.map(|used| Own::new(used.registers.start, used.registers.size, used.interrupt, used.what));
        Ok(Self { own: own.collect(), devices })
    }
}

/// What a VM is, in a line, if it can have its devices and its payload can be loaded; and a line for each device.
fn describe_all(
    config: &VmConfig<'_>,
    channels: &[ChannelEnd<'_>],
    hardware: Option<&mut Hardware<'_>>,
) -> Result<Vec<String>, String> {
    let names = config.devices.nodes.len();
    let name = config.name;
    let Some(Hardware { devices, own }) = hardware.filter(|_| names != 0) else {
        let mut lines = vec![describe(config, channels, &Given::default())?];
        if names != 0 {
            let devices = if names == 1 { "1 device was" } else { &format!("{names} devices were") };
            lines.push(format!(
                "/{name}: passthrough: {devices} not looked at, for want of the board's tree (BOARD=)"
            ));
        }
        return Ok(lines);
    };
    let room = if config.layout == LayoutKind::Board { BOARD_DEVICES } else { VIRT.devices };
    let given = devices.give(config, &room, own).map_err(|error| error.to_string())?;
    let mut lines = vec![describe(config, channels, &given)?];
    lines.extend(devices.describe(config, &given).iter().map(|device| format!("/{name}: {device}")));
    let along = devices.gone_along(config);
    if !along.is_empty() {
        lines.push(format!("/{name}: along with these, and not in its tree: {}", along.join(", ")));
    }
    if let Some(reach) = given.reach.filter(|_| config.memory_address.is_none()) {
        let last = reach.end.saturating_sub(1);
        lines.push(format!("/{name}: its RAM will be from {:#x} to {last:#x}, for DMA", reach.start));
    }
    Ok(lines)
}

/// Where the VM has its things, but for the RAM of one that has it where the board has room.
fn layout_of(config: &VmConfig<'_>, given: &Given) -> Result<Layout, String> {
    if config.layout == LayoutKind::Virt {
        return Ok(VIRT);
    }
    let spis = given.lines.iter().map(|line| line.spi.saturating_add(1)).max().unwrap_or(0);
    let base = config.memory_address.map_or(VIRT.ram.base, Ipa::new);
    let ram = Region { base, size: config.memory };
    // The addresses of the interrupt controller, which the board tells, make no difference for what is planned here.
    let layout = Layout::board(ram, VIRT.gicd.base, VIRT.gicc.base, VIRT.gicr.base, spis);
    layout.ok_or_else(|| "layout: the devices' interrupts leave none for the console and channels".to_owned())
}

/// What a VM is, in a line, if its payload can be loaded.
fn describe(config: &VmConfig<'_>, channels: &[ChannelEnd<'_>], given: &Given) -> Result<String, String> {
    let affinities: Vec<u64> = (0..config.cpus as u8).map(|vcpu| vcpu_mpidr(vgic::VcpuId(vcpu))).collect();
    let layout = layout_of(config, given)?;
    let is_placed = config.layout == LayoutKind::Virt || config.memory_address.is_some();
    // Linux starts anywhere; whether the others' addresses are in RAM depends on where that is.
    let plan = if is_placed || matches!(config.payload, Payload::Linux { .. }) {
        // The largest tree that the VM can get: what fits beside it fits always.
        let tree = GuestTree {
            layout: &layout,
            memory: config.memory,
            affinities: &affinities,
            gic: GicVersion::V3,
            bootargs: config.bootargs,
            has_initrd: config.payload.has_initrd(),
            channels,
            has_seeds: true,
            watchdog: config.watchdog,
            counters: Some(true),
            has_flash: config.payload.has_variables(),
            devices: &given.nodes,
        };
        let plan = payload::plan(config, &layout, guest_tree::build(&tree).len() as u64);
        Some(plan.map_err(|error| error.to_string())?).filter(|_| is_placed)
    } else {
        None
    };
    let mut line =
        format!("/{}: {} vCPU{}", config.name, config.cpus, if config.cpus == 1 { "" } else { "s" });
    let _ = match config.sharing {
        Sharing::Pinned => Ok(()),
        Sharing::Weight(weight) => write!(line, " (weight {weight})"),
        Sharing::Reserved { budget, period } => write!(line, " ({budget} of {period} us)"),
    };
    if let Some(cpus) = &config.cpu_affinity {
        let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
        let _ = write!(line, " on CPU {}", cpus.join(", "));
    }
    let _ = write!(line, ", {} MiB, {}", config.memory >> 20, payload_of(config));
    let Some(plan) = plan else {
        line += ", starts where the board has room for its RAM";
        return Ok(line);
    };
    let _ = write!(line, ", starts at {}", plan.entry);
    if let Some(initrd) = plan.initrd {
        let _ = write!(line, ", initrd at {}", initrd.start);
    }
    let _ = write!(line, ", tree at {}", plan.dtb);
    if let Some(bank) = plan.flash.iter().flat_map(|flash| flash.banks).find(|bank| bank.kept) {
        let _ = write!(line, ", {} KiB for variables at {}", bank.backed >> 10, bank.base);
    }
    Ok(line)
}

fn payload_of(config: &VmConfig<'_>) -> String {
    let (kind, bytes) = match config.payload {
        Payload::Linux { image, .. } => ("Linux Image", image),
        Payload::Elf(bytes) => ("ELF", bytes),
        Payload::Binary { bytes, .. } => ("binary", bytes),
        Payload::Firmware { image, .. } => ("firmware", image),
    };
    format!("{kind} of {} KiB", bytes.len().div_ceil(1024))
}
