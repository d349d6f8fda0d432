//! The board's real-time clock, a PL031 (Arm DDI 0224): read once at boot, so that guests' clocks start right.

/// Seconds since 1970 that the clock at `base` shows.
///
/// # Safety
/// `base` is the address of a PL031, mapped as device memory.
pub unsafe fn read_pl031(base: usize) -> u32 {
    // SAFETY: RTCDR is the first register; reading it changes nothing.
    unsafe { (base as *const u32).read_volatile() }
}
