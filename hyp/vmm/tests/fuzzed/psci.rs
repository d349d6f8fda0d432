//! Power calls as guests make them, by X0 to X3, from all vCPUs in any order, against a list of what each vCPU is
//! (Arm DEN0022). Every byte and every word means something, so that no input is thrown away.

use abi::psci;
use vgic::VcpuId;
use vmm::affinity::{MAX_VCPUS, vcpu_affinity};
use vmm::layout::{Ipa, Region};
use vmm::psci::{Outcome, PowerRequest, PowerState, PowerStates, Start};
use vmm::smccc::{Answer, Call, Offers};

use crate::words::Words;

const RAM: u64 = 0x4000_0000;
const SIZE: u64 = 0x1000_0000;

/// What a vCPU is, by the specification; with how it is to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Vcpu {
    Off,
    OnPending(u64, u64),
    On,
}

/// The first byte says how many vCPUs there are; then come steps.
pub fn check(bytes: &[u8]) {
    let mut words = Words::new(bytes);
    let vcpus = words.byte() % MAX_VCPUS + 1;
    let ram = Region { base: Ipa::new(RAM), size: SIZE };
    let mut vm = PowerStates::new(vcpus, &[ram]).unwrap();
    let mut model = vec![Vcpu::Off; usize::from(vcpus)];
    boot(&mut vm, &mut model);
    while !words.is_empty() {
        let vcpu = words.byte() % vcpus;
        match words.byte() {
            // Its CPU looks whether it is to start.
            0..=0x3f => take(&mut vm, &mut model, vcpu),
            0x40 => boot(&mut vm, &mut model),
            0x41 => {
                vm.stop();
                model.fill(Vcpu::Off);
            }
            what => {
                // Only a vCPU that runs can call.
                let x = call(&mut words, what, vcpus);
                if model[usize::from(vcpu)] == Vcpu::On {
                    power_call(&mut vm, &mut model, vcpu, &x);
                }
            }
        }
        compare(&vm, &model);
    }
}

fn boot(vm: &mut PowerStates, model: &mut [Vcpu]) {
    vm.boot(Start { entry: Ipa::new(RAM + 0x8_0000), context: RAM });
    model.fill(Vcpu::Off);
    model[0] = Vcpu::OnPending(RAM + 0x8_0000, RAM);
}

fn take(vm: &mut PowerStates, model: &mut [Vcpu], vcpu: u8) {
    let state = &mut model[usize::from(vcpu)];
    let expected = match *state {
        Vcpu::OnPending(entry, context) => Some(Start { entry: Ipa::new(entry), context }),
        _ => None,
    };
    assert_eq!(vm.take_start(VcpuId(vcpu)), expected);
    if expected.is_some() {
        *state = Vcpu::On;
    }
}

/// X0 to X4: one of the power calls, with arguments that mostly mean something.
fn call(words: &mut Words, what: u8, vcpus: u8) -> [u64; 5] {
    const IDS: [abi::FunctionId; 10] = [
        psci::CPU_ON_64,
        psci::CPU_ON_32,
        psci::CPU_OFF,
        psci::AFFINITY_INFO_64,
        psci::AFFINITY_INFO_32,
        psci::CPU_SUSPEND_64,
        psci::CPU_SUSPEND_32,
        psci::SYSTEM_OFF,
        psci::SYSTEM_RESET,
        psci::CPU_ON_64,
    ];
    let id = IDS[usize::from(what) % IDS.len()];
    let shape = words.byte();
    let affinity = vcpu_affinity(VcpuId(words.byte() % (vcpus + 1))).to_mpidr();
    let target = if shape & 1 == 0 { affinity } else { words.word() };
    let entry = if shape & 2 == 0 { RAM + u64::from(words.byte()) * 4 } else { words.word() };
    // What stands above a W register isn't the caller's.
    let above = if shape & 4 == 0 { 0 } else { 0xdead_beef << 32 };
    let above = if id.is_64bit() { 0 } else { above };
    [u64::from(id.as_u32()) | 0xffff << 32, target | above, entry | above, words.byte().into(), 0]
}

fn power_call(vm: &mut PowerStates, model: &mut [Vcpu], caller: u8, x: &[u64; 5]) {
    let call = Call::named(x[0]).expect("it is in the table");
    let Answer::Power(request) = call.answer(x, &Offers::default()) else {
        panic!("{call:?} is a power call")
    };
    let is_64bit = x[0] as u32 & 1 << 30 != 0;
    let argument = |value: u64| if is_64bit { value } else { value & 0xffff_ffff };
    let expected = match request {
        PowerRequest::CpuOff => {
            model[usize::from(caller)] = Vcpu::Off;
            Outcome::StopVcpu
        }
        PowerRequest::CpuOn { target, entry, context } => {
            assert_eq!((target, entry.as_u64(), context), (argument(x[1]), argument(x[2]), argument(x[3])));
            cpu_on(model, target, entry.as_u64(), context)
        }
        PowerRequest::AffinityInfo { target, level } => {
            assert_eq!((target, level), (argument(x[1]), x[2] as u32));
            affinity_info(model, target, level)
        }
        PowerRequest::CpuSuspend { power_state, entry } => {
            assert_eq!((power_state, entry.as_u64()), (x[1] as u32, argument(x[2])));
            // Bits 15:0 and 25:24 are the platform's, bit 16 is the type.
            match power_state {
                state if state & !0x0301_ffff != 0 => code(psci::INVALID_PARAMETERS),
                state if state & 1 << 16 != 0 && !is_entry(entry.as_u64()) => code(psci::INVALID_ADDRESS),
                _ => Outcome::Suspend,
            }
        }
        PowerRequest::SystemOff => Outcome::SystemOff,
        PowerRequest::SystemReset => Outcome::SystemReset,
    };
    assert_eq!(vm.call(VcpuId(caller), request), expected, "{request:x?}");
}

const fn code(code: i64) -> Outcome {
    Outcome::Return(code as u64)
}

fn is_entry(entry: u64) -> bool {
    entry.is_multiple_of(4) && (RAM..RAM + SIZE).contains(&entry)
}

fn cpu_on(model: &mut [Vcpu], target: u64, entry: u64, context: u64) -> Outcome {
    let affinity = |n: &usize| vcpu_affinity(VcpuId(*n as u8)).to_mpidr() == target;
    let Some(n) = (0..model.len()).find(affinity) else { return code(psci::INVALID_PARAMETERS) };
    match model[n] {
        Vcpu::On => code(psci::ALREADY_ON),
        Vcpu::OnPending(..) => code(psci::ON_PENDING),
        Vcpu::Off if !is_entry(entry) => code(psci::INVALID_ADDRESS),
        Vcpu::Off => {
            model[n] = Vcpu::OnPending(entry, context);
            Outcome::StartVcpu(VcpuId(n as u8))
        }
    }
}

/// Of all vCPUs whose affinity is the same from `level` up.
fn affinity_info(model: &[Vcpu], target: u64, level: u32) -> Outcome {
    const FIELDS: [u32; 4] = [0, 8, 16, 32];
    let field = |affinity: u64, n: u32| affinity >> FIELDS[n as usize] & 0xff;
    let is_affinity = target & !0xff_00ff_ffff == 0 && level < 4;
    let is_meant = |n: usize| {
        let affinity = vcpu_affinity(VcpuId(n as u8)).to_mpidr();
        is_affinity && (level..4).all(|n| field(affinity, n) == field(target, n))
    };
    let meant: Vec<Vcpu> = (0..model.len()).filter(|n| is_meant(*n)).map(|n| model[n]).collect();
    code(match meant[..] {
        [] => psci::INVALID_PARAMETERS,
        _ if meant.contains(&Vcpu::On) => psci::AFFINITY_ON,
        _ if meant.iter().any(|vcpu| *vcpu != Vcpu::Off) => psci::AFFINITY_ON_PENDING,
        _ => psci::AFFINITY_OFF,
    })
}

fn compare(vm: &PowerStates, model: &[Vcpu]) {
    for (n, vcpu) in model.iter().enumerate() {
        let expected = match vcpu {
            Vcpu::Off => PowerState::Off,
            Vcpu::OnPending(..) => PowerState::OnPending,
            Vcpu::On => PowerState::On,
        };
        assert_eq!(vm.state(VcpuId(n as u8)), expected, "vCPU {n}");
    }
    assert_eq!(vm.all_off(), model.iter().all(|vcpu| *vcpu == Vcpu::Off));
}
