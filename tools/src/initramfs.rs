//! The Linux guest's initramfs: busybox, its start-up files, and modules for `modprobe`.
//!
//! What stands in the start-up files is the recipe's, in `guests/linux`; this only puts things in their places.

use crate::cpio::{Archive, CpioError, EXECUTABLE, READABLE};
use crate::modules::Modules;

/// Directories of the file system; busybox installs its applets in the first four at start.
const DIRECTORIES: [&str; 17] = [
    "bin",
    "sbin",
    "usr",
    "usr/bin",
    "usr/sbin",
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "mnt",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "var",
    "var/log",
];

/// What goes into the archive.
#[derive(Debug)]
pub struct Contents<'a> {
    /// A static busybox for arm64.
    pub busybox: &'a [u8],
    /// Files for `/etc`: name, content, and whether it is a program.
    pub etc: Vec<(String, Vec<u8>, bool)>,
    /// The kernel's version, as `uname -r` says it.
    pub release: &'a str,
    /// Modules with all that they need.
    pub modules: &'a Modules,
    /// The kernel's list of what is built in (`modules.builtin`).
    pub built_in: &'a [u8],
}

/// The archive's bytes.
pub fn build(contents: &Contents) -> Result<Vec<u8>, CpioError> {
    let mut archive = Archive::new();
    for directory in DIRECTORIES {
        archive.directory(directory)?;
    }
    // Linux opens the console before anything could mount devtmpfs.
    archive.character_device("dev/console", 0o600, (5, 1))?;
    archive.character_device("dev/null", 0o666, (1, 3))?;
    archive.file("bin/busybox", EXECUTABLE, contents.busybox)?;
    archive.symlink("bin/sh", "busybox")?;
    archive.symlink("init", "bin/busybox")?;
    for (name, content, program) in &contents.etc {
        let permissions = if *program { EXECUTABLE } else { READABLE };
        archive.file(&format!("etc/{name}"), permissions, content)?;
    }
    add_modules(&mut archive, contents)?;
    Ok(archive.finish())
}

fn add_modules(archive: &mut Archive, contents: &Contents) -> Result<(), CpioError> {
    let root = format!("lib/modules/{}", contents.release);
    archive.directory(&root)?;
    for module in contents.modules.0.values() {
        let path = format!("{root}/{}", module.path);
        archive.directories_of(&path)?;
        archive.file(&path, READABLE, &module.content)?;
    }
    archive.file(&format!("{root}/modules.dep"), READABLE, contents.modules.dep().as_bytes())?;
    archive.file(&format!("{root}/modules.alias"), READABLE, contents.modules.alias().as_bytes())?;
    archive.file(&format!("{root}/modules.builtin"), READABLE, contents.built_in)
}
