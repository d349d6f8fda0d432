//! The shortest way into a list register: the one that the interrupt was last in. An SGI or a timer that comes again
//! and again takes no other.

use crate::deliver::bit;
use crate::state::{Shared, Vcpu};
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
        let Some(&n) = self.private_slots.get(mask.trailing_zeros() as usize) else { return false };
        let Some(slot) = self.slots.get_mut(usize::from(n)) else { return false };
        if hw.empty() & bit(u32::from(n)) == 0 {
            return false;
        }
        if shared.model == Model::V2
            && let Some(sources) = self.sgi_sources.get_mut(usize::from(slot.intid().0))
        {
            if *sources & sources.wrapping_sub(1) != 0 {
                return false;
            }
            *slot = slot.with_source(sources.trailing_zeros() as u8);
            *sources = 0;
        }
        *slot = slot.with_state(true, false);
        self.again = 0;
        self.bank.latch &= !mask;
        // `active` may be out of date, as for all that is in list registers.
        self.bank.taken |= mask;
        self.fresh = 0;
        self.presented = self.presented.wrapping_add(1);
        hw.write(usize::from(n), *slot);
        true
    }
}
