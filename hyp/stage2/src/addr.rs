//! Addresses: intermediate physical (what a guest calls physical) and physical, as types of their own so that one is
//! never passed for the other. Neither is checked when made; the operations check ranges against the VM's geometry.

use core::fmt;

use crate::error::LedgerError;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Bytes in a page, which is also the size of a table: the 4 KiB granule is the only one used.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// The most address bits that a descriptor of the 4 KiB granule holds without FEAT_LPA2, which is not used.
pub const ADDRESS_BITS: u8 = 48;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// An address from its value; any value is allowed here.
            pub const fn new(address: u64) -> Self {
                Self(address)
            }

            /// The address as a number of bytes.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// The address `bytes` higher, or `None` past the end of 64 bits.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }

            /// The address `bytes` lower, or `None` below zero.
            pub const fn checked_sub(self, bytes: u64) -> Option<Self> {
                match self.0.checked_sub(bytes) {
                    Some(address) => Some(Self(address)),
                    None => None,
                }
            }

            /// Whether the address is a multiple of `alignment`, a power of two; false for any other `alignment`.
            pub const fn is_aligned(self, alignment: u64) -> bool {
                alignment.is_power_of_two() && self.0 & alignment.wrapping_sub(1) == 0
            }

            /// The number of the page that holds the address.
            pub const fn page_number(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }

            /// The start of the page that holds the address.
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The offset of the address in its page, in bytes.
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// An intermediate physical address: the output of a guest's stage 1, the input of stage 2.
    Ipa
}
address! {
    /// A physical address.
    Pa
}

/// A range of whole physical pages, never empty, that ends at or below 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaRange {
    start: u64,
    end: u64,
}

impl PaRange {
    /// The range of `size` bytes from `start`.
    ///
    /// # Errors
    /// [`LedgerError::BadRange`] where `start` or `size` is no multiple of [`PAGE_SIZE`], `size` is zero, or the end
    /// lies above 2^48.
    pub fn new(start: Pa, size: u64) -> Result<Self, LedgerError> {
        let bad = LedgerError::BadRange { pa: start, size };
        let end = start.checked_add(size).ok_or(bad)?;
        let whole_pages = start.is_aligned(PAGE_SIZE) && end.is_aligned(PAGE_SIZE);
        if !whole_pages || size == 0 || end.as_u64() > 1 << ADDRESS_BITS {
            return Err(bad);
        }
        Ok(Self { start: start.as_u64(), end: end.as_u64() })
    }

    /// A range whose bounds are known to be right: whole pages, not empty, below 2^48.
    pub(crate) const fn from_bounds(start: u64, end: u64) -> Self {
        Self { start, end }
    }

    /// The first address.
    pub const fn start(self) -> Pa {
        Pa::new(self.start)
    }

    /// The address after the last one.
    pub const fn end(self) -> Pa {
        Pa::new(self.end)
    }

    /// The length in bytes.
    pub const fn size(self) -> u64 {
        self.end.wrapping_sub(self.start)
    }

    /// The length in pages.
    pub const fn pages(self) -> u64 {
        self.size() >> PAGE_SHIFT
    }

    /// Whether `pa` lies in the range.
    pub const fn contains(self, pa: Pa) -> bool {
        self.start <= pa.as_u64() && pa.as_u64() < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_is_checked() {
        assert_eq!(Ipa::new(u64::MAX).checked_add(1), None);
        assert_eq!(Pa::new(0).checked_sub(1), None);
        assert_eq!(Ipa::new(0x1234).checked_add(1), Some(Ipa::new(0x1235)));
        assert!(Pa::new(0x20_0000).is_aligned(0x20_0000));
        assert!(!Pa::new(0x20_1000).is_aligned(0x20_0000));
        assert!(!Pa::new(0).is_aligned(0));
        assert!(!Pa::new(6).is_aligned(3));
    }

    #[test]
    fn parts_of_a_page() {
        let ipa = Ipa::new(0x4000_1abc);
        assert_eq!(
            (ipa.page_number(), ipa.page(), ipa.page_offset()),
            (0x40001, Ipa::new(0x4000_1000), 0xabc)
        );
    }

    #[test]
    fn ranges_are_whole_pages_below_the_limit() {
        let range = |start, size| PaRange::new(Pa::new(start), size);
        assert_eq!(range(0x1000, 0x2000).unwrap().pages(), 2);
        assert!(range((1 << 48) - 0x1000, 0x1000).is_ok());
        for (start, size) in [
            (0x800, 0x1000),
            (0x1000, 0x800),
            (0x1000, 0),
            ((1 << 48) - 0x1000, 0x2000),
            (u64::MAX - 0xfff, 0x1000),
        ] {
            assert_eq!(range(start, size), Err(LedgerError::BadRange { pa: Pa::new(start), size }));
        }
        let two = range(0x1000, 0x2000).unwrap();
        assert!(two.contains(Pa::new(0x2fff)) && !two.contains(two.end()) && !two.contains(Pa::new(0xfff)));
    }
}
