//! Interrupts that aren't this guest's: enabled, made pending, routed, sent to others; and the registers of its own
//! controller with values that nobody would write.

use runtime::exceptions::catch;
use runtime::gic::{self, SgiRegister, Version, cpu_register, register};
use runtime::mmio::Mmio;
use runtime::{cpu, machine};

use crate::handler::{all_taken, check_that_it_works, forget, reset, take, take_for, take_until, taken};
use crate::{Report, Strength, ensure, fail};

/// The first number that isn't a shared interrupt's.
const SPECIAL: u32 = 1020;

/// Lets every interrupt of this guest's controller come, at its own CPU.
fn enable_all() {
    (0..gic::interrupt_count()).for_each(gic::enable);
}

/// Enables whatever there is and waits for what belongs to others; makes each of its own pending, which must come once; and
/// does the same with numbers that the controller doesn't have.
pub fn attack(_: &mut Strength) -> Report {
    enable_all();
    take_for(2000);
    ensure(all_taken() == 0, format_args!("{} interrupts came that are others'", all_taken()));
    let mut count = u64::from(gic::interrupt_count());
    for intid in 32..gic::interrupt_count() {
        gic::set_pending(intid);
        take_until(intid, 1, "made pending by software");
        ensure(all_taken() == 1, format_args!("with interrupt {intid} came others"));
        forget();
        count += 1;
    }
    count += try_unshown();
    take_for(500);
    ensure(all_taken() == 0, format_args!("{} interrupts came that this machine doesn't have", all_taken()));
    (count, "interrupts tried, none but its own came")
}

/// Interrupts that the controller doesn't show, up to the last that the architecture has room for: their bits can't be set.
fn try_unshown() -> u64 {
    let gicd = gic::distributor();
    let mut count = 0;
    for intid in gic::interrupt_count()..SPECIAL {
        let (word, bit) = (intid as usize / 32 * 4, 1 << (intid % 32));
        let active_last = [register::ISENABLER, register::ISPENDR, register::ISACTIVER];
        for set in active_last {
            gicd.write32(set + word, bit);
            ensure(
                gicd.read32(set + word) & bit == 0,
                format_args!("interrupt {intid} has state at {set:#x}"),
            );
        }
        gicd.write8(register::IPRIORITYR + intid as usize, 0x10);
        if gic::version() == Version::V3 {
            gicd.write64(register::IROUTER + 8 * intid as usize, machine().cpus()[0]);
        } else {
            gicd.write8(register::ITARGETSR + intid as usize, 0xff);
        }
        count += 1;
    }
    count
}

/// SGIs to every list of CPUs: those that name this one come, once each, and the others go nowhere.
pub fn attack_by_sgis(strength: &mut Strength) -> Report {
    let count = match gic::version() {
        Version::V2 => try_sgis_v2(),
        Version::V3 => try_sgis_v3(strength),
    };
    (count, "SGIs sent, those to itself came")
}

/// Sends, and waits for what must come of it.
fn send(register: SgiRegister, value: u64, intid: u32, to_itself: bool) {
    gic::send_raw_sgi(register, value);
    if to_itself {
        take_until(intid, 1, "an SGI to itself");
    } else {
        take();
    }
    let wanted = u32::from(to_itself);
    ensure(
        all_taken() == wanted && taken(intid) == wanted,
        format_args!("of an SGI by {register:?} = {value:#x} came {}", all_taken()),
    );
    forget();
}

/// GICD_SGIR: all targets, all filters, the reserved bits too.
fn try_sgis_v2() -> u64 {
    let own = 1 << (machine().cpus()[0] & 7);
    let mut count = 0;
    for filter in 0..4u64 {
        for targets in 0..256u64 {
            let intid = (targets % 16) as u32;
            // Without security extensions the group bit and those above it mean nothing.
            let reserved = if targets & 1 == 0 { 0 } else { 0xfc00_7ff0 };
            let value = filter << 24 | targets << 16 | reserved | u64::from(intid);
            let to_itself = match filter {
                0 => targets & own != 0,
                2 => true,
                _ => false,
            };
            send(SgiRegister::Own, value, intid, to_itself);
            count += 1;
        }
    }
    count
}

/// ICC_SGI1R_EL1 and its siblings: affinities near and far, range selectors, all CPUs but this one.
fn try_sgis_v3(strength: &mut Strength) -> u64 {
    const EVERYBODY_ELSE: u64 = 1 << 40;
    let own = machine().cpus()[0];
    let mut count = 0;
    let mut one = |register, affinity: u64, range: u64, list: u64, mode: u64| {
        let intid = (count % 16) as u32;
        let [aff1, aff2, aff3] = [8, 16, 32].map(|shift| affinity >> shift & 0xff);
        let value = list | aff1 << 16 | aff2 << 32 | range << 44 | aff3 << 48 | mode | u64::from(intid) << 24;
        let same_cluster = affinity & !0xff == own & !0xff;
        let listed = range == (own & 0xff) >> 4 && list >> (own & 0xf) & 1 != 0;
        // Others in this cluster are this VM's, and off. All is in group 1, which SGI0R doesn't send to with one security
        // state; neither does ASGI1R.
        let to_itself = register == SgiRegister::Own && mode == 0 && same_cluster && listed;
        send(register, value, intid, to_itself);
        count += 1;
    };
    for register in [SgiRegister::Own, SgiRegister::OtherState, SgiRegister::Group0] {
        one(register, own, 0, 0xffff, EVERYBODY_ELSE);
        for (n, shift) in (0..256).flat_map(|n| [(n, 8), (n, 16), (n, 32)]) {
            one(register, own ^ n << shift, 0, 0xffff, 0);
        }
        for range in 0..16 {
            one(register, own, range, 0xffff, 0);
        }
        for bit in 0..16 {
            one(register, own, 0, 1 << bit, 0);
        }
        for _ in 0..strength.times(500) {
            let affinity = strength.random.word() & 0xff_00ff_ff00;
            let list = strength.random.word() & 0xffff;
            one(register, affinity, strength.random.below(16), list, 0);
            one(register, affinity, 0, list, EVERYBODY_ELSE);
        }
    }
    count
}

/// A block of registers of the controller.
struct Registers {
    at: Mmio,
    size: u64,
}

/// Writes and reads anything anywhere in its own controller, and puts it right again every so often: then it must work.
pub fn attack_gic(strength: &mut Strength) -> Report {
    const BETWEEN: u64 = 250;
    let gicd = Registers {
        at: gic::distributor(),
        size: if gic::version() == Version::V2 { 0x1000 } else { 0x1_0000 },
    };
    let others = match (gic::cpu_interface(), gic::redistributor(0)) {
        (Some(at), _) => Registers { at, size: 0x2000 },
        (_, Some(at)) => Registers { at, size: 0x2_0000 },
        _ => fail(format_args!("this controller has nothing for each CPU")),
    };
    let count = strength.times(12_000);
    all_ones(&gicd);
    all_ones(&others);
    for n in 0..count {
        let block = if strength.random.below(2) == 0 { &gicd } else { &others };
        touch(strength, block);
        if n % 16 == 0 {
            take();
        }
        if n % BETWEEN == 0 {
            reset();
            check_that_it_works();
        }
    }
    (count, "accesses to its own controller, which works")
}

/// All registers of a block with all bits set, from its end on, so that what turns it off comes last.
fn all_ones(block: &Registers) {
    for offset in (0..block.size as usize).step_by(4).rev() {
        let ((), _) = catch(|| block.at.write32(offset, u32::MAX));
    }
    take();
    reset();
    check_that_it_works();
}

/// One access of any width, anywhere, mostly where registers are; a fault is an answer.
fn touch(strength: &mut Strength, block: &Registers) {
    let random = &mut strength.random;
    let width = 1 << random.below(4);
    let first_page = random.below(0x1000);
    let offset = match random.below(8) {
        0 => random.below(block.size - 8),
        // Private interrupts are in a redistributor's second page of 64 KiB.
        1..4 if block.size == 0x2_0000 => 0x1_0000 + first_page,
        _ => first_page,
    };
    let aligned = offset & !(width - 1);
    let offset = (if random.below(32) == 0 { offset } else { aligned }).min(block.size - width) as usize;
    let value = match random.below(4) {
        0 => u64::MAX,
        1 => 1 << random.below(64),
        _ => random.word(),
    };
    let is_acknowledge = block.size == 0x2000 && offset & !3 == cpu_register::IAR;
    let read = random.below(4) == 0 && !is_acknowledge;
    let at = block.at;
    let ((), _) = catch(|| match (read, width) {
        (true, 1) => drop(at.read8(offset)),
        (true, 2) => drop(at.read16(offset)),
        (true, 4) => drop(at.read32(offset)),
        (true, _) => drop(at.read64(offset)),
        (false, 1) => at.write8(offset, value as u8),
        (false, 2) => at.write16(offset, value as u16),
        (false, 4) => at.write32(offset, value as u32),
        (false, _) => at.write64(offset, value),
    });
    cpu::synchronize();
}
