//! Values of properties (Devicetree Specification v0.4, section 2.2.4): big-endian cells and lists of strings.

use devicetree::cell;

/// A number of one or two cells; `None` for any other length.
pub fn number(bytes: &[u8]) -> Option<u64> {
    match bytes.len() {
        4 => cell(bytes, 0).map(u64::from),
        8 => Some(u64::from(cell(bytes, 0)?) << 32 | u64::from(cell(bytes, 1)?)),
        _ => None,
    }
}

/// The first string of a value, without its zero, as text; nothing where it isn't UTF-8.
pub fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(first(bytes)).unwrap_or("")
}

/// The first string of a value, without its zero.
pub fn first(bytes: &[u8]) -> &[u8] {
    strings(bytes).next().unwrap_or_default()
}

/// The strings of a list, without their zeros.
pub fn strings(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0)
}

/// The INTID of the entry at `index` of an `interrupts` property for a GIC with `cells` cells to an entry. The first
/// three are kind, number and flags (binding `arm,gic`); a fourth does not change the INTID.
fn interrupt(bytes: &[u8], cells: usize, index: usize) -> Option<u32> {
    let entry = bytes.chunks_exact(cells.max(3) * 4).nth(index)?;
    let number = cell(entry, 1)?;
    match cell(entry, 0)? {
        0 if number < 988 => Some(number + 32),
        1 if number < 16 => Some(number + 16),
        _ => None,
    }
}

/// The same where it has to be one that each CPU has for itself.
pub fn private_interrupt(bytes: &[u8], cells: usize, index: usize) -> Option<u32> {
    interrupt(bytes, cells, index).filter(|intid| *intid < FIRST_SPI)
}

/// The same where it has to be one of the board's.
pub fn shared_interrupt(bytes: &[u8], cells: usize, index: usize) -> Option<u32> {
    interrupt(bytes, cells, index).filter(|intid| *intid >= FIRST_SPI)
}

/// The INTID of the first SPI.
pub const FIRST_SPI: u32 = 32;
