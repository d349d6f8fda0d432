//! Programs at EL0, in AArch64 and in AArch32: what they do that comes to a hypervisor is as on hardware, and so are the exceptions
//! that their EL1 gets.

use runtime::exceptions::{class, status};
use runtime::mmu::Kind;
use runtime::pmu;
use runtime::probe::UNTOUCHED;
use runtime::sysreg::{self, SysReg};
use runtime::user::{self, Ended, State};
use runtime::{console, debug, machine};

use crate::framework::{Outcome, Stop, check, check_eq, needs_hanok, tests};

tests! {
    "user.device" => device,
    "user.aborts" => aborts,
    "user.aarch32-device" => aarch32_device,
    "user.aarch32-device-without-syndrome" => aarch32_device_without_syndrome,
    "user.aarch32-aborts" => aarch32_aborts,
    "user.aarch32-coprocessor" => aarch32_coprocessor,
    "user.aarch32-cycle-counter" => aarch32_cycle_counter,
    "user.aarch32-debug-identity" => aarch32_debug_identity,
    "user.aarch32-undefined" => aarch32_undefined,
}

/// VBAR_EL1's offsets for synchronous exceptions of EL0.
const FROM_AARCH64: u64 = 0x400;
const FROM_AARCH32: u64 = 0x600;

/// A program, which stays in one block of the map.
#[repr(align(64))]
struct Code<T>(T);

type Words = Code<[u32; 8]>;
type Halves = Code<[u16; 16]>;

const fn words<const N: usize>(code: [u32; N]) -> Words {
    let mut all = [0; 8];
    let (used, _) = all.split_at_mut(N);
    used.copy_from_slice(&code);
    Code(all)
}

const fn halves<const N: usize>(code: [u16; N]) -> Halves {
    let mut all = [0; 16];
    let (used, _) = all.split_at_mut(N);
    used.copy_from_slice(&code);
    Code(all)
}

/// Registers with these values from x0 on; the others are untouched.
fn registers<const N: usize>(values: [u64; N]) -> [u64; 16] {
    let mut all = [UNTOUCHED; 16];
    all[..N].copy_from_slice(&values);
    all
}

/// Runs a program that has x10 as its base.
fn run_a64(code: &'static Words, base: u64) -> (u64, Ended) {
    let pc = user::map_code(code);
    let mut all = registers([]);
    all[10] = base;
    (pc, user::run(pc, State::A64, &all))
}

fn run_a32(code: &'static Words, values: [u64; 6]) -> (u64, Ended) {
    let pc = user::map_code(code);
    (pc, user::run(pc, State::A32, &registers(values)))
}

fn run_t32(code: &'static Halves, values: [u64; 6]) -> (u64, Ended) {
    let pc = user::map_code(code);
    (pc, user::run(pc, State::T32, &registers(values)))
}

/// The exception that a program has ended with: class, place in the vector table, and where it was, in bytes from its start.
#[track_caller]
fn check_end(ended: &Ended, pc: u64, expected: (u64, u64, u64), what: &str) -> Outcome {
    let fault = ended.fault;
    let got = (fault.class(), ended.vector, fault.elr.wrapping_sub(pc));
    check_eq!(got, expected, "{what}: class, vector and offset of ELR, ESR being {:#x}", fault.esr);
    Ok(())
}

fn with_device(body: impl FnOnce(u64) -> Outcome) -> Outcome {
    let outcome = body(user::map_device(machine().uart.registers.base, Kind::Device));
    user::unmap();
    outcome
}

/// Where nothing is, for EL0.
fn with_nothing(kind: Kind, body: impl FnOnce(u64) -> Outcome) -> Outcome {
    let outcome = body(user::map_device(0x0b00_0000, kind));
    user::unmap();
    outcome
}

/// PrimeCell id of the UART.
const PCELL_ID: u64 = 0xff0;

fn device() -> Outcome {
    static CODE: Words = words([
        0x28c1_2d49, // ldp w9, w11, [x10], #8
        0x9100_015f, // mov sp, x10
        0xb841_07e9, // ldr w9, [sp], #16
        0x9100_03ea, // mov x10, sp
        0xd400_0001, // svc #0
    ]);
    with_device(|uart| {
        let (pc, ended) = run_a64(&CODE, uart + PCELL_ID);
        check_end(&ended, pc, (class::SVC_AARCH64, FROM_AARCH64, 20), "pairs and a stack in a device")?;
        check_eq!((ended.x[9], ended.x[11]), (0x05, 0xf0), "registers at EL0");
        check_eq!(ended.x[10], uart + PCELL_ID + 24, "the base, moved twice");
        Ok(())
    })
}

fn aborts() -> Outcome {
    static LOAD: Words = words([0xb940_0149, 0xd400_0001]); // ldr w9, [x10]
    static STORE: Words = words([0xb900_0149, 0xd400_0001]); // str w9, [x10]
    static PAIR: Words = words([0x28c1_2d49, 0xd400_0001]); // ldp w9, w11, [x10], #8
    with_nothing(Kind::Device, |nowhere| {
        for (code, write, what) in
            [(&LOAD, 0, "a load of EL0's"), (&STORE, 1, "a store of EL0's"), (&PAIR, 0, "a pair of EL0's")]
        {
            let (pc, ended) = run_a64(code, nowhere + 8);
            check_end(&ended, pc, (class::DATA_ABORT_OF_EL0, FROM_AARCH64, 0), what)?;
            let fault = ended.fault;
            check_eq!(
                (fault.status(), fault.far),
                (status::EXTERNAL_ABORT, nowhere + 8),
                "{what}: DFSC and FAR"
            );
            check_eq!(fault.syndrome() >> 6 & 1, write, "{what}: WnR");
            check_eq!(fault.syndrome() >> 10 & 1, 0, "{what}: FnV");
            check_eq!(fault.esr >> 25 & 1, 1, "{what}: IL");
            check_eq!((ended.x[9], ended.x[10]), (UNTOUCHED, nowhere + 8), "{what}: registers");
        }
        Ok(())
    })?;
    with_nothing(Kind::NonCacheable, |nowhere| {
        let ended = user::run(nowhere, State::A64, &registers([]));
        check_end(&ended, nowhere, (class::INSTRUCTION_ABORT_OF_EL0, FROM_AARCH64, 0), "a fetch of EL0's")?;
        let fault = ended.fault;
        check_eq!(
            (fault.status(), fault.far),
            (status::EXTERNAL_ABORT, nowhere),
            "a fetch of EL0's: IFSC, FAR"
        );
        Ok(())
    })
}

fn needs_aarch32() -> Outcome {
    if user::has_aarch32() { Ok(()) } else { Err(Stop::Skipped("this CPU's EL0 has no AArch32")) }
}

/// Loads and stores of one register each, which the syndrome describes: r0 is the base.
fn aarch32_device() -> Outcome {
    static IN_BLOCK: Halves = halves([
        0x4280, // cmp r0, r0
        0xbf06, // itte eq
        0x6801, // ldreq r1, [r0]
        0x2205, // moveq r2, #5
        0x2307, // movne r3, #7
        0xdf00, // svc #0
    ]);
    static T32: Halves = halves([
        0xf990, 0x100c, // ldrsb r1, [r0, #12]
        0xf8b0, 0x2004, // ldrh r2, [r0, #4]
        0x7023, // strb r3, [r4]
        0xdf00, // svc #0
    ]);
    static A32: Words = words([
        0xe590_1000, // ldr r1, [r0]
        0xe1d0_20dc, // ldrsb r2, [r0, #12]
        0x01d0_30b4, // ldrheq r3, [r0, #4]
        0xe5c4_5000, // strb r5, [r4]
        0xef00_0000, // svc #0
    ]);
    needs_aarch32()?;
    let uart_registers = console::uart();
    let before = uart_registers.read32(console::register::IBRD);
    let outcome = with_device(|uart| {
        let (id, divisor) = (uart + PCELL_ID, uart + console::register::IBRD as u64);
        let (pc, ended) = run_t32(&IN_BLOCK, [id, 1, 1, 1, 1, 1]);
        check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 12), "a load in an IT block")?;
        check_eq!(results(&ended), [0x0d, 5, 1], "r1 to r3 behind an IT block");
        uart_registers.write32(console::register::IBRD, 0);
        let (pc, ended) = run_t32(&T32, [id, 1, 1, 0x41, divisor, 1]);
        check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 12), "T32")?;
        check_eq!(results(&ended), [0xffff_ffb1, 0xf0], "r1 and r2 behind T32's loads");
        check_eq!(uart_registers.read32(console::register::IBRD), 0x41, "IBRD behind T32's store");
        let (pc, ended) = run_a32(&A32, [id, 1, 1, 1, divisor, 0x42]);
        check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 20), "A32")?;
        check_eq!(
            results(&ended),
            [0x0d, 0xffff_ffb1, 1],
            "r1 to r3 behind A32's loads, of which one is not to be"
        );
        check_eq!(uart_registers.read32(console::register::IBRD), 0x42, "IBRD behind A32's store");
        Ok(())
    });
    uart_registers.write32(console::register::IBRD, before);
    outcome
}

/// Those of several registers aren't described.
fn aarch32_device_without_syndrome() -> Outcome {
    static DOUBLE: Halves = halves([0xe9d0, 0x1200, 0xdf00]); // ldrd r1, r2, [r0]
    static SEVERAL: Words = words([0xe890_0006, 0xef00_0000]); // ldm r0, {r1, r2}
    needs_aarch32()?;
    needs_hanok()?;
    with_device(|uart| {
        let values = [uart + PCELL_ID, 1, 1, 1, 1, 1];
        for (what, (pc, ended)) in [("LDRD", run_t32(&DOUBLE, values)), ("LDM", run_a32(&SEVERAL, values))] {
            check_end(&ended, pc, (class::DATA_ABORT_OF_EL0, FROM_AARCH32, 0), what)?;
            check_eq!(
                (ended.fault.status(), ended.fault.far),
                (status::EXTERNAL_ABORT, values[0]),
                "{what}: DFSC, FAR"
            );
            check_eq!(results(&ended), [1, 1], "{what}: registers behind an abort");
        }
        Ok(())
    })
}

/// Registers from r1 on.
fn results<const N: usize>(ended: &Ended) -> [u64; N] {
    core::array::from_fn(|n| ended.x[n + 1])
}

/// SPSR_EL1 of AArch32: T and M, and ITSTATE.
fn state(ended: &Ended) -> (u64, u64) {
    let spsr = ended.fault.spsr;
    (spsr & 0x3f, spsr >> 8 & 0xfc | spsr >> 25 & 0b11)
}

const USER_T32: u64 = 0x30;

fn aarch32_aborts() -> Outcome {
    static STORE: Halves = halves([
        0x2300, // movs r3, #0
        0xbf04, // itt eq
        0x6001, // streq r1, [r0]
        0x2205, // moveq r2, #5
        0xdf00, // svc #0
    ]);
    needs_aarch32()?;
    with_nothing(Kind::Device, |nowhere| {
        let (pc, ended) = run_t32(&STORE, [nowhere + 4, 1, 1, 1, 1, 1]);
        check_end(&ended, pc, (class::DATA_ABORT_OF_EL0, FROM_AARCH32, 4), "a store in an IT block")?;
        let fault = ended.fault;
        check_eq!((fault.status(), fault.far), (status::EXTERNAL_ABORT, nowhere + 4), "DFSC and FAR");
        check_eq!(
            (fault.syndrome() >> 6 & 1, fault.esr >> 25 & 1),
            (1, 1),
            "WnR, and IL, as without a valid syndrome"
        );
        check_eq!(state(&ended), (USER_T32, 0x04), "SPSR: T and mode, ITSTATE");
        check_eq!(fault.spsr >> 28, 0b0100, "SPSR: NZCV");
        Ok(())
    })
}

/// DBGDRAR and DBGDSAR, which say that there is nothing: a hypervisor gets to see reads of them.
fn aarch32_coprocessor() -> Outcome {
    static IN_BLOCK: Halves = halves([
        0x2300, // movs r3, #0
        0xbf06, // itte eq
        0xee11, 0x1e10, // mrceq p14, 0, r1, c1, c0, 0
        0x2205, // moveq r2, #5
        0x2307, // movne r3, #7
        0xdf00, // svc #0
    ]);
    static FAILS: Halves = halves([
        0x2300, // movs r3, #0
        0xbf1c, // itt ne
        0xee11, 0x1e10, // mrcne p14, 0, r1, c1, c0, 0
        0x2205, // movne r2, #5
        0xdf00, // svc #0
    ]);
    static A32: Words = words([
        0xe156_0006, // cmp r6, r6
        0xec52_1e01, // mrrc p14, 0, r1, r2, c1
        0xee12_3e10, // mrc p14, 0, r3, c2, c0, 0
        0x1e11_4e10, // mrcne p14, 0, r4, c1, c0, 0
        0x0e11_5e10, // mrceq p14, 0, r5, c1, c0, 0
        0xef00_0000, // svc #0
    ]);
    needs_aarch32()?;
    let ones = [0xffff_ffff; 6];
    let (pc, ended) = run_t32(&IN_BLOCK, ones);
    check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 14), "DBGDRAR in an IT block")?;
    check_eq!(results(&ended), [0, 5, 0], "r1 to r3 behind an IT block");
    let (pc, ended) = run_t32(&FAILS, ones);
    check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 12), "DBGDRAR by a condition that fails")?;
    check_eq!(results(&ended), [0xffff_ffff; 2], "r1 and r2 behind what isn't executed");
    let (pc, ended) = run_a32(&A32, ones);
    check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 24), "DBGDRAR, DBGDSAR")?;
    check_eq!(results(&ended), [0, 0, 0, 0xffff_ffff, 0], "r1 to r5");
    user::unmap();
    Ok(())
}

/// Writing PMCCNTR's lower half leaves the upper one.
fn aarch32_cycle_counter() -> Outcome {
    static CODE: Words = words([
        0xee19_1f1d, // mrc p15, 0, r1, c9, c13, 0
        0xee09_0f1d, // mcr p15, 0, r0, c9, c13, 0
        0xef00_0000, // svc #0
    ]);
    const FOR_USERS: u64 = 1;
    needs_aarch32()?;
    if !pmu::is_there() {
        return Err(Stop::Skipped("no counters are shown by this CPU"));
    }
    pmu::reset();
    pmu::set_cycles(0x1234_5678_9abc_def0);
    pmu::set_for_users(FOR_USERS);
    let (pc, ended) = run_a32(&CODE, [0x8765_4321, 0, 0, 0, 0, 0]);
    let cycles = pmu::cycles();
    pmu::stop();
    check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 12), "PMCCNTR's lower half")?;
    check_eq!(results(&ended), [0x9abc_def0], "r1");
    check_eq!(cycles, 0x1234_5678_8765_4321, "PMCCNTR_EL0");
    user::unmap();
    Ok(())
}

/// DBGDIDR, which an OS lock that is closed doesn't keep from anybody.
fn aarch32_debug_identity() -> Outcome {
    static CODE: Halves = halves([0xee10, 0x1e10, 0xdf00]); // mrc p14, 0, r1, c0, c0, 0
    needs_aarch32()?;
    let midr = sysreg::read(SysReg::new(3, 0, 0, 0, 0)).unwrap_or(0);
    // The two have as many breakpoints, watchpoints and the rest.
    let is_known = matches!(midr >> 4 & 0xfff, 0xd03 | 0xd08);
    for closed in [true, false] {
        debug::lock(closed);
        let (pc, ended) = run_t32(&CODE, [0; 6]);
        debug::lock(false);
        // A CPU whose EL1 is never AArch32 may be without it (Arm ARM G8.3, DBGDIDR): Neoverse N1 is. Cortex-A53 and A72 have it.
        if !is_known && ended.fault.class() == class::UNKNOWN {
            check_end(&ended, pc, (class::UNKNOWN, FROM_AARCH32, 0), "DBGDIDR where there is none")?;
            continue;
        }
        check_end(&ended, pc, (class::SVC_AARCH32, FROM_AARCH32, 6), "DBGDIDR")?;
        let value = ended.x[1];
        check!(value >> 16 & 0xf >= 6, "DBGDIDR.Version: ARMv8 or later, got {value:#x}");
        // nSUHD_imp and SE_imp are for EL3, which QEMU's board leaves out of the ID registers alone.
        check!(!is_known || value | 0x5000 == 0x3516_d000, "DBGDIDR of a Cortex-A53 or A72, got {value:#x}");
    }
    user::unmap();
    Ok(())
}

/// An instruction that the CPU knows to be UNDEFINED, and a register that a hypervisor says is: DBGDSCRint.
fn aarch32_undefined() -> Outcome {
    static UDF: Halves = halves([
        0x2300, // movs r3, #0
        0xbf04, // itt eq
        0xde00, // udf #0
        0x2205, // moveq r2, #5
        0xdf00, // svc #0
    ]);
    static DSCR: Halves = halves([
        0x2300, // movs r3, #0
        0xbf04, // itt eq
        0xee10, 0x1e11, // mrceq p14, 0, r1, c0, c1, 0
        0x2205, // moveq r2, #5
        0xdf00, // svc #0
    ]);
    needs_aarch32()?;
    let check = |what: &str, (pc, ended): (u64, Ended)| {
        check_end(&ended, pc, (class::UNKNOWN, FROM_AARCH32, 4), what)?;
        check_eq!(ended.fault.esr, 1 << 25, "{what}: ESR, nothing but IL");
        check_eq!(state(&ended), (USER_T32, 0x04), "{what}: SPSR, T and mode, ITSTATE");
        check_eq!(ended.fault.spsr >> 28, 0b0100, "{what}: SPSR, NZCV");
        Ok(())
    };
    let ones = [1; 6];
    let outcome = check("UDF", run_t32(&UDF, ones)).and_then(|()| {
        needs_hanok()?;
        check("DBGDSCRint", run_t32(&DSCR, ones))
    });
    user::unmap();
    outcome
}
