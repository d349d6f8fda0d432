//! Bundles and manifests that are wrong: each gets a message that names what is wrong, and only the virtual machine that
//! it breaks is left out.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tests::{Failure, Machine, Outcome, Scenario, Vm, ensure};

use crate::case::{Case, GICS};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for gic in GICS {
        for (name, make) in BUNDLES {
            let name = format!("bad-bundle/{name}/gicv{gic}");
            cases.push(Case::new(name, move |scenario| no_vm(scenario, gic, make)));
        }
        for (name, needs_linux, make) in VMS {
            let case =
                Case::new(format!("bad-vm/{name}/gicv{gic}"), move |scenario| left_out(scenario, gic, make));
            cases.push(if needs_linux { case.needs_linux() } else { case });
        }
        cases.push(Case::new(format!("bad-vm/leaves-its-cpus/gicv{gic}"), move |scenario| {
            leaves_its_cpus(scenario, gic)
        }));
    }
    cases
}

/// Makes a file to hand over as the bundle, and says how the message goes on.
type BadBundle = fn(&Scenario) -> Outcome<(PathBuf, String)>;
/// Makes a virtual machine that can't be, and says what the message is.
type BadVm = fn(&Scenario) -> Outcome<(Vm, String)>;

const BUNDLES: [(&str, BadBundle); 5] = [
    ("truncated", truncated),
    ("cut-in-header", cut_in_header),
    ("source", source),
    ("gzip", compressed_bundle),
    ("no-vm", without_vm),
];

const VMS: [(&str, bool, BadVm); 12] = [
    ("too-much-memory", false, too_much_memory),
    ("odd-memory", false, odd_memory),
    ("too-many-cpus", false, too_many_cpus),
    ("absent-cpu", false, absent_cpu),
    ("unknown-property", false, unknown_property),
    ("missing-property", false, missing_property),
    ("two-payloads", false, two_payloads),
    ("no-payload", false, no_payload),
    ("text-as-kernel", false, text_as_kernel),
    ("elf-as-kernel", false, elf_as_kernel),
    ("cut-elf", false, cut_elf),
    ("gzip-kernel", true, gzip_kernel),
];

/// A bundle of which nothing can be used: there is nothing to run.
fn no_vm(scenario: &Scenario, gic: u8, make: BadBundle) -> Outcome {
    let (bundle, reason) = make(scenario)?;
    let mut board = scenario.boot(&Machine::new(gic, 1).bundle(bundle))?;
    board
        .expect_log(&format!("error: the bundle that was handed over as initrd cannot be used: {reason}"))?;
    board.expect_log("there is no VM to run: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

/// A virtual machine that is wrong, before one that is right and runs.
fn left_out(scenario: &Scenario, gic: u8, make: BadVm) -> Outcome {
    let (vm, message) = make(scenario)?;
    let bundle = scenario.bundle(&[vm, Vm::hello("good")])?;
    let mut board = scenario.boot(&Machine::new(gic, 2).memory("1G").bundle(bundle))?;
    board.expect_log(&format!("error: left out: {message}"))?;
    board.expect_log("good: 1 vCPU on CPU 1, 16 MiB")?;
    board.expect(r"(?m)^hello: tick 1 of 10\n")?;
    board.send_line("off")?;
    board.expect_log("no VM is left: turning the board off")?;
    board.expect_off()?;
    Ok(())
}

fn good_bundle(scenario: &Scenario) -> Outcome<Vec<u8>> {
    let path = scenario.bundle(&[Vm::hello("good")])?;
    fs::read(path).map_err(Failure::io("read a bundle"))
}

fn truncated(scenario: &Scenario) -> Outcome<(PathBuf, String)> {
    let bytes = good_bundle(scenario)?;
    let (all, half) = (bytes.len(), bytes.len() / 2);
    let path = scenario.write("half.dtb", &bytes[..half])?;
    Ok((path, format!("the bundle is truncated: its header says {all} bytes, there are {half}")))
}

fn cut_in_header(scenario: &Scenario) -> Outcome<(PathBuf, String)> {
    let path = scenario.write("header.dtb", &good_bundle(scenario)?[..20])?;
    let reason = "the bundle is truncated: a device-tree blob starts with 40 bytes of header, there are 20";
    Ok((path, reason.to_owned()))
}

fn source(scenario: &Scenario) -> Outcome<(PathBuf, String)> {
    let path = scenario.write("bundle.dts", "/dts-v1/;\n\n/ {\n\tcompatible = \"hanok,bundle\";\n};\n")?;
    let reason = "the bundle is no device-tree blob: it starts with 0x2f647473 instead of 0xd00dfeed (it is \
                  device-tree source: compile it with dtc)";
    Ok((path, reason.to_owned()))
}

fn compressed_bundle(scenario: &Scenario) -> Outcome<(PathBuf, String)> {
    let path = scenario.write("bundle.dtb.gz", gzip(&good_bundle(scenario)?)?)?;
    let reason = "the bundle is no device-tree blob: it starts with 0x1f8b0800 instead of 0xd00dfeed (it is \
                  gzip-compressed)";
    Ok((path, reason.to_owned()))
}

fn without_vm(scenario: &Scenario) -> Outcome<(PathBuf, String)> {
    let reason = "the bundle has no VM: give the root a child node with compatible = \"hanok,vm\"";
    Ok((scenario.bundle(&[])?, reason.to_owned()))
}

fn too_much_memory(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/big: memory: 2097152 KiB of memory are wanted and <n> KiB are free";
    Ok((Vm::hello("big").memory(2048), message.to_owned()))
}

fn odd_memory(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/odd: memory: 3000 KiB is not a multiple of 2048 KiB";
    Ok((Vm::hello("odd").property("memory", "<0x0 3000>"), message.to_owned()))
}

fn too_many_cpus(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/wide: cpus: 3 CPUs are wanted and 2 of the board's 2 are free";
    Ok((Vm::hello("wide").property("cpus", "<3>"), message.to_owned()))
}

fn absent_cpu(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/far: cpu-affinity: CPU 7 is not there";
    Ok((Vm::hello("far").property("cpu-affinity", "<7>"), message.to_owned()))
}

fn unknown_property(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/typo: cpu: unknown property; known here: compatible, cpus, cpu-affinity, weight, budget, \
                   period, memory, bootargs, kernel, initrd, elf, binary, load-address, entry-address, firmware, \
                   firmware-variables, start, on-crash, restart-limit, restart-delay, watchdog, rights, layout, passthrough, \
                   allow-unprotected-dma, allow-pin-control, clock-rates, memory-address";
    Ok((Vm::hello("typo").without("cpus").property("cpu", "<1>"), message.to_owned()))
}

fn missing_property(_: &Scenario) -> Outcome<(Vm, String)> {
    let binary = Vm::hello("lost").without("elf").payload("binary", "hello.elf");
    Ok((binary, "/lost: load-address: missing: binary needs it".to_owned()))
}

fn two_payloads(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/both: firmware: there is elf already: a VM runs one of kernel, elf, binary, firmware";
    Ok((Vm::hello("both").payload("firmware", "hello.elf"), message.to_owned()))
}

fn no_payload(_: &Scenario) -> Outcome<(Vm, String)> {
    let message = "/idle: nothing to run: give one of kernel, elf, binary, firmware";
    Ok((Vm::hello("idle").without("elf"), message.to_owned()))
}

fn text_as_kernel(scenario: &Scenario) -> Outcome<(Vm, String)> {
    let text = "This is a text that somebody took for a kernel. ".repeat(10);
    let file = scenario.write("notes.txt", text)?;
    let message = "/prose: kernel: is no arm64 Image (no \"ARM\\x64\" at byte 56)";
    Ok((Vm::hello("prose").without("elf").payload("kernel", file), message.to_owned()))
}

fn elf_as_kernel(_: &Scenario) -> Outcome<(Vm, String)> {
    let message =
        "/elf: kernel: is no arm64 Image (no \"ARM\\x64\" at byte 56): it is an ELF file, give it as elf";
    Ok((Vm::hello("elf").without("elf").payload("kernel", "hello.elf"), message.to_owned()))
}

fn cut_elf(scenario: &Scenario) -> Outcome<(Vm, String)> {
    let hello =
        fs::read(scenario.inputs().guests.join("hello.elf")).map_err(Failure::io("read hello.elf"))?;
    let file = scenario.write("cut.elf", &hello[..100])?;
    Ok((
        Vm::hello("cut").payload("elf", file),
        "/cut: elf: is truncated: its program headers end at byte <n>, the file at 0x64".to_owned(),
    ))
}

/// The kernel as `vmlinuz` of other distributions has it.
fn gzip_kernel(scenario: &Scenario) -> Outcome<(Vm, String)> {
    let path = scenario.inputs().guests.join("linux/Image");
    let kernel = fs::read(&path).map_err(Failure::io(format!("read {}", path.display())))?;
    let file = scenario.write("Image.gz", gzip(&kernel)?)?;
    let message = "/packed: kernel: is gzip-compressed: give the plain arm64 Image";
    Ok((Vm::linux(1).named("packed").payload("kernel", file), message.to_owned()))
}

fn gzip(bytes: &[u8]) -> Outcome<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(Failure::io("compress"))
}

/// A VM that comes first and can't be built takes no CPUs from those behind it, with their channels.
fn leaves_its_cpus(scenario: &Scenario, gic: u8) -> Outcome {
    let vms = [
        Vm::hello("large").property("cpus", "<2>").memory(8192),
        Vm::hello("one"),
        Vm::hello("two"),
        Vm::hello("three"),
        Vm::channel("link", ["one", "two"], 64),
    ];
    let mut board = scenario.boot(&Machine::new(gic, 2).bundle(scenario.bundle(&vms)?))?;
    board.expect_ever("hanok: error: left out: /large: memory: ")?;
    board.expect_ever(
        "hanok: error: left out: /three: cpus: 1 CPUs are wanted and 0 of the board's 2 are free\n",
    )?;
    board.expect_log("one: 1 vCPU on CPU <n>, 16 MiB")?;
    board.expect_log("two: 1 vCPU on CPU <n>, 16 MiB")?;
    board.expect_ever(r"(?m)^\[two\] hello: tick 1 of 10\n")?;
    let text = board.text();
    ensure(!text.contains("/link"), || "their channel was left out".to_owned())
}
