//! Aborts: the kind of fault, and what the syndrome says of the access.

use core::fmt;

use super::{Esr, ec};

/// A fault status code (DFSC, IFSC), shown in words.
pub(super) struct FaultStatus(pub(super) u8);

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.0 & 3;
        match self.0 {
            0x00..=0x03 => write!(f, "address size fault, level {level}"),
            0x04..=0x07 => write!(f, "translation fault, level {level}"),
            0x08..=0x0b => write!(f, "access flag fault, level {level}"),
            0x0c..=0x0f => write!(f, "permission fault, level {level}"),
            0x10 => f.write_str("external abort"),
            0x14..=0x17 => write!(f, "external abort on a table walk, level {level}"),
            0x21 => f.write_str("alignment fault"),
            0x30 => f.write_str("TLB conflict"),
            other => write!(f, "fault status {other:#x}"),
        }
    }
}

/// A data or instruction abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort(pub Esr);

/// What kind of fault an abort reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No mapping in stage 2, at any level.
    Translation,
    /// A mapping that doesn't allow the access.
    Permission,
    /// A mapping whose access flag is clear.
    AccessFlag,
    /// An address beyond the size that stage 2 is set to.
    AddressSize,
    /// The memory system said no.
    External,
    /// Anything else.
    Other,
}

/// How a data abort accessed memory: a syndrome that says so (ISV).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(Esr);

impl Access {
    /// Of what an instruction says that the syndrome doesn't: log2 of the bytes, whether it stores, whether a loaded value is
    /// sign-extended, and whether its register has 64 bits. The register is X0.
    pub const fn new(size: u8, write: bool, sign_extends: bool, is_64bit: bool) -> Self {
        const ISV: u64 = 1 << 24;
        let flags = (write as u64) << 6 | (is_64bit as u64) << 15 | (sign_extends as u64) << 21;
        Self(Esr((ec::DATA_ABORT_LOWER as u64) << 26 | ISV | ((size & 3) as u64) << 22 | flags))
    }

    /// As an abort's syndrome describes it, which the caller has seen that it does (ISV); of another one this is any access.
    #[inline]
    pub const fn described_by(abort: Abort) -> Self {
        Self(abort.0)
    }

    /// log2 of the bytes: 0 to 3 (SAS).
    #[inline]
    pub const fn size(self) -> u8 {
        (self.0.0 >> 22) as u8 & 3
    }

    /// The bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn bytes(self) -> u32 {
        1 << self.size()
    }

    /// A store.
    #[inline]
    pub const fn is_write(self) -> bool {
        Abort(self.0).is_write()
    }

    /// The register's number; 31 is XZR (SRT).
    #[inline]
    pub const fn register(self) -> u8 {
        (self.0.0 >> 16) as u8 & 0x1f
    }

    /// The loaded value is sign-extended (SSE).
    #[inline]
    const fn sign_extends(self) -> bool {
        self.0.0 & 1 << 21 != 0
    }

    /// A load of 32 bits without a sign: what is read is what the register becomes, whatever its size.
    #[inline]
    pub const fn is_plain_load(self) -> bool {
        self.size() == 2 && !self.is_write() && !self.sign_extends()
    }

    /// The register has 64 bits; otherwise the upper half is cleared on a load (SF).
    #[inline]
    const fn is_64bit(self) -> bool {
        self.0.0 & 1 << 15 != 0
    }

    /// The bits of a doubleword that the access doesn't have.
    #[inline]
    const fn unused(self) -> u32 {
        64u32.wrapping_sub(8u32 << self.size()) & 63
    }

    /// The value that a load puts into its register, from what the device gave: cut to the access's size, extended as
    /// the instruction says.
    #[inline]
    pub const fn extend(self, value: u64) -> u64 {
        if !self.sign_extends() {
            // That of the 32-bit register is clear anyway: no more than its size comes with it.
            return self.truncate(value);
        }
        let value = ((value << self.unused()) as i64 >> self.unused()) as u64;
        if self.is_64bit() { value } else { value & 0xffff_ffff }
    }

    /// The part of a value that an access of this size carries.
    #[inline]
    pub const fn truncate(self, value: u64) -> u64 {
        value << self.unused() >> self.unused()
    }
}

impl Abort {
    /// The fault status code.
    #[inline]
    pub const fn status(self) -> u8 {
        self.0.0 as u8 & 0x3f
    }

    /// What kind of fault it is.
    #[inline]
    pub const fn fault(self) -> Fault {
        match self.status() {
            0x00..=0x03 => Fault::AddressSize,
            0x04..=0x07 => Fault::Translation,
            0x08..=0x0b => Fault::AccessFlag,
            0x0c..=0x0f => Fault::Permission,
            0x10 | 0x14..=0x17 => Fault::External,
            _ => Fault::Other,
        }
    }

    /// A write (WnR). Not to be believed where [`Self::is_cache_maintenance`] holds.
    #[inline]
    pub const fn is_write(self) -> bool {
        self.0.0 & 1 << 6 != 0
    }

    /// The fault came from stage 2 while it translated a stage-1 table walk (S1PTW).
    #[inline]
    pub const fn on_table_walk(self) -> bool {
        self.0.0 & 1 << 7 != 0
    }

    /// The access was a cache maintenance or address translation instruction (CM).
    #[inline]
    pub const fn is_cache_maintenance(self) -> bool {
        self.0.0 & 1 << 8 != 0
    }

    /// FAR_EL2 holds no address (FnV); only with an external abort.
    #[inline]
    pub const fn far_not_valid(self) -> bool {
        self.0.0 & 1 << 10 != 0
    }

    /// Whether HPFAR_EL2 holds the faulting IPA: for translation and access-flag faults, and for any stage-2 fault on
    /// a table walk. For a permission fault of the access itself it is UNKNOWN (Arm ARM, HPFAR_EL2).
    #[inline]
    pub const fn hpfar_is_valid(self) -> bool {
        match self.fault() {
            Fault::Translation | Fault::AccessFlag | Fault::AddressSize => true,
            Fault::Permission => self.on_table_walk(),
            Fault::External | Fault::Other => false,
        }
    }

    /// Whether a device could be meant: a load or store of an address that stage 2 doesn't translate, which HPFAR_EL2 holds.
    #[inline]
    pub const fn may_be_device(self) -> bool {
        const CM: u64 = 1 << 8;
        const S1PTW: u64 = 1 << 7;
        // The status without the level.
        const FAULT: u64 = 0x3c;
        const TRANSLATION: u64 = 0x04;
        self.0.0 & (CM | S1PTW | FAULT) == TRANSLATION
    }

    /// The access, where the syndrome describes it (ISV); `None` for pairs, writeback, SIMD and the like.
    #[inline]
    pub const fn access(self) -> Option<Access> {
        if self.0.0 & 1 << 24 == 0 { None } else { Some(Access(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_abort(iss: u64) -> Abort {
        Abort(Esr(0x24 << 26 | 1 << 25 | iss))
    }

    fn access(iss: u64) -> Access {
        data_abort(1 << 24 | iss | 0x07).access().unwrap()
    }

    #[test]
    fn a_byte_load_with_sign_is_extended_to_its_register() {
        const SIGN: u64 = 1 << 21;
        const WIDE: u64 = 1 << 15;
        let byte = access(SIGN | 5 << 16);
        assert_eq!((byte.size(), byte.register(), byte.is_write()), (0, 5, false));
        assert_eq!(byte.extend(0x1234_5680), 0xffff_ff80);
        assert_eq!(access(SIGN | WIDE).extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(access(0).extend(0xabcd), 0xcd);
    }

    #[test]
    fn every_size_is_cut_to_itself() {
        let value = 0x8877_6655_4433_2211;
        for (size, expected) in [(0, 0x11), (1, 0x2211), (2, 0x4433_2211), (3, value)] {
            let access = access(size << 22 | 1 << 15 | 1 << 6);
            assert!(access.is_write());
            assert_eq!(access.bytes(), 1 << size);
            assert_eq!(access.truncate(value), expected);
            assert_eq!(access.extend(value), expected);
        }
    }

    /// Whatever its register's size, what a plain load reads is what that becomes.
    #[test]
    fn plain_loads_are_of_words_without_sign() {
        for (size, write, sign, wide) in (0..4)
            .flat_map(|size| [0, 1, 2, 3, 4, 5, 6, 7].map(|n| (size, n & 1 != 0, n & 2 != 0, n & 4 != 0)))
        {
            let access = Access::new(size, write, sign, wide);
            assert_eq!(access.is_plain_load(), (size, write, sign) == (2, false, false), "{access:?}");
            assert!(!access.is_plain_load() || access.extend(0x8877_6655) == 0x8877_6655, "{access:?}");
            assert_eq!(Some(Access::described_by(Abort(access.0))), Abort(access.0).access());
        }
    }

    #[test]
    fn an_access_is_what_it_is_made_of() {
        let access = Access::new(1, false, true, false);
        assert_eq!((access.size(), access.register(), access.is_write()), (1, 0, false));
        assert_eq!(access.extend(0x1_8000), 0xffff_8000);
        assert_eq!(Access::new(1, false, true, true).extend(0x8000), 0xffff_ffff_ffff_8000);
        assert_eq!(Access::new(2, true, false, false).truncate(u64::MAX), 0xffff_ffff);
        assert!(Access::new(0, true, false, false).is_write());
    }

    #[test]
    fn without_isv_there_is_no_access() {
        assert_eq!(data_abort(0x07).access(), None);
    }

    /// Of all syndromes, those where nothing is cached or walked, and nothing but a translation is missing.
    #[test]
    fn devices_are_where_stage_2_has_nothing() {
        for iss in (0..1 << 11).flat_map(|low| [low, low | 1 << 24]) {
            let abort = data_abort(iss);
            let may = abort.fault() == Fault::Translation
                && !abort.on_table_walk()
                && !abort.is_cache_maintenance();
            assert_eq!(abort.may_be_device(), may, "{iss:#x}");
            assert!(!may || abort.hpfar_is_valid());
        }
    }

    #[test]
    fn hpfar_holds_for_translation_faults_and_walks_only() {
        assert!(data_abort(0x07).hpfar_is_valid());
        assert!(!data_abort(0x0f).hpfar_is_valid());
        assert!(data_abort(1 << 7 | 0x0f).hpfar_is_valid());
        assert!(!data_abort(0x10).hpfar_is_valid());
    }
}
