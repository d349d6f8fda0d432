//! Links the image by its linker script and embeds the built-in bundle.

use std::path::PathBuf;
use std::{env, fs};

/// Relocations as bitmaps of the words to relocate, which take a byte where the plain form takes 24.
const PACKED: &str = "--pack-dyn-relocs=relr";

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let script = root.join("linker/hanok.ld").canonicalize().unwrap();
    println!("cargo::rerun-if-changed={}", script.display());
    println!("cargo::rustc-link-arg-bins=-T{}", script.display());
    // Relocated by its own first instructions. Libraries that were compiled for a fixed address leave relocations in
    // read-only sections; those are done before anything is made read-only.
    for argument in ["-pie", "--no-dynamic-linker", "-znotext", "-znorelro", "--build-id=none", PACKED] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }

    // The bundle that runs when the board hands over none. Without one, the image says that it has nothing to run.
    println!("cargo::rerun-if-env-changed=HANOK_BUILTIN_BUNDLE");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("builtin.dtb");
    match env::var_os("HANOK_BUILTIN_BUNDLE") {
        Some(path) => {
            println!("cargo::rerun-if-changed={}", PathBuf::from(&path).display());
            fs::copy(&path, &out).unwrap_or_else(|error| panic!("HANOK_BUILTIN_BUNDLE={path:?}: {error}"));
        }
        None => fs::write(&out, []).unwrap(),
    }
}
