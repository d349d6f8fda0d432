//! A guest's FP and SIMD registers, which EL2 itself never uses: they are in the CPU as long as its vCPU is.

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
        unsafe { core::arch::asm!(simd!("stp"), x = in(reg) &raw mut self.0, options(nostack)) };
    }

    /// Puts them into the CPU.
    pub fn load(&self) {
        // SAFETY: reads the 512 bytes that `self` has; the rest as above.
        unsafe { core::arch::asm!(simd!("ldp"), x = in(reg) &raw const self.0, options(nostack)) };
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

/// One instruction for each pair of registers.
macro_rules! simd {
    ($op:literal) => {
        simd!($op, "0" "1" 0, "2" "3" 32, "4" "5" 64, "6" "7" 96, "8" "9" 128, "10" "11" 160, "12" "13" 192,
            "14" "15" 224, "16" "17" 256, "18" "19" 288, "20" "21" 320, "22" "23" 352, "24" "25" 384,
            "26" "27" 416, "28" "29" 448, "30" "31" 480)
    };
    ($op:literal, $($a:literal $b:literal $offset:literal),*) => {
        concat!(".arch_extension fp\n.arch_extension simd\n",
            $($op, " q", $a, ", q", $b, ", [{x}, #", $offset, "]\n",)*
            ".arch_extension nosimd\n.arch_extension nofp")
    };
}
use simd;
