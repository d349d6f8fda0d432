//! How large the image is, and its sources.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Memory;
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

/// The image, and the crates that it is made of.
pub struct Sizes {
    image: tools::image::Sizes,
    /// Bytes of its built-in bundle, which are part of its read-only data.
    bundle: u64,
    /// Of each crate, the lowest first.
    pub crates: Vec<CrateSize>,
}

/// A crate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CrateSize {
    /// Its folder.
    pub name: String,
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
        let crates = CRATES.iter().map(|name| {
            let mut size = CrateSize { name: (*name).to_owned(), ..CrateSize::default() };
            size.add_folder(&root.join(name).join("src"))?;
            Ok(size)
        });
        Ok(Self { image: image.sizes, bundle, crates: crates.collect::<Outcome<_>>()? })
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
    use super::CrateSize;

    #[test]
    fn comments_and_blank_lines_are_no_code() {
        let mut size = CrateSize::default();
        size.add("//! unsafe {\n\nfn f() {\n    // SAFETY: none.\n    unsafe { g() } // so\n}\n");
        assert_eq!((size.lines, size.unsafe_blocks), (3, 1));
    }
}
