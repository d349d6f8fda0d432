//! The build's scripts where something is missing: they say what, and the command that brings it, and fail. PATH is a
//! folder of links to what a script needs of the machine, and of programs made up here; so nothing is installed,
//! downloaded or asked of anybody.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the scripts use of any Unix.
const UNIX: [&str; 16] = [
    "cat", "cp", "cut", "dirname", "env", "grep", "head", "ls", "mkdir", "mv", "paste", "rm", "sed", "sh",
    "tail", "uname",
];

/// A machine as the scripts see it, removed at its end.
struct Machine {
    folder: PathBuf,
    variables: Vec<(&'static str, String)>,
}

/// How a script ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: Option<i32>,
    stdout: String,
    /// What it said.
    said: Vec<String>,
}

impl Machine {
    /// With no package manager and no tools, for a user who isn't root.
    fn bare(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hanok-setup-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let bin = folder.join("bin");
        fs::create_dir_all(&bin).unwrap();
        for tool in UNIX {
            let real = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(tool));
            symlink(real.iter().find(|file| file.exists()).unwrap(), bin.join(tool)).unwrap();
        }
        let deps = folder.join("deps").display().to_string();
        Self { folder, variables: vec![("DEPS", deps)] }.with("id", "echo 1000")
    }

    /// With a program, whose shell script this is.
    fn with(self, name: &str, script: &str) -> Self {
        let file = self.folder.join("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    /// With apt, which nobody may call to change something, and which knows this version of every package.
    fn with_apt(self, candidate: &str) -> Self {
        self.with("apt-get", "echo \"apt-get $*\"; exit 100")
            .with("apt-cache", &format!("echo '{candidate}' | sed 's/^/  Candidate: /'"))
    }

    fn with_variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Runs a script of the build.
    fn run(&self, script: &str, arguments: &[&str]) -> Ended {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
        let output = Command::new(scripts.join(script))
            .args(arguments)
            .env_clear()
            .env("PATH", self.folder.join("bin"))
            .env("HOME", &self.folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended {
            status: output.status.code(),
            stdout: text(output.stdout),
            said: text(output.stderr).lines().map(str::to_owned).collect(),
        }
    }

    /// Runs a script that must fail and say just this.
    #[track_caller]
    fn fails(&self, script: &str, arguments: &[&str], said: &[&str]) {
        let wanted = Ended {
            status: Some(1),
            stdout: String::new(),
            said: said.iter().map(|line| format!("hanok: {line}")).collect(),
        };
        assert_eq!(self.run(script, arguments), wanted);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const NO_COMPILER: &str = "no C compiler to link the host's programs with: ";

#[test]
fn without_a_package_manager_the_packages_are_named() {
    let machine = Machine::bare("bare");
    let packages = "your package manager: Debian calls it gcc libc6-dev, Fedora gcc, Homebrew llvm";
    machine.fails("toolchain", &["auto"], &[&format!("{NO_COMPILER}{packages}")]);
    machine.fails("emulator", &[], &[
        "QEMU 10 or newer is needed, and qemu-system-aarch64 is absent: your package manager: Debian calls it \
         qemu-system-arm, Fedora qemu-system-aarch64, Homebrew qemu",
    ]);
    machine.fails("bundle", &["guests/linux.dts", "linux.dtb"], &[
        "dtc is missing, which makes VM bundles: your package manager: Debian calls it device-tree-compiler, Fedora \
         dtc, Homebrew dtc",
    ]);
}

#[test]
fn each_package_manager_has_its_command() {
    let compiler = |machine: Machine, command: &str| {
        machine.fails("toolchain", &["auto"], &[&format!("{NO_COMPILER}{command}")]);
    };
    compiler(Machine::bare("su").with_apt("14"), "su -c 'apt-get install gcc libc6-dev'");
    // It asks for a password, which nobody is there to give.
    let sudo = |test| Machine::bare(test).with("sudo", "exit 1");
    compiler(sudo("apt").with_apt("14"), "sudo apt-get install gcc libc6-dev");
    compiler(sudo("dnf").with("dnf", "exit 1"), "sudo dnf install gcc");
    compiler(sudo("brew").with("brew", "exit 1"), "brew install llvm");
}

/// As root, an installation is announced and tried, and what apt says of its failure is shown.
#[test]
fn an_installation_that_fails_shows_why() {
    let machine = Machine::bare("root").with_apt("14").with("id", "echo 0");
    let apt = "-y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120";
    let install = "install --no-install-recommends --no-remove gcc libc6-dev";
    let ended = machine.run("toolchain", &["auto"]);
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(1), ""));
    assert_eq!(
        ended.said,
        [
            "hanok: installing with apt: gcc libc6-dev (linker for programs of the host)".to_owned(),
            "hanok: apt-get update failed:".to_owned(),
            format!("apt-get {apt} update"),
            format!("hanok: apt-get {install} failed:"),
            format!("apt-get {apt} {install}"),
            format!("hanok: {NO_COMPILER}apt-get install gcc libc6-dev"),
        ]
    );
}

fn no_rust(command: &str) -> String {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let target = "aarch64-unknown-none-softfloat";
    format!(
        "no Rust {oldest} with the target {target}. Install rustup, then: rustup target add {target}. Or: {command}"
    )
}

const DEBIAN_RUST: &str = "su -c 'apt-get install rustc-web cargo-web rust-web-src rust-web-llvm lld-22 rust-web-clippy rustfmt-web'";

#[test]
fn without_rust_both_ways_to_it_are_told() {
    let machine = Machine::bare("no-rust").with("cc", "exit 0").with_apt("1.96");
    machine.fails("toolchain", &["rustup"], &[&no_rust(DEBIAN_RUST)]);
    machine.fails("toolchain", &["cargo"], &["TOOLCHAIN=cargo: it is rustup or debian"]);
}

#[test]
fn a_rust_that_is_too_old_is_told() {
    let machine = Machine::bare("old-rust")
        .with("cc", "exit 0")
        .with("rustup", "exit 1")
        .with("rustc", "echo 'rustc 1.80.1 (3f5fd8dd4 2024-08-06)'")
        .with_apt("1.96");
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let old = format!("rustup's toolchain is 1.80, {oldest} is needed: rustup update stable");
    machine.fails("toolchain", &["rustup"], &[&old, &no_rust(DEBIAN_RUST)]);
}

#[test]
fn a_rustup_that_cannot_bring_the_target_is_told() {
    let machine = Machine::bare("closed-network")
        .with("cc", "exit 0")
        .with("rustup", "[ \"$*\" = 'target list --installed' ]")
        .with("rustc", "echo 'rustc 1.99.0 (000000000 2026-01-01)'")
        .with_apt("1.96");
    machine.fails("toolchain", &["rustup"], &[
        "installing with rustup: the target aarch64-unknown-none-softfloat (what EL2 and the guests are built for)",
        "rustup can't bring the target here",
        &no_rust(DEBIAN_RUST),
    ]);
}

fn qemu(version: &str) -> String {
    format!("echo 'QEMU emulator version {version}'")
}

#[test]
fn a_qemu_that_is_too_old_is_told() {
    let old = |test| {
        Machine::bare(test).with("qemu-system-aarch64", &qemu("7.2.17 (Debian 1:7.2+dfsg-7+deb12u15)"))
    };
    let needed = "QEMU 10 or newer is needed, and qemu-system-aarch64 is version 7: ";
    let packages =
        "your package manager: Debian calls it qemu-system-arm, Fedora qemu-system-aarch64, Homebrew qemu";
    old("old-qemu").fails("emulator", &[], &[&format!("{needed}{packages}")]);
    let newer = old("newer-qemu").with_apt("1:10.0.2+ds-2");
    newer.fails("emulator", &[], &[&format!("{needed}su -c 'apt-get install qemu-system-arm'")]);
    // Where it can be had for an old release depends on which one this is.
    let ended = old("old-release").with_apt("1:7.2+dfsg-7+deb12u15").run("emulator", &[]);
    assert_eq!(ended.status, Some(1));
    let [message] = &ended.said[..] else { panic!("{ended:?}") };
    let how = message.strip_prefix(&format!("hanok: {needed}")).unwrap();
    let backports =
        how.starts_with("su -c 'apt-get install -t ") && how.contains("-backports qemu-system-arm' (with ");
    assert!(backports || how == "this release's own is older; QEMU=path names one from elsewhere", "{how}");
}

#[test]
fn a_qemu_by_another_name_is_looked_at() {
    let machine = Machine::bare("named-qemu").with("mine", &qemu("10.0.2")).with_variable("QEMU", "mine");
    let fine = Ended { status: Some(0), stdout: String::new(), said: Vec::new() };
    assert_eq!(machine.run("emulator", &[]), fine);
    let machine = Machine::bare("lost-qemu").with_apt("1:10.0.2").with_variable("QEMU", "/nowhere/qemu");
    machine.fails(
        "emulator",
        &[],
        &["QEMU 10 or newer is needed, and /nowhere/qemu is absent: su -c 'apt-get install qemu-system-arm'"],
    );
}

#[test]
fn without_apt_the_linux_guest_is_the_users() {
    let machine = Machine::bare("no-guest");
    let missing =
        "apt-get is missing: Debian's packages for the Linux, U-Boot and EDK2 guests can't be had here";
    machine.fails("payloads", &[], &[
        missing,
        "no Linux guest: give an arm64 kernel and an initramfs by KERNEL=path INITRD=path, or do without by LINUX=no",
    ]);
    Machine::bare("no-tools").fails(
        "payloads",
        &["tools"],
        &[
            "apt-get is missing: Debian's packages for tests of the Linux guest can't be had here",
            "no tools for tests in the Linux guest: LINUX=no does without",
        ],
    );
    let machine = Machine::bare("lost-kernel").with_variable("KERNEL", "/nowhere/Image");
    machine.fails("payloads", &[], &["/nowhere/Image: no such file"]);
}

#[test]
fn a_card_for_the_raspberry_pi_says_what_it_lacks() {
    let machine = Machine::bare("card-stub").with_variable("STUB", "tfa");
    machine.fails("sdcard-rpi4", &["/nowhere"], &["STUB=tfa: it is stock or tf-a"]);
    let machine = Machine::bare("card-size").with_variable("SDCARD_SIZE", "1G");
    machine.fails("sdcard-rpi4", &["/nowhere"], &["SDCARD_SIZE=1G: give whole MiB"]);
    let machine = Machine::bare("card-manifest").with_variable("MANIFEST", "/nowhere/mine.dts");
    machine.fails("sdcard-rpi4", &["/nowhere"], &["MANIFEST=/nowhere/mine.dts: no such file"]);

    let machine = Machine::bare("card-packages");
    machine.fails("sdcard-rpi4", &["/nowhere"], &[
        "apt-get is missing: Debian's packages for the Raspberry Pi 4's firmware can't be had here",
        "no firmware for the board: FIRMWARE=folder names one with start4.elf fixup4.dat bcm2711-rpi-4-b.dtb",
    ]);
    // What the other flavour doesn't need.
    let machine = Machine::bare("card-firmware").with_variable("STUB", "tf-a");
    let firmware = machine.folder.join("firmware");
    fs::create_dir(&firmware).unwrap();
    for file in ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"] {
        fs::write(firmware.join(file), "").unwrap();
    }
    let firmware = firmware.display().to_string();
    let said = format!(
        "FIRMWARE={firmware}: no bl31.bin there; needed are start4.elf fixup4.dat bcm2711-rpi-4-b.dtb bl31.bin"
    );
    machine.with_variable("FIRMWARE", &firmware).fails("sdcard-rpi4", &["/nowhere"], &[&said]);
}

#[test]
fn without_mtools_cards_are_not_tested() {
    let said = "mtools is missing, with which tests open card images: su -c 'apt-get install mtools'";
    Machine::bare("mtools").with_apt("4.0.32").fails("mtools", &[], &[said]);
    let fine = Ended { status: Some(0), stdout: String::new(), said: Vec::new() };
    assert_eq!(Machine::bare("has-mtools").with("mcopy", "exit 1").run("mtools", &[]), fine);
}
