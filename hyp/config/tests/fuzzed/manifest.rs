//! Any bytes as a bundle, and what becomes of the VMs in it: their payloads' plans, and their trees.

use config::channel::ends;
use config::guest_tree::{self, GicVersion, GuestTree, Places};
use config::manifest::{Bundle, LayoutKind, VmConfig};
use devicetree::Tree;
use vgic::VcpuId;
use vmm::affinity::vcpu_mpidr;
use vmm::layout::VIRT;

use crate::{manifest_check, payload_check};

/// Checks one input.
pub fn check(blob: &[u8]) {
    manifest_check::check(blob);
    let Ok(bundle) = Bundle::parse(blob) else { return };
    let channels: Vec<_> = bundle.channels.iter().flatten().copied().collect();
    for config in bundle.vms.iter().flatten().filter(|config| config.layout == LayoutKind::Virt) {
        let affinities: Vec<u64> = (0..config.cpus as u8).map(|vcpu| vcpu_mpidr(VcpuId(vcpu))).collect();
        for gic in [GicVersion::V2, GicVersion::V3] {
            let tree = GuestTree {
                layout: &VIRT,
                memory: config.memory,
                affinities: &affinities,
                gic,
                bootargs: config.bootargs,
                has_initrd: config.payload.has_initrd(),
                channels: &ends(&channels, config.name),
                has_seeds: true,
                watchdog: config.watchdog,
                counters: Some(true),
                has_flash: config.payload.has_variables(),
                devices: &[],
            };
            check_tree(config, &guest_tree::build(&tree));
        }
    }
}

/// What a guest gets can be read, and says what its manifest says.
fn check_tree(config: &VmConfig<'_>, blob: &[u8]) {
    let tree = Tree::check(blob).expect("a tree that is made is good");
    let cpus = tree.nodes().filter(|node| node.name.starts_with(b"cpu@")).count();
    assert_eq!(cpus, config.cpus as usize, "{}", config.name);
    let properties = || tree.nodes().flat_map(|node| node.properties());
    let bootargs: Vec<&[u8]> =
        properties().filter(|property| property.name == b"bootargs").map(|property| property.value).collect();
    let expected = config.bootargs.map(|text| [text.as_bytes(), &[0]].concat());
    assert_eq!(bootargs, expected.iter().map(Vec::as_slice).collect::<Vec<_>>(), "{}", config.name);
    // There is a place for seeds and for the RAM disk, which is filled in later.
    let mut filled = blob.to_vec();
    Places::find(blob).set_seeds(&mut filled, &guest_tree::Seeds { rng: [0x5a; 64], kaslr: u64::MAX });
    assert!(filled.len() == blob.len() && filled != blob && Tree::check(&filled).is_ok());
    if config.memory <= 1 << 30 {
        payload_check::check(config, blob.len() as u64);
    }
}
