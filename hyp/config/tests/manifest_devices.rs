//! What a manifest says of the board's addresses and devices, and the message that each mistake gets.

mod node;

use config::manifest::{Bundle, DeviceConfig, LayoutKind, VmConfig};
use node::{Node, bundle};

/// What holds for a VM that has these properties beside a payload.
fn read<T>(vm: Node, look: impl FnOnce(&VmConfig<'_>) -> T) -> T {
    let blob = bundle([vm]);
    let vms = Bundle::parse(&blob).unwrap().vms;
    look(vms[0].as_ref().unwrap())
}

/// What is said about it.
fn message(vm: Node) -> String {
    let blob = bundle([vm]);
    let vms = Bundle::parse(&blob).unwrap().vms;
    vms[0].as_ref().unwrap_err().to_string()
}

fn elf() -> Node {
    Node::vm("rt").with("elf", [1_u8])
}

fn on_board() -> Node {
    elf().with("layout", "board")
}

fn with_devices() -> Node {
    elf().with("passthrough", ["serial1", "/soc/aux@7e215000"].as_slice())
}

const NOTHING: [u8; 0] = [];

#[test]
fn layouts() {
    assert_eq!(read(elf(), |vm| vm.layout), LayoutKind::Virt);
    assert_eq!(read(elf().with("layout", "virt"), |vm| vm.layout), LayoutKind::Virt);
    assert_eq!(read(on_board(), |vm| (vm.layout, vm.memory_address)), (LayoutKind::Board, None));
    let firmware = || Node::vm("rt").with("firmware", [1_u8]);
    assert_eq!(read(firmware().with("layout", "virt"), |vm| vm.layout), LayoutKind::Virt);
    let text = "/rt: layout: can't be had with `firmware`: it starts in flash, at 0";
    assert_eq!(message(firmware().with("layout", "board")), text);
    assert_eq!(
        message(elf().with("layout", "Board")),
        "/rt: layout: is \"Board\", must be one of: virt, board"
    );
    assert_eq!(message(elf().with("layout", NOTHING)), "/rt: layout: must be one string");
    assert_eq!(
        message(elf().with("layout", ["virt", "board"].as_slice())),
        "/rt: layout: must be one string"
    );
}

#[test]
fn memory_addresses() {
    let address = |vm: Node| read(vm, |vm| vm.memory_address);
    assert_eq!(address(on_board().with("memory-address", 0_u32)), Some(0));
    assert_eq!(address(on_board().with("memory-address", 0x2000_0000_u32)), Some(0x2000_0000));
    assert_eq!(address(on_board().with("memory-address", 0x1_0020_0000_u64)), Some(0x1_0020_0000));
    let text = "/rt: memory-address: only goes with layout = \"board\"";
    assert_eq!(message(elf().with("memory-address", 0x2000_0000_u32)), text);
    assert_eq!(message(elf().with("layout", "virt").with("memory-address", 1_u32)), text);
    let text = "/rt: memory-address: 1048576 is not a multiple of 2097152";
    assert_eq!(message(on_board().with("memory-address", 0x10_0000_u32)), text);
    let text = "/rt: memory-address: has 12 bytes, must be one or two cells (4 or 8 bytes)";
    assert_eq!(message(on_board().with("memory-address", [0_u32; 3])), text);
}

#[test]
fn devices() {
    read(elf(), |vm| assert_eq!(vm.devices, DeviceConfig::default()));
    read(with_devices(), |vm| {
        let expected = DeviceConfig {
            nodes: vec!["serial1", "/soc/aux@7e215000"],
            unprotected_dma: false,
            pin_control: false,
            clock_rates: vec![],
        };
        assert_eq!(vm.devices, expected);
    });
    for value in [&b""[..], b"serial1", b"serial1\0\xff\0"] {
        assert_eq!(
            message(elf().with("passthrough", value)),
            "/rt: passthrough: must be one or more strings"
        );
    }
    for value in [&b"\0"[..], b"serial1\0\0", b"\0serial1\0"] {
        assert_eq!(message(elf().with("passthrough", value)), "/rt: passthrough: is empty");
    }
}

#[test]
fn permissions() {
    let both = on_board().with("passthrough", "a").with("allow-unprotected-dma", NOTHING);
    read(both.with("allow-pin-control", NOTHING), |vm| {
        assert!(vm.devices.unprotected_dma && vm.devices.pin_control);
    });
    read(on_board().with("passthrough", "a"), |vm| {
        assert!(!vm.devices.unprotected_dma && !vm.devices.pin_control);
    });
    // Pins are controlled from any addresses.
    assert!(read(with_devices().with("allow-pin-control", NOTHING), |vm| vm.devices.pin_control));
    let text = "/rt: allow-unprotected-dma: only goes with layout = \"board\"";
    assert_eq!(message(with_devices().with("allow-unprotected-dma", NOTHING)), text);
    for name in ["allow-unprotected-dma", "allow-pin-control"] {
        let text = format!("/rt: {name}: only goes with passthrough");
        assert_eq!(message(on_board().with(name, NOTHING)), text);
        let text = format!("/rt: {name}: has 4 bytes, must be nothing: it is there, or it isn't");
        assert_eq!(message(on_board().with("passthrough", "a").with(name, 0_u32)), text);
    }
}

#[test]
fn clock_rates() {
    let rates = |vm: Node| read(vm, |vm| vm.devices.clock_rates.clone());
    assert_eq!(rates(with_devices().with("clock-rates", 1_u32)), [1]);
    assert_eq!(rates(with_devices().with("clock-rates", [u32::MAX, 1, 1])), [u32::MAX, 1, 1]);
    let text = "/rt: clock-rates: only goes with passthrough";
    assert_eq!(message(elf().with("clock-rates", 1_u32)), text);
    let text = "/rt: clock-rates: 0 Hz is less than 1 Hz";
    assert_eq!(message(with_devices().with("clock-rates", [500_u32, 0])), text);
    let text = "/rt: clock-rates: has 5 bytes, must be a list of cells (4 bytes each)";
    assert_eq!(message(with_devices().with("clock-rates", [0_u8; 5])), text);
}
