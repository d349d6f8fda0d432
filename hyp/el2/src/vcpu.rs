//! A vCPU, and the EL1 world that it starts in.

use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use tock_registers::interfaces::{Readable, Writeable};
use vgic::VcpuId;
use vmm::psci::Start;

use crate::cpu;
use crate::exit::Frame;
use crate::sysreg::write_sysreg;
use crate::vm::{Phase, Vm};

/// A vCPU. It is pinned: its EL1 registers stay in the physical CPU's as long as its VM lives.
pub struct Vcpu {
    /// Whose it is.
    pub vm: &'static Vm,
    /// Which of the VM's.
    pub id: VcpuId,
    /// HCR_EL2 while it runs.
    hcr: AtomicU64,
    /// How far cleaning the VM's memory for this vCPU's set-and-way maintenance has come.
    pub cleaned: AtomicU64,
}

/// SCTLR_EL1 at reset: its RES1 bits; MMU, caches and checks off.
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;
/// EL1h, all interrupts masked.
const SPSR_START: u64 = 0x3c5;
/// TCR_EL1.EPD0 and EPD1: no table walks at all.
const TCR_NO_WALKS: u64 = 1 << 7 | 1 << 23;

impl Vcpu {
    /// A vCPU that has not started.
    pub fn new(vm: &'static Vm, id: VcpuId) -> Self {
        Self { vm, id, hcr: AtomicU64::new(vm.hcr), cleaned: AtomicU64::new(0) }
    }

    /// Claims that the vCPU is loaded, unless its VM is stopping or has stopped.
    pub fn enter(&self) -> bool {
        let bit = 1 << self.id.0;
        // This and `Vm::stop` each write one word and read the other, so all four are in one order (SeqCst): either the
        // VM that stops sees this vCPU loaded and waits for it, or this vCPU sees that the VM stops.
        self.vm.loaded.fetch_or(bit, Ordering::SeqCst);
        if self.vm.phase() == Phase::Running {
            return true;
        }
        self.leave();
        false
    }

    /// The vCPU is off its CPU.
    pub fn leave(&self) {
        let before = self.vm.loaded.fetch_and(!(1 << self.id.0), Ordering::SeqCst);
        if before == 1 << self.id.0 && self.id != VcpuId(0) && self.vm.phase() != Phase::Running {
            // The last one: vCPU 0's CPU goes on with what the VM stops for. If this is that CPU, it looks next.
            self.vm.wake(VcpuId(0));
        }
    }

    /// Whether the vCPU is loaded.
    pub fn is_loaded(&self) -> bool {
        self.vm.loaded.load(Ordering::Relaxed) & 1 << self.id.0 != 0
    }

    /// Whether writes to stage 1's control registers trap now.
    pub fn watches_caches(&self) -> bool {
        self.hcr.load(Ordering::Relaxed) & cpu::hcr::TVM != 0
    }

    /// Makes writes to stage 1's control registers trap, or not, from the next entry on. On the vCPU's own CPU.
    pub fn watch_caches(&self, watch: bool) {
        let hcr = self.hcr.load(Ordering::Relaxed);
        let hcr = if watch { hcr | cpu::hcr::TVM } else { hcr & !cpu::hcr::TVM };
        self.hcr.store(hcr, Ordering::Relaxed);
        HCR_EL2.set(hcr);
    }

    /// Puts the CPU that runs into the state in which PSCI has this vCPU start: at EL1, everything off.
    pub fn reset(&self, start: Start, frame: &mut Frame) {
        self.hcr.store(self.vm.hcr, Ordering::Relaxed);
        self.cleaned.store(0, Ordering::Relaxed);
        // No walk may run ahead while the VM's identity is half changed: stage 1 is on, so that walks are all that could
        // be, and walks are off (Cortex-A72 erratum 1319367).
        TCR_EL1.set(TCR_NO_WALKS);
        barrier::isb(barrier::SY);
        SCTLR_EL1.set(SCTLR_EL1_RESET | 1);
        barrier::isb(barrier::SY);
        VTCR_EL2.set(self.vm.vtcr);
        VTTBR_EL2.set(self.vm.vttbr);
        write_sysreg!("VPIDR_EL2", MIDR_EL1.get());
        // Bit 31 is RES1.
        VMPIDR_EL2.set(1 << 31 | vmm::affinity::vcpu_mpidr(self.id));
        barrier::isb(barrier::SY);
        HCR_EL2.set(self.vm.hcr);
        barrier::isb(barrier::SY);
        SCTLR_EL1.set(SCTLR_EL1_RESET);
        barrier::isb(barrier::SY);
        reset_el1();
        forget_translations();
        *frame = Frame::default();
        frame.set(0, start.context);
        ELR_EL2.set(start.entry.as_u64());
        SPSR_EL2.set(SPSR_START);
        barrier::isb(barrier::SY);
    }
}

/// What an EL1 reset leaves: all of it zero, where the architecture says nothing or "UNKNOWN", so that nothing of
/// what ran here before is left.
fn reset_el1() {
    TTBR0_EL1.set(0);
    TTBR1_EL1.set(0);
    TCR_EL1.set(0);
    MAIR_EL1.set(0);
    AMAIR_EL1.set(0);
    VBAR_EL1.set(0);
    ELR_EL1.set(0);
    SPSR_EL1.set(0);
    ESR_EL1.set(0);
    FAR_EL1.set(0);
    AFSR0_EL1.set(0);
    AFSR1_EL1.set(0);
    PAR_EL1.set(0);
    SP_EL0.set(0);
    SP_EL1.set(0);
    TPIDR_EL0.set(0);
    TPIDRRO_EL0.set(0);
    TPIDR_EL1.set(0);
    CONTEXTIDR_EL1.set(0);
    // FP and SIMD trap to EL1 until it enables them.
    CPACR_EL1.set(0);
    CNTKCTL_EL1.set(0);
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
    CNTV_CVAL_EL0.set(0);
    CNTP_CVAL_EL0.set(0);
    write_sysreg!("CSSELR_EL1", 0);
    // No breakpoint, watchpoint or single step: MDE, KDE and SS are off, so what their registers hold is of no effect.
    MDSCR_EL1.set(0);
    // The OS lock is shown as open.
    write_sysreg!("OSLAR_EL1", 0);
    write_sysreg!("S3_3_C4_C4_0", 0); // FPCR
    write_sysreg!("S3_3_C4_C4_1", 0); // FPSR
    clear_simd();
    if cpu::Features::read().pointer_authentication {
        clear_pointer_keys();
    }
}

/// By number: the assembler knows the names only with the extension.
fn clear_pointer_keys() {
    write_sysreg!("S3_0_C2_C1_0", 0); // APIAKeyLo_EL1
    write_sysreg!("S3_0_C2_C1_1", 0); // APIAKeyHi_EL1
    write_sysreg!("S3_0_C2_C1_2", 0); // APIBKeyLo_EL1
    write_sysreg!("S3_0_C2_C1_3", 0); // APIBKeyHi_EL1
    write_sysreg!("S3_0_C2_C2_0", 0); // APDAKeyLo_EL1
    write_sysreg!("S3_0_C2_C2_1", 0); // APDAKeyHi_EL1
    write_sysreg!("S3_0_C2_C2_2", 0); // APDBKeyLo_EL1
    write_sysreg!("S3_0_C2_C2_3", 0); // APDBKeyHi_EL1
    write_sysreg!("S3_0_C2_C3_0", 0); // APGAKeyLo_EL1
    write_sysreg!("S3_0_C2_C3_1", 0); // APGAKeyHi_EL1
}

/// Zeroes the SIMD registers, which EL2 itself never uses.
fn clear_simd() {
    macro_rules! clear {
        ($($n:literal)*) => {
            concat!(".arch_extension fp\n.arch_extension simd\n", $("movi v", $n, ".2d, #0\n",)* ".arch_extension nosimd\n.arch_extension nofp")
        };
    }
    // SAFETY: EL2 is compiled without FP and SIMD, so no value of Rust's is in these registers.
    unsafe {
        core::arch::asm!(
            clear!("0" "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12" "13" "14" "15" "16" "17" "18" "19" "20"
                "21" "22" "23" "24" "25" "26" "27" "28" "29" "30" "31"),
            options(nomem, nostack)
        );
    }
}

/// Drops what this CPU has cached of the VM's translations and instructions, as a reset does.
fn forget_translations() {
    // SAFETY: invalidation loses nothing but time; VTTBR_EL2 names the VM that it is about.
    unsafe {
        core::arch::asm!("tlbi vmalls12e1", "ic iallu", options(nostack));
    }
    barrier::dsb(barrier::NSH);
    barrier::isb(barrier::SY);
}
