//! Module collection against a made-up kernel: needs, what is built in, compression, and the files for `modprobe`.

use std::fs;
use std::path::{Path, PathBuf};
use tools::modules::{ModuleError, Modules};

/// A relocatable ELF with a `.modinfo` section and nothing else.
fn module(info: &[&str]) -> Vec<u8> {
    let mut strings: Vec<u8> = info.iter().flat_map(|line| [line.as_bytes(), b"\0"].concat()).collect();
    let info_len = strings.len() as u64;
    strings.extend(b"\0.modinfo\0.shstrtab\0");
    strings.resize(strings.len().next_multiple_of(8), 0);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\xb7\0\x01\0\0\0".to_vec();
    let numbers =
        |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    numbers(&mut file, &[0, 0, 64 + strings.len() as u64]);
    for half in [0u16, 0, 64, 0, 0, 64, 3, 2] {
        file.extend(half.to_le_bytes());
    }
    file.extend(&strings);
    numbers(&mut file, &[0; 8]);
    for (name, kind, offset, size) in [(1u32, 1u32, 64, info_len), (10, 3, 64 + info_len, 20)] {
        file.extend(name.to_le_bytes());
        file.extend(kind.to_le_bytes());
        numbers(&mut file, &[0, 0, offset, size, 0, 1, 0]);
    }
    file
}

/// A module directory of its own for each test, removed at its end.
struct Kernel(PathBuf);

impl Kernel {
    fn new(test: &str, modules: &[(&str, &[&str])], built_in: &str) -> Self {
        let root = std::env::temp_dir().join(format!("hanok-modules-{test}-{}", std::process::id()));
        for (path, info) in modules {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, module(info)).unwrap();
        }
        fs::write(root.join("modules.builtin"), built_in).unwrap();
        Self(root)
    }

    fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const NET: [(&str, &[&str]); 4] = [
    ("kernel/net/net_card.ko", &["alias=virtio:d1v*", "depends=card-bus,failover", "name=net_card"]),
    ("kernel/bus/card-bus.ko", &["depends=ring"]),
    ("kernel/bus/ring.ko", &["depends="]),
    ("kernel/net/failover.ko", &["depends=ring,ipv6"]),
];

#[test]
fn needs_come_along_in_an_order_that_loads() {
    let kernel = Kernel::new("needs", &NET, "kernel/net/ipv6.ko\n");
    let modules = Modules::collect(kernel.root(), ["net-card"]).unwrap();
    let names: Vec<&str> = modules.0.keys().map(String::as_str).collect();
    assert_eq!(names, ["card_bus", "failover", "net_card", "ring"]);
    assert_eq!(
        modules.dep(),
        "kernel/bus/card-bus.ko: kernel/bus/ring.ko\n\
         kernel/net/failover.ko: kernel/bus/ring.ko\n\
         kernel/net/net_card.ko: kernel/net/failover.ko kernel/bus/card-bus.ko kernel/bus/ring.ko\n\
         kernel/bus/ring.ko:\n"
    );
    assert_eq!(modules.alias(), "alias virtio:d1v* net_card\n");
}

#[test]
fn what_is_built_in_needs_no_file_and_what_is_nowhere_is_named() {
    let kernel = Kernel::new("built-in", &NET, "kernel/net/ipv6.ko\n");
    assert!(Modules::collect(kernel.root(), ["ipv6"]).unwrap().0.is_empty());
    let error = Modules::collect(kernel.root(), ["ipv6", "virtio_blk"]).unwrap_err();
    assert!(matches!(&error, ModuleError::Unknown(name, _) if name == "virtio_blk"), "{error}");

    // A need that is missing is as wrong as a wanted module that is.
    let kernel = Kernel::new("missing-need", &NET, "");
    let error = Modules::collect(kernel.root(), ["net_card"]).unwrap_err();
    assert!(matches!(&error, ModuleError::Unknown(name, _) if name == "ipv6"), "{error}");
}

#[test]
fn a_file_that_is_no_module_is_named() {
    let kernel = Kernel::new("format", &NET, "kernel/net/ipv6.ko\n");
    for content in [b"".as_slice(), b"#!/bin/sh\n", &module(&[])[..100]] {
        fs::write(kernel.root().join("kernel/bus/ring.ko"), content).unwrap();
        let error = Modules::collect(kernel.root(), ["net_card"]).unwrap_err();
        assert!(
            matches!(&error, ModuleError::Format(path, _) if path.ends_with("kernel/bus/ring.ko")),
            "{error}"
        );
    }
}

#[test]
fn compressed_modules_are_unpacked() {
    let kernel = Kernel::new("xz", &NET, "kernel/net/ipv6.ko\n");
    let plain = module(&["depends="]);
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::default()).unwrap();
    std::io::Write::write_all(&mut xz, &plain).unwrap();
    fs::write(kernel.root().join("kernel/bus/ring.ko.xz"), xz.finish().unwrap()).unwrap();
    fs::remove_file(kernel.root().join("kernel/bus/ring.ko")).unwrap();
    let modules = Modules::collect(kernel.root(), ["ring"]).unwrap();
    assert_eq!((modules.0["ring"].path.as_str(), &modules.0["ring"].content), ("kernel/bus/ring.ko", &plain));

    // Half a file is an error, not half a module.
    let file = kernel.root().join("kernel/bus/ring.ko.xz");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let error = Modules::collect(kernel.root(), ["ring"]).unwrap_err();
    assert!(matches!(error, ModuleError::Format(..)), "{error}");
}
