//! Accesses of AArch32 to registers of coprocessors 14 and 15, as their syndromes tell them.

use core::fmt;

use super::{Esr, ec};

/// A trapped access of AArch32 to a register of coprocessor 14 or 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoprocessorAccess {
    /// Which register.
    pub register: Coprocessor,
    /// The general-purpose register; 15 is the PC, whose place MRC's flags take.
    pub rt: u8,
    /// The second one, of MCRR and MRRC, for the upper half.
    pub rt2: Option<u8>,
    /// MRC or MRRC; otherwise MCR or MCRR.
    pub read: bool,
}

/// The encoding of a register of a coprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Coprocessor {
    /// 14 or 15.
    pub coprocessor: u8,
    /// opc1.
    pub opc1: u8,
    /// CRn; `None`: a register of 64 bits, by MCRR and MRRC.
    pub crn: Option<u8>,
    /// CRm.
    pub crm: u8,
    /// opc2; 0 for a register of 64 bits.
    pub opc2: u8,
}

impl Coprocessor {
    /// A register of 32 bits, by MCR and MRC: `p<coprocessor>, <opc1>, <Rt>, c<crn>, c<crm>, <opc2>`.
    pub const fn word(coprocessor: u8, opc1: u8, crn: u8, crm: u8, opc2: u8) -> Self {
        Self { coprocessor, opc1, crn: Some(crn), crm, opc2 }
    }

    /// A register of 64 bits, by MCRR and MRRC: `p<coprocessor>, <opc1>, <Rt>, <Rt2>, c<crm>`.
    pub const fn double(coprocessor: u8, opc1: u8, crm: u8) -> Self {
        Self { coprocessor, opc1, crn: None, crm, opc2: 0 }
    }
}

impl CoprocessorAccess {
    /// From a syndrome; `None`: of another exception class. LDC and STC have no register of this kind to name.
    pub const fn decode(esr: Esr) -> Option<Self> {
        let iss = esr.iss();
        let (coprocessor, double) = match esr.class() {
            ec::CP15 => (15, false),
            ec::CP15_DOUBLE => (15, true),
            ec::CP14 => (14, false),
            ec::CP14_DOUBLE => (14, true),
            _ => return None,
        };
        let crm = (iss >> 1) as u8 & 15;
        let register = if double {
            Coprocessor::double(coprocessor, (iss >> 16) as u8 & 15, crm)
        } else {
            let (opc1, opc2) = ((iss >> 14) as u8 & 7, (iss >> 17) as u8 & 7);
            Coprocessor::word(coprocessor, opc1, (iss >> 10) as u8 & 15, crm, opc2)
        };
        let rt2 = if double { Some((iss >> 10) as u8 & 31) } else { None };
        Some(Self { register, rt: (iss >> 5) as u8 & 31, rt2, read: iss & 1 != 0 })
    }
}

/// As in assembler, without the general-purpose registers.
impl fmt::Display for Coprocessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { coprocessor, opc1, crn, crm, opc2 } = self;
        match crn {
            Some(crn) => write!(f, "p{coprocessor}, {opc1}, c{crn}, c{crm}, {opc2}"),
            None => write!(f, "p{coprocessor}, {opc1}, c{crm}"),
        }
    }
}

impl fmt::Display for CoprocessorAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (way, rt) = (if self.read { "read" } else { "write" }, self.rt);
        write!(f, "{way} of {} with r{rt}", self.register)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn an_access_to_a_coprocessor_decodes_to_its_instruction() {
        let esr = |class: u64, iss: u64| Esr(class << 26 | 1 << 25 | 1 << 24 | 0xe << 20 | iss);
        let decode = |class, iss| CoprocessorAccess::decode(esr(class, iss)).unwrap();
        let pmccntr = decode(0x03, 9 << 10 | 3 << 5 | 13 << 1 | 1);
        assert_eq!(pmccntr.register, Coprocessor::word(15, 0, 9, 13, 0));
        assert_eq!((pmccntr.rt, pmccntr.rt2, pmccntr.read), (3, None, true));
        assert_eq!(format!("{pmccntr}"), "read of p15, 0, c9, c13, 0 with r3");
        let deadline = decode(0x04, 2 << 16 | 5 << 10 | 4 << 5 | 14 << 1);
        assert_eq!(deadline.register, Coprocessor::double(15, 2, 14));
        assert_eq!((deadline.rt, deadline.rt2, deadline.read), (4, Some(5), false));
        assert_eq!(format!("{deadline}"), "write of p15, 2, c14 with r4");
        let rom = decode(0x0c, 7 << 10 | 6 << 5 | 1 << 1 | 1);
        assert_eq!(rom.register, Coprocessor::double(14, 0, 1));
        let all = decode(0x05, 5 << 17 | 6 << 14 | 7 << 10 | 8 << 5 | 9 << 1);
        assert_eq!(all.register, Coprocessor::word(14, 6, 7, 9, 5));
        assert_eq!(CoprocessorAccess::decode(esr(0x06, 0)), None);
        assert_eq!(CoprocessorAccess::decode(esr(0x18, 0)), None);
    }
}
