//! What happens when EL2 itself fails: a report that a person can read, and a stop of the board.

use core::arch::global_asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, SPSR_EL2};
use tock_registers::interfaces::Readable;
use vmm::esr::{Esr, ec};
use vmm::sched::Change;

use crate::percpu::{self, request, this_cpu};
use crate::{console, image};

global_asm!(
    include_str!("vectors.s"),
    data_abort = const ec::DATA_ABORT_LOWER,
    system_register = const ec::SYSREG,
    hvc = const ec::HVC64,
    smc = const ec::SMC64,
    look = const percpu::LOOK,
    nothing = const Change::Nothing as u8,
    passes = const Change::Passes as u8,
);

/// The registers at an exception of EL2's own, as `vectors.s` leaves them.
#[repr(C)]
struct Registers {
    x: [u64; 31],
    sp: u64,
}

static CRASHED: AtomicBool = AtomicBool::new(false);

/// Whether EL2 has crashed, on whichever CPU.
pub fn has_begun() -> bool {
    CRASHED.load(Ordering::Relaxed)
}

/// Stops this CPU for ever.
pub fn halt() -> ! {
    loop {
        aarch64_cpu::asm::wfi();
    }
}

/// The console, whoever else may be writing to it: the others are stopped or will be.
struct Report;

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::write_in_crash(text);
        Ok(())
    }
}

/// Takes the console for a report; a second failure, here or on another CPU, just stops.
fn begin() -> Report {
    if CRASHED.swap(true, Ordering::Relaxed) {
        halt();
    }
    for cpu in percpu::all().filter(|cpu| !core::ptr::eq(*cpu, this_cpu())) {
        cpu.request(request::HALT);
    }
    Report
}

/// An address of code, as `addr2line -e hanok.elf` wants it.
struct InImage(u64);

impl fmt::Display for InImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let image = image::layout();
        if (image.start..image.text_end).contains(&self.0) {
            write!(f, "image + {:#x}", self.0.wrapping_sub(image.start))
        } else {
            f.write_str("not in the image")
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn crash_report(kind: u64, registers: &Registers) -> ! {
    // An interrupt leaves the syndrome registers as they were.
    let (kind, has_syndrome) = match kind {
        0 => ("synchronous exception", true),
        1 => ("IRQ", false),
        2 => ("FIQ", false),
        _ => ("SError", true),
    };
    let mut report = begin();
    let _ = writeln!(report, "\nhanok: EL2 crashed on CPU {}: {kind}", this_cpu().index);
    if has_syndrome {
        let esr = Esr(ESR_EL2.get());
        let _ = write!(report, "  {esr:?}");
        if esr.far_is_valid() {
            let _ = write!(report, ", far {:#018x}", FAR_EL2.get());
        }
        let _ = writeln!(report);
    }
    let (elr, [.., frame, lr]) = (ELR_EL2.get(), registers.x);
    let _ = writeln!(report, "  pc {elr:#018x} ({}), lr {lr:#018x} ({})", InImage(elr), InImage(lr));
    let _ = writeln!(report, "  sp {:#018x}, spsr {:#010x}", registers.sp, SPSR_EL2.get());
    for (row, values) in registers.x.chunks(4).enumerate() {
        let _ = write!(report, " ");
        for (column, value) in values.iter().enumerate() {
            let _ = write!(report, " x{:<2} {value:016x}", row.wrapping_mul(4).wrapping_add(column));
        }
        let _ = writeln!(report);
    }
    backtrace(&mut report, frame);
    end(&mut report)
}

/// An SError while this VM ran, of which the CPU doesn't say that it is that VM's alone: what is wrong may be anywhere.
pub fn hardware_failed(esr: Esr, vm: &str) -> ! {
    let mut report = begin();
    let cpu = this_cpu().index;
    let _ = writeln!(
        report,
        "\nhanok: the hardware failed on CPU {cpu} while {vm} ran, and whom it concerns can't be told"
    );
    let _ = writeln!(
        report,
        "  {esr:?}, {:?}, at pc {:#x} spsr {:#x}",
        esr.severity(),
        ELR_EL2.get(),
        SPSR_EL2.get()
    );
    end(&mut report)
}

/// An exit, by this syndrome, from no vCPU: EL2 has lost count of who runs.
#[cold]
#[inline(never)]
pub fn of_nobody(esr: Esr) -> ! {
    let mut report = begin();
    let _ = writeln!(report, "\nhanok: EL2 has no vCPU on CPU {}, and one has exited", this_cpu().index);
    let _ = writeln!(report, "  {esr:?}, at pc {:#x} spsr {:#x}", ELR_EL2.get(), SPSR_EL2.get());
    end(&mut report)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut report = begin();
    let _ = writeln!(report, "\nhanok: EL2 {info}");
    let frame: u64;
    // SAFETY: reads the frame pointer.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) frame, options(nomem, nostack)) };
    backtrace(&mut report, frame);
    end(&mut report)
}

/// Follows the frame records (AAPCS64 6.4.6) as long as they lie in the memory that EL2's stacks are in, and climb. Tells
/// the calls, not where they return to, which is behind a function that ends with a call.
fn backtrace(report: &mut Report, mut frame: u64) {
    let base = image::layout().start;
    let _ = writeln!(report, "  stack, as offsets into the image (addr2line -e hanok.elf):");
    for _ in 0..32 {
        if !frame.is_multiple_of(16) || !percpu::is_on_a_stack(frame) {
            break;
        }
        // SAFETY: the record lies on a stack, which is mapped; what it holds is only printed and checked.
        let [next, return_address] = unsafe { *(frame as *const [u64; 2]) };
        if return_address == 0 {
            break;
        }
        let _ = writeln!(report, "    {:#x}", return_address.wrapping_sub(base).wrapping_sub(4));
        if next <= frame {
            break;
        }
        frame = next;
    }
}

fn end(report: &mut Report) -> ! {
    let _ = writeln!(report, "hanok: all CPUs are stopped; reset the board");
    halt()
}
