//! Hanok's own calls: the Vendor-Specific Hypervisor Service of the calling convention (Arm DEN0028, section 6).

use crate::{FunctionId, Owner};

/// Call UID query: W0 to W3 are [`UID`] if the hypervisor is Hanok.
pub const CALL_UID: FunctionId = FunctionId::fast32(Owner::VENDOR_HYPERVISOR, 0xff01);
/// Revision query: W0 is [`REVISION_MAJOR`], W1 is [`REVISION_MINOR`].
pub const REVISION: FunctionId = FunctionId::fast32(Owner::VENDOR_HYPERVISOR, 0xff03);

/// Hanok's UUID, ecdcc7bd-8272-4b9f-b39c-18393b011d3d, as [`CALL_UID`] returns it: four words, each made of four bytes
/// of the UUID, the first byte lowest.
pub const UID: [u32; 4] = uid_words(0xecdc_c7bd_8272_4b9f_b39c_1839_3b01_1d3d);

/// Goes up when a call changes so that a guest written for the one before no longer works.
pub const REVISION_MAJOR: u32 = 1;
/// Goes up when calls are added.
pub const REVISION_MINOR: u32 = 0;

/// The four result words for a UUID that is written as one number, its first byte highest.
const fn uid_words(uuid: u128) -> [u32; 4] {
    let words = uuid.to_be_bytes();
    let mut result = [0; 4];
    let mut i = 0;
    while i < 4 {
        let at = 4 * i;
        result[i] = u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        i += 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    // The published words of another hypervisor: 28b46fb6-2ec5-11e9-a9ca-4b564d003a74.
    #[test]
    fn word_order_is_the_convention_s() {
        let words = uid_words(0x28b4_6fb6_2ec5_11e9_a9ca_4b56_4d00_3a74);
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
