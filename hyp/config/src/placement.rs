//! Which physical CPU each vCPU runs on: pinned ones alone, those that share where there is the least to do.
//!
//! Decided once for the whole bundle, so that it doesn't depend on the order of the VMs more than it must. A VM that finds no
//! place takes none from the others. What a vCPU really uses isn't known here: some are moved later, where their CPU turns out to
//! have more to do than another (`el2`).

use alloc::vec::Vec;

use thiserror::Error;
use vmm::order;
use vmm::sched::{self, Share};

use crate::manifest::Sharing;

/// The most vCPUs on one CPU.
pub const MAX_PER_CPU: usize = 64;
/// The most of a CPU's time that reservations can take, in percent: the rest is for vCPUs with a weight, and for the
/// hypervisor.
pub const MAX_RESERVED: u64 = 90;

/// All of a CPU's time. A reservation's part of it is rounded down, so that parts which are exact together, as seven
/// times 90 of 700 µs, are so here; by that 64 vCPUs are at most 64 billionths above [`MAX_RESERVED`].
const WHOLE: u64 = 1_000_000_000;
/// [`MAX_RESERVED`] of it.
const RESERVABLE: u64 = WHOLE / 100 * MAX_RESERVED;

/// What a VM wants of the CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand<'a> {
    /// Number of its vCPUs.
    pub vcpus: usize,
    /// What it names, as in [`VmConfig::cpu_affinity`](crate::manifest::VmConfig::cpu_affinity).
    pub affinity: Option<&'a [u32]>,
    /// Whether it shares CPUs, and on which terms.
    pub sharing: Sharing,
}

/// Why a VM finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PlacementError {
    /// Too few CPUs for a VM whose vCPUs are pinned.
    #[error("cpus: {wanted} CPUs are wanted and {free} of the board's {all} are free")]
    Cpus {
        /// The VM's vCPUs.
        wanted: usize,
        /// CPUs that run and that nobody is pinned to.
        free: usize,
        /// CPUs of the board.
        all: usize,
    },
    /// A CPU that it names and can't have.
    #[error("cpu-affinity: CPU {cpu} is {why}")]
    Affinity {
        /// The CPU.
        cpu: u32,
        /// `not there`, `not running`, `named twice`, or `another VM's`: that one is pinned to it.
        why: &'static str,
    },
    /// Not one CPU for each vCPU of a VM that is pinned. The manifest's reader lets none such through.
    #[error("cpu-affinity: lists {listed} CPUs for {vcpus} vCPUs: one for each is needed")]
    AffinityCount {
        /// Entries in the list.
        listed: usize,
        /// The VM's vCPUs.
        vcpus: usize,
    },
    /// Every CPU has a vCPU pinned to it.
    #[error(
        "cpus: no CPU is left to share: vCPUs are pinned to all {running} that run; give one of their VMs fewer vCPUs, or a weight"
    )]
    NoneToShare {
        /// CPUs that run.
        running: usize,
    },
    /// Too much is reserved already.
    #[error(
        "budget: vCPU {vcpu} wants {budget} of every {period} us, and no CPU that it may be on has more than {left} left"
    )]
    NoRoom {
        /// The first of the VM's vCPUs without a place.
        vcpu: usize,
        /// µs in each period that it wants.
        budget: u32,
        /// In µs.
        period: u32,
        /// µs in each period that it could have, of [`MAX_RESERVED`] percent.
        left: u32,
    },
    /// Time enough, but in another rhythm.
    #[error(
        "budget: with vCPU {vcpu}'s {budget} of every {period} us, some vCPU would miss its period on each CPU that has the time: give it one that the others' are multiples of, or a multiple of theirs"
    )]
    CannotKeep {
        /// The first of the VM's vCPUs without a place.
        vcpu: usize,
        /// µs in each period that it wants.
        budget: u32,
        /// In µs.
        period: u32,
    },
    /// Too many vCPUs.
    #[error("cpus: each CPU that vCPU {vcpu} may be on has {} vCPUs already", MAX_PER_CPU)]
    Full {
        /// The first of the VM's vCPUs without a place.
        vcpu: usize,
    },
}

/// Why a CPU can't be had that another VM's vCPU is pinned to.
const TAKEN: &str = "another VM's";

impl PlacementError {
    /// Whether there might be room if other VMs took none.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Cpus { wanted, all, .. } => *wanted <= *all,
            Self::Affinity { why, .. } => *why == TAKEN,
            Self::AffinityCount { .. } => false,
            Self::NoneToShare { .. } | Self::NoRoom { .. } | Self::CannotKeep { .. } | Self::Full { .. } => {
                true
            }
        }
    }
}

/// The CPU of each vCPU, for each VM in the order of `demands`, or why it has none. `online[n]`: CPU n of the board runs;
/// CPU 0 is the boot CPU, which has the board's housekeeping to do and is taken last.
///
/// VMs that are pinned come first, of them those that name their CPUs; then those that reserve time; then those with a weight.
/// Among equals, the first comes first.
#[inline(never)]
pub fn place(online: &[bool], demands: &[Demand<'_>]) -> Vec<Result<Vec<usize>, PlacementError>> {
    let mut board = Board(online.iter().map(|&is_online| Cpu { is_online, ..Cpu::default() }).collect());
    let mut turns: Vec<(usize, &Demand<'_>)> = demands.iter().enumerate().collect();
    order::sort_by_key(&mut turns, |(_, demand)| turn(demand));
    let mut placed: Vec<_> = turns.into_iter().map(|(index, demand)| (index, board.place(demand))).collect();
    order::sort_by_key(&mut placed, |(index, _)| *index);
    placed.into_iter().map(|(_, result)| result).collect()
}

/// Whose turn it is before whose.
fn turn(demand: &Demand<'_>) -> u8 {
    match (demand.sharing, demand.affinity) {
        (Sharing::Pinned, Some(_)) => 0,
        (Sharing::Pinned, None) => 1,
        (Sharing::Reserved { .. }, _) => 2,
        (Sharing::Weight(_), _) => 3,
    }
}

/// A CPU, and what has been placed on it.
#[derive(Clone, Debug, Default)]
struct Cpu {
    is_online: bool,
    is_pinned: bool,
    vcpus: usize,
    /// What its vCPUs reserve, in parts of [`WHOLE`].
    reserved: u64,
    /// Each of these reservations, in µs.
    reservations: Vec<Share>,
    /// The sum of its vCPUs' weights.
    weight: u64,
}

impl Cpu {
    /// Whether a vCPU can go here beside others.
    fn can_be_shared(&self) -> bool {
        self.is_online && !self.is_pinned
    }

    /// What may still be reserved, in parts of [`WHOLE`].
    fn reservable(&self) -> u64 {
        RESERVABLE.saturating_sub(self.reserved)
    }

    /// Whether everybody here gets what is reserved in each of its periods, with one more.
    fn can_keep(&self, budget: u32, period: u32) -> bool {
        let one_more = core::iter::once(in_us(budget, period));
        sched::admit(self.reservations.iter().copied().chain(one_more)).is_ok()
    }

    /// How much there is to do, for comparison by a vCPU that would come here on these terms. For a reservation: what is
    /// reserved. For a weight: the sum of weights with it, to the time that they share, so that it is least where the vCPU
    /// gets the most.
    fn load(&self, terms: Sharing) -> u128 {
        match terms {
            Sharing::Pinned | Sharing::Reserved { .. } => self.reserved.into(),
            Sharing::Weight(weight) => {
                let weights = self.weight.saturating_add(weight.into());
                let shared = WHOLE.saturating_sub(self.reserved);
                let load = u128::from(weights).saturating_mul(WHOLE.into());
                load.checked_div(shared.into()).unwrap_or(u128::MAX)
            }
        }
    }

    fn add(&mut self, terms: Sharing) {
        self.vcpus = self.vcpus.saturating_add(1);
        match terms {
            Sharing::Pinned => self.is_pinned = true,
            Sharing::Weight(weight) => self.weight = self.weight.saturating_add(weight.into()),
            Sharing::Reserved { budget, period } => {
                self.reserved = self.reserved.saturating_add(part(budget, period));
                self.reservations.push(in_us(budget, period));
            }
        }
    }
}

fn in_us(budget: u32, period: u32) -> Share {
    Share::Budget { budget: budget.into(), period: period.into() }
}

/// A reservation in parts of [`WHOLE`].
fn part(budget: u32, period: u32) -> u64 {
    let budget = u64::from(budget).saturating_mul(WHOLE);
    // No period: more than there is.
    budget.checked_div(period.into()).unwrap_or(u64::MAX)
}

/// The board's CPUs, by number.
#[derive(Clone)]
struct Board(Vec<Cpu>);

impl Board {
    /// Places all vCPUs of a VM, or none.
    fn place(&mut self, demand: &Demand<'_>) -> Result<Vec<usize>, PlacementError> {
        let chosen = match (demand.sharing, demand.affinity) {
            (Sharing::Pinned, Some(named)) => self.pin_to(named, demand.vcpus)?,
            (Sharing::Pinned, None) => self.pin(demand.vcpus)?,
            (terms, named) => {
                let allowed = self.allowed(named)?;
                // A copy: no vCPU has its place before all of them have one.
                self.clone().share(demand.vcpus, terms, &allowed)?
            }
        };
        for cpu in &chosen {
            self.add(*cpu, demand.sharing);
        }
        Ok(chosen)
    }

    fn add(&mut self, cpu: usize, terms: Sharing) {
        if let Some(cpu) = self.0.get_mut(cpu) {
            cpu.add(terms);
        }
    }

    fn indices(&self, is_wanted: impl Fn(&Cpu) -> bool) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, cpu)| is_wanted(cpu)).map(|(index, _)| index).collect()
    }

    /// CPUs for a VM that is pinned and doesn't care: the boot CPU last.
    fn pin(&self, wanted: usize) -> Result<Vec<usize>, PlacementError> {
        let mut free = self.indices(Cpu::can_be_shared);
        order::sort_by_key(&mut free, |&cpu| (cpu == 0, cpu));
        let short = PlacementError::Cpus { wanted, free: free.len(), all: self.0.len() };
        let mut chosen = free.get(..wanted).ok_or(short)?.to_vec();
        order::sort(&mut chosen);
        Ok(chosen)
    }

    fn pin_to(&self, named: &[u32], vcpus: usize) -> Result<Vec<usize>, PlacementError> {
        if named.len() != vcpus {
            return Err(PlacementError::AffinityCount { listed: named.len(), vcpus });
        }
        self.named(named)
    }

    /// The CPUs that a VM names, in its order, if nobody is pinned to any of them.
    fn named(&self, named: &[u32]) -> Result<Vec<usize>, PlacementError> {
        let mut chosen = Vec::new();
        for &cpu in named {
            let index = usize::try_from(cpu).unwrap_or(usize::MAX);
            let why = match self.0.get(index) {
                None => "not there",
                Some(state) if !state.is_online => "not running",
                Some(_) if chosen.contains(&index) => "named twice",
                Some(state) if state.is_pinned => TAKEN,
                Some(_) => {
                    chosen.push(index);
                    continue;
                }
            };
            return Err(PlacementError::Affinity { cpu, why });
        }
        Ok(chosen)
    }

    /// Where the vCPUs of a VM that shares may be: never empty.
    fn allowed(&self, named: Option<&[u32]>) -> Result<Vec<usize>, PlacementError> {
        let allowed = match named {
            Some(named) => self.named(named)?,
            None => self.indices(Cpu::can_be_shared),
        };
        if allowed.is_empty() {
            let running = self.indices(|cpu| cpu.is_online).len();
            return Err(PlacementError::NoneToShare { running });
        }
        Ok(allowed)
    }

    /// A CPU for each vCPU, one after another.
    fn share(
        mut self,
        vcpus: usize,
        terms: Sharing,
        allowed: &[usize],
    ) -> Result<Vec<usize>, PlacementError> {
        let mut chosen: Vec<usize> = Vec::new();
        for vcpu in 0..vcpus {
            let cpu = self.best(vcpu, terms, allowed, &chosen)?;
            self.add(cpu, terms);
            chosen.push(cpu);
        }
        Ok(chosen)
    }

    /// The best CPU for a VM's next vCPU: one that has none of the VM's, `own`; the least load; not the boot CPU; the lowest
    /// number.
    fn best(
        &self,
        vcpu: usize,
        terms: Sharing,
        allowed: &[usize],
        own: &[usize],
    ) -> Result<usize, PlacementError> {
        let mut open: Vec<(usize, &Cpu)> =
            allowed.iter().filter_map(|&index| Some((index, self.0.get(index)?))).collect();
        open.retain(|(_, cpu)| cpu.vcpus < MAX_PER_CPU);
        if open.is_empty() {
            return Err(PlacementError::Full { vcpu });
        }
        if let Sharing::Reserved { budget, period } = terms {
            let most = open.iter().map(|(_, cpu)| cpu.reservable()).max().unwrap_or_default();
            if part(budget, period) > most {
                return Err(PlacementError::NoRoom { vcpu, budget, period, left: of_period(most, period) });
            }
            open.retain(|(_, cpu)| part(budget, period) <= cpu.reservable());
            open.retain(|(_, cpu)| cpu.can_keep(budget, period));
            if open.is_empty() {
                return Err(PlacementError::CannotKeep { vcpu, budget, period });
            }
        }
        let order =
            |(index, cpu): &(usize, &Cpu)| (own.contains(index), cpu.load(terms), *index == 0, *index);
        open.into_iter().min_by_key(order).map(|(index, _)| index).ok_or(PlacementError::Full { vcpu })
    }
}

/// So many parts of [`WHOLE`] in µs of each period, rounded down: less than a budget that doesn't fit.
fn of_period(parts: u64, period: u32) -> u32 {
    let us = parts.saturating_mul(period.into()).checked_div(WHOLE).unwrap_or_default();
    u32::try_from(us).unwrap_or(u32::MAX)
}
