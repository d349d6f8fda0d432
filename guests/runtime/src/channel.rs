//! Channels to other VMs: memory that both see, a doorbell each way, and the [`ring`] over it.
//!
//! The tree says which there are. Opening one maps its memory and comes up on this VM's side; what the peer writes there is
//! taken for nothing but what `ring` makes of it. Messages are the guest's business.

use core::mem;
use core::sync::atomic::AtomicU64;

use dtoolkit::Node;
use dtoolkit::fdt::FdtNode;
use dtoolkit::standard::NodeStandard;
use ring::{Doorbell, Receiver, Sender, Side, TooSmall, attach};
use spin::Once;

use crate::gic::{self, Trigger};
use crate::machine::{self, Region};
use crate::mmu::{self, Kind};
use crate::{cpu, hanok, interrupts};

/// Bytes that the MMU maps at once.
const BLOCK: u64 = 2 << 20;

/// This VM's end of a channel, as the tree describes it.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    /// The channel's name in the manifest.
    pub name: &'static str,
    /// The VM at the other end.
    pub peer: &'static str,
    /// By what the hypervisor knows it.
    pub number: u32,
    /// Which side this is.
    pub side: Side,
    /// The memory.
    pub memory: Region,
    /// The interrupt that comes when the peer rings.
    pub intid: u32,
}

/// Rings at the other end of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Bell {
    number: u32,
}

impl Doorbell for Bell {
    fn ring(&self) {
        // What was written before is to be seen before the interrupt is.
        cpu::synchronize();
        // The channel is there, for the tree says so; and whoever isn't there to hear it looks when it comes up.
        let _ = hanok::doorbell(self.number);
    }
}

/// All channels, by their numbers.
pub fn all() -> impl Iterator<Item = Channel> {
    let root = machine::tree().root();
    let nodes = root.children().filter(|node| node.is_compatible("hanok,channel"));
    nodes.filter_map(move |node| of(node, root))
}

/// The channel of this name.
pub fn find(name: &str) -> Option<Channel> {
    all().find(|channel| channel.name == name)
}

/// What a node says; nothing if that isn't enough.
fn of(node: FdtNode<'static>, root: FdtNode<'static>) -> Option<Channel> {
    let memory = machine::cell(node, "memory-region")?;
    let mut regions = root.child("reserved-memory")?.children();
    let memory = regions.find(|region| machine::cell(*region, "phandle") == Some(memory))?;
    Some(Channel {
        name: machine::string(node, "label")?,
        peer: machine::string(node, "hanok,peer")?,
        number: machine::cell(node, "hanok,number")?,
        side: Side::from_number(machine::cell(node, "hanok,side")?)?,
        memory: machine::region(memory, 0)?,
        intid: machine::interrupt(node, 0)?,
    })
}

impl Channel {
    /// Comes up on this side, and lets the doorbell's interrupt come. Whoever had this side before has to be gone: it is a new
    /// start, of which the peer is told.
    ///
    /// # Errors
    /// [`TooSmall`], which Hanok's channels are not.
    pub fn open(&self) -> Result<(Sender<'static, Bell>, Receiver<'static, Bell>), TooSmall> {
        self.listen();
        attach(self.words(), self.side, self.bell())
    }

    /// Lets the doorbell's interrupt come, and nothing else: for two guests that use the memory by a protocol of their own
    /// ([`words`](Self::words)).
    pub fn listen(&self) {
        gic::set_trigger(self.intid, Trigger::Edge);
        gic::enable(self.intid);
    }

    /// The peer's bell.
    pub fn bell(&self) -> Bell {
        Bell { number: self.number }
    }

    /// Sleeps until the peer has rung, or returns at once if it has since the last time; other interrupts are handled
    /// meanwhile. For a guest that keeps IRQs masked on this CPU, as they are at its start: where they aren't, the doorbell is its
    /// handler's.
    pub fn wait(&self) {
        cpu::without_irqs(|| {
            loop {
                match gic::acknowledge() {
                    Some(interrupt) if interrupt.intid() == self.intid => return gic::end(interrupt),
                    Some(other) => interrupts::handle(other),
                    None => cpu::wait_for_interrupt(),
                }
            }
        });
    }

    /// The memory. Two guests that hand messages to each other by [`open`](Self::open) leave it to that.
    pub fn words(&self) -> &'static [AtomicU64] {
        static MAPPED: Once = Once::new();
        // All at once: a block that is mapped must not be touched again, for it may be in use.
        MAPPED.call_once(|| all().for_each(|channel| channel.map()));
        let count = self.memory.size as usize / mem::size_of::<AtomicU64>();
        // SAFETY: Hanok maps the memory there as long as this VM runs, in whole pages, and `map` has; it lies outside of RAM, so
        // nothing of Rust's is there. The peer writes to it at any time, as atomics allow.
        unsafe { core::slice::from_raw_parts(self.memory.base as *const AtomicU64, count) }
    }

    /// Maps the memory where it is, as what it is to the peer too: Normal write-back. Blocks are larger than it may be; what
    /// lies behind it in the last one isn't there.
    fn map(&self) {
        let first = self.memory.base / BLOCK * BLOCK;
        for block in (first..self.memory.end()).step_by(BLOCK as usize) {
            mmu::map(block, block, Kind::Normal);
        }
    }
}
