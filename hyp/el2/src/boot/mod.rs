//! From the first instruction to running guests.
//!
//! `head.s` relocates the image, has [`early_map`] make a map of the image and the device tree, turns the MMU on and
//! comes here. The order from then on: console, board, memory, the full map, interrupt controller, other CPUs, VMs.
//! Whatever goes wrong before the console is up ends in [`unbootable`], which works with the MMU off.

use core::arch::global_asm;
use core::fmt::Write;
use core::{ptr, slice};

use config::manifest::Bundle;
use config::passthrough::Devices;
use devicetree::{Tree, blob_size};
use platform::tree::{self, Board, Psci};
use platform::uart::Uart;

use crate::memory::Survey;
use crate::{bundle, console, crash, gic, image, logging, memory, mmu, percpu, power, random, smp, vm};

pub mod early_map;

global_asm!(include_str!("head.s"));

/// The size of the tree at this address, or `None` where there is none. Reads the header only.
fn tree_size(tree: u64) -> Option<u64> {
    // x0 = 0 or 0x100 is what QEMU and firmware without a tree leave there; a tree is 8-byte aligned.
    if !(0x1000..1 << 48).contains(&tree) || !tree.is_multiple_of(8) {
        return None;
    }
    // SAFETY: the boot protocol gives the address of a tree in RAM in x0. That it is one is checked by its magic number;
    // that it can be read at all cannot be checked, and at worst faults to vectors that firmware left.
    let header = unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(tree as usize), 40) };
    blob_size(header).ok().map(|size| size as u64)
}

/// The tree's blob.
///
/// # Safety
/// `tree` is the address of a blob of `size` bytes, mapped, and nobody writes to it.
unsafe fn tree_blob(tree: u64, size: u64) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(ptr::with_exposed_provenance(tree as usize), size as usize) }
}

/// Why the image can't even start, as `head.s` tells it: it was not entered at EL2.
const WRONG_EXCEPTION_LEVEL: u64 = 0;
/// HCR_EL2.E2H cannot be cleared.
const ONLY_VHE: u64 = 1;
// 2: there is no device tree that can be mapped.

/// Says on the board's UART, where the tree names one, why nothing will happen; and stops. Runs with the MMU off at
/// whatever exception level the image was entered: no locks, no log.
#[unsafe(no_mangle)]
extern "C" fn unbootable(tree: u64, reason: u64) -> ! {
    if let Some(size) = tree_size(tree)
        // SAFETY: nothing else runs.
        && let Some(uart) = console_of(unsafe { tree_blob(tree, size) })
        // SAFETY: the tree says that the UART is there; with the MMU off all memory is device memory.
        && let Some(uart) = unsafe { Uart::new(&uart) }
    {
        let mut out = Polled(uart);
        let _ = match reason {
            WRONG_EXCEPTION_LEVEL => out.write_str(
                "\nhanok: entered below EL2, where no hypervisor can run. Start the image at EL2: on QEMU with \
                 -M virt,virtualization=on; on a board, by firmware that enters its payload at EL2.\n",
            ),
            ONLY_VHE => out.write_str(
                "\nhanok: HCR_EL2.E2H cannot be cleared on this CPU. Hanok runs at EL2 without the Virtualization \
                 Host Extensions, so this CPU cannot be used.\n",
            ),
            _ => out.write_str("\nhanok: the device tree is too large or lies where it can't be mapped.\n"),
        };
    }
    crash::halt()
}

fn console_of(blob: &[u8]) -> Option<tree::Uart> {
    let tree = Tree::check(blob).ok()?;
    Board::read_any(&tree).0.console().copied()
}

/// A UART that is written to before there is a console.
struct Polled(Uart);

impl Write for Polled {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.send(b'\r');
            }
            self.0.send(byte);
        }
        Ok(())
    }
}

/// The boot CPU, with the MMU on and the first map in place.
#[unsafe(no_mangle)]
extern "C" fn boot_main(tree: u64) -> ! {
    memory::init_heap();
    percpu::init_boot_cpu();
    logging::init();
    let size = tree_size(tree).unwrap_or(0);
    // SAFETY: the first map has the tree, and it is kept out of the free frames for ever.
    let blob = unsafe { tree_blob(tree, size) };
    let tree = match Tree::check(blob) {
        Ok(tree) => tree,
        Err(error) => fatal(format_args!("{error}")),
    };
    // Whatever is wrong, it is said on the console, if there is one.
    let (board, outcome) = Board::read_any(&tree);
    if let Some(uart) = board.console() {
        let registers = uart.registers.start.as_u64();
        if early_map::add_device_page(registers).is_some()
            // SAFETY: just mapped, as the tree says, and EL2 is the only one that runs.
            && let Some(uart) = unsafe { Uart::new(uart) }
        {
            console::init(Some(uart));
        }
    }
    match outcome.and_then(|()| board.check_complete()) {
        Ok(()) => start(board, &tree, blob),
        Err(error) => fatal(format_args!("{error}")),
    }
}

/// Stops the boot with a message that a person can act on.
fn fatal(reason: core::fmt::Arguments<'_>) -> ! {
    log::error!("cannot start: {reason}");
    crash::halt()
}

fn start(mut board: Board<'static>, tree: &Tree<'static>, blob: &[u8]) -> ! {
    logging::set_level(board.bootargs);
    log::info!(
        "Hanok {} on {}, {} CPU{}, entered at {:#x}",
        env!("CARGO_PKG_VERSION"),
        if board.model.is_empty() { "an unnamed board" } else { board.model },
        board.cpus.len(),
        if board.cpus.len() == 1 { "" } else { "s" },
        image::layout().start,
    );
    if let Some(uart) = board.console() {
        log::debug!("the console is {}", uart.path);
    }
    let mut survey = match memory::init(&board, blob) {
        Ok(survey) => survey,
        Err(error) => fatal(format_args!("{error}")),
    };
    if let Err(error) = percpu::plan_stacks(&board, &mut survey) {
        fatal(format_args!("stacks: {error}"));
    }
    if let Err(error) = memory::grow_heap_for_boot(&mut survey) {
        fatal(format_args!("heap: {error}"));
    }
    if let Err(error) = mmu::init(&board) {
        fatal(format_args!("{error}"));
    }
    let bundle = bundle::find(&board);
    let devices = bundle.as_ref().and_then(|bundle| devices_for(bundle, &board, tree, &mut survey));
    if let Err(error) = survey.finish(&board, devices.as_ref()) {
        fatal(format_args!("{error}"));
    }
    if let Err(error) = memory::grow_heap_for_cpus(board.cpus.len()) {
        fatal(format_args!("heap: {error}"));
    }
    percpu::plan(&board);
    power::init(&board);
    if let Err(error) = gic::init(&board) {
        fatal(format_args!("{error}"));
    }
    if let Err(reason) = smp::init_cpu(board.psci == Some(Psci::Smc)) {
        fatal(format_args!("{reason}"));
    }
    smp::start_all(&board);
    random::init(&board);
    #[cfg(feature = "stage2-check")]
    crate::stage2_check::run(&board);
    if let (Some(devices), Some(bundle)) = (&devices, &bundle) {
        settle_console(&mut board, devices, bundle);
    }
    vm::build_all(&board, devices, bundle);
    console::start(&board);
    vm::start_all();
    crate::run::enter()
}

/// The board's devices, where one of the VMs names any: to read all of them takes as long as the rest of the tree does.
fn devices_for(
    bundle: &Bundle<'_>,
    board: &Board<'_>,
    tree: &Tree<'static>,
    survey: &mut Survey,
) -> Option<Devices<'static>> {
    if bundle.vms.iter().flatten().all(|config| config.devices.nodes.is_empty()) {
        return None;
    }
    if let Err(error) = memory::grow_heap_for_devices(survey) {
        log::warn!("no VM is given a device, for there is no memory for a list of them: {error}");
        return None;
    }
    vm::devices_of(board, tree)
}

/// Leaves UARTs to the VMs whose manifests name them: the console is the first one that is left.
fn settle_console(board: &mut Board<'static>, devices: &Devices<'_>, bundle: &Bundle<'_>) {
    let until_now = board.console().copied();
    board.uarts.retain(|uart| !devices.is_wanted(&uart.path, bundle.vms.iter().flatten()));
    let Some(until_now) = until_now else { return };
    if board.console().is_some_and(|console| console.path == until_now.path) {
        return;
    }
    let next = board.console().and_then(|console| {
        log::info!("the console is {} from now on, for a VM is to have {}", console.path, until_now.path);
        let mapped = mmu::add_device(&console.registers);
        mapped.inspect_err(|error| log::error!("{}: {error}", console.path)).ok()?;
        // SAFETY: just mapped, for ever; the tree says that the UART is there, and no VM that names it is built.
        unsafe { Uart::new(console) }
    });
    if next.is_none() {
        board.uarts.clear();
        log::warn!(
            "a VM is to have {}, and there is no other UART: Hanok says nothing from now on",
            until_now.path
        );
    }
    console::init(next);
    // UARTs may share a page, as those of a Raspberry Pi 4 do.
    if !board.console().is_some_and(|console| mmu::share_a_page(&console.registers, &until_now.registers)) {
        mmu::remove_device(&until_now.registers);
    }
    if let Some(console) = board.console() {
        log::info!("the console is {}", console.path);
    }
}
