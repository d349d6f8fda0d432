//! PSCI's power states: each error of the specification, and random calls against a list of states.

use abi::psci;
use proptest::prelude::*;
use stage2::Ipa;
use vgic::VcpuId;
use vmm::affinity::{MAX_VCPUS, vcpu_affinity};
use vmm::layout::Region;
use vmm::psci::{Outcome, PowerRequest, PowerState, PowerStates, Start, VcpuCountError};

const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 0x1000_0000;
const FIRST: Start = Start { entry: Ipa::new(RAM + 0x20_0000), context: RAM };

fn vm(vcpus: u8) -> PowerStates {
    let ram = Region { base: Ipa::new(RAM), size: RAM_SIZE };
    let mut vm = PowerStates::new(vcpus, &[ram]).unwrap();
    vm.boot(FIRST);
    assert_eq!(vm.take_start(VcpuId(0)), Some(FIRST));
    vm
}

fn cpu_on(vm: &mut PowerStates, target: u64, entry: u64) -> Outcome {
    vm.call(VcpuId(0), PowerRequest::CpuOn { target, entry: Ipa::new(entry), context: 7 })
}

fn affinity_info(vm: &mut PowerStates, target: u64, level: u32) -> Outcome {
    vm.call(VcpuId(0), PowerRequest::AffinityInfo { target, level })
}

fn code(code: i64) -> Outcome {
    Outcome::Return(code as u64)
}

#[test]
fn boot_starts_the_first_vcpu_alone() {
    let mut vm = PowerStates::new(4, &[]).unwrap();
    assert!(vm.all_off());
    vm.boot(FIRST);
    assert_eq!(vm.state(VcpuId(0)), PowerState::OnPending);
    assert!((1..4).all(|n| vm.state(VcpuId(n)) == PowerState::Off));
    assert_eq!(vm.take_start(VcpuId(1)), None);
    assert_eq!(vm.take_start(VcpuId(0)), Some(FIRST));
    assert_eq!(vm.take_start(VcpuId(0)), None);
    assert_eq!(vm.state(VcpuId(0)), PowerState::On);
    assert!(!vm.all_off());
}

#[test]
fn a_vcpu_goes_on_and_off_and_on_again() {
    let mut vm = vm(2);
    assert_eq!(affinity_info(&mut vm, 1, 0), code(psci::AFFINITY_OFF));
    assert_eq!(cpu_on(&mut vm, 1, RAM + 64), Outcome::StartVcpu(VcpuId(1)));
    assert_eq!(affinity_info(&mut vm, 1, 0), code(psci::AFFINITY_ON_PENDING));
    assert_eq!(cpu_on(&mut vm, 1, RAM), code(psci::ON_PENDING));
    // The refused call must not have changed where the vCPU starts.
    assert_eq!(vm.take_start(VcpuId(1)), Some(Start { entry: Ipa::new(RAM + 64), context: 7 }));
    assert_eq!(affinity_info(&mut vm, 1, 0), code(psci::AFFINITY_ON));
    assert_eq!(cpu_on(&mut vm, 1, RAM), code(psci::ALREADY_ON));
    assert_eq!(vm.call(VcpuId(1), PowerRequest::CpuOff), Outcome::StopVcpu);
    assert_eq!(affinity_info(&mut vm, 1, 0), code(psci::AFFINITY_OFF));
    assert_eq!(cpu_on(&mut vm, 1, RAM), Outcome::StartVcpu(VcpuId(1)));
    assert_eq!(vm.call(VcpuId(0), PowerRequest::CpuOff), Outcome::StopVcpu);
    assert!(!vm.all_off(), "one is still to start");
    vm.stop();
    assert!(vm.all_off());
}

#[test]
fn cpu_on_refuses_targets_that_are_not_there() {
    let mut vm = vm(2);
    for target in [2, 16, 0x100, 0x1_0000, 1 << 32, 1 << 24, 1 << 31, 1 << 40, 1 << 63, 0x8000_0001, u64::MAX]
    {
        assert_eq!(cpu_on(&mut vm, target, RAM), code(psci::INVALID_PARAMETERS), "{target:#x}");
    }
}

#[test]
fn cpu_on_refuses_entries_outside_ram() {
    let mut vm = vm(2);
    for entry in [0, RAM - 4, RAM + RAM_SIZE, RAM + 1, RAM + 2, u64::MAX, u64::MAX - 3] {
        assert_eq!(cpu_on(&mut vm, 1, entry), code(psci::INVALID_ADDRESS), "{entry:#x}");
        assert_eq!(vm.state(VcpuId(1)), PowerState::Off);
    }
    assert_eq!(cpu_on(&mut vm, 1, RAM + RAM_SIZE - 4), Outcome::StartVcpu(VcpuId(1)));
}

#[test]
fn a_running_target_is_told_of_before_the_entry() {
    let mut vm = vm(2);
    assert_eq!(cpu_on(&mut vm, 0, 0), code(psci::ALREADY_ON));
}

#[test]
fn cpu_suspend_waits_or_names_the_wrong_argument() {
    let mut vm = vm(1);
    let mut suspend = |power_state, entry| {
        vm.call(VcpuId(0), PowerRequest::CpuSuspend { power_state, entry: Ipa::new(entry) })
    };
    assert_eq!(suspend(0, 0), Outcome::Suspend);
    assert_eq!(suspend(0x0300_ffff, 0), Outcome::Suspend);
    assert_eq!(suspend(0x0101_0000, RAM), Outcome::Suspend);
    assert_eq!(suspend(0x0101_0000, 0), code(psci::INVALID_ADDRESS));
    for bit in (17..24).chain(26..32) {
        assert_eq!(suspend(1 << bit, RAM), code(psci::INVALID_PARAMETERS), "bit {bit}");
    }
}

#[test]
fn affinity_info_of_clusters() {
    let mut vm = vm(20);
    assert_eq!(affinity_info(&mut vm, 0x103, 0), code(psci::AFFINITY_OFF));
    assert_eq!(affinity_info(&mut vm, 0x104, 0), code(psci::INVALID_PARAMETERS));
    assert_eq!(affinity_info(&mut vm, 0x1ff, 1), code(psci::AFFINITY_OFF));
    assert_eq!(affinity_info(&mut vm, 0x200, 1), code(psci::INVALID_PARAMETERS));
    assert_eq!(affinity_info(&mut vm, 0, 1), code(psci::AFFINITY_ON));
    assert_eq!(affinity_info(&mut vm, 0xffff, 2), code(psci::AFFINITY_ON));
    assert_eq!(affinity_info(&mut vm, 0x1_0000, 2), code(psci::INVALID_PARAMETERS));
    assert_eq!(affinity_info(&mut vm, 0xff_ffff, 3), code(psci::AFFINITY_ON));
    assert_eq!(affinity_info(&mut vm, 1 << 32, 3), code(psci::INVALID_PARAMETERS));
    assert_eq!(affinity_info(&mut vm, 0, 4), code(psci::INVALID_PARAMETERS));
    assert_eq!(affinity_info(&mut vm, 1 << 31, 3), code(psci::INVALID_PARAMETERS));
    assert_eq!(cpu_on(&mut vm, 0x103, RAM), Outcome::StartVcpu(VcpuId(19)));
    assert_eq!(affinity_info(&mut vm, 0x100, 1), code(psci::AFFINITY_ON_PENDING));
}

#[test]
fn the_system_calls_are_passed_on() {
    let mut vm = vm(1);
    assert_eq!(vm.call(VcpuId(0), PowerRequest::SystemOff), Outcome::SystemOff);
    assert_eq!(vm.call(VcpuId(0), PowerRequest::SystemReset), Outcome::SystemReset);
}

#[test]
fn a_vm_has_1_to_64_vcpus() {
    assert_eq!(PowerStates::new(0, &[]).unwrap_err(), VcpuCountError(0));
    assert_eq!(PowerStates::new(65, &[]).unwrap_err().to_string(), "65 vCPUs: a VM has 1 to 64");
    let mut vm = vm(MAX_VCPUS);
    assert_eq!(cpu_on(&mut vm, 0x30f, RAM), Outcome::StartVcpu(VcpuId(63)));
    assert_eq!(vm.take_start(VcpuId(63)).unwrap().context, 7);
}

#[derive(Clone, Debug)]
enum Step {
    On { target: u64, entry: u64 },
    Off { caller: u8 },
    Info { target: u64 },
    Take { vcpu: u8 },
    Reboot,
}

fn step() -> impl Strategy<Value = Step> {
    let target = || prop_oneof![8 => 0_u64..7, 1 => any::<u64>()];
    let entry = prop_oneof![3 => (RAM / 4..RAM / 4 + 100).prop_map(|word| word * 4), 1 => any::<u64>()];
    prop_oneof![
        4 => (target(), entry).prop_map(|(target, entry)| Step::On { target, entry }),
        2 => (0_u8..5).prop_map(|caller| Step::Off { caller }),
        2 => target().prop_map(|target| Step::Info { target }),
        4 => (0_u8..5).prop_map(|vcpu| Step::Take { vcpu }),
        1 => Just(Step::Reboot),
    ]
}

proptest! {
    #[test]
    fn random_calls_agree_with_a_list_of_states(steps in proptest::collection::vec(step(), 0..200)) {
        let mut vm = vm(5);
        let mut model: Vec<(PowerState, u64)> = vec![(PowerState::Off, 0); 5];
        model[0].0 = PowerState::On;
        for step in steps {
            match step {
                Step::On { target, entry } => {
                    let in_ram = entry % 4 == 0 && (RAM..RAM + RAM_SIZE).contains(&entry);
                    let expected = match model.get_mut(usize::try_from(target).unwrap_or(usize::MAX)) {
                        None => code(psci::INVALID_PARAMETERS),
                        Some((PowerState::On, _)) => code(psci::ALREADY_ON),
                        Some((PowerState::OnPending, _)) => code(psci::ON_PENDING),
                        Some(_) if !in_ram => code(psci::INVALID_ADDRESS),
                        Some(state) => {
                            *state = (PowerState::OnPending, entry);
                            Outcome::StartVcpu(VcpuId(target as u8))
                        }
                    };
                    prop_assert_eq!(cpu_on(&mut vm, target, entry), expected);
                }
                Step::Off { caller } => {
                    // Only a vCPU that runs can call.
                    if model[usize::from(caller)].0 == PowerState::On {
                        prop_assert_eq!(vm.call(VcpuId(caller), PowerRequest::CpuOff), Outcome::StopVcpu);
                        model[usize::from(caller)].0 = PowerState::Off;
                    }
                }
                Step::Info { target } => {
                    let expected = match model.get(usize::try_from(target).unwrap_or(usize::MAX)) {
                        None => psci::INVALID_PARAMETERS,
                        Some((PowerState::On, _)) => psci::AFFINITY_ON,
                        Some((PowerState::Off, _)) => psci::AFFINITY_OFF,
                        Some((PowerState::OnPending, _)) => psci::AFFINITY_ON_PENDING,
                    };
                    prop_assert_eq!(affinity_info(&mut vm, target, 0), code(expected));
                }
                Step::Take { vcpu } => {
                    let (state, entry) = &mut model[usize::from(vcpu)];
                    let expected = (*state == PowerState::OnPending).then_some(*entry);
                    prop_assert_eq!(vm.take_start(VcpuId(vcpu)).map(|start| start.entry.as_u64()), expected);
                    if expected.is_some() {
                        *state = PowerState::On;
                    }
                }
                Step::Reboot => {
                    vm.boot(FIRST);
                    model.fill((PowerState::Off, 0));
                    model[0] = (PowerState::OnPending, FIRST.entry.as_u64());
                }
            }
            for (n, (state, _)) in model.iter().enumerate() {
                prop_assert_eq!(vm.state(VcpuId(n as u8)), *state);
            }
            prop_assert_eq!(vm.all_off(), model.iter().all(|(state, _)| *state == PowerState::Off));
        }
    }

    /// Whatever a guest passes, the vCPU that is started is the one whose affinity was named.
    #[test]
    fn a_start_is_for_the_vcpu_that_was_named(vcpus in 1..=MAX_VCPUS, target in 0_u64..0x500) {
        let mut vm = vm(vcpus);
        if let Outcome::StartVcpu(vcpu) = cpu_on(&mut vm, target, RAM) {
            prop_assert!(vcpu.0 < vcpus);
            prop_assert_eq!(vcpu_affinity(vcpu).to_mpidr(), target);
        }
    }
}
