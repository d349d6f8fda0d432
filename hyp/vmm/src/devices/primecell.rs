//! Identification registers that all PrimeCell devices have at the end of their 4 KiB.

/// Offset of the first one, PeriphID0; eight words follow, to the end of the page.
pub(super) const FIRST: u32 = 0xfe0;

/// The four PCellID bytes, the same for every PrimeCell.
const CELL: u32 = 0xb105_f00d;

/// The identification register at `offset`, a byte, for a device whose PeriphID0 to 3 are the bytes of `peripheral`,
/// the first one lowest. Zero outside of them.
pub(super) const fn read(offset: u32, peripheral: u32) -> u32 {
    let byte = (offset >> 2 & 3) << 3;
    match offset & !0xf {
        FIRST => peripheral >> byte & 0xff,
        0xff0 => CELL >> byte & 0xff,
        _ => 0,
    }
}
