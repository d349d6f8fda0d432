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
    /// Ticks for which it had its CPU, up to `since`.
    ran: AtomicU64,
    /// Since when it has it, in ticks; 0: it hasn't.
    since: AtomicU64,
    waited: AtomicU64,
    /// Of both, what was on other CPUs than the one whose queue counts now, less what that one had counted before.
    elsewhere: [AtomicU64; 2],
    /// The number of that CPU.
    counted_by: AtomicU64,
}

/// No CPU.
const NOBODY: u64 = u64::MAX;

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
            since: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            elsewhere: Default::default(),
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

    /// This CPU's queue counts its time from now on, and has counted this by now.
    pub fn arrive(&self, cpu: usize, Times { ran, waited }: Times) {
        if self.counted_by.load(Ordering::Relaxed) == cpu as u64 {
            return;
        }
        self.counted_by.store(cpu as u64, Ordering::Relaxed);
        let all = [&self.ran, &self.waited].into_iter().zip([ran, waited]);
        for (slot, (all, counted)) in self.elsewhere.iter().zip(all) {
            slot.store(all.load(Ordering::Relaxed).wrapping_sub(counted), Ordering::Relaxed);
        }
    }

    /// It has its CPU from `now` on, or has it no more. Where its time went by now, as its CPU's queue counts. Returns how long it has
    /// waited in all.
    #[inline]
    pub fn times(&self, now: u64, runs: bool, Times { ran, waited }: Times) -> u64 {
        let [ran_elsewhere, waited_elsewhere] = &self.elsewhere;
        let waited = waited.wrapping_add(waited_elsewhere.load(Ordering::Relaxed));
        self.ran.store(ran.wrapping_add(ran_elsewhere.load(Ordering::Relaxed)), Ordering::Release);
        self.waited.store(waited, Ordering::Relaxed);
        self.since.store(if runs { now.max(1) } else { 0 }, Ordering::Release);
        waited
    }

    /// How long it has waited in all, when it was last loaded or taken off its CPU.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// Puts what it knows into a record, by the time `now`.
    pub fn put(&self, record: &mut VcpuRecord, now: u64) {
        // Both of one moment, or a turn would count twice; a writer that goes on and on is not waited for.
        let read = || (self.ran.load(Ordering::Acquire), self.since.load(Ordering::Acquire));
        let mut seen = read();
        for _ in 0..3 {
            let again = read();
            if again == seen {
                break;
            }
            seen = again;
        }
        let (ran, since) = seen;
        let runs_for = if since == 0 { 0 } else { now.saturating_sub(since) };
        record.ran = ran.saturating_add(runs_for);
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
