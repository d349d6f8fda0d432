//! Host tools of the build: the flat boot image made from EL2's ELF, the Linux guest's initramfs, a check of
//! manifests, card images for boards, guests as `Image` files.
//! Pure functions from bytes to bytes where they can be; the binary reads and writes the files.
#![forbid(unsafe_code)]

pub mod cpio;
pub mod guest_image;
pub mod image;
pub mod initramfs;
pub mod manifest;
pub mod modules;
pub mod programs;
pub mod sdcard;
pub mod strip;
pub mod sysregs;
