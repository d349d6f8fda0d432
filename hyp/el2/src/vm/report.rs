//! What other VMs are told of a VM that have the right to it: its record, and the report of its last crash.
//!
//! Its locks are only tried: nobody who asks makes one of its vCPUs wait for long, or waits for one.

use core::sync::atomic::Ordering;

use abi::record::{CrashRecord, VmRecord, crash, state};
use vmm::calls::Request;
use vmm::life::Phase;
use vmm::sched::Share;

use super::Vm;
use crate::timer;

impl Vm {
    /// What it is. `None`: its state is in use just now.
    pub fn info(&self) -> Option<VmRecord> {
        let (sharing, share, period) = match self.share {
            None => (0, 0, 0),
            Some(Share::Weight(weight)) => (1, weight.into(), 0),
            Some(Share::Budget { budget, period }) => (2, budget, period),
        };
        Some(VmRecord {
            name: VmRecord::words_of_name(&self.name),
            state: self.state(),
            vcpus: self.vcpus().len() as u64,
            memory: self.ram,
            held: self.memory.try_lock()?.held(),
            sharing,
            share,
            period,
            starts: self.starts.load(Ordering::Relaxed),
            crashes: self.crashed.try_lock()?.crashes.count,
            denied: self.denied.load(Ordering::Relaxed),
            now: timer::now(),
            frequency: timer::frequency(),
        })
    }

    /// Where it is in its life, for guests and people: a number of [`abi::record::state`].
    pub fn state(&self) -> u64 {
        match self.phase() {
            Phase::Paused if self.loaded.load(Ordering::SeqCst) != 0 => state::PAUSING,
            phase => phase.state(),
        }
    }

    /// The report of its last crash: `Some(None)` where it has not crashed, `None` where that is in use just now.
    pub fn last_crash(&self) -> Option<Option<CrashRecord>> {
        let report = self.crashed.try_lock()?.report;
        Some((report.why != crash::NONE).then_some(report))
    }

    /// It asked for what it has no right to.
    pub fn note_denied(&self, request: &Request) {
        self.denied.fetch_add(1, Ordering::Relaxed);
        if self.may_log() {
            log::warn!("{} has no right to this: {request:?}", self.name);
        }
    }
}
