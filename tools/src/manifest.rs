//! Checks a VM bundle on the host, by the very code that reads it in the firmware: what is in it, or which node and property
//! is wrong, and why. What only the board can tell (are there so many CPUs, is there so much memory) it can't.

use std::fmt::Write;

use vmm::affinity::vcpu_mpidr;
use vmm::channel::{ChannelEnd, ends};
use vmm::guest_tree::{self, GicVersion, GuestTree, Seeds};
use vmm::layout::VIRT;
use vmm::manifest::{Bundle, ChannelConfig, Payload, Sharing, VmConfig};
use vmm::payload;

/// What was found in a bundle.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// A line for each VM that is in order, and then for each channel.
    pub sound: Vec<String>,
    /// A line for each mistake.
    pub wrong: Vec<String>,
}

/// Looks at a whole bundle.
pub fn check(bundle: &[u8]) -> Report {
    let mut report = Report::default();
    match Bundle::parse(bundle) {
        Err(error) => report.wrong.push(error.to_string()),
        Ok(bundle) => {
            let channels: Vec<_> = bundle.channels.iter().flatten().copied().collect();
            for config in bundle.vms {
                let describe = |config: VmConfig<'_>| describe(&config, &ends(&channels, config.name));
                let checked = config.map_err(|error| error.to_string()).and_then(describe);
                match checked {
                    Ok(line) => report.sound.push(line),
                    Err(line) => report.wrong.push(line),
                }
            }
            for channel in bundle.channels {
                match channel {
                    Ok(ChannelConfig { name, vms: [a, b], size }) => {
                        report
                            .sound
                            .push(format!("/{name}: channel between {a} and {b}, {} KiB", size >> 10));
                    }
                    Err(error) => report.wrong.push(error.to_string()),
                }
            }
        }
    }
    report
}

/// What a VM is, in a line, if its payload can be loaded.
fn describe(config: &VmConfig<'_>, channels: &[ChannelEnd<'_>]) -> Result<String, String> {
    let affinities: Vec<u64> = (0..config.cpus as u8).map(|vcpu| vcpu_mpidr(vgic::VcpuId(vcpu))).collect();
    // The largest tree that the VM can get: what fits beside it fits always.
    let tree = GuestTree {
        layout: &VIRT,
        memory: config.memory,
        affinities: &affinities,
        gic: GicVersion::V3,
        bootargs: config.bootargs,
        initrd: None,
        channels,
        seeds: Some(Seeds { rng: [0; 64], kaslr: 0 }),
        watchdog: config.watchdog,
        devices: &[],
    };
    let plan = payload::plan(config, &VIRT, guest_tree::size(&tree))
        .map_err(|error| format!("/{}: {error}", config.name))?;
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
    let _ = write!(line, ", {} MiB, {}, starts at {}", config.memory >> 20, payload_of(config), plan.entry);
    if let Some(initrd) = plan.initrd {
        let _ = write!(line, ", initrd at {}", initrd.start);
    }
    let _ = write!(line, ", tree at {}", plan.dtb);
    Ok(line)
}

fn payload_of(config: &VmConfig<'_>) -> String {
    let (kind, bytes) = match config.payload {
        Payload::Linux { image, .. } => ("Linux Image", image),
        Payload::Elf(bytes) => ("ELF", bytes),
        Payload::Binary { bytes, .. } => ("binary", bytes),
        Payload::Firmware(bytes) => ("firmware", bytes),
    };
    format!("{kind} of {} KiB", bytes.len().div_ceil(1024))
}
