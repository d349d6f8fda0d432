//! Building VMs from the bundle, at boot: CPUs, memory, tables, devices, payload.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

use config::channel::ChannelEnd;
use config::guest_tree::{self, GicVersion, GuestTree};
use config::manifest::{Bundle, LayoutKind, ManifestError, Sharing, VmConfig};
use config::passthrough::{Devices, Given, GivenLine, Own, PassthroughError, Span};
use config::payload::{self, LoadPlan};
use config::placement::{self, Demand, PlacementError};
use devicetree::Tree;
use platform::tree::{Board, Gic, Range};
use spin::Once;
use stage2::{CopyReserve, Format, Geometry, Ipa, PaRange, Progress, Stage2, Transfer, VmId};
use vgic::{Config, IntId, Model, PhysicalIntId, VcpuId, Vgic};
use vmm::affinity::{vcpu_affinity, vcpu_mpidr};
use vmm::devices::{Device, MmioMap, Pl011, Pl031};
use vmm::idregs::{GicInterface, IdRegisters};
use vmm::layout::{ADDED, BOARD_DEVICES, Layout, Region, VIRT};
use vmm::life::{Clock, Phase, Watchdog};
use vmm::order;
use vmm::psci::PowerStates;
use vmm::random::Generator;
use vmm::sched::Share;

use super::channel;
use super::flash::Flash;
use super::holdings::{Holdings, TakeError, Wants};
use super::load::Reload;
use super::{Crashed, Policy, VMS, Vm, WHEN_ALL_OFF, all};
use crate::cpu::{self, Features};
use crate::guest_memory::Space;
use crate::lock::Mutex;
use crate::logging::Budget;
use crate::memory::{self, FrameError};
use crate::percpu::{self, PerCpu};
use crate::tables::Tables;
use crate::vcpu::Vcpu;
use crate::{gic, interrupts, timer};

/// Why a VM is left out.
#[derive(Debug, thiserror::Error)]
enum BuildError {
    #[error("there are {} VMs already", VmId::COUNT)]
    TooMany,
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error("memory for its description: {0}")]
    Heap(FrameError),
    #[error("memory for its tables: {0}")]
    Tables(FrameError),
    #[error(transparent)]
    Payload(#[from] config::payload::PayloadError),
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
    #[error(transparent)]
    Passthrough(#[from] PassthroughError),
    #[error("passthrough: interrupt {0} doesn't exist")]
    NoLine(u16),
    #[error("passthrough: {0}")]
    Assign(stage2::LedgerError),
    #[error("layout: the board has something at {:#x}, where this layout has its own devices", ADDED.base.as_u64())]
    InTheWay,
    #[error("layout: the devices' interrupts leave none for the console and channels")]
    Spis,
    #[error("memory: {0}")]
    SetAside(FrameError),
}

/// The board's devices, those that Hanok itself uses among them.
pub fn devices_of(board: &Board<'_>, tree: &Tree<'static>) -> Option<Devices<'static>> {
    let (Some(Gic::V2 { gicd, .. }) | Some(Gic::V3 { gicd, .. })) = &board.gic else { return None };
    Devices::find(tree, gicd.start)
}

fn span(range: &Range) -> Span {
    Span::new(range.start.as_u64(), range.size)
}

/// What Hanok uses of the board.
fn own_devices(board: &Board<'_>) -> Vec<Own> {
    let own = board.used();
    own.map(|used| Own::new(used.registers.start, used.registers.size, used.interrupt, used.what)).collect()
}

/// Builds every VM of the bundle that can be; says of the others why not.
pub fn build_all(board: &Board<'_>, devices: Option<Devices<'static>>, bundle: Option<Bundle<'static>>) {
    let bundle = bundle.unwrap_or_default();
    WHEN_ALL_OFF.call_once(|| bundle.when_all_off);
    let configs: Vec<_> = well_formed(bundle.vms).collect();
    let placed = place(&configs);
    let slot = |name: &str| {
        let may_run =
            |cpus: &Result<_, PlacementError>| cpus.as_ref().map_or_else(|error| error.may_pass(), |_| true);
        let mut names = configs.iter().zip(&placed);
        let slot = names.position(|(config, cpus)| config.name == name && may_run(cpus))?;
        VmId::new(u8::try_from(slot).ok()?)
    };
    // Without a list of devices, no page of theirs is anybody's to be given.
    if devices.is_some()
        && let Some(console) = board.console()
        && let Err(error) = memory::keep(&console.registers)
    {
        log::error!("the console: {error}");
    }
    let mut builder = Builder::new(board, devices);
    let pa_bits = builder.features.pa_bits;
    let (channels, shared) = channel::share(well_formed(bundle.channels), slot, pa_bits);
    // Slots are not used again: what a VM that failed could not give back stays written down as its own.
    let mut build = |slot: usize| {
        let config = &configs[slot];
        let ends = config::channel::ends(&channels, config.name);
        let built = builder.build(config, slot, (&ends, &shared));
        built.inspect_err(|error| log::error!("left out: /{}: {error}", config.name)).ok()
    };
    let mut built: Vec<(usize, &'static Vm)> = Vec::new();
    let mut waiting = Vec::new();
    for (slot, cpus) in placed.into_iter().enumerate() {
        match cpus {
            Ok(_) => built.extend(build(slot).map(|vm| (slot, vm))),
            Err(error) => waiting.push((slot, error)),
        }
    }
    // Whoever could not be built takes no CPU, so there may be room now for one that had none; but not at others' expense.
    for (slot, error) in waiting {
        let all = built.iter().map(|(slot, _)| *slot).chain([slot]);
        match place(all.map(|slot| &configs[slot])).iter().all(Result::is_ok) {
            true => built.extend(build(slot).map(|vm| (slot, vm))),
            false => log::error!("left out: /{}: {error}", configs[slot].name),
        }
    }
    order::sort_by_key(&mut built, |(slot, _)| *slot);
    let mut placed: Vec<(&VmConfig<'_>, &'static Vm, Vec<usize>)> = Vec::new();
    let cpus = place(built.iter().map(|(slot, _)| &configs[*slot]));
    for ((slot, vm), cpus) in built.into_iter().zip(cpus) {
        let config = &configs[slot];
        match cpus {
            Ok(cpus) => placed.push((config, vm, cpus)),
            Err(error) => log::error!("left out: /{}: {error}", config.name),
        }
    }
    let mut members = Members::new(placed.iter().flat_map(|(_, _, cpus)| cpus));
    for (config, vm, cpus) in &placed {
        make_vcpus(vm, cpus, &moves_to(config), &mut members);
        describe(vm, config);
        if config.starts {
            vm.start_at_boot();
        }
    }
    let vms: Vec<&'static Vm> = placed.iter().map(|(_, vm, _)| *vm).collect();
    for vm in &vms {
        let find = |name: &str| vms.iter().copied().find(|vm| vm.name == name);
        vm.link(&config::channel::ends(&channels, &vm.name), find);
    }
    VMS.call_once(|| vms);
    for (cpu, members) in percpu::all().zip(members.finish()) {
        cpu.members.call_once(|| members);
    }
    give_lines(all());
    log::debug!("{} KiB of EL2's heap are in use", memory::heap_used() >> 10);
}

/// Sends the lines of devices to the VMs that have them.
fn give_lines(vms: impl Iterator<Item = &'static Vm>) {
    let owned = |vm: &'static Vm| vm.lines.iter().map(move |line| (vm, line));
    let lines: Vec<_> = vms.inspect(|vm| vm.send_lines()).flat_map(owned).collect();
    interrupts::give_lines(lines.iter().map(|(vm, line)| {
        let owner = interrupts::Owner { vm, intid: IntId::spi(line.spi as u16) };
        (line.physical.intid, owner)
    }));
}

/// What the manifest has right; of the rest it is said what is wrong.
fn well_formed<T>(items: Vec<Result<T, ManifestError>>) -> impl Iterator<Item = T> {
    items.into_iter().filter_map(|item| item.inspect_err(|error| log::error!("left out: {error}")).ok())
}

/// The CPUs of each VM's vCPUs.
fn place<'c>(configs: impl IntoIterator<Item = &'c VmConfig<'c>>) -> Vec<Result<Vec<usize>, PlacementError>> {
    let online: Vec<bool> = percpu::all().map(PerCpu::is_online).collect();
    let demands: Vec<Demand<'_>> = configs.into_iter().map(demand).collect();
    placement::place(&online, &demands)
}

/// The CPUs between which a VM's vCPUs may move: those that its manifest names, where they share by weight. What is reserved has
/// been promised on the CPU where it was found to fit.
fn moves_to(config: &VmConfig<'_>) -> Vec<usize> {
    match (config.sharing, &config.cpu_affinity) {
        (Sharing::Weight(_), Some(cpus)) => cpus.iter().map(|cpu| *cpu as usize).collect(),
        _ => Vec::new(),
    }
}

/// Each CPU's members: the vCPUs that are placed there, and behind them those that may move there, as far as there is room.
struct Members {
    placed: Vec<Vec<&'static Vcpu>>,
    visiting: Vec<Vec<&'static Vcpu>>,
    /// How many will have been placed.
    count: Vec<usize>,
}

impl Members {
    /// `cpus` has the number of a CPU for each vCPU that is placed on it.
    fn new<'a>(cpus: impl Iterator<Item = &'a usize>) -> Self {
        let none = || percpu::all().map(|_| Vec::new()).collect();
        let mut count: Vec<usize> = percpu::all().map(|_| 0).collect();
        cpus.for_each(|cpu| count[*cpu] += 1);
        Self { placed: none(), visiting: none(), count }
    }

    /// Which member of each CPU a vCPU will be that is placed on `home` and may move to `others`.
    fn places(&self, home: usize, others: &[usize]) -> Box<[Option<u8>]> {
        let place = |cpu: usize| {
            let number = match cpu == home {
                true => self.placed[cpu].len(),
                false if others.contains(&cpu) => self.count[cpu] + self.visiting[cpu].len(),
                false => return None,
            };
            (number < placement::MAX_PER_CPU).then_some(number as u8)
        };
        (0..self.count.len()).map(place).collect()
    }

    fn add(&mut self, vcpu: &'static Vcpu, home: usize) {
        self.placed[home].push(vcpu);
        for cpu in (0..self.count.len()).filter(|cpu| *cpu != home && vcpu.member_of(*cpu).is_some()) {
            self.visiting[cpu].push(vcpu);
        }
    }

    /// In the order of their numbers.
    fn finish(self) -> impl Iterator<Item = Vec<&'static Vcpu>> {
        self.placed.into_iter().zip(self.visiting).map(|(placed, visiting)| [placed, visiting].concat())
    }
}

/// Makes a VM's vCPUs, as members of these CPUs, and of the others that they may move to.
fn make_vcpus(vm: &'static Vm, cpus: &[usize], others: &[usize], members: &mut Members) {
    let make = |(vcpu, cpu): (usize, &usize)| {
        let vcpu = Vcpu::new(vm, VcpuId(vcpu as u8), *cpu, members.places(*cpu, others));
        let vcpu: &'static Vcpu = Box::leak(Box::new(vcpu));
        vcpu.map_counters(*cpu);
        members.add(vcpu, *cpu);
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

/// Gives back everything of a VM that can't be built.
fn give_back(space: Space, mut memory: Holdings, name: &str) {
    let mut space = space;
    memory.keep_nothing();
    while memory.give_back_some(&mut space, name) == Progress::More {}
    let (stage2, mut tables) = space.into_parts();
    let done = memory::with_ledger(|ledger| ledger.teardown(stage2, &mut tables));
    if let Some(Err(error)) = done {
        log::error!("/{name}: its tables: {error}");
    }
    tables.give_back();
}

struct Builder<'a> {
    board: &'a Board<'a>,
    devices: Option<Devices<'static>>,
    own: Vec<Own>,
    features: Features,
    ids: IdRegisters,
    wall_clock: u32,
}

/// Makes devices a VM's. `assigned` has the registers with which this has been done.
fn assign(given: &Given, vm: VmId, assigned: &mut Vec<PaRange>) -> Result<(), BuildError> {
    if let Some(line) = given.lines.iter().find(|line| !gic::has_spi(line.physical.intid.into())) {
        return Err(BuildError::NoLine(line.physical.intid));
    }
    for (_, run) in &given.registers {
        let done = memory::with_ledger(|ledger| ledger.transfer(*run, Transfer::Assign(vm)));
        done.unwrap_or(Ok(())).map_err(BuildError::Assign)?;
        assigned.push(*run);
    }
    Ok(())
}

/// Where a VM has its things.
struct House {
    layout: &'static Layout,
    /// Its RAM, if that is set aside for it.
    set_aside: Option<PaRange>,
    given: Given,
}

/// What a VM sees beside its memory.
struct Machine {
    mmio: MmioMap,
    vgic: Vgic,
    power: PowerStates,
}

impl<'a> Builder<'a> {
    fn new(board: &'a Board<'a>, devices: Option<Devices<'static>>) -> Self {
        let interface =
            if gic::model() == Model::V3 { GicInterface::SystemRegisters } else { GicInterface::Memory };
        Self {
            board,
            devices,
            own: own_devices(board),
            features: Features::read(),
            ids: IdRegisters::read(cpu::id_register).for_guests(interface, cpu::midr(), cpu::has_counters()),
            wall_clock: wall_clock(board),
        }
    }

    /// Builds a VM in `slot`, but for its vCPUs, or gives back all memory and devices that it took.
    fn build(
        &mut self,
        config: &VmConfig<'static>,
        slot: usize,
        channels: (&[ChannelEnd<'_>], &[PaRange]),
    ) -> Result<&'static Vm, BuildError> {
        let id = VmId::new(slot as u8).ok_or(BuildError::TooMany)?;
        memory::grow_heap_for_vm(config.cpus as usize).map_err(BuildError::Heap)?;
        let given = self.choose_devices(config)?;
        let mut assigned = Vec::new();
        let built =
            assign(&given, id, &mut assigned).and_then(|()| self.house(config, given)).and_then(|house| {
                let set_aside = house.set_aside;
                self.furnish(config, id, house, channels).inspect_err(|_| {
                    if let Some(run) = set_aside {
                        memory::take_back(run);
                    }
                })
            });
        built.inspect_err(|_| self.take_devices_back(config.name, id, &assigned))
    }

    /// Finds out where a VM has its things.
    fn house(&self, config: &VmConfig<'_>, given: Given) -> Result<House, BuildError> {
        let (LayoutKind::Board, Some(gic)) = (config.layout, &self.board.gic) else {
            return Ok(House { layout: &VIRT, set_aside: None, given });
        };
        let ipa = |range: &Range| Ipa::new(range.start.as_u64());
        let none = Ipa::new(0);
        let (gicd, gicc, gicr) = match gic {
            Gic::V2 { gicd, gicc, .. } => (ipa(gicd), ipa(gicc), none),
            Gic::V3 { gicd, redistributors, .. } => {
                (ipa(gicd), none, redistributors.first().map_or(none, ipa))
            }
        };
        let registers = given.registers.iter().map(|(_, run)| Span::new(run.start().as_u64(), run.size()));
        let memory = self.board.memory.iter().map(span);
        let added = Span::new(ADDED.base.as_u64(), ADDED.size);
        if registers.chain(memory).any(|of_board| of_board.meets(added)) {
            return Err(BuildError::InTheWay);
        }
        let spis = given.lines.iter().map(|line| line.spi.saturating_add(1)).max().unwrap_or(0);
        let nowhere = Region { base: none, size: 0 };
        let layout = Layout::board(nowhere, gicd, gicc, gicr, spis).ok_or(BuildError::Spis)?;
        let set_aside = memory::set_aside(config.memory, config.memory_address, given.reach)
            .map_err(BuildError::SetAside)?;
        let ram = Region { base: Ipa::new(set_aside.start().as_u64()), size: set_aside.size() };
        let layout = Box::leak(Box::new(Layout { ram, ..layout }));
        Ok(House { layout, set_aside: Some(set_aside), given })
    }

    /// Builds it there.
    fn furnish(
        &self,
        config: &VmConfig<'static>,
        id: VmId,
        House { layout, set_aside, given }: House,
        (ends, shared): (&[ChannelEnd<'_>], &[PaRange]),
    ) -> Result<&'static Vm, BuildError> {
        let vcpus = config.cpus as usize;
        let share = share(config.sharing);
        let waits = if share.is_some() { cpu::hcr::TWI_TWE } else { 0 };
        let affinities: Vec<u64> = (0..vcpus as u8).map(|vcpu| vcpu_mpidr(VcpuId(vcpu))).collect();
        let random = crate::random::fork();
        let tree = GuestTree {
            layout,
            memory: config.memory,
            affinities: &affinities,
            gic: if gic::model() == Model::V3 { GicVersion::V3 } else { GicVersion::V2 },
            bootargs: config.bootargs,
            has_initrd: config.payload.has_initrd(),
            channels: ends,
            has_seeds: random.is_some(),
            watchdog: config.watchdog,
            counters: cpu::has_counters().then_some(gic::counters(0).is_some()),
            has_flash: config.payload.has_variables(),
            devices: &given.nodes,
        };
        let blob = guest_tree::build(&tree);
        let plan = payload::plan(config, layout, blob.len() as u64)?;
        plan.check_granule(self.ids.get(vmm::idregs::MMFR0))?;
        let flash = plan.flash.map(|flash| {
            let [_, second] = flash.banks;
            Mutex::new(Flash::new(layout.flash, second.kept.then_some(second.backed)))
        });
        let machine = self.machine(config, layout, &given.lines)?;
        let memory_of = |end: &ChannelEnd<'_>| Some((end.region(layout).base, *shared.get(end.channel)?));
        let channels = ends.iter().filter_map(memory_of).collect();
        let devices = given.registers;
        let geometry = self.geometry(config, layout, &devices)?;
        let wants = Wants { set_aside, channels, devices, ..self.wants(config, layout, &plan) };
        let mut tables =
            Tables::new(geometry.start_tables(), wants.frames_for_tables()).map_err(BuildError::Tables)?;
        let stage2 = match self.stage2(id, geometry, &mut tables) {
            Ok(stage2) => stage2,
            Err(error) => {
                tables.give_back();
                return Err(error);
            }
        };
        let mut space = Space::new(stage2, tables, CopyReserve::none(id));
        let mut memory = Holdings::new(id, wants);
        let mut reload = Reload::new(plan, blob);
        let random = random.map(Mutex::new);
        if config.starts
            && let Err(error) = start(&mut space, &mut memory, &mut reload, random.as_ref())
        {
            give_back(space, memory, config.name);
            return Err(error);
        }
        let vm: &'static Vm = Box::leak(Box::new(Vm {
            id,
            name: config.name.to_string(),
            vcpus: Once::new(),
            share,
            hcr: cpu::guest_hcr(&self.features) | waits,
            has_counters: cpu::has_counters(),
            vtcr: space.stage2().vtcr(),
            vttbr: space.stage2().vttbr(),
            ids: self.ids.clone(),
            layout,
            mmio: machine.mmio,
            vgic: Mutex::new(machine.vgic),
            power: Mutex::new(machine.power),
            uart: Mutex::new(Pl011::new()),
            rtc: Mutex::new(Pl031::new(self.wall_clock, timer::now(), frequency())),
            random,
            flash,
            input_waits: AtomicBool::new(false),
            loaded: AtomicU64::new(0),
            links: Once::new(),
            bells: AtomicU64::new(0),
            ram: config.memory,
            rights: config.rights,
            lines: given.lines,
            denied: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Created as u8),
            policy: Policy { on_crash: config.on_crash, watchdog: config.watchdog },
            memory: Mutex::new(memory),
            space: Mutex::new(space),
            reload: Mutex::new(reload),
            cleaned: AtomicU64::new(0),
            clock: Mutex::new(Clock::default()),
            clock_offset: AtomicU64::new(0),
            watchdog: Mutex::new(Watchdog::new(timer::frequency(), 1)),
            crashed: Mutex::new(Crashed::new()),
            due: AtomicU64::new(0),
            loaded_at: AtomicU64::new(0),
            alarm: AtomicU64::new(u64::MAX),
            starts: AtomicU64::new(0),
            messages: Budget::new(),
        }));
        Ok(vm)
    }

    /// What it is to have of the board's memory when it is started.
    fn wants(&self, config: &VmConfig<'_>, layout: &'static Layout, plan: &LoadPlan<'_>) -> Wants {
        let gicv = match &self.board.gic {
            Some(Gic::V2 { gicv, .. }) => PaRange::new(gicv.start, memory::GICV_BYTES).ok(),
            _ => None,
        };
        Wants {
            layout,
            set_aside: None,
            ram: config.memory,
            stolen_time: config.sharing != Sharing::Pinned,
            flash: plan.flash.as_ref().map_or_else(Vec::new, |flash| Wants::flash_of(&flash.banks)),
            gicv,
            channels: Vec::new(),
            devices: Vec::new(),
        }
    }

    /// The devices that the manifest names, which nobody else is given from now on.
    fn choose_devices(&mut self, config: &VmConfig<'_>) -> Result<Given, BuildError> {
        if config.devices.nodes.is_empty() {
            return Ok(Given::default());
        }
        let devices = self.devices.as_mut().ok_or(PassthroughError::NoTree)?;
        let room = match config.layout {
            LayoutKind::Virt => &VIRT.devices,
            LayoutKind::Board => &BOARD_DEVICES,
        };
        Ok(devices.give(config, room, &self.own)?)
    }

    /// The devices of a VM that can't be built, with these registers, are nobody's again. Nothing maps them any more.
    fn take_devices_back(&mut self, name: &str, vm: VmId, registers: &[PaRange]) {
        if let Some(devices) = &mut self.devices {
            devices.take_back(name);
        }
        for run in registers {
            let returned = memory::with_ledger(|ledger| ledger.transfer(*run, Transfer::Return(vm)));
            if let Some(Err(error)) = returned {
                log::error!("/{name}: registers at {:#x}: {error}", run.start().as_u64());
            }
        }
    }

    fn machine(
        &self,
        config: &VmConfig<'_>,
        layout: &Layout,
        lines: &[GivenLine],
    ) -> Result<Machine, BuildError> {
        let vcpus = config.cpus as usize;
        let affinities: Vec<_> = (0..vcpus as u8).map(|vcpu| vcpu_affinity(VcpuId(vcpu))).collect();
        let model = gic::model();
        let mut vgic = Vgic::new(&Config { model, affinities: &affinities, spis: layout.spis })?;
        if let Some(timer) = self.board.timer {
            vgic.map_line(IntId::VIRTUAL_TIMER, PhysicalIntId(timer.virtual_ as u16))?;
            vgic.map_line(IntId::PHYSICAL_TIMER, PhysicalIntId(timer.physical as u16))?;
        }
        for line in lines {
            vgic.map_line(IntId::spi(line.spi as u16), PhysicalIntId(line.physical.intid))?;
        }
        let mut regions = Vec::from([
            (Region { base: layout.gicd.base, size: vgic.distributor_size() }, Device::Gicd),
            (layout.uart.registers, Device::Uart),
            (layout.rtc.registers, Device::Rtc),
        ]);
        if model == Model::V3 {
            let size = 0x2_0000 * vcpus as u64;
            regions.push((Region { base: layout.gicr.base, size }, Device::Gicr));
        }
        let ram = Region { base: layout.ram.base, size: config.memory };
        // Firmware may start its CPUs from flash as well.
        let executable = [ram, layout.flash[0]];
        let has_flash = matches!(config.payload, config::manifest::Payload::Firmware { .. });
        let executable = &executable[..if has_flash { 2 } else { 1 }];
        Ok(Machine { mmio: MmioMap::new(&regions)?, vgic, power: PowerStates::new(vcpus as u8, executable)? })
    }

    fn geometry(
        &self,
        config: &VmConfig<'_>,
        layout: &Layout,
        devices: &[(Ipa, PaRange)],
    ) -> Result<Geometry, BuildError> {
        let ends = devices.iter().map(|(at, run)| at.as_u64().saturating_add(run.size()));
        let ram = layout.ram.base.as_u64().saturating_add(config.memory);
        let geometry = Geometry::new(ipa_bits(ends.chain([ram]), &self.features), self.features.pa_bits)?;
        Ok(geometry)
    }

    fn stage2(&self, id: VmId, geometry: Geometry, tables: &mut Tables) -> Result<Stage2, BuildError> {
        let format = if self.features.forced_write_back { Format::ForcedWriteBack } else { Format::Combined };
        let stage2 = Stage2::new(tables, id, geometry, format)?;
        Ok(stage2)
    }
}

/// Gives a VM its memory and loads it, at once: nobody else runs yet.
fn start(
    space: &mut Space,
    memory: &mut Holdings,
    reload: &mut Reload,
    random: Option<&Mutex<Generator>>,
) -> Result<(), BuildError> {
    while memory.take_some(space)? == Progress::More {}
    while reload.step(space, random)? == Progress::More {}
    log::debug!("{} frames for tables are left", space.parts().1.left());
    Ok(())
}

/// As many bits as what ends there needs, at least 40 (with which all CPUs have tables that start at level 1), or as many as there are.
fn ipa_bits(ends: impl Iterator<Item = u64>, features: &Features) -> u8 {
    let end = ends.max().unwrap_or(0);
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
    let cpus: Vec<_> = vm.vcpus().iter().map(|vcpu| vcpu.cpu().to_string()).collect();
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
    let mut at = vm.layout.ram.base.as_u64();
    for run in vm.memory.lock().ram() {
        log::debug!("{}: RAM {at:#x} is at {:#x}, {} MiB", vm.name, run.start().as_u64(), run.size() >> 20);
        at += run.size();
    }
}
