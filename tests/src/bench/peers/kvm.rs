//! The guest under KVM: Debian's kernel at EL2, and in its initramfs nothing but a VMM (`bench/kvm-runner`) and the bundle that Hanok is
//! given.

use std::fs;
use std::path::Path;

use tools::cpio::{Archive, CpioError, EXECUTABLE, READABLE};

use super::Setup;
use crate::{Failure, Machine, Outcome, Scenario, Vm};

/// A board that starts Linux.
pub(super) fn machine(
    scenario: &Scenario,
    machine: Machine,
    setup: &Setup,
    arguments: &str,
) -> Outcome<Machine> {
    let inputs = scenario.inputs();
    let read = |path: &Path| fs::read(path).map_err(Failure::io(format!("read {}", path.display())));
    let bundle = scenario.bundle(&[Vm::bench(setup.vcpus, arguments)])?;
    let archive = initramfs(&read(&inputs.kvm_runner)?, &read(&bundle)?);
    let archive = archive.map_err(|error| Failure::Wrong(format!("the initramfs can't be made: {error}")))?;
    let initramfs = scenario.write(&format!("{}.cpio", setup.what), archive)?;
    Ok(machine
        .image(inputs.peers.join("Image"))
        // Without `nokaslr`, the kernel would lie elsewhere each time, and take other paths.
        .arguments("console=ttyAMA0 quiet nokaslr")
        .option("-initrd", initramfs.display().to_string()))
}

fn initramfs(runner: &[u8], bundle: &[u8]) -> Result<Vec<u8>, CpioError> {
    /// Numbers of KVM's device (Linux, Documentation/admin-guide/devices.txt).
    const KVM: (u32, u32) = (10, 232);
    let mut archive = Archive::new();
    archive.directory("dev")?;
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.character_device("dev/kvm", 0o600, KVM)?;
    archive.file("bundle.dtb", READABLE, bundle)?;
    archive.file("init", EXECUTABLE, runner)?;
    Ok(archive.finish())
}
