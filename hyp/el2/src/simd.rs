//! A guest's FP and SIMD registers, which EL2 itself never uses: they are in the CPU as long as its vCPU is.

use crate::exit::Frame;

/// V0 to V31, in memory.
#[derive(Default)]
#[repr(C, align(16))]
pub struct Simd([u128; 32]);

impl Simd {
    /// Those that are in the CPU.
    pub fn current() -> Self {
        let mut registers = Self::default();
        registers.save();
        registers
    }

    /// Takes them out of the CPU.
    pub fn save(&mut self) {
        // SAFETY: writes the 512 bytes that `self` has; EL2 is compiled without FP and SIMD, so no value of Rust's is in
        // these registers.
        unsafe { core::arch::asm!(simd!(all, "stp", "x"), x = in(reg) &raw mut self.0, options(nostack)) };
    }

    /// Puts them into the CPU.
    pub fn load(&self) {
        // SAFETY: reads the 512 bytes that `self` has; the rest as above.
        unsafe { core::arch::asm!(simd!(all, "ldp", "x"), x = in(reg) &raw const self.0, options(nostack)) };
    }

    /// Copies a guest's general-purpose registers. They go by those of SIMD, which have been saved: in half as many instructions as by
    /// EL2's own.
    pub fn copy(from: &Frame, to: &mut Frame) {
        // SAFETY: reads the 256 bytes that a frame has, and writes as many; what is in the registers is of no use before another `load`.
        unsafe {
            core::arch::asm!(
                simd!(half, "ldp", "from"),
                simd!(half, "stp", "to"),
                from = in(reg) core::ptr::from_ref(from),
                to = in(reg) core::ptr::from_mut(to),
                options(nostack)
            );
        }
    }

    /// The lower or upper 64 bits of a register.
    pub fn half(&self, register: u8, upper: bool) -> u64 {
        let value = self.0.get(usize::from(register)).copied().unwrap_or(0);
        if upper { (value >> 64) as u64 } else { value as u64 }
    }

    /// Sets the lower 64 bits of a register, and clears the upper ones; or sets the upper ones.
    pub fn set_half(&mut self, register: u8, upper: bool, value: u64) {
        let Some(register) = self.0.get_mut(usize::from(register)) else { return };
        let value = u128::from(value);
        *register = if upper { *register & u128::from(u64::MAX) | value << 64 } else { value };
    }
}

/// One instruction for each pair of SIMD registers, from or to where `$x` points: all of them, or the first half.
macro_rules! simd {
    (all, $op:literal, $x:literal) => {
        concat!(
            simd!(half, $op, $x),
            simd!($op, $x, "16" "17" 256, "18" "19" 288, "20" "21" 320, "22" "23" 352, "24" "25" 384, "26" "27" 416,
                "28" "29" 448, "30" "31" 480)
        )
    };
    (half, $op:literal, $x:literal) => {
        simd!($op, $x, "0" "1" 0, "2" "3" 32, "4" "5" 64, "6" "7" 96, "8" "9" 128, "10" "11" 160, "12" "13" 192,
            "14" "15" 224)
    };
    ($op:literal, $x:literal, $($a:literal $b:literal $offset:literal),*) => {
        concat!(".arch_extension fp\n.arch_extension simd\n",
            $($op, " q", $a, ", q", $b, ", [{", $x, "}, #", $offset, "]\n",)*
            ".arch_extension nosimd\n.arch_extension nofp\n")
    };
}
use simd;

const _: () = assert!(size_of::<Frame>() == 256 && size_of::<Simd>() == 512);
