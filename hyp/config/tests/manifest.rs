//! The manifest: what a good one says of its VMs, and the message that each mistake gets.

mod node;

use abi::hanok::right;
use config::manifest::{
    Bundle, BundleError, DeviceConfig, LayoutKind, MAX_VMS, ManifestError, Payload, Sharing, VmConfig,
    WhenAllOff,
};
use dtoolkit::ToPropertyValue;
use node::{Node, blob, bundle, root};
use vmm::layout::Ipa;
use vmm::life::OnCrash;

/// What is said about the only VM of a bundle.
fn message(vm: Node) -> String {
    let blob = bundle([vm]);
    let bundle = Bundle::parse(&blob).unwrap();
    assert_eq!(bundle.vms.len(), 1);
    bundle.vms[0].as_ref().unwrap_err().to_string()
}

/// What is said about a VM that runs an ELF file and also has this property.
fn message_with(name: &str, value: impl ToPropertyValue) -> String {
    message(Node::vm("linux").with("elf", [1_u8]).with(name, value))
}

/// Replaces the only place where `from` stands in the blob.
fn patch(blob: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let places: Vec<_> = (0..blob.len()).filter(|&at| blob[at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("{from:?} stands at {places:?}") };
    blob[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn shortest_manifest_gets_the_defaults() {
    let blob = bundle([Node::vm("hello").with("elf", [1_u8, 2, 3])]);
    let vms = Bundle::parse(&blob).unwrap().vms;
    let expected = VmConfig {
        name: "hello",
        cpus: 1,
        memory: 128 << 20,
        cpu_affinity: None,
        sharing: Sharing::Pinned,
        bootargs: None,
        payload: Payload::Elf(&[1, 2, 3]),
        starts: true,
        on_crash: OnCrash::Stop,
        watchdog: None,
        rights: 0,
        layout: LayoutKind::Virt,
        memory_address: None,
        devices: DeviceConfig::default(),
    };
    assert_eq!(vms, [Ok(expected)]);
}

#[test]
fn every_property_is_read() {
    let blob = bundle([
        Node::vm("linux")
            .with("cpus", 2_u32)
            .with("cpu-affinity", [3_u32, 1])
            .with("memory", 0x8_0000_u64)
            .with("bootargs", "console=ttyAMA0")
            .with("kernel", [1_u8; 5])
            .with("initrd", [2_u8; 7])
            .with("start", "manual")
            .with("on-crash", "restart")
            .with("restart-limit", 3_u32)
            .with("restart-delay", 50_u32)
            .with("watchdog", 10_u32)
            .with("rights", ["control", "statistics", "console"].as_slice())
            .with("layout", "board")
            .with("memory-address", 0x2000_0000_u64)
            .with("passthrough", ["serial1", "/soc/mmc@7e340000"].as_slice())
            .with("allow-unprotected-dma", [0_u8; 0])
            .with("allow-pin-control", [0_u8; 0])
            .with("clock-rates", [500_000_000_u32, 100_000_000]),
        Node::vm("raw")
            .with("memory", 2048_u32)
            .with("binary", [3_u8; 8])
            .with("load-address", 0x4000_1000_u64)
            .with("entry-address", 0x4000_1004_u32),
        Node::vm("raw2").with("binary", [4_u8; 8]).with("load-address", 0x1_0000_0000_u64),
        Node::vm("u-boot").with("firmware", [5_u8; 9]).with("firmware-variables", [6_u8; 3]),
    ]);
    let vms: Result<Vec<_>, _> = Bundle::parse(&blob).unwrap().vms.into_iter().collect();
    let vms = vms.unwrap();
    let linux = VmConfig {
        name: "linux",
        cpus: 2,
        memory: 512 << 20,
        cpu_affinity: Some(vec![3, 1]),
        sharing: Sharing::Pinned,
        bootargs: Some("console=ttyAMA0"),
        payload: Payload::Linux { image: &[1; 5], initrd: Some(&[2; 7]) },
        starts: false,
        on_crash: OnCrash::Restart { limit: 3, delay: 50 },
        watchdog: Some(10),
        rights: right::CONTROL | right::STATISTICS | right::CONSOLE,
        layout: LayoutKind::Board,
        memory_address: Some(0x2000_0000),
        devices: DeviceConfig {
            nodes: vec!["serial1", "/soc/mmc@7e340000"],
            unprotected_dma: true,
            pin_control: true,
            clock_rates: vec![500_000_000, 100_000_000],
        },
    };
    assert_eq!(vms[0], linux);
    assert_eq!(vms[1].memory, 2 << 20);
    let raw = |byte, load, entry| Payload::Binary {
        bytes: byte,
        load_address: Ipa::new(load),
        entry: Ipa::new(entry),
    };
    assert_eq!(vms[1].payload, raw(&[3; 8], 0x4000_1000, 0x4000_1004));
    assert_eq!(vms[2].payload, raw(&[4; 8], 0x1_0000_0000, 0x1_0000_0000));
    assert!(vms[3].payload.has_variables());
    assert_eq!(vms[3].payload, Payload::Firmware { image: &[5; 9], variables: Some(&[6; 3]) });
}

#[test]
fn what_dtc_adds_is_no_mistake() {
    let vm = Node::vm("a").with("elf", [1_u8]).with("phandle", 1_u32).with("linux,phandle", 1_u32);
    let vm = vm.with("#address-cells", 2_u32).with("#size-cells", 2_u32);
    let root = root().with("model", "mine").with("#address-cells", 1_u32).with("#size-cells", 1_u32);
    let symbols = ["__symbols__", "__fixups__", "__local_fixups__"];
    let root = symbols.into_iter().fold(root.child(vm), |root, name| root.child(Node::new(name)));
    let blob = blob(root);
    let vms = Bundle::parse(&blob).unwrap().vms;
    assert_eq!(vms.len(), 1);
    assert!(vms[0].is_ok());
}

#[test]
fn bytes_behind_the_blob_are_ignored() {
    let mut padded = bundle([Node::vm("a").with("elf", [1_u8])]);
    padded.resize(padded.len() + 4096, 0xaa);
    assert!(Bundle::parse(&padded).unwrap().vms[0].is_ok());
}

#[test]
fn a_wrong_vm_leaves_out_only_itself() {
    let good = |name| Node::vm(name).with("elf", [1_u8]);
    let blob = bundle([good("a"), good("b").with("cpus", 9_u32), good("c")]);
    let vms = Bundle::parse(&blob).unwrap().vms;
    assert_eq!(vms[0].as_ref().unwrap().name, "a");
    assert_eq!(vms[1].as_ref().unwrap_err().to_string(), "/b: cpus: 9 is more than 8");
    assert_eq!(vms[2].as_ref().unwrap().name, "c");
}

#[test]
fn memory_mistakes() {
    let say = |kib: u64| message_with("memory", kib);
    assert_eq!(say(0), "/linux: memory: 0 KiB is less than 2048 KiB");
    assert_eq!(say(2047), "/linux: memory: 2047 KiB is less than 2048 KiB");
    assert_eq!(say(2049), "/linux: memory: 2049 KiB is not a multiple of 2048 KiB");
    assert_eq!(say(267_388_928), "/linux: memory: 267388928 KiB is more than 267386880 KiB");
    assert_eq!(say(u64::MAX), "/linux: memory: 18446744073709551615 KiB is more than 267386880 KiB");
    let length = "/linux: memory: has 12 bytes, must be one or two cells (4 or 8 bytes)";
    assert_eq!(message_with("memory", [0_u32; 3]), length);
    let length = "/linux: memory: has 5 bytes, must be one or two cells (4 or 8 bytes)";
    assert_eq!(message_with("memory", "512M"), length);
}

#[test]
fn the_largest_memory_is_allowed() {
    let blob = bundle([Node::vm("a").with("elf", [1_u8]).with("memory", 267_386_880_u64)]);
    assert_eq!(Bundle::parse(&blob).unwrap().vms[0].as_ref().unwrap().memory, 255 << 30);
}

#[test]
fn cpu_mistakes() {
    assert_eq!(message_with("cpus", 0_u32), "/linux: cpus: 0 is less than 1");
    assert_eq!(message_with("cpus", 9_u32), "/linux: cpus: 9 is more than 8");
    assert_eq!(message_with("cpus", 2_u64), "/linux: cpus: has 8 bytes, must be one cell (4 bytes)");
    let text = "/linux: cpu-affinity: lists 2 CPUs for 1 vCPUs: one for each is needed";
    assert_eq!(message_with("cpu-affinity", [0_u32, 1]), text);
    let text = "/linux: cpu-affinity: has 3 bytes, must be a list of cells (4 bytes each)";
    assert_eq!(message_with("cpu-affinity", [0_u8; 3]), text);
}

/// What a VM that runs an ELF file and has these properties says of CPUs: how it shares them, and which it names.
fn terms(vm: Node) -> (Sharing, Option<Vec<u32>>) {
    let blob = bundle([vm.with("elf", [1_u8])]);
    let vms = Bundle::parse(&blob).unwrap().vms;
    let vm = vms[0].as_ref().unwrap();
    (vm.sharing, vm.cpu_affinity.clone())
}

#[test]
fn the_terms_of_sharing_are_read() {
    for weight in [1, 256, 65535] {
        assert_eq!(terms(Node::vm("a").with("weight", weight)), (Sharing::Weight(weight), None));
    }
    for (budget, period) in [(10, 100), (100, 100), (200, 1000), (1_000_000, 1_000_000)] {
        let vm = Node::vm("a").with("period", period).with("budget", budget);
        assert_eq!(terms(vm), (Sharing::Reserved { budget, period }, None));
    }
}

#[test]
fn a_vm_that_shares_may_name_more_or_fewer_cpus_than_it_has_vcpus() {
    for vm in [
        Node::vm("a").with("cpus", 2_u32).with("weight", 1_u32),
        Node::vm("a").with("cpus", 2_u32).with("budget", 10_u32).with("period", 100_u32),
    ] {
        assert_eq!(terms(vm.with("cpu-affinity", [3_u32, 0, 7])).1, Some(vec![3, 0, 7]));
    }
    assert_eq!(
        terms(Node::vm("a").with("cpus", 8_u32).with("weight", 1_u32).with("cpu-affinity", 5_u32)).1,
        Some(vec![5])
    );
}

#[test]
fn weight_mistakes() {
    assert_eq!(message_with("weight", 0_u32), "/linux: weight: 0 is less than 1");
    assert_eq!(message_with("weight", 65536_u32), "/linux: weight: 65536 is more than 65535");
    assert_eq!(message_with("weight", 1_u64), "/linux: weight: has 8 bytes, must be one cell (4 bytes)");
}

#[test]
fn reservation_mistakes() {
    let say = |budget: u32, period: u32| {
        message(Node::vm("linux").with("elf", [1_u8]).with("budget", budget).with("period", period))
    };
    assert_eq!(say(9, 100), "/linux: budget: 9 us is less than 10 us");
    assert_eq!(say(10, 99), "/linux: period: 99 us is less than 100 us");
    assert_eq!(say(10, 1_000_001), "/linux: period: 1000001 us is more than 1000000 us");
    assert_eq!(say(1001, 1000), "/linux: budget: 1001 us is more than the period, 1000 us");
    assert_eq!(message_with("budget", 10_u32), "/linux: period: missing: budget needs it");
    assert_eq!(message_with("period", 100_u32), "/linux: budget: missing: period needs it");
    let length = "has 8 bytes, must be one cell (4 bytes)";
    let vm = || Node::vm("linux").with("elf", [1_u8]);
    let budget = message(vm().with("budget", 10_u64).with("period", 100_u32));
    assert_eq!(budget, format!("/linux: budget: {length}"));
    let period = message(vm().with("budget", 10_u32).with("period", 100_u64));
    assert_eq!(period, format!("/linux: period: {length}"));
}

#[test]
fn a_weight_and_a_reservation() {
    let rule = "already: a VM shares CPUs by weight, or by budget and period";
    let vm = || Node::vm("linux").with("elf", [1_u8]).with("weight", 256_u32);
    let both = message(vm().with("budget", 10_u32).with("period", 100_u32));
    assert_eq!(both, format!("/linux: weight: there is budget {rule}"));
    // The way out isn't to complete it.
    assert_eq!(message(vm().with("budget", 10_u32)), format!("/linux: weight: there is budget {rule}"));
    assert_eq!(message(vm().with("period", 100_u32)), format!("/linux: weight: there is period {rule}"));
}

#[test]
fn affinity_mistakes_of_a_vm_that_shares() {
    let say = |cells: &[u32]| {
        let list: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
        message(Node::vm("linux").with("elf", [1_u8]).with("weight", 1_u32).with("cpu-affinity", list))
    };
    assert_eq!(say(&[1, 2, 3, 2, 1]), "/linux: cpu-affinity: lists CPU 2 twice");
    assert_eq!(say(&[]), "/linux: cpu-affinity: is empty");
}

#[test]
fn string_mistakes() {
    let not_a_string = "/linux: bootargs: must be one string";
    for value in [&b"no end"[..], b"two\0strings\0", b"\xff\0", b""] {
        assert_eq!(message_with("bootargs", value), not_a_string);
    }
    let say = |length| message_with("bootargs", "x".repeat(length));
    assert_eq!(say(2048), "/linux: bootargs: has 2048 characters, 2047 at most");
    let longest = "x".repeat(2047);
    let blob = bundle([Node::vm("a").with("elf", [1_u8]).with("bootargs", longest.as_str())]);
    let vms = Bundle::parse(&blob).unwrap().vms;
    assert_eq!(vms[0].as_ref().unwrap().bootargs, Some(longest.as_str()));
}

/// What a VM that runs an ELF file and also has these properties is read as.
fn read<R>(vm: Node, f: impl FnOnce(&VmConfig<'_>) -> R) -> R {
    let blob = bundle([vm.with("elf", [1_u8])]);
    f(Bundle::parse(&blob).unwrap().vms[0].as_ref().unwrap())
}

#[test]
fn what_becomes_of_a_vm_that_crashes() {
    let policy = |vm| read(vm, |config| config.on_crash);
    assert_eq!(policy(Node::vm("a").with("on-crash", "stop")), OnCrash::Stop);
    assert_eq!(policy(Node::vm("a").with("on-crash", "preserve")), OnCrash::Preserve);
    let restart = || Node::vm("a").with("on-crash", "restart");
    assert_eq!(policy(restart()), OnCrash::Restart { limit: 5, delay: 100 });
    assert_eq!(policy(restart().with("restart-limit", 1_u32)), OnCrash::Restart { limit: 1, delay: 100 });
    let longest = restart().with("restart-delay", 60_000_u32);
    assert_eq!(policy(longest), OnCrash::Restart { limit: 5, delay: 60_000 });
}

#[test]
fn mistakes_about_crashes() {
    let unknown = "/linux: on-crash: is \"reboot\", must be one of: stop, preserve, restart";
    assert_eq!(message_with("on-crash", "reboot"), unknown);
    assert_eq!(message_with("on-crash", 1_u32), "/linux: on-crash: must be one string");
    for name in ["restart-limit", "restart-delay"] {
        let goes_with = format!("/linux: {name}: only goes with on-crash = \"restart\"");
        assert_eq!(message_with(name, 1_u32), goes_with);
        let other = Node::vm("linux").with("elf", [1_u8]).with("on-crash", "preserve").with(name, 1_u32);
        assert_eq!(message(other), goes_with);
    }
    let say = |name, value: u32| {
        message(Node::vm("linux").with("elf", [1_u8]).with("on-crash", "restart").with(name, value))
    };
    assert_eq!(say("restart-limit", 0), "/linux: restart-limit: 0 is less than 1");
    assert_eq!(say("restart-limit", 1_000_001), "/linux: restart-limit: 1000001 is more than 1000000");
    assert_eq!(say("restart-delay", 0), "/linux: restart-delay: 0 ms is less than 1 ms");
    assert_eq!(say("restart-delay", 60_001), "/linux: restart-delay: 60001 ms is more than 60000 ms");
}

#[test]
fn when_a_vm_starts_and_its_watchdog() {
    assert!(read(Node::vm("a").with("start", "auto"), |config| config.starts));
    assert!(!read(Node::vm("a").with("start", "manual"), |config| config.starts));
    let unknown = "/linux: start: is \"no\", must be one of: auto, manual";
    assert_eq!(message_with("start", "no"), unknown);
    assert_eq!(message_with("start", b"auto"), "/linux: start: must be one string");
    assert_eq!(read(Node::vm("a").with("watchdog", 3600_u32), |config| config.watchdog), Some(3600));
    assert_eq!(message_with("watchdog", 0_u32), "/linux: watchdog: 0 s is less than 1 s");
    assert_eq!(message_with("watchdog", 3601_u32), "/linux: watchdog: 3601 s is more than 3600 s");
    let length = "has 0 bytes, must be one cell (4 bytes)";
    assert_eq!(message_with("watchdog", [0_u8; 0]), format!("/linux: watchdog: {length}"));
}

#[test]
fn rights() {
    let rights = |names: &[&str]| read(Node::vm("a").with("rights", names), |config| config.rights);
    assert_eq!(rights(&["control"]), right::CONTROL);
    assert_eq!(rights(&["statistics"]), right::STATISTICS);
    assert_eq!(rights(&["console", "control"]), right::CONSOLE | right::CONTROL);
    let known = "must be one of: control, statistics, console";
    let say = |names: &[&str]| message_with("rights", names);
    assert_eq!(say(&["control", "all"]), format!("/linux: rights: is \"all\", {known}"));
    assert_eq!(say(&[""]), format!("/linux: rights: is \"\", {known}"));
    assert_eq!(message_with("rights", 1_u32), "/linux: rights: must be one or more strings");
    assert_eq!(message_with("rights", b"\xff\0"), "/linux: rights: must be one or more strings");
    assert_eq!(message_with("rights", [0_u8; 0]), "/linux: rights: must be one or more strings");
}

#[test]
fn what_becomes_of_the_board() {
    let parse = |value: &str| {
        let blob = blob(root().with("when-all-off", value).child(Node::vm("a").with("elf", [1_u8])));
        let bundle = Bundle::parse(&blob).unwrap();
        let wrong = bundle.vms.iter().filter_map(|vm| vm.as_ref().err()).map(ToString::to_string);
        (bundle.when_all_off, wrong.collect::<Vec<_>>())
    };
    assert_eq!(parse("power-off"), (WhenAllOff::PowerOff, vec![]));
    assert_eq!(parse("reset"), (WhenAllOff::Reset, vec![]));
    assert_eq!(parse("stay"), (WhenAllOff::Stay, vec![]));
    let text = "/: when-all-off: is \"reboot\", must be one of: power-off, reset, stay";
    assert_eq!(parse("reboot"), (WhenAllOff::PowerOff, vec![text.to_owned()]));
    let blob = blob(root().with("when-all-off", 1_u32).child(Node::vm("a").with("elf", [1_u8])));
    let error = Bundle::parse(&blob).unwrap().vms[0].as_ref().unwrap_err().to_string();
    assert_eq!(error, "/: when-all-off: must be one string");
}

#[test]
fn payload_mistakes() {
    let nothing = "/linux: nothing to run: give one of kernel, elf, binary, firmware";
    assert_eq!(message(Node::vm("linux")), nothing);
    for (index, name) in ["kernel", "elf", "binary", "firmware"].into_iter().enumerate() {
        let vm = Node::vm("linux").with("load-address", 0_u64);
        let vm = if name == "binary" { vm } else { Node::vm("linux") };
        assert_eq!(message(vm.with(name, [0_u8; 0])), format!("/linux: {name}: is empty"));
        let other = ["elf", "binary", "firmware", "kernel"][index];
        let both = message(Node::vm("linux").with(name, [1_u8]).with(other, [1_u8]));
        assert!(both.ends_with("already: a VM runs one of kernel, elf, binary, firmware"), "{both}");
    }
    let second = message_with("kernel", [1_u8]);
    assert_eq!(
        second,
        "/linux: elf: there is kernel already: a VM runs one of kernel, elf, binary, firmware"
    );
    let empty = Node::vm("linux").with("kernel", [1_u8]).with("initrd", [0_u8; 0]);
    assert_eq!(message(empty), "/linux: initrd: is empty");
}

#[test]
fn companions_without_their_payload() {
    assert_eq!(message_with("initrd", [1_u8]), "/linux: initrd: only goes with kernel");
    assert_eq!(message_with("load-address", 1_u64), "/linux: load-address: only goes with binary");
    assert_eq!(message_with("entry-address", 1_u64), "/linux: entry-address: only goes with binary");
    assert_eq!(
        message_with("firmware-variables", [0_u8; 0]),
        "/linux: firmware-variables: only goes with firmware"
    );
    let raw = || Node::vm("linux").with("binary", [1_u8]);
    assert_eq!(message(raw()), "/linux: load-address: missing: binary needs it");
    let length = "has 1 bytes, must be one or two cells (4 or 8 bytes)";
    assert_eq!(message(raw().with("load-address", [1_u8])), format!("/linux: load-address: {length}"));
    let entry = raw().with("load-address", 1_u64).with("entry-address", [1_u8]);
    assert_eq!(message(entry), format!("/linux: entry-address: {length}"));
}

#[test]
fn typos_do_not_pass() {
    let known = "compatible, cpus, cpu-affinity, weight, budget, period, memory, bootargs, kernel, initrd, elf, \
                 binary, load-address, entry-address, firmware, firmware-variables, start, on-crash, restart-limit, \
                 restart-delay, watchdog, rights, layout, passthrough, allow-unprotected-dma, allow-pin-control, clock-rates, \
                 memory-address";
    let text = format!("/linux: cpu: unknown property; known here: {known}");
    assert_eq!(message_with("cpu", 2_u32), text);
    // The typo is named even where it leaves the VM without a payload.
    let kernal = message(Node::vm("linux").with("kernal", [1_u8]));
    assert_eq!(kernal, format!("/linux: kernal: unknown property; known here: {known}"));
    let inner = message(Node::vm("linux").with("elf", [1_u8]).child(Node::new("channel")));
    assert_eq!(inner, "/linux/channel: unknown node: a VM has no child nodes");
}

#[test]
fn node_mistakes() {
    let none = message(Node::new("linux").with("elf", [1_u8]));
    assert_eq!(none, "/linux: compatible: missing, must be \"hanok,vm\" or \"hanok,channel\"");
    let other = message(Node::new("linux").with("compatible", "xen,domain").with("elf", [1_u8]));
    assert_eq!(other, "/linux: compatible: is \"xen,domain\", must be \"hanok,vm\" or \"hanok,channel\"");
    let unterminated = message(Node::new("linux").with("compatible", *b"hanok,vm"));
    assert_eq!(unterminated, "/linux: compatible: must be one string");
    let address = message(Node::vm("linux@1").with("elf", [1_u8]));
    assert_eq!(address, "/linux@1: a VM's name has no unit address (@...)");
    let list = Node::new("a").with("compatible", ["mine", "hanok,vm"].as_slice()).with("elf", [1_u8]);
    assert!(Bundle::parse(&bundle([list])).unwrap().vms[0].is_ok());
}

#[test]
fn a_name_twice() {
    let mut blob = bundle(["first", "secnd"].map(|name| Node::vm(name).with("elf", [1_u8])));
    patch(&mut blob, b"secnd", b"first");
    let vms = Bundle::parse(&blob).unwrap().vms;
    assert!(vms[0].is_ok());
    let error = vms[1].as_ref().unwrap_err();
    assert_eq!(error.to_string(), "/first: an earlier node has the same name");
}

#[test]
fn a_property_twice() {
    let mut blob = bundle([Node::vm("a").with("elf", [1_u8]).with("elg", [2_u8])]);
    patch(&mut blob, b"elg", b"elf");
    let vms = Bundle::parse(&blob).unwrap().vms;
    assert_eq!(vms[0].as_ref().unwrap_err().to_string(), "/a: elf: given twice");
}

#[test]
fn more_vms_than_there_can_be() {
    let vms = |count: usize| (0..count).map(|number| Node::vm(&format!("vm{number}")).with("elf", [1_u8]));
    let blob = bundle(vms(MAX_VMS));
    assert!(Bundle::parse(&blob).unwrap().vms.iter().all(Result::is_ok));
    let blob = bundle(vms(66));
    let parsed = Bundle::parse(&blob).unwrap().vms;
    assert_eq!(parsed.len(), 65);
    assert!(parsed[..64].iter().all(Result::is_ok));
    let text = "/vm64: the bundle has 66 VMs, 64 at most: this one and those after it are left out";
    assert_eq!(parsed[64].as_ref().unwrap_err().to_string(), text);
}

#[test]
fn a_mistake_at_the_root_stops_no_vm() {
    let blob = blob(root().with("cpus", 2_u32).child(Node::vm("a").with("elf", [1_u8])));
    let vms = Bundle::parse(&blob).unwrap().vms;
    let text = "/: cpus: unknown property; known here: compatible, model, when-all-off";
    assert_eq!(vms[0].as_ref().unwrap_err().to_string(), text);
    assert_eq!(vms[1].as_ref().unwrap().name, "a");
}

#[test]
fn what_makes_a_whole_bundle_useless() {
    let say = |bytes: &[u8]| Bundle::parse(bytes).unwrap_err().to_string();
    let header = "the bundle is truncated: a device-tree blob starts with 40 bytes of header, there are";
    assert_eq!(say(b""), format!("{header} 0"));
    assert_eq!(say(b"\xd0\x0d"), format!("{header} 2"));
    assert_eq!(say(b"\xd0\x0d\xfe\xed\0\0\0\x28"), format!("{header} 8"));
    let no_blob =
        |start| format!("the bundle is no device-tree blob: it starts with {start} instead of 0xd00dfeed");
    assert_eq!(say(&[0; 64]), no_blob("0x00000000"));
    let source = no_blob("0x2f647473") + " (it is device-tree source: compile it with dtc)";
    assert_eq!(say(b"/dts-v1/;"), source);
    let archive = no_blob("0x30373037") + " (it is a cpio archive: give that as `initrd` of a VM)";
    assert_eq!(say(b"070701"), archive);
    assert_eq!(say(b"\x1f\x8b\x08\0"), no_blob("0x1f8b0800") + " (it is gzip-compressed)");
    assert_eq!(
        say(&bundle([])),
        "the bundle has no VM: give the root a child node with compatible = \"hanok,vm\""
    );
    let vm = || Node::vm("a").with("elf", [1_u8]);
    let bare = blob(Node::bare_root().child(vm()));
    assert_eq!(say(&bare), "/: compatible: missing, must be \"hanok,bundle\"");
    let board = Node::bare_root().with("compatible", "linux,dummy-virt").child(vm());
    assert_eq!(say(&blob(board)), "/: compatible: is \"linux,dummy-virt\", must be \"hanok,bundle\"");
}

#[test]
fn a_truncated_bundle_says_how_much_is_missing() {
    let whole = bundle([Node::vm("a").with("elf", [1_u8; 1000])]);
    let says = u32::try_from(whole.len()).unwrap();
    for got in [40, 100, whole.len() - 1] {
        assert_eq!(Bundle::parse(&whole[..got]).unwrap_err(), BundleError::Truncated { says, got });
    }
    let text = format!("the bundle is truncated: its header says {says} bytes, there are 100");
    assert_eq!(Bundle::parse(&whole[..100]).unwrap_err().to_string(), text);
}

#[test]
fn a_damaged_bundle_says_where() {
    let mut blob = bundle([Node::vm("linux").with("elf", [1_u8])]);
    patch(&mut blob, b"linux", b"li ux");
    let error = Bundle::parse(&blob).unwrap_err();
    assert!(matches!(error, BundleError::Damaged { .. }));
    let text = error.to_string();
    assert!(text.starts_with("the bundle can't be read: Invalid node name at offset "), "{text}");
    assert!(text.ends_with(" (1 to 31 of A-Z a-z 0-9 , . _ + -)"), "{text}");
    let last = blob.len() - 1;
    blob[last] = b'x';
    assert!(matches!(Bundle::parse(&blob), Err(BundleError::Damaged { .. })));
}

#[test]
fn errors_are_values() {
    fn is_error<T: core::error::Error + Send + Sync + 'static>() {}
    is_error::<BundleError>();
    is_error::<ManifestError>();
}

#[test]
fn the_reference_has_a_row_for_every_property() {
    let reference = include_str!("../../../docs/manifest.md");
    let message = message_with("x", 0_u32);
    let known = message.rsplit(": ").next().unwrap().split(", ");
    for property in known.chain(["model"]) {
        assert!(reference.contains(&format!("\n| `{property}` | ")), "{property}");
    }
}
