//! Where the image lies: the linker script's symbols, as they are at run time.

use core::ptr::addr_of;

/// The image's parts, as physical addresses, which EL2's map keeps. All are multiples of 4 KiB.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The first byte: text starts here.
    pub start: u64,
    /// Behind the text; read-only data follows.
    pub text_end: u64,
    /// Behind read-only data; writable data follows.
    pub data_start: u64,
    /// The page below the boot stack, which is never mapped.
    pub guard: u64,
    /// Behind everything.
    pub end: u64,
}

/// Where the image lies.
pub fn layout() -> Layout {
    unsafe extern "C" {
        static __image_start: u8;
        static __text_end: u8;
        static __data_start: u8;
        static __boot_guard: u8;
        static __image_end: u8;
    }
    Layout {
        start: addr_of!(__image_start) as u64,
        text_end: addr_of!(__text_end) as u64,
        data_start: addr_of!(__data_start) as u64,
        guard: addr_of!(__boot_guard) as u64,
        end: addr_of!(__image_end) as u64,
    }
}
