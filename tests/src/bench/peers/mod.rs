//! What Hanok's peers cost, by the very guest that measures Hanok, on the same machine: Xen and KVM as Debian has them, and nothing at
//! all, which is what the rows take on a board without EL2.
//!
//! It starts them as simply as each can be started, and configures nothing for speed. What only Hanok has they aren't asked for.

mod document;
mod kvm;
mod xen;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub use document::replace;

use super::{Row, System, read};
use crate::{Failure, Inputs, Machine, Outcome, Scenario, run_tool};

/// The longest that one may take from its start until all is measured.
const PATIENCE: Duration = Duration::from_secs(240);

/// A machine that the guest is run on for some of the rows.
struct Setup {
    /// CPUs of the board.
    cpus: u8,
    /// And of the virtual machine.
    vcpus: u8,
    /// What the guest is told to measure.
    what: &'static str,
}

const SETUPS: [Setup; 3] = [
    Setup { cpus: 1, vcpus: 1, what: "exits" },
    Setup { cpus: 1, vcpus: 2, what: "switch" },
    Setup { cpus: 2, vcpus: 2, what: "ipi" },
];

/// The systems beside Hanok, in the order of the table's columns.
pub const PEERS: [System; 3] = [System::Xen, System::Kvm, System::Native];

/// What was measured of one system, and how.
pub struct Measured {
    /// The rows.
    pub rows: Vec<Row>,
    /// The command of the first machine, with its files named from the checkout's root.
    pub command: String,
}

/// Measures a peer, with the GIC of this version.
///
/// # Errors
/// When the guest doesn't come to its end, or says nothing of use.
pub fn measure(scenario: &Scenario, system: System, gic: u8, rounds: u32) -> Outcome<Measured> {
    let mut measured = Measured { rows: Vec::new(), command: String::new() };
    for setup in &SETUPS {
        let machine = Machine::new(gic, setup.cpus).counted();
        let arguments = format!("bench={} rounds={rounds}", setup.what);
        let machine = match system {
            System::Hanok => return Err(Failure::Wrong("Hanok is no peer of its own".to_owned())),
            // Nobody makes more CPUs of one.
            System::Native if setup.vcpus > setup.cpus => continue,
            System::Native => native(scenario, machine, &arguments),
            System::Xen => xen::machine(scenario, machine, setup, &arguments)?,
            System::Kvm => kvm::machine(scenario, machine, setup, &arguments)?,
        };
        let mut board = scenario.boot(&machine)?;
        board.expect_within(r"(?m)^(?:\(XEN\) )?bench: done$", PATIENCE)?;
        measured.rows.extend(read(&board.text(), system, gic)?);
        if measured.command.is_empty() {
            measured.command = shortened(&scenario.command().unwrap_or_default());
        }
    }
    // QEMU itself answers calls of firmware where there is none: that takes no instructions, and says nothing of anybody.
    measured.rows.retain(|row| system != System::Native || !row.row.starts_with("hvc-"));
    Ok(measured)
}

/// The guest's ELF as the board's kernel.
fn native(scenario: &Scenario, machine: Machine, arguments: &str) -> Machine {
    machine.without_el2().image(scenario.inputs().guests.join("bench.elf")).arguments(arguments)
}

/// What the systems are, for people: each one's name and version.
///
/// # Errors
/// When the list of versions can't be read, or one of them isn't in it.
pub fn names(inputs: &Inputs) -> Outcome<[(System, String); 4]> {
    let path = inputs.peers.join("versions");
    let versions = fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
    let of = |package| {
        version(&versions, package)
            .ok_or_else(|| Failure::Wrong(format!("{} doesn't name {package}", path.display())))
    };
    Ok([
        (System::Hanok, "Hanok".to_owned()),
        (System::Xen, format!("Xen {}", of("xen-hypervisor-")?)),
        (System::Kvm, format!("KVM, Linux {}", of("linux-image-")?)),
        (System::Native, "native".to_owned()),
    ])
}

/// The release of the package whose name begins so: the first two numbers of its version.
fn version(versions: &str, package: &str) -> Option<String> {
    let version = versions.lines().find(|line| line.starts_with(package))?.split(' ').nth(1)?;
    let mut numbers = version.split(['.', '+', '-', '~']);
    Some(format!("{}.{}", numbers.next()?, numbers.next()?))
}

/// What was compared and how, in Markdown: versions of all, and the commands, in which files are named from the checkout's root.
///
/// # Errors
/// When a version can't be found out.
pub fn circumstances(inputs: &Inputs, commands: &[String]) -> Outcome<String> {
    let path = inputs.peers.join("versions");
    let versions = fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
    let mut lines = versions.lines();
    let suite = lines.next().unwrap_or_default().trim_start_matches("suite ");
    let packages: Vec<String> = lines.map(|line| format!("`{line}`")).collect();
    let qemu = run_tool(Command::new(&inputs.qemu).arg("--version"))?;
    let qemu = String::from_utf8_lossy(&qemu);
    let qemu = qemu.lines().next().unwrap_or_default();
    Ok(format!(
        "Debian {suite} for arm64: {}. {qemu}. For the rows of one CPU and GICv3, in the table's order:\n\n```\n{}\n```\n",
        packages.join(", "),
        commands.join("\n\n")
    ))
}

/// A command with its files named from the checkout's root.
pub(super) fn shortened(command: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.map_or(command.to_owned(), |root| command.replace(&format!("{}/", root.display()), ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_the_first_two_numbers() {
        let versions = "suite s\nlinux-image-6.12.9+deb-cloud-arm64 6.12.9-1\nxen-hypervisor-4.20-arm64 4.20.4+63-g7-0\n";
        assert_eq!(version(versions, "linux-image-").as_deref(), Some("6.12"));
        assert_eq!(version(versions, "xen-hypervisor-").as_deref(), Some("4.20"));
        assert_eq!(version(versions, "busybox"), None);
    }

    #[test]
    fn commands_name_files_from_the_root() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it has one");
        let command = format!("qemu -kernel {}/target/x -dtb target/s/xen.dtb", root.display());
        assert_eq!(shortened(&command), "qemu -kernel target/x -dtb target/s/xen.dtb");
    }
}
