//! The guest as Xen's only domain, which Xen starts by itself from what the board's tree says (Xen, docs/misc/arm/device-tree/booting.txt
//! and docs/features/dom0less.pandoc): there is no Dom0.

use std::fs;

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTreeNode, DeviceTreeProperty};

use super::Setup;
use crate::{Failure, Machine, Outcome, Scenario, Tree};

/// Where the guest's `Image` is put for Xen to take, clear of what QEMU and Xen put into RAM.
const MODULE: u64 = 0x6000_0000;
/// The domain's memory, in KiB.
const MEMORY: u64 = 64 << 10;

/// A board that starts Xen.
pub(super) fn machine(
    scenario: &Scenario,
    machine: Machine,
    setup: &Setup,
    arguments: &str,
) -> Outcome<Machine> {
    let inputs = scenario.inputs();
    let elf = inputs.guests.join("bench.elf");
    let elf = fs::read(&elf).map_err(Failure::io(format!("read {}", elf.display())))?;
    let image = tools::guest_image::build(&elf)
        .map_err(|error| Failure::Wrong(format!("the guest makes no Image: {error}")))?;
    let module = scenario.write("bench.img", &image)?;
    let mut tree = Tree::read(&scenario.board_tree(&machine)?)?;
    tree.choose(domain(setup.vcpus, image.len() as u64, arguments))?;
    let tree = scenario.write(&format!("{}.dtb", setup.what), tree.to_blob())?;
    Ok(machine
        .image(inputs.peers.join("xen"))
        .arguments("console=dtuart")
        .option("-dtb", tree.display().to_string())
        .option("-device", format!("loader,file={},addr={MODULE:#x},force-raw=on", module.display())))
}

/// The node that tells Xen of the domain, whose kernel is a module of `size` bytes.
fn domain(vcpus: u8, size: u64, arguments: &str) -> DeviceTreeNode {
    let mut module = DeviceTreeNode::new_unchecked(format!("module@{MODULE:x}"));
    set(&mut module, "compatible", ["multiboot,kernel", "multiboot,module"].as_slice());
    set(&mut module, "reg", [cells(MODULE), cells(size)].concat());
    set(&mut module, "bootargs", arguments);
    let mut domain = DeviceTreeNode::new_unchecked("domU1");
    set(&mut domain, "compatible", "xen,domain");
    set(&mut domain, "#address-cells", 2_u32);
    set(&mut domain, "#size-cells", 2_u32);
    set(&mut domain, "cpus", u32::from(vcpus));
    set(&mut domain, "memory", cells(MEMORY));
    // The console that it has is a virtual UART, as Hanok's guests have one, and not a ring in memory.
    set(&mut domain, "vpl011", [0_u8; 0]);
    domain.add_child(module);
    domain
}

fn set<T: ToPropertyValue>(node: &mut DeviceTreeNode, name: &str, value: T) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

/// The two cells of a 64-bit number.
fn cells(value: u64) -> [u32; 2] {
    [(value >> 32) as u32, value as u32]
}

#[cfg(test)]
mod tests {
    use dtoolkit::{Node, Property};

    use super::*;

    #[test]
    fn the_domain_s_kernel_is_the_module() {
        let domain = domain(2, 0x1234, "bench=exits");
        let module = domain.child("module@60000000").expect("it is there");
        let reg = module.property("reg").expect("it is there").value().to_vec();
        assert_eq!(reg, [0, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34]);
        assert_eq!(module.property("bootargs").expect("it is there").value(), b"bench=exits\0");
        assert_eq!(domain.property("cpus").expect("it is there").value(), [0, 0, 0, 2]);
    }
}
