//! Access to device registers by exactly one load or store each, of the width asked for and without writeback, so
//! that the hypervisor gets a syndrome it can decode.

use core::arch::asm;

/// A block of device registers at a fixed address.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
}

macro_rules! accessors {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal, $doc:literal) => {
        #[doc = concat!("Reads the ", $doc, " at byte `offset`.")]
        pub fn $read(&self, offset: usize) -> $type {
            let value: u64;
            // SAFETY: whoever made `self` promised that these are device registers, whose accesses touch no
            // memory of the program.
            unsafe { asm!($load, value = out(reg) value, address = in(reg) self.base + offset, options(nostack)) };
            value as $type
        }

        #[doc = concat!("Writes the ", $doc, " at byte `offset`.")]
        pub fn $write(&self, offset: usize, value: $type) {
            // SAFETY: as for the read.
            unsafe {
                asm!($store, value = in(reg) u64::from(value), address = in(reg) self.base + offset,
                    options(nostack));
            }
        }
    };
}

impl Mmio {
    /// Registers from `base` on.
    ///
    /// # Safety
    /// `base` is the address of device registers that the MMU maps as a device; no access to them changes memory
    /// that Rust knows of.
    pub const unsafe fn new(base: usize) -> Self {
        Self { base }
    }

    /// The address of the first register.
    pub const fn base(&self) -> usize {
        self.base
    }

    accessors!(read8, write8, u8, "ldrb {value:w}, [{address}]", "strb {value:w}, [{address}]", "byte");
    accessors!(
        read16,
        write16,
        u16,
        "ldrh {value:w}, [{address}]",
        "strh {value:w}, [{address}]",
        "halfword"
    );
    accessors!(read32, write32, u32, "ldr {value:w}, [{address}]", "str {value:w}, [{address}]", "word");
    accessors!(
        read64,
        write64,
        u64,
        "ldr {value:x}, [{address}]",
        "str {value:x}, [{address}]",
        "doubleword"
    );
}
