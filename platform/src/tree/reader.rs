//! Reads a checked tree into a [`Board`], in one pass over its nodes.
//!
//! Nodes are recognised by `compatible` and `device_type`, as the Devicetree Specification and the kernel's bindings
//! have them; everything else is left alone. Addresses are translated through the `ranges` of every bus above.

use arrayvec::{ArrayString, ArrayVec};
use devicetree::{MAX_DEPTH, Node, Tree, Walk, cell};
use stage2::{PAGE_SIZE, Pa};

use super::board::{
    Board, BoardError, Cpu, EnableMethod, Gic, MAX_CPUS, MAX_UARTS, MINI_UART_IN_PAGE, Psci, Range, Reserved,
    Timer, Uart, UartKind,
};
use super::value::{first, number, private_interrupt, shared_interrupt, strings, text};

/// What a node may be that is looked for.
enum Kind {
    GicV3,
    GicV2,
    Timer,
    Counters,
    Uart(UartKind),
    Rtc,
    Bcm2835Pm,
    FixedClock,
    Psci,
}

impl Kind {
    /// What one of the strings of `compatible` means.
    fn of(compatible: &[u8]) -> Option<Self> {
        Some(match compatible {
            b"arm,gic-v3" => Self::GicV3,
            b"arm,gic-400" | b"arm,cortex-a15-gic" | b"arm,cortex-a7-gic" => Self::GicV2,
            b"arm,armv8-timer" | b"arm,armv7-timer" => Self::Timer,
            b"arm,armv8-pmuv3" => Self::Counters,
            _ if is_counters_of_a_model(compatible) => Self::Counters,
            b"arm,pl011" => Self::Uart(UartKind::Pl011),
            b"brcm,bcm2835-aux-uart" => Self::Uart(UartKind::MiniUart),
            b"arm,pl031" => Self::Rtc,
            // The second was the only name before the device's other parts had a binding, and is still in most trees.
            b"brcm,bcm2835-pm" | b"brcm,bcm2835-pm-wdt" | b"brcm,bcm2711-pm" => Self::Bcm2835Pm,
            b"fixed-clock" => Self::FixedClock,
            b"arm,psci" | b"arm,psci-0.2" | b"arm,psci-1.0" => Self::Psci,
            _ => return None,
        })
    }
}

/// `arm,cortex-a72-pmu` and the like: older trees name the CPU's model alone.
fn is_counters_of_a_model(compatible: &[u8]) -> bool {
    let models: [&[u8]; 2] = [b"arm,cortex-", b"arm,neoverse-"];
    models.iter().any(|model| compatible.starts_with(model)) && compatible.ends_with(b"-pmu")
}

/// A bus on the way from the root to the node at hand.
struct Bus<'a> {
    name: &'a [u8],
    address_cells: usize,
    size_cells: usize,
    /// Without `ranges`, nothing on the bus has an address above it.
    ranges: Option<&'a [u8]>,
    /// Neither it nor a bus above is disabled.
    enabled: bool,
}

impl Bus<'_> {
    /// The address on the bus above, where addresses have `parent_cells` cells.
    fn to_parent(&self, address: u64, parent_cells: usize) -> Option<u64> {
        let ranges = self.ranges?;
        if ranges.is_empty() {
            return Some(address);
        }
        let entry = (self.address_cells + parent_cells + self.size_cells) * 4;
        ranges.chunks_exact(entry.max(4)).find_map(|entry| {
            let (child, rest) = entry.split_at_checked(self.address_cells * 4)?;
            let (parent, size) = rest.split_at_checked(parent_cells * 4)?;
            let (child, parent, size) = (number(child)?, number(parent)?, number(size)?);
            let offset = address.checked_sub(child).filter(|offset| *offset < size)?;
            parent.checked_add(offset)
        })
    }
}

/// A UART that may turn out to be the console.
struct Candidate<'a> {
    /// Phandle of its clock.
    clock: Option<u32>,
    interrupts: &'a [u8],
    uart: Uart,
}

/// What is kept from node to node.
pub struct Reader<'a> {
    path: ArrayVec<Bus<'a>, MAX_DEPTH>,
    /// `#interrupt-cells` of the GIC, before which others may stand that have interrupts.
    interrupt_cells: usize,
    /// The timer's name, and its interrupts.
    timer: Option<(&'a [u8], &'a [u8])>,
    /// Of performance counters, `interrupts` and `interrupt-affinity`. Where CPUs are of two models, there are two nodes.
    counters: ArrayVec<(&'a [u8], &'a [u8]), 4>,
    /// phandles of the CPUs that the board has.
    cpu_handles: ArrayVec<Option<u32>, MAX_CPUS>,
    stdout: &'a str,
    /// `/aliases`, as far as they may name a UART.
    aliases: ArrayVec<(&'a [u8], &'a str), 16>,
    uarts: ArrayVec<Candidate<'a>, MAX_UARTS>,
    /// Fixed clocks: phandle and frequency.
    clocks: ArrayVec<(u32, u32), 16>,
}

/// What is wanted of one node, gathered in a single pass over its properties.
#[derive(Default)]
struct Properties<'a> {
    compatible: &'a [u8],
    device_type: &'a [u8],
    reg: &'a [u8],
    interrupts: &'a [u8],
    interrupt_affinity: &'a [u8],
    ranges: Option<&'a [u8]>,
    enable_method: &'a [u8],
    release_address: &'a [u8],
    method: &'a [u8],
    status: &'a [u8],
    model: &'a [u8],
    stride: &'a [u8],
    redistributors: Option<usize>,
    clocks: &'a [u8],
    phandle: &'a [u8],
    clock_frequency: &'a [u8],
    no_map: bool,
    address_cells: Option<usize>,
    size_cells: Option<usize>,
    interrupt_cells: Option<usize>,
}

impl<'a> Properties<'a> {
    /// Those of the node to which the walk has come.
    fn read(walk: &mut Walk<'a>) -> Self {
        let mut found = Self::default();
        while let Some(property) = walk.property() {
            let value = property.value;
            let count = || cell(value, 0).map(|count| count as usize);
            match property.name {
                b"compatible" => found.compatible = value,
                b"device_type" => found.device_type = value,
                b"reg" => found.reg = value,
                b"interrupts" => found.interrupts = value,
                b"interrupt-affinity" => found.interrupt_affinity = value,
                b"ranges" => found.ranges = Some(value),
                b"enable-method" => found.enable_method = value,
                b"cpu-release-addr" => found.release_address = value,
                b"method" => found.method = value,
                b"status" => found.status = value,
                b"model" => found.model = value,
                b"redistributor-stride" => found.stride = value,
                b"#redistributor-regions" => found.redistributors = count(),
                b"clocks" => found.clocks = value,
                b"phandle" => found.phandle = value,
                b"clock-frequency" => found.clock_frequency = value,
                b"no-map" => found.no_map = true,
                b"#address-cells" => found.address_cells = count(),
                b"#size-cells" => found.size_cells = count(),
                b"#interrupt-cells" => found.interrupt_cells = count(),
                _ => {}
            }
        }
        found
    }

    /// What it is, by the first string of `compatible` that is known.
    fn kind(&self) -> Option<Kind> {
        strings(self.compatible).find_map(Kind::of)
    }

    fn is_enabled(&self) -> bool {
        matches!(first(self.status), b"" | b"okay" | b"ok")
    }

    /// The cells of an interrupt, where it is a GIC: its binding knows three and four.
    fn interrupt_cells(&self) -> usize {
        self.interrupt_cells.filter(|cells| *cells == 4).unwrap_or(3)
    }
}

impl<'a> Reader<'a> {
    /// Reads the whole tree, whatever is wrong with it: what was found, and the first thing that was wrong.
    pub fn run(tree: &Tree<'a>) -> (Board<'a>, Result<(), BoardError>) {
        let mut board = Board::default();
        let mut reader = Self {
            path: ArrayVec::new(),
            interrupt_cells: 3,
            timer: None,
            counters: ArrayVec::new(),
            cpu_handles: ArrayVec::new(),
            stdout: "",
            aliases: ArrayVec::new(),
            uarts: ArrayVec::new(),
            clocks: ArrayVec::new(),
        };
        let mut outcome = Ok(());
        for (address, size) in tree.reservations() {
            outcome = outcome.and(reserve(&mut board, Range::physical(address, size), false));
        }
        let mut walk = tree.walk();
        while let Some(node) = walk.node() {
            outcome = outcome.and(reader.node(&mut board, &node, &Properties::read(&mut walk)));
        }
        // The GIC is known by now, where there is one.
        outcome = outcome.and(reader.timer(&mut board));
        reader.counters(&mut board);
        board.uarts = reader.ranked_uarts();
        (board, outcome)
    }

    fn node(
        &mut self,
        board: &mut Board<'a>,
        node: &Node<'a>,
        properties: &Properties<'a>,
    ) -> Result<(), BoardError> {
        let depth = node.depth;
        self.path.truncate(depth);
        let outcome = self.take(board, node, properties);
        // The kernel's binding wants an empty `ranges` there; without it the addresses are still physical ones, and a
        // region that is not left alone is worse than one too many.
        let reserved_memory = depth == 1 && node.name == b"reserved-memory";
        self.path.push(Bus {
            name: node.name,
            address_cells: properties.address_cells.unwrap_or(2),
            size_cells: properties.size_cells.unwrap_or(1),
            ranges: if reserved_memory { Some(&[]) } else { properties.ranges },
            enabled: self.is_reachable(properties),
        });
        outcome
    }

    /// Takes over what one node says, the path to it being known.
    fn take(
        &mut self,
        board: &mut Board<'a>,
        node: &Node<'a>,
        found: &Properties<'a>,
    ) -> Result<(), BoardError> {
        let parent = self.path.get(1).map(|bus| bus.name);
        match (node.depth, node.name, parent) {
            (0, _, _) => {
                // It is shown on a line: one with anything else is none.
                let plain = |value| Some(text(value)).filter(|text| !text.contains(char::is_control));
                board.model = match plain(found.model).unwrap_or("") {
                    "" => plain(found.compatible).unwrap_or(""),
                    model => model,
                };
                Ok(())
            }
            (1, b"chosen", _) => {
                self.chosen(board, node);
                Ok(())
            }
            (1, b"aliases", _) => {
                self.aliases(node);
                Ok(())
            }
            (1, _, _) if found.device_type == b"memory\0" => self.memory(board, found),
            (2, _, Some(b"cpus")) if found.device_type == b"cpu\0" => self.cpu(board, node, found),
            (2, _, Some(b"reserved-memory")) => self.reserved(board, found),
            _ if !found.compatible.is_empty() && self.is_reachable(found) => self.device(board, node, found),
            _ => Ok(()),
        }
    }

    fn is_reachable(&self, found: &Properties<'a>) -> bool {
        found.is_enabled() && self.path.last().is_none_or(|bus| bus.enabled)
    }

    fn chosen(&mut self, board: &mut Board<'a>, node: &Node<'a>) {
        let (mut start, mut end) = (None, None);
        for property in node.properties() {
            match property.name {
                b"bootargs" => board.bootargs = text(property.value),
                b"stdout-path" => self.stdout = text(property.value),
                b"linux,initrd-start" => start = number(property.value),
                b"linux,initrd-end" => end = number(property.value),
                b"rng-seed" => board.rng_seed = property.value,
                _ => {}
            }
        }
        if let (Some(start), Some(end)) = (start, end)
            && let Some(size) = end.checked_sub(start).filter(|size| *size != 0)
        {
            // One that does not lie in the physical address space whole is none at all.
            board.initrd = Range::physical(start, size).filter(|range| range.size == size);
        }
    }

    fn aliases(&mut self, node: &Node<'a>) {
        for property in node.properties() {
            let uart = property.name.starts_with(b"serial") || property.name.starts_with(b"uart");
            if uart && self.aliases.try_push((property.name, text(property.value))).is_err() {
                return;
            }
        }
    }

    fn memory(&self, board: &mut Board<'a>, found: &Properties<'a>) -> Result<(), BoardError> {
        if !found.is_enabled() {
            return Ok(());
        }
        let mut banks = self.regions(found).flatten().filter(|bank| bank.size != 0);
        banks.try_for_each(|bank| push(&mut board.memory, bank, "RAM banks"))
    }

    fn reserved(&self, board: &mut Board<'a>, found: &Properties<'a>) -> Result<(), BoardError> {
        if !found.is_enabled() {
            return Ok(());
        }
        self.regions(found).try_for_each(|range| reserve(board, range, found.no_map))
    }

    fn cpu(
        &mut self,
        board: &mut Board<'a>,
        node: &Node<'a>,
        found: &Properties<'a>,
    ) -> Result<(), BoardError> {
        // A CPU whose status is "disabled" may still be started (Devicetree Specification, 3.8.1); "fail" may not.
        if found.status.starts_with(b"fail") {
            return Ok(());
        }
        let mpidr = number(found.reg).ok_or_else(|| malformed(node.name, "reg is no CPU number"))?;
        if board.cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
            return Err(malformed(node.name, "reg is the number of a CPU before it"));
        }
        let enable_method = match first(found.enable_method) {
            b"psci" => EnableMethod::Psci,
            b"spin-table" => {
                let address = number(found.release_address);
                EnableMethod::SpinTable(Pa::new(
                    address.ok_or_else(|| malformed(node.name, "cpu-release-addr is missing"))?,
                ))
            }
            _ => EnableMethod::Unknown,
        };
        push(&mut board.cpus, Cpu { mpidr, enable_method, counters: None }, "CPUs")?;
        push(&mut self.cpu_handles, cell(found.phandle, 0), "CPUs")
    }

    fn device(
        &mut self,
        board: &mut Board<'a>,
        node: &Node<'a>,
        found: &Properties<'a>,
    ) -> Result<(), BoardError> {
        let Some(kind) = found.kind() else { return Ok(()) };
        match kind {
            Kind::GicV3 => {
                self.interrupt_cells = found.interrupt_cells();
                board.gic = Some(self.gic_v3(node, found)?);
            }
            Kind::GicV2 => {
                self.interrupt_cells = found.interrupt_cells();
                board.gic = Some(self.gic_v2(node, found)?);
            }
            Kind::Timer => self.timer = Some((node.name, found.interrupts)),
            Kind::Counters => {
                let node = (found.interrupts, found.interrupt_affinity);
                push(&mut self.counters, node, "nodes of performance counters")?;
            }
            Kind::Uart(kind) => self.uart(node, found, kind),
            Kind::Rtc => board.rtc = self.regions(found).next().flatten(),
            Kind::Bcm2835Pm => board.bcm2835_pm = self.regions(found).next().flatten(),
            Kind::FixedClock => {
                if let (Some(phandle), Some(rate)) = (cell(found.phandle, 0), cell(found.clock_frequency, 0))
                {
                    // Only UARTs' are wanted; a board with more fixed clocks than these keeps firmware's settings.
                    let _ = self.clocks.try_push((phandle, rate));
                }
            }
            Kind::Psci => {
                board.psci = match first(found.method) {
                    b"smc" => Some(Psci::Smc),
                    b"hvc" => Some(Psci::Hvc),
                    _ => return Err(malformed(node.name, "method is neither smc nor hvc")),
                }
            }
        }
        Ok(())
    }

    /// The timer's interrupts, once it is known how many cells they have.
    fn timer(&self, board: &mut Board<'a>) -> Result<(), BoardError> {
        let Some((name, interrupts)) = self.timer else { return Ok(()) };
        let line = |index| {
            private_interrupt(interrupts, self.interrupt_cells, index)
                .ok_or_else(|| malformed(name, "four private interrupts are needed"))
        };
        board.timer = Some(Timer { physical: line(1)?, virtual_: line(2)?, hypervisor: line(3)? });
        Ok(())
    }

    /// The interrupts of the CPUs' performance counters, once it is known how many cells they have: a private one for all, or an SPI
    /// for each.
    fn counters(&self, board: &mut Board<'a>) {
        for &(interrupts, affinity) in &self.counters {
            if let Some(intid) = private_interrupt(interrupts, self.interrupt_cells, 0) {
                for cpu in &mut board.cpus {
                    cpu.counters.get_or_insert(intid);
                }
            }
            for n in 0..board.cpus.len() {
                let cpu = if affinity.is_empty() { Some(n) } else { self.cpu_of_handle(cell(affinity, n)) };
                if let Some(cpu) = cpu.and_then(|cpu| board.cpus.get_mut(cpu))
                    && let Some(intid) = shared_interrupt(interrupts, self.interrupt_cells, n)
                {
                    cpu.counters = Some(intid);
                }
            }
        }
    }

    fn cpu_of_handle(&self, handle: Option<u32>) -> Option<usize> {
        handle.and_then(|handle| self.cpu_handles.iter().position(|cpu| *cpu == Some(handle)))
    }

    fn gic_v3(&self, node: &Node<'a>, found: &Properties<'a>) -> Result<Gic, BoardError> {
        let no_redistributors = || malformed(node.name, "reg has no redistributors");
        let mut regions = self.regions(found);
        let gicd = regions.next().flatten().ok_or_else(|| malformed(node.name, "reg has no distributor"))?;
        let mut redistributors = ArrayVec::new();
        for region in regions.take(found.redistributors.unwrap_or(1)) {
            push(&mut redistributors, region.ok_or_else(no_redistributors)?, "redistributor regions")?;
        }
        if redistributors.is_empty() {
            return Err(no_redistributors());
        }
        let maintenance = private_interrupt(found.interrupts, found.interrupt_cells(), 0);
        Ok(Gic::V3 {
            gicd,
            redistributors,
            stride: number(found.stride),
            maintenance: maintenance
                .ok_or_else(|| malformed(node.name, "no private maintenance interrupt"))?,
        })
    }

    fn gic_v2(&self, node: &Node<'a>, found: &Properties<'a>) -> Result<Gic, BoardError> {
        let regions: ArrayVec<Option<Range>, 4> = self.regions(found).take(4).collect();
        let [Some(gicd), Some(gicc), Some(gich), Some(gicv)] = regions[..] else {
            return Err(malformed(node.name, "reg lacks the virtualization extensions (GICH, GICV)"));
        };
        let maintenance = private_interrupt(found.interrupts, found.interrupt_cells(), 0);
        let maintenance =
            maintenance.ok_or_else(|| malformed(node.name, "no private maintenance interrupt"))?;
        Ok(Gic::V2 { gicd, gicc, gich, gicv, maintenance })
    }

    fn uart(&mut self, node: &Node<'a>, found: &Properties<'a>, kind: UartKind) {
        let Some(registers) = self.regions(found).next().flatten() else { return };
        // The driver reaches for registers that the block has before these.
        let place = registers.start.as_u64() % PAGE_SIZE;
        if kind == UartKind::MiniUart && place != MINI_UART_IN_PAGE {
            return;
        }
        let mut path = ArrayString::new();
        let names = self.path.iter().skip(1).map(|bus| bus.name).chain([node.name]);
        for name in names {
            if path.try_push_str("/").and_then(|()| path.try_push_str(text(name))).is_err() {
                return;
            }
        }
        let uart = Uart { kind, registers, interrupt: None, clock: None, path };
        // One UART too many can be no console; nothing else is lost with it.
        let _ = self.uarts.try_push(Candidate {
            clock: cell(found.clocks, 0),
            interrupts: found.interrupts,
            uart,
        });
    }

    /// The UARTs in the order in which they are to be the console: the one that `stdout-path` names, the one that the
    /// alias `serial0` names, the others in the tree's order.
    fn ranked_uarts(&self) -> ArrayVec<Uart, MAX_UARTS> {
        let stdout = self.stdout.split(':').next().unwrap_or("");
        let named = [stdout, "serial0"].map(|name| {
            let alias = self.aliases.iter().find(|(alias, _)| *alias == name.as_bytes());
            alias.map_or(name, |(_, path)| path)
        });
        let rank = |uart: &Uart| named.iter().position(|path| *path == uart.path.as_str());
        let ranks = (0..named.len()).map(Some).chain([None]);
        ranks
            .flat_map(|wanted| self.uarts.iter().filter(move |candidate| rank(&candidate.uart) == wanted))
            .map(|Candidate { clock, interrupts, uart }| {
                let fixed = self.clocks.iter().find(|(phandle, _)| Some(*phandle) == *clock);
                let interrupt = shared_interrupt(interrupts, self.interrupt_cells, 0);
                Uart { interrupt, clock: fixed.map(|(_, rate)| *rate), ..*uart }
            })
            .collect()
    }

    /// The `reg` entries of a node on the bus at hand as physical addresses; `None` for one that some bus on the way
    /// does not pass on, or whose address or size has more cells than a number.
    fn regions<'p>(&'p self, found: &Properties<'a>) -> impl Iterator<Item = Option<Range>> + use<'a, 'p> {
        let (address_cells, size_cells) =
            self.path.last().map_or((2, 1), |bus| (bus.address_cells, bus.size_cells));
        let entry = (address_cells + size_cells) * 4;
        found.reg.chunks_exact(entry.max(4)).map(move |entry| {
            let (address, size) = entry.split_at_checked(address_cells * 4)?;
            let size = if size.is_empty() { 0 } else { number(size)? };
            Range::physical(self.translate(number(address)?)?, size)
        })
    }

    /// Takes an address on the bus at hand up to the root.
    fn translate(&self, address: u64) -> Option<u64> {
        let buses = self.path.iter().rev();
        let parents = buses.clone().skip(1);
        buses
            .zip(parents)
            .try_fold(address, |address, (bus, parent)| bus.to_parent(address, parent.address_cells))
    }
}

fn reserve(board: &mut Board<'_>, range: Option<Range>, no_map: bool) -> Result<(), BoardError> {
    match range {
        Some(range) if range.size != 0 => {
            push(&mut board.reserved, Reserved { range, no_map }, "reserved regions")
        }
        _ => Ok(()),
    }
}

/// The name is shown on a line, with nothing that a terminal would act on.
fn malformed(node: &[u8], what: &'static str) -> BoardError {
    let mut name = ArrayString::new();
    for character in text(node).chars().map(|character| if character.is_control() { '?' } else { character })
    {
        if name.try_push(character).is_err() {
            break;
        }
    }
    BoardError::Node { node: name, what }
}

fn push<T, const N: usize>(
    list: &mut ArrayVec<T, N>,
    value: T,
    what: &'static str,
) -> Result<(), BoardError> {
    list.try_push(value).map_err(|_| BoardError::TooMany(what))
}
