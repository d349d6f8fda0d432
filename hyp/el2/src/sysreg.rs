//! System registers that `aarch64-cpu` has no type for, by their assembler name or `S<op0>_<op1>_C<n>_C<m>_<op2>`.

/// Reads a system register. Only registers whose reading has no effect are read by this.
macro_rules! read_sysreg {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: reading this register has no effect but its value; every caller runs at EL2 on a CPU that has it.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack)) };
        value
    }};
}

/// Writes a system register of the guest's world, or one of EL2's whose effect the caller's comment explains. None of
/// them changes what EL2's own memory accesses do.
macro_rules! write_sysreg {
    // Zero needs no register.
    ($name:expr, 0) => {
        // SAFETY: as below.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", xzr"), options(nostack)) }
    };
    ($name:expr, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: this register decides over guests alone, not over EL2's translation, stack or vectors; every caller
        // runs at EL2 on a CPU that has it.
        unsafe { core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
    }};
}

pub(crate) use {read_sysreg, write_sysreg};
