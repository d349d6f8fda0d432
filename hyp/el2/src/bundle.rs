//! Where the VM bundle is: handed over by the boot loader as initial RAM disk, or the one in the image.

use core::{ptr, slice};

use config::manifest::Bundle;
use platform::tree::Board;

/// The bundle that runs when the board hands over none.
static BUILT_IN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/builtin.dtb"));

/// The bundle, parsed. Without one, the built-in one. One that can't be used is nobody's wish for another: nothing runs in its
/// place, and what is wrong with it is said.
pub fn find(board: &Board<'_>) -> Option<Bundle<'static>> {
    match board.initrd {
        Some(range) => {
            let address = range.start.as_u64() as usize;
            if !crate::memory::is_ram(board, range) {
                log::error!(
                    "the bundle at {:#x} to {:#x} is not in the board's memory",
                    range.start.as_u64(),
                    range.end()
                );
                return None;
            }
            // SAFETY: the range is RAM, which EL2 maps, and is kept out of the free frames for ever, so nobody writes it.
            let bytes: &'static [u8] =
                unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(address), range.size as usize) };
            parse(bytes, "the bundle that was handed over as initrd")
        }
        None if BUILT_IN.is_empty() => {
            log::error!(
                "no bundle was handed over as initrd, and the image has none built in: nothing to run"
            );
            None
        }
        None => {
            log::info!("no bundle was handed over as initrd: running the built-in guests");
            parse(BUILT_IN, "the built-in bundle")
        }
    }
}

fn parse(bytes: &'static [u8], what: &str) -> Option<Bundle<'static>> {
    match Bundle::parse(bytes) {
        Ok(bundle) => Some(bundle),
        Err(error) => {
            log::error!("{what} cannot be used: {error}");
            None
        }
    }
}
