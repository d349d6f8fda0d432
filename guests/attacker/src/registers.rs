//! System registers and system instructions, every encoding there is.

use arrayvec::ArrayVec;
use runtime::encodings::{self, Encoding, Way};
use runtime::exceptions::class;
use runtime::timer;

use crate::{Report, Strength, ensure, fail};

/// Whether the encoding belongs to EL2 or EL3, whatever CPU this is.
fn is_above(encoding: Encoding) -> bool {
    encoding.op1() >= 4
}

/// An encoding's answer must be a value or UNDEFINED, and for EL2's and EL3's the latter.
fn run(encoding: Encoding, way: Way, x0: u64) -> Option<u64> {
    match encoding.run(way, x0) {
        Ok(value) if is_above(encoding) => {
            fail(format_args!("{way:?} of {encoding} went through: {value:#x}"))
        }
        Ok(value) => Some(value),
        Err(fault) => {
            let fits = fault.is_undefined() || may_have_class(encoding, way, fault.class());
            ensure(fits, format_args!("{way:?} of {encoding}: {fault}"));
            None
        }
    }
}

/// Whether the encoding may fault with another class than that of what is UNDEFINED.
fn may_have_class(encoding: Encoding, way: Way, class: u64) -> bool {
    match class {
        // A system instruction may fault as an access does, for its operand is an address.
        class::DATA_ABORT => encoding.op0() == 1 && !is_above(encoding),
        // With FEAT_IDST a CPU reports reads of reserved ID registers so.
        class::SYSTEM_REGISTER => way == Way::Read && encoding.is_identification(),
        _ => false,
    }
}

/// Reads and writes every one, with all bits set and with random ones.
pub fn attack(strength: &mut Strength) -> Report {
    let mut count = 0;
    for encoding in Encoding::all() {
        let can_read = encoding.may_run(Way::Read);
        let old = if can_read { run(encoding, Way::Read, 0) } else { None };
        count += u64::from(can_read);
        if !encoding.may_run(Way::Write) {
            continue;
        }
        let operands = match encoding.op0() {
            1 => [encodings::scratch(), u64::MAX],
            _ => [u64::MAX, strength.random.word()],
        };
        for operand in operands {
            count += 1;
            if run(encoding, Way::Write, operand).is_none() {
                break;
            }
        }
        if let Some(old) = old.filter(|_| encoding.op0() != 1) {
            run(encoding, Way::Write, old);
        }
    }
    (count, "system instructions, none of EL2's or EL3's went through")
}

/// A register that holds what is written, in these bits.
#[derive(Clone, Copy)]
struct Held {
    register: Encoding,
    bits: u64,
    old: u64,
}

/// Those that change by themselves, or by what the program does.
const RESTLESS: [Encoding; 6] = [
    // NZCV.
    Encoding::new(3, 3, 4, 2, 0),
    // CNTP_TVAL_EL0, CNTV_TVAL_EL0.
    Encoding::new(3, 3, 14, 2, 0),
    Encoding::new(3, 3, 14, 3, 0),
    // DBGDTR_EL0, DBGDTRTX_EL0, a mailbox.
    Encoding::new(2, 3, 0, 4, 0),
    Encoding::new(2, 3, 0, 5, 0),
    // Fills and reads are the same as of DBGDTRRX_EL0.
    Encoding::new(2, 0, 0, 0, 2),
];

/// Bits that the program can't do without while it looks at others.
fn in_use(register: Encoding) -> u64 {
    const CPACR_EL1: Encoding = Encoding::new(3, 0, 1, 0, 2);
    // FPEN, ZEN, SMEN: they let FPCR and FPSR be reached, and what a CPU has of their kind.
    if register == CPACR_EL1 { 3 << 16 | 3 << 20 | 3 << 24 } else { 0 }
}

/// Registers that hold what this guest writes there.
fn held() -> ArrayVec<Held, 256> {
    let mut all = ArrayVec::new();
    let may = |encoding: &Encoding| {
        let ways = [Way::Read, Way::Write].into_iter().all(|way| encoding.may_run(way));
        encoding.op0() != 1 && !is_above(*encoding) && ways && !RESTLESS.contains(encoding)
    };
    for register in Encoding::all().filter(may) {
        let Some(old) = run(register, Way::Read, 0) else { continue };
        let values = [u64::MAX, 0].map(|value| {
            run(register, Way::Write, value)?;
            run(register, Way::Read, 0)
        });
        let [Some(ones), Some(zeros)] = values else { continue };
        run(register, Way::Write, old);
        let bits = ones & !zeros & !in_use(register);
        if bits != 0 && all.try_push(Held { register, bits, old }).is_err() {
            fail(format_args!("more registers than there is room for"));
        }
    }
    all
}

/// Fills every register that holds something with a pattern, and looks later, when others have had the CPU, whether it is
/// still there. Unlike `busy` this finds the registers by itself, so that none can be forgotten.
pub fn attack_held(strength: &mut Strength) -> Report {
    /// Longer than turns on a shared CPU are, in microseconds.
    const AWAY: u64 = 7000;
    let all = held();
    for Held { register, bits, old } in &all {
        run(*register, Way::Write, strength.random.word() & bits | old & !bits);
    }
    // Some of them are one register by two names, or mean something else together: what counts is what they hold now.
    let read = || -> ArrayVec<Option<u64>, 256> {
        all.iter().map(|held| run(held.register, Way::Read, 0)).collect()
    };
    let before = read();
    let end = timer::now() + timer::microseconds(AWAY);
    while timer::now() < end {}
    let after = read();
    for held in all.iter().rev() {
        run(held.register, Way::Write, held.old);
    }
    for ((held, before), after) in all.iter().zip(&before).zip(&after) {
        ensure(before == after, format_args!("{} is {after:x?}, was {before:x?}", held.register));
    }
    (all.len() as u64, "registers that hold something, all kept")
}
