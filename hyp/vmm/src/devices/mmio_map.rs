//! From a guest address to the emulated device there: a table that is made with the VM and never changes, so that
//! looking into it needs no lock.

use super::Device;
use crate::layout::{Ipa, Region};
use thiserror::Error;

/// The most regions that a table holds, a power of two: a VM has one of each [`Device`] at most.
pub const MAX_REGIONS: usize = 4;

const INDEX_MASK: usize = MAX_REGIONS - 1;

/// An emulated device's register, found by its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit {
    /// The device.
    pub device: Device,
    /// Bytes from the start of the device's region; below its size.
    pub offset: u32,
}

/// What's wrong with a set of regions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum MmioMapError {
    /// More regions than a table holds.
    #[error("{0} emulated regions: there is room for {MAX_REGIONS}")]
    TooMany(usize),
    /// A region of no bytes, or of 4 GiB or more, or past the end of the address space.
    #[error("{device:?} at {base:#x}: {size:#x} bytes cannot be")]
    BadSize {
        /// The device.
        device: Device,
        /// Its base.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// Two regions share addresses.
    #[error("{first:?} and {second:?} overlap at {at:#x}")]
    Overlap {
        /// The device with the lower base.
        first: Device,
        /// The other one.
        second: Device,
        /// The first address that both claim.
        at: u64,
    },
}

/// The emulated regions of a VM, sorted by address.
///
/// Unused places at the end have a base that no guest address reaches, so that a search takes the same few steps
/// whatever is there: no branch depends on the table.
#[derive(Clone, Debug)]
pub struct MmioMap {
    bases: [u64; MAX_REGIONS],
    entries: [(u32, Device); MAX_REGIONS],
}

impl MmioMap {
    /// A table of these regions, in any order.
    pub fn new(regions: &[(Region, Device)]) -> Result<Self, MmioMapError> {
        if regions.len() > MAX_REGIONS {
            return Err(MmioMapError::TooMany(regions.len()));
        }
        for (index, (region, device)) in regions.iter().enumerate() {
            check_size(region, *device)?;
            regions.iter().take(index).try_for_each(|other| check_apart(other, &(*region, *device)))?;
        }
        let mut map = Self { bases: [u64::MAX; MAX_REGIONS], entries: [(0, Device::Gicd); MAX_REGIONS] };
        let mut done_below = Ipa::new(0);
        for (base, entry) in map.bases.iter_mut().zip(map.entries.iter_mut()) {
            let rest = regions.iter().filter(|(region, _)| region.base >= done_below);
            let Some((lowest, device)) = rest.min_by_key(|(region, _)| region.base) else {
                break;
            };
            *base = lowest.base.as_u64();
            *entry = (lowest.size as u32, *device);
            done_below = lowest.end();
        }
        Ok(map)
    }

    /// The device register at `ipa`, if a device is emulated there.
    #[inline]
    pub fn find(&self, ipa: Ipa) -> Option<Hit> {
        let address = ipa.as_u64();
        // The last region whose base isn't above the address, or else the first, whose bounds then refuse it.
        let mut at = 0;
        let mut step = MAX_REGIONS / 2;
        while step > 0 {
            let next = (at | step) & INDEX_MASK;
            if self.base(next) <= address {
                at = next;
            }
            step /= 2;
        }
        let offset = address.wrapping_sub(self.base(at));
        let (size, device) = self.entries.get(at).copied()?;
        if offset < u64::from(size) { Some(Hit { device, offset: offset as u32 }) } else { None }
    }

    #[inline(always)]
    fn base(&self, index: usize) -> u64 {
        self.bases.get(index).copied().unwrap_or(u64::MAX)
    }
}

/// Whether a region is one that the table can hold.
fn check_size(region: &Region, device: Device) -> Result<(), MmioMapError> {
    let (base, size) = (region.base.as_u64(), region.size);
    let fits = (1..=u64::from(u32::MAX)).contains(&size) && base.checked_add(size).is_some();
    if fits { Ok(()) } else { Err(MmioMapError::BadSize { device, base, size }) }
}

/// Whether two regions have no address in common.
fn check_apart(a: &(Region, Device), b: &(Region, Device)) -> Result<(), MmioMapError> {
    let ((lower, first), (upper, second)) = if a.0.base <= b.0.base { (a, b) } else { (b, a) };
    if !lower.contains(upper.base) {
        return Ok(());
    }
    Err(MmioMapError::Overlap { first: *first, second: *second, at: upper.base.as_u64() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::vec::Vec;

    fn region(base: u64, size: u64) -> Region {
        Region { base: Ipa::new(base), size }
    }

    fn virt() -> MmioMap {
        MmioMap::new(&[
            (region(0x0900_0000, 0x1000), Device::Uart),
            (region(0x0800_0000, 0x1_0000), Device::Gicd),
            (region(0x0901_0000, 0x1000), Device::Rtc),
            (region(0x080a_0000, 0x4_0000), Device::Gicr),
        ])
        .unwrap()
    }

    #[test]
    fn finds_first_and_last_byte_and_nothing_beside() {
        let map = virt();
        let at = |address| map.find(Ipa::new(address)).map(|hit| (hit.device, hit.offset));
        assert_eq!(at(0x0800_0000), Some((Device::Gicd, 0)));
        assert_eq!(at(0x0800_ffff), Some((Device::Gicd, 0xffff)));
        assert_eq!(at(0x080d_ffff), Some((Device::Gicr, 0x3_ffff)));
        assert_eq!(at(0x0900_0018), Some((Device::Uart, 0x18)));
        assert_eq!(at(0x0901_0fff), Some((Device::Rtc, 0xfff)));
        for outside in
            [0, 0x07ff_ffff, 0x0801_0000, 0x0809_ffff, 0x080e_0000, 0x0900_1000, 0x0901_1000, u64::MAX]
        {
            assert_eq!(at(outside), None, "{outside:#x}");
        }
    }

    #[test]
    fn nothing_is_found_in_an_empty_table() {
        let map = MmioMap::new(&[]).unwrap();
        for address in [0, 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(map.find(Ipa::new(address)), None);
        }
    }

    #[test]
    fn wrong_tables_are_refused() {
        let overlap =
            MmioMap::new(&[(region(0x1800, 0x1000), Device::Rtc), (region(0x1000, 0x801), Device::Uart)]);
        assert_eq!(
            overlap.unwrap_err(),
            MmioMapError::Overlap { first: Device::Uart, second: Device::Rtc, at: 0x1800 }
        );
        assert!(
            MmioMap::new(&[(region(0x1800, 0x1000), Device::Rtc), (region(0x1000, 0x800), Device::Uart)])
                .is_ok()
        );
        for (base, size) in [(0, 0), (0, 1 << 32), (u64::MAX - 1, 2)] {
            let error = MmioMap::new(&[(region(base, size), Device::Gicd)]).unwrap_err();
            assert_eq!(error, MmioMapError::BadSize { device: Device::Gicd, base, size });
        }
        let many: Vec<_> = (0..5).map(|n| (region(n << 12, 0x1000), Device::Gicd)).collect();
        assert_eq!(MmioMap::new(&many).unwrap_err(), MmioMapError::TooMany(5));
        assert_eq!(format!("{}", MmioMapError::TooMany(5)), "5 emulated regions: there is room for 4");
    }

    proptest! {
        #[test]
        fn agrees_with_a_scan(
            starts in proptest::collection::btree_map(0_u64..64, 1_u64..=16, 0..=MAX_REGIONS),
            probes in proptest::collection::vec(0_u64..0x420, 64),
        ) {
            let regions: Vec<_> = starts.iter().map(|(slot, size)| (region(slot * 16, *size), Device::Uart)).collect();
            let map = MmioMap::new(&regions).unwrap();
            for address in probes {
                let expected = regions.iter().find(|(r, _)| r.contains(Ipa::new(address)));
                let found = map.find(Ipa::new(address)).map(|hit| u64::from(hit.offset));
                prop_assert_eq!(found, expected.map(|(r, _)| address - r.base.as_u64()));
            }
        }
    }
}
