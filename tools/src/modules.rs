//! Picks kernel modules with all that they depend on, and writes the files that `modprobe` reads: what `depmod`
//! would do, for a handful of modules and without root.
//!
//! A module's own `.modinfo` section says what it needs. Symbol versions aren't checked: all come from one package.

use object::LittleEndian as Le;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Why the modules can't be collected.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A file or directory can't be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// Neither a module of the kernel nor built into it.
    #[error("the kernel has no module {0:?}, neither as a file below {1} nor built in")]
    Unknown(String, PathBuf),
    /// Not an ELF file with `.modinfo`, or a compression that isn't known here.
    #[error("{0}: not a kernel module: {1}")]
    Format(PathBuf, String),
}

/// A module, ready for the archive.
#[derive(Debug)]
pub struct Module {
    /// Path below the kernel's module directory, uncompressed: `kernel/drivers/block/virtio_blk.ko`.
    pub path: String,
    /// The ELF file, uncompressed.
    pub content: Vec<u8>,
    /// Names of the modules that it needs directly.
    pub needs: Vec<String>,
    /// Patterns of devices that it drives, as in `modules.alias`.
    pub aliases: Vec<String>,
}

/// Modules by name, each one's needs included.
#[derive(Debug, Default)]
pub struct Modules(pub BTreeMap<String, Module>);

/// The kernel treats `-` and `_` in a module's name alike; file names have either.
fn canonical(name: &str) -> String {
    name.trim().replace('-', "_")
}

impl Modules {
    /// Collects the modules `wanted`, and what they need, from a kernel's module directory
    /// (`lib/modules/VERSION`). Those that are built into the kernel need no file.
    pub fn collect<'a>(root: &Path, wanted: impl IntoIterator<Item = &'a str>) -> Result<Self, ModuleError> {
        let mut files = BTreeMap::new();
        find(&root.join("kernel"), &mut files)?;
        let built_in = built_in(root)?;
        let mut modules = BTreeMap::new();
        let mut missing: Vec<String> = wanted.into_iter().map(canonical).collect();
        while let Some(name) = missing.pop() {
            if modules.contains_key(&name) || built_in.contains(&name) {
                continue;
            }
            let path = files.get(&name).ok_or_else(|| ModuleError::Unknown(name.clone(), root.into()))?;
            let module = Module::read(root, path)?;
            missing.extend(module.needs.iter().cloned());
            modules.insert(name, module);
        }
        Ok(Self(modules))
    }

    /// `modules.dep`: each module's path and the paths of all that it needs, the ones to load last first.
    pub fn dep(&self) -> String {
        self.0.values().map(|module| format!("{}:{}\n", module.path, self.needs_of(module))).collect()
    }

    fn needs_of(&self, module: &Module) -> String {
        let mut order = Vec::new();
        for need in &module.needs {
            self.visit(need, &mut order);
        }
        order.iter().rev().map(|path| format!(" {path}")).collect()
    }

    /// Depth first: what `name` needs comes into `order` before itself. (Needs have no cycles: such modules
    /// couldn't be loaded.)
    fn visit<'a>(&'a self, name: &str, order: &mut Vec<&'a str>) {
        let Some(module) = self.0.get(name) else { return };
        if order.contains(&module.path.as_str()) {
            return;
        }
        for need in &module.needs {
            self.visit(need, order);
        }
        order.push(&module.path);
    }

    /// `modules.alias`: which module drives a device.
    pub fn alias(&self) -> String {
        let mut lines = String::new();
        for (name, module) in &self.0 {
            lines.extend(module.aliases.iter().map(|alias| format!("alias {alias} {name}\n")));
        }
        lines
    }
}

impl Module {
    fn read(root: &Path, file: &Path) -> Result<Self, ModuleError> {
        let content = uncompressed(file)?;
        let info = modinfo(&content).map_err(|why| ModuleError::Format(file.into(), why))?;
        let values = |key: &str| -> Vec<String> {
            info.iter().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect()
        };
        let needs =
            values("depends=").iter().flat_map(|list| list.split(',')).map(canonical).collect::<Vec<_>>();
        let path = file.strip_prefix(root).unwrap_or(file).to_string_lossy();
        Ok(Self {
            path: path.strip_suffix(".xz").unwrap_or(&path).to_owned(),
            needs: needs.into_iter().filter(|need| !need.is_empty()).collect(),
            aliases: values("alias="),
            content,
        })
    }
}

/// The strings of the `.modinfo` section, `key=value` each.
fn modinfo(elf: &[u8]) -> Result<Vec<String>, String> {
    let header = FileHeader64::<Le>::parse(elf).map_err(|why| why.to_string())?;
    let sections = header.sections(Le, elf).map_err(|why| why.to_string())?;
    let (_, section) = sections.section_by_name(Le, b".modinfo").ok_or("no section .modinfo")?;
    let bytes = section.data(Le, elf).map_err(|why| why.to_string())?;
    let strings = bytes.split(|&byte| byte == 0).filter(|string| !string.is_empty());
    Ok(strings.map(|string| String::from_utf8_lossy(string).into_owned()).collect())
}

/// A module's bytes; Debian's kernels have `.ko` up to 6.1 and `.ko.xz` later.
fn uncompressed(file: &Path) -> Result<Vec<u8>, ModuleError> {
    let bytes = std::fs::read(file).map_err(|why| ModuleError::Read(file.into(), why))?;
    match file.extension().and_then(|e| e.to_str()) {
        Some("ko") => Ok(bytes),
        Some("xz") => {
            let mut content = Vec::new();
            std::io::copy(&mut lzma_rust2::XzReader::new(bytes.as_slice(), true), &mut content)
                .map_err(|why| ModuleError::Format(file.into(), why.to_string()))?;
            Ok(content)
        }
        _ => Err(ModuleError::Format(file.into(), "neither .ko nor .ko.xz".into())),
    }
}

/// Names of the modules that are part of the kernel itself, by `modules.builtin`.
fn built_in(root: &Path) -> Result<BTreeSet<String>, ModuleError> {
    let list = root.join("modules.builtin");
    let text = std::fs::read_to_string(&list).map_err(|why| ModuleError::Read(list, why))?;
    Ok(text.lines().filter_map(|line| module_name(Path::new(line))).collect())
}

/// The module's name, where the path is one of a module (`.ko`, or `.ko` and a compression).
fn module_name(path: &Path) -> Option<String> {
    let (name, compression) = path.file_name()?.to_str()?.split_once(".ko")?;
    (compression.is_empty() || compression.starts_with('.')).then(|| canonical(name))
}

fn find(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<(), ModuleError> {
    let unreadable = |why| ModuleError::Read(directory.into(), why);
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let path = entry.path();
        if entry.file_type().map_err(unreadable)?.is_dir() {
            find(&path, files)?;
        } else if let Some(name) = module_name(&path) {
            files.insert(name, path);
        }
    }
    Ok(())
}
