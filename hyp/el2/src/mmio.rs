//! Accesses of guests to emulated devices.
//!
//! Those that the syndrome describes come straight to [`access`]. The others ([`by_instruction`]) are looked up in the guest's code, and
//! made one by one by the same functions.

use aarch64_cpu::registers::{ELR_EL2, FAR_EL2, SP_EL0, SP_EL1, SPSR_EL2};
use tock_registers::interfaces::{Readable, Writeable};
use vgic::{Kicks, Read, VcpuId, Width};
use vmm::devices::{Device, Hit};
use vmm::esr::{Abort, Access};
use vmm::inject::{Exception, external_abort};
use vmm::instruction::{Bank, LoadStore, SP};
use vmm::layout::Ipa;
use vmm::step;

use crate::exit::{Frame, Short, faulting_ipa, guest_ipa, inject, reject_data, skip, translate};
use crate::gic::with_hardware;
use crate::simd::Simd;
use crate::timer;
use crate::vcpu::Vcpu;

/// An access of an AArch64 instruction, with the register that it names: it is done, and stepped over. Or it isn't, and the guest
/// executes it again.
#[inline(always)]
pub fn access(vcpu: &'static Vcpu, frame: &mut Short, hit: Hit, access: Access) {
    if access.is_plain_load()
        && let Some(value) = peek(vcpu, hit)
    {
        frame.set(access.register(), value.into());
        return skip();
    }
    any_access(vcpu, frame, hit, access);
}

/// What guests read most, by words. Where another CPU has to do with the same device, the long way waits for it.
#[inline(always)]
fn peek(vcpu: &'static Vcpu, Hit { device, offset }: Hit) -> Option<u32> {
    match device {
        Device::Gicd => vcpu.vm.vgic.try_lock_weak()?.peek_distributor(offset.into()),
        Device::Uart => vcpu.vm.uart_peek(offset),
        Device::Gicr | Device::Rtc => None,
    }
}

/// As [`access`], where it isn't one of those that come often.
#[inline(never)]
pub fn any_access(vcpu: &'static Vcpu, frame: &mut Short, hit: Hit, access: Access) {
    let Hit { device, offset } = hit;
    match device {
        Device::Gicd if access.is_write() => distributor_write(vcpu, frame, offset, access),
        Device::Gicd => distributor_read(vcpu, frame, offset, access),
        Device::Gicr => redistributor(vcpu, frame, offset, access),
        Device::Uart => uart(vcpu, frame, offset, access),
        Device::Rtc => rtc(vcpu, frame, offset, access),
    }
}

/// The same, not stepped over: whether it is done.
pub fn perform(vcpu: &'static Vcpu, frame: &mut Short, hit: Hit, what: Access) -> bool {
    stepped(|| any_access(vcpu, frame, hit, what))
}

/// Does what handlers do for an AArch64 instruction, in place of another one or a part of one: whether they would have stepped over
/// it. The guest stays where it was, unless they have taken it to an exception.
pub fn stepped(handle: impl FnOnce()) -> bool {
    let before = (ELR_EL2.get(), SPSR_EL2.get());
    handle();
    let done = (ELR_EL2.get(), SPSR_EL2.get()) == step::over_aarch64(before.0, before.1);
    if done {
        ELR_EL2.set(before.0);
        SPSR_EL2.set(before.1);
    }
    done
}

/// The most accesses of an instruction: a pair of registers of 128 bits.
const MOST_PARTS: usize = 4;

/// An access to a device, where nothing is mapped, of an AArch64 instruction that the syndrome doesn't describe: looks into the guest's code
/// for what it is, and does that.
#[inline(never)]
pub fn by_instruction(vcpu: &'static Vcpu, frame: &mut Frame, abort: Abort, hit: Hit) {
    let mut code = [0; 4];
    // Where its code isn't any more, another vCPU has changed the map: the guest will see what that makes of it.
    let Some(pc) = guest_ipa(ELR_EL2.get()) else { return };
    if !vcpu.vm.read(pc, &mut code) {
        return reject_data(vcpu, abort);
    }
    let Some(instruction) = LoadStore::decode(u32::from_le_bytes(code)) else {
        return reject_data(vcpu, abort);
    };
    let base = if instruction.base == SP { stack_pointer() } else { frame.get(instruction.base) };
    let (address, new_base) = instruction.place(base, |register| frame.get(register));
    // The code may have changed since, or an earlier part of the access may be in memory: then this isn't what has faulted.
    if !agrees(&instruction, address, abort) {
        return reject_data(vcpu, abort);
    }
    let Some(places) = places(vcpu, &instruction, address, hit) else { return };
    let Some(values) = perform_all(vcpu, frame, &instruction, &places) else { return };
    if !instruction.access.is_write() {
        load(frame, &instruction, &values);
    }
    match new_base {
        Some(value) if instruction.base == SP => set_stack_pointer(value),
        Some(value) => frame.set(instruction.base, value),
        None => {}
    }
    skip();
}

/// Whether the instruction is what the syndrome is about, and something that a device answers: its accesses are aligned.
fn agrees(instruction: &LoadStore, address: u64, abort: Abort) -> bool {
    // A tag in the top byte isn't part of the address, and may be lost on the way.
    const ADDRESS: u64 = (1 << 56) - 1;
    (address ^ FAR_EL2.get()) & ADDRESS == 0
        && instruction.access.is_write() == abort.is_write()
        && address.is_multiple_of(instruction.access_bytes())
}

/// Where each access of the instruction is, if all of them are of the one device. Else an abort is taken for the first one that isn't,
/// and none is made.
fn places(
    vcpu: &'static Vcpu,
    instruction: &LoadStore,
    address: u64,
    first: Hit,
) -> Option<[Hit; MOST_PARTS]> {
    const PAGE: u64 = 0xfff;
    let write = instruction.access.is_write();
    let start = faulting_ipa().as_u64();
    let mut places = [first; MOST_PARTS];
    for (place, number) in places.iter_mut().zip(0..instruction.parts().count() as u64).skip(1) {
        let before = instruction.access_bytes().wrapping_mul(number);
        let at = address.wrapping_add(before);
        let ipa = match (at ^ address) & !PAGE {
            0 => Ok(Ipa::new(start.wrapping_add(before))),
            _ => translate(at, is_at_el0(), write),
        };
        let status = match ipa.map(|ipa| vcpu.vm.mmio.find(ipa)) {
            Ok(Some(hit)) if hit.device == first.device => {
                *place = hit;
                continue;
            }
            Ok(_) => external_abort(None),
            Err(status) => status,
        };
        inject(Exception::DataAbort { far: Some(at), write, cache_maintenance: false, status });
        return None;
    }
    Some(places)
}

/// Makes all accesses of the instruction: what loads have brought, extended as they say. `None`: one isn't done, and the guest executes
/// the instruction again. Only reads of the interrupt controller are, which change nothing.
fn perform_all(
    vcpu: &'static Vcpu,
    frame: &Frame,
    instruction: &LoadStore,
    places: &[Hit; MOST_PARTS],
) -> Option<[u64; MOST_PARTS]> {
    let vectors = (instruction.bank != Bank::General).then(Simd::current);
    let mut values = [0; MOST_PARTS];
    for ((value, hit), (register, upper)) in values.iter_mut().zip(places).zip(instruction.parts()) {
        // Each has registers of its own, of which the access names X0.
        let mut one = Short::default();
        one.set(
            0,
            match &vectors {
                Some(vectors) => vectors.half(register, upper),
                None => frame.get(register),
            },
        );
        if !perform(vcpu, &mut one, *hit, instruction.access) {
            return None;
        }
        *value = one.get(0);
    }
    Some(values)
}

/// Puts what was loaded into the guest's registers.
fn load(frame: &mut Frame, instruction: &LoadStore, values: &[u64; MOST_PARTS]) {
    let loaded = instruction.parts().zip(values);
    if instruction.bank == Bank::General {
        return loaded.for_each(|((register, _), value)| frame.set(register, *value));
    }
    let mut vectors = Simd::current();
    loaded.for_each(|((register, upper), value)| vectors.set_half(register, upper, *value));
    vectors.load();
}

/// SPSR_EL2.M: the guest was at EL0.
fn is_at_el0() -> bool {
    SPSR_EL2.get() >> 2 & 3 == 0
}

/// Whether the guest's stack pointer is SP_EL0, at EL0 or at EL1.
fn uses_sp_el0() -> bool {
    SPSR_EL2.get() & 1 == 0
}

fn stack_pointer() -> u64 {
    if uses_sp_el0() { SP_EL0.get() } else { SP_EL1.get() }
}

fn set_stack_pointer(value: u64) {
    if uses_sp_el0() { SP_EL0.set(value) } else { SP_EL1.set(value) }
}

/// The guest's load is done: what it reads.
#[inline]
pub fn give(frame: &mut Short, access: Access, value: u64) {
    frame.set(access.register(), access.extend(value));
    skip();
}

/// What the guest's store writes.
#[inline]
pub fn stored(frame: &Short, access: Access) -> u64 {
    access.truncate(frame.get(access.register()))
}

// The devices behind a 32-bit bus: a doubleword access reaches the one register.

#[inline(never)]
fn uart(vcpu: &'static Vcpu, frame: &mut Short, offset: u32, access: Access) {
    if access.is_write() {
        vcpu.vm.uart_write(offset, stored(frame, access) as u32);
        skip();
    } else {
        let value = vcpu.vm.uart_read(offset);
        give(frame, access, value.into());
    }
}

#[inline(never)]
fn rtc(vcpu: &'static Vcpu, frame: &mut Short, offset: u32, access: Access) {
    let now = timer::now();
    if access.is_write() {
        vcpu.vm.rtc_write(offset, stored(frame, access) as u32, now);
        skip();
    } else {
        let value = vcpu.vm.rtc_read(offset, now);
        give(frame, access, value.into());
    }
}

fn width(access: Access) -> Width {
    match access.size() {
        0 => Width::Byte,
        1 => Width::Half,
        2 => Width::Word,
        _ => Width::Double,
    }
}

#[inline(never)]
fn distributor_read(vcpu: &'static Vcpu, frame: &mut Short, offset: u32, access: Access) {
    let read = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        let Read { value, kicks } =
            vgic.distributor_read(vcpu.id, offset.into(), width(access), &mut hardware);
        (value, vgic.settle(vcpu.id, kicks, &mut hardware))
    });
    finish(vcpu, frame, access, read);
}

#[inline(never)]
fn distributor_write(vcpu: &'static Vcpu, frame: &mut Short, offset: u32, access: Access) {
    let value = stored(frame, access);
    let kicks = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        let kicks = vgic.distributor_write(vcpu.id, offset.into(), width(access), value, &mut hardware);
        vgic.settle(vcpu.id, kicks, &mut hardware)
    });
    skip();
    vcpu.vm.kick(kicks.unwrap_or(Kicks::NONE));
}

/// Bytes of a vCPU's redistributor in the guest's map.
const REDISTRIBUTOR_SHIFT: u32 = 17;

#[inline(never)]
fn redistributor(vcpu: &'static Vcpu, frame: &mut Short, offset: u32, access: Access) {
    let whose = VcpuId((offset >> REDISTRIBUTOR_SHIFT) as u8);
    let offset = u64::from(offset & ((1 << REDISTRIBUTOR_SHIFT) - 1));
    let (width, value) = (width(access), stored(frame, access));
    let done = with_hardware!(|hardware| {
        let mut vgic = vcpu.vm.vgic.lock();
        let (value, kicks) = if access.is_write() {
            (Some(value), vgic.redistributor_write(whose, vcpu.id, offset, width, value, &mut hardware))
        } else {
            let Read { value, kicks } = vgic.redistributor_read(whose, vcpu.id, offset, width, &mut hardware);
            (value, kicks)
        };
        (value, vgic.settle(vcpu.id, kicks, &mut hardware))
    });
    finish(vcpu, frame, access, done);
}

/// The access to the interrupt controller is done: with this value, if another CPU doesn't have to look first, and these to kick.
#[inline]
fn finish(vcpu: &'static Vcpu, frame: &mut Short, access: Access, done: Option<(Option<u64>, Kicks)>) {
    let (value, kicks) = done.unwrap_or((Some(0), Kicks::NONE));
    vcpu.vm.kick(kicks);
    match value {
        Some(_) if access.is_write() => skip(),
        Some(value) => give(frame, access, value),
        // The guest's load is executed again.
        None => {}
    }
}
