//! Writer of cpio archives in the "newc" format, which Linux unpacks as its initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Everything belongs to root and carries no time, so that the same input gives the same bytes. Device nodes are
//! just entries: no privilege is needed to make them here.

use std::collections::BTreeSet;

/// Permission bits of a file that everybody may read and nobody but root may write.
pub const READABLE: u32 = 0o644;
/// Permission bits of a program or directory.
pub const EXECUTABLE: u32 = 0o755;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Why an entry can't be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CpioError {
    /// The format has 32 bits for a file's size.
    #[error("{0}: {1} bytes are too many for the newc format (4 GiB - 1)")]
    TooLarge(String, usize),
    /// Linux ignores names that are empty, absolute, or longer than PATH_MAX (4096 with the final zero).
    #[error("{0:?} is no name for an archive entry: 1 to 4095 bytes, relative, without zero bytes")]
    Name(String),
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    /// Directories that it has.
    directories: BTreeSet<String>,
}

impl Archive {
    /// An archive without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory, unless it is there; parents must have been added before their contents.
    pub fn directory(&mut self, name: &str) -> Result<(), CpioError> {
        if self.directories.contains(name) {
            return Ok(());
        }
        self.entry(name, DIRECTORY | EXECUTABLE, (0, 0), &[])?;
        self.directories.insert(name.to_owned());
        Ok(())
    }

    /// Adds the directories that a file of this name lies in.
    pub fn directories_of(&mut self, name: &str) -> Result<(), CpioError> {
        name.match_indices('/').try_for_each(|(at, _)| self.directory(&name[..at]))
    }

    /// Adds a regular file with these permission bits.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> Result<(), CpioError> {
        self.entry(name, REGULAR | permissions, (0, 0), content)
    }

    /// Adds a symbolic link that points to `target`.
    pub fn symlink(&mut self, name: &str, target: &str) -> Result<(), CpioError> {
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device with the numbers (major, minor).
    pub fn character_device(
        &mut self,
        name: &str,
        permissions: u32,
        numbers: (u32, u32),
    ) -> Result<(), CpioError> {
        self.entry(name, CHARACTER_DEVICE | permissions, numbers, &[])
    }

    /// Ends the archive and returns its bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.put("TRAILER!!!", 0, (0, 0), &[], 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<(), CpioError> {
        if name.is_empty() || name.len() > 4095 || name.starts_with('/') || name.contains('\0') {
            return Err(CpioError::Name(name.into()));
        }
        let size = u32::try_from(content.len());
        let size = size.map_err(|_| CpioError::TooLarge(name.into(), content.len()))?;
        self.inode += 1;
        self.put(name, mode, device, content, size);
        Ok(())
    }

    fn put(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8], size: u32) {
        // A link count of 1 keeps Linux from looking for hard links.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    /// Names (with their header) and contents end at a multiple of four bytes.
    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device, content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads an archive as Linux does, written from the format's description.
    fn read(mut archive: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&archive[..6], b"070701");
            let field = |i: usize| {
                u32::from_str_radix(str::from_utf8(&archive[6 + 8 * i..][..8]).unwrap(), 16).unwrap()
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            assert_eq!(archive[110 + name_size - 1], 0);
            let name = str::from_utf8(&archive[110..110 + name_size - 1]).unwrap().to_owned();
            let content = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(archive.len(), content);
                return entries;
            }
            entries.push((name, field(1), (field(9), field(10)), archive[content..content + size].to_vec()));
            archive = &archive[(content + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn entries_read_back() {
        let mut archive = Archive::new();
        archive.directory("dev").unwrap();
        archive.character_device("dev/console", 0o600, (5, 1)).unwrap();
        archive.symlink("init", "bin/busybox").unwrap();
        for length in 0..9 {
            archive.file(&format!("f{length}"), READABLE, &vec![b'x'; length]).unwrap();
        }
        let entries = read(&archive.finish());
        assert_eq!(entries[0], ("dev".into(), 0o040_755, (0, 0), vec![]));
        assert_eq!(entries[1], ("dev/console".into(), 0o020_600, (5, 1), vec![]));
        assert_eq!(entries[2], ("init".into(), 0o120_777, (0, 0), b"bin/busybox".to_vec()));
        for (length, entry) in entries[3..].iter().enumerate() {
            assert_eq!(entry, &(format!("f{length}"), 0o100_644, (0, 0), vec![b'x'; length]));
        }
        assert_eq!(entries.len(), 12);
    }

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::new();
        archive.directory("lib").unwrap();
        for name in ["lib/a/b/c", "lib/a/d", "e"] {
            archive.directories_of(name).unwrap();
            archive.file(name, READABLE, b"").unwrap();
        }
        let names: Vec<String> = read(&archive.finish()).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["lib", "lib/a", "lib/a/b", "lib/a/b/c", "lib/a/d", "e"]);
        assert_eq!(Archive::new().directories_of("/lib/a"), Err(CpioError::Name(String::new())));
    }

    #[test]
    fn names_that_linux_would_not_take_are_refused() {
        let mut archive = Archive::new();
        for name in ["", "/init", "a\0b"] {
            assert_eq!(archive.directory(name), Err(CpioError::Name(name.into())));
        }
        let long = "x".repeat(4096);
        assert_eq!(archive.directory(&long), Err(CpioError::Name(long.clone())));
        assert_eq!(archive.directory(&long[..4095]), Ok(()));
    }
}
