//! From the first instruction to the guest's `main`.

use core::arch::global_asm;
use core::mem::offset_of;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::{self, TreeError};
use crate::smp::{self, Arguments, STACK_SIZE};
use crate::{console, cpu, gic, mmu, power, println};

global_asm!(
    include_str!("boot.S"),
    boot_table = sym mmu::BOOT_TABLE,
    stacks = sym smp::STACKS,
    stack_size = const STACK_SIZE,
    vectors = sym runtime_vectors,
    start = sym start,
    start_secondary = sym smp::start_secondary,
    args_table = const offset_of!(Arguments, table),
    args_stack = const offset_of!(Arguments, stack_top),
    args_seen = const offset_of!(Arguments, seen),
    mair = const mmu::MAIR,
    tcr = const mmu::TCR,
    sctlr = const mmu::SCTLR,
);

unsafe extern "C" {
    pub(crate) safe fn runtime_vectors();
}

unsafe extern "Rust" {
    safe fn guest_main() -> !;
}

/// Where the tree lies if x0 doesn't say: QEMU puts it at the base of RAM for an ELF that isn't Linux.
const DEFAULT_TREE: usize = 0x4000_0000;

/// The virtual counter at the guest's first instruction.
static ENTERED: AtomicU64 = AtomicU64::new(0);

/// What the virtual counter was at the boot CPU's first instruction of this guest.
pub fn entered() -> u64 {
    ENTERED.load(Ordering::Relaxed)
}

extern "C" fn start(tree: usize, entered: u64) -> ! {
    cpu::set_index(0);
    ENTERED.store(entered, Ordering::Relaxed);
    let tree = if tree == 0 { DEFAULT_TREE } else { tree };
    mmu::boot_map_gigabyte(tree);
    let machine = match tree_blob(tree).and_then(machine::read) {
        Ok(machine) => machine,
        Err(error) => hopeless(error),
    };
    mmu::init(machine);
    console::init();
    gic::init();
    guest_main()
}

/// The blob at `address`, as long as its header says it is.
fn tree_blob(address: usize) -> Result<&'static [u8], TreeError> {
    const MAGIC: u32 = 0xd00d_feed;
    const LONGEST: usize = 2 << 20;
    let header = address as *const [u32; 2];
    if !header.is_aligned() {
        return Err(TreeError::NotATree);
    }
    // SAFETY: the boot protocol puts the tree there, in RAM, aligned to 8 bytes; its gigabyte is mapped.
    let [magic, size] = unsafe { header.read_volatile() }.map(u32::from_be);
    if magic != MAGIC || size as usize > LONGEST {
        return Err(TreeError::NotATree);
    }
    // SAFETY: as above; the blob is that long and nobody writes to it.
    Ok(unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) })
}

/// Stops without a word: where the console is stands in the very tree that can't be used.
#[inline(never)]
fn hopeless(_error: TreeError) -> ! {
    loop {
        cpu::wait_for_event();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    cpu::mask_irqs();
    console::break_lock();
    println!("guest: {info}");
    power::give_up()
}
