//! The board's interrupt controller: set up, EL2's own interrupts, and the list registers and physical lines as the
//! `vgic` crate wants them.
//!
//! GICv2 and GICv3 differ in how everything is reached, so there is one [`CpuGic`] with two kinds of interface, matched where it is
//! used; code that runs on most exits matches once and is compiled for each.

use core::cell::Cell;
use core::sync::atomic::{AtomicU8, Ordering};

use alloc::vec::Vec;
use platform::gic::{Trigger, v2, v3};
use platform::tree::{Board, FIRST_SPI, Gic, Timer};
use spin::Once;
use vgic::{CpuInterface, Line, ListRegister, ListRegisters, Maintenance, Model, Physical, PhysicalIntId};

use crate::cpu;
use crate::lock::Mutex;
use crate::percpu::{self, PerCpu, own, this_cpu};

/// The SGI that makes a CPU look at its requests.
pub const KICK: u32 = 0;

/// What no interrupt is: one of `platform::gic::SPECIAL`.
const NO_INTERRUPT: u32 = 1023;

/// What an acknowledged interrupt is, and what ends it.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    /// Its INTID; 1020 and above: none.
    pub intid: u32,
    /// What EOIR and DIR want back.
    token: u32,
}

/// INTIDs of EL2's own private interrupts and of those that guests' timers raise.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// Maintenance of list registers.
    pub maintenance: u32,
    /// The generic timer's.
    pub timer: Timer,
}

enum Distributor {
    V2(v2::Distributor),
    V3(v3::Distributor),
}

impl Distributor {
    fn has_spi(&self, intid: u32) -> bool {
        match self {
            Self::V2(distributor) => distributor.has_spi(intid),
            Self::V3(distributor) => distributor.has_spi(intid),
        }
    }
}

struct Controller {
    distributor: Distributor,
    lines: Lines,
    /// Overflow of each CPU's performance counters, by its number: a PPI, or an SPI of its own. None, unless all CPUs have one.
    counters: Vec<u32>,
    board: Gic,
    /// GICv3: of each CPU, by its number.
    redistributors: Vec<Once<v3::Redistributor>>,
    /// GICv2: of each CPU, its bit in target masks.
    targets: Vec<AtomicU8>,
    /// GICv2: physical interrupts that guests have are deactivated here ([`EndedHere`]).
    ends_here: bool,
    /// Who holds it may change how an interrupt is signalled.
    triggers: Mutex<()>,
}

static CONTROLLER: Once<Controller> = Once::new();

/// The interrupt controller as the CPU that runs sees it.
pub struct CpuGic {
    interface: Interface,
    controller: &'static Controller,
    /// Overflow of this CPU's performance counters, or [`NO_INTERRUPT`].
    counters: u32,
}

enum Interface {
    V2(v2::Interface),
    V3(v3::Interface),
}

/// What the board lacks.
#[derive(Debug, thiserror::Error)]
pub enum GicError {
    /// Neither kind of GIC, or no timer.
    #[error("the device tree has no interrupt controller or timer")]
    Missing,
}

/// Sets the distributor up, all lines off. By the boot CPU, with the full map in place.
///
/// # Errors
/// The board can't be used.
pub fn init(board: &Board<'_>) -> Result<(), GicError> {
    let (Some(gic), Some(timer)) = (&board.gic, board.timer) else { return Err(GicError::Missing) };
    let (distributor, maintenance) = match gic {
        Gic::V2 { gicd, maintenance, .. } => {
            // SAFETY: the tree says that a GICv2's distributor is there, and EL2 maps it as device memory for ever.
            let distributor = unsafe { v2::Distributor::new(gicd.start.as_u64() as usize) };
            distributor.init();
            (Distributor::V2(distributor), *maintenance)
        }
        Gic::V3 { gicd, maintenance, .. } => {
            // SAFETY: as above, of a GICv3.
            let distributor = unsafe { v3::Distributor::new(gicd.start.as_u64() as usize) };
            distributor.init();
            (Distributor::V3(distributor), *maintenance)
        }
    };
    let ends_here = matches!(&distributor, Distributor::V2(distributor) if distributor.forgets_levels());
    if ends_here {
        log::debug!("the GIC forgets levels at a virtual EOI: guests' timer interrupts are ended by EL2");
    }
    let lines = Lines { maintenance, timer };
    let counters = percpu::all().map(|cpu| counters_of(board, &distributor, cpu));
    let counters = counters.collect::<Option<Vec<_>>>().filter(|_| cpu::has_counters()).unwrap_or_default();
    CONTROLLER.call_once(|| Controller {
        distributor,
        lines,
        counters,
        board: gic.clone(),
        redistributors: percpu::all().map(|_| Once::new()).collect(),
        targets: percpu::all().map(|_| AtomicU8::new(0)).collect(),
        ends_here,
        triggers: Mutex::new(()),
    });
    Ok(())
}

/// The interrupt of a CPU's performance counters, if the tree has one that there is.
fn counters_of(board: &Board<'_>, distributor: &Distributor, cpu: &PerCpu) -> Option<u32> {
    let intid = board.cpus.iter().find(|of| of.mpidr == cpu.mpidr)?.counters?;
    (intid < FIRST_SPI || distributor.has_spi(intid)).then_some(intid)
}

/// Sets up what the CPU that runs has of its own, with EL2's interrupts on.
///
/// # Errors
/// Why this CPU can't be used: it would get no interrupts.
pub fn init_cpu() -> Result<(), &'static str> {
    let Some(controller) = CONTROLLER.get() else { return Err("there is no interrupt controller") };
    let cpu = this_cpu();
    let interface = match (&controller.board, &controller.distributor) {
        (Gic::V2 { gicc, gich, .. }, Distributor::V2(distributor)) => {
            distributor.init_private();
            if let Some(target) = controller.targets.get(cpu.index) {
                target.store(distributor.own_target(), Ordering::Relaxed);
            }
            let (gicc, gich) = (gicc.start.as_u64() as usize, gich.start.as_u64() as usize);
            // SAFETY: the tree says that a GICv2's interfaces are there, and EL2 maps them as device memory for ever.
            Interface::V2(unsafe { v2::Interface::init(gicc, gich) })
        }
        (Gic::V3 { redistributors, stride, .. }, _) => {
            // SAFETY: the tree says that these are redistributors, and EL2 maps them as device memory for ever.
            let found = unsafe { v3::Redistributor::find(redistributors, *stride, cpu.mpidr) };
            match (found, controller.redistributors.get(cpu.index)) {
                (Some(redistributor), Some(slot)) => slot.call_once(|| redistributor).init(),
                _ => return Err("the GIC has no redistributor for it"),
            }
            let Some(interface) = v3::Interface::init() else {
                return Err("firmware keeps the GIC's system registers off (ICC_SRE_EL2.SRE)");
            };
            // Guests have system registers, and can't turn them off: SRE, DFB, DIB.
            crate::sysreg::write_sysreg!("ICC_SRE_EL1", 0b111);
            Interface::V3(interface)
        }
        _ => return Err("the interrupt controller is not what the device tree says"),
    };
    let counters = controller.counters.get(cpu.index).copied();
    if let Some(intid) = counters.filter(|intid| *intid >= FIRST_SPI) {
        controller.route(intid, cpu);
        controller.set_trigger(intid, Trigger::Level);
    }
    let counters = counters.unwrap_or(NO_INTERRUPT);
    own().gic.get_or_init(|| CpuGic { interface, controller, counters });
    // This turns the virtual CPU interface on.
    with_hardware!(|hardware| hardware.set_maintenance(Maintenance::NONE));
    for intid in [KICK, controller.lines.maintenance, controller.lines.timer.hypervisor] {
        controller.set_enabled(cpu.index, intid, true);
    }
    Ok(())
}

/// The architecture version, which guests see too.
pub fn model() -> Model {
    match CONTROLLER.get().map(|controller| &controller.distributor) {
        Some(Distributor::V2(_)) => Model::V2,
        _ => Model::V3,
    }
}

/// Sends an SPI of EL2's own to the CPU that runs, and turns it on.
pub fn take_spi(intid: u32, trigger: Trigger) {
    let Some(controller) = CONTROLLER.get() else { return };
    controller.route(intid, this_cpu());
    controller.set_trigger(intid, trigger);
    controller.set_enabled(this_cpu().index, intid, true);
}

/// Whether the board has this SPI.
pub fn has_spi(intid: u32) -> bool {
    CONTROLLER.get().is_some_and(|controller| controller.distributor.has_spi(intid))
}

/// The interrupt of a CPU's performance counters, which whoever is loaded there has; none, unless all CPUs have one.
pub fn counters(cpu: usize) -> Option<PhysicalIntId> {
    let intid = CONTROLLER.get()?.counters.get(cpu)?;
    u16::try_from(*intid).ok().map(PhysicalIntId)
}

/// Sends an SPI of a guest's device, which is off, to a CPU. It stays off until the guest turns it on.
pub fn give_spi(intid: u32, trigger: Trigger, cpu: &PerCpu) {
    let Some(controller) = CONTROLLER.get() else { return };
    controller.route(intid, cpu);
    controller.set_trigger(intid, trigger);
}

/// Turns off an interrupt that nobody owns, on this CPU.
pub fn silence(intid: u32) {
    let Some(controller) = CONTROLLER.get() else { return };
    controller.set_enabled(this_cpu().index, intid, false);
}

/// Makes another CPU exit from its guest, or wake.
pub fn kick(target: &PerCpu) {
    let Some(controller) = CONTROLLER.get() else { return };
    // What the kick is about must be seen by the CPU that takes it.
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::ISHST);
    match (&controller.distributor, own().gic.get().map(|gic| &gic.interface)) {
        (Distributor::V2(distributor), _) => {
            let mask = controller.targets.get(target.index).map_or(0, |mask| mask.load(Ordering::Relaxed));
            distributor.send_sgi(mask, KICK);
        }
        (Distributor::V3(_), Some(Interface::V3(interface))) => interface.send_sgi(target.mpidr, KICK),
        _ => {}
    }
}

/// What is done to an interrupt; a private one on the CPU with this number.
impl Controller {
    fn redistributor(&self, cpu: usize) -> Option<&v3::Redistributor> {
        self.redistributors.get(cpu).and_then(Once::get)
    }

    fn set_enabled(&self, cpu: usize, intid: u32, enabled: bool) {
        match (&self.distributor, intid) {
            (Distributor::V2(distributor), _) => distributor.set_enabled(intid, enabled),
            (Distributor::V3(distributor), 32..) => distributor.set_enabled(intid, enabled),
            (Distributor::V3(_), _) => {
                if let Some(redistributor) = self.redistributor(cpu) {
                    redistributor.set_enabled(intid, enabled);
                }
            }
        }
    }

    fn set_active(&self, cpu: usize, intid: u32, active: bool) {
        // An acknowledge by system register must reach the distributor before this does.
        aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
        match (&self.distributor, intid) {
            (Distributor::V2(distributor), _) => distributor.set_active(intid, active),
            (Distributor::V3(distributor), 32..) => distributor.set_active(intid, active),
            (Distributor::V3(_), _) => {
                if let Some(redistributor) = self.redistributor(cpu) {
                    redistributor.set_active(1u32.wrapping_shl(intid), active);
                }
            }
        }
    }

    fn is_pending(&self, cpu: usize, intid: u32) -> bool {
        match (&self.distributor, intid) {
            (Distributor::V2(distributor), _) => distributor.is_pending(intid),
            (Distributor::V3(distributor), 32..) => distributor.is_pending(intid),
            (Distributor::V3(_), _) => {
                let pending = self.redistributor(cpu).map_or(0, v3::Redistributor::pending);
                pending & 1u32.wrapping_shl(intid) != 0
            }
        }
    }

    fn set_pending(&self, cpu: usize, intid: u32, pending: bool) {
        match (&self.distributor, intid) {
            (Distributor::V2(distributor), _) => distributor.set_pending(intid, pending),
            (Distributor::V3(distributor), 32..) => distributor.set_pending(intid, pending),
            (Distributor::V3(_), _) => {
                if let Some(redistributor) = self.redistributor(cpu) {
                    redistributor.set_pending(1u32.wrapping_shl(intid), pending);
                }
            }
        }
    }

    /// Sends an SPI to a CPU.
    fn route(&self, intid: u32, cpu: &PerCpu) {
        match &self.distributor {
            Distributor::V2(distributor) => {
                let target = self.targets.get(cpu.index).map_or(0, |target| target.load(Ordering::Relaxed));
                distributor.route(intid, target);
            }
            Distributor::V3(distributor) => distributor.route(intid, cpu.mpidr),
        }
    }

    /// Sets how an SPI is signalled.
    fn set_trigger(&self, intid: u32, trigger: Trigger) {
        let _alone = self.triggers.lock();
        match &self.distributor {
            Distributor::V2(distributor) => distributor.set_trigger(intid, trigger),
            Distributor::V3(distributor) => distributor.set_trigger(intid, trigger),
        }
    }
}

impl CpuGic {
    /// EL2's interrupts and the timers'.
    #[inline]
    pub fn lines(&self) -> &'static Lines {
        &self.controller.lines
    }

    /// Whether this is the interrupt of this CPU's performance counters.
    #[inline]
    pub fn is_counters(&self, intid: u32) -> bool {
        intid == self.counters
    }

    /// The same for the vGIC.
    #[inline]
    pub fn hardware(&self) -> Hardware<'_> {
        match &self.interface {
            Interface::V2(interface) => Hardware::V2(HardwareV2(interface, self.controller)),
            Interface::V3(interface) => Hardware::V3(HardwareV3(interface, self.controller)),
        }
    }

    /// Acknowledges the highest pending interrupt.
    #[inline]
    pub fn acknowledge(&self) -> Acknowledged {
        match &self.interface {
            Interface::V2(interface) => {
                let token = interface.acknowledge();
                Acknowledged { intid: token & 0x3ff, token }
            }
            Interface::V3(interface) => {
                let token = interface.acknowledge();
                Acknowledged { intid: token, token }
            }
        }
    }

    /// Ends its priority; it stays active.
    #[inline]
    pub fn drop_priority(&self, interrupt: Acknowledged) {
        match &self.interface {
            Interface::V2(interface) => interface.drop_priority(interrupt.token),
            Interface::V3(interface) => interface.drop_priority(interrupt.token),
        }
    }

    /// Deactivates it.
    #[inline]
    pub fn deactivate(&self, interrupt: Acknowledged) {
        match &self.interface {
            Interface::V2(interface) => interface.deactivate(interrupt.token),
            Interface::V3(interface) => interface.deactivate(interrupt.token),
        }
    }
}

/// A vCPU's CPU interface while it isn't loaded, list registers apart; zero as after reset.
#[derive(Clone, Copy, Debug, Default)]
pub struct VirtualInterface {
    /// ICH_VMCR_EL2 or GICH_VMCR.
    vmcr: u64,
    /// For each n, ICH_AP0R\<n\>_EL2 and ICH_AP1R\<n\>_EL2; or GICH_APR, in the first.
    active_priorities: [[u64; 2]; 4],
}

impl VirtualInterface {
    /// What of it decides which interrupts the guest is told of.
    pub fn filter(&self) -> CpuInterface {
        match model() {
            Model::V2 => CpuInterface::from_gich_vmcr(self.vmcr as u32),
            Model::V3 => CpuInterface::from_ich_vmcr(self.vmcr),
        }
    }
}

/// ICH_HCR_EL2.En, GICH_HCR.En.
const HCR_EN: u32 = 1;
/// EOIcount in both.
const EOI_COUNT: u32 = 0x1f << 27;
/// The reasons for maintenance that GICH_HCR has: bits 7:1.
const GICH_REASONS: u32 = 0xfe;

/// The GICv2 of the CPU that runs, for the vGIC.
pub struct HardwareV2<'a>(&'a v2::Interface, &'a Controller);

/// List registers that a GICv2 can name: more than any has.
const MOST_LIST_REGISTERS: usize = 16;

/// Mapped interrupts on a GICv2 that forgets levels (`v2::Distributor::forgets_levels`): in the list register they are
/// ordinary ones that raise the maintenance interrupt at their end, and EL2 then deactivates the physical interrupt
/// itself. The vGIC sees list registers as they would be without that.
pub struct EndedHere {
    /// The list registers that hold such an interrupt, one bit each, and its physical INTID.
    mask: Cell<u32>,
    physical: [Cell<u16>; MOST_LIST_REGISTERS],
}

impl EndedHere {
    /// None.
    pub const fn new() -> Self {
        Self { mask: Cell::new(0), physical: [const { Cell::new(0) }; MOST_LIST_REGISTERS] }
    }

    fn get(&self, n: usize) -> Option<PhysicalIntId> {
        let held = self.mask.get() & 1u32.wrapping_shl(n as u32) != 0;
        self.physical.get(n).filter(|_| held).map(|physical| PhysicalIntId(physical.get()))
    }

    fn set(&self, n: usize, physical: Option<PhysicalIntId>) {
        let bit = 1u32.wrapping_shl(n as u32);
        self.mask.set(if physical.is_some() { self.mask.get() | bit } else { self.mask.get() & !bit });
        if let (Some(cell), Some(physical)) = (self.physical.get(n), physical) {
            cell.set(physical.0);
        }
    }
}

impl HardwareV2<'_> {
    /// Deactivates what a guest has ended in list register `n`, if that is EL2's to do, and empties the register. What
    /// the vGIC takes out before its end, it deactivates itself.
    fn end(&mut self, n: usize) {
        let held = &own().ended_here;
        let Some(physical) = held.get(n) else { return };
        held.set(n, None);
        let lr = ListRegister::from_gich(self.0.read_lr(n));
        self.0.write_lr(n, 0);
        if !lr.pending() && !lr.active() {
            self.1.set_active(this_cpu().index, u32::from(physical.0), false);
        }
    }
}
/// The GICv3 of the CPU that runs, for the vGIC.
pub struct HardwareV3<'a>(&'a v3::Interface, &'a Controller);

impl HardwareV2<'_> {
    /// Gives the guest the virtual CPU interface that it had, or one as after reset. It is on always: where no list register is in use,
    /// it does nothing.
    #[inline]
    pub fn load_virtual(&mut self, state: &VirtualInterface) {
        self.0.set_vmcr(state.vmcr as u32);
        self.0.set_active_priorities(state.active_priorities[0][0] as u32);
    }

    /// Puts what the virtual CPU interface was into `state`.
    #[inline]
    pub fn save_virtual(&mut self, state: &mut VirtualInterface) {
        state.vmcr = u64::from(self.0.vmcr());
        state.active_priorities[0][0] = u64::from(self.0.active_priorities());
    }
}

impl HardwareV3<'_> {
    /// As [`HardwareV2::load_virtual`].
    #[inline]
    pub fn load_virtual(&mut self, state: &VirtualInterface) {
        self.0.set_vmcr(state.vmcr);
        self.0.set_active_priorities(&state.active_priorities);
    }

    /// As [`HardwareV2::save_virtual`].
    #[inline]
    pub fn save_virtual(&mut self, state: &mut VirtualInterface) {
        state.vmcr = self.0.vmcr();
        self.0.read_active_priorities(&mut state.active_priorities);
    }
}

impl ListRegisters for HardwareV3<'_> {
    #[inline]
    fn count(&self) -> usize {
        self.0.count()
    }
    #[inline]
    fn read(&mut self, n: usize) -> ListRegister {
        ListRegister::from_ich(self.0.read_lr(n))
    }
    #[inline(always)]
    fn write(&mut self, n: usize, value: ListRegister) {
        self.0.write_lr(n, value.to_ich());
    }
    #[inline]
    fn empty(&mut self) -> u32 {
        self.0.empty()
    }
    #[inline]
    fn ended(&mut self) -> u32 {
        self.0.ended()
    }
    fn take_eoi_count(&mut self) -> u32 {
        let control = self.0.control();
        self.0.set_control(control & !EOI_COUNT);
        control >> 27
    }
    fn set_maintenance(&mut self, reasons: Maintenance) {
        let count = self.0.control() & EOI_COUNT;
        self.0.set_control(count | reasons.bits() | HCR_EN);
    }
    fn interface(&mut self) -> CpuInterface {
        CpuInterface::from_ich_vmcr(self.0.vmcr())
    }
}

impl ListRegisters for HardwareV2<'_> {
    #[inline]
    fn count(&self) -> usize {
        self.0.count().min(MOST_LIST_REGISTERS)
    }
    #[inline]
    fn read(&mut self, n: usize) -> ListRegister {
        let lr = ListRegister::from_gich(self.0.read_lr(n));
        let Some(physical) = own().ended_here.get(n) else { return lr };
        if !lr.pending() && !lr.active() {
            // The vGIC takes it for empty, and will not write it; its maintenance interrupt must end.
            self.end(n);
        }
        lr.with_eoi(false).with_hw(physical)
    }
    #[inline]
    fn write(&mut self, n: usize, value: ListRegister) {
        self.end(n);
        if !self.1.ends_here || value.hw().is_none() {
            return self.0.write_lr(n, value.to_gich());
        }
        own().ended_here.set(n, value.hw());
        let emulated = ListRegister::new(value.intid(), value.priority(), value.group1())
            .with_state(value.pending(), value.active())
            .with_eoi(true);
        self.0.write_lr(n, emulated.to_gich());
    }
    #[inline]
    fn empty(&mut self) -> u32 {
        let mut ended = own().ended_here.mask.get();
        if ended != 0 {
            ended &= self.0.ended();
            while ended != 0 {
                let n = ended.trailing_zeros() as usize;
                ended &= ended.wrapping_sub(1);
                self.end(n);
            }
        }
        self.0.empty()
    }
    #[inline]
    fn ended(&mut self) -> u32 {
        self.0.ended() & !own().ended_here.mask.get()
    }
    fn take_eoi_count(&mut self) -> u32 {
        let control = self.0.control();
        self.0.set_control(control & !EOI_COUNT);
        control >> 27
    }
    fn set_maintenance(&mut self, reasons: Maintenance) {
        let count = self.0.control() & EOI_COUNT;
        self.0.set_control(count | reasons.bits() & GICH_REASONS | HCR_EN);
    }
    fn interface(&mut self) -> CpuInterface {
        CpuInterface::from_gich_vmcr(self.0.vmcr())
    }
}

/// The CPU on which a line's vCPU is: of private lines, only those of vCPUs that are loaded are asked about.
fn cpu_of(line: Line) -> usize {
    let Some(own) = own().vcpu.get() else { return this_cpu().index };
    if own.id == line.vcpu {
        return own.cpu();
    }
    own.vm.vcpus().get(usize::from(line.vcpu.0)).map_or(this_cpu().index, |vcpu| vcpu.cpu())
}

macro_rules! physical {
    ($hardware:ident) => {
        /// Lines that are mapped to physical ones: the timers', and those of devices that guests have.
        impl Physical for $hardware<'_> {
            fn set_enabled(&mut self, line: Line, enabled: bool) {
                self.1.set_enabled(cpu_of(line), u32::from(line.physical.0), enabled);
            }
            fn set_active(&mut self, line: Line, active: bool) {
                self.1.set_active(cpu_of(line), u32::from(line.physical.0), active);
            }
            fn set_pending(&mut self, line: Line, pending: bool) {
                self.1.set_pending(cpu_of(line), u32::from(line.physical.0), pending);
            }
            fn is_pending(&mut self, line: Line) -> bool {
                self.1.is_pending(cpu_of(line), u32::from(line.physical.0))
            }
            fn set_edge(&mut self, line: Line, edge: bool) {
                let trigger = if edge { Trigger::Edge } else { Trigger::Level };
                self.1.set_trigger(u32::from(line.physical.0), trigger);
            }
            fn set_target(&mut self, line: Line) {
                if let Some(cpu) = percpu::get(cpu_of(line)) {
                    self.1.route(u32::from(line.physical.0), cpu);
                }
            }
        }
    };
}
physical!(HardwareV2);
physical!(HardwareV3);

/// Runs `$body` with `$hardware` as the vGIC's view of the CPU that runs: compiled once for each kind of GIC.
macro_rules! with_hardware {
    (|$hardware:ident| $body:expr) => {
        with_hardware!($crate::percpu::own(), |$hardware| $body)
    };
    // Where what the CPU has for itself is at hand.
    ($own:expr, |$hardware:ident| $body:expr) => {
        match $own.gic.get().map($crate::gic::CpuGic::hardware) {
            Some($crate::gic::Hardware::V2(mut $hardware)) => Some($body),
            Some($crate::gic::Hardware::V3(mut $hardware)) => Some($body),
            None => None,
        }
    };
}
pub(crate) use with_hardware;

/// Either kind.
pub enum Hardware<'a> {
    /// GICv2.
    V2(HardwareV2<'a>),
    /// GICv3.
    V3(HardwareV3<'a>),
}
