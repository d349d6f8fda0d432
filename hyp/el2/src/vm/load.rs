//! Loading a VM: copying its payload and its device tree to where the plan says, a piece at a time.
//!
//! At boot the pieces follow each other at once; when a VM starts later they come between interrupts, so that nothing
//! else on that CPU waits for them.

use alloc::vec::Vec;

use config::guest_tree::{Places, RNG_BYTES, Seeds};
use config::payload::LoadPlan;
use stage2::{Ipa, Progress};
use vmm::psci::Start;
use vmm::random::Generator;

use crate::cache;
use crate::guest_memory::{self, NoMemory, Source, Space};
use crate::lock::Mutex;

/// Bytes that are copied at a time, or filled: some 8,000 instructions with cleaning.
const PIECE: u64 = 16 << 10;

/// What a VM is loaded from, and how far that has come.
pub struct Reload {
    plan: LoadPlan<'static>,
    /// The device tree's blob.
    blob: Vec<u8>,
    /// Where the seeds are in it, which every start has fresh ones of.
    places: Places,
    /// The first piece has been done, and this start has its seeds.
    begun: bool,
    /// It has been loaded before: what flash holds since then stays.
    loaded: bool,
    /// Which [`Self::item`] is being copied, and how much of it has been.
    item: usize,
    offset: u64,
}

impl Reload {
    /// Nothing is loaded yet. `blob` is the device tree, in which there is room for seeds, and for where the RAM disk is.
    pub fn new(plan: LoadPlan<'static>, mut blob: Vec<u8>) -> Self {
        let places = Places::find(&blob);
        if let Some(initrd) = &plan.initrd {
            places.set_initrd(&mut blob, initrd);
        }
        Self { plan, blob, places, begun: false, loaded: false, item: 0, offset: 0 }
    }

    /// How vCPU 0 starts.
    pub fn start(&self) -> Start {
        Start { entry: self.plan.entry, context: self.plan.dtb.as_u64() }
    }

    /// What goes where, in order: for each segment its bytes and the zeros behind them, the flash banks, the tree.
    fn item(&self, index: usize) -> Option<(Ipa, Source<'_>)> {
        let segments = self.plan.segments.len().saturating_mul(2);
        if let Some(segment) = self.plan.segments.get(index / 2).filter(|_| index < segments) {
            let end = Ipa::new(segment.ipa.as_u64().saturating_add(segment.bytes.len() as u64));
            return Some(match index % 2 {
                0 => (segment.ipa, Source::Bytes(segment.bytes)),
                _ => (end, Source::Fill(0, segment.zero_after)),
            });
        }
        let index = index.saturating_sub(segments);
        let banks = self.plan.flash.as_ref().map_or(&[][..], |flash| &flash.banks);
        if let Some(bank) = banks.get(index / 2) {
            if bank.kept && self.loaded {
                return Some((bank.base, Source::Fill(0xff, 0)));
            }
            let size = bank.bytes.len() as u64;
            return Some(match index % 2 {
                0 => (bank.base, Source::Bytes(bank.bytes)),
                _ => {
                    let end = Ipa::new(bank.base.as_u64().saturating_add(size));
                    (end, Source::Fill(0xff, bank.backed.saturating_sub(size)))
                }
            });
        }
        (index == banks.len().saturating_mul(2)).then_some((self.plan.dtb, Source::Bytes(&self.blob)))
    }

    /// Whether some of it is loaded, and not all.
    pub fn is_begun(&self) -> bool {
        self.begun
    }

    /// What has been loaded by now counts for nothing: the next step is the first one.
    pub fn abandon(&mut self) {
        self.begun = false;
        self.item = 0;
        self.offset = 0;
    }

    /// Does a piece. After the last one, the next call begins anew. Before the first one, nothing that the guest may have
    /// left in caches can come down on what is loaded any more; and there are fresh seeds, if the VM has a `generator`.
    ///
    /// # Errors
    /// The plan names memory that the VM doesn't have.
    pub fn step(
        &mut self,
        space: &mut Space,
        generator: Option<&Mutex<Generator>>,
    ) -> Result<Progress, NoMemory> {
        if !self.begun {
            if let Some(mut generator) = generator.map(Mutex::lock) {
                let random: [u8; RNG_BYTES + 8] = generator.bytes();
                if let Some((rng, kaslr)) = random.split_first_chunk() {
                    let kaslr = kaslr.first_chunk().map_or(0, |kaslr| u64::from_le_bytes(*kaslr));
                    self.places.set_seeds(&mut self.blob, &Seeds { rng: *rng, kaslr });
                }
            }
            self.begun = true;
        }
        let Some((ipa, source)) = self.item(self.item) else {
            cache::sync();
            self.abandon();
            self.loaded = true;
            return Ok(Progress::Done);
        };
        if self.offset >= source.size() {
            self.item = self.item.saturating_add(1);
            self.offset = 0;
        } else {
            let written = guest_memory::write(space, ipa, source, self.offset, PIECE)?;
            self.offset = self.offset.saturating_add(written);
        }
        Ok(Progress::More)
    }
}
