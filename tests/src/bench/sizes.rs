//! How large the image is, and its sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Memory;
use crate::code::Code;
use crate::source::plain_name;
use crate::{Failure, Outcome};

/// Folders of crates that come into the image, and of the one with all `unsafe` of guests.
const CRATES: [&str; 9] = [
    "hyp/abi",
    "hyp/devicetree",
    "hyp/stage2",
    "hyp/vgic",
    "hyp/vmm",
    "hyp/config",
    "platform",
    "hyp/el2",
    "guests/runtime",
];

/// The crate of the EL2 binary, and what it is called in names of functions.
const EL2: &str = "hyp/el2";
const EL2_NAME: &str = "hanok";
/// Code of `core` and `alloc`, of other crates, and what is compiled for generic types of any.
const LIBRARIES: &str = "libraries";

/// The image, and the crates that it is made of.
pub struct Sizes {
    image: tools::image::Sizes,
    /// Bytes of its built-in bundle, which are part of its read-only data.
    bundle: u64,
    /// Of each crate, the lowest first; at the end, of libraries.
    pub crates: Vec<CrateSize>,
    /// Bytes of text of each module of the EL2 binary, the largest first.
    pub modules: Vec<(String, u64)>,
}

/// A crate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CrateSize {
    /// Its folder.
    pub name: String,
    /// Bytes of text that its functions take in the image.
    pub text: u64,
    /// Lines of Rust in `src` that are neither blank nor all comment, unit tests included.
    pub lines: usize,
    /// Its `unsafe` blocks and implementations.
    pub unsafe_blocks: usize,
}

impl Sizes {
    /// Of the image that this ELF file is, and of the project's sources.
    ///
    /// # Errors
    /// When something can't be read, or isn't an image.
    pub fn read(elf: &Path) -> Outcome<Self> {
        let bytes = fs::read(elf).map_err(Failure::io(format!("read {}", elf.display())))?;
        let image = tools::image::flatten(&bytes)
            .map_err(|error| Failure::Wrong(format!("{}: {error}", elf.display())))?;
        let bundle = elf.with_file_name("builtin.dtb");
        let bundle =
            fs::metadata(&bundle).map_err(Failure::io(format!("look at {}", bundle.display())))?.len();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let (mut texts, modules) = text(&Code::read(elf)?);
        let crates = CRATES.iter().map(|name| {
            let text = texts.remove(*name).unwrap_or(0);
            let mut size = CrateSize { name: (*name).to_owned(), text, ..CrateSize::default() };
            size.add_folder(&root.join(name).join("src"))?;
            Ok(size)
        });
        let mut crates = crates.collect::<Outcome<Vec<_>>>()?;
        let text = texts.remove(LIBRARIES).unwrap_or(0);
        crates.push(CrateSize { name: LIBRARIES.to_owned(), text, ..CrateSize::default() });
        Ok(Self { image: image.sizes, bundle, crates, modules })
    }

    /// What has a ceiling, in bytes: the image's parts, and what it takes when it runs.
    pub fn with(&self, memory: &Memory) -> BTreeMap<&'static str, u64> {
        let tools::image::Sizes { data, bss, .. } = self.image;
        let Memory { all, vm, vcpu, .. } = *memory;
        let memory = [("memory", all), ("memory-vm", vm), ("memory-vcpu", vcpu)];
        let memory = memory.map(|(name, bytes)| (name, bytes.max(0) as u64));
        [("code", self.code()), ("data", data), ("bss", bss)].into_iter().chain(memory).collect()
    }

    /// Bytes of text and read-only data, but for the bundle that is built in.
    pub fn code(&self) -> u64 {
        let tools::image::Sizes { text, rodata, .. } = self.image;
        (text + rodata).saturating_sub(self.bundle)
    }

    /// The image's parts, in bytes.
    pub fn image(&self) -> [(&'static str, u64); 5] {
        let tools::image::Sizes { text, rodata, data, bss, .. } = self.image;
        let rodata = rodata.saturating_sub(self.bundle);
        [("text", text), ("rodata", rodata), ("built-in bundle", self.bundle), ("data", data), ("bss", bss)]
    }
}

/// Bytes of text by crate, and by module of the EL2 binary, the largest first.
fn text(code: &Code) -> (BTreeMap<String, u64>, Vec<(String, u64)>) {
    let (mut crates, mut modules) = (BTreeMap::new(), BTreeMap::new());
    let end = code.instructions().map(|(address, _)| address + 4).last().unwrap_or(0);
    let starts = code.functions().iter().map(|(start, _)| *start);
    for ((start, name), next) in code.functions().iter().zip(starts.skip(1).chain([end])) {
        // Marks of the linker script may lie behind all code.
        let bytes = next.saturating_sub(*start);
        let (folder, module) = whose(&plain_name(name));
        *crates.entry(folder).or_default() += bytes;
        if let Some(module) = module {
            *modules.entry(module).or_default() += bytes;
        }
    }
    let mut modules: Vec<_> = modules.into_iter().collect();
    modules.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    (crates, modules)
}

/// The folder of the crate that a function is of, and its module if that is the EL2 binary's.
fn whose(name: &str) -> (String, Option<String>) {
    let path = name.trim_start_matches(['<', '&', '*']).trim_start_matches("mut ");
    let el2 = |module: &str| (EL2.to_owned(), Some(module.to_owned()));
    let Some((first, rest)) = path.split_once("::") else {
        // What is written in assembly, or called from there, has no path.
        return el2("handlers, assembly");
    };
    if first == EL2_NAME {
        return el2(rest.split([':', ' ', '>']).next().unwrap_or_default());
    }
    let folder = CRATES.iter().find(|folder| **folder != EL2 && folder.rsplit('/').next() == Some(first));
    ((*folder.unwrap_or(&LIBRARIES)).to_owned(), None)
}

impl CrateSize {
    fn add_folder(&mut self, folder: &Path) -> Outcome {
        let unreadable = || Failure::io(format!("read {}", folder.display()));
        for entry in fs::read_dir(folder).map_err(unreadable())? {
            let path = entry.map_err(unreadable())?.path();
            if path.is_dir() {
                self.add_folder(&path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                self.add(&fs::read_to_string(&path).map_err(unreadable())?);
            }
        }
        Ok(())
    }

    fn add(&mut self, source: &str) {
        let code = source.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
        for line in code {
            self.lines += 1;
            self.unsafe_blocks += line.matches("unsafe {").count() + line.matches("unsafe impl").count();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CrateSize, whose};

    #[test]
    fn comments_and_blank_lines_are_no_code() {
        let mut size = CrateSize::default();
        size.add("//! unsafe {\n\nfn f() {\n    // SAFETY: none.\n    unsafe { g() } // so\n}\n");
        assert_eq!((size.lines, size.unsafe_blocks), (3, 1));
    }

    #[test]
    fn functions_are_their_crates() {
        let whose = |name| {
            let (folder, module) = whose(name);
            format!("{folder} {}", module.unwrap_or_default())
        };
        assert_eq!(whose("hanok::run::schedule"), "hyp/el2 run");
        assert_eq!(whose("<&hanok::vm::Vm as core::fmt::Debug>::fmt"), "hyp/el2 vm");
        assert_eq!(whose("handle_hvc"), "hyp/el2 handlers, assembly");
        assert_eq!(whose("<vgic::Cpu as core::fmt::Debug>::fmt"), "hyp/vgic ");
        assert_eq!(whose("core::fmt::write"), "libraries ");
    }
}
