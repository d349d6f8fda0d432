//! Programs of a distribution's packages, with the shared libraries that they load, as an archive that Linux unpacks behind its initramfs.
//!
//! What a program needs, it says itself (`DT_NEEDED` and `PT_INTERP`, gABI chapter 5); what libraries load by name while they run isn't known
//! to anybody, and isn't there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use object::LittleEndian as Le;
use object::elf::{DT_NEEDED, FileHeader32, FileHeader64};
use object::read::FileKind;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::cpio::{Archive, CpioError, EXECUTABLE};

/// Where packages have programs.
const PROGRAMS: [&str; 4] = ["usr/bin", "bin", "usr/sbin", "sbin"];
/// Where they have libraries: the folder of the architecture first, as the dynamic linker looks for them.
const LIBRARIES: [&str; 4] = ["lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib", "usr/lib"];

/// Why programs can't be collected.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// No package has it.
    #[error("{0:?} is not in the packages unpacked in {1}")]
    Absent(String, PathBuf),
    /// A file can't be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// A link leads out of the packages, into the machine's own files.
    #[error("{0}: a link out of the packages, to {1}")]
    Outside(PathBuf, PathBuf),
    /// Not an ELF file, or a broken one.
    #[error("{0}: not a program or library: {1}")]
    Format(PathBuf, String),
}

/// Programs and libraries by their path in the archive.
#[derive(Debug, Default)]
pub struct Programs(pub BTreeMap<String, Vec<u8>>);

/// What an ELF file says of others that it needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// The program that loads it, an absolute path.
    interpreter: Option<String>,
    /// Names of libraries.
    libraries: Vec<String>,
}

impl Programs {
    /// Collects these programs, and all that they need, from packages that have been unpacked into `root`. Programs come into `usr/bin`, libraries
    /// into `lib`.
    ///
    /// # Errors
    /// When one of them isn't there, or isn't what it should be.
    pub fn collect<'a>(root: &Path, wanted: impl IntoIterator<Item = &'a str>) -> Result<Self, ProgramError> {
        let root = root.canonicalize().map_err(|why| ProgramError::Read(root.into(), why))?;
        let mut files = BTreeMap::new();
        let program = |name: &str| (format!("usr/bin/{name}"), name.to_owned(), PROGRAMS);
        let mut missing: Vec<_> = wanted.into_iter().map(program).collect();
        while let Some((path, name, folders)) = missing.pop() {
            if files.contains_key(&path) {
                continue;
            }
            let file = find(&root, &name, folders)?;
            let content = std::fs::read(&file).map_err(|why| ProgramError::Read(file.clone(), why))?;
            let needs = Needs::read(&content).map_err(|why| ProgramError::Format(file, why))?;
            missing.extend(needs.interpreter.into_iter().map(|path| {
                let path = path.trim_start_matches('/').to_owned();
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                (path, name, LIBRARIES)
            }));
            missing.extend(needs.libraries.into_iter().map(|name| (format!("lib/{name}"), name, LIBRARIES)));
            files.insert(path, content);
        }
        Ok(Self(files))
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// When a file is too large for the format.
    pub fn archive(&self) -> Result<Vec<u8>, CpioError> {
        let mut archive = Archive::new();
        for (path, content) in &self.0 {
            archive.directories_of(path)?;
            archive.file(path, EXECUTABLE, content)?;
        }
        Ok(archive.finish())
    }
}

/// The file of this name in the first of these folders that has it.
fn find(root: &Path, name: &str, folders: [&str; 4]) -> Result<PathBuf, ProgramError> {
    let place = folders.iter().map(|folder| root.join(folder).join(name)).find(|file| file.exists());
    let place = place.ok_or_else(|| ProgramError::Absent(name.to_owned(), root.to_owned()))?;
    let file = place.canonicalize().map_err(|why| ProgramError::Read(place.clone(), why))?;
    if file.starts_with(root) { Ok(file) } else { Err(ProgramError::Outside(place, file)) }
}

impl Needs {
    fn read(file: &[u8]) -> Result<Self, String> {
        match FileKind::parse(file) {
            Ok(FileKind::Elf64) => Self::of::<FileHeader64<Le>>(file),
            Ok(FileKind::Elf32) => Self::of::<FileHeader32<Le>>(file),
            _ => return Err("no ELF file".to_owned()),
        }
        .map_err(|why| why.to_string())
    }

    fn of<Elf: FileHeader<Endian = Le>>(file: &[u8]) -> object::read::Result<Self> {
        let header = Elf::parse(file)?;
        header.endian()?;
        let mut needs = Self::default();
        for segment in header.program_headers(Le, file)? {
            let path = segment.interpreter(Le, file)?;
            needs.interpreter = needs.interpreter.or(path.map(text));
        }
        let dynamic = header.sections(Le, file)?.dynamic_table(Le, file)?;
        for entry in dynamic.iter().filter(|entry| entry.tag == DT_NEEDED) {
            needs.libraries.push(text(dynamic.string(entry)?));
        }
        Ok(needs)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
