//! Channels in the manifest: what a good one says, the message that each mistake gets, and what becomes of those whose VMs
//! are left out.

mod node;

use config::manifest::{Bundle, BundleError, ChannelConfig, MAX_CHANNELS, MAX_VMS};
use dtoolkit::ToPropertyValue;
use node::{Node, blob, bundle, root};

fn vm(name: &str) -> Node {
    Node::vm(name).with("elf", [1_u8])
}

fn channel(name: &str, vms: &[&str]) -> Node {
    Node::new(name).with("compatible", "hanok,channel").with("vms", vms)
}

/// A channel's name, VMs and size, or what is wrong with it.
type Found = Result<(String, [String; 2], u64), String>;

/// The channels of a bundle with the VMs a, b and c and these nodes. The VMs are in order.
fn channels(nodes: impl IntoIterator<Item = Node>) -> Vec<Found> {
    let blob = bundle([vm("a"), vm("b")].into_iter().chain(nodes).chain([vm("c")]));
    let bundle = Bundle::parse(&blob).unwrap();
    assert_eq!(bundle.vms.iter().flatten().map(|vm| vm.name).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(bundle.vms.len(), 3);
    let owned =
        |channel: &ChannelConfig<'_>| (channel.name.to_owned(), channel.vms.map(str::to_owned), channel.size);
    bundle.channels.iter().map(|channel| channel.as_ref().map(owned).map_err(ToString::to_string)).collect()
}

/// What is wrong with the only channel.
fn message(node: Node) -> String {
    let mut channels = channels([node]);
    assert_eq!(channels.len(), 1);
    channels.remove(0).unwrap_err()
}

fn message_with(name: &str, value: impl ToPropertyValue) -> String {
    message(channel("link", &["a", "b"]).with(name, value))
}

#[test]
fn every_property_is_read() {
    let found = channels([
        channel("link", &["a", "b"]),
        channel("second", &["b", "a"]).with("size", 4_u32),
        channel("third", &["c", "a"]).with("size", 16384_u32).with("phandle", 7_u32),
    ]);
    let expected =
        [("link", ["a", "b"], 64 << 10), ("second", ["b", "a"], 4 << 10), ("third", ["c", "a"], 16 << 20)];
    let expected = expected.map(|(name, vms, size)| Ok((name.to_owned(), vms.map(str::to_owned), size)));
    assert_eq!(found, expected);
}

#[test]
fn vms_are_two_different_ones() {
    let say = |vms: &[&str]| message(channel("link", vms));
    assert_eq!(say(&["a"]), "/link: vms: names 1 VM: a channel is between two");
    assert_eq!(say(&["a", "b", "c"]), "/link: vms: names 3 VMs: a channel is between two");
    assert_eq!(say(&["a", "a"]), "/link: vms: names \"a\" twice: a channel is between two VMs");
    assert_eq!(say(&["a", "d"]), "/link: vms: there is no VM \"d\"");
    assert_eq!(say(&["", "a"]), "/link: vms: there is no VM \"\"");
    let missing = Node::new("link").with("compatible", "hanok,channel");
    assert_eq!(message(missing), "/link: vms: missing: a channel needs it");
    for value in [&b"a\0b"[..], b"", b"a\0\xff\0"] {
        let node = Node::new("link").with("compatible", "hanok,channel").with("vms", value);
        assert_eq!(message(node), "/link: vms: must be one or more strings");
    }
}

#[test]
fn a_channel_is_no_vm() {
    let found = channels([channel("link", &["a", "b"]), channel("other", &["a", "link"])]);
    assert_eq!(found[1], Err("/other: vms: there is no VM \"link\"".to_owned()));
    let alone = bundle([channel("link", &["a", "b"])]);
    assert!(matches!(Bundle::parse(&alone), Err(BundleError::NoVm)));
}

#[test]
fn size_mistakes() {
    let say = |kib: u32| message_with("size", kib);
    assert_eq!(say(0), "/link: size: 0 KiB is less than 4 KiB");
    assert_eq!(say(3), "/link: size: 3 KiB is less than 4 KiB");
    assert_eq!(say(48), "/link: size: 48 KiB is not a power of two");
    assert_eq!(say(16385), "/link: size: 16385 KiB is more than 16384 KiB");
    assert_eq!(say(u32::MAX), "/link: size: 4294967295 KiB is more than 16384 KiB");
    assert_eq!(message_with("size", 64_u64), "/link: size: has 8 bytes, must be one cell (4 bytes)");
}

#[test]
fn the_node_itself() {
    let known = "known here: compatible, vms, size";
    assert_eq!(message_with("vm", "a"), format!("/link: vm: unknown property; {known}"));
    let child = channel("link", &["a", "b"]).child(Node::new("end"));
    assert_eq!(message(child), "/link/end: unknown node: a channel has no child nodes");
    assert_eq!(
        message(channel("link@0", &["a", "b"])),
        "/link@0: a channel's name has no unit address (@...)"
    );
    let mut twice =
        bundle([vm("a"), vm("b"), channel("link", &["a", "b"]).with("siz", "x").with("size", 4_u32)]);
    // dtc makes no such blob: the name of one property becomes the other's.
    let at = (0..twice.len()).find(|&at| twice[at..].starts_with(b"siz\0")).unwrap();
    assert_eq!(&twice[at..at + 9], b"siz\0size\0");
    let (short, long) = (name_offset(&twice, at), name_offset(&twice, at + 4));
    let place = (0..at).rev().find(|&place| twice[place..].starts_with(&short)).unwrap();
    twice[place..place + 4].copy_from_slice(&long);
    let error = Bundle::parse(&twice).unwrap().channels[0].as_ref().unwrap_err().to_string();
    assert_eq!(error, "/link: size: given twice");
}

/// The offset into the strings block of the string that starts at byte `at` of the blob, as a cell.
fn name_offset(blob: &[u8], at: usize) -> [u8; 4] {
    let strings = u32::from_be_bytes(blob[12..16].try_into().unwrap());
    (at as u32 - strings).to_be_bytes()
}

#[test]
fn a_name_is_somebody_s_alone() {
    // dtc makes no such blobs: names are changed to others of the same length.
    for (other, name) in [("lime", "link"), ("linux0", "linux1")] {
        let links = [channel("link", &["linux1", "b"]), channel(other, &["linux1", "b"])];
        let mut blob = bundle([vm("linux1"), vm("b")].into_iter().chain(links));
        let at = (0..blob.len()).rfind(|&at| blob[at..].starts_with(other.as_bytes())).unwrap();
        blob[at..at + name.len()].copy_from_slice(name.as_bytes());
        let bundle = Bundle::parse(&blob).unwrap();
        assert!(bundle.vms.iter().all(Result::is_ok) && bundle.channels[0].is_ok());
        let error = bundle.channels[1].as_ref().unwrap_err().to_string();
        assert_eq!(error, format!("/{name}: an earlier node has the same name"));
    }
}

#[test]
fn a_vm_that_is_left_out_takes_its_channels_along() {
    let blob = bundle([
        channel("good", &["a", "b"]),
        channel("first", &["bad", "a"]),
        channel("second", &["a", "bad"]),
        channel("third", &["stranger", "a"]),
        vm("a"),
        vm("b"),
        vm("bad").with("cpus", 9_u32),
        Node::new("stranger").with("compatible", "xen,domain"),
    ]);
    let channels = Bundle::parse(&blob).unwrap().channels;
    assert_eq!(channels[0].as_ref().unwrap().name, "good");
    let messages: Vec<String> =
        channels[1..].iter().map(|channel| channel.as_ref().unwrap_err().to_string()).collect();
    let expected = [
        "/first: vms: the VM \"bad\" is left out",
        "/second: vms: the VM \"bad\" is left out",
        "/third: vms: the VM \"stranger\" is left out",
    ];
    assert_eq!(messages, expected);
}

#[test]
fn a_vm_too_many_takes_its_channel_along() {
    let names: Vec<String> = (0..MAX_VMS + 1).map(|number| format!("vm{number}")).collect();
    let nodes = names
        .iter()
        .map(|name| vm(name))
        .chain([channel("in", &["vm0", "vm63"]), channel("out", &["vm0", "vm64"])]);
    let blob = bundle(nodes);
    let channels = Bundle::parse(&blob).unwrap().channels;
    assert!(channels[0].is_ok());
    let error = channels[1].as_ref().unwrap_err().to_string();
    assert_eq!(error, "/out: vms: the VM \"vm64\" is left out");
}

#[test]
fn a_vm_has_sixteen_channels() {
    assert_eq!(MAX_CHANNELS, 16);
    let names: Vec<String> = (0..20).map(|number| format!("link{number}")).collect();
    // One that is left out counts for nobody.
    let wrong = channel("wrong", &["a", "d"]);
    let links = names[..17]
        .iter()
        .enumerate()
        .map(|(number, name)| channel(name, if number % 2 == 0 { &["a", "b"] } else { &["b", "a"] }));
    let found = channels([wrong].into_iter().chain(links).chain([channel("other", &["c", "a"])]));
    assert!(found[1..17].iter().all(Result::is_ok));
    let reason = "has 16 channels already, and can have no more";
    assert_eq!(found[17], Err(format!("/link16: vms: the VM \"a\" {reason}")));
    assert_eq!(found[18], Err(format!("/other: vms: the VM \"a\" {reason}")));
}

#[test]
fn a_channel_needs_both_of_its_vms() {
    let channel = ChannelConfig { name: "link", vms: ["a", "b"], size: 4096 };
    let say = |there: &[&str]| channel.needs(|vm| there.contains(&vm)).map_err(|error| error.to_string());
    assert_eq!(say(&["b", "a"]), Ok(()));
    assert_eq!(say(&["a"]), Err("/link: vms: the VM \"b\" is left out".to_owned()));
    assert_eq!(say(&["b"]), Err("/link: vms: the VM \"a\" is left out".to_owned()));
}

#[test]
fn there_may_be_none() {
    let blob = blob(root().child(vm("a")));
    assert!(Bundle::parse(&blob).unwrap().channels.is_empty());
}
