//! The state of the virtual interrupt controller: what all vCPUs share, and what each has for itself.

use crate::bank::{Bank, Bits};
use crate::ids::{Affinity, IntId, Kicks, PhysicalIntId, VcpuId};
use crate::{Line, ListRegister, Maintenance, Model};
use alloc::boxed::Box;

/// List registers that the architecture has room for.
pub(crate) const MAX_LIST_REGISTERS: usize = 16;

/// In [`Vcpu::attention`]: list registers must be looked at.
pub(crate) const LOOK: u32 = 1;
/// In [`Vcpu::attention`]: list registers in use must each be read, and written where they should be different.
pub(crate) const RECHECK: u32 = 2;

/// In [`Vcpu::attention`]: no call for attention by itself, but [`Vcpu::repeat`] can't do all that there is to do. There
/// are maintenance interrupts to expect, or active interrupts that are in no list register.
pub(crate) const BUSY: u32 = 4;

/// No vCPU: an SPI that is routed nowhere.
pub(crate) const NOBODY: u8 = 0xff;

/// Words of 32 interrupts: the private one and 31 of SPIs.
pub(crate) const WORDS: usize = 32;

/// Routing of one SPI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spi {
    /// The vCPU that it goes to, or [`NOBODY`].
    pub target: u8,
    /// The vCPU where it is in a list register, or active. Meaningful only then.
    pub holder: u8,
    /// GICv2 `ITARGETSR`.
    pub targets: u8,
    /// GICv3 `IROUTER`.
    pub route: Affinity,
    /// The physical interrupt, where mapped.
    pub physical: PhysicalIntId,
}

/// What all vCPUs share.
pub(crate) struct Shared {
    pub model: Model,
    /// All ones where the group is enabled in `GICD_CTLR`, else zero.
    pub groups: [u32; 2],
    /// SPIs: word w (1..) is at w - 1.
    pub banks: Box<[Bank]>,
    /// SPI n is at n.
    pub spis: Box<[Spi]>,
    /// GICD_TYPER.
    pub typer: u32,
    /// GICv3: vCPU 16i + n has Aff1 = i and Aff0 = n, and no other field, so that a list of SGIs' targets is a set of vCPUs.
    pub numbered: bool,
}

impl Shared {
    /// The interrupts of `bank` that are pending and enabled, and their group too.
    #[inline]
    pub fn signalled(&self, bank: &Bank) -> u32 {
        bank.pending() & bank.allowed(self.groups)
    }

    pub fn spi(&self, intid: IntId) -> Option<&Spi> {
        self.spis.get(usize::from(intid.0).checked_sub(32)?)
    }

    pub fn spi_mut(&mut self, intid: IntId) -> Option<&mut Spi> {
        self.spis.get_mut(usize::from(intid.0).checked_sub(32)?)
    }

    /// The physical interrupt that a mapped one of `vcpu` stands for.
    #[inline]
    pub fn physical(&self, vcpu: &Vcpu, intid: IntId) -> Option<PhysicalIntId> {
        if intid.is_private() {
            return vcpu.physical.get(usize::from(intid.0)).copied();
        }
        self.spi(intid).map(|spi| spi.physical)
    }
}

/// What every vCPU has for itself. In this order, what is looked at when it is loaded or saved is near enough to be loaded in pairs.
#[repr(C)]
pub(crate) struct Vcpu {
    /// SGIs and PPIs.
    pub bank: Bank,
    /// Words that may hold an interrupt that is deliverable here and not in a list register. A superset:
    /// choosing the next interrupt clears bits that prove empty.
    pub waiting: u32,
    /// SGIs and PPIs that became pending while the list register that they were last in hadn't been looked at.
    pub again: u32,
    /// List registers in use.
    pub used: u32,
    /// Words that may hold an interrupt that is active here and not in a list register. A superset too.
    pub spilled: u32,
    /// What is to be done with the list registers: [`LOOK`], [`RECHECK`], [`BUSY`].
    pub attention: u32,
    /// What the hardware was last told.
    pub maintenance: Maintenance,
    /// vCPUs that wait for this one's list registers to be read.
    pub asked_by: u64,
    /// Loaded on a physical CPU.
    pub running: bool,
    /// `GICR_WAKER.ProcessorSleep`.
    pub asleep: bool,
    pub affinity: Affinity,
    /// Its [`Affinity::to_sgi1r`].
    pub sgi_to_itself: u64,
    /// Of the list registers in use, the ones that raise the maintenance interrupt at their end.
    pub eoi: u32,
    /// Of these, the ones that were pending and not active when last read or written.
    pub pure: u32,
    /// List registers whose interrupt a register write made active, or inactive.
    pub set_active: u32,
    pub clear_active: u32,
    /// What they were last written with.
    pub slots: [ListRegister; MAX_LIST_REGISTERS],
    /// Where an SGI or PPI that is in a list register is.
    pub private_slots: [u8; 32],
    /// Bit i of word w: interrupt 32w + i is routed here. Word 0 is all ones.
    pub targets: [u32; WORDS],
    /// Bit i of word w: interrupt 32w + i is in a list register here, or active here. Word 0 is all ones.
    pub held: [u32; WORDS],
    /// GICv2: the CPUs that have sent each SGI and are not in a list register.
    pub sgi_sources: [u8; 16],
    /// GICv2: the source of each SGI that is active.
    pub sgi_active: [u8; 16],
    /// vCPUs whose list registers were read since this one asked.
    pub fresh: u64,
    /// Interrupts that were put before it, since it was built.
    pub presented: u64,
    /// Physical interrupts of mapped private lines.
    pub physical: [PhysicalIntId; 32],
}

impl Vcpu {
    /// There is something to do when list registers are next at hand.
    #[inline]
    pub fn needs_sync(&self) -> bool {
        self.waiting | self.again | self.attention & (LOOK | RECHECK) != 0
    }

    /// The mapped private lines that are in the physical distributor while it is loaded.
    #[inline]
    fn physical_lines(&self) -> u32 {
        self.bank.enabled & self.bank.mapped | self.bank.private_active() | self.bank.forced
    }

    /// It is to be loaded, and nothing of it has to go into the hardware.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.spilled | self.physical_lines() == 0 && !self.needs_sync()
    }

    /// It is to be saved, nothing of it is in the hardware, and nobody waits for its list registers to be read.
    #[inline]
    pub fn was_idle(&self) -> bool {
        u64::from(self.used | self.spilled | self.maintenance.bits() | self.physical_lines()) | self.asked_by
            == 0
    }

    /// It is taken off its physical CPU, with nothing left there.
    #[inline]
    pub fn leave(&mut self) {
        self.again = 0;
        self.attention = 0;
        self.running = false;
    }

    pub fn word(&self, words: &[u32; WORDS], w: usize) -> u32 {
        words.get(w).copied().unwrap_or(0)
    }

    /// The interrupts of word `w` that could be put into a list register now.
    #[inline]
    pub fn deliverable(&self, shared: &Shared, w: usize) -> u32 {
        if w == 0 {
            return shared.signalled(&self.bank) & !self.bank.active & !self.bank.loaded;
        }
        let Some(bank) = shared.banks.get(w.wrapping_sub(1)) else { return 0 };
        shared.signalled(bank) & !bank.active & !bank.loaded & self.word(&self.targets, w)
    }

    /// As [`Vgic::touch`], for this vCPU's SGIs and PPIs.
    #[inline]
    pub fn touch_private(&mut self, shared: &Shared, id: VcpuId, changed: u32) -> Kicks {
        let loaded = self.bank.loaded & changed;
        let new = self.deliverable(shared, 0) & changed;
        self.attention |= if loaded == 0 { 0 } else { RECHECK };
        self.waiting |= u32::from(new != 0);
        if loaded | new == 0 { Kicks::NONE } else { Kicks(id.mask()) }
    }

    /// The SGIs or PPIs at `mask` have become pending by `latch`.
    #[inline]
    pub fn pend_private(&mut self, shared: &Shared, id: VcpuId, mask: u32) -> Kicks {
        self.bank.latch |= mask;
        let signalled = shared.signalled(&self.bank) & mask;
        self.again |= signalled & self.bank.loaded;
        self.waiting |= u32::from(signalled & !self.bank.loaded & !self.bank.active != 0);
        // An interrupt that can't be signalled may still be pending in a list register, or active: nothing
        // changes there until it can.
        if signalled == 0 { Kicks::NONE } else { Kicks(id.mask()) }
    }

    /// The list register that holds `intid`.
    pub fn find(&self, intid: IntId) -> Option<u32> {
        Bits(self.used).find(|&n| self.slots.get(n as usize).is_some_and(|slot| slot.intid() == intid))
    }
}

/// Where a word of 32 interrupts is: word 0 is the private one of `vcpu`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub vcpu: VcpuId,
    pub word: usize,
}

impl Place {
    pub fn of(vcpu: VcpuId, intid: IntId) -> Place {
        Place { vcpu, word: intid.word() }
    }

    /// The interrupt at bit `n`.
    pub fn intid(self, n: u32) -> IntId {
        IntId((self.word as u16) << 5 | n as u16)
    }
}

/// The virtual interrupt controller of one VM.
///
/// Every call is made under the VM's lock. `vcpu` is the vCPU that the call is about or that makes an access;
/// where a call takes hardware, `vcpu` is loaded on the physical CPU that makes the call. An identifier that the
/// VM doesn't have is ignored.
pub struct Vgic {
    pub(crate) shared: Shared,
    pub(crate) vcpus: Box<[Vcpu]>,
}

impl Vgic {
    pub(crate) fn bank(&self, place: Place) -> Option<&Bank> {
        if place.word == 0 {
            return self.vcpus.get(place.vcpu.index()).map(|vcpu| &vcpu.bank);
        }
        self.shared.banks.get(place.word.wrapping_sub(1))
    }

    pub(crate) fn bank_mut(&mut self, place: Place) -> Option<&mut Bank> {
        if place.word == 0 {
            return self.vcpus.get_mut(place.vcpu.index()).map(|vcpu| &mut vcpu.bank);
        }
        self.shared.banks.get_mut(place.word.wrapping_sub(1))
    }

    /// The physical line behind a mapped interrupt, if it can be reached now: a private one only while its vCPU
    /// is loaded.
    pub(crate) fn line(&self, place: Place, n: u32) -> Option<Line> {
        let virt = place.intid(n);
        let (vcpu, physical) = match self.shared.spi(virt) {
            Some(spi) if spi.target == NOBODY => (VcpuId(0), spi.physical),
            Some(spi) => (VcpuId(spi.target), spi.physical),
            None => {
                let vcpu = self.vcpus.get(place.vcpu.index()).filter(|vcpu| vcpu.running)?;
                (place.vcpu, self.shared.physical(vcpu, virt)?)
            }
        };
        Some(Line { vcpu, virt, physical })
    }

    /// Something about the interrupts in `changed` is not as it was: those in list registers must be looked at,
    /// and those that are deliverable now must get into one.
    #[inline]
    pub(crate) fn touch(&mut self, place: Place, changed: u32) -> Kicks {
        if place.word != 0 {
            return self.touch_shared(place.word, changed);
        }
        let Some(vcpu) = self.vcpus.get_mut(place.vcpu.index()) else { return Kicks::NONE };
        vcpu.touch_private(&self.shared, place.vcpu, changed)
    }

    fn touch_shared(&mut self, word: usize, changed: u32) -> Kicks {
        let Some(bank) = self.shared.banks.get(word.wrapping_sub(1)) else { return Kicks::NONE };
        let mut kicks = Kicks::NONE;
        for n in Bits(bank.loaded & changed) {
            let Some(spi) = self.shared.spi(Place { vcpu: VcpuId(0), word }.intid(n)) else { continue };
            let Some(vcpu) = self.vcpus.get_mut(usize::from(spi.holder)) else { continue };
            vcpu.attention |= RECHECK;
            kicks |= Kicks(VcpuId(spi.holder).mask());
        }
        kicks | self.announce(word, changed)
    }

    /// Tell the vCPUs that the SPIs in `changed` are routed to of those that are deliverable.
    pub(crate) fn announce(&mut self, word: usize, changed: u32) -> Kicks {
        let Some(bank) = self.shared.banks.get(word.wrapping_sub(1)) else { return Kicks::NONE };
        let mut kicks = Kicks::NONE;
        for n in Bits(self.shared.signalled(bank) & !bank.active & !bank.loaded & changed) {
            let Some(spi) = self.shared.spi(Place { vcpu: VcpuId(0), word }.intid(n)) else { continue };
            let Some(vcpu) = self.vcpus.get_mut(usize::from(spi.target)) else { continue };
            vcpu.waiting |= 1u32.wrapping_shl(word as u32);
            kicks |= Kicks(VcpuId(spi.target).mask());
        }
        kicks
    }
}
