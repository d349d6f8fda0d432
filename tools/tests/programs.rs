//! Programs and the libraries that they load, collected from made-up packages.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tools::programs::{ProgramError, Programs};

/// A 64-bit ELF that needs this interpreter, if any, and these libraries, and has nothing else.
fn elf(interpreter: &str, libraries: &[&str]) -> Vec<u8> {
    let mut strings = b"\0".to_vec();
    let mut string = |text: &str| {
        let at = strings.len() as u64;
        strings.extend([text.as_bytes(), b"\0"].concat());
        at
    };
    let interpreter_at = string(interpreter);
    // DT_NEEDED is 1, DT_NULL 0; what is behind it doesn't count.
    let mut entries: Vec<u64> = libraries.iter().flat_map(|name| [1, string(name)]).collect();
    entries.extend([0, 0, 1, interpreter_at]);
    strings.resize(strings.len().next_multiple_of(8), 0);

    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\xb7\0\x01\0\0\0".to_vec();
    let (strings_at, segments) = (64 + 56, u16::from(!interpreter.is_empty()));
    let entries_at = strings_at + strings.len() as u64;
    let entries_len = 8 * entries.len() as u64;
    let numbers =
        |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    numbers(&mut file, &[0, 64, entries_at + entries_len]);
    for half in [0u16, 0, 64, 56, segments, 64, 3, 2] {
        file.extend(half.to_le_bytes());
    }
    // PT_INTERP is 3.
    let interpreter_len = interpreter.len() as u64 + 1;
    numbers(&mut file, &[3, strings_at + interpreter_at, 0, 0, interpreter_len, interpreter_len, 1]);
    file.extend(&strings);
    numbers(&mut file, &entries);
    numbers(&mut file, &[0; 8]);
    // SHT_DYNAMIC is 6, SHT_STRTAB 3: the dynamic section's strings are in section 2.
    for (kind, offset, size, link) in
        [(6u32, entries_at, entries_len, 2u32), (3, strings_at, strings.len() as u64, 0)]
    {
        file.extend([0; 4]);
        file.extend(kind.to_le_bytes());
        numbers(&mut file, &[0, 0, offset, size]);
        file.extend([link.to_le_bytes(), [0; 4]].concat());
        numbers(&mut file, &[0, 0]);
    }
    file
}

/// Unpacked packages, removed at their end.
struct Packages(PathBuf);

impl Packages {
    fn new(test: &str) -> Self {
        let root = std::env::temp_dir().join(format!("hanok-programs-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        Self(root)
            .with("usr/bin/gauge", &elf("/lib/ld.so.1", &["libone.so.1", "libtwo.so.2"]))
            .with("bin/plain", &elf("", &[]))
            .with("lib/aarch64-linux-gnu/ld.so.1", &elf("", &[]))
            .with("usr/lib/aarch64-linux-gnu/libone.so.1", &elf("", &["libtwo.so.2", "ld.so.1"]))
            .with("usr/lib/libtwo.so.2.0", &elf("", &["libone.so.1"]))
            .link("usr/lib/libtwo.so.2", "libtwo.so.2.0")
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.0.join(path);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    fn with(self, path: &str, content: &[u8]) -> Self {
        fs::write(self.place(path), content).unwrap();
        self
    }

    fn link(self, path: &str, to: &str) -> Self {
        symlink(to, self.place(path)).unwrap();
        self
    }

    fn collect(&self, wanted: &[&str]) -> Result<Programs, ProgramError> {
        Programs::collect(&self.0, wanted.iter().copied())
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn libraries_come_along_with_their_own_needs() {
    let packages = Packages::new("needs");
    let programs = packages.collect(&["gauge", "plain"]).unwrap();
    let paths: Vec<&str> = programs.0.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        ["lib/ld.so.1", "lib/libone.so.1", "lib/libtwo.so.2", "usr/bin/gauge", "usr/bin/plain"]
    );
    assert_eq!(programs.0["lib/libtwo.so.2"], elf("", &["libone.so.1"]));
    assert!(programs.archive().unwrap().starts_with(b"070701"));
    let alone = packages.collect(&["plain"]).unwrap();
    assert_eq!(alone.0.into_keys().collect::<Vec<_>>(), ["usr/bin/plain"]);
}

#[test]
fn what_is_nowhere_is_named() {
    let packages = Packages::new("absent").with("bin/lost", &elf("", &["libthree.so"]));
    for (program, absent) in [("nothing", "nothing"), ("lost", "libthree.so")] {
        let error = packages.collect(&[program]).unwrap_err();
        assert!(matches!(&error, ProgramError::Absent(name, _) if name == absent), "{error}");
    }
    let error = Programs::collect(Path::new("/nowhere/at/all"), ["plain"]).unwrap_err();
    assert!(matches!(&error, ProgramError::Read(..)), "{error}");
}

#[test]
fn a_file_that_is_no_program_is_named() {
    let packages =
        Packages::new("format").with("bin/script", b"#!/bin/sh\n").with("bin/half", &elf("", &[])[..200]);
    for program in ["script", "half"] {
        let error = packages.collect(&[program]).unwrap_err();
        assert!(matches!(&error, ProgramError::Format(path, _) if path.ends_with(program)), "{error}");
    }
}

/// An absolute link would bring a file of the machine that builds.
#[test]
fn a_link_out_of_the_packages_is_refused() {
    let packages = Packages::new("outside").link("bin/shell", "/bin/sh");
    let error = packages.collect(&["shell"]).unwrap_err();
    assert!(matches!(&error, ProgramError::Outside(..)), "{error}");
}
