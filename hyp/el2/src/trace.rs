//! What a vCPU was at: its exits counted by reason, the last of them, and where its time went.
//!
//! Only the vCPU's own CPU writes here, as cheaply as it can be; other CPUs read it for reports and statistics, and may see one number newer
//! than the next.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::record::{CrashRecord, EXITS, VcpuRecord};
use vmm::sched::Times;

/// Why a vCPU came to EL2: its place in [`EXITS`].
#[derive(Clone, Copy, Debug)]
pub enum Reason {
    /// An interrupt.
    Interrupt,
    /// HVC.
    Hvc,
    /// SMC.
    Smc,
    /// A system register.
    Sysreg,
    /// A register of an emulated device.
    Mmio,
    /// Another access to memory that stage 2 has to see to.
    Abort,
    /// WFI or WFE.
    Wfx,
    /// Anything else.
    Other,
}

/// How many of the last exits are kept: a power of two.
const KEPT: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Trace {
    counts: [AtomicU64; EXITS.len()],
    /// How many exits there have been.
    next: AtomicU64,
    /// How many of these were in the VM's earlier lives.
    before: AtomicU64,
    /// ESR_EL2 (0 for an interrupt) and PC of each.
    last: [[AtomicU64; 2]; KEPT],
    /// Ticks for which it had its CPU; while it has it, what the time would be less these, with [`RUNS`].
    ran: AtomicU64,
    /// Ticks for which it waited for its CPU, when it was last loaded or taken off.
    waited: AtomicU64,
    /// The number of the CPU whose queue counts both.
    counted_by: AtomicU64,
}

/// No CPU.
const NOBODY: u64 = u64::MAX;

/// In [`Trace::ran`]: it has its CPU. No time has this bit.
const RUNS: u64 = 1 << 63;

/// One more. Only its own CPU writes it, so this needs no atomic addition.
fn count(counter: &AtomicU64) -> u64 {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(1), Ordering::Relaxed);
    before
}

impl Trace {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            counts: Default::default(),
            next: AtomicU64::new(0),
            before: AtomicU64::new(0),
            last: Default::default(),
            ran: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            counted_by: AtomicU64::new(NOBODY),
        }
    }

    /// An exit, for the last ones.
    #[inline]
    pub fn exit(&self, esr: u64, pc: u64) {
        let number = count(&self.next);
        if let Some([slot_esr, slot_pc]) = self.last.get(number as usize % KEPT) {
            slot_esr.store(esr, Ordering::Relaxed);
            slot_pc.store(pc, Ordering::Relaxed);
        }
    }

    /// The vCPU starts: exits before this are none of its own.
    pub fn begin(&self) {
        self.before.store(self.next.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// An exit for this reason.
    #[inline]
    pub fn count(&self, reason: Reason) {
        if let Some(counter) = self.counts.get(reason as usize) {
            count(counter);
        }
    }

    /// This CPU's queue counts its time from now on. Returns what it is to count on from, if it isn't the one that counted before.
    pub fn arrive(&self, cpu: usize, now: u64) -> Option<Times> {
        let before = self.counted_by.load(Ordering::Relaxed);
        self.counted_by.store(cpu as u64, Ordering::Relaxed);
        (before != cpu as u64).then(|| Times { ran: self.ran(now), waited: self.waited() })
    }

    /// It has its CPU from `now` on, or has it no more. Where its time went by now, as its CPU's queue counts.
    #[inline]
    pub fn times(&self, now: u64, runs: bool, Times { ran, waited }: Times) {
        // One word, so that whoever reads it counts no turn twice.
        self.ran.store(if runs { now.wrapping_sub(ran) | RUNS } else { ran }, Ordering::Relaxed);
        self.waited.store(waited, Ordering::Relaxed);
    }

    /// For how many ticks it had its CPU by the time `now`.
    fn ran(&self, now: u64) -> u64 {
        let ran = self.ran.load(Ordering::Relaxed);
        if ran & RUNS == 0 { ran } else { now.saturating_sub(ran & !RUNS) }
    }

    /// How long it has waited in all, when it was last loaded or taken off its CPU.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Puts what it knows into a record, by the time `now`.
    pub fn put(&self, record: &mut VcpuRecord, now: u64) {
        record.ran = self.ran(now);
        record.waited = self.waited.load(Ordering::Relaxed);
        for (slot, counter) in record.exits.iter_mut().zip(&self.counts) {
            *slot = counter.load(Ordering::Relaxed);
        }
    }

    /// Puts the last exits into a report, the latest first.
    pub fn put_last(&self, report: &mut CrashRecord) {
        let next = self.next.load(Ordering::Relaxed);
        report.exits = next.wrapping_sub(self.before.load(Ordering::Relaxed)).min(KEPT as u64);
        let places = (1..=report.exits).map(|back| next.wrapping_sub(back) as usize % KEPT);
        for (slots, place) in report.exit.chunks_exact_mut(2).zip(places) {
            for (slot, value) in slots.iter_mut().zip(self.last.get(place).into_iter().flatten()) {
                *slot = value.load(Ordering::Relaxed);
            }
        }
    }
}
