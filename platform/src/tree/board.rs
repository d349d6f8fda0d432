//! The board as EL2 needs it: what is taken from the tree, and what may be wrong with it. How the tree is read is in
//! `reader`.

use arrayvec::{ArrayString, ArrayVec};
use devicetree::Tree;
use stage2::{PAGE_SIZE, Pa};
use thiserror::Error;

use super::reader::Reader;
use super::value::FIRST_SPI;

/// Most CPUs that a board may have.
pub const MAX_CPUS: usize = 64;
/// Most UARTs of a board that are known; what is beyond can be no console.
pub const MAX_UARTS: usize = 8;
/// Where a mini-UART's registers lie in the page of the auxiliary peripherals (BCM2711 ARM Peripherals, 2.1).
pub const MINI_UART_IN_PAGE: u64 = 0x40;
const MAX_REGIONS: usize = 64;
const MAX_REDISTRIBUTORS: usize = 8;
/// The end of the architecture's physical address space: no implementation has more than 52 bits.
const PHYSICAL_END: u64 = 1 << 52;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub start: Pa,
    /// Length in bytes.
    pub size: u64,
}

impl Range {
    /// The range, cut off at the end of the physical address space; `None` if it starts beyond. Whoever rounds its end
    /// up to a page or block cannot overflow.
    pub(super) fn physical(start: u64, size: u64) -> Option<Self> {
        let room = PHYSICAL_END.checked_sub(start).filter(|room| *room != 0)?;
        Some(Self { start: Pa::new(start), size: size.min(room) })
    }

    /// The first address behind the range.
    pub fn end(&self) -> u64 {
        self.start.as_u64().saturating_add(self.size)
    }

    /// Where the whole pages that hold it start, and where they end.
    pub fn pages(&self) -> (u64, u64) {
        let below = PAGE_SIZE - 1;
        (self.start.as_u64() & !below, self.end().saturating_add(below) & !below)
    }
}

/// Memory that firmware keeps for itself or for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where it lies.
    pub range: Range,
    /// It may not even be mapped (`no-map`).
    pub no_map: bool,
}

/// How a CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// PSCI's CPU_ON.
    Psci,
    /// It polls this address for where to go.
    SpinTable(Pa),
    /// The tree doesn't say, or names a method that is not known.
    Unknown,
}

/// One CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its affinity, as MPIDR_EL1 has it in Aff3..Aff0.
    pub mpidr: u64,
    /// How it is started.
    pub enable_method: EnableMethod,
    /// INTID of the interrupt that its performance counters raise (binding `arm,pmu`): a PPI, or an SPI of its own.
    pub counters: Option<u32>,
}

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv2 with virtualization extensions.
    V2 {
        /// Distributor.
        gicd: Range,
        /// Physical CPU interface.
        gicc: Range,
        /// Virtual interface control.
        gich: Range,
        /// Virtual CPU interface, which guests see as their GICC.
        gicv: Range,
        /// INTID of the maintenance interrupt.
        maintenance: u32,
    },
    /// GICv3 or later, by system registers.
    V3 {
        /// Distributor.
        gicd: Range,
        /// Redistributor regions.
        redistributors: ArrayVec<Range, MAX_REDISTRIBUTORS>,
        /// Distance between redistributors in bytes, where the tree says it.
        stride: Option<u64>,
        /// INTID of the maintenance interrupt.
        maintenance: u32,
    },
}

/// The most ranges of registers that an interrupt controller has.
const MAX_GIC: usize = MAX_REDISTRIBUTORS + 1;

impl Gic {
    /// The registers that a hypervisor drives.
    pub fn registers(&self) -> ArrayVec<Range, MAX_GIC> {
        match self {
            Self::V2 { gicd, gicc, gich, .. } => [*gicd, *gicc, *gich].into_iter().collect(),
            Self::V3 { gicd, redistributors, .. } => {
                core::iter::once(*gicd).chain(redistributors.iter().copied()).collect()
            }
        }
    }

    /// The registers that it lends to whichever guest runs, if it has such.
    pub fn virtual_interface(&self) -> Option<Range> {
        match self {
            Self::V2 { gicv, .. } => Some(*gicv),
            Self::V3 { .. } => None,
        }
    }
}

/// INTIDs of the generic timer's interrupts (binding `arm,armv8-timer`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// EL1 physical timer (non-secure).
    pub physical: u32,
    /// EL1 virtual timer.
    pub virtual_: u32,
    /// EL2 physical timer.
    pub hypervisor: u32,
}

/// Kinds of UART that EL2 can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// Arm PrimeCell PL011.
    Pl011,
    /// The mini-UART of the BCM283x and BCM2711 (`brcm,bcm2835-aux-uart`). Its registers lie [`MINI_UART_IN_PAGE`] bytes
    /// into a page that has two SPI masters as well, and its interrupt is theirs too.
    MiniUart,
}

/// A UART that may be the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uart {
    /// What it is.
    pub kind: UartKind,
    /// Its registers.
    pub registers: Range,
    /// Its INTID.
    pub interrupt: Option<u32>,
    /// The frequency of its clock in Hz, where the tree has it as a fixed clock.
    pub clock: Option<u32>,
    /// The full path of its node.
    pub path: ArrayString<96>,
}

/// How firmware's PSCI is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Psci {
    /// By SMC, the only way there is from EL2.
    Smc,
    /// By HVC, which from EL2 would be a call to EL2 itself.
    Hvc,
}

/// All that EL2 takes from the tree. Text borrows from the tree's blob.
#[derive(Debug, Default)]
pub struct Board<'a> {
    /// `model`, or else the first `compatible` string.
    pub model: &'a str,
    /// RAM banks.
    pub memory: ArrayVec<Range, MAX_REGIONS>,
    /// Reserved memory, from `/reserved-memory` and the blob's own reservation block.
    pub reserved: ArrayVec<Reserved, MAX_REGIONS>,
    /// CPUs, in the tree's order.
    pub cpus: ArrayVec<Cpu, MAX_CPUS>,
    /// The interrupt controller.
    pub gic: Option<Gic>,
    /// The timer's interrupts.
    pub timer: Option<Timer>,
    /// The UARTs that are enabled and of a known kind, the console first: the one that `stdout-path` names, the one that
    /// the alias `serial0` names, then the others in the tree's order.
    pub uarts: ArrayVec<Uart, MAX_UARTS>,
    /// A PL031 real-time clock.
    pub rtc: Option<Range>,
    /// How firmware is called.
    pub psci: Option<Psci>,
    /// The power manager of a BCM2835 or one of its successors, whose watchdog turns the board off or over.
    pub bcm2835_pm: Option<Range>,
    /// `linux,initrd-start` to `linux,initrd-end`: the VM bundle.
    pub initrd: Option<Range>,
    /// `/chosen/bootargs`.
    pub bootargs: &'a str,
    /// `/chosen/rng-seed`.
    pub rng_seed: &'a [u8],
}

/// A device that a hypervisor uses itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Its registers; of size 0: none.
    pub registers: Range,
    /// The INTID of its line.
    pub interrupt: Option<u32>,
    /// What it is, for a message.
    pub what: &'static str,
}

/// What a tree lacks, or has in a form that can't be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[allow(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum BoardError {
    #[error("the device tree has no {0}")]
    Missing(&'static str),
    #[error("node {node} of the device tree: {what}")]
    Node { node: ArrayString<64>, what: &'static str },
    #[error("the device tree has more {0} than fit")]
    TooMany(&'static str),
}

impl<'a> Board<'a> {
    /// Reads a tree.
    ///
    /// # Errors
    /// What a hypervisor cannot do without is missing or malformed: RAM, CPUs, GIC, timer. A missing UART is not an
    /// error: a board may run without a console.
    pub fn read(tree: &Tree<'a>) -> Result<Self, BoardError> {
        let (board, outcome) = Self::read_any(tree);
        outcome.and_then(|()| board.check_complete()).map(|()| board)
    }

    /// Reads a tree that may lack everything, or have it wrong: what there is, and the first thing that is malformed.
    pub fn read_any(tree: &Tree<'a>) -> (Self, Result<(), BoardError>) {
        Reader::run(tree)
    }

    /// Whether all is there that a hypervisor cannot do without.
    ///
    /// # Errors
    /// What is missing.
    pub fn check_complete(&self) -> Result<(), BoardError> {
        let need = |there: bool, what| if there { Ok(()) } else { Err(BoardError::Missing(what)) };
        need(!self.memory.is_empty(), "memory")?;
        need(!self.cpus.is_empty(), "CPUs")?;
        need(self.gic.is_some(), "interrupt controller that is known (GICv2 or GICv3)")?;
        need(self.timer.is_some(), "arm,armv8-timer")
    }

    /// The UART that is the console.
    pub fn console(&self) -> Option<&Uart> {
        self.uarts.first()
    }

    /// What a hypervisor uses of the board itself, so that nobody else can have it; but for the console, which may be another one
    /// yet.
    pub fn used_for_ever(&self) -> impl Iterator<Item = Used> {
        let gic = self.gic.iter().flat_map(|gic| gic.registers().into_iter().chain(gic.virtual_interface()));
        let gic = gic.map(|registers| Used { registers, interrupt: None, what: "the interrupt controller" });
        let power = self.bcm2835_pm.map(|registers| Used {
            registers,
            interrupt: None,
            what: "the board's power manager",
        });
        gic.chain(power)
    }

    /// The same with the console, and the lines of the CPUs' performance counters that are SPIs.
    pub fn used(&self) -> impl Iterator<Item = Used> {
        let console = self.console().map(|uart| Used {
            registers: uart.registers,
            interrupt: uart.interrupt,
            what: "the console",
        });
        let spis = self.cpus.iter().filter_map(|cpu| cpu.counters.filter(|intid| *intid >= FIRST_SPI));
        let counters = spis.map(|intid| Used {
            registers: Range { start: Pa::new(0), size: 0 },
            interrupt: Some(intid),
            what: "the CPUs' performance counters",
        });
        self.used_for_ever().chain(console).chain(counters)
    }
}
