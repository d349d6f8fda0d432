//! True Random Number Generator firmware interface (Arm DEN0098).

use crate::uuid::uuid_words;
use crate::{FunctionId, Owner};

/// `TRNG_VERSION`.
pub const VERSION: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 0x50);
/// `TRNG_FEATURES` (function identifier).
pub const FEATURES: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 0x51);
/// `TRNG_GET_UUID`.
pub const GET_UUID: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 0x52);
/// `TRNG_RND` (bits wanted), 32-bit convention.
pub const RND_32: FunctionId = FunctionId::fast32(Owner::STANDARD_SECURE, 0x53);
/// `TRNG_RND` (bits wanted), 64-bit convention.
pub const RND_64: FunctionId = FunctionId::fast64(Owner::STANDARD_SECURE, 0x53);

/// Version 1.0 of the interface, as `TRNG_VERSION` reports it.
pub const VERSION_1_0: u32 = 0x1_0000;

/// The UUID of Hanok's random number generator, 452a4189-2b12-4e5b-b31d-71df8497754b, as [`GET_UUID`] returns it.
pub const UUID: [u32; 4] = uuid_words(0x452a_4189_2b12_4e5b_b31d_71df_8497_754b);

/// The call did what it was asked.
pub const SUCCESS: i64 = 0;
/// The function isn't offered.
pub const NOT_SUPPORTED: i64 = -1;
/// An argument is out of its range.
pub const INVALID_PARAMETERS: i64 = -2;
/// No entropy is to be had now.
pub const NO_ENTROPY: i64 = -3;
