//! Building VMs from the bundle, at boot: CPUs, memory, tables, devices, payload.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

use platform::tree::{Board, Gic};
use spin::Once;
use stage2::{CopyReserve, Format, Geometry, Ipa, PaRange, Permissions, Stage2, Use, VmId};
use vgic::{Config, IntId, Model, PhysicalIntId, VcpuId, Vgic};
use vmm::affinity::{vcpu_affinity, vcpu_mpidr};
use vmm::devices::{Device, MmioMap, Pl011, Pl031};
use vmm::guest_tree::{self, GicVersion, GuestTree};
use vmm::idregs::{GicInterface, IdRegisters};
use vmm::layout::{Region, VIRT};
use vmm::manifest::{Bundle, Sharing, VmConfig};
use vmm::payload::{self, FlashBank, LoadPlan};
use vmm::placement::{self, Demand, PlacementError};
use vmm::psci::PowerStates;
use vmm::sched::Share;

use super::load::Reload;
use super::{Phase, VMS, Vm};
use crate::cpu::{self, Features};
use crate::guest_memory::{self, Source, Space};
use crate::lock::Mutex;
use crate::logging::Budget;
use crate::memory::{self, FrameError};
use crate::percpu::{self, PerCpu};
use crate::tables::Tables;
use crate::vcpu::Vcpu;
use crate::{gic, timer};

/// Why a VM is left out.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("there are {} VMs already", VmId::COUNT)]
    TooMany,
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error("memory: {0}")]
    Memory(FrameError),
    #[error("memory for its description: {0}")]
    Heap(FrameError),
    #[error("memory for its tables: {0}")]
    Tables(FrameError),
    #[error(transparent)]
    Payload(#[from] vmm::payload::PayloadError),
    #[error("stage 2: {0}")]
    Stage2(#[from] stage2::Error),
    #[error("interrupt controller: {0}")]
    Vgic(#[from] vgic::BuildError),
    #[error("interrupt controller: {0}")]
    Line(#[from] vgic::MapError),
    #[error("cpus: {0}")]
    Power(#[from] vmm::psci::VcpuCountError),
    #[error("devices: {0}")]
    Devices(#[from] vmm::devices::MmioMapError),
    #[error(transparent)]
    Load(#[from] crate::guest_memory::NoMemory),
}

/// Builds every VM of the bundle that can be; says of the others why not.
pub fn build_all(board: &Board<'_>, bundle: Option<Bundle<'static>>) {
    let mut configs = Vec::new();
    for config in bundle.into_iter().flat_map(|bundle| bundle.vms) {
        match config {
            Ok(config) => configs.push(config),
            Err(error) => log::error!("left out: {error}"),
        }
    }
    let builder = Builder::new(board);
    let mut built = Vec::new();
    // Slots are not used again: what a VM that failed could not give back stays written down as its own.
    for (slot, (config, cpus)) in configs.iter().zip(place(&configs)).enumerate() {
        match cpus.map_err(BuildError::from).and_then(|_| builder.build(config, slot)) {
            Ok(vm) => built.push((config.clone(), vm)),
            Err(error) => log::error!("left out: /{}: {error}", config.name),
        }
    }
    // Anew, for whoever could not be built takes no CPU.
    let (configs, built): (Vec<_>, Vec<_>) = built.into_iter().unzip();
    let mut vms: Vec<&'static Vm> = Vec::new();
    let mut members: Vec<Vec<&'static Vcpu>> = percpu::all().map(|_| Vec::new()).collect();
    for ((config, vm), cpus) in configs.iter().zip(built).zip(place(&configs)) {
        match cpus {
            Ok(cpus) => {
                make_vcpus(vm, &cpus, &mut members);
                describe(vm, config);
                vms.push(vm);
            }
            Err(error) => log::error!("left out: /{}: {error}", config.name),
        }
    }
    VMS.call_once(|| vms);
    for (cpu, members) in percpu::all().zip(members) {
        cpu.members.call_once(|| members);
    }
    log::debug!("{} KiB of EL2's heap are in use", memory::heap_used() >> 10);
}

/// The CPUs of each VM's vCPUs.
fn place(configs: &[VmConfig<'_>]) -> Vec<Result<Vec<usize>, PlacementError>> {
    let online: Vec<bool> = percpu::all().map(PerCpu::is_online).collect();
    let demands: Vec<Demand<'_>> = configs.iter().map(demand).collect();
    placement::place(&online, &demands)
}

/// Makes a VM's vCPUs, as members of these CPUs.
fn make_vcpus(vm: &'static Vm, cpus: &[usize], members: &mut [Vec<&'static Vcpu>]) {
    let make = |(vcpu, cpu): (usize, &usize)| {
        let members = &mut members[*cpu];
        let vcpu = Vcpu::new(vm, VcpuId(vcpu as u8), *cpu, members.len());
        let vcpu: &'static Vcpu = Box::leak(Box::new(vcpu));
        members.push(vcpu);
        vcpu
    };
    let vcpus = cpus.iter().enumerate().map(make).collect();
    vm.vcpus.call_once(|| vcpus);
}

/// What a VM wants of the board's CPUs.
fn demand<'a>(config: &'a VmConfig<'_>) -> Demand<'a> {
    Demand { vcpus: config.cpus as usize, affinity: config.cpu_affinity.as_deref(), sharing: config.sharing }
}

/// The same in the scheduler's terms.
fn share(sharing: Sharing) -> Option<Share> {
    match sharing {
        Sharing::Pinned => None,
        Sharing::Weight(weight) => Some(Share::Weight(weight)),
        Sharing::Reserved { budget, period } => {
            Some(Share::Budget { budget: timer::ticks(budget.into()), period: timer::ticks(period.into()) })
        }
    }
}

/// What a VM sees as memory, taken before any of it is mapped.
#[derive(Default)]
struct Backing {
    ram: Vec<PaRange>,
    flash: Vec<FlashMemory>,
    /// A page for records of stolen time, if it has them.
    stolen_time: Vec<PaRange>,
}

/// The frames behind a flash bank: of what it holds, and one unit, all ones, for the rest.
#[derive(Default)]
struct FlashMemory {
    held: Vec<PaRange>,
    erased: Vec<PaRange>,
}

impl Backing {
    /// Takes all of it, or nothing.
    fn take(id: VmId, config: &VmConfig<'_>, plan: &LoadPlan<'_>) -> Result<Self, BuildError> {
        let mut backing = Self::default();
        match backing.take_all(id, config, plan) {
            Ok(()) => Ok(backing),
            Err(error) => {
                backing.reclaim(id, config.name);
                Err(BuildError::Memory(error))
            }
        }
    }

    fn take_all(&mut self, id: VmId, config: &VmConfig<'_>, plan: &LoadPlan<'_>) -> Result<(), FrameError> {
        self.ram = memory::donate(id, config.memory)?;
        if config.sharing != Sharing::Pinned {
            self.stolen_time = memory::donate(id, VIRT.stolen_time.size)?;
        }
        for bank in plan.flash.iter().flat_map(|flash| &flash.banks) {
            self.flash.push(FlashMemory::default());
            let Some(memory) = self.flash.last_mut() else { continue };
            if bank.backed > 0 {
                memory.held = memory::donate(id, bank.backed)?;
            }
            memory.erased = memory::donate(id, payload::FLASH_UNIT)?;
        }
        Ok(())
    }

    fn runs(&self) -> impl Iterator<Item = &PaRange> {
        let flash = self.flash.iter().flat_map(|bank| bank.held.iter().chain(&bank.erased));
        self.ram.iter().chain(&self.stolen_time).chain(flash)
    }

    /// Frames for the tables that map it: one for each level above, two for each run's ends, one for each GiB.
    fn frames_for_tables(&self, config: &VmConfig<'_>) -> usize {
        12 + 2 * self.runs().count() + (config.memory >> 30) as usize
    }

    /// Gives it back, when nothing of it is mapped.
    fn reclaim(&self, id: VmId, name: &str) {
        for run in self.runs() {
            if let Err(error) = memory::reclaim(id, *run) {
                log::error!("/{name}: {} KiB of its memory are lost: {error}", run.size() >> 10);
            }
        }
    }
}

/// Gives back everything of a VM that can't be built.
fn give_back(id: VmId, name: &str, stage2: Option<Stage2>, mut tables: Tables, backing: &Backing) {
    if let Some(stage2) = stage2 {
        let done = memory::with_ledger(|ledger| ledger.teardown(stage2, &mut tables));
        if let Some(Err(error)) = done {
            log::error!("/{name}: its tables: {error}");
        }
    }
    tables.give_back();
    backing.reclaim(id, name);
}

/// Maps a flash bank, what is erased of it again and again to the same frames.
fn map_flash(space: &mut Space, bank: &FlashBank<'_>, memory: &FlashMemory) -> Result<(), BuildError> {
    let mut at = bank.base;
    for run in &memory.held {
        map(space, at, *run, Use::Ram, FLASH)?;
        at = Ipa::new(at.as_u64() + run.size());
    }
    let end = bank.base.as_u64() + bank.backed + bank.erased;
    let mut is_erased = false;
    while at.as_u64() < end {
        for run in &memory.erased {
            map(space, at, *run, Use::Ram, FLASH)?;
            if !is_erased {
                erase(space, at, run.size())?;
            }
            at = Ipa::new(at.as_u64() + run.size());
        }
        is_erased = true;
    }
    Ok(())
}

fn erase(space: &mut Space, at: Ipa, size: u64) -> Result<(), BuildError> {
    let mut done = 0;
    while done < size {
        done += guest_memory::write(space, at, Source::Fill(0xff, size), done, size)?;
    }
    Ok(())
}

struct Builder<'a> {
    board: &'a Board<'a>,
    features: Features,
    ids: IdRegisters,
    wall_clock: u32,
}

/// What a VM sees beside its memory.
struct Machine {
    mmio: MmioMap,
    vgic: Vgic,
    power: PowerStates,
}

/// Read, write, execute: a VM's RAM.
const RAM: Permissions = Permissions { read: true, write: true, execute: true };
const FLASH: Permissions = Permissions { read: true, write: false, execute: true };
const RECORDS: Permissions = Permissions { read: true, write: false, execute: false };
const DEVICE: Permissions = Permissions { read: true, write: true, execute: false };

impl<'a> Builder<'a> {
    fn new(board: &'a Board<'a>) -> Self {
        let interface =
            if gic::model() == Model::V3 { GicInterface::SystemRegisters } else { GicInterface::Memory };
        Self {
            board,
            features: Features::read(),
            ids: IdRegisters::read(cpu::id_register).for_guests(interface),
            wall_clock: wall_clock(board),
        }
    }

    /// Builds a VM in `slot`, but for its vCPUs, or gives back all that it took.
    fn build(&self, config: &VmConfig<'static>, slot: usize) -> Result<&'static Vm, BuildError> {
        let vcpus = config.cpus as usize;
        let id = VmId::new(slot as u8).ok_or(BuildError::TooMany)?;
        memory::grow_heap_for_vm(vcpus).map_err(BuildError::Heap)?;
        let share = share(config.sharing);
        let waits = if share.is_some() { cpu::hcr::TWI_TWE } else { 0 };
        let affinities: Vec<u64> = (0..vcpus as u8).map(|vcpu| vcpu_mpidr(VcpuId(vcpu))).collect();
        let mut tree = GuestTree {
            layout: &VIRT,
            memory: config.memory,
            affinities: &affinities,
            gic: if gic::model() == Model::V3 { GicVersion::V3 } else { GicVersion::V2 },
            bootargs: config.bootargs,
            initrd: None,
            seeds: crate::random::seeds(),
        };
        let plan = payload::plan(config, &VIRT, guest_tree::size(&tree))?;
        plan.check_granule(self.ids.get(vmm::idregs::MMFR0))?;
        tree.initrd = plan.initrd.clone();
        let machine = self.machine(config, vcpus)?;
        let reload = Reload::new(plan, &tree);

        let geometry = self.geometry(config)?;
        let backing = Backing::take(id, config, reload.plan())?;
        let mut tables = match Tables::new(geometry.start_tables(), backing.frames_for_tables(config)) {
            Ok(tables) => tables,
            Err(error) => {
                backing.reclaim(id, config.name);
                return Err(BuildError::Tables(error));
            }
        };
        let stage2 = match self.stage2(id, config, &mut tables) {
            Ok(stage2) => stage2,
            Err(error) => {
                give_back(id, config.name, None, tables, &backing);
                return Err(error);
            }
        };
        let mut space = Space { stage2, tables, copies: CopyReserve::none(id) };
        if let Err(error) = self.map_all(&mut space, reload.plan(), &backing) {
            let Space { stage2, tables, .. } = space;
            give_back(id, config.name, Some(stage2), tables, &backing);
            return Err(error);
        }
        let vm: &'static Vm = Box::leak(Box::new(Vm {
            id,
            name: config.name.to_string(),
            vcpus: Once::new(),
            share,
            hcr: cpu::guest_hcr(&self.features) | waits,
            vtcr: space.stage2.vtcr(),
            vttbr: space.stage2.vttbr(),
            ids: self.ids.clone(),
            mmio: machine.mmio,
            vgic: Mutex::new(machine.vgic),
            power: Mutex::new(machine.power),
            uart: Mutex::new(Pl011::new()),
            rtc: Mutex::new(Pl031::new(self.wall_clock, timer::now(), frequency())),
            input_waits: AtomicBool::new(false),
            loaded: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Running as u8),
            ram: backing.ram,
            space: Mutex::new(space),
            reload: Mutex::new(reload),
            messages: Budget::new(),
        }));
        self.load(vm)?;
        Ok(vm)
    }

    fn machine(&self, config: &VmConfig<'_>, vcpus: usize) -> Result<Machine, BuildError> {
        let affinities: Vec<_> = (0..vcpus as u8).map(|vcpu| vcpu_affinity(VcpuId(vcpu))).collect();
        let model = gic::model();
        let mut vgic = Vgic::new(&Config { model, affinities: &affinities, spis: Config::DEFAULT_SPIS })?;
        if let Some(timer) = self.board.timer {
            vgic.map_line(IntId::VIRTUAL_TIMER, PhysicalIntId(timer.virtual_ as u16))?;
            vgic.map_line(IntId::PHYSICAL_TIMER, PhysicalIntId(timer.physical as u16))?;
        }
        let mut regions = Vec::from([
            (Region { base: VIRT.gicd.base, size: vgic.distributor_size() }, Device::Gicd),
            (VIRT.uart.registers, Device::Uart),
            (VIRT.rtc.registers, Device::Rtc),
        ]);
        if model == Model::V3 {
            let size = 0x2_0000 * vcpus as u64;
            regions.push((Region { base: VIRT.gicr.base, size }, Device::Gicr));
        }
        let ram = Region { base: VIRT.ram.base, size: config.memory };
        // Firmware may start its CPUs from flash as well.
        let executable = [ram, VIRT.flash[0]];
        let has_flash = matches!(config.payload, vmm::manifest::Payload::Firmware(_));
        let executable = &executable[..if has_flash { 2 } else { 1 }];
        Ok(Machine { mmio: MmioMap::new(&regions)?, vgic, power: PowerStates::new(vcpus as u8, executable)? })
    }

    fn geometry(&self, config: &VmConfig<'_>) -> Result<Geometry, BuildError> {
        let geometry = Geometry::new(ipa_bits(config, &self.features), self.features.pa_bits)?;
        Ok(geometry)
    }

    fn stage2(&self, id: VmId, config: &VmConfig<'_>, tables: &mut Tables) -> Result<Stage2, BuildError> {
        let format = if self.features.forced_write_back { Format::ForcedWriteBack } else { Format::Combined };
        let stage2 = Stage2::new(tables, id, self.geometry(config)?, format)?;
        Ok(stage2)
    }

    fn map_all(&self, space: &mut Space, plan: &LoadPlan<'_>, backing: &Backing) -> Result<(), BuildError> {
        let mut at = VIRT.ram.base;
        for run in &backing.ram {
            map(space, at, *run, Use::Ram, RAM)?;
            at = Ipa::new(at.as_u64() + run.size());
        }
        if let Some(Gic::V2 { gicv, .. }) = &self.board.gic {
            let pages = PaRange::new(gicv.start, memory::GICV_BYTES).map_err(stage2::Error::from)?;
            map(space, VIRT.gicc.base, pages, Use::Banked, DEVICE)?;
        }
        for page in &backing.stolen_time {
            map(space, VIRT.stolen_time.base, *page, Use::Ram, RECORDS)?;
        }
        let banks = plan.flash.as_ref().map_or(&[][..], |flash| &flash.banks);
        for (bank, memory) in banks.iter().zip(&backing.flash) {
            map_flash(space, bank, memory)?;
        }
        log::debug!("{} frames for tables are left", space.tables.left());
        Ok(())
    }

    fn load(&self, vm: &'static Vm) -> Result<(), BuildError> {
        let mut space = vm.space.lock();
        let mut reload = vm.reload.lock();
        reload.run(vm, &mut space)?;
        vm.power.lock().boot(reload.start());
        Ok(())
    }
}

/// Every mapping goes through the ledger.
fn map(
    space: &mut Space,
    at: Ipa,
    pages: PaRange,
    usage: Use,
    permissions: Permissions,
) -> Result<(), BuildError> {
    let Space { stage2, tables, .. } = space;
    memory::with_ledger(|ledger| ledger.map(stage2, tables, at, (pages, usage), permissions))
        .unwrap_or(Ok(()))?;
    Ok(())
}

/// As many bits as RAM needs, at least 40 (with which all CPUs have tables that start at level 1), or as many as there are.
fn ipa_bits(config: &VmConfig<'_>, features: &Features) -> u8 {
    let end = VIRT.ram.base.as_u64().saturating_add(config.memory);
    let needed = (64 - (end.saturating_sub(1)).leading_zeros()) as u8;
    needed.max(40).min(features.pa_bits)
}

fn frequency() -> NonZeroU32 {
    u32::try_from(timer::frequency()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

/// Seconds since 1970, by the board's clock; 0 where it has none.
fn wall_clock(board: &Board<'_>) -> u32 {
    match board.rtc {
        // SAFETY: the tree says that a PL031 is there, and EL2 maps it as device memory.
        Some(rtc) => unsafe { platform::rtc::read_pl031(rtc.start.as_u64() as usize) },
        None => {
            log::warn!("the board has no clock (PL031): guests' clocks start at 1970");
            0
        }
    }
}

fn describe(vm: &Vm, config: &VmConfig<'_>) {
    let cpus: Vec<_> = vm.vcpus().iter().map(|vcpu| vcpu.cpu.to_string()).collect();
    let share = match config.sharing {
        Sharing::Pinned => String::new(),
        Sharing::Weight(weight) => format!(" (weight {weight})"),
        Sharing::Reserved { budget, period } => format!(" ({budget} of {period} us)"),
    };
    log::info!(
        "{}: {} vCPU{} on CPU {}{share}, {} MiB",
        vm.name,
        cpus.len(),
        if cpus.len() == 1 { "" } else { "s" },
        cpus.join(", "),
        config.memory >> 20
    );
    log::debug!("{}: VMID {}", vm.name, vm.id.vmid());
    let mut at = VIRT.ram.base.as_u64();
    for run in &vm.ram {
        log::debug!("{}: RAM {at:#x} is at {:#x}, {} MiB", vm.name, run.start().as_u64(), run.size() >> 20);
        at += run.size();
    }
}
