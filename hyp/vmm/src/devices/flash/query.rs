//! What a chip says of itself when it is asked (JEDEC JEP137, JESD68.01; Intel's extension of version 1.0).

use super::{BANK, BUFFER, SECTOR};

/// The first number that says something.
const START: u32 = 0x10;

/// log2 of the bytes of a chip, half a bank.
const SIZE: u8 = (BANK / 2).trailing_zeros() as u8;
/// log2 of the bytes that its buffer holds.
const BUFFER_SIZE: u8 = (BUFFER * 2).trailing_zeros() as u8;
/// Its sectors less one, and their size in units of 256 bytes.
const SECTORS: [u8; 2] = ((BANK / SECTOR - 1) as u16).to_le_bytes();
const SECTOR_SIZE: [u8; 2] = ((SECTOR / 2 / 256) as u16).to_le_bytes();

/// From 0x10 on.
const TABLE: [u8; 0x34] = [
    // Intel's command set, with its table at 0x31; no other one.
    b'Q',
    b'R',
    b'Y',
    0x01,
    0x00,
    0x31,
    0x00,
    0x00,
    0x00,
    0x00,
    0x00,
    // Supply voltages in tenths of a volt: 2.7 to 3.6, and none to program with.
    0x27,
    0x36,
    0x00,
    0x00,
    // What programming a word, programming a buffer (in µs), erasing a sector (in ms) and all take, as powers of two; and how many
    // times that at the most. Here they take no time that a guest could see.
    0x07,
    0x07,
    0x0a,
    0x00,
    0x04,
    0x04,
    0x04,
    0x00,
    // Size, a bus of 16 bits, the buffer, and one kind of sector.
    SIZE,
    0x01,
    0x00,
    BUFFER_SIZE,
    0x00,
    0x01,
    SECTORS[0],
    SECTORS[1],
    SECTOR_SIZE[0],
    SECTOR_SIZE[1],
    // Intel's table, version 1.0: no optional command (nothing is suspended, no sector is locked), and no lock bits.
    b'P',
    b'R',
    b'I',
    b'1',
    b'0',
    0x00,
    0x00,
    0x00,
    0x00,
    0x00,
    0x00,
    0x00,
    // Best voltages: 3.3, and none.
    0x33,
    0x00,
    // One field of protection registers, without any.
    0x01,
    0x00,
    0x00,
    0x00,
    0x00,
];

/// What is said at a number.
pub(super) fn answer(number: u32) -> u16 {
    let at = number.checked_sub(START).and_then(|at| TABLE.get(at as usize));
    at.copied().unwrap_or(0).into()
}
