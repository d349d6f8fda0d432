//! Single loads, stores and fetches of any shape at any address outside RAM, to see how the machine answers them.
//! Each is one instruction; a fault is the answer, not the end.

use core::arch::asm;

use crate::exceptions::{Fault, catch};
use crate::machine;

/// The pattern that a load's target register holds before the load, to see whether a faulting load changed it.
pub const UNTOUCHED: u64 = 0x5ca1_ab1e_dead_beef;

/// A load, by its instruction; `w` and `x` are the width of the target register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// `ldrb w`
    Byte,
    /// `ldrh w`
    Half,
    /// `ldr w`
    Word,
    /// `ldr x`
    Double,
    /// `ldrsb w`
    SignedByteW,
    /// `ldrsb x`
    SignedByteX,
    /// `ldrsh w`
    SignedHalfW,
    /// `ldrsh x`
    SignedHalfX,
    /// `ldrsw x`
    SignedWordX,
    /// `ldar w`
    Acquire,
    /// `ldr wzr`: the value goes nowhere.
    ToZero,
}

/// A store, by its instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// `strb w`
    Byte,
    /// `strh w`
    Half,
    /// `str w`
    Word,
    /// `str x`
    Double,
    /// `stlr w`
    Release,
    /// `str wzr`: the value given is not used.
    Zero,
}

fn check(address: u64) {
    let in_ram = machine().ram.iter().any(|bank| bank.contains(address) || bank.contains(address + 7));
    assert!(!in_ram, "{address:#x} is RAM: the program itself");
}

macro_rules! load {
    ($instruction:literal, $address:expr) => {{
        let mut value = UNTOUCHED;
        // SAFETY: a load changes no memory; that of a device can't reach the program's.
        let ((), fault) = catch(|| unsafe {
            asm!($instruction, inout("x9") value, in("x10") $address, options(nostack));
        });
        match fault {
            Some(fault) if value == UNTOUCHED => Err(fault),
            Some(fault) => panic!("a load that faulted ({fault}) changed its register to {value:#x}"),
            None => Ok(value),
        }
    }};
}

/// Loads from `address`. An `Ok` is the whole 64-bit register afterwards.
pub fn load(kind: Load, address: u64) -> Result<u64, Fault> {
    check(address);
    match kind {
        Load::Byte => load!("ldrb w9, [x10]", address),
        Load::Half => load!("ldrh w9, [x10]", address),
        Load::Word => load!("ldr w9, [x10]", address),
        Load::Double => load!("ldr x9, [x10]", address),
        Load::SignedByteW => load!("ldrsb w9, [x10]", address),
        Load::SignedByteX => load!("ldrsb x9, [x10]", address),
        Load::SignedHalfW => load!("ldrsh w9, [x10]", address),
        Load::SignedHalfX => load!("ldrsh x9, [x10]", address),
        Load::SignedWordX => load!("ldrsw x9, [x10]", address),
        Load::Acquire => load!("ldar w9, [x10]", address),
        Load::ToZero => load!("ldr wzr, [x10]", address),
    }
}

macro_rules! store {
    ($instruction:literal, $value:expr, $address:expr) => {{
        // SAFETY: the address is not in RAM (`check`), and what other addresses map to RAM is read-only.
        let ((), fault) = catch(|| unsafe {
            asm!($instruction, in("x9") $value, in("x10") $address, options(nostack));
        });
        fault.map_or(Ok(()), Err)
    }};
}

/// Stores the low bits of `value` at `address`.
pub fn store(kind: Store, address: u64, value: u64) -> Result<(), Fault> {
    check(address);
    match kind {
        Store::Byte => store!("strb w9, [x10]", value, address),
        Store::Half => store!("strh w9, [x10]", value, address),
        Store::Word => store!("str w9, [x10]", value, address),
        Store::Double => store!("str x9, [x10]", value, address),
        Store::Release => store!("stlr w9, [x10]", value, address),
        Store::Zero => store!("str wzr, [x10]", value, address),
    }
}

/// What an access left: registers as they were afterwards, and the fault, if it faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// x9, the (first) register that is loaded or stored.
    pub first: u64,
    /// x11, the second one.
    pub second: u64,
    /// x10, the base.
    pub base: u64,
    /// The fault.
    pub fault: Option<Fault>,
}

/// A row for each form of access: its name, what it is, and the instruction. x10 has the address; x9 and x11 are targets and
/// sources, x12 is an index of 8.
macro_rules! forms {
    ($($name:ident $instruction:literal,)*) => {
        /// Loads and stores of which the architecture tells a hypervisor no more than the address (ESR_EL2.ISV is 0), but for a few.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Form {
            $(#[doc = concat!("`", $instruction, "`")] $name,)*
        }

        /// Makes an access, or two, of this form near `base`, which isn't in RAM, with these registers.
        pub fn access(form: Form, base: u64, first: u64, second: u64) -> Left {
            check(base);
            let (mut first, mut second, mut base) = (first, second, base);
            // SAFETY: the address is not in RAM (`check`), and what other addresses map to RAM is read-only; the stack pointer is
            // put back, and no code of the program's has anything in SIMD registers.
            let ((), fault) = catch(|| unsafe {
                match form {
                    $(Form::$name => asm!(".arch_extension fp\n .arch_extension simd", $instruction,
                        ".arch_extension nosimd\n .arch_extension nofp",
                        inout("x9") first, inout("x11") second, inout("x10") base, in("x12") 8, out("x13") _,
                        options(nostack)),)*
                }
            });
            Left { first, second, base, fault }
        }
    };
}

forms! {
    Pair "ldp w9, w11, [x10]",
    PairOffset "ldp w9, w11, [x10, #8]",
    PairPre "ldp w9, w11, [x10, #8]!",
    PairPost "ldp w9, w11, [x10], #-8",
    PairSigned "ldpsw x9, x11, [x10]",
    PairNonTemporal "ldnp w9, w11, [x10]",
    PairToZero "ldp wzr, w11, [x10]",
    PairDouble "ldp x9, x11, [x10]",
    Pre "ldr w9, [x10, #4]!",
    Post "ldr w9, [x10], #4",
    PreByte "ldrb w9, [x10, #4]!",
    PostSignedByte "ldrsb x9, [x10], #-4",
    PostSignedByteW "ldrsb w9, [x10], #4",
    PostHalf "ldrh w9, [x10], #4",
    PostSignedWord "ldrsw x9, [x10], #4",
    PostToZero "ldr wzr, [x10], #4",
    Unscaled "ldur w9, [x10, #4]",
    Indexed "ldr w9, [x10, x12]",
    StackPost "mov x13, sp\n mov sp, x10\n ldr w9, [sp], #16\n mov x10, sp\n mov sp, x13",
    OtherStackPost "msr spsel, #0\n mov sp, x10\n ldr w9, [sp], #16\n mov x10, sp\n msr spsel, #1",
    StorePair "stp w9, w11, [x10]",
    StorePairPre "stp w9, w11, [x10, #4]!",
    StorePairPost "stp w9, w11, [x10], #8",
    StorePairNonTemporal "stnp w9, w11, [x10]",
    StorePairZero "stp wzr, w11, [x10]",
    StorePre "str w9, [x10, #4]!",
    StorePost "str w9, [x10], #4",
    StorePostByte "strb w9, [x10], #1",
    StorePostZero "str wzr, [x10], #4",
    Vector "ldr s9, [x10]\n fmov x9, d9",
    VectorPost "ldr s9, [x10], #4\n fmov x9, d9",
    VectorPair "ldp s9, s11, [x10]\n fmov x9, d9\n fmov x11, d11",
    VectorDouble "ldr d9, [x10]\n fmov x9, d9",
    VectorWhole "ldr q9, [x10]\n fmov x9, d9\n fmov x11, v9.d[1]",
    VectorStore "fmov d9, x9\n str s9, [x10, #4]!",
    VectorStorePair "fmov d9, x9\n fmov d11, x11\n stp s9, s11, [x10]",
    Exclusive "ldxr w9, [x10]",
    ExclusivePair "ldaxp w9, w11, [x10]",
    Structure "ld1 {{v9.4s}}, [x10]",
}

/// Calls `address`, where no code is. Returns the fault that brought the CPU back.
pub fn fetch(address: u64) -> Option<Fault> {
    check(address);
    // SAFETY: there is no instruction outside RAM; the fault handler returns to x30, as if from the call. The
    // caller-saved registers are given up nevertheless.
    let ((), fault) = catch(|| unsafe {
        asm!("blr {}", in(reg) address, clobber_abi("C"), options(nostack));
    });
    fault
}

/// `DC CIVAC` of `address`.
pub fn clean_invalidate(address: u64) -> Option<Fault> {
    check(address);
    // SAFETY: cleaning and invalidating keeps what memory holds.
    let ((), fault) = catch(|| unsafe { asm!("dc civac, {}", in(reg) address, options(nostack)) });
    fault
}

/// `LDXR`, `STXR` of a word at `address`: the fault, if any.
pub fn exclusive(address: u64) -> Option<Fault> {
    check(address);
    // SAFETY: as for `store`.
    let ((), fault) = catch(|| unsafe {
        asm!("ldxr w9, [x10]", "stxr w11, w9, [x10]", out("x9") _, out("x11") _, in("x10") address,
            options(nostack));
    });
    fault
}

/// What happened to an access of a [`Touch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// It went through. The (first) target register afterwards.
    Done(u64),
    /// It faulted.
    Faulted(Fault),
}

/// A row for each kind of access: its name, what it is, and the instruction. x10 has the address; x9 and x11 are targets and
/// sources.
macro_rules! touches {
    ($($name:ident $doc:literal $instruction:literal,)*) => {
        /// Further kinds of access, for those who try them all.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Touch {
            $(#[doc = $doc] $name,)*
        }

        impl Touch {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        /// Makes one access at `address`. Panics if that is RAM, or if an access that faults changes a target register.
        pub fn touch(kind: Touch, address: u64) -> Touched {
            check(address);
            let (mut first, mut second) = (UNTOUCHED, UNTOUCHED);
            // SAFETY: the address is not in RAM (`check`), what other addresses map to RAM is read-only, and no code of the
            // program's has anything in SIMD registers.
            let ((), fault) = catch(|| unsafe {
                match kind {
                    $(Touch::$name => asm!($instruction, inout("x9") first, inout("x11") second, in("x10") address,
                        options(nostack)),)*
                }
            });
            let Some(fault) = fault else { return Touched::Done(first) };
            let kept = first == UNTOUCHED && second == UNTOUCHED;
            assert!(kept, "{kind:?} at {address:#x} faulted ({fault}) and changed a register");
            Touched::Faulted(fault)
        }
    };
}

touches! {
    LoadPair "`ldp`" "ldp x9, x11, [x10]",
    StorePair "`stp`" "stp x9, x11, [x10]",
    LoadPairNonTemporal "`ldnp`" "ldnp x9, x11, [x10]",
    StorePairNonTemporal "`stnp`" "stnp x9, x11, [x10]",
    LoadExclusive "`ldaxr`" "ldaxr x9, [x10]",
    LoadExclusivePair "`ldxp`" "ldxp x9, x11, [x10]",
    LoadVector "`ldr q0`" ".arch_extension fp\n ldr q0, [x10]\n .arch_extension nofp",
    StoreVector "`str q0`" ".arch_extension fp\n str q0, [x10]\n .arch_extension nofp",
    LoadVectors "`ld1` of four registers"
        ".arch_extension simd\n ld1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [x10]\n .arch_extension nosimd\n .arch_extension nofp",
    StoreVectors "`st1` of four registers"
        ".arch_extension simd\n st1 {{v0.16b, v1.16b, v2.16b, v3.16b}}, [x10]\n .arch_extension nosimd\n .arch_extension nofp",
    Add "`ldaddal`" ".arch_extension lse\n ldaddal x11, x9, [x10]\n .arch_extension nolse",
    Swap "`swpal`" ".arch_extension lse\n swpal x11, x9, [x10]\n .arch_extension nolse",
    CompareAndSwap "`casal`" ".arch_extension lse\n casal x9, x11, [x10]\n .arch_extension nolse",
    ZeroBlock "`dc zva`" "dc zva, x10",
    Invalidate "`dc ivac`" "dc ivac, x10",
    Clean "`dc cvac`" "dc cvac, x10",
    CleanToUnification "`dc cvau`" "dc cvau, x10",
    CleanInvalidate "`dc civac`" "dc civac, x10",
    InvalidateInstructions "`ic ivau`" "ic ivau, x10",
    Prefetch "`prfm`" "prfm pstl1keep, [x10]",
}

impl Touch {
    /// Whether only CPUs with [LSE](crate::features::has_lse) have the instruction.
    pub fn needs_lse(self) -> bool {
        matches!(self, Self::Add | Self::Swap | Self::CompareAndSwap)
    }

    /// Whether this maintains caches, or is a hint: then it may go through where nothing is, to no effect.
    pub fn may_be_ignored(self) -> bool {
        use Touch::*;
        matches!(
            self,
            Invalidate | Clean | CleanToUnification | CleanInvalidate | InvalidateInstructions | Prefetch
        )
    }
}
