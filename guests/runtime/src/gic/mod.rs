//! The interrupt controller, GICv2 or GICv3, as the tree says. Private interrupts (below 32) are those of the CPU
//! that asks; shared ones are the machine's.
//!
//! On GICv3 all interrupts are put in group 1 and affinity routing is on; on GICv2 they stay in group 0, which is
//! signalled as IRQ there.

mod v2;
mod v3;

use spin::Once;

use crate::machine::{GicRegisters, MAX_CPUS, machine};
use crate::mmio::Mmio;
use crate::{cpu, timer};

pub use v2::cpu_register;

/// Offsets in the distributor, and those of the private banks in a GICv3 redistributor's second page.
pub mod register {
    /// Distributor control.
    pub const CTLR: usize = 0x000;
    /// What the distributor has.
    pub const TYPER: usize = 0x004;
    /// Implementer.
    pub const IIDR: usize = 0x008;
    /// Groups, a bit for each interrupt.
    pub const IGROUPR: usize = 0x080;
    /// Enables.
    pub const ISENABLER: usize = 0x100;
    /// Disables.
    pub const ICENABLER: usize = 0x180;
    /// Makes pending.
    pub const ISPENDR: usize = 0x200;
    /// Makes not pending.
    pub const ICPENDR: usize = 0x280;
    /// Makes active.
    pub const ISACTIVER: usize = 0x300;
    /// Makes inactive.
    pub const ICACTIVER: usize = 0x380;
    /// Priorities, a byte for each interrupt.
    pub const IPRIORITYR: usize = 0x400;
    /// Targets (GICv2), a byte for each interrupt.
    pub const ITARGETSR: usize = 0x800;
    /// Edge or level, two bits for each interrupt.
    pub const ICFGR: usize = 0xc00;
    /// Software-generated interrupts (GICv2).
    pub const SGIR: usize = 0xf00;
    /// Clears pending SGIs by source (GICv2), a byte for each.
    pub const CPENDSGIR: usize = 0xf10;
    /// Sets pending SGIs by source (GICv2), a byte for each.
    pub const SPENDSGIR: usize = 0xf20;
    /// Routes (GICv3), a doubleword for each shared interrupt.
    pub const IROUTER: usize = 0x6000;
    /// Peripheral id 2 on GICv2: the architecture's revision in bits 7 to 4.
    pub const ICPIDR2: usize = 0xfe8;
    /// Peripheral id 2 on GICv3.
    pub const PIDR2: usize = 0xffe8;
}

/// The architecture's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// GICv2.
    V2,
    /// GICv3, used by system registers.
    V3,
}

/// An acknowledged interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt(u32);

impl Interrupt {
    /// Its number.
    pub fn intid(self) -> u32 {
        if version() == Version::V2 { self.0 & 0x3ff } else { self.0 & 0xff_ffff }
    }

    /// For an SGI on GICv2: the CPU interface that sent it, 0 to 7. GICv3 doesn't tell.
    pub fn source(self) -> Option<u32> {
        (version() == Version::V2 && self.intid() < 16).then_some(self.0 >> 10 & 7)
    }
}

/// To whom an SGI goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiTarget {
    /// The CPU with this index.
    Cpu(usize),
    /// All CPUs but the sender.
    Others,
}

/// Which edge or level makes the interrupt pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Pending as long as the line is up.
    Level,
    /// Pending from a rising edge on.
    Edge,
}

/// The priority that [`init_cpu`] and [`init_distributor`] give to all.
pub const DEFAULT_PRIORITY: u8 = 0xa0;

/// A priority mask that lets every priority through.
pub const MASK_NONE: u8 = 0xff;

struct Gic {
    distributor: Mmio,
    cpus: Cpus,
}

/// What each CPU has of its own.
enum Cpus {
    /// The CPU interface, banked by the reader.
    V2 { cpu_interface: Mmio },
    /// The first page of each CPU's redistributor, by index.
    V3 { redistributors: [Option<Mmio>; MAX_CPUS] },
}

static GIC: Once<Gic> = Once::new();

fn gic() -> &'static Gic {
    GIC.get().expect("the interrupt controller has been set up")
}

/// Finds the controller, sets it up, and the boot CPU's part of it.
pub(crate) fn init() {
    GIC.call_once(|| match machine().gic {
        GicRegisters::V2 { distributor, cpu_interface } => Gic {
            distributor: registers(distributor.base),
            cpus: Cpus::V2 { cpu_interface: registers(cpu_interface.base) },
        },
        GicRegisters::V3 { distributor, redistributors } => Gic {
            distributor: registers(distributor.base),
            cpus: Cpus::V3 { redistributors: v3::find_redistributors(&redistributors) },
        },
    });
    init_distributor();
    init_cpu();
}

fn registers(base: u64) -> Mmio {
    // SAFETY: the tree names these as the GIC's registers; RAM doesn't overlap them, and they are mapped as a
    // device.
    unsafe { Mmio::new(base as usize) }
}

/// The version in use.
pub fn version() -> Version {
    match gic().cpus {
        Cpus::V2 { .. } => Version::V2,
        Cpus::V3 { .. } => Version::V3,
    }
}

/// The distributor's registers.
pub fn distributor() -> Mmio {
    gic().distributor
}

/// The CPU interface's registers, on GICv2.
pub fn cpu_interface() -> Option<Mmio> {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => Some(cpu_interface),
        Cpus::V3 { .. } => None,
    }
}

/// The first page of the redistributor of the CPU with this index, on GICv3.
pub fn redistributor(cpu: usize) -> Option<Mmio> {
    match gic().cpus {
        Cpus::V2 { .. } => None,
        Cpus::V3 { redistributors } => redistributors[cpu],
    }
}

/// The registers that hold the state of interrupt `intid`, in the distributor's layout.
pub fn bank(intid: u32) -> Mmio {
    match gic().cpus {
        Cpus::V3 { redistributors } if intid < 32 => {
            v3::sgi_page(redistributors[cpu::index()].expect("this CPU's redistributor"))
        }
        _ => distributor(),
    }
}

/// How many interrupts the distributor has, private ones included.
pub fn interrupt_count() -> u32 {
    (32 * ((distributor().read32(register::TYPER) & 0x1f) + 1)).min(1020)
}

/// Puts the distributor into its starting state: forwarding on, every shared interrupt disabled, neither pending nor
/// active, level-triggered, at the default priority, in the group in use, and routed to the boot CPU.
pub fn init_distributor() {
    let gicd = distributor();
    enable_distributor(false);
    for intid in (32..interrupt_count()).step_by(32) {
        reset_word(gicd, intid);
    }
    for intid in (32..interrupt_count()).step_by(4) {
        gicd.write32(register::IPRIORITYR + intid as usize, u32::from_ne_bytes([DEFAULT_PRIORITY; 4]));
    }
    for intid in (32..interrupt_count()).step_by(16) {
        gicd.write32(register::ICFGR + intid as usize / 4, 0);
    }
    for intid in 32..interrupt_count() {
        route(intid, 0);
    }
    enable_distributor(true);
}

/// Disables, clears and groups the 32 interrupts from `intid` on.
fn reset_word(bank: Mmio, intid: u32) {
    let at = intid as usize / 8;
    bank.write32(register::ICENABLER + at, u32::MAX);
    bank.write32(register::ICPENDR + at, u32::MAX);
    bank.write32(register::ICACTIVER + at, u32::MAX);
    set_default_groups(intid);
}

/// Puts the 32 interrupts around `intid` into the group in use.
pub fn set_default_groups(intid: u32) {
    let group = if version() == Version::V3 { u32::MAX } else { 0 };
    bank(intid).write32(register::IGROUPR + intid as usize / 32 * 4, group);
}

/// Turns forwarding of all groups on or off (GICD_CTLR).
pub fn enable_distributor(enable: bool) {
    match version() {
        Version::V2 => distributor().write32(register::CTLR, u32::from(enable)),
        Version::V3 => v3::enable_distributor(distributor(), enable),
    }
}

/// Sets up this CPU's part: private interrupts as [`init_distributor`] does the shared ones, SGIs enabled, all
/// priorities let through.
pub fn init_cpu() {
    if let Some(redistributor) = redistributor(cpu::index()) {
        v3::wake(redistributor);
    }
    let bank = bank(0);
    reset_word(bank, 0);
    if version() == Version::V2 {
        v2::clear_sgis(bank);
    }
    for intid in (0..32).step_by(4) {
        bank.write32(register::IPRIORITYR + intid, u32::from_ne_bytes([DEFAULT_PRIORITY; 4]));
    }
    bank.write32(register::ISENABLER, 0xffff);
    init_interface();
}

/// Sets up this CPU's interface alone: on, with all priorities let through.
pub fn init_interface() {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::init_interface(cpu_interface),
        Cpus::V3 { .. } => v3::init_interface(),
    }
    cpu::synchronize();
}

/// Disables this CPU's private interrupts and stops its timers, before it goes off.
pub fn quiesce_cpu() {
    timer::Timer::ALL.iter().for_each(|timer| timer.stop());
    bank(0).write32(register::ICENABLER, u32::MAX);
    set_priority_mask(0);
}

fn write_bit(register: usize, intid: u32) {
    bank(intid).write32(register + intid as usize / 32 * 4, 1 << (intid % 32));
    cpu::synchronize();
}

fn read_bit(register: usize, intid: u32) -> bool {
    bank(intid).read32(register + intid as usize / 32 * 4) >> (intid % 32) & 1 != 0
}

/// Enables an interrupt.
pub fn enable(intid: u32) {
    write_bit(register::ISENABLER, intid);
}

/// Disables an interrupt, for good by the time this returns.
pub fn disable(intid: u32) {
    write_bit(register::ICENABLER, intid);
    if version() == Version::V3 {
        v3::wait_for_write(bank(intid), intid);
    }
}

/// Whether an interrupt is enabled.
pub fn is_enabled(intid: u32) -> bool {
    read_bit(register::ISENABLER, intid)
}

/// Makes an interrupt pending by software; not for SGIs on GICv2, which have no such bit.
pub fn set_pending(intid: u32) {
    write_bit(register::ISPENDR, intid);
}

/// Takes back what [`set_pending`] or an edge did.
pub fn clear_pending(intid: u32) {
    write_bit(register::ICPENDR, intid);
}

/// Whether an interrupt is pending, for any reason.
pub fn is_pending(intid: u32) -> bool {
    read_bit(register::ISPENDR, intid)
}

/// Whether an interrupt is active.
pub fn is_active(intid: u32) -> bool {
    read_bit(register::ISACTIVER, intid)
}

/// Makes an interrupt active by software.
pub fn set_active(intid: u32) {
    write_bit(register::ISACTIVER, intid);
}

/// Makes an interrupt inactive by software.
pub fn clear_active(intid: u32) {
    write_bit(register::ICACTIVER, intid);
}

/// Sets a priority, 0 being the most urgent; how many of the upper bits count is up to the controller.
pub fn set_priority(intid: u32, priority: u8) {
    bank(intid).write8(register::IPRIORITYR + intid as usize, priority);
    cpu::synchronize();
}

/// The priority as it reads back.
pub fn priority(intid: u32) -> u8 {
    bank(intid).read8(register::IPRIORITYR + intid as usize)
}

/// Says what makes the interrupt pending.
pub fn set_trigger(intid: u32, trigger: Trigger) {
    let (bank, at, shift) = (bank(intid), register::ICFGR + intid as usize / 16 * 4, intid % 16 * 2);
    let value = bank.read32(at) & !(0b11 << shift);
    bank.write32(at, value | if trigger == Trigger::Edge { 0b10 << shift } else { 0 });
}

/// Routes a shared interrupt to the CPU with this index.
pub fn route(intid: u32, cpu: usize) {
    match version() {
        Version::V2 => distributor().write8(register::ITARGETSR + intid as usize, v2::target(cpu)),
        Version::V3 => {
            distributor().write64(register::IROUTER + 8 * intid as usize, machine().cpus()[cpu]);
        }
    }
}

/// Sends SGI `intid` (0 to 15).
pub fn send_sgi(intid: u32, target: SgiTarget) {
    // What was written before is to be seen by who gets the interrupt.
    cpu::synchronize();
    match version() {
        Version::V2 => v2::send_sgi(distributor(), intid, target),
        Version::V3 => v3::send_sgi(intid, target),
    }
    cpu::synchronize();
}

/// What [`send_sgi`] writes, for who sends by an instruction of its own: the address of GICD_SGIR, which GICv2 has, or 0 for
/// ICC_SGI1R_EL1, and the value.
pub(crate) fn sgi_write(intid: u32, target: SgiTarget) -> (usize, u64) {
    match version() {
        Version::V2 => (distributor().base() + register::SGIR, u64::from(v2::sgi_value(intid, target))),
        Version::V3 => (0, v3::sgi_value(intid, target)),
    }
}

/// Takes the most urgent pending interrupt, if it is urgent enough for this CPU.
pub fn acknowledge() -> Option<Interrupt> {
    let raw = match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::acknowledge(cpu_interface),
        Cpus::V3 { .. } => v3::acknowledge(),
    };
    let interrupt = Interrupt(raw);
    (!(1020..1024).contains(&interrupt.intid())).then_some(interrupt)
}

/// Ends an interrupt: drops the running priority and, unless [`split_end`] is on, deactivates it.
pub fn end(interrupt: Interrupt) {
    cpu::synchronize();
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::end(cpu_interface, interrupt.0),
        Cpus::V3 { .. } => v3::end(interrupt.0),
    }
    cpu::synchronize();
}

/// Makes [`end`] drop the priority alone, and [`deactivate`] do the rest (EOImode), on this CPU.
pub fn split_end(split: bool) {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::split_end(cpu_interface, split),
        Cpus::V3 { .. } => v3::split_end(split),
    }
}

/// Deactivates an interrupt that was ended with [`split_end`] on.
pub fn deactivate(interrupt: Interrupt) {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::deactivate(cpu_interface, interrupt.0),
        Cpus::V3 { .. } => v3::deactivate(interrupt.0),
    }
    cpu::synchronize();
}

/// Lets through only what is more urgent than `mask` on this CPU.
pub fn set_priority_mask(mask: u8) {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::set_priority_mask(cpu_interface, mask),
        Cpus::V3 { .. } => v3::set_priority_mask(mask),
    }
    cpu::synchronize();
}

/// The priority mask as it reads back.
pub fn priority_mask() -> u8 {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::priority_mask(cpu_interface),
        Cpus::V3 { .. } => v3::priority_mask(),
    }
}

/// The priority of what this CPU handles; idle is 0xff, or what of it the controller implements.
pub fn running_priority() -> u8 {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::running_priority(cpu_interface),
        Cpus::V3 { .. } => v3::running_priority(),
    }
}

/// The interrupt that [`acknowledge`] would take, 1020 and above meaning none.
pub fn highest_pending() -> u32 {
    match gic().cpus {
        Cpus::V2 { cpu_interface } => v2::highest_pending(cpu_interface),
        Cpus::V3 { .. } => v3::highest_pending(),
    }
}

/// Ends whatever this CPU has acknowledged and not ended, so that its running priority is idle again. For cleaning
/// up after something went wrong.
pub fn drop_priorities() {
    const LEVELS: usize = 32;
    for _ in 0..LEVELS {
        // The idle priority's unimplemented low bits may read as zero.
        if running_priority() >= 0xf8 {
            return;
        }
        end(Interrupt(0));
    }
}

/// Sends an SGI to an empty list of CPUs, by every register that sends SGIs on this version.
pub fn send_to_nobody(intid: u32) {
    match gic().cpus {
        Cpus::V2 { .. } => distributor().write32(register::SGIR, intid),
        Cpus::V3 { .. } => v3::send_to_nobody(intid),
    }
}

/// A register that sends SGIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiRegister {
    /// GICD_SGIR on GICv2, ICC_SGI1R_EL1 on GICv3.
    Own,
    /// ICC_ASGI1R_EL1; on GICv2 as [`Own`](Self::Own).
    OtherState,
    /// ICC_SGI0R_EL1; on GICv2 as [`Own`](Self::Own).
    Group0,
}

/// Writes any value to a register that sends SGIs.
pub fn send_raw_sgi(register: SgiRegister, value: u64) {
    match gic().cpus {
        Cpus::V2 { .. } => distributor().write32(self::register::SGIR, value as u32),
        Cpus::V3 { .. } => v3::send_raw_sgi(register, value),
    }
    cpu::synchronize();
}
