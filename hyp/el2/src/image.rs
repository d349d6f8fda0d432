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
    /// The page below the boot CPU's crash stack, which is never mapped either.
    pub crash_guard: u64,
    /// The top of that stack.
    pub crash_stack_top: u64,
    /// Behind everything.
    pub end: u64,
}

impl Layout {
    /// The image's writable parts, between which the guards are.
    pub fn writable(&self) -> [(u64, u64); 3] {
        let page = stage2::PAGE_SIZE;
        [
            (self.data_start, self.guard),
            (self.guard.wrapping_add(page), self.crash_guard),
            (self.crash_guard.wrapping_add(page), self.end),
        ]
    }
}

/// Where the image lies.
pub fn layout() -> Layout {
    unsafe extern "C" {
        static __image_start: u8;
        static __text_end: u8;
        static __data_start: u8;
        static __boot_guard: u8;
        static __boot_crash_guard: u8;
        static __boot_crash_stack_top: u8;
        static __image_end: u8;
    }
    Layout {
        start: addr_of!(__image_start) as u64,
        text_end: addr_of!(__text_end) as u64,
        data_start: addr_of!(__data_start) as u64,
        guard: addr_of!(__boot_guard) as u64,
        crash_guard: addr_of!(__boot_crash_guard) as u64,
        crash_stack_top: addr_of!(__boot_crash_stack_top) as u64,
        end: addr_of!(__image_end) as u64,
    }
}
