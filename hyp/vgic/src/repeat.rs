//! The shortest way into a list register: the one that the interrupt was last in. An SGI, a timer or a device that comes again
//! and again takes no other.

use crate::deliver::bit;
use crate::ids::IntId;
use crate::state::{MAX_LIST_REGISTERS, Shared, Vcpu};
use crate::{Hardware, Model};

impl Vcpu {
    /// The common case of [`Cpu::resync`], in few instructions: one SGI or PPI is pending again, the guest has
    /// finished with the list register that it was last in, and nothing else is to be seen to. Then that
    /// register is written as it was. Returns false where it isn't so, having done nothing.
    #[inline]
    pub fn repeat(&mut self, shared: &Shared, hw: &mut impl Hardware) -> bool {
        let mask = self.again & self.bank.latch & self.bank.loaded;
        if self.waiting | self.attention | mask & mask.wrapping_sub(1) != 0 {
            return false;
        }
        let mut source = None;
        if shared.model == Model::V2
            && let Some(sources) = self.sgi_sources.get(mask.trailing_zeros() as usize)
        {
            if sources & sources.wrapping_sub(1) != 0 {
                return false;
            }
            source = Some(sources.trailing_zeros() as u8);
        }
        if !self.present_again(IntId(mask.trailing_zeros() as u16), source, hw) {
            return false;
        }
        self.again = 0;
        self.bank.latch &= !mask;
        true
    }

    /// A PPI, or on GICv3 an SGI, becomes pending while this vCPU is loaded here: [`Vcpu::pend_private`] and
    /// [`Vcpu::repeat`] in one. Returns false where it isn't one of those that are set in `among`, or where that can't be, having
    /// done nothing.
    #[inline(always)]
    pub fn arrive_again(
        &mut self,
        intid: IntId,
        among: u32,
        shared: &Shared,
        hw: &mut impl Hardware,
    ) -> bool {
        let bank = &self.bank;
        bank.allowed(shared.groups) & bank.loaded & !bank.latch & among & intid.bit() != 0
            && self.waiting | self.attention | self.again == 0
            && self.present_again(intid, None, hw)
    }

    /// A mapped SPI becomes pending, which is routed to this vCPU, loaded here, and was here last. Returns false where it isn't
    /// so, or where that can't be, having done nothing.
    #[inline]
    pub fn arrive_again_shared(&mut self, intid: IntId, shared: &mut Shared, hw: &mut impl Hardware) -> bool {
        let (word, mask) = (intid.word(), intid.bit());
        let groups = shared.groups;
        let Some(bank) = shared.banks.get_mut(word.wrapping_sub(1)) else { return false };
        let routed = self.word(&self.targets, word);
        let again = bank.allowed(groups) & bank.loaded & !bank.latch & bank.mapped & routed & mask;
        if again == 0 || self.waiting | self.attention | self.again != 0 {
            return false;
        }
        let Some(n) = self.find(intid) else { return false };
        if !self.write_again(n as u8, None, hw) {
            return false;
        }
        // `active` may be out of date, as for all that is in list registers.
        bank.taken |= mask;
        true
    }

    /// Writes the list register that an SGI or PPI was last in as it was, or with another source, if the guest has finished
    /// with it.
    #[inline(always)]
    fn present_again(&mut self, intid: IntId, source: Option<u8>, hw: &mut impl Hardware) -> bool {
        let Some(n) = self.private_slots.get(usize::from(intid.0)).copied() else { return false };
        if !self.write_again(n, source, hw) {
            return false;
        }
        // As above.
        self.bank.taken |= intid.bit();
        true
    }

    /// Writes list register `n` as it was, or with another source, if the guest has finished with it.
    #[inline(always)]
    fn write_again(&mut self, n: u8, source: Option<u8>, hw: &mut impl Hardware) -> bool {
        let n = n & SLOT_MASK;
        let Some(slot) = self.slots.get_mut(usize::from(n)) else { return false };
        if hw.empty() & bit(u32::from(n)) == 0 {
            return false;
        }
        let mut value = slot.with_state(true, false);
        if let Some(source) = source {
            value = value.with_source(source);
            if let Some(sources) = self.sgi_sources.get_mut(usize::from(value.intid().0)) {
                *sources = 0;
            }
        }
        *slot = value;
        self.fresh = 0;
        self.presented = self.presented.wrapping_add(1);
        hw.write(usize::from(n), value);
        true
    }
}

/// Numbers of list registers.
const SLOT_MASK: u8 = MAX_LIST_REGISTERS as u8 - 1;
const _: () = assert!(MAX_LIST_REGISTERS.is_power_of_two());
