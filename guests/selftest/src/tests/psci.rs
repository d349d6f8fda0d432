//! PSCI: turning CPUs on and off, and suspending them.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::psci;
use runtime::call::call3;
use runtime::exceptions::catch;
use runtime::machine::Conduit;
use runtime::timer::{Timer, milliseconds};
use runtime::{cpu, gic, machine, smp};

use crate::framework::{
    Outcome, check, check_eq, expect_soon, finish, is_hanok, needs_cpus, needs_hanok, secondaries, start,
    tests, wait,
};

tests! {
    "psci.affinity-info" => affinity_info,
    "psci.cpu-on-self" => cpu_on_self,
    "psci.cpu-on-unknown" => cpu_on_unknown,
    "psci.cpu-on-outside-ram" => cpu_on_outside_ram,
    "psci.cpu-on-off-on" => cpu_on_off_on,
    "psci.cpu-on-running" => cpu_on_running,
    "psci.cpu-on-by-both-conduits" => cpu_on_by_both_conduits,
    "psci.cpus-all-at-once" => cpus_all_at_once,
    "psci.entry-state" => entry_state,
    "psci.suspend-until-timer" => suspend_until_timer,
    "psci.suspend-with-interrupt-pending" => suspend_with_interrupt_pending,
}

/// An affinity that no CPU here has.
const NOBODY: u64 = 0x7f_0000;

fn affinity_info() -> Outcome {
    let ask = |affinity| call3(machine().conduit, psci::AFFINITY_INFO_64, [affinity, 0, 0]);
    check_eq!(ask(machine().cpus()[0]), psci::AFFINITY_ON, "AFFINITY_INFO of this CPU");
    for cpu in secondaries() {
        check_eq!(ask(machine().cpus()[cpu]), psci::AFFINITY_OFF, "AFFINITY_INFO of CPU {cpu}");
    }
    check_eq!(ask(NOBODY), psci::INVALID_PARAMETERS, "AFFINITY_INFO of a CPU that isn't there");
    let own = machine().cpus()[0];
    let by_32 = call3(machine().conduit, psci::AFFINITY_INFO_32, [own, 0, 0]);
    check_eq!(by_32, psci::AFFINITY_ON, "AFFINITY_INFO of this CPU, 32-bit convention");
    Ok(())
}

fn cpu_on_self() -> Outcome {
    let status = smp::try_power_on(machine().conduit, machine().cpus()[0]);
    check_eq!(status, psci::ALREADY_ON, "CPU_ON of this CPU");
    Ok(())
}

fn cpu_on_unknown() -> Outcome {
    let count = machine().cpus().len() as u64;
    // Aff0 one too high, every other affinity field, and bits that are none.
    for affinity in [count, NOBODY, 1 << 8, 1 << 16, 1 << 32, 1 << 24, 1 << 31, 1 << 40, u64::MAX] {
        let status = smp::try_power_on(machine().conduit, affinity);
        check_eq!(status, psci::INVALID_PARAMETERS, "CPU_ON of {affinity:#x}");
    }
    Ok(())
}

fn cpu_on_outside_ram() -> Outcome {
    needs_hanok()?;
    needs_cpus(2)?;
    let target = machine().cpus()[1];
    for entry in [machine().ram_end(), 0x0b00_0000, machine().uart.registers.base, 1 << 40, !3] {
        let status = call3(machine().conduit, psci::CPU_ON_64, [target, entry, 0]);
        check_eq!(status, psci::INVALID_ADDRESS, "CPU_ON with entry {entry:#x}");
        check_eq!(smp::affinity_info(1), psci::AFFINITY_OFF, "AFFINITY_INFO after it");
    }
    Ok(())
}

static ARRIVED: AtomicU64 = AtomicU64::new(0);

fn arrive(argument: u64) {
    ARRIVED.store(argument << 8 | cpu::index() as u64, Ordering::Release);
}

fn cpu_on_off_on() -> Outcome {
    needs_cpus(2)?;
    for (round, cpu) in (1..4).flat_map(|round| secondaries().map(move |cpu| (round, cpu))) {
        // The context id is the address of the CPU's own arguments: its index and its stack come from there.
        start(cpu, arrive, round)?;
        finish(cpu)?;
        let arrived = ARRIVED.swap(0, Ordering::Acquire);
        check_eq!(arrived, round << 8 | cpu as u64, "round {round}: what CPU {cpu} found by its context id");
    }
    Ok(())
}

static GO_ON: AtomicBool = AtomicBool::new(false);

fn run_until_told(_: u64) {
    ARRIVED.store(1, Ordering::Release);
    wait(|| GO_ON.load(Ordering::Acquire));
}

fn cpu_on_running() -> Outcome {
    needs_cpus(2)?;
    GO_ON.store(false, Ordering::Release);
    ARRIVED.store(0, Ordering::Release);
    let target = machine().cpus()[1];
    start(1, run_until_told, 0)?;
    // Natively QEMU may take a second CPU_ON before the first has come into effect.
    let early = if is_hanok() { smp::try_power_on(machine().conduit, target) } else { psci::ALREADY_ON };
    expect_soon(|| ARRIVED.load(Ordering::Acquire) == 1, format_args!("CPU 1 should run"))?;
    let late = smp::try_power_on(machine().conduit, target);
    let info = smp::affinity_info(1);
    GO_ON.store(true, Ordering::Release);
    finish(1)?;
    check!(
        [psci::ALREADY_ON, psci::ON_PENDING].contains(&early),
        "CPU_ON again at once: -4 or -5, got {early}"
    );
    check_eq!(late, psci::ALREADY_ON, "CPU_ON of a CPU that runs");
    check_eq!(info, psci::AFFINITY_ON, "AFFINITY_INFO of a CPU that runs");
    Ok(())
}

fn cpu_on_by_both_conduits() -> Outcome {
    needs_hanok()?;
    needs_cpus(2)?;
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        let (result, fault) = catch(|| smp::start_by(conduit, 1, arrive, 7));
        check_eq!((result, fault), (Ok(()), None), "CPU_ON by {conduit:?}");
        finish(1)?;
        check_eq!(ARRIVED.swap(0, Ordering::Acquire), 7 << 8 | 1, "what CPU 1 found, by {conduit:?}");
    }
    Ok(())
}

static SUM: AtomicU64 = AtomicU64::new(0);
const ADDITIONS: u64 = 20_000;

fn add(_: u64) {
    for _ in 0..ADDITIONS {
        SUM.fetch_add(1, Ordering::Relaxed);
    }
}

fn cpus_all_at_once() -> Outcome {
    needs_cpus(2)?;
    SUM.store(0, Ordering::Relaxed);
    for cpu in secondaries() {
        start(cpu, add, 0)?;
    }
    add(0);
    secondaries().try_for_each(finish)?;
    let expected = ADDITIONS * machine().cpus().len() as u64;
    check_eq!(SUM.load(Ordering::Relaxed), expected, "additions by all CPUs");
    Ok(())
}

fn entry_state() -> Outcome {
    needs_cpus(2)?;
    for cpu in secondaries() {
        start(cpu, arrive, 0)?;
        finish(cpu)?;
        let state = smp::entry_state(cpu);
        // M, C and I (Arm DEN0022, 6.4.3).
        check_eq!(state.sctlr & 0x1005, 0, "CPU {cpu}: MMU and caches in SCTLR_EL1 {:#x}", state.sctlr);
        check_eq!(state.sctlr >> 24 & 3, 0, "CPU {cpu}: endianness in SCTLR_EL1");
        check_eq!(state.current_el, 1 << 2, "CPU {cpu}: CurrentEL");
        check_eq!(state.spsel, 1, "CPU {cpu}: SPSel");
        check_eq!(state.daif, 0xf << 6, "CPU {cpu}: DAIF");
        check_eq!(state.affinity, machine().cpus()[cpu], "CPU {cpu}: MPIDR_EL1");
    }
    Ok(())
}

fn suspend() -> i64 {
    call3(machine().conduit, psci::CPU_SUSPEND_64, [0, 0, 0])
}

fn suspend_until_timer() -> Outcome {
    for timer in Timer::ALL {
        gic::enable(timer.intid());
        let deadline = timer.count() + milliseconds(20);
        timer.start(deadline);
        // Standby may end early; it must not end late.
        let mut rounds = 0;
        while timer.count() < deadline {
            check_eq!(suspend(), psci::SUCCESS, "CPU_SUSPEND, standby");
            rounds += 1;
        }
        let late = timer.count() - deadline;
        check!(
            late < milliseconds(5000),
            "{timer:?} should wake the CPU: {late} ticks late, {rounds} rounds"
        );
        // A CPU that doesn't sleep would go round thousands of times.
        check!(rounds < 1000 || !is_hanok(), "CPU_SUSPEND should sleep: {rounds} rounds in 20 ms");
        timer.stop();
        gic::disable(timer.intid());
    }
    Ok(())
}

fn suspend_with_interrupt_pending() -> Outcome {
    gic::send_sgi(3, gic::SgiTarget::Cpu(0));
    expect_soon(cpu::irq_waits, format_args!("SGI 3 should wait"))?;
    check_eq!(suspend(), psci::SUCCESS, "CPU_SUSPEND with an interrupt pending");
    let interrupt = gic::acknowledge();
    check_eq!(interrupt.map(|interrupt| interrupt.intid()), Some(3), "the interrupt, after it");
    interrupt.into_iter().for_each(gic::end);
    Ok(())
}
