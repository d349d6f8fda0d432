//! Hanok's own calls: the Vendor-Specific Hypervisor Service of the calling convention (Arm DEN0028, section 6).
//!
//! A buffer is in the caller's RAM: its guest physical address, a multiple of 8, and its size in bytes. Records are
//! little-endian 64-bit words, in the order of [`record`](crate::record)'s structs; a buffer that is smaller than a
//! record gets its beginning, so records can grow at their end.

use crate::uuid::uuid_words;
use crate::{FunctionId, Owner};

const fn call32(number: u16) -> FunctionId {
    FunctionId::fast32(Owner::VENDOR_HYPERVISOR, number)
}

const fn call64(number: u16) -> FunctionId {
    FunctionId::fast64(Owner::VENDOR_HYPERVISOR, number)
}

/// Whether a call of this service (its identifier) is there: [`SUCCESS`], or [`NOT_SUPPORTED`].
pub const FEATURES: FunctionId = call32(0x00);
/// Who calls: [`SUCCESS`] in W0, the VM's number in W1, the vCPU's in W2, the VM's [`rights`](right) in W3.
pub const IDENTITY: FunctionId = call32(0x01);
/// Lets others that share the CPU go first, once.
pub const YIELD: FunctionId = call32(0x02);
/// Writes to the own console (buffer, bytes): bytes taken, 0 where there is no room.
pub const CONSOLE_WRITE: FunctionId = call64(0x03);
/// Reads from the own console (buffer, bytes): bytes given, 0 where there are none.
pub const CONSOLE_READ: FunctionId = call64(0x04);
/// Rings the bell of the VM at the other end of a channel (its number).
pub const DOORBELL: FunctionId = call32(0x05);

/// Says that the calling VM has crashed: its own software found so, and leaves the rest to its crash policy.
pub const CRASH: FunctionId = call32(0x06);

/// Starts a VM (its number) that isn't running.
pub const VM_START: FunctionId = call32(0x10);
/// Stops a VM (its number), as if its power were cut, and gives its memory back.
pub const VM_STOP: FunctionId = call32(0x11);
/// Pauses a VM (its number): its vCPUs and its counters stand still.
pub const VM_PAUSE: FunctionId = call32(0x12);
/// Lets a paused VM (its number) go on.
pub const VM_RESUME: FunctionId = call32(0x13);
/// Starts a VM (its number) afresh, whatever it is at.
pub const VM_RESTART: FunctionId = call32(0x14);
/// What a VM is and does (its number; buffer, bytes): bytes written of a [`VmRecord`](crate::record::VmRecord).
pub const VM_INFO: FunctionId = call64(0x15);
/// What a VM's vCPU does (their numbers; buffer, bytes): bytes written of a
/// [`VcpuRecord`](crate::record::VcpuRecord).
pub const VCPU_INFO: FunctionId = call64(0x16);
/// The report of a VM's last crash (its number; buffer, bytes): bytes written of a
/// [`CrashRecord`](crate::record::CrashRecord), 0 where it has not crashed.
pub const VM_CRASH: FunctionId = call64(0x17);
/// What was said last (whose console, a VM's number or [`LOG`]; position; buffer, bytes): bytes given in X0, the
/// position to go on at in X1. Position 0 is the oldest that is kept.
pub const HISTORY: FunctionId = call64(0x18);
/// Gives a VM (its number) the board's console: its input, and its output as it comes.
pub const FOCUS: FunctionId = call32(0x19);

/// What the board has (buffer, bytes): bytes written of a [`BoardRecord`](crate::record::BoardRecord).
pub const BOARD_INFO: FunctionId = call64(0x1a);

/// The VM's watchdog, by the protocol of Linux's `arm,smc-wdt` (what is wanted, argument).
pub const WATCHDOG: FunctionId = call32(0x20);

/// [`HISTORY`]: Hanok's own log.
pub const LOG: u32 = 0xffff_ffff;

/// The call did what it was asked.
pub const SUCCESS: i64 = 0;
/// The call isn't offered.
pub const NOT_SUPPORTED: i64 = -1;
/// An argument names no VM, vCPU or channel that there is, or a buffer that isn't in the caller's RAM.
pub const INVALID_PARAMETERS: i64 = -2;
/// The caller has no right to it.
pub const DENIED: i64 = -3;
/// The VM's state doesn't allow it.
pub const WRONG_STATE: i64 = -4;
/// Not now: call again.
pub const BUSY: i64 = -5;

/// What a VM may ask of others, as the manifest says: bits of [`IDENTITY`]'s W3.
pub mod right {
    /// To start, stop, pause, resume and restart VMs.
    pub const CONTROL: u32 = 1 << 0;
    /// To see what VMs are and do, their crash reports, and Hanok's log.
    pub const STATISTICS: u32 = 1 << 1;
    /// To see what VMs have said, and to give them the board's console.
    pub const CONSOLE: u32 = 1 << 2;
}

/// What [`WATCHDOG`] does, in W1 (Linux, `drivers/watchdog/arm_smc_wdt.c`).
pub mod watchdog {
    /// Says the limits of a timeout: the least in W1, the most in W2, in seconds.
    pub const INIT: u32 = 0;
    /// Sets the timeout to W2 seconds.
    pub const SET_TIMEOUT: u32 = 1;
    /// Turns it on (W2 = 1) or off (W2 = 0).
    pub const ENABLE: u32 = 2;
    /// Feeds it.
    pub const PET: u32 = 3;
    /// How many seconds are left, in W1.
    pub const GET_TIMELEFT: u32 = 4;
}

/// Call UID query: W0 to W3 are [`UID`] if the hypervisor is Hanok.
pub const CALL_UID: FunctionId = FunctionId::fast32(Owner::VENDOR_HYPERVISOR, 0xff01);
/// Revision query: W0 is [`REVISION_MAJOR`], W1 is [`REVISION_MINOR`].
pub const REVISION: FunctionId = FunctionId::fast32(Owner::VENDOR_HYPERVISOR, 0xff03);

/// Hanok's UUID, ecdcc7bd-8272-4b9f-b39c-18393b011d3d, as [`CALL_UID`] returns it: four words, each made of four bytes
/// of the UUID, the first byte lowest.
pub const UID: [u32; 4] = uuid_words(0xecdc_c7bd_8272_4b9f_b39c_1839_3b01_1d3d);

/// Goes up when a call changes so that a guest written for the one before no longer works.
pub const REVISION_MAJOR: u32 = 1;
/// Goes up when calls are added.
pub const REVISION_MINOR: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    // The published words of another hypervisor: 28b46fb6-2ec5-11e9-a9ca-4b564d003a74.
    #[test]
    fn word_order_is_the_convention_s() {
        let words = uuid_words(0x28b4_6fb6_2ec5_11e9_a9ca_4b56_4d00_3a74);
        assert_eq!(words, [0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d]);
    }

    // A first word of all ones would read as "unknown function".
    #[test]
    fn uid_is_a_random_uuid_and_no_error_code() {
        assert_eq!(UID[0], 0xbdc7_dcec);
        assert_ne!(UID[0], u32::MAX);
        let bytes = 0xecdc_c7bd_8272_4b9f_b39c_1839_3b01_1d3d_u128.to_be_bytes();
        assert_eq!((bytes[6] >> 4, bytes[8] >> 6), (4, 2), "version 4, variant of RFC 9562");
    }
}
