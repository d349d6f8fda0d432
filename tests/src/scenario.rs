//! One scenario while it runs: its files, what it boots, and what is told when it fails.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{env, fs};

use crate::console::Console;
use crate::manifest::{self, Vm};
use crate::{Board, Failure, Machine, Outcome, Socket};

/// How much of the console a failure shows.
const SHOWN_LINES: usize = 60;

/// What the scenarios need and the build makes. The Makefile says by variables where it is.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The boot image.
    pub image: PathBuf,
    /// The ELF file that it was made of, which has the symbols.
    pub elf: PathBuf,
    /// The image that checks stage 2 against the hardware.
    pub stage2_check: PathBuf,
    /// The guests' files: `hello.elf`, `linux/Image` and so on.
    pub guests: PathBuf,
    /// Bundles of the manifests in `guests/`.
    pub bundles: PathBuf,
    /// Cards for a Raspberry Pi 4, a folder for each stub: `stock/sdcard.img` and what is on it, `stock/boot`.
    pub cards: PathBuf,
    /// Hanok's peers, of Debian: `xen`, `Image` of Linux, and `versions` that says which they are.
    pub peers: PathBuf,
    /// The program that runs a bundle's VM under KVM, for arm64 Linux.
    pub kvm_runner: PathBuf,
    /// Debian's static busybox for arm64, which is in the Linux guest's initramfs.
    pub busybox: PathBuf,
    /// QEMU's program.
    pub qemu: String,
    /// What needs Debian's packages is to be left out: Linux, U-Boot, cards.
    pub without_linux: bool,
}

impl Inputs {
    /// From the environment; what it doesn't say is where `make` puts it.
    pub fn from_environment() -> Self {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let place = |variable: &str, default: &str| {
            env::var_os(variable).map_or_else(|| target.join(default), PathBuf::from)
        };
        let image = place("HANOK_IMAGE", "image/hanok.img");
        Self {
            elf: image.with_extension("elf"),
            image,
            stage2_check: place("HANOK_STAGE2_CHECK", "image/hanok-stage2-check.img"),
            guests: place("HANOK_GUESTS", "guests"),
            bundles: place("HANOK_BUNDLES", "bundles"),
            cards: place("HANOK_CARDS", "test-cards"),
            peers: place("HANOK_PEERS", "deps/peers"),
            kvm_runner: place("HANOK_KVM_RUNNER", "peers/kvm-runner"),
            busybox: place("HANOK_BUSYBOX", "deps/guest/busybox"),
            qemu: env::var("QEMU").unwrap_or_else(|_| "qemu-system-aarch64".to_owned()),
            without_linux: env::var_os("LINUX").is_some_and(|value| value == "no"),
        }
    }
}

/// A scenario that runs: its folder, and the last machine that it booted.
pub struct Scenario {
    inputs: Inputs,
    folder: PathBuf,
    last: RefCell<Option<(String, Arc<Console>)>>,
}

impl Scenario {
    /// With an empty folder of its own below `folder`.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn new(inputs: &Inputs, folder: &Path, name: &str) -> Outcome<Self> {
        let folder = folder.join(name.replace('/', "-"));
        // What an earlier failure has left.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(Failure::io(format!("make {}", folder.display())))?;
        Ok(Self { inputs: inputs.clone(), folder, last: RefCell::new(None) })
    }

    /// Where files are that the build makes.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// A file of this name in the scenario's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of this name in the scenario's folder.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> Outcome<PathBuf> {
        let path = self.file(name);
        fs::write(&path, contents).map_err(Failure::io(format!("write {}", path.display())))?;
        Ok(path)
    }

    /// Copies a file into the scenario's folder, under this name.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn copy(&self, file: &Path, name: &str) -> Outcome<PathBuf> {
        let contents = fs::read(file).map_err(Failure::io(format!("read {}", file.display())))?;
        self.write(name, contents)
    }

    /// Makes a bundle of these virtual machines.
    ///
    /// # Errors
    /// When `dtc` refuses.
    pub fn bundle(&self, vms: &[Vm]) -> Outcome<PathBuf> {
        self.bundle_with("", vms)
    }

    /// The same, with properties of the root in device-tree source.
    ///
    /// # Errors
    /// When `dtc` refuses.
    pub fn bundle_with(&self, root: &str, vms: &[Vm]) -> Outcome<PathBuf> {
        let source = self.write("bundle.dts", manifest::source(root, vms))?;
        let bundle = self.file("bundle.dtb");
        let arguments: [&OsStr; 9] = [
            "-q".as_ref(),
            "-I".as_ref(),
            "dts".as_ref(),
            "-O".as_ref(),
            "dtb".as_ref(),
            "-i".as_ref(),
            self.inputs.guests.as_ref(),
            "-o".as_ref(),
            bundle.as_ref(),
        ];
        run_tool(Command::new("dtc").args(arguments).arg(source))?;
        Ok(bundle)
    }

    /// The bundle that the build has made of `guests/<name>.dts`.
    ///
    /// # Errors
    /// When there is none.
    pub fn built_bundle(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.inputs.bundles.join(format!("{name}.dtb"));
        if path.exists() {
            return Ok(path);
        }
        Err(Failure::Wrong(format!("there is no {}: `make bundles` makes it", path.display())))
    }

    /// A socket for a serial port.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn socket(&self, name: &str) -> Outcome<Socket> {
        Socket::new(self.file(name))
    }

    /// Starts a machine.
    ///
    /// # Errors
    /// When QEMU can't be started.
    pub fn boot(&self, machine: &Machine) -> Outcome<Board> {
        let image = machine.image.as_ref().unwrap_or(&self.inputs.image);
        if !image.exists() {
            return Err(Failure::Wrong(format!("there is no {}: `make image` makes it", image.display())));
        }
        let arguments = machine.qemu_arguments(&image.display().to_string());
        let mut command = Command::new(&self.inputs.qemu);
        command.args(["-display", "none", "-monitor", "none", "-nic", "none"]);
        command.args(crate::board::sockets(machine));
        command.args(&arguments);
        let console = Arc::new(Console::default());
        let shown = format!(
            "{} -nographic -nic none {}",
            self.inputs.qemu,
            arguments.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
        );
        *self.last.borrow_mut() = Some((shown, console.clone()));
        Board::start(command, console)
    }

    /// The device tree that QEMU makes for this machine.
    ///
    /// # Errors
    /// When it makes none.
    pub fn board_tree(&self, machine: &Machine) -> Outcome<PathBuf> {
        let tree = self.file("board.dtb");
        let machine = machine.clone().without_kernel().option("-M", format!("dumpdtb={}", tree.display()));
        run_tool(
            Command::new(&self.inputs.qemu)
                .args(["-nographic", "-nic", "none"])
                .args(machine.qemu_arguments("")),
        )?;
        Ok(tree)
    }

    /// This machine, with a change of its device tree: what is added to a `fdtput` that is given the tree's path.
    ///
    /// # Errors
    /// When QEMU makes no tree, or it can't be changed so.
    pub fn with_tree(&self, machine: Machine, change: impl FnOnce(&mut Command, &Path)) -> Outcome<Machine> {
        let tree = self.board_tree(&machine)?;
        let mut fdtput = Command::new("fdtput");
        change(&mut fdtput, &tree);
        run_tool(&mut fdtput)?;
        Ok(machine.option("-dtb", tree.display().to_string()))
    }

    /// The command that started the last machine, for a shell; without the one where the console and a control socket are.
    pub fn command(&self) -> Option<String> {
        self.last.borrow().as_ref().map(|(command, _)| command.clone())
    }

    /// What is told of a failure: why, how to do it again, and the end of what the console said.
    pub fn report(&self, failure: &Failure) -> String {
        let last = self.last.borrow();
        let Some((command, console)) = last.as_ref() else { return failure.to_string() };
        let text = console.text() + &console.complaints();
        let kept = match self.write("console.txt", &text) {
            Ok(path) => format!("all of it is in {}", path.display()),
            Err(error) => error.to_string(),
        };
        let lines: Vec<&str> = text.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        format!(
            "{failure}\n-- to run it: {command}\n-- the end of what the console said ({kept}):\n{shown}\n-- {failure}"
        )
    }

    /// Removes its files.
    pub fn clean(self) {
        // They are of use after a failure only, and will be overwritten.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A word as a shell would take it.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs a program to its end and returns what it wrote.
///
/// # Errors
/// When it can't be run, or fails.
pub fn run_tool(command: &mut Command) -> Outcome<Vec<u8>> {
    let name = command.get_program().display().to_string();
    let output = command.output().map_err(Failure::io(format!("run {name}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Failure::Tool { command: format!("{command:?}"), status: output.status, stderr })
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quote("virt,gic-version=3"), "virt,gic-version=3");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
