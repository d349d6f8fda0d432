//! What goes where in the VM of a bundle, as Hanok would have it: the same layout, the same device tree, the same place for each
//! byte, by the same code. Of this, and of Hanok's PL011, `main.rs` makes a VM of KVM's.
//!
//! It knows one VM, with no channel, no watchdog and no device of the board.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use config::guest_tree::{self, GicVersion, GuestTree, Places};
use config::manifest::{Bundle, VmConfig};
use config::payload;
use vmm::layout::{Layout, VIRT};

pub use vmm::devices::Pl011;

/// Where everything is.
pub const LAYOUT: &Layout = &VIRT;

/// Why a bundle can't be run.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BundleProblem {
    /// It can't be read, or its VM can't, or there is none.
    #[error("the bundle: {0}")]
    Bundle(String),
    /// The VM's payload doesn't fit.
    #[error("the payload: {0}")]
    Payload(String),
}

/// A VM that is ready to be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Number of vCPUs.
    pub cpus: u8,
    /// Bytes of RAM, from the layout's base on.
    pub memory: usize,
    /// What is in RAM at the start, by address; all else of it is zero.
    pub contents: BTreeMap<u64, Vec<u8>>,
    /// Where the first vCPU starts.
    pub entry: u64,
    /// Where the device tree lies, which is in the first vCPU's x0.
    pub tree: u64,
}

/// Plans the first VM of a bundle, for an interrupt controller of this version.
///
/// # Errors
/// What is wrong with the bundle.
pub fn plan(bundle: &[u8], gic: GicVersion) -> Result<Plan, BundleProblem> {
    let unreadable = |why: String| BundleProblem::Bundle(why);
    let bundle = Bundle::parse(bundle).map_err(|why| unreadable(why.to_string()))?;
    let vm = bundle.vms.into_iter().next().ok_or_else(|| unreadable("there is no VM in it".to_owned()))?;
    let vm = vm.map_err(|why| unreadable(why.to_string()))?;
    let affinities: Vec<u64> = (0..u64::from(vm.cpus)).collect();
    let tree = tree(&vm, gic, &affinities);
    let wrong = |why: payload::PayloadError| BundleProblem::Payload(why.to_string());
    let mut blob = guest_tree::build(&tree);
    let loaded = payload::plan(&vm, LAYOUT, blob.len() as u64).map_err(wrong)?;
    if let Some(initrd) = &loaded.initrd {
        Places::find(&blob).set_initrd(&mut blob, initrd);
    }
    let segments = loaded.segments.iter().map(|segment| (segment.ipa.as_u64(), segment.bytes.to_vec()));
    let too_large = || unreadable("the VM is too large for this machine".to_owned());
    Ok(Plan {
        cpus: u8::try_from(vm.cpus).map_err(|_| too_large())?,
        memory: usize::try_from(vm.memory).map_err(|_| too_large())?,
        contents: segments.chain([(loaded.dtb.as_u64(), blob)]).collect(),
        entry: loaded.entry.as_u64(),
        tree: loaded.dtb.as_u64(),
    })
}

/// KVM numbers the CPUs of a VM as it makes them, and as long as these are few, so are their affinities.
fn tree<'a>(vm: &VmConfig<'a>, gic: GicVersion, affinities: &'a [u64]) -> GuestTree<'a> {
    GuestTree {
        layout: LAYOUT,
        memory: vm.memory,
        affinities,
        gic,
        bootargs: vm.bootargs,
        has_initrd: vm.payload.has_initrd(),
        channels: &[],
        has_seeds: false,
        watchdog: None,
        counters: None,
        has_flash: false,
        devices: &[],
    }
}

/// The offset of an address in the UART, if it is there.
pub fn uart_offset(address: u64) -> Option<u32> {
    let registers = LAYOUT.uart.registers;
    let offset = address.checked_sub(registers.base.as_u64()).filter(|offset| *offset < registers.size)?;
    u32::try_from(offset).ok()
}

/// The value that an access of 1 to 8 bytes writes to a register of 32 bits.
pub fn written(data: &[u8]) -> u32 {
    data.iter().take(4).rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// Puts what a register of 32 bits holds into an access of 1 to 8 bytes.
pub fn put_read(data: &mut [u8], value: u32) {
    data.fill(0);
    data.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, of_value)| *byte = of_value);
}

#[cfg(test)]
mod tests {
    use dtoolkit::fdt::Fdt;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
    use dtoolkit::{Node, Property};

    use super::*;

    fn bundle(with_payload: bool) -> Vec<u8> {
        let mut vm = DeviceTreeNode::new_unchecked("guest");
        let mut set = |property| vm.add_property(property);
        set(DeviceTreeProperty::new_unchecked("compatible", "hanok,vm"));
        set(DeviceTreeProperty::new_unchecked("cpus", 2_u32));
        set(DeviceTreeProperty::new_unchecked("memory", [0_u32, 16 << 10]));
        set(DeviceTreeProperty::new_unchecked("bootargs", "bench=exits"));
        if with_payload {
            set(DeviceTreeProperty::new_unchecked("binary", [0x1f, 0x20, 0x03, 0xd5_u8]));
            set(DeviceTreeProperty::new_unchecked("load-address", [0_u32, 0x4020_0000]));
        }
        let mut tree = DeviceTree::new();
        tree.root.add_property(DeviceTreeProperty::new_unchecked("compatible", "hanok,bundle"));
        tree.root.add_child(vm);
        tree.to_dtb()
    }

    #[test]
    fn a_vm_has_its_payload_and_its_tree() {
        let plan = plan(&bundle(true), GicVersion::V2).expect("it is sound");
        assert_eq!((plan.cpus, plan.memory, plan.entry), (2, 16 << 20, 0x4020_0000));
        assert_eq!(plan.contents[&plan.entry], [0x1f, 0x20, 0x03, 0xd5]);
        let tree = Fdt::new(&plan.contents[&plan.tree]).expect("it is a tree");
        let chosen = tree.root().child("chosen").expect("it is there");
        let arguments = chosen.properties().find(|property| property.name() == "bootargs");
        assert_eq!(arguments.expect("it is there").value(), b"bench=exits\0");
        let gic = tree.root().child("intc@8000000").expect("it is there");
        let compatible = gic.properties().find(|property| property.name() == "compatible");
        assert_eq!(compatible.expect("it is there").value(), b"arm,cortex-a15-gic\0");
    }

    #[test]
    fn a_bundle_of_no_use_is_told() {
        assert!(matches!(plan(b"", GicVersion::V3), Err(BundleProblem::Bundle(_))));
        assert!(matches!(plan(&bundle(false), GicVersion::V3), Err(BundleProblem::Bundle(_))));
    }

    #[test]
    fn the_uart_is_where_its_registers_are() {
        assert_eq!(uart_offset(0x0900_0000), Some(0));
        assert_eq!(uart_offset(0x0900_0018), Some(0x18));
        assert_eq!((uart_offset(0x08ff_fffc), uart_offset(0x0900_1000)), (None, None));
    }

    #[test]
    fn accesses_are_little_endian_and_of_any_size() {
        assert_eq!(written(&[0x41]), 0x41);
        assert_eq!(written(&[1, 2, 3, 4, 5, 6, 7, 8]), 0x0403_0201);
        let mut data = [0xff; 8];
        put_read(&mut data, 0x0403_0201);
        assert_eq!(data, [1, 2, 3, 4, 0, 0, 0, 0]);
        put_read(&mut data[..2], 0x0403_0201);
        assert_eq!(data[..2], [1, 2]);
    }
}
