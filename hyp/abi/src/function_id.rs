//! The SMCCC function identifier: the 32-bit value that a caller puts in W0 (Arm DEN0028, section 2.5).

/// An SMCCC function identifier. Any 32-bit value can be held: what a guest puts in W0 is an allegation until decoded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct FunctionId(u32);

impl FunctionId {
    const FAST: u32 = 1 << 31;
    const CONVENTION_64: u32 = 1 << 30;
    const OWNER_SHIFT: u32 = 24;
    const OWNER_MASK: u32 = 0x3f;
    const RESERVED: u32 = 0xff << 16;
    const NUMBER_MASK: u32 = 0xffff;

    /// The identifier with this value.
    pub const fn from_u32(value: u32) -> Self {
        Self(value)
    }

    /// The identifier that X0 carries: its low 32 bits, since the identifier is a W register in both conventions.
    pub const fn from_x0(x0: u64) -> Self {
        Self(x0 as u32)
    }

    /// A fast call of the 32-bit convention (SMC32/HVC32).
    pub const fn fast32(owner: Owner, number: u16) -> Self {
        Self(Self::FAST | (owner.0 as u32) << Self::OWNER_SHIFT | number as u32)
    }

    /// A fast call of the 64-bit convention (SMC64/HVC64).
    pub const fn fast64(owner: Owner, number: u16) -> Self {
        Self(Self::fast32(owner, number).0 | Self::CONVENTION_64)
    }

    /// The value as it stands in W0.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// Bit 31: a fast call, which runs to its end; otherwise a yielding call.
    pub const fn is_fast(self) -> bool {
        self.0 & Self::FAST != 0
    }

    /// Bit 30: the 64-bit convention, where arguments and results are X registers; otherwise they are W registers.
    pub const fn is_64bit(self) -> bool {
        self.0 & Self::CONVENTION_64 != 0
    }

    /// Bits 29:24: the service that owns the call.
    pub const fn owner(self) -> Owner {
        Owner((self.0 >> Self::OWNER_SHIFT & Self::OWNER_MASK) as u8)
    }

    /// Bits 23:16, which must be zero in a fast call up to SMCCC 1.2 (1.3 makes bit 16 a hint about SVE state).
    pub const fn reserved_bits(self) -> u8 {
        ((self.0 & Self::RESERVED) >> 16) as u8
    }

    /// Bits 15:0: the number of the call within its owner and convention.
    pub const fn number(self) -> u16 {
        (self.0 & Self::NUMBER_MASK) as u16
    }
}

/// The owning entity of a call: bits 29:24 of its identifier (DEN0028, table "SMC and HVC Services").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Owner(u8);

impl Owner {
    /// Arm Architecture calls: version, discovery, workarounds.
    pub const ARM_ARCHITECTURE: Self = Self(0);
    /// CPU service calls.
    pub const CPU_SERVICE: Self = Self(1);
    /// Silicon-partner calls.
    pub const SIP_SERVICE: Self = Self(2);
    /// OEM calls.
    pub const OEM_SERVICE: Self = Self(3);
    /// Standard Secure Service calls: PSCI, TRNG.
    pub const STANDARD_SECURE: Self = Self(4);
    /// Standard Hypervisor Service calls: PV time.
    pub const STANDARD_HYPERVISOR: Self = Self(5);
    /// Vendor-Specific Hypervisor Service calls: Hanok's own.
    pub const VENDOR_HYPERVISOR: Self = Self(6);

    /// The six bits of the identifier, 0 to 63.
    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_cpu_on() {
        let id = FunctionId::from_u32(0xc400_0003);
        assert!(id.is_fast() && id.is_64bit());
        assert_eq!(id.owner(), Owner::STANDARD_SECURE);
        assert_eq!((id.reserved_bits(), id.number()), (0, 3));
        assert_eq!(FunctionId::fast64(Owner::STANDARD_SECURE, 3), id);
        assert_eq!(FunctionId::fast32(Owner::STANDARD_SECURE, 3).as_u32(), 0x8400_0003);
    }

    #[test]
    fn every_bit_belongs_to_one_field() {
        let all = FunctionId::from_u32(u32::MAX);
        assert!(all.is_fast() && all.is_64bit());
        assert_eq!((all.owner().as_u8(), all.reserved_bits(), all.number()), (0x3f, 0xff, 0xffff));
        let none = FunctionId::from_u32(0);
        assert!(!none.is_fast() && !none.is_64bit());
        assert_eq!((none.owner().as_u8(), none.reserved_bits(), none.number()), (0, 0, 0));
        for bit in 0..32 {
            let id = FunctionId::from_u32(1 << bit);
            let fields = [
                id.is_fast(),
                id.is_64bit(),
                id.owner().as_u8() != 0,
                id.reserved_bits() != 0,
                id.number() != 0,
            ];
            assert_eq!(fields.iter().filter(|set| **set).count(), 1, "bit {bit}");
        }
    }

    #[test]
    fn upper_half_of_x0_is_ignored() {
        assert_eq!(FunctionId::from_x0(0xffff_ffff_8400_0000).as_u32(), 0x8400_0000);
    }
}
