//! UUIDs as calls return them.

/// The four result words for a UUID that is written as one number, its first byte highest.
pub const fn uuid_words(uuid: u128) -> [u32; 4] {
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
